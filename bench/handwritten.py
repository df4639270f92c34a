"""A first build as somebody would write it by hand: one set-based statement a challenge, no slices, no checkpoints.

It writes the same rows as the extension does (the benchmark compares them), once and never again: what it takes is the
floor that the extension's first build is measured against. Where the better way depends on the machine there
are several, and the fastest counts. The listens of `e` are a state machine, and the caps of `cs` and `w` go by what was
granted before; by hand these are loops in PL/pgSQL.
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


def _deeds(challenge: str, found: str, *, earlier: str = "'{}'::text[]", at: str = "now()") -> str:
    """Complete rows of single deeds from a query of user_id, specifier and units, but what was paid before.

    earlier: SQL over `deed` of the specifiers that it had in earlier formats.
    """
    paid = " ".join(
        f"""
            AND NOT EXISTS (
                SELECT FROM {table} AS paid
                WHERE paid.challenge_id = '{challenge}'
                    AND paid.specifier = ANY(ARRAY[deed.specifier] || {earlier})
            )"""
        for table in ("challenge_disbursements", "sol_reward_disbursements")
    )
    return f"""
        INSERT INTO user_challenges (
            challenge_id, user_id, specifier, is_complete, current_step_count, completed_blocknumber, amount,
            created_at, completed_at
        )
        SELECT
            '{challenge}',
            deed.user_id,
            deed.specifier,
            true,
            1,
            {_GREATEST_BLOCK},
            catalog.amount * deed.units,
            {at},
            now() AT TIME ZONE 'UTC'
        FROM ({found}) AS deed
        CROSS JOIN (SELECT amount::integer AS amount FROM challenges WHERE id = '{challenge}') AS catalog
        WHERE true{paid}
    """


_COMMENTS = f"""
    SELECT DISTINCT
        user_id,
        to_hex(user_id) || ':' || to_char(comments.created_at, 'IYYYIW') AS specifier,
        CASE WHEN to_char(comments.created_at, 'IYYYIW') <= '202511'
            THEN user_id || ':' || to_char(comments.created_at, 'IYYYIW')
        END AS decimal,
        1 AS units
    FROM comments
    INNER JOIN eligible USING (user_id)
    WHERE is_delete IS NOT TRUE
        AND is_visible IS NOT FALSE
        AND coalesce(blocknumber, 0) >= {_starting_block("c")}
        AND comments.created_at <= now() AT TIME ZONE 'UTC' + INTERVAL '5 minutes'
"""

_PINS = """
    SELECT DISTINCT
        commenter.user_id,
        to_hex(commenter.user_id) || ':' || to_hex(track_id) AS specifier,
        1 AS units
    FROM tracks
    INNER JOIN comments
        ON comment_id = pinned_comment_id
    INNER JOIN eligible AS artist
        ON artist.user_id = owner_id
    INNER JOIN eligible AS commenter
        ON commenter.user_id = comments.user_id
    WHERE is_current
        AND NOT tracks.is_delete
        AND comments.is_delete IS NOT TRUE
        AND lower(entity_type) = 'track'
        AND entity_id = track_id
        AND artist.is_verified
        AND commenter.user_id <> owner_id
"""


def _first_fans(table: str, kind: str) -> str:
    """The ten who reposted, or saved, a trending track first."""
    return f"""
        SELECT
            trending.track_id,
            fan.user_id
        FROM trending
        CROSS JOIN LATERAL (
            SELECT
                {table}.user_id,
                min(created_at) AS at
            FROM {table}
            INNER JOIN eligible
                ON eligible.user_id = {table}.user_id
            WHERE {kind}_item_id = trending.track_id
                AND {kind}_type = 'track'
                AND is_current
                AND NOT is_delete
                AND {table}.user_id <> trending.owner_id
                AND created_at <= now() AT TIME ZONE 'UTC' + INTERVAL '5 minutes'
            GROUP BY {table}.user_id
            ORDER BY
                at,
                {table}.user_id
            LIMIT 10
        ) AS fan
    """


_FANS = f"""
    WITH trending AS (
        SELECT
            track_id,
            owner_id
        FROM track_trending_scores
        INNER JOIN tracks USING (track_id)
        INNER JOIN eligible
            ON user_id = owner_id
        WHERE type = 'TRACKS'
            AND version = 'pnagD'
            AND time_range = 'week'
            AND score > 0
            AND score < 'infinity'
            AND is_current
            AND NOT is_delete
            AND NOT is_unlisted
            AND is_available
        ORDER BY
            score DESC,
            track_id DESC
        LIMIT 10
    )
    SELECT
        user_id,
        to_hex(user_id) || ':t:' || to_hex(track_id) AS specifier,
        1 AS units
    FROM ({_first_fans("reposts", "repost")} UNION {_first_fans("saves", "save")}) AS fans
"""


def _purchases(challenge: str, earner: str, condition: str) -> str:
    """Of the purchases that qualify, the first of each buyer and thing."""
    return f"""
    SELECT DISTINCT ON (buyer_user_id, content_id)
        {earner} AS user_id,
        to_hex(buyer_user_id) || ':' || to_hex(content_id) AS specifier,
        (purchase.amount / 1000000)::integer AS units
    FROM sol_purchases AS purchase
    LEFT JOIN (
        SELECT DISTINCT
            'track' AS kind,
            track_id AS id,
            owner_id
        FROM tracks
        WHERE is_current
            AND track_id IN (SELECT content_id FROM sol_purchases)
        UNION
        SELECT
            'playlist',
            playlist_id,
            playlist_owner_id
        FROM playlists
        WHERE is_current
            AND playlist_id IN (SELECT content_id FROM sol_purchases)
    ) AS sold
        ON sold.id = content_id
        AND sold.kind = CASE content_type WHEN 'album' THEN 'playlist' ELSE content_type END
    LEFT JOIN eligible AS seller
        ON seller.user_id = sold.owner_id
    WHERE is_valid
        AND slot >= {_starting_block(challenge)}
        AND purchase.amount >= 1000000
        AND buyer_user_id IS DISTINCT FROM sold.owner_id
        AND {condition}
    ORDER BY
        buyer_user_id,
        content_id,
        slot,
        signature COLLATE "C",
        instruction_index
    """


# The buyer need not count for the first purchase to be his; the join is with those who do.
_BOUGHT = f"""
    SELECT bought.*
    FROM ({_purchases("b", "buyer_user_id", "true")}) AS bought
    INNER JOIN eligible USING (user_id)
"""
_SOLD = _purchases("s", "seller.user_id", "seller.is_verified")

_DECIDING = """
    SELECT DISTINCT ON (user_id)
        user_id,
        id,
        coalesce(blocknumber, 0) AS block,
        referrer,
        is_mobile_user
    FROM user_events
    WHERE is_current
    ORDER BY
        user_id,
        coalesce(blocknumber, 0) DESC,
        id DESC
"""

_INSTALLS = f"""
    SELECT
        user_id,
        to_hex(user_id) AS specifier,
        1 AS units
    FROM ({_DECIDING}) AS deciding
    INNER JOIN eligible USING (user_id)
    WHERE is_mobile_user
        AND block >= {_starting_block("m")}
"""


def _referrals(challenge: str, condition: str) -> str:
    """The first pairs of each referrer, up to the cap."""
    return f"""
    SELECT
        referrer AS user_id,
        to_hex(referrer) || ':' || to_hex(referred) AS specifier,
        1 AS units
    FROM (
        SELECT
            deciding.referrer,
            deciding.user_id AS referred,
            row_number() OVER (PARTITION BY deciding.referrer ORDER BY deciding.block, deciding.id) AS place
        FROM ({_DECIDING}) AS deciding
        INNER JOIN eligible AS referred
            ON referred.user_id = deciding.user_id
        INNER JOIN eligible AS referrer
            ON referrer.user_id = deciding.referrer
        WHERE deciding.referrer <> deciding.user_id
            AND block >= {_starting_block(challenge)}
            AND {condition}
    ) AS pairs
    WHERE place <= (SELECT step_count FROM challenges WHERE id = '{challenge}')
    """


_REFERRED = f"""
    SELECT
        deciding.user_id,
        to_hex(deciding.user_id) || ':' || to_hex(deciding.referrer) AS specifier,
        to_hex(deciding.user_id) AS without_referrer,
        1 AS units
    FROM ({_DECIDING}) AS deciding
    INNER JOIN eligible AS referred
        ON referred.user_id = deciding.user_id
    INNER JOIN eligible AS referrer
        ON referrer.user_id = deciding.referrer
    WHERE deciding.referrer <> deciding.user_id
        AND block >= {_starting_block("rd")}
"""

# Candidates in order, each granted unless five in the span before it were, or five of its group.
_GRANT = """
    CREATE FUNCTION pg_temp.granted(span interval) RETURNS SETOF pg_temp.candidate
    LANGUAGE plpgsql AS $$
    DECLARE
        next_one pg_temp.candidate;
        owner integer;
        group_id integer;
        of_group integer;
        times timestamp[];
    BEGIN
        FOR next_one IN
            SELECT *
            FROM pg_temp.candidate
            ORDER BY candidate.owner, candidate.at, candidate.place
        LOOP
            IF owner IS DISTINCT FROM next_one.owner THEN
                owner := next_one.owner;
                times := '{}';
                group_id := NULL;
            END IF;
            IF group_id IS DISTINCT FROM next_one.group_id THEN
                group_id := next_one.group_id;
                of_group := 0;
            END IF;
            IF (group_id IS NULL OR of_group < 5)
                AND (cardinality(times) < 5 OR times[cardinality(times) - 4] < next_one.at - span) THEN
                times := times || next_one.at;
                of_group := of_group + 1;
                RETURN NEXT next_one;
            END IF;
        END LOOP;
    END
    $$
"""


def _capped(
    challenge: str, candidates: str, span: str, specifier: str, earlier: str = "'{}'::text[]"
) -> tuple[str, ...]:
    """What is granted of candidates, for which the caps hold by the order of their times."""
    found = f"""
        SELECT
            user_id,
            {specifier} AS specifier,
            track_id,
            at,
            1 AS units
        FROM pg_temp.granted(INTERVAL '{span}')
    """
    return (
        f"CREATE TEMPORARY TABLE candidate AS {candidates}",
        _GRANT,
        _deeds(challenge, found, earlier=earlier, at="deed.at AT TIME ZONE 'UTC'"),
        "DROP FUNCTION pg_temp.granted(interval)",
        "DROP TABLE candidate",
    )


def _liked(table: str, kind: str) -> str:
    return f"""
        SELECT
            {table}.user_id,
            {kind}_item_id AS track_id,
            created_at
        FROM {table}
        INNER JOIN eligible
            ON eligible.user_id = {table}.user_id
        WHERE is_verified
            AND {kind}_type = 'track'
            AND is_current
            AND NOT is_delete
            AND coalesce(blocknumber, 0) >= {_starting_block("cs")}
    """


_COSIGNS = _capped(
    "cs",
    f"""
        SELECT
            parent.owner_id AS owner,
            NULL::integer AS group_id,
            min(liked.created_at) AS at,
            child.track_id::bigint AS place,
            child.track_id,
            child.owner_id AS user_id
        FROM ({_liked("saves", "save")} UNION ALL {_liked("reposts", "repost")}) AS liked
        INNER JOIN remixes
            ON child_track_id = liked.track_id
        INNER JOIN tracks AS parent
            ON parent.track_id = parent_track_id
            AND parent.owner_id = liked.user_id
        INNER JOIN tracks AS child
            ON child.track_id = child_track_id
        INNER JOIN eligible AS artist
            ON artist.user_id = child.owner_id
        WHERE parent.is_current
            AND NOT parent.is_delete
            AND child.is_current
            AND NOT child.is_delete
            AND child.owner_id <> parent.owner_id
            AND liked.created_at <= now() AT TIME ZONE 'UTC' + INTERVAL '5 minutes'
        GROUP BY
            parent.owner_id,
            child.track_id,
            child.owner_id
    """,
    "30 days",
    "to_hex(owner) || ':' || to_hex(track_id)",
    "to_hex(deed.track_id)",
)

_WINNERS = _capped(
    "w",
    f"""
        SELECT DISTINCT ON (event_id, artist.user_id)
            host.user_id AS owner,
            event_id AS group_id,
            events.updated_at AS at,
            event_id * 1000000::bigint + position AS place,
            track_id,
            artist.user_id
        FROM events
        INNER JOIN eligible AS host
            ON host.user_id = events.user_id
        CROSS JOIN LATERAL jsonb_array_elements_text(
            CASE WHEN jsonb_typeof(event_data -> 'winners') = 'array' THEN event_data -> 'winners' ELSE '[]' END
        ) WITH ORDINALITY AS named (track, position)
        INNER JOIN tracks
            ON track_id = CASE WHEN track ~ '^[0-9]{{1,9}}$' THEN track::integer END
        INNER JOIN eligible AS artist
            ON artist.user_id = owner_id
        WHERE event_type = 'remix_contest'
            AND is_deleted IS NOT TRUE
            AND coalesce(events.blocknumber, 0) >= {_starting_block("w")}
            AND events.updated_at <= now() AT TIME ZONE 'UTC' + INTERVAL '5 minutes'
            AND host.is_verified
            AND is_current
            AND NOT is_delete
            AND owner_id <> host.user_id
        ORDER BY
            event_id,
            artist.user_id,
            position
    """,
    "7 days",
    "to_hex(group_id) || ':' || to_hex(user_id)",
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
        "c": ((_deeds("c", _COMMENTS, earlier="deed.decimal"),),),
        "cp": ((_deeds("cp", _PINS),),),
        "cs": (_COSIGNS,),
        "w": (_WINNERS,),
        "t": ((_deeds("t", _FANS),),),
        "b": ((_deeds("b", _BOUGHT),),),
        "s": ((_deeds("s", _SOLD),),),
        "m": ((_deeds("m", _INSTALLS),),),
        "r": ((_deeds("r", _referrals("r", "NOT referrer.is_verified")),),),
        "rv": ((_deeds("rv", _referrals("rv", "referrer.is_verified")),),),
        "rd": ((_deeds("rd", _REFERRED, earlier="deed.without_referrer"),),),
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
