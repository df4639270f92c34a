-- What runs did, and numbers for machines.

CREATE VIEW @extschema@.challenge_history AS
SELECT
    history.started_at,
    history.challenge_id,
    history.status,
    history.duration,
    history.users_examined,
    history.rows_inserted,
    history.rows_updated,
    history.rows_completed,
    history.users_set_aside,
    history.error,
    history.runs,
    history.ended_at
FROM audius_challenges.history;

COMMENT ON VIEW @extschema@.challenge_history IS
'What runs did, one row for each run and challenge that wrote, failed or set somebody aside; kept for '
'audius_challenges.history_days. Sums by day, kept for good, are in audius_challenges.challenge_day';
COMMENT ON COLUMN @extschema@.challenge_history.started_at IS
'When the challenge began in the run, or in the first of the runs; when the tick began, if it was cut off';
COMMENT ON COLUMN @extschema@.challenge_history.challenge_id IS 'challenges.id';
COMMENT ON COLUMN @extschema@.challenge_history.status IS 'ok, failed, or started from now (by start_from_now)';
COMMENT ON COLUMN @extschema@.challenge_history.duration IS
'How long the challenge took, in all of the runs; null: the tick was cut off';
COMMENT ON COLUMN @extschema@.challenge_history.users_examined IS
'Users whose progress was computed; for c comments, for trending winners';
COMMENT ON COLUMN @extschema@.challenge_history.rows_inserted IS 'Rows of user_challenges that were inserted';
COMMENT ON COLUMN @extschema@.challenge_history.rows_updated IS 'Rows of user_challenges that were updated';
COMMENT ON COLUMN @extschema@.challenge_history.rows_completed IS 'How many of both are now complete';
COMMENT ON COLUMN @extschema@.challenge_history.users_set_aside IS 'Users who were set aside, and had not been before';
COMMENT ON COLUMN @extschema@.challenge_history.error IS 'The error, the last one, if it failed';
COMMENT ON COLUMN @extschema@.challenge_history.runs IS
'How many runs the row stands for: more than one, if each failed with the same error (but for numbers in it)';
COMMENT ON COLUMN @extschema@.challenge_history.ended_at IS 'When it ended, in the last of the runs';

CREATE FUNCTION audius_challenges.metrics()
RETURNS TABLE (
    name text,
    labels jsonb,
    value double precision
)
LANGUAGE plpython3u
STABLE
ROWS 200
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO'
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.metrics(plpy)
$function$;

COMMENT ON FUNCTION audius_challenges.metrics() IS
'How challenges and ticks fare, in numbers for machines: names, labels and values of OpenMetrics samples';
