-- What is remembered from run to run. Rows appear when first needed, never here: the tables are dumped with their rows.

CREATE TYPE audius_challenges.phase AS ENUM ('first build', 'catching up', 'watching');

COMMENT ON TYPE audius_challenges.phase IS
'first build: all users are examined for the first time; '
'catching up: all users are examined again; watching: changes are followed';

CREATE TABLE audius_challenges.processor_state (
    challenge_id text PRIMARY KEY,
    phase audius_challenges.phase,
    catalog_seen text,
    sweep_position bigint,
    sweep_rounds bigint NOT NULL DEFAULT 0,
    sweep_finished_at timestamptz,
    last_run timestamptz,
    last_success timestamptz,
    consecutive_failures integer NOT NULL DEFAULT 0,
    last_error text,
    last_error_at timestamptz,
    look bigint,
    sources text[] NOT NULL DEFAULT '{}',
    nothing_written boolean NOT NULL DEFAULT FALSE,
    found_active boolean NOT NULL DEFAULT FALSE,
    is_exempt boolean NOT NULL DEFAULT FALSE,
    completed bigint NOT NULL DEFAULT 0,
    cut_off timestamptz,
    as_of timestamptz,
    is_asked_for boolean NOT NULL DEFAULT TRUE
)
WITH (fillfactor = 90);

COMMENT ON TABLE audius_challenges.processor_state IS
'State of each challenge that has run; read it through challenge_status';
COMMENT ON COLUMN audius_challenges.processor_state.challenge_id IS 'challenges.id';
COMMENT ON COLUMN audius_challenges.processor_state.phase IS
'Whether all users have been examined (see the type); null: no run has succeeded while it was active';
COMMENT ON COLUMN audius_challenges.processor_state.catalog_seen IS
'active, amount, step_count and starting_block of the catalog row at the last success (JSON); null while inactive';
COMMENT ON COLUMN audius_challenges.processor_state.sweep_position IS
'The last user id that the sweep has examined in its current round, or has left to open slices; null before the first';
COMMENT ON COLUMN audius_challenges.processor_state.sweep_rounds IS 'Completed rounds of the sweep over all users';
COMMENT ON COLUMN audius_challenges.processor_state.sweep_finished_at IS 'When the last round was completed';
COMMENT ON COLUMN audius_challenges.processor_state.last_run IS 'When it last ran, with or without success';
COMMENT ON COLUMN audius_challenges.processor_state.last_success IS 'When it last ran without an error';
COMMENT ON COLUMN audius_challenges.processor_state.consecutive_failures IS 'Failed runs since the last success';
COMMENT ON COLUMN audius_challenges.processor_state.last_error IS 'The last error, kept after it has been resolved';
COMMENT ON COLUMN audius_challenges.processor_state.last_error_at IS 'When the last error happened';
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

CREATE TABLE audius_challenges.installation (
    singleton boolean PRIMARY KEY CHECK (singleton),
    cluster bigint NOT NULL,
    relation bigint NOT NULL,
    guards text[] NOT NULL
);

COMMENT ON TABLE audius_challenges.installation IS
'The database that the state belongs to; after a dump and restore it is another one, and looks are forgotten';
COMMENT ON COLUMN audius_challenges.installation.singleton IS 'Always true: there is at most one row';
COMMENT ON COLUMN audius_challenges.installation.cluster IS 'The system identifier of the cluster';
COMMENT ON COLUMN audius_challenges.installation.relation IS 'The object id of user_challenges';
COMMENT ON COLUMN audius_challenges.installation.guards IS
'Triggers and foreign keys of user_challenges, by what they call and reference; ticks do nothing until a restore, or '
'whoever replaced the table, has created them again';

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

SELECT pg_catalog.pg_extension_config_dump('audius_challenges.processor_state', '');
SELECT pg_catalog.pg_extension_config_dump('audius_challenges.look', '');
SELECT pg_catalog.pg_extension_config_dump('audius_challenges.pause', '');
SELECT pg_catalog.pg_extension_config_dump('audius_challenges.set_aside', '');
SELECT pg_catalog.pg_extension_config_dump('audius_challenges.passed_over', '');
SELECT pg_catalog.pg_extension_config_dump('audius_challenges.verified_user', '');
SELECT pg_catalog.pg_extension_config_dump('audius_challenges.tastemaker_decision', '');
SELECT pg_catalog.pg_extension_config_dump('audius_challenges.slice', '');
SELECT pg_catalog.pg_extension_config_dump('audius_challenges.installation', '');
SELECT pg_catalog.pg_extension_config_dump('audius_challenges.unpaid_friday', '');
SELECT pg_catalog.pg_extension_config_dump('audius_challenges.history', '');
SELECT pg_catalog.pg_extension_config_dump('audius_challenges.challenge_day', '');
SELECT pg_catalog.pg_extension_config_dump('audius_challenges.day_backfill', '');
