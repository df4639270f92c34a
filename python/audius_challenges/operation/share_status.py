"""How shares fare, seen from the server that is asked: the rows of `share_status`, and what is wrong in a text.

On the primary there is a row for each share of the plan, on a node one for its own. Only what any role may read is
asked, so of subscriptions not where they connect to.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from audius_challenges.annotations import Any
from audius_challenges.database import Database, Row
from audius_challenges.engine.shares import Role, read_role, return_subscription, share_publication
from audius_challenges.errors import ChallengeError
from audius_challenges.operation.share_guard import why_not
from audius_challenges.operation.stillness import patience
from audius_challenges.settings import Settings, Share, read_settings

OK, BEHIND, SILENT, STOPPED, GAP, MISSING = ("ok", "behind", "silent", "stopped", "gap", "missing")
RUNNING, NO_WORKER, DISABLED, ACTIVE, INACTIVE, LOST = (
    "running",
    "no worker",
    "disabled",
    "active",
    "inactive",
    "lost",
)
"""Of a subscription, and of a slot; both may be missing as well."""

# A subscription has a worker of its own, beside those that copy its tables or apply parts of a transaction. Where the
# slot is of a standby, WAL ends with what it has replayed.
_CONNECTIONS = """
    LEFT JOIN pg_subscription AS subscription
        ON subscription.subname = known.subscription
        AND subscription.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    LEFT JOIN pg_stat_subscription_stats AS failed
        ON failed.subid = subscription.oid
    LEFT JOIN pg_replication_slots AS slot
        ON slot.slot_name = known.slot
        AND slot.database = current_database()
"""

_CONNECTED = f"""
        CASE
            WHEN subscription.oid IS NULL THEN '{MISSING}'
            WHEN NOT subscription.subenabled THEN '{DISABLED}'
            WHEN EXISTS (
                SELECT FROM pg_stat_subscription AS worker
                WHERE worker.subid = subscription.oid
                    AND worker.relid IS NULL
                    AND worker.pid IS NOT NULL
            ) THEN '{RUNNING}'
            ELSE '{NO_WORKER}'
        END AS subscription,
        failed.apply_error_count + failed.sync_error_count AS apply_errors,
        CASE
            WHEN slot.slot_name IS NULL THEN '{MISSING}'
            WHEN slot.wal_status = 'lost' THEN '{LOST}'
            WHEN slot.active THEN '{ACTIVE}'
            ELSE '{INACTIVE}'
        END AS slot,
        pg_wal_lsn_diff(
            CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, slot.restart_lsn
        )::bigint AS slot_bytes
"""

# How many users a batch has is seen from its size, without reading it from where it is stored: 8 bytes each, as nothing
# is compressed, and 20 to 24 before them. Silence counts up to the last tick here: what has come since is taken in by
# the next one.
_OF_THE_PRIMARY = f"""
    SELECT
        known.share,
        node.epoch,
        node.number,
        node.beat_at AS last_beat,
        node.says,
        node.behind,
        node.problem,
        node.mended_by,
        waiting.batches AS waiting_batches,
        waiting.rows AS waiting_rows,
        waiting.held AS held_rows,
        extract(epoch FROM tick.ended_at - node.beat_at)::float8 AS silence,
        extract(epoch FROM clock_timestamp() - node.beat_at)::float8 AS beat_age,
        '{{}}'::text[] AS copying,
        {_CONNECTED}
    FROM unnest(:shares::text[], :subscriptions::text[], :slots::text[]) WITH ORDINALITY
        AS known (share, subscription, slot, place)
    CROSS JOIN LATERAL (
        SELECT
            count(*) FILTER (WHERE NOT batch.is_held) AS batches,
            coalesce(sum((pg_column_size(batch.users) - 20) / 8) FILTER (WHERE NOT batch.is_held), 0)::bigint AS rows,
            coalesce(sum((pg_column_size(batch.users) - 20) / 8) FILTER (WHERE batch.is_held), 0)::bigint AS held
        FROM audius_challenges.share_batch AS batch
        WHERE batch.share = known.share
            AND batch.epoch = :epoch::bigint
    ) AS waiting
    LEFT JOIN audius_challenges.share_node AS node
        ON node.share = known.share
        AND node.epoch = :epoch::bigint
    LEFT JOIN audius_challenges.last_tick AS tick
        ON TRUE
    {_CONNECTIONS}
    ORDER BY known.place
"""

_OF_A_NODE = f"""
    SELECT
        known.share,
        nullif(sent.epoch, 0) AS epoch,
        sent.number,
        beat.last_beat,
        ARRAY(
            SELECT shared.id
            FROM unnest(:challenges::text[]) WITH ORDINALITY AS shared (id, place)
            LEFT JOIN audius_challenges.processor_state AS state
                ON state.challenge_id = shared.id
            WHERE coalesce(state.found_active, TRUE)
                AND state.phase IS DISTINCT FROM 'watching'
            ORDER BY shared.place
        ) AS behind,
        NULL AS problem,
        NULL AS mended_by,
        NULL::bigint AS waiting_batches,
        NULL::bigint AS waiting_rows,
        NULL::bigint AS held_rows,
        extract(epoch FROM clock_timestamp() - beat.last_beat)::float8 AS silence,
        extract(epoch FROM clock_timestamp() - beat.last_beat)::float8 AS beat_age,
        (
            SELECT coalesce(array_agg(DISTINCT relation.relname::text ORDER BY relation.relname::text), '{{}}')
            FROM pg_subscription_rel AS copied
            INNER JOIN pg_class AS relation
                ON relation.oid = copied.srrelid
            WHERE copied.srsubstate <> 'r'
        ) AS copying,
        {_CONNECTED}
    FROM (SELECT :share::text, :subscription::text, :slot::text) AS known (share, subscription, slot)
    CROSS JOIN LATERAL (SELECT max(beaten_at) AS last_beat FROM audius_challenges.share_beat) AS beat
    LEFT JOIN audius_challenges.share_sent AS sent
        ON TRUE
    {_CONNECTIONS}
"""

# A role that could read the status of an earlier version has not been granted what is newer.
_MAY = "SELECT has_table_privilege('audius_challenges.share_plan', 'SELECT')"

_UNSEEN = ("mended_by", "silence", "beat_age")
"""What a row is judged by, and the view does not have."""

_PERIOD = "SELECT period FROM audius_challenges.schedule_facts()"


@dataclass(frozen=True)
class ShareStatus:
    """A row of `share_status`, and what it goes by.

    :ivar share: None: it is not set on this node
    :ivar plan: number of the present plan; None: none has arrived
    :ivar mended_by: what makes the problem good
    :ivar silence: seconds since the last beat when it should have come; None: there was none
    :ivar beat_age: seconds since the last beat
    """

    share: str | None
    status: str
    plan: int | None
    epoch: int | None
    number: int | None
    last_beat: str | None
    says: str | None
    behind: list[str] | None
    problem: str | None
    waiting_batches: int | None
    waiting_rows: int | None
    held_rows: int | None
    copying: list[str]
    subscription: str
    apply_errors: int | None
    slot: str
    slot_bytes: int | None
    mended_by: str | None
    silence: float | None
    beat_age: float | None

    def as_row(self) -> tuple[Any, ...]:
        """The columns as SQL returns them."""
        return tuple(getattr(self, field.name) for field in fields(self) if field.name not in _UNSEEN)

    @property
    def trouble(self) -> str | None:
        """Why rewards of the share wait, as the primary sees it."""
        if self.status == GAP:
            return self.problem
        if self.status == STOPPED:
            return f"node {self.share} does nothing: {self.says}"
        if self.status == SILENT:
            return f"node {self.share} has been silent since {self.last_beat}"
        if self.status == MISSING:
            return f"nothing has come from node {self.share} since the plan changed (epoch {self.plan})"
        return None


def read_shares(db: Database, settings: Settings, role: Role) -> list[ShareStatus]:
    """The rows, in the order of the shares; none on a server that has nothing to do with shares."""
    if role.is_hub and role.plan:
        shares = [Share(number, role.plan.shares) for number in range(role.plan.shares)]
        found = db.rows(
            _OF_THE_PRIMARY,
            shares=[str(share) for share in shares],
            subscriptions=[return_subscription(share) for share in shares],
            slots=[share_publication(share) for share in shares],
            epoch=role.plan.epoch,
        )
    elif role.is_node:
        found = db.rows(
            _OF_A_NODE,
            share=str(role.share) if role.share else None,
            subscription=share_publication(role.share) if role.share else None,
            slot=return_subscription(role.share) if role.share else None,
            challenges=list(role.plan.challenges) if role.plan else [],
        )
        reasons = why_not(db, settings, role.plan)
        found = [{**row, "says": "; ".join(reasons) or None} for row in found]
    else:
        return []
    limit = patience(db, db.value(_PERIOD))
    plan = role.plan.epoch if role.plan else None
    return [ShareStatus(status=_status_of(row, limit, is_node=role.is_node), plan=plan, **row) for row in found]


def _status_of(row: Row, limit: float, *, is_node: bool) -> str:
    if row["problem"]:
        return GAP
    if row["says"]:
        return STOPPED
    if row["last_beat"] is None and not is_node:
        return MISSING
    if row["silence"] is not None and row["silence"] > limit:
        return SILENT
    return BEHIND if row["behind"] else OK


def share_status(db: Database) -> list[tuple[Any, ...]]:
    """The view `share_status`."""
    settings = read_settings(db)
    return [row.as_row() for row in read_shares(db, settings, read_role(db, settings))]


def seen_from_here(db: Database) -> tuple[Role, list[ShareStatus]]:
    """What this server is, and how shares fare, for who looks at more than these: settings that do not parse, which
    ticks complain of, hide nothing else."""
    if not db.value(_MAY):
        return Role(), []
    try:
        settings = read_settings(db)
    except ChallengeError:
        return Role(), []
    role = read_role(db, settings)
    return role, read_shares(db, settings, role)


def troubles(rows: list[ShareStatus]) -> list[str]:
    """What is wrong with shares, on the primary."""
    return [row.trouble for row in rows if row.trouble]
