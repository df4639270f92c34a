"""A first build as somebody would write it by hand: one set-based statement a challenge, no slices, no checkpoints.

It writes the same rows as the extension does (the benchmark compares them), once and never again: what it takes is the
floor that the extension's first build is measured against. Where the better way depends on the machine there
are several, and the fastest counts. The listens of `e` are a state machine; by hand that is a loop in PL/pgSQL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from bench.database import Digest, Subject
from bench.measuring import Timing

_SETTINGS = ("SET work_mem = '512MB'", "SET jit = off", "SET timezone = 'UTC'")

_ELIGIBLE = """
    CREATE TEMPORARY TABLE eligible AS
    SELECT
        user_id,
        handle_lc IS NOT NULL AS has_handle,
        is_verified,
        bio IS NOT NULL AS description,
        name IS NOT NULL AS name,
        coalesce(profile_picture, profile_picture_sizes) IS NOT NULL AS picture,
        coalesce(cover_photo, cover_photo_sizes) IS NOT NULL AS cover
    FROM (
        SELECT DISTINCT ON (user_id) *
        FROM users
        WHERE is_current
        ORDER BY user_id, coalesce(blocknumber, 0) DESC, txhash DESC
    ) AS deciding
    WHERE NOT is_deactivated
"""

_GREATEST_BLOCK = """
    greatest(
        (SELECT max(number) FROM blocks),
        (SELECT max(blocknumber) FROM users),
        (SELECT max(blocknumber) FROM follows),
        (SELECT max(blocknumber) FROM saves),
        (SELECT max(blocknumber) FROM reposts),
        (SELECT max(blocknumber) FROM tracks),
        (SELECT max(blocknumber) FROM playlists),
        0
    )
"""


def _insert(challenge: str, progress: str, suffix: str = "") -> str:
    """Rows of a challenge from a query of user_id and progress; the catalog decides about the rest."""
    return f"""
        INSERT INTO user_challenges (
            challenge_id, user_id, specifier, is_complete, current_step_count, completed_blocknumber, amount,
            completed_at
        )
        SELECT
            '{challenge}',
            user_id,
            to_hex(user_id) || '{suffix}',
            is_complete,
            least(progress, target),
            CASE WHEN is_complete THEN {_GREATEST_BLOCK} END,
            amount,
            CASE WHEN is_complete THEN now() AT TIME ZONE 'UTC' END
        FROM (
            SELECT
                counted.*,
                catalog.target,
                catalog.amount,
                counted.progress >= catalog.target AS is_complete
            FROM ({progress}) AS counted
            CROSS JOIN (
                SELECT
                    coalesce(step_count, 1) AS target,
                    amount::integer AS amount
                FROM challenges
                WHERE id = '{challenge}'
            ) AS catalog
            WHERE counted.progress >= 1
        ) AS wanted
    """


def _starting_block(challenge: str) -> str:
    return f"(SELECT coalesce(starting_block, 0) FROM challenges WHERE id = '{challenge}')"


_UPLOADS = f"""
    SELECT
        user_id,
        count(DISTINCT track_id) AS progress
    FROM eligible
    INNER JOIN tracks
        ON owner_id = user_id
    WHERE is_current
        AND NOT is_delete
        AND NOT is_unlisted
        AND stem_of IS NULL
        AND coalesce(blocknumber, 0) >= {_starting_block("u")}
    GROUP BY user_id
"""

_PLAYLISTS = f"""
    SELECT DISTINCT
        user_id,
        1 AS progress
    FROM eligible
    INNER JOIN playlists
        ON playlist_owner_id = user_id
    WHERE is_current
        AND NOT is_delete
        AND coalesce(blocknumber, 0) >= {_starting_block("fp")}
"""

# Whole tables, hashed: 5 followees at least, and where that may be by a duplicate, 5 different ones.
_STEPS_BY_JOINS = """
    SELECT
        eligible.*,
        followers.user_id IS NOT NULL AND (
            SELECT count(*)
            FROM (
                SELECT DISTINCT followee_user_id
                FROM follows
                WHERE follower_user_id = followers.user_id
                    AND is_current
                    AND NOT is_delete
                LIMIT 5
            ) AS different
        ) = 5 AS follows,
        savers.user_id IS NOT NULL AS favorites,
        reposters.user_id IS NOT NULL AS reposts
    FROM eligible
    LEFT JOIN (
        SELECT follower_user_id AS user_id
        FROM follows
        WHERE is_current
            AND NOT is_delete
        GROUP BY follower_user_id
        HAVING count(*) >= 5
    ) AS followers
        ON followers.user_id = eligible.user_id
    LEFT JOIN (SELECT DISTINCT user_id FROM saves WHERE is_current AND NOT is_delete) AS savers
        ON savers.user_id = eligible.user_id
    LEFT JOIN (SELECT DISTINCT user_id FROM reposts WHERE is_current AND NOT is_delete) AS reposters
        ON reposters.user_id = eligible.user_id
    WHERE eligible.has_handle
"""

# A few index probes a user, in the order of the index.
_STEPS_BY_PROBES = """
    SELECT
        eligible.*,
        (
            SELECT count(*)
            FROM (
                SELECT DISTINCT followee_user_id
                FROM follows
                WHERE follower_user_id = eligible.user_id
                    AND is_current
                    AND NOT is_delete
                LIMIT 5
            ) AS different
        ) = 5 AS follows,
        (SELECT true FROM saves WHERE user_id = eligible.user_id AND is_current AND NOT is_delete LIMIT 1)
            IS NOT NULL AS favorites,
        (SELECT true FROM reposts WHERE user_id = eligible.user_id AND is_current AND NOT is_delete LIMIT 1)
            IS NOT NULL AS reposts
    FROM eligible
    WHERE has_handle
"""


_STEPS = ("description", "name", "picture", "cover", "follows", "favorites", "reposts")


def _profile(steps: str) -> tuple[str, ...]:
    done = " + ".join(f"{step}::integer" for step in _STEPS)
    return (
        f"CREATE TEMPORARY TABLE profile AS SELECT *, {done} AS progress FROM ({steps} OFFSET 0) AS steps",
        """
        INSERT INTO challenge_profile_completion
        SELECT user_id, description, name, picture, cover, follows, favorites, reposts
        FROM profile
        WHERE progress > 0
        """,
        _insert("p", "SELECT user_id, progress FROM profile"),
        "DROP TABLE profile",
    )


def _milestone(challenge: str, suffix: str, previous: str | None = None) -> str:
    gate = f"AND user_id IN (SELECT user_id FROM user_challenges WHERE challenge_id = '{previous}' AND is_complete)"
    return _insert(
        challenge,
        f"""
        SELECT
            user_id,
            sum(count) AS progress
        FROM (
            SELECT DISTINCT user_id, track_id
            FROM eligible
            INNER JOIN tracks
                ON owner_id = user_id
            WHERE is_verified
                AND is_current
                AND NOT is_delete
                {gate if previous else ""}
        ) AS owned
        INNER JOIN aggregate_monthly_plays
            ON play_item_id = track_id
        WHERE timestamp >= DATE '2025-01-01'
        GROUP BY user_id
        """,
        suffix,
    )


_COUNT_LISTENS = """
    CREATE FUNCTION pg_temp.count_listens() RETURNS TABLE (
        user_id integer, opened timestamp, completed timestamp, steps integer, amount integer
    )
    LANGUAGE plpgsql AS $$
    DECLARE
        play record;
        listener integer;
        streak integer;
        last_listen timestamp;
    BEGIN
        FOR play IN
            SELECT plays.user_id, plays.created_at
            FROM plays
            INNER JOIN eligible
                ON eligible.user_id = plays.user_id
            ORDER BY plays.user_id, plays.created_at
        LOOP
            IF listener IS DISTINCT FROM play.user_id THEN
                IF listener IS NOT NULL THEN
                    IF streak < 7 THEN
                        RETURN NEXT;
                    END IF;
                    INSERT INTO pg_temp.streaks VALUES (listener, last_listen, streak);
                END IF;
                listener := play.user_id;
                streak := 0;
            ELSIF play.created_at < last_listen + INTERVAL '16 hours' THEN
                CONTINUE;
            END IF;
            IF streak = 0 OR play.created_at >= last_listen + INTERVAL '48 hours' THEN
                IF streak BETWEEN 1 AND 6 THEN
                    RETURN NEXT;
                END IF;
                streak := 0;
                opened := play.created_at;
                completed := NULL;
                amount := 7;
            END IF;
            user_id := listener;
            streak := streak + 1;
            last_listen := play.created_at;
            steps := streak;
            IF streak = 7 THEN
                completed := last_listen;
                RETURN NEXT;
            ELSIF streak > 7 THEN
                opened := last_listen;
                completed := last_listen;
                steps := 1;
                amount := 1;
                RETURN NEXT;
            END IF;
        END LOOP;
        IF listener IS NOT NULL THEN
            IF streak < 7 THEN
                RETURN NEXT;
            END IF;
            INSERT INTO pg_temp.streaks VALUES (listener, last_listen, streak);
        END IF;
    END
    $$
"""

_STREAKS = (
    "CREATE TEMPORARY TABLE streaks (user_id integer, last_listen_date timestamp, listen_streak integer)",
    _COUNT_LISTENS,
    "CREATE TEMPORARY TABLE listens AS SELECT * FROM pg_temp.count_listens()",
    "INSERT INTO challenge_listen_streak SELECT * FROM streaks",
    f"""
    INSERT INTO user_challenges (
        challenge_id, user_id, specifier, is_complete, current_step_count, completed_blocknumber, amount, created_at,
        completed_at
    )
    SELECT
        'e',
        user_id,
        to_hex(user_id) || to_char(opened, 'YYYYMMDDHH24'),
        completed IS NOT NULL,
        steps,
        CASE WHEN completed IS NOT NULL THEN {_GREATEST_BLOCK} END,
        amount,
        opened AT TIME ZONE 'UTC',
        completed
    FROM listens
    """,
    "DROP TABLE streaks, listens",
    "DROP FUNCTION pg_temp.count_listens()",
)

_BUILDS: Mapping[str, tuple[tuple[str, ...], ...]] = MappingProxyType(
    {
        "u": ((_insert("u", _UPLOADS),),),
        "fp": ((_insert("fp", _PLAYLISTS),),),
        "p": (_profile(_STEPS_BY_JOINS), _profile(_STEPS_BY_PROBES)),
        "v": ((_insert("v", "SELECT user_id, 1 AS progress FROM eligible WHERE is_verified"),),),
        "e": (_STREAKS,),
        "p1": ((_milestone("p1", ":250"),),),
        "p2": ((_milestone("p2", ":1000", "p1"),),),
        "p3": ((_milestone("p3", ":10000", "p2"),),),
    }
)


@dataclass(frozen=True)
class HandwrittenBuild:
    """What the hand-written statements took, in milliseconds, by challenge (the fastest way each), and wrote.

    `eligible` is the temporary table of users that the others share.
    """

    milliseconds: Mapping[str, float]
    digest: Mapping[str, Digest]


def build_by_hand(subject: Subject, *, with_streaks: bool) -> HandwrittenBuild:
    """Fills the empty derived tables, for `e` if that is asked for; they stay filled."""
    taken: dict[str, float] = {}
    with subject.connect() as connection:
        for setting in _SETTINGS:
            connection.execute(setting)
        timing = Timing()
        with timing.lap(connection):
            connection.execute(_ELIGIBLE)
            connection.execute("ANALYZE eligible")
        taken["eligible"] = timing.median
        for challenge, ways in _BUILDS.items():
            if challenge == "e" and not with_streaks:
                continue
            timing = Timing()
            for way in ways:
                if timing.wall:  # not the first: as empty as it was before
                    connection.execute("TRUNCATE challenge_profile_completion")
                    connection.execute("DELETE FROM user_challenges WHERE challenge_id = %s", [challenge])
                    connection.execute("DELETE FROM notification WHERE data ->> 'challenge_id' = %s", [challenge])
                    connection.execute("VACUUM user_challenges, notification")
                with timing.lap(connection):
                    for statement in way:
                        connection.execute(statement)
            taken[challenge] = min(timing.wall)
    return HandwrittenBuild(taken, subject.digest())
