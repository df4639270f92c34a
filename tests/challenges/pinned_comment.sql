-- Challenge cp, pinned comment: a verified artist pins what somebody else has written under a track.
-- Users from 1 on write, users from 100 on own the tracks 1000 and up; comment and track of a case have one number.
BEGIN;
SELECT plan(29);

-- Nothing of the catalog's starting block is read.
UPDATE challenges SET starting_block = 2147483647 WHERE id = 'cp';
SELECT build.block(28360000);
SELECT build.person(user_id) FROM generate_series(1, 30) AS user_id;
SELECT build.person(user_id, is_verified => TRUE) FROM generate_series(100, 130) AS user_id;

CREATE FUNCTION pg_temp.paid(writer integer) RETURNS text
LANGUAGE sql AS $$
    SELECT coalesce(string_agg(u.specifier, ' ' ORDER BY u.specifier COLLATE "C"), 'nothing')
    FROM user_challenges AS u
    WHERE u.challenge_id = 'cp' AND u.user_id = writer;
$$;
CREATE FUNCTION pg_temp.run() RETURNS void
LANGUAGE sql AS $$
    SELECT build.run(ARRAY['cp'], as_of => '2025-03-05 06:00+00');
$$;

SELECT build.person(255);
SELECT build.track(4096, 100);
SELECT build.comment(7, 255, 4096);
SELECT build.pin(4096, 7);
SELECT build.run(ARRAY['cp'], as_of => '2025-03-05 05:06:07+00');
SELECT results_eq(
    $$SELECT
        user_id, specifier::text, is_complete, current_step_count, amount, completed_blocknumber,
        created_at, completed_at
    FROM user_challenges WHERE challenge_id = 'cp'$$,
    $$VALUES (
        255, 'ff:1000', TRUE, 1, 10, 28360000, '2025-03-05 05:06:07+00'::timestamptz,
        '2025-03-05 05:06:07'::timestamp
    )$$,
    'who has written it earns, and nobody else, whatever the starting block; the specifier is writer and track in hex'
);

-- The track.
SELECT build.track(1001, 100, is_delete => TRUE);
SELECT build.track(1002, 100, is_current => FALSE);
SELECT build.track(1003, 100, is_unlisted => TRUE, is_available => FALSE, blocknumber => NULL);
SELECT build.comment(number, number - 1000, number) FROM generate_series(1001, 1003) AS number;
UPDATE tracks SET pinned_comment_id = track_id WHERE track_id BETWEEN 1001 AND 1003;
SELECT pg_temp.run();
SELECT is(pg_temp.paid(1), 'nothing', 'a deleted track does not count');
SELECT is(pg_temp.paid(2), 'nothing', 'nor does an old version of a track');
SELECT is(pg_temp.paid(3), '3:3eb', 'a track that is hidden, or not available, or without a block, does');

-- The comment.
SELECT build.track(number, 100) FROM generate_series(1004, 1011) AS number;
SELECT build.comment(1004, 4, 1004, is_delete => TRUE);
SELECT build.comment(1005, 5, 1005, is_delete => NULL);
SELECT build.comment(1006, 6, 1006, is_visible => FALSE);
SELECT build.comment(1007, 7, 1007, entity_type => 'tRACK');
SELECT build.comment(1008, 8, 1008, entity_type => 'FanClub');
SELECT build.comment(1009, 9, 1004);
SELECT build.comment(1010, 100, 1010);
SELECT build.comment(1011, 11, 1011, blocknumber => NULL);
SELECT build.pin(number, number) FROM generate_series(1004, 1011) AS number;
SELECT pg_temp.run();
SELECT is(pg_temp.paid(4), 'nothing', 'a deleted comment does not count');
SELECT is(pg_temp.paid(5), '5:3ed', 'one of which nobody says whether it is deleted does');
SELECT is(pg_temp.paid(6), '6:3ee', 'so does one that is not shown');
SELECT is(pg_temp.paid(7), '7:3ef', 'the type of what it is about is read in any case');
SELECT is(pg_temp.paid(8), 'nothing', 'a comment on something else that has the number of the track does not count');
SELECT is(pg_temp.paid(9), 'nothing', 'nor does one on another track');
SELECT is(pg_temp.paid(100), 'nothing', 'nor does the owner''s own');
SELECT is(pg_temp.paid(11), 'b:3f3', 'a comment without a block does');
UPDATE comments SET is_delete = FALSE WHERE comment_id = 1004;
SELECT pg_temp.run();
SELECT is(pg_temp.paid(4), '4:3ec', 'a comment that comes back counts');

-- The people.
SELECT build.track(number, number - 900) FROM generate_series(1012, 1016) AS number;
UPDATE users SET is_verified = FALSE WHERE user_id = 112;
UPDATE users SET is_deactivated = TRUE WHERE user_id IN (113, 14);
DELETE FROM users WHERE user_id = 15;
-- Of two current rows the one with the higher block decides: the account is not verified any more.
SELECT build.person(116, blocknumber => 101, txhash => '0xb');
SELECT build.comment(number, number - 1000, number) FROM generate_series(1012, 1016) AS number;
SELECT build.pin(number, number) FROM generate_series(1012, 1016) AS number;
SELECT pg_temp.run();
SELECT is(pg_temp.paid(12), 'nothing', 'an owner who is not verified does not count');
SELECT is(pg_temp.paid(13), 'nothing', 'nor does one who is deactivated');
SELECT is(pg_temp.paid(14), 'nothing', 'nor does a deactivated writer');
SELECT is(pg_temp.paid(15), 'nothing', 'nor does one who is not there');
SELECT is(pg_temp.paid(16), 'nothing', 'the deciding row says whether the owner is verified');
UPDATE users SET is_verified = TRUE WHERE user_id = 112;
UPDATE users SET is_deactivated = FALSE WHERE user_id IN (113, 14);
SELECT pg_temp.run();
SELECT is(pg_temp.paid(12), 'c:3f4', 'an owner who is verified later counts then');
SELECT is(pg_temp.paid(13), 'd:3f5', 'an owner who is back counts');
SELECT is(pg_temp.paid(14), 'e:3f6', 'so does a writer who is back');

-- Once for each writer and track.
SELECT build.comment(71, 255, 4096);
SELECT build.pin(4096, 71);
SELECT pg_temp.run();
SELECT is(pg_temp.paid(255), 'ff:1000', 'another comment of the same writer on the same track pays nothing more');
SELECT build.comment(72, 17, 4096);
SELECT build.pin(4096, 72);
SELECT pg_temp.run();
SELECT is(pg_temp.paid(17), '11:1000', 'that of another writer does');
SELECT is(pg_temp.paid(255), 'ff:1000', 'what is not pinned any more stays paid');

-- Paid before.
SELECT build.track(number, 100) FROM generate_series(1018, 1019) AS number;
SELECT build.comment(number, number - 1000, number) FROM generate_series(1018, 1019) AS number;
SELECT build.disbursed('cp', 999, '12:3fa');
SELECT build.disbursed('c', 999, '13:3fb');
SELECT build.pin(number, number) FROM generate_series(1018, 1019) AS number;
SELECT pg_temp.run();
SELECT is(pg_temp.paid(18), 'nothing', 'what was disbursed, to whomever, is not paid again');
SELECT is(pg_temp.paid(19), '13:3fb', 'what was disbursed for another challenge is');

-- Start from now.
SELECT build.person(140);
SELECT build.track(1020, 140);
SELECT build.track(number, 100) FROM generate_series(1021, 1022) AS number;
SELECT build.comment(1020, 20, 1020);
SELECT build.comment(1021, 21, 1021, is_delete => TRUE);
SELECT build.comment(1022, 22, 1022);
SELECT build.pin(number, number) FROM generate_series(1020, 1021) AS number;
SELECT results_eq(
    $$SELECT challenge_id, passed_over FROM audius_challenges.start_from_now(ARRAY['cp'])$$,
    $$SELECT 'cp', count(*) FROM tracks AS t INNER JOIN comments AS c ON t.pinned_comment_id = c.comment_id
    WHERE NOT EXISTS (
        SELECT FROM user_challenges AS u WHERE u.specifier = to_hex(c.user_id) || ':' || to_hex(t.track_id)
    )$$,
    'start_from_now passes over every pin there is and that has no row'
);
UPDATE users SET is_verified = TRUE WHERE user_id = 140;
UPDATE comments SET is_delete = FALSE WHERE comment_id = 1021;
SELECT build.pin(1022, 1022);
SELECT build.run(ARRAY['cp'], full_scan => TRUE);
SELECT is(
    concat_ws(', ', pg_temp.paid(20), pg_temp.paid(21), pg_temp.paid(22)),
    'nothing, nothing, 16:3fe',
    'whoever is verified, and whatever comes back: only what is pinned later is paid'
);
SELECT is(
    (SELECT count(*) FROM audius_challenges.verified_user AS v WHERE v.user_id BETWEEN 100 AND 130),
    31::bigint,
    'everybody who was found verified is known'
);

SELECT * FROM finish();
ROLLBACK;
