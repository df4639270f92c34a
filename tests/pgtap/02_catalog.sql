-- sync_challenge_catalog(): what it writes, what it leaves alone, what it says. (The catalog itself: 01_census.sql.)
BEGIN;
SELECT plan(22);

CREATE TEMPORARY TABLE prod AS
SELECT
    c.*,
    c.ctid AS place,
    c.xmin::text AS version
FROM challenges AS c;

SELECT is_empty(
    $$SELECT * FROM sync_challenge_catalog()$$,
    'aligning a catalog that does not differ reports nothing'
);
SELECT bag_eq(
    $$SELECT c.*, c.ctid AS place, c.xmin::text AS version FROM challenges AS c$$,
    $$SELECT prod.* FROM prod$$,
    'aligning a catalog that does not differ writes nothing'
);

-- Rows that are missing, differ, or belong to somebody else.
INSERT INTO challenges (id, type, amount, active, step_count, starting_block, weekly_pool, cooldown_days)
VALUES ('ft', 'aggregate', '5', TRUE, NULL, 7, NULL, 14), ('o', 'boolean', 'no number', FALSE, -1, NULL, NULL, NULL);
DELETE FROM challenges WHERE id = 'tp';
UPDATE challenges SET amount = '9', cooldown_days = NULL WHERE id = 'p';
UPDATE challenges SET active = TRUE WHERE id = 'e';
UPDATE challenges SET type = 'boolean' WHERE id = 'u';
CREATE TEMPORARY TABLE synced AS
SELECT
    s.challenge_id,
    s.action,
    s.details
FROM sync_challenge_catalog() AS s;
SELECT results_eq(
    $$SELECT challenge_id::text, action::text FROM synced ORDER BY challenge_id$$,
    $$VALUES ('e', 'updated'), ('p', 'updated'), ('tp', 'inserted'), ('u', 'updated')$$,
    'aligning reports each row that was inserted or updated'
);
SELECT alike(details, '%active%', 'the details name the column that differed')
FROM synced
WHERE challenge_id = 'e';
SELECT alike(details, '%amount%9%1%cooldown_days%7%', 'the details name every column that differed, with its values')
FROM synced
WHERE challenge_id = 'p';
SELECT bag_eq(
    $$SELECT id, type, amount, active, step_count, starting_block, weekly_pool, cooldown_days FROM challenges
    WHERE id NOT IN ('ft', 'o')$$,
    $$SELECT id, type, amount, active, step_count, starting_block, weekly_pool, cooldown_days FROM prod$$,
    'aligning brings back the rows of prod'
);
SELECT results_eq(
    $$SELECT c.* FROM challenges AS c WHERE id IN ('ft', 'o') ORDER BY id$$,
    $$VALUES
        ('ft'::varchar, 'aggregate'::challengetype, '5'::varchar, TRUE, NULL::integer, 7, NULL::integer, 14),
        ('o', 'boolean', 'no number', FALSE, -1, NULL, NULL, NULL)$$,
    'aligning leaves the rows of other challenges alone'
);
SELECT results_eq(
    $$SELECT count(*) FROM challenges AS c INNER JOIN prod ON c.ctid = prod.place AND c.id = prod.id$$,
    $$SELECT count(*) - 4 FROM prod$$,
    'aligning writes only the rows that differ'
);

-- The other environments.
CREATE TEMPORARY VIEW aligned AS
SELECT c.*
FROM challenges AS c
WHERE c.id NOT IN ('ft', 'o');
CREATE TEMPORARY TABLE on_stage AS
SELECT s.challenge_id
FROM sync_challenge_catalog('stage') AS s;
CREATE TEMPORARY TABLE stage AS SELECT * FROM aligned;
SELECT bag_eq(
    $$SELECT challenge_id::text FROM on_stage$$,
    $$SELECT stage.id::text FROM stage
    INNER JOIN prod USING (id)
    WHERE to_jsonb(stage) <> to_jsonb(prod) - ARRAY['place', 'version']$$,
    'aligning to another environment reports the rows that changed'
);
SELECT isnt_empty(
    $$SELECT challenge_id FROM on_stage WHERE challenge_id = 'e'$$,
    'the listen streak is one of them'
);
SELECT is_empty(
    $$SELECT * FROM sync_challenge_catalog('stage')$$,
    'aligning to stage twice reports nothing the second time'
);
SELECT isnt_empty(
    $$SELECT * FROM sync_challenge_catalog('dev')$$,
    'dev differs from stage'
);
SELECT isnt_empty(
    $$SELECT * FROM sync_challenge_catalog('prod')$$,
    'prod differs from dev'
);
SELECT bag_eq(
    $$SELECT * FROM aligned$$,
    $$SELECT id, type, amount, active, step_count, starting_block, weekly_pool, cooldown_days FROM prod$$,
    'every row comes back to prod'
);

-- Just some rows.
UPDATE challenges SET amount = '9' WHERE id IN ('p', 'u', 'e');
UPDATE challenges SET active = TRUE WHERE id = 'e';
DELETE FROM challenges WHERE id IN ('tt', 'tp');
CREATE TEMPORARY TABLE before AS SELECT to_jsonb(c) AS entry FROM challenges AS c WHERE c.id NOT IN ('u', 'tp');
SELECT results_eq(
    $$SELECT challenge_id::text, action::text FROM sync_challenge_catalog('prod', ARRAY['tp', 'u', 'v', 'u'])$$,
    $$VALUES ('u', 'updated'), ('tp', 'inserted')$$,
    'aligning some rows reports those that changed, each once, in run order'
);
SELECT bag_eq(
    $$SELECT to_jsonb(c) FROM challenges AS c WHERE c.id NOT IN ('u', 'tp')$$,
    $$SELECT before.entry FROM before$$,
    'aligning some rows leaves all others as they are, differing or missing'
);
SELECT is_empty(
    $$SELECT * FROM sync_challenge_catalog('prod', '{}')$$,
    'aligning no row changes nothing'
);
SELECT isnt_empty(
    $$SELECT * FROM sync_challenge_catalog('stage', '{u}') WHERE details LIKE '%starting_block: 25346436 -> 0%'$$,
    'a row can be aligned with another environment'
);

-- An empty catalog, and runs.
DELETE FROM challenges;
SELECT results_eq(
    $$SELECT challenge_id, status FROM reconcile_challenges()$$,
    $$SELECT challenge_id::text, 'absent' FROM challenge_status$$,
    'without a catalog every challenge is absent'
);
SELECT is_empty(
    $$SELECT id FROM challenges$$,
    'a run does not fill an empty catalog'
);
SELECT bag_eq(
    $$SELECT challenge_id::text, action::text FROM sync_challenge_catalog()$$,
    $$SELECT id::text, 'inserted' FROM prod$$,
    'aligning fills an empty catalog'
);
SELECT bag_eq(
    $$SELECT * FROM aligned$$,
    $$SELECT id, type, amount, active, step_count, starting_block, weekly_pool, cooldown_days FROM prod$$,
    'aligning fills it with the rows of prod'
);

SELECT * FROM finish();
ROLLBACK;
