"""p, profile completion: seven steps that make a profile a person.

Each step is also kept in `challenge_profile_completion`, which goes on following the sources after completion.
"""

from __future__ import annotations

from audius_challenges.changes import Source
from audius_challenges.user_derived import UserDerived

_ACTION = "user_id is_current is_delete blocknumber"

PROFILE_COMPLETION = UserDerived(
    id="p",
    description="profile completion",
    sources=(
        Source("users", "blocknumber", user="changed.user_id"),
        Source("follows", "blocknumber", user="changed.follower_user_id"),
        Source("saves", "blocknumber", user="changed.user_id"),
        Source("reposts", "blocknumber", user="changed.user_id"),
    ),
    user_columns="handle_lc bio name profile_picture profile_picture_sizes cover_photo cover_photo_sizes",
    columns={
        "follows": "follower_user_id followee_user_id is_current is_delete blocknumber",
        "saves": _ACTION,
        "reposts": _ACTION,
        "challenge_profile_completion": "user_id profile_description profile_name profile_picture"
        " profile_cover_photo follows favorites reposts",
    },
    # LIMIT where EXISTS would do: EXISTS lets the planner hash a whole table of millions for one slice of users.
    aside="""
        steps AS MATERIALIZED (
            SELECT
                eligible.user_id,
                eligible.bio IS NOT NULL AS profile_description,
                eligible.name IS NOT NULL AS profile_name,
                coalesce(eligible.profile_picture, eligible.profile_picture_sizes) IS NOT NULL AS profile_picture,
                coalesce(eligible.cover_photo, eligible.cover_photo_sizes) IS NOT NULL AS profile_cover_photo,
                (
                    SELECT count(*)
                    FROM (
                        SELECT DISTINCT follows.followee_user_id
                        FROM discovery.follows
                        WHERE follows.follower_user_id = eligible.user_id
                            AND follows.is_current
                            AND NOT follows.is_delete
                        LIMIT 5
                    ) AS followees
                ) = 5 AS follows,
                (
                    SELECT true
                    FROM discovery.saves
                    WHERE saves.user_id = eligible.user_id
                        AND saves.is_current
                        AND NOT saves.is_delete
                    LIMIT 1
                ) IS NOT NULL AS favorites,
                (
                    SELECT true
                    FROM discovery.reposts
                    WHERE reposts.user_id = eligible.user_id
                        AND reposts.is_current
                        AND NOT reposts.is_delete
                    LIMIT 1
                ) IS NOT NULL AS reposts
            FROM eligible
            WHERE eligible.handle_lc IS NOT NULL
        ),
        counted AS (
            SELECT
                steps.*,
                steps.profile_description::integer
                + steps.profile_name::integer
                + steps.profile_picture::integer
                + steps.profile_cover_photo::integer
                + steps.follows::integer
                + steps.favorites::integer
                + steps.reposts::integer AS done
            FROM steps
        ),
        profile_completion AS (
            INSERT INTO discovery.challenge_profile_completion
                (user_id, profile_description, profile_name, profile_picture, profile_cover_photo,
                 follows, favorites, reposts)
            SELECT
                counted.user_id,
                counted.profile_description,
                counted.profile_name,
                counted.profile_picture,
                counted.profile_cover_photo,
                counted.follows,
                counted.favorites,
                counted.reposts
            FROM counted
            LEFT JOIN LATERAL (
                SELECT *
                FROM discovery.challenge_profile_completion AS completion
                WHERE completion.user_id = counted.user_id
                LIMIT 1
            ) AS existing ON true
            WHERE CASE
                WHEN existing.user_id IS NULL
                    THEN counted.done > 0
                ELSE
                    (existing.profile_description, existing.profile_name, existing.profile_picture,
                     existing.profile_cover_photo, existing.follows, existing.favorites, existing.reposts)
                    IS DISTINCT FROM
                    (counted.profile_description, counted.profile_name, counted.profile_picture,
                     counted.profile_cover_photo, counted.follows, counted.favorites, counted.reposts)
            END
            ON CONFLICT (user_id) DO UPDATE SET
                profile_description = excluded.profile_description,
                profile_name = excluded.profile_name,
                profile_picture = excluded.profile_picture,
                profile_cover_photo = excluded.profile_cover_photo,
                follows = excluded.follows,
                favorites = excluded.favorites,
                reposts = excluded.reposts
        ),
    """,
    progress="""
        SELECT
            counted.user_id,
            counted.done AS progress
        FROM counted
    """,
)
