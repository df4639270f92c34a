-- From 1.1.0 to 2.0.0. What a challenge had read up to was a row of JSON for each; now it is a number, of looks that all
-- share. What listen streaks remembered of plays is forgotten, but for their pauses, which are rows now.
SET LOCAL search_path = pg_catalog, pg_temp;

-- In the order in which a reader of the status takes them.
LOCK TABLE @extschema@.challenge_status IN ACCESS EXCLUSIVE MODE;
LOCK TABLE audius_challenges.processor_state, audius_challenges.checkpoint IN ACCESS EXCLUSIVE MODE;

ALTER TABLE audius_challenges.processor_state
ADD COLUMN look bigint,
ADD COLUMN sources text[] NOT NULL DEFAULT '{}',
ADD COLUMN nothing_written boolean NOT NULL DEFAULT FALSE,
ADD COLUMN found_active boolean NOT NULL DEFAULT FALSE,
ADD COLUMN is_exempt boolean NOT NULL DEFAULT FALSE,
ADD COLUMN completed bigint NOT NULL DEFAULT 0,
ADD COLUMN cut_off timestamptz,
ADD COLUMN as_of timestamptz,
ADD COLUMN is_asked_for boolean NOT NULL DEFAULT TRUE,
SET (fillfactor = 90);

COMMENT ON COLUMN audius_challenges.processor_state.look IS
'Number of the look up to which it has read its sources; null: it does not follow them, and examines all users first';
COMMENT ON COLUMN audius_challenges.processor_state.sources IS 'Names of the source tables that it follows';
COMMENT ON COLUMN audius_challenges.processor_state.nothing_written IS
'Whether a first build is under way that found no user challenge of it, so that none need be looked up';
COMMENT ON COLUMN audius_challenges.processor_state.found_active IS
'Whether the last run found it active in the catalog, whatever came of that run';
COMMENT ON COLUMN audius_challenges.processor_state.is_exempt IS
'Whether completions are not limited until the first round ends: nothing was completed in this database when it began';
COMMENT ON COLUMN audius_challenges.processor_state.completed IS
'Rewards completed so far in the first round, or by the open slices of a later one, which '
'audius_challenges.max_completions limits; 0 after it';
COMMENT ON COLUMN audius_challenges.processor_state.cut_off IS
'When a tick was cut off while it ran this challenge, which comes last until it succeeds; null: it has succeeded since';
COMMENT ON COLUMN audius_challenges.processor_state.as_of IS
'The latest clock of its successful runs; a run with an earlier one is refused, but for weekly trending';
COMMENT ON COLUMN audius_challenges.processor_state.is_asked_for IS
'Whether it runs: false where an update has brought it and it had a row in challenges, as somebody else may pay it';

UPDATE audius_challenges.processor_state
SET as_of = last_success;

CREATE TABLE audius_challenges.look (
    source text NOT NULL,
    number bigint NOT NULL,
    horizon bigint NOT NULL,
    position bigint,
    looked_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (source, number)
);

COMMENT ON TABLE audius_challenges.look IS
'What runs saw before they read a source table that had changed; processor_state.look is the look up to which a '
'challenge has read; looks that no challenge needs any more are deleted';
COMMENT ON COLUMN audius_challenges.look.source IS 'Name of the source table';
COMMENT ON COLUMN audius_challenges.look.number IS 'Number of the look, one per run, whatever sources it read';
COMMENT ON COLUMN audius_challenges.look.horizon IS
'The oldest transaction (64 bits) that was still running: rows that it or a later one wrote had yet to be read';
COMMENT ON COLUMN audius_challenges.look.position IS
'How far the growing column (blocknumber, or id of plays) had come, ignoring a few outliers; null: few rows';
COMMENT ON COLUMN audius_challenges.look.looked_at IS 'When the look was taken';

CREATE TABLE audius_challenges.pause (
    challenge_id text NOT NULL,
    began_at timestamptz NOT NULL,
    ended_at timestamptz,
    PRIMARY KEY (challenge_id, began_at)
);

COMMENT ON TABLE audius_challenges.pause IS
'When the listen streak (e) was inactive: listens in that time never count; start_from_now() writes a pause that '
'began at -infinity';
COMMENT ON COLUMN audius_challenges.pause.challenge_id IS 'challenges.id';
COMMENT ON COLUMN audius_challenges.pause.began_at IS 'When a run first found the challenge inactive';
COMMENT ON COLUMN audius_challenges.pause.ended_at IS
'When a run first found it active again; null: it is still inactive';

CREATE TABLE audius_challenges.set_aside (
    challenge_id text NOT NULL,
    user_id bigint NOT NULL,
    specifier text NOT NULL,
    error text NOT NULL,
    set_aside_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    tried_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    tries bigint NOT NULL DEFAULT 1,
    examined_id bigint NOT NULL,
    PRIMARY KEY (challenge_id, examined_id, specifier)
);

COMMENT ON TABLE audius_challenges.set_aside IS
'Users whose rows cannot be written: all others are, and these are tried again when their rows change and once a round '
'of the sweep; a row is deleted when the user is written, or has nothing to be written';
COMMENT ON COLUMN audius_challenges.set_aside.challenge_id IS 'challenges.id';
COMMENT ON COLUMN audius_challenges.set_aside.user_id IS 'users.user_id';
COMMENT ON COLUMN audius_challenges.set_aside.specifier IS
'The deed that cannot be written; empty: all that the challenge has for the user';
COMMENT ON COLUMN audius_challenges.set_aside.error IS 'The error of the last try';
COMMENT ON COLUMN audius_challenges.set_aside.set_aside_at IS 'When it failed first';
COMMENT ON COLUMN audius_challenges.set_aside.tried_at IS 'When it was last tried';
COMMENT ON COLUMN audius_challenges.set_aside.tries IS 'How often it was tried';
COMMENT ON COLUMN audius_challenges.set_aside.examined_id IS
'By what the challenge goes: users.user_id, or the key of a row of the source, as comments.comment_id for c';

CREATE TABLE audius_challenges.passed_over (
    challenge_id text NOT NULL,
    specifier text NOT NULL,
    PRIMARY KEY (challenge_id, specifier)
);

COMMENT ON TABLE audius_challenges.passed_over IS
'Deeds that start_from_now() has passed over: they are never rewarded';
COMMENT ON COLUMN audius_challenges.passed_over.challenge_id IS 'challenges.id';
COMMENT ON COLUMN audius_challenges.passed_over.specifier IS 'What its user_challenges.specifier would be';

CREATE TABLE audius_challenges.verified_user (
    user_id bigint PRIMARY KEY
);

COMMENT ON TABLE audius_challenges.verified_user IS
'Users who were found verified: their pinned comments (cp) are looked for every ten minutes; who is not any more stays';
COMMENT ON COLUMN audius_challenges.verified_user.user_id IS 'users.user_id';

CREATE TABLE audius_challenges.tastemaker_decision (
    track_id bigint PRIMARY KEY,
    winners bigint[] NOT NULL,
    is_done boolean NOT NULL,
    decided_at timestamptz NOT NULL
);

CREATE INDEX tastemaker_decision_undone ON audius_challenges.tastemaker_decision (track_id) WHERE NOT is_done;

COMMENT ON TABLE audius_challenges.tastemaker_decision IS
'Tracks that tastemaker (t) has decided: once each, when a run first saw it among the top ten, or start_from_now() did';
COMMENT ON COLUMN audius_challenges.tastemaker_decision.track_id IS 'tracks.track_id';
COMMENT ON COLUMN audius_challenges.tastemaker_decision.winners IS
'Ids of the users who win; empty: nobody does, somebody was rewarded before, or start_from_now() has passed it over';
COMMENT ON COLUMN audius_challenges.tastemaker_decision.is_done IS
'Whether every winner is written, or was paid before; the others are tried again';
COMMENT ON COLUMN audius_challenges.tastemaker_decision.decided_at IS 'The clock (as_of) of the run that decided it';

CREATE TABLE audius_challenges.slice (
    challenge_id text NOT NULL,
    least bigint NOT NULL,
    greatest bigint NOT NULL,
    size bigint NOT NULL,
    PRIMARY KEY (challenge_id, least)
);

COMMENT ON TABLE audius_challenges.slice IS
'Open slices: users whom a first build, a catch-up or a full scan has yet to examine, by the tick and helpers; whoever '
'takes a slice deletes its row in the transaction in which he writes what comes of it';
COMMENT ON COLUMN audius_challenges.slice.challenge_id IS 'challenges.id';
COMMENT ON COLUMN audius_challenges.slice.least IS 'The least user id of the slice';
COMMENT ON COLUMN audius_challenges.slice.greatest IS 'The greatest user id of the slice';
COMMENT ON COLUMN audius_challenges.slice.size IS 'How many users these were when it was cut';

CREATE TABLE audius_challenges.last_tick (
    singleton boolean PRIMARY KEY CHECK (singleton),
    scheduled_at timestamptz,
    began_at timestamptz,
    ended_at timestamptz,
    is_running boolean NOT NULL DEFAULT FALSE,
    problem text,
    restoring_since timestamptz,
    has_helpers boolean NOT NULL DEFAULT FALSE
);

COMMENT ON TABLE audius_challenges.last_tick IS
'The last tick, and why ticks do nothing; of this server only, so it is not dumped; read it through challenge_status';
COMMENT ON COLUMN audius_challenges.last_tick.singleton IS 'Always true: there is at most one row';
COMMENT ON COLUMN audius_challenges.last_tick.scheduled_at IS 'When schedule_challenges() was last called';
COMMENT ON COLUMN audius_challenges.last_tick.began_at IS 'When the last tick began';
COMMENT ON COLUMN audius_challenges.last_tick.ended_at IS 'When a tick last ended that ran challenges';
COMMENT ON COLUMN audius_challenges.last_tick.is_running IS
'Whether the last tick has yet to end; if the next one finds it so, the last one was cut off';
COMMENT ON COLUMN audius_challenges.last_tick.problem IS
'Why the last tick ran no challenge (disabled, a restore, an error before the first challenge); null: it did';
COMMENT ON COLUMN audius_challenges.last_tick.restoring_since IS
'Since when ticks have taken the database for one that is being restored; after an hour they fail';

COMMENT ON COLUMN audius_challenges.last_tick.has_helpers IS
'Whether a tick has scheduled jobs of helpers that are not removed yet';

CREATE TABLE audius_challenges.unpaid_friday (
    challenge_id text NOT NULL,
    week date NOT NULL CHECK (pg_catalog.date_part('isodow', week) OPERATOR (pg_catalog.=) 5),
    reason text NOT NULL,
    decided_by text NOT NULL DEFAULT session_user,
    decided_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (challenge_id, week)
);

COMMENT ON TABLE audius_challenges.unpaid_friday IS
'Weeks of trending that were not paid, and shall not be: written by people, so that the alert ends; no run reads it';
COMMENT ON COLUMN audius_challenges.unpaid_friday.challenge_id IS 'challenges.id';
COMMENT ON COLUMN audius_challenges.unpaid_friday.week IS 'The Friday, in UTC';
COMMENT ON COLUMN audius_challenges.unpaid_friday.reason IS 'Why it is not paid';
COMMENT ON COLUMN audius_challenges.unpaid_friday.decided_by IS 'The role that has decided';
COMMENT ON COLUMN audius_challenges.unpaid_friday.decided_at IS 'When it was decided';

COMMENT ON TABLE audius_challenges.installation IS
'The database that the state belongs to; after a dump and restore it is another one, and looks are forgotten';
COMMENT ON SCHEMA audius_challenges IS
'State of the challenges, the tick, and the functions that support them';
COMMENT ON TYPE audius_challenges.phase IS
'first build: all users are examined for the first time; '
'catching up: all users are examined again; watching: changes are followed';
COMMENT ON TABLE audius_challenges.processor_state IS
'State of each challenge that has run; read it through challenge_status';
COMMENT ON COLUMN audius_challenges.processor_state.phase IS
'Whether all users have been examined (see the type); null: no run has succeeded while it was active';
COMMENT ON COLUMN audius_challenges.processor_state.sweep_position IS
'The last user id that the sweep has examined in its current round, or has left to open slices; null before the first';
COMMENT ON COLUMN audius_challenges.processor_state.sweep_rounds IS 'Completed rounds of the sweep over all users';
COMMENT ON COLUMN audius_challenges.processor_state.last_run IS 'When it last ran, with or without success';
COMMENT ON COLUMN audius_challenges.processor_state.last_error IS 'The last error, kept after it has been resolved';
COMMENT ON COLUMN audius_challenges.installation.singleton IS 'Always true: there is at most one row';
COMMENT ON COLUMN audius_challenges.installation.guards IS
'Triggers and foreign keys of user_challenges, by what they call and reference; ticks do nothing until a restore, or '
'whoever replaced the table, has created them again';

CREATE TABLE audius_challenges.history (
    challenge_id text NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    status text NOT NULL,
    duration interval,
    users_examined bigint NOT NULL DEFAULT 0,
    rows_inserted bigint NOT NULL DEFAULT 0,
    rows_updated bigint NOT NULL DEFAULT 0,
    rows_completed bigint NOT NULL DEFAULT 0,
    users_set_aside bigint NOT NULL DEFAULT 0,
    error text,
    runs bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (challenge_id, started_at)
);

COMMENT ON TABLE audius_challenges.history IS
'What runs did, one row for each run and challenge that wrote, failed or set somebody aside; kept for '
'audius_challenges.history_days; read it through challenge_history';
COMMENT ON COLUMN audius_challenges.history.challenge_id IS 'challenges.id';
COMMENT ON COLUMN audius_challenges.history.started_at IS
'When the challenge began in the run, or in the first of the runs; when the tick began, if it was cut off';
COMMENT ON COLUMN audius_challenges.history.ended_at IS 'When it ended, in the last of the runs';
COMMENT ON COLUMN audius_challenges.history.status IS 'ok, failed, or started from now (by start_from_now)';
COMMENT ON COLUMN audius_challenges.history.duration IS
'How long the challenge took, in all of the runs; null: the tick was cut off';
COMMENT ON COLUMN audius_challenges.history.users_examined IS
'Users whose progress was computed; for c comments, for trending winners';
COMMENT ON COLUMN audius_challenges.history.rows_inserted IS 'Rows of user_challenges that were inserted';
COMMENT ON COLUMN audius_challenges.history.rows_updated IS 'Rows of user_challenges that were updated';
COMMENT ON COLUMN audius_challenges.history.rows_completed IS 'How many of both are now complete';
COMMENT ON COLUMN audius_challenges.history.users_set_aside IS
'Users who were set aside, and had not been before';
COMMENT ON COLUMN audius_challenges.history.error IS 'The error, the last one, if it failed';
COMMENT ON COLUMN audius_challenges.history.runs IS
'How many runs the row stands for: more than one, if each failed with the same error (but for numbers in it)';

CREATE TABLE audius_challenges.challenge_day (
    day date NOT NULL,
    challenge_id text NOT NULL,
    completions bigint NOT NULL,
    amount numeric NOT NULL,
    is_backfilled boolean NOT NULL DEFAULT FALSE,
    PRIMARY KEY (day, challenge_id)
);

COMMENT ON TABLE audius_challenges.challenge_day IS
'What was completed, by day and challenge; kept for good. Days before the extension counted are filled in from '
'user_challenges, step by step: see day_backfill';
COMMENT ON COLUMN audius_challenges.challenge_day.day IS
'The day in UTC of user_challenges.completed_at, as it was written; of created_at, where an earlier service wrote none';
COMMENT ON COLUMN audius_challenges.challenge_day.challenge_id IS 'challenges.id';
COMMENT ON COLUMN audius_challenges.challenge_day.completions IS 'User challenges that were completed';
COMMENT ON COLUMN audius_challenges.challenge_day.amount IS 'The $AUDIO of these';
COMMENT ON COLUMN audius_challenges.challenge_day.is_backfilled IS
'Whether some of it was counted later, from user_challenges';

CREATE TABLE audius_challenges.day_backfill (
    challenge_id text PRIMARY KEY,
    counted_to text,
    is_done boolean NOT NULL
);

COMMENT ON TABLE audius_challenges.day_backfill IS
'How far challenge_day has been filled in with what was completed before the extension counted';
COMMENT ON COLUMN audius_challenges.day_backfill.challenge_id IS 'challenges.id';
COMMENT ON COLUMN audius_challenges.day_backfill.counted_to IS
'The last user_challenges.specifier that has been counted; null: there was none';
COMMENT ON COLUMN audius_challenges.day_backfill.is_done IS 'Whether all have been counted';

-- Shares: which server derives what, and what nodes send home.
CREATE TABLE audius_challenges.share_plan (
    singleton boolean PRIMARY KEY CHECK (singleton),
    epoch bigint NOT NULL,
    shares integer NOT NULL CHECK (pg_catalog.int4ge(shares, 0)),
    challenges text[] NOT NULL,
    lsn pg_lsn NOT NULL,
    planned_at timestamptz NOT NULL
);

COMMENT ON TABLE audius_challenges.share_plan IS
'How many nodes derive which challenges, as plan_shares() has decided on the primary; no row: there are no shares';
COMMENT ON COLUMN audius_challenges.share_plan.singleton IS 'Always true: there is at most one row';
COMMENT ON COLUMN audius_challenges.share_plan.epoch IS 'Number of the plan: it grows with each';
COMMENT ON COLUMN audius_challenges.share_plan.shares IS
'Number of nodes, each with its share of the users; 0: the primary does everything';
COMMENT ON COLUMN audius_challenges.share_plan.challenges IS 'The challenges that nodes derive';
COMMENT ON COLUMN audius_challenges.share_plan.lsn IS
'Where the WAL of the primary was when it was decided: what a node adopts must have been copied later';
COMMENT ON COLUMN audius_challenges.share_plan.planned_at IS 'When it was decided';

CREATE TABLE audius_challenges.share_beat (
    number bigint PRIMARY KEY,
    beaten_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

COMMENT ON TABLE audius_challenges.share_beat IS
'One row for each tick of the primary while there are shares, of which the last 100 are kept: where a node lacks one, '
'it has lost changes';
COMMENT ON COLUMN audius_challenges.share_beat.number IS 'One more than the last';
COMMENT ON COLUMN audius_challenges.share_beat.beaten_at IS 'When the tick came to its end';

CREATE TABLE audius_challenges.share_batch (
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    epoch bigint NOT NULL,
    share text NOT NULL,
    node uuid,
    number bigint NOT NULL,
    is_restart boolean NOT NULL DEFAULT FALSE,
    relation text NOT NULL,
    challenge_id text,
    users bigint[],
    specifiers text[],
    steps integer[],
    amounts bigint[],
    is_complete boolean[],
    created_at timestamptz[],
    completed_at timestamp[],
    says text,
    behind text[],
    is_taken_in boolean NOT NULL DEFAULT FALSE,
    is_held boolean NOT NULL DEFAULT FALSE
);

-- Arrays of numbers and times hardly compress, and each would be decompressed to be read.
ALTER TABLE audius_challenges.share_batch
ALTER COLUMN users SET STORAGE EXTERNAL,
ALTER COLUMN specifiers SET STORAGE EXTERNAL,
ALTER COLUMN steps SET STORAGE EXTERNAL,
ALTER COLUMN amounts SET STORAGE EXTERNAL,
ALTER COLUMN is_complete SET STORAGE EXTERNAL,
ALTER COLUMN created_at SET STORAGE EXTERNAL,
ALTER COLUMN completed_at SET STORAGE EXTERNAL;

CREATE INDEX share_batch_challenge ON audius_challenges.share_batch (challenge_id, number);

COMMENT ON TABLE audius_challenges.share_batch IS
'What nodes have derived, a row for what one statement has written of one challenge. On a node it is always empty: '
'what is inserted is deleted in the same transaction, and goes home by the WAL. On the primary: what has arrived, and '
'was not written yet';
COMMENT ON COLUMN audius_challenges.share_batch.id IS 'Number of the row on this server';
COMMENT ON COLUMN audius_challenges.share_batch.epoch IS 'share_plan.epoch by which it was derived';
COMMENT ON COLUMN audius_challenges.share_batch.share IS 'The share of the node, such as 0/2';
COMMENT ON COLUMN audius_challenges.share_batch.node IS 'share_sent.node of the node';
COMMENT ON COLUMN audius_challenges.share_batch.number IS
'Number of the statement: those of a share follow each other from 1 on, so that a gap shows';
COMMENT ON COLUMN audius_challenges.share_batch.is_restart IS
'Whether it is of resend(): all of the share once more, whatever was lost before';
COMMENT ON COLUMN audius_challenges.share_batch.relation IS
'user_challenges, challenge_profile_completion or challenge_listen_streak; beat: a tick of the node has ended';
COMMENT ON COLUMN audius_challenges.share_batch.challenge_id IS 'challenges.id; null: a beat';
COMMENT ON COLUMN audius_challenges.share_batch.users IS 'user_id of each row';
COMMENT ON COLUMN audius_challenges.share_batch.specifiers IS 'specifier of each row of user_challenges';
COMMENT ON COLUMN audius_challenges.share_batch.steps IS
'current_step_count of each row; listen_streak; of a profile completion the seven steps as bits, the first the least';
COMMENT ON COLUMN audius_challenges.share_batch.amounts IS 'amount of each row of user_challenges';
COMMENT ON COLUMN audius_challenges.share_batch.is_complete IS 'is_complete of each row of user_challenges';
COMMENT ON COLUMN audius_challenges.share_batch.created_at IS
'created_at of each row of user_challenges; of a beat, when it was sent';
COMMENT ON COLUMN audius_challenges.share_batch.completed_at IS
'completed_at of each row of user_challenges; last_listen_date of each listen streak';
COMMENT ON COLUMN audius_challenges.share_batch.says IS
'Of a beat: why the node does nothing, or which challenges fail there; null: it works';
COMMENT ON COLUMN audius_challenges.share_batch.behind IS
'Of a beat: the challenges for which the node has not examined all users yet';
COMMENT ON COLUMN audius_challenges.share_batch.is_taken_in IS
'Whether nothing is missing before it, so that it is written when its challenge has its turn';
COMMENT ON COLUMN audius_challenges.share_batch.is_held IS
'Whether these are the rows of a user who is set aside: they are tried again when he has others, every ten minutes, '
'and at once when that row is deleted';

CREATE TABLE audius_challenges.share_node (
    share text PRIMARY KEY,
    epoch bigint NOT NULL,
    number bigint NOT NULL,
    beat_at timestamptz,
    says text,
    behind text[],
    problem text,
    mended_by text,
    node uuid,
    slot_txns bigint,
    slot_bytes bigint,
    slot_reset timestamptz,
    stats_since timestamptz,
    members text
);

COMMENT ON TABLE audius_challenges.share_node IS 'What has come of each node, on the primary';
COMMENT ON COLUMN audius_challenges.share_node.share IS 'The share of the node, such as 0/2';
COMMENT ON COLUMN audius_challenges.share_node.epoch IS 'share_plan.epoch by which it works';
COMMENT ON COLUMN audius_challenges.share_node.number IS
'share_batch.number up to which all has arrived: what comes later is not written before there is no gap';
COMMENT ON COLUMN audius_challenges.share_node.beat_at IS
'When the last tick of the node ended of which the primary knows, by the clock of the node';
COMMENT ON COLUMN audius_challenges.share_node.says IS
'Why the node did nothing in that tick, or which challenges failed; null: it worked';
COMMENT ON COLUMN audius_challenges.share_node.behind IS
'The challenges for which the node had not examined all users then';
COMMENT ON COLUMN audius_challenges.share_node.problem IS 'What is missing, or is not as it was; null: nothing';
COMMENT ON COLUMN audius_challenges.share_node.mended_by IS
'What makes that good: resend, all sent again by this node; plan, another plan; join, another plan with a node that is '
'set up anew. Null: nothing is to be made good';
COMMENT ON COLUMN audius_challenges.share_node.node IS
'share_batch.node of the first batch of the plan: what other nodes send is not written';
COMMENT ON COLUMN audius_challenges.share_node.slot_txns IS
'pg_stat_replication_slots.total_txns of the slot by which the node is fed, when its batches last came: it falls if '
'the slot is made anew. Null: there was no slot here';
COMMENT ON COLUMN audius_challenges.share_node.slot_bytes IS 'The same of total_bytes';
COMMENT ON COLUMN audius_challenges.share_node.slot_reset IS
'The same of stats_reset: when somebody has set these to 0';
COMMENT ON COLUMN audius_challenges.share_node.stats_since IS
'pg_stat_archiver.stats_reset then: since when the server has its statistics, which a crash loses';
COMMENT ON COLUMN audius_challenges.share_node.members IS
'Checksum of the publications that feed the node, and of their members, when its batches came first';

CREATE TABLE audius_challenges.share_sent (
    singleton boolean PRIMARY KEY CHECK (singleton),
    share text NOT NULL,
    epoch bigint NOT NULL,
    number bigint NOT NULL,
    node uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid()
);

COMMENT ON TABLE audius_challenges.share_sent IS
'On a node, from join_share() on: which node it is, and for which plan it has adopted its users'' rows';
COMMENT ON COLUMN audius_challenges.share_sent.singleton IS 'Always true: there is at most one row';
COMMENT ON COLUMN audius_challenges.share_sent.share IS 'The share of this node, such as 0/2';
COMMENT ON COLUMN audius_challenges.share_sent.epoch IS
'share_plan.epoch whose rows it has adopted; it works by no other plan. 0: it has adopted none yet';
COMMENT ON COLUMN audius_challenges.share_sent.number IS 'The last number given to a batch';
COMMENT ON COLUMN audius_challenges.share_sent.node IS
'Tells this node from others of its share, as of one that is set up anew';

SELECT pg_extension_config_dump('audius_challenges.look', '');
SELECT pg_extension_config_dump('audius_challenges.pause', '');
SELECT pg_extension_config_dump('audius_challenges.set_aside', '');
SELECT pg_extension_config_dump('audius_challenges.passed_over', '');
SELECT pg_extension_config_dump('audius_challenges.verified_user', '');
SELECT pg_extension_config_dump('audius_challenges.tastemaker_decision', '');
SELECT pg_extension_config_dump('audius_challenges.slice', '');
SELECT pg_extension_config_dump('audius_challenges.unpaid_friday', '');
SELECT pg_extension_config_dump('audius_challenges.history', '');
SELECT pg_extension_config_dump('audius_challenges.challenge_day', '');
SELECT pg_extension_config_dump('audius_challenges.day_backfill', '');

-- A first build under way had no limit, and goes on without one.
UPDATE audius_challenges.processor_state
SET is_exempt = TRUE
WHERE phase = 'first build';

-- The first tick is due an interval from now.
INSERT INTO audius_challenges.last_tick (singleton, scheduled_at)
SELECT
    TRUE,
    clock_timestamp();

-- The lowest position of a checkpoint's history stands for all of them: the window is as wide as it was, or wider.
INSERT INTO audius_challenges.look (source, number, horizon, position)
SELECT
    source.name,
    kept.number,
    kept.horizon,
    CASE WHEN count(*) = count(seen.position) THEN min(seen.position) END
FROM (
    SELECT
        checkpoint.horizon,
        checkpoint.progress,
        row_number() OVER (ORDER BY checkpoint.horizon, checkpoint.challenge_id) AS number
    FROM audius_challenges.checkpoint
    WHERE checkpoint.challenge_id <> 'e'
        AND checkpoint.horizon >= 0
) AS kept
CROSS JOIN LATERAL jsonb_array_elements_text(kept.progress -> 'sources') WITH ORDINALITY AS source (name, place)
CROSS JOIN LATERAL (
    SELECT (entry.seen -> 1 ->> (source.place - 1)::integer)::bigint AS position
    FROM jsonb_array_elements(kept.progress -> 'history') AS entry (seen)
) AS seen
GROUP BY source.name, kept.number, kept.horizon;

UPDATE audius_challenges.processor_state
SET
    look = kept.number,
    sources = ARRAY(
        SELECT source.name
        FROM jsonb_array_elements_text(kept.progress -> 'sources') AS source (name)
        ORDER BY source.name COLLATE "C"
    ),
    nothing_written = phase = 'first build' AND coalesce((kept.progress -> 'is_from_nothing')::boolean, FALSE)
FROM (
    SELECT
        checkpoint.challenge_id,
        checkpoint.progress,
        row_number() OVER (ORDER BY checkpoint.horizon, checkpoint.challenge_id) AS number
    FROM audius_challenges.checkpoint
    WHERE checkpoint.challenge_id <> 'e'
        AND checkpoint.horizon >= 0
) AS kept
WHERE processor_state.challenge_id = kept.challenge_id;

INSERT INTO audius_challenges.pause (challenge_id, began_at, ended_at)
SELECT
    checkpoint.challenge_id,
    coalesce('epoch'::timestamptz + pause.began * INTERVAL '1 microsecond', '-infinity'),
    'epoch'::timestamptz + pause.ended * INTERVAL '1 microsecond'
FROM audius_challenges.checkpoint
CROSS JOIN LATERAL (
    SELECT
        (pause.times -> 0)::float8 AS began,
        (pause.times -> 1)::float8 AS ended
    FROM jsonb_array_elements(checkpoint.progress -> 'pauses') AS pause (times)
    UNION ALL
    SELECT
        (checkpoint.progress -> 'paused_since')::float8,
        NULL
    WHERE checkpoint.progress -> 'paused_since' IS NOT NULL
    UNION ALL
    SELECT
        NULL,
        (checkpoint.progress -> 'started_at')::float8
    WHERE checkpoint.progress -> 'started_at' IS NOT NULL
) AS pause
WHERE checkpoint.challenge_id = 'e'
    AND coalesce(pause.ended >= pause.began, TRUE)  -- the clock was set back: nothing was listened then
ON CONFLICT (challenge_id, began_at) DO NOTHING;

UPDATE audius_challenges.processor_state
SET
    sources = '{plays,users}',
    catalog_seen = CASE
        WHEN NOT EXISTS (SELECT FROM audius_challenges.pause WHERE pause.ended_at IS NULL) THEN catalog_seen
    END
WHERE challenge_id = 'e'
    AND phase IS NOT NULL;

UPDATE audius_challenges.processor_state
SET found_active = TRUE
WHERE phase IS NOT NULL
    AND catalog_seen IS NOT NULL;

-- Who could work with checkpoints can work with what is new. As these grants are not the extension's own, they are
-- taken from the list of those that are, so that a dump has them; and, for PostgreSQL 17, from the list of what hinders
-- DROP ROLE.
DO $block$
DECLARE
    role record;
BEGIN
    FOR role IN
        SELECT
            CASE WHEN privilege.grantee = 0 THEN 'PUBLIC' ELSE privilege.grantee::regrole::text END AS name,
            string_agg(privilege.privilege_type, ', ') AS privileges,
            bool_or(privilege.privilege_type = 'INSERT') AS runs
        FROM pg_class AS relation
        CROSS JOIN LATERAL aclexplode(relation.relacl) AS privilege
        WHERE relation.oid = 'audius_challenges.checkpoint'::regclass
            AND privilege.grantee <> relation.relowner
            AND privilege.privilege_type IN ('SELECT', 'INSERT', 'UPDATE')
        GROUP BY privilege.grantee
    LOOP
        EXECUTE format(
            'GRANT %s ON audius_challenges.look, audius_challenges.pause, audius_challenges.set_aside,'
            ' audius_challenges.last_tick, audius_challenges.unpaid_friday, audius_challenges.passed_over,'
            ' audius_challenges.verified_user, audius_challenges.tastemaker_decision, audius_challenges.history,'
            ' audius_challenges.challenge_day, audius_challenges.day_backfill, audius_challenges.slice,'
            ' audius_challenges.share_plan, audius_challenges.share_beat, audius_challenges.share_batch,'
            ' audius_challenges.share_node, audius_challenges.share_sent TO %s',
            role.privileges,
            role.name
        );
        IF role.runs THEN
            EXECUTE format(
                'GRANT DELETE ON audius_challenges.look, audius_challenges.set_aside, audius_challenges.history,'
                ' audius_challenges.slice, audius_challenges.share_beat, audius_challenges.share_batch,'
                ' audius_challenges.share_node TO %s',
                role.name
            );
        END IF;
    END LOOP;
END
$block$;

DELETE FROM pg_init_privs
WHERE classoid = 'pg_class'::regclass
    AND objoid IN (
        'audius_challenges.look'::regclass,
        'audius_challenges.pause'::regclass,
        'audius_challenges.set_aside'::regclass,
        'audius_challenges.last_tick'::regclass,
        'audius_challenges.unpaid_friday'::regclass,
        'audius_challenges.passed_over'::regclass,
        'audius_challenges.verified_user'::regclass,
        'audius_challenges.tastemaker_decision'::regclass,
        'audius_challenges.history'::regclass,
        'audius_challenges.challenge_day'::regclass,
        'audius_challenges.day_backfill'::regclass,
        'audius_challenges.slice'::regclass,
        'audius_challenges.share_plan'::regclass,
        'audius_challenges.share_beat'::regclass,
        'audius_challenges.share_batch'::regclass,
        'audius_challenges.share_node'::regclass,
        'audius_challenges.share_sent'::regclass
    );

DELETE FROM pg_shdepend
USING pg_database
WHERE pg_database.datname = current_database()
    AND pg_shdepend.dbid = pg_database.oid
    AND pg_shdepend.classid = 'pg_class'::regclass
    AND pg_shdepend.objid IN (
        'audius_challenges.look'::regclass,
        'audius_challenges.pause'::regclass,
        'audius_challenges.set_aside'::regclass,
        'audius_challenges.last_tick'::regclass,
        'audius_challenges.unpaid_friday'::regclass,
        'audius_challenges.passed_over'::regclass,
        'audius_challenges.verified_user'::regclass,
        'audius_challenges.tastemaker_decision'::regclass,
        'audius_challenges.history'::regclass,
        'audius_challenges.challenge_day'::regclass,
        'audius_challenges.day_backfill'::regclass,
        'audius_challenges.slice'::regclass,
        'audius_challenges.share_plan'::regclass,
        'audius_challenges.share_beat'::regclass,
        'audius_challenges.share_batch'::regclass,
        'audius_challenges.share_node'::regclass,
        'audius_challenges.share_sent'::regclass
    )
    AND pg_shdepend.deptype = 'i';

-- Functions with a new signature are new functions, with the privileges of the old ones. What the script grants is not the
-- extension's own, as above. The bodies come with the code of this version.
CREATE FUNCTION @extschema@.sync_challenge_catalog(environment text, challenge_ids text[])
RETURNS TABLE (
    challenge_id text,
    action text,
    details text
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
END
$function$;

CREATE FUNCTION audius_challenges.start_from_now(challenge_ids text[], dry_run boolean)
RETURNS TABLE (
    challenge_id text,
    passed_over bigint
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
END
$function$;

DO $block$
DECLARE
    signature record;
    own aclitem[];
    role record;
BEGIN
    FOR signature IN
        SELECT *
        FROM (
            VALUES
            (
                '@extschema@.sync_challenge_catalog(text)'::regprocedure,
                '@extschema@.sync_challenge_catalog(text, text[])'::regprocedure
            ),
            (
                'audius_challenges.start_from_now(text[])'::regprocedure,
                'audius_challenges.start_from_now(text[], boolean)'::regprocedure
            )
        ) AS changed (before, now)
    LOOP
        FOR role IN
            SELECT DISTINCT
                CASE WHEN privilege.grantee = 0 THEN 'PUBLIC' ELSE privilege.grantee::regrole::text END AS name
            FROM pg_proc AS function
            CROSS JOIN LATERAL aclexplode(coalesce(function.proacl, acldefault('f', function.proowner))) AS privilege
            WHERE function.oid = signature.now
                AND privilege.grantee <> function.proowner
        LOOP
            EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM %s', signature.now, role.name);
        END LOOP;
        SELECT initprivs
        INTO own
        FROM pg_init_privs
        WHERE classoid = 'pg_proc'::regclass
            AND objoid = signature.now;
        FOR role IN
            SELECT
                CASE WHEN privilege.grantee = 0 THEN 'PUBLIC' ELSE privilege.grantee::regrole::text END AS name,
                bool_or(privilege.is_grantable) AS may_grant
            FROM pg_proc AS function
            CROSS JOIN LATERAL aclexplode(coalesce(function.proacl, acldefault('f', function.proowner)))
            WITH ORDINALITY AS privilege (grantor, grantee, privilege_type, is_grantable, place)
            WHERE function.oid = signature.before
                AND privilege.grantee <> function.proowner
            GROUP BY privilege.grantee
            ORDER BY min(privilege.place)
        LOOP
            EXECUTE format(
                'GRANT EXECUTE ON FUNCTION %s TO %s%s',
                signature.now,
                role.name,
                CASE WHEN role.may_grant THEN ' WITH GRANT OPTION' END
            );
        END LOOP;
        UPDATE pg_init_privs
        SET initprivs = own
        WHERE classoid = 'pg_proc'::regclass
            AND objoid = signature.now;
        DELETE FROM pg_shdepend
        USING pg_database
        WHERE pg_database.datname = current_database()
            AND pg_shdepend.dbid = pg_database.oid
            AND pg_shdepend.classid = 'pg_proc'::regclass
            AND pg_shdepend.objid = signature.now
            AND pg_shdepend.deptype = 'i';
    END LOOP;
END
$block$;

-- Somebody else may be paying the challenges that 1.1.0 did not know. Those that have a row wait to be asked for.
DO $block$
DECLARE
    waiting text;
BEGIN
    IF to_regclass('@extschema@.challenges') IS NULL THEN
        RETURN;
    END IF;
    WITH marked AS (
        INSERT INTO audius_challenges.processor_state (challenge_id, is_asked_for)
        SELECT
            challenges.id,
            FALSE
        FROM @extschema@.challenges
        WHERE challenges.id::text IN ('c', 'cp', 'cs', 'w', 't', 'b', 's', 'm', 'r', 'rv', 'rd')
        RETURNING challenge_id
    )
    SELECT string_agg(marked.challenge_id, ',' ORDER BY marked.challenge_id COLLATE "C")
    INTO waiting
    FROM marked;
    IF waiting IS NOT NULL THEN
        RAISE WARNING 'new challenges wait to be asked for, since somebody else may be paying them: %', waiting
            USING HINT = format(
                'Once nobody else pays them: SELECT * FROM audius_challenges.start_from_now(''{%s}'');', waiting
            );
    END IF;
END
$block$;

DROP FUNCTION @extschema@.sync_challenge_catalog(text);
DROP FUNCTION audius_challenges.start_from_now(text[]);

-- A table of state that is dropped alone would stay in the extension's list of those.
ALTER EXTENSION audius_challenges DROP TABLE audius_challenges.checkpoint;
DROP TABLE audius_challenges.checkpoint;
