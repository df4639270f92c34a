-- The discovery database as far as the challenges touch it: the tables of production, and a log for tests.
-- Names no schema: everything lands in the first schema of the search_path (`public` as a rule).
--   psql -v ON_ERROR_STOP=1 -f discovery/schema.sql

-- The kinds of challenge in the catalog.
CREATE TYPE challengetype AS ENUM ('boolean', 'numeric', 'aggregate', 'trending');

-- What a save can point at.
CREATE TYPE savetype AS ENUM ('track', 'playlist', 'album');

-- What a repost can point at.
CREATE TYPE reposttype AS ENUM ('track', 'playlist', 'album');

-- What an event is.
CREATE TYPE eventtype AS ENUM ('remix_contest', 'live_event', 'new_release');

--
-- Source tables: the indexer writes, the challenges only read.
--

-- One row a block; reverting a block deletes it, and through the foreign keys every row stamped with it.
CREATE TABLE blocks (
    blockhash varchar NOT NULL,
    number integer,
    CONSTRAINT blocks_pkey PRIMARY KEY (blockhash),
    CONSTRAINT blocks_number_key UNIQUE (number)
);

-- A row a version of a user: a change adds a row and takes is_current from the one before.
CREATE TABLE users (
    user_id integer NOT NULL,
    is_current boolean NOT NULL,
    handle varchar,
    handle_lc varchar,
    wallet varchar,
    name text,
    bio varchar,
    profile_picture varchar,
    profile_picture_sizes varchar,
    cover_photo varchar,
    cover_photo_sizes varchar,
    is_verified boolean NOT NULL DEFAULT FALSE,
    is_deactivated boolean NOT NULL DEFAULT FALSE,
    is_available boolean NOT NULL DEFAULT TRUE,
    blocknumber integer,
    created_at timestamp NOT NULL,
    updated_at timestamp NOT NULL,
    txhash varchar NOT NULL DEFAULT '',
    CONSTRAINT users_pkey PRIMARY KEY (user_id, txhash),
    CONSTRAINT users_blocknumber_fkey FOREIGN KEY (blocknumber) REFERENCES blocks (number) ON DELETE CASCADE
);

-- A row a version of "this user follows that one"; unfollowing is a version with is_delete.
CREATE TABLE follows (
    follower_user_id integer NOT NULL,
    followee_user_id integer NOT NULL,
    is_current boolean NOT NULL,
    is_delete boolean NOT NULL,
    blocknumber integer,
    created_at timestamp NOT NULL,
    txhash varchar NOT NULL DEFAULT '',
    CONSTRAINT follows_pkey PRIMARY KEY (follower_user_id, followee_user_id, txhash),
    CONSTRAINT follows_blocknumber_fkey FOREIGN KEY (blocknumber) REFERENCES blocks (number) ON DELETE CASCADE
);

-- A row a version of a favorite.
CREATE TABLE saves (
    user_id integer NOT NULL,
    save_item_id integer NOT NULL,
    save_type savetype NOT NULL,
    is_current boolean NOT NULL,
    is_delete boolean NOT NULL,
    blocknumber integer,
    created_at timestamp NOT NULL,
    txhash varchar NOT NULL DEFAULT '',
    CONSTRAINT saves_pkey PRIMARY KEY (user_id, save_item_id, save_type, txhash),
    CONSTRAINT saves_blocknumber_fkey FOREIGN KEY (blocknumber) REFERENCES blocks (number) ON DELETE CASCADE
);

-- A row a version of a repost.
CREATE TABLE reposts (
    user_id integer NOT NULL,
    repost_item_id integer NOT NULL,
    repost_type reposttype NOT NULL,
    is_current boolean NOT NULL,
    is_delete boolean NOT NULL,
    blocknumber integer,
    created_at timestamp NOT NULL,
    txhash varchar NOT NULL DEFAULT '',
    CONSTRAINT reposts_pkey PRIMARY KEY (user_id, repost_item_id, repost_type, txhash),
    CONSTRAINT reposts_blocknumber_fkey FOREIGN KEY (blocknumber) REFERENCES blocks (number) ON DELETE CASCADE
);

-- Tracks, updated in place; stem_of points at the track that a stem is a part of.
CREATE TABLE tracks (
    track_id integer NOT NULL,
    owner_id integer NOT NULL,
    title text,
    is_current boolean NOT NULL,
    is_delete boolean NOT NULL,
    is_unlisted boolean NOT NULL DEFAULT FALSE,
    is_available boolean NOT NULL DEFAULT TRUE,
    stem_of jsonb,
    pinned_comment_id integer,
    blocknumber integer,
    created_at timestamp NOT NULL,
    updated_at timestamp NOT NULL,
    txhash varchar NOT NULL DEFAULT '',
    CONSTRAINT tracks_pkey PRIMARY KEY (track_id, txhash),
    CONSTRAINT tracks_blocknumber_fkey FOREIGN KEY (blocknumber) REFERENCES blocks (number) ON DELETE CASCADE
);

-- Playlists and albums, updated in place.
CREATE TABLE playlists (
    playlist_id integer NOT NULL,
    playlist_owner_id integer NOT NULL,
    playlist_name varchar,
    is_album boolean NOT NULL,
    is_private boolean NOT NULL,
    playlist_contents jsonb NOT NULL,
    is_current boolean NOT NULL,
    is_delete boolean NOT NULL,
    blocknumber integer,
    created_at timestamp NOT NULL,
    updated_at timestamp NOT NULL,
    txhash varchar NOT NULL DEFAULT '',
    CONSTRAINT playlists_pkey PRIMARY KEY (playlist_id, txhash),
    CONSTRAINT playlists_blocknumber_fkey
    FOREIGN KEY (blocknumber) REFERENCES blocks (number) ON DELETE CASCADE
);

-- Which track is a remix of which, rewritten with the child.
CREATE TABLE remixes (
    parent_track_id integer NOT NULL,
    child_track_id integer NOT NULL,
    CONSTRAINT remixes_pkey PRIMARY KEY (parent_track_id, child_track_id)
);

-- Comments, updated in place; the client chooses the id, and entity_type comes in any case.
CREATE TABLE comments (
    comment_id integer NOT NULL,
    user_id integer NOT NULL,
    entity_id integer NOT NULL,
    entity_type text NOT NULL,
    text text NOT NULL,
    is_delete boolean DEFAULT FALSE,
    is_visible boolean DEFAULT TRUE,
    blocknumber integer,
    created_at timestamp NOT NULL,
    updated_at timestamp NOT NULL,
    txhash text NOT NULL,
    blockhash text NOT NULL,
    CONSTRAINT comments_pkey PRIMARY KEY (comment_id),
    CONSTRAINT comments_blocknumber_fkey FOREIGN KEY (blocknumber) REFERENCES blocks (number) ON DELETE CASCADE
);

-- Contests and other events; a contest's winners are in its data.
CREATE TABLE events (
    event_id integer NOT NULL,
    event_type eventtype NOT NULL,
    user_id integer NOT NULL,
    entity_type text,
    entity_id integer,
    end_date timestamp,
    is_deleted boolean DEFAULT FALSE,
    event_data jsonb,
    blocknumber integer,
    created_at timestamp NOT NULL,
    updated_at timestamp NOT NULL,
    txhash text NOT NULL,
    blockhash text NOT NULL,
    CONSTRAINT events_pkey PRIMARY KEY (event_id),
    CONSTRAINT events_blocknumber_fkey FOREIGN KEY (blocknumber) REFERENCES blocks (number)
);

-- How a user came: who referred him, whether by a mobile app.
CREATE TABLE user_events (
    id serial NOT NULL,
    blocknumber integer,
    is_current boolean NOT NULL,
    user_id integer NOT NULL,
    referrer integer,
    is_mobile_user boolean NOT NULL DEFAULT FALSE,
    slot integer,
    CONSTRAINT user_events_pkey PRIMARY KEY (id),
    CONSTRAINT user_events_blocknumber_fkey FOREIGN KEY (blocknumber) REFERENCES blocks (number) ON DELETE CASCADE
);

-- Purchases in USDC; amount in millionths of a dollar. is_valid is null until it was checked, and turns in place.
CREATE TABLE sol_purchases (
    signature varchar NOT NULL,
    instruction_index integer NOT NULL,
    amount bigint NOT NULL,
    slot bigint NOT NULL,
    from_account varchar NOT NULL,
    content_type varchar NOT NULL,
    content_id integer NOT NULL,
    buyer_user_id integer NOT NULL,
    access_type varchar NOT NULL,
    valid_after_blocknumber bigint NOT NULL,
    is_valid boolean,
    CONSTRAINT sol_purchases_pkey PRIMARY KEY (signature, instruction_index)
);

-- The numbers of plays, taken before the transaction that inserts the play commits.
CREATE SEQUENCE plays_id_seq AS integer;

-- One row a listen; user_id is null for listeners without account, created_at is UTC.
CREATE TABLE plays (
    id integer NOT NULL DEFAULT nextval('plays_id_seq'),
    user_id integer,
    play_item_id integer NOT NULL,
    created_at timestamp NOT NULL,
    updated_at timestamp NOT NULL,
    CONSTRAINT plays_pkey PRIMARY KEY (id)
);
ALTER SEQUENCE plays_id_seq OWNED BY plays.id;

-- Plays of a track by month (its first day) and country.
CREATE TABLE aggregate_monthly_plays (
    play_item_id integer NOT NULL,
    timestamp date NOT NULL,
    count integer NOT NULL,
    country text NOT NULL DEFAULT '',
    CONSTRAINT aggregate_monthly_plays_pkey PRIMARY KEY (play_item_id, timestamp, country)
);

-- Counters of a user, kept by the indexer.
CREATE TABLE aggregate_user (
    user_id integer NOT NULL,
    follower_count bigint DEFAULT 0,
    following_count bigint DEFAULT 0,
    CONSTRAINT aggregate_user_pkey PRIMARY KEY (user_id)
);

-- Scores of tracks, recomputed hourly.
CREATE TABLE track_trending_scores (
    track_id integer NOT NULL,
    type varchar NOT NULL,
    genre varchar,
    version varchar NOT NULL,
    time_range varchar NOT NULL,
    score double precision NOT NULL,
    created_at timestamp NOT NULL,
    CONSTRAINT track_trending_scores_pkey PRIMARY KEY (track_id, type, version, time_range)
);

-- Scores of playlists, recomputed hourly.
CREATE TABLE playlist_trending_scores (
    playlist_id integer NOT NULL,
    type varchar NOT NULL,
    version varchar NOT NULL,
    time_range varchar NOT NULL,
    score double precision NOT NULL,
    created_at timestamp NOT NULL,
    CONSTRAINT playlist_trending_scores_pkey PRIMARY KEY (playlist_id, type, version, time_range)
);

--
-- Derived tables: the challenges write, the application owns them.
--

-- The catalog; amount is text, and it is for its readers to see that it is a number.
CREATE TABLE challenges (
    id varchar NOT NULL,
    type challengetype NOT NULL,
    amount varchar NOT NULL,
    active boolean NOT NULL,
    step_count integer,
    starting_block integer,
    weekly_pool integer,
    cooldown_days integer,
    CONSTRAINT challenges_pkey PRIMARY KEY (id)
);

-- One user's progress on one challenge; a disburser pays each (challenge_id, specifier) once.
CREATE TABLE user_challenges (
    challenge_id varchar NOT NULL,
    user_id integer NOT NULL,
    specifier varchar NOT NULL,
    is_complete boolean NOT NULL,
    current_step_count integer,
    completed_blocknumber integer,
    amount integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    completed_at timestamp,
    CONSTRAINT user_challenges_pkey PRIMARY KEY (challenge_id, specifier),
    CONSTRAINT user_challenges_challenge_id_fkey FOREIGN KEY (challenge_id) REFERENCES challenges (id)
);

-- The seven steps of a user's profile.
CREATE TABLE challenge_profile_completion (
    user_id integer NOT NULL,
    profile_description boolean NOT NULL,
    profile_name boolean NOT NULL,
    profile_picture boolean NOT NULL,
    profile_cover_photo boolean NOT NULL,
    follows boolean NOT NULL,
    favorites boolean NOT NULL,
    reposts boolean NOT NULL,
    CONSTRAINT challenge_profile_completion_pkey PRIMARY KEY (user_id)
);

-- The state that carries a listen streak.
CREATE TABLE challenge_listen_streak (
    user_id integer NOT NULL,
    last_listen_date timestamp,
    listen_streak integer NOT NULL,
    CONSTRAINT challenge_listen_streak_pkey PRIMARY KEY (user_id)
);

-- The winners of a week.
CREATE TABLE trending_results (
    user_id integer NOT NULL,
    id varchar,
    rank integer NOT NULL,
    type varchar NOT NULL,
    version varchar NOT NULL,
    week date NOT NULL,
    CONSTRAINT trending_results_pkey PRIMARY KEY (rank, type, version, week)
);

-- What has been paid.
CREATE TABLE challenge_disbursements (
    challenge_id varchar NOT NULL,
    user_id integer NOT NULL,
    specifier varchar NOT NULL,
    signature varchar NOT NULL,
    slot integer NOT NULL,
    amount varchar NOT NULL,
    created_at timestamptz,
    CONSTRAINT challenge_disbursements_pkey PRIMARY KEY (challenge_id, specifier)
);

-- What has been paid on the other chain, where that is indexed; amount in 10^-8 $AUDIO.
CREATE TABLE sol_reward_disbursements (
    signature varchar NOT NULL,
    instruction_index integer NOT NULL,
    amount bigint NOT NULL,
    slot bigint NOT NULL,
    user_bank varchar NOT NULL,
    challenge_id varchar NOT NULL,
    specifier varchar NOT NULL,
    CONSTRAINT sol_reward_disbursements_pkey PRIMARY KEY (signature, instruction_index)
);

-- What the application tells its users; the trigger on user_challenges reads and fills it.
CREATE TABLE notification (
    id serial NOT NULL,
    specifier varchar NOT NULL,
    group_id varchar NOT NULL,
    type varchar NOT NULL,
    slot integer,
    blocknumber integer,
    timestamp timestamp NOT NULL,
    data jsonb,
    user_ids integer[],
    CONSTRAINT notification_pkey PRIMARY KEY (id),
    CONSTRAINT notification_group_id_specifier_key UNIQUE (group_id, specifier)
);

-- Every insert and update of user_challenges, for tests to find the needless ones; not in production.
CREATE TABLE user_challenges_log (
    id bigserial NOT NULL,
    operation text NOT NULL,
    challenge_id varchar NOT NULL,
    specifier varchar NOT NULL,
    user_id integer NOT NULL,
    old jsonb,
    new jsonb NOT NULL,
    txid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT user_challenges_log_pkey PRIMARY KEY (id)
);

-- Whoever writes a user challenge may log it: the log must not change which grants a role needs.
GRANT INSERT ON user_challenges_log TO public;
GRANT USAGE ON SEQUENCE user_challenges_log_id_seq TO public;

--
-- Indexes: those of production beside the keys, and no others.
--

-- Rows of a block, for the indexer's reverts.
CREATE INDEX users_blocknumber_idx ON users (blocknumber);
CREATE INDEX follows_blocknumber_idx ON follows (blocknumber);
CREATE INDEX saves_blocknumber_idx ON saves (blocknumber);
CREATE INDEX reposts_blocknumber_idx ON reposts (blocknumber);
CREATE INDEX tracks_blocknumber_idx ON tracks (blocknumber);
CREATE INDEX playlists_blocknumber_idx ON playlists (blocknumber);
CREATE INDEX comments_blocknumber_idx ON comments (blocknumber);
CREATE INDEX user_events_blocknumber_idx ON user_events (blocknumber);

-- Whom somebody follows, all versions.
CREATE INDEX follows_follower_followee_idx ON follows (follower_user_id, followee_user_id);
-- Whom somebody follows, without the unfollowed.
CREATE INDEX follows_follower_followee_not_deleted_idx ON follows (follower_user_id, followee_user_id)
WHERE NOT is_delete;

-- What somebody saved.
CREATE INDEX saves_user_idx ON saves (user_id, save_type, save_item_id, is_delete);
-- What somebody reposted.
CREATE INDEX reposts_user_idx ON reposts (user_id, repost_type, repost_item_id, created_at, is_delete);
-- Who saved something.
CREATE INDEX saves_item_idx ON saves (save_item_id, save_type, user_id, is_delete);
-- Who reposted something.
CREATE INDEX reposts_item_idx ON reposts (repost_item_id, repost_type, user_id, is_delete);

-- Tracks of an owner.
CREATE INDEX tracks_owner_idx ON tracks (owner_id);
-- Tracks of an owner in the order they came.
CREATE INDEX tracks_owner_created_at_idx ON tracks (owner_id, created_at);
-- Playlists of an owner in the order they came.
CREATE INDEX playlists_owner_created_at_idx ON playlists (playlist_owner_id, created_at);

-- Plays by time.
CREATE INDEX plays_created_at_idx ON plays (created_at);
-- The listening history of a user.
CREATE INDEX plays_user_idx ON plays (user_id, play_item_id, created_at)
WHERE user_id IS NOT NULL;

-- What a track is a remix of.
CREATE INDEX remixes_child_idx ON remixes (child_track_id, parent_track_id);
-- Events of a kind, and of a track.
CREATE INDEX events_event_type_idx ON events (event_type);
CREATE INDEX events_entity_id_idx ON events (entity_id);
-- How a user came.
CREATE INDEX user_events_user_id_idx ON user_events (user_id);

-- What somebody bought.
CREATE INDEX sol_purchases_buyer_idx ON sol_purchases (buyer_user_id, is_valid);
-- Who bought something.
CREATE INDEX sol_purchases_content_idx ON sol_purchases (content_id, content_type, access_type, is_valid);
-- What is to be checked, and what was, by the block from which on it can be.
CREATE INDEX sol_purchases_valid_idx ON sol_purchases (is_valid, valid_after_blocknumber);
-- Whether something was paid.
CREATE INDEX sol_reward_disbursements_specifier_idx ON sol_reward_disbursements (challenge_id, specifier);

-- User challenges of a challenge.
CREATE INDEX user_challenges_challenge_id_idx ON user_challenges (challenge_id);
-- User challenges of a user.
CREATE INDEX user_challenges_user_id_idx ON user_challenges (user_id);

-- Trending tracks by score.
CREATE INDEX track_trending_scores_score_idx
ON track_trending_scores (type, version, time_range, score DESC, track_id);
-- Trending playlists.
CREATE INDEX playlist_trending_scores_score_idx
ON playlist_trending_scores (type, version, time_range, playlist_id, score DESC);

--
-- Triggers. Their functions use unqualified names, have no search_path of their own and run as the writer,
-- as production's do.
--

-- Counts a play into its month.
CREATE FUNCTION handle_play() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO aggregate_monthly_plays AS monthly (play_item_id, timestamp, count)
    VALUES (new.play_item_id, date_trunc('month', new.created_at)::date, 1)
    ON CONFLICT (play_item_id, timestamp, country) DO UPDATE
    SET count = monthly.count + 1;
    RETURN NULL;
END
$$;

-- Keeps aggregate_monthly_plays inside the transaction that inserts the play.
CREATE TRIGGER on_play
AFTER INSERT ON plays
FOR EACH ROW EXECUTE FUNCTION handle_play();

-- Tells a user about a completed challenge, once: at once, or that the reward is cooling down.
CREATE FUNCTION handle_user_challenge() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    days_of_cooldown integer;
    streak integer;
    kind text;
    group_of_notification text;
BEGIN
    IF NOT new.is_complete THEN
        RETURN NULL;
    END IF;

    SELECT cooldown_days INTO days_of_cooldown
    FROM challenges
    WHERE id = new.challenge_id;

    IF new.challenge_id = 'e' THEN
        SELECT listen_streak INTO streak
        FROM challenge_listen_streak
        WHERE user_id = new.user_id;
    END IF;

    kind := CASE WHEN coalesce(days_of_cooldown, 0) > 0 THEN 'reward_in_cooldown' ELSE 'claimable_reward' END;
    group_of_notification := concat_ws(
        ':', kind, new.user_id, 'challenge', new.challenge_id, 'specifier', new.specifier
    );

    PERFORM 1
    FROM notification
    WHERE group_id = group_of_notification;

    IF NOT found THEN
        INSERT INTO notification (specifier, group_id, type, blocknumber, timestamp, data, user_ids)
        VALUES (
            new.user_id::text,
            group_of_notification,
            kind,
            new.completed_blocknumber,
            coalesce(new.completed_at, now() AT TIME ZONE 'utc'),
            jsonb_build_object(
                'challenge_id', new.challenge_id,
                'specifier', new.specifier,
                'amount', new.amount,
                'listen_streak', streak
            ),
            ARRAY[new.user_id]
        );
    END IF;
    RETURN NULL;
END
$$;

-- Fires the notification for every row written, changed or not.
CREATE TRIGGER on_user_challenge
AFTER INSERT OR UPDATE ON user_challenges
FOR EACH ROW EXECUTE FUNCTION handle_user_challenge();

-- Records a write of user_challenges; `old` is null for an insert.
CREATE FUNCTION log_user_challenge() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO user_challenges_log (operation, challenge_id, specifier, user_id, old, new)
    VALUES (
        tg_op,
        new.challenge_id,
        new.specifier,
        new.user_id,
        CASE WHEN tg_op = 'UPDATE' THEN to_jsonb(old) END,
        to_jsonb(new)
    );
    RETURN NULL;
END
$$;

-- Logs every row written, changed or not.
CREATE TRIGGER log_user_challenge
AFTER INSERT OR UPDATE ON user_challenges
FOR EACH ROW EXECUTE FUNCTION log_user_challenge();
