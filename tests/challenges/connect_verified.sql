-- Challenge v, connect verified: users.is_verified.
BEGIN;
SELECT plan(10);

SELECT build.person(255, is_verified => TRUE, blocknumber => 321);
SELECT build.person(2, is_verified => FALSE);
SELECT build.person(3, is_verified => TRUE, is_deactivated => TRUE);
SELECT build.person(4, is_verified => TRUE, is_current => FALSE);
SELECT build.person(5, is_verified => TRUE, handle_lc => NULL);
SELECT build.run(ARRAY['v'], as_of => '2025-03-05 05:06:07+00');
SELECT results_eq(
    $$SELECT
        user_id, specifier::text, is_complete, current_step_count, amount, completed_blocknumber,
        created_at, completed_at
    FROM user_challenges WHERE challenge_id = 'v' AND user_id = 255$$,
    $$VALUES (
        255, 'ff', TRUE, 1, 5, 321, '2025-03-05 05:06:07+00'::timestamptz, '2025-03-05 05:06:07'::timestamp
    )$$,
    'a verified user has a complete row'
);
SELECT is_empty(
    $$SELECT specifier FROM user_challenges WHERE user_id = 2$$,
    'a user who is not verified has no row'
);
SELECT is_empty(
    $$SELECT specifier FROM user_challenges WHERE user_id = 3$$,
    'a deactivated user gains nothing'
);
SELECT is_empty(
    $$SELECT specifier FROM user_challenges WHERE user_id = 4$$,
    'a user without a current row gains nothing'
);
SELECT results_eq(
    $$SELECT is_complete FROM user_challenges WHERE challenge_id = 'v' AND user_id = 5$$,
    $$VALUES (TRUE)$$,
    'a verified user needs no handle'
);

-- Of two current rows the one with the higher block number decides.
SELECT build.person(6, is_verified => TRUE, blocknumber => 100, txhash => '0xz');
SELECT build.person(6, is_verified => FALSE, blocknumber => 101, txhash => '0xa');
SELECT build.person(7, is_verified => FALSE, blocknumber => NULL, txhash => '0xz');
SELECT build.person(7, is_verified => TRUE, blocknumber => 101, txhash => '0xa');
SELECT build.run(ARRAY['v']);
SELECT results_eq(
    $$SELECT user_id FROM user_challenges WHERE challenge_id = 'v' AND user_id IN (6, 7)$$,
    $$VALUES (7)$$,
    'of two current rows of one user the one with the higher block number decides'
);

UPDATE users SET is_verified = FALSE WHERE user_id = 255;
UPDATE users SET is_verified = TRUE WHERE user_id = 2;
INSERT INTO user_challenges (challenge_id, user_id, specifier, is_complete, current_step_count, amount)
VALUES ('v', 8, '8', FALSE, 1, 5);
SELECT build.person(8, is_verified => FALSE);
SELECT build.run(ARRAY['v']);
SELECT results_eq(
    $$SELECT user_id, is_complete, current_step_count FROM user_challenges
    WHERE challenge_id = 'v' AND user_id IN (2, 255) ORDER BY user_id$$,
    $$VALUES (2, TRUE, 1), (255, TRUE, 1)$$,
    'a user verified by hand completes, and losing the badge takes nothing away'
);
SELECT results_eq(
    $$SELECT is_complete, current_step_count FROM user_challenges WHERE challenge_id = 'v' AND user_id = 8$$,
    $$VALUES (FALSE, 0)$$,
    'an incomplete row of a user who is not verified goes to 0'
);
UPDATE challenges SET starting_block = 2147483647, step_count = 5 WHERE id = 'v';
SELECT build.person(9, is_verified => TRUE);
SELECT build.run(ARRAY['v']);
SELECT results_eq(
    $$SELECT is_complete, current_step_count FROM user_challenges WHERE challenge_id = 'v' AND user_id = 9$$,
    $$VALUES (TRUE, 1)$$,
    'connect verified reads no starting block and no step_count'
);
SELECT is_empty(
    $$SELECT new FROM user_challenges_log WHERE challenge_id <> 'v'$$,
    'a run of v writes no other challenge'
);

SELECT * FROM finish();
ROLLBACK;
