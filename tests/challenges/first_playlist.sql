-- Challenge fp, first playlist: any playlist or album since the starting block.
BEGIN;
SELECT plan(14);

SELECT build.person(user_id) FROM generate_series(1, 10) AS user_id;
SELECT build.person(255);
SELECT build.playlist(1, 255, blocknumber => 28350000);
SELECT build.block(28360000);
SELECT build.run(ARRAY['fp'], as_of => '2025-03-05 05:06:07+00');
SELECT results_eq(
    $$SELECT
        user_id, specifier::text, is_complete, current_step_count, amount, completed_blocknumber,
        created_at, completed_at
    FROM user_challenges WHERE challenge_id = 'fp'$$,
    $$VALUES (
        255, 'ff', TRUE, 1, 2, 28360000, '2025-03-05 05:06:07+00'::timestamptz,
        '2025-03-05 05:06:07'::timestamp
    )$$,
    'a playlist of exactly the starting block completes the challenge, and only its owner gets a row'
);

SELECT build.playlist(10, 1, is_album => TRUE, blocknumber => 28350001);
SELECT build.playlist(20, 2, is_private => TRUE, blocknumber => 28350001);
SELECT build.playlist(30, 3, is_delete => TRUE, blocknumber => 28350001);
SELECT build.playlist(40, 4, is_current => FALSE, blocknumber => 28350001);
SELECT build.playlist(50, 5, blocknumber => 28349999);
SELECT build.playlist(60, 6, blocknumber => NULL);
SELECT build.playlist(70, 7, blocknumber => 28350001);
SELECT build.playlist(71, 7, blocknumber => 28350001);
SELECT build.run(ARRAY['fp'], as_of => '2025-03-05 06:00+00');
SELECT results_eq(
    $$SELECT is_complete FROM user_challenges WHERE challenge_id = 'fp' AND user_id = 1$$,
    $$VALUES (TRUE)$$,
    'an album counts'
);
SELECT results_eq(
    $$SELECT is_complete FROM user_challenges WHERE challenge_id = 'fp' AND user_id = 2$$,
    $$VALUES (TRUE)$$,
    'a private playlist counts'
);
SELECT is_empty(
    $$SELECT user_id FROM user_challenges WHERE challenge_id = 'fp' AND user_id = 3$$,
    'a deleted playlist does not count'
);
SELECT is_empty(
    $$SELECT user_id FROM user_challenges WHERE challenge_id = 'fp' AND user_id = 4$$,
    'a playlist that is not current does not count'
);
SELECT is_empty(
    $$SELECT user_id FROM user_challenges WHERE challenge_id = 'fp' AND user_id = 5$$,
    'a playlist of the block before the starting block does not count'
);
SELECT is_empty(
    $$SELECT user_id FROM user_challenges WHERE challenge_id = 'fp' AND user_id = 6$$,
    'a null block number is 0, before the starting block'
);
SELECT results_eq(
    $$SELECT specifier::text, current_step_count, amount FROM user_challenges
    WHERE challenge_id = 'fp' AND user_id = 7$$,
    $$VALUES ('7', 1, 2)$$,
    'two playlists are one first playlist'
);

DELETE FROM playlists WHERE playlist_owner_id = 255;
SELECT build.run(ARRAY['fp'], as_of => '2025-03-05 06:00+00');
SELECT results_eq(
    $$SELECT is_complete, current_step_count FROM user_challenges WHERE challenge_id = 'fp' AND user_id = 255$$,
    $$VALUES (TRUE, 1)$$,
    'a completed first playlist stays when the playlist is gone'
);

-- Incomplete rows that an earlier service left.
INSERT INTO user_challenges (challenge_id, user_id, specifier, is_complete, current_step_count, amount, created_at)
VALUES
    ('fp', 8, '8', FALSE, 1, 2, '2024-01-01 00:00:00+00'),
    ('fp', 9, '9', FALSE, NULL, 5, '2024-01-01 00:00:00+00');
SELECT build.playlist(90, 9, blocknumber => 28350001);
SELECT build.run(ARRAY['fp'], as_of => '2025-03-06 06:07:08+00');
SELECT results_eq(
    $$SELECT is_complete, current_step_count, completed_blocknumber, completed_at
    FROM user_challenges WHERE challenge_id = 'fp' AND user_id = 8$$,
    $$VALUES (FALSE, 0, NULL::integer, NULL::timestamp)$$,
    'an incomplete row without a playlist goes to 0'
);
SELECT results_eq(
    $$SELECT is_complete, current_step_count, amount, completed_blocknumber, created_at, completed_at
    FROM user_challenges WHERE challenge_id = 'fp' AND user_id = 9$$,
    $$VALUES (
        TRUE, 1, 2, 28360000, '2024-01-01 00:00:00+00'::timestamptz, '2025-03-06 06:07:08'::timestamp
    )$$,
    'an incomplete row with a playlist is completed in place'
);

UPDATE challenges SET starting_block = NULL, step_count = 5 WHERE id = 'fp';
SELECT build.run(ARRAY['fp']);
SELECT results_eq(
    $$SELECT user_id FROM user_challenges WHERE challenge_id = 'fp' AND user_id IN (5, 6) ORDER BY user_id$$,
    $$VALUES (5), (6)$$,
    'a starting block that is null is 0, a playlist without block number counts from there, no step_count is read'
);

SELECT build.person(20, is_deactivated => TRUE);
SELECT build.person(21, is_current => FALSE);
SELECT build.person(22, handle_lc => NULL);
SELECT build.playlist(200 + user_id, user_id, blocknumber => 28350001) FROM generate_series(20, 23) AS user_id;
SELECT build.run(ARRAY['fp']);
SELECT results_eq(
    $$SELECT user_id FROM user_challenges WHERE challenge_id = 'fp' AND user_id BETWEEN 20 AND 23$$,
    $$VALUES (22)$$,
    'only an owner with a current, not deactivated row in users gains, with or without a handle'
);
SELECT is_empty(
    $$SELECT new FROM user_challenges_log WHERE challenge_id <> 'fp'$$,
    'a run of fp writes no other challenge'
);

SELECT * FROM finish();
ROLLBACK;
