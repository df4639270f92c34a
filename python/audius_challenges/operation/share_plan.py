"""What is decided about shares, and said again: the plan on the primary, and everything once more on a node."""

from __future__ import annotations

from audius_challenges.database import Database
from audius_challenges.engine.open_slices import OpenSlices
from audius_challenges.engine.shares import (
    COMPLETIONS,
    MOST_SHARES,
    REJOIN,
    SHARED,
    STREAKS,
    USER_CHALLENGES,
    Plan,
    read_role,
)
from audius_challenges.engine.state import load_states
from audius_challenges.errors import OBJECT_NOT_IN_PREREQUISITE_STATE, ChallengeError
from audius_challenges.operation import transaction
from audius_challenges.operation.share_beats import KEPT
from audius_challenges.operation.transaction import LOCK

# A tick under way ends before the plan changes, so that it has one plan.
_PATIENCE = "60s"

BATCH = 50_000
"""Rows that go home in one batch."""

_PLAN = """
    INSERT INTO audius_challenges.share_plan AS known (singleton, epoch, shares, challenges, lsn, planned_at)
    SELECT
        true,
        1,
        :shares::integer,
        :challenges::text[],
        pg_current_wal_insert_lsn(),
        clock_timestamp()
    ON CONFLICT (singleton) DO UPDATE SET
        epoch = known.epoch + 1,
        shares = excluded.shares,
        challenges = excluded.challenges,
        lsn = excluded.lsn,
        planned_at = excluded.planned_at
    RETURNING epoch
"""

# As many as are kept, from the first plan on: so each beat adds one and takes one away, and a node that has lost some
# keeps as many old ones for good. With fewer, those before a gap would go, and the gap with them.
_FIRST_BEATS = f"""
    INSERT INTO audius_challenges.share_beat (number)
    SELECT each.number
    FROM generate_series(1, {KEPT}) AS each (number)
    WHERE NOT EXISTS (SELECT FROM audius_challenges.share_beat)
"""

_FORGET = (
    "DELETE FROM audius_challenges.share_batch",
    # But for slots, which may be made anew meanwhile, and nodes that lack changes: no plan gives these to them.
    f"DELETE FROM audius_challenges.share_node WHERE slot_txns IS NULL AND mended_by IS DISTINCT FROM '{REJOIN}'",
)


def plan_shares(db: Database, shares: int) -> int:
    """Have so many nodes derive their challenges from now on; 0: none.

    What nodes derived by another plan, and was not written yet, is dropped: it is derived again.

    :returns: the epoch
    :raises ChallengeError: on a node, on a standby, and while a run does not end
    """
    if not 0 <= shares <= MOST_SHARES:
        raise ChallengeError(
            f"shares must be between 0 and {MOST_SHARES}, not {shares}", hint="0: the primary does everything."
        )
    settings = transaction.require_usable_transaction(db)
    if read_role(db, settings).is_node:
        raise ChallengeError(
            "this server is a node of shares: the plan is made on the primary",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            hint=f"Call it there: SELECT audius_challenges.plan_shares({shares});",
        )
    _wait_for_runs(db)
    # What helpers have in hands is written before: nobody else may have these users then.
    states = load_states(db)
    open_slices = OpenSlices(db, states.values())
    for state in states.values():
        if state.challenge_id in SHARED:
            open_slices.close(state)
    for statement in _FORGET:
        db.rows(statement)
    db.rows(_FIRST_BEATS)
    epoch: int = db.value(_PLAN, shares=shares, challenges=list(SHARED))
    return epoch


def _wait_for_runs(db: Database) -> None:
    before = db.value("SELECT current_setting('lock_timeout')")
    db.rows("SELECT set_config('lock_timeout', :patience::text, true)", patience=_PATIENCE)
    try:
        db.rows(f"SELECT pg_advisory_xact_lock({LOCK})")
    except db.plpy.SPIError as error:
        if getattr(error, "sqlstate", None) != "55P03":
            raise
        raise transaction.under_way(db) from None
    finally:
        db.rows("SELECT set_config('lock_timeout', :before::text, true)", before=before)


_NEXT = "UPDATE audius_challenges.share_sent SET number = number + 1 RETURNING share, epoch, number, node"

_INSERT = """
    INSERT INTO audius_challenges.share_batch
        (epoch, share, node, number, is_restart, relation, challenge_id, users, specifiers, steps, amounts,
         is_complete, created_at, completed_at)
"""

_PIECE = f"(row_number() OVER () - 1) / {BATCH} AS piece"

_USER_CHALLENGES = f"""
    WITH sent AS ({_INSERT}
        SELECT
            :epoch::bigint,
            :share::text,
            :node::uuid,
            :number::bigint,
            TRUE,
            '{USER_CHALLENGES}',
            numbered.challenge_id,
            array_agg(numbered.user_id),
            array_agg(numbered.specifier),
            array_agg(numbered.current_step_count),
            array_agg(numbered.amount),
            array_agg(numbered.is_complete),
            array_agg(numbered.created_at),
            array_agg(numbered.completed_at)
        FROM (
            SELECT
                user_challenges.challenge_id::text AS challenge_id,
                user_challenges.user_id,
                user_challenges.specifier::text AS specifier,
                user_challenges.current_step_count,
                user_challenges.amount,
                user_challenges.is_complete,
                user_challenges.created_at,
                user_challenges.completed_at,
                {_PIECE}
            FROM discovery.user_challenges
            WHERE user_challenges.challenge_id::text = ANY(:challenges::text[])
        ) AS numbered
        GROUP BY
            numbered.challenge_id,
            numbered.piece
        RETURNING users
    )
    SELECT coalesce(sum(cardinality(users)), 0)::bigint FROM sent
"""

_COMPLETIONS = f"""
    WITH sent AS ({_INSERT}
        SELECT
            :epoch::bigint,
            :share::text,
            :node::uuid,
            :number::bigint,
            TRUE,
            '{COMPLETIONS}',
            'p',
            array_agg(numbered.user_id),
            NULL,
            array_agg(numbered.steps),
            NULL,
            NULL,
            NULL,
            NULL
        FROM (
            SELECT
                completion.user_id,
                completion.profile_description::integer
                + 2 * completion.profile_name::integer
                + 4 * completion.profile_picture::integer
                + 8 * completion.profile_cover_photo::integer
                + 16 * completion.follows::integer
                + 32 * completion.favorites::integer
                + 64 * completion.reposts::integer AS steps,
                {_PIECE}
            FROM discovery.challenge_profile_completion AS completion
        ) AS numbered
        GROUP BY numbered.piece
        RETURNING users
    )
    SELECT coalesce(sum(cardinality(users)), 0)::bigint FROM sent
"""

_STREAKS = f"""
    WITH sent AS ({_INSERT}
        SELECT
            :epoch::bigint,
            :share::text,
            :node::uuid,
            :number::bigint,
            TRUE,
            '{STREAKS}',
            'e',
            array_agg(numbered.user_id),
            NULL,
            array_agg(numbered.listen_streak),
            NULL,
            NULL,
            NULL,
            array_agg(numbered.last_listen_date)
        FROM (
            SELECT
                streak.user_id,
                streak.listen_streak,
                streak.last_listen_date,
                {_PIECE}
            FROM discovery.challenge_listen_streak AS streak
        ) AS numbered
        GROUP BY numbered.piece
        RETURNING users
    )
    SELECT coalesce(sum(cardinality(users)), 0)::bigint FROM sent
"""


def resend(db: Database) -> int:
    """Send home all that there is, in place of whatever was lost on the way.

    :returns: how many rows
    :raises ChallengeError: where this is no node that has adopted its rows, and while a run is under way
    """
    settings = transaction.require_usable_transaction(db)
    role = read_role(db, settings)
    if not role.is_node or role.plan is None:
        raise ChallengeError(
            "this server is no node of shares: there is nothing to send",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            hint="Call it on the node whose share the primary names.",
        )
    if not db.value(f"SELECT pg_try_advisory_xact_lock({LOCK})"):
        raise transaction.under_way(db)
    found = db.rows(_NEXT)
    if not found or found[0]["epoch"] != role.plan.epoch:
        raise ChallengeError(
            f"the user challenges of epoch {role.plan.epoch} have not been adopted here: there is nothing to send",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            hint="See SELECT * FROM audius_challenges.share_why_not();",
        )
    return _send(db, role.plan, **found[0])


def _send(db: Database, plan: Plan, *, share: str, epoch: int, number: int, node: str) -> int:
    of_all = {"share": share, "node": node, "epoch": epoch, "number": number, "challenges": list(plan.challenges)}
    sent: int = sum(db.value(statement, **of_all) for statement in (_COMPLETIONS, _STREAKS, _USER_CHALLENGES))
    if not sent:
        # Nothing there is, which makes good whatever was lost as well.
        db.rows(_NOTHING, **of_all)
    db.rows("DELETE FROM audius_challenges.share_batch WHERE number = :number::bigint", number=number)
    return sent


_NOTHING = """
    INSERT INTO audius_challenges.share_batch (epoch, share, node, number, is_restart, relation, users)
    SELECT :epoch::bigint, :share::text, :node::uuid, :number::bigint, TRUE, 'user_challenges', '{}'
"""
