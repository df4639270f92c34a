"""u, track upload: public tracks, stems aside, since the starting block."""

from __future__ import annotations

from audius_challenges.engine.explanation import Condition
from audius_challenges.engine.rule import STEP_COUNT, Rule
from audius_challenges.engine.users import is_one_of_the_users
from audius_challenges.sources import TRACK_OWNERS

_COUNTS = """tracks.is_current
            AND NOT tracks.is_delete
            AND NOT tracks.is_unlisted
            AND tracks.stem_of IS NULL
            AND coalesce(tracks.blocknumber, 0) >= :starting_block::bigint"""

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
            AND {_COUNTS}
        GROUP BY tracks.owner_id
    """,
    facts=f"""
        SELECT
            coalesce((SELECT found.steps FROM found), 0) AS steps,
            (
                SELECT count(DISTINCT tracks.track_id)
                FROM discovery.tracks
                WHERE tracks.owner_id = :user_id::bigint
                    AND tracks.is_current
            ) AS uploads,
            (
                SELECT track.created_at
                FROM (
                    SELECT
                        tracks.track_id,
                        min(tracks.created_at) AS created_at
                    FROM discovery.tracks
                    WHERE tracks.owner_id = :user_id::bigint
                        AND {_COUNTS}
                    GROUP BY tracks.track_id
                ) AS track
                ORDER BY track.created_at ASC
                LIMIT 1
                OFFSET :target::bigint - 1
            ) AS since
    """,
    conditions=(
        Condition(
            what="tracks",
            demanded="{target} that are public, not deleted, no stems, from block {starting_block} on",
            has="fact.steps || ' of ' || fact.uploads",
            holds="fact.steps >= :target::bigint",
            since="fact.since",
        ),
    ),
)
