"""c, first weekly comment: in each ISO week (UTC) the first that the user writes, on anything.

Nothing leads from a user to his comments but an index that the application lacks. So comments are examined, not users:
each of them names user and week, and that is all a reward needs.
"""

from __future__ import annotations

from audius_challenges.engine.clock import has_come
from audius_challenges.engine.explanation import Condition
from audius_challenges.engine.rule import Rule
from audius_challenges.engine.users import Key, is_one_of_the_rows
from audius_challenges.sources import COMMENTS, COMMENTS_OF_USERS

# Until then specifiers had the user's id in decimal.
_LAST_DECIMAL_WEEK = "202511"

_COUNTS = f"""comments.is_delete IS NOT TRUE
            AND comments.is_visible IS NOT FALSE
            AND coalesce(comments.blocknumber, 0) >= :starting_block::bigint
            AND {has_come("comments.created_at")}"""

_EVERY_DEED = """
        SELECT DISTINCT to_hex(comments.user_id) || ':' || to_char(comments.created_at, 'IYYYIW') AS specifier
        FROM discovery.comments
        WHERE isfinite(comments.created_at)
    """

FIRST_WEEKLY_COMMENT = Rule(
    id="c",
    description="first weekly comment",
    key=Key("comments", column="comment_id", user="user_id"),
    changes=(COMMENTS, COMMENTS_OF_USERS),
    is_deed=True,
    specifier="to_hex(found.user_id) || ':' || found.week",
    earlier=f"""
        CASE
            WHEN found.week <= '{_LAST_DECIMAL_WEEK}' THEN ARRAY[found.user_id || ':' || found.week]
            ELSE '{{}}'::text[]
        END""",
    found=f"""
        SELECT DISTINCT
            comments.user_id,
            to_char(comments.created_at, 'IYYYIW') AS week,
            1 AS steps
        FROM discovery.comments
        WHERE {is_one_of_the_rows("comments.comment_id")}
            AND {_COUNTS}
    """,
    every_deed=_EVERY_DEED,
    own_deeds=f"""
        {_EVERY_DEED}
            AND comments.user_id = :user_id::bigint
    """,
    examined="""
        SELECT comments.comment_id AS id
        FROM discovery.comments
        WHERE comments.user_id = :user_id::bigint
    """,
    facts=f"""
        SELECT
            count(*) AS comments,
            count(*) FILTER (WHERE {_COUNTS}) AS counted,
            (SELECT count(DISTINCT found.week) FROM found) AS weeks,
            min(comments.created_at) FILTER (WHERE {_COUNTS}) AS since
        FROM discovery.comments
        WHERE {is_one_of_the_rows("comments.comment_id")}
    """,
    conditions=(
        Condition(
            what="comments",
            demanded="one a week that is visible, not deleted, from block {starting_block} on",
            has="fact.counted || ' of ' || fact.comments || ', in ' || fact.weeks || ' weeks'",
            holds="fact.weeks >= 1",
            since="fact.since",
        ),
    ),
)
