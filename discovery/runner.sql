-- The role challenge_runner for tests: it has what grant_run grants, and may build rows as the indexer and the
-- application do, by privileges that no run needs. So what grant_run does not grant, it has not.
-- Load after builders.sql and the extension. The builders run with their owner's privileges from then on.

CREATE ROLE challenge_runner;
SELECT audius_challenges.grant_run('challenge_runner');

GRANT USAGE ON SCHEMA build TO challenge_runner;
GRANT USAGE ON SEQUENCE plays_id_seq TO challenge_runner;
GRANT SELECT ON user_challenges_log TO challenge_runner;

DO $$
DECLARE
    builder regprocedure;
    named record;
BEGIN
    FOR builder IN
        -- A run has the privileges of the role, and no others.
        SELECT oid FROM pg_proc WHERE pronamespace = 'build'::regnamespace AND proname <> 'run'
    LOOP
        EXECUTE format('ALTER ROUTINE %s SECURITY DEFINER', builder);
    END LOOP;
    -- A run reads the source tables and writes the derived ones. So tests may write those, and delete from these.
    FOR named IN
        SELECT
            relname,
            relname IN (
                'challenges', 'user_challenges', 'challenge_profile_completion', 'challenge_listen_streak',
                'trending_results', 'notification'
            ) AS is_derived
        FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
    LOOP
        EXECUTE format(
            'GRANT %s ON %I TO challenge_runner',
            CASE WHEN named.is_derived THEN 'DELETE' ELSE 'INSERT, UPDATE, DELETE' END,
            named.relname
        );
    END LOOP;
END
$$;
