"""fp, first playlist: any playlist or album since the starting block."""

from __future__ import annotations

from audius_challenges.engine.rule import Rule
from audius_challenges.engine.users import is_one_of_the_users
from audius_challenges.sources import PLAYLIST_OWNERS

FIRST_PLAYLIST = Rule(
    id="fp",
    description="first playlist",
    changes=(PLAYLIST_OWNERS,),
    found=f"""
        SELECT DISTINCT
            playlists.playlist_owner_id AS user_id,
            1 AS steps
        FROM discovery.playlists
        WHERE {is_one_of_the_users("playlists.playlist_owner_id")}
            AND playlists.is_current
            AND NOT playlists.is_delete
            AND coalesce(playlists.blocknumber, 0) >= :starting_block::bigint
    """,
)
