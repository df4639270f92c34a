"""The primary takes in what nodes have sent: by another plan, nothing; with a gap in the numbers, nothing behind it.

What was taken in is marked so, and written by the challenges it is of (see `absorbing`), each in its turn.
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

# From here on batches of another plan may come at any time.
_COME = AnyPlan("""
    SELECT
        batch.share,
        coalesce(max(node.number), 0) AS number,
        array_agg(batch.number ORDER BY batch.id) AS numbers,
        array_agg(batch.id ORDER BY batch.id) AS ids,
        array_agg(batch.is_restart ORDER BY batch.id) AS are_restarts
    FROM audius_challenges.share_batch AS batch
    LEFT JOIN audius_challenges.share_node AS node
        ON batch.share = node.share
    WHERE batch.epoch = :epoch::bigint
        AND NOT batch.is_taken_in
    GROUP BY batch.share
    ORDER BY batch.share
""")

_DROP_EARLIER = """
    DELETE FROM audius_challenges.share_batch
    WHERE share_batch.share = :share::text
        AND share_batch.id < :id::bigint
"""

_DROP_TAKEN_IN = """
    DELETE FROM audius_challenges.share_batch
    WHERE share_batch.share = :share::text
        AND share_batch.is_taken_in
"""

_TAKE_IN = AnyPlan("""
    UPDATE audius_challenges.share_batch AS batch
    SET is_taken_in = TRUE
    WHERE batch.epoch = :epoch::bigint
        AND batch.share = :share::text
        AND batch.number <= :number::bigint
        AND NOT batch.is_taken_in
""")

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
            AND batch.is_taken_in
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
        AND share_batch.is_taken_in
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
    db: Database, plan: Plan, *, share: str, number: int, numbers: list[int], ids: list[int], are_restarts: list[bool]
) -> str | None:
    """The same of one share.

    :param number: up to which all was taken in before
    :param numbers: of those that have come since, in their order
    :param ids: their ids
    :param are_restarts: which of them begin anew: all is sent again
    """
    here: dict[str, Any] = {"share": share, "epoch": plan.epoch}
    if any(are_restarts):
        come = list(zip(ids, numbers, are_restarts, strict=True))
        *_, restart = (each for _, each, is_restart in come if is_restart)
        first = min(batch for batch, each, is_restart in come if is_restart and each == restart)
        db.rows(_DROP_EARLIER, **here, id=first)
        number, numbers = restart - 1, [each for batch, each, _ in come if batch >= first]
    elif min(numbers) <= number:
        # What the former node has sent does not go together with what this one goes on from.
        db.rows(_DROP_TAKEN_IN, **here)
        problem = f"the node of share {share} was set up anew, after batch {number}: all has to be sent again"
        db.rows(_SAVE, **here, number=number, problem=problem)
        return problem
    for each in sorted(set(numbers)):
        if each != number + 1:
            break
        number = each
    later = min((each for each in numbers if each > number), default=None)
    missing = None if later is None else _missing(share, number + 1, later - 1)
    db.rows(_TAKE_IN, **here, number=number)
    db.rows(_SAVE, **here, number=number, problem=missing)
    db.rows(_EMPTY, **here)
    return missing


def _missing(share: str, first: int, last: int) -> str:
    if first == last:
        return f"batch {first} of share {share} is missing"
    return f"batches {first} to {last} of share {share} are missing"
