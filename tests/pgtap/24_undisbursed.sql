-- The view undisbursed_challenges: what is earned and not yet paid, one line a specifier.
BEGIN;
SELECT plan(49);

SELECT build.empty();
UPDATE challenges SET active = TRUE, cooldown_days = NULL;

-- Specifiers of the lines, in order.
CREATE FUNCTION pg_temp.specifiers(of_challenge text DEFAULT 'v') RETURNS text[]
LANGUAGE sql AS $$
    SELECT coalesce(array_agg(line.specifier ORDER BY line.specifier COLLATE "C"), '{}')
    FROM undisbursed_challenges AS line
    WHERE line.challenge_id = of_challenge
$$;
-- Those of a call of the function, in the order in which it returns them.
CREATE FUNCTION pg_temp.returned(arguments text) RETURNS text[]
LANGUAGE plpgsql AS $$
DECLARE
    lines text[];
BEGIN
    EXECUTE format(
        'SELECT coalesce(array_agg(challenge_id || '' '' || specifier ORDER BY place), ''{}'')'
        ' FROM audius_challenges.undisbursed(%s) WITH ORDINALITY AS line ('
        'challenge_id, user_id, specifier, amount, completed_blocknumber, handle, wallet, created_at, completed_at, '
        'cooldown_days, claimable_at, in_cooldown, is_verified, place)',
        arguments
    ) INTO lines;
    RETURN lines;
END
$$;

-- The columns.
SELECT columns_are(
    'undisbursed_challenges',
    ARRAY[
        'challenge_id', 'user_id', 'specifier', 'amount', 'completed_blocknumber', 'handle', 'wallet', 'created_at',
        'completed_at', 'cooldown_days', 'claimable_at', 'in_cooldown', 'is_verified'
    ],
    'the view has these columns'
);
SELECT is(pg_temp.specifiers(), '{}', 'nothing is earned, nothing is shown');
SELECT build.person(255, handle_lc => 'Ada', wallet => '0xada', is_verified => TRUE);
INSERT INTO user_challenges (
    challenge_id, user_id, specifier, is_complete, current_step_count, completed_blocknumber, amount, created_at,
    completed_at
)
VALUES ('v', 255, 'ff', TRUE, 1, 130000000, 5, '2025-01-01 01:00+00', '2025-01-02 12:00');
UPDATE challenges SET cooldown_days = 7 WHERE id = 'v';
SELECT results_eq(
    $$SELECT to_jsonb(line) FROM undisbursed_challenges AS line$$,
    $$VALUES (jsonb_build_object(
        'challenge_id', 'v', 'user_id', 255, 'specifier', 'ff', 'amount', 5, 'completed_blocknumber', 130000000,
        'handle', 'Ada', 'wallet', '0xada', 'created_at', timestamptz '2025-01-01 01:00+00',
        'completed_at', timestamp '2025-01-02 12:00', 'cooldown_days', 7,
        'claimable_at', timestamptz '2025-01-09 12:00+00', 'in_cooldown', FALSE, 'is_verified', TRUE
    ))$$,
    'a line is of the user challenge, the catalog and the user'
);

-- Which rows.
SELECT build.person(user_id)
FROM generate_series(1, 20) AS user_id;
SELECT build.complete('v', user_id, to_hex(user_id))
FROM generate_series(1, 3) AS user_id;
SELECT is(pg_temp.specifiers(), '{1,2,3,ff}', 'each complete row is a line');
UPDATE user_challenges SET is_complete = FALSE WHERE challenge_id = 'v' AND specifier = '2';
SELECT is(pg_temp.specifiers(), '{1,3,ff}', 'an incomplete one is none');
UPDATE challenges SET active = FALSE WHERE id = 'v';
SELECT is(pg_temp.specifiers(), '{}', 'nor is one of an inactive challenge');
UPDATE challenges SET active = TRUE WHERE id = 'v';
UPDATE users SET is_deactivated = TRUE WHERE user_id = 3;
SELECT is(pg_temp.specifiers(), '{1,ff}', 'nor one of a deactivated user');
UPDATE users SET is_deactivated = FALSE WHERE user_id = 3;
SELECT is(pg_temp.specifiers(), '{1,3,ff}', 'who is active again has it again');
UPDATE users SET is_current = FALSE WHERE user_id = 3;
SELECT is(pg_temp.specifiers(), '{1,ff}', 'nor one of a user without a current row');
DELETE FROM users WHERE user_id = 3;
SELECT is(pg_temp.specifiers(), '{1,ff}', 'nor one of a user who is not there');

-- What is paid.
SELECT build.disbursed('v', 1, '1');
SELECT is(pg_temp.specifiers(), '{ff}', 'nor one that is paid');
SELECT build.complete('v', 4, '4');
SELECT build.complete('v', 5, '5');
SELECT build.complete('fp', 5, '5');
SELECT build.disbursed('v', 7, '4');
SELECT is(pg_temp.specifiers(), '{5,ff}', 'nor one that was paid to somebody else');
SELECT build.disbursed('fp', 5, '5');
SELECT is(pg_temp.specifiers(), '{5,ff}', 'what another challenge has paid by this specifier does not count');
SELECT is(pg_temp.specifiers('fp'), '{}', 'but there');
SELECT build.complete('v', 6, '6');
INSERT INTO sol_reward_disbursements
VALUES ('a signature', 0, 500000000, 1, 'bank', 'v', '6'), ('another', 0, 500000000, 1, 'bank', 'fp', 'ff');
SELECT is(pg_temp.specifiers(), '{5,ff}', 'nor one that was paid on the other chain');
SELECT build.complete('v', 8, '8');
INSERT INTO sol_reward_disbursements VALUES ('a signature', 1, 500000000, 1, 'bank', 'v', '8');
SELECT build.disbursed('v', 8, '8');
SELECT is(pg_temp.specifiers(), '{5,ff}', 'nor one that is paid in both tables');

-- A row without a block number.
UPDATE user_challenges SET completed_blocknumber = NULL WHERE challenge_id = 'v' AND specifier = '5';
SELECT results_eq(
    $$SELECT specifier, completed_blocknumber FROM undisbursed_challenges ORDER BY specifier$$,
    $$VALUES ('5', NULL::bigint), ('ff', 130000000)$$,
    'a row without a block number is shown, without one'
);

-- The deciding row of a user, of several that are current.
SELECT build.empty();
SELECT build.person(1, txhash => 'old', handle_lc => 'old', wallet => '0xold', is_verified => TRUE);
SELECT build.complete('v', 1, '1');
SELECT build.person(1, txhash => 'new', handle_lc => 'new', wallet => '0xnew', blocknumber => 101);
SELECT results_eq(
    $$SELECT specifier, handle, wallet, is_verified FROM undisbursed_challenges$$,
    $$VALUES ('1', 'new', '0xnew', FALSE)$$,
    'of two current rows of a user the one of the higher block is shown, and one line'
);
UPDATE users SET is_deactivated = TRUE WHERE txhash = 'new';
SELECT is(pg_temp.specifiers(), '{}', 'it decides whether he is active');
UPDATE users SET is_deactivated = txhash = 'old';
SELECT is(pg_temp.specifiers(), '{1}', 'and the other one does not');
UPDATE users SET is_deactivated = FALSE, blocknumber = NULL WHERE txhash = 'old';
SELECT results_eq(
    $$SELECT specifier, handle FROM undisbursed_challenges$$,
    $$VALUES ('1', 'new')$$,
    'a row without a block is the oldest'
);
SELECT build.block(0);
UPDATE users SET blocknumber = 0 WHERE txhash = 'old';
UPDATE users SET blocknumber = NULL, updated_at = '2024-01-03' WHERE txhash = 'new';
SELECT results_eq(
    $$SELECT specifier, handle FROM undisbursed_challenges$$,
    $$VALUES ('1', 'new')$$,
    'between equal blocks, none being 0, the newer one decides'
);
SET LOCAL ROLE NONE;
ALTER TABLE users ALTER COLUMN txhash TYPE varchar COLLATE "und-x-icu";
RESET ROLE;
UPDATE users SET updated_at = '2024-01-01', txhash = CASE txhash WHEN 'old' THEN 'a' ELSE 'B' END;
SELECT results_eq(
    $$SELECT specifier, handle FROM undisbursed_challenges$$,
    $$VALUES ('1', 'old')$$,
    'between equal times the one of the greater txhash, byte by byte'
);
UPDATE users SET is_current = FALSE WHERE txhash = 'a';
SELECT results_eq(
    $$SELECT specifier, handle FROM undisbursed_challenges$$,
    $$VALUES ('1', 'new')$$,
    'a row that is not current does not count, however new'
);

-- The cooldown.
CREATE FUNCTION pg_temp.cooldown() RETURNS text
LANGUAGE sql AS $$
    SELECT
        concat_ws(
            ' ',
            cooldown_days,
            CASE WHEN isfinite(claimable_at) THEN (claimable_at - now())::text END,
            in_cooldown
        )
    FROM undisbursed_challenges
$$;
CREATE FUNCTION pg_temp.completed(at timestamptz, cooldown integer DEFAULT 7) RETURNS text
LANGUAGE sql AS $$
    UPDATE user_challenges SET completed_at = at AT TIME ZONE 'UTC';
    UPDATE challenges SET cooldown_days = cooldown WHERE id = 'v';
    SELECT pg_temp.cooldown();
$$;
SELECT is(
    pg_temp.completed(now() - interval '168 hours' + interval '1 microsecond'),
    '7 00:00:00.000001 t',
    'until its days have passed, it is in cooldown'
);
SELECT is(pg_temp.completed(now() - interval '168 hours'), '7 00:00:00 f', 'when they have, it can be claimed');
SELECT is(
    pg_temp.completed(now() - interval '168 hours' - interval '1 microsecond'),
    '7 -00:00:00.000001 f',
    'and from then on'
);
SELECT is(pg_temp.completed(now(), 0), '0 00:00:00 f', 'no days: at once');
SELECT is(pg_temp.completed(now(), NULL), '00:00:00 f', 'null days: at once');
SELECT is(pg_temp.completed(now() + interval '1 second', NULL), '00:00:01 t', 'but not before it is completed');
SELECT is(pg_temp.completed(NULL), '7 f', 'without a time of completion nothing is waited for');
SET LOCAL timezone = 'America/New_York';
SELECT pg_temp.completed('2025-03-05 00:00+00');
SELECT results_eq(
    $$SELECT completed_at, claimable_at = '2025-03-12 00:00+00' FROM undisbursed_challenges$$,
    $$VALUES (timestamp '2025-03-05 00:00', TRUE)$$,
    'a day has 24 hours, wherever the session is, and whatever its clocks did meanwhile'
);
SET LOCAL timezone = 'Asia/Tokyo';
SELECT is(pg_temp.completed(now() - interval '167 hours'), '7 01:00:00 t', 'the session''s time zone hastens nothing');
RESET timezone;
SELECT pg_temp.completed('2025-03-05 00:00+00', 2147483647);
SELECT results_eq(
    $$SELECT claimable_at, in_cooldown FROM undisbursed_challenges$$,
    $$VALUES (timestamptz 'infinity', TRUE)$$,
    'more days than there are never end'
);
SELECT pg_temp.completed('2025-03-05 00:00+00', -2147483648);
SELECT results_eq(
    $$SELECT claimable_at, in_cooldown FROM undisbursed_challenges$$,
    $$VALUES (timestamptz '-infinity', FALSE)$$,
    'or have always ended'
);
SELECT pg_temp.completed('infinity');
SELECT results_eq(
    $$SELECT completed_at, claimable_at, in_cooldown FROM undisbursed_challenges$$,
    $$VALUES (timestamp 'infinity', timestamptz 'infinity', TRUE)$$,
    'so does a cooldown that begins at no time'
);

-- Some of the rows, by the function.
SELECT build.empty();
UPDATE challenges SET cooldown_days = 7 WHERE id = 'v';
SELECT build.person(user_id)
FROM generate_series(1, 20) AS user_id;
SELECT build.complete(challenge_id, user_id, to_hex(user_id), blocknumber => 100 + user_id)
FROM
    unnest(ARRAY['fp', 'u', 'v']) AS challenge_id,
    generate_series(1, 20) AS user_id;
SELECT build.complete('u', 3, '');
SELECT build.disbursed('v', 20, '14');
UPDATE user_challenges SET completed_blocknumber = NULL WHERE challenge_id = 'u' AND user_id = 7;
SELECT set_eq(
    $$SELECT line.* FROM audius_challenges.undisbursed() AS line$$,
    $$SELECT line.* FROM undisbursed_challenges AS line$$,
    'without arguments the function returns the lines of the view'
);
SELECT is(cardinality(pg_temp.returned('')), 60, 'which are all');
SELECT set_eq(
    $$SELECT line.* FROM audius_challenges.undisbursed(of_user => 3) AS line$$,
    $$SELECT line.* FROM undisbursed_challenges AS line WHERE line.user_id = 3$$,
    'of_user: those of the user'
);
SELECT is(pg_temp.returned('of_user => 8589934592'), '{}', 'who may be out of the range of an integer');
SELECT set_eq(
    $$SELECT line.* FROM audius_challenges.undisbursed(of_challenge => 'v') AS line$$,
    $$SELECT line.* FROM undisbursed_challenges AS line WHERE line.challenge_id = 'v'$$,
    'of_challenge: those of the challenge'
);
SELECT set_eq(
    $$SELECT line.* FROM audius_challenges.undisbursed(above_block => 118) AS line$$,
    $$SELECT line.* FROM undisbursed_challenges AS line
    WHERE line.completed_blocknumber > 118 OR line.completed_blocknumber IS NULL$$,
    'above_block: those of a later block, and those without one'
);
SELECT set_eq(
    $$SELECT line.* FROM audius_challenges.undisbursed(19, 'fp', 118) AS line$$,
    $$SELECT line.* FROM undisbursed_challenges AS line WHERE line.challenge_id = 'fp' AND line.user_id = 19$$,
    'several: what all of them say'
);
SELECT is(
    pg_temp.returned('page_size => 3'),
    '{fp 1,fp 10,fp 11}',
    'page_size: so many, in the order of challenge and specifier'
);
SELECT is(
    pg_temp.returned($$after_challenge => 'fp', after_specifier => 'e', page_size => 4$$),
    '{fp f,"u ",u 1,u 10}',
    'after_challenge, after_specifier: those after this pair'
);
SELECT is(
    pg_temp.returned($$of_challenge => 'v', after_challenge => 'u', after_specifier => 'f', page_size => 2$$),
    '{v 1,v 10}',
    'of the challenge'
);
CREATE FUNCTION pg_temp.all_pages() RETURNS SETOF text
LANGUAGE plpgsql AS $$
DECLARE
    line record;
    last_challenge text;
    last_specifier text;
    is_last boolean;
BEGIN
    FOR number IN 1 .. 20 LOOP
        is_last := TRUE;
        FOR line IN
            SELECT page.challenge_id, page.specifier
            FROM audius_challenges.undisbursed(
                after_challenge => last_challenge, after_specifier => last_specifier, page_size => 7
            ) AS page
        LOOP
            RETURN NEXT line.challenge_id || ' ' || line.specifier;
            last_challenge := line.challenge_id;
            last_specifier := line.specifier;
            is_last := FALSE;
        END LOOP;
        EXIT WHEN is_last;
    END LOOP;
END
$$;
SELECT results_eq(
    $$SELECT page FROM pg_temp.all_pages() AS page$$,
    $$SELECT line.challenge_id || ' ' || line.specifier FROM undisbursed_challenges AS line
    ORDER BY line.challenge_id, line.specifier$$,
    'page by page, each line comes once, in order'
);
SELECT throws_like(
    $$SELECT * FROM audius_challenges.undisbursed(after_specifier => 'e')$$,
    'after_challenge and after_specifier belong together',
    'a half of a pair is an error'
);
SELECT throws_like(
    $$SELECT * FROM audius_challenges.undisbursed(after_challenge => 'fp')$$,
    'after_challenge and after_specifier belong together',
    'so is the other half'
);

SELECT * FROM finish();
ROLLBACK;
