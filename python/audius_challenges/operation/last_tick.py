"""What is remembered of ticks, so that one that did not get through, or does nothing, is never silent.

A tick commits that it has begun before its first challenge, and that it is over with its last one. So the next tick
knows of one that was cut off, whatever ended it, and whose turn it was. Where the session survives (a cancel, a
timeout), the tick records it itself. A challenge that was cut off comes last until it succeeds, so that the others
have their turn.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from audius_challenges.database import Database
from audius_challenges.engine.processor import Processor
from audius_challenges.engine.state import State, load_states, record_failure
from audius_challenges.errors import OBJECT_NOT_IN_PREREQUISITE_STATE, ChallengeError, describe
from audius_challenges.operation import transaction

# What looks like a restore is a failure after so many seconds.
PATIENCE = 3600

_BEGIN = """
    WITH begun AS (
        INSERT INTO audius_challenges.last_tick (singleton, began_at, is_running)
        SELECT
            true,
            clock_timestamp(),
            true
        ON CONFLICT (singleton) DO UPDATE SET
            began_at = excluded.began_at,
            is_running = true
        RETURNING singleton
    )
    SELECT
        coalesce(before.is_running, false) AS was_cut_off,
        coalesce(before.has_helpers, false) AS has_helpers,
        to_char(before.began_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00') AS began_at,
        extract(epoch FROM before.began_at)::float8 AS began
    FROM begun
    LEFT JOIN audius_challenges.last_tick AS before
        ON before.singleton = begun.singleton
"""

_END = """
    UPDATE audius_challenges.last_tick
    SET
        ended_at = clock_timestamp(),
        is_running = false,
        problem = NULL,
        restoring_since = NULL
"""

# Each challenge that was run since then, the one first whose last run was longest ago.
_TURNS = """
    SELECT
        challenge_id,
        phase = 'first build' AS is_building
    FROM audius_challenges.processor_state
    WHERE last_run >= :began_at::timestamptz
    ORDER BY last_run
"""

_HAD_TURNS = "UPDATE audius_challenges.last_tick SET ended_at = coalesce(:at::timestamptz, clock_timestamp())"

_HAS_HELPERS = "UPDATE audius_challenges.last_tick SET has_helpers = :has_helpers::boolean"

_IS_OVER = "UPDATE audius_challenges.last_tick SET is_running = false"

_PROBLEM = """
    INSERT INTO audius_challenges.last_tick AS tick (singleton, problem, restoring_since)
    SELECT
        true,
        :problem::text,
        CASE WHEN :is_restore::boolean THEN clock_timestamp() END
    ON CONFLICT (singleton) DO UPDATE SET
        problem = excluded.problem,
        restoring_since = CASE WHEN :is_restore::boolean THEN coalesce(tick.restoring_since, clock_timestamp()) END
    RETURNING
        restoring_since::timestamptz(0)::text AS since,
        restoring_since <= clock_timestamp() - :patience::float8 * interval '1 second' AS is_long
"""

_TIMEOUT = """
    SELECT
        current_setting('statement_timeout') AS timeout,
        quote_ident(current_user) AS role
"""


def in_turn(processors: Iterable[Processor], states: Mapping[str, State]) -> list[Processor]:
    """The order of a tick: what was cut off, and has not succeeded since, comes last, the latest of them at last."""
    cut_off = {state.challenge_id: state.cut_off for state in states.values() if state.cut_off}
    return sorted(processors, key=lambda processor: cut_off.get(processor.id, 0.0))


def begin(db: Database, processors: Sequence[Processor]) -> bool:
    """A tick begins: record that, and which challenge the last one was cut off at, if it was; commits.

    :returns: whether there are jobs of helpers
    """
    last = db.row(_BEGIN)
    if last["was_cut_off"]:
        turns = db.rows(_TURNS, began_at=last["began_at"])
        if turns:
            db.rows(_HAD_TURNS, at=last["began_at"])
        had_turn = [turn["challenge_id"] for turn in turns]
        order = in_turn(processors, load_states(db))
        # Each has one turn; then those whose first build goes on have more, one after the other.
        behind = [processor.id for processor in order if processor.id not in had_turn]
        behind += [turn["challenge_id"] for turn in turns if turn["is_building"]]
        if behind:
            record_failure(
                db,
                behind[0],
                f"cut off: the tick that began at {last['began_at']} did not come to its end"
                " HINT: The server's log says what ended it: a crash, a restart, pg_terminate_backend().",
                began=last["began"],
                is_cut_off=True,
            )
    db.plpy.commit()
    has_helpers: bool = last["has_helpers"]
    return has_helpers


def remember_helpers(db: Database, *, has_helpers: bool) -> None:
    """Remember whether there are jobs of helpers, in the transaction that schedules or removes them."""
    db.rows(_HAS_HELPERS, has_helpers=has_helpers)


def end(db: Database) -> None:
    """The last challenge of a tick has run: recorded in its transaction."""
    db.rows(_END)


def does_nothing(db: Database, reason: str) -> None:
    """Remember why ticks do nothing, for `challenge_status`; commits."""
    db.rows(_PROBLEM, problem=reason, is_restore=False, patience=PATIENCE)
    db.plpy.commit()


def is_stopped(db: Database, reason: str) -> None:
    """Say and remember that a tick did nothing, or no more, as this server must not work at the moment; commits."""
    db.rows(_PROBLEM, problem=reason, is_restore=False, patience=PATIENCE)
    db.rows(_IS_OVER)
    db.plpy.commit()
    db.plpy.notice(f"{reason}: nothing was done")


def is_restoring(db: Database, reason: str, hint: str) -> ChallengeError | None:
    """Say and remember that a tick did nothing, for what looks like a restore; commits.

    :returns: after an hour of that, the error to end in
    """
    message = f"{reason}: a restore seems to be under way, nothing was done"
    found = db.row(_PROBLEM, problem=f"{message} HINT: {hint}", is_restore=True, patience=PATIENCE)
    db.rows(_IS_OVER)
    db.plpy.commit()
    if not found["is_long"]:
        db.plpy.notice(message, hint=hint)
        return None
    return ChallengeError(
        f"{reason}: ticks have done nothing since {found['since']}",
        sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
        detail="This looks like a restore, but no restore should take that long.",
        hint=hint,
    )


def cut_off(
    db: Database,
    error: Exception,
    seconds: float,
    *,
    at: Processor | None = None,
    turns: int = 0,
    has_begun: bool = False,
) -> None:
    """Record what ended a tick before its end, as far as that is possible; the error goes on its way.

    :param at: whose turn it was; None: the first had not come yet
    :param turns: how many had their turn before
    :param has_begun: whether `begin` was called
    """
    with suppress(Exception):
        db.plpy.rollback()
        transaction.set_search_path(db)
        db.rows("SELECT set_config('lock_timeout', '2s', true)")
        description = describe(error)
        limit = db.row(_TIMEOUT)
        if limit["timeout"] != "0":
            description += (
                f" HINT: statement_timeout is {limit['timeout']}, and counts for a tick as a whole:"
                f" ALTER ROLE {limit['role']} SET statement_timeout = 0;"
            )
        if at:
            record_failure(
                db,
                at.id,
                f"cut off {seconds:.1f} s after the tick began: {description}",
                began=time.time() - seconds,
                is_cut_off=True,
            )
        else:
            problem = f"a tick failed before its first challenge: {description}"
            db.rows(_PROBLEM, problem=problem, is_restore=False, patience=PATIENCE)
        if turns:
            db.rows(_HAD_TURNS, at=None)
        if has_begun:
            db.rows(_IS_OVER)
        db.plpy.commit()
