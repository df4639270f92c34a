"""p1, p2, p3, play milestones: plays since 2025 of the tracks that a verified user owns, one after the other."""

from __future__ import annotations

from audius_challenges.changes import Source
from audius_challenges.processors.track_upload import TRACK_OWNERS
from audius_challenges.user_derived import UserDerived

# Monthly counts have no column that only grows; they change in the transaction that inserts a play.
_PLAYED = Source(
    "plays",
    "id",
    user="owner.user_id",
    join="""
            CROSS JOIN LATERAL (
                SELECT tracks.owner_id
                FROM discovery.tracks
                WHERE tracks.track_id = changed.play_item_id
                OFFSET 0
            ) AS played
            CROSS JOIN LATERAL (
                SELECT users.user_id
                FROM discovery.users
                WHERE users.user_id = played.owner_id
                    AND users.is_verified
                OFFSET 0
            ) AS owner""",
)

_SUM_OF_PLAYS = """
        SELECT
            eligible.user_id,
            coalesce((
                SELECT sum(monthly.count)
                FROM (
                    SELECT DISTINCT tracks.track_id
                    FROM discovery.tracks
                    WHERE tracks.owner_id = eligible.user_id
                        AND tracks.is_current
                        AND NOT tracks.is_delete
                ) AS owned
                INNER JOIN discovery.aggregate_monthly_plays AS monthly
                    ON monthly.play_item_id = owned.track_id
                WHERE monthly.timestamp >= DATE '2025-01-01'
            ), 0) AS progress
        FROM eligible
        WHERE eligible.is_verified
"""

_PREVIOUS_COMPLETE = """
            AND EXISTS (
                SELECT FROM discovery.user_challenges AS previous
                WHERE previous.user_id = eligible.user_id
                    AND previous.challenge_id::text = '{previous}'
                    AND previous.is_complete
            )
"""

_FREED_BY_PREVIOUS = """
    SELECT previous.user_id
    FROM discovery.user_challenges AS previous
    WHERE previous.challenge_id::text = '{previous}'
        AND previous.is_complete
        AND NOT EXISTS (
            SELECT FROM discovery.user_challenges AS own
            WHERE own.challenge_id::text = (SELECT '{id}')
                AND own.specifier::text = to_hex(previous.user_id) || '{suffix}'
        )
"""


def play_milestone(challenge_id: str, plays: int, previous: str | None = None) -> UserDerived:
    """A milestone: the sum of monthly plays of tracks that are current and not deleted, from January 2025 on.

    :param plays: what the specifier says, whatever the catalog's step_count is
    :param previous: the milestone that must be complete before this one begins
    """
    suffix = f":{plays}"
    return UserDerived(
        id=challenge_id,
        description=f"{plays} plays",
        sources=(_PLAYED, TRACK_OWNERS, Source("users", "blocknumber", user="changed.user_id")),
        user_columns="is_verified",
        columns={
            "plays": "id play_item_id created_at",
            "tracks": "track_id owner_id is_current is_delete blocknumber",
            "aggregate_monthly_plays": "play_item_id timestamp count",
        },
        suffix=suffix,
        progress=_SUM_OF_PLAYS + (_PREVIOUS_COMPLETE.format(previous=previous) if previous else ""),
        waiting=_FREED_BY_PREVIOUS.format(previous=previous, id=challenge_id, suffix=suffix) if previous else "",
    )


PLAY_MILESTONES = (
    play_milestone("p1", 250),
    play_milestone("p2", 1000, previous="p1"),
    play_milestone("p3", 10000, previous="p2"),
)
