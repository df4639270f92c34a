"""w, remix contest winner: whom a verified host has named in his contest.

The caps are the host's and the contest's, so the host is examined, with all his contests.
"""

from __future__ import annotations

from audius_challenges.engine.caps import UNCAPPED, granting
from audius_challenges.engine.clock import has_come
from audius_challenges.engine.deeds import has_no_row, is_known, is_set_aside, pair_of
from audius_challenges.engine.explanation import at_least_one
from audius_challenges.engine.owners import track_owner
from audius_challenges.engine.rule import Rule
from audius_challenges.engine.turns import clock_of, is_in_turn
from audius_challenges.engine.users import is_active, is_one_of_the_users
from audius_challenges.settings import MAX_INTEGER
from audius_challenges.sources import HOSTS

MOST_OF_CONTEST = 5
MOST_OF_HOST = 5
SPAN = "7 days"

# The elements of an array that can be ids of tracks, in its order. JSON knows one kind of number: 5.0 is 5.
_WINNERS = """
            CROSS JOIN LATERAL (
                SELECT
                    element.position,
                    CASE jsonb_typeof(element.value)
                        WHEN 'number' THEN CASE
                            WHEN element.value::numeric BETWEEN 1 AND 2147483647
                                AND element.value::numeric = trunc(element.value::numeric)
                                THEN element.value::integer
                        END
                        WHEN 'string' THEN CASE
                            WHEN element.value #>> '{}' ~ '^[0-9]{1,9}$' THEN (element.value #>> '{}')::integer
                        END
                    END AS track_id
                FROM jsonb_array_elements(
                    CASE
                        WHEN jsonb_typeof(contest.event_data -> 'winners') = 'array'
                            THEN contest.event_data -> 'winners'
                        ELSE '[]'::jsonb
                    END
                ) WITH ORDINALITY AS element (value, position)
                OFFSET 0
            ) AS named"""

_REMIXER = f"""
            CROSS JOIN LATERAL {track_owner("named.track_id", "NOT tracks.is_delete")} AS remixer (user_id)"""


# No number moves where a remixer is active again, or his track is back. So each contest has its turn, and its host is
# examined if a winner has no row.
_DUE = f"""
    WITH {clock_of("w")},
    turn AS MATERIALIZED (
        SELECT
            contest.event_id,
            contest.user_id,
            contest.event_data
        FROM discovery.events AS contest
        CROSS JOIN clock
        WHERE contest.event_type = 'remix_contest'
            AND contest.is_deleted IS NOT TRUE
            AND {is_in_turn("contest.event_id")}
    )
    SELECT contest.user_id
    FROM turn AS contest
    {_WINNERS}
    {_REMIXER}
    WHERE remixer.user_id <> contest.user_id
        AND {has_no_row("w", pair_of("contest.event_id", "remixer.user_id"))}
        AND NOT {is_set_aside("w", "contest.user_id", pair_of("contest.event_id", "remixer.user_id"))}
        AND {is_active("contest.user_id", "users.is_verified")}
"""

_COUNTS = f"""contest.event_type = 'remix_contest'
                AND contest.is_deleted IS NOT TRUE
                AND coalesce(contest.blocknumber, 0) >= :starting_block::bigint
                AND {has_come("contest.updated_at")}"""


def _found(granted: str, most_of_contest: int) -> str:
    return f"""
        WITH RECURSIVE hosted AS MATERIALIZED (
            SELECT
                contest.event_id,
                contest.user_id,
                contest.updated_at,
                contest.event_data
            FROM discovery.events AS contest
            WHERE {_COUNTS}
                AND {is_one_of_the_users("contest.user_id")}
                AND {is_active("contest.user_id", "users.is_verified")}
        ),
        winner AS MATERIALIZED (
            SELECT DISTINCT ON (contest.event_id, remixer.user_id)
                contest.user_id AS owner,
                contest.event_id,
                contest.updated_at AS at,
                named.position,
                remixer.user_id
            FROM hosted AS contest
            {_WINNERS}
            {_REMIXER}
            WHERE remixer.user_id <> contest.user_id
                AND {has_no_row("w", pair_of("contest.event_id", "remixer.user_id"))}
            ORDER BY
                contest.event_id ASC,
                remixer.user_id ASC,
                named.position ASC
        ),
        first_winner AS MATERIALIZED (
            SELECT ranked.*
            FROM (
                SELECT
                    winner.*,
                    row_number() OVER (PARTITION BY winner.event_id ORDER BY winner.position) AS nth
                FROM winner
                WHERE NOT {is_known(("w",), f"ARRAY[{pair_of('winner.event_id', 'winner.user_id')}]")}
                    AND {is_active("winner.user_id")}
            ) AS ranked
            WHERE ranked.nth <= {most_of_contest}
        ),
        candidate AS MATERIALIZED (
            SELECT
                first_winner.owner,
                first_winner.event_id AS group_id,
                first_winner.at,
                first_winner.user_id,
                row_number() OVER (
                    PARTITION BY first_winner.owner
                    ORDER BY first_winner.at ASC, first_winner.event_id ASC, first_winner.position ASC
                ) AS place
            FROM first_winner
        ),
        record AS MATERIALIZED (
            SELECT
                contest.user_id AS owner,
                contest.event_id AS group_id,
                user_challenges.created_at AT TIME ZONE 'UTC' AS at
            FROM (SELECT DISTINCT candidate.owner FROM candidate) AS owner
            INNER JOIN discovery.events AS contest
                ON owner.owner = contest.user_id
            INNER JOIN discovery.user_challenges
                ON to_hex(contest.event_id) = split_part(user_challenges.specifier::text, ':', 1)
            WHERE user_challenges.challenge_id::text = 'w'
                AND EXISTS (SELECT FROM candidate)
        ),
        {granted}
        SELECT
            granted.user_id,
            granted.group_id AS event_id,
            granted.at,
            1 AS steps
        FROM granted
    """


_EVERY_DEED = f"""
        SELECT {pair_of("contest.event_id", "tracks.owner_id")} AS specifier
        FROM discovery.events AS contest
        {_WINNERS}
        INNER JOIN discovery.tracks
            ON named.track_id = tracks.track_id
        WHERE contest.event_type = 'remix_contest'
            AND contest.user_id <> tracks.owner_id
    """

# What the user has won.
_NAMED = f"""
                SELECT DISTINCT
                    contest.event_id,
                    contest.user_id AS host,
                    contest.updated_at AS at
                FROM discovery.events AS contest
                {_WINNERS}
                {_REMIXER}
                WHERE {_COUNTS}
                    AND remixer.user_id = :user_id::bigint
                    AND contest.user_id <> :user_id::bigint"""

# The winners of a contest have one time. So what refuses one of them refuses those after him, and none but the first of
# a contest can be granted.
REMIX_CONTEST = Rule(
    id="w",
    description="remix contest winner",
    changes=(HOSTS,),
    due_users=_DUE,
    is_deed=True,
    is_of_earner=False,
    specifier=pair_of("found.event_id", "found.user_id"),
    created_at="found.at AT TIME ZONE 'UTC'",
    found=_found(granting(most=MOST_OF_HOST, span=SPAN, most_of_group=MOST_OF_CONTEST), MOST_OF_CONTEST),
    uncapped=_found(UNCAPPED, MAX_INTEGER),
    every_deed=_EVERY_DEED,
    own_deeds=f"""
        {_EVERY_DEED}
            AND tracks.owner_id = :user_id::bigint
    """,
    examined=f"""
        SELECT DISTINCT named.host AS id
        FROM ({_NAMED}
        ) AS named
    """,
    facts=f"""
        SELECT
            count(*) AS number,
            count(*) FILTER (WHERE {is_active("named.host", "users.is_verified")}) AS counted,
            min(named.at) AS since
        FROM ({_NAMED}
        ) AS named
    """,
    conditions=(
        at_least_one(
            "remix contests that the user has won",
            "one of somebody else's that is not deleted, from block {starting_block} on",
            "fact.number",
            "fact.since",
        ),
        at_least_one("of them, of hosts", "one whose account is active and verified", "fact.counted"),
    ),
)
