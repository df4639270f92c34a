-- Challenges r, rv and rd, referrals: who brings a user, up to a cap, and who is brought.
BEGIN;
SELECT no_plan();

UPDATE challenges SET starting_block = 100, step_count = 3 WHERE id IN ('r', 'rv', 'rd') AND step_count IS NOT NULL;
UPDATE challenges SET starting_block = 100 WHERE id = 'rd';

-- What the three have paid: challenge, earner and specifier.
CREATE VIEW pg_temp.paid AS
SELECT
    challenge_id::text AS challenge_id,
    user_id,
    specifier::text AS specifier
FROM public.user_challenges
WHERE challenge_id IN ('r', 'rv', 'rd');
CREATE FUNCTION pg_temp.paid_to(VARIADIC users integer[]) RETURNS text
LANGUAGE sql AS $$
    SELECT coalesce(
        string_agg(concat_ws(' ', challenge_id, specifier), ', ' ORDER BY challenge_id, specifier COLLATE "C"), 'nothing'
    )
    FROM pg_temp.paid
    WHERE user_id = ANY(users);
$$;
CREATE FUNCTION pg_temp.run() RETURNS void
LANGUAGE sql AS $$
    SELECT build.run(ARRAY['r', 'rv', 'rd']);
$$;

-- Users who are brought: 301 to 399.
SELECT build.person(user_id) FROM generate_series(301, 399) AS user_id;

-- Who earns what.
SELECT build.person(255);
SELECT build.person(254, is_verified => TRUE);
SELECT build.user_event(301, referrer => 255, blocknumber => 120);
SELECT build.user_event(302, referrer => 254, blocknumber => 120);
SELECT build.run(ARRAY['r', 'rv', 'rd'], as_of => '2025-03-05 05:06:07+00');
SELECT results_eq(
    $$SELECT
        challenge_id::text, user_id, specifier::text, is_complete, current_step_count, amount,
        completed_blocknumber, created_at, completed_at
    FROM user_challenges ORDER BY challenge_id, specifier$$,
    $$SELECT
        challenge_id, user_id, specifier, TRUE, 1, 1, 120, '2025-03-05 05:06:07+00'::timestamptz,
        '2025-03-05 05:06:07'::timestamp
    FROM (VALUES
        ('r', 255, 'ff:12d'), ('rd', 301, '12d:ff'), ('rd', 302, '12e:fe'), ('rv', 254, 'fe:12e')
    ) AS expected (challenge_id, user_id, specifier)$$,
    'r pays who refers, rv a verified one, rd who is referred'
);
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid_to(255, 254, 301, 302), 'r ff:12d, rd 12d:ff, rd 12e:fe, rv fe:12e', 'a deed is rewarded once'
);

-- The deciding row.
SELECT build.person(user_id) FROM generate_series(11, 18) AS user_id;
SELECT build.user_event(303, referrer => 11, blocknumber => 121);
SELECT build.user_event(303, referrer => 12, blocknumber => 120);
SELECT build.user_event(304, referrer => 12, blocknumber => 121);
SELECT build.user_event(304, referrer => 11, blocknumber => 121);
SELECT build.user_event(305, referrer => 13, blocknumber => 121);
SELECT build.user_event(305, blocknumber => 122);
SELECT build.user_event(306, referrer => 14, blocknumber => 121, is_current => FALSE);
SELECT build.user_event(317, referrer => 14, blocknumber => 121);
SELECT build.user_event(317, blocknumber => 122, is_current => FALSE);
SELECT build.user_event(307, referrer => 15, blocknumber => 99);
SELECT build.user_event(308, referrer => 15, blocknumber => NULL);
SELECT build.user_event(309, referrer => 15, blocknumber => 100);
SELECT build.user_event(310, referrer => 310);
SELECT build.user_event(311, referrer => 16, blocknumber => 99);
SELECT build.user_event(311, referrer => 16, blocknumber => NULL);
SELECT build.user_event(312, referrer => 17, blocknumber => NULL);
SELECT build.user_event(312, referrer => 18, blocknumber => 100);
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid_to(303, 304, 11, 12), 'r b:12f, r b:130, rd 12f:b, rd 130:b',
    'of a user''s rows the greatest block decides, then the greatest id'
);
SELECT is(pg_temp.paid_to(305, 13), 'nothing', 'a deciding row without a referrer refers nobody');
SELECT is(
    pg_temp.paid_to(306, 317, 14), 'r e:13d, rd 13d:e', 'a row that is not current does not count, nor decide'
);
SELECT is(
    pg_temp.paid_to(307, 308, 309, 15, 311, 16), 'r f:135, rd 135:f',
    'the starting block counts; one before it, or none, does not'
);
SELECT build.run(ARRAY['r', 'rv', 'rd'], full_scan => TRUE);
SELECT is(pg_temp.paid_to(310), 'nothing', 'who refers himself is paid nothing');
SELECT is(pg_temp.paid_to(312, 17, 18), 'r 12:138, rd 138:12', 'no block number is block 0');
UPDATE challenges SET starting_block = NULL WHERE id IN ('r', 'rv', 'rd');
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid_to(307, 308, 15), 'r f:133, r f:134, r f:135, rd 133:f, rd 134:f',
    'a starting block of null is 0'
);
UPDATE challenges SET starting_block = 100 WHERE id IN ('r', 'rv', 'rd');

-- What changes later.
SELECT build.user_event(303, referrer => 12, blocknumber => 130);
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid_to(303, 11, 12), 'r b:12f, r b:130, r c:12f, rd 12f:b',
    'another referrer is another pair, but who is referred is paid once, whoever the others are'
);
DELETE FROM user_events WHERE user_id IN (301, 303);
UPDATE users SET is_deactivated = TRUE WHERE user_id = 255;
SELECT pg_temp.run();
SELECT is(pg_temp.paid_to(255, 301), 'r ff:12d, rd 12d:ff', 'what is undone stays rewarded');

-- Active users.
SELECT build.person(21, is_deactivated => TRUE);
SELECT build.person(22);
SELECT build.person(400, is_deactivated => TRUE);
SELECT build.user_event(313, referrer => 21);
SELECT build.user_event(400, referrer => 22);
SELECT build.user_event(314, referrer => 500);
SELECT build.user_event(501, referrer => 22);
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid_to(313, 314, 21, 22, 400, 500, 501), 'nothing', 'both must be there and active: r, rv and rd wait'
);
UPDATE users SET is_deactivated = FALSE WHERE user_id IN (21, 400);
SELECT build.person(500, is_current => FALSE);
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid_to(313, 21, 22, 400), 'r 15:139, r 16:190, rd 139:15, rd 190:16', 'they wait for both to be active'
);
SELECT is(pg_temp.paid_to(314, 500), 'nothing', 'a user without a current row is not active');

-- r or rv.
SELECT build.person(31);
SELECT build.user_event(315, referrer => 31, blocknumber => 121);
SELECT pg_temp.run();
UPDATE users SET is_verified = TRUE WHERE user_id = 31;
SELECT build.user_event(316, referrer => 31, blocknumber => 122);
SELECT pg_temp.run();
SELECT is(pg_temp.paid_to(31), 'r 1f:13b, rv 1f:13c', 'a pair that r has paid is not paid by rv');
UPDATE users SET is_verified = FALSE WHERE user_id = 31;
SELECT pg_temp.run();
SELECT is(pg_temp.paid_to(31), 'r 1f:13b, rv 1f:13c', 'nor one by r that rv has paid');

-- The caps: three.
SELECT build.person(32);
SELECT build.user_event(324, referrer => 32, blocknumber => 130);
SELECT build.user_event(323, referrer => 32, blocknumber => 131);
SELECT build.user_event(321, referrer => 32, blocknumber => 131);
SELECT build.user_event(322, referrer => 32, blocknumber => 129);
SELECT build.user_event(325, referrer => 32, blocknumber => NULL);
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid_to(32), 'r 20:142, r 20:143, r 20:144',
    'a user has at most step_count, in the order of blocks, then of ids'
);
SELECT pg_temp.run();
SELECT build.user_event(326, referrer => 32, blocknumber => 110);
SELECT pg_temp.run();
SELECT is(pg_temp.paid_to(32), 'r 20:142, r 20:143, r 20:144', 'what came earlier and is seen later gets no place');
SELECT is(
    pg_temp.paid_to(321, 322, 323, 324, 326), 'rd 141:20, rd 142:20, rd 143:20, rd 144:20, rd 146:20',
    'the cap is not theirs who are referred'
);
UPDATE users SET is_verified = TRUE WHERE user_id = 32;
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid_to(32), 'r 20:142, r 20:143, r 20:144, rv 20:141, rv 20:146',
    'what the cap of r refused rv pays once the user is verified'
);
SELECT build.user_event(327, referrer => 32, blocknumber => 111);
SELECT build.user_event(328, referrer => 32, blocknumber => 110);
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid_to(32), 'r 20:142, r 20:143, r 20:144, rv 20:141, rv 20:146, rv 20:148', 'rv has a cap of its own'
);
UPDATE challenges SET step_count = 4 WHERE id = 'rv';
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid_to(32), 'r 20:142, r 20:143, r 20:144, rv 20:141, rv 20:146, rv 20:147, rv 20:148',
    'a greater cap lets more in'
);
UPDATE challenges SET step_count = 1 WHERE id = 'rv';
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid_to(32), 'r 20:142, r 20:143, r 20:144, rv 20:141, rv 20:146, rv 20:147, rv 20:148',
    'a smaller one takes nothing back'
);
UPDATE challenges SET step_count = 3 WHERE id = 'rv';

-- Those who wait have no place, and take none from others.
SELECT build.person(33);
UPDATE users SET is_deactivated = TRUE WHERE user_id = 331;
SELECT build.user_event(330 + n, referrer => 33, blocknumber => 120 + n) FROM generate_series(1, 4) AS n;
SELECT pg_temp.run();
UPDATE users SET is_deactivated = FALSE WHERE user_id = 331;
SELECT pg_temp.run();
SELECT is(pg_temp.paid_to(33), 'r 21:14c, r 21:14d, r 21:14e', 'who waits has no place within the cap');

-- What was paid before counts, once each, wherever it is known from.
SELECT build.person(34);
SELECT build.complete('r', 34, '22:aaa');
SELECT build.disbursed('r', 34, '22:aaa');
SELECT build.disbursed('r', 34, '22:bbb');
SELECT build.disbursed('rv', 34, '22:ccc');
SELECT build.disbursed('r', 34, '222:ccc');
INSERT INTO sol_reward_disbursements (
    signature, instruction_index, amount, slot, user_bank, challenge_id, specifier
)
VALUES ('one', 0, 100000000, 1, 'bank', 'r', '22:bbb');
SELECT build.user_event(340 + n, referrer => 34, blocknumber => 120 + n) FROM generate_series(1, 2) AS n;
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid_to(34), 'r 22:155, r 22:aaa', 'rows and disbursements of the challenge fill the cap, each pair once'
);
SELECT build.person(35);
INSERT INTO sol_reward_disbursements (
    signature, instruction_index, amount, slot, user_bank, challenge_id, specifier
)
SELECT 'two ' || n, 0, 100000000, 1, 'bank', 'r', '23:' || n FROM generate_series(1, 2) AS n;
SELECT build.user_event(343 + n, referrer => 35, blocknumber => 120 + n) FROM generate_series(1, 2) AS n;
SELECT pg_temp.run();
SELECT is(pg_temp.paid_to(35), 'r 23:158', 'those on chain fill the cap, too');

-- What was paid before is not paid again.
SELECT build.person(user_id) FROM generate_series(41, 46) AS user_id;
SELECT build.disbursed('r', 41, '29:160');
SELECT build.user_event(352, referrer => 41);
SELECT build.disbursed('rv', 42, '2a:161');
SELECT build.user_event(353, referrer => 42);
SELECT build.disbursed('rd', 354, '162:2b');
SELECT build.user_event(354, referrer => 43);
SELECT build.disbursed('rd', 355, '163');
SELECT build.user_event(355, referrer => 44);
SELECT build.disbursed('rd', 356, '164:999');
SELECT build.user_event(356, referrer => 45);
INSERT INTO sol_reward_disbursements (
    signature, instruction_index, amount, slot, user_bank, challenge_id, specifier
)
VALUES ('three', 0, 100000000, 1, 'bank', 'rd', '165:999'), ('four', 0, 100000000, 1, 'bank', 'rd', '166');
SELECT build.user_event(357, referrer => 46);
SELECT build.user_event(358, referrer => 46);
SELECT build.complete('rd', 1, '167:999');
SELECT build.user_event(359, referrer => 46);
SELECT build.complete('rd', 1, '168');
SELECT build.user_event(360, referrer => 45);
SELECT build.disbursed('rd', 361, '1690:2d');
SELECT build.user_event(361, referrer => 45);
SELECT pg_temp.run();
SELECT is(pg_temp.paid_to(41, 42), 'nothing', 'a pair that was disbursed as r or as rv is not paid again');
SELECT is(
    pg_temp.paid_to(352, 353, 43, 44), 'r 2b:162, r 2c:163, rd 160:29, rd 161:2a',
    'what is paid to the one says nothing of the other'
);
SELECT is(pg_temp.paid_to(354), 'nothing', 'rd does not pay again what was disbursed');
SELECT is(pg_temp.paid_to(355), 'nothing', 'rd does not pay again what was disbursed in the earlier format');
SELECT is(pg_temp.paid_to(356), 'nothing', 'rd does not pay for one who was paid for with another referrer');
SELECT is(pg_temp.paid_to(357, 358), 'nothing', 'rd knows what was paid on chain');
SELECT is(pg_temp.paid_to(359, 360), 'nothing', 'rd knows rows in either format, whoever has them');
SELECT is(pg_temp.paid_to(361), 'rd 169:2d', 'somebody whose id only begins alike is another');

-- A cap that makes no sense.
SELECT build.user_event(370, referrer => 46, blocknumber => 130);
UPDATE challenges SET step_count = NULL WHERE id = 'r';
UPDATE challenges SET step_count = 0 WHERE id = 'rv';
SELECT results_eq(
    $$SELECT challenge_id::text, status::text, error::text FROM reconcile_challenges(ARRAY['r', 'rv', 'rd'])$$,
    $$SELECT v.id, v.status, v.error FROM (VALUES
        (
            'r', 'failed', 'challenge "r" has an invalid step_count in the catalog: null DETAIL: This challenge needs'
            ' a step_count of at least 1. HINT: UPDATE challenges SET step_count = ... WHERE id = ''r'';'
        ),
        (
            'rv', 'failed', 'challenge "rv" has an invalid step_count in the catalog: 0 DETAIL: This challenge needs'
            ' a step_count of at least 1. HINT: UPDATE challenges SET step_count = ... WHERE id = ''rv'';'
        ),
        ('rd', 'ok', NULL)
    ) AS v (id, status, error)$$,
    'a step_count that is null or below 1 is an error of r and of rv'
);
UPDATE challenges SET step_count = 3 WHERE id IN ('r', 'rv');
SELECT pg_temp.run();
SELECT is(pg_temp.paid_to(370), 'rd 172:2e', 'rd has no cap');

-- start_from_now: r and rv pass over pairs, rd users, whatever is there.
SELECT build.person(51);
SELECT build.person(52, is_verified => TRUE);
SELECT build.user_event(381, referrer => 51, blocknumber => 1);
SELECT build.user_event(382, referrer => 51);
UPDATE users SET is_deactivated = TRUE WHERE user_id = 382;
SELECT build.user_event(383, referrer => 52);
SELECT build.user_event(384);
SELECT count(*) FROM audius_challenges.start_from_now(ARRAY['r', 'rd']);
SELECT results_eq(
    $$SELECT challenge_id::text, specifier FROM audius_challenges.passed_over
    WHERE specifier ~ '^(17[def]|180|33:|34:)' ORDER BY challenge_id, specifier COLLATE "C"$$,
    $$VALUES ('r', '33:17d'), ('r', '33:17e'), ('r', '34:17f'), ('rd', '17d'), ('rd', '17e'), ('rd', '17f')$$,
    'start_from_now passes over every pair, and every user who is referred'
);
SELECT is_empty(
    $$SELECT specifier FROM audius_challenges.passed_over WHERE specifier IN ('20:142', '20:141', '142')$$,
    'start_from_now passes over nothing that has a row'
);
UPDATE users SET is_deactivated = FALSE WHERE user_id = 382;
UPDATE challenges SET starting_block = 0 WHERE id IN ('r', 'rv', 'rd');
SELECT build.user_event(384, referrer => 51);
SELECT build.user_event(383, referrer => 51, blocknumber => 140);
SELECT build.run(ARRAY['r', 'rv', 'rd'], full_scan => TRUE);
SELECT is(
    pg_temp.paid_to(51, 52, 381, 382, 383, 384), 'r 33:17f, r 33:180, rd 180:33',
    'a pair passed over is so for r and rv, a user passed over for any referrer; what comes later is paid'
);

SELECT * FROM finish();
ROLLBACK;
