"""cp, pinned comment: a verified artist pins what somebody else has written under a track."""

from __future__ import annotations

from dataclasses import dataclass

from audius_challenges.engine.processor import Work
from audius_challenges.engine.rule import Rule
from audius_challenges.engine.users import is_active, is_one_of_the_users
from audius_challenges.sources import TRACK_OWNERS, VERIFIED_OWNERS_OF_COMMENTED

_EVERY_MINUTES = 10

# Users who were ever found verified. Who is not any more stays, and is passed by when it is his turn.
_KNOWN = f"""
        known AS (
            INSERT INTO audius_challenges.verified_user (user_id)
            SELECT eligible.user_id
            FROM eligible
            WHERE NOT EXISTS (
                SELECT FROM audius_challenges.verified_user
                WHERE verified_user.user_id = eligible.user_id
                    AND {is_one_of_the_users("verified_user.user_id")}
            )
            ON CONFLICT (user_id) DO NOTHING
        )"""

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


# A pin moves no number. So everybody who may pin has a moment in every ten minutes, by the hash of his id, and is due at
# the run that is the first after it, whenever that is. He is examined if he has a pin that is not paid yet.
def _turn_before(time: str) -> str:
    return f"""floor(
                (
                    extract(EPOCH FROM {time})
                    - (hashint8(verified_user.user_id) & 65535) * {_EVERY_MINUTES * 60} / 65536.0
                ) / {_EVERY_MINUTES * 60}
            )"""


_DUE = f"""
    SELECT verified_user.user_id
    FROM audius_challenges.verified_user
    LEFT JOIN audius_challenges.processor_state
        ON processor_state.challenge_id = 'cp'
    WHERE (
            processor_state.as_of IS NULL
            OR {_turn_before(":as_of::timestamptz")} > {_turn_before("processor_state.as_of")}
        )
        AND EXISTS (
            SELECT FROM (
                {_PINNED}
                    AND tracks.owner_id = verified_user.user_id
                    AND tracks.owner_id <> comments.user_id
                OFFSET 0
            ) AS pinned
            WHERE (
                SELECT TRUE
                FROM discovery.user_challenges
                WHERE user_challenges.challenge_id::text = (SELECT 'cp')
                    AND user_challenges.specifier::text = to_hex(pinned.user_id) || ':' || to_hex(pinned.track_id)
                LIMIT 1
            ) IS NULL
        )
"""


@dataclass(frozen=True, kw_only=True)
class PinnedComment(Rule):
    """The rule, which knows from the start who may pin."""

    def start_from_now(self, work: Work) -> int:
        """The sweep, which would get to know them, has a long way before it."""
        work.db.rows(_KNOW_ALL)
        return super().start_from_now(work)


PINNED_COMMENT = PinnedComment(
    id="cp",
    description="pinned comment",
    changes=(TRACK_OWNERS, VERIFIED_OWNERS_OF_COMMENTED),
    is_deed=True,
    is_of_earner=False,
    takes_part="eligible.is_verified",
    due_users=_DUE,
    also_writes=_KNOWN,
    specifier="to_hex(found.user_id) || ':' || to_hex(found.track_id)",
    found=f"""
        SELECT
            pinned.user_id,
            pinned.track_id,
            1 AS steps
        FROM eligible
        CROSS JOIN LATERAL (
            {_PINNED}
                AND tracks.owner_id = eligible.user_id
                AND tracks.is_current
                AND NOT tracks.is_delete
            OFFSET 0
        ) AS pinned
        WHERE pinned.is_delete IS NOT TRUE
            AND pinned.entity_id = pinned.track_id
            AND lower(pinned.entity_type COLLATE "C") = 'track'
            AND pinned.user_id <> eligible.user_id
            AND {is_active("pinned.user_id")}
    """,
    every_deed=f"""
        SELECT to_hex(pinned.user_id) || ':' || to_hex(pinned.track_id) AS specifier
        FROM ({_PINNED}) AS pinned
    """,
)
