-- The twelve cases of the seed's test plan, each by its name there.
BEGIN;
SELECT plan(12);

SELECT build.person(user_id) FROM generate_series(1, 12) AS user_id;

SELECT build.track(track_id, 1, blocknumber => 25346436) FROM generate_series(1, 3) AS track_id;
SELECT build.run(ARRAY['u']);
SELECT results_eq(
    $$SELECT specifier::text, is_complete, current_step_count, amount FROM user_challenges WHERE user_id = 1$$,
    $$VALUES ('1', TRUE, 3, 1)$$,
    'TestTrackUpload_CompletesAt3: three tracks are complete'
);

SELECT build.track(11, 2, blocknumber => 25346436);
SELECT build.track(12, 2, blocknumber => 25346436, is_unlisted => TRUE);
SELECT build.track(13, 2, blocknumber => 25346436, stem_of => '{"parent_track_id": 11}');
SELECT build.run(ARRAY['u']);
SELECT results_eq(
    $$SELECT is_complete, current_step_count FROM user_challenges WHERE user_id = 2$$,
    $$VALUES (FALSE, 1)$$,
    'TestTrackUpload_IgnoresStemsAndUnlisted: only public tracks that are no stems count'
);

SELECT build.playlist(1, 3, blocknumber => 28350000);
SELECT build.run(ARRAY['fp']);
SELECT results_eq(
    $$SELECT specifier::text, is_complete, current_step_count, amount FROM user_challenges WHERE user_id = 3$$,
    $$VALUES ('3', TRUE, 1, 2)$$,
    'TestFirstPlaylist_CompletesOnAnyPlaylist: any playlist completes, with the amount of the catalog'
);

UPDATE users SET bio = 'Sings.', name = 'Ada', cover_photo = 'Qm4' WHERE user_id = 4;
SELECT build.run(ARRAY['p']);
SELECT results_eq(
    $$SELECT is_complete, current_step_count, amount FROM user_challenges WHERE user_id = 4$$,
    $$VALUES (FALSE, 3, 1)$$,
    'TestProfileCompletion_PartialProgress: three of seven steps are a step count of 3'
);

UPDATE users SET bio = 'Sings.', name = 'Bob', cover_photo = 'Qm5', profile_picture = 'Qm5' WHERE user_id = 5;
SELECT build.follow(5, followee) FROM generate_series(6, 10) AS followee;
SELECT build.save(5, 1);
SELECT build.repost(5, 1);
SELECT build.run(ARRAY['p']);
SELECT results_eq(
    $$SELECT is_complete, current_step_count, amount FROM user_challenges WHERE user_id = 5$$,
    $$VALUES (TRUE, 7, 1)$$,
    'TestProfileCompletion_FullyComplete: seven of seven steps are complete'
);

UPDATE users SET is_verified = TRUE WHERE user_id = 6;
SELECT build.run(ARRAY['v']);
SELECT results_eq(
    $$SELECT user_id, is_complete, current_step_count, amount FROM user_challenges WHERE challenge_id = 'v'$$,
    $$VALUES (6, TRUE, 1, 5)$$,
    'TestProfileVerified_CompletesForVerifiedUsers: verified users complete, and no others'
);

SELECT build.play(7, 1, '2025-03-02 12:00');
SELECT build.run(ARRAY['e']);
SELECT is_empty(
    $$SELECT user_id FROM challenge_listen_streak UNION ALL SELECT user_id FROM user_challenges WHERE user_id = 7$$,
    'TestListenStreak_SkippedWhenInactive: nothing is done while the catalog row is inactive'
);

UPDATE challenges SET active = TRUE WHERE id = 'e';
SELECT build.play(8, 1, '2025-03-02 12:00');
SELECT build.play(8, 1, '2025-03-03 12:00');
SELECT build.play(8, 1, '2025-03-03 20:00');
SELECT build.play(8, 1, '2025-03-04 12:00');
SELECT build.run(ARRAY['e']);
SELECT results_eq(
    $$SELECT specifier::text, is_complete, current_step_count, listen_streak FROM user_challenges
    INNER JOIN challenge_listen_streak USING (user_id)
    WHERE user_id = 8$$,
    $$VALUES ('82025030212', FALSE, 3, 3)$$,
    'TestListenStreak_AdvancesAcrossDays: the streak grows across gaps of 16 hours and more'
);

SELECT build.track(91, 9);
SELECT build.track(101, 10);
UPDATE users SET is_verified = TRUE WHERE user_id = 10;
SELECT build.monthly(91, '2025-06-01', 300);
SELECT build.monthly(101, '2025-06-01', 300);
SELECT build.run(ARRAY['p1']);
SELECT results_eq(
    $$SELECT user_id, specifier::text, is_complete, current_step_count, amount FROM user_challenges
    WHERE challenge_id = 'p1'$$,
    $$VALUES (10, 'a:250', TRUE, 250, 25)$$,
    'TestPlayCount250_RequiresVerified: users who are not verified are skipped'
);

SELECT build.track(111, 11);
UPDATE users SET is_verified = TRUE WHERE user_id = 11;
SELECT build.monthly(111, '2025-06-01', 249);
SELECT build.run(ARRAY['p1', 'p2']);
SELECT results_eq(
    $$SELECT user_id, specifier::text, is_complete, current_step_count, amount FROM user_challenges
    WHERE challenge_id = 'p2'$$,
    $$VALUES (10, 'a:1000', FALSE, 300, 100)$$,
    'TestPlayCount1000_GatedOnPrevious: p2 begins only after p1 is complete'
);

SELECT build.track_score(1, 2);
SELECT build.track_score(2, 1);
SELECT build.run(ARRAY['tt'], as_of => '2025-03-07 09:00+00');
SELECT build.track_score(3, 3);
SELECT build.run(ARRAY['tt'], as_of => '2025-03-07 10:00+00');
SELECT results_eq(
    $$SELECT specifier::text, user_id, is_complete, amount FROM user_challenges WHERE challenge_id = 'tt'
    ORDER BY specifier$$,
    $$VALUES ('2025-03-07:1', 1, TRUE, 1000), ('2025-03-07:2', 1, TRUE, 1000)$$,
    'TestTrending_IdempotentSameWeek: a second run of the same Friday does nothing'
);

SELECT build.run(ARRAY['tt'], as_of => '2025-03-13 09:00+00');
SELECT results_eq(
    $$SELECT DISTINCT week FROM trending_results$$,
    $$VALUES ('2025-03-07'::date)$$,
    'TestTrending_SkipsNonFriday: a Thursday has no winners'
);

SELECT * FROM finish();
ROLLBACK;
