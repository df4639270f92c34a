-- Challenges p1, p2, p3, play milestones: plays since 2025 of the tracks of verified artists.
BEGIN;
SELECT plan(25);

SELECT build.block(500);
SELECT build.person(255, is_verified => TRUE);
SELECT build.track(1, 255);
SELECT build.monthly(1, '2025-01-01', 100);
SELECT build.run(ARRAY['p1', 'p2', 'p3'], as_of => '2025-03-05 05:06:07+00');
SELECT results_eq(
    $$SELECT
        challenge_id::text, user_id, specifier::text, is_complete, current_step_count, amount,
        completed_blocknumber, created_at, completed_at
    FROM user_challenges$$,
    $$VALUES (
        'p1', 255, 'ff:250', FALSE, 100, 25, NULL::integer, '2025-03-05 05:06:07+00'::timestamptz,
        NULL::timestamp
    )$$,
    'a hundred plays are an incomplete p1 row with step count 100, and no p2 row'
);
SELECT build.monthly(1, '2025-01-01', 150);
SELECT build.monthly(1, '2025-01-01', 50, 'DE');
SELECT build.track(2, 255);
SELECT build.monthly(2, '2026-01-01', 49);
SELECT build.run(ARRAY['p1', 'p2', 'p3'], as_of => '2025-03-05 06:00+00');
SELECT results_eq(
    $$SELECT challenge_id::text, is_complete, current_step_count FROM user_challenges$$,
    $$VALUES ('p1', FALSE, 249)$$,
    'plays are summed over tracks, months and countries'
);
SELECT build.monthly(2, '2026-02-01', 1);
SELECT build.run(ARRAY['p1', 'p2', 'p3'], as_of => '2025-03-06 06:07:08+00');
SELECT results_eq(
    $$SELECT
        challenge_id::text, user_id, specifier::text, is_complete, current_step_count, amount,
        completed_blocknumber, created_at, completed_at
    FROM user_challenges ORDER BY challenge_id$$,
    $$VALUES
        (
            'p1', 255, 'ff:250', TRUE, 250, 25, 500, '2025-03-05 05:06:07+00'::timestamptz,
            '2025-03-06 06:07:08'::timestamp
        ),
        (
            'p2', 255, 'ff:1000', FALSE, 250, 100, NULL, '2025-03-06 06:07:08+00'::timestamptz, NULL
        )$$,
    '250 plays complete p1, and p2 begins in the same run'
);
SELECT build.monthly(2, '2026-02-01', 751);
SELECT build.run(ARRAY['p1', 'p2', 'p3']);
SELECT results_eq(
    $$SELECT challenge_id::text, specifier::text, is_complete, current_step_count, amount FROM user_challenges
    ORDER BY challenge_id$$,
    $$VALUES
        ('p1', 'ff:250', TRUE, 250, 25),
        ('p2', 'ff:1000', TRUE, 1000, 100),
        ('p3', 'ff:10000', FALSE, 1000, 1000)$$,
    '1000 plays complete p2, and p3 begins in the same run'
);
SELECT build.monthly(2, '2026-02-01', 9750);
SELECT build.run(ARRAY['p1', 'p2', 'p3']);
SELECT results_eq(
    $$SELECT is_complete, current_step_count FROM user_challenges WHERE challenge_id = 'p3'$$,
    $$VALUES (FALSE, 9999)$$,
    '9999 plays are one too few for p3'
);

-- The cascade in one run, beyond what an integer holds.
SELECT build.person(10, is_verified => TRUE);
SELECT build.track(10, 10);
SELECT build.monthly(10, '2025-01-01', 2147483647);
SELECT build.monthly(10, '2025-02-01', 2147483647);
SELECT build.run(ARRAY['p1', 'p2', 'p3']);
SELECT results_eq(
    $$SELECT challenge_id::text, specifier::text, is_complete, current_step_count, amount FROM user_challenges
    WHERE user_id = 10 ORDER BY challenge_id$$,
    $$VALUES
        ('p1', 'a:250', TRUE, 250, 25),
        ('p2', 'a:1000', TRUE, 1000, 100),
        ('p3', 'a:10000', TRUE, 10000, 1000)$$,
    'p1, p2 and p3 complete in one run, and the step count never exceeds the target'
);

-- The gates.
SELECT build.person(20, is_verified => TRUE);
SELECT build.person(21, is_verified => TRUE);
SELECT build.person(22, is_verified => TRUE);
SELECT build.track(user_id, user_id) FROM generate_series(20, 22) AS user_id;
SELECT build.monthly(20, '2025-01-01', 20000);
SELECT build.monthly(21, '2025-01-01', 20000);
SELECT build.monthly(22, '2025-01-01', 20000);
INSERT INTO user_challenges (challenge_id, user_id, specifier, is_complete, current_step_count, amount)
VALUES
    ('p2', 20, '14:1000', FALSE, 300, 100),
    ('p1', 21, '15:250', TRUE, 250, 25),
    ('p2', 22, '16:1000', TRUE, 1000, 100);
SELECT build.run(ARRAY['p3']);
SELECT results_eq(
    $$SELECT user_id, specifier::text, current_step_count FROM user_challenges
    WHERE challenge_id = 'p3' AND user_id BETWEEN 20 AND 22$$,
    $$VALUES (22, '16:10000', 10000)$$,
    'p3 exists only for users whose p2 is complete'
);
SELECT build.run(ARRAY['p2']);
SELECT results_eq(
    $$SELECT user_id, is_complete, current_step_count FROM user_challenges
    WHERE challenge_id = 'p2' AND user_id BETWEEN 20 AND 22 ORDER BY user_id$$,
    $$VALUES (20, FALSE, 300), (21, TRUE, 1000), (22, TRUE, 1000)$$,
    'p2 moves only for users whose p1 is complete'
);
UPDATE challenges SET active = FALSE WHERE id = 'p1';
SELECT build.run(ARRAY['p1', 'p2', 'p3']);
SELECT is_empty(
    $$SELECT user_id FROM user_challenges WHERE challenge_id = 'p1' AND user_id IN (20, 22)$$,
    'an inactive p1 opens no row, and so no gate'
);
UPDATE challenges SET active = TRUE WHERE id = 'p1';

-- Who takes part.
SELECT build.person(30, is_verified => FALSE);
SELECT build.person(31, is_verified => TRUE, is_deactivated => TRUE);
SELECT build.person(32, is_verified => TRUE, handle_lc => NULL);
SELECT build.person(33, is_verified => TRUE, is_current => FALSE);
SELECT build.track(user_id, user_id) FROM generate_series(30, 34) AS user_id;
SELECT build.monthly(user_id, '2025-01-01', 10) FROM generate_series(30, 34) AS user_id;
SELECT build.run(ARRAY['p1', 'p2', 'p3']);
SELECT is_empty(
    $$SELECT specifier FROM user_challenges WHERE user_id = 30$$,
    'a user who is not verified gains nothing'
);
SELECT is_empty(
    $$SELECT specifier FROM user_challenges WHERE user_id IN (31, 33, 34)$$,
    'a user without a current, not deactivated row gains nothing'
);
SELECT results_eq(
    $$SELECT specifier::text, current_step_count FROM user_challenges WHERE user_id = 32$$,
    $$VALUES ('20:250', 10)$$,
    'a verified user needs no handle'
);
UPDATE users SET is_verified = FALSE WHERE user_id = 32;
SELECT build.monthly(32, '2025-01-01', 11);
SELECT build.run(ARRAY['p1', 'p2', 'p3']);
SELECT results_eq(
    $$SELECT current_step_count, is_complete FROM user_challenges WHERE user_id = 32$$,
    $$VALUES (10, FALSE)$$,
    'nothing moves for a user who lost the badge'
);

-- What counts: one artist a kind, five plays that count and seven that do not.
SELECT build.person(user_id, is_verified => TRUE) FROM generate_series(40, 47) AS user_id;
SELECT build.track(user_id, user_id) FROM generate_series(40, 46) AS user_id;
SELECT build.monthly(user_id, '2025-01-01', 5) FROM generate_series(40, 46) AS user_id;
SELECT build.monthly(40, '2024-12-01', 7);
SELECT build.track(141, 41, is_delete => TRUE);
SELECT build.track(142, 42, is_current => FALSE);
SELECT build.track(143, 43, is_unlisted => TRUE);
SELECT build.track(144, 44, stem_of => '{"parent_track_id": 1}');
SELECT build.track(145, 45, is_available => FALSE);
SELECT build.monthly(100 + user_id, '2025-01-01', 7) FROM generate_series(41, 45) AS user_id;
SELECT build.track(46, 46, blocknumber => NULL, txhash => '0xsecond');
SELECT build.monthly(147, '2025-01-01', 7);
SELECT build.track(147, 47, is_delete => TRUE);
SELECT build.run(ARRAY['p1', 'p2', 'p3']);
SELECT results_eq(
    $$SELECT current_step_count FROM user_challenges WHERE user_id = 40$$,
    $$VALUES (5)$$,
    'plays of 2025-01 count, plays of 2024-12 do not'
);
SELECT results_eq(
    $$SELECT current_step_count FROM user_challenges WHERE user_id = 41$$,
    $$VALUES (5)$$,
    'plays of a deleted track do not count'
);
SELECT results_eq(
    $$SELECT current_step_count FROM user_challenges WHERE user_id = 42$$,
    $$VALUES (5)$$,
    'plays of a track that is not current do not count'
);
SELECT results_eq(
    $$SELECT user_id, current_step_count FROM user_challenges WHERE user_id BETWEEN 43 AND 45 ORDER BY user_id$$,
    $$VALUES (43, 12), (44, 12), (45, 12)$$,
    'plays of unlisted, stem and unavailable tracks count'
);
SELECT results_eq(
    $$SELECT current_step_count FROM user_challenges WHERE user_id = 46$$,
    $$VALUES (5)$$,
    'two current versions of a track count its plays once'
);
SELECT is_empty(
    $$SELECT specifier FROM user_challenges WHERE user_id = 47$$,
    'an artist without a counted play gets no row'
);

-- Up and down.
SELECT build.monthly(40, '2025-01-01', 2);
SELECT build.monthly(41, '2025-01-01', 0);
UPDATE tracks SET owner_id = 40 WHERE track_id = 42;
SELECT build.run(ARRAY['p1', 'p2', 'p3']);
SELECT results_eq(
    $$SELECT user_id, current_step_count, is_complete FROM user_challenges WHERE user_id BETWEEN 40 AND 42
    ORDER BY user_id$$,
    $$VALUES (40, 7, FALSE), (41, 0, FALSE), (42, 0, FALSE)$$,
    'incomplete rows follow the counts and the owners of the tracks, down to 0'
);
DELETE FROM aggregate_monthly_plays WHERE play_item_id IN (1, 2);
SELECT build.run(ARRAY['p1', 'p2', 'p3']);
SELECT results_eq(
    $$SELECT challenge_id::text, is_complete, current_step_count FROM user_challenges WHERE user_id = 255
    ORDER BY challenge_id$$,
    $$VALUES ('p1', TRUE, 250), ('p2', TRUE, 1000), ('p3', FALSE, 0)$$,
    'completed milestones stay when the plays are gone, the incomplete one goes down'
);

-- The catalog moves the target and the amount, never the specifier.
SELECT build.person(60, is_verified => TRUE);
SELECT build.track(60, 60);
SELECT build.monthly(60, '2025-01-01', 270);
UPDATE challenges SET step_count = 260, amount = '30' WHERE id = 'p1';
UPDATE challenges SET step_count = 265 WHERE id = 'p2';
UPDATE challenges SET step_count = 300 WHERE id = 'p3';
SELECT build.run(ARRAY['p1', 'p2', 'p3']);
SELECT results_eq(
    $$SELECT challenge_id::text, specifier::text, is_complete, current_step_count, amount FROM user_challenges
    WHERE user_id = 60 ORDER BY challenge_id$$,
    $$VALUES
        ('p1', '3c:250', TRUE, 260, 30),
        ('p2', '3c:1000', TRUE, 265, 100),
        ('p3', '3c:10000', FALSE, 270, 1000)$$,
    'the specifiers are fixed texts, whatever step_count says'
);
SELECT results_eq(
    $$SELECT user_id, amount FROM user_challenges
    WHERE challenge_id = 'p1' AND user_id IN (40, 255) ORDER BY user_id$$,
    $$VALUES (40, 30), (255, 25)$$,
    'a changed amount reaches the incomplete rows, and no complete one'
);
UPDATE challenges SET starting_block = 2147483647 WHERE id IN ('p1', 'p2', 'p3');
SELECT build.person(61, is_verified => TRUE);
SELECT build.track(61, 61);
SELECT build.monthly(61, '2025-01-01', 1);
SELECT build.run(ARRAY['p1', 'p2', 'p3']);
SELECT results_eq(
    $$SELECT current_step_count FROM user_challenges WHERE user_id = 61$$,
    $$VALUES (1)$$,
    'the milestones read no starting block'
);
SELECT is_empty(
    $$SELECT new FROM user_challenges_log WHERE challenge_id NOT IN ('p1', 'p2', 'p3')$$,
    'a run of the milestones writes no other challenge'
);

SELECT * FROM finish();
ROLLBACK;
