"""e, listen streak: a listen a day, 16 to 48 hours apart; 7 $AUDIO for the seventh, 1 for each one after it.

A state machine, not a ledger of plays. `challenge_listen_streak` says what has been counted of a user: a length and the
last counted listen. Whoever is examined goes on from there with all plays that are newer, in the order they were
played; what is older, or is seen again, cannot count. Plays may be pruned: nothing of them is remembered.

Times are microseconds since 2000, UTC, as PostgreSQL sends them.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from audius_challenges.annotations import Any
from audius_challenges.database import Database
from audius_challenges.engine.clock import latest_by
from audius_challenges.engine.explanation import Answer, Asked, Said, prospects_of
from audius_challenges.engine.per_user import PerUser
from audius_challenges.engine.processor import Work
from audius_challenges.engine.users import Users, eligible_users
from audius_challenges.engine.writing import WRITES, prospects, writing
from audius_challenges.errors import OBJECT_NOT_IN_PREREQUISITE_STATE, ChallengeError
from audius_challenges.settings import MAX_INTEGER
from audius_challenges.sources import LISTENERS, USERS, Reads, columns_read, merged

TOO_SOON, TOO_LATE = 16 * 3_600_000_000, 48 * 3_600_000_000
NEVER = 0  # in place of null, which the setting array_nulls would have read as a word
STREAK_LENGTH, STREAK_AMOUNT, FURTHER_AMOUNT = 7, 7, 1


@dataclass(slots=True)
class Row:
    """A user challenge of a streak, opened by the listen at created_at; one that is new has no specifier yet."""

    created_at: int
    steps: int = 1
    amount: int = STREAK_AMOUNT
    completed_at: int | None = None
    specifier: str | None = None


@dataclass(slots=True)
class Streak:
    """One user's streak, and what further listens do to it.

    :ivar length: counted listens of the running streak, 0 before the first
    :ivar last_listen: the last counted listen
    :ivar latest: the user's latest row by created_at
    :ivar changed: the rows to write
    """

    length: int = 0
    last_listen: int | None = None
    latest: Row | None = None
    changed: dict[int, Row] = field(default_factory=dict)

    @classmethod
    def after(cls, latest: Row | None) -> Streak:
        """The streak of a user whose state is lost, or older than his latest row, which stands in for it."""
        if latest is None or latest.completed_at is None:
            return cls(1, latest.created_at, latest) if latest else cls()
        length = STREAK_LENGTH if latest.steps >= STREAK_LENGTH else STREAK_LENGTH + 1
        return cls(length, latest.completed_at, latest)

    def count(self, listens: Iterable[int]) -> None:
        """Go on by listens, in order; those too soon after the last one that counted, or older, change nothing."""
        for at in listens:
            if self.last_listen is None or at - self.last_listen >= TOO_SOON:
                self._count(at)

    def _count(self, at: int) -> None:
        row = self._running_row(at)
        is_broken = self.last_listen is None or at - self.last_listen >= TOO_LATE
        self.length = 1 if is_broken else min(self.length + 1, MAX_INTEGER)
        self.last_listen = at
        if row is not None:
            row.steps, row.amount = min(self.length, STREAK_LENGTH), STREAK_AMOUNT
        elif self.length <= STREAK_LENGTH:
            row = Row(at, self.length)
        else:
            row = Row(at, amount=FURTHER_AMOUNT)
        if self.length >= STREAK_LENGTH:
            row.completed_at = at
        self.changed[id(row)] = row
        if self.latest is None or row.created_at >= self.latest.created_at:
            self.latest = row

    def _running_row(self, at: int) -> Row | None:
        """The row that an unbroken streak goes on with, whatever its specifier looks like; not a broken, older one."""
        row = self.latest
        if row is None or row.completed_at is not None or self.last_listen is None:
            return None
        is_unbroken = at - self.last_listen < TOO_LATE and row.created_at >= at - self.length * TOO_LATE
        return row if is_unbroken else None


_HEARD = f"""
    SELECT
        eligible.user_id,
        state.listen_streak AS length,
        timestamp_send(state.last_listen_date) AS last_listen,
        heard.listens
    FROM eligible
    LEFT JOIN LATERAL (
        SELECT streak.listen_streak, least(streak.last_listen_date, '200000-01-01') AS last_listen_date
        FROM discovery.challenge_listen_streak AS streak
        WHERE streak.user_id = eligible.user_id AND streak.last_listen_date <> '-infinity' AND streak.listen_streak >= 0
        LIMIT 1
    ) AS state
        ON TRUE
    CROSS JOIN LATERAL (
        SELECT string_agg(timestamp_send(plays.created_at), '' ORDER BY plays.created_at) AS listens
        FROM discovery.plays
        WHERE plays.user_id = eligible.user_id
            AND plays.created_at >= greatest(
                state.last_listen_date + interval '16 hours', '0001-01-01', (
                    SELECT max(pause.ended_at AT TIME ZONE 'UTC') FROM audius_challenges.pause
                    WHERE pause.challenge_id = :challenge_id::text AND pause.began_at = '-infinity'
                )
            )
            AND plays.created_at <= {latest_by()}
            AND NOT (
                SELECT coalesce(range_agg(
                    tsrange(pause.began_at AT TIME ZONE 'UTC', pause.ended_at AT TIME ZONE 'UTC', '[]')
                ), '{{}}') FROM audius_challenges.pause
                WHERE pause.challenge_id = :challenge_id::text
            ) @> plays.created_at
    ) AS heard"""

_LISTENS = f"""
    WITH {eligible_users()}{_HEARD}
    WHERE heard.listens IS NOT NULL
"""

# The same for whoever it is, whether he has listened since or not.
_LISTENS_OF_ANYBODY = f"WITH {eligible_users(whoever=True)}{_HEARD}"

_SAY = f"""
    SELECT
        to_char(listen.at, 'YYYY-MM-DD HH24:MI') || ' UTC' AS last_listen,
        to_char(listen.at + {TOO_SOON} * interval '1 microsecond', 'YYYY-MM-DD HH24:MI') || ' UTC' AS counts_from,
        to_char(listen.at + {TOO_LATE} * interval '1 microsecond', 'YYYY-MM-DD HH24:MI') || ' UTC' AS ends_at,
        listen.at + {TOO_LATE} * interval '1 microsecond' > :as_of::timestamptz AT TIME ZONE 'UTC' AS goes_on,
        listen.at AT TIME ZONE 'UTC' AS since
    FROM (SELECT timestamp '2000-01-01' + :last_listen::bigint::float8 * interval '1 microsecond') AS listen (at)
"""

# || '': a user's rows, by their index. Without statistics the planner would combine it with that of the challenge.
_LATEST_ROWS = """
    SELECT listener.user_id, latest.*
    FROM unnest(:listeners::bigint[]) AS listener (user_id)
    CROSS JOIN LATERAL (
        SELECT
            own.specifier,
            own.current_step_count AS steps,
            timestamp_send(own.created_at AT TIME ZONE 'UTC') AS created_at,
            timestamp_send(
                CASE WHEN own.is_complete THEN coalesce(own.completed_at, own.created_at AT TIME ZONE 'UTC') END
            ) AS completed_at
        FROM discovery.user_challenges AS own
        WHERE own.user_id = listener.user_id
            AND own.challenge_id::text || '' = :challenge_id::text AND isfinite(own.created_at)
        ORDER BY own.created_at DESC, own.specifier COLLATE "C" DESC
        LIMIT 1
    ) AS latest
"""

# Arrays of numbers go in as texts: PostgreSQL reads a text faster than PL/Python converts a list.
_SAVE_STATES = """
    INSERT INTO discovery.challenge_listen_streak AS state (user_id, last_listen_date, listen_streak)
    SELECT
        counted.user_id,
        timestamp '2000-01-01' + counted.last_listen::float8 * interval '1 microsecond',
        counted.length
    FROM unnest((:user_ids::text)::bigint[], (:last_listens::text)::bigint[], (:lengths::text)::integer[])
        AS counted (user_id, last_listen, length)
    ON CONFLICT (user_id) DO UPDATE SET
        last_listen_date = excluded.last_listen_date,
        listen_streak = excluded.listen_streak
"""

_WANTED = f"""
    wanted AS (
        SELECT
            streak.user_id,
            coalesce(streak.specifier, to_hex(streak.user_id) || to_char(listen.at, 'YYYYMMDDHH24')) AS specifier,
            streak.steps AS current_step_count,
            streak.completed <> {NEVER} AS is_complete,
            streak.amount,
            listen.at AT TIME ZONE 'UTC' AS created_at,
            timestamp '2000-01-01' + streak.completed::float8 * interval '1 microsecond' AS completed_at
        FROM unnest(
            (:user_ids::text)::bigint[], :specifiers::text[], (:steps::text)::integer[], (:amounts::text)::integer[],
            (:created::text)::bigint[], (:completed::text)::bigint[]
        ) AS streak (user_id, specifier, steps, amount, created, completed)
        CROSS JOIN LATERAL (SELECT timestamp '2000-01-01' + streak.created::float8 * interval '1 microsecond')
            AS listen (at)
    )
"""

_BEGIN_PAUSE = """
    INSERT INTO audius_challenges.pause (challenge_id, began_at, ended_at)
    VALUES (:challenge_id::text, coalesce(:since::timestamptz, clock_timestamp()),
        CASE WHEN :is_over::boolean THEN clock_timestamp() END)
    ON CONFLICT (challenge_id, began_at) DO UPDATE SET ended_at = excluded.ended_at
"""

_END_PAUSE = """
    UPDATE audius_challenges.pause
    SET ended_at = greatest(began_at, clock_timestamp())
    WHERE challenge_id = :challenge_id::text AND ended_at IS NULL
"""

_IS_PAUSED = """
    SELECT EXISTS (
        SELECT FROM audius_challenges.pause
        WHERE pause.challenge_id = :challenge_id::text AND pause.ended_at IS NULL
    )
"""

_UNCONVERTED = ChallengeError(
    'the state of challenge "e" is from version 1.1.0, and its pauses were not restored',
    sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
    hint="Restore the dump into a database with CREATE EXTENSION audius_challenges VERSION '1.1.0' CASCADE; then update"
    " the extension. If e was never paused or started from now: UPDATE audius_challenges.processor_state SET sources ="
    " '{plays,users}' WHERE challenge_id = 'e';",
)


class ListenStreak(PerUser):
    """The processor of `e`."""

    id = "e"
    description = "listen streak"
    without_past = "SELECT audius_challenges.start_from_now('{e}');"
    is_split = True
    sources = (USERS, LISTENERS)
    statements: Mapping[str, str] = MappingProxyType(
        {"listens": _LISTENS, "latest": _LATEST_ROWS, "states": _SAVE_STATES, "write": writing(_WANTED)}
    )

    @cached_property
    def reads(self) -> Reads:
        """Everything that reconciling needs."""
        own = columns_read(_LISTENS, _LATEST_ROWS, _SAVE_STATES)
        return merged([WRITES, own, *(source.reads for source in self.sources)])

    def run(self, work: Work) -> None:
        """Examine whose turn it is, unless the state is of a version that remembered pauses otherwise."""
        if work.state.phase and not work.state.sources:
            raise _UNCONVERTED
        work.waits_for = None
        if work.is_node and work.db.value(_IS_PAUSED, challenge_id=self.id):
            work.waits_for = "the primary has not ended its pause yet"
        else:
            super().run(work)

    def resume(self, work: Work) -> None:
        """The pause is over. Pauses are the primary's; a node of shares has a copy of them."""
        if not work.is_node:
            work.db.rows(_END_PAUSE, challenge_id=self.id)

    def pause(self, work: Work) -> None:
        """What is listened from here on never counts; before the challenge has ever been active, there is no pause."""
        # What is in hands is written before.
        super().pause(work)
        if work.state.found_active and not work.is_node:
            work.db.rows(_BEGIN_PAUSE, challenge_id=self.id, since=None, is_over=False)

    def start_from_now(self, work: Work) -> int:
        """A pause from the beginning of time until now: streaks go on from the states there are."""
        is_paused = work.state.phase and not work.state.found_active
        work.db.rows(_BEGIN_PAUSE, challenge_id=self.id, since="-infinity", is_over=True)
        passed_over, seen = super().start_from_now(work), work.challenge.fingerprint
        work.state.found_active, work.state.catalog_seen = not is_paused, None if is_paused else seen
        return passed_over

    def reconcile(self, work: Work, users: Users, *, nothing_written: bool) -> None:
        """Count these users' new listens; write states, and then rows, whose trigger reads them."""
        counted = self._counted(work.db, _LISTENS, work.as_of, users, nothing_written=nothing_written)
        streaks = {user_id: streak for user_id, streak in counted.items() if streak.changed}
        if not streaks:
            return
        with work.db.plpy.subtransaction():
            work.db.rows(
                _SAVE_STATES,
                user_ids=_array(streaks),
                last_listens=_array(streak.last_listen for streak in streaks.values()),
                lengths=_array(streak.length for streak in streaks.values()),
            )
            work.write(_WANTED, nothing_written=nothing_written, **_changed_rows(streaks))

    def explain(self, asked: Asked) -> Answer:
        """The streak as the next run will have counted it, and the rows that this changes."""
        db, users = asked.db, Users.listed([asked.user_id])
        streaks = self._counted(db, _LISTENS_OF_ANYBODY, asked.as_of, users, nothing_written=False)
        answer = Answer(target=STREAK_LENGTH, examined=[asked.user_id])
        if not (streak := streaks.get(asked.user_id)):
            return answer
        is_long_enough = streak.length >= STREAK_LENGTH
        had = any(row.completed_at for row in streak.changed.values()) and not is_long_enough
        said = db.row(_SAY, last_listen=streak.last_listen, as_of=asked.as_of)
        answer.said = [
            Said(
                "listens in a row",
                f"{STREAK_LENGTH}, each 16 to 48 hours after the one before",
                f"{streak.length}{', after a longer streak' if had else ''}",
                is_long_enough or had,
            ),
            Said(
                "the next listen that counts",
                f"from {said['counts_from']} on, before {said['ends_at']}" if said["goes_on"] else "any: a new streak",
                f"the last was at {said['last_listen']}" if said["last_listen"] else "there is none yet",
                None,
                said["since"],
            ),
        ]
        rows = db.rows(
            prospects(_WANTED), challenge_id=self.id, nothing_written=False, **_changed_rows({asked.user_id: streak})
        )
        answer.prospects = prospects_of(rows, asked.user_id)
        return answer

    def _counted(
        self, db: Database, listens: str, as_of: str, users: Users, *, nothing_written: bool
    ) -> dict[int, Streak]:
        listeners = db.rows(listens, challenge_id=self.id, as_of=as_of, **users.parameters)
        ids = [] if nothing_written else [listener["user_id"] for listener in listeners]
        found = db.rows(_LATEST_ROWS, challenge_id=self.id, listeners=ids) if ids else []
        latest = {row["user_id"]: _row(row) for row in found}
        return {listener["user_id"]: _counted(listener, latest) for listener in listeners}


LISTEN_STREAK = ListenStreak()


def _changed_rows(streaks: Mapping[int, Streak]) -> dict[str, Any]:
    """The parameters of `_WANTED`."""
    rows = [(user_id, row) for user_id, streak in streaks.items() for row in streak.changed.values()]
    return {
        "user_ids": _array(user_id for user_id, _ in rows),
        "specifiers": [row.specifier for _, row in rows],
        "steps": _array(row.steps for _, row in rows),
        "amounts": _array(row.amount for _, row in rows),
        "created": _array(row.created_at for _, row in rows),
        "completed": _array(row.completed_at for _, row in rows),
    }


def _counted(listener: Mapping[str, Any], latest: Mapping[int, Row]) -> Streak:
    row, last_listen = latest.get(listener["user_id"]), listener["last_listen"]
    streak = Streak(listener["length"], _times(last_listen)[0], row) if last_listen else Streak.after(row)
    if row and row.completed_at and streak.last_listen and row.completed_at > streak.last_listen:
        streak = Streak.after(row)
    streak.count(_times(listener["listens"] or b""))
    return streak


def _row(row: Mapping[str, Any]) -> Row:
    completed_at = _times(row["completed_at"])[0] if row["completed_at"] else None
    return Row(_times(row["created_at"])[0], row["steps"] or 0, completed_at=completed_at, specifier=row["specifier"])


def _times(sent: bytes) -> array[int]:
    times = array("q", sent)
    if sys.byteorder == "little":
        times.byteswap()
    return times


def _array(numbers: Iterable[int | None]) -> str:
    return "{" + ",".join(str(NEVER if number is None else number) for number in numbers) + "}"
