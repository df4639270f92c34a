"""The week's scores of tracks, which several challenges go by."""

from __future__ import annotations

from audius_challenges.engine.clock import has_come
from audius_challenges.engine.users import is_active

VERSION = "pnagD"

# A score that is not a finite number above 0 is no score, nor is one that claims to be from later (rule 14).
IS_A_SCORE = f"""scores.score > 0
            AND scores.score < 'Infinity'
            AND {has_come("scores.created_at", "clock_timestamp()")}"""


def is_of_the_week(score_type: str) -> str:
    """SQL of whether a row of `scores` is of this type, and of the week."""
    return f"""scores.type::text = '{score_type}'
            AND scores.version::text = '{VERSION}'
            AND scores.time_range::text = 'week'"""


# Of several current versions one that qualifies is enough; of several that do, the highest block's owner is paid.
def scored_tracks(score_type: str) -> str:
    """SQL of the week's scores of tracks that count: id, score, owner_id."""
    return f"""
        SELECT
            scores.track_id AS id,
            scores.score,
            track.owner_id
        FROM discovery.track_trending_scores AS scores
        CROSS JOIN LATERAL (
            SELECT tracks.owner_id
            FROM discovery.tracks
            WHERE tracks.track_id = scores.track_id
                AND tracks.is_current
                AND NOT tracks.is_delete
                AND NOT tracks.is_unlisted
                AND tracks.is_available
            ORDER BY
                coalesce(tracks.blocknumber, 0) DESC,
                tracks.txhash::text COLLATE "C" DESC
            LIMIT 1
        ) AS track
        WHERE {is_of_the_week(score_type)}
            AND {IS_A_SCORE}
            AND {is_active("track.owner_id")}"""


_BEST_FIRST = """
        ORDER BY
            scores.score DESC,
            scores.track_id DESC"""

TRENDING_TRACKS = f"{scored_tracks('TRACKS')}{_BEST_FIRST}"
"""SQL of the trending tracks, best first: id, score, owner_id."""
