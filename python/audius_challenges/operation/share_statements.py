r"""The statements that make shares, and take them down: printed, for people to read and psql to execute (\gexec).

No function could execute them: CREATE SUBSCRIPTION connects to the other server, and runs in no transaction block.
"""

from __future__ import annotations

from collections.abc import Iterator

from audius_challenges.database import Database
from audius_challenges.engine.shares import (
    MOST_SHARES,
    RETURN,
    SHARED,
    adopt_publication,
    plays_publication,
    read_role,
    return_subscription,
    share_publication,
)
from audius_challenges.errors import OBJECT_NOT_IN_PREREQUISITE_STATE, ChallengeError, null_argument
from audius_challenges.operation.scheduling import has_pg_cron
from audius_challenges.operation.share_tables import (
    DERIVED,
    FILTERS,
    STATE,
    Shared,
    indexes_of,
    is_followed,
    read_tables,
)
from audius_challenges.settings import Settings, Share, read_settings, share_of

STATE_SCHEMA = "audius_challenges"
"""Where the extension's own tables are, in every database."""

_SUBSCRIPTIONS = """
    SELECT subscription.subname::text AS name
    FROM pg_subscription AS subscription
    WHERE subscription.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND subscription.subname ~ '^audius_challenges_(share|adopt|return)_[0-9]+_of_[0-9]+(_epoch_[0-9]+)?$'
    ORDER BY subscription.subname
"""

_PUBLICATIONS = """
    SELECT publication.pubname::text AS name
    FROM pg_publication AS publication
    WHERE publication.pubname ~ '^audius_challenges_(share_[0-9]+_of_[0-9]+(_plays|_adopt)?|return)$'
    ORDER BY publication.pubname
"""

# Of a server that is gone: they would hold back WAL until the disk is full.
_SLOTS = """
    SELECT slot.slot_name::text AS name
    FROM pg_replication_slots AS slot
    WHERE slot.database = current_database()
        AND slot.slot_name ~ '^audius_challenges_(share|adopt|return)_[0-9]+_of_[0-9]+(_epoch_[0-9]+)?$'
        AND NOT slot.active
    ORDER BY slot.slot_name
"""

_TRIGGERS_HERE = """
    SELECT
        sending.tgname::text AS name,
        sending.tgrelid::regclass::text AS table_name
    FROM pg_trigger AS sending
    WHERE sending.tgfoid = 'audius_challenges.send_share()'::regprocedure
    ORDER BY
        table_name,
        sending.tgname
"""

_SETTINGS_HERE = """
    SELECT
        format(
            'ALTER %s RESET audius_challenges.share',
            CASE
                WHEN kept.setrole = 0 THEN format('DATABASE %I', current_database())
                ELSE format('ROLE %I IN DATABASE %I', pg_get_userbyid(kept.setrole), current_database())
            END
        ) AS statement
    FROM pg_db_role_setting AS kept
    CROSS JOIN LATERAL unnest(kept.setconfig) AS entry (text)
    WHERE kept.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND lower(split_part(entry.text, '=', 1)) = 'audius_challenges.share'
    ORDER BY statement
"""


# On the primary


def share_tables(db: Database) -> list[str]:
    """What creates a node's tables, from those that are here."""
    _require_primary(db, read_settings(db), "share_tables()")
    tables = read_tables(db)
    schema = db.plpy.quote_ident(db.schema)
    statements = [] if db.schema == "public" else [f"CREATE SCHEMA IF NOT EXISTS {schema}"]
    # Before the tables are there: it fills and schedules nothing then.
    statements.append(f"CREATE EXTENSION IF NOT EXISTS audius_challenges WITH SCHEMA {schema} CASCADE")
    for table in tables:
        parts = [f"{db.plpy.quote_ident(column)} {kind}" for column, kind in table.columns.items()]
        if table.key:
            parts.append(f"PRIMARY KEY ({_listed(db, table.key)})")
        statements.append(f"CREATE TABLE {schema}.{db.plpy.quote_ident(table.name)} ({', '.join(parts)})")
    return statements + indexes_of(db, tables)


def share_publications(db: Database, shares: int | None) -> list[str]:
    """What publishes each of so many shares: the sources, the plays, and what a node adopts."""
    _require_primary(db, read_settings(db), "share_publications()")
    if shares is None:
        raise null_argument("shares")
    if not 1 <= shares <= MOST_SHARES:
        raise ChallengeError(f"shares must be between 1 and {MOST_SHARES}, not {shares}")
    require_logical(db)
    tables = read_tables(db)
    return [statement for number in range(shares) for statement in _publications(db, tables, Share(number, shares))]


def receive_share(db: Database, share: str | None, conninfo: str | None) -> list[str]:
    """What has the primary receive what a node sends."""
    _require_primary(db, read_settings(db), "receive_share()")
    # What the node has sent before is not there to be copied, and its tables hold none of it.
    return [subscription_of(db, return_subscription(given_share(share)), conninfo, RETURN, copy_data=False)]


def _require_primary(db: Database, settings: Settings, function: str) -> None:
    if read_role(db, settings).is_node:
        raise ChallengeError(
            f"{function} is for the primary, this is a node of shares",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            hint="Call it on the primary.",
        )


def _publications(db: Database, tables: list[Shared], share: Share) -> Iterator[str]:
    followed = [_published(db, table, share) for table in tables if is_followed(table.name)]
    followed += [f"{STATE_SCHEMA}.{name}" for name in STATE]
    plays = [_published(db, table, share) for table in tables if table.name == "plays"]
    derived = [_published(db, table, share) for table in tables if table.name in DERIVED]
    for name, members, publish in (
        (share_publication(share), followed, ""),
        # What is pruned on the primary stays on a node, until it is pruned there.
        (plays_publication(share), plays, "publish = 'insert', "),
        (adopt_publication(share), derived, "publish = '', "),
    ):
        yield (
            f"CREATE PUBLICATION {name} FOR TABLE {', '.join(members)}"
            f" WITH ({publish}publish_via_partition_root = true)"
        )


def _published(db: Database, table: Shared, share: Share) -> str:
    """A table as a publication takes it: its columns, and the rows of the share."""
    listed = f" ({_listed(db, table.columns)})" if table.is_listed else ""
    conditions = []
    if column := FILTERS.get(table.name):
        # Also of a negative id, whose remainder is negative.
        conditions.append(f"(({column} % {share.of}) + {share.of}) % {share.of} = {share.number}")
    if table.name == "user_challenges":
        # No IN: PostgreSQL takes no such list for a column of type varchar here.
        conditions.append(f"({' OR '.join(f'challenge_id = {db.plpy.quote_literal(each)}' for each in SHARED)})")
    where = f" WHERE ({' AND '.join(conditions)})" if conditions else ""
    return f"{qualified(db, table.name)}{listed}{where}"


# On both


def drop_shares(db: Database) -> list[str]:
    """What removes all that shares have created here; what is derived, and what is paid, stays."""
    role = read_role(db, read_settings(db))
    settings = [row["statement"] for row in db.rows(_SETTINGS_HERE)]
    triggers = [
        f"DROP TRIGGER {db.plpy.quote_ident(row['name'])} ON {row['table_name']}" for row in db.rows(_TRIGGERS_HERE)
    ]
    # Not by the setting: where that is a mistake, pauses are the only ones there are.
    was_node = role.is_fed or bool(triggers)
    statements = []
    if role.is_hub:
        # First, so that the primary derives everything before nodes go.
        statements.append("SELECT audius_challenges.plan_shares(0)")
    if was_node and has_pg_cron(db):
        statements.append(f"SELECT * FROM {db.plpy.quote_ident(db.schema)}.unschedule_challenges()")
    subscriptions = [row["name"] for row in db.rows(_SUBSCRIPTIONS)]
    statements += [f"DROP SUBSCRIPTION {name}" for name in subscriptions]
    statements += [f"SELECT pg_drop_replication_slot({db.plpy.quote_literal(row['name'])})" for row in db.rows(_SLOTS)]
    statements += [f"DROP PUBLICATION {row['name']}" for row in db.rows(_PUBLICATIONS)]
    statements += triggers
    if was_node:
        # A plan that stayed would make a primary of this server.
        emptied = ", ".join(f"{STATE_SCHEMA}.{name}" for name in (*STATE, "share_sent"))
        statements.append(f"TRUNCATE {emptied}")
    return statements + settings


# What nodes need, too


def given_share(share: str | None) -> Share:
    """The share that a person names.

    :raises ChallengeError: if there is no such share
    """
    if share is None:
        raise null_argument("share")
    try:
        given = share_of(share)
    except ValueError:
        given = None
    if given is None:
        raise ChallengeError(
            f'invalid share: "{share}"', hint="It is k/N, k from 0 to N - 1: 0/2 and 1/2 are the shares of two nodes."
        )
    return given


def require_logical(db: Database) -> None:
    """Demand a server that can be subscribed to.

    :raises ChallengeError: if its WAL has not enough for that
    """
    level = db.value("SELECT current_setting('wal_level')")
    if level != "logical":
        raise ChallengeError(
            f"wal_level is {level}: nobody could subscribe to this server",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            hint="ALTER SYSTEM SET wal_level = logical; and restart the server.",
        )


def subscription_of(db: Database, name: str, conninfo: str | None, *publications: str, copy_data: bool = True) -> str:
    """CREATE SUBSCRIPTION, to the server of these connection parameters."""
    if conninfo is None:
        raise null_argument("conninfo")
    options = "streaming = off" if copy_data else "copy_data = false, streaming = off"
    return (
        f"CREATE SUBSCRIPTION {name} CONNECTION {db.plpy.quote_literal(conninfo)}"
        f" PUBLICATION {', '.join(publications)} WITH ({options})"
    )


def qualified(db: Database, table: str) -> str:
    """A table of the discovery schema, as statements name it."""
    return f"{db.plpy.quote_ident(db.schema)}.{db.plpy.quote_ident(table)}"


def _listed(db: Database, columns: Iterator[str] | tuple[str, ...] | dict[str, str]) -> str:
    return ", ".join(map(db.plpy.quote_ident, columns))
