"""Changes as the indexer makes them: users who did something, spread evenly over all the source tables."""

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
    # A listen changes the listener's streak, and the milestones of the track's owner, of whom all are verified.
    """
    INSERT INTO plays (user_id, play_item_id, created_at, updated_at)
    SELECT user_id, heard.track_id, now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC'
    FROM chosen
    INNER JOIN bench_verified_tracks AS heard
        ON heard.k = chosen.k % (SELECT count(*) FROM bench_verified_tracks)
    WHERE chosen.k % 7 = 6
    """,
)

_VERIFIED_TRACKS = """
    CREATE TABLE IF NOT EXISTS bench_verified_tracks AS
    SELECT
        row_number() OVER (ORDER BY hashint4(track_id)) - 1 AS k,
        track_id
    FROM tracks
    WHERE is_current
        AND owner_id IN (SELECT user_id FROM users WHERE is_current AND is_verified)
"""

USERS_OF_A_BLOCK = 50
"""How many users' changes one block holds."""

# Random ids, twice as many as are wanted: not every one is of a user who counts.
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
        FROM (
            SELECT DISTINCT 1 + floor(random() * %(greatest)s)::integer AS user_id
            FROM generate_series(1, %(users)s * 2)
        ) AS random_ids
        WHERE EXISTS (
            SELECT FROM users
            WHERE users.user_id = random_ids.user_id
                AND users.is_current
                AND NOT users.is_deactivated
                AND users.handle_lc IS NOT NULL
        )
        ORDER BY k
        LIMIT %(users)s
    ) AS people
"""


class Indexer:
    """Writes changes: each batch a transaction, with new blocks."""

    def __init__(self, subject: Subject) -> None:
        self._greatest = subject.sizes["users"]
        self.connection: Connection = subject.connect()
        self.connection.execute("SET timezone = 'UTC'")
        self.connection.execute(_VERIFIED_TRACKS)

    def change(self, users: int) -> float:
        """Lets so many users do something, each one thing; returns how long the transaction took (ms)."""
        self.connection.execute("DROP TABLE IF EXISTS chosen")
        self.connection.execute(_CHOOSE, {"users": users, "greatest": self._greatest})
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
