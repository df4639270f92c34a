"""b and s, audio matching: for each whole dollar of a purchase, to who buys and to the verified artist who sells.

Both pay a buyer and a content id once, by the same specifier: of the purchases that qualify, the first one decides.
"""

from __future__ import annotations

from audius_challenges.engine.deeds import pair_of
from audius_challenges.engine.explanation import VERIFIED, Condition, at_least_one
from audius_challenges.engine.owners import playlist_owner, track_owner
from audius_challenges.engine.rule import Rule
from audius_challenges.engine.users import is_active, is_one_of_the_users
from audius_challenges.sources import BUYERS, PLAYLIST_OWNERS, SELLERS, TRACK_OWNERS

_DOLLAR = 1_000_000

_QUALIFIES = f"""sol_purchases.is_valid
                AND coalesce(sol_purchases.slot, 0) >= :starting_block::bigint
                AND sol_purchases.amount >= {_DOLLAR}"""


def _seller(purchase: str) -> str:
    """SQL of the current owner of what was bought; null if there is no such thing."""
    content_id = f"{purchase}.content_id"
    return f"""CASE
                WHEN {purchase}.content_type = 'track'
                    THEN {track_owner(content_id)}
                WHEN {purchase}.content_type IN ('album', 'playlist')
                    THEN {playlist_owner(content_id)}
            END"""


_IS_OF_OTHERS = f"""sol_purchases.buyer_user_id IS DISTINCT FROM {_seller("sol_purchases")}"""
_SPECIFIER = pair_of("found.buyer_user_id", "found.content_id")
_AMOUNT = ":amount::integer * found.dollars"
_EVERY_DEED = f"""
        SELECT {pair_of("sol_purchases.buyer_user_id", "sol_purchases.content_id")} AS specifier
        FROM discovery.sol_purchases
    """

_QUALIFYING = "valid, of at least one dollar, from slot {starting_block} on"

BUYER = Rule(
    id="b",
    description="audio matching, buyer",
    changes=(BUYERS,),
    is_deed=True,
    specifier=_SPECIFIER,
    amount=_AMOUNT,
    every_deed=_EVERY_DEED,
    found=f"""
        SELECT DISTINCT ON (sol_purchases.buyer_user_id, sol_purchases.content_id)
            sol_purchases.buyer_user_id AS user_id,
            sol_purchases.buyer_user_id,
            sol_purchases.content_id,
            sol_purchases.amount / {_DOLLAR} AS dollars,
            1 AS steps
        FROM discovery.sol_purchases
        WHERE {is_one_of_the_users("sol_purchases.buyer_user_id")}
            AND {_QUALIFIES}
            AND {_IS_OF_OTHERS}
        ORDER BY
            sol_purchases.buyer_user_id ASC,
            sol_purchases.content_id ASC,
            sol_purchases.slot ASC,
            sol_purchases.signature::text COLLATE "C" ASC,
            sol_purchases.instruction_index ASC
    """,
    own_deeds=f"""
        {_EVERY_DEED}
        WHERE sol_purchases.buyer_user_id = :user_id::bigint
    """,
    facts=f"""
        SELECT
            count(*) AS purchases,
            count(*) FILTER (WHERE {_QUALIFIES}) AS qualifying,
            count(*) FILTER (WHERE {_QUALIFIES} AND {_IS_OF_OTHERS}) AS of_others
        FROM discovery.sol_purchases
        WHERE sol_purchases.buyer_user_id = :user_id::bigint
    """,
    conditions=(
        Condition(
            what="purchases",
            demanded=f"one that is {_QUALIFYING}",
            has="fact.qualifying || ' of ' || fact.purchases",
            holds="fact.qualifying >= 1",
        ),
        at_least_one("of them, of what others sell", "one", "fact.of_others"),
    ),
)

_OWNED = """owned AS (
            SELECT track.content_id
            FROM artist
            CROSS JOIN LATERAL (
                SELECT tracks.track_id AS content_id
                FROM discovery.tracks
                WHERE tracks.owner_id = artist.user_id
                    AND tracks.is_current
                OFFSET 0
            ) AS track
            UNION
            SELECT playlist.content_id
            FROM artist
            CROSS JOIN LATERAL (
                SELECT playlists.playlist_id AS content_id
                FROM discovery.playlists
                WHERE playlists.playlist_owner_id = artist.user_id
                    AND playlists.is_current
                OFFSET 0
            ) AS playlist
        )"""
_ANYBODY = "artist AS (SELECT :user_id::bigint AS user_id)"

# Examined by the seller, whose own row tells of his being verified. A track and a playlist may have the same id and
# two sellers: so whatever is sold under an id is looked at, and the earner may turn out to be somebody else. Few users
# are verified: so whether a row of theirs decides is asked last. OFFSET 0 keeps the planner from joining whole tables.
SELLER = Rule(
    id="s",
    description="audio matching, seller",
    changes=(SELLERS, TRACK_OWNERS, PLAYLIST_OWNERS),
    is_deed=True,
    specifier=_SPECIFIER,
    amount=_AMOUNT,
    every_deed=_EVERY_DEED,
    found=f"""
        WITH artist AS MATERIALIZED (
            SELECT DISTINCT users.user_id
            FROM discovery.users
            WHERE {is_one_of_the_users("users.user_id")}
                AND users.is_current
                AND users.is_verified
        ),
        {_OWNED},
        sold AS MATERIALIZED (
            SELECT purchase.*
            FROM owned
            CROSS JOIN LATERAL (
                SELECT
                    sol_purchases.content_type,
                    sol_purchases.content_id,
                    sol_purchases.buyer_user_id,
                    sol_purchases.amount / {_DOLLAR} AS dollars,
                    sol_purchases.slot,
                    sol_purchases.signature,
                    sol_purchases.instruction_index
                FROM discovery.sol_purchases
                WHERE sol_purchases.content_id = owned.content_id
                    AND {_QUALIFIES}
                OFFSET 0
            ) AS purchase
        ),
        content AS MATERIALIZED (
            SELECT
                thing.content_type,
                thing.content_id,
                {_seller("thing")} AS seller_user_id
            FROM (
                SELECT DISTINCT
                    sold.content_type,
                    sold.content_id
                FROM sold
            ) AS thing
        )
        SELECT DISTINCT ON (sold.buyer_user_id, sold.content_id)
            content.seller_user_id AS user_id,
            sold.buyer_user_id,
            sold.content_id,
            sold.dollars,
            1 AS steps
        FROM sold
        INNER JOIN content
            ON sold.content_type = content.content_type
            AND sold.content_id = content.content_id
        WHERE sold.buyer_user_id <> content.seller_user_id
            AND {is_active("content.seller_user_id", "users.is_verified")}
        ORDER BY
            sold.buyer_user_id ASC,
            sold.content_id ASC,
            sold.slot ASC,
            sold.signature::text COLLATE "C" ASC,
            sold.instruction_index ASC
    """,
    own_deeds=f"""
        WITH {_ANYBODY},
        {_OWNED}
        {_EVERY_DEED}
        WHERE sol_purchases.content_id IN (SELECT owned.content_id FROM owned)
            AND {_seller("sol_purchases")} = :user_id::bigint
    """,
    facts=f"""
        WITH {_ANYBODY},
        {_OWNED}
        SELECT
            count(*) AS purchases,
            count(*) FILTER (WHERE {_QUALIFIES}) AS qualifying,
            count(*) FILTER (WHERE {_QUALIFIES} AND sol_purchases.buyer_user_id <> :user_id::bigint) AS by_others
        FROM discovery.sol_purchases
        WHERE sol_purchases.content_id IN (SELECT owned.content_id FROM owned)
            AND {_seller("sol_purchases")} = :user_id::bigint
    """,
    conditions=(
        VERIFIED,
        Condition(
            what="purchases of the user's content",
            demanded=f"one that is {_QUALIFYING}",
            has="fact.qualifying || ' of ' || fact.purchases",
            holds="fact.qualifying >= 1",
        ),
        at_least_one("of them, by others", "one", "fact.by_others"),
    ),
)

AUDIO_MATCHING = (BUYER, SELLER)
