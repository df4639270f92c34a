-- Challenge cs, cosign: a verified artist saves or reposts what somebody else has made of a track of his.
-- Users from 1 on make remixes; users from 100 on cosign. Artist N owns the tracks 10 N and 10 N + 1.
BEGIN;
SELECT no_plan();

UPDATE challenges SET active = TRUE, starting_block = 100 WHERE id = 'cs';
SELECT build.block(28360000);
SELECT build.person(user_id) FROM generate_series(1, 9) AS user_id;
SELECT build.person(user_id, is_verified => TRUE) FROM generate_series(100, 150) AS user_id;
SELECT build.track(10 * user_id + more, user_id)
FROM generate_series(100, 150) AS user_id, generate_series(0, 1) AS more;

-- Somebody's remix of an artist's first track.
CREATE FUNCTION pg_temp.remix(artist integer, remix integer, maker integer DEFAULT 1) RETURNS void
LANGUAGE sql AS $$
    SELECT build.track(remix, maker), build.remix(10 * artist, remix);
$$;
-- The artist saves such a remix.
CREATE FUNCTION pg_temp.cosign(artist integer, remix integer, at timestamp, maker integer DEFAULT 1) RETURNS void
LANGUAGE sql AS $$
    SELECT pg_temp.remix(artist, remix, maker), build.save(artist, remix, created_at => at);
$$;
-- The remixes that were paid for an artist.
CREATE FUNCTION pg_temp.paid_by(artist integer) RETURNS text
LANGUAGE sql AS $$
    SELECT coalesce(string_agg(p.remix::text, ' ' ORDER BY p.remix), 'nothing')
    FROM (
        SELECT t.track_id AS remix
        FROM user_challenges AS u
        INNER JOIN (SELECT DISTINCT track_id FROM tracks) AS t ON u.specifier = to_hex(artist) || ':' || to_hex(t.track_id)
        WHERE u.challenge_id = 'cs'
    ) AS p;
$$;
CREATE FUNCTION pg_temp.run() RETURNS void
LANGUAGE sql AS $$
    SELECT build.run(ARRAY['cs'], as_of => '2025-06-05 07:00+00');
$$;

-- The row.
SELECT build.person(255);
SELECT pg_temp.cosign(100, 4096, '2025-02-03 04:05:06.789', maker => 255);
SELECT build.run(ARRAY['cs'], as_of => '2025-03-05 05:06:07+00');
SELECT results_eq(
    $$SELECT
        user_id, specifier::text, is_complete, current_step_count, amount, completed_blocknumber,
        created_at, completed_at
    FROM user_challenges WHERE challenge_id = 'cs'$$,
    $$VALUES (
        255, '64:1000', TRUE, 1, 1000, 28360000, '2025-02-03 04:05:06.789+00'::timestamptz,
        '2025-03-05 05:06:07'::timestamp
    )$$,
    'who has made the remix earns, and nobody else; it was made when the artist saved it, and completes now'
);
SELECT build.run(ARRAY['cs'], as_of => '2025-03-05 05:06:08+00');
SELECT is(pg_temp.paid_by(100), '4096', 'running again pays nothing more');

-- What is to come.
SELECT pg_temp.cosign(103, 5031, 'infinity');
SELECT pg_temp.cosign(103, 5032, '-infinity');
SELECT pg_temp.cosign(103, 5033, '2025-06-05 06:05:00');
SELECT pg_temp.cosign(103, 5034, '2025-06-05 06:05:00.000001');
SELECT pg_temp.cosign(103, 5035, '4714-11-24 00:00 BC');
SELECT pg_temp.cosign(103, 5036, '4714-11-25 00:00 BC');
SELECT build.run(ARRAY['cs'], as_of => '2025-06-05 06:00+00');
SELECT is(
    pg_temp.paid_by(103), '5033 5035 5036',
    'what claims to be from more than five minutes later is not there yet, nor what has an infinite time'
);
SELECT build.run(ARRAY['cs'], full_scan => TRUE, as_of => '2025-06-05 06:05+00');
SELECT is(pg_temp.paid_by(103), '5033 5034 5035 5036', 'what was to come has come');

-- The save or repost.
SELECT pg_temp.remix(101, remix) FROM generate_series(5001, 5012) AS remix;
SELECT pg_temp.remix(102, remix) FROM generate_series(5021, 5023) AS remix;
SELECT build.repost(101, 5001);
SELECT build.save(101, 5002, is_delete => TRUE), build.repost(101, 5003, is_delete => TRUE);
SELECT build.save(101, 5004, is_current => FALSE), build.repost(101, 5005, is_current => FALSE);
SELECT build.save(101, 5006, type => 'playlist'), build.repost(101, 5007, type => 'album');
SELECT build.save(101, 5008, blocknumber => 99), build.repost(101, 5009, blocknumber => NULL);
SELECT build.save(1, 5010), build.repost(102, 5011), build.save(101, 1010);
SELECT build.save(101, 5012, blocknumber => 100);
SELECT pg_temp.run();
SELECT is(pg_temp.paid_by(101), '5001 5012', 'what counts is a repost or a save, of a track, there, from the block on');
SELECT is(pg_temp.paid_by(102), 'nothing', 'that of another artist does not');
UPDATE challenges SET starting_block = NULL WHERE id = 'cs';
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid_by(101), '5001 5008 5009 5012', 'a starting block of null is 0, and so is a block that is not known'
);
UPDATE challenges SET starting_block = 100 WHERE id = 'cs';

-- The time.
SELECT build.save(102, 5021, created_at => '2025-02-03'), build.repost(102, 5021, created_at => '2025-02-02');
SELECT build.save(102, 5022, created_at => '2025-02-04'), build.repost(102, 5022, created_at => '2025-02-05');
SELECT build.save(102, 5023, created_at => '2025-02-09');
SELECT build.save(102, 5023, created_at => '2025-02-06', txhash => 'deleted', is_delete => TRUE);
SELECT build.save(102, 5023, created_at => '2025-02-07', txhash => 'early', blocknumber => 99);
SELECT build.save(102, 5023, created_at => '2025-02-08', txhash => 'another');
SELECT build.repost(102, 5023, created_at => 'infinity');
SELECT build.repost(102, 5023, created_at => '-infinity', txhash => 'another');
SELECT pg_temp.run();
SELECT results_eq(
    $$SELECT (created_at AT TIME ZONE 'UTC')::date FROM user_challenges
    WHERE challenge_id = 'cs' AND specifier LIKE '66:%' ORDER BY specifier$$,
    $$VALUES ('2025-02-02'::date), ('2025-02-04'), ('2025-02-08')$$,
    'it is made by the earliest of the artist''s saves and reposts, among those that count'
);
-- The two tracks.
SELECT pg_temp.cosign(104, remix, '2025-02-03') FROM generate_series(5041, 5043) AS remix;
UPDATE tracks SET is_delete = TRUE WHERE track_id = 5041;
UPDATE tracks SET is_current = FALSE WHERE track_id = 5042;
UPDATE tracks SET is_unlisted = TRUE, is_available = FALSE, blocknumber = NULL WHERE track_id IN (5043, 1040);
SELECT build.save(104, 5044), build.remix(1040, 5044);
SELECT build.save(104, 5045), build.track(5045, 1), build.remix(1042, 5045);
SELECT build.save(104, 5046), build.track(5046, 1), build.remix(5046, 1040);
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid_by(104), '5043',
    'the remix is there, current and not deleted, hidden or not; and it is made of the artist''s track, not he of it'
);
SELECT pg_temp.cosign(105, 5051, '2025-02-03');
UPDATE tracks SET is_delete = TRUE WHERE track_id = 1050;
SELECT pg_temp.cosign(106, 5061, '2025-02-03');
UPDATE tracks SET is_current = FALSE WHERE track_id = 1060;
SELECT pg_temp.run();
SELECT is(pg_temp.paid_by(105), 'nothing', 'of a track that is deleted nobody makes a remix');
SELECT is(pg_temp.paid_by(106), 'nothing', 'nor of an old version');
UPDATE tracks SET is_delete = FALSE WHERE track_id IN (5041, 1050);
SELECT pg_temp.run();
SELECT is(concat_ws(', ', pg_temp.paid_by(104), pg_temp.paid_by(105)), '5041 5043, 5051', 'what comes back counts');
SELECT build.remix(1041, 5043), build.remix(1041, 5041), build.remix(1030, 5043);
SELECT pg_temp.run();
SELECT is(pg_temp.paid_by(104), '5041 5043', 'of how many tracks of the artist it is made says nothing');
SELECT build.repost(103, 5043);
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid_by(103), '5033 5034 5035 5036 5043', 'two artists of whom it is made may both cosign, and pay'
);

-- The people.
SELECT pg_temp.cosign(artist, 5000 + artist, '2025-02-03') FROM generate_series(107, 109) AS artist;
SELECT pg_temp.cosign(110, 5110, '2025-02-03', maker => 110);
SELECT pg_temp.cosign(110, 5111, '2025-02-03', maker => 8);
SELECT pg_temp.cosign(110, 5112, '2025-02-03', maker => 90);
UPDATE users SET is_verified = FALSE WHERE user_id = 107;
UPDATE users SET is_deactivated = TRUE WHERE user_id IN (108, 8);
-- Of two current rows the one with the higher block decides: the account is not verified any more.
SELECT build.person(109, blocknumber => 101, txhash => '0xb');
SELECT pg_temp.run();
SELECT is(pg_temp.paid_by(107), 'nothing', 'an artist who is not verified does not count');
SELECT is(pg_temp.paid_by(108), 'nothing', 'nor does one who is deactivated');
SELECT is(pg_temp.paid_by(109), 'nothing', 'the deciding row says whether the artist is verified');
SELECT is(pg_temp.paid_by(110), 'nothing', 'nobody is paid for his own, nor one who is deactivated or not there');
UPDATE users SET is_verified = TRUE WHERE user_id = 107;
UPDATE users SET is_deactivated = FALSE WHERE user_id IN (108, 8);
SELECT pg_temp.run();
SELECT is(pg_temp.paid_by(107), '5107', 'an artist who is verified later counts then');
SELECT is(pg_temp.paid_by(108), '5108', 'an artist who is back counts');
SELECT is(pg_temp.paid_by(110), '5111', 'so does a maker who is back');

-- Two current versions of a track.
SELECT pg_temp.cosign(111, 5121, '2025-02-03', maker => 111);
SELECT build.track(5121, 2, blocknumber => 101, txhash => '0xb');
SELECT pg_temp.cosign(111, 5122, '2025-02-03', maker => 3);
SELECT build.track(5122, 111, blocknumber => 101, txhash => '0xb');
SELECT pg_temp.cosign(111, 5123, '2025-02-03', maker => 3);
SELECT build.track(5123, 111, blocknumber => 101, txhash => '0xb', is_delete => TRUE);
SELECT build.track(1110, 111, txhash => '0xb');
SELECT pg_temp.run();
SELECT is(
    (
        SELECT string_agg(u.user_id || ' ' || u.specifier, ', ' ORDER BY u.specifier) FROM user_challenges AS u
        WHERE u.challenge_id = 'cs' AND u.specifier LIKE '6f:%'
    ),
    '2 6f:1401, 3 6f:1403', 'of two versions that count the one with the higher block says who has made it'
);

-- Paid before.
SELECT pg_temp.remix(112, remix) FROM generate_series(5131, 5138) AS remix;
SELECT build.disbursed('cs', 999, '70:140b');
SELECT build.disbursed('cs', 999, '140c');
SELECT build.complete('cs', 999, '140d');
INSERT INTO sol_reward_disbursements (signature, instruction_index, amount, slot, user_bank, challenge_id, specifier)
VALUES ('one', 0, 100000000000, 1, 'bank', 'cs', '70:140e'), ('two', 0, 100000000000, 1, 'bank', 'cs', '140f');
SELECT build.disbursed('w', 999, '1410');
SELECT build.disbursed('cs', 999, '71:1411');
SELECT build.save(112, remix) FROM generate_series(5131, 5138) AS remix;
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid_by(112), '5136 5137 5138',
    'what was paid before, to whomever, as it is called now or under the track alone, is not paid again'
);

-- The cap, forwards: five in 30 days, both ends included.
SELECT pg_temp.cosign(113, 5200 + n, timestamp '2025-02-01' + n * interval '1 day') FROM generate_series(1, 5) AS n;
SELECT pg_temp.cosign(113, 5206, '2025-02-04 12:00');
SELECT pg_temp.cosign(113, 5207, '2025-03-04');
SELECT pg_temp.cosign(113, 5208, '2025-03-04 00:00:00.000001');
SELECT pg_temp.cosign(113, 5209, '2025-03-05');
SELECT pg_temp.cosign(114, 5210, '2025-02-04 12:00');
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid_by(113), '5201 5202 5203 5204 5206 5208',
    'the first five are paid; what comes 30 days after the first is one too many, a moment later it is not'
);
SELECT is(pg_temp.paid_by(114), '5210', 'the cap is each artist''s own');
SELECT build.run(ARRAY['cs'], full_scan => TRUE, as_of => '2025-06-05 07:00+00');
SELECT build.run(ARRAY['cs'], full_scan => TRUE, as_of => '2025-06-05 07:00+00');
SELECT is(pg_temp.paid_by(113), '5201 5202 5203 5204 5206 5208', 'what is refused stays refused');
UPDATE saves SET is_delete = TRUE WHERE user_id = 113 AND save_item_id IN (5201, 5202, 5205);
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid_by(113), '5201 5202 5203 5204 5206 5208',
    'what is taken back stays paid, and its place stays taken'
);
UPDATE saves SET is_delete = FALSE, created_at = '2025-04-10' WHERE user_id = 113 AND save_item_id = 5205;
UPDATE saves SET is_delete = FALSE, created_at = '2025-04-10' WHERE user_id = 113 AND save_item_id = 5201;
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid_by(113), '5201 5202 5203 5204 5205 5206 5208', 'what is taken back and done again is judged anew'
);
SELECT results_eq(
    $$SELECT specifier::text, created_at FROM user_challenges
    WHERE challenge_id = 'cs' AND specifier IN ('71:1451', '71:1455') ORDER BY specifier$$,
    $$VALUES ('71:1451', '2025-02-02'::timestamptz), ('71:1455', '2025-04-10')$$,
    'it is paid as of then; what was paid before stays as it is'
);

-- A remix of several tracks of the artist is one.
SELECT pg_temp.cosign(123, 5300 + n, timestamp '2025-02-01' + n * interval '1 day'), build.remix(1231, 5300 + n)
FROM generate_series(1, 5) AS n;
SELECT pg_temp.run();
SELECT is(pg_temp.paid_by(123), '5301 5302 5303 5304 5305', 'a remix of two of the artist''s tracks takes one place');

-- Of one time the lesser track is first, by number.
SELECT pg_temp.cosign(115, remix, '2025-02-03') FROM unnest('{65536,5225,5224,5223,5222,5221}'::integer[]) AS remix;
SELECT pg_temp.run();
SELECT is(pg_temp.paid_by(115), '5221 5222 5223 5224 5225', 'of one time those with the lesser numbers are paid');

-- The cap, backwards: what comes in late does not make five of later ones six.
SELECT pg_temp.cosign(116, 5230 + n, timestamp '2025-03-10' + n * interval '1 day') FROM generate_series(1, 5) AS n;
SELECT pg_temp.run();
SELECT pg_temp.cosign(116, 5236, '2025-02-13');
SELECT pg_temp.cosign(116, 5237, '2025-02-12 23:59:59.999999');
SELECT pg_temp.cosign(116, 5238, '2025-03-01');
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid_by(116), '5231 5232 5233 5234 5235 5237',
    'what comes in late is refused where a later one would find one too many, 30 days later at the latest'
);
-- Four later ones, of which only the last has room for none.
SELECT pg_temp.cosign(117, 5240 + n, timestamp '2025-03-01' + n * interval '10 days') FROM generate_series(1, 4) AS n;
SELECT pg_temp.cosign(117, 5240 + n, timestamp '2025-04-06' + n * interval '1 day') FROM generate_series(5, 6) AS n;
SELECT pg_temp.run();
SELECT is(pg_temp.paid_by(117), '5241 5242 5243 5244 5245 5246', 'five in any 30 days are six in forty');
SELECT pg_temp.cosign(117, 5247, '2025-03-12');
SELECT pg_temp.cosign(117, 5248, '2025-03-13');
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid_by(117), '5241 5242 5243 5244 5245 5246 5247',
    'whichever of the later ones it is that has no room, and those granted in the run count, too'
);

-- Whatever order they are found in, and whatever slices: two orders of the same saves pay five at most in any 30 days.
SELECT pg_temp.cosign(118, 5250 + n, timestamp '2025-02-01' + n * interval '5 days')
FROM generate_series(9, 1, -2) AS n;
SELECT pg_temp.run();
SELECT pg_temp.cosign(118, 5250 + n, timestamp '2025-02-01' + n * interval '5 days')
FROM generate_series(8, 2, -2) AS n;
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid_by(118), '5251 5252 5253 5255 5257 5258 5259',
    'the odd ones first, the even ones where there is room'
);
SELECT is(
    (
        SELECT max(counted.quantity) FROM (
            SELECT count(*) OVER (
                PARTITION BY split_part(u.specifier, ':', 1)
                ORDER BY u.created_at RANGE BETWEEN INTERVAL '30 days' PRECEDING AND CURRENT ROW
            ) AS quantity
            FROM user_challenges AS u
            WHERE u.challenge_id = 'cs' AND u.specifier LIKE '%:%' AND u.created_at > '2000-01-01'
        ) AS counted
    ),
    5::bigint, 'nobody has more than five in any 30 days'
);

-- Rows of other services: those of the artist count, whatever time they claim; none stands in the way of another.
SELECT pg_temp.cosign(119, 5260 + n, '2025-02-03') FROM generate_series(1, 5) AS n;
SELECT build.complete('cs', 1, '77:aaaaaa1');
SELECT build.complete('cs', 1, '77:aaaaaa2');
SELECT build.complete('cs', 1, '77:aaaaaa3');
SELECT build.complete('cs', 1, '77:aaaaaa4');
SELECT build.complete('cs', 1, '777:aaaaaa5');
SELECT build.complete('cs', 1, '77');
SELECT build.complete('w', 1, '77:aaaaaa6');
UPDATE user_challenges SET created_at = '2025-02-10' WHERE specifier LIKE '77%' AND specifier <> '77:aaaaaa4';
UPDATE user_challenges SET created_at = 'infinity' WHERE specifier = '77:aaaaaa4';
SELECT pg_temp.run();
SELECT is(
    pg_temp.paid_by(119), '5261 5262', 'three rows of this artist within the span leave room for two'
);
UPDATE user_challenges SET created_at = '-infinity' WHERE specifier = '77:aaaaaa3';
UPDATE user_challenges SET created_at = '294276-12-31' WHERE specifier IN ('77:aaaaaa2', '77:aaaaaa4');
SELECT build.run(ARRAY['cs'], full_scan => TRUE, as_of => '2025-06-05 07:00+00');
SELECT is(
    pg_temp.paid_by(119), '5261 5262 5263 5264', 'one that lies outside of all times takes no place, and breaks nothing'
);

-- A deed that cannot be written is set aside; it keeps its place, and takes no other with it.
SELECT pg_temp.cosign(120, 5270 + n, timestamp '2025-02-01' + n * interval '1 hour') FROM generate_series(1, 6) AS n;
CREATE FUNCTION pg_temp.refuse() RETURNS trigger
LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not this one'; END $$;
SET LOCAL ROLE NONE;
CREATE TRIGGER refusing BEFORE INSERT ON user_challenges
FOR EACH ROW WHEN (new.specifier = '78:1498') EXECUTE FUNCTION pg_temp.refuse();
RESET ROLE;
SET LOCAL client_min_messages = error;
SELECT pg_temp.run();
RESET client_min_messages;
SELECT is(pg_temp.paid_by(120), '5271 5273 5274 5275', 'the others are paid, but for the one beyond the cap');
SELECT results_eq(
    $$SELECT user_id, specifier FROM audius_challenges.set_aside WHERE challenge_id = 'cs'$$,
    $$VALUES (1::bigint, '78:1498')$$, 'it is set aside, with who earns it'
);
SET LOCAL ROLE NONE;
DROP TRIGGER refusing ON user_challenges;
RESET ROLE;
SELECT build.run(ARRAY['cs'], full_scan => TRUE, as_of => '2025-06-05 07:00+00');
SELECT is(pg_temp.paid_by(120), '5271 5272 5273 5274 5275', 'later it is paid in its place');

-- Start from now.
SELECT pg_temp.cosign(121, remix, '2025-02-03') FROM generate_series(5281, 5284) AS remix;
SELECT pg_temp.remix(121, 5285), pg_temp.remix(121, 5286);
SELECT pg_temp.cosign(122, 5291, '2025-02-03', maker => 4);
UPDATE saves SET is_delete = TRUE WHERE save_item_id = 5281;
UPDATE saves SET blocknumber = 99, created_at = 'infinity' WHERE save_item_id = 5282;
UPDATE tracks SET is_delete = TRUE WHERE track_id = 5283;
UPDATE tracks SET is_current = FALSE WHERE track_id = 1210;
UPDATE users SET is_verified = FALSE, is_deactivated = TRUE WHERE user_id = 122;
UPDATE users SET is_deactivated = TRUE WHERE user_id = 4;
SELECT build.repost(121, 5285, type => 'album'), build.save(9, 5285);
UPDATE challenges SET active = FALSE WHERE id = 'cs';
SELECT is(
    (SELECT passed_over FROM audius_challenges.start_from_now(ARRAY['cs'])),
    (
        SELECT count(DISTINCT concat_ws(' ', parent.owner_id, r.child_track_id))
        FROM remixes AS r
        INNER JOIN tracks AS parent ON r.parent_track_id = parent.track_id
        WHERE (
            EXISTS (
                SELECT FROM saves AS s
                WHERE s.user_id = parent.owner_id AND s.save_item_id = r.child_track_id AND s.save_type = 'track'
            ) OR EXISTS (
                SELECT FROM reposts AS s
                WHERE s.user_id = parent.owner_id AND s.repost_item_id = r.child_track_id AND s.repost_type = 'track'
            )
        ) AND NOT EXISTS (
            SELECT FROM user_challenges AS u
            WHERE u.challenge_id = 'cs' AND u.specifier = to_hex(parent.owner_id) || ':' || to_hex(r.child_track_id)
        )
    ),
    'start_from_now passes over every save and repost there is of a remix of one''s own track, and that has no row'
);
SELECT results_eq(
    $$SELECT specifier FROM audius_challenges.passed_over
    WHERE challenge_id = 'cs' AND specifier ~ '^7[9a]:' ORDER BY specifier$$,
    $$VALUES ('79:14a1'), ('79:14a2'), ('79:14a3'), ('79:14a4'), ('7a:14ab')$$,
    'whatever is deleted, verified, active, or early at that moment'
);
UPDATE challenges SET active = TRUE WHERE id = 'cs';
UPDATE saves SET is_delete = FALSE, blocknumber = 101, created_at = '2025-02-03' WHERE save_item_id IN (5281, 5282);
UPDATE tracks SET is_delete = FALSE, is_current = TRUE WHERE track_id IN (5283, 1210);
UPDATE users SET is_verified = TRUE, is_deactivated = FALSE WHERE user_id IN (122, 4);
SELECT build.repost(121, 5284, created_at => '2025-01-01');
SELECT build.repost(121, 5285), build.save(121, 5286);
SELECT build.run(ARRAY['cs'], full_scan => TRUE);
SELECT is(
    concat_ws(', ', pg_temp.paid_by(121), pg_temp.paid_by(122)), '5285 5286, nothing',
    'whatever comes back, and whoever is active: only what is saved later is paid'
);

-- Slices and the order of users change nothing.
SELECT pg_temp.cosign(130 + n % 20, 6000 + n, timestamp '2025-02-01' + (n * n % 97) * interval '1 day', n % 7 + 1)
FROM generate_series(1, 300) AS n;
SAVEPOINT all_at_once;
SELECT build.run(ARRAY['cs'], full_scan => TRUE);
SELECT md5(string_agg(specifier, ' ' ORDER BY specifier)) AS at_once FROM user_challenges WHERE challenge_id = 'cs' \gset
SELECT cmp_ok(
    (SELECT count(*) FROM user_challenges WHERE challenge_id = 'cs' AND specifier ~ '^(8[2-9a-f]|9[0-5]):'), '<', 300::bigint,
    'some are beyond the cap'
);
ROLLBACK TO SAVEPOINT all_at_once;
SET LOCAL audius_challenges.slice_users = 3;
SELECT build.run(ARRAY['cs'], full_scan => TRUE);
SELECT is(
    (SELECT md5(string_agg(specifier, ' ' ORDER BY specifier)) FROM user_challenges WHERE challenge_id = 'cs'),
    :'at_once', 'in slices of three users the same is paid as at once'
);

SELECT * FROM finish();
ROLLBACK;
