"""u, track upload: public tracks, stems aside, since the starting block."""

from __future__ import annotations

from audius_challenges.changes import Source
from audius_challenges.user_derived import UserDerived, is_one_of_the_users

# A track that changes hands affects the owner that it has now and those of its other versions.
TRACK_OWNERS = Source(
    "tracks",
    "blocknumber",
    user="version.owner_id",
    join="""
            CROSS JOIN LATERAL (
                SELECT tracks.owner_id
                FROM discovery.tracks
                WHERE tracks.track_id = changed.track_id
                OFFSET 0
            ) AS version""",
)

TRACK_UPLOAD = UserDerived(
    id="u",
    description="track upload",
    sources=(Source("users", "blocknumber", user="changed.user_id"), TRACK_OWNERS),
    columns={"tracks": "track_id owner_id is_current is_delete is_unlisted stem_of blocknumber"},
    progress=f"""
        SELECT
            eligible.user_id,
            coalesce(uploads.tracks, 0) AS progress
        FROM eligible
        LEFT JOIN (
            SELECT
                tracks.owner_id,
                count(DISTINCT tracks.track_id) AS tracks
            FROM discovery.tracks
            WHERE {is_one_of_the_users("tracks.owner_id")}
                AND tracks.is_current
                AND NOT tracks.is_delete
                AND NOT tracks.is_unlisted
                AND tracks.stem_of IS NULL
                AND coalesce(tracks.blocknumber, 0) >= :starting_block
            GROUP BY tracks.owner_id
        ) AS uploads
            ON uploads.owner_id = eligible.user_id
    """,
)
