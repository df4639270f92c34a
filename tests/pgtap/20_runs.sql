-- reconcile_challenges(): which challenges, for whom, at what time, for real or dry, and beside failing ones.
BEGIN;
SELECT plan(40);

-- Every table that a run may write, state included, with the place of each tuple.
CREATE TEMPORARY VIEW written AS
SELECT
    'user_challenges' AS source,
    to_jsonb(c) AS content,
    c.ctid AS place
FROM user_challenges AS c
UNION ALL
SELECT
    'challenge_profile_completion',
    to_jsonb(c),
    c.ctid
FROM challenge_profile_completion AS c
UNION ALL
SELECT
    'challenge_listen_streak',
    to_jsonb(c),
    c.ctid
FROM challenge_listen_streak AS c
UNION ALL
SELECT
    'trending_results',
    to_jsonb(c),
    c.ctid
FROM trending_results AS c
UNION ALL
SELECT
    'notification',
    to_jsonb(n),
    n.ctid
FROM notification AS n
UNION ALL
SELECT
    'processor_state',
    to_jsonb(s),
    s.ctid
FROM audius_challenges.processor_state AS s
UNION ALL
SELECT
    'look',
    to_jsonb(l),
    l.ctid
FROM audius_challenges.look AS l;

-- Ada has something of everything, with the 10,000 plays of all three milestones.
UPDATE challenges SET active = TRUE WHERE id = 'e';
SELECT build.person(1, name => 'Ada', bio => 'Viola.', is_verified => TRUE);
SELECT build.person(2);
SELECT build.track(track_id, 1, blocknumber => 25346436) FROM generate_series(1, 2) AS track_id;
SELECT build.track(3, 2);
SELECT build.playlist(1, 1, blocknumber => 28350000);
SELECT build.monthly(1, '2025-01-01', 10000);
SELECT build.play(1, 3, '2025-03-01 12:00');
SELECT build.track_score(1, 1);
SELECT build.track_score(3, 1, 'UNDERGROUND_TRACKS');
SELECT build.playlist_score(1, 1);

-- Dry.
CREATE TEMPORARY TABLE before AS SELECT * FROM written;
CREATE TEMPORARY TABLE dry AS
SELECT r.* FROM reconcile_challenges(dry_run => TRUE, as_of => '2025-03-07 10:00+00') AS r;
SELECT results_eq(
    $$SELECT challenge_id, status, rows_inserted, rows_updated, rows_completed, error FROM dry
    WHERE challenge_id IN ('u', 'fp', 'e', 'p1', 'p2', 'p3', 'tt')$$,
    $$VALUES
        ('u', 'ok', 1::bigint, 0::bigint, 0::bigint, NULL::text),
        ('fp', 'ok', 1, 0, 1, NULL),
        ('e', 'ok', 1, 0, 0, NULL),
        ('p1', 'ok', 1, 0, 1, NULL),
        ('p2', 'ok', 1, 0, 1, NULL),
        ('p3', 'ok', 1, 0, 1, NULL),
        ('tt', 'ok', 1, 0, 1, NULL)$$,
    'a dry run reports what a run would do, cascades included'
);
SELECT bag_eq(
    $$SELECT * FROM written$$,
    $$SELECT * FROM before$$,
    'a dry run keeps nothing of it, not even of its own state'
);
SELECT is_empty(
    $$SELECT id FROM user_challenges_log$$,
    'a dry run leaves nothing in the tables of the application''s triggers'
);

-- The same for real.
CREATE TEMPORARY TABLE wet AS
SELECT r.* FROM reconcile_challenges(as_of => '2025-03-07 10:00+00') AS r;
SELECT results_eq(
    $$SELECT challenge_id, status, users_examined, rows_inserted, rows_updated, rows_completed, error FROM wet$$,
    $$SELECT challenge_id, status, users_examined, rows_inserted, rows_updated, rows_completed, error FROM dry$$,
    'a run does what the dry run before it reported'
);
SELECT results_eq(
    $$SELECT challenge_id::text, count(*), count(*) FILTER (WHERE is_complete) FROM user_challenges
    GROUP BY challenge_id ORDER BY challenge_id COLLATE "C"$$,
    $$SELECT challenge_id, rows_inserted, rows_completed FROM wet WHERE rows_inserted > 0
    ORDER BY challenge_id COLLATE "C"$$,
    'the counts of the report are those of the table'
);
SELECT results_eq(
    $$SELECT challenge_id, users_examined FROM wet WHERE challenge_id IN ('u', 'fp', 'p', 'v')$$,
    $$VALUES ('u', 2::bigint), ('fp', 2), ('p', 2), ('v', 2)$$,
    'on a small database a run examines every user'
);
SELECT is_empty(
    $$SELECT challenge_id, duration FROM wet
    WHERE (duration >= '0'::interval AND duration < '10 minutes'::interval) IS NOT TRUE$$,
    'every challenge has a duration'
);
SELECT results_eq(
    $$SELECT data ->> 'challenge_id' FROM notification WHERE user_ids = ARRAY[1] ORDER BY 1$$,
    $$SELECT challenge_id::text FROM user_challenges WHERE user_id = 1 AND is_complete ORDER BY 1$$,
    'the application''s trigger fired for each complete row'
);
SELECT build.track(4, 1, blocknumber => 25346436);
UPDATE users SET bio = NULL WHERE user_id = 1;
SELECT build.play(1, 3, '2025-03-02 12:00');
SELECT results_eq(
    $$SELECT challenge_id, rows_inserted, rows_updated, rows_completed
    FROM reconcile_challenges(ARRAY['u', 'p', 'e'], as_of => '2025-03-10 10:00+00')$$,
    $$VALUES ('u', 0::bigint, 1::bigint, 1::bigint), ('p', 0, 1, 0), ('e', 0, 1, 0)$$,
    'updates and completions by an update are counted as such'
);

-- A few challenges.
SELECT build.person(3, name => 'Cyd', is_verified => TRUE);
SELECT results_eq(
    $$SELECT challenge_id, rows_inserted
    FROM reconcile_challenges(ARRAY['v', 'tp', 'u', 'v'], as_of => '2025-03-10 10:00+00')$$,
    $$VALUES ('u', 0::bigint), ('v', 1), ('tp', 0)$$,
    'a run of a few challenges reports each of them once, in run order'
);
SELECT results_eq(
    $$SELECT challenge_id::text FROM user_challenges WHERE user_id = 3$$,
    $$VALUES ('v')$$,
    'a run of a few challenges writes no other'
);
SELECT is_empty(
    $$SELECT challenge_id FROM reconcile_challenges('{}')$$,
    'a run of no challenge reports none'
);

-- By position and by name.
SELECT results_eq(
    $$SELECT challenge_id, rows_inserted FROM reconcile_challenges(ARRAY['p'], FALSE, TRUE, '2025-03-10 10:00+00')$$,
    $$VALUES ('p', 1::bigint)$$,
    'the arguments are challenge_ids, full_scan, dry_run, as_of'
);
SELECT is_empty(
    $$SELECT specifier FROM user_challenges WHERE challenge_id = 'p' AND user_id = 3$$,
    'the third argument is dry_run'
);
SELECT build.run(ARRAY['p'], TRUE, FALSE, '2025-03-10 10:00+00');
SELECT results_eq(
    $$SELECT created_at FROM user_challenges WHERE challenge_id = 'p' AND user_id = 3$$,
    $$VALUES ('2025-03-10 10:00+00'::timestamptz)$$,
    'the fourth argument, as_of, is the time that is written'
);
SELECT build.person(4, is_verified => TRUE);
SELECT build.run(ARRAY['v'], as_of => '2025-03-10 10:00+00');

-- Slices of two users a run. Users without a block number leave no trace of a change: the sweep has to find them.
SELECT build.person(user_id, is_verified => TRUE, blocknumber => NULL) FROM generate_series(5, 8) AS user_id;
SELECT build.run(ARRAY['p', 'v'], as_of => '2025-03-11 10:00+00');
SET LOCAL audius_challenges.sweep_users = '2';
SET LOCAL audius_challenges.slice_users = '2';
UPDATE users SET name = 'Dot' WHERE user_id BETWEEN 5 AND 8;
SELECT results_eq(
    $$SELECT status, users_examined >= 8, rows_inserted
    FROM reconcile_challenges(ARRAY['p'], full_scan => TRUE, as_of => '2025-03-11 10:00+00')$$,
    $$VALUES ('ok', TRUE, 4::bigint)$$,
    'a full scan reconciles every user, however small the slices'
);
DELETE FROM user_challenges WHERE challenge_id = 'v' AND user_id BETWEEN 5 AND 8;
CREATE TEMPORARY TABLE slices AS
SELECT
    number,
    r.users_examined,
    r.rows_inserted
FROM generate_series(1, 6) AS number
CROSS JOIN LATERAL reconcile_challenges(ARRAY['v'], full_scan => number < 0, as_of => '2025-03-11 10:00+00') AS r;
SELECT results_eq(
    $$SELECT sum(rows_inserted) FROM slices$$,
    $$VALUES (4::numeric)$$,
    'slice by slice, the sweep comes to every user and brings back what was lost'
);
SELECT results_eq(
    $$SELECT max(rows_inserted) FROM slices$$,
    $$VALUES (2::bigint)$$,
    'a run sweeps no more users than sweep_users'
);
SET LOCAL audius_challenges.sweep_users = '0';
DELETE FROM user_challenges WHERE challenge_id = 'v' AND user_id BETWEEN 5 AND 8;
SELECT results_eq(
    $$SELECT sum(r.rows_inserted) FROM generate_series(1, 4) AS number
    CROSS JOIN LATERAL reconcile_challenges(ARRAY['v'], full_scan => number < 0, as_of => '2025-03-11 10:00+00') AS r$$,
    $$VALUES (0::numeric)$$,
    'sweep_users = 0 switches the sweep off'
);
SELECT results_eq(
    $$SELECT rows_inserted FROM reconcile_challenges(ARRAY['v'], full_scan => TRUE, as_of => '2025-03-11 10:00+00')$$,
    $$VALUES (4::bigint)$$,
    'a full scan does not need the sweep'
);
SET LOCAL audius_challenges.sweep_users = '';
SET LOCAL audius_challenges.slice_users = '';

-- A trigger that cannot work for some challenges, and a table that is away.
CREATE FUNCTION pg_temp.refuse() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'no % today', new.challenge_id USING errcode = '42P01';
END
$$;
SET LOCAL ROLE NONE;
CREATE TRIGGER refuse AFTER INSERT OR UPDATE ON user_challenges
FOR EACH ROW WHEN (new.challenge_id IN ('p', 'tt', 'p2')) EXECUTE FUNCTION pg_temp.refuse();
ALTER TABLE playlists RENAME TO playlists_away;
RESET ROLE;
SELECT build.person(9, name => 'Gus', is_verified => TRUE);
SELECT build.track(9, 9, blocknumber => 25346436);
SELECT build.monthly(9, '2025-01-01', 10000);
SELECT build.play(9, 3, '2025-06-01 12:00');
DELETE FROM track_trending_scores;
SELECT build.track_score(9, 1);
SELECT build.track_score(3, 1, 'UNDERGROUND_TRACKS');
CREATE TEMPORARY TABLE failing AS
SELECT r.* FROM reconcile_challenges(as_of => '2025-03-14 10:00+00') AS r;
SELECT results_eq(
    $$SELECT challenge_id, status, rows_inserted, rows_updated, rows_completed FROM failing
    WHERE challenge_id IN ('u', 'fp', 'p', 'v', 'p1', 'p2', 'p3', 'tt', 'tut')$$,
    $$VALUES
        ('u', 'ok', 1::bigint, 0::bigint, 0::bigint),
        ('fp', 'failed', 0, 0, 0),
        ('p', 'failed', 0, 0, 0),
        ('v', 'ok', 1, 0, 1),
        ('p1', 'ok', 1, 0, 1),
        ('p2', 'failed', 0, 0, 0),
        ('p3', 'ok', 0, 0, 0),
        ('tt', 'failed', 0, 0, 0),
        ('tut', 'ok', 1, 0, 1)$$,
    'failing challenges report no rows, and the others go on'
);
SELECT results_eq(
    $$SELECT challenge_id::text FROM user_challenges
    WHERE user_id = 9 AND challenge_id IN ('u', 'fp', 'p', 'v', 'p1', 'p2') ORDER BY challenge_id$$,
    $$VALUES ('p1'), ('u'), ('v')$$,
    'failing challenges write no rows, and the others theirs'
);
SELECT is_empty(
    $$SELECT user_id::text FROM challenge_profile_completion WHERE user_id = 9
    UNION ALL
    SELECT id FROM trending_results WHERE week = '2025-03-14' AND type <> 'UNDERGROUND_TRACKS'$$,
    'what a failing challenge wrote before it failed is undone'
);
SELECT alike(error, 'no p today%42P01%', 'the error is that of the trigger, with its SQLSTATE')
FROM failing
WHERE challenge_id = 'p';
SELECT alike(error, '%playlists%', 'the error of a missing table names it')
FROM failing
WHERE challenge_id = 'fp';
SELECT results_eq(
    $$SELECT challenge_id FROM failing WHERE (error IS NOT NULL) <> (status = 'failed')$$,
    $$SELECT challenge_id FROM failing WHERE FALSE$$,
    'failing challenges have an error, and only they'
);
SELECT results_eq(
    $$SELECT challenge_id, status FROM reconcile_challenges(ARRAY['p', 'v'], dry_run => TRUE)$$,
    $$VALUES ('p', 'failed'), ('v', 'ok')$$,
    'a dry run shows failures'
);
SET LOCAL ROLE NONE;
DROP TRIGGER refuse ON user_challenges;
ALTER TABLE playlists_away RENAME TO playlists;
RESET ROLE;
SELECT results_eq(
    $$SELECT challenge_id, status, rows_inserted FROM reconcile_challenges(as_of => '2025-03-14 10:01+00')
    WHERE challenge_id IN ('u', 'p', 'v', 'p1', 'p2', 'p3', 'tt', 'tut')$$,
    $$VALUES
        ('u', 'ok', 0::bigint), ('p', 'ok', 1), ('v', 'ok', 0), ('p1', 'ok', 0), ('p2', 'ok', 1), ('p3', 'ok', 1),
        ('tt', 'ok', 1), ('tut', 'ok', 0)$$,
    'the run after the trouble does what was not done, and that alone'
);

-- A deferred trigger of the application fails within the challenge that it belongs to.
SET LOCAL ROLE NONE;
CREATE CONSTRAINT TRIGGER refuse_late AFTER INSERT ON user_challenges
DEFERRABLE INITIALLY IMMEDIATE
FOR EACH ROW WHEN (new.challenge_id = 'fp') EXECUTE FUNCTION pg_temp.refuse();
RESET ROLE;
SELECT build.playlist(9, 9, blocknumber => 28350000);
SELECT results_eq(
    $$SELECT challenge_id, status FROM reconcile_challenges(ARRAY['u', 'fp', 'v'])$$,
    $$VALUES ('u', 'ok'), ('fp', 'failed'), ('v', 'ok')$$,
    'a constraint trigger that cannot work fails its challenge alone'
);
SET LOCAL ROLE NONE;
DROP TRIGGER refuse_late ON user_challenges;
RESET ROLE;

-- The caller's surroundings.
SELECT build.person(10, is_verified => TRUE);
SET LOCAL search_path = pg_catalog;
CREATE TEMPORARY TABLE users (user_id integer, is_current boolean, is_verified boolean);
CREATE TEMPORARY TABLE report AS
SELECT
    r.status,
    r.rows_inserted
FROM public.reconcile_challenges(ARRAY['v']) AS r;
SET LOCAL search_path = public;
DROP TABLE pg_temp.users;
SELECT results_eq(
    $$SELECT status, rows_inserted FROM pg_temp.report$$,
    $$VALUES ('ok', 1::bigint)$$,
    'a run reads the discovery tables, whatever the caller''s search_path and temporary tables are'
);
SELECT results_eq(
    $$SELECT count(*) FROM notification WHERE user_ids = ARRAY[10]$$,
    $$VALUES (1::bigint)$$,
    'the application''s triggers find their tables, whatever the caller''s search_path is'
);
SET LOCAL search_path = pg_catalog;
CREATE TEMPORARY TABLE report_of_both AS
SELECT r.status FROM public.reconcile_challenges(ARRAY['v']) AS r
UNION ALL
SELECT r.status FROM public.reconcile_challenges(ARRAY['v'], dry_run => TRUE) AS r;
CREATE TEMPORARY TABLE path_after AS SELECT current_setting('search_path') AS search_path;
SET LOCAL search_path = public;
SELECT is(search_path, 'pg_catalog', 'a run leaves the caller''s search_path as it was')
FROM pg_temp.path_after;
SELECT results_eq(
    $$SELECT status FROM pg_temp.report_of_both$$,
    $$VALUES ('ok'), ('ok')$$,
    'a run and a dry run succeed, whatever the caller''s search_path is'
);
SELECT results_eq(
    $$SELECT current_setting('lock_timeout'), current_setting('session_replication_role')$$,
    $$VALUES ('0', 'origin')$$,
    'a run leaves the caller''s lock_timeout as it was'
);

-- A run inside the caller's transaction is the caller's to undo.
SAVEPOINT before_the_run;
SELECT build.person(12, is_verified => TRUE);
SELECT build.run(ARRAY['v']);
ROLLBACK TO SAVEPOINT before_the_run;
SELECT is_empty(
    $$SELECT specifier FROM user_challenges WHERE user_id = 11$$,
    'a run belongs to the transaction of its caller'
);
SELECT build.person(12, is_verified => TRUE);
SELECT results_eq(
    $$SELECT status, rows_inserted FROM reconcile_challenges(ARRAY['v'])$$,
    $$VALUES ('ok', 1::bigint)$$,
    'after a rollback of the caller the next run does it again'
);

-- Start from now: what there is stays unpaid until it changes, and only where it is asked for.
SELECT results_eq(
    $$SELECT challenge_id FROM audius_challenges.start_from_now(ARRAY['fp', 'e']) ORDER BY challenge_id$$,
    $$VALUES ('e'), ('fp')$$,
    'start_from_now returns the challenges that it moved to the present'
);
SELECT build.play(2, 3, '2025-06-01 12:00');
SELECT build.play(4, 3, '2025-06-01 12:00');
DELETE FROM challenge_listen_streak;
SELECT challenge_id FROM audius_challenges.start_from_now(ARRAY['e']) WHERE challenge_id = '';
SELECT results_eq(
    $$SELECT status, rows_inserted, rows_updated FROM reconcile_challenges(ARRAY['e'])$$,
    $$VALUES ('ok', 0::bigint, 0::bigint)$$,
    'after start_from_now the plays of before are not counted'
);
SELECT build.play(4, 3, clock_timestamp() AT TIME ZONE 'UTC');
SELECT build.run(ARRAY['e']);
SELECT results_eq(
    $$SELECT current_step_count, listen_streak FROM user_challenges INNER JOIN challenge_listen_streak USING (user_id)
    WHERE challenge_id = 'e' AND user_id = 4$$,
    $$VALUES (1, 1)$$,
    'after start_from_now the plays from then on are counted'
);

-- Without as_of, at last: from then on no earlier run is accepted.
SELECT build.person(13, is_verified => TRUE);
SELECT build.run(ARRAY['v']);
SELECT results_eq(
    $$SELECT created_at, completed_at FROM user_challenges WHERE challenge_id = 'v' AND user_id = 13$$,
    $$VALUES (now(), now() AT TIME ZONE 'UTC')$$,
    'without as_of the time that is written is now'
);

SELECT * FROM finish();
ROLLBACK;
