-- Challenge w, remix contest winner: whom a verified host has named in his contest, up to two caps.
-- Users 1 to 99 win, each with the track of his own number. Users from 100 on host the contests 1000 and up.
BEGIN;
SELECT no_plan();

-- Times are read as UTC, whatever the session's time zone is.
SET LOCAL timezone = 'Asia/Tokyo';
UPDATE challenges SET starting_block = 100 WHERE id = 'w';
SELECT build.person(user_id) FROM generate_series(1, 99) AS user_id;
SELECT build.track(user_id, user_id) FROM generate_series(1, 99) AS user_id;
SELECT build.person(user_id, is_verified => TRUE) FROM generate_series(100, 160) AS user_id;

-- Who was paid for a contest, in the order of ids.
CREATE FUNCTION pg_temp.paid(event integer) RETURNS text
LANGUAGE sql AS $$
    SELECT coalesce(string_agg(u.user_id::text, ' ' ORDER BY u.user_id), 'nobody')
    FROM user_challenges AS u
    WHERE u.challenge_id = 'w' AND u.specifier = to_hex(event) || ':' || to_hex(u.user_id);
$$;
CREATE FUNCTION pg_temp.run(as_of text DEFAULT '2025-03-05 06:00+00') RETURNS void
LANGUAGE sql AS $$
    SELECT build.run(ARRAY['w'], as_of => as_of::timestamptz);
$$;
-- A day of 2025, so that day 32 is the first of February.
CREATE FUNCTION pg_temp.day(number integer) RETURNS timestamp
LANGUAGE sql AS $$
    SELECT '2024-12-31'::timestamp + number * '1 day'::interval;
$$;
CREATE FUNCTION pg_temp.range(first integer, last integer) RETURNS jsonb
LANGUAGE sql AS $$
    SELECT jsonb_agg(n ORDER BY n) FROM generate_series(first, last) AS n;
$$;

-- The row to the letter.
SELECT build.person(255);
SELECT build.track(300, 255);
SELECT build.contest(4096, 100, '[300]', updated_at => '2025-03-01 05:06:07.123456', blocknumber => 28360000);
SELECT build.run(ARRAY['w'], as_of => '2025-03-05 05:06:07+00');
SELECT results_eq(
    $$SELECT
        user_id, specifier::text, is_complete, current_step_count, amount, completed_blocknumber,
        created_at, completed_at
    FROM user_challenges WHERE challenge_id = 'w'$$,
    $$VALUES (
        255, '1000:ff', TRUE, 1, 1000, 28360000, '2025-03-01 05:06:07.123456+00'::timestamptz,
        '2025-03-05 05:06:07'::timestamp
    )$$,
    'the winner earns, under contest and winner in hex, created when the contest was last changed'
);
SELECT pg_temp.run();
SELECT is((SELECT count(*) FROM user_challenges AS u WHERE u.challenge_id = 'w'), 1::bigint, 'once');

-- The contest.
SELECT build.contest(1001, 101, '[1]', event_type => 'live_event');
SELECT build.contest(1002, 101, '[1]', is_deleted => TRUE);
SELECT build.contest(1003, 101, '[1]', is_deleted => NULL);
SELECT build.contest(1004, 101, '[1]', blocknumber => 99);
SELECT build.contest(1005, 101, '[1]', blocknumber => 101);
SELECT build.contest(1006, 101, '[1]', blocknumber => NULL);
SELECT pg_temp.run();
SELECT is(pg_temp.paid(1001), 'nobody', 'another event is no contest');
SELECT is(pg_temp.paid(1002), 'nobody', 'a deleted contest does not count');
SELECT is(pg_temp.paid(1003), '1', 'one of which nobody says whether it is deleted does');
SELECT is(
    concat_ws(', ', pg_temp.paid(1004), pg_temp.paid(1006)), 'nobody, nobody',
    'nor does one before the starting block, or without a block'
);
SELECT is(pg_temp.paid(1005), '1', 'one after it does; who wins two contests is paid twice');
UPDATE challenges SET starting_block = NULL WHERE id = 'w';
SELECT pg_temp.run();
SELECT is(
    concat_ws(', ', pg_temp.paid(1004), pg_temp.paid(1006)), '1, 1', 'a starting block of null is 0, as no block is'
);
UPDATE challenges SET starting_block = 100 WHERE id = 'w';
UPDATE events SET is_deleted = FALSE WHERE event_id = 1002;
SELECT pg_temp.run();
SELECT is(pg_temp.paid(1002), '1', 'a contest that comes back counts');

-- The host.
SELECT build.contest(1010, 102, '[2]');
SELECT build.contest(1011, 103, '[2]');
SELECT build.contest(1012, 104, '[2]');
SELECT build.contest(1013, 105, '[2]');
UPDATE users SET is_verified = FALSE WHERE user_id = 102;
UPDATE users SET is_deactivated = TRUE WHERE user_id = 103;
DELETE FROM users WHERE user_id = 104;
-- Of two current rows the one with the higher block decides: the account is not verified any more.
SELECT build.person(105, blocknumber => 101, txhash => '0xb');
SELECT pg_temp.run();
SELECT is(pg_temp.paid(1010), 'nobody', 'a host who is not verified does not count');
SELECT is(pg_temp.paid(1011), 'nobody', 'nor does one who is deactivated');
SELECT is(pg_temp.paid(1012), 'nobody', 'nor does one who is not there');
SELECT is(pg_temp.paid(1013), 'nobody', 'the deciding row says whether the host is verified');
UPDATE users SET is_verified = TRUE WHERE user_id = 102;
UPDATE users SET is_deactivated = FALSE WHERE user_id = 103;
SELECT pg_temp.run();
SELECT is(
    concat_ws(', ', pg_temp.paid(1010), pg_temp.paid(1011)), '2, 2',
    'a host who is verified, or back, later counts then'
);

-- The array.
SELECT build.contest(1020, 106, NULL);
SELECT build.contest(1021, 106, '{"0": 3}');
SELECT build.contest(1022, 106, '3');
SELECT build.contest(1023, 106, '"[3]"');
SELECT build.contest(1024, 106, 'null');
SELECT build.contest(1025, 106, '[]');
UPDATE events SET event_data = '[3]' WHERE event_id = 1025;
SELECT pg_temp.run();
SELECT is(
    (SELECT string_agg(pg_temp.paid(number), ' ') FROM generate_series(1020, 1025) AS number),
    'nobody nobody nobody nobody nobody nobody',
    'winners that are no array are none'
);

-- The elements. Those that are skipped come first and take no place; read in another way, each would be of a track.
SELECT build.track(2147483647, 24);
SELECT build.track(0, 25);
SELECT build.track(-26, 26);
SELECT build.contest(1026, 107, (
    SELECT jsonb_agg(winner.element ORDER BY winner.position)
    FROM jsonb_array_elements(
        '[10.5, 0, -26, 2147483648, 4294967306, 1e400, -1e400, 1e-5,
        "", " 10", "11 ", "12\n", "+13", "-26", "14.0", "1e1", "0xf", "0000000016", "2147483647",
        true, null, [18], {"id": 19}]'::jsonb
        -- Digits that are none of ASCII's, where the encoding has them.
        || CASE pg_encoding_to_char(d.encoding) WHEN 'UTF8' THEN '["\u0661\u0667"]' ELSE '[]' END::jsonb
        || '[20, 21.0, 2.2e1, "23", 2147483647]'::jsonb
    ) WITH ORDINALITY AS winner (element, position)
))
FROM pg_database AS d
WHERE d.datname = current_database();
SELECT build.contest(1027, 108, '["000000027", "0", "00"]');
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid(1026), '20 21 22 23 24',
    'a track id is a number without a fraction, from 1 to 2147483647, or a string of digits; anything else is skipped'
);
SELECT is(pg_temp.paid(1027), '25 27', 'of digits there may be nine, zeros as well');

-- The track.
UPDATE tracks SET is_delete = TRUE WHERE track_id = 30;
UPDATE tracks SET is_current = FALSE WHERE track_id = 31;
UPDATE tracks SET is_unlisted = TRUE, is_available = FALSE, blocknumber = NULL WHERE track_id = 32;
-- Two current versions of one track: the higher block says whose it is. One of another is deleted.
SELECT build.track(33, 34, blocknumber => 101, txhash => '0xb');
SELECT build.track(35, 36, blocknumber => 101, txhash => '0xb', is_delete => TRUE);
SELECT build.contest(1030, 109, '[30, 31, 32, 33, 35, 999999]');
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid(1030), '32 34 35', 'a track that is deleted, old or not there wins nothing; a hidden one does'
);
UPDATE tracks SET is_delete = FALSE WHERE track_id = 30;
SELECT pg_temp.run();
SELECT is(pg_temp.paid(1030), '30 32 34 35', 'a track that comes back wins');

-- The winner.
SELECT build.track(500, 110);
SELECT build.track(501, 40);
UPDATE users SET is_deactivated = TRUE WHERE user_id = 41;
DELETE FROM users WHERE user_id = 42;
SELECT build.contest(1040, 110, '[500, 41, 42, 40, 501, "40"]');
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid(1040), '40',
    'the host wins nothing, nor does who is deactivated or not there; one with several tracks wins once'
);
UPDATE users SET is_deactivated = FALSE WHERE user_id = 41;
SELECT pg_temp.run();
SELECT is(pg_temp.paid(1040), '40 41', 'a winner who is back wins');
UPDATE events SET event_data = '{"winners": []}', is_deleted = TRUE WHERE event_id = 1040;
UPDATE users SET is_verified = FALSE WHERE user_id = 110;
SELECT build.run(ARRAY['w'], full_scan => TRUE, as_of => '2025-03-05 06:00+00');
SELECT is(pg_temp.paid(1040), '40 41', 'who is not named any more stays paid');

-- At most five a contest.
UPDATE users SET is_deactivated = TRUE WHERE user_id IN (57, 58);
SELECT build.contest(1050, 111, '[58, 57, 56, 55, 54, 53, 52, 51, 50]', updated_at => pg_temp.day(1));
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid(1050), '52 53 54 55 56',
    'the first five in the order of the array win; who is inactive takes no place'
);
UPDATE users SET is_deactivated = FALSE WHERE user_id IN (57, 58);
SELECT pg_temp.run();
SELECT is(pg_temp.paid(1050), '52 53 54 55 56', 'who is refused is refused again, and who is back finds no place');
SELECT build.contest(1050, 111, '[50, 51]', updated_at => pg_temp.day(30));
SELECT pg_temp.run();
SELECT is(pg_temp.paid(1050), '52 53 54 55 56', 'the cap of a contest is for good, whoever is named later');
SELECT build.contest(1052, 112, '[50, 51, 52]', updated_at => pg_temp.day(1));
SELECT pg_temp.run();
SELECT build.contest(1052, 112, '[53, 54, 55, 56, 57, 58]', updated_at => pg_temp.day(30));
SELECT pg_temp.run();
SELECT is(pg_temp.paid(1052), '50 51 52 53 54', 'it counts whom the contest had named before');

SELECT build.track(571, 71);
SELECT build.contest(1053, 112, '[71, 72, 73, 74, 75, 76, 571]', updated_at => pg_temp.day(50));
SELECT pg_temp.run();
SELECT is(pg_temp.paid(1053), '71 72 73 74 75', 'who is named twice has the first of his places');

-- At most five of a host in seven days: the window before.
SELECT build.contest(1060, 113, pg_temp.range(1, 3), updated_at => pg_temp.day(1));
SELECT build.contest(1061, 113, pg_temp.range(4, 6), updated_at => pg_temp.day(8));
SELECT build.contest(1062, 114, pg_temp.range(1, 3), updated_at => pg_temp.day(1));
SELECT build.contest(1063, 114, pg_temp.range(4, 6), updated_at => pg_temp.day(8) + '1 microsecond'::interval);
SELECT pg_temp.run();
SELECT is(pg_temp.paid(1061), '4 5', 'a window of seven days has both its ends');
SELECT is(pg_temp.paid(1063), '4 5 6', 'and nothing beyond; another host has windows of his own');
SELECT pg_temp.run();
SELECT build.run(ARRAY['w'], full_scan => TRUE, as_of => '2025-03-05 06:00+00');
SELECT is(pg_temp.paid(1061), '4 5', 'what is refused stays refused as long as the contest stays as it is');
UPDATE events SET updated_at = pg_temp.day(8) + '1 microsecond'::interval WHERE event_id = 1061;
SELECT pg_temp.run();
SELECT results_eq(
    $$SELECT u.user_id, u.created_at AT TIME ZONE 'UTC' FROM user_challenges AS u
    WHERE u.challenge_id = 'w' AND u.specifier LIKE '425:%' ORDER BY u.user_id$$,
    $$VALUES (4, pg_temp.day(8)), (5, pg_temp.day(8)), (6, pg_temp.day(8) + '1 microsecond'::interval)$$,
    'changed, it is a new deed of its new time, judged anew'
);

-- The windows of later rewards.
SELECT build.contest(1070, 115, pg_temp.range(1, 5), updated_at => pg_temp.day(20));
SELECT pg_temp.run();
SELECT build.contest(1071, 115, '[6]', updated_at => pg_temp.day(13));
SELECT build.contest(1072, 115, '[7]', updated_at => pg_temp.day(13) - '1 microsecond'::interval);
SELECT build.contest(1073, 115, '[8]', updated_at => pg_temp.day(20));
SELECT build.contest(1074, 115, '[9]', updated_at => pg_temp.day(27));
SELECT build.contest(1075, 115, '[10]', updated_at => pg_temp.day(27) + '1 microsecond'::interval);
SELECT pg_temp.run();
SELECT is(
    (SELECT string_agg(pg_temp.paid(number), ', ' ORDER BY number) FROM generate_series(1070, 1075) AS number),
    '1 2 3 4 5, nobody, 7, nobody, nobody, 10',
    'what comes later with an earlier time finds no place in the window of a later reward, nor does one of its moment'
);
SELECT build.contest(1076, 116, pg_temp.range(1, 3), updated_at => pg_temp.day(20));
SELECT build.contest(1077, 116, pg_temp.range(4, 6), updated_at => pg_temp.day(30));
SELECT pg_temp.run();
SELECT build.contest(1078, 116, pg_temp.range(7, 9), updated_at => pg_temp.day(25));
SELECT pg_temp.run();
SELECT build.run(ARRAY['w'], full_scan => TRUE, as_of => '2025-03-05 06:00+00');
SELECT is(pg_temp.paid(1078), '7 8', 'between others it takes what both windows leave');
-- The nearest later window has room, one after it has not.
SELECT build.contest(1100, 117, '[1]', updated_at => pg_temp.day(12));
SELECT build.contest(1101, 117, pg_temp.range(2, 5), updated_at => pg_temp.day(16));
SELECT pg_temp.run();
SELECT build.contest(1102, 117, '[6]', updated_at => pg_temp.day(10));
SELECT build.contest(1103, 117, '[7]', updated_at => pg_temp.day(8));
SELECT pg_temp.run();
SELECT is(
    concat_ws(', ', pg_temp.paid(1102), pg_temp.paid(1103)), 'nobody, 7', 'every later window is looked at'
);

-- The order of candidates: time, contest, place in the array.
SELECT build.contest(1080, 118, '[9, 1, 8, 2]', updated_at => pg_temp.day(2));
SELECT build.contest(1081, 118, '[3, 7]', updated_at => pg_temp.day(1));
SELECT build.contest(1082, 118, '[4]', updated_at => pg_temp.day(2));
SELECT build.contest(1083, 119, '[9, 1, 8, 2]', updated_at => pg_temp.day(2));
SELECT build.contest(1084, 119, '[3, 7]', updated_at => pg_temp.day(2));
SELECT pg_temp.run();
SELECT is(
    concat_ws(', ', pg_temp.paid(1080), pg_temp.paid(1081), pg_temp.paid(1082)), '1 8 9, 3 7, nobody',
    'the earlier contest comes first, then the lower number, then the place in the array'
);
SELECT is(
    concat_ws(', ', pg_temp.paid(1083), pg_temp.paid(1084)), '1 2 8 9, 3', 'of one moment, the lower number comes first'
);

-- Rows that others wrote, at times that there are and are not; and contests that change hands.
INSERT INTO user_challenges (challenge_id, user_id, specifier, is_complete, amount, created_at)
VALUES
('w', 1, to_hex(1090) || ':a1', TRUE, 1000, '2025-01-03 00:00+00'),
('w', 2, to_hex(1090) || ':a2', TRUE, 1000, '2025-01-03 00:00+00'),
('w', 3, to_hex(1091) || ':a3', TRUE, 1000, 'infinity'),
('w', 4, to_hex(1091) || ':a4', TRUE, 1000, '-infinity'),
('w', 5, 'unreadable', TRUE, 1000, '2025-01-03 00:00+00'),
('cs', 6, to_hex(1090) || ':a6', TRUE, 1000, '2025-01-03 00:00+00');
SELECT build.contest(1090, 120, NULL, updated_at => pg_temp.day(3));
SELECT build.contest(1091, 120, NULL, updated_at => pg_temp.day(3));
SELECT build.contest(1092, 120, pg_temp.range(11, 15), updated_at => pg_temp.day(3));
SELECT build.contest(1093, 121, pg_temp.range(16, 19), updated_at => pg_temp.day(3));
SELECT pg_temp.run();
SELECT is(pg_temp.paid(1092), '11 12 13', 'rewards that others wrote count, at the time that they have');
UPDATE events SET user_id = 122 WHERE event_id IN (1093);
SELECT build.contest(1094, 122, pg_temp.range(1, 5), updated_at => pg_temp.day(3));
SELECT build.contest(1095, 121, pg_temp.range(1, 5), updated_at => pg_temp.day(3));
SELECT pg_temp.run();
SELECT is(
    concat_ws(', ', pg_temp.paid(1094), pg_temp.paid(1095)), '1, 1 2 3 4 5',
    'a contest that changes hands takes its rewards along'
);

-- Paid before.
SELECT build.disbursed('w', 999, to_hex(1110) || ':1');
SELECT build.disbursed('cs', 999, to_hex(1110) || ':2');
SELECT build.contest(1110, 123, pg_temp.range(1, 6), updated_at => pg_temp.day(3));
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid(1110), '2 3 4 5 6',
    'what was disbursed, to whomever, is not paid again, and takes no place; what was for another challenge is paid'
);

-- The clock.
SELECT build.contest(1120, 124, '[1]', updated_at => '2025-03-05 06:05');
SELECT build.contest(1121, 124, '[2]', updated_at => '2025-03-05 06:05:00.000001');
SELECT build.contest(1122, 124, '[3]', updated_at => 'infinity');
SELECT build.contest(1123, 124, '[4]', updated_at => '-infinity');
SELECT build.contest(1124, 124, '[5]', updated_at => '2099-01-01');
SELECT pg_temp.run();
SELECT is(
    (SELECT string_agg(pg_temp.paid(number), ', ' ORDER BY number) FROM generate_series(1120, 1124) AS number),
    '1, nobody, nobody, nobody, nobody',
    'a contest from more than five minutes later, or of an infinite time, is not there yet'
);
SELECT pg_temp.run('2025-03-05 06:00:00.000001+00');
SELECT is(pg_temp.paid(1121), '2', 'it is there when the clock is');

-- Nothing depends on slices: the winners' ids are below and above their hosts'.
SELECT build.track(200 + user_id, 200 + user_id), build.person(200 + user_id)
FROM generate_series(1, 9) AS user_id;
SELECT build.contest(1130, 125, '[201, 1, 202, 2]', updated_at => pg_temp.day(1));
SELECT build.contest(1131, 125, '[203, 3, 204, 4]', updated_at => pg_temp.day(2));
SELECT build.contest(1132, 126, '[205, 5]', updated_at => pg_temp.day(1));
SET LOCAL audius_challenges.slice_users = '1';
SET LOCAL audius_challenges.sweep_users = '1';
SELECT build.run(ARRAY['w'], full_scan => TRUE, as_of => '2025-03-05 07:00+00');
SELECT is(
    concat_ws(', ', pg_temp.paid(1130), pg_temp.paid(1131), pg_temp.paid(1132)), '1 2 201 202, 203, 5 205',
    'a host is examined with all his contests, however small slices are'
);
SET LOCAL audius_challenges.slice_users = '';
SET LOCAL audius_challenges.sweep_users = '';

-- Start from now.
SELECT build.person(170);
UPDATE users SET is_deactivated = TRUE WHERE user_id = 62;
UPDATE tracks SET is_delete = TRUE WHERE track_id = 63;
SELECT build.contest(1150, 170, '[60]');
SELECT build.contest(1151, 128, '[61]', is_deleted => TRUE);
SELECT build.contest(1152, 128, '[62, 63]');
SELECT build.contest(1153, 128, '[64]', blocknumber => 1);
SELECT build.contest(1154, 128, '[65]', updated_at => '2099-01-01');
SELECT build.contest(1155, 129, pg_temp.range(60, 67), updated_at => pg_temp.day(1));
SELECT build.contest(1156, 129, '[true, "x", 999999]');
SELECT build.contest(1157, 129, '[60]', event_type => 'live_event');
SELECT build.track(502, 129);
SELECT build.contest(1158, 129, '[502]');
SELECT results_eq(
    $$SELECT challenge_id, passed_over > 0 FROM audius_challenges.start_from_now(ARRAY['w'])$$,
    $$VALUES ('w', TRUE)$$,
    'start_from_now passes over what there is'
);
SELECT set_eq(
    $$SELECT p.specifier FROM audius_challenges.passed_over AS p
    WHERE p.challenge_id = 'w' AND split_part(p.specifier, ':', 1) >= to_hex(1150)
        AND split_part(p.specifier, ':', 1) <= to_hex(1158)$$,
    $$SELECT to_hex(event) || ':' || to_hex(user_id)
    FROM (
        VALUES (1150, 60), (1151, 61), (1152, 62), (1152, 63), (1153, 64), (1154, 65),
        (1155, 60), (1155, 61), (1155, 62), (1155, 63), (1155, 64), (1155, 65), (1155, 66), (1155, 67)
    ) AS deed (event, user_id)$$,
    'namely every winner of every contest, whatever the host, the winner, the track, the block, the time and caps say'
);
SELECT is_empty(
    $$SELECT FROM audius_challenges.passed_over AS p INNER JOIN user_challenges AS u USING (challenge_id, specifier)$$,
    'and that has no row'
);
UPDATE users SET is_verified = TRUE, is_deactivated = FALSE WHERE user_id IN (62, 170);
UPDATE tracks SET is_delete = FALSE WHERE track_id = 63;
UPDATE events SET is_deleted = FALSE, blocknumber = 100, updated_at = pg_temp.day(3)
WHERE event_id BETWEEN 1150 AND 1154;
SELECT build.contest(1155, 129, pg_temp.range(60, 70), updated_at => pg_temp.day(40));
SELECT build.run(ARRAY['w'], full_scan => TRUE);
SELECT is(
    (SELECT string_agg(pg_temp.paid(number), ', ' ORDER BY number) FROM generate_series(1150, 1155) AS number),
    'nobody, nobody, nobody, nobody, nobody, 68 69 70',
    'whatever is verified, comes back or changes later: only who is named later is paid'
);

-- Of all that was paid.
SELECT is_empty(
    $$SELECT split_part(u.specifier, ':', 1) FROM user_challenges AS u
    WHERE u.challenge_id = 'w' GROUP BY 1 HAVING count(*) > 5$$,
    'no contest has more than five rewards'
);
SELECT is_empty(
    $$WITH reward AS (
        SELECT c.user_id AS host, u.created_at AS at
        FROM user_challenges AS u
        INNER JOIN events AS c ON split_part(u.specifier, ':', 1) = to_hex(c.event_id)
        WHERE u.challenge_id = 'w' AND isfinite(u.created_at)
    )
    SELECT host FROM reward
    WHERE (
        SELECT count(*) FROM reward AS other
        WHERE other.host = reward.host AND other.at BETWEEN reward.at - '7 days'::interval AND reward.at
    ) > 5$$,
    'no host has more than five in seven days'
);

SELECT * FROM finish();
ROLLBACK;
