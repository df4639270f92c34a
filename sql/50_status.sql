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
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO'
AS $function$
plpy.execute('SELECT audius_challenges.load()')
from audius_challenges import entry
return entry.status(plpy)
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

CREATE VIEW @extschema@.challenge_status AS
SELECT
    status.*,
    audius_challenges.unpayable_rows(status.challenge_id) AS unpayable_rows,
    (
        SELECT pg_catalog.count(DISTINCT aside.user_id)
        FROM audius_challenges.set_aside AS aside
        WHERE aside.challenge_id OPERATOR (pg_catalog.=) status.challenge_id
    ) AS users_set_aside
FROM audius_challenges.status() AS status;

COMMENT ON VIEW @extschema@.challenge_status IS 'State of each challenge, in run order';
COMMENT ON COLUMN @extschema@.challenge_status.challenge_id IS 'challenges.id';
COMMENT ON COLUMN @extschema@.challenge_status.description IS 'What the challenge rewards';
COMMENT ON COLUMN @extschema@.challenge_status.status IS
'ok; failing: the last run failed; first build or catching up: the sweep has not examined all users yet; '
'inactive or absent in the catalog; never run';
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
