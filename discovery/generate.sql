-- Fills an empty discovery database with realistic rows.
--   psql -v ON_ERROR_STOP=1 -v scale=0.001 -v seed=1 -f discovery/generate.sql
-- scale: 0.0001 to 1, the size of production being 1 (default 0.001).
-- seed:  an integer; the same seed, scale and today give the same rows (default 1).
-- today: the day after the last play (default: today, UTC).
-- The sizes count current rows; some per cent of older versions come on top. A source table that holds
-- rows already is an error. Each table is one transaction that takes its keys and indexes off, loads it in
-- the order in which the indexer would have written it, and puts them back; after an error the
-- schema is as it was.

\set ON_ERROR_STOP on
\set QUIET on
\pset format unaligned
\pset tuples_only on
\if :{?scale}
\else
\set scale 0.001
\endif
\if :{?seed}
\else
\set seed 1
\endif
\if :{?today}
\else
SELECT (now() AT TIME ZONE 'utc')::date AS today \gset
\endif

SET client_min_messages = warning;
SET synchronous_commit = off;
SET jit = off;
SET work_mem = '512MB';
SET maintenance_work_mem = '1GB';

--
-- Sizes
--

-- Rows of each table; `person` needs a number of users far below its prime.
SELECT
    greatest(20, round(3200000 * :scale))::integer AS users,
    greatest(10, round(1900 * :scale))::integer AS verified,
    greatest(200, round(26000000 * :scale))::integer AS follows,
    greatest(80, round(10000000 * :scale))::integer AS saves,
    greatest(50, round(5900000 * :scale))::integer AS reposts,
    greatest(30, round(1900000 * :scale))::integer AS tracks,
    greatest(20, round(311000 * :scale))::integer AS playlists,
    greatest(300, round(20000000 * :scale))::integer AS plays,
    greatest(100, round(10000000 * :scale))::integer AS monthly,
    greatest(1000, round(1000000 * :scale))::integer AS blocks,
    greatest(200, round(40000 * :scale))::integer AS purchases
\gset
SELECT
    greatest(60, round(319700 * :scale))::integer AS comments,
    greatest(15, round(2300000 * :scale))::integer AS user_events
\gset
SELECT greatest(10, round(1300 * :scale))::integer AS pins \gset
SELECT
    greatest(60, round(60000 * :scale))::integer AS remixes,
    greatest(20, round(900 * :scale))::integer AS cosigns
\gset
SELECT greatest(8, round(400 * :scale))::integer AS contests \gset

-- The first block, and how far apart the blocks are that hold rows: they end at 130,000,000 at any scale,
-- with the starting blocks of the catalog (25,346,436 and 28,350,000) in the first seventh.
\set first_block 12000000
SELECT 118000000 / :blocks AS block_step \gset

-- Plays a day; people who listen daily, and one play in how many is theirs.
\set days 30
SELECT
    :plays / :days AS daily_plays,
    greatest(5, :users / 50) AS daily_listeners
\gset
SELECT greatest(2, :daily_plays / :daily_listeners) AS daily_turn \gset

--
-- Dice. The hashes take a number to name the throw; nothing here is random().
--

-- A number in [0, 1) for the throw `throw` of the thing `id`, number `k` of its kind.
CREATE FUNCTION pg_temp.roll(id bigint, throw integer, k bigint DEFAULT 0) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    hashint8extended(id, :seed::bigint * 1000000007 + k * 1000 + throw) & 9007199254740991
)::double precision / 9007199254740992;

-- The hash of the transaction that wrote a row.
CREATE FUNCTION pg_temp.txhash(id bigint, throw integer, k bigint DEFAULT 0) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '0x' || to_hex(hashint8extended(id, :seed::bigint * 1000000007 + k * 1000 + throw));

-- The moment at a share of history, 0 being the first block and 1 today.
CREATE FUNCTION pg_temp.moment(share double precision) RETURNS timestamp
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN timestamp '2019-10-01' + (:'today'::timestamp - timestamp '2019-10-01') * share;

-- The block at a share of history; null for the one in two hundred that lost it.
CREATE FUNCTION pg_temp.block_at(share double precision, lost double precision) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN lost >= 0.005 THEN :first_block + floor(share * :blocks)::integer * :block_step END;

-- A block somewhat before another.
CREATE FUNCTION pg_temp.block_before(blocknumber integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN :first_block + floor((blocknumber - :first_block) / :block_step * 0.9)::integer * :block_step;

-- The user at a rank of popularity, from 0: each user once, spread over all the ids.
CREATE FUNCTION pg_temp.person(rank bigint) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 1 + (rank * 2654435761) % :users;

-- The track at a rank of popularity.
CREATE FUNCTION pg_temp.track(rank bigint) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 1 + (rank * 2654435761) % :tracks;

-- The playlist at a rank of popularity.
CREATE FUNCTION pg_temp.playlist(rank bigint) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 1 + (rank * 2654435761) % :playlists;

-- Whether a playlist is an album.
CREATE FUNCTION pg_temp.is_album(playlist_id integer) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN pg_temp.roll(playlist_id, 90) < 0.25;

-- How much a user does here, 0 to 1: decides how full the profile is, and how much they follow and save.
CREATE FUNCTION pg_temp.zeal(user_id bigint) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN pg_temp.roll(user_id, 1);

-- How many rows each user has, `total` in all: the `idle` share of users none, the rest by a power law.
CREATE FUNCTION pg_temp.shares(total integer, idle double precision, throw integer)
RETURNS TABLE (user_id integer, quantity integer)
LANGUAGE sql STABLE
BEGIN ATOMIC
    WITH weights AS MATERIALIZED (
        SELECT
            person.user_id,
            CASE
                WHEN pg_temp.zeal(person.user_id) >= idle
                    THEN least(
                        2000,
                        (1 - pg_temp.zeal(person.user_id)) ^ -0.3
                        * (1 - pg_temp.roll(person.user_id, throw)) ^ -0.8
                    )
                ELSE 0
            END AS weight
        FROM generate_series(1, :users) AS person (user_id)
    ),

    unit AS (
        SELECT total / sum(weights.weight) AS size
        FROM weights
    )

    SELECT
        weights.user_id,
        least(
            floor(weights.weight * unit.size + pg_temp.roll(weights.user_id, throw + 1))::integer,
            :users / 2,
            :tracks / 2
        )
    FROM weights
    CROSS JOIN unit;
END;

-- What users saved or reposted, a fifth of it playlists and albums, each thing once a user: the user's k-th
-- thing comes from the k-th slice of a power law over all the things.
CREATE FUNCTION pg_temp.favors(total integer, idle double precision, throw integer)
RETURNS TABLE (user_id integer, k integer, item integer, is_track boolean, share double precision)
LANGUAGE sql STABLE
BEGIN ATOMIC
    WITH counts AS (
        SELECT
            shares.user_id,
            shares.quantity - least(shares.quantity / 5, :playlists / 2) AS tracks,
            least(shares.quantity / 5, :playlists / 2) AS playlists,
            generate_series(0, shares.quantity - 1) AS k
        FROM pg_temp.shares(total, idle, throw) AS shares
    )

    SELECT
        counts.user_id,
        counts.k,
        CASE
            WHEN counts.k < counts.tracks
                THEN pg_temp.track(counts.k + floor(
                    (:tracks - counts.tracks)
                    * ((counts.k + pg_temp.roll(counts.user_id, throw + 2, counts.k)) / counts.tracks) ^ 4
                )::bigint)
            ELSE pg_temp.playlist(counts.k - counts.tracks + floor(
                (:playlists - counts.playlists)
                * (
                    (counts.k - counts.tracks + pg_temp.roll(counts.user_id, throw + 2, counts.k))
                    / counts.playlists
                ) ^ 4
            )::bigint)
        END,
        counts.k < counts.tracks,
        (
            counts.user_id + (:users - counts.user_id) * pg_temp.roll(counts.user_id, throw + 3, counts.k)
        ) / :users
    FROM counts;
END;

--
-- Loading
--

-- The keys, indexes and foreign keys that are off, as the statements that put them back.
CREATE TEMPORARY TABLE taken_off (
    place integer GENERATED ALWAYS AS IDENTITY,
    statement text NOT NULL
);

-- Stops at a table that holds rows.
CREATE PROCEDURE pg_temp.refuse_filled(names regclass[])
LANGUAGE plpgsql AS $$
DECLARE
    name regclass;
    filled boolean;
BEGIN
    FOREACH name IN ARRAY names LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', name) INTO filled;
        IF filled THEN
            RAISE 'table % is not empty', name
            USING HINT = 'The generator fills a new database: load discovery/schema.sql into one.';
        END IF;
    END LOOP;
END
$$;

-- Takes keys, indexes and foreign keys off an empty table.
CREATE PROCEDURE pg_temp.take_off(name regclass)
LANGUAGE plpgsql AS $$
DECLARE
    removal text;
BEGIN
    CALL pg_temp.refuse_filled(ARRAY[name]);
    -- Truncated in this transaction, the table needs no WAL for its load where wal_level is minimal.
    EXECUTE format('TRUNCATE %s', name);

    INSERT INTO taken_off (statement)
    SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s', name, conname, pg_get_constraintdef(oid))
    FROM pg_constraint
    WHERE conrelid = name AND contype IN ('p', 'f')
    ORDER BY contype DESC, conname;

    INSERT INTO taken_off (statement)
    SELECT pg_get_indexdef(indexrelid)
    FROM pg_index
    WHERE indrelid = name AND NOT indisprimary
    ORDER BY indexrelid;

    FOR removal IN
        SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', name, conname)
        FROM pg_constraint
        WHERE conrelid = name AND contype IN ('p', 'f')
        UNION ALL
        SELECT format('DROP INDEX %s', indexrelid::regclass)
        FROM pg_index
        WHERE indrelid = name AND NOT indisprimary
    LOOP
        EXECUTE removal;
    END LOOP;
END
$$;

-- Puts back what was taken off; returns the line that reports the table.
CREATE FUNCTION pg_temp.put_back(name regclass) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    addition text;
    loaded bigint;
BEGIN
    FOR addition IN
        DELETE FROM taken_off
        RETURNING statement
    LOOP
        EXECUTE addition;
    END LOOP;
    EXECUTE format('SELECT count(*) FROM %s', name) INTO loaded;
    RETURN format(
        '%s rows  %s s',
        lpad(to_char(loaded, 'FM999,999,999'), 12),
        lpad(round(extract(epoch FROM clock_timestamp() - now()), 1)::text, 6)
    );
END
$$;

CALL pg_temp.refuse_filled(
    '{
        blocks, users, follows, saves, reposts, tracks, playlists, plays, aggregate_monthly_plays,
        track_trending_scores, playlist_trending_scores, aggregate_user, comments, user_events, sol_purchases,
        remixes, events, challenge_disbursements, sol_reward_disbursements
    }'
);

\echo scale :scale, seed :seed, today :today

\echo -n 'blocks                    '
BEGIN;
INSERT INTO blocks (blockhash, number)
SELECT
    pg_temp.txhash(height, 2),
    :first_block + height * :block_step
FROM generate_series(0, :blocks) AS block (height);
-- At the head of the chain, every block is there.
INSERT INTO blocks (blockhash, number)
SELECT
    'head' || number,
    number
FROM generate_series(:first_block + :blocks * :block_step - 30, :first_block + :blocks * :block_step - 1) AS number
ON CONFLICT (number) DO NOTHING;
SELECT pg_temp.put_back('blocks');
COMMIT;

\echo -n 'users                     '
BEGIN;
CALL pg_temp.take_off('users');
WITH verified AS (
    SELECT
        pg_temp.person(
            k + floor((:users / 4 - :verified) * ((k + pg_temp.roll(k, 3)) / :verified) ^ 2)::bigint
        ) AS user_id
    FROM generate_series(0, :verified - 1) AS chosen (k)
)

INSERT INTO users (
    user_id, is_current, handle, handle_lc, wallet, name, bio, profile_picture, profile_picture_sizes,
    cover_photo, cover_photo_sizes, is_verified, is_deactivated, is_available, blocknumber, created_at,
    updated_at, txhash
)
SELECT
    user_id,
    TRUE,
    CASE WHEN named THEN 'Listener_' || to_hex(user_id) END,
    CASE WHEN named THEN 'listener_' || to_hex(user_id) END,
    CASE WHEN pg_temp.roll(user_id, 5) < 0.98 THEN pg_temp.txhash(user_id, 6) END,
    CASE WHEN pg_temp.roll(user_id, 7) < 0.94 THEN 'Listener ' || user_id END,
    CASE WHEN pg_temp.roll(user_id, 8) < 0.1 + 0.6 * zeal THEN 'I listen since ' || user_id END,
    CASE WHEN pg_temp.roll(user_id, 9) < 0.03 THEN 'Qm' || to_hex(user_id) END,
    CASE WHEN pg_temp.roll(user_id, 10) < 0.2 + 0.6 * zeal THEN 'bafy' || to_hex(user_id) END,
    CASE WHEN pg_temp.roll(user_id, 11) < 0.01 THEN 'Qm' || to_hex(user_id) END,
    CASE WHEN pg_temp.roll(user_id, 12) < 0.7 * zeal THEN 'bafy' || to_hex(user_id) END,
    user_id IN (SELECT verified.user_id FROM verified),
    pg_temp.roll(user_id, 13) < 0.02,
    pg_temp.roll(user_id, 14) >= 0.005,
    pg_temp.block_at(share, pg_temp.roll(user_id, 15)),
    pg_temp.moment(share),
    pg_temp.moment(share),
    pg_temp.txhash(user_id, 16)
FROM (
    SELECT
        user_id,
        pg_temp.zeal(user_id) AS zeal,
        pg_temp.roll(user_id, 4) < 0.92 AS named,
        user_id / (:users + 1.0::double precision) AS share
    FROM generate_series(1, :users) AS person (user_id)
) AS people;
-- Versions before the current one; one in some hundred was left current by mistake.
INSERT INTO users (
    user_id, is_current, handle, handle_lc, wallet, name, is_verified, is_deactivated, is_available,
    blocknumber, created_at, updated_at, txhash
)
SELECT
    user_id,
    pg_temp.roll(user_id, 18) < 0.003,
    handle,
    handle_lc,
    wallet,
    name,
    FALSE,
    FALSE,
    TRUE,
    pg_temp.block_before(blocknumber),
    created_at,
    created_at,
    pg_temp.txhash(user_id, 19)
FROM users
WHERE pg_temp.roll(user_id, 17) < 0.05;
SELECT pg_temp.put_back('users');
COMMIT;

\echo -n 'follows                   '
BEGIN;
CALL pg_temp.take_off('follows');
INSERT INTO follows (
    follower_user_id, followee_user_id, is_current, is_delete, blocknumber, created_at, txhash
)
SELECT
    follower,
    followee,
    TRUE,
    pg_temp.roll(follower, 20, followee) < 0.06,
    pg_temp.block_at(share, pg_temp.roll(follower, 21, followee)),
    pg_temp.moment(share),
    pg_temp.txhash(follower, 22, followee)
FROM (
    SELECT
        follower,
        pg_temp.person(
            k + floor((:users - quantity) * ((k + pg_temp.roll(follower, 25, k)) / quantity) ^ 4)::bigint
        ) AS followee,
        (follower + (:users - follower) * pg_temp.roll(follower, 26, k)) / :users AS share
    FROM (
        SELECT
            user_id AS follower,
            quantity,
            generate_series(0, quantity - 1) AS k
        FROM pg_temp.shares(:follows, 0.3, 23)
    ) AS slices
    ORDER BY share
) AS pairs
WHERE follower <> followee;
INSERT INTO follows (
    follower_user_id, followee_user_id, is_current, is_delete, blocknumber, created_at, txhash
)
SELECT
    follower_user_id,
    followee_user_id,
    pg_temp.roll(follower_user_id, 28, followee_user_id) < 0.003,
    pg_temp.roll(follower_user_id, 29, followee_user_id) < 0.3,
    pg_temp.block_before(blocknumber),
    created_at,
    pg_temp.txhash(follower_user_id, 30, followee_user_id)
FROM follows
WHERE pg_temp.roll(follower_user_id, 27, followee_user_id) < 0.03;
SELECT pg_temp.put_back('follows');
COMMIT;

\echo -n 'saves                     '
BEGIN;
CALL pg_temp.take_off('saves');
INSERT INTO saves (user_id, save_item_id, save_type, is_current, is_delete, blocknumber, created_at, txhash)
SELECT
    user_id,
    item,
    CASE WHEN is_track THEN 'track' WHEN pg_temp.is_album(item) THEN 'album' ELSE 'playlist' END::savetype,
    TRUE,
    pg_temp.roll(user_id, 31, k) < 0.05,
    pg_temp.block_at(share, pg_temp.roll(user_id, 32, k)),
    pg_temp.moment(share),
    pg_temp.txhash(user_id, 33, k)
FROM (
    SELECT *
    FROM pg_temp.favors(:saves, 0.4, 34)
    ORDER BY share
) AS favors;
INSERT INTO saves (user_id, save_item_id, save_type, is_current, is_delete, blocknumber, created_at, txhash)
SELECT
    user_id,
    save_item_id,
    save_type,
    FALSE,
    pg_temp.roll(user_id, 41, save_item_id) < 0.3,
    pg_temp.block_before(blocknumber),
    created_at,
    pg_temp.txhash(user_id, 42, save_item_id)
FROM saves
WHERE pg_temp.roll(user_id, 40, save_item_id) < 0.02;
SELECT pg_temp.put_back('saves');
COMMIT;

\echo -n 'reposts                   '
BEGIN;
CALL pg_temp.take_off('reposts');
INSERT INTO reposts (
    user_id, repost_item_id, repost_type, is_current, is_delete, blocknumber, created_at, txhash
)
SELECT
    user_id,
    item,
    CASE WHEN is_track THEN 'track' WHEN pg_temp.is_album(item) THEN 'album' ELSE 'playlist' END::reposttype,
    TRUE,
    pg_temp.roll(user_id, 43, k) < 0.05,
    pg_temp.block_at(share, pg_temp.roll(user_id, 44, k)),
    pg_temp.moment(share),
    pg_temp.txhash(user_id, 45, k)
FROM (
    SELECT *
    FROM pg_temp.favors(:reposts, 0.5, 46)
    ORDER BY share
) AS favors;
INSERT INTO reposts (
    user_id, repost_item_id, repost_type, is_current, is_delete, blocknumber, created_at, txhash
)
SELECT
    user_id,
    repost_item_id,
    repost_type,
    FALSE,
    pg_temp.roll(user_id, 53, repost_item_id) < 0.3,
    pg_temp.block_before(blocknumber),
    created_at,
    pg_temp.txhash(user_id, 54, repost_item_id)
FROM reposts
WHERE pg_temp.roll(user_id, 52, repost_item_id) < 0.02;
SELECT pg_temp.put_back('reposts');
COMMIT;

\echo -n 'tracks                    '
BEGIN;
CALL pg_temp.take_off('tracks');
INSERT INTO tracks (
    track_id, owner_id, title, is_current, is_delete, is_unlisted, is_available, stem_of, blocknumber,
    created_at, updated_at, txhash
)
SELECT
    track_id,
    pg_temp.person(floor(:users * 0.12 * pg_temp.roll(track_id, 55) ^ 2)::bigint),
    CASE WHEN pg_temp.roll(track_id, 56) < 0.999 THEN 'Song ' || track_id END,
    TRUE,
    pg_temp.roll(track_id, 57) < 0.12,
    pg_temp.roll(track_id, 58) < 0.15,
    pg_temp.roll(track_id, 59) >= 0.01,
    CASE
        WHEN pg_temp.roll(track_id, 60) < 0.03
            THEN jsonb_build_object('category', 'INSTRUMENTAL', 'parent_track_id', greatest(1, track_id - 1))
    END,
    pg_temp.block_at(share, pg_temp.roll(track_id, 61)),
    pg_temp.moment(share),
    pg_temp.moment(share),
    pg_temp.txhash(track_id, 62)
FROM (
    SELECT
        track_id,
        track_id / (:tracks + 1.0::double precision) AS share
    FROM generate_series(1, :tracks) AS track (track_id)
) AS uploads;
INSERT INTO tracks (
    track_id, owner_id, title, is_current, is_delete, is_unlisted, is_available, stem_of, blocknumber,
    created_at, updated_at, txhash
)
SELECT
    track_id,
    owner_id,
    title,
    pg_temp.roll(track_id, 64) < 0.02,
    is_delete,
    is_unlisted,
    is_available,
    stem_of,
    pg_temp.block_before(blocknumber),
    created_at,
    created_at,
    pg_temp.txhash(track_id, 65)
FROM tracks
WHERE pg_temp.roll(track_id, 63) < 0.01;
SELECT pg_temp.put_back('tracks');
COMMIT;

\echo -n 'playlists                 '
BEGIN;
CALL pg_temp.take_off('playlists');
INSERT INTO playlists (
    playlist_id, playlist_owner_id, playlist_name, is_album, is_private, playlist_contents, is_current,
    is_delete, blocknumber, created_at, updated_at, txhash
)
SELECT
    playlist_id,
    pg_temp.person(floor(:users * 0.3 * pg_temp.roll(playlist_id, 70) ^ 2)::bigint),
    CASE WHEN pg_temp.roll(playlist_id, 71) < 0.99 THEN 'Mix ' || playlist_id END,
    pg_temp.is_album(playlist_id),
    pg_temp.roll(playlist_id, 72) < 0.2,
    jsonb_build_object(
        'track_ids',
        jsonb_build_array(
            jsonb_build_object('time', 1600000000 + playlist_id, 'track', pg_temp.track(playlist_id)),
            jsonb_build_object('time', 1600000000 + playlist_id, 'track', pg_temp.track(playlist_id + 1))
        )
    ),
    TRUE,
    pg_temp.roll(playlist_id, 73) < 0.15,
    pg_temp.block_at(share, pg_temp.roll(playlist_id, 74)),
    pg_temp.moment(share),
    pg_temp.moment(share),
    pg_temp.txhash(playlist_id, 75)
FROM (
    SELECT
        playlist_id,
        playlist_id / (:playlists + 1.0::double precision) AS share
    FROM generate_series(1, :playlists) AS playlist (playlist_id)
) AS uploads;
INSERT INTO playlists (
    playlist_id, playlist_owner_id, playlist_name, is_album, is_private, playlist_contents, is_current,
    is_delete, blocknumber, created_at, updated_at, txhash
)
SELECT
    playlist_id,
    playlist_owner_id,
    playlist_name,
    is_album,
    TRUE,
    '{"track_ids": []}',
    pg_temp.roll(playlist_id, 77) < 0.02,
    FALSE,
    pg_temp.block_before(blocknumber),
    created_at,
    created_at,
    pg_temp.txhash(playlist_id, 78)
FROM playlists
WHERE pg_temp.roll(playlist_id, 76) < 0.01;
SELECT pg_temp.put_back('playlists');
COMMIT;

-- A track in thirty is a remix, one in ten of these of two tracks. A third of the originals are of verified artists,
-- many of a few.
\echo -n 'remixes                   '
BEGIN;
CALL pg_temp.take_off('remixes');
WITH original AS MATERIALIZED (
    SELECT
        track_id,
        row_number() OVER (ORDER BY pg_temp.roll(owner_id, 140), pg_temp.roll(track_id, 141)) - 1 AS rank
    FROM tracks
    WHERE
        is_current
        AND owner_id IN (
            SELECT users.user_id
            FROM users
            WHERE users.is_current AND users.is_verified
        )
),

made AS (
    SELECT
        number,
        second,
        pg_temp.track(:tracks - 1 - number) AS child_track_id,
        CASE
            WHEN pg_temp.roll(number, 142, second) < 0.33
                THEN floor((SELECT count(*) FROM original) * pg_temp.roll(number, 143, second) ^ 3)::bigint
        END AS rank
    FROM generate_series(0, :remixes - 1) AS remix (number)
    CROSS JOIN generate_series(0, 1) AS parent (second)
    WHERE second = 0 OR pg_temp.roll(number, 144) < 0.1
),

remix AS (
    SELECT DISTINCT
        made.child_track_id,
        coalesce(
            original.track_id,
            pg_temp.track(floor(:tracks * pg_temp.roll(made.number, 145, made.second) ^ 4)::bigint)
        ) AS parent_track_id
    FROM made
    LEFT JOIN original ON made.rank = original.rank
)

INSERT INTO remixes (parent_track_id, child_track_id)
SELECT
    parent_track_id,
    child_track_id
FROM remix
WHERE parent_track_id <> child_track_id
ORDER BY child_track_id;
SELECT pg_temp.put_back('remixes');
COMMIT;

-- Verified artists save or repost what others have made of their tracks; the one of whose tracks most is made does so
-- all within two weeks.
\echo -n 'cosigns                   '
BEGIN;
CREATE TEMPORARY TABLE cosign ON COMMIT DROP AS
WITH remix AS (
    SELECT DISTINCT
        parent.owner_id AS artist,
        remixes.child_track_id AS track_id
    FROM remixes
    INNER JOIN tracks AS parent ON remixes.parent_track_id = parent.track_id
    INNER JOIN users ON parent.owner_id = users.user_id
    WHERE
        parent.is_current
        AND users.is_current
        AND users.is_verified
),

ranked AS (
    SELECT
        remix.*,
        count(*) OVER (PARTITION BY remix.artist) AS quantity,
        row_number() OVER (PARTITION BY remix.artist ORDER BY pg_temp.roll(remix.track_id, 146)) AS place
    FROM remix
),

busiest AS (
    SELECT artist
    FROM ranked
    ORDER BY
        quantity DESC,
        artist ASC
    LIMIT 1
)

SELECT
    ranked.artist,
    ranked.track_id,
    CASE
        WHEN ranked.artist = busiest.artist
            THEN 0.985 + 0.005 * pg_temp.roll(ranked.track_id, 147)
        ELSE 0.72 + 0.27 * pg_temp.roll(ranked.track_id, 147)
    END AS share
FROM ranked
CROSS JOIN busiest
WHERE ranked.place <= 12
ORDER BY
    ranked.artist = busiest.artist DESC,
    pg_temp.roll(ranked.track_id, 148) ASC
LIMIT :cosigns;
INSERT INTO saves (user_id, save_item_id, save_type, is_current, is_delete, blocknumber, created_at, txhash)
SELECT
    artist,
    track_id,
    'track',
    TRUE,
    FALSE,
    pg_temp.block_at(share, pg_temp.roll(track_id, 149)),
    pg_temp.moment(share),
    pg_temp.txhash(track_id, 150)
FROM cosign
WHERE pg_temp.roll(track_id, 151) < 0.7;
INSERT INTO reposts (user_id, repost_item_id, repost_type, is_current, is_delete, blocknumber, created_at, txhash)
SELECT
    artist,
    track_id,
    'track',
    TRUE,
    FALSE,
    pg_temp.block_at(share, pg_temp.roll(track_id, 152)),
    pg_temp.moment(share),
    pg_temp.txhash(track_id, 153)
FROM cosign
WHERE pg_temp.roll(track_id, 151) >= 0.6;
SELECT format('%s rows', lpad(to_char(count(*), 'FM999,999,999'), 12)) FROM cosign;
COMMIT;

-- Plays are numbered in the order they came. A daily listener's turn comes at the same time of the day, one
-- in twenty is missed; the rest are people without account, accounts that are gone, and users by a power law.
\echo -n 'plays                     '
BEGIN;
CALL pg_temp.take_off('plays');
ALTER TABLE plays DISABLE TRIGGER on_play;
INSERT INTO plays (id, user_id, play_item_id, created_at, updated_at)
SELECT
    1000000 + number,
    CASE
        WHEN
            slot % :daily_turn = 0
            AND slot / :daily_turn < :daily_listeners
            AND pg_temp.roll(number, 80) >= 0.05
            THEN pg_temp.person(:users - 1 - slot / :daily_turn)
        WHEN pg_temp.roll(number, 81) < 0.25 THEN NULL
        WHEN pg_temp.roll(number, 81) < 0.28
            THEN :users + 1 + floor(:users * 0.01 * pg_temp.roll(number, 82))::integer
        ELSE pg_temp.person(floor(:users * pg_temp.roll(number, 82) ^ 2)::bigint)
    END,
    CASE
        WHEN pg_temp.roll(number, 83) < 0.01
            THEN :tracks + 1 + floor(:tracks * pg_temp.roll(number, 84))::integer
        ELSE pg_temp.track(floor(:tracks * pg_temp.roll(number, 84) ^ 4)::bigint)
    END,
    moment,
    moment
FROM (
    SELECT
        number,
        number % :daily_plays AS slot,
        :'today'::timestamp - interval '1 day' * :days
        + interval '1 second' * floor(86400 * (number + pg_temp.roll(number, 85)) / :daily_plays) AS moment
    FROM generate_series(0, :daily_plays * :days - 1) AS play (number)
) AS listens;
ALTER TABLE plays ENABLE TRIGGER on_play;
SELECT setval('plays_id_seq', 1000000 + :daily_plays * :days) AS last_play \gset
SELECT pg_temp.put_back('plays');
COMMIT;

-- Thirty months up to today's; a popular track is heard in more of them, and in more countries.
\echo -n 'aggregate_monthly_plays   '
BEGIN;
CALL pg_temp.take_off('aggregate_monthly_plays');
INSERT INTO aggregate_monthly_plays (play_item_id, timestamp, count, country)
SELECT
    play_item_id,
    (date_trunc('month', :'today'::timestamp) - interval '1 month' * month)::date,
    least(50000, floor(popularity ^ 0.5 * (1 - pg_temp.roll(play_item_id, 87, k)) ^ -0.8))::integer,
    ('{US,"",GB,DE,FR,NL,CA,AU,BR,MX,JP,ID,NG,ZA,IN,ES,IT,PL,SE,NO,DK,TR,AR,CL,KR,PH,TH,VN,UA,RU}'::text[])[
        1 + k / 30
    ]
FROM (
    SELECT
        play_item_id,
        k,
        popularity,
        (k + floor(30 * pg_temp.roll(play_item_id, 88))::integer) % 30 AS month
    FROM (
        SELECT
            pg_temp.track(rank) AS play_item_id,
            (:tracks / (rank + 0.5::double precision)) AS popularity,
            generate_series(
                0,
                least(
                    900,
                    floor(
                        :monthly / 2.0 / :tracks * sqrt(:tracks / (rank + 0.5::double precision))
                        + pg_temp.roll(rank, 89)
                    )::integer
                ) - 1
            ) AS k
        FROM generate_series(0, :tracks - 1) AS ranked (rank)
    ) AS hearings
    ORDER BY month DESC
) AS months;
SELECT pg_temp.put_back('aggregate_monthly_plays');
COMMIT;

-- A seventh of all tracks have scores, in both types, which rank them alike; one in fifty of an old version.
\echo -n 'track_trending_scores     '
BEGIN;
CALL pg_temp.take_off('track_trending_scores');
INSERT INTO track_trending_scores (track_id, type, genre, version, time_range, score, created_at)
SELECT
    track_id,
    type,
    (ARRAY['Electronic', 'Hip-Hop/Rap', 'Lo-Fi', 'House', 'Pop', NULL])[
        1 + floor(6 * pg_temp.roll(track_id, 91))::integer
    ],
    CASE WHEN pg_temp.roll(track_id, 92) < 0.02 THEN 'EJ57D' ELSE 'pnagD' END,
    time_range,
    CASE
        WHEN pg_temp.roll(track_id, 93) >= 0.2
            THEN weight * (1 - pg_temp.roll(track_id, 94)) ^ -1.2 * (1 + pg_temp.roll(track_id, 95, salt))
        ELSE 0
    END,
    :'today'::timestamp
FROM generate_series(1, :tracks) AS track (track_id)
CROSS JOIN (
    VALUES
    ('TRACKS', 'week', 10, 1),
    ('TRACKS', 'month', 40, 2),
    ('TRACKS', 'allTime', 900, 3),
    ('UNDERGROUND_TRACKS', 'week', 10, 4),
    ('UNDERGROUND_TRACKS', 'month', 40, 5),
    ('UNDERGROUND_TRACKS', 'allTime', 900, 6)
) AS kind (type, time_range, weight, salt)
WHERE pg_temp.roll(track_id, 96) < 0.15;
SELECT pg_temp.put_back('track_trending_scores');
COMMIT;

\echo -n 'playlist_trending_scores  '
BEGIN;
CALL pg_temp.take_off('playlist_trending_scores');
INSERT INTO playlist_trending_scores (playlist_id, type, version, time_range, score, created_at)
SELECT
    playlist_id,
    'PLAYLISTS',
    'pnagD',
    time_range,
    weight * (1 - pg_temp.roll(playlist_id, 97)) ^ -1.2,
    :'today'::timestamp
FROM generate_series(1, :playlists) AS playlist (playlist_id)
CROSS JOIN (VALUES ('week', 10), ('month', 40), ('allTime', 900)) AS kind (time_range, weight)
WHERE pg_temp.roll(playlist_id, 98) < 0.6;
SELECT pg_temp.put_back('playlist_trending_scores');
COMMIT;

-- In the last year and a half, by few users; clients choose the ids, below 1,500,000,000 and in no order.
\echo -n 'comments                  '
BEGIN;
CALL pg_temp.take_off('comments');
INSERT INTO comments (
    comment_id, user_id, entity_id, entity_type, text, is_delete, is_visible, blocknumber, created_at, updated_at,
    txhash, blockhash
)
SELECT
    1 + (number * 48271) % 1499999957,
    pg_temp.person(floor(:users * 0.05 * pg_temp.roll(number, 110) ^ 3)::bigint),
    pg_temp.track(floor(:tracks * pg_temp.roll(number, 111) ^ 4)::bigint),
    CASE
        WHEN pg_temp.roll(number, 112) < 0.9 THEN 'Track'
        WHEN pg_temp.roll(number, 112) < 0.94 THEN 'track'
        WHEN pg_temp.roll(number, 112) < 0.99 THEN 'FanClub'
        ELSE 'Event'
    END,
    'Comment ' || number,
    CASE WHEN pg_temp.roll(number, 113) >= 0.01 THEN pg_temp.roll(number, 113) < 0.05 END,
    CASE WHEN pg_temp.roll(number, 114) >= 0.01 THEN pg_temp.roll(number, 114) >= 0.02 END,
    pg_temp.block_at(share, pg_temp.roll(number, 115)),
    pg_temp.moment(share),
    pg_temp.moment(share),
    pg_temp.txhash(number, 116),
    pg_temp.txhash(number, 117)
FROM (
    SELECT
        number,
        0.8 + 0.2 * (number + pg_temp.roll(number, 118)) / :comments AS share
    FROM generate_series(0::bigint, :comments - 1) AS comment (number)
) AS written;
SELECT pg_temp.put_back('comments');
COMMIT;

-- Owners pin comments to their tracks, nine in ten of them verified; one comment in ten is their own.
\echo -n 'pinned comments           '
BEGIN;
CREATE TEMPORARY TABLE pin ON COMMIT DROP AS
SELECT
    1500000000 + row_number() OVER (ORDER BY chosen.track_id)::integer AS comment_id,
    chosen.track_id,
    chosen.owner_id,
    chosen.blocknumber,
    chosen.created_at
FROM (
    SELECT
        tracks.track_id,
        tracks.owner_id,
        tracks.blocknumber,
        tracks.created_at
    FROM tracks
    WHERE
        tracks.is_current
        AND NOT tracks.is_delete
    ORDER BY
        pg_temp.roll(tracks.track_id, 131) < 0.9
        AND tracks.owner_id IN (
            SELECT users.user_id
            FROM users
            WHERE users.is_current AND users.is_verified
        ) DESC,
        pg_temp.roll(tracks.track_id, 132)
    LIMIT :pins
) AS chosen;
INSERT INTO comments (
    comment_id, user_id, entity_id, entity_type, text, is_delete, is_visible, blocknumber, created_at, updated_at,
    txhash, blockhash
)
SELECT
    comment_id,
    CASE
        WHEN pg_temp.roll(track_id, 133) < 0.1 THEN owner_id
        ELSE pg_temp.person(floor(:users * 0.3 * pg_temp.roll(track_id, 134) ^ 2)::bigint)
    END,
    track_id,
    CASE WHEN pg_temp.roll(track_id, 135) < 0.95 THEN 'Track' ELSE 'track' END,
    'Best one yet',
    pg_temp.roll(track_id, 136) < 0.02,
    TRUE,
    blocknumber,
    created_at + interval '1 day',
    created_at + interval '1 day',
    pg_temp.txhash(track_id, 137),
    'block'
FROM pin;
UPDATE tracks SET
    pinned_comment_id = pin.comment_id,
    updated_at = pin.created_at + interval '2 days'
FROM pin
WHERE tracks.track_id = pin.track_id AND tracks.is_current;
SELECT pg_temp.put_back('comments');
COMMIT;

-- How users came: one event for seven users in ten, a third of them by a mobile app; some have older ones. One user in
-- ten was referred, most of them by few, who are popular.
\echo -n 'user_events               '
BEGIN;
CALL pg_temp.take_off('user_events');
INSERT INTO user_events (id, blocknumber, is_current, user_id, referrer, is_mobile_user)
SELECT
    number + 1,
    pg_temp.block_at(share, pg_temp.roll(number, 120)),
    version = 0 OR pg_temp.roll(number, 121) < 0.05,
    user_id,
    CASE
        WHEN pg_temp.roll(user_id, 123) < 0.1
            THEN pg_temp.person(floor(:users * pg_temp.roll(user_id, 124) ^ 4)::bigint)
    END,
    pg_temp.roll(number, 122) < 0.35
FROM (
    SELECT
        number,
        1 + floor((number - (number % 25) / 24) * (:users / :user_events::double precision))::integer AS user_id,
        (number % 25) / 24 AS version,
        number / (:user_events + 1.0::double precision) AS share
    FROM generate_series(0::bigint, :user_events - 1) AS event (number)
) AS arrivals;
SELECT setval('user_events_id_seq', :user_events + 1) AS last_event \gset
SELECT pg_temp.put_back('user_events');
COMMIT;

-- Remix contests, four in five of verified hosts, some of whom have several. One in six has no winners yet; most of the
-- others name a few, and here and there what is no track. One host has named more in a week than are rewarded.
\echo -n 'events                    '
BEGIN;
CALL pg_temp.take_off('events');
WITH host AS (
    SELECT
        user_id,
        row_number() OVER (ORDER BY pg_temp.roll(user_id, 150)) - 1 AS place,
        count(*) OVER () AS quantity
    FROM users
    WHERE is_current AND is_verified AND NOT is_deactivated
),

contest AS (
    SELECT
        number,
        number <= 3 AS is_crowded,
        CASE
            WHEN number <= 3 THEN 0.97 + number * 0.0004::double precision
            ELSE 0.6 + 0.4 * pg_temp.roll(number, 151)
        END AS share,
        CASE
            WHEN number <= 3 THEN 0
            WHEN pg_temp.roll(number, 152) < 0.8
                THEN floor((SELECT max(host.quantity) FROM host) * pg_temp.roll(number, 153) ^ 2)::bigint
        END AS place,
        CASE
            WHEN number <= 3 THEN 3
            WHEN pg_temp.roll(number, 159) >= 0.17 THEN 1 + floor(6 * pg_temp.roll(number, 159) ^ 2)::integer
        END AS prizes
    FROM generate_series(1, :contests) AS event (number)
),

prize AS (
    SELECT
        number,
        is_crowded,
        generate_series(1, prizes) AS k
    FROM contest
),

winner AS (
    SELECT
        number,
        jsonb_agg(
            CASE
                WHEN is_crowded OR pg_temp.roll(number, 161, k) < 0.9 THEN to_jsonb(track_id)
                WHEN pg_temp.roll(number, 162, k) < 0.7 THEN to_jsonb(track_id::text)
                ELSE '{"title": "still to be named"}'
            END
            ORDER BY k
        ) AS winners
    FROM (
        SELECT
            *,
            pg_temp.track(floor(:tracks * 0.2 * pg_temp.roll(number, 160, k))::bigint) AS track_id
        FROM prize
    ) AS picked
    GROUP BY number
)

INSERT INTO events (
    event_id, event_type, user_id, entity_type, entity_id, end_date, is_deleted, event_data, blocknumber, created_at,
    updated_at, txhash, blockhash
)
SELECT
    number,
    'remix_contest',
    coalesce(host.user_id, pg_temp.person(floor(:users * 0.3 * pg_temp.roll(number, 154))::bigint)),
    'track',
    pg_temp.track(floor(:tracks * pg_temp.roll(number, 155))::bigint),
    pg_temp.moment(share),
    NOT is_crowded AND pg_temp.roll(number, 156) < 0.03,
    jsonb_build_object('description', 'Make it yours', 'winners', coalesce(winner.winners, '[]')),
    pg_temp.block_at(share, CASE WHEN is_crowded THEN 1 ELSE pg_temp.roll(number, 157) END),
    pg_temp.moment(share) - interval '30 days',
    pg_temp.moment(share),
    pg_temp.txhash(number, 158),
    'block'
FROM contest
LEFT JOIN host USING (place)
LEFT JOIN winner USING (number)
ORDER BY share;
SELECT pg_temp.put_back('events');
COMMIT;

-- The counters say what the follows say; one user in fifty has none.
\echo -n 'aggregate_user            '
BEGIN;
CALL pg_temp.take_off('aggregate_user');
WITH followers AS (
    SELECT
        followee_user_id AS user_id,
        count(*) AS quantity
    FROM follows
    WHERE is_current AND NOT is_delete
    GROUP BY followee_user_id
),

followings AS (
    SELECT
        follower_user_id AS user_id,
        count(*) AS quantity
    FROM follows
    WHERE is_current AND NOT is_delete
    GROUP BY follower_user_id
)

INSERT INTO aggregate_user (user_id, follower_count, following_count)
SELECT
    person.user_id,
    coalesce(followers.quantity, 0),
    coalesce(followings.quantity, 0)
FROM generate_series(1, :users) AS person (user_id)
LEFT JOIN followers USING (user_id)
LEFT JOIN followings USING (user_id)
WHERE pg_temp.roll(person.user_id, 99) >= 0.02;
SELECT pg_temp.put_back('aggregate_user');
COMMIT;

-- Two in three purchases are of verified artists; a block number is that of what was bought. The latest wait to be
-- checked, and some that were checked are not valid.
\echo -n 'sol_purchases             '
BEGIN;
CALL pg_temp.take_off('sol_purchases');
WITH verified AS (
    SELECT user_id
    FROM users
    WHERE is_verified
),

offer AS MATERIALIZED (
    SELECT
        goods.*,
        row_number() OVER (
            PARTITION BY goods.is_verified
            ORDER BY pg_temp.roll(goods.content_id, 101), goods.content_type
        ) - 1 AS rank
    FROM (
        SELECT
            'track' AS content_type,
            tracks.track_id AS content_id,
            tracks.blocknumber,
            tracks.owner_id IN (SELECT verified.user_id FROM verified) AS is_verified
        FROM tracks
        WHERE tracks.is_current
        UNION ALL
        SELECT
            CASE WHEN pg_temp.is_album(playlists.playlist_id) THEN 'album' ELSE 'playlist' END,
            playlists.playlist_id,
            playlists.blocknumber,
            playlists.playlist_owner_id IN (SELECT verified.user_id FROM verified)
        FROM playlists
        WHERE playlists.is_current AND pg_temp.roll(playlists.playlist_id, 102) < 0.1
    ) AS goods
),

offers AS (
    SELECT
        is_verified,
        count(*) AS quantity
    FROM offer
    GROUP BY is_verified
)

INSERT INTO sol_purchases (
    signature, instruction_index, amount, slot, from_account, content_type, content_id, buyer_user_id,
    access_type, valid_after_blocknumber, is_valid
)
SELECT
    pg_temp.txhash(purchase.number, 103) || pg_temp.txhash(purchase.number, 104),
    floor(3 * pg_temp.roll(purchase.number, 105))::integer,
    least(500000000, floor(990000 * (1 - pg_temp.roll(purchase.number, 106)) ^ -0.7)::bigint),
    200000000 + floor(180000000::double precision * purchase.number / :purchases)::bigint,
    pg_temp.txhash(purchase.number, 107),
    offer.content_type,
    offer.content_id,
    purchase.buyer_user_id,
    CASE WHEN pg_temp.roll(purchase.number, 108) < 0.8 THEN 'stream' ELSE 'download' END,
    coalesce(offer.blocknumber, :first_block),
    CASE
        WHEN purchase.number > :purchases * 0.999 THEN NULL
        ELSE pg_temp.roll(purchase.number, 109) >= 0.01
    END
FROM (
    SELECT
        bought.number,
        offers.is_verified,
        floor(offers.quantity * pg_temp.roll(bought.number, 112) ^ 3)::bigint AS rank,
        pg_temp.person(floor(:users * 0.5 * pg_temp.roll(bought.number, 111) ^ 2)::bigint) AS buyer_user_id
    FROM generate_series(1, :purchases) AS bought (number)
    INNER JOIN offers ON (pg_temp.roll(bought.number, 110) < 0.67) = offers.is_verified
) AS purchase
INNER JOIN offer
    ON
        purchase.is_verified = offer.is_verified
        AND purchase.rank = offer.rank
ORDER BY purchase.number;
SELECT pg_temp.put_back('sol_purchases');
COMMIT;

-- What was paid for first playlists and to the verified, half of it, whoever computed it.
CREATE TEMPORARY TABLE paid AS
SELECT
    earned.challenge_id,
    earned.user_id,
    earned.amount,
    '5x' || md5(earned.challenge_id || earned.user_id) AS signature,
    250000000 + earned.user_id AS slot,
    pg_temp.roll(earned.user_id, 192) AS path
FROM (
    SELECT DISTINCT
        'fp' AS challenge_id,
        playlist_owner_id AS user_id,
        200000000 AS amount
    FROM playlists
    WHERE is_current AND NOT is_delete AND blocknumber >= 28350000
    UNION ALL
    SELECT DISTINCT
        'v',
        user_id,
        500000000
    FROM users
    WHERE is_current AND is_verified
) AS earned
WHERE pg_temp.roll(earned.user_id, 191) < 0.5;

\echo -n 'challenge_disbursements   '
BEGIN;
CALL pg_temp.take_off('challenge_disbursements');
INSERT INTO challenge_disbursements (challenge_id, user_id, specifier, signature, slot, amount, created_at)
SELECT
    challenge_id,
    user_id,
    to_hex(user_id),
    signature,
    slot,
    amount::text,
    :'today'::timestamp AT TIME ZONE 'utc' - interval '1 day' * pg_temp.roll(user_id, 190)
FROM paid
WHERE path >= 0.05;
SELECT pg_temp.put_back('challenge_disbursements');
COMMIT;

-- Some payments are known there alone.
\echo -n 'sol_reward_disbursements  '
BEGIN;
CALL pg_temp.take_off('sol_reward_disbursements');
INSERT INTO sol_reward_disbursements (
    signature, instruction_index, amount, slot, user_bank, challenge_id, specifier
)
SELECT
    signature,
    0,
    amount,
    slot,
    'bank' || user_id,
    challenge_id,
    to_hex(user_id)
FROM paid
WHERE path < 0.1;
SELECT pg_temp.put_back('sol_reward_disbursements');
COMMIT;

\echo -n 'vacuum, analyze           '
SELECT clock_timestamp() AS started \gset
VACUUM (ANALYZE)
blocks, users, follows, saves, reposts, tracks, playlists, plays, aggregate_monthly_plays,
track_trending_scores, playlist_trending_scores, aggregate_user, comments, user_events, sol_purchases,
remixes, events, challenge_disbursements, sol_reward_disbursements;
SELECT lpad(round(extract(EPOCH FROM clock_timestamp() - :'started'), 1)::text, 25) || ' s';
