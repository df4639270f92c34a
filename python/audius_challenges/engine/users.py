"""Users, or rows that lead to one each: which of them a step is about, and which users count."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from audius_challenges.annotations import Any
from audius_challenges.database import Database
from audius_challenges.sources import Reads, columns_read, merged

_DECIDES = ("user_id", "is_current", "is_deactivated", "blocknumber", "updated_at", "txhash")

# Of several current rows of one user the first in this order decides (rule 8).
DECIDING_FIRST = """
                coalesce(users.blocknumber, 0) DESC,
                users.updated_at DESC,
                users.txhash::text COLLATE "C" DESC"""


@dataclass(frozen=True)
class Key:
    """What a challenge examines: users, or rows of a source that lead to one user each.

    :ivar table: name of the table
    :ivar column: the key, an integer that an index begins with
    :ivar user: the column of the user
    """

    table: str
    column: str
    user: str

    @property
    def reads(self) -> Reads:
        """The columns that slices and errors need."""
        return {self.table: frozenset({self.column, self.user})}

    @property
    def slice(self) -> str:
        """SQL of the first rows after a key, as bounds."""
        key = f"{self.table}.{self.column}"
        return f"""
    SELECT
        count(*) AS size,
        min(slice.{self.column}) AS least,
        max(slice.{self.column}) AS greatest
    FROM (
        SELECT DISTINCT {key}
        FROM discovery.{self.table}
        WHERE {key} > coalesce(:after::bigint, -9223372036854775808)
            AND {key} <= coalesce(:until::bigint, 9223372036854775807)
        ORDER BY {key}
        LIMIT :limit::bigint
    ) AS slice
"""

    @property
    def users(self) -> str:
        """SQL of whom a row leads to."""
        return f"""
    SELECT {self.table}.{self.user} AS user_id
    FROM discovery.{self.table}
    WHERE {self.table}.{self.column} = :id::bigint
    LIMIT 1
"""

    @property
    def cut(self) -> str:
        """SQL that cuts all keys behind a position into open slices without gaps, and returns the greatest key."""
        key = f"{self.table}.{self.column}"
        return f"""
    WITH numbered AS (
        SELECT
            key.id,
            (row_number() OVER (ORDER BY key.id) - 1) / :size::bigint AS number
        FROM (
            SELECT DISTINCT {key} AS id
            FROM discovery.{self.table}
            WHERE {key} > coalesce(:after::bigint, -9223372036854775808)
        ) AS key
    ),
    piece AS (
        SELECT
            numbered.number,
            min(numbered.id) AS least,
            max(numbered.id) AS greatest,
            count(*) AS size
        FROM numbered
        GROUP BY numbered.number
    ),
    cut AS (
        INSERT INTO audius_challenges.slice (challenge_id, least, greatest, size)
        SELECT
            :challenge_id::text,
            coalesce(lag(piece.greatest) OVER (ORDER BY piece.number) + 1, :after::bigint + 1, piece.least),
            piece.greatest,
            piece.size
        FROM piece
        RETURNING slice.greatest
    )
    SELECT max(cut.greatest) AS position
    FROM cut
"""

    @property
    def progress(self) -> str:
        """SQL of how far in the keys a position is, in percent, if so many before it are in open slices."""
        greatest = f"greatest(max({self.table}.{self.column}), :position::bigint, 1)"
        return f"""
    SELECT round(100.0 * (:position::bigint - :open_keys::bigint) / {greatest}::numeric, 1)
    FROM discovery.{self.table}
"""

    @property
    def backlog(self) -> str:
        """SQL of how many keys there are behind a position and in open slices, as if none were missing."""
        return f"""
    SELECT greatest(max({self.table}.{self.column}) - coalesce(:position::bigint, 0), 0) + :open_keys::bigint
    FROM discovery.{self.table}
"""


USER_ID = Key("users", column="user_id", user="user_id")


@dataclass(frozen=True)
class Users:
    """Some users: all those from one id to another, or among these just some. Or as many rows of a source (see `Key`).

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

    def among(self, ids: Collection[int]) -> list[int]:
        """Those of the ids, in order, that are among them, if there are such users."""
        if not ids:
            return []
        if self.ids is not None:
            return sorted(set(self.ids).intersection(ids))
        return sorted(user_id for user_id in ids if self.least <= user_id <= self.greatest)

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


def is_one_of_the_rows(key: str) -> str:
    """SQL of whether a row is one of those to examine, by its key (see `Key`)."""
    return is_one_of_the_users(key)


def is_one_of_the_deeds(specifier: str) -> str:
    """SQL of whether a deed is one of those that the parameters name; all are if they name none."""
    return f"(:deeds::text[] IS NULL OR {specifier} = ANY(:deeds::text[]))"


def is_active(user: str, takes_part: str = "TRUE") -> str:
    """SQL of whether a user counts (rule 8), and takes part: for one who is not among those that are examined.

    :param user: SQL of the id, which must not name a column of `users`
    :param takes_part: SQL over `users`
    """
    return f"""coalesce((
                SELECT NOT users.is_deactivated AND {takes_part}
                FROM discovery.users
                WHERE users.user_id = {user}
                    AND users.is_current
                ORDER BY{DECIDING_FIRST}
                LIMIT 1
            ), FALSE)"""


def eligible_users(*texts: str, takes_part: str = "TRUE", among: str = "TRUE", whoever: bool = False) -> str:
    """A common table expression `eligible`: those of the users who count (rule 8) and take part.

    :param texts: SQL that names the columns of `eligible` which it needs
    :param takes_part: SQL over `eligible` of who can have steps at all; others do not move, not even down
    :param among: SQL over `users` of whom else to leave out
    :param whoever: leave out nobody: what explains looks at those who do not count, too
    """
    counts, takes_part = ("TRUE", "TRUE") if whoever else ("NOT eligible.is_deactivated", takes_part)
    columns = _columns_of_eligible(*texts, takes_part)
    return f"""
    eligible AS (
        SELECT *
        FROM (
            SELECT DISTINCT ON (users.user_id)
                {columns}
            FROM discovery.users
            WHERE {is_one_of_the_users("users.user_id")}
                AND users.is_current
                AND {among}
            ORDER BY
                users.user_id ASC,{DECIDING_FIRST}
        ) AS eligible
        WHERE {counts}
            AND {takes_part}
    )"""


def account(*texts: str) -> str:
    """A common table expression `account`: the row that decides about the user :user_id, whatever it says of him.

    :param texts: SQL that names its columns, as those of `eligible`
    """
    return f"""
    account AS (
        SELECT
            {_columns_of_eligible(*texts)}
        FROM discovery.users
        WHERE users.user_id = :user_id::bigint
            AND users.is_current
        ORDER BY{DECIDING_FIRST}
        LIMIT 1
    )"""


def join_of_eligible(takes_part: str = "TRUE") -> str:
    """A join of `found` with `eligible`, whoever counts among those found and takes part: a look at each."""
    return f"""
                    CROSS JOIN LATERAL (
                        SELECT *
                        FROM (
                            SELECT
                                {_columns_of_eligible(takes_part)}
                            FROM discovery.users
                            WHERE users.user_id = found.user_id
                                AND users.is_current
                            ORDER BY{DECIDING_FIRST}
                            LIMIT 1
                        ) AS eligible
                        WHERE NOT eligible.is_deactivated
                            AND {takes_part}
                    ) AS eligible"""


def _columns_of_eligible(*texts: str) -> str:
    named = merged([columns_read(*texts, eligible="users")]).get("users", frozenset())
    return ",\n                ".join(f"users.{name}" for name in sorted(named.union(_DECIDES)))


class Slices:
    """Pieces of all users in the order of their ids, each read once a run: challenges often stand at the same place.

    Or of all rows of another key.

    :ivar key: what they are slices of
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self.key = USER_ID
        self._read: dict[tuple[Key, int | None, int | None, int], Users] = {}

    def of(self, key: Key) -> Slices:
        """Those of a key, read along with these."""
        if key == self.key:
            return self
        slices = Slices(self._db)
        slices.key, slices._read = key, self._read
        return slices

    def between(self, after: int | None, until: int | None, limit: int) -> Users:
        """The first users, at most so many, with ids above `after` and not above `until`."""
        piece = (self.key, after, until, limit)
        if piece not in self._read:
            found = self._db.row(self.key.slice, after=after, until=until, limit=limit)
            self._read[piece] = Users(**found) if found["size"] else Users.listed([])
        return self._read[piece]
