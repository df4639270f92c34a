-- CREATE EXTENSION and DROP EXTENSION: what they leave alone, what they fill in, and when they schedule.
BEGIN;
SELECT plan(21);

CREATE TEMPORARY TABLE known AS
SELECT s.challenge_id::text
FROM challenge_status AS s;

-- DROP EXTENSION.
SELECT jobname FROM schedule_challenges() WHERE jobname = '';
SELECT build.person(1, is_verified => TRUE, bio => 'Viola.');
SELECT build.run(ARRAY['p', 'v']);
CREATE TEMPORARY TABLE kept AS
SELECT to_jsonb(c) AS content FROM challenges AS c
UNION ALL
SELECT to_jsonb(c) FROM user_challenges AS c
UNION ALL
SELECT to_jsonb(c) FROM challenge_profile_completion AS c;
DROP EXTENSION audius_challenges;
SELECT bag_eq(
    $$SELECT to_jsonb(c) FROM challenges AS c
    UNION ALL
    SELECT to_jsonb(c) FROM user_challenges AS c
    UNION ALL
    SELECT to_jsonb(c) FROM challenge_profile_completion AS c$$,
    $$SELECT content FROM kept$$,
    'DROP EXTENSION leaves every row of the application''s tables'
);
SELECT results_eq(
    $$SELECT count(*) FROM kept$$,
    $$SELECT 3 + count(*) FROM challenges$$,
    'there were the catalog, two user challenges and a profile to lose'
);
SELECT hasnt_function('public', 'reconcile_challenges', 'DROP EXTENSION takes its functions');
SELECT hasnt_view('public', 'challenge_status', 'DROP EXTENSION takes its view');
SELECT hasnt_view('public', 'undisbursed_challenges', 'and the other one');
SELECT hasnt_schema('audius_challenges', 'DROP EXTENSION takes its schema');

-- Where another service may be paying: rows in user_challenges. Two rows of the catalog are missing, one differs.
DELETE FROM cron.job;
DELETE FROM challenges WHERE id IN ('tt', 'tut');
UPDATE challenges SET amount = '8', active = FALSE WHERE id = 'fp';
INSERT INTO challenges (id, type, amount, active) VALUES ('ft', 'aggregate', '5', TRUE);
CREATE TEMPORARY TABLE before AS
SELECT
    c.*,
    c.ctid AS place
FROM challenges AS c;
CREATE EXTENSION audius_challenges;
SELECT bag_eq(
    $$SELECT c.*, c.ctid AS place FROM challenges AS c$$,
    $$SELECT before.* FROM before$$,
    'CREATE EXTENSION leaves a catalog with rows as it is, what differs and what is missing included'
);
SELECT is_empty(
    $$SELECT jobname FROM cron.job$$,
    'CREATE EXTENSION does not schedule itself where user_challenges has rows'
);
SELECT results_eq(
    $$SELECT count(*) FROM challenge_status WHERE last_run IS NOT NULL$$,
    $$VALUES (0::bigint)$$,
    'CREATE EXTENSION runs nothing'
);
SELECT results_eq(
    $$SELECT challenge_id, rows_inserted, rows_updated FROM reconcile_challenges(ARRAY['v', 'p'])$$,
    $$VALUES ('p', 0::bigint, 0::bigint), ('v', 0, 0)$$,
    'an extension that was created anew finds the rows of the one before it'
);

-- Where nobody pays yet.
DROP EXTENSION audius_challenges;
DELETE FROM user_challenges;
CREATE EXTENSION audius_challenges;
SELECT results_eq(
    $$SELECT count(*) FROM cron.job WHERE jobname IN ('audius_challenges tick', 'audius_challenges trim')$$,
    $$VALUES (2::bigint)$$,
    'CREATE EXTENSION schedules itself where user_challenges is empty and pg_cron is there'
);
SELECT is_empty(
    $$SELECT specifier FROM user_challenges$$,
    'CREATE EXTENSION writes no user challenge'
);

-- Without pg_cron.
DROP EXTENSION audius_challenges;
DROP EXTENSION pg_cron;
SELECT lives_ok(
    $$CREATE EXTENSION audius_challenges$$,
    'CREATE EXTENSION works without pg_cron'
);
SELECT results_eq(
    $$SELECT status, rows_inserted FROM reconcile_challenges(ARRAY['v'])$$,
    $$VALUES ('ok', 1::bigint)$$,
    'runs by hand work without pg_cron'
);
SELECT lives_ok(
    $$DROP EXTENSION audius_challenges$$,
    'DROP EXTENSION works without pg_cron'
);

-- In a schema without discovery tables, as in an empty database or one that is just being restored.
CREATE SCHEMA empty_one;
DELETE FROM challenges WHERE id = 'tp';
CREATE TEMPORARY TABLE untouched AS
SELECT
    c.*,
    c.ctid AS place
FROM challenges AS c;
SELECT lives_ok(
    $$CREATE EXTENSION audius_challenges SCHEMA empty_one$$,
    'CREATE EXTENSION works without the discovery tables'
);
SELECT results_eq(
    $$SELECT c.relname FROM pg_class AS c
    INNER JOIN pg_namespace AS n ON c.relnamespace = n.oid
    WHERE n.nspname = 'empty_one' ORDER BY c.relname$$,
    $$VALUES ('challenge_history'::name), ('challenge_status'), ('undisbursed_challenges')$$,
    'without the discovery tables CREATE EXTENSION touches nothing but its own objects'
);
SELECT bag_eq(
    $$SELECT c.*, c.ctid AS place FROM challenges AS c$$,
    $$SELECT untouched.* FROM untouched$$,
    'a catalog in another schema is none of its business'
);
SELECT throws_like(
    $$SELECT * FROM empty_one.sync_challenge_catalog()$$,
    '%challenges%',
    'without the discovery tables aligning the catalog is an error that names the table'
);
SELECT bag_eq(
    $$SELECT challenge_id::text FROM empty_one.challenge_status$$,
    $$SELECT challenge_id FROM known$$,
    'without the discovery tables the status can be read'
);
SELECT bag_eq(
    $$SELECT challenge_id FROM empty_one.reconcile_challenges() WHERE status = 'failed' AND error LIKE '%challenges%'$$,
    $$SELECT challenge_id FROM known$$,
    'without the discovery tables every challenge of a run fails, and says which table is missing'
);

SELECT * FROM finish();
ROLLBACK;
