"""Users: which of them a step is about, and which of these count."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from audius_challenges.database import Database
from audius_challenges.sources import columns_read, merged

_DECIDES = ("user_id", "is_current", "is_deactivated", "blocknumber", "updated_at", "txhash")

# Of several current rows of one user the first in this order decides (rule 8).
DECIDING_FIRST = """
                coalesce(users.blocknumber, 0) DESC,
                users.updated_at DESC,
                users.txhash::text COLLATE "C" DESC"""


@dataclass(frozen=True)
class Users:
    """Some users: all those from one id to another, or among these just some.

    A slice of the sweep is named by its bounds, so that the planner reads a piece of an index, and not each id anew.

    :ivar size: how many they are
    :ivar ids: the ids, if not all between the bounds
    :ivar deeds: specifiers, if the step is only about these
    """

    size: int
    least: int
    greatest: int
    ids: list[int] | None = None
    deeds: list[str] | None = None

    @classmethod
    def listed(cls, ids: Collection[int]) -> Users:
        """Just these users."""
        return cls(len(ids), min(ids, default=0), max(ids, default=0), sorted(ids))

    @property
    def parameters(self) -> dict[str, Any]:
        """What `is_one_of_the_users` and `is_one_of_the_deeds` need."""
        return {
            "least_user": self.least,
            "greatest_user": self.greatest,
            "users": self.ids,
            "deeds": self.deeds,
        }

    def has(self, user_id: int) -> bool:
        """Whether the user is one of them, if there is such a user."""
        return self.least <= user_id <= self.greatest if self.ids is None else user_id in self.ids

    def without(self, ids: Sequence[int], slices: Slices) -> Iterator[Users]:
        """The others, in pieces between these ids, which are in order."""
        if not ids:
            yield self
        elif self.ids is not None:
            yield Users.listed(set(self.ids).difference(ids))
        else:
            for after, before in pairwise([self.least - 1, *ids, self.greatest + 1]):
                yield slices.between(after, before - 1, self.size)

    def halves(self, slices: Slices) -> tuple[Users, ...]:
        """Two halves of the users; where there is just one, of the deeds that are named; nothing of a single one."""
        half = self.size // 2
        if half and self.ids is not None:
            return Users.listed(self.ids[:half]), Users.listed(self.ids[half:])
        if half:
            first = slices.between(self.least - 1, self.greatest, half)
            return first, slices.between(first.greatest, self.greatest, self.size)
        if self.deeds and (half := len(self.deeds) // 2):
            return replace(self, deeds=self.deeds[:half]), replace(self, deeds=self.deeds[half:])
        return ()

    def outside(self, ids: Collection[int]) -> set[int]:
        """Those of the ids that are outside the bounds."""
        return {user_id for user_id in ids if not self.least <= user_id <= self.greatest}


def is_one_of_the_users(column: str) -> str:
    """SQL of whether a user id is one of those that the parameters name (see `Users`)."""
    return (
        f"({column} BETWEEN :least_user::bigint AND :greatest_user::bigint"
        f" AND (:users::bigint[] IS NULL OR {column} = ANY(:users::bigint[])))"
    )


def is_one_of_the_deeds(specifier: str) -> str:
    """SQL of whether a deed is one of those that the parameters name; all are if they name none."""
    return f"(:deeds::text[] IS NULL OR {specifier} = ANY(:deeds::text[]))"


def eligible_users(*texts: str, takes_part: str = "TRUE") -> str:
    """A common table expression `eligible`: those of the users who count (rule 8) and take part.

    :param texts: SQL that names the columns of `eligible` which it needs
    :param takes_part: SQL over `eligible` of who can have steps at all; others do not move, not even down
    """
    named = merged([columns_read(*texts, takes_part, eligible="users")]).get("users", frozenset())
    columns = ",\n                ".join(f"users.{name}" for name in sorted(named.union(_DECIDES)))
    return f"""
    eligible AS (
        SELECT *
        FROM (
            SELECT DISTINCT ON (users.user_id)
                {columns}
            FROM discovery.users
            WHERE {is_one_of_the_users("users.user_id")}
                AND users.is_current
            ORDER BY
                users.user_id ASC,{DECIDING_FIRST}
        ) AS eligible
        WHERE NOT eligible.is_deactivated
            AND {takes_part}
    )"""


def is_active(user_id: str) -> str:
    """SQL of whether a user counts (rule 8), for one who is not among those that are examined.

    :param user_id: SQL of the id, which must not name a column of `users`
    """
    return f"""coalesce((
                SELECT NOT users.is_deactivated
                FROM discovery.users
                WHERE users.user_id = {user_id}
                    AND users.is_current
                ORDER BY{DECIDING_FIRST}
                LIMIT 1
            ), FALSE)"""


SLICE = """
    SELECT
        count(*) AS size,
        min(slice.user_id) AS least,
        max(slice.user_id) AS greatest
    FROM (
        SELECT DISTINCT users.user_id
        FROM discovery.users
        WHERE users.user_id > coalesce(:after::bigint, -9223372036854775808)
            AND users.user_id <= coalesce(:until::bigint, 9223372036854775807)
        ORDER BY users.user_id
        LIMIT :limit::bigint
    ) AS slice
"""


class Slices:
    """Pieces of all users in the order of their ids, each read once a run: challenges often stand at the same place."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._read: dict[tuple[int | None, int | None, int], Users] = {}

    def between(self, after: int | None, until: int | None, limit: int) -> Users:
        """The first users, at most so many, with ids above `after` and not above `until`."""
        key = (after, until, limit)
        if key not in self._read:
            found = self._db.row(SLICE, after=after, until=until, limit=limit)
            self._read[key] = Users(**found) if found["size"] else Users.listed([])
        return self._read[key]
