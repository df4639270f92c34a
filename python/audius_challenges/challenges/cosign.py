"""cs, cosign: a verified artist saves or reposts what somebody else has made of a track of his.

The cap is the artist's, so he is examined, with all remixes of his tracks.
"""

from __future__ import annotations

from audius_challenges.engine.caps import UNCAPPED, granting
from audius_challenges.engine.clock import has_come
from audius_challenges.engine.deeds import has_no_row, is_known, pair_of
from audius_challenges.engine.explanation import Condition, at_least_one
from audius_challenges.engine.owners import track_owner
from audius_challenges.engine.rule import Rule
from audius_challenges.engine.users import is_active, is_one_of_the_users
from audius_challenges.sources import COSIGNERS_OF_CHANGED, PARENT_OWNERS, REPOSTERS, SAVERS, TRACK_OWNERS

MOST = 5
SPAN = "30 days"


def _liked(table: str, kind: str) -> str:
    """SQL of when the artist saved, or reposted, a remix."""
    return f"""
                    SELECT {table}.created_at
                    FROM discovery.{table}
                    WHERE {table}.user_id = remix.owner
                        AND {table}.{kind}_item_id = remix.track_id
                        AND {table}.{kind}_type = 'track'
                        AND {table}.is_current
                        AND NOT {table}.is_delete
                        AND coalesce({table}.blocknumber, 0) >= :starting_block::bigint
                        AND {has_come(f"{table}.created_at")}"""


def _likes(table: str, kind: str) -> str:
    return f"""
                SELECT FROM discovery.{table}
                WHERE {table}.user_id = parent.owner_id
                    AND {table}.{kind}_item_id = remixes.child_track_id
                    AND {table}.{kind}_type = 'track'"""


_LIKED = f"""
                SELECT min(either.created_at) AS at
                FROM (
                    {_liked("saves", "save")}
                    UNION ALL
                    {_liked("reposts", "repost")}
                ) AS either"""


# Of the users few are verified: only these are looked up.
def _found(granted: str) -> str:
    return f"""
        WITH RECURSIVE verified AS MATERIALIZED (
            SELECT DISTINCT users.user_id
            FROM discovery.users
            WHERE {is_one_of_the_users("users.user_id")}
                AND users.is_current
                AND users.is_verified
        ),
        remix AS MATERIALIZED (
            SELECT DISTINCT
                verified.user_id AS owner,
                child.track_id
            FROM verified
            CROSS JOIN LATERAL (
                SELECT remixes.child_track_id AS track_id
                FROM discovery.tracks AS parent
                INNER JOIN discovery.remixes
                    ON parent.track_id = remixes.parent_track_id
                WHERE parent.owner_id = verified.user_id
                    AND parent.is_current
                    AND NOT parent.is_delete
                OFFSET 0
            ) AS child
            WHERE {is_active("verified.user_id", "users.is_verified")}
        ),
        cosigned AS MATERIALIZED (
            SELECT
                remix.owner,
                remix.track_id,
                liked.at
            FROM remix
            CROSS JOIN LATERAL ({_LIKED}
            ) AS liked
            WHERE liked.at IS NOT NULL
                AND {has_no_row("cs", pair_of("remix.owner", "remix.track_id"))}
        ),
        candidate AS MATERIALIZED (
            SELECT
                cosigned.owner,
                cosigned.track_id,
                cosigned.at,
                artist.user_id,
                row_number() OVER (
                    PARTITION BY cosigned.owner
                    ORDER BY cosigned.at ASC, cosigned.track_id ASC
                ) AS place
            FROM cosigned
            CROSS JOIN LATERAL {track_owner("cosigned.track_id", "NOT tracks.is_delete")} AS artist (user_id)
            WHERE artist.user_id <> cosigned.owner
                AND NOT {
        is_known(("cs",), f"ARRAY[{pair_of('cosigned.owner', 'cosigned.track_id')}, to_hex(cosigned.track_id)]")
    }
                AND {is_active("artist.user_id")}
        ),
        record AS MATERIALIZED (
            SELECT
                owner.owner,
                user_challenges.created_at AT TIME ZONE 'UTC' AS at
            FROM (SELECT DISTINCT candidate.owner FROM candidate) AS owner
            INNER JOIN discovery.user_challenges
                ON to_hex(owner.owner) = split_part(user_challenges.specifier::text, ':', 1)
            WHERE user_challenges.challenge_id::text = (SELECT :challenge_id::text)
                AND user_challenges.specifier::text LIKE '%:%'
                AND EXISTS (SELECT FROM candidate)
        ),
        {granted}
        SELECT
            granted.user_id,
            granted.owner,
            granted.track_id,
            granted.at,
            1 AS steps
        FROM granted
    """


_EVERY_DEED = f"""
        SELECT {pair_of("parent.owner_id", "remixes.child_track_id")} AS specifier
        FROM discovery.remixes
        INNER JOIN discovery.tracks AS parent
            ON remixes.parent_track_id = parent.track_id"""
_HAS_LIKES = f"""
        WHERE EXISTS ({_likes("saves", "save")}
            )
            OR EXISTS ({_likes("reposts", "repost")}
            )
    """

# Pairs of an artist and a remix of the user's.
_REMIXES = """
                SELECT DISTINCT
                    parent.owner_id AS owner,
                    child.track_id
                FROM discovery.tracks AS child
                INNER JOIN discovery.remixes
                    ON child.track_id = remixes.child_track_id
                INNER JOIN discovery.tracks AS parent
                    ON remixes.parent_track_id = parent.track_id
                WHERE child.owner_id = :user_id::bigint
                    AND child.is_current
                    AND NOT child.is_delete
                    AND parent.is_current
                    AND NOT parent.is_delete
                    AND parent.owner_id <> :user_id::bigint"""

# Rows of the earlier format do not say whose they are, and are too old to share a span with what comes now.
COSIGN = Rule(
    id="cs",
    description="cosign",
    by_user=COSIGNERS_OF_CHANGED,
    changes=(TRACK_OWNERS, PARENT_OWNERS, SAVERS, REPOSTERS),
    is_deed=True,
    is_of_earner=False,
    specifier=pair_of("found.owner", "found.track_id"),
    earlier="ARRAY[to_hex(found.track_id)]",
    created_at="found.at AT TIME ZONE 'UTC'",
    found=_found(granting(most=MOST, span=SPAN)),
    uncapped=_found(UNCAPPED),
    every_deed=f"{_EVERY_DEED}{_HAS_LIKES}",
    own_deeds=f"""{_EVERY_DEED}
        INNER JOIN discovery.tracks AS child
            ON remixes.child_track_id = child.track_id
            AND child.owner_id = :user_id::bigint{_HAS_LIKES}
    """,
    examined=f"""
        SELECT DISTINCT remix.owner AS id
        FROM ({_REMIXES}
        ) AS remix
    """,
    facts=f"""
        SELECT
            count(*) AS number,
            count(*) FILTER (WHERE remix.is_of_artist) AS of_artists,
            count(*) FILTER (WHERE remix.is_of_artist AND liked.at IS NOT NULL) AS cosigned,
            min(liked.at) FILTER (WHERE remix.is_of_artist) AS since
        FROM (
            SELECT
                pair.owner,
                pair.track_id,
                {is_active("pair.owner", "users.is_verified")} AS is_of_artist
            FROM ({_REMIXES}
            ) AS pair
        ) AS remix
        CROSS JOIN LATERAL ({_LIKED}
        ) AS liked
    """,
    conditions=(
        Condition("remixes of the user", "one of a track of somebody else's", "fact.number", "fact.number >= 1"),
        at_least_one("of them, of artists", "one whose account is active and verified", "fact.of_artists"),
        at_least_one(
            "of them, cosigned",
            "saved or reposted by that artist, from block {starting_block} on",
            "fact.cosigned",
            "fact.since",
        ),
    ),
)
