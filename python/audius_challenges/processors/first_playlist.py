"""fp, first playlist: any playlist or album since the starting block."""

from __future__ import annotations

from audius_challenges.changes import Source
from audius_challenges.user_derived import UserDerived

FIRST_PLAYLIST = UserDerived(
    id="fp",
    description="first playlist",
    is_boolean=True,
    sources=(
        Source("users", "blocknumber", user="changed.user_id"),
        Source(
            "playlists",
            "blocknumber",
            user="version.playlist_owner_id",
            join="""
            CROSS JOIN LATERAL (
                SELECT playlists.playlist_owner_id
                FROM discovery.playlists
                WHERE playlists.playlist_id = changed.playlist_id
                OFFSET 0
            ) AS version""",
        ),
    ),
    columns={"playlists": "playlist_id playlist_owner_id is_current is_delete blocknumber"},
    progress="""
        SELECT
            eligible.user_id,
            count(first.found) AS progress
        FROM eligible
        LEFT JOIN LATERAL (
            SELECT true AS found
            FROM discovery.playlists
            WHERE playlists.playlist_owner_id = eligible.user_id
                AND playlists.is_current
                AND NOT playlists.is_delete
                AND coalesce(playlists.blocknumber, 0) >= :starting_block
            LIMIT 1
        ) AS first ON true
        GROUP BY eligible.user_id
    """,
)
