"""What a challenge says of one user: its conditions, and what the next run that examines him would write.

Said by the SQL that runs execute, without writing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from audius_challenges.catalog import Challenge
from audius_challenges.contract import Contract
from audius_challenges.database import Database
from audius_challenges.errors import NUMERIC_VALUE_OUT_OF_RANGE
from audius_challenges.settings import MAX_INTEGER


@dataclass(frozen=True)
class Condition:
    """What a challenge demands of a user, with SQL of what he has.

    The SQL is over `eligible`, the row of his that decides, and `fact`, a row of what the challenge looks up.

    :ivar what: what is looked at, in a few words
    :ivar demanded: in a few words, with {target}, {cap} and {starting_block} of the catalog
    :ivar has: SQL of a text
    :ivar holds: SQL of a boolean
    :ivar since: SQL of when it began to hold, a timestamp in UTC, where the sources say that
    """

    what: str
    demanded: str
    has: str
    holds: str
    since: str = "NULL::timestamp"


VERIFIED = Condition(
    what="verification",
    demanded="verified",
    has="CASE WHEN eligible.is_verified THEN 'verified' ELSE 'not verified' END",
    holds="eligible.is_verified",
)


def at_least_one(what: str, demanded: str, number: str, since: str = "NULL::timestamp") -> Condition:
    """A condition that one of something is enough for.

    :param number: SQL of how many there are
    """
    return Condition(what, demanded, has=f"({number})::text", holds=f"{number} >= 1", since=since)


def conditions_of(challenge_conditions: tuple[Condition, ...]) -> str:
    """SQL of rows of a LATERAL join over `eligible` and `fact`: number, has, holds, since."""
    rows = ",\n                ".join(
        f"({number}, ({one.has})::text, coalesce({one.holds}, FALSE), ({one.since}) AT TIME ZONE 'UTC')"
        for number, one in enumerate(challenge_conditions)
    )
    return f"(VALUES\n                {rows}\n            ) AS said (number, has, holds, since)"


@dataclass(frozen=True)
class Said:
    """A condition, with what a user has.

    :ivar holds: None: it is not demanded, but good to know
    :ivar since: a timestamptz as text
    """

    what: str
    demanded: str
    has: str | None
    holds: bool | None
    since: str | None = None


@dataclass(frozen=True)
class Prospect:
    """A user challenge as the sources want it.

    :ivar earlier: the specifiers that it had in earlier formats
    :ivar is_there: whether there is a row of it
    :ivar is_to_be_written: whether the next run that examines the user writes it
    """

    user_id: int
    specifier: str
    earlier: list[str]
    steps: int
    is_complete: bool
    amount: int
    is_there: bool
    is_to_be_written: bool


@dataclass
class Asked:
    """A question about one user and one challenge.

    :ivar as_of: the clock, a timestamptz as text
    :ivar completed: the challenges that the next run completes for him, of those before this one
    """

    db: Database
    contract: Contract
    challenge: Challenge
    as_of: str
    user_id: int
    completed: set[str] = field(default_factory=set)


@dataclass
class Answer:
    """What a challenge says.

    :ivar takes_part: whether the user can have steps at all
    :ivar waits_for: what has to come first, if he can have nothing before it
    :ivar prospects: what the sources want of his rows
    :ivar capped: those that only a cap keeps back
    :ivar refused: the deeds of his that were paid before, or passed over: specifier -> the table that tells of it
    :ivar failures: what cannot be written: specifier, or EVERYTHING -> the error
    :ivar target: how many steps complete it, if it says
    """

    said: list[Said] = field(default_factory=list)
    takes_part: bool = True
    waits_for: str | None = None
    prospects: list[Prospect] = field(default_factory=list)
    capped: list[Prospect] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    examined: list[int] = field(default_factory=list)
    target: int | None = None


def too_great(asked: Asked, prospects: list[Prospect]) -> dict[str, str]:
    """The rewards that do not fit the column they would be written to, as a run would find."""
    if asked.contract.is_bigint("user_challenges", "amount"):
        return {}
    error = f"integer out of range (SQLSTATE {NUMERIC_VALUE_OUT_OF_RANGE})"
    return {one.specifier: error for one in prospects if one.amount > MAX_INTEGER}


def prospects_of(rows: list[dict[str, Any]], user_id: int) -> list[Prospect]:
    """The user's own, of what is found."""
    return [Prospect(**row) for row in rows if row["user_id"] == user_id]
