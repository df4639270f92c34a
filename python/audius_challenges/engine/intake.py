"""The primary takes in what nodes have sent: by another plan, nothing; with a gap in the numbers, nothing behind it.

What was taken in is what a share's number in `share_node` says. It is written by the challenges it is of (see
`absorbing`), each in its turn.
"""

from __future__ import annotations

from audius_challenges.annotations import Any
from audius_challenges.database import AnyPlan, Database
from audius_challenges.engine.shares import Plan

_HAS_COME = AnyPlan("SELECT EXISTS (SELECT FROM audius_challenges.share_batch)")

_FORGET = (
    """
    DELETE FROM audius_challenges.share_batch
    WHERE share_batch.epoch <> :epoch::bigint
        OR share_batch.share <> ALL(:shares::text[])
    """,
    """
    DELETE FROM audius_challenges.share_node
    WHERE share_node.epoch <> :epoch::bigint
        OR share_node.share <> ALL(:shares::text[])
    """,
)

# Those of users who are set aside were taken in before. From here on batches of another plan may come at any time.
_COME = AnyPlan("""
    SELECT
        batch.share,
        coalesce(node.number, 0) AS number,
        array_agg(DISTINCT batch.number ORDER BY batch.number) FILTER (
            WHERE batch.number > coalesce(node.number, 0)
        ) AS numbers,
        max(batch.number) FILTER (
            WHERE batch.is_restart AND batch.number > coalesce(node.number, 0)
        ) AS restart
    FROM audius_challenges.share_batch AS batch
    LEFT JOIN audius_challenges.share_node AS node
        ON batch.share = node.share
    WHERE batch.epoch = :epoch::bigint
        AND NOT batch.is_held
    GROUP BY
        batch.share,
        node.number
    ORDER BY batch.share
""")

_DROP = """
    DELETE FROM audius_challenges.share_batch
    WHERE share_batch.share = :share::text
        AND share_batch.number < :restart::bigint
"""

_SAVE = AnyPlan("""
    INSERT INTO audius_challenges.share_node AS node (share, epoch, number, beat_at, says, behind, problem)
    SELECT
        :share::text,
        :epoch::bigint,
        :number::bigint,
        beat.beat_at,
        beat.says,
        beat.behind,
        :problem::text
    FROM (SELECT true) AS always
    LEFT JOIN (
        SELECT
            batch.created_at[1] AS beat_at,
            batch.says,
            batch.behind
        FROM audius_challenges.share_batch AS batch
        WHERE batch.epoch = :epoch::bigint
            AND batch.share = :share::text
            AND batch.relation = 'beat'
            AND batch.number <= :number::bigint
        ORDER BY batch.number DESC
        LIMIT 1
    ) AS beat
        ON true
    ON CONFLICT (share) DO UPDATE SET
        number = excluded.number,
        beat_at = coalesce(excluded.beat_at, node.beat_at),
        says = CASE WHEN excluded.beat_at IS NULL THEN node.says ELSE excluded.says END,
        behind = CASE WHEN excluded.beat_at IS NULL THEN node.behind ELSE excluded.behind END,
        problem = excluded.problem
""")

# A beat, and what says no more than that all is sent again, have no rows to write.
_EMPTY = AnyPlan("""
    DELETE FROM audius_challenges.share_batch
    WHERE share_batch.share = :share::text
        AND share_batch.challenge_id IS NULL
        AND share_batch.number <= :number::bigint
""")


def take_in(db: Database, plan: Plan) -> dict[str, str]:
    """Take in what has come, as far as nothing is missing.

    :returns: what is missing, by share
    """
    if not db.value(_HAS_COME):
        return {}
    shares = plan.names
    for statement in _FORGET:
        db.rows(statement, epoch=plan.epoch, shares=shares)
    problems = {}
    for come in db.rows(_COME, epoch=plan.epoch):
        if problem := _take_in(db, plan, **come):
            problems[come["share"]] = problem
    return problems


def _take_in(
    db: Database, plan: Plan, *, share: str, number: int, numbers: list[int] | None, restart: int | None
) -> str | None:
    """The same of one share.

    :param number: up to which all was taken in before
    :param numbers: the later ones that have come
    :param restart: the last of them from which on all is sent again
    """
    if not numbers:
        return None
    if restart is not None:
        db.rows(_DROP, share=share, restart=restart)
        number, numbers = restart - 1, [each for each in numbers if each >= restart]
    for each in numbers:
        if each != number + 1:
            break
        number = each
    later = [each for each in numbers if each > number]
    problem = _missing(share, number + 1, later[0] - 1) if later else None
    here: dict[str, Any] = {"share": share, "number": number}
    db.rows(_SAVE, **here, epoch=plan.epoch, problem=problem)
    db.rows(_EMPTY, **here)
    return problem


def _missing(share: str, first: int, last: int) -> str:
    if first == last:
        return f"batch {first} of share {share} is missing"
    return f"batches {first} to {last} of share {share} are missing"
