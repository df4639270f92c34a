-- Challenge c, first weekly comment: one row for each user and ISO week (UTC) in which he has commented.
BEGIN;
SELECT plan(21);

CREATE FUNCTION pg_temp.weeks(VARIADIC users integer[]) RETURNS SETOF text
LANGUAGE sql AS $$
    SELECT specifier::text FROM public.user_challenges
    WHERE challenge_id = 'c' AND user_id = ANY(users) ORDER BY specifier COLLATE "C";
$$;

SELECT build.person(user_id) FROM generate_series(1, 20) AS user_id;
SELECT build.person(700);
SELECT build.comment(7, 700, created_at => '2025-01-08 10:00');
SELECT build.block(28360000);
SELECT build.run(ARRAY['c'], as_of => '2025-03-05 05:06:07+00');
SELECT results_eq(
    $$SELECT
        user_id, specifier::text, is_complete, current_step_count, amount, completed_blocknumber,
        created_at, completed_at
    FROM user_challenges WHERE challenge_id = 'c'$$,
    $$VALUES (
        700, '2bc:202502', TRUE, 1, 1, 28360000, '2025-03-05 05:06:07+00'::timestamptz,
        '2025-03-05 05:06:07'::timestamp
    )$$,
    'a comment is a complete row of its week, at the time of the run'
);

SELECT build.comment(8, 700, created_at => '2025-01-12 23:59:59.999999');
SELECT build.run(ARRAY['c'], as_of => '2025-03-05 06:00+00');
SELECT results_eq(
    $$SELECT pg_temp.weeks(700)$$,
    $$VALUES ('2bc:202502')$$,
    'a second comment of the week is none'
);
SELECT build.comment(9, 700, created_at => '2025-01-13 00:00');
SELECT build.comment(10, 700, created_at => '2024-12-30 00:00');
SELECT build.comment(11, 700, created_at => '2024-12-29 23:59');
SELECT build.comment(12, 700, created_at => '2021-01-03 12:00');
SELECT set_config('timezone', 'Asia/Tokyo', TRUE);
SELECT build.run(ARRAY['c'], as_of => '2025-03-05 06:00+00');
SELECT results_eq(
    $$SELECT pg_temp.weeks(700)$$,
    $$VALUES ('2bc:202053'), ('2bc:202452'), ('2bc:202501'), ('2bc:202502'), ('2bc:202503')$$,
    'each further week is, by the ISO year that it belongs to, in UTC whatever the time zone'
);
SELECT set_config('timezone', 'UTC', TRUE);

SELECT build.comment(20, 1, is_delete => TRUE, created_at => '2025-01-08');
SELECT build.comment(21, 2, is_visible => FALSE, created_at => '2025-01-08');
SELECT build.comment(22, 3, is_delete => NULL, is_visible => NULL, created_at => '2025-01-08');
SELECT build.comment(23, 4, entity_type => 'FanClub', created_at => '2025-01-08');
SELECT build.comment(24, 5, entity_type => 'event', created_at => '2025-01-08');
SELECT build.comment(25, 6, blocknumber => NULL, created_at => '2025-01-08');
SELECT build.run(ARRAY['c'], as_of => '2025-03-05 06:00+00');
SELECT is_empty($$SELECT pg_temp.weeks(1)$$, 'a deleted comment does not count');
SELECT is_empty($$SELECT pg_temp.weeks(2)$$, 'a hidden comment does not count');
SELECT results_eq($$SELECT pg_temp.weeks(3)$$, $$VALUES ('3:202502')$$, 'what is null counts as fine');
SELECT results_eq(
    $$SELECT pg_temp.weeks(4, 5)$$, $$VALUES ('4:202502'), ('5:202502')$$, 'a comment on anything counts'
);
SELECT results_eq(
    $$SELECT pg_temp.weeks(6)$$,
    $$VALUES ('6:202502')$$,
    'without a block number it is of block 0, and counts from there'
);

DELETE FROM comments WHERE user_id = 4;
UPDATE comments SET is_delete = TRUE WHERE user_id = 5;
SELECT build.run(ARRAY['c'], full_scan => TRUE, as_of => '2025-03-05 07:00+00');
SELECT build.comment(26, 5, created_at => '2025-01-09');
SELECT build.run(ARRAY['c'], as_of => '2025-03-05 07:00+00');
SELECT results_eq(
    $$SELECT user_id, is_complete, completed_at FROM user_challenges
    WHERE challenge_id = 'c' AND user_id IN (4, 5) ORDER BY user_id$$,
    $$VALUES (4, TRUE, '2025-03-05 06:00'::timestamp), (5, TRUE, '2025-03-05 06:00'::timestamp)$$,
    'a row stays when its comment is gone, and when another comes'
);

-- Blocks.
UPDATE challenges SET starting_block = 200 WHERE id = 'c';
SELECT build.comment(30, 7, blocknumber => 199, created_at => '2025-01-08');
SELECT build.comment(31, 8, blocknumber => 200, created_at => '2025-01-08');
SELECT build.comment(32, 9, blocknumber => NULL, created_at => '2025-01-08');
SELECT build.run(ARRAY['c'], as_of => '2025-03-05 07:00+00');
SELECT results_eq(
    $$SELECT pg_temp.weeks(7, 8, 9)$$,
    $$VALUES ('8:202502')$$,
    'a comment of exactly the starting block counts, one of the block before or of none does not'
);
UPDATE comments SET blocknumber = 200 WHERE comment_id = 30;
UPDATE challenges SET starting_block = NULL WHERE id = 'c';
SELECT build.run(ARRAY['c'], as_of => '2025-03-05 07:00+00');
SELECT results_eq(
    $$SELECT pg_temp.weeks(7, 8, 9)$$,
    $$VALUES ('7:202502'), ('8:202502'), ('9:202502')$$,
    'an edit moves the block, and the comment counts; a starting block that is null is 0'
);

-- Times.
SELECT build.comment(40, 10, created_at => '2025-03-10 07:05');
SELECT build.comment(41, 11, created_at => '2025-03-10 07:05:00.000001');
SELECT build.comment(42, 12, created_at => 'infinity');
SELECT build.comment(43, 13, created_at => '-infinity');
SELECT build.run(ARRAY['c'], as_of => '2025-03-10 07:00+00');
SELECT results_eq(
    $$SELECT pg_temp.weeks(10, 11, 12, 13)$$,
    $$VALUES ('a:202511')$$,
    'rule 14: what claims to be from more than 5 minutes later is not there yet'
);
SELECT build.run(ARRAY['c'], as_of => '2025-03-10 07:00:01+00');
SELECT results_eq(
    $$SELECT pg_temp.weeks(10, 11, 12, 13)$$,
    $$VALUES ('a:202511'), ('b:202511')$$,
    'it waits for the sweep; what has an infinite time never counts'
);
SELECT is_empty(
    $$SELECT user_id FROM audius_challenges.set_aside WHERE challenge_id = 'c'$$,
    'nor is anything wrong with it'
);

-- Paid before.
SELECT build.disbursed('c', 14, '14:202511');
SELECT build.disbursed('c', 14, '14:202512');
SELECT build.disbursed('c', 99, 'e:202513');
SELECT build.comment(50, 14, created_at => '2025-03-16 23:59');
SELECT build.comment(51, 14, created_at => '2025-03-17 00:00');
SELECT build.comment(52, 14, created_at => '2025-03-24 00:00');
SELECT build.complete('c', 14, '14:202453');
SELECT build.comment(53, 14, created_at => '2021-01-01');
SELECT build.complete('c', 14, '14:202053');
SELECT build.run(ARRAY['c'], as_of => '2025-04-05 07:00+00');
SELECT results_eq(
    $$SELECT pg_temp.weeks(14)$$,
    $$VALUES ('14:202053'), ('14:202453'), ('e:202512')$$,
    'what was paid before is not paid again, up to week 202511 under the decimal user, too'
);

-- Who.
SELECT build.person(30, is_deactivated => TRUE);
SELECT build.person(31, is_current => FALSE);
SELECT build.person(32, handle_lc => NULL);
SELECT build.person(34, blocknumber => 200, is_deactivated => TRUE, txhash => '0xb');
SELECT build.person(34, blocknumber => 199, txhash => '0xc');
SELECT build.comment(100 + user_id, user_id, created_at => '2025-01-08') FROM generate_series(30, 34) AS user_id;
SELECT build.run(ARRAY['c'], as_of => '2025-04-05 08:00+00');
SELECT results_eq(
    $$SELECT pg_temp.weeks(30, 31, 32, 33, 34)$$,
    $$VALUES ('20:202502')$$,
    'rule 8: only a user whose deciding row is not deactivated gains, with or without a handle'
);
UPDATE users SET is_deactivated = FALSE, is_current = TRUE WHERE user_id IN (30, 31);
SELECT build.run(ARRAY['c'], as_of => '2025-04-05 08:00+00');
SELECT results_eq(
    $$SELECT pg_temp.weeks(30, 31)$$,
    $$VALUES ('1e:202502'), ('1f:202502')$$,
    'rule 8: what a user did meanwhile counts once he is eligible again'
);

-- start_from_now, by user and week.
SELECT build.comment(60, 15, is_delete => TRUE, created_at => '2025-02-05');
SELECT build.comment(61, 30, is_visible => FALSE, blocknumber => NULL, created_at => '2025-02-05');
SELECT build.comment(62, 12, created_at => '2099-02-05');
SELECT results_eq(
    $$SELECT passed_over FROM audius_challenges.start_from_now('{c}')$$,
    $$SELECT 10::bigint$$,
    'start_from_now passes over each user and week that is there and has no row'
);
SELECT results_eq(
    $$SELECT specifier FROM audius_challenges.passed_over WHERE challenge_id = 'c' ORDER BY specifier COLLATE "C"$$,
    $$VALUES
        ('1:202502'), ('1e:202506'), ('21:202502'), ('22:202502'), ('2:202502'), ('c:209906'), ('e:202053'),
        ('e:202511'), ('e:202513'), ('f:202506')$$,
    'whatever the comment and the user are now'
);
UPDATE comments SET is_delete = FALSE, is_visible = TRUE;
SELECT build.comment(63, 15, created_at => '2025-02-06');
SELECT build.comment(64, 15, created_at => '2025-02-10');
SELECT build.run(ARRAY['c'], full_scan => TRUE);
SELECT results_eq(
    $$SELECT pg_temp.weeks(1, 2, 15, 30)$$,
    $$VALUES ('1e:202502'), ('f:202507')$$,
    'what is passed over is never rewarded, whatever comes of the same week; another week is'
);
SELECT is_empty(
    $$SELECT new FROM user_challenges_log WHERE challenge_id <> 'c'$$,
    'a run of c writes no other challenge'
);

SELECT * FROM finish();
ROLLBACK;
