"""Changes as the indexer makes them: users who did something, spread evenly over all the source tables.

The users are drawn from a hundredth of all, 30,000 at least, whose rows are read before: the caches are warm for them.
"""

from __future__ import annotations

from bench.database import Subject
from bench.measuring import Connection, stopwatch

# A seventh of the users each; `k` numbers them, `block` is what their rows are stamped with.
_WRITES = (
    """
    UPDATE users
    SET is_current = false
    FROM chosen
    WHERE users.user_id = chosen.user_id
        AND chosen.k % 7 = 0
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
    WHERE k % 7 = 0
    ORDER BY user_id, users.blocknumber DESC NULLS LAST
    """,
    """
    INSERT INTO follows (follower_user_id, followee_user_id, is_current, is_delete, blocknumber, created_at, txhash)
    SELECT user_id, 1 + k, true, false, block, now(), '0xb' || block
    FROM chosen
    WHERE k % 7 = 1
    """,
    """
    INSERT INTO saves (user_id, save_item_id, save_type, is_current, is_delete, blocknumber, created_at, txhash)
    SELECT user_id, 1 + k, 'track', true, false, block, now(), '0xb' || block
    FROM chosen
    WHERE k % 7 = 2
    """,
    """
    INSERT INTO reposts (user_id, repost_item_id, repost_type, is_current, is_delete, blocknumber, created_at, txhash)
    SELECT user_id, 1 + k, 'track', true, false, block, now(), '0xb' || block
    FROM chosen
    WHERE k % 7 = 3
    """,
    """
    INSERT INTO tracks (track_id, owner_id, title, is_current, is_delete, blocknumber, created_at, updated_at, txhash)
    SELECT latest.id + k, user_id, 'A new song', true, false, block, now(), now(), '0xb' || block
    FROM chosen
    CROSS JOIN (SELECT max(track_id) AS id FROM tracks) AS latest
    WHERE k % 7 = 4
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
    WHERE k % 7 = 5
    """,
    # A listen changes the listener's streak, and the milestones of the track's owner where that one is verified.
    """
    INSERT INTO plays (user_id, play_item_id, created_at, updated_at)
    SELECT user_id, heard.track_id, now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC'
    FROM chosen
    INNER JOIN bench_heard_tracks AS heard
        ON heard.k = chosen.k
    WHERE chosen.k % 7 = 6
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
