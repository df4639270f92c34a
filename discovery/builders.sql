-- Builders for tests: a call makes a row that qualifies, and named arguments change what the test is about.
--   SELECT build.person(255);
--   SELECT build.track(1, 255, is_unlisted => TRUE, blocknumber => 25346436);
-- Load after schema.sql with the discovery schema on the search_path, which each builder remembers.
-- A builder makes the block that its row names. In texts, {id} stands for the id of the row.

CREATE SCHEMA build;

-- A block, unless it is there or the number is null.
CREATE FUNCTION build.block(number integer, blockhash text DEFAULT 'block{id}')
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO blocks (blockhash, number)
    SELECT replace(blockhash, '{id}', number::text), number
    WHERE number IS NOT NULL
    ON CONFLICT (number) DO NOTHING;
$$;

-- A user with a handle and none of the seven steps of a profile.
CREATE FUNCTION build.person(
    user_id integer,
    handle_lc text DEFAULT 'user{id}',
    name text DEFAULT NULL,
    bio text DEFAULT NULL,
    profile_picture text DEFAULT NULL,
    cover_photo text DEFAULT NULL,
    is_verified boolean DEFAULT FALSE,
    is_deactivated boolean DEFAULT FALSE,
    is_current boolean DEFAULT TRUE,
    blocknumber integer DEFAULT 100,
    txhash text DEFAULT '',
    profile_picture_sizes text DEFAULT NULL,
    cover_photo_sizes text DEFAULT NULL,
    is_available boolean DEFAULT TRUE,
    wallet text DEFAULT '0x{id}',
    created_at timestamp DEFAULT '2024-01-01'
)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.block(blocknumber);
    INSERT INTO users (
        user_id, is_current, handle, handle_lc, wallet, name, bio, profile_picture, profile_picture_sizes,
        cover_photo, cover_photo_sizes, is_verified, is_deactivated, is_available, blocknumber,
        created_at, updated_at, txhash
    )
    VALUES (
        user_id, is_current, replace(handle_lc, '{id}', user_id::text),
        replace(handle_lc, '{id}', user_id::text), replace(wallet, '{id}', user_id::text), name, bio,
        profile_picture, profile_picture_sizes, cover_photo, cover_photo_sizes, is_verified, is_deactivated,
        is_available, blocknumber, created_at, created_at, txhash
    );
$$;

-- One user follows another.
CREATE FUNCTION build.follow(
    follower integer,
    followee integer,
    is_delete boolean DEFAULT FALSE,
    is_current boolean DEFAULT TRUE,
    blocknumber integer DEFAULT 100,
    txhash text DEFAULT '',
    created_at timestamp DEFAULT '2024-01-01'
)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.block(blocknumber);
    INSERT INTO follows (
        follower_user_id, followee_user_id, is_current, is_delete, blocknumber, created_at, txhash
    )
    VALUES (follower, followee, is_current, is_delete, blocknumber, created_at, txhash);
$$;

-- A user saves (favors) a track, playlist or album.
CREATE FUNCTION build.save(
    user_id integer,
    item integer,
    type text DEFAULT 'track',
    is_delete boolean DEFAULT FALSE,
    is_current boolean DEFAULT TRUE,
    blocknumber integer DEFAULT 100,
    txhash text DEFAULT '',
    created_at timestamp DEFAULT '2024-01-01'
)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.block(blocknumber);
    INSERT INTO saves (
        user_id, save_item_id, save_type, is_current, is_delete, blocknumber, created_at, txhash
    )
    VALUES (user_id, item, type::savetype, is_current, is_delete, blocknumber, created_at, txhash);
$$;

-- A user reposts a track, playlist or album.
CREATE FUNCTION build.repost(
    user_id integer,
    item integer,
    type text DEFAULT 'track',
    is_delete boolean DEFAULT FALSE,
    is_current boolean DEFAULT TRUE,
    blocknumber integer DEFAULT 100,
    txhash text DEFAULT '',
    created_at timestamp DEFAULT '2024-01-01'
)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.block(blocknumber);
    INSERT INTO reposts (
        user_id, repost_item_id, repost_type, is_current, is_delete, blocknumber, created_at, txhash
    )
    VALUES (user_id, item, type::reposttype, is_current, is_delete, blocknumber, created_at, txhash);
$$;

-- A public track, no stem.
CREATE FUNCTION build.track(
    track_id integer,
    owner_id integer,
    is_delete boolean DEFAULT FALSE,
    is_unlisted boolean DEFAULT FALSE,
    is_available boolean DEFAULT TRUE,
    stem_of jsonb DEFAULT NULL,
    is_current boolean DEFAULT TRUE,
    blocknumber integer DEFAULT 100,
    txhash text DEFAULT '',
    title text DEFAULT 'track {id}',
    created_at timestamp DEFAULT '2024-01-01'
)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.block(blocknumber);
    INSERT INTO tracks (
        track_id, owner_id, title, is_current, is_delete, is_unlisted, is_available, stem_of, blocknumber,
        created_at, updated_at, txhash
    )
    VALUES (
        track_id, owner_id, replace(title, '{id}', track_id::text), is_current, is_delete, is_unlisted,
        is_available, stem_of, blocknumber, created_at, created_at, txhash
    );
$$;

-- A public playlist without tracks.
CREATE FUNCTION build.playlist(
    playlist_id integer,
    owner_id integer,
    is_album boolean DEFAULT FALSE,
    is_private boolean DEFAULT FALSE,
    is_delete boolean DEFAULT FALSE,
    is_current boolean DEFAULT TRUE,
    blocknumber integer DEFAULT 100,
    txhash text DEFAULT '',
    playlist_name text DEFAULT 'playlist {id}',
    playlist_contents jsonb DEFAULT '{"track_ids": []}',
    created_at timestamp DEFAULT '2024-01-01'
)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.block(blocknumber);
    INSERT INTO playlists (
        playlist_id, playlist_owner_id, playlist_name, is_album, is_private, playlist_contents, is_current,
        is_delete, blocknumber, created_at, updated_at, txhash
    )
    VALUES (
        playlist_id, owner_id, replace(playlist_name, '{id}', playlist_id::text), is_album, is_private,
        playlist_contents, is_current, is_delete, blocknumber, created_at, created_at, txhash
    );
$$;

-- A listen at a time in UTC; the trigger on plays counts it into its month.
CREATE FUNCTION build.play(
    user_id integer,
    track_id integer,
    at timestamp,
    id integer DEFAULT nextval('plays_id_seq')
)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO plays (id, user_id, play_item_id, created_at, updated_at)
    VALUES (id, user_id, track_id, at, at);
$$;

-- Plays of a track in a month (its first day): sets the count, whatever it was.
CREATE FUNCTION build.monthly(track_id integer, month date, count integer, country text DEFAULT '')
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO aggregate_monthly_plays (play_item_id, timestamp, count, country)
    VALUES (track_id, month, count, country)
    ON CONFLICT (play_item_id, timestamp, country) DO UPDATE
    SET count = excluded.count;
$$;

-- A trending score of a track: sets it, whatever it was.
CREATE FUNCTION build.track_score(
    track_id integer,
    score double precision,
    type text DEFAULT 'TRACKS',
    version text DEFAULT 'pnagD',
    time_range text DEFAULT 'week',
    genre text DEFAULT NULL,
    created_at timestamp DEFAULT '2024-01-01'
)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO track_trending_scores (track_id, type, genre, version, time_range, score, created_at)
    VALUES (track_id, type, genre, version, time_range, score, created_at)
    ON CONFLICT (track_id, type, version, time_range) DO UPDATE
    SET score = excluded.score, genre = excluded.genre, created_at = excluded.created_at;
$$;

-- A trending score of a playlist: sets it, whatever it was.
CREATE FUNCTION build.playlist_score(
    playlist_id integer,
    score double precision,
    type text DEFAULT 'PLAYLISTS',
    version text DEFAULT 'pnagD',
    time_range text DEFAULT 'week',
    created_at timestamp DEFAULT '2024-01-01'
)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO playlist_trending_scores (playlist_id, type, version, time_range, score, created_at)
    VALUES (playlist_id, type, version, time_range, score, created_at)
    ON CONFLICT (playlist_id, type, version, time_range) DO UPDATE
    SET score = excluded.score, created_at = excluded.created_at;
$$;

-- The counters of a user: sets them, whatever they were.
CREATE FUNCTION build.aggregate_user(
    user_id integer,
    follower_count bigint DEFAULT 0,
    following_count bigint DEFAULT 0
)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO aggregate_user (user_id, follower_count, following_count)
    VALUES (user_id, follower_count, following_count)
    ON CONFLICT (user_id) DO UPDATE
    SET follower_count = excluded.follower_count, following_count = excluded.following_count;
$$;
