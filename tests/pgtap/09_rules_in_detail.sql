-- The rules that every challenge follows, in detail: values, users and cases that 05_rules.sql cannot make for all.
BEGIN;
SELECT plan(35);

-- The derived tables, row by row, with the place and version of each tuple.
CREATE TEMPORARY VIEW derived AS
SELECT
    'user_challenges' AS source,
    to_jsonb(c) AS content,
    c.ctid AS place,
    c.xmin::text AS version
FROM user_challenges AS c
UNION ALL
SELECT
    'challenge_profile_completion',
    to_jsonb(c),
    c.ctid,
    c.xmin::text
FROM challenge_profile_completion AS c
UNION ALL
SELECT
    'challenge_listen_streak',
    to_jsonb(c),
    c.ctid,
    c.xmin::text
FROM challenge_listen_streak AS c
UNION ALL
SELECT
    'trending_results',
    to_jsonb(c),
    c.ctid,
    c.xmin::text
FROM trending_results AS c
UNION ALL
SELECT
    'challenges',
    to_jsonb(c),
    c.ctid,
    c.xmin::text
FROM challenges AS c;

-- One artist who qualifies for everything there is on Friday, 2025-03-07; all rows are of block 100 or null.
UPDATE challenges SET active = TRUE, starting_block = 0;
SELECT build.person(
    255, name => 'Ada', bio => 'Viola.', profile_picture => 'Qm1', cover_photo => 'Qm2', is_verified => TRUE
);
SELECT build.person(user_id) FROM generate_series(1, 5) AS user_id;
SELECT build.follow(255, user_id) FROM generate_series(1, 5) AS user_id;
SELECT build.save(255, 1);
SELECT build.repost(255, 1);
SELECT build.track(track_id, 255) FROM generate_series(1, 3) AS track_id;
SELECT build.track(4, 1);
SELECT build.playlist(1, 255);
SELECT build.monthly(1, '2025-01-01', 10000);
SELECT build.play(255, 4, '2025-02-01 12:00'::timestamp + day * '1 day'::interval)
FROM generate_series(0, 7) AS day;
SELECT build.track_score(track_id, track_id) FROM generate_series(1, 3) AS track_id;
SELECT build.track_score(4, 1, 'UNDERGROUND_TRACKS');
SELECT build.playlist_score(1, 1);

-- Rules 4, 6, 7 and 12, on rows that are complete at once; Tokyo is nine hours ahead of UTC.
SET LOCAL timezone = 'Asia/Tokyo';
SELECT build.run(as_of => '2025-03-07 10:00+00');
CREATE TEMPORARY VIEW written AS
SELECT
    challenge_id::text AS challenge_id,
    specifier::text AS specifier,
    user_id,
    is_complete,
    current_step_count,
    amount,
    completed_blocknumber
FROM user_challenges;
SELECT results_eq(
    $$SELECT * FROM written WHERE user_id = 255 AND challenge_id IN ('u', 'fp', 'p', 'v') ORDER BY challenge_id$$,
    $$VALUES
        ('fp', 'ff', 255, TRUE, 1, 2, 100),
        ('p', 'ff', 255, TRUE, 7, 1, 100),
        ('u', 'ff', 255, TRUE, 3, 1, 100),
        ('v', 'ff', 255, TRUE, 1, 5, 100)$$,
    'Rules 4, 5, 7, 12: one run completes numeric and boolean challenges, with step count, amount, block and specifier'
);
SELECT results_eq(
    $$SELECT * FROM written WHERE user_id = 255 AND challenge_id IN ('e', 'p1', 'p2', 'p3')
    ORDER BY challenge_id, specifier$$,
    $$VALUES
        ('e', 'ff2025020112', 255, TRUE, 7, 7, 100),
        ('e', 'ff2025020812', 255, TRUE, 1, 1, 100),
        ('p1', 'ff:250', 255, TRUE, 250, 25, 100),
        ('p2', 'ff:1000', 255, TRUE, 1000, 100, 100),
        ('p3', 'ff:10000', 255, TRUE, 10000, 1000, 100)$$,
    'Rules 4, 5, 7, 12: so does it streaks and all milestones, which have specifiers of their own'
);
SELECT results_eq(
    $$SELECT * FROM written WHERE challenge_id IN ('tt', 'tut', 'tp') ORDER BY challenge_id, specifier$$,
    $$VALUES
        ('tp', '2025-03-07:1', 255, TRUE, 1, 100, 100),
        ('tt', '2025-03-07:1', 255, TRUE, 1, 1000, 100),
        ('tt', '2025-03-07:2', 255, TRUE, 1, 1000, 100),
        ('tt', '2025-03-07:3', 255, TRUE, 1, 1000, 100),
        ('tut', '2025-03-07:1', 1, TRUE, 1, 1000, 100)$$,
    'Rules 4, 5, 7, 12: so does it trending, whose specifiers are week and rank'
);
SELECT results_eq(
    $$SELECT created_at AT TIME ZONE 'UTC', completed_at FROM user_challenges
    WHERE challenge_id = 'e' ORDER BY specifier$$,
    $$VALUES
        ('2025-02-01 12:00'::timestamp, '2025-02-07 12:00'::timestamp),
        ('2025-02-08 12:00'::timestamp, '2025-02-08 12:00'::timestamp)$$,
    'Rule 6: streak rows carry the listen''s own time in both'
);

-- Rule 2: the sources, the catalog and the code may do what they like. User 9's rows were completed elsewhere.
SELECT build.person(9, name => 'Ida', is_verified => TRUE);
SELECT build.track(90, 9);
SELECT build.playlist(90, 9);
SELECT build.monthly(90, '2025-01-01', 20000);
INSERT INTO challenge_listen_streak (user_id, last_listen_date, listen_streak) VALUES (9, '2025-02-01 12:00', 3);
SELECT build.play(9, 4, '2025-02-02 12:00');
INSERT INTO user_challenges (
    challenge_id, user_id, specifier, is_complete, current_step_count, completed_blocknumber, amount, created_at,
    completed_at
)
SELECT
    id,
    9,
    specifier,
    TRUE,
    -5,
    NULL,
    77,
    '2025-02-01 12:00+00',
    NULL
FROM
    (
        VALUES
        ('u', '9'), ('fp', '9'), ('v', '9'), ('e', '92025020112'), ('p1', '9:250'), ('p2', '9:1000'),
        ('tt', '2025-01-03:1')
    ) AS row_of_9 (id, specifier);
CREATE TEMPORARY TABLE complete AS SELECT * FROM derived WHERE content ->> 'is_complete' = 'true';
SELECT build.run(ARRAY['u', 'fp', 'v', 'e', 'p1', 'p2', 'tt'], as_of => '2025-03-11 10:00+00');
SELECT bag_eq(
    $$SELECT derived.* FROM derived WHERE content ->> 'is_complete' = 'true' AND content ->> 'user_id' = '9'$$,
    $$SELECT complete.* FROM complete WHERE content ->> 'user_id' = '9'$$,
    'Rule 2: complete rows of earlier services stay as they are, a completed_blocknumber of null included'
);
UPDATE challenges SET
    amount = '4711',
    step_count = CASE WHEN type = 'numeric' OR id IN ('r', 'rv') THEN 20000 END,
    starting_block = 2147483647;
UPDATE users SET is_verified = FALSE, name = NULL, bio = NULL, handle_lc = NULL;
DELETE FROM tracks;
UPDATE playlists SET is_delete = TRUE;
DELETE FROM follows;
DELETE FROM plays;
DELETE FROM aggregate_monthly_plays;
SELECT build.run(full_scan => TRUE, as_of => '2025-03-12 10:00+00');
SELECT bag_eq(
    $$SELECT derived.* FROM derived WHERE content ->> 'is_complete' = 'true'$$,
    $$SELECT complete.* FROM complete$$,
    'Rule 2: complete rows stay as they are, whatever happens to the sources and the catalog'
);
UPDATE users SET is_deactivated = TRUE;
SELECT build.run(full_scan => TRUE, as_of => '2025-03-13 10:00+00');
DELETE FROM users;
SELECT build.run(full_scan => TRUE, as_of => '2025-03-14 10:00+00');
SELECT bag_eq(
    $$SELECT derived.* FROM derived WHERE content ->> 'is_complete' = 'true'$$,
    $$SELECT complete.* FROM complete$$,
    'Rule 2: complete rows stay when their users are deactivated or gone'
);
SELECT is_empty(
    $$SELECT challenge_id, specifier FROM user_challenges_log
    WHERE operation = 'UPDATE' AND (old ->> 'is_complete')::boolean$$,
    'Rule 2: no complete row was ever written again'
);

-- A clean sheet, with prod's catalog.
DELETE FROM user_challenges;
DELETE FROM challenge_profile_completion;
DELETE FROM challenge_listen_streak;
DELETE FROM trending_results;
DELETE FROM blocks;
DELETE FROM track_trending_scores;
DELETE FROM playlist_trending_scores;
DELETE FROM user_challenges_log;
SELECT challenge_id, action FROM sync_challenge_catalog() WHERE action = 'inserted';
UPDATE challenges SET starting_block = 0;

-- Rules 3, 5 and 6 on incomplete rows: two of three tracks, a name, 100 of 250 plays.
SELECT build.person(10, name => 'Joe', is_verified => TRUE);
SELECT build.track(track_id, 10) FROM generate_series(1, 2) AS track_id;
SELECT build.monthly(1, '2025-01-01', 100);
SELECT build.run(ARRAY['u', 'p', 'v', 'p1'], as_of => '2025-03-17 10:00+00');
SELECT results_eq(
    $$SELECT
        challenge_id::text, is_complete, current_step_count, amount, completed_blocknumber, created_at,
        completed_at
    FROM user_challenges WHERE user_id = 10 AND NOT is_complete ORDER BY challenge_id$$,
    $$VALUES
        ('p', FALSE, 1, 1, NULL::integer, '2025-03-17 10:00+00'::timestamptz, NULL::timestamp),
        ('p1', FALSE, 100, 25, NULL, '2025-03-17 10:00+00', NULL),
        ('u', FALSE, 2, 1, NULL, '2025-03-17 10:00+00', NULL)$$,
    'Rule 3: a row is created when progress is at least 1, without completed_blocknumber and completed_at'
);
UPDATE challenges SET amount = '12';
SELECT build.run(ARRAY['u', 'p', 'v', 'p1'], as_of => '2025-03-18 10:00+00');
SELECT results_eq(
    $$SELECT challenge_id::text, current_step_count, amount, created_at
    FROM user_challenges WHERE user_id = 10 ORDER BY challenge_id$$,
    $$VALUES
        ('p', 1, 12, '2025-03-17 10:00+00'::timestamptz),
        ('p1', 100, 12, '2025-03-17 10:00+00'),
        ('u', 2, 12, '2025-03-17 10:00+00'),
        ('v', 1, 5, '2025-03-17 10:00+00')$$,
    'Rule 5: an incomplete row takes a changed catalog amount, a complete one keeps its own'
);
UPDATE users SET name = NULL;
UPDATE tracks SET is_delete = TRUE;
SELECT build.run(ARRAY['u', 'p', 'v', 'p1'], as_of => '2025-03-19 10:00+00');
SELECT results_eq(
    $$SELECT challenge_id::text, is_complete, current_step_count FROM user_challenges
    WHERE user_id = 10 AND challenge_id <> 'v' ORDER BY challenge_id$$,
    $$VALUES ('p', FALSE, 0), ('p1', FALSE, 0), ('u', FALSE, 0)$$,
    'Rule 3: an incomplete row follows the sources down, to 0 if all that counted is gone'
);
UPDATE users SET name = 'Joe', bio = 'Oboe.';
UPDATE tracks SET is_delete = FALSE;
SELECT build.track(3, 10);
SELECT build.monthly(1, '2025-01-01', 250);
SELECT build.run(ARRAY['u', 'p', 'v', 'p1'], as_of => '2025-03-20 10:00+00');
SELECT results_eq(
    $$SELECT challenge_id::text, is_complete, current_step_count, amount, created_at, completed_at
    FROM user_challenges WHERE user_id = 10 AND challenge_id IN ('p', 'p1', 'u') ORDER BY challenge_id$$,
    $$VALUES
        ('p', FALSE, 2, 12, '2025-03-17 10:00+00'::timestamptz, NULL::timestamp),
        ('p1', TRUE, 250, 12, '2025-03-17 10:00+00', '2025-03-20 10:00'),
        ('u', TRUE, 3, 12, '2025-03-17 10:00+00', '2025-03-20 10:00')$$,
    'Rules 3, 5 and 6: it follows them up, completes at the target, and keeps its created_at'
);
SELECT results_eq(
    $$SELECT challenge_id::text, operation, count(*) FROM user_challenges_log
    WHERE user_id = 10 AND challenge_id IN ('p', 'p1', 'u', 'v') GROUP BY challenge_id, operation
    ORDER BY challenge_id, operation$$,
    $$VALUES
        ('p', 'INSERT', 1::bigint), ('p', 'UPDATE', 3), ('p1', 'INSERT', 1), ('p1', 'UPDATE', 3),
        ('u', 'INSERT', 1), ('u', 'UPDATE', 3), ('v', 'INSERT', 1)$$,
    'each row is written once for each change of it, and no more'
);
SELECT is_empty(
    $$SELECT specifier FROM user_challenges_log
    WHERE operation = 'UPDATE' AND old -> 'user_id' IS DISTINCT FROM new -> 'user_id'
        OR old -> 'created_at' IS DISTINCT FROM new -> 'created_at' AND operation = 'UPDATE'$$,
    'user_id and created_at of a row never change'
);
INSERT INTO user_challenges (challenge_id, user_id, specifier, is_complete, current_step_count, amount)
VALUES ('u', 12, 'c', FALSE, 9, 12), ('p', 12, 'c', FALSE, NULL, 12);
SELECT build.person(12, bio => 'Harp.');
SELECT build.track(12, 12);
SELECT build.run(ARRAY['u', 'p', 'v', 'p1'], as_of => '2025-03-20 11:00+00');
SELECT results_eq(
    $$SELECT challenge_id::text, current_step_count, is_complete FROM user_challenges WHERE user_id = 12
    ORDER BY challenge_id$$,
    $$VALUES ('p', 1, FALSE), ('u', 1, FALSE)$$,
    'Rule 3: a step count that is too high or missing is put right on an incomplete row'
);

-- Rule 5: an amount that is not a whole number.
UPDATE challenges SET amount = '1.5' WHERE id = 'u';
UPDATE challenges SET amount = ' 40 ' WHERE id = 'v';
SELECT build.person(13, is_verified => TRUE);
SELECT build.track(13, 13);
SELECT results_eq(
    $$SELECT challenge_id, status, rows_inserted
    FROM reconcile_challenges(ARRAY['u', 'v'], as_of => '2025-03-20 11:00+00')$$,
    $$VALUES ('u', 'failed', 0::bigint), ('v', 'ok', 1::bigint)$$,
    'Rule 5: an amount that is not a whole number is an error of that one challenge'
);
SELECT results_eq(
    $$SELECT challenge_id::text, amount FROM user_challenges WHERE user_id = 13$$,
    $$VALUES ('v', 40)$$,
    'Rule 5: blanks around an amount are no part of it'
);
UPDATE challenges SET amount = '1' WHERE id IN ('u', 'v');

-- Rule 7: a number of blocks, whatever the source tables say, that a few absurd ones do not carry away.
SELECT build.block(600);
SELECT build.person(20, is_verified => TRUE, blocknumber => 600);
SELECT build.run(ARRAY['v'], as_of => '2025-03-20 11:00+00');
SELECT build.block(601);
SELECT build.person(21, is_verified => TRUE);
SELECT build.run(ARRAY['v'], as_of => '2025-03-20 11:00+00');
SELECT results_eq(
    $$SELECT user_id, completed_blocknumber FROM user_challenges WHERE challenge_id = 'v' AND user_id IN (20, 21)
    ORDER BY user_id$$,
    $$VALUES (20, 600), (21, 601)$$,
    'Rule 7: completed_blocknumber is the greatest number of blocks, not the block of the row'
);
SELECT build.block(number) FROM generate_series(1000, 1018) AS number;
SELECT build.block(102000);
SELECT build.person(22, is_verified => TRUE);
SELECT build.run(ARRAY['v'], as_of => '2025-03-20 11:00+00');
SELECT build.block(1019);
SELECT build.block(1020);
SELECT build.block(101001);
SELECT build.block(2000000000);
SELECT build.person(23, is_verified => TRUE);
SELECT build.run(ARRAY['v'], as_of => '2025-03-20 11:00+00');
SELECT results_eq(
    $$SELECT user_id, completed_blocknumber FROM user_challenges WHERE challenge_id = 'v' AND user_id IN (22, 23)
    ORDER BY user_id$$,
    $$VALUES (22, 1018), (23, 101001)$$,
    'Rule 7: a number more than 100,000 above the 21st highest does not carry it away'
);
SET LOCAL ROLE NONE;
SET LOCAL session_replication_role = 'replica';
RESET ROLE;
DELETE FROM blocks WHERE number > 500;
SET LOCAL ROLE NONE;
SET LOCAL session_replication_role = 'origin';
RESET ROLE;
SELECT build.block(2000000000);
SELECT build.person(24, is_verified => TRUE);
SELECT build.run(ARRAY['v'], as_of => '2025-03-20 11:00+00');
SELECT results_eq(
    $$SELECT completed_blocknumber FROM user_challenges WHERE challenge_id = 'v' AND user_id = 24$$,
    $$VALUES (2000000000)$$,
    'Rule 7: with fewer than 21 blocks it is the greatest'
);
SET LOCAL ROLE NONE;
SET LOCAL session_replication_role = 'replica';
RESET ROLE;
DELETE FROM blocks;
SET LOCAL ROLE NONE;
SET LOCAL session_replication_role = 'origin';
RESET ROLE;
SELECT build.person(28, is_verified => TRUE, blocknumber => NULL);
SELECT build.run(ARRAY['v'], as_of => '2025-03-20 11:00+00');
SELECT results_eq(
    $$SELECT completed_blocknumber FROM user_challenges WHERE challenge_id = 'v' AND user_id = 28$$,
    $$VALUES (0)$$,
    'Rule 7: completed_blocknumber is 0 if there is no block number at all'
);

-- Rule 8: who gains, and who does not even move.
SELECT build.person(30, name => 'Kim', is_verified => TRUE);
SELECT build.track(30, 30);
SELECT build.monthly(30, '2025-01-01', 5);
SELECT build.run(ARRAY['u', 'fp', 'p', 'v', 'p1'], as_of => '2025-03-20 11:00+00');
CREATE TEMPORARY TABLE rows_of_30 AS SELECT * FROM derived WHERE content ->> 'user_id' = '30';
SELECT results_eq(
    $$SELECT coalesce(content ->> 'challenge_id', source) FROM rows_of_30 ORDER BY 1$$,
    $$VALUES ('challenge_profile_completion'), ('p'), ('p1'), ('u'), ('v')$$,
    'the user of the next rules has rows of p, u, v and p1, and a profile'
);
UPDATE users SET is_deactivated = TRUE, bio = 'Lute.' WHERE user_id = 30;
SELECT build.track(31, 30);
SELECT build.playlist(30, 30);
SELECT build.monthly(30, '2025-01-01', 6);
UPDATE challenges SET amount = '3';
SELECT build.run(ARRAY['u', 'fp', 'p', 'v', 'p1'], full_scan => TRUE, as_of => '2025-03-20 11:00+00');
SELECT bag_eq(
    $$SELECT derived.* FROM derived WHERE content ->> 'user_id' = '30'$$,
    $$SELECT rows_of_30.* FROM rows_of_30$$,
    'Rule 8: for a deactivated user nothing is gained and nothing moves'
);
UPDATE users SET is_deactivated = FALSE, is_current = FALSE WHERE user_id = 30;
SELECT build.run(ARRAY['u', 'fp', 'p', 'v', 'p1'], full_scan => TRUE, as_of => '2025-03-20 11:00+00');
SELECT bag_eq(
    $$SELECT derived.* FROM derived WHERE content ->> 'user_id' = '30'$$,
    $$SELECT rows_of_30.* FROM rows_of_30$$,
    'Rule 8: for a user without a current row nothing is gained and nothing moves'
);
DELETE FROM users WHERE user_id = 30;
SELECT build.run(ARRAY['u', 'fp', 'p', 'v', 'p1'], full_scan => TRUE, as_of => '2025-03-20 11:00+00');
SELECT bag_eq(
    $$SELECT derived.* FROM derived WHERE content ->> 'user_id' = '30'$$,
    $$SELECT rows_of_30.* FROM rows_of_30$$,
    'Rule 8: for a user without any row nothing is gained and nothing moves'
);
SELECT build.person(30, name => 'Kim', bio => 'Lute.', is_verified => TRUE, is_available => FALSE);
SELECT build.run(ARRAY['u', 'fp', 'p', 'v', 'p1'], as_of => '2025-03-20 11:00+00');
SELECT results_eq(
    $$SELECT challenge_id::text, is_complete, current_step_count FROM user_challenges WHERE user_id = 30
    ORDER BY challenge_id$$,
    $$VALUES ('fp', TRUE, 1), ('p', FALSE, 2), ('p1', FALSE, 6), ('u', FALSE, 2), ('v', TRUE, 1)$$,
    'Rule 8: a user who comes back gains what there is by then'
);
SELECT build.person(31, blocknumber => 200, txhash => '0xz');
SELECT build.person(31, is_deactivated => TRUE, blocknumber => 201, txhash => '0xa');
SELECT build.person(32, is_deactivated => TRUE, blocknumber => 200, txhash => '0xz');
SELECT build.person(32, blocknumber => 201, txhash => '0xa');
SELECT build.person(33, blocknumber => 202, txhash => '0xa');
SELECT build.person(33, is_current => FALSE, is_deactivated => TRUE, blocknumber => 203, txhash => '0xz');
SELECT build.person(34, blocknumber => 204, txhash => '0xz');
SELECT build.person(34, is_deactivated => TRUE, blocknumber => 204, txhash => '0xa');
SELECT build.person(35, is_deactivated => TRUE, blocknumber => 204, txhash => '0xz', created_at => '2024-01-01');
SELECT build.person(35, blocknumber => 204, txhash => '0xa', created_at => '2024-01-02');
SELECT build.person(36, is_deactivated => TRUE, blocknumber => 204, txhash => 'B');
SELECT build.person(36, blocknumber => 204, txhash => 'a');
SELECT build.playlist(300 + user_id, user_id) FROM generate_series(31, 36) AS user_id;
SELECT build.run(ARRAY['u', 'fp', 'p', 'v', 'p1'], as_of => '2025-03-20 11:00+00');
SELECT results_eq(
    $$SELECT user_id FROM user_challenges WHERE challenge_id = 'fp' AND user_id BETWEEN 31 AND 36
    ORDER BY user_id$$,
    $$VALUES (32), (33), (34), (35), (36)$$,
    'Rule 8: of two current rows of one user the higher block decides, then the newer one, then the greater txhash'
);

-- Rule 9.
SELECT build.person(user_id) FROM generate_series(40, 42) AS user_id;
SELECT build.track(40, 40, blocknumber => NULL);
SELECT build.track(41, 41, blocknumber => 1000);
SELECT build.track(42, 42, blocknumber => 999);
SELECT build.playlist(40, 40, blocknumber => NULL);
SELECT build.playlist(41, 41, blocknumber => 1000);
SELECT build.playlist(42, 42, blocknumber => 999);
UPDATE challenges SET starting_block = 1000;
SELECT build.run(ARRAY['u', 'fp'], as_of => '2025-03-20 11:00+00');
SELECT results_eq(
    $$SELECT challenge_id::text, user_id FROM user_challenges WHERE user_id BETWEEN 40 AND 42
    ORDER BY challenge_id$$,
    $$VALUES ('fp', 41), ('u', 41)$$,
    'Rule 9: a block exactly equal to the starting block counts, the one before and null do not'
);
UPDATE challenges SET starting_block = NULL;
SELECT build.run(ARRAY['u', 'fp'], as_of => '2025-03-20 11:00+00');
SELECT results_eq(
    $$SELECT challenge_id::text, user_id FROM user_challenges WHERE user_id BETWEEN 40 AND 42
    ORDER BY challenge_id, user_id$$,
    $$VALUES ('fp', 40), ('fp', 41), ('fp', 42), ('u', 40), ('u', 41), ('u', 42)$$,
    'Rule 9: a starting block that is null means 0, and so does a null block number'
);

-- Rule 11.
SELECT build.person(50, name => 'Lou', is_verified => TRUE);
SELECT build.track(50, 50);
SELECT build.playlist(50, 50);
SET LOCAL ROLE NONE;
ALTER TABLE playlists RENAME TO playlists_away;
RESET ROLE;
SELECT results_eq(
    $$SELECT challenge_id, status
    FROM reconcile_challenges(ARRAY['u', 'fp', 'p', 'v'], as_of => '2025-03-20 11:00+00')$$,
    $$VALUES ('u', 'ok'), ('fp', 'failed'), ('p', 'ok'), ('v', 'ok')$$,
    'Rule 11: one failing processor does not stop those after it'
);
SELECT results_eq(
    $$SELECT challenge_id::text FROM user_challenges WHERE user_id = 50 ORDER BY challenge_id$$,
    $$VALUES ('p'), ('u'), ('v')$$,
    'Rule 11: one failing processor undoes none of the others'
);
SET LOCAL ROLE NONE;
ALTER TABLE playlists_away RENAME TO playlists;
RESET ROLE;
SELECT build.run(ARRAY['u', 'fp', 'p', 'v'], as_of => '2025-03-20 11:00+00');
SELECT results_eq(
    $$SELECT is_complete FROM user_challenges WHERE user_id = 50 AND challenge_id = 'fp'$$,
    $$VALUES (TRUE)$$,
    'Rule 11: what a processor could not do it does when its trouble is over'
);

-- Rule 12.
SELECT build.person(user_id, is_verified => TRUE) FROM unnest(ARRAY[0, 15, 16, 171, 2147483647]) AS user_id;
SELECT build.run(ARRAY['v'], as_of => '2025-03-20 11:00+00');
SELECT results_eq(
    $$SELECT user_id, specifier::text FROM user_challenges
    WHERE challenge_id = 'v' AND user_id IN (0, 15, 16, 171, 2147483647) ORDER BY user_id$$,
    $$VALUES (0, '0'), (15, 'f'), (16, '10'), (171, 'ab'), (2147483647, '7fffffff')$$,
    'Rule 12: the default specifier is the user id in lower-case hex, without prefix or padding'
);

-- Run order and cascade.
CREATE TEMPORARY TABLE start_of_run AS SELECT max(id) AS id FROM user_challenges_log;
SELECT build.person(
    60, name => 'Mia', bio => 'Bass.', profile_picture => 'Qm1', cover_photo => 'Qm2', is_verified => TRUE
);
SELECT build.track(60, 60);
SELECT build.playlist(60, 60);
SELECT build.monthly(60, '2025-01-01', 998);
UPDATE challenges SET active = TRUE WHERE id = 'e';
SELECT build.play(60, 60, '2025-02-01 12:00');
SELECT build.track_score(60, 1);
SELECT build.track_score(40, 1, 'UNDERGROUND_TRACKS');
SELECT build.playlist_score(60, 1);
SELECT build.run(as_of => '2025-03-21 10:00+00');
CREATE TEMPORARY TABLE written_first AS
SELECT
    l.challenge_id::text AS challenge_id,
    min(l.id) AS id
FROM user_challenges_log AS l
CROSS JOIN start_of_run
WHERE l.id > start_of_run.id
GROUP BY l.challenge_id;
SELECT results_eq(
    $$SELECT challenge_id FROM written_first ORDER BY id$$,
    $$SELECT challenge_id FROM build.challenges() INNER JOIN written_first USING (challenge_id) ORDER BY number$$,
    'rows are written in run order'
);
SELECT results_eq(
    $$SELECT challenge_id FROM written_first
    WHERE challenge_id IN ('u', 'p', 'e', 'p1', 'p2', 'tt', 'tut', 'tp') ORDER BY id$$,
    $$VALUES ('u'), ('p'), ('e'), ('p1'), ('p2'), ('tt'), ('tut'), ('tp')$$,
    'p2 follows p1 within one run, and underground the tracks that it excludes'
);

SELECT * FROM finish();
ROLLBACK;
