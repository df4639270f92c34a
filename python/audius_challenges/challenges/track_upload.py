"""u, track upload: public tracks, stems aside, since the starting block."""

from __future__ import annotations

from audius_challenges.engine.rule import STEP_COUNT, Rule
from audius_challenges.engine.users import is_one_of_the_users
from audius_challenges.sources import TRACK_OWNERS

TRACK_UPLOAD = Rule(
    id="u",
    description="track upload",
    changes=(TRACK_OWNERS,),
    completes_at=STEP_COUNT,
    found=f"""
        SELECT
            tracks.owner_id AS user_id,
            count(DISTINCT tracks.track_id) AS steps
        FROM discovery.tracks
        WHERE {is_one_of_the_users("tracks.owner_id")}
            AND tracks.is_current
            AND NOT tracks.is_delete
            AND NOT tracks.is_unlisted
            AND tracks.stem_of IS NULL
            AND coalesce(tracks.blocknumber, 0) >= :starting_block::bigint
        GROUP BY tracks.owner_id
    """,
)
