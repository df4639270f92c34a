-- Challenge p, profile completion: seven steps of a profile, each also kept in challenge_profile_completion.
BEGIN;
SELECT plan(27);

-- User 255 has three of the seven steps.
SELECT build.person(255, name => 'Ada', bio => 'Plays the viola.', profile_picture => 'Qm255');
-- Users 1 to 7 have one step each; 11 and 12 reach the picture and the cover by the other column.
SELECT build.person(1, bio => '');
SELECT build.person(2, name => '');
SELECT build.person(3, profile_picture => 'Qm3');
SELECT build.person(4, cover_photo => 'Qm4');
SELECT build.person(user_id) FROM generate_series(5, 8) AS user_id;
SELECT build.person(11, profile_picture_sizes => 'Qm11');
SELECT build.person(12, cover_photo_sizes => 'Qm12');
SELECT build.follow(5, followee) FROM generate_series(101, 105) AS followee;
SELECT build.save(6, 1, 'track');
SELECT build.repost(7, 1, 'track');

SELECT build.run(ARRAY['p'], as_of => '2025-03-05 05:06:07+00');

SELECT results_eq(
    $$SELECT
        user_id, specifier::text, is_complete, current_step_count, amount, completed_blocknumber,
        created_at, completed_at
    FROM user_challenges WHERE challenge_id = 'p' AND user_id = 255$$,
    $$VALUES (
        255, 'ff', FALSE, 3, 1, NULL::integer, '2025-03-05 05:06:07+00'::timestamptz, NULL::timestamp
    )$$,
    'three of the seven steps are an incomplete row with step count 3'
);
SELECT results_eq(
    $$SELECT c.* FROM challenge_profile_completion AS c WHERE user_id = 255$$,
    $$VALUES (255, TRUE, TRUE, TRUE, FALSE, FALSE, FALSE, FALSE)$$,
    'the steps of a user stand in challenge_profile_completion'
);
SELECT results_eq(
    $$SELECT
        user_id, profile_description, profile_name, profile_picture, profile_cover_photo, follows, favorites,
        reposts
    FROM challenge_profile_completion WHERE user_id < 100 ORDER BY user_id$$,
    $$VALUES
        (1, TRUE, FALSE, FALSE, FALSE, FALSE, FALSE, FALSE),
        (2, FALSE, TRUE, FALSE, FALSE, FALSE, FALSE, FALSE),
        (3, FALSE, FALSE, TRUE, FALSE, FALSE, FALSE, FALSE),
        (4, FALSE, FALSE, FALSE, TRUE, FALSE, FALSE, FALSE),
        (5, FALSE, FALSE, FALSE, FALSE, TRUE, FALSE, FALSE),
        (6, FALSE, FALSE, FALSE, FALSE, FALSE, TRUE, FALSE),
        (7, FALSE, FALSE, FALSE, FALSE, FALSE, FALSE, TRUE),
        (11, FALSE, FALSE, TRUE, FALSE, FALSE, FALSE, FALSE),
        (12, FALSE, FALSE, FALSE, TRUE, FALSE, FALSE, FALSE)$$,
    'each step has its source: bio, name, picture or its sizes, cover or its sizes, follows, saves, reposts'
);
SELECT results_eq(
    $$SELECT user_id, current_step_count FROM user_challenges WHERE challenge_id = 'p' AND user_id < 100
    ORDER BY user_id$$,
    $$VALUES (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1), (11, 1), (12, 1)$$,
    'each step counts one'
);
SELECT is_empty(
    $$SELECT user_id FROM user_challenges WHERE user_id = 8
    UNION ALL
    SELECT user_id FROM challenge_profile_completion WHERE user_id = 8$$,
    'a profile without any step has no row'
);

-- The five follows.
SELECT build.person(user_id, name => 'Bob')
FROM generate_series(20, 26) AS user_id;
SELECT build.follow(20, followee) FROM generate_series(101, 104) AS followee;
SELECT build.follow(21, followee) FROM generate_series(101, 106) AS followee;
SELECT build.follow(22, followee) FROM generate_series(101, 104) AS followee;
SELECT build.follow(22, 105, is_delete => TRUE);
SELECT build.follow(23, followee) FROM generate_series(101, 104) AS followee;
SELECT build.follow(23, 105, is_current => FALSE);
SELECT build.follow(24, followee) FROM generate_series(101, 104) AS followee;
SELECT build.follow(24, 104, txhash => '0xsecond');
SELECT build.follow(follower, 25) FROM generate_series(101, 105) AS follower;
SELECT build.run(ARRAY['p'], as_of => '2025-03-05 06:00+00');

SELECT results_eq(
    $$SELECT user_id, follows FROM challenge_profile_completion WHERE user_id IN (20, 21) ORDER BY user_id$$,
    $$VALUES (20, FALSE), (21, TRUE)$$,
    'four follows are too few, five or more are enough'
);
SELECT results_eq(
    $$SELECT follows FROM challenge_profile_completion WHERE user_id = 22$$,
    $$VALUES (FALSE)$$,
    'a deleted follow does not count'
);
SELECT results_eq(
    $$SELECT follows FROM challenge_profile_completion WHERE user_id = 23$$,
    $$VALUES (FALSE)$$,
    'a follow that is not current does not count'
);
SELECT results_eq(
    $$SELECT follows FROM challenge_profile_completion WHERE user_id = 24$$,
    $$VALUES (FALSE)$$,
    'two current versions of one follow count once'
);
SELECT results_eq(
    $$SELECT follows FROM challenge_profile_completion WHERE user_id = 25$$,
    $$VALUES (FALSE)$$,
    'followers are not follows'
);

-- Reposts and favorites.
SELECT build.person(user_id, name => 'Cyd')
FROM generate_series(30, 37) AS user_id;
SELECT build.save(30, 1, 'playlist');
SELECT build.save(31, 1, 'album');
SELECT build.save(32, 1, 'track', is_delete => TRUE);
SELECT build.save(33, 1, 'track', is_current => FALSE);
SELECT build.repost(34, 1, 'playlist');
SELECT build.repost(35, 1, 'album');
SELECT build.repost(36, 1, 'track', is_delete => TRUE);
SELECT build.repost(37, 1, 'track', is_current => FALSE);
SELECT build.run(ARRAY['p'], as_of => '2025-03-05 06:00+00');

SELECT results_eq(
    $$SELECT user_id, favorites, reposts FROM challenge_profile_completion
    WHERE user_id IN (30, 31, 34, 35) ORDER BY user_id$$,
    $$VALUES (30, TRUE, FALSE), (31, TRUE, FALSE), (34, FALSE, TRUE), (35, FALSE, TRUE)$$,
    'a favorite or a repost may be of a playlist or an album as well as of a track'
);
SELECT results_eq(
    $$SELECT user_id, favorites, reposts FROM challenge_profile_completion WHERE user_id IN (32, 36)
    ORDER BY user_id$$,
    $$VALUES (32, FALSE, FALSE), (36, FALSE, FALSE)$$,
    'a deleted favorite or repost does not count'
);
SELECT results_eq(
    $$SELECT user_id, favorites, reposts FROM challenge_profile_completion WHERE user_id IN (33, 37)
    ORDER BY user_id$$,
    $$VALUES (33, FALSE, FALSE), (37, FALSE, FALSE)$$,
    'a favorite or repost that is not current does not count'
);

-- Completion.
SELECT build.follow(255, followee) FROM generate_series(101, 105) AS followee;
SELECT build.save(255, 1, 'track');
SELECT build.repost(255, 1, 'track');
SELECT build.run(ARRAY['p'], as_of => '2025-03-05 06:00+00');
SELECT results_eq(
    $$SELECT is_complete, current_step_count, completed_at FROM user_challenges
    WHERE challenge_id = 'p' AND user_id = 255$$,
    $$VALUES (FALSE, 6, NULL::timestamp)$$,
    'six of the seven steps are not complete'
);

UPDATE users SET cover_photo_sizes = 'Qm255' WHERE user_id = 255;
SELECT build.block(777);
SELECT build.run(ARRAY['p'], as_of => '2025-03-06 06:07:08+00');
SELECT results_eq(
    $$SELECT is_complete, current_step_count, amount, completed_blocknumber, created_at, completed_at
    FROM user_challenges WHERE challenge_id = 'p' AND user_id = 255$$,
    $$VALUES (
        TRUE, 7, 1, 777, '2025-03-05 05:06:07+00'::timestamptz, '2025-03-06 06:07:08'::timestamp
    )$$,
    'all seven steps complete the row'
);

UPDATE users SET bio = NULL, name = NULL WHERE user_id = 255;
DELETE FROM follows WHERE follower_user_id = 255;
SELECT build.run(ARRAY['p']);
SELECT results_eq(
    $$SELECT c.* FROM challenge_profile_completion AS c WHERE user_id = 255$$,
    $$VALUES (255, FALSE, FALSE, TRUE, TRUE, FALSE, TRUE, TRUE)$$,
    'challenge_profile_completion keeps following the profile after completion'
);
SELECT results_eq(
    $$SELECT is_complete, current_step_count FROM user_challenges WHERE challenge_id = 'p' AND user_id = 255$$,
    $$VALUES (TRUE, 7)$$,
    'a completed profile stays complete when steps are undone'
);

-- Down again.
SELECT build.person(40, name => 'Dot', bio => 'Sings.');
SELECT build.repost(40, 1, 'track');
SELECT build.run(ARRAY['p']);
UPDATE users SET bio = NULL WHERE user_id = 40;
SELECT build.run(ARRAY['p']);
SELECT results_eq(
    $$SELECT current_step_count FROM user_challenges WHERE challenge_id = 'p' AND user_id = 40$$,
    $$VALUES (2)$$,
    'a step that is undone is taken away from an incomplete row'
);
UPDATE users SET name = NULL WHERE user_id = 40;
UPDATE reposts SET is_delete = TRUE WHERE user_id = 40;
SELECT build.run(ARRAY['p']);
SELECT results_eq(
    $$SELECT current_step_count, is_complete FROM user_challenges WHERE challenge_id = 'p' AND user_id = 40$$,
    $$VALUES (0, FALSE)$$,
    'an incomplete row goes down to 0 when no step is left'
);
SELECT results_eq(
    $$SELECT c.* FROM challenge_profile_completion AS c WHERE user_id = 40$$,
    $$VALUES (40, FALSE, FALSE, FALSE, FALSE, FALSE, FALSE, FALSE)$$,
    'challenge_profile_completion goes down too'
);

-- Who takes part.
SELECT build.person(50, handle_lc => NULL, name => 'Eve', bio => 'Drums.');
SELECT build.person(51, handle_lc => 'fay', name => 'Fay', bio => 'Drums.');
SELECT build.person(52, name => 'Gus', bio => 'Drums.');
SELECT build.run(ARRAY['p']);
SELECT is_empty(
    $$SELECT user_id FROM user_challenges WHERE user_id = 50
    UNION ALL
    SELECT user_id FROM challenge_profile_completion WHERE user_id = 50$$,
    'a user without handle_lc does not take part'
);
UPDATE users SET handle_lc = NULL, bio = NULL WHERE user_id = 51;
UPDATE users SET is_deactivated = TRUE, bio = NULL WHERE user_id = 52;
SELECT build.run(ARRAY['p']);
SELECT results_eq(
    $$SELECT current_step_count, profile_description FROM user_challenges
    INNER JOIN challenge_profile_completion USING (user_id)
    WHERE challenge_id = 'p' AND user_id = 51$$,
    $$VALUES (2, TRUE)$$,
    'nothing moves for a user who lost handle_lc'
);
SELECT results_eq(
    $$SELECT current_step_count, profile_description FROM user_challenges
    INNER JOIN challenge_profile_completion USING (user_id)
    WHERE challenge_id = 'p' AND user_id = 52$$,
    $$VALUES (2, TRUE)$$,
    'nothing moves for a deactivated user'
);

-- Two current rows of one user.
SELECT build.person(60, name => 'Hal', bio => 'Old.', blocknumber => 200, txhash => '0xold');
SELECT build.person(60, profile_picture => 'Qm60', blocknumber => 201, txhash => '0xnew');
SELECT build.person(61, name => 'Ivy', bio => 'Low.', blocknumber => NULL, txhash => '0xz');
SELECT build.person(61, profile_picture => 'Qm61', blocknumber => 200, txhash => '0xa');
SELECT build.run(ARRAY['p']);
SELECT results_eq(
    $$SELECT user_id, profile_description, profile_name, profile_picture FROM challenge_profile_completion
    WHERE user_id IN (60, 61) ORDER BY user_id$$,
    $$VALUES (60, FALSE, FALSE, TRUE), (61, FALSE, FALSE, TRUE)$$,
    'of two current rows of one user the one with the higher block number decides, null being the lowest'
);

-- The target is the catalog's.
SELECT build.person(70, name => 'Jo', bio => 'Flute.', profile_picture => 'Qm70');
UPDATE challenges SET step_count = 2, starting_block = 2147483647 WHERE id = 'p';
SELECT build.run(ARRAY['p']);
SELECT results_eq(
    $$SELECT is_complete, current_step_count FROM user_challenges WHERE challenge_id = 'p' AND user_id = 70$$,
    $$VALUES (TRUE, 2)$$,
    'step_count of the catalog is the target, the step count never exceeds it, and no starting block is read'
);
SELECT results_eq(
    $$SELECT profile_description, profile_name, profile_picture FROM challenge_profile_completion
    WHERE user_id = 70$$,
    $$VALUES (TRUE, TRUE, TRUE)$$,
    'challenge_profile_completion shows every step, whatever the target'
);
SELECT is_empty(
    $$SELECT new FROM user_challenges_log WHERE challenge_id <> 'p'$$,
    'a run of p writes no other challenge'
);

SELECT * FROM finish();
ROLLBACK;
