"""p, profile completion: seven steps that make a profile a person.

Each step is also kept in `challenge_profile_completion`, which goes on following the sources after completion.
"""

from __future__ import annotations

from audius_challenges.engine.rule import STEP_COUNT, Rule
from audius_challenges.sources import FOLLOWERS, REPOSTERS, SAVERS

_STEPS = (
    "profile_description",
    "profile_name",
    "profile_picture",
    "profile_cover_photo",
    "follows",
    "favorites",
    "reposts",
)


def _each(pattern: str, between: str = ", ") -> str:
    return between.join(pattern.replace("step", step) for step in _STEPS)


# LIMIT where EXISTS would do: EXISTS lets the planner hash a whole table of millions for one slice of users.
_FOUND = f"""
        SELECT
            done.*,
            {_each("done.step::integer", " + ")} AS steps
        FROM (
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
                    SELECT TRUE
                    FROM discovery.saves
                    WHERE saves.user_id = eligible.user_id
                        AND saves.is_current
                        AND NOT saves.is_delete
                    LIMIT 1
                ) IS NOT NULL AS favorites,
                (
                    SELECT TRUE
                    FROM discovery.reposts
                    WHERE reposts.user_id = eligible.user_id
                        AND reposts.is_current
                        AND NOT reposts.is_delete
                    LIMIT 1
                ) IS NOT NULL AS reposts
            FROM eligible
            OFFSET 0
        ) AS done
"""

_ALSO_WRITES = f"""
        profile_completion AS (
            INSERT INTO discovery.challenge_profile_completion (user_id, {_each("step")})
            SELECT
                found.user_id,
                {_each("found.step")}
            FROM found
            LEFT JOIN LATERAL (
                SELECT *
                FROM discovery.challenge_profile_completion AS completion
                WHERE completion.user_id = found.user_id
                LIMIT 1
            ) AS existing
                ON TRUE
            WHERE CASE
                WHEN existing.user_id IS NULL
                    THEN found.steps > 0
                ELSE
                    ({_each("existing.step")}) IS DISTINCT FROM ({_each("found.step")})
            END
            ON CONFLICT (user_id) DO UPDATE SET
                {_each("step = excluded.step")}
        )
"""

PROFILE_COMPLETION = Rule(
    id="p",
    description="profile completion",
    changes=(FOLLOWERS, SAVERS, REPOSTERS),
    completes_at=STEP_COUNT,
    takes_part="eligible.handle_lc IS NOT NULL",
    found=_FOUND,
    also_writes=_ALSO_WRITES,
)
