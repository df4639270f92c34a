-- Challenge m, mobile install: the latest of the user's current events says that he has come by a mobile app.
BEGIN;
SELECT plan(14);

CREATE FUNCTION pg_temp.installed(VARIADIC users integer[]) RETURNS SETOF integer
LANGUAGE sql AS $$
    SELECT user_id FROM public.user_challenges
    WHERE challenge_id = 'm' AND user_id = ANY(users) ORDER BY user_id;
$$;

SELECT build.person(user_id) FROM generate_series(1, 30) AS user_id;
SELECT build.person(255);
SELECT build.user_event(255, is_mobile_user => TRUE, blocknumber => 25346436);
SELECT build.block(28360000);
SELECT build.run(ARRAY['m'], as_of => '2025-03-05 05:06:07+00');
SELECT results_eq(
    $$SELECT
        user_id, specifier::text, is_complete, current_step_count, amount, completed_blocknumber,
        created_at, completed_at
    FROM user_challenges WHERE challenge_id = 'm'$$,
    $$VALUES (
        255, 'ff', TRUE, 1, 1, 28360000, '2025-03-05 05:06:07+00'::timestamptz,
        '2025-03-05 05:06:07'::timestamp
    )$$,
    'an event of exactly the starting block is a complete row'
);

SELECT build.user_event(1, is_mobile_user => TRUE, blocknumber => 25346435);
SELECT build.user_event(2, is_mobile_user => TRUE, blocknumber => NULL);
SELECT build.user_event(3, is_mobile_user => FALSE, blocknumber => 25346436);
SELECT build.user_event(4, is_mobile_user => TRUE, is_current => FALSE, blocknumber => 25346436);
SELECT build.run(ARRAY['m']);
SELECT is_empty(
    $$SELECT pg_temp.installed(1, 2)$$,
    'an event of the block before, or without a block, does not count'
);
SELECT is_empty($$SELECT pg_temp.installed(3)$$, 'an event that is of no mobile app does not count');
SELECT is_empty($$SELECT pg_temp.installed(4)$$, 'an event that is not current does not count');

-- Of several.
UPDATE challenges SET starting_block = NULL WHERE id = 'm';
SELECT build.user_event(5, is_mobile_user => TRUE, blocknumber => 200);
SELECT build.user_event(5, is_mobile_user => FALSE, blocknumber => 199);
SELECT build.user_event(6, is_mobile_user => FALSE, blocknumber => 200);
SELECT build.user_event(6, is_mobile_user => TRUE, blocknumber => 199);
SELECT build.user_event(7, is_mobile_user => TRUE, blocknumber => 200);
SELECT build.user_event(7, is_mobile_user => FALSE, blocknumber => 201, is_current => FALSE);
SELECT build.user_event(8, is_mobile_user => FALSE, blocknumber => 200);
SELECT build.user_event(8, is_mobile_user => TRUE, blocknumber => 200);
SELECT build.user_event(9, is_mobile_user => TRUE, blocknumber => 200);
SELECT build.user_event(9, is_mobile_user => FALSE, blocknumber => 200);
SELECT build.user_event(10, is_mobile_user => TRUE, blocknumber => 0);
SELECT build.user_event(10, is_mobile_user => FALSE, blocknumber => NULL);
SELECT build.user_event(11, is_mobile_user => FALSE, blocknumber => NULL);
SELECT build.user_event(11, is_mobile_user => TRUE, blocknumber => 0);
SELECT build.run(ARRAY['m']);
SELECT results_eq(
    $$SELECT pg_temp.installed(5, 6)$$, $$VALUES (5)$$, 'the event of the highest block decides, whatever its id'
);
SELECT results_eq(
    $$SELECT pg_temp.installed(7)$$, $$VALUES (7)$$, 'an event that is not current does not decide'
);
SELECT results_eq(
    $$SELECT pg_temp.installed(8, 9)$$, $$VALUES (8)$$, 'of one block the one with the greatest id decides'
);
SELECT results_eq(
    $$SELECT pg_temp.installed(2, 10, 11)$$,
    $$VALUES (2), (11)$$,
    'a starting block that is null is 0, and so is a block number'
);

-- Final, and changed in place.
UPDATE user_events SET is_mobile_user = FALSE WHERE user_id = 255;
UPDATE user_events SET is_mobile_user = TRUE WHERE user_id = 3;
UPDATE user_events SET is_current = FALSE WHERE user_id = 9 AND NOT is_mobile_user;
SELECT build.run(ARRAY['m']);
SELECT results_eq(
    $$SELECT pg_temp.installed(3, 9, 255)$$,
    $$VALUES (3), (9), (255)$$,
    'a row stays when the event changes; one that is changed in place, or decides now, counts'
);

-- Paid before, to whomever.
SELECT build.disbursed('m', 99, 'c');
SELECT build.user_event(user_id, is_mobile_user => TRUE) FROM generate_series(12, 13) AS user_id;
SELECT build.run(ARRAY['m']);
SELECT results_eq(
    $$SELECT pg_temp.installed(12, 13)$$, $$VALUES (13)$$, 'what was paid before is not paid again'
);

-- Who.
SELECT build.person(40, is_deactivated => TRUE);
SELECT build.person(41, is_current => FALSE);
SELECT build.person(42, handle_lc => NULL);
SELECT build.user_event(user_id, is_mobile_user => TRUE) FROM generate_series(40, 43) AS user_id;
SELECT build.run(ARRAY['m']);
SELECT results_eq(
    $$SELECT pg_temp.installed(40, 41, 42, 43)$$,
    $$VALUES (42)$$,
    'only a user with a current, not deactivated row in users gains, with or without a handle'
);

-- start_from_now: every user of whom any event ever said so.
SELECT build.user_event(14, is_mobile_user => TRUE, is_current => FALSE);
SELECT build.user_event(15, is_mobile_user => FALSE);
SELECT results_eq(
    $$SELECT passed_over FROM audius_challenges.start_from_now('{m}')$$,
    $$SELECT 8::bigint$$,
    'start_from_now passes over every user with an event of a mobile app who has no row'
);
SELECT results_eq(
    $$SELECT specifier FROM audius_challenges.passed_over WHERE challenge_id = 'm' ORDER BY specifier COLLATE "C"$$,
    $$VALUES ('28'), ('29'), ('2b'), ('4'), ('6'), ('a'), ('c'), ('e')$$,
    'whatever the event and the user are now'
);
UPDATE user_events SET is_current = TRUE, is_mobile_user = TRUE;
UPDATE users SET is_current = TRUE, is_deactivated = FALSE;
SELECT build.run(ARRAY['m'], full_scan => TRUE);
SELECT results_eq(
    $$SELECT pg_temp.installed(4, 6, 10, 12, 14, 15, 40, 41)$$,
    $$VALUES (15)$$,
    'who is passed over is never rewarded; who installs it later is'
);

SELECT * FROM finish();
ROLLBACK;
