-- The catalog: what CREATE EXTENSION put there, and sync_challenge_catalog().
BEGIN;
SELECT plan(17);

SELECT results_eq(
    $$SELECT
        id::text, type::text, amount::text, active, step_count, starting_block, weekly_pool, cooldown_days
    FROM challenges ORDER BY id$$,
    $$VALUES
        ('e', 'aggregate', '1', FALSE, 2147483647, 116023891, 25000, NULL),
        ('fp', 'boolean', '2', TRUE, NULL, 28350000, 25000, 7),
        ('p', 'numeric', '1', TRUE, 7, 0, 25000, 7),
        ('p1', 'numeric', '25', TRUE, 250, 0, 2147483647, 7),
        ('p2', 'numeric', '100', TRUE, 1000, 0, 2147483647, 7),
        ('p3', 'numeric', '1000', TRUE, 10000, 0, 2147483647, 7),
        ('tp', 'trending', '100', TRUE, NULL, 25346436, 10000, NULL),
        ('tt', 'trending', '1000', TRUE, NULL, 25346436, 100000, NULL),
        ('tut', 'trending', '1000', TRUE, NULL, 25346436, 100000, NULL),
        ('u', 'numeric', '1', TRUE, 3, 25346436, 25000, 7),
        ('v', 'boolean', '5', TRUE, NULL, 0, 25000, NULL)$$,
    'CREATE EXTENSION inserts the eleven rows of prod'
);
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
VALUES ('b', 'aggregate', '5', TRUE, NULL, 7, NULL, 14), ('s', 'boolean', 'no number', FALSE, -1, NULL, NULL, NULL);
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
    WHERE id NOT IN ('b', 's')$$,
    $$SELECT id, type, amount, active, step_count, starting_block, weekly_pool, cooldown_days FROM prod$$,
    'aligning brings back the rows of prod'
);
SELECT results_eq(
    $$SELECT c.* FROM challenges AS c WHERE id IN ('b', 's') ORDER BY id$$,
    $$VALUES
        ('b'::varchar, 'aggregate'::challengetype, '5'::varchar, TRUE, NULL::integer, 7, NULL::integer, 14),
        ('s', 'boolean', 'no number', FALSE, -1, NULL, NULL, NULL)$$,
    'aligning leaves the rows of other challenges alone'
);
SELECT results_eq(
    $$SELECT count(*) FROM challenges AS c INNER JOIN prod ON c.ctid = prod.place AND c.id = prod.id$$,
    $$VALUES (7::bigint)$$,
    'aligning writes only the rows that differ'
);

-- The other environments.
SELECT results_eq(
    $$SELECT challenge_id::text, action::text FROM sync_challenge_catalog('stage') ORDER BY challenge_id$$,
    $$VALUES
        ('e', 'updated'), ('fp', 'updated'), ('p', 'updated'), ('tp', 'updated'), ('tt', 'updated'),
        ('tut', 'updated'), ('u', 'updated')$$,
    'stage differs from prod in seven rows'
);
SELECT results_eq(
    $$SELECT
        id::text, type::text, amount::text, active, step_count, starting_block, weekly_pool, cooldown_days
    FROM challenges WHERE id NOT IN ('b', 's') ORDER BY id$$,
    $$VALUES
        ('e', 'aggregate', '1', TRUE, 2147483647, 116023891, 25000, NULL),
        ('fp', 'boolean', '2', TRUE, NULL, 0, 25000, 7),
        ('p', 'numeric', '1', TRUE, 7, 0, 25000, 0),
        ('p1', 'numeric', '25', TRUE, 250, 0, 2147483647, 7),
        ('p2', 'numeric', '100', TRUE, 1000, 0, 2147483647, 7),
        ('p3', 'numeric', '1000', TRUE, 10000, 0, 2147483647, 7),
        ('tp', 'trending', '100', TRUE, NULL, 0, 10000, NULL),
        ('tt', 'trending', '1000', TRUE, NULL, 0, 10000, NULL),
        ('tut', 'trending', '1000', TRUE, NULL, 0, 10000, NULL),
        ('u', 'numeric', '1', TRUE, 3, 0, 25000, 0),
        ('v', 'boolean', '5', TRUE, NULL, 0, 25000, NULL)$$,
    'stage is prod with its overrides'
);
SELECT is_empty(
    $$SELECT * FROM sync_challenge_catalog('stage')$$,
    'aligning to stage twice reports nothing the second time'
);
SELECT results_eq(
    $$SELECT challenge_id::text FROM sync_challenge_catalog('dev') ORDER BY challenge_id$$,
    $$VALUES ('e'), ('fp'), ('p1'), ('p2'), ('p3')$$,
    'dev differs from stage in five rows'
);
SELECT results_eq(
    $$SELECT
        id::text, type::text, amount::text, active, step_count, starting_block, weekly_pool, cooldown_days
    FROM challenges WHERE id NOT IN ('b', 's') ORDER BY id$$,
    $$VALUES
        ('e', 'aggregate', '1', TRUE, 2147483647, 0, 25000, NULL),
        ('fp', 'boolean', '2', TRUE, NULL, 0, 25000, 0),
        ('p', 'numeric', '1', TRUE, 7, 0, 25000, 0),
        ('p1', 'numeric', '25', TRUE, 250, 0, 2147483647, 0),
        ('p2', 'numeric', '100', TRUE, 1000, 0, 2147483647, 0),
        ('p3', 'numeric', '1000', TRUE, 10000, 0, 2147483647, 0),
        ('tp', 'trending', '100', TRUE, NULL, 0, 10000, NULL),
        ('tt', 'trending', '1000', TRUE, NULL, 0, 10000, NULL),
        ('tut', 'trending', '1000', TRUE, NULL, 0, 10000, NULL),
        ('u', 'numeric', '1', TRUE, 3, 0, 25000, 0),
        ('v', 'boolean', '5', TRUE, NULL, 0, 25000, NULL)$$,
    'dev is stage with every cooldown of prod 0, and the streak from block 0'
);
SELECT results_eq(
    $$SELECT count(*) FROM sync_challenge_catalog('prod')$$,
    $$VALUES (10::bigint)$$,
    'every row but that of v comes back to prod from dev'
);

-- An empty catalog, and runs.
DELETE FROM challenges;
SELECT results_eq(
    $$SELECT challenge_id, status FROM reconcile_challenges()$$,
    $$VALUES
        ('u', 'absent'), ('fp', 'absent'), ('p', 'absent'), ('v', 'absent'), ('e', 'absent'), ('p1', 'absent'),
        ('p2', 'absent'), ('p3', 'absent'), ('tt', 'absent'), ('tut', 'absent'), ('tp', 'absent')$$,
    'without a catalog every challenge is absent, and a run does not fill it'
);
SELECT results_eq(
    $$SELECT count(*) FROM sync_challenge_catalog() WHERE action = 'inserted'$$,
    $$VALUES (11::bigint)$$,
    'aligning fills an empty catalog'
);

SELECT * FROM finish();
ROLLBACK;
