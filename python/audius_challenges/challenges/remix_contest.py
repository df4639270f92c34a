"""w, remix contest winner: whom a verified host has named in his contest.

The caps are the host's and the contest's, so the host is examined, with all his contests.
"""

from __future__ import annotations

from audius_challenges.engine.caps import UNCAPPED, granting
from audius_challenges.engine.deeds import has_no_row, is_known
from audius_challenges.engine.explanation import VERIFIED, at_least_one
from audius_challenges.engine.owners import track_owner
from audius_challenges.engine.rule import Rule
from audius_challenges.engine.turns import clock_of, is_in_turn
from audius_challenges.engine.users import is_active
from audius_challenges.sources import HOSTS

MOST_OF_CONTEST = 5
MOST_OF_HOST = 5
SPAN = "7 days"

# The elements of an array that can be ids of tracks, in its order. JSON knows one kind of number: 5.0 is 5.
_WINNERS = """
            CROSS JOIN LATERAL (
                SELECT
                    element.position,
                    CASE
                        WHEN jsonb_typeof(element.value) = 'number'
                            AND element.value::numeric BETWEEN 1 AND 2147483647
                            AND element.value::numeric = trunc(element.value::numeric)
                            THEN element.value::integer
                        WHEN jsonb_typeof(element.value) = 'string' AND element.value #>> '{}' ~ '^[0-9]{1,9}$'
                            THEN (element.value #>> '{}')::integer
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
            CROSS JOIN LATERAL (
                SELECT {track_owner("named.track_id", "NOT tracks.is_delete")} AS user_id
                OFFSET 0
            ) AS remixer"""


def _specifier(event_id: str, user_id: str) -> str:
    return f"to_hex({event_id}) || ':' || to_hex({user_id})"


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
        AND {has_no_row("w", _specifier("contest.event_id", "remixer.user_id"))}
        AND {is_active("contest.user_id", "users.is_verified")}
"""

_COUNTS = """contest.event_type = 'remix_contest'
                AND contest.is_deleted IS NOT TRUE
                AND coalesce(contest.blocknumber, 0) >= :starting_block::bigint
                AND contest.updated_at > '-infinity'
                AND contest.updated_at <= :as_of::timestamptz AT TIME ZONE 'UTC' + interval '5 minutes'"""


def _found(granted: str) -> str:
    return f"""
        WITH RECURSIVE winner AS MATERIALIZED (
            SELECT DISTINCT ON (contest.event_id, remixer.user_id)
                contest.user_id AS owner,
                contest.event_id,
                contest.updated_at AS at,
                named.position,
                remixer.user_id
            FROM eligible
            INNER JOIN discovery.events AS contest
                ON eligible.user_id = contest.user_id
            {_WINNERS}
            {_REMIXER}
            WHERE {_COUNTS}
                AND remixer.user_id <> contest.user_id
                AND {has_no_row("w", _specifier("contest.event_id", "remixer.user_id"))}
            ORDER BY
                contest.event_id ASC,
                remixer.user_id ASC,
                named.position ASC
        ),
        candidate AS MATERIALIZED (
            SELECT
                winner.owner,
                winner.event_id AS group_id,
                winner.at,
                winner.user_id,
                row_number() OVER (
                    PARTITION BY winner.owner
                    ORDER BY winner.at ASC, winner.event_id ASC, winner.position ASC
                ) AS place
            FROM winner
            WHERE NOT {is_known(("w",), f"ARRAY[{_specifier('winner.event_id', 'winner.user_id')}]")}
                AND {is_active("winner.user_id")}
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
            WHERE user_challenges.challenge_id::text = (SELECT :challenge_id::text)
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
        SELECT {_specifier("contest.event_id", "tracks.owner_id")} AS specifier
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

REMIX_CONTEST = Rule(
    id="w",
    description="remix contest winner",
    changes=(HOSTS,),
    due_users=_DUE,
    is_deed=True,
    is_of_earner=False,
    takes_part=VERIFIED.holds,
    specifier=_specifier("found.event_id", "found.user_id"),
    created_at="found.at AT TIME ZONE 'UTC'",
    found=_found(granting(most=MOST_OF_HOST, span=SPAN, most_of_group=MOST_OF_CONTEST)),
    uncapped=_found(UNCAPPED),
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
