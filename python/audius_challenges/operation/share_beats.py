"""Beats of shares, at the end of each tick: that of the primary shows a node whether it has all changes, that of a node
shows the primary whether it has all rows, and how the node fares.
"""

from __future__ import annotations

from audius_challenges.database import AnyPlan, Database
from audius_challenges.engine.shares import BEAT, Plan

KEPT = 100
"""Beats of the primary that are kept."""

_BEAT = AnyPlan(f"""
    WITH beat AS (
        INSERT INTO audius_challenges.share_beat (number)
        SELECT coalesce(max(last.number), 0) + 1
        FROM audius_challenges.share_beat AS last
        RETURNING number
    )
    DELETE FROM audius_challenges.share_beat
    USING beat
    WHERE share_beat.number <= beat.number - {KEPT}
""")

# What it has found inactive it need not examine; what it has not come to yet, it has to.
_SEND = AnyPlan(f"""
    WITH sent AS (
        UPDATE audius_challenges.share_sent
        SET number = number + 1
        WHERE epoch = :epoch::bigint
        RETURNING
            share,
            epoch,
            number,
            node
    )
    INSERT INTO audius_challenges.share_batch (epoch, share, node, number, relation, created_at, says, behind)
    SELECT
        sent.epoch,
        sent.share,
        sent.node,
        sent.number,
        '{BEAT}',
        ARRAY[clock_timestamp()],
        :says::text,
        ARRAY(
            SELECT shared.id
            FROM unnest(:challenges::text[]) AS shared (id)
            LEFT JOIN audius_challenges.processor_state AS state
                ON shared.id = state.challenge_id
            WHERE coalesce(state.found_active, TRUE)
                AND state.phase IS DISTINCT FROM 'watching'
        )
    FROM sent
""")

_SENT = AnyPlan(f"DELETE FROM audius_challenges.share_batch WHERE relation = '{BEAT}'")


def beat(db: Database) -> None:
    """The primary: one more beat, which goes to all nodes."""
    db.rows(_BEAT)


def send_beat(db: Database, plan: Plan | None, says: str | None) -> None:
    """A node: tell the primary that a tick has ended, if what it sends is of this plan.

    :param says: why it does nothing, or what fails; None: it works
    """
    if plan is not None:
        db.rows(_SEND, epoch=plan.epoch, says=says, challenges=list(plan.challenges))
        db.rows(_SENT)
