-- Challenges b and s, audio matching: whole dollars of purchases, to the buyer and to the verified seller.
BEGIN;
SELECT no_plan();

-- What a purchase of somebody has paid: who earned what, by which specifier.
CREATE FUNCTION pg_temp.paid(id text, VARIADIC contents integer[]) RETURNS text
LANGUAGE sql AS $$
    SELECT coalesce(string_agg(concat_ws(' ', u.specifier, u.user_id, u.amount), ', ' ORDER BY u.specifier), 'nothing')
    FROM public.user_challenges AS u
    INNER JOIN unnest(contents) AS content (id) ON split_part(u.specifier, ':', 2) = to_hex(content.id)
    WHERE u.challenge_id = paid.id;
$$;

-- 1 to 20 buy, 101 to 120 sell and are verified, 255 does both.
SELECT build.person(user_id) FROM generate_series(1, 20) AS user_id;
SELECT build.person(user_id, is_verified => TRUE) FROM generate_series(101, 120) AS user_id;
SELECT build.person(255, is_verified => TRUE);
SELECT build.block(130000000);
SELECT build.track(content_id, 101) FROM generate_series(1000, 1099) AS content_id;
SELECT build.playlist(content_id, 102) FROM generate_series(1100, 1199) AS content_id;

SELECT build.purchase(10, 1000, amount => 3990000);
SELECT build.run(ARRAY['b', 's'], as_of => '2025-03-05 05:06:07+00');
SELECT results_eq(
    $$SELECT
        challenge_id::text, user_id, specifier::text, is_complete, current_step_count, amount, completed_blocknumber,
        created_at, completed_at
    FROM user_challenges ORDER BY challenge_id$$,
    $$VALUES
        (
            'b', 10, 'a:3e8', TRUE, 1, 3, 130000000, '2025-03-05 05:06:07+00'::timestamptz,
            '2025-03-05 05:06:07'::timestamp
        ),
        (
            's', 101, 'a:3e8', TRUE, 1, 15, 130000000, '2025-03-05 05:06:07+00'::timestamptz,
            '2025-03-05 05:06:07'::timestamp
        )$$,
    'b pays the buyer, s the seller, the catalog amount for each whole dollar, as of the run'
);

-- What the purchase is of.
SELECT build.purchase(1, 1001, content_type => 'track');
SELECT build.purchase(1, 1101, content_type => 'playlist');
SELECT build.purchase(1, 1102, content_type => 'album');
SELECT build.purchase(1, 1002, content_type => 'album');
SELECT build.purchase(1, 1103, content_type => 'track');
SELECT build.purchase(1, 1003, content_type => 'ticket');
SELECT build.run(ARRAY['b', 's']);
SELECT is(
    pg_temp.paid('b', 1001, 1101, 1102, 1002, 1103, 1003),
    '1:3e9 1 1, 1:3ea 1 1, 1:3eb 1 1, 1:44d 1 1, 1:44e 1 1, 1:44f 1 1',
    'b needs neither the content nor its owner to exist'
);
SELECT is(
    pg_temp.paid('s', 1001, 1101, 1102, 1002, 1103, 1003),
    '1:3e9 101 5, 1:44d 102 5, 1:44e 102 5',
    's pays the owner of the track, or of the playlist or album, that there is'
);

-- The amount.
SELECT build.purchase(2, 1010, amount => 999999);
SELECT build.purchase(2, 1011, amount => 1000000);
SELECT build.purchase(2, 1012, amount => 1999999);
SELECT build.purchase(2, 1013, amount => 0);
SELECT build.purchase(2, 1014, amount => -5000000);
SELECT build.run(ARRAY['b', 's']);
SELECT is(
    pg_temp.paid('b', 1010, 1011, 1012, 1013, 1014), '2:3f3 2 1, 2:3f4 2 1', 'less than a dollar pays no buyer'
);
SELECT is(
    pg_temp.paid('s', 1010, 1011, 1012, 1013, 1014), '2:3f3 101 5, 2:3f4 101 5', 'less than a dollar pays no seller'
);

-- Whether it is valid, and from when it is.
UPDATE challenges SET starting_block = 220157041 WHERE id IN ('b', 's');
SELECT build.purchase(3, 1020, is_valid => NULL);
SELECT build.purchase(3, 1021, is_valid => FALSE);
SELECT build.purchase(3, 1022, slot => 220157040);
SELECT build.purchase(3, 1023, slot => 220157041);
SELECT build.run(ARRAY['b', 's']);
SELECT is(
    pg_temp.paid('b', 1020, 1021, 1022, 1023), '3:3ff 3 1', 'b: valid ones from the slot of the start on'
);
SELECT is(
    pg_temp.paid('s', 1020, 1021, 1022, 1023), '3:3ff 101 5', 's: valid ones from the slot of the start on'
);
UPDATE sol_purchases SET is_valid = TRUE WHERE content_id IN (1020, 1021);
UPDATE challenges SET starting_block = NULL WHERE id IN ('b', 's');
SELECT build.run(ARRAY['b', 's']);
SELECT is(
    pg_temp.paid('b', 1020, 1021, 1022), '3:3fc 3 1, 3:3fd 3 1, 3:3fe 3 1',
    'b: what turns valid counts; a start that is null is 0'
);
SELECT is(
    pg_temp.paid('s', 1020, 1021, 1022), '3:3fc 101 5, 3:3fd 101 5, 3:3fe 101 5',
    's: what turns valid counts; a start that is null is 0'
);

-- Buyer and seller.
SELECT build.track(1200, 255), build.playlist(1201, 255);
SELECT build.purchase(255, 1200), build.purchase(255, 1201, content_type => 'album');
SELECT build.run(ARRAY['b', 's']);
SELECT is(
    pg_temp.paid('b', 1200, 1201) || ' / ' || pg_temp.paid('s', 1200, 1201), 'nothing / nothing',
    'who buys of himself earns nothing, neither way'
);
UPDATE tracks SET owner_id = 103, blocknumber = 100 WHERE track_id = 1200;
SELECT build.run(ARRAY['b', 's'], full_scan => TRUE);
SELECT is(
    pg_temp.paid('b', 1200) || ' / ' || pg_temp.paid('s', 1200), 'ff:4b0 255 1 / ff:4b0 103 5',
    'it is the current owner who sells'
);

-- Who the seller is.
SELECT build.person(130), build.person(131, is_verified => TRUE, is_deactivated => TRUE);
SELECT build.person(132, is_verified => TRUE, is_current => FALSE);
SELECT build.track(1300 + seller, seller) FROM generate_series(130, 133) AS seller;
SELECT build.purchase(4, 1300 + seller) FROM generate_series(130, 133) AS seller;
SELECT build.run(ARRAY['b', 's']);
SELECT is(
    pg_temp.paid('b', 1430, 1431, 1432, 1433), '4:596 4 1, 4:597 4 1, 4:598 4 1, 4:599 4 1',
    'b does not ask who sells'
);
SELECT is(pg_temp.paid('s', 1430, 1431, 1432, 1433), 'nothing', 's asks for a seller who is verified and active');
UPDATE users SET is_verified = TRUE, is_deactivated = FALSE, is_current = TRUE WHERE user_id BETWEEN 130 AND 132;
SELECT build.run(ARRAY['s']);
SELECT is(
    pg_temp.paid('s', 1430, 1431, 1432, 1433), '4:596 130 5, 4:597 131 5, 4:598 132 5',
    'a seller who is verified, or back, later earns what was sold'
);

-- Of several current versions of a track, or playlist, one decides: by block number, updated_at, txhash.
SELECT build.track(1250, 104, txhash => '0xa', blocknumber => 100), build.track(1250, 105, blocknumber => 101);
SELECT build.track(1251, 105, txhash => '0xa', created_at => '2024-01-02'), build.track(1251, 104, txhash => '0xb');
SELECT build.track(1252, 104, txhash => '0xA'), build.track(1252, 105, txhash => '0xa');
SELECT build.track(1253, 104, blocknumber => NULL, txhash => '0xb'), build.track(1253, 105, blocknumber => 1);
SELECT build.track(1254, 104, blocknumber => 200, is_current => FALSE), build.track(1254, 105, txhash => '0xa');
SELECT build.playlist(1260, 104, txhash => '0xa', blocknumber => 100), build.playlist(1260, 105, blocknumber => 101);
SELECT
    build.playlist(1261, 105, txhash => '0xa', created_at => '2024-01-02'), build.playlist(1261, 104, txhash => '0xb');
SELECT build.playlist(1262, 104, txhash => '0xA'), build.playlist(1262, 105, txhash => '0xa');
SELECT build.playlist(1264, 104, blocknumber => 200, is_current => FALSE), build.playlist(1264, 105, txhash => '0xa');
SELECT build.purchase(5, content_id) FROM generate_series(1250, 1254) AS content_id;
SELECT build.purchase(5, content_id, content_type => 'album') FROM generate_series(1260, 1264) AS content_id;
SELECT build.run(ARRAY['s']);
SELECT is(
    pg_temp.paid('s', 1250, 1251, 1252, 1253, 1254),
    '5:4e2 105 5, 5:4e3 105 5, 5:4e4 105 5, 5:4e5 105 5, 5:4e6 105 5',
    'of two current versions of a track, one names the seller'
);
SELECT is(
    pg_temp.paid('s', 1260, 1261, 1262, 1264), '5:4ec 105 5, 5:4ed 105 5, 5:4ee 105 5, 5:4f0 105 5',
    'of two current versions of a playlist, one names the seller'
);

-- Whether the track can be heard is no matter.
SELECT build.track(1270, 106, is_delete => TRUE), build.track(1271, 106, is_unlisted => TRUE);
SELECT build.playlist(1272, 106, is_delete => TRUE, is_private => TRUE);
SELECT build.purchase(6, 1270), build.purchase(6, 1271), build.purchase(6, 1272, content_type => 'playlist');
SELECT build.run(ARRAY['s']);
SELECT is(
    pg_temp.paid('s', 1270, 1271, 1272), '6:4f6 106 5, 6:4f7 106 5, 6:4f8 106 5',
    'what was taken down later has been sold all the same'
);

-- One reward for a buyer and a content id: the first purchase that qualifies decides.
SELECT build.purchase(7, 1030, 5000000, slot => 302), build.purchase(7, 1030, 2000000, slot => 301);
SELECT build.purchase(7, 1031, 3000000, slot => 301, signature => 'a');
SELECT build.purchase(7, 1031, 2000000, slot => 301, signature => 'Z', instruction_index => 1);
SELECT build.purchase(7, 1032, 3000000, slot => 301, signature => 'x', instruction_index => 10);
SELECT build.purchase(7, 1032, 2000000, slot => 301, signature => 'x', instruction_index => 9);
SELECT build.purchase(7, 1033, 2000000, slot => 302), build.purchase(7, 1033, 3000000, slot => 301, is_valid => FALSE);
SELECT build.purchase(7, 1034, 2000000, slot => 302), build.purchase(7, 1034, 900000, slot => 301);
SELECT build.run(ARRAY['b', 's']);
SELECT is(
    pg_temp.paid('b', 1030, 1031, 1032, 1033, 1034), '7:406 7 2, 7:407 7 2, 7:408 7 2, 7:409 7 2, 7:40a 7 2',
    'b: the first by slot, signature (byte by byte) and instruction, among those that qualify'
);
SELECT is(
    pg_temp.paid('s', 1030, 1031, 1032, 1033, 1034),
    '7:406 101 10, 7:407 101 10, 7:408 101 10, 7:409 101 10, 7:40a 101 10',
    's: the first by slot, signature (byte by byte) and instruction, among those that qualify'
);
SELECT build.purchase(7, 1030, 9000000, slot => 300), build.purchase(8, 1030, 4000000, slot => 303);
SELECT build.run(ARRAY['b', 's']);
SELECT is(
    pg_temp.paid('b', 1030) || ' / ' || pg_temp.paid('s', 1030),
    '7:406 7 2, 8:406 8 4 / 7:406 101 10, 8:406 101 20',
    'it is paid once, whatever comes to light later; another buyer is another reward'
);

-- The type of what was bought is not in the specifier.
SELECT build.track(1400, 107), build.playlist(1400, 108);
SELECT build.track(1401, 107), build.playlist(1401, 108);
SELECT build.track(1402, 130), build.playlist(1402, 108);
SELECT build.track(1403, 109), build.playlist(1403, 9);
SELECT build.purchase(9, 1400, 2000000, slot => 302);
SELECT build.purchase(9, 1400, 3000000, 'album', slot => 301);
SELECT build.purchase(9, 1401, 2000000, slot => 301);
SELECT build.purchase(9, 1401, 3000000, 'playlist', slot => 302);
UPDATE users SET is_verified = FALSE WHERE user_id = 130;
SELECT build.purchase(9, 1402, 2000000, slot => 301);
SELECT build.purchase(9, 1402, 3000000, 'album', slot => 302);
SELECT build.purchase(9, 1403, 2000000, slot => 302);
SELECT build.purchase(9, 1403, 3000000, 'album', slot => 301);
SELECT build.run(ARRAY['b', 's']);
SELECT is(
    pg_temp.paid('b', 1400, 1401, 1402, 1403), '9:578 9 3, 9:579 9 2, 9:57a 9 2, 9:57b 9 2',
    'b: a track and an album of one id are one reward; one of his own does not qualify'
);
SELECT is(
    pg_temp.paid('s', 1400, 1401, 1402, 1403), '9:578 108 15, 9:579 107 10, 9:57a 108 15, 9:57b 109 10',
    's: so they are for their two sellers; one without a verified seller does not qualify'
);

-- Who buys.
SELECT build.person(20001, is_deactivated => TRUE);
SELECT build.purchase(20001, 1040), build.purchase(20002, 1041);
SELECT build.run(ARRAY['b', 's']);
SELECT is(
    pg_temp.paid('b', 1040, 1041) || ' / ' || pg_temp.paid('s', 1040, 1041),
    'nothing / 4e21:410 101 5, 4e22:411 101 5',
    'b asks for an active buyer, s does not'
);

-- Paid before.
SELECT build.disbursed('b', 77, '11:41a'), build.disbursed('s', 77, '11:41b');
INSERT INTO sol_reward_disbursements VALUES ('x', 0, 100000000, 1, 'bank', 'b', '11:41c');
SELECT build.purchase(17, content_id) FROM generate_series(1050, 1052) AS content_id;
SELECT build.run(ARRAY['b', 's']);
SELECT is(
    pg_temp.paid('b', 1050, 1051, 1052) || ' / ' || pg_temp.paid('s', 1050, 1051, 1052),
    '11:41b 17 1 / 11:41a 101 5, 11:41c 101 5',
    'what was paid before, to whomever, is not paid again; b and s do not pay for each other'
);

-- An amount that is no integer.
UPDATE challenges SET amount = '2000' WHERE id IN ('b', 's');
SELECT build.purchase(11, 1060, 1073741000000), build.purchase(11, 1061, 1073742000000);
SELECT build.purchase(11, 1062, 9223372036854775807), build.purchase(11, 1063, 2000000);
SELECT build.run(ARRAY['b', 's']);
SELECT is(
    pg_temp.paid('b', 1060, 1061, 1062, 1063) || ' / ' || pg_temp.paid('s', 1060, 1061, 1062, 1063),
    'b:424 11 2147482000, b:427 11 4000 / b:424 101 2147482000, b:427 101 4000',
    'an amount beyond an integer is not paid, all others are'
);
SELECT results_eq(
    $$SELECT challenge_id::text, user_id::integer, specifier::text FROM audius_challenges.set_aside
    ORDER BY challenge_id, specifier$$,
    $$VALUES ('b', 11, 'b:425'), ('b', 11, 'b:426'), ('s', 101, 'b:425'), ('s', 101, 'b:426')$$,
    'its deed is set aside, of who would earn'
);

-- Passed over: every purchase that there is, whatever else is said of it.
SELECT build.track(1500 + number, 110) FROM generate_series(0, 9) AS number;
SELECT build.purchase(12, 1500, is_valid => NULL), build.purchase(12, 1501, amount => 5);
SELECT build.purchase(12, 1502, slot => 1), build.purchase(20003, 1503), build.purchase(110, 1504);
UPDATE challenges SET starting_block = 220157041, active = FALSE WHERE id IN ('b', 's');
SELECT passed_over FROM audius_challenges.start_from_now(ARRAY['b', 's']);
UPDATE challenges SET starting_block = 0, active = TRUE WHERE id IN ('b', 's');
SELECT build.person(20003);
UPDATE sol_purchases SET is_valid = TRUE, amount = 1000000 WHERE content_id BETWEEN 1500 AND 1504;
UPDATE tracks SET owner_id = 111 WHERE track_id BETWEEN 1500 AND 1504;
SELECT build.purchase(12, 1505);
SELECT build.run(ARRAY['b', 's'], full_scan => TRUE);
SELECT is(
    pg_temp.paid('b', 1500, 1501, 1502, 1503, 1504, 1505), 'c:5e1 12 2000', 'b passes over what was there'
);
SELECT is(
    pg_temp.paid('s', 1500, 1501, 1502, 1503, 1504, 1505), 'c:5e1 110 2000', 's passes over what was there'
);

SELECT is_empty(
    $$SELECT new FROM user_challenges_log WHERE challenge_id NOT IN ('b', 's')$$,
    'a run of b and s writes no other challenge'
);

SELECT * FROM finish();
ROLLBACK;
