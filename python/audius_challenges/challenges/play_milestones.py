"""p1, p2, p3, play milestones: plays since 2025 of the tracks that a verified user owns, one after the other."""

from __future__ import annotations

from audius_challenges.engine.explanation import VERIFIED, Condition
from audius_challenges.engine.rule import STEP_COUNT, Rule
from audius_challenges.sources import TRACK_OWNERS, VERIFIED_OWNERS_OF_PLAYED


def _play_milestone(challenge_id: str, plays: int, after: str | None = None) -> Rule:
    """A milestone: the sum of monthly plays of tracks that are current and not deleted, from January 2025 on.

    :param plays: what the specifier says, whatever the catalog's step_count is
    """
    return Rule(
        id=challenge_id,
        description=f"{plays} plays",
        changes=(TRACK_OWNERS, VERIFIED_OWNERS_OF_PLAYED),
        specifier=f"to_hex(found.user_id) || ':{plays}'",
        completes_at=STEP_COUNT,
        takes_part=VERIFIED.holds,
        after=after,
        found="""
            SELECT
                owned.owner_id AS user_id,
                sum(monthly.count) AS steps
            FROM eligible
            CROSS JOIN LATERAL (
                SELECT DISTINCT
                    tracks.owner_id,
                    tracks.track_id
                FROM discovery.tracks
                WHERE tracks.owner_id = eligible.user_id
                    AND tracks.is_current
                    AND NOT tracks.is_delete
            ) AS owned
            INNER JOIN discovery.aggregate_monthly_plays AS monthly
                ON owned.track_id = monthly.play_item_id
            WHERE monthly.timestamp >= date '2025-01-01'
            GROUP BY owned.owner_id
        """,
        conditions=(
            VERIFIED,
            Condition(
                what="plays",
                demanded="{target} since January 2025, of tracks that are not deleted",
                has="coalesce(fact.steps, 0)",
                holds="fact.steps >= :target::bigint",
            ),
        ),
    )


PLAY_MILESTONES = (
    _play_milestone("p1", 250),
    _play_milestone("p2", 1000, after="p1"),
    _play_milestone("p3", 10000, after="p2"),
)
