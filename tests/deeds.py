"""Challenges that reward several deeds of a user; tests put them into a throw-away database.

The file becomes a module of the extension's package there, beside those of the product.
"""

from __future__ import annotations

from audius_challenges.engine.rule import STEP_COUNT, Rule
from audius_challenges.engine.users import is_one_of_the_users
from audius_challenges.sources import REPOSTERS, SAVERS, TRACK_OWNERS

POPULAR = "SELECT aggregate_user.user_id FROM discovery.aggregate_user WHERE aggregate_user.follower_count >= 100"

# Each item that a user reposts; the last digit of the block says how many times the amount. Whoever is popular is due
# at every run.
X1 = Rule(
    id="x1",
    description="reposts",
    changes=(REPOSTERS,),
    is_deed=True,
    specifier="to_hex(found.user_id) || ':x:' || to_hex(found.item)",
    amount=":amount::integer * found.dollars",
    due_users=POPULAR,
    found=f"""
        SELECT
            reposts.user_id,
            reposts.repost_item_id AS item,
            reposts.blocknumber % 10 AS dollars,
            1 AS steps
        FROM discovery.reposts
        WHERE {is_one_of_the_users("reposts.user_id")}
            AND reposts.is_current
            AND NOT reposts.is_delete
            AND coalesce(reposts.blocknumber, 0) >= :starting_block::bigint
    """,
)

# Each album (ten items) of which a verified user saves as many items as the catalog says.
X2 = Rule(
    id="x2",
    description="saved albums",
    changes=(SAVERS,),
    is_deed=True,
    specifier="to_hex(found.user_id) || ':' || found.album",
    completes_at=STEP_COUNT,
    takes_part="eligible.is_verified",
    found="""
        SELECT
            saves.user_id,
            saves.save_item_id / 10 AS album,
            count(*) AS steps
        FROM eligible
        INNER JOIN discovery.saves
            ON saves.user_id = eligible.user_id
        WHERE saves.is_current
            AND NOT saves.is_delete
        GROUP BY saves.user_id, saves.save_item_id / 10
    """,
)

# Whoever reposts an item first, among those who have connected a verified account.
X3 = Rule(
    id="x3",
    description="first repost of an item",
    changes=(REPOSTERS,),
    is_deed=True,
    specifier="to_hex(found.item)",
    after="v",
    due_users=POPULAR,
    found="""
        SELECT
            reposts.user_id,
            reposts.repost_item_id AS item,
            1 AS steps
        FROM eligible
        INNER JOIN discovery.reposts
            ON reposts.user_id = eligible.user_id
        WHERE reposts.is_current
            AND NOT reposts.is_delete
    """,
)

# As many plays of a track as the catalog says: the track may change hands meanwhile.
D4 = Rule(
    id="d4",
    description="played tracks",
    changes=(TRACK_OWNERS,),
    is_deed=True,
    specifier="to_hex(found.track_id)",
    completes_at=STEP_COUNT,
    found="""
        SELECT
            tracks.owner_id AS user_id,
            tracks.track_id,
            sum(monthly.count) AS steps
        FROM eligible
        INNER JOIN discovery.tracks
            ON eligible.user_id = tracks.owner_id
        INNER JOIN discovery.aggregate_monthly_plays AS monthly
            ON tracks.track_id = monthly.play_item_id
        WHERE tracks.is_current
        GROUP BY tracks.owner_id, tracks.track_id
    """,
)

# Each item that a user saves, at the time he did: once called by the decimal user id. It may be paid as w6, too.
W5 = Rule(
    id="w5",
    description="saved items",
    changes=(SAVERS,),
    is_deed=True,
    specifier="to_hex(found.user_id) || ':' || to_hex(found.item)",
    earlier="ARRAY[found.user_id || ':' || found.item]",
    paid_as=("w6",),
    created_at="found.saved_at AT TIME ZONE 'UTC'",
    found=f"""
        SELECT
            saves.user_id,
            saves.save_item_id AS item,
            saves.created_at AS saved_at,
            1 AS steps
        FROM discovery.saves
        WHERE {is_one_of_the_users("saves.user_id")}
            AND saves.is_current
            AND NOT saves.is_delete
            AND coalesce(saves.blocknumber, 0) >= :starting_block::bigint
    """,
    every_deed="""
        SELECT to_hex(saves.user_id) || ':' || to_hex(saves.save_item_id) AS specifier
        FROM discovery.saves
    """,
)

# Who pinned what: of each user all that are pinned by him are found, and whoever wrote them earns.
W6 = Rule(
    id="w6",
    description="pinned comments",
    changes=(TRACK_OWNERS,),
    is_deed=True,
    is_of_earner=False,
    specifier="to_hex(found.owner_id) || ':' || to_hex(found.track_id)",
    paid_as=("w5",),
    found="""
        SELECT
            comments.user_id,
            tracks.owner_id,
            tracks.track_id,
            1 AS steps
        FROM eligible
        INNER JOIN discovery.tracks
            ON eligible.user_id = tracks.owner_id
        INNER JOIN discovery.comments
            ON tracks.pinned_comment_id = comments.comment_id
        WHERE tracks.is_current
    """,
)

DEEDS = (X1, X2, X3, D4, W5, W6)
