"""m, mobile install: the latest of the user's events says that he has come by a mobile app."""

from __future__ import annotations

from audius_challenges.engine.explanation import Condition
from audius_challenges.engine.rule import Rule
from audius_challenges.engine.users import is_one_of_the_users
from audius_challenges.sources import NEWCOMERS

_LATEST = f"""
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
        """

_EVERY_DEED = """
        SELECT to_hex(user_events.user_id) AS specifier
        FROM discovery.user_events
        WHERE user_events.is_mobile_user
    """

MOBILE_INSTALL = Rule(
    id="m",
    description="mobile install",
    changes=(NEWCOMERS,),
    is_deed=True,
    found=f"""
        SELECT
            latest.user_id,
            1 AS steps
        FROM ({_LATEST}) AS latest
        WHERE latest.is_mobile_user
            AND latest.blocknumber >= :starting_block::bigint
    """,
    every_deed=_EVERY_DEED,
    own_deeds=f"""
        {_EVERY_DEED}
            AND user_events.user_id = :user_id::bigint
    """,
    facts=_LATEST,
    conditions=(
        Condition(
            what="the latest event of the user",
            demanded="says that he uses a mobile app",
            has="CASE WHEN fact.is_mobile_user THEN 'it does' WHEN NOT fact.is_mobile_user THEN 'it does not'"
            " ELSE 'there is none' END",
            holds="fact.is_mobile_user",
        ),
        Condition(
            what="its block",
            demanded="{starting_block} or later",
            has="coalesce(fact.blocknumber::text, 'none')",
            holds="fact.blocknumber >= :starting_block::bigint",
        ),
    ),
)
