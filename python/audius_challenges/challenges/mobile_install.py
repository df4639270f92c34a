"""m, mobile install: the latest of the user's events says that he has come by a mobile app."""

from __future__ import annotations

from audius_challenges.engine.rule import Rule
from audius_challenges.engine.users import is_one_of_the_users
from audius_challenges.sources import MOBILE_USERS

MOBILE_INSTALL = Rule(
    id="m",
    description="mobile install",
    changes=(MOBILE_USERS,),
    is_deed=True,
    found=f"""
        SELECT
            latest.user_id,
            1 AS steps
        FROM (
            SELECT DISTINCT ON (user_events.user_id)
                user_events.user_id,
                user_events.is_mobile_user,
                coalesce(user_events.blocknumber, 0) AS blocknumber
            FROM discovery.user_events
            WHERE {is_one_of_the_users("user_events.user_id")}
                AND user_events.is_current
            ORDER BY
                user_events.user_id ASC,
                coalesce(user_events.blocknumber, 0) DESC,
                user_events.id DESC
        ) AS latest
        WHERE latest.is_mobile_user
            AND latest.blocknumber >= :starting_block::bigint
    """,
    every_deed="""
        SELECT to_hex(user_events.user_id) AS specifier
        FROM discovery.user_events
        WHERE user_events.is_mobile_user
    """,
)
