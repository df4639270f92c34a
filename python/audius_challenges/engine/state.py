"""What is remembered of each challenge from run to run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from audius_challenges.database import AnyPlan, Database
from audius_challenges.engine import history


class Phase(Enum):
    """How far a challenge has come with the users there are."""

    FIRST_BUILD = "first build"
    """Nobody was examined before, and the challenge had no user challenges."""

    CATCHING_UP = "catching up"
    """Everybody is examined again, slice by slice."""

    WATCHING = "watching"
    """Everybody has been examined; changes are followed, with the sweep behind them."""


@dataclass
class State:
    """A row of `processor_state`, as a run reads and leaves it.

    :ivar phase: None until a run has succeeded
    :ivar catalog_seen: fingerprint of the catalog row that the last success went by; None while inactive
    :ivar look: up to which look (see `feed`) the sources have been read; None: they are not being followed
    :ivar sources: names of these sources
    :ivar sweep_position: the last user id examined in the current round of the sweep; None before the first
    :ivar sweep_rounds: rounds completed
    :ivar nothing_written: whether no row of anybody is there before the first build has come to their slice
    :ivar found_active: whether the last run found it active, whatever came of that run
    :ivar is_exempt: whether completions are not limited until the first round ends
    :ivar completed: how many rewards the first round has completed so far
    :ivar set_aside: ids of the users who are set aside, or of the rows that lead to them (see `Rule.key`)
    :ivar is_cut: whether there were open slices (see `open_slices`) when it was read
    :ivar cut_off: when a tick was cut off in its turn (seconds since 1970); None: it has succeeded since
    :ivar is_asked_for: whether it runs; not so where an update has brought it and somebody else may be paying it
    :ivar round_completed: whether this run has completed a round
    """

    challenge_id: str
    phase: Phase | None = None
    catalog_seen: str | None = None
    look: int | None = None
    sources: list[str] = field(default_factory=list)
    sweep_position: int | None = None
    sweep_rounds: int = 0
    nothing_written: bool = False
    found_active: bool = False
    is_exempt: bool = False
    completed: int = 0
    set_aside: list[int] = field(default_factory=list)
    is_cut: bool = field(default=False, compare=False)
    cut_off: float | None = field(default=None, compare=False)
    is_asked_for: bool = field(default=True, compare=False)
    round_completed: bool = field(default=False, compare=False)

    def complete_round(self) -> None:
        """The sweep has passed the last user."""
        self.phase = Phase.WATCHING
        self.sweep_position = None
        self.sweep_rounds += 1
        self.nothing_written = False
        self.is_exempt = False
        self.completed = 0
        self.round_completed = True


_LOAD = """
    SELECT
        challenge_id,
        phase,
        catalog_seen,
        look,
        sources,
        sweep_position,
        sweep_rounds,
        nothing_written,
        extract(epoch FROM cut_off)::float8 AS cut_off,
        found_active,
        is_exempt,
        completed,
        is_asked_for,
        ARRAY(
            SELECT DISTINCT aside.examined_id
            FROM audius_challenges.set_aside AS aside
            WHERE aside.challenge_id = state.challenge_id
        ) AS set_aside,
        EXISTS (
            SELECT FROM audius_challenges.slice
            WHERE slice.challenge_id = state.challenge_id
        ) AS is_cut
    FROM audius_challenges.processor_state AS state
"""

# Not ON CONFLICT, which would lock the row first: that is a record of WAL more for each challenge, at each tick.
_SAVE = AnyPlan("""
    WITH saved AS (
        SELECT
            :challenge_id::text AS challenge_id,
            :phase::text::audius_challenges.phase AS phase,
            :catalog_seen::text AS catalog_seen,
            :look::bigint AS look,
            :sources::text[] AS sources,
            :sweep_position::bigint AS sweep_position,
            :sweep_rounds::bigint AS sweep_rounds,
            :nothing_written::boolean AS nothing_written,
            :found_active::boolean AS found_active,
            :is_exempt::boolean AS is_exempt,
            :completed::bigint AS completed,
            CASE WHEN :round_completed::boolean THEN clock.now END AS sweep_finished_at,
            clock.now,
            :as_of::timestamptz AS as_of
        FROM clock_timestamp() AS clock (now)
    ),
    updated AS (
        UPDATE audius_challenges.processor_state AS state
        SET
            phase = saved.phase,
            catalog_seen = saved.catalog_seen,
            look = saved.look,
            sources = saved.sources,
            sweep_position = saved.sweep_position,
            sweep_rounds = saved.sweep_rounds,
            nothing_written = saved.nothing_written,
            found_active = saved.found_active,
            is_exempt = saved.is_exempt,
            completed = saved.completed,
            sweep_finished_at = coalesce(saved.sweep_finished_at, state.sweep_finished_at),
            last_run = saved.now,
            last_success = saved.now,
            consecutive_failures = 0,
            cut_off = NULL,
            as_of = greatest(saved.as_of, state.as_of)
        FROM saved
        WHERE state.challenge_id = saved.challenge_id
        RETURNING state.challenge_id
    )
    INSERT INTO audius_challenges.processor_state
        (challenge_id, phase, catalog_seen, look, sources, sweep_position, sweep_rounds, nothing_written,
         found_active, is_exempt, completed, sweep_finished_at, last_run, last_success, as_of)
    SELECT
        saved.challenge_id,
        saved.phase,
        saved.catalog_seen,
        saved.look,
        saved.sources,
        saved.sweep_position,
        saved.sweep_rounds,
        saved.nothing_written,
        saved.found_active,
        saved.is_exempt,
        saved.completed,
        saved.sweep_finished_at,
        saved.now,
        saved.now,
        saved.as_of
    FROM saved
    WHERE NOT EXISTS (SELECT FROM updated)
""")

_LATER = """
    SELECT challenge_id
    FROM audius_challenges.processor_state
    WHERE :as_of::timestamptz < as_of
        AND :as_of::timestamptz < now()
"""

_REMEMBER_ACTIVE = """
    INSERT INTO audius_challenges.processor_state (challenge_id, found_active)
    VALUES (:challenge_id::text, TRUE)
    ON CONFLICT (challenge_id) DO UPDATE SET
        found_active = excluded.found_active
"""

_IS_NOTHING_COMPLETED = """
    SELECT NOT EXISTS (
        SELECT FROM discovery.user_challenges
        WHERE user_challenges.is_complete
    )
"""

_EXEMPT = """
    INSERT INTO audius_challenges.processor_state (challenge_id, is_exempt)
    SELECT
        challenge_id,
        TRUE
    FROM unnest(:challenge_ids::text[]) AS challenge_id
    ON CONFLICT (challenge_id) DO UPDATE SET
        is_exempt = excluded.is_exempt
"""

_RECORD_FAILURE = """
    INSERT INTO audius_challenges.processor_state AS state
        (challenge_id, last_run, consecutive_failures, last_error, last_error_at, cut_off)
    SELECT
        :challenge_id::text,
        now,
        1,
        :error::text,
        now,
        CASE WHEN :is_cut_off::boolean THEN now END
    FROM clock_timestamp() AS now
    ON CONFLICT (challenge_id) DO UPDATE SET
        last_run = excluded.last_run,
        consecutive_failures = state.consecutive_failures + 1,
        last_error = excluded.last_error,
        last_error_at = excluded.last_error_at,
        cut_off = coalesce(excluded.cut_off, state.cut_off)
    RETURNING state.consecutive_failures > 1 AS is_repeated
"""


def load_states(db: Database) -> dict[str, State]:
    """What is remembered of every challenge, by id."""
    return {
        row["challenge_id"]: State(**{**row, "phase": Phase(row["phase"]) if row["phase"] else None})
        for row in db.rows(_LOAD)
    }


def ask_for(db: Database, challenge_ids: Sequence[str]) -> None:
    """Have these challenges run, if an update has left them waiting for somebody to ask for them."""
    db.rows(
        "UPDATE audius_challenges.processor_state SET is_asked_for = TRUE"
        " WHERE NOT is_asked_for AND challenge_id = ANY(:challenge_ids::text[])",
        challenge_ids=list(challenge_ids),
    )


def remember_active(db: Database, state: State) -> None:
    """Remember that a run has found the challenge active, whatever comes of the run."""
    db.rows(_REMEMBER_ACTIVE, challenge_id=state.challenge_id)
    state.found_active = True


def exempt_if_nothing_completed(db: Database, states: dict[str, State], challenge_ids: Sequence[str]) -> None:
    """Remember that the first rounds of these challenges are the first build of a database: nothing limits them."""
    if db.value(_IS_NOTHING_COMPLETED):
        db.rows(_EXEMPT, challenge_ids=challenge_ids)
        for challenge_id in challenge_ids:
            states.setdefault(challenge_id, State(challenge_id)).is_exempt = True


def later_than(db: Database, as_of: str) -> list[str]:
    """The challenges whose last run had a later clock than this one, which is no transaction's present either."""
    return [row["challenge_id"] for row in db.rows(_LATER, as_of=as_of)]


def save_state(db: Database, state: State, as_of: str) -> None:
    """Remember a challenge's success.

    :param as_of: the run's clock
    """
    db.rows(_SAVE, **{**vars(state), "phase": state.phase.value if state.phase else None}, as_of=as_of)
    state.round_completed = False


def remember_turn(db: Database, challenge_id: str) -> None:
    """Remember that a challenge had its turn, in which it could only wait for others: no success, and no failure."""
    db.rows(
        "UPDATE audius_challenges.processor_state SET last_run = clock_timestamp()"
        " WHERE challenge_id = :challenge_id::text",
        challenge_id=challenge_id,
    )


def record_failure(
    db: Database,
    challenge_id: str,
    error: str,
    *,
    began: float,
    duration: float | None = None,
    is_cut_off: bool = False,
) -> None:
    """Remember a challenge's failure, and nothing else of that run.

    :param began: when its run began, in seconds since 1970
    :param duration: seconds that it took; None: nobody knows
    :param is_cut_off: whether the run was stopped in its turn, so that it comes last until it succeeds
    """
    is_repeated = db.value(_RECORD_FAILURE, challenge_id=challenge_id, error=error, is_cut_off=is_cut_off)
    history.record_failure(db, challenge_id, error, began=began, duration=duration, is_repeated=is_repeated)


def forget_looks(db: Database) -> None:
    """Transaction ids of another cluster, or of another table's rows, say nothing here: nobody stands anywhere."""
    db.rows("UPDATE audius_challenges.processor_state SET look = NULL WHERE look IS NOT NULL")
    db.rows("DELETE FROM audius_challenges.look")
