-- Challenge u, track upload: public tracks since the starting block, up to three.
BEGIN;
SELECT plan(23);

-- Three tracks.
SELECT build.person(255);
SELECT build.track(track_id, 255, blocknumber => 25346500) FROM generate_series(1, 2) AS track_id;
SELECT build.block(25347000);
SELECT build.run(ARRAY['u'], as_of => '2025-03-05 05:06:07+00');
SELECT results_eq(
    $$SELECT
        user_id, specifier::text, is_complete, current_step_count, amount, completed_blocknumber,
        created_at, completed_at
    FROM user_challenges WHERE challenge_id = 'u'$$,
    $$VALUES (
        255, 'ff', FALSE, 2, 1, NULL::integer, '2025-03-05 05:06:07+00'::timestamptz, NULL::timestamp
    )$$,
    'two tracks are an incomplete row with step count 2'
);
SELECT build.track(3, 255, blocknumber => 25346500);
SELECT build.track(4, 255, blocknumber => 25346500);
SELECT build.run(ARRAY['u'], as_of => '2025-03-06 06:07:08+00');
SELECT results_eq(
    $$SELECT
        user_id, specifier::text, is_complete, current_step_count, amount, completed_blocknumber,
        created_at, completed_at
    FROM user_challenges WHERE challenge_id = 'u'$$,
    $$VALUES (
        255, 'ff', TRUE, 3, 1, 25347000, '2025-03-05 05:06:07+00'::timestamptz,
        '2025-03-06 06:07:08'::timestamp
    )$$,
    'three tracks complete the row, and a fourth does not exceed the target'
);
DELETE FROM tracks WHERE owner_id = 255;
SELECT build.run(ARRAY['u']);
SELECT results_eq(
    $$SELECT is_complete, current_step_count FROM user_challenges WHERE challenge_id = 'u' AND user_id = 255$$,
    $$VALUES (TRUE, 3)$$,
    'a completed row stays when the tracks are gone'
);

-- What does not count: one user a kind, and user 20 with all the kinds that do.
SELECT build.person(user_id) FROM generate_series(10, 20) AS user_id;
SELECT build.track(100, 10, is_unlisted => TRUE, blocknumber => 25346500);
SELECT build.track(110, 11, stem_of => '{"parent_track_id": 1}', blocknumber => 25346500);
SELECT build.track(120, 12, is_delete => TRUE, blocknumber => 25346500);
SELECT build.track(130, 13, is_current => FALSE, blocknumber => 25346500);
SELECT build.track(140, 14, blocknumber => 25346435);
SELECT build.track(150, 15, blocknumber => NULL);
SELECT build.track(160, 16, stem_of => 'null', blocknumber => 25346500);
SELECT build.track(200, 20, blocknumber => 25346436);
SELECT build.track(201, 20, is_available => FALSE, blocknumber => 25346437);
SELECT build.run(ARRAY['u']);
SELECT is_empty(
    $$SELECT specifier FROM user_challenges WHERE challenge_id = 'u' AND user_id = 10$$,
    'an unlisted track does not count'
);
SELECT is_empty(
    $$SELECT specifier FROM user_challenges WHERE challenge_id = 'u' AND user_id = 11$$,
    'a stem does not count'
);
SELECT is_empty(
    $$SELECT specifier FROM user_challenges WHERE challenge_id = 'u' AND user_id = 12$$,
    'a deleted track does not count'
);
SELECT is_empty(
    $$SELECT specifier FROM user_challenges WHERE challenge_id = 'u' AND user_id = 13$$,
    'a track that is not current does not count'
);
SELECT is_empty(
    $$SELECT specifier FROM user_challenges WHERE challenge_id = 'u' AND user_id = 14$$,
    'a track of the block before the starting block does not count'
);
SELECT is_empty(
    $$SELECT specifier FROM user_challenges WHERE challenge_id = 'u' AND user_id = 15$$,
    'a null block number is 0, before the starting block'
);
SELECT is_empty(
    $$SELECT specifier FROM user_challenges WHERE challenge_id = 'u' AND user_id = 16$$,
    'a stem_of that holds the JSON value null is not a stem_of that is null'
);
SELECT results_eq(
    $$SELECT current_step_count FROM user_challenges WHERE challenge_id = 'u' AND user_id = 20$$,
    $$VALUES (2)$$,
    'a track of exactly the starting block counts, and so does one that is not available'
);
SELECT results_eq(
    $$SELECT count(*) FROM user_challenges WHERE challenge_id = 'u' AND current_step_count < 1$$,
    $$VALUES (0::bigint)$$,
    'a user without a counted track gets no row'
);

-- Each track once.
SELECT build.person(30);
SELECT build.track(300, 30, blocknumber => 25346500, txhash => '0xa');
SELECT build.track(300, 30, blocknumber => 25346501, txhash => '0xb');
SELECT build.track(301, 30, blocknumber => 25346500, txhash => '0xa');
SELECT build.track(301, 30, blocknumber => 25346501, is_unlisted => TRUE, txhash => '0xb');
SELECT build.run(ARRAY['u']);
SELECT results_eq(
    $$SELECT current_step_count, is_complete FROM user_challenges WHERE challenge_id = 'u' AND user_id = 30$$,
    $$VALUES (2, FALSE)$$,
    'two current versions of a track count once, and one that qualifies is enough'
);

-- Up and down.
SELECT build.person(40);
SELECT build.person(41);
SELECT build.track(400, 40, blocknumber => 25346600);
SELECT build.track(401, 40, blocknumber => 25346601);
SELECT build.run(ARRAY['u']);
UPDATE tracks SET is_delete = TRUE WHERE track_id = 400;
SELECT build.run(ARRAY['u']);
SELECT results_eq(
    $$SELECT current_step_count FROM user_challenges WHERE challenge_id = 'u' AND user_id = 40$$,
    $$VALUES (1)$$,
    'a deleted track is taken away from an incomplete row'
);
DELETE FROM blocks WHERE number = 25346601;
SELECT build.run(ARRAY['u']);
SELECT results_eq(
    $$SELECT current_step_count, is_complete, amount FROM user_challenges
    WHERE challenge_id = 'u' AND user_id = 40$$,
    $$VALUES (0, FALSE, 1)$$,
    'a reverted block takes its tracks away, down to 0'
);
UPDATE tracks SET is_delete = FALSE WHERE track_id = 400;
SELECT build.run(ARRAY['u']);
SELECT results_eq(
    $$SELECT current_step_count FROM user_challenges WHERE challenge_id = 'u' AND user_id = 40$$,
    $$VALUES (1)$$,
    'a track that comes back counts again, on the same row'
);
UPDATE tracks SET owner_id = 41 WHERE track_id = 400;
SELECT build.run(ARRAY['u']);
SELECT results_eq(
    $$SELECT user_id, current_step_count FROM user_challenges
    WHERE challenge_id = 'u' AND user_id IN (40, 41) ORDER BY user_id$$,
    $$VALUES (40, 0), (41, 1)$$,
    'a track that changes hands counts for its owner of today'
);

-- The catalog's starting block and target.
UPDATE challenges SET starting_block = NULL WHERE id = 'u';
SELECT build.run(ARRAY['u']);
SELECT results_eq(
    $$SELECT user_id, current_step_count FROM user_challenges
    WHERE challenge_id = 'u' AND user_id IN (14, 15) ORDER BY user_id$$,
    $$VALUES (14, 1), (15, 1)$$,
    'a starting block that is null is 0, and a track without block number counts from there'
);
UPDATE challenges SET starting_block = 25346437 WHERE id = 'u';
SELECT build.run(ARRAY['u']);
SELECT results_eq(
    $$SELECT user_id, current_step_count FROM user_challenges
    WHERE challenge_id = 'u' AND user_id IN (14, 15, 20) ORDER BY user_id$$,
    $$VALUES (14, 0), (15, 0), (20, 1)$$,
    'incomplete rows follow a starting block that moves'
);
UPDATE challenges SET starting_block = 25346436, step_count = 2 WHERE id = 'u';
SELECT build.run(ARRAY['u']);
SELECT results_eq(
    $$SELECT is_complete, current_step_count FROM user_challenges WHERE challenge_id = 'u' AND user_id = 20$$,
    $$VALUES (TRUE, 2)$$,
    'step_count of the catalog is the target'
);

-- Who takes part.
SELECT build.person(50, is_deactivated => TRUE);
SELECT build.person(51, is_current => FALSE);
SELECT build.person(52, handle_lc => NULL);
SELECT build.track(500 + user_id, user_id, blocknumber => 25346500) FROM generate_series(50, 53) AS user_id;
SELECT build.run(ARRAY['u']);
SELECT results_eq(
    $$SELECT user_id FROM user_challenges WHERE challenge_id = 'u' AND user_id BETWEEN 50 AND 53$$,
    $$VALUES (52)$$,
    'only an owner with a current, not deactivated row in users gains, with or without a handle'
);
UPDATE users SET is_deactivated = TRUE WHERE user_id = 52;
DELETE FROM tracks WHERE owner_id = 52;
SELECT build.run(ARRAY['u']);
SELECT results_eq(
    $$SELECT current_step_count FROM user_challenges WHERE challenge_id = 'u' AND user_id = 52$$,
    $$VALUES (1)$$,
    'nothing moves for a deactivated owner'
);
SELECT is_empty(
    $$SELECT new FROM user_challenges_log WHERE challenge_id <> 'u'$$,
    'a run of u writes no other challenge'
);

SELECT * FROM finish();
ROLLBACK;
