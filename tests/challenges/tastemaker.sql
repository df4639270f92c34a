-- Challenge t, tastemaker: who reposted or saved a track first, once it trends. Each track is decided once.
-- Users from 1 on repost and save; user 999 owns the tracks.
BEGIN;
SELECT plan(30);

UPDATE challenges SET starting_block = 2147483647 WHERE id = 't';
SELECT build.block(28360000);
SELECT build.person(user_id) FROM generate_series(1, 60) AS user_id;
SELECT build.person(999);

CREATE FUNCTION pg_temp.winners(track integer) RETURNS text
LANGUAGE sql AS $$
    SELECT coalesce(string_agg(u.user_id::text, ' ' ORDER BY u.user_id), 'nobody')
    FROM user_challenges AS u
    WHERE u.challenge_id = 't' AND u.specifier = to_hex(u.user_id) || ':t:' || to_hex(track);
$$;
CREATE FUNCTION pg_temp.decided(track integer) RETURNS text
LANGUAGE sql AS $$
    SELECT coalesce(string_agg(d.winners::text || d.is_done, ''), 'not yet')
    FROM audius_challenges.tastemaker_decision AS d
    WHERE d.track_id = track;
$$;
CREATE FUNCTION pg_temp.run() RETURNS void
LANGUAGE sql AS $$
    SELECT build.run(ARRAY['t'], as_of => '2025-03-05 06:00+00');
$$;
-- Decides a track: it is the only one with a score.
CREATE FUNCTION pg_temp.decide(track integer) RETURNS text
LANGUAGE sql AS $$
    DELETE FROM track_trending_scores;
    SELECT build.track_score(track, 1);
    SELECT pg_temp.run();
    SELECT pg_temp.winners(track);
$$;

-- A Wednesday.
SELECT build.track(255, 999);
SELECT build.repost(1, 255);
SELECT build.save(16, 255);
SELECT pg_temp.run();
SELECT is(pg_temp.decided(255), 'not yet', 'without scores nothing is decided');
SELECT build.track_score(255, 0);
SELECT pg_temp.run();
SELECT is(pg_temp.decided(255), 'not yet', 'a score of 0 is none');
SELECT build.track_score(255, 1);
SELECT build.run(ARRAY['t'], as_of => '2025-03-05 06:06:07+00');
SELECT results_eq(
    $$SELECT
        user_id, specifier::text, is_complete, current_step_count, amount, completed_blocknumber,
        created_at, completed_at
    FROM user_challenges WHERE challenge_id = 't' ORDER BY user_id$$,
    $$VALUES
    (
        1, '1:t:ff', TRUE, 1, 100, 28360000, '2025-03-05 06:06:07+00'::timestamptz, '2025-03-05 06:06:07'::timestamp
    ),
    (
        16, '10:t:ff', TRUE, 1, 100, 28360000, '2025-03-05 06:06:07+00'::timestamptz,
        '2025-03-05 06:06:07'::timestamp
    )$$,
    'who reposted and who saved earns, on any day of the week; the specifier is user, t and track, in hex'
);
SELECT is(pg_temp.decided(255), '{1,16}true', 'the decision remembers its winners');
SELECT build.repost(2, 255, created_at => '2023-01-01');
SELECT build.run(ARRAY['t'], as_of => '2025-03-05 07:00+00', full_scan => TRUE);
SELECT is(pg_temp.winners(255), '1 16', 'it is decided once: who is found later, however early, earns nothing');

-- Who is first. The runs from here on have one time.
CREATE OR REPLACE FUNCTION pg_temp.run() RETURNS void
LANGUAGE sql AS $$
    SELECT build.run(ARRAY['t'], as_of => '2025-03-06 06:00+00');
$$;
SELECT build.track(300, 999);
SELECT build.repost(user_id, 300, created_at => timestamp '2024-02-01' - user_id * interval '1 day')
FROM generate_series(1, 12) AS user_id;
SELECT build.save(user_id, 300, created_at => '2024-02-01') FROM generate_series(10, 21) AS user_id;
SELECT is(
    pg_temp.decide(300),
    '3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19',
    'the earliest ten of each, by time, then by user id; who is in both lists earns once'
);
SELECT build.track(301, 999);
SELECT build.repost(1, 301, is_delete => TRUE);
SELECT build.repost(2, 301, is_current => FALSE);
SELECT build.repost(3, 301, 'playlist');
SELECT build.repost(999, 301);
SELECT build.repost(4, 301);
SELECT build.save(5, 301, is_delete => TRUE);
SELECT build.save(6, 301, is_current => FALSE);
SELECT build.save(7, 301, 'album');
SELECT build.save(999, 301);
SELECT build.save(8, 301);
SELECT is(
    pg_temp.decide(301), '4 8', 'what is deleted, an old version, of another type, or the owner''s own does not count'
);
SELECT build.track(302, 999);
SELECT build.repost(user_id, 302, created_at => timestamp '2024-01-01' + user_id * interval '1 day')
FROM generate_series(1, 12) AS user_id;
UPDATE users SET is_deactivated = TRUE WHERE user_id = 1;
DELETE FROM users WHERE user_id = 2;
SELECT is(
    pg_temp.decide(302), '3 4 5 6 7 8 9 10 11 12', 'who is deactivated, or not there, leaves the place to others'
);
UPDATE users SET is_deactivated = FALSE WHERE user_id = 1;
SELECT build.run(ARRAY['t'], as_of => '2025-03-06 06:00+00', full_scan => TRUE);
SELECT is(
    pg_temp.winners(302), '3 4 5 6 7 8 9 10 11 12', 'and gets nothing when he is back: those active then have won'
);
SELECT build.track(303, 999);
SELECT build.repost(3, 303, created_at => '-infinity');
SELECT build.repost(4, 303, created_at => 'infinity');
SELECT build.repost(5, 303, created_at => '2025-03-06 06:05:00');
SELECT build.repost(6, 303, created_at => '2025-03-06 06:05:00.000001');
SELECT is(
    pg_temp.decide(303), '5', 'what claims to be from more than five minutes later, or of no time, is not there'
);
SELECT build.track(304, 999);
SELECT build.repost(3, 304, created_at => '2024-01-05');
SELECT build.repost(3, 304, created_at => '2024-01-02', txhash => '0xb');
SELECT build.repost(user_id, 304, created_at => '2024-01-04') FROM generate_series(10, 25) AS user_id;
SELECT is(
    pg_temp.decide(304), '3 10 11 12 13 14 15 16 17 18', 'of several current versions of a repost the earliest counts'
);

-- Which tracks are decided.
SELECT build.track(400 + number, 999) FROM generate_series(1, 12) AS number;
SELECT build.repost(20, 400 + number) FROM generate_series(1, 12) AS number;
DELETE FROM track_trending_scores;
SELECT build.track_score(400 + number, 5) FROM generate_series(1, 12) AS number;
SELECT pg_temp.run();
SELECT is(
    (
        SELECT string_agg(d.track_id::text, ' ' ORDER BY d.track_id)
        FROM audius_challenges.tastemaker_decision AS d WHERE d.track_id > 400
    ),
    '403 404 405 406 407 408 409 410 411 412',
    'ten tracks are decided: the best by score, then by id'
);
UPDATE tracks SET is_unlisted = TRUE WHERE track_id = 412;
SELECT pg_temp.run();
SELECT is(pg_temp.winners(402), '20', 'one that comes up among the ten later is decided then');
SELECT is(pg_temp.winners(401), 'nobody', 'one that never does is not');
SELECT is(pg_temp.winners(412), '20', 'one that falls out stays decided');
SELECT build.person(998, is_deactivated => TRUE);
SELECT build.track(501, 999, is_delete => TRUE);
SELECT build.track(502, 999, is_unlisted => TRUE);
SELECT build.track(503, 999, is_available => FALSE);
SELECT build.track(504, 999, is_current => FALSE);
SELECT build.track(505, 998);
SELECT build.track(506 + number, 999) FROM generate_series(0, 4) AS number;
SELECT build.repost(20, 500 + number) FROM generate_series(1, 10) AS number;
DELETE FROM track_trending_scores;
SELECT build.track_score(500 + number, 5) FROM generate_series(1, 5) AS number;
SELECT build.track_score(506, 5, type => 'UNDERGROUND_TRACKS');
SELECT build.track_score(507, 5, version => 'EJ57D');
SELECT build.track_score(508, 5, time_range => 'month');
SELECT build.track_score(509, 'Infinity');
SELECT build.track_score(510, 5);
SELECT pg_temp.run();
SELECT is(
    (SELECT string_agg(d.track_id::text, ' ') FROM audius_challenges.tastemaker_decision AS d WHERE d.track_id > 500),
    '510',
    'tracks and scores that do not count for tt are not decided'
);

-- What is decided without winners.
SELECT build.track(600 + number, 999) FROM generate_series(1, 6) AS number;
SELECT build.repost(20, 600 + number) FROM generate_series(2, 6) AS number;
SELECT is(pg_temp.decide(601), 'nobody', 'a track that nobody has reposted or saved has no winners');
SELECT is(pg_temp.decided(601), '{}true', 'and is decided');
SELECT build.repost(20, 601);
SELECT pg_temp.run();
SELECT is(pg_temp.winners(601), 'nobody', 'so it stays');
SELECT build.complete('t', 21, '15:t:25a');
SELECT is(pg_temp.decide(602), '21', 'a track with a row of an earlier service counts as decided');
SELECT build.disbursed('t', 21, '15:t:25b');
SELECT is(pg_temp.decide(603), 'nobody', 'so does one with a disbursement');
INSERT INTO sol_reward_disbursements (
    signature, instruction_index, amount, slot, user_bank, challenge_id, specifier
)
VALUES ('signature', 0, 1, 1, 'bank', 't', '15:t:25c');
SELECT is(pg_temp.decide(604), 'nobody', 'also with one that only the chain knows');
SELECT build.disbursed('t', 21, 'odd');
SELECT build.disbursed('c', 21, '15:t:25d');
SELECT is(pg_temp.decide(605), '20', 'what else was disbursed says nothing');

-- A winner who cannot be written.
SET LOCAL ROLE NONE;
CREATE FUNCTION pg_temp.refuse() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'no taste';
END
$$;
CREATE TRIGGER refuse BEFORE INSERT ON user_challenges
FOR EACH ROW WHEN (new.specifier = '16:t:25e') EXECUTE FUNCTION pg_temp.refuse();
RESET ROLE;
SELECT build.repost(22, 606);
SET LOCAL client_min_messages = 'error';
SELECT is(pg_temp.decide(606), '20', 'a winner who cannot be written stops no other');
RESET client_min_messages;
SELECT results_eq(
    $$SELECT user_id, specifier FROM audius_challenges.set_aside WHERE challenge_id = 't'$$,
    $$VALUES (22::bigint, '16:t:25e')$$,
    'his reward is set aside'
);
SELECT is(pg_temp.decided(606), '{20,22}false', 'and the decision remembers him');
SET LOCAL ROLE NONE;
DROP TRIGGER refuse ON user_challenges;
RESET ROLE;
DELETE FROM track_trending_scores;
SELECT build.forget('users', 'blocks');
SELECT build.run(ARRAY['t'], as_of => '2025-03-07 06:00+00');
SELECT is(
    concat_ws(', ', pg_temp.winners(606), pg_temp.decided(606)),
    '20 22, {20,22}true',
    'he is written from the decision, whatever has become of the sources'
);
SELECT is_empty(
    $$SELECT specifier FROM audius_challenges.set_aside WHERE challenge_id = 't'$$, 'and is set aside no more'
);

-- Start from now.
SELECT build.track(700 + number, 999) FROM generate_series(1, 14) AS number;
SELECT build.repost(20, 700 + number) FROM generate_series(1, 14) AS number;
SELECT build.track_score(700 + number, number) FROM generate_series(1, 12) AS number;
UPDATE tracks SET is_unlisted = TRUE WHERE track_id = 710;
SELECT results_eq(
    $$SELECT passed_over FROM audius_challenges.start_from_now(ARRAY['t'])$$,
    $$VALUES (11::bigint)$$,
    'start_from_now passes over the ten that trend, and what would trend if it counted'
);
DELETE FROM track_trending_scores WHERE track_id IN (709, 711, 712);
UPDATE tracks SET is_unlisted = FALSE WHERE track_id = 710;
SELECT build.track_score(713, 20);
SELECT build.run(ARRAY['t'], full_scan => TRUE);
SELECT is(
    (
        SELECT string_agg(track::text, ' ' ORDER BY track) FROM generate_series(701, 714) AS track
        WHERE pg_temp.winners(track) <> 'nobody'
    ),
    '701 713',
    'what comes up later is paid, and nothing else'
);

SELECT * FROM finish();
ROLLBACK;
