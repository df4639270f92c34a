"""fp, first playlist: any playlist or album since the starting block."""

from __future__ import annotations

from audius_challenges.changes import Source
from audius_challenges.user_derived import UserDerived, is_one_of_the_users

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
    progress=f"""
        SELECT
            eligible.user_id,
            (owners.playlist_owner_id IS NOT NULL)::integer AS progress
        FROM eligible
        LEFT JOIN (
            SELECT DISTINCT playlists.playlist_owner_id
            FROM discovery.playlists
            WHERE {is_one_of_the_users("playlists.playlist_owner_id")}
                AND playlists.is_current
                AND NOT playlists.is_delete
                AND coalesce(playlists.blocknumber, 0) >= :starting_block
        ) AS owners
            ON owners.playlist_owner_id = eligible.user_id
    """,
)
