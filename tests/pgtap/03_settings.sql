-- The settings, audius_challenges.<name>: what they do, and which spellings they take.
BEGIN;
SELECT plan(21);

SELECT build.person(user_id, is_verified => TRUE) FROM generate_series(1, 3) AS user_id;

-- Off.
SET LOCAL audius_challenges.enabled = 'off';
SELECT results_eq(
    $$SELECT challenge_id, status, rows_inserted FROM reconcile_challenges()$$,
    $$SELECT challenge_id::text, 'inactive', 0::bigint FROM challenge_status$$,
    'switched off, a run reports every challenge as inactive'
);
SELECT alike(error, '%audius_challenges.enabled%', 'switched off, a run says which setting is the reason')
FROM reconcile_challenges(ARRAY['v'], full_scan => TRUE);
SELECT is_empty(
    $$SELECT specifier FROM user_challenges$$,
    'switched off, a run writes nothing'
);
CREATE FUNCTION pg_temp.status_when_enabled_is(spelling text) RETURNS text
LANGUAGE sql AS $$
    SELECT set_config('audius_challenges.enabled', spelling, TRUE);
    SELECT r.status FROM public.reconcile_challenges(ARRAY['v'], dry_run => TRUE) AS r;
$$;
SELECT results_eq(
    $$SELECT spelling, pg_temp.status_when_enabled_is(spelling)
    FROM unnest(ARRAY['false', 'OFF', 'no', '0', 'true', 'ON', 'yes', '1', '']) AS spelling$$,
    $$VALUES
        ('false', 'inactive'), ('OFF', 'inactive'), ('no', 'inactive'), ('0', 'inactive'), ('true', 'ok'),
        ('ON', 'ok'), ('yes', 'ok'), ('1', 'ok'), ('', 'ok')$$,
    'on and off have the spellings of a boolean, and empty is the default: on'
);

-- A mass completion. The first build is not bounded.
SET LOCAL audius_challenges.enabled = 'on';
SET LOCAL audius_challenges.max_completions = '1';
SELECT results_eq(
    $$SELECT status, rows_inserted FROM reconcile_challenges(ARRAY['v', 'fp'])$$,
    $$VALUES ('ok', 0::bigint), ('ok', 3)$$,
    'a first build may complete more than max_completions'
);
SELECT build.person(user_id, is_verified => TRUE, bio => 'New.') FROM generate_series(4, 5) AS user_id;
SELECT build.playlist(4, 4, blocknumber => 28350000);
CREATE TEMPORARY TABLE refused AS
SELECT r.* FROM reconcile_challenges(ARRAY['v', 'fp']) AS r;
SELECT results_eq(
    $$SELECT challenge_id, status, rows_inserted, rows_updated, rows_completed FROM refused$$,
    $$VALUES ('fp', 'ok', 1::bigint, 0::bigint, 1::bigint), ('v', 'failed', 0, 0, 0)$$,
    'more completions of one challenge in one run than max_completions fail that challenge'
);
SELECT alike(
    error,
    '%"v"%2%1%Check%audius_challenges.max_completions%reconcile_challenges%',
    'a refused mass completion says of which challenge, how many, the limit, what to check, and how to let it pass'
)
FROM refused
WHERE challenge_id = 'v';
SELECT results_eq(
    $$SELECT user_id FROM user_challenges WHERE challenge_id = 'v' ORDER BY user_id$$,
    $$VALUES (1), (2), (3)$$,
    'a refused mass completion writes nothing'
);
SELECT results_eq(
    $$SELECT challenge_id, status FROM reconcile_challenges(ARRAY['v'], full_scan => TRUE)$$,
    $$VALUES ('v', 'failed')$$,
    'a full scan is bounded by max_completions too'
);
SELECT results_eq(
    $$SELECT challenge_id, status FROM reconcile_challenges(ARRAY['v'], dry_run => TRUE)$$,
    $$VALUES ('v', 'failed')$$,
    'a dry run shows that a run would be refused'
);
SET LOCAL audius_challenges.max_completions = '2';
SELECT results_eq(
    $$SELECT status, rows_completed FROM reconcile_challenges(ARRAY['v'])$$,
    $$VALUES ('ok', 2::bigint)$$,
    'exactly max_completions completions pass, and what was refused is not lost'
);
SET LOCAL audius_challenges.max_completions = '0';
SELECT results_eq(
    $$SELECT status, rows_inserted, rows_completed FROM reconcile_challenges(ARRAY['p'])$$,
    $$VALUES ('ok', 2::bigint, 0::bigint)$$,
    'rows that are not complete are not bounded'
);

-- A first build ends, even where nobody had anything; a change of the catalog does not begin another.
SET LOCAL audius_challenges.max_completions = '1';
SELECT build.run(ARRAY['u']);
SELECT build.track(user_id, user_id) FROM generate_series(2, 3) AS user_id;
UPDATE challenges SET starting_block = 0, step_count = 1 WHERE id = 'u';
SELECT results_eq(
    $$SELECT status, rows_completed FROM reconcile_challenges(ARRAY['u'])$$,
    $$VALUES ('failed', 0::bigint)$$,
    'a changed catalog row that completes more than max_completions is refused, also where there was no row yet'
);
SELECT results_eq(
    $$SELECT status FROM reconcile_challenges(ARRAY['u'], full_scan => TRUE)$$,
    $$VALUES ('failed')$$,
    'what was refused is refused again'
);

-- A refused profile completion keeps neither of its two tables.
SET LOCAL audius_challenges.max_completions = '0';
UPDATE users SET bio = 'Newer.', name = 'Al' WHERE user_id IN (4, 5);
UPDATE challenges SET step_count = 2 WHERE id = 'p';
SELECT results_eq(
    $$SELECT status FROM reconcile_challenges(ARRAY['p'])$$,
    $$VALUES ('failed')$$,
    'a completion by an update is bounded as well as one by an insert'
);
SELECT results_eq(
    $$SELECT user_id, profile_name FROM challenge_profile_completion ORDER BY user_id$$,
    $$VALUES (4, FALSE), (5, FALSE)$$,
    'a refused mass completion leaves challenge_profile_completion as it was'
);

-- Trending and the streak are bounded too.
SELECT build.track(1, 1);
SELECT build.track_score(1, 1);
SELECT results_eq(
    $$SELECT status FROM reconcile_challenges(ARRAY['tt'], as_of => '2025-03-06 10:00+00')$$,
    $$VALUES ('ok')$$,
    'a Thursday completes nothing'
);
SELECT results_eq(
    $$SELECT status, rows_inserted FROM reconcile_challenges(ARRAY['tt'], as_of => '2025-03-07 10:00+00')$$,
    $$VALUES ('failed', 0::bigint)$$,
    'trending is bounded by max_completions'
);
SELECT is_empty(
    $$SELECT id FROM trending_results$$,
    'a refused week leaves no results'
);

-- Empty is the default.
SET LOCAL audius_challenges.max_completions = '';
SELECT results_eq(
    $$SELECT status, rows_completed FROM reconcile_challenges(ARRAY['tt'], as_of => '2025-03-07 10:00+00')$$,
    $$VALUES ('ok', 1::bigint)$$,
    'an empty max_completions is the default'
);
SELECT results_eq(
    $$SELECT count(*) FROM reconcile_challenges() WHERE status = 'failed'$$,
    $$VALUES (0::bigint)$$,
    'with every setting at its default no challenge fails'
);

SELECT * FROM finish();
ROLLBACK;
