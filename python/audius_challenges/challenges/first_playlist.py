"""fp, first playlist: any playlist or album since the starting block."""

from __future__ import annotations

from audius_challenges.engine.explanation import at_least_one
from audius_challenges.engine.rule import Rule
from audius_challenges.engine.users import is_one_of_the_users
from audius_challenges.sources import PLAYLIST_OWNERS

_COUNTS = """playlists.is_current
            AND NOT playlists.is_delete
            AND coalesce(playlists.blocknumber, 0) >= :starting_block::bigint"""

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
            AND {_COUNTS}
    """,
    facts=f"""
        SELECT
            count(DISTINCT playlists.playlist_id) AS number,
            min(playlists.created_at) AS since
        FROM discovery.playlists
        WHERE playlists.playlist_owner_id = :user_id::bigint
            AND {_COUNTS}
    """,
    conditions=(
        at_least_one(
            "playlists and albums",
            "one that is not deleted, from block {starting_block} on",
            "fact.number",
            "fact.since",
        ),
    ),
)
