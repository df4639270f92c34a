-- explain_challenge: why a user has a reward or has none, in each state that there is.
BEGIN;
SELECT plan(53);

UPDATE challenges SET active = TRUE, starting_block = 0;
SELECT build.block(1000);

CREATE FUNCTION pg_temp.verdict(user_id integer, challenge_id text) RETURNS text
LANGUAGE sql AS $$
    SELECT state || ': ' || says FROM public.explain_challenge(user_id, challenge_id) WHERE line = 'verdict';
$$;
CREATE FUNCTION pg_temp.condition(user_id integer, challenge_id text, what text) RETURNS text
LANGUAGE sql AS $$
    SELECT concat_ws(' | ', explained.demanded, explained.has, explained.holds, explained.since AT TIME ZONE 'UTC')
    FROM public.explain_challenge(user_id, challenge_id) AS explained
    WHERE explained.line = 'condition' AND explained.what = condition.what;
$$;
CREATE FUNCTION pg_temp.rewards(user_id integer, challenge_id text) RETURNS SETOF text
LANGUAGE sql AS $$
    SELECT concat_ws(' ', explained.specifier, explained.state, explained.amount, explained.is_paid)
    FROM public.explain_challenge(user_id, challenge_id) AS explained
    WHERE explained.line = 'reward'
    ORDER BY explained.specifier;
$$;
CREATE FUNCTION pg_temp.says(user_id integer, challenge_id text) RETURNS SETOF text
LANGUAGE sql AS $$
    SELECT explained.says
    FROM public.explain_challenge(user_id, challenge_id) AS explained
    WHERE explained.line = 'reward'
    ORDER BY explained.specifier;
$$;

-- What can be asked.
SELECT is(
    build.error_of($$SELECT * FROM explain_challenge(1, 'pp')$$),
    '22023: audius_challenges: unknown challenge id: "pp"  The challenges are '
    || (SELECT string_agg(challenge_id, ', ') FROM challenge_status) || '.',
    'an unknown challenge is an error that names the known ones'
);
SELECT matches(
    build.error_of($$SELECT * FROM explain_challenge(NULL)$$), '^22004: .*user_id must not be null',
    'so is a user that is null'
);
SELECT results_eq(
    $$SELECT challenge_id FROM explain_challenge(1) WHERE line = 'verdict'$$,
    $$SELECT challenge_id FROM challenge_status$$,
    'each challenge has a verdict, in run order'
);
SELECT results_eq(
    $$SELECT line FROM explain_challenge(1, 'u')$$,
    $$VALUES ('condition'), ('verdict')$$,
    'one can be asked for, and comes with its conditions first and the verdict last'
);

-- Accounts.
SELECT is(
    pg_temp.verdict(4711, 'v'),
    'ineligible: Nothing is gained and nothing moves without an active account: no row.',
    'a user who is not there is an answer, not an error'
);
SELECT build.person(1, is_current => FALSE);
SELECT is(pg_temp.condition(1, 'v', 'account'), 'a current row in users, not deactivated | no current row | f',
    'nor is one without a current row');
SELECT build.person(2, is_verified => TRUE, is_deactivated => TRUE);
SELECT is(
    pg_temp.verdict(2, 'v'),
    'ineligible: Nothing is gained and nothing moves without an active account: deactivated.',
    'a deactivated account is ineligible'
);
SELECT is(pg_temp.condition(2, 'v', 'verification'), 'verified | verified | t', 'what it has is said all the same');
SELECT build.person(3, is_verified => TRUE, is_deactivated => TRUE, blocknumber => 7);
SELECT build.person(3, is_verified => TRUE, blocknumber => 6, txhash => 'other');
SELECT is(
    pg_temp.condition(3, 'v', 'account'),
    'a current row in users, not deactivated | deactivated by the row that decides, of block 7: 2 are current | f',
    'of two current rows it says which decides'
);
SELECT build.person(4);
SELECT is(
    pg_temp.verdict(4, 'p1'),
    'ineligible: The account does not qualify. Missing: verification (not verified; demanded: verified);'
    ' plays (0; demanded: 250 since January 2025, of tracks that are not deleted).',
    'who cannot take part is ineligible'
);

-- Below the target, in progress, with the next run, complete.
SELECT is(
    pg_temp.verdict(4, 'u'),
    'below_target: Not earned. Missing: tracks'
    ' (0 of 0; demanded: 3 that are public, not deleted, no stems, from block 0 on).',
    'nothing is below the target'
);
SELECT build.track(40, 4, created_at => '2025-02-01');
SELECT build.track(41, 4, created_at => '2025-02-02', is_unlisted => TRUE);
SELECT results_eq($$SELECT pg_temp.rewards(4, 'u')$$, $$VALUES ('4 in_progress 1 f')$$, 'one of three is in progress');
SELECT results_eq($$SELECT pg_temp.says(4, 'u')$$, $$VALUES ('1 of 3 steps.')$$, 'it says how far');
SELECT matches(
    pg_temp.verdict(4, 'u'),
    '^in_progress: In progress: 1 of 3 steps. Missing: tracks \(1 of 2; ',
    'so does the verdict'
);
SELECT build.track(42, 4, created_at => '2025-02-03');
SELECT build.track(43, 4, created_at => '2025-02-04');
SELECT is(
    pg_temp.condition(4, 'u', 'tracks'),
    '3 that are public, not deleted, no stems, from block 0 on | 3 of 4 | t | 2025-02-04 00:00:00',
    'a condition says since when it holds'
);
SELECT results_eq($$SELECT pg_temp.rewards(4, 'u')$$, $$VALUES ('4 next_run 1 f')$$, 'three come with the next run');
SELECT matches(
    pg_temp.verdict(4, 'u'),
    '^next_run: Earned: 1 reward, 1 \$AUDIO. The next run that examines the user completes it. Not yet examined: ',
    'that no run has examined him is said'
);
SELECT build.run(ARRAY['u'], as_of => '2025-03-05 05:06:07+00');
SELECT results_eq(
    $$SELECT specifier, state, amount, is_paid, claimable_at, says
    FROM explain_challenge(4, 'u')
    WHERE line = 'reward'$$,
    $$VALUES ('4', 'complete', 1, FALSE, '2025-03-12 05:06:07+00'::timestamptz,
        'Not paid; it can be claimed since 2025-03-12 05:06 UTC.')$$,
    'a complete row can be claimed from the end of the cooldown on'
);
SELECT is(
    pg_temp.verdict(4, 'u'),
    'complete: Complete: 1 reward, 1 $AUDIO. Not paid; it can be claimed since 2025-03-12 05:06 UTC.',
    'and is what the verdict says'
);
SELECT is(
    (SELECT claimable_at FROM explain_challenge(4, 'u') WHERE line = 'reward'),
    (SELECT claimable_at FROM undisbursed_challenges WHERE challenge_id = 'u' AND user_id = 4),
    'which is when the disburser sees it claimable'
);
UPDATE challenges SET cooldown_days = 100000 WHERE id = 'u';
SELECT matches(
    pg_temp.verdict(4, 'u'), 'it can be claimed from 2298-12-19 05:06 UTC', 'what cools down is said to'
);
SELECT build.disbursed('u', 4, '4');
SELECT results_eq($$SELECT pg_temp.rewards(4, 'u')$$, $$VALUES ('4 complete 1 t')$$, 'a row that was paid says so');
SELECT is(pg_temp.verdict(4, 'u'), 'complete: Complete: 1 reward, 1 $AUDIO. Paid.', 'so does the verdict');

-- The challenge.
UPDATE challenges SET active = FALSE WHERE id IN ('u', 'fp');
SELECT matches(pg_temp.verdict(4, 'u'), '^complete: ', 'a complete row stays complete');
SELECT build.playlist(40, 4, created_at => '2025-02-01');
SELECT is(
    pg_temp.verdict(4, 'fp'), 'inactive: The challenge is not active, so nothing moves.', 'an inactive one says so'
);
SELECT is_empty($$SELECT pg_temp.rewards(4, 'fp')$$, 'and has no reward to come');
SELECT matches(pg_temp.condition(4, 'fp', 'playlists and albums'), '1 \| t \| 2025-02-01', 'its conditions are told');
SET LOCAL ROLE NONE;
DELETE FROM challenges WHERE id = 'fp';
RESET ROLE;
SELECT is(
    pg_temp.verdict(4, 'fp'), 'absent: The challenge is not in the catalog, so nobody gains anything.',
    'so does an absent one'
);
UPDATE challenges SET amount = 'much' WHERE id = 'v';
SELECT matches(
    pg_temp.verdict(4, 'v'),
    '^failed: The challenge fails, and nothing moves until that is mended. The error: .*invalid amount.*"much"',
    'one whose catalog row makes no sense fails, as its next run will'
);
UPDATE challenges SET amount = '5', active = TRUE WHERE id = 'v';
UPDATE challenges SET step_count = 0 WHERE id = 'p';
SELECT build.run(ARRAY['p'], failing => ARRAY['p']);
UPDATE challenges SET step_count = 7 WHERE id = 'p';
SELECT matches(
    pg_temp.verdict(4, 'p'),
    '^failed: Failed at its last run \([-0-9]+ [0-9:]+ UTC\); the next run tries again. Not earned. .*'
    ' The error: .*invalid step_count',
    'one whose last run failed says when and why, until one succeeds, and what the next one does'
);

-- One after the other.
SELECT build.qualify('p2', 5);
SET LOCAL ROLE NONE;
DELETE FROM user_challenges WHERE user_id = 5;
RESET ROLE;
SELECT results_eq(
    $$SELECT pg_temp.rewards(5, 'p2')$$, $$VALUES ('5:1000 next_run 100 f')$$, 'p2 comes with p1, in one run'
);
SELECT is(
    pg_temp.condition(5, 'p2', 'challenge p1'), 'complete | complete with the next run | t', 'which is what it says'
);
UPDATE challenges SET active = FALSE WHERE id = 'p1';
SELECT is(pg_temp.verdict(5, 'p2'), 'waits: Waits: challenge p1 is not complete.', 'without p1 it waits');

-- Deeds.
SELECT build.person(user_id, is_verified => user_id = 10) FROM generate_series(10, 30) AS user_id;
SELECT build.user_event(user_id, referrer => 11, blocknumber => user_id) FROM generate_series(12, 18) AS user_id;
SELECT results_eq(
    $$SELECT pg_temp.rewards(11, 'r')$$,
    $$VALUES ('b:10 next_run 1 f'), ('b:11 cap_reached 1'), ('b:12 cap_reached 1'), ('b:c next_run 1 f'),
        ('b:d next_run 1 f'), ('b:e next_run 1 f'), ('b:f next_run 1 f')$$,
    'of seven users who were brought, five come with the next run, and the cap keeps back two'
);
SELECT build.run(ARRAY['r']);
SELECT is(
    pg_temp.verdict(11, 'r'), 'cap_reached: The limit of rewards is reached. So far: 5 rewards, 5 $AUDIO.',
    'once they are paid, the cap is what the others wait for'
);
SELECT is(pg_temp.condition(11, 'r', 'rewards so far'), 'fewer than 5 | 5 | f', 'it is a condition');
SELECT build.disbursed('m', 20, '14');
SELECT build.user_event(20, is_mobile_user => TRUE);
SELECT results_eq($$SELECT pg_temp.rewards(20, 'm')$$, $$VALUES ('14 paid_before t')$$, 'what was paid before is told');
SELECT is(pg_temp.verdict(20, 'm'), 'paid_before: Paid before, and never paid again.', 'and is the verdict');
SELECT build.user_event(21, referrer => 22);
SELECT build.disbursed('rd', 21, '15:1');
SELECT results_eq(
    $$SELECT pg_temp.says(21, 'rd')$$,
    $$VALUES ('Rewarded before, as challenge_disbursements tells: it is not rewarded again.')$$,
    'also where it was paid for somebody else'
);
SELECT build.comment(1, 23, created_at => '2025-02-03');
SELECT build.disbursed('c', 23, '23:202506');
SELECT results_eq(
    $$SELECT pg_temp.rewards(23, 'c')$$, $$VALUES ('17:202506 paid_before t')$$, 'or in an earlier format'
);
SELECT build.user_event(24, is_mobile_user => TRUE);
SELECT count(*) FROM audius_challenges.start_from_now('{m}') \g /dev/null
SELECT results_eq($$SELECT pg_temp.rewards(24, 'm')$$, $$VALUES ('18 passed_over f')$$, 'what was passed over is told');
SELECT is(
    pg_temp.verdict(24, 'm'),
    'passed_over: Passed over, for good: it was there before the challenge began here.', 'and is the verdict'
);

-- Set aside.
SELECT build.purchase(25, 26, amount => 3000000000000000000, signature => 'great');
SELECT results_eq(
    $$SELECT specifier, state, says FROM explain_challenge(25, 'b') WHERE line = 'reward'$$,
    $$VALUES ('19:1a', 'set_aside', 'Error: integer out of range (SQLSTATE 22003)')$$,
    'what cannot be written is told before it fails'
);
SELECT build.run(ARRAY['b']);
SELECT matches(
    pg_temp.verdict(25, 'b'), '^set_aside: Set aside: it cannot be written, .* Error: integer out of range',
    'and after it has failed'
);

-- Streaks and weeks.
SELECT build.play(27, 1, '2025-03-01 10:00');
SELECT build.play(27, 1, '2025-03-02 10:00');
SELECT results_eq(
    $$SELECT pg_temp.rewards(27, 'e')$$, $$VALUES ('1b2025030110 in_progress 7 f')$$, 'a streak is in progress'
);
SELECT is(
    pg_temp.condition(27, 'e', 'listens in a row'), '7, each 16 to 48 hours after the one before | 2 | f',
    'it says how many days it has'
);
SELECT is(
    pg_temp.condition(27, 'e', 'the next listen that counts'),
    'any: a new streak | the last was at 2025-03-02 10:00 UTC | 2025-03-02 10:00:00', 'and that it has ended'
);
SELECT build.play(28, 1, (now() AT TIME ZONE 'UTC')::timestamp - interval '1 hour');
SELECT matches(
    pg_temp.condition(28, 'e', 'the next listen that counts'), '^from .* UTC on, before .* UTC \| the last was at',
    'or from when, and until when, one goes on'
);
SELECT build.track(290, 29);
SELECT build.track_score(290, 5);
SELECT is(
    pg_temp.condition(29, 'tt', 'rank'), '1 to 10 of the week | 1, by the scores of the moment | t', 'a rank is told'
);
SELECT matches(pg_temp.verdict(29, 'tt'), '^(waits|next_run): ', 'it waits for Friday');

-- It writes nothing, and works wherever nothing can be written.
SELECT results_eq(
    $$SELECT provolatile::text FROM pg_proc WHERE proname = 'explain_challenge'$$, $$VALUES ('s')$$,
    'PostgreSQL lets it write nothing'
);
CREATE TEMPORARY TABLE before AS SELECT build.tuples('public', 'audius_challenges') AS line;
SELECT count(*) FROM generate_series(1, 30) AS n CROSS JOIN LATERAL explain_challenge(n) \g /dev/null
SELECT bag_eq(
    $$SELECT build.tuples('public', 'audius_challenges')$$, $$SELECT line FROM before$$,
    'asking about everybody writes nothing'
);
SET LOCAL transaction_read_only = TRUE;
SELECT lives_ok($$SELECT * FROM explain_challenge(4)$$, 'it works in a transaction that is read-only');

SELECT * FROM finish();
ROLLBACK;
