-- Builders for tests: a call makes a row that qualifies, and named arguments change what the test is about.
--   SELECT build.person(255);
--   SELECT build.track(1, 255, is_unlisted => TRUE, blocknumber => 25346436);
-- Load after schema.sql with the discovery schema on the search_path, which each builder remembers.
-- A builder makes the block that its row names. In texts, {id} stands for the id of the row.
--   SELECT build.run(ARRAY['u']);
-- is a run that has to succeed; what goes wrong in it is an error of the test.

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

-- A comment by somebody; the id is the client's.
CREATE FUNCTION build.comment(
    comment_id integer,
    user_id integer,
    entity_id integer DEFAULT 1,
    entity_type text DEFAULT 'Track',
    created_at timestamp DEFAULT '2024-01-01',
    is_delete boolean DEFAULT FALSE,
    is_visible boolean DEFAULT TRUE,
    blocknumber integer DEFAULT 100
)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.block(blocknumber);
    INSERT INTO comments (
        comment_id, user_id, entity_id, entity_type, text, is_delete, is_visible, blocknumber, created_at,
        updated_at, txhash, blockhash
    )
    VALUES (
        comment_id, user_id, entity_id, entity_type, 'Nice.', is_delete, is_visible, blocknumber, created_at,
        created_at, '', ''
    );
$$;

-- The owner of a track pins a comment: no block number moves.
CREATE FUNCTION build.pin(track_id integer, comment_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    UPDATE tracks SET pinned_comment_id = pin.comment_id, updated_at = clock_timestamp() AT TIME ZONE 'UTC'
    WHERE tracks.track_id = pin.track_id AND tracks.is_current;
$$;

-- A track is a remix of another.
CREATE FUNCTION build.remix(parent_track_id integer, child_track_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO remixes (parent_track_id, child_track_id)
    VALUES (parent_track_id, child_track_id)
    ON CONFLICT (parent_track_id, child_track_id) DO NOTHING;
$$;

-- A remix contest of a host, with its winners: a JSON array of track ids, null while there are none.
CREATE FUNCTION build.contest(
    event_id integer,
    user_id integer,
    winners jsonb DEFAULT NULL,
    updated_at timestamp DEFAULT '2024-01-01',
    event_type text DEFAULT 'remix_contest',
    is_deleted boolean DEFAULT FALSE,
    blocknumber integer DEFAULT 100
)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.block(blocknumber);
    INSERT INTO events (
        event_id, event_type, user_id, is_deleted, event_data, blocknumber, created_at, updated_at, txhash,
        blockhash
    )
    VALUES (
        event_id, event_type::eventtype, user_id, is_deleted,
        CASE WHEN winners IS NOT NULL THEN jsonb_build_object('winners', winners) END, blocknumber,
        '2024-01-01', updated_at, '', ''
    )
    ON CONFLICT (event_id) DO UPDATE SET
        event_data = excluded.event_data, is_deleted = excluded.is_deleted,
        blocknumber = excluded.blocknumber, updated_at = excluded.updated_at;
$$;

-- How a user came: who referred him, whether by a mobile app.
CREATE FUNCTION build.user_event(
    user_id integer,
    referrer integer DEFAULT NULL,
    is_mobile_user boolean DEFAULT FALSE,
    is_current boolean DEFAULT TRUE,
    blocknumber integer DEFAULT 100
)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.block(blocknumber);
    INSERT INTO user_events (blocknumber, is_current, user_id, referrer, is_mobile_user)
    VALUES (blocknumber, is_current, user_id, referrer, is_mobile_user);
$$;

-- Somebody buys something: whole dollars by default. is_valid null: it is not checked yet.
CREATE FUNCTION build.purchase(
    buyer integer,
    content_id integer,
    amount bigint DEFAULT 1000000,
    content_type text DEFAULT 'track',
    is_valid boolean DEFAULT TRUE,
    slot bigint DEFAULT 250000000,
    valid_after_blocknumber bigint DEFAULT 100,
    signature text DEFAULT NULL,
    instruction_index integer DEFAULT 0
)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO sol_purchases (
        signature, instruction_index, amount, slot, from_account, content_type, content_id, buyer_user_id,
        access_type, valid_after_blocknumber, is_valid
    )
    VALUES (
        coalesce(signature, concat_ws(' ', buyer, content_type, content_id, slot)), instruction_index, amount,
        slot, 'account', content_type, content_id, buyer, 'stream', valid_after_blocknumber, is_valid
    );
$$;

-- A disburser has paid a reward, wherever it was computed.
CREATE FUNCTION build.disbursed(challenge_id text, user_id integer, specifier text)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO challenge_disbursements (challenge_id, user_id, specifier, signature, slot, amount, created_at)
    VALUES (challenge_id, user_id, specifier, 'signature', 250000000, '100000000', '2025-01-01 00:00+00');
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

-- A user challenge that is complete, as an earlier run left it; one that is there stays.
CREATE FUNCTION build.complete(
    challenge_id text,
    user_id integer,
    specifier text,
    amount integer DEFAULT 1,
    steps integer DEFAULT 1,
    blocknumber integer DEFAULT 100
)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO user_challenges (
        challenge_id, user_id, specifier, is_complete, current_step_count, completed_blocknumber, amount,
        created_at, completed_at
    )
    VALUES (
        challenge_id, user_id, specifier, TRUE, steps, blocknumber, amount, '2025-01-01 00:00+00',
        '2025-01-01 00:00'
    )
    ON CONFLICT (challenge_id, specifier) DO NOTHING;
$$;

--
-- Two builders for each challenge, from which the shared rules (tests/pgtap/05_rules.sql) are tested:
--   build.qualify_<id>(user_id): a new user, and all that completes the challenge for him in one run;
--   build.almost_<id>(user_id): the same but for one thing. A numeric challenge is one step short.
-- The challenge is active, its starting block is 0, and the run's as_of is Friday, 2025-03-07. They call for nothing of
-- other challenges, not even a run. Ids of tracks and the like are user_id * 10 and up: users never share one.
--

CREATE FUNCTION build.qualify_u(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.track(user_id * 10 + n, user_id) FROM generate_series(1, 3) AS n;
$$;
CREATE FUNCTION build.almost_u(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.track(user_id * 10 + n, user_id, is_unlisted => n = 3) FROM generate_series(1, 3) AS n;
$$;

CREATE FUNCTION build.qualify_fp(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.playlist(user_id * 10, user_id);
$$;
CREATE FUNCTION build.almost_fp(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.playlist(user_id * 10, user_id, is_delete => TRUE);
$$;

CREATE FUNCTION build.qualify_p(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id, name => 'Ada', bio => 'Viola.', profile_picture => 'Qm1', cover_photo => 'Qm2');
    SELECT build.follow(user_id, user_id * 10 + n) FROM generate_series(1, 5) AS n;
    SELECT build.save(user_id, user_id * 10);
    SELECT build.repost(user_id, user_id * 10);
$$;
CREATE FUNCTION build.almost_p(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id, name => 'Ada', bio => 'Viola.', profile_picture => 'Qm1', cover_photo => 'Qm2');
    SELECT build.follow(user_id, user_id * 10 + n) FROM generate_series(1, 4) AS n;
    SELECT build.save(user_id, user_id * 10);
    SELECT build.repost(user_id, user_id * 10);
$$;

CREATE FUNCTION build.qualify_v(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id, is_verified => TRUE);
$$;
CREATE FUNCTION build.almost_v(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id, is_verified => FALSE);
$$;

CREATE FUNCTION build.qualify_e(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.play(user_id, user_id * 10, day + '12:00'::interval)
    FROM generate_series('2025-02-01'::timestamp, '2025-02-07', '1 day') AS day;
$$;
CREATE FUNCTION build.almost_e(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.play(user_id, user_id * 10, day + '12:00'::interval)
    FROM generate_series('2025-02-01'::timestamp, '2025-02-06', '1 day') AS day;
$$;

CREATE FUNCTION build.qualify_p1(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id, is_verified => TRUE);
    SELECT build.track(user_id * 10, user_id);
    SELECT build.monthly(user_id * 10, '2025-01-01', 250);
$$;
CREATE FUNCTION build.almost_p1(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id, is_verified => TRUE);
    SELECT build.track(user_id * 10, user_id);
    SELECT build.monthly(user_id * 10, '2025-01-01', 249);
$$;

CREATE FUNCTION build.qualify_p2(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.complete('p1', user_id, to_hex(user_id) || ':250', 25, 250);
    SELECT build.person(user_id, is_verified => TRUE);
    SELECT build.track(user_id * 10, user_id);
    SELECT build.monthly(user_id * 10, '2025-01-01', 1000);
$$;
CREATE FUNCTION build.almost_p2(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.complete('p1', user_id, to_hex(user_id) || ':250', 25, 250);
    SELECT build.person(user_id, is_verified => TRUE);
    SELECT build.track(user_id * 10, user_id);
    SELECT build.monthly(user_id * 10, '2025-01-01', 999);
$$;

CREATE FUNCTION build.qualify_p3(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.complete('p2', user_id, to_hex(user_id) || ':1000', 100, 1000);
    SELECT build.person(user_id, is_verified => TRUE);
    SELECT build.track(user_id * 10, user_id);
    SELECT build.monthly(user_id * 10, '2025-01-01', 10000);
$$;
CREATE FUNCTION build.almost_p3(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.complete('p2', user_id, to_hex(user_id) || ':1000', 100, 1000);
    SELECT build.person(user_id, is_verified => TRUE);
    SELECT build.track(user_id * 10, user_id);
    SELECT build.monthly(user_id * 10, '2025-01-01', 9999);
$$;

CREATE FUNCTION build.qualify_tt(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.track(user_id * 10, user_id);
    SELECT build.track_score(user_id * 10, 1);
$$;
CREATE FUNCTION build.almost_tt(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.track(user_id * 10, user_id, is_unlisted => TRUE);
    SELECT build.track_score(user_id * 10, 1);
$$;

-- Two tracks: one is trending, which tut waits for, and the other is underground.
CREATE FUNCTION build.qualify_tut(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.track(user_id * 10 + n, user_id) FROM generate_series(0, 1) AS n;
    SELECT build.track_score(user_id * 10, 1);
    SELECT build.track_score(user_id * 10 + 1, 1, 'UNDERGROUND_TRACKS');
$$;
CREATE FUNCTION build.almost_tut(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.track(user_id * 10, user_id);
    SELECT build.track_score(user_id * 10, 1);
    SELECT build.track_score(user_id * 10, 1, 'UNDERGROUND_TRACKS');
$$;

CREATE FUNCTION build.qualify_tp(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.playlist(user_id * 10, user_id);
    SELECT build.playlist_score(user_id * 10, 1);
$$;
CREATE FUNCTION build.almost_tp(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.playlist(user_id * 10, user_id, is_private => TRUE);
    SELECT build.playlist_score(user_id * 10, 1);
$$;

CREATE FUNCTION build.qualify_c(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.comment(user_id * 10, user_id, created_at => '2025-02-03 12:00');
$$;
CREATE FUNCTION build.almost_c(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.comment(user_id * 10, user_id, created_at => '2025-02-03 12:00', is_visible => FALSE);
$$;

CREATE FUNCTION build.qualify_m(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.user_event(user_id, is_mobile_user => TRUE);
$$;
CREATE FUNCTION build.almost_m(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.user_event(user_id, is_mobile_user => TRUE, is_current => FALSE);
$$;

CREATE FUNCTION build.qualify_b(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.purchase(user_id, user_id * 10);
$$;
CREATE FUNCTION build.almost_b(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.purchase(user_id, user_id * 10, amount => 999999);
$$;

-- The user sells a track; who buys it is nobody whom the database knows.
CREATE FUNCTION build.qualify_s(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id, is_verified => TRUE);
    SELECT build.track(user_id * 10, user_id);
    SELECT build.purchase(user_id * 10, user_id * 10);
$$;
CREATE FUNCTION build.almost_s(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id, is_verified => FALSE);
    SELECT build.track(user_id * 10, user_id);
    SELECT build.purchase(user_id * 10, user_id * 10);
$$;

-- Somebody else, who is verified, has the track under which the user writes.
CREATE FUNCTION build.qualify_cp(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.person(user_id * 10, is_verified => TRUE);
    SELECT build.track(user_id * 10, user_id * 10);
    SELECT build.comment(user_id * 10, user_id, user_id * 10);
    SELECT build.pin(user_id * 10, user_id * 10);
$$;
CREATE FUNCTION build.almost_cp(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.person(user_id * 10, is_verified => TRUE);
    SELECT build.track(user_id * 10, user_id * 10);
    SELECT build.comment(user_id * 10, user_id, user_id * 10);
$$;

-- Somebody else, who is verified, saves what the user has made of a track of his.
CREATE FUNCTION build.almost_cs(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.person(user_id * 10, is_verified => TRUE);
    SELECT build.track(user_id * 10, user_id * 10);
    SELECT build.track(user_id * 10 + 7, user_id);
    SELECT build.remix(user_id * 10, user_id * 10 + 7);
$$;
CREATE FUNCTION build.qualify_cs(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.almost_cs(user_id);
    SELECT build.save(user_id * 10, user_id * 10 + 7);
$$;

-- Somebody else, who is verified, names a track of the user a winner.
CREATE FUNCTION build.qualify_w(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.person(user_id * 10, is_verified => TRUE);
    SELECT build.track(user_id * 10 + 7, user_id);
    SELECT build.contest(user_id + 1000, user_id * 10, winners => jsonb_build_array(user_id * 10 + 7));
$$;
CREATE FUNCTION build.almost_w(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.person(user_id * 10, is_verified => TRUE);
    SELECT build.track(user_id * 10 + 7, user_id);
    SELECT build.contest(user_id + 1000, user_id * 10, winners => '[]');
$$;

-- The track of somebody else, which trends.
CREATE FUNCTION build.qualify_t(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.person(user_id * 10);
    SELECT build.track(user_id * 10, user_id * 10);
    SELECT build.repost(user_id, user_id * 10);
    SELECT build.track_score(user_id * 10, 1);
$$;
CREATE FUNCTION build.almost_t(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.person(user_id * 10);
    SELECT build.track(user_id * 10, user_id * 10);
    SELECT build.repost(user_id, user_id * 10);
$$;

-- Who refers somebody is paid by r, or by rv if he is verified; who is referred by rd. The other one is user_id * 10.
CREATE FUNCTION build.qualify_r(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.person(user_id * 10);
    SELECT build.user_event(user_id * 10, referrer => user_id);
$$;
CREATE FUNCTION build.almost_r(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.person(user_id * 10, is_deactivated => TRUE);
    SELECT build.user_event(user_id * 10, referrer => user_id);
$$;

CREATE FUNCTION build.qualify_rv(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id, is_verified => TRUE);
    SELECT build.person(user_id * 10);
    SELECT build.user_event(user_id * 10, referrer => user_id);
$$;
CREATE FUNCTION build.almost_rv(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id, is_verified => FALSE);
    SELECT build.person(user_id * 10);
    SELECT build.user_event(user_id * 10, referrer => user_id);
$$;

CREATE FUNCTION build.qualify_rd(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.person(user_id * 10);
    SELECT build.user_event(user_id, referrer => user_id * 10);
$$;
CREATE FUNCTION build.almost_rd(user_id integer)
RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT build.person(user_id);
    SELECT build.person(user_id * 10, is_deactivated => TRUE);
    SELECT build.user_event(user_id, referrer => user_id * 10);
$$;

--
-- The challenges as the shared rules see them.
--

-- The challenges there are, numbered in run order.
CREATE FUNCTION build.challenges()
RETURNS TABLE (challenge_id text, number integer)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    RETURN QUERY SELECT s.challenge_id::text, row_number() OVER ()::integer FROM challenge_status AS s;
END
$$;

-- Whether a challenge has both builders.
CREATE FUNCTION build.has_builders(challenge_id text)
RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT to_regprocedure(format('build.%I(integer)', 'qualify_' || challenge_id)) IS NOT NULL
        AND to_regprocedure(format('build.%I(integer)', 'almost_' || challenge_id)) IS NOT NULL;
$$;

-- Calls qualify_<id> or almost_<id>.
CREATE FUNCTION build.call_builder_of_challenge(kind text, challenge_id text, user_id integer)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    builder text := format('build.%I', kind || '_' || challenge_id);
BEGIN
    IF to_regprocedure(builder || '(integer)') IS NULL THEN
        RAISE EXCEPTION 'challenge "%" has no builder %(user_id integer)', challenge_id, builder
            USING HINT = 'Write it in discovery/builders.sql, so that the shared rules are tested for it.';
    END IF;
    EXECUTE format('SELECT %s($1)', builder) USING user_id;
END
$$;

-- A new user who completes the challenge in one run.
CREATE FUNCTION build.qualify(challenge_id text, user_id integer)
RETURNS void
LANGUAGE sql AS $$
    SELECT build.call_builder_of_challenge('qualify', challenge_id, user_id);
$$;

-- A new user who lacks one thing to complete the challenge.
CREATE FUNCTION build.almost(challenge_id text, user_id integer)
RETURNS void
LANGUAGE sql AS $$
    SELECT build.call_builder_of_challenge('almost', challenge_id, user_id);
$$;

-- From which of the shared rules a challenge, or all of a type, is exempt. An ordinary challenge has no line here.
CREATE TABLE build.exemption (
    rule text NOT NULL CHECK (
        rule IN (
            'amount', 'created_at', 'completed_at', 'specifier', 'back again', 'passed over', 'counted afterwards'
        )
    ),
    challenge_id text,
    type challengetype,
    reason text NOT NULL,
    CHECK (num_nonnulls(challenge_id, type) = 1)
);
COMMENT ON COLUMN build.exemption.rule IS
'amount: it is the catalog''s. created_at, completed_at: it is the time of the run. '
'specifier: it begins with the user id in hex. back again: what was done while deactivated counts then. '
'passed over: what is there when start_from_now is called the feed does not pay; counted afterwards: what comes then.';
INSERT INTO build.exemption (rule, challenge_id, type, reason)
VALUES
('amount', 'e', NULL, '7 for the seventh day, 1 for each further one'),
('created_at', 'e', NULL, 'the time of the listen'),
('completed_at', 'e', NULL, 'the time of the listen'),
('counted afterwards', 'e', NULL, 'it goes by the time of the listen, not by when its row came'),
('amount', NULL, 'trending', 'by rank'),
('created_at', NULL, 'trending', 'the real clock, also where a past Friday is paid'),
('completed_at', NULL, 'trending', 'the real clock, also where a past Friday is paid'),
('specifier', NULL, 'trending', 'week and rank'),
('created_at', 'cs', NULL, 'the time of the save or repost'),
('created_at', 'w', NULL, 'the time at which the contest was last changed'),
('specifier', 'cs', NULL, 'the artist who cosigns and the track; it is the track''s owner who earns'),
('specifier', 'w', NULL, 'the contest and the remixer'),
('specifier', 's', NULL, 'the buyer and what was bought, as of b; it is the seller who earns'),
('passed over', 'p2', NULL, 'whose p1 is complete and who has no row yet is examined at every run'),
('passed over', 'p3', NULL, 'whose p2 is complete and who has no row yet is examined at every run'),
('passed over', NULL, 'trending', 'a week is decided once, by the scores that there are then'),
('back again', 't', NULL, 'a track is decided once, among those who are active then');

CREATE FUNCTION build.is_exempt(challenge_id text, rule text)
RETURNS boolean
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT EXISTS (
        SELECT FROM build.exemption AS e
        LEFT JOIN challenges AS c ON c.id = is_exempt.challenge_id
        WHERE e.rule = is_exempt.rule AND (e.challenge_id = is_exempt.challenge_id OR e.type = c.type)
    );
$$;

--
-- What happens to all rows.
--

-- The tables that the indexer and the application write: all but those that runs write, and what triggers write then.
CREATE FUNCTION build.source_tables()
RETURNS SETOF regclass
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT c.oid::regclass
    FROM pg_class AS c
    WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace
        AND c.relname NOT IN (
            'challenges', 'user_challenges', 'challenge_profile_completion', 'challenge_listen_streak',
            'trending_results', 'notification', 'user_challenges_log'
        );
$$;

-- All rows of the source tables are gone, but for the tables that are named.
CREATE FUNCTION build.forget(VARIADIC but_not text[] DEFAULT '{}')
RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    source regclass;
BEGIN
    -- Blocks go last: events refer to them without ON DELETE CASCADE.
    FOR source IN SELECT t.name FROM build.source_tables() AS t (name) ORDER BY t.name = 'blocks'::regclass LOOP
        IF source::text <> ALL(but_not) THEN
            EXECUTE format('DELETE FROM %s', source);
        END IF;
    END LOOP;
END
$$;

-- No row of a source table has a block number any more: nothing that goes by it sees that they came.
CREATE FUNCTION build.unstamp()
RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    source regclass;
BEGIN
    FOR source IN
        SELECT t.name FROM build.source_tables() AS t (name)
        INNER JOIN pg_attribute AS a ON a.attrelid = t.name AND a.attname = 'blocknumber' AND NOT a.attnotnull
    LOOP
        EXECUTE format('UPDATE %s SET blocknumber = NULL', source);
    END LOOP;
END
$$;

-- All rows of all tables of these schemas, each with the place and the version of its tuple.
CREATE FUNCTION build.tuples(VARIADIC schemas text[])
RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
    relation regclass;
BEGIN
    FOR relation IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace::regnamespace::text = ANY(schemas)
    LOOP
        RETURN QUERY EXECUTE format(
            'SELECT concat_ws('' '', %L, t.ctid, t.xmin, to_jsonb(t)) FROM %s AS t', relation, relation
        );
    END LOOP;
END
$$;

-- Nothing is there but prod's catalog, as after CREATE EXTENSION: for a test that has to commit.
CREATE FUNCTION build.empty()
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    relation regclass;
BEGIN
    FOR relation IN
        SELECT oid FROM pg_class
        WHERE relkind = 'r' AND relnamespace::regnamespace::text IN ('public', 'audius_challenges')
    LOOP
        EXECUTE format('ALTER TABLE %s DISABLE TRIGGER ALL', relation);
        EXECUTE format('DELETE FROM %s', relation);
        EXECUTE format('ALTER TABLE %s ENABLE TRIGGER ALL', relation);
    END LOOP;
    PERFORM sync_challenge_catalog();
END
$$;

--
-- Runs.
--

-- The SQLSTATE and the whole text (message, detail, hint) of what a command raises.
CREATE FUNCTION build.error_of(command text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    details text;
    hint text;
BEGIN
    EXECUTE command;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS details = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN sqlstate || ': ' || sqlerrm || ' ' || details || ' ' || hint;
END
$$;

-- A run in which all goes well, or an error that says what does not.
--   SELECT build.run(ARRAY['u', 'fp'], as_of => '2025-03-07 10:00+00');
--   failing: the challenges that have to fail in it.
CREATE FUNCTION build.run(
    challenge_ids text[] DEFAULT NULL,
    full_scan boolean DEFAULT FALSE,
    dry_run boolean DEFAULT FALSE,
    as_of timestamptz DEFAULT now(),
    failing text[] DEFAULT '{}'
)
RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    surprise text;
BEGIN
    SELECT string_agg(format('challenge "%s" is %s%s', r.challenge_id, r.status, ': ' || r.error), E'\n')
    INTO surprise
    FROM reconcile_challenges(run.challenge_ids, run.full_scan, run.dry_run, run.as_of) AS r
    WHERE r.status = 'busy' OR (r.status = 'failed') <> (r.challenge_id = ANY(failing));
    IF surprise IS NOT NULL THEN
        RAISE EXCEPTION 'a run did not go as expected' USING DETAIL = surprise;
    END IF;
END
$$;
