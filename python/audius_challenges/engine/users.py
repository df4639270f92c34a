"""Users: which of them a step is about, and which of these count."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
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
    """

    size: int
    least: int
    greatest: int
    ids: list[int] | None = None

    @classmethod
    def listed(cls, ids: Collection[int]) -> Users:
        """Just these users."""
        return cls(len(ids), min(ids, default=0), max(ids, default=0), sorted(ids))

    @property
    def parameters(self) -> dict[str, Any]:
        """What `is_one_of_the_users` needs."""
        return {"least_user": self.least, "greatest_user": self.greatest, "users": self.ids}

    def outside(self, ids: Collection[int]) -> set[int]:
        """Those of the ids that are outside the bounds."""
        return {user_id for user_id in ids if not self.least <= user_id <= self.greatest}


def is_one_of_the_users(column: str) -> str:
    """SQL of whether a user id is one of those that the parameters name (see `Users`)."""
    return (
        f"({column} BETWEEN :least_user::bigint AND :greatest_user::bigint"
        f" AND (:users::bigint[] IS NULL OR {column} = ANY(:users::bigint[])))"
    )


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
