"""cp, pinned comment: a verified artist pins what somebody else has written under a track."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from audius_challenges.engine.deeds import has_no_row, is_set_aside, pair_of
from audius_challenges.engine.explanation import Asked, at_least_one
from audius_challenges.engine.processor import Work
from audius_challenges.engine.rule import Rule
from audius_challenges.engine.turns import clock_of, is_in_turn
from audius_challenges.engine.users import Users, is_active, is_one_of_the_users
from audius_challenges.sources import (
    PINS,
    PINS_BY_OWNER,
    TRACK_OWNERS,
    VERIFIED_OWNERS_OF_COMMENTED,
    Reads,
    columns_read,
    merged,
)

# Users who are verified by any current row. Who is not any more stays, and is passed by when it is his turn.
_VERIFIED = f"""
    SELECT DISTINCT users.user_id
    FROM discovery.users
    WHERE {is_one_of_the_users("users.user_id")}
        AND users.is_verified
        AND users.is_current"""

_KNOW = f"""
    INSERT INTO audius_challenges.verified_user (user_id){_VERIFIED}
        AND NOT EXISTS (
            SELECT FROM audius_challenges.verified_user
            WHERE verified_user.user_id = users.user_id
        )
    ON CONFLICT (user_id) DO NOTHING
"""

_KNOW_ALL = """
    INSERT INTO audius_challenges.verified_user (user_id)
    SELECT DISTINCT users.user_id
    FROM discovery.users
    WHERE users.is_verified
        AND users.is_current
    ON CONFLICT (user_id) DO NOTHING
"""

_PINNED = """
        SELECT
            comments.user_id,
            comments.is_delete,
            comments.entity_id,
            comments.entity_type,
            tracks.owner_id,
            tracks.track_id
        FROM discovery.tracks
        INNER JOIN discovery.comments
            ON tracks.pinned_comment_id = comments.comment_id
        WHERE tracks.pinned_comment_id IS NOT NULL"""


_IS_OPEN = f"""{has_no_row("cp", pair_of("pinned.user_id", "pinned.track_id"))}
            AND NOT {is_set_aside("cp", "pinned.owner_id", pair_of("pinned.user_id", "pinned.track_id"))}"""

# A pin moves no number. Where an index leads to the pins there are, whoever has one that is not paid is examined at
# every run. Otherwise everybody who may pin has his turn, and is examined then: to look at all tracks takes too long.
_DUE_BY_INDEX = f"""
    SELECT pinned.owner_id AS user_id
    FROM (
        {_PINNED}
            AND tracks.owner_id <> comments.user_id
    ) AS pinned
    WHERE EXISTS (
            SELECT FROM audius_challenges.verified_user
            WHERE verified_user.user_id = pinned.owner_id
        )
        AND {_IS_OPEN}
"""
_DUE = f"""
    WITH {clock_of("cp")},
    turn AS MATERIALIZED (
        SELECT verified_user.user_id
        FROM audius_challenges.verified_user
        CROSS JOIN clock
        WHERE {is_in_turn("verified_user.user_id")}
    )
    SELECT turn.user_id
    FROM turn
    WHERE EXISTS (
        SELECT FROM (
            {_PINNED}
                AND tracks.owner_id = turn.user_id
                AND tracks.owner_id <> comments.user_id
            OFFSET 0
        ) AS pinned
        WHERE {_IS_OPEN}
    )
"""


_IS_PINNED_BY_ARTIST = is_active("pinned.owner_id", "users.is_verified")


@dataclass(frozen=True, kw_only=True)
class PinnedComment(Rule):
    """A rule over the users who are known to be verified."""

    @cached_property
    def reads(self) -> Reads:
        """What tells who is verified, too."""
        return merged([super().reads, columns_read(_KNOW, _KNOW_ALL)])

    @cached_property
    def statements(self) -> Mapping[str, str]:
        """What remembers who is verified, too."""
        return {**super().statements, "know": _KNOW, "know all": _KNOW_ALL, "due by index": _DUE_BY_INDEX}

    def reconcile(self, work: Work, users: Users, *, nothing_written: bool) -> None:
        """Remember who of them is verified, and write what they have pinned."""
        work.db.rows(_KNOW, **users.parameters)
        super().reconcile(work, users, nothing_written=nothing_written)

    def due_of(self, work: Work) -> str | None:
        """Every open pin, where an index leads to them."""
        return _DUE_BY_INDEX if work.db.indexes.intersection((PINS, PINS_BY_OWNER)) else self.due

    def as_next_run_finds_it(self, asked: Asked) -> Rule:
        """The rule over those whom the next run comes to know."""
        return replace(super().as_next_run_finds_it(asked), found=_found(f"({_VERIFIED})"))

    def start_from_now(self, work: Work) -> int:
        """Remember who is verified: the sweep, which would find them, has a long way before it."""
        work.db.rows(_KNOW_ALL)
        return super().start_from_now(work)


def _found(known: str) -> str:
    return f"""
        SELECT
            pinned.user_id,
            pinned.track_id,
            1 AS steps
        FROM {known} AS verified_user
        CROSS JOIN LATERAL (
            {_PINNED}
                AND tracks.owner_id = verified_user.user_id
                AND tracks.is_current
                AND NOT tracks.is_delete
            OFFSET 0
        ) AS pinned
        WHERE {is_one_of_the_users("verified_user.user_id")}
            AND pinned.is_delete IS NOT TRUE
            AND pinned.entity_id = pinned.track_id
            AND lower(pinned.entity_type COLLATE "C") = 'track'
            AND pinned.user_id <> pinned.owner_id
            AND {_IS_PINNED_BY_ARTIST}
            AND {is_active("pinned.user_id")}
    """


_EVERY_DEED = f"""
        SELECT {pair_of("pinned.user_id", "pinned.track_id")} AS specifier
        FROM ({_PINNED}) AS pinned
    """

# Without an index on comments.user_id all comments are read. From them it is two steps to the tracks that count.
_PINNED_OF_USER = f"""{_PINNED}
            AND comments.user_id = :user_id::bigint
            AND tracks.track_id = comments.entity_id"""

PINNED_COMMENT = PinnedComment(
    id="cp",
    description="pinned comment",
    changes=(TRACK_OWNERS, VERIFIED_OWNERS_OF_COMMENTED),
    is_deed=True,
    is_of_earner=False,
    specifier=pair_of("found.user_id", "found.track_id"),
    due_users=_DUE,
    found=_found("audius_challenges.verified_user"),
    every_deed=_EVERY_DEED,
    own_deeds=f"""
        SELECT {pair_of("pinned.user_id", "pinned.track_id")} AS specifier
        FROM ({_PINNED_OF_USER}) AS pinned
    """,
    examined=f"""
        SELECT DISTINCT pinned.owner_id AS id
        FROM ({_PINNED_OF_USER}) AS pinned
    """,
    facts=f"""
        SELECT
            count(*) AS number,
            count(*) FILTER (
                WHERE pinned.user_id <> pinned.owner_id
                    AND {_IS_PINNED_BY_ARTIST}
            ) AS by_artists,
            (SELECT count(*) FROM found WHERE found.user_id = :user_id::bigint) AS counted
        FROM ({_PINNED_OF_USER}) AS pinned
    """,
    conditions=(
        at_least_one("pinned comments of the user", "one on the track that pins it", "fact.number"),
        at_least_one(
            "pinned by an artist", "one whose account is active and verified, not the user himself", "fact.by_artists"
        ),
        at_least_one("both there", "neither comment nor track is deleted", "fact.counted"),
    ),
)
