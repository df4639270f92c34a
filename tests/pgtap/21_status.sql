-- The view challenge_status: one row a challenge that says how it is, without documentation.
BEGIN;
SELECT plan(47);

-- Something ticks: the schedule is that of CREATE EXTENSION, and here its last tick has just ended.
SET LOCAL ROLE NONE;
INSERT INTO audius_challenges.last_tick (singleton, ended_at)
VALUES (TRUE, now())
ON CONFLICT (singleton) DO UPDATE SET ended_at = now(), problem = NULL;
RESET ROLE;

SELECT columns_are(
    'challenge_status',
    ARRAY[
        'challenge_id', 'description', 'status', 'last_run', 'last_success', 'consecutive_failures', 'last_error',
        'last_error_at', 'sweep_progress', 'sweep_position', 'sweep_rounds', 'sweep_finished_at', 'unpayable_rows',
        'users_set_aside',
        'tick_problem'
    ],
    'the view has these columns'
);

-- Before the first run.
UPDATE challenges SET active = FALSE WHERE id = 'tp';
DELETE FROM challenges WHERE id = 'tut';
SELECT build.person(user_id, is_verified => TRUE) FROM generate_series(1, 5) AS user_id;
SELECT results_eq(
    $$SELECT challenge_id::text, status::text FROM challenge_status WHERE challenge_id IN ('u', 'v', 'tut', 'tp')$$,
    $$VALUES ('u', 'never run'), ('v', 'never run'), ('tut', 'absent'), ('tp', 'inactive')$$,
    'before the first run a challenge was never run, is inactive or absent'
);
SELECT results_eq(
    $$SELECT challenge_id::text, status::text FROM challenge_status$$,
    $$SELECT
        r.challenge_id,
        CASE
            WHEN c.active THEN 'never run'
            WHEN NOT c.active THEN 'inactive'
            ELSE 'absent'
        END
    FROM reconcile_challenges(dry_run => TRUE) WITH ORDINALITY AS r
    LEFT JOIN challenges AS c ON c.id = r.challenge_id
    ORDER BY r.ordinality$$,
    'so is each of them, in run order'
);
SELECT results_eq(
    $$SELECT count(DISTINCT description) FROM challenge_status$$,
    $$SELECT count(*) FROM challenge_status$$,
    'each challenge has a description of its own'
);
SELECT results_eq(
    $$SELECT last_run, last_success, consecutive_failures::integer, last_error FROM challenge_status
    WHERE challenge_id = 'v'$$,
    $$VALUES (NULL::timestamptz, NULL::timestamptz, 0, NULL::text)$$,
    'before the first run there is no run, no success and no failure'
);

-- A first build in slices of two users, and what comes after it.
SET LOCAL audius_challenges.slice_users = '2';
SET LOCAL audius_challenges.sweep_users = '2';
SELECT build.run(ARRAY['v']);
SELECT results_eq(
    $$SELECT status::text, sweep_rounds::integer FROM challenge_status WHERE challenge_id = 'v'$$,
    $$VALUES ('first build', 0)$$,
    'while its first build is under way a challenge says so'
);
SELECT results_eq(
    $$SELECT count(*) FROM challenge_status
    WHERE challenge_id = 'v' AND sweep_progress > 0 AND sweep_progress < 100$$,
    $$VALUES (1::bigint)$$,
    'the progress of a first build is a percentage'
);
SELECT results_eq(
    $$SELECT status::text FROM challenge_status WHERE challenge_id = 'u'$$,
    $$VALUES ('never run')$$,
    'a run of one challenge is no run of another'
);
CREATE TEMPORARY TABLE progress AS
SELECT s.sweep_progress
FROM challenge_status AS s
WHERE s.challenge_id = 'v';
SELECT build.run(ARRAY['v']);
SELECT ok(
    s.sweep_progress > progress.sweep_progress, 'the progress of a first build grows with each slice'
)
FROM challenge_status AS s
CROSS JOIN progress
WHERE s.challenge_id = 'v';
SELECT build.run(ARRAY['v']);
SELECT build.run(ARRAY['v']);
SELECT results_eq(
    $$SELECT status::text, (sweep_finished_at IS NOT NULL)::text FROM challenge_status WHERE challenge_id = 'v'$$,
    $$VALUES ('ok', 'true')$$,
    'when every user was seen the first build is over'
);
SELECT results_eq(
    $$SELECT count(*) FROM user_challenges WHERE challenge_id = 'v'$$,
    $$VALUES (5::bigint)$$,
    'a first build in slices comes to every user'
);

-- A changed catalog row is caught up with.
UPDATE challenges SET amount = '6' WHERE id = 'v';
SELECT build.run(ARRAY['v']);
SELECT results_eq(
    $$SELECT status::text FROM challenge_status WHERE challenge_id = 'v'$$,
    $$VALUES ('catching up')$$,
    'a changed catalog row restarts the sweep, and the challenge says that it is catching up'
);
SELECT build.run(ARRAY['v'], full_scan => TRUE);
SELECT results_eq(
    $$SELECT status::text FROM challenge_status WHERE challenge_id = 'v'$$,
    $$VALUES ('ok')$$,
    'a full scan catches up at once'
);
SET LOCAL audius_challenges.slice_users = '';
SET LOCAL audius_challenges.sweep_users = '';

-- Success and failure.
SELECT build.run();
SELECT results_eq(
    $$SELECT s.challenge_id::text, s.status::text FROM challenge_status AS s ORDER BY s.challenge_id$$,
    $$SELECT
        s.challenge_id::text,
        CASE
            WHEN c.active THEN 'ok'
            WHEN NOT c.active THEN 'inactive'
            ELSE 'absent'
        END
    FROM challenge_status AS s
    LEFT JOIN challenges AS c ON c.id = s.challenge_id
    ORDER BY s.challenge_id$$,
    'after a run each challenge is ok, inactive or absent'
);
SELECT is_empty(
    $$SELECT challenge_id FROM challenge_status
    WHERE status = 'ok'
        AND (last_run = last_success AND consecutive_failures = 0 AND last_error IS NULL) IS NOT TRUE$$,
    'a challenge that is ok has no failure, and its last run was its last success'
);
SELECT is_empty(
    $$SELECT challenge_id, last_run FROM challenge_status
    WHERE status = 'ok' AND (last_run BETWEEN now() AND clock_timestamp()) IS NOT TRUE$$,
    'last_run is the time of the run'
);
CREATE TEMPORARY TABLE before AS
SELECT
    s.challenge_id,
    s.last_success
FROM challenge_status AS s;
UPDATE challenges SET amount = 'five' WHERE id = 'v';
SELECT build.run(failing => ARRAY['v']);
SELECT results_eq(
    $$SELECT status::text, consecutive_failures::integer FROM challenge_status WHERE challenge_id = 'v'$$,
    $$VALUES ('failing', 1)$$,
    'a challenge that fails is failing'
);
SELECT alike(last_error, '%"five"%', 'last_error says what was wrong')
FROM challenge_status
WHERE challenge_id = 'v';
SELECT results_eq(
    $$SELECT last_success, last_run >= last_success FROM challenge_status WHERE challenge_id = 'v'$$,
    $$SELECT last_success, TRUE FROM before WHERE challenge_id = 'v'$$,
    'a failure is a run, and leaves the time of the last success'
);
SELECT build.run(failing => ARRAY['v']);
SELECT build.run(failing => ARRAY['v']);
SELECT results_eq(
    $$SELECT status::text, consecutive_failures::integer FROM challenge_status WHERE challenge_id = 'v'$$,
    $$VALUES ('failing', 3)$$,
    'consecutive_failures counts the failures in a row'
);
SELECT results_eq(
    $$SELECT challenge_id::text FROM challenge_status WHERE status = 'ok' AND consecutive_failures = 0$$,
    $$SELECT challenge_id::text FROM challenge_status WHERE last_run IS NOT NULL AND challenge_id <> 'v'
        AND status NOT IN ('inactive', 'absent')$$,
    'the failures of one challenge are not those of another'
);
SELECT build.run(ARRAY['v'], dry_run => TRUE, failing => ARRAY['v']);
SELECT results_eq(
    $$SELECT consecutive_failures::integer FROM challenge_status WHERE challenge_id = 'v'$$,
    $$VALUES (3)$$,
    'a dry run is no run'
);
UPDATE challenges SET active = FALSE WHERE id = 'v';
SELECT build.run(ARRAY['v']);
SELECT results_eq(
    $$SELECT status::text FROM challenge_status WHERE challenge_id = 'v'$$,
    $$VALUES ('inactive')$$,
    'a challenge that was failing and is switched off is inactive'
);
UPDATE challenges SET active = TRUE, amount = '5' WHERE id = 'v';
SELECT build.run();
SELECT results_eq(
    $$SELECT status::text, consecutive_failures::integer, last_run = last_success FROM challenge_status
    WHERE challenge_id = 'v'$$,
    $$VALUES ('ok', 0, TRUE)$$,
    'a success puts the count of failures back to 0'
);
SET LOCAL audius_challenges.enabled = 'off';
CREATE TEMPORARY TABLE while_off AS SELECT s.* FROM challenge_status AS s;
SELECT build.run();
SELECT results_eq(
    $$SELECT last_run, last_success, consecutive_failures FROM challenge_status$$,
    $$SELECT last_run, last_success, consecutive_failures FROM while_off$$,
    'a run that is switched off leaves no trace in the state'
);
SET LOCAL audius_challenges.enabled = 'on';

-- Rows that the disburser never sees.
SELECT results_eq(
    $$SELECT DISTINCT unpayable_rows FROM challenge_status$$,
    $$VALUES (0::bigint)$$,
    'without complete rows that lack a completed_blocknumber there are no unpayable rows'
);
INSERT INTO user_challenges (challenge_id, user_id, specifier, is_complete, current_step_count, completed_blocknumber)
VALUES
    ('u', 21, '15', TRUE, 3, NULL),
    ('u', 22, '16', TRUE, 3, NULL),
    ('u', 23, '17', TRUE, 3, 0),
    ('u', 24, '18', FALSE, 2, NULL),
    ('fp', 21, '15', TRUE, 1, NULL);
SELECT results_eq(
    $$SELECT challenge_id::text, unpayable_rows FROM challenge_status WHERE unpayable_rows > 0$$,
    $$VALUES ('u', 2::bigint), ('fp', 1)$$,
    'complete rows whose completed_blocknumber is null are counted as unpayable'
);
SELECT build.run(full_scan => TRUE);
SELECT results_eq(
    $$SELECT challenge_id::text, unpayable_rows FROM challenge_status WHERE unpayable_rows > 0$$,
    $$VALUES ('u', 2::bigint), ('fp', 1)$$,
    'unpayable rows of earlier services stay so'
);

-- One row of state a challenge, made when first needed.
SELECT results_eq(
    $$SELECT count(*) FROM audius_challenges.processor_state$$,
    $$SELECT count(*) FROM challenge_status WHERE last_run IS NOT NULL$$,
    'there is a row of state for each challenge that was run'
);
SET LOCAL ROLE NONE;
DELETE FROM audius_challenges.processor_state;
DELETE FROM audius_challenges.look;
RESET ROLE;
SELECT results_eq(
    $$SELECT challenge_id, status, rows_inserted, rows_updated FROM reconcile_challenges(ARRAY['u', 'fp', 'p', 'v'])$$,
    $$VALUES ('u', 'ok', 0::bigint, 0::bigint), ('fp', 'ok', 0, 0), ('p', 'ok', 0, 0), ('v', 'ok', 0, 0)$$,
    'a state that is lost is built anew, and no row is written twice'
);

-- While nothing ticks no challenge is ok, whoever looks. This database has a schedule, of another role.
DELETE FROM challenges WHERE id = 'tut';
UPDATE challenges SET active = FALSE WHERE id = 'tp';
UPDATE challenges SET amount = 'five' WHERE id = 'v';
SELECT build.run(failing => ARRAY['v']);
CREATE TEMPORARY TABLE situation (number integer, name text, status text, problem text, make text, mend text);
INSERT INTO situation VALUES
    (1, 'a tick that has just ended', 'ok', NULL, 'SELECT 1', 'SELECT 1'),
    (
        2, 'a tick that is overdue', 'late',
        'the last tick ended at %, one is due every 30 s HINT: See cron.job_run_details%',
        $$UPDATE audius_challenges.last_tick SET scheduled_at = NULL, ended_at = now() - INTERVAL '86 seconds'$$,
        $$UPDATE audius_challenges.last_tick SET ended_at = now()$$
    ),
    (
        3, 'a tick that has never come', 'late', 'no tick has ended yet, one is due every 30 s%',
        $$UPDATE audius_challenges.last_tick SET ended_at = NULL$$,
        $$UPDATE audius_challenges.last_tick SET ended_at = now()$$
    ),
    (
        4, 'jobs that are switched off', 'stopped',
        'the jobs are switched off (cron.job.active is false) HINT: SELECT * FROM schedule_challenges();',
        $$UPDATE cron.job SET active = FALSE$$,
        $$UPDATE cron.job SET active = TRUE$$
    ),
    (
        5, 'jobs that were restored from another database', 'stopped',
        'the jobs tick another database: postgres HINT: SELECT * FROM schedule_challenges();',
        $$UPDATE cron.job SET database = 'postgres'$$,
        $$UPDATE cron.job SET database = 'discovery'$$
    ),
    (
        6, 'jobs that call something else', 'stopped',
        'no job of pg_cron ticks this database HINT: SELECT * FROM schedule_challenges();',
        $$UPDATE cron.job SET command = 'SELECT ' || command$$,
        $$UPDATE cron.job SET command = substr(command, 8)$$
    ),
    (
        7, 'jobs of another server', 'stopped',
        'the jobs connect to another server: db.old.example:% HINT: SELECT * FROM schedule_challenges();',
        $$UPDATE audius_challenges.last_tick SET ended_at = now() - INTERVAL '86 seconds';
        UPDATE cron.job SET nodename = 'db.old.example'$$,
        $$UPDATE audius_challenges.last_tick SET ended_at = now();
        UPDATE cron.job SET nodename = current_setting('cron.host')$$
    ),
    (
        8, 'ticks that do nothing', 'stopped', 'nothing to do',
        $$UPDATE audius_challenges.last_tick SET problem = 'nothing to do'$$,
        $$UPDATE audius_challenges.last_tick SET problem = NULL$$
    ),
    (
        9, 'a tick an hour', 'ok', NULL,
        $$UPDATE audius_challenges.last_tick SET ended_at = now() - INTERVAL '119 minutes';
        UPDATE cron.job SET schedule = '0 * * * *' WHERE jobname NOT LIKE '%trim';
        UPDATE cron.job SET active = FALSE WHERE jobname LIKE '%+30s'$$,
        $$UPDATE audius_challenges.last_tick SET ended_at = now()$$
    );
CREATE TEMPORARY TABLE seen (number integer, challenge_id text, status text, tick_problem text);
GRANT ALL ON situation, seen TO PUBLIC;
CREATE FUNCTION pg_temp.look(chosen integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    met situation;
BEGIN
    SELECT * INTO met FROM situation AS s WHERE s.number = chosen;
    SET LOCAL ROLE NONE;
    EXECUTE met.make;
    RESET ROLE;
    INSERT INTO seen
    SELECT chosen, s.challenge_id, s.status, s.tick_problem FROM challenge_status AS s;
    SET LOCAL ROLE NONE;
    EXECUTE met.mend;
    RESET ROLE;
END $$;
SELECT pg_temp.look(situation.number) FROM situation ORDER BY situation.number;
SELECT results_eq(
    format(
        $$SELECT DISTINCT s.status FROM seen AS s
        WHERE s.number = %s AND s.challenge_id NOT IN ('v', 'tut', 'tp', 'e', 'cs')$$,
        situation.number
    ),
    format('VALUES (%L)', situation.status),
    situation.name || ': ' || situation.status
)
FROM situation
ORDER BY situation.number;
SELECT is_empty(
    $$SELECT s.number, s.challenge_id, s.tick_problem FROM seen AS s
    INNER JOIN situation AS met USING (number)
    WHERE (s.tick_problem LIKE met.problem OR coalesce(s.tick_problem, met.problem) IS NULL) IS NOT TRUE$$,
    'the reason and what to do are in every row'
);
SELECT results_eq(
    $$SELECT DISTINCT s.challenge_id, s.status FROM seen AS s WHERE s.challenge_id IN ('v', 'tut', 'tp') ORDER BY 1$$,
    $$VALUES ('tp', 'inactive'), ('tut', 'absent'), ('v', 'failing')$$,
    'that nothing ticks hides no failure, and nothing that the catalog says'
);
DELETE FROM user_challenges WHERE challenge_id = 'v';
DELETE FROM challenges WHERE id = 'v';
SELECT results_eq(
    $$SELECT s.status::text FROM challenge_status AS s WHERE s.challenge_id = 'v'$$,
    $$VALUES ('failing')$$,
    'a challenge that is absent does not hide its failure'
);
INSERT INTO challenges (id, type, amount, active) VALUES ('v', 'boolean', 'five', FALSE);
SELECT results_eq(
    $$SELECT s.status::text FROM challenge_status AS s WHERE s.challenge_id = 'v'$$,
    $$VALUES ('failing')$$,
    'nor does one that is inactive'
);
SELECT build.run(ARRAY['v']);
SELECT results_eq(
    $$SELECT s.status::text FROM challenge_status AS s WHERE s.challenge_id = 'v'$$,
    $$VALUES ('inactive')$$,
    'until a run has found it so'
);
SET LOCAL audius_challenges.time_budget = 'forever';
SELECT results_eq(
    $$SELECT s.tick_problem FROM challenge_status AS s LIMIT 1$$,
    $$VALUES (NULL::text)$$,
    'a setting that means nothing does not keep anybody from looking'
);
SET LOCAL audius_challenges.time_budget = '';

-- Without a catalog, and without the discovery tables.
DELETE FROM user_challenges;
DELETE FROM challenges;
SELECT results_eq(
    $$SELECT DISTINCT status::text FROM challenge_status$$,
    $$VALUES ('absent')$$,
    'without a catalog every challenge is absent'
);
SELECT results_eq(
    $$SELECT challenge_id::text FROM challenge_status$$,
    $$SELECT challenge_id FROM reconcile_challenges(dry_run => TRUE)$$,
    'the view has a row of each challenge, whatever the catalog has'
);

SELECT * FROM finish();
ROLLBACK;
