-- What is remembered from run to run. Rows appear when first needed, never here: the tables are dumped with their rows.

CREATE TYPE audius_challenges.phase AS ENUM ('first build', 'catching up', 'watching');

COMMENT ON TYPE audius_challenges.phase IS
'first build: everybody is examined for the first time, without a limit of completions; '
'catching up: everybody is examined again; watching: changes are followed';

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
    last_error_at timestamptz
)
WITH (fillfactor = 50);

COMMENT ON TABLE audius_challenges.processor_state IS
'One row for each processor that has run: how far it has come and how it fares; read it through challenge_status';
COMMENT ON COLUMN audius_challenges.processor_state.challenge_id IS 'challenges.id';
COMMENT ON COLUMN audius_challenges.processor_state.phase IS
'How far it has come with the users there are; null: no run has succeeded yet';
COMMENT ON COLUMN audius_challenges.processor_state.catalog_seen IS
'active, amount, step_count and starting_block of the catalog row at the last success (JSON); null while inactive';
COMMENT ON COLUMN audius_challenges.processor_state.sweep_position IS
'The last user id that the sweep has examined in its current round; null before the first';
COMMENT ON COLUMN audius_challenges.processor_state.sweep_rounds IS 'Rounds of the sweep over all users, completed';
COMMENT ON COLUMN audius_challenges.processor_state.sweep_finished_at IS 'When the last round was completed';
COMMENT ON COLUMN audius_challenges.processor_state.last_run IS 'When it last ran, whatever came of it';
COMMENT ON COLUMN audius_challenges.processor_state.last_success IS 'When it last ran without an error';
COMMENT ON COLUMN audius_challenges.processor_state.consecutive_failures IS 'Failed runs since the last success';
COMMENT ON COLUMN audius_challenges.processor_state.last_error IS 'The last error, also if it is over';
COMMENT ON COLUMN audius_challenges.processor_state.last_error_at IS 'When the last error happened';

CREATE TABLE audius_challenges.checkpoint (
    challenge_id text PRIMARY KEY,
    horizon bigint NOT NULL,
    written_by xid8 NOT NULL,
    progress jsonb NOT NULL
);

COMMENT ON TABLE audius_challenges.checkpoint IS 'Up to where each processor has read its source tables';
COMMENT ON COLUMN audius_challenges.checkpoint.challenge_id IS 'challenges.id';
COMMENT ON COLUMN audius_challenges.checkpoint.horizon IS
'The oldest transaction (64 bits) that was still running then; -1: of another cluster, not to be trusted';
COMMENT ON COLUMN audius_challenges.checkpoint.written_by IS 'The transaction that wrote the row';
COMMENT ON COLUMN audius_challenges.checkpoint.progress IS
'sources: table names; history: [transaction that had not begun, position in each source], oldest first; '
'is_from_nothing: whether the first build found nothing; '
'for e: everybody, backlog, skipped, opened, paused_since, pauses, started_at';

CREATE TABLE audius_challenges.installation (
    singleton boolean PRIMARY KEY CHECK (singleton),
    cluster bigint NOT NULL,
    relation bigint NOT NULL,
    guards text[] NOT NULL
);

COMMENT ON TABLE audius_challenges.installation IS
'The database that the state is true of: after a dump and restore another one, and checkpoints are not trusted';
COMMENT ON COLUMN audius_challenges.installation.singleton IS 'Always true: there is one row at most';
COMMENT ON COLUMN audius_challenges.installation.cluster IS 'The system identifier of the cluster';
COMMENT ON COLUMN audius_challenges.installation.relation IS 'The object id of user_challenges';
COMMENT ON COLUMN audius_challenges.installation.guards IS
'Triggers and foreign keys of user_challenges; a tick waits until a restore has brought them back';

SELECT pg_catalog.pg_extension_config_dump('audius_challenges.processor_state', '');
SELECT pg_catalog.pg_extension_config_dump('audius_challenges.checkpoint', '');
SELECT pg_catalog.pg_extension_config_dump('audius_challenges.installation', '');
