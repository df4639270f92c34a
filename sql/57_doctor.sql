-- What keeps runs from coming, or makes them slow or wrong, and what mends it.

-- With the owner's eyes, as schedule_facts(), since pg_cron shows a role its own jobs only: the jobs of the extension
-- in this database, and how their last runs ended. Of what pg_cron recorded, the last 2000 runs of all jobs are read.
CREATE FUNCTION audius_challenges.job_facts()
RETURNS TABLE (
    jobid bigint,
    jobname text,
    schedule text,
    command text,
    username text,
    active boolean,
    is_tick boolean,
    failures bigint,
    last_message text
)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    IF NOT (SELECT facts.has_pg_cron FROM audius_challenges.schedule_facts() AS facts) THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT
        job.jobid,
        job.jobname::text,
        job.schedule,
        job.command,
        job.username,
        job.active,
        job.command ~* '^ *call +audius_challenges[.]tick *[(]',
        pg_catalog.count(run.runid),
        (pg_catalog.array_agg(run.return_message ORDER BY run.runid DESC))[1]
    FROM cron.job
    LEFT JOIN LATERAL (
        SELECT
            details.runid,
            details.return_message,
            -- Failures since the last success.
            pg_catalog.sum((details.status = 'succeeded')::integer) OVER (ORDER BY details.runid DESC) AS successes
        FROM cron.job_run_details AS details
        WHERE details.runid > (SELECT pg_catalog.max(latest.runid) - 2000 FROM cron.job_run_details AS latest)
            AND details.jobid = job.jobid
            AND details.status IN ('succeeded', 'failed')
    ) AS run
        ON run.successes = 0
    WHERE job.database = pg_catalog.current_database()
        AND (
            job.command ~* '^ *call +audius_challenges[.](tick|help) *[(]'
            OR job.command = 'SELECT audius_challenges.trim_run_details()'
        )
    GROUP BY job.jobid
    ORDER BY job.jobid;
END
$function$;

COMMENT ON FUNCTION audius_challenges.job_facts() IS
'The jobs of pg_cron that tick this database, those of helpers, and the one that trims; how often each has failed '
'since its last success, and the last message';

CREATE FUNCTION audius_challenges.examine()
RETURNS TABLE (
    severity text,
    what text,
    found text,
    expected text,
    statement text
)
LANGUAGE plpython3u
STABLE
ROWS 10
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO'
SET row_security = off
SET lock_timeout = '2s'
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.examine(plpy)
$function$;

COMMENT ON FUNCTION audius_challenges.examine() IS
'The rows of doctor(), where code of the extension runs at all';

CREATE FUNCTION audius_challenges.doctor()
RETURNS TABLE (
    severity text,
    what text,
    found text,
    expected text,
    statement text
)
LANGUAGE plpgsql
STABLE
ROWS 10
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    granting text := pg_catalog.format('SELECT audius_challenges.grant_status(%L);', current_user);
    is_standby boolean := pg_catalog.pg_is_in_recovery();
BEGIN
    RETURN QUERY SELECT finding.* FROM audius_challenges.examine() AS finding;
EXCEPTION
    WHEN insufficient_privilege THEN
        RETURN QUERY
        SELECT
            'warning'::text,
            'this role may not look'::text,
            SQLERRM::text,
            'a role with what grant_status() grants'::text
            || CASE WHEN is_standby THEN '; on the primary: ' || granting ELSE '' END,
            CASE WHEN is_standby THEN '' ELSE granting END;
    WHEN OTHERS THEN
        RETURN QUERY
        SELECT
            'critical'::text,
            'the extension cannot run its code, so nothing ticks'::text,
            SQLERRM::text,
            'functions in plpython3u run: install PostgreSQL''s PL/Python (postgresql-plpython3), restart the server'
            ' if it was upgraded'::text,
            ''::text;
END
$function$;

COMMENT ON FUNCTION audius_challenges.doctor() IS
'Looks at all that keeps ticks from coming, or makes runs slow or wrong. One row for each finding, the worst first '
'(severity: critical, warning, notice), with the statement that mends it; one row with severity ok if there is none. '
'It reads only, and may be called every minute';
