"""Users set aside: one bad row never stops the others (rule 11).

A step that fails for what may lie in one user's data is taken again in halves, until the user stands alone: everybody
else is written, and his error is remembered. He is tried again, alone, when his rows change and once a round of the
sweep. Where single deeds are rewarded, his deeds are halved likewise. While nothing fails, none of this costs anything.
"""

from __future__ import annotations

from collections.abc import Iterator

from audius_challenges.database import Database
from audius_challenges.engine.state import State
from audius_challenges.engine.users import USER_ID, Key, Slices, Users
from audius_challenges.engine.writing import Written
from audius_challenges.errors import PROGRAM_LIMIT_EXCEEDED, ChallengeError, describe, sqlstate_of

# What no user can help: connections, transactions, roles, catalogs and schemas that are missing, serialization,
# privileges and names that code gets wrong, resources, locks, operators, the system, its configuration.
_NOT_OF_ONE = ("08", "25", "26", "28", "3D", "3F", "40", "42", "53", "55P", "57", "58", "F0", "HV", "XX")

# More new users than that in one step have no bad row each, but something in common. So have fewer, if nobody else
# could be written.
MOST_NEW = 1000
MOST_ALONE = 50

EVERYTHING = ""
"""In place of a specifier: the user, with all that the challenge has for him."""

_SAVE = """
    INSERT INTO audius_challenges.set_aside AS known (challenge_id, user_id, specifier, error, examined_id)
    SELECT
        :challenge_id::text,
        failure.user_id,
        failure.specifier,
        failure.error,
        failure.examined_id
    FROM unnest(:ids::bigint[], :user_ids::bigint[], :specifiers::text[], :errors::text[])
        AS failure (examined_id, user_id, specifier, error)
    ON CONFLICT (challenge_id, examined_id, specifier) DO UPDATE SET
        user_id = excluded.user_id,
        error = excluded.error,
        tried_at = excluded.tried_at,
        tries = known.tries + 1
"""

_FORGET = """
    DELETE FROM audius_challenges.set_aside
    WHERE set_aside.challenge_id = :challenge_id::text
        AND set_aside.examined_id = ANY(:tried::bigint[])
        AND NOT EXISTS (
            SELECT FROM unnest(:ids::bigint[], :specifiers::text[]) AS failure (examined_id, specifier)
            WHERE failure.examined_id = set_aside.examined_id
                AND failure.specifier = set_aside.specifier
        )
"""


def _forget_gone(key: Key) -> str:
    """SQL that forgets whom no slice comes to any more."""
    return f"""
    DELETE FROM audius_challenges.set_aside
    WHERE set_aside.challenge_id = :challenge_id::text
        AND NOT EXISTS (
            SELECT FROM discovery.{key.table}
            WHERE {key.table}.{key.column} = set_aside.examined_id
        )
"""


def may_be_one_users(db: Database, error: Exception) -> bool:
    """Whether the cause of an error of PostgreSQL may lie in one user's data."""
    return isinstance(error, db.plpy.SPIError) and not (sqlstate_of(error) or "").startswith(_NOT_OF_ONE)


class SetAside:
    """Whom a step of a challenge tries alone, and how that goes.

    :ivar earners: who earns the deeds that are tried singly, by specifier
    """

    def __init__(self, db: Database, state: State, key: Key) -> None:
        self._db = db
        self._state = state
        self._key = key
        self._known = frozenset(state.set_aside)
        self._written = Written()
        self._rows_before = 0
        self._new_in_turn: set[int] = set()
        self._tried: set[int] = set()
        self._failures: dict[tuple[int, str], str] = {}
        self._users: dict[int, int | None] = {}
        self.earners: dict[str, int] = {}

    def begin(self, written: Written) -> None:
        """A turn begins: a slice of users, or those who have changed.

        :param written: what the run writes
        """
        self._written, self._rows_before = written, written.rows
        self._new_in_turn.clear()

    def apart(self, users: Users, slices: Slices) -> Iterator[Users]:
        """The same users: those who were set aside before come last, each alone."""
        alone = users.among(self._known)
        yield from users.without(alone, slices)
        yield from (Users.listed([user_id]) for user_id in alone)

    def tries(self, users: Users) -> None:
        """Of a user who stands alone, what is known is what comes out now."""
        if users.size == 1:
            self._tried.add(users.least)

    def failed(self, user: Users, error: Exception) -> None:
        """Set a user aside, or the one deed of his that is named.

        :raises ChallengeError: if it cannot be about single users any more
        """
        examined_id, specifier = user.least, user.deeds[0] if user.deeds else EVERYTHING
        if self._user_of(examined_id, specifier) is None:
            return
        self._failures[examined_id, specifier] = describe(error)
        if examined_id not in self._known:
            self._new_in_turn.add(examined_id)
            self._require_few(error)

    def _require_few(self, error: Exception) -> None:
        number, is_alone = len(self._new_in_turn), self._written.rows == self._rows_before
        if number > MOST_NEW or (number > MOST_ALONE and is_alone):
            raise ChallengeError(
                f'challenge "{self._state.challenge_id}" fails for {number} users'
                + (", and nobody else could be written" if is_alone else ""),
                sqlstate=PROGRAM_LIMIT_EXCEEDED,
                detail=f"Nothing was written, and nobody set aside. The last error: {describe(error)}",
                hint="Check the constraints and triggers of the tables that the challenge writes. If each of these"
                " users has a bad row of his own, examine fewer at once: audius_challenges.slice_users, and"
                " changed_users.",
            )

    def save(self) -> int:
        """Remember who failed, and forget those who were set aside before and did not.

        Says in a warning who is new, and returns how many users that are.
        """
        if self._known and self._state.round_completed:
            self._db.rows(_forget_gone(self._key), challenge_id=self._state.challenge_id)
        if not self._tried.intersection(self._known) and not self._failures:
            return 0
        failures = {
            "challenge_id": self._state.challenge_id,
            "ids": [examined_id for examined_id, _ in self._failures],
            "user_ids": [self._user_of(*failure) for failure in self._failures],
            "specifiers": [specifier for _, specifier in self._failures],
            "errors": list(self._failures.values()),
        }
        self._db.rows(_FORGET, **failures, tried=sorted(self._tried))
        self._db.rows(_SAVE, **failures)
        if new := self._new:
            failure, error = next((key, text) for key, text in self._failures.items() if key[0] in new)
            others = f" and {len(new) - 1} more" if len(new) > 1 else ""
            self._db.plpy.warning(
                f'challenge "{self._state.challenge_id}": user {self._user_of(*failure)}{others} set aside: {error}',
                hint="The others were written. See audius_challenges.set_aside.",
            )
        self._state.set_aside = sorted(self._known - self._tried | self.failing)
        return len({self._user_of(*failure) for failure in self._failures if failure[0] in new})

    @property
    def failing(self) -> set[int]:
        """Who has failed, or what leads to them (see `Rule.key`)."""
        return {examined_id for examined_id, _ in self._failures}

    @property
    def _new(self) -> set[int]:
        return self.failing - self._known

    def _user_of(self, examined_id: int, specifier: str) -> int | None:
        """Who it is; nobody if the row is gone by now."""
        if specifier in self.earners:
            return self.earners[specifier]
        if self._key == USER_ID:
            return examined_id
        if examined_id not in self._users:
            found = self._db.rows(self._key.users, id=examined_id)
            self._users[examined_id] = found[0]["user_id"] if found else None
        return self._users[examined_id]
