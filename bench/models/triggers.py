"""Model (c): triggers on the source tables, which maintain the rows of u, fp, v and p inside each writer's transaction.

No tick is needed for these; what they cost is paid by the indexer, and a mistake in them stops it. After each row
that is inserted or updated the progress of its user is counted again, and written where it differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.database import Subject
from bench.measuring import Connection, Timing

_WRITE = """
    CREATE FUNCTION bench_write(id text, user_id integer, progress integer) RETURNS void
    LANGUAGE plpgsql AS $$
    #variable_conflict use_variable
    DECLARE
        catalog challenges;
        target integer;
    BEGIN
        IF progress = 0 OR NOT EXISTS (
            SELECT FROM users
            WHERE users.user_id = user_id AND users.is_current AND NOT users.is_deactivated
        ) THEN
            RETURN;
        END IF;
        SELECT * INTO catalog FROM challenges WHERE challenges.id = id;
        target := coalesce(catalog.step_count, 1);
        INSERT INTO user_challenges AS existing (
            challenge_id, user_id, specifier, is_complete, current_step_count, completed_blocknumber, amount,
            completed_at
        )
        SELECT
            id,
            user_id,
            to_hex(user_id),
            progress >= target,
            least(progress, target),
            CASE WHEN progress >= target THEN (SELECT max(number) FROM blocks) END,
            catalog.amount::integer,
            CASE WHEN progress >= target THEN now() AT TIME ZONE 'UTC' END
        WHERE NOT EXISTS (
            SELECT FROM user_challenges AS same
            WHERE same.challenge_id = id
                AND same.specifier = to_hex(user_id)
                AND (same.is_complete OR same.current_step_count = least(progress, target))
        )
        ON CONFLICT (challenge_id, specifier) DO UPDATE SET
            is_complete = excluded.is_complete,
            current_step_count = excluded.current_step_count,
            completed_blocknumber = excluded.completed_blocknumber,
            completed_at = excluded.completed_at
        WHERE NOT existing.is_complete;
    END
    $$
"""

_PROFILE = """
    CREATE FUNCTION bench_profile(user_id integer) RETURNS void
    LANGUAGE plpgsql AS $$
    #variable_conflict use_variable
    DECLARE
        profile challenge_profile_completion;
        has_handle boolean;
        done integer;
    BEGIN
        SELECT
            users.user_id,
            users.bio IS NOT NULL,
            users.name IS NOT NULL,
            coalesce(users.profile_picture, users.profile_picture_sizes) IS NOT NULL,
            coalesce(users.cover_photo, users.cover_photo_sizes) IS NOT NULL,
            (
                SELECT count(*)
                FROM (
                    SELECT
                    FROM follows
                    WHERE follower_user_id = user_id AND is_current AND NOT is_delete
                    LIMIT 5
                ) AS followees
            ) = 5,
            EXISTS (SELECT FROM saves WHERE saves.user_id = user_id AND is_current AND NOT is_delete),
            EXISTS (SELECT FROM reposts WHERE reposts.user_id = user_id AND is_current AND NOT is_delete),
            users.handle_lc IS NOT NULL
        INTO
            profile.user_id, profile.profile_description, profile.profile_name, profile.profile_picture,
            profile.profile_cover_photo, profile.follows, profile.favorites, profile.reposts, has_handle
        FROM users
        WHERE users.user_id = user_id AND users.is_current
        LIMIT 1;
        IF has_handle IS NOT TRUE THEN
            RETURN;
        END IF;
        INSERT INTO challenge_profile_completion AS existing
        SELECT profile.*
        ON CONFLICT ON CONSTRAINT challenge_profile_completion_pkey DO UPDATE SET
            profile_description = excluded.profile_description,
            profile_name = excluded.profile_name,
            profile_picture = excluded.profile_picture,
            profile_cover_photo = excluded.profile_cover_photo,
            follows = excluded.follows,
            favorites = excluded.favorites,
            reposts = excluded.reposts
        WHERE existing.* IS DISTINCT FROM excluded.*;
        done := profile.profile_description::integer + profile.profile_name::integer
            + profile.profile_picture::integer + profile.profile_cover_photo::integer + profile.follows::integer
            + profile.favorites::integer + profile.reposts::integer;
        PERFORM bench_write('p', user_id, done);
    END
    $$
"""

# What each table's trigger does for `new`.
_ACTIONS = {
    "users": """
        IF new.is_current THEN
            PERFORM bench_profile(new.user_id);
            PERFORM bench_write('v', new.user_id, new.is_verified::integer);
        END IF;
    """,
    "follows": "PERFORM bench_profile(new.follower_user_id);",
    "saves": "PERFORM bench_profile(new.user_id);",
    "reposts": "PERFORM bench_profile(new.user_id);",
    "tracks": """
        PERFORM bench_write('u', new.owner_id, (
            SELECT count(DISTINCT track_id)::integer
            FROM tracks
            WHERE owner_id = new.owner_id
                AND is_current
                AND NOT is_delete
                AND NOT is_unlisted
                AND stem_of IS NULL
                AND blocknumber >= (SELECT starting_block FROM challenges WHERE id = 'u')
        ));
    """,
    "playlists": """
        PERFORM bench_write('fp', new.playlist_owner_id, (
            SELECT count(*)::integer
            FROM playlists
            WHERE playlist_owner_id = new.playlist_owner_id
                AND is_current
                AND NOT is_delete
                AND blocknumber >= (SELECT starting_block FROM challenges WHERE id = 'fp')
        ));
    """,
}


@contextmanager
def triggers(subject: Subject) -> Iterator[None]:
    """Has the triggers on the source tables while the block runs."""
    with subject.connect() as connection:
        connection.execute(_WRITE)
        connection.execute(_PROFILE)
        for table, action in _ACTIONS.items():
            connection.execute(
                f"CREATE FUNCTION bench_on_{table}() RETURNS trigger LANGUAGE plpgsql AS"
                f" $$ BEGIN {action} RETURN NULL; END $$"
            )
            connection.execute(
                f"CREATE TRIGGER bench AFTER INSERT OR UPDATE ON {table}"
                f" FOR EACH ROW EXECUTE FUNCTION bench_on_{table}()"
            )
    yield
    with subject.connect() as connection:
        for table in _ACTIONS:
            connection.execute(f"DROP TRIGGER bench ON {table}")
            connection.execute(f"DROP FUNCTION bench_on_{table}()")
        connection.execute("DROP FUNCTION bench_profile(integer), bench_write(text, integer, integer)")


FOLLOWS = """
    INSERT INTO follows (follower_user_id, followee_user_id, is_current, is_delete, blocknumber, created_at, txhash)
    SELECT user_id, k, true, false, (SELECT max(number) FROM blocks), now(), 'bench'
    FROM writers
"""

TRACKS = """
    INSERT INTO tracks (
        track_id, owner_id, title, is_current, is_delete, blocknumber, created_at, updated_at, txhash
    )
    SELECT
        latest.id + k, user_id, 'A song', true, false, (SELECT max(number) FROM blocks), now(), now(), 'bench'
    FROM writers
    CROSS JOIN (SELECT max(track_id) AS id FROM tracks) AS latest
"""


def insert_follows(connection: Connection, repeats: int) -> Timing:
    """1,000 follows in a transaction, by active users (see `Indexer`); taken back afterwards."""
    return insert(connection, FOLLOWS, repeats)


def insert_tracks(connection: Connection, repeats: int) -> Timing:
    """The same with 1,000 tracks."""
    return insert(connection, TRACKS, repeats)


def insert(connection: Connection, statement: str, repeats: int, *, row_by_row: bool = False) -> Timing:
    """The rows that a statement writes for 1,000 active users (see `Indexer`); taken back afterwards.

    row_by_row: each by a statement of its own, in a loop inside the server.
    """
    if row_by_row:
        statement = f"""
            DO $$
            DECLARE
                place integer;
            BEGIN
                FOR place IN SELECT k FROM writers LOOP
                    {statement.replace("FROM writers", "FROM (SELECT * FROM writers WHERE k = place) AS writers")};
                END LOOP;
            END
            $$
        """
    timing = Timing()
    for _ in range(repeats):
        with connection.transaction(force_rollback=True):
            connection.execute(
                """
                CREATE TEMPORARY TABLE writers AS
                SELECT
                    user_id,
                    row_number() OVER () AS k
                FROM (SELECT user_id FROM bench_active_users ORDER BY random() LIMIT 1000) AS active
                """
            )
            connection.execute("CREATE INDEX ON writers (k)")
            with timing.lap(connection):
                connection.execute(statement)
    return timing
