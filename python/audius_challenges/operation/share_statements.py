r"""The statements that make shares, and take them down: printed, for people to read and psql to execute (\gexec).

No function could execute them: CREATE SUBSCRIPTION connects to the other server, and runs in no transaction block.
"""

from __future__ import annotations

from collections.abc import Iterator

from audius_challenges.contract import read_contract
from audius_challenges.database import Database
from audius_challenges.engine.shares import (
    MOST_SHARES,
    RETURN,
    SHARED,
    Plan,
    adopt_publication,
    adopt_subscription,
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
    reads_of_shares,
)
from audius_challenges.settings import PREFIX, Settings, Share, read_settings, share_of

TRIGGERS = {"INSERT": "audius_challenges_share_insert", "UPDATE": "audius_challenges_share_update"}
"""The triggers of a node that send what it writes, by what fires them."""

_STATE_SCHEMA = "audius_challenges"

_BATCH_COLUMNS = """
    SELECT attribute.attname::text AS name
    FROM pg_attribute AS attribute
    WHERE attribute.attrelid = 'audius_challenges.share_batch'::regclass
        AND attribute.attnum > 0
        AND NOT attribute.attisdropped
        AND attribute.attname NOT IN ('id', 'is_taken_in', 'is_held')
    ORDER BY attribute.attnum
"""

FOREIGN_KEYS = """
    SELECT format(
        'ALTER TABLE %s DROP CONSTRAINT %I;', constraint_of.conrelid::regclass, constraint_of.conname
    ) AS statement
    FROM pg_constraint AS constraint_of
    INNER JOIN pg_class AS relation
        ON relation.oid IN (constraint_of.conrelid, constraint_of.confrelid)
    INNER JOIN pg_namespace AS namespace
        ON namespace.oid = relation.relnamespace
        AND namespace.nspname = :schema::text
    WHERE constraint_of.contype = 'f'
        AND relation.relname = ANY(:tables::text[])
    GROUP BY
        constraint_of.conrelid,
        constraint_of.conname
    ORDER BY statement
"""

UNIQUE_PLAYS = """
    SELECT
        CASE
            WHEN own.oid IS NULL THEN format('DROP INDEX %s;', built.indexrelid::regclass)
            ELSE format('ALTER TABLE %s DROP CONSTRAINT %I;', built.indrelid::regclass, own.conname)
        END AS statement
    FROM pg_index AS built
    LEFT JOIN pg_constraint AS own
        ON own.conindid = built.indexrelid
        AND own.contype IN ('p', 'u')
    WHERE built.indrelid = to_regclass(:plays::text)
        AND built.indisunique
    ORDER BY statement
"""

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

_ADOPTING = """
    SELECT subscription.subname::text AS name
    FROM pg_subscription AS subscription
    WHERE subscription.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND subscription.subname ~ '^audius_challenges_adopt_[0-9]+_of_[0-9]+_epoch_[0-9]+$'
    ORDER BY subscription.subname
"""

# Where copying ended, and how far what the primary has sent since was taken in. Only new changes are confirmed, but a
# primary that has none says so every few seconds.
_UNADOPTED = """
    SELECT
        relation.relname::text AS name,
        coalesce(copied.srsubstate::text, 'not begun') AS state,
        copied.srsubstate = 'r' AND copied.srsublsn IS NULL AS is_uncopied,
        copied.srsublsn::text AS copied_at,
        following.latest_end_lsn::text AS reached,
        coalesce(following.latest_end_lsn >= copied.srsublsn, FALSE) AS is_reached
    FROM unnest(:tables::text[]) AS derived (name)
    INNER JOIN pg_class AS relation
        ON relation.relname = derived.name
        AND relation.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :schema::text)
    LEFT JOIN pg_subscription AS adopting
        ON adopting.subname = :adopting::text
        AND adopting.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    LEFT JOIN pg_subscription_rel AS copied
        ON copied.srsubid = adopting.oid
        AND copied.srrelid = relation.oid
    LEFT JOIN pg_stat_subscription AS following
        ON following.subname = :following::text
        AND following.relid IS NULL
        AND following.pid IS NOT NULL
    ORDER BY relation.relname
"""

# Called again, it begins nothing anew: its numbers go on.
_ADOPT = """
    INSERT INTO audius_challenges.share_sent AS known (singleton, share, epoch, number)
    VALUES (TRUE, :share::text, :epoch::bigint, 0)
    ON CONFLICT (singleton) DO UPDATE SET
        share = excluded.share,
        epoch = excluded.epoch,
        number = 0
    WHERE (known.share, known.epoch) IS DISTINCT FROM (excluded.share, excluded.epoch)
"""

_EXAMINE_ALL = """
    UPDATE audius_challenges.processor_state
    SET look = NULL
    WHERE challenge_id = ANY(:challenges::text[])
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
    _require_logical(db)
    tables = read_tables(db)
    return [statement for number in range(shares) for statement in _publications(db, tables, Share(number, shares))]


def receive_share(db: Database, share: str | None, conninfo: str | None) -> list[str]:
    """What has the primary receive what a node sends."""
    _require_primary(db, read_settings(db), "receive_share()")
    # What the node has sent before is not there to be copied, and its tables hold none of it.
    return [_subscription(db, return_subscription(_given(share)), conninfo, RETURN, copy_data=False)]


def _publications(db: Database, tables: list[Shared], share: Share) -> Iterator[str]:
    followed = [_published(db, table, share) for table in tables if is_followed(table.name)]
    followed += [f"{_STATE_SCHEMA}.{name}" for name in STATE]
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
    return f"{_qualified(db, table.name)}{listed}{where}"


# On a node


def join_share(db: Database, share: str | None, conninfo: str | None) -> list[str]:
    """What makes this server the node of a share: the setting, what sends, what is sent back, what is received."""
    given = _given(share)
    _require_logical(db)
    reads = reads_of_shares()
    try:
        read_contract(db).require(reads)
    except ChallengeError as error:
        raise ChallengeError(
            error.message,
            sqlstate=error.sqlstate,
            detail=error.detail,
            hint="SELECT audius_challenges.share_tables(); on the primary prints what creates a node's tables.",
        ) from None
    own = (*STATE, "share_sent", "share_batch")
    names = [_qualified(db, table) for table in reads] + [f"{_STATE_SCHEMA}.{name}" for name in own]
    if filled := [name for name in names if list(db.plpy.execute(f"SELECT 1 FROM {name} LIMIT 1"))]:
        raise ChallengeError(
            f"there are rows in {', '.join(filled)}: a copy over them would fail, and try again for ever",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            hint=f"If this is to be a node: TRUNCATE {', '.join(filled)};",
        )
    drops = [row["statement"] for row in db.rows(FOREIGN_KEYS, schema=db.schema, tables=list(reads))]
    if drops:
        raise ChallengeError(
            "there are foreign keys on the tables of this node, whose rows come by share, and in no order",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            hint=" ".join(drops),
        )
    drops = [row["statement"] for row in db.rows(UNIQUE_PLAYS, plays=_qualified(db, "plays"))]
    if drops:
        raise ChallengeError(
            "there is a unique index on plays: once plays are indexed again on the primary, with ids that this node has"
            " seen, the share would stop",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            hint=" ".join(drops),
        )
    database = db.plpy.quote_ident(db.value("SELECT current_database()"))
    columns = ", ".join(row["name"] for row in db.rows(_BATCH_COLUMNS))
    return [
        f"ALTER DATABASE {database} SET {PREFIX}share = {db.plpy.quote_literal(str(given))}",
        *(
            f"CREATE TRIGGER {name} AFTER {event} ON {_qualified(db, table)} REFERENCING NEW TABLE AS written"
            " FOR EACH STATEMENT EXECUTE FUNCTION audius_challenges.send_share()"
            for table in DERIVED
            for event, name in TRIGGERS.items()
        ),
        f"CREATE PUBLICATION {RETURN} FOR TABLE audius_challenges.share_batch ({columns}) WITH (publish = 'insert')",
        # Which node this is, for as long as it has the rows that are copied now.
        f"INSERT INTO {_STATE_SCHEMA}.share_sent VALUES (TRUE, {db.plpy.quote_literal(str(given))}, 0, 0)",
        _subscription(db, share_publication(given), conninfo, share_publication(given), plays_publication(given)),
    ]


def adopt_share(db: Database, conninfo: str | None) -> list[str]:
    """What copies what had been written for this node's users when the plan became the present one."""
    share, plan = _node(db, "adopt_share()")
    if found := [row["name"] for row in db.rows(_ADOPTING)]:
        raise ChallengeError(
            f"there is subscription {found[0]} already",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            hint=f"If it is of the present plan (epoch {plan.epoch}), go on with audius_challenges.finish_adoption()."
            f" To begin anew: DROP SUBSCRIPTION {found[0]};",
        )
    adopted = db.rows("SELECT epoch FROM audius_challenges.share_sent")
    if adopted and adopted[0]["epoch"] == plan.epoch:
        raise ChallengeError(
            f"this node has adopted the user challenges of epoch {plan.epoch}",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            hint=f"To have all nodes adopt anew: SELECT audius_challenges.plan_shares({plan.shares}); on the primary.",
        )
    derived = ", ".join(_qualified(db, table) for table in DERIVED)
    return [
        # First: from here on nothing can be sent, whatever is under way.
        "UPDATE audius_challenges.share_sent SET epoch = 0",
        f"TRUNCATE {derived}",
        _subscription(db, adopt_subscription(share, plan.epoch), conninfo, adopt_publication(share)),
    ]


def finish_adoption(db: Database) -> list[str]:
    """Begin to work by the plan, now that all is copied; what drops the subscription that has copied it."""
    share, plan = _node(db, "finish_adoption()")
    adopting = adopt_subscription(share, plan.epoch)
    found = [row["name"] for row in db.rows(_ADOPTING)]
    if adopting not in found:
        hint = "SELECT audius_challenges.adopt_share(...) prints what copies them."
        raise ChallengeError(
            f"the user challenges of epoch {plan.epoch} have not been copied",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            detail=f"Subscription {found[0]} has copied what there was before the plan changed." if found else None,
            hint=f"DROP SUBSCRIPTION {found[0]}; then {hint}" if found else hint,
        )
    names = {"adopting": adopting, "following": share_publication(share)}
    for row in db.rows(_UNADOPTED, schema=db.schema, tables=list(DERIVED), **names):
        table = _qualified(db, row["name"])
        if row["is_uncopied"] or row["state"] == "not begun":
            raise ChallengeError(
                f"table {table} was subscribed to without a copy",
                sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
                hint=f"DROP SUBSCRIPTION {adopting}; then adopt_share() again.",
            )
        if row["state"] != "r":
            raise ChallengeError(
                f"table {table} is still being copied (state {row['state']})",
                sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
                hint="Try again in a moment. If it does not end, the server's log says why.",
            )
        if not row["is_reached"]:
            raise ChallengeError(
                f"subscription {names['following']} has not come as far as the copy of {table}",
                sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
                detail=f"It has reached {row['reached'] or 'nothing'}, the copy is of {row['copied_at']}.",
                hint="Try again in a moment. If it does not come nearer, the server's log says why.",
            )
    db.rows(_ADOPT, share=str(share), epoch=plan.epoch)
    # Everybody is examined, by what the sources say now.
    db.rows(_EXAMINE_ALL, challenges=list(plan.challenges))
    return [f"DROP SUBSCRIPTION {adopting}"]


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
        emptied = ", ".join(f"{_STATE_SCHEMA}.{name}" for name in (*STATE, "share_sent"))
        statements.append(f"TRUNCATE {emptied}")
    return statements + settings


# Within


def _given(share: str | None) -> Share:
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


def _node(db: Database, function: str) -> tuple[Share, Plan]:
    """The share and the plan of this node, which are for the same number of shares."""
    role = read_role(db, read_settings(db))
    if not role.share:
        raise ChallengeError(
            f"{function} is for nodes: {PREFIX}share is not set here",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            hint="SELECT audius_challenges.join_share(...) prints what sets it. A session that began before has to"
            " connect again.",
        )
    if not role.plan or not role.is_fed:
        raise ChallengeError(
            "no plan of shares has arrived",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            hint=f"SELECT audius_challenges.plan_shares({role.share.of}); on the primary; then wait for it to arrive.",
        )
    if role.plan.shares != role.share.of:
        raise ChallengeError(
            f"the plan is of {role.plan.shares} shares, this node is {role.share}",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            hint=f"SELECT audius_challenges.plan_shares({role.share.of}); on the primary, when all its nodes are ready;"
            " then wait for it to arrive.",
        )
    return role.share, role.plan


def _require_primary(db: Database, settings: Settings, function: str) -> None:
    if read_role(db, settings).is_node:
        raise ChallengeError(
            f"{function} is for the primary, this is a node of shares",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            hint="Call it on the primary.",
        )


def _require_logical(db: Database) -> None:
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


def _subscription(db: Database, name: str, conninfo: str | None, *publications: str, copy_data: bool = True) -> str:
    if conninfo is None:
        raise null_argument("conninfo")
    options = "streaming = off" if copy_data else "copy_data = false, streaming = off"
    return (
        f"CREATE SUBSCRIPTION {name} CONNECTION {db.plpy.quote_literal(conninfo)}"
        f" PUBLICATION {', '.join(publications)} WITH ({options})"
    )


def _qualified(db: Database, table: str) -> str:
    return f"{db.plpy.quote_ident(db.schema)}.{db.plpy.quote_ident(table)}"


def _listed(db: Database, columns: Iterator[str] | tuple[str, ...] | dict[str, str]) -> str:
    return ", ".join(map(db.plpy.quote_ident, columns))
