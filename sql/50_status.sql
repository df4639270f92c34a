-- What a DBA looks at.

CREATE FUNCTION audius_challenges.status()
RETURNS TABLE (
    challenge_id text,
    description text,
    status text,
    last_run timestamptz,
    last_success timestamptz,
    consecutive_failures integer,
    last_error text,
    last_error_at timestamptz,
    sweep_progress numeric,
    sweep_position bigint,
    sweep_rounds bigint,
    sweep_finished_at timestamptz
)
LANGUAGE plpython3u
STABLE
ROWS 11
SET search_path = pg_catalog, @extschema@, pg_temp
SET datestyle = 'ISO'
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.status(plpy, '@extschema@')
$function$;

COMMENT ON FUNCTION audius_challenges.status() IS 'The rows of challenge_status, in run order';

CREATE FUNCTION audius_challenges.unpayable_rows(of_challenge text)
RETURNS bigint
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    home text := (
        SELECT pg_catalog.quote_ident(namespace.nspname)
        FROM pg_catalog.pg_extension AS extension
        INNER JOIN pg_catalog.pg_namespace AS namespace
            ON extension.extnamespace = namespace.oid
        WHERE extension.extname = 'audius_challenges'
    );
    unpayable bigint;
BEGIN
    IF pg_catalog.to_regclass(home || '.user_challenges') IS NULL THEN
        RETURN NULL;
    END IF;
    EXECUTE pg_catalog.format(
        'SELECT pg_catalog.count(*) FROM %s.user_challenges'
        ' WHERE challenge_id = $1 AND is_complete AND completed_blocknumber IS NULL',
        home
    )
    INTO unpayable
    USING of_challenge;
    RETURN unpayable;
END
$function$;

COMMENT ON FUNCTION audius_challenges.unpayable_rows(text) IS
'Number of complete user challenges of a challenge that have no completed_blocknumber: a disburser that pages by it '
'never pays them';

-- With the owner's eyes, since other roles see neither pg_cron's launcher and settings nor the jobs of another role:
-- facts about the schedule of this database, and nothing else. A table cron.job is read only if it is pg_cron's.
CREATE FUNCTION audius_challenges.schedule_facts(
    OUT home text,
    OUT has_launcher boolean,
    OUT has_pg_cron boolean,
    OUT active_jobs bigint,
    OUT inactive_jobs bigint,
    OUT elsewhere text,
    OUT wrong_host text,
    OUT period double precision,
    OUT max_running_jobs integer
)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    home := pg_catalog.current_setting('cron.database_name', TRUE);
    -- Not loaded, it may have been set to anything.
    max_running_jobs := pg_catalog.substring(pg_catalog.current_setting('cron.max_running_jobs', TRUE), '^[0-9]{1,9}$');
    has_launcher := EXISTS (
        SELECT FROM pg_catalog.pg_stat_activity AS process WHERE process.backend_type = 'pg_cron launcher'
    );
    has_pg_cron := EXISTS (
        SELECT
        FROM pg_catalog.pg_extension AS extension
        INNER JOIN pg_catalog.pg_depend AS member
            ON member.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
            AND member.refobjid = extension.oid
            AND member.deptype = 'e'
            AND member.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND member.objid = pg_catalog.to_regclass('cron.job')
        WHERE extension.extname = 'pg_cron'
    );
    IF NOT has_pg_cron THEN
        RETURN;
    END IF;
    SELECT
        pg_catalog.count(*) FILTER (WHERE job.active AND job.is_here),
        pg_catalog.count(*) FILTER (WHERE NOT job.active AND job.is_here),
        pg_catalog.string_agg(DISTINCT job.database, ', ') FILTER (WHERE NOT job.is_here AND job.has_our_name),
        pg_catalog.string_agg(DISTINCT job.nodename || ':' || job.nodeport, ', ')
            FILTER (WHERE job.active AND job.is_here AND job.has_wrong_host),
        -- Before pg_cron 1.5, two jobs of every minute are a tick every half minute.
        pg_catalog.min(job.seconds) FILTER (WHERE job.active AND job.is_here)
        / greatest(pg_catalog.count(DISTINCT job.command) FILTER (WHERE job.active AND job.is_here), 1)
    INTO active_jobs, inactive_jobs, elsewhere, wrong_host, period
    FROM (
        SELECT
            cron.job.active,
            cron.job.command,
            cron.job.database,
            cron.job.nodename,
            cron.job.nodeport,
            cron.job.database = pg_catalog.current_database() AS is_here,
            cron.job.jobname IN ('audius_challenges tick', 'audius_challenges tick +30s') AS has_our_name,
            pg_catalog.current_setting('cron.use_background_workers', TRUE) = 'off'
            AND (
                cron.job.nodename IS DISTINCT FROM pg_catalog.current_setting('cron.host', TRUE)
                OR cron.job.nodeport <> pg_catalog.current_setting('port')::integer
            ) AS has_wrong_host,
            CASE
                WHEN cron.job.schedule ~ '^[0-9]+ seconds?$'
                    THEN pg_catalog.substring(cron.job.schedule, '[0-9]+')::integer
                WHEN cron.job.schedule = '* * * * *' THEN 60
                WHEN cron.job.schedule ~ '^[*]/[0-9]+ [*] [*] [*] [*]$'
                    THEN pg_catalog.substring(cron.job.schedule, '[0-9]+')::integer * 60
                WHEN cron.job.schedule ~ '^[0-9]+ [*] [*] [*] [*]$' THEN 3600
                ELSE 86400
            END AS seconds
        FROM cron.job
        WHERE cron.job.command ~* '^ *call +audius_challenges[.]tick *[(]'
    ) AS job;
END
$function$;

COMMENT ON FUNCTION audius_challenges.schedule_facts() IS
'What there is to see of the schedule of this database: the database of pg_cron, whether its launcher runs, jobs that '
'tick this database, every how many seconds, and how many jobs of pg_cron run at once';

CREATE FUNCTION audius_challenges.tick_problem()
RETURNS text
LANGUAGE plpython3u
STABLE
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO'
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.tick_problem(plpy)
$function$;

COMMENT ON FUNCTION audius_challenges.tick_problem() IS
'Why challenges do not tick, and what to do about it; null: they do';

CREATE VIEW @extschema@.challenge_status AS
SELECT
    status.*,
    audius_challenges.unpayable_rows(status.challenge_id) AS unpayable_rows,
    (
        SELECT pg_catalog.count(DISTINCT aside.user_id)
        FROM audius_challenges.set_aside AS aside
        WHERE aside.challenge_id OPERATOR (pg_catalog.=) status.challenge_id
    ) AS users_set_aside,
    (SELECT audius_challenges.tick_problem()) AS tick_problem
FROM audius_challenges.status() AS status;

COMMENT ON VIEW @extschema@.challenge_status IS 'State of each challenge, in run order';
COMMENT ON COLUMN @extschema@.challenge_status.challenge_id IS 'challenges.id';
COMMENT ON COLUMN @extschema@.challenge_status.description IS 'What the challenge rewards';
COMMENT ON COLUMN @extschema@.challenge_status.status IS
'ok; failing: the last run failed; inactive or absent in the catalog; stopped: nothing ticks; late: a tick is overdue; '
'never run; first build or catching up: the sweep has not examined all users yet; elsewhere: of a node of shares, '
'whose primary does it';
COMMENT ON COLUMN @extschema@.challenge_status.last_run IS 'When it last ran, with or without success';
COMMENT ON COLUMN @extschema@.challenge_status.last_success IS 'When it last ran without an error';
COMMENT ON COLUMN @extschema@.challenge_status.consecutive_failures IS 'Failed runs since the last success';
COMMENT ON COLUMN @extschema@.challenge_status.last_error IS 'The last error, kept after it has been resolved';
COMMENT ON COLUMN @extschema@.challenge_status.last_error_at IS 'When the last error happened';
COMMENT ON COLUMN @extschema@.challenge_status.sweep_progress IS
'Progress of the sweep''s current round over all users, in percent of the user ids';
COMMENT ON COLUMN @extschema@.challenge_status.sweep_position IS
'The last user id that the sweep has examined in its current round';
COMMENT ON COLUMN @extschema@.challenge_status.sweep_rounds IS 'Completed rounds of the sweep';
COMMENT ON COLUMN @extschema@.challenge_status.sweep_finished_at IS 'When the last round was completed';
COMMENT ON COLUMN @extschema@.challenge_status.unpayable_rows IS
'Complete rows whose completed_blocknumber is null: a disburser that pages by it never pays them. '
'Counting reads the challenge''s user_challenges; leave the column out when polling often';
COMMENT ON COLUMN @extschema@.challenge_status.users_set_aside IS
'Users whose rows cannot be written, in whole or in part, while all others are; see audius_challenges.set_aside';
COMMENT ON COLUMN @extschema@.challenge_status.tick_problem IS
'Why challenges do not tick, and what to do about it; null: they do';
