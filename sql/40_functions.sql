-- What people and pg_cron call: a few lines each, that hand over to the package.
--
-- No routine goes by the schema that it was created in, which may be renamed: the package looks up where the extension
-- is now. Those that return sets are to the letter as in 1.1.0, schema included: a session that is just calling one
-- would crash if an upgrade replaced it (docs/how-to/release.md).
--
-- A run sets search_path, jit, work_mem, lock_timeout and datestyle for its transaction. The SET clauses here have the
-- caller's values come back when the function ends; a procedure that commits cannot have them, and need not.

CREATE FUNCTION @extschema@.reconcile_challenges(
    challenge_ids text[] DEFAULT NULL,
    full_scan boolean DEFAULT FALSE,
    dry_run boolean DEFAULT FALSE,
    as_of timestamptz DEFAULT pg_catalog.now()
)
RETURNS TABLE (
    challenge_id text,
    status text,
    users_examined bigint,
    rows_inserted bigint,
    rows_updated bigint,
    rows_completed bigint,
    duration interval,
    error text
)
LANGUAGE plpython3u
VOLATILE
ROWS 11
SET search_path = pg_catalog, @extschema@, pg_temp
SET jit = off
SET work_mem = '64MB'
SET lock_timeout = '2s'
SET datestyle = 'ISO'
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.reconcile(plpy, '@extschema@', challenge_ids, full_scan, dry_run, as_of)
$function$;

COMMENT ON FUNCTION @extschema@.reconcile_challenges(text[], boolean, boolean, timestamptz) IS
'Reconciles user_challenges with the source tables, in the caller''s transaction; returns one row for each challenge. '
'challenge_ids: null for all; full_scan: examine all users now; dry_run: report what a run would do and roll it back; '
'as_of: the clock of the run, which decides the trending week and every timestamp written';

CREATE PROCEDURE audius_challenges.tick(delay interval DEFAULT '0')
LANGUAGE plpython3u
AS $procedure$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
entry.wait(plpy, delay)
# Again, if there was an upgrade meanwhile.
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
entry.tick(plpy)
$procedure$;

COMMENT ON PROCEDURE audius_challenges.tick (interval) IS
'What pg_cron runs: every challenge in a transaction of its own, after sleeping for delay (at most 1 hour). '
'Ends in an error that names the challenges that failed; the other challenges are committed';

CREATE PROCEDURE audius_challenges.help()
LANGUAGE plpython3u
AS $procedure$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
entry.help_out(plpy)
$procedure$;

COMMENT ON PROCEDURE audius_challenges.help () IS
'What jobs of helpers run: takes open slices, each in a transaction of its own, beside the ticks, until there have '
'been none for 35 seconds; in as many sessions as audius_challenges.workers says, less one. Ends in an error that '
'names the challenges that failed; other slices are committed';

CREATE FUNCTION audius_challenges.begin_full_scan(challenge_ids text[] DEFAULT NULL)
RETURNS SETOF text
LANGUAGE plpython3u
VOLATILE
ROWS 11
SET search_path = pg_catalog, pg_temp
SET jit = off
SET work_mem = '64MB'
SET lock_timeout = '2s'
SET datestyle = 'ISO'
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.begin_full_scan(plpy, challenge_ids)
$function$;

COMMENT ON FUNCTION audius_challenges.begin_full_scan(text[]) IS
'Has all users examined again, slice by slice, by the ticks that come and by helpers: challenge_ids, null for all; '
'returns the challenges for which that begins, which are those that are active and go by users';

CREATE FUNCTION audius_challenges.start_from_now(
    challenge_ids text[] DEFAULT NULL,
    dry_run boolean DEFAULT FALSE
)
RETURNS TABLE (
    challenge_id text,
    passed_over bigint
)
LANGUAGE plpython3u
VOLATILE
ROWS 11
SET search_path = pg_catalog, pg_temp
SET jit = off
SET work_mem = '64MB'
SET lock_timeout = '2s'
SET datestyle = 'ISO'
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.start_from_now(plpy, challenge_ids, dry_run)
$function$;

COMMENT ON FUNCTION audius_challenges.start_from_now(text[], boolean) IS
'For a database in which another service has been paying, or a challenge that is added to a living one: follows '
'changes from now on, without a first build, and passes over the single deeds that are there, for good. Returns the '
'challenges that start from now, and how many deeds of each are passed over. dry_run: report that and roll it back';

CREATE FUNCTION @extschema@.schedule_challenges(every interval DEFAULT '30 seconds')
RETURNS TABLE (
    jobid bigint,
    jobname text,
    schedule text,
    command text,
    database text
)
LANGUAGE plpython3u
VOLATILE
ROWS 3
SET search_path = pg_catalog, @extschema@, pg_temp
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.schedule(plpy, '@extschema@', every)
$function$;

COMMENT ON FUNCTION @extschema@.schedule_challenges(interval) IS
'Schedules audius_challenges.tick() with pg_cron in this database; replaces the extension''s schedule if there is one. '
'every: the interval between two ticks. Returns the jobs';

CREATE FUNCTION @extschema@.unschedule_challenges()
RETURNS TABLE (
    jobid bigint,
    jobname text,
    schedule text,
    command text,
    database text
)
LANGUAGE plpython3u
VOLATILE
ROWS 3
SET search_path = pg_catalog, @extschema@, pg_temp
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.unschedule(plpy, '@extschema@')
$function$;

COMMENT ON FUNCTION @extschema@.unschedule_challenges() IS
'Removes the extension''s schedule and returns the jobs that were removed';

CREATE FUNCTION audius_challenges.trim_run_details()
RETURNS bigint
LANGUAGE plpython3u
VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.trim_run_details(plpy)
$function$;

COMMENT ON FUNCTION audius_challenges.trim_run_details() IS
'Deletes what pg_cron recorded of the extension''s jobs more than 7 days ago; returns the number of rows';

CREATE FUNCTION @extschema@.sync_challenge_catalog(
    environment text DEFAULT 'prod',
    challenge_ids text[] DEFAULT NULL
)
RETURNS TABLE (
    challenge_id text,
    action text,
    details text
)
LANGUAGE plpython3u
VOLATILE
ROWS 11
SET search_path = pg_catalog, pg_temp
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.sync_catalog(plpy, environment, challenge_ids)
$function$;

COMMENT ON FUNCTION @extschema@.sync_challenge_catalog(text, text[]) IS
'Aligns the extension''s rows of challenges, or just those of challenge_ids, with the catalog of an environment '
'(prod, stage or dev); returns what changed (action: inserted or updated); rows that do not differ are not written';

-- STABLE, so that PostgreSQL itself lets it write nothing.
CREATE FUNCTION @extschema@.explain_challenge(
    user_id integer,
    challenge_id text DEFAULT NULL
)
RETURNS TABLE (
    challenge_id text,
    line text,
    what text,
    demanded text,
    has text,
    holds boolean,
    since timestamptz,
    state text,
    says text,
    specifier text,
    amount integer,
    is_paid boolean,
    claimable_at timestamptz
)
LANGUAGE plpython3u
STABLE
ROWS 100
SET search_path = pg_catalog, pg_temp
SET row_security = off
SET jit = off
SET work_mem = '64MB'
SET datestyle = 'ISO'
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.explain(plpy, user_id, challenge_id)
$function$;

COMMENT ON FUNCTION @extschema@.explain_challenge(integer, text) IS
'Why a user has a reward or has none. For each challenge (null for all): a line for each condition (what is demanded, '
'what he has, whether it holds, since when), one for each reward that there is or would be, and the verdict, a '
'sentence that can be passed on. By the SQL that runs execute; writes nothing';

CREATE FUNCTION audius_challenges.trigger_needs(role_name text)
RETURNS TABLE (
    trigger_name text,
    table_name text,
    function_name text,
    grants text[]
)
LANGUAGE plpython3u
STABLE
STRICT
ROWS 3
SET search_path = pg_catalog, pg_temp
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.trigger_needs(plpy, role_name)
$function$;

COMMENT ON FUNCTION audius_challenges.trigger_needs(text) IS
'What a role that runs challenges seems to lack for the application''s triggers, one row for each trigger: read from '
'the text of its function; grants is empty where that has no text';

CREATE FUNCTION audius_challenges.install()
RETURNS void
LANGUAGE plpython3u
VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
entry.install(plpy)
$function$;

COMMENT ON FUNCTION audius_challenges.install() IS
'Called at the end of CREATE EXTENSION: fills an empty catalog and schedules the ticks, in a discovery database; '
'reports in notices what it did';
