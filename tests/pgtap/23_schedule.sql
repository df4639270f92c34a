-- schedule_challenges() and unschedule_challenges(): the rows in cron.job. (That they tick is for the pytest files.)
-- pg_cron before 1.5 knows no seconds: there, 30 s is two jobs of a minute each.
BEGIN;
SELECT plan(21);

CREATE TEMPORARY VIEW ours AS
SELECT
    j.jobname::text COLLATE "default" AS jobname,
    j.schedule,
    j.command,
    j.nodename,
    j.nodeport,
    j.database,
    j.username,
    j.active
FROM cron.job AS j
WHERE j.jobname LIKE 'audius_challenges%';
CREATE TEMPORARY VIEW pg_cron_knows_seconds AS
SELECT string_to_array(regexp_replace(e.extversion, '-.*', ''), '.')::integer[] >= ARRAY[1, 5] AS answer
FROM pg_extension AS e
WHERE e.extname = 'pg_cron';

-- Somebody else's jobs, and none of ours.
DELETE FROM cron.job;
SELECT cron.schedule('nightly vacuum', '0 3 * * *', 'VACUUM');
CREATE TEMPORARY TABLE theirs AS SELECT j.* FROM cron.job AS j;

SELECT is_empty(
    $$SELECT * FROM unschedule_challenges()$$,
    'without a schedule there is nothing to remove, and no error'
);
CREATE TEMPORARY TABLE scheduled AS SELECT s.* FROM schedule_challenges() AS s;
SELECT results_eq(
    $$SELECT jobname, schedule FROM ours ORDER BY jobname$$,
    $$SELECT job.* FROM pg_cron_knows_seconds
    CROSS JOIN LATERAL (
        VALUES
        ('audius_challenges tick', CASE WHEN answer THEN '30 seconds' ELSE '* * * * *' END),
        ('audius_challenges tick +30s', CASE WHEN answer THEN NULL ELSE '* * * * *' END),
        ('audius_challenges trim', (SELECT schedule FROM ours WHERE jobname = 'audius_challenges trim'))
    ) AS job (jobname, schedule)
    WHERE job.schedule IS NOT NULL$$,
    'by default there is a tick every 30 seconds, and the trim'
);
SELECT matches(schedule, '^[0-9]+ [0-9]+ \* \* \*$', 'the trim is daily')
FROM ours
WHERE jobname = 'audius_challenges trim';
SELECT alike(command, 'CALL audius_challenges.tick(%)', 'the tick is one CALL, which may commit')
FROM ours
WHERE jobname = 'audius_challenges tick';
SELECT results_eq(
    $$SELECT count(*) FROM ours, pg_cron_knows_seconds
    WHERE jobname = 'audius_challenges tick +30s'
        AND command LIKE 'CALL audius_challenges.tick(delay => ''30 seconds'')%' AND NOT answer$$,
    $$SELECT CASE WHEN answer THEN 0 ELSE 1 END::bigint FROM pg_cron_knows_seconds$$,
    'before pg_cron 1.5 the second job sleeps 30 seconds inside its CALL'
);
SELECT results_eq(
    $$SELECT DISTINCT nodeport, database, username, active FROM ours$$,
    $$SELECT
        current_setting('port')::integer, current_database()::text COLLATE "default",
        current_user::text COLLATE "default", TRUE$$,
    'the jobs run here, in this database, as the one who scheduled them'
);
SELECT bag_eq(
    $$SELECT jobid, jobname::text, schedule::text, command::text, database::text FROM scheduled$$,
    $$SELECT jobid, jobname::text, schedule, command, database FROM cron.job
    WHERE jobname LIKE 'audius_challenges%'$$,
    'schedule_challenges returns the jobs'
);
SELECT lives_ok(
    $$SELECT * FROM schedule_challenges()$$,
    'scheduling again is no error'
);
SELECT bag_eq(
    $$SELECT jobname, schedule, command FROM ours$$,
    $$SELECT jobname, schedule, command FROM scheduled$$,
    'scheduling again leaves one schedule'
);

-- What a restored dump leaves behind: another server, another database, switched off.
CREATE TEMPORARY TABLE here AS SELECT o.* FROM ours AS o;
UPDATE cron.job SET
    nodename = 'old.example.org',
    nodeport = 1,
    database = 'elsewhere',
    active = FALSE,
    command = 'SELECT 1'
WHERE jobname LIKE 'audius_challenges%';
SELECT jobname FROM schedule_challenges() WHERE jobname = '';
SELECT bag_eq(
    $$SELECT * FROM ours$$,
    $$SELECT * FROM here$$,
    'scheduling points the jobs at this server and database, whatever a restored row said'
);

-- Other schedules.
SELECT jobname FROM schedule_challenges('5 minutes') WHERE jobname = '';
SELECT results_eq(
    $$SELECT jobname, schedule FROM ours WHERE jobname LIKE '%tick%'$$,
    $$VALUES ('audius_challenges tick', '*/5 * * * *')$$,
    'a schedule of minutes is one job'
);
SELECT jobname FROM schedule_challenges('1 minute') WHERE jobname = '';
SELECT results_eq(
    $$SELECT jobname, replace(schedule, '*/1 ', '* ') FROM ours WHERE jobname LIKE '%tick%'$$,
    $$VALUES ('audius_challenges tick', '* * * * *')$$,
    'a schedule of one minute is one job of every minute'
);
SELECT jobname FROM schedule_challenges('60 seconds') WHERE jobname = '';
SELECT results_eq(
    $$SELECT jobname, replace(schedule, '*/1 ', '* ') FROM ours WHERE jobname LIKE '%tick%'$$,
    $$VALUES ('audius_challenges tick', '* * * * *')$$,
    '60 seconds are a minute'
);
SELECT jobname FROM schedule_challenges() WHERE jobname = '';
SELECT bag_eq(
    $$SELECT * FROM ours$$,
    $$SELECT * FROM here$$,
    'going back to the default brings back the default'
);
SELECT bag_eq(
    $$SELECT * FROM cron.job WHERE jobname NOT LIKE 'audius_challenges%'$$,
    $$SELECT * FROM theirs$$,
    'the jobs of others are left alone'
);

-- The end of it.
CREATE TEMPORARY TABLE unscheduled AS SELECT u.* FROM unschedule_challenges() AS u;
SELECT bag_eq(
    $$SELECT jobname::text, schedule::text FROM unscheduled$$,
    $$SELECT jobname, schedule FROM here$$,
    'unschedule_challenges returns the jobs that it removed'
);
SELECT bag_eq(
    $$SELECT * FROM cron.job$$,
    $$SELECT * FROM theirs$$,
    'unschedule_challenges removes our jobs and no others'
);
SELECT is_empty(
    $$SELECT * FROM unschedule_challenges()$$,
    'unscheduling twice is no error'
);

-- The trim: our rows of job_run_details that are old, and nobody else's.
SELECT jobname FROM schedule_challenges() WHERE jobname = '';
INSERT INTO cron.job_run_details (jobid, runid, command, status, start_time, end_time)
SELECT
    j.jobid,
    1000000 + age + CASE WHEN j.jobname = 'nightly vacuum' THEN 1000 ELSE 0 END,
    j.command,
    'succeeded',
    now() - age * '1 day'::interval,
    now() - age * '1 day'::interval
FROM cron.job AS j
CROSS JOIN unnest(ARRAY[0, 400]) AS age
WHERE j.jobname IN ('audius_challenges tick', 'nightly vacuum');
UPDATE cron.job_run_details SET jobid = 999999 WHERE runid = 1000400;
INSERT INTO cron.job_run_details (jobid, runid, command, status, start_time, end_time)
SELECT
    j.jobid,
    1000401,
    j.command,
    'failed',
    now() - '400 days'::interval,
    now() - '400 days'::interval
FROM cron.job AS j
WHERE j.jobname = 'audius_challenges tick';
SELECT count(*) FROM audius_challenges.trim_run_details();
SELECT is_empty(
    $$SELECT d.runid FROM cron.job_run_details AS d WHERE d.runid IN (1000400, 1000401)$$,
    'the trim takes our old runs away, those of a schedule of ours that was replaced included'
);
SELECT results_eq(
    $$SELECT d.runid - 1000000 FROM cron.job_run_details AS d WHERE d.runid >= 1000000 ORDER BY d.runid$$,
    $$VALUES (0::bigint), (1000), (1400)$$,
    'the trim leaves our recent runs, and those of others'
);
SELECT jobname FROM unschedule_challenges() WHERE jobname = '';
SELECT results_eq(
    $$SELECT count(*) FROM reconcile_challenges() WHERE status = 'failed'$$,
    $$VALUES (0::bigint)$$,
    'a run by hand needs no schedule'
);

SELECT * FROM finish();
ROLLBACK;
