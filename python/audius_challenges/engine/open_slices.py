"""Open slices: users whom several sessions examine at once, in a first build, when catching up, or in a full scan.

A slice is a row of `audius_challenges.slice`. The leader cuts all users whom the round has yet to come to: it is the
tick, or whoever else holds the lock of a run. A slice is taken by deleting its row, in the transaction that writes what
comes of it. So it has one taker, and a crash or an error gives it back. Leader and helpers take them.

While a challenge has open slices, the leader reads neither its feed nor who is due: its look stays where it is. A slice
counts as open until its taker has committed. So no user is in two hands at once, and whatever happens to him meanwhile
is found afterwards, as in a first build. What ends the round or begins it anew closes the slices first, and waits for
those that are in hands.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from audius_challenges.database import Database
from audius_challenges.engine.state import State
from audius_challenges.engine.users import Key, Slices, Users
from audius_challenges.errors import LOCK_NOT_AVAILABLE, OBJECT_NOT_IN_PREREQUISITE_STATE, ChallengeError, sqlstate_of

HELPERS = 1633903724, 100
"""Advisory locks of helpers, (class, object): one each, from this object on."""

# Beyond that (seconds) whoever closes slices waits no longer for those that are in hands.
PATIENCE = 60

_ARE_LEFT = """
    SELECT
        state.completed,
        EXISTS (
            SELECT FROM audius_challenges.slice
            WHERE slice.challenge_id = state.challenge_id
        ) AS are_left
    FROM audius_challenges.processor_state AS state
    WHERE state.challenge_id = :challenge_id::text
"""

_TAKE = """
    WITH next AS MATERIALIZED (
        SELECT slice.least
        FROM audius_challenges.slice
        WHERE slice.challenge_id = :challenge_id::text
        ORDER BY slice.least
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    )
    DELETE FROM audius_challenges.slice
    USING next
    WHERE slice.challenge_id = :challenge_id::text
        AND slice.least = next.least
    RETURNING
        slice.least,
        slice.greatest
"""

# The lock of the row is held until the transaction ends, so it comes last: from here on takers wait for each other.
_COUNT = """
    UPDATE audius_challenges.processor_state
    SET
        completed = processor_state.completed + :completed::bigint,
        as_of = greatest(processor_state.as_of, :as_of::timestamptz)
    WHERE processor_state.challenge_id = :challenge_id::text
    RETURNING processor_state.completed
"""

_CLOSE = "DELETE FROM audius_challenges.slice WHERE slice.challenge_id = :challenge_id::text"

_LOCK_TIMEOUT = "SELECT current_setting('lock_timeout')"
_SET_LOCK_TIMEOUT = "SELECT set_config('lock_timeout', :timeout::text, true)"

_HELPING = """
    SELECT pid
    FROM pg_locks
    WHERE locktype = 'advisory'
        AND classid = :class::bigint::oid
        AND objid >= :object::bigint::oid
        AND objsubid = 2
        AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ORDER BY pid
"""

# Not for one that fails, which may be for long: no challenge stops another one.
_MUST_WAIT = """
    SELECT EXISTS (
        SELECT FROM audius_challenges.processor_state AS state
        WHERE state.challenge_id = :challenge_id::text
            AND state.consecutive_failures = 0
            AND (
                EXISTS (
                    SELECT FROM audius_challenges.slice
                    WHERE slice.challenge_id = state.challenge_id
                )
                OR (
                    :workers::integer > 1
                    AND state.found_active
                    AND state.phase IS DISTINCT FROM 'watching'
                )
            )
    )
"""


OPEN_KEYS = """(
            SELECT coalesce(sum(slice.greatest - slice.least + 1), 0)::bigint
            FROM audius_challenges.slice
            WHERE slice.challenge_id = state.challenge_id
        )"""
"""SQL over `state` of how many keys there are in open slices, as if none were missing."""


class OpenSlices:
    """The open slices, as one run knows them: only it adds to them, so it need not ask where there were none."""

    def __init__(self, db: Database, states: Iterable[State]) -> None:
        self._db = db
        self._cut = {state.challenge_id for state in states if state.is_cut}

    @property
    def may_be_left(self) -> frozenset[str]:
        """The challenges that may have some."""
        return frozenset(self._cut)

    def are_any_left(self) -> bool:
        """Whether any challenge has some."""
        return bool(self._db.value("SELECT EXISTS (SELECT FROM audius_challenges.slice)"))

    def are_left(self, state: State) -> bool:
        """Whether the challenge has any, those in hands included; and read what the takers have completed."""
        if state.challenge_id not in self._cut:
            return False
        found = self._db.row(_ARE_LEFT, challenge_id=state.challenge_id)
        state.completed = found["completed"]
        return bool(found["are_left"])

    def cut(self, state: State, key: Key, size: int) -> int:
        """Cut all users behind the position of the sweep, and return the greatest id among them."""
        self._cut.add(state.challenge_id)
        cut = {"challenge_id": state.challenge_id, "after": state.sweep_position, "size": size}
        position: int = self._db.value(key.cut, **cut)
        return position

    def take(self, challenge_id: str, slices: Slices) -> Users | None:
        """Take the first slice that is in no hands: it is the caller's, and gone with the transaction's commit."""
        for found in self._db.rows(_TAKE, challenge_id=challenge_id):
            return slices.between(found["least"] - 1, found["greatest"], sys.maxsize)
        return None

    def count(self, challenge_id: str, completed: int, as_of: str) -> int:
        """Add what a slice has completed to what all takers have, and return that.

        :param as_of: the taker's clock
        """
        of_all: int = self._db.value(_COUNT, challenge_id=challenge_id, completed=completed, as_of=as_of)
        return of_all

    def close(self, state: State) -> None:
        """Delete all slices of the challenge, once those in hands have been written or given back.

        :raises ChallengeError: if that takes more than a minute
        """
        if state.challenge_id not in self._cut:
            return
        timeout = self._db.value(_LOCK_TIMEOUT)
        self._db.rows(_SET_LOCK_TIMEOUT, timeout=f"{PATIENCE}s")
        try:
            self._db.rows(_CLOSE, challenge_id=state.challenge_id)
        except Exception as error:
            if sqlstate_of(error) != LOCK_NOT_AVAILABLE:
                raise
            raise self._in_hands(state.challenge_id) from None
        finally:
            self._db.rows(_SET_LOCK_TIMEOUT, timeout=timeout)
        self.are_left(state)

    def must_wait(self, after: str, workers: int) -> bool:
        """Whether a challenge must not begin yet, since the one that it comes after is not through with all users."""
        if workers == 1 and after not in self._cut:
            return False
        return bool(self._db.value(_MUST_WAIT, challenge_id=after, workers=workers))

    def _in_hands(self, challenge_id: str) -> ChallengeError:
        class_, first = HELPERS
        helping = [row["pid"] for row in self._db.rows(_HELPING, **{"class": class_, "object": first})]
        who = f"helpers: {', '.join(map(str, helping))}" if helping else "another session"
        end_them = " ".join(f"SELECT pg_terminate_backend({pid});" for pid in helping)
        return ChallengeError(
            f'slices of challenge "{challenge_id}" are in the hands of {who}',
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            detail=f"It begins anew once they are written. That was waited for {PATIENCE} s.",
            hint="Try again later." + (f" If they are not at work: {end_them}" if end_them else ""),
        )
