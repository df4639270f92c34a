-- start_from_now, for every challenge there is: what is there already is not paid by the feed, what comes later is.
-- In transactions that commit: to a feed all that its own transaction has written is new. For challenge number n, user
-- 1000 + n qualifies before it starts, user 2000 + n afterwards.
-- What fails here leaves a test without a plan, which is a failure; the last transaction cleans up after it.
\set ON_ERROR_STOP 0
BEGIN;
SELECT build.empty();
UPDATE challenges SET active = TRUE, starting_block = 0;
SELECT build.qualify(challenge_id, 1000 + number)
FROM build.challenges();
COMMIT;

BEGIN;
CREATE TEMPORARY TABLE started AS
SELECT s.challenge_id AS id
FROM audius_challenges.start_from_now() AS s;
COMMIT;

BEGIN;
SELECT no_plan();
SET LOCAL audius_challenges.sweep_users = '0';
CREATE TEMPORARY TABLE challenge AS
SELECT
    b.challenge_id,
    b.number,
    c.type
FROM build.challenges() AS b
INNER JOIN challenges AS c ON b.challenge_id = c.id;
-- Two runs of all challenges; trending goes by Fridays.
CREATE FUNCTION pg_temp.run_twice(friday timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    FOR n IN 1 .. 2 LOOP
        PERFORM build.run(array_agg(c.challenge_id)) FROM pg_temp.challenge AS c WHERE c.type <> 'trending';
        PERFORM build.run(array_agg(c.challenge_id), as_of => friday) FROM pg_temp.challenge AS c
        WHERE c.type = 'trending';
    END LOOP;
END
$$;

SELECT results_eq(
    $$SELECT id::text FROM started$$,
    $$SELECT challenge_id::text FROM challenge ORDER BY number$$,
    'every challenge starts from now'
);
SELECT pg_temp.run_twice('2025-03-07 10:00+00');
SELECT is_empty(
    format(
        'SELECT specifier FROM user_challenges WHERE challenge_id = %L AND user_id = %s', challenge_id, 1000 + number
    ),
    format('%s: start_from_now leaves unpaid what was there', challenge_id)
)
FROM challenge
WHERE NOT build.is_exempt(challenge_id, 'passed over');

SELECT build.qualify(challenge_id, 2000 + number)
FROM challenge;
SELECT pg_temp.run_twice('2025-03-14 10:00+00');
SELECT isnt_empty(
    format(
        'SELECT specifier FROM user_challenges WHERE challenge_id = %L AND user_id = %s AND is_complete',
        challenge_id, 2000 + number
    ),
    format('%s: what comes after start_from_now is paid', challenge_id)
)
FROM challenge
WHERE NOT build.is_exempt(challenge_id, 'counted afterwards');
SELECT is_empty(
    format(
        'SELECT specifier FROM user_challenges WHERE challenge_id = %L AND user_id = %s', challenge_id, 1000 + number
    ),
    format('%s: what was there stays unpaid when others are paid', challenge_id)
)
FROM challenge
WHERE NOT build.is_exempt(challenge_id, 'passed over');

SELECT * FROM finish();
ROLLBACK;

BEGIN;
SELECT build.empty();
COMMIT;
