"""Changes as the indexer makes them: users who did something, spread evenly over all the source tables.

The users are drawn from a hundredth of all, 30,000 at least, whose rows are read before: the caches are warm for them.
"""

from __future__ import annotations

from bench.database import Subject
from bench.measuring import Connection, stopwatch

# A fourteenth of the users each; `k` numbers them, `block` is what their rows are stamped with.
_WRITES = (
    """
    UPDATE users
    SET is_current = false
    FROM chosen
    WHERE users.user_id = chosen.user_id
        AND chosen.k % 14 = 0
        AND users.is_current
    """,
    """
    INSERT INTO users (
        user_id, is_current, handle, handle_lc, wallet, name, bio, profile_picture_sizes, cover_photo_sizes,
        is_verified, blocknumber, created_at, updated_at, txhash
    )
    SELECT DISTINCT ON (user_id)
        user_id, true, handle, handle_lc, wallet, name, 'since block ' || block, profile_picture_sizes, 'a sunset',
        is_verified, block, created_at, now(), '0xb' || block
    FROM users
    INNER JOIN chosen USING (user_id)
    WHERE k % 14 = 0
    ORDER BY user_id, users.blocknumber DESC NULLS LAST
    """,
    """
    INSERT INTO follows (follower_user_id, followee_user_id, is_current, is_delete, blocknumber, created_at, txhash)
    SELECT user_id, 1 + k, true, false, block, now(), '0xb' || block
    FROM chosen
    WHERE k % 14 = 1
    """,
    """
    INSERT INTO saves (user_id, save_item_id, save_type, is_current, is_delete, blocknumber, created_at, txhash)
    SELECT user_id, 1 + k, 'track', true, false, block, now(), '0xb' || block
    FROM chosen
    WHERE k % 14 = 2
    """,
    """
    INSERT INTO reposts (user_id, repost_item_id, repost_type, is_current, is_delete, blocknumber, created_at, txhash)
    SELECT user_id, 1 + k, 'track', true, false, block, now(), '0xb' || block
    FROM chosen
    WHERE k % 14 = 3
    """,
    """
    INSERT INTO tracks (track_id, owner_id, title, is_current, is_delete, blocknumber, created_at, updated_at, txhash)
    SELECT latest.id + k, user_id, 'A new song', true, false, block, now(), now(), '0xb' || block
    FROM chosen
    CROSS JOIN (SELECT max(track_id) AS id FROM tracks) AS latest
    WHERE k % 14 = 4
    """,
    """
    INSERT INTO playlists (
        playlist_id, playlist_owner_id, playlist_name, is_album, is_private, playlist_contents, is_current, is_delete,
        blocknumber, created_at, updated_at, txhash
    )
    SELECT
        latest.id + k, user_id, 'A new mix', false, false, '{"track_ids": []}', true, false, block, now(), now(),
        '0xb' || block
    FROM chosen
    CROSS JOIN (SELECT max(playlist_id) AS id FROM playlists) AS latest
    WHERE k % 14 = 5
    """,
    # A listen changes the listener's streak, and the milestones of the track's owner where that one is verified.
    """
    INSERT INTO plays (user_id, play_item_id, created_at, updated_at)
    SELECT user_id, heard.track_id, now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC'
    FROM chosen
    INNER JOIN bench_heard_tracks AS heard
        ON heard.k = chosen.k
    WHERE chosen.k % 14 = 6
    """,
    """
    INSERT INTO comments (
        comment_id, user_id, entity_id, entity_type, text, blocknumber, created_at, updated_at, txhash, blockhash
    )
    SELECT latest.id + k, user_id, 1 + k, 'Track', 'Nice', block, now(), now(), '0xb' || block, '0xb' || block
    FROM chosen
    CROSS JOIN (SELECT max(comment_id) AS id FROM comments) AS latest
    WHERE k % 14 = 7
    """,
    """
    UPDATE user_events
    SET is_current = false
    FROM chosen
    WHERE user_events.user_id = chosen.user_id
        AND chosen.k % 14 = 8
        AND user_events.is_current
    """,
    """
    INSERT INTO user_events (blocknumber, is_current, user_id, referrer, is_mobile_user)
    SELECT chosen.block, true, chosen.user_id, other.user_id, chosen.k % 28 = 8
    FROM chosen
    INNER JOIN chosen AS other
        ON other.k = chosen.k - 1
    WHERE chosen.k % 14 = 8
    """,
    # What was bought before is checked by now.
    """
    UPDATE sol_purchases
    SET is_valid = true
    WHERE is_valid IS NULL
    """,
    """
    INSERT INTO sol_purchases (
        signature, instruction_index, amount, slot, from_account, content_type, content_id, buyer_user_id,
        access_type, valid_after_blocknumber
    )
    SELECT
        '0xb' || block || ':' || chosen.k, 0, 2990000, latest.slot + chosen.k, 'wallet', 'track', sold.track_id,
        user_id, 'stream', block
    FROM chosen
    INNER JOIN bench_artist_tracks AS sold
        ON sold.k = chosen.k % sold.quantity
    CROSS JOIN (SELECT max(slot) AS slot FROM sol_purchases) AS latest
    WHERE chosen.k % 14 = 9
    """,
    """
    INSERT INTO reposts (user_id, repost_item_id, repost_type, is_current, is_delete, blocknumber, created_at, txhash)
    SELECT user_id, trending.track_id, 'track', true, false, block, now(), '0xb' || block
    FROM chosen
    INNER JOIN bench_trending_tracks AS trending
        ON trending.k = chosen.k % trending.quantity
    WHERE chosen.k % 14 = 10
    """,
    # What is written under a track is pinned by the artist: the pin moves no number.
    """
    WITH written AS (
        INSERT INTO comments (
            comment_id, user_id, entity_id, entity_type, text, blocknumber, created_at, updated_at, txhash, blockhash
        )
        SELECT
            latest.id + chosen.k, user_id, under.track_id, 'Track', 'Pin this', block, now(), now(), '0xb' || block,
            '0xb' || block
        FROM chosen
        INNER JOIN bench_artist_tracks AS under
            ON under.k = chosen.k % under.quantity
        CROSS JOIN (SELECT max(comment_id) AS id FROM comments) AS latest
        WHERE chosen.k % 14 = 11
        RETURNING comment_id, entity_id
    )
    UPDATE tracks
    SET
        pinned_comment_id = written.comment_id,
        updated_at = now()
    FROM written
    WHERE tracks.track_id = written.entity_id
        AND tracks.is_current
    """,
    # A remix; the artist whose track it is of saves one in seven.
    """
    WITH made AS MATERIALIZED (
        SELECT
            latest.id + chosen.k AS track_id, chosen.user_id, chosen.block, original.track_id AS parent_track_id,
            original.owner_id, chosen.k % 98 = 12 AS is_saved
        FROM chosen
        INNER JOIN bench_artist_tracks AS original
            ON original.k = chosen.k % original.quantity
        CROSS JOIN (SELECT max(track_id) AS id FROM tracks) AS latest
        WHERE chosen.k % 14 = 12
    ),
    uploaded AS (
        INSERT INTO tracks (
            track_id, owner_id, title, is_current, is_delete, blocknumber, created_at, updated_at, txhash
        )
        SELECT track_id, user_id, 'A remix', true, false, block, now(), now(), '0xb' || block
        FROM made
    ),
    linked AS (
        INSERT INTO remixes (parent_track_id, child_track_id)
        SELECT parent_track_id, track_id
        FROM made
    )
    INSERT INTO saves (user_id, save_item_id, save_type, is_current, is_delete, blocknumber, created_at, txhash)
    SELECT owner_id, track_id, 'track', true, false, block, now(), '0xb' || block
    FROM made
    WHERE is_saved
    """,
    # A contest of an artist's, which names five winners.
    """
    INSERT INTO events (
        event_id, event_type, user_id, event_data, blocknumber, created_at, updated_at, txhash, blockhash
    )
    SELECT
        latest.id + chosen.k, 'remix_contest', host.owner_id,
        jsonb_build_object('winners', (
            SELECT jsonb_agg(entry.track_id)
            FROM chosen AS remixer
            CROSS JOIN LATERAL (
                SELECT min(track_id) AS track_id
                FROM tracks
                WHERE tracks.owner_id = remixer.user_id
            ) AS entry
            WHERE remixer.k % 14 = 13
                AND remixer.k BETWEEN chosen.k AND chosen.k + 69
                AND entry.track_id IS NOT NULL
        )),
        block, now(), now(), '0xb' || block, '0xb' || block
    FROM chosen
    INNER JOIN bench_artist_tracks AS host
        ON host.k = chosen.k % host.quantity
    CROSS JOIN (SELECT coalesce(max(event_id), 0) AS id FROM events) AS latest
    WHERE chosen.k % 70 = 13
    """,
)

# What is heard next is what was heard last, in a shuffled order.
_HEARD_TRACKS = """
    CREATE TABLE IF NOT EXISTS bench_heard_tracks AS
    SELECT
        row_number() OVER (ORDER BY hashint4(latest.id)) AS k,
        latest.play_item_id AS track_id
    FROM (
        SELECT
            id,
            play_item_id
        FROM plays
        ORDER BY id DESC
        LIMIT 20000
    ) AS latest
"""

# Those of verified artists, of which 5,000 at most take part.
_ARTIST_TRACKS = """
    CREATE TABLE IF NOT EXISTS bench_artist_tracks AS
    SELECT
        row_number() OVER (ORDER BY hashint4(track_id)) - 1 AS k,
        count(*) OVER () AS quantity,
        track_id,
        owner_id
    FROM (
        SELECT DISTINCT ON (tracks.track_id)
            tracks.track_id,
            tracks.owner_id
        FROM users
        INNER JOIN tracks
            ON tracks.owner_id = users.user_id
        WHERE users.is_current
            AND users.is_verified
            AND tracks.is_current
            AND NOT tracks.is_delete
        ORDER BY tracks.track_id
        LIMIT 5000
    ) AS owned
"""

_TRENDING_TRACKS = """
    CREATE TABLE IF NOT EXISTS bench_trending_tracks AS
    SELECT
        row_number() OVER (ORDER BY score DESC) - 1 AS k,
        count(*) OVER () AS quantity,
        track_id
    FROM (
        SELECT track_id, score
        FROM track_trending_scores
        WHERE type = 'TRACKS'
            AND time_range = 'week'
            AND version = 'pnagD'
        ORDER BY score DESC
        LIMIT 10
    ) AS top
"""

USERS_OF_A_BLOCK = 50
"""How many users' changes one block holds."""

# Those who do something again and again: who acts today has mostly acted in the last days, so their rows are in memory.
_ACTIVE = """
    CREATE TABLE IF NOT EXISTS bench_active_users AS
    SELECT user_id
    FROM (
        SELECT DISTINCT user_id
        FROM users
        WHERE is_current
            AND NOT is_deactivated
            AND handle_lc IS NOT NULL
    ) AS people
    ORDER BY hashint4(user_id)
    LIMIT greatest(%(users)s / 100, 30000)
"""

# Reads what a tick would.
_WARM = """
    SELECT
        sum((SELECT count(*) FROM users WHERE users.user_id = active.user_id AND is_current)),
        sum((SELECT count(*) FROM follows WHERE follower_user_id = active.user_id AND is_current)),
        sum((SELECT count(*) FROM saves WHERE saves.user_id = active.user_id AND is_current)),
        sum((SELECT count(*) FROM reposts WHERE reposts.user_id = active.user_id AND is_current)),
        sum((SELECT count(*) FROM tracks WHERE owner_id = active.user_id AND is_current)),
        sum((SELECT count(*) FROM playlists WHERE playlist_owner_id = active.user_id AND is_current)),
        sum((SELECT count(*) FROM user_events WHERE user_events.user_id = active.user_id AND is_current)),
        sum((SELECT count(*) FROM sol_purchases WHERE buyer_user_id = active.user_id AND is_valid)),
        sum((SELECT count(*) FROM user_challenges WHERE user_challenges.user_id = active.user_id AND is_complete)),
        sum((
            SELECT count(*)
            FROM challenge_profile_completion AS completion
            WHERE completion.user_id = active.user_id AND completion.follows
        ))
    FROM bench_active_users AS active
"""

_CHOOSE = f"""
    CREATE TEMPORARY TABLE chosen AS
    SELECT
        people.user_id,
        people.k,
        (SELECT max(number) + 1 FROM blocks) + people.k / {USERS_OF_A_BLOCK} AS block
    FROM (
        SELECT
            user_id,
            row_number() OVER (ORDER BY random()) AS k
        FROM bench_active_users
    ) AS people
    WHERE people.k <= %s
"""


class Indexer:
    """Writes changes: each batch a transaction, with new blocks."""

    def __init__(self, subject: Subject) -> None:
        self.connection: Connection = subject.connect()
        self.connection.execute("SET timezone = 'UTC'")
        self.connection.execute(_HEARD_TRACKS)
        self.connection.execute(_ARTIST_TRACKS)
        self.connection.execute(_TRENDING_TRACKS)
        self.connection.execute(_ACTIVE, {"users": subject.sizes["users"]})
        self.connection.execute(_WARM)

    def change(self, users: int) -> float:
        """Lets so many users do something, each one thing; returns how long the transaction took (ms)."""
        self.connection.execute("DROP TABLE IF EXISTS chosen")
        self.connection.execute(_CHOOSE, [users])
        self.connection.execute("ANALYZE chosen")
        return stopwatch(self._write)

    def close(self) -> None:
        """Ends the session."""
        self.connection.close()

    def _write(self) -> None:
        with self.connection.transaction():
            self.connection.execute(
                "INSERT INTO blocks (blockhash, number) SELECT DISTINCT '0xb' || block, block FROM chosen"
            )
            for statement in _WRITES:
                self.connection.execute(statement)
