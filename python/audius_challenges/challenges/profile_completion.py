"""p, profile completion: seven steps that make a profile a person.

Each step is also kept in `challenge_profile_completion`, which goes on following the sources after completion.
"""

from __future__ import annotations

from audius_challenges.engine.explanation import Condition
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


_FOLLOWED = 5


def _of_user(table: str, column: str) -> str:
    return f"""FROM discovery.{table}
                    WHERE {table}.{column} = eligible.user_id
                        AND {table}.is_current
                        AND NOT {table}.is_delete"""


_FOLLOWS = _of_user("follows", "follower_user_id")
_SAVES = _of_user("saves", "user_id")
_REPOSTS = _of_user("reposts", "user_id")
_FOLLOWEES = f"""(
                    SELECT count(*)
                    FROM (
                        SELECT DISTINCT follows.followee_user_id
                        {_FOLLOWS}
                        LIMIT {_FOLLOWED}
                    ) AS followees
                )"""

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
                {_FOLLOWEES} = {_FOLLOWED} AS follows,
                (
                    SELECT TRUE
                    {_SAVES}
                    LIMIT 1
                ) IS NOT NULL AS favorites,
                (
                    SELECT TRUE
                    {_REPOSTS}
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


def _filled(what: str, step: str) -> Condition:
    return Condition(
        what, "filled in", has=f"CASE WHEN fact.{step} THEN 'filled in' ELSE 'empty' END", holds=f"fact.{step}"
    )


_HAS_HANDLE = Condition(
    what="handle",
    demanded="the account has one",
    has="coalesce(eligible.handle_lc, 'none')",
    holds="eligible.handle_lc IS NOT NULL",
)

PROFILE_COMPLETION = Rule(
    id="p",
    description="profile completion",
    changes=(FOLLOWERS, SAVERS, REPOSTERS),
    completes_at=STEP_COUNT,
    takes_part=_HAS_HANDLE.holds,
    found=_FOUND,
    also_writes=_ALSO_WRITES,
    facts=f"""
        SELECT
            found.*,
            {_FOLLOWEES} AS followees,
            (
                SELECT fifth.created_at
                FROM (
                    SELECT
                        follows.followee_user_id,
                        min(follows.created_at) AS created_at
                    {_FOLLOWS}
                    GROUP BY follows.followee_user_id
                ) AS fifth
                ORDER BY fifth.created_at ASC
                LIMIT 1
                OFFSET {_FOLLOWED - 1}
            ) AS follows_since,
            (
                SELECT min(saves.created_at)
                {_SAVES}
            ) AS favorites_since,
            (
                SELECT min(reposts.created_at)
                {_REPOSTS}
            ) AS reposts_since
        FROM found
        INNER JOIN eligible
            ON found.user_id = eligible.user_id
    """,
    conditions=(
        _HAS_HANDLE,
        _filled("description", "profile_description"),
        _filled("name", "profile_name"),
        _filled("picture", "profile_picture"),
        _filled("cover photo", "profile_cover_photo"),
        Condition(
            "follows",
            f"at least {_FOLLOWED} accounts",
            has=f"CASE WHEN fact.follows THEN 'at least {_FOLLOWED}' ELSE fact.followees::text END",
            holds="fact.follows",
            since="fact.follows_since",
        ),
        Condition(
            "favorites",
            "at least 1",
            has="CASE WHEN fact.favorites THEN 'at least 1' ELSE 'none' END",
            holds="fact.favorites",
            since="fact.favorites_since",
        ),
        Condition(
            "reposts",
            "at least 1",
            has="CASE WHEN fact.reposts THEN 'at least 1' ELSE 'none' END",
            holds="fact.reposts",
            since="fact.reposts_since",
        ),
    ),
)
