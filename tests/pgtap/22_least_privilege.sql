-- A role that is no superuser and has only audius_challenges.grant_run (or grant_status) runs (or reads) everything.
BEGIN;
SELECT plan(26);

CREATE ROLE "Challenge Runner";
CREATE ROLE status_reader;
SELECT audius_challenges.grant_run('Challenge Runner');
SELECT audius_challenges.grant_status('status_reader');
SELECT results_eq(
    $$SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolbypassrls FROM pg_roles
    WHERE rolname IN ('Challenge Runner', 'status_reader') ORDER BY rolname$$,
    $$VALUES
        ('Challenge Runner'::name, FALSE, FALSE, FALSE, FALSE), ('status_reader', FALSE, FALSE, FALSE, FALSE)$$,
    'the grants make nobody a superuser'
);

-- For each challenge a user who completes it, on a Friday.
CREATE TEMPORARY TABLE prod AS
SELECT
    c.id,
    to_jsonb(c) AS content
FROM challenges AS c;
UPDATE challenges SET active = TRUE, starting_block = 0;
SELECT build.qualify(challenge_id, number)
FROM build.challenges();

-- Runs.
SET LOCAL ROLE "Challenge Runner";
CREATE TEMPORARY TABLE dry AS
SELECT r.* FROM reconcile_challenges(dry_run => TRUE, as_of => '2025-03-07 10:00+00') AS r;
CREATE TEMPORARY TABLE run AS
SELECT r.* FROM reconcile_challenges(as_of => '2025-03-07 10:00+00') AS r;
CREATE TEMPORARY TABLE full_run AS
SELECT r.* FROM reconcile_challenges(full_scan => TRUE, as_of => '2025-03-07 10:00+00') AS r;
CREATE TEMPORARY TABLE status AS SELECT s.* FROM challenge_status AS s;
RESET ROLE;
SELECT is_empty(
    $$SELECT challenge_id, status, error FROM dry WHERE status <> 'ok' OR rows_completed = 0$$,
    'the runner may run dry, and every challenge completes'
);
SELECT results_eq(
    $$SELECT challenge_id, status, rows_completed, error FROM run$$,
    $$SELECT challenge_id, status, rows_completed, error FROM dry$$,
    'the runner may run every challenge'
);
SELECT results_eq(
    $$SELECT DISTINCT status FROM full_run$$,
    $$VALUES ('ok')$$,
    'the runner may scan in full'
);
SELECT results_eq(
    $$SELECT DISTINCT consecutive_failures FROM status$$,
    $$VALUES (0)$$,
    'the runner may read the status'
);
SELECT results_eq(
    $$SELECT count(*) FROM notification$$,
    $$SELECT count(*) FROM user_challenges WHERE is_complete$$,
    'the application''s trigger, which runs as the runner, notifies for each complete row'
);
UPDATE challenges SET amount = 'x' WHERE id = 'v';
SET LOCAL ROLE "Challenge Runner";
CREATE TEMPORARY TABLE failure AS SELECT r.* FROM reconcile_challenges(ARRAY['v']) AS r;
RESET ROLE;
SELECT results_eq(
    $$SELECT challenge_id, failure.status, consecutive_failures::integer FROM failure
    INNER JOIN challenge_status USING (challenge_id)$$,
    $$VALUES ('v', 'failed', 1)$$,
    'a failure of the runner''s stands in the status'
);

-- The catalog, the schedule, the present.
SET LOCAL ROLE "Challenge Runner";
CREATE TEMPORARY TABLE synced AS SELECT s.* FROM sync_challenge_catalog() AS s;
CREATE TEMPORARY TABLE scheduled AS SELECT s.* FROM schedule_challenges() AS s;
CREATE TEMPORARY TABLE scheduled_as AS
SELECT
    j.jobname,
    j.username
FROM cron.job AS j;
CREATE TEMPORARY TABLE trimmed AS SELECT audius_challenges.trim_run_details() AS result;
CREATE TEMPORARY TABLE unscheduled AS SELECT s.* FROM unschedule_challenges() AS s;
CREATE TEMPORARY TABLE started AS SELECT s.id FROM audius_challenges.start_from_now() AS s (id);
RESET ROLE;
SELECT results_eq(
    $$SELECT to_jsonb(c) FROM challenges AS c ORDER BY id$$,
    $$SELECT content FROM prod ORDER BY id$$,
    'the runner may align the catalog'
);
SELECT isnt_empty(
    $$SELECT challenge_id FROM synced WHERE challenge_id = 'v'$$,
    'and is told what was aligned'
);
SELECT results_eq(
    $$SELECT DISTINCT s.jobname::text, a.username::text FROM scheduled AS s
    INNER JOIN scheduled_as AS a ON s.jobname = a.jobname
    WHERE s.jobname IN ('audius_challenges tick', 'audius_challenges trim') ORDER BY 1$$,
    $$VALUES
        ('audius_challenges tick', 'Challenge Runner'), ('audius_challenges trim', 'Challenge Runner')$$,
    'the runner may schedule, and the jobs run as the runner'
);
SELECT bag_eq(
    $$SELECT jobname::text FROM unscheduled$$,
    $$SELECT jobname::text FROM scheduled$$,
    'the runner may unschedule what it scheduled'
);
SELECT results_eq(
    $$SELECT count(*) FROM trimmed$$,
    $$VALUES (1::bigint)$$,
    'the runner may trim the run details'
);
SELECT results_eq(
    $$SELECT id FROM started$$,
    $$SELECT challenge_id::text FROM challenge_status$$,
    'the runner may start from now'
);
SELECT ok(
    has_function_privilege('Challenge Runner', 'audius_challenges.tick(interval)', 'EXECUTE'),
    'the runner may call the tick'
);

-- A superuser's schedule takes the place of the runner's.
SET LOCAL ROLE "Challenge Runner";
SELECT jobname FROM schedule_challenges() WHERE jobname = '';
RESET ROLE;
SELECT jobname FROM schedule_challenges('1 minute') WHERE jobname = '';
SELECT results_eq(
    $$SELECT jobname::text COLLATE "default", username = current_user FROM cron.job
    WHERE jobname LIKE 'audius_challenges%' ORDER BY jobname$$,
    $$VALUES ('audius_challenges tick', TRUE), ('audius_challenges trim', TRUE)$$,
    'a superuser who schedules leaves one schedule, whoever scheduled before'
);

-- And no more than that.
SELECT results_eq(
    $$SELECT source::text, privilege FROM
        build.source_tables() AS source,
        unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS privilege
    WHERE has_table_privilege('Challenge Runner', source, privilege)$$,
    $$SELECT ''::text, ''::text WHERE FALSE$$,
    'the runner may write no source table'
);
SELECT results_eq(
    $$SELECT c.relname::text, privilege FROM
        pg_class AS c,
        unnest(ARRAY['DELETE', 'TRUNCATE']) AS privilege
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
        AND has_table_privilege('Challenge Runner', c.oid, privilege)$$,
    $$SELECT ''::text, ''::text WHERE FALSE$$,
    'the runner may delete nothing of the application''s'
);
SELECT ok(
    NOT has_schema_privilege('Challenge Runner', 'audius_challenges', 'CREATE'),
    'the runner may create nothing in the extension''s schema'
);
SELECT ok(
    NOT has_function_privilege('Challenge Runner', 'audius_challenges.grant_run(text)', 'EXECUTE'),
    'the runner may not grant to others'
);
SELECT is_empty(
    $$SELECT m.roleid FROM pg_auth_members AS m
    INNER JOIN pg_roles AS r ON m.member = r.oid
    WHERE r.rolname IN ('Challenge Runner', 'status_reader')$$,
    'the grants make nobody a member of another role'
);

-- The reader of the status.
SET LOCAL ROLE status_reader;
CREATE TEMPORARY TABLE seen AS SELECT s.* FROM challenge_status AS s;
RESET ROLE;
SELECT results_eq(
    $$SELECT challenge_id::text FROM seen$$,
    $$SELECT challenge_id::text FROM challenge_status$$,
    'the reader may read the status'
);
SELECT results_eq(
    $$SELECT call FROM
        unnest(ARRAY[
            'public.reconcile_challenges(text[], boolean, boolean, timestamptz)',
            'public.sync_challenge_catalog(text, text[])',
            'public.schedule_challenges(interval)',
            'public.unschedule_challenges()',
            'audius_challenges.tick(interval)',
            'audius_challenges.start_from_now(text[])',
            'audius_challenges.trim_run_details()',
            'audius_challenges.grant_run(text)',
            'audius_challenges.grant_status(text)'
        ]) AS call
    WHERE has_function_privilege('status_reader', call, 'EXECUTE')$$,
    $$SELECT ''::text WHERE FALSE$$,
    'the reader may run nothing'
);
SELECT is_empty(
    $$SELECT n.nspname || '.' || c.relname FROM pg_class AS c
    INNER JOIN pg_namespace AS n ON c.relnamespace = n.oid
    WHERE n.nspname IN ('public', 'audius_challenges') AND c.relkind IN ('r', 'v')
        AND c.relname <> 'user_challenges_log'
        AND has_table_privilege('status_reader', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')$$,
    'the reader may write no table'
);

-- Grants are given once, and a missing one is an error that names the table.
SELECT lives_ok(
    $$SELECT audius_challenges.grant_run('Challenge Runner'), audius_challenges.grant_status('status_reader')$$,
    'granting again changes nothing and is no error'
);
REVOKE SELECT ON aggregate_user FROM "Challenge Runner";
SET LOCAL ROLE "Challenge Runner";
CREATE TEMPORARY TABLE short_of_a_grant AS
SELECT r.* FROM reconcile_challenges(ARRAY['u', 'v']) AS r
UNION ALL
SELECT r.* FROM reconcile_challenges(ARRAY['tt', 'tut', 'tp'], as_of => '2025-03-14 10:00+00') AS r;
RESET ROLE;
SELECT results_eq(
    $$SELECT challenge_id, status FROM short_of_a_grant WHERE challenge_id IN ('u', 'v', 'tt', 'tut', 'tp')$$,
    $$VALUES ('u', 'ok'), ('v', 'ok'), ('tt', 'ok'), ('tut', 'failed'), ('tp', 'ok')$$,
    'a table that the runner may not read fails the challenge that reads it, and not the others'
);
SELECT alike(error, '%aggregate_user%', 'the error of a missing grant names the table')
FROM short_of_a_grant
WHERE challenge_id = 'tut';

SELECT * FROM finish();
ROLLBACK;
