-- Challenges tt, tut, tp, weekly trending: the top ten of a Friday, once a week.
-- Fridays of 2025: March 7, 14, 21, 28; April 4, 11, 18, 25; May 2, 9, 16, 23, 30; June 6.
BEGIN;
SELECT plan(49);

-- Off Friday. The session's time zone is eight hours behind UTC, and it writes dates and intervals in other styles.
SET LOCAL timezone = 'America/Los_Angeles';
SET LOCAL datestyle = 'German, DMY';
SET LOCAL intervalstyle = 'sql_standard';
SELECT build.block(25400000);
SELECT build.person(user_id) FROM generate_series(1, 12) AS user_id;
SELECT build.track(track_id, track_id) FROM generate_series(1, 12) AS track_id;
SELECT build.track_score(track_id, 1000 - track_id) FROM generate_series(1, 12) AS track_id;
SELECT results_eq(
    $$SELECT status, rows_inserted FROM reconcile_challenges(ARRAY['tt'], as_of => '2025-03-06 23:59:59.999999+00')$$,
    $$VALUES ('ok', 0::bigint)$$,
    'nothing is won on a Thursday, to its last moment'
);
SELECT results_eq(
    $$SELECT status, rows_inserted FROM reconcile_challenges(ARRAY['tt'], as_of => '2025-03-08 00:00+00')$$,
    $$VALUES ('ok', 0::bigint)$$,
    'nothing is won on a Saturday in UTC, even where it is still Friday for the session'
);
SELECT is_empty(
    $$SELECT id FROM trending_results UNION ALL SELECT specifier FROM user_challenges$$,
    'off Friday nothing is written'
);

-- On Friday.
SELECT results_eq(
    $$SELECT status, rows_inserted, rows_updated, rows_completed
    FROM reconcile_challenges(ARRAY['tt'], as_of => '2025-03-07 00:00+00')$$,
    $$VALUES ('ok', 10::bigint, 0::bigint, 10::bigint)$$,
    'the week is won from the first moment of Friday in UTC, even where it is still Thursday for the session'
);
SELECT results_eq(
    $$SELECT user_id, id::text, rank, type::text, version::text, week FROM trending_results ORDER BY rank$$,
    $$SELECT place, place::text, place, 'TRACKS', 'pnagD', '2025-03-07'::date
    FROM generate_series(1, 10) AS place$$,
    'the top ten tracks by score are the results of the week'
);
SELECT results_eq(
    $$SELECT
        challenge_id::text, user_id, specifier::text, is_complete, current_step_count, amount,
        completed_blocknumber
    FROM user_challenges ORDER BY user_id$$,
    $$SELECT
        'tt', place, '2025-03-07:' || place, TRUE, 1, CASE WHEN place <= 5 THEN 1000 ELSE 100 END,
        25400000
    FROM generate_series(1, 10) AS place$$,
    'each winner has a complete row: 1000 for the first five, 100 for the others'
);
SELECT results_eq(
    $$SELECT DISTINCT
        created_at BETWEEN now() AND clock_timestamp(),
        completed_at = created_at AT TIME ZONE 'UTC'
    FROM user_challenges$$,
    $$VALUES (TRUE, TRUE)$$,
    'the rows of a week carry one time of the real clock, also where a past Friday is paid'
);
CREATE TEMPORARY TABLE before AS
SELECT
    'result' AS kind,
    ctid AS place,
    xmin::text AS version
FROM trending_results
UNION ALL
SELECT
    'row' AS kind,
    ctid AS place,
    xmin::text AS version
FROM user_challenges;
SELECT build.track_score(12, 5000);
SELECT results_eq(
    $$SELECT status, rows_inserted, rows_updated
    FROM reconcile_challenges(ARRAY['tt'], as_of => '2025-03-07 12:00+00')$$,
    $$VALUES ('ok', 0::bigint, 0::bigint)$$,
    'a second run of the same week wins nothing, whatever the scores'
);
SELECT bag_eq(
    $$SELECT 'result' AS kind, ctid AS place, xmin::text AS version FROM trending_results
    UNION ALL
    SELECT 'row', ctid, xmin::text FROM user_challenges$$,
    $$SELECT kind, place, version FROM before$$,
    'a second run of the same week writes nothing'
);
SELECT build.run(ARRAY['tt'], as_of => '2025-03-14 23:59:59.999999+00');
SELECT results_eq(
    $$SELECT specifier::text, user_id FROM user_challenges
    WHERE specifier LIKE '2025-03-14:%' ORDER BY created_at, current_step_count, user_id$$,
    $$VALUES
        ('2025-03-14:2', 1), ('2025-03-14:3', 2), ('2025-03-14:4', 3), ('2025-03-14:5', 4), ('2025-03-14:6', 5),
        ('2025-03-14:7', 6), ('2025-03-14:8', 7), ('2025-03-14:9', 8), ('2025-03-14:10', 9), ('2025-03-14:1', 12)$$,
    'the next Friday, to its last moment, is won anew by its own scores'
);

-- Which scores count.
DELETE FROM track_trending_scores;
SELECT build.track_score(1, 9, version => 'other');
SELECT build.track_score(2, 8, time_range => 'month');
SELECT build.track_score(3, 7, type => 'UNDERGROUND_TRACKS');
SELECT results_eq(
    $$SELECT status, rows_inserted FROM reconcile_challenges(ARRAY['tt'], as_of => '2025-03-21 01:00+00')$$,
    $$VALUES ('ok', 0::bigint)$$,
    'without a score of the type, the version pnagD and the time range week nothing is won'
);
SELECT build.track_score(9, 5);
SELECT build.track_score(10, 5);
SELECT build.track_score(8, 5.5);
SELECT build.run(ARRAY['tt'], as_of => '2025-03-21 01:00:30+00');
SELECT results_eq(
    $$SELECT rank, id::text FROM trending_results WHERE week = '2025-03-21' ORDER BY rank$$,
    $$VALUES (1, '8'), (2, '10'), (3, '9')$$,
    'the next tick tries again when there are scores, and equal scores go by id, the greater first'
);

-- Which tracks are eligible: the best ten are not.
DELETE FROM track_trending_scores;
SELECT build.person(20, is_deactivated => TRUE);
SELECT build.person(21, is_current => FALSE);
SELECT build.person(22, is_deactivated => FALSE, blocknumber => 100, txhash => '0xz');
SELECT build.person(22, is_deactivated => TRUE, blocknumber => 101, txhash => '0xa');
SELECT build.track(21, 1, is_current => FALSE);
SELECT build.track(22, 1, is_delete => TRUE);
SELECT build.track(23, 1, is_unlisted => TRUE);
SELECT build.track(24, 1, is_available => FALSE);
SELECT build.track(25, 20);
SELECT build.track(26, 21);
SELECT build.track(27, 22);
SELECT build.track(28, 23);
SELECT build.track(30, 1, stem_of => '{"parent_track_id": 1}', blocknumber => NULL);
SELECT build.track(31, 2, blocknumber => 100, txhash => '0xb');
SELECT build.track(31, 3, blocknumber => 101, txhash => '0xa');
SELECT build.track(32, 3);
SELECT build.track_score(track_id, 1000 - track_id) FROM generate_series(20, 32) AS track_id;
SELECT build.run(ARRAY['tt'], as_of => '2025-03-28 01:00+00');
SELECT is_empty(
    $$SELECT id FROM trending_results WHERE week = '2025-03-28' AND id = '20'$$,
    'a score of a track that does not exist wins nothing'
);
SELECT is_empty(
    $$SELECT id FROM trending_results WHERE week = '2025-03-28' AND id = '21'$$,
    'a track that is not current wins nothing'
);
SELECT is_empty(
    $$SELECT id FROM trending_results WHERE week = '2025-03-28' AND id = '22'$$,
    'a deleted track wins nothing'
);
SELECT is_empty(
    $$SELECT id FROM trending_results WHERE week = '2025-03-28' AND id = '23'$$,
    'an unlisted track wins nothing'
);
SELECT is_empty(
    $$SELECT id FROM trending_results WHERE week = '2025-03-28' AND id = '24'$$,
    'a track that is not available wins nothing'
);
SELECT is_empty(
    $$SELECT id FROM trending_results WHERE week = '2025-03-28' AND id IN ('25', '26', '27', '28')$$,
    'a track whose owner is deactivated, not current or unknown wins nothing'
);
SELECT results_eq(
    $$SELECT rank, id::text, user_id FROM trending_results WHERE week = '2025-03-28' ORDER BY rank$$,
    $$VALUES (1, '30', 1), (2, '31', 3), (3, '32', 3)$$,
    'ranks are given after the filter, a track has one rank, and an owner may win several'
);
SELECT results_eq(
    $$SELECT specifier::text, user_id, amount FROM user_challenges WHERE specifier LIKE '2025-03-28:%'
    ORDER BY specifier$$,
    $$VALUES ('2025-03-28:1', 1, 1000), ('2025-03-28:2', 3, 1000), ('2025-03-28:3', 3, 1000)$$,
    'each rank is a reward of its own, and the starting block of the catalog is not read'
);

-- Playlists.
SELECT build.playlist(playlist_id, playlist_id) FROM generate_series(1, 12) AS playlist_id;
SELECT build.playlist(21, 1, is_current => FALSE);
SELECT build.playlist(22, 1, is_delete => TRUE);
SELECT build.playlist(23, 1, is_private => TRUE);
SELECT build.playlist(24, 20);
SELECT build.playlist_score(playlist_id, playlist_id) FROM generate_series(1, 24) AS playlist_id;
SELECT build.playlist_score(1, 100, version => 'other');
SELECT build.playlist_score(1, 100, time_range => 'month');
SELECT build.playlist_score(1, 100, type => 'TRACKS');
UPDATE playlists SET is_album = TRUE WHERE playlist_id = 12;
SELECT build.playlist(11, 1, blocknumber => NULL, txhash => '0xsecond');
SELECT build.run(ARRAY['tp'], as_of => '2025-03-28 01:00+00');
SELECT results_eq(
    $$SELECT user_id, id::text, rank, version::text, week FROM trending_results
    WHERE type = 'PLAYLISTS' ORDER BY rank$$,
    $$SELECT 13 - place, (13 - place)::text, place, 'pnagD', '2025-03-28'::date
    FROM generate_series(1, 10) AS place$$,
    'the top ten playlists and albums that are current, public and not deleted are the results of the week'
);
SELECT results_eq(
    $$SELECT user_id, specifier::text, is_complete, current_step_count, amount FROM user_challenges
    WHERE challenge_id = 'tp' ORDER BY user_id DESC$$,
    $$SELECT 13 - place, '2025-03-28:' || place, TRUE, 1, CASE WHEN place <= 5 THEN 100 ELSE 10 END
    FROM generate_series(1, 10) AS place$$,
    'playlists win 100 for the first five ranks and 10 for the others'
);

-- Underground waits for the TRACKS that it excludes.
DELETE FROM track_trending_scores;
SELECT build.track_score(1, 10, 'UNDERGROUND_TRACKS');
SELECT results_eq(
    $$SELECT status, rows_inserted FROM reconcile_challenges(ARRAY['tut'], as_of => '2025-04-04 01:00+00')$$,
    $$VALUES ('ok', 0::bigint)$$,
    'underground waits while there is no TRACKS score'
);
SELECT build.track_score(22, 10);
SELECT build.track_score(2, 10, version => 'other');
SELECT results_eq(
    $$SELECT status, rows_inserted FROM reconcile_challenges(ARRAY['tut'], as_of => '2025-04-04 01:00:30+00')$$,
    $$VALUES ('ok', 0::bigint)$$,
    'underground waits while no TRACKS score is eligible'
);
SELECT build.track_score(2, 10);
SELECT build.run(ARRAY['tut'], as_of => '2025-04-04 01:01+00');
SELECT results_eq(
    $$SELECT user_id, id::text, rank, type::text, version::text, week FROM trending_results
    WHERE week = '2025-04-04'$$,
    $$VALUES (1, '1', 1, 'UNDERGROUND_TRACKS', 'pnagD', '2025-04-04'::date)$$,
    'underground is won when there is an eligible TRACKS score, whether tt has run or not'
);

-- Underground's own filter: the top 20 of the eligible TRACKS are 101 to 120, after one that is unlisted.
DELETE FROM track_trending_scores;
SELECT build.person(user_id) FROM generate_series(101, 140) AS user_id;
SELECT build.track(track_id, track_id) FROM generate_series(100, 140) AS track_id;
UPDATE tracks SET is_unlisted = TRUE, owner_id = 101 WHERE track_id = 100;
SELECT build.track_score(track_id, 1000 - track_id) FROM generate_series(100, 121) AS track_id;
SELECT build.aggregate_user(131, 1500, 0);
SELECT build.aggregate_user(132, 0, 1500);
SELECT build.aggregate_user(133, 1499, 1499);
SELECT build.aggregate_user(134, NULL, NULL);
SELECT build.track_score(track_id, 5000 - track_id, 'UNDERGROUND_TRACKS')
FROM unnest(ARRAY[100, 101, 120, 121, 131, 132, 133, 134, 135]) AS track_id;
SELECT build.run(ARRAY['tut'], as_of => '2025-04-11 01:00+00');
SELECT is_empty(
    $$SELECT id FROM trending_results WHERE week = '2025-04-11' AND id IN ('101', '120')$$,
    'a track in the top 20 of the eligible TRACKS is not underground'
);
SELECT is_empty(
    $$SELECT id FROM trending_results WHERE week = '2025-04-11' AND id = '100'$$,
    'an unlisted track is not eligible underground'
);
SELECT is_empty(
    $$SELECT id FROM trending_results WHERE week = '2025-04-11' AND id = '131'$$,
    'an owner with 1500 followers is not underground'
);
SELECT is_empty(
    $$SELECT id FROM trending_results WHERE week = '2025-04-11' AND id = '132'$$,
    'an owner who follows 1500 is not underground'
);
SELECT results_eq(
    $$SELECT rank, id::text FROM trending_results WHERE week = '2025-04-11' ORDER BY rank$$,
    $$VALUES (1, '121'), (2, '133'), (3, '134'), (4, '135')$$,
    'the twenty-first track, 1499 followers and follows, null counters and no counters are underground'
);
SELECT build.track_score(track_id, 5000 - track_id, 'UNDERGROUND_TRACKS')
FROM generate_series(133, 140) AS track_id;
SELECT build.track_score(track_id, 4000 - track_id, 'UNDERGROUND_TRACKS')
FROM generate_series(5, 8) AS track_id;
SELECT build.run(ARRAY['tut'], as_of => '2025-04-18 01:00+00');
SELECT results_eq(
    $$SELECT specifier::text, user_id, is_complete, current_step_count, amount FROM user_challenges
    WHERE challenge_id = 'tut' AND specifier LIKE '2025-04-18:%' ORDER BY split_part(specifier, ':', 2)::integer$$,
    $$VALUES
        ('2025-04-18:1', 121, TRUE, 1, 1000),
        ('2025-04-18:2', 133, TRUE, 1, 1000),
        ('2025-04-18:3', 134, TRUE, 1, 1000),
        ('2025-04-18:4', 135, TRUE, 1, 1000),
        ('2025-04-18:5', 136, TRUE, 1, 1000),
        ('2025-04-18:6', 137, TRUE, 1, 100),
        ('2025-04-18:7', 138, TRUE, 1, 100),
        ('2025-04-18:8', 139, TRUE, 1, 100),
        ('2025-04-18:9', 140, TRUE, 1, 100),
        ('2025-04-18:10', 5, TRUE, 1, 100)$$,
    'underground wins 1000 for the first five ranks and 100 for the others, ten in all'
);

-- Once per type, version and week.
INSERT INTO trending_results (user_id, id, rank, type, version, week)
VALUES
    (1, '1', 7, 'TRACKS', 'pnagD', '2025-04-25'),
    (1, '1', 1, 'TRACKS', 'pnagD', '2025-05-03'),
    (1, '1', 1, 'TRACKS', 'other', '2025-05-02'),
    (1, '1', 1, 'PLAYLISTS', 'pnagD', '2025-05-02');
SELECT results_eq(
    $$SELECT status, rows_inserted FROM reconcile_challenges(ARRAY['tt'], as_of => '2025-04-25 01:00+00')$$,
    $$VALUES ('ok', 0::bigint)$$,
    'one row of results is enough for a week to be over'
);
SELECT is_empty(
    $$SELECT specifier FROM user_challenges WHERE specifier LIKE '2025-04-25:%'$$,
    'a week that has results in trending_results is never added to'
);
SELECT results_eq(
    $$SELECT status, rows_inserted FROM reconcile_challenges(ARRAY['tt'], as_of => '2025-05-02 01:00+00')$$,
    $$VALUES ('ok', 10::bigint)$$,
    'results of another type, version or week do not stand in the way'
);

-- All of a week's rows or none.
INSERT INTO user_challenges (challenge_id, user_id, specifier, is_complete, current_step_count, amount)
VALUES
    ('tut', 1, '2025-05-09:3', FALSE, 0, 1000),
    ('tp', 12, '2025-05-09:1', TRUE, 1, 100);
SELECT results_eq(
    $$SELECT challenge_id, status, rows_inserted
    FROM reconcile_challenges(ARRAY['tt', 'tut', 'tp'], as_of => '2025-05-09 01:00+00')$$,
    $$VALUES ('tt', 'ok', 10::bigint), ('tut', 'failed', 0::bigint), ('tp', 'failed', 0::bigint)$$,
    'a row of the week that somebody else wrote fails that challenge'
);
SELECT results_eq(
    $$SELECT challenge_id::text, specifier::text, is_complete, current_step_count FROM user_challenges
    WHERE specifier LIKE '2025-05-09:%' AND challenge_id <> 'tt' ORDER BY challenge_id DESC$$,
    $$VALUES ('tut', '2025-05-09:3', FALSE, 0), ('tp', '2025-05-09:1', TRUE, 1)$$,
    'a week that fails leaves the other''s row, and writes none of its own'
);
SELECT is_empty(
    $$SELECT id FROM trending_results WHERE week = '2025-05-09' AND type <> 'TRACKS'$$,
    'a week that fails leaves no results'
);
DELETE FROM user_challenges WHERE challenge_id = 'tp' AND specifier = '2025-05-09:1';
SELECT results_eq(
    $$SELECT challenge_id, status, rows_inserted
    FROM reconcile_challenges(ARRAY['tp'], as_of => '2025-05-09 02:00+00')$$,
    $$VALUES ('tp', 'ok', 10::bigint)$$,
    'a week that failed is won as a whole when the row is out of the way'
);

-- The catalog.
UPDATE challenges SET amount = '77', active = FALSE WHERE id = 'tt';
SELECT results_eq(
    $$SELECT status, rows_inserted FROM reconcile_challenges(ARRAY['tt'], as_of => '2025-05-16 01:00+00')$$,
    $$VALUES ('inactive', 0::bigint)$$,
    'an inactive trending challenge does nothing on a Friday and says so'
);
UPDATE challenges SET active = TRUE WHERE id = 'tt';
SELECT build.run(ARRAY['tt'], as_of => '2025-05-16 02:00+00');
SELECT results_eq(
    $$SELECT amount, count(*) FROM user_challenges WHERE specifier LIKE '2025-05-16:%' GROUP BY amount
    ORDER BY amount$$,
    $$VALUES (100, 5::bigint), (1000, 5::bigint)$$,
    'the amounts of trending are fixed, whatever the catalog says'
);
UPDATE challenges SET amount = 'much' WHERE id = 'tt';
SELECT results_eq(
    $$SELECT status, rows_inserted FROM reconcile_challenges(ARRAY['tt'], as_of => '2025-05-23 01:00+00')$$,
    $$VALUES ('failed', 0::bigint)$$,
    'an amount that is no number is an error of a trending challenge too'
);
UPDATE challenges SET amount = '1000' WHERE id = 'tt';

-- Equal scores at the tenth place, and at the twentieth of those that are not underground.
DELETE FROM track_trending_scores;
DELETE FROM playlist_trending_scores;
SELECT build.track(990 + place, 100 + place) FROM generate_series(1, 21) AS place;
SELECT build.track_score(990 + place, 7) FROM generate_series(1, 21) AS place;
SELECT build.track_score(990 + place, 7, 'UNDERGROUND_TRACKS') FROM generate_series(1, 2) AS place;
SELECT build.playlist_score(playlist_id, 7) FROM generate_series(1, 12) AS playlist_id;
SELECT build.run(ARRAY['tt', 'tut', 'tp'], as_of => '2025-06-06 01:00+00');
SELECT results_eq(
    $$SELECT id::text FROM trending_results WHERE week = '2025-06-06' AND type = 'TRACKS' ORDER BY rank$$,
    $$SELECT (1012 - place)::text FROM generate_series(1, 10) AS place$$,
    'of equal tracks those with the greater ids are in the top ten'
);
SELECT results_eq(
    $$SELECT id::text FROM trending_results WHERE week = '2025-06-06' AND type = 'PLAYLISTS' ORDER BY rank$$,
    $$SELECT (13 - place)::text FROM generate_series(1, 10) AS place$$,
    'of equal playlists those with the greater ids are in the top ten'
);
SELECT results_eq(
    $$SELECT id::text FROM trending_results WHERE week = '2025-06-06' AND type = 'UNDERGROUND_TRACKS'$$,
    $$VALUES ('991')$$,
    'of equal tracks those with the greater ids are in the top 20'
);

-- What earlier results are worth to later runs.
DELETE FROM track_trending_scores;
DELETE FROM tracks;
CREATE TEMPORARY TABLE earlier AS
SELECT
    challenge_id,
    specifier,
    ctid AS place,
    xmin::text AS version
FROM user_challenges;
SELECT build.run(ARRAY['tt', 'tut', 'tp'], full_scan => TRUE, as_of => '2025-05-23 01:00+00');
SELECT bag_eq(
    $$SELECT challenge_id, specifier, ctid AS place, xmin::text AS version FROM user_challenges
    WHERE specifier NOT LIKE '2025-05-23:%'$$,
    $$SELECT challenge_id, specifier, place, version FROM earlier$$,
    'rewards of earlier weeks stay when scores and tracks are gone'
);
SELECT results_eq(
    $$SELECT count(*) FROM user_challenges WHERE is_complete AND completed_blocknumber IS NULL
        AND specifier <> '2025-05-09:1'$$,
    $$VALUES (0::bigint)$$,
    'a trending row always has a completed_blocknumber'
);
SELECT is_empty(
    $$SELECT challenge_id, specifier FROM user_challenges_log WHERE operation = 'UPDATE'$$,
    'trending only ever inserts'
);
SELECT results_eq(
    $$SELECT users_examined FROM reconcile_challenges(ARRAY['tp'], as_of => '2025-05-30 01:00+00')$$,
    $$VALUES (10::bigint)$$,
    'the winners are the users examined'
);

-- What is no score (rule 14): not a finite number, not above 0, or of a time that has not come.
DELETE FROM track_trending_scores;
SELECT build.person(900);
SELECT build.track(track_id, 900) FROM generate_series(901, 909) AS track_id;
SELECT build.track_score(901, 'NaN'), build.track_score(902, 'Infinity'), build.track_score(903, '-Infinity');
SELECT build.track_score(904, 0), build.track_score(905, -1);
SELECT build.track_score(906, 8, created_at => clock_timestamp() AT TIME ZONE 'UTC' + '6 minutes'::interval);
SELECT build.track_score(907, 9, created_at => 'infinity');
SELECT build.track_score(908, 7, created_at => clock_timestamp() AT TIME ZONE 'UTC' + '4 minutes'::interval);
SELECT build.track_score(909, 6, created_at => '-infinity');
SELECT build.run(ARRAY['tt'], as_of => '2025-07-04 01:00+00');
SELECT results_eq(
    $$SELECT id::text FROM trending_results WHERE week = '2025-07-04' ORDER BY rank$$,
    $$VALUES ('908')$$,
    'only finite scores above 0 rank, and none that claims to be from more than 5 minutes later or from no time at all'
);

SELECT * FROM finish();
ROLLBACK;
