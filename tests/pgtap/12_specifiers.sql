-- The census of specifiers: what each challenge writes for user 255 who qualifies, to the letter. A disburser pays each
-- specifier once, so a format that changes unnoticed pays twice. A new challenge is a line here, as in 01_census.sql.
BEGIN;
SELECT plan(4);

-- `earlier`: the format that an earlier service wrote for the same deed, for those of which one is known. Who was paid
-- under it is paid nothing.
CREATE TEMPORARY TABLE census (
    number integer GENERATED ALWAYS AS IDENTITY,
    id text NOT NULL,
    specifiers text NOT NULL,
    earlier text
);
INSERT INTO census (id, specifiers, earlier)
VALUES
('u', 'ff', NULL),
('fp', 'ff', NULL),
('p', 'ff', NULL),
('v', 'ff', NULL),
('e', 'ff2025020112', NULL),
('p1', 'ff:250', NULL),
('p2', 'ff:1000', NULL),
('p3', 'ff:10000', NULL),
('tt', '2025-03-07:1', NULL),
('tut', '2025-03-07:1', NULL),
('tp', '2025-03-07:1', NULL),
('c', 'ff:202506', '255:202506'),
('cp', 'ff:9f6', NULL),
('cs', '9f6:9fd', '9fd'),
('w', '4e7:ff', NULL),
('t', 'ff:t:9f6', NULL),
('b', 'ff:9f6', NULL),
('s', '9f6:9f6', NULL),
('m', 'ff', NULL),
('r', 'ff:9f6', NULL),
('rv', 'ff:9f6', NULL),
('rd', 'ff:9f6', 'ff');

UPDATE challenges SET active = TRUE, starting_block = 0;

-- What a run writes for user 255 in an empty database, where that many were paid before; everything is undone.
CREATE FUNCTION pg_temp.written(id text, paid text DEFAULT NULL, paid_as text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    found text;
BEGIN
    PERFORM build.qualify(id, 255);
    IF paid IS NOT NULL THEN
        PERFORM build.disbursed(coalesce(paid_as, id), 4711, paid);
    END IF;
    PERFORM build.run(ARRAY[id], as_of => '2025-03-07 10:00+00');
    found := (
        SELECT string_agg(u.specifier, ' ' ORDER BY u.specifier COLLATE "C")
        FROM user_challenges AS u
        WHERE u.challenge_id = $1 AND u.is_complete
    );
    RAISE EXCEPTION USING ERRCODE = 'P0009', MESSAGE = coalesce(found, 'nothing');
EXCEPTION WHEN SQLSTATE 'P0009' THEN
    RETURN sqlerrm;
END
$$;

SELECT results_eq(
    $$SELECT s.challenge_id FROM build.challenges() AS s ORDER BY s.number$$,
    $$SELECT id FROM census ORDER BY number$$,
    'the census has every challenge'
);
SELECT results_eq(
    $$SELECT id, pg_temp.written(id) FROM census ORDER BY number$$,
    $$SELECT id, specifiers FROM census ORDER BY number$$,
    'each writes its specifier, to the letter'
);
SELECT is_empty(
    $$SELECT id, pg_temp.written(id, earlier) FROM census
    WHERE earlier IS NOT NULL AND pg_temp.written(id, earlier) <> 'nothing'$$,
    'what was paid in an earlier format is paid nothing'
);
SELECT is_empty(
    $$SELECT id FROM census
    WHERE id IN ('c', 'cp', 'cs', 'w', 't', 'b', 's', 'm', 'r', 'rv', 'rd')
        AND pg_temp.written(id, specifiers) <> 'nothing'
    UNION ALL
    SELECT id FROM (VALUES ('r', 'rv'), ('rv', 'r')) AS twin (id, paid_as)
    WHERE pg_temp.written(id, 'ff:9f6', paid_as) <> 'nothing'$$,
    'a deed that was paid in the format of today, to whomever, is paid nothing; r and rv pay a pair once'
);

SELECT * FROM finish();
ROLLBACK;
