"""The statements that make this server the node of a share, and have it adopt what was paid before."""

from __future__ import annotations

from dataclasses import dataclass

from audius_challenges.contract import read_contract
from audius_challenges.database import Database
from audius_challenges.engine.shares import (
    RETURN,
    Plan,
    adopt_publication,
    adopt_subscription,
    plays_publication,
    read_role,
    share_publication,
)
from audius_challenges.errors import OBJECT_NOT_IN_PREREQUISITE_STATE, ChallengeError
from audius_challenges.operation.share_statements import (
    STATE_SCHEMA,
    given_share,
    qualified,
    require_logical,
    subscription_of,
)
from audius_challenges.operation.share_tables import DERIVED, FILTERS, STATE, reads_of_shares
from audius_challenges.settings import PREFIX, Share, read_settings

TRIGGERS = {"INSERT": "audius_challenges_share_insert", "UPDATE": "audius_challenges_share_update"}
"""The triggers of a node that send what it writes, by what fires them."""

_BATCH_COLUMNS = """
    SELECT attribute.attname::text AS name
    FROM pg_attribute AS attribute
    WHERE attribute.attrelid = 'audius_challenges.share_batch'::regclass
        AND attribute.attnum > 0
        AND NOT attribute.attisdropped
        AND attribute.attname NOT IN ('id', 'is_taken_in', 'is_held')
    ORDER BY attribute.attnum
"""

_FOREIGN_KEYS = """
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

_UNIQUE_PLAYS = """
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

# What a row is found by is sent.
_UNSENT = """
    SELECT
        format(
            'ALTER TABLE %I.%I %s;',
            namespace.nspname,
            relation.relname,
            string_agg(format('ALTER COLUMN %I DROP NOT NULL', attribute.attname), ', ' ORDER BY attribute.attnum)
        ) AS statement
    FROM unnest(:tables::text[], :sent::text[]) AS shared (name, columns)
    INNER JOIN pg_namespace AS namespace
        ON namespace.nspname = :schema::text
    INNER JOIN pg_class AS relation
        ON relation.relname = shared.name
        AND relation.relnamespace = namespace.oid
    INNER JOIN pg_attribute AS attribute
        ON attribute.attrelid = relation.oid
        AND attribute.attnum > 0
        AND NOT attribute.attisdropped
        AND attribute.attnotnull
        AND NOT attribute.atthasdef
        AND attribute.attidentity = ''
        AND attribute.attname <> ALL(string_to_array(shared.columns, ' '))
    WHERE NOT EXISTS (
            SELECT FROM pg_index AS key
            WHERE key.indrelid = relation.oid
                AND (key.indisprimary OR key.indisreplident)
                AND attribute.attnum = ANY(key.indkey)
        )
    GROUP BY
        namespace.nspname,
        relation.relname
    ORDER BY statement
"""


@dataclass(frozen=True)
class Obstacle:
    """What is in the way of rows that come by share.

    :ivar found: SQL of the statements that take it away
    :ivar refusal: what is wrong, before the node joins
    :ivar what: what is wrong, on a node
    :ivar expected: what should be there in its place
    """

    found: str
    refusal: str
    what: str
    expected: str

    def statements(self, db: Database) -> list[str]:
        """What takes it away; nothing: it is not there."""
        reads = reads_of_shares()
        found = db.rows(
            self.found,
            schema=db.schema,
            tables=list(reads),
            sent=[" ".join({*columns, FILTERS.get(table, "")}) for table, columns in reads.items()],
            plays=qualified(db, "plays"),
        )
        return [row["statement"] for row in found]


OBSTACLES = (
    Obstacle(
        _FOREIGN_KEYS,
        "there are foreign keys on the tables of this node, whose rows come by share, and in no order",
        "a foreign key on a node's tables, whose rows come by share, and in no order",
        "none: TRUNCATE ... CASCADE of a table that is to be copied again would empty others",
    ),
    Obstacle(
        _UNIQUE_PLAYS,
        "there is a unique index on plays: once plays are indexed again on the primary, with ids that this node has"
        " seen, the share would stop",
        "a unique index on a node's plays",
        "a plain one: ids that come a second time, when plays are indexed again, would stop the share",
    ),
    Obstacle(
        _UNSENT,
        "there are columns that must not be null and that shares do not need: where they are not sent, a copy fails,"
        " and tries again for ever",
        "columns of a node's tables that must not be null, and that shares do not need",
        "they may be null: where they are not sent, the share stops",
    ),
)

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


def join_share(db: Database, share: str | None, conninfo: str | None) -> list[str]:
    """What makes this server the node of a share: the setting, what sends, what is sent back, what is received."""
    given = given_share(share)
    require_logical(db)
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
    names = [qualified(db, table) for table in reads] + [f"{STATE_SCHEMA}.{name}" for name in own]
    if filled := [name for name in names if list(db.plpy.execute(f"SELECT 1 FROM {name} LIMIT 1"))]:
        raise ChallengeError(
            f"there are rows in {', '.join(filled)}: a copy over them would fail, and try again for ever",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            hint=f"If this is to be a node: TRUNCATE {', '.join(filled)};",
        )
    for obstacle in OBSTACLES:
        if statements := obstacle.statements(db):
            raise ChallengeError(obstacle.refusal, sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE, hint=" ".join(statements))
    database = db.plpy.quote_ident(db.value("SELECT current_database()"))
    columns = ", ".join(row["name"] for row in db.rows(_BATCH_COLUMNS))
    return [
        f"ALTER DATABASE {database} SET {PREFIX}share = {db.plpy.quote_literal(str(given))}",
        *(
            f"CREATE TRIGGER {name} AFTER {event} ON {qualified(db, table)} REFERENCING NEW TABLE AS written"
            " FOR EACH STATEMENT EXECUTE FUNCTION audius_challenges.send_share()"
            for table in DERIVED
            for event, name in TRIGGERS.items()
        ),
        f"CREATE PUBLICATION {RETURN} FOR TABLE audius_challenges.share_batch ({columns}) WITH (publish = 'insert')",
        # Which node this is, for as long as it has the rows that are copied now.
        f"INSERT INTO {STATE_SCHEMA}.share_sent VALUES (TRUE, {db.plpy.quote_literal(str(given))}, 0, 0)",
        subscription_of(db, share_publication(given), conninfo, share_publication(given), plays_publication(given)),
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
    if _has_adopted(db, plan):
        raise ChallengeError(
            f"this node has adopted the user challenges of epoch {plan.epoch}",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            hint=f"To have all nodes adopt anew: SELECT audius_challenges.plan_shares({plan.shares}); on the primary.",
        )
    derived = ", ".join(qualified(db, table) for table in DERIVED)
    return [
        # First: from here on nothing can be sent, whatever is under way.
        "UPDATE audius_challenges.share_sent SET epoch = 0",
        f"TRUNCATE {derived}",
        subscription_of(db, adopt_subscription(share, plan.epoch), conninfo, adopt_publication(share)),
    ]


def finish_adoption(db: Database) -> list[str]:
    """Begin to work by the plan, now that all is copied; what drops the subscription that has copied it."""
    share, plan = _node(db, "finish_adoption()")
    adopting = adopt_subscription(share, plan.epoch)
    found = [row["name"] for row in db.rows(_ADOPTING)]
    if not found and _has_adopted(db, plan):
        db.plpy.notice(f"this node has adopted the user challenges of epoch {plan.epoch}: nothing is left to do")
        return []
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
        table = qualified(db, row["name"])
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


def _has_adopted(db: Database, plan: Plan) -> bool:
    return db.rows("SELECT epoch FROM audius_challenges.share_sent") == [{"epoch": plan.epoch}]


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
