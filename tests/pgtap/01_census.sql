-- The census: which challenges there are, in run order, what their catalog is, and what a run may read and write.
-- It lists them all, so that none comes or goes unnoticed: a new challenge is a line here, and in 12_specifiers.sql.
BEGIN;
SELECT plan(10);

-- Run order and the catalog of prod; what stage has instead; what dev has instead of that.
CREATE TEMPORARY TABLE census (
    number integer GENERATED ALWAYS AS IDENTITY,
    id text NOT NULL,
    type text NOT NULL,
    amount text NOT NULL,
    active boolean NOT NULL,
    step_count integer,
    starting_block integer,
    weekly_pool integer,
    cooldown_days integer,
    on_stage jsonb NOT NULL,
    on_dev jsonb NOT NULL
);
INSERT INTO census (
    id, type, amount, active, step_count, starting_block, weekly_pool, cooldown_days, on_stage, on_dev
)
VALUES
('u', 'numeric', '1', TRUE, 3, 25346436, 25000, 7, '{"starting_block": 0, "cooldown_days": 0}', '{}'),
('fp', 'boolean', '2', TRUE, NULL, 28350000, 25000, 7, '{"starting_block": 0}', '{"cooldown_days": 0}'),
('p', 'numeric', '1', TRUE, 7, 0, 25000, 7, '{"cooldown_days": 0}', '{}'),
('v', 'boolean', '5', TRUE, NULL, 0, 25000, NULL, '{}', '{}'),
('e', 'aggregate', '1', FALSE, 2147483647, 116023891, 25000, NULL, '{"active": true}', '{"starting_block": 0}'),
('p1', 'numeric', '25', TRUE, 250, 0, 2147483647, 7, '{}', '{"cooldown_days": 0}'),
('p2', 'numeric', '100', TRUE, 1000, 0, 2147483647, 7, '{}', '{"cooldown_days": 0}'),
('p3', 'numeric', '1000', TRUE, 10000, 0, 2147483647, 7, '{}', '{"cooldown_days": 0}'),
('tt', 'trending', '1000', TRUE, NULL, 25346436, 100000, NULL, '{"starting_block": 0, "weekly_pool": 10000}', '{}'),
('tut', 'trending', '1000', TRUE, NULL, 25346436, 100000, NULL, '{"starting_block": 0, "weekly_pool": 10000}', '{}'),
('tp', 'trending', '100', TRUE, NULL, 25346436, 10000, NULL, '{"starting_block": 0, "weekly_pool": 10000}', '{}'),
('c', 'aggregate', '1', TRUE, 2147483647, 0, 2147483647, 7, '{"cooldown_days": 0}', '{}'),
('cp', 'aggregate', '10', TRUE, 2147483647, 1979515, 2147483647, 7, '{"starting_block": 2718415}',
    '{"starting_block": 0}'),
('cs', 'aggregate', '1000', FALSE, 2147483647, 95017582, 50000, 7, '{"starting_block": 98445731}', '{}'),
('w', 'aggregate', '1000', TRUE, 2147483647, 98950182, 50000, 7,
    '{"starting_block": 104186138, "cooldown_days": 0}', '{"starting_block": 0}'),
('t', 'aggregate', '100', TRUE, 2147483647, 0, 2147483647, 7, '{}', '{"cooldown_days": 0}'),
('b', 'aggregate', '1', TRUE, 2147483647, 220157041, 25000, 7, '{"starting_block": 0}', '{"cooldown_days": 0}'),
('s', 'aggregate', '5', TRUE, 2147483647, 220157041, 25000, 7, '{"starting_block": 0}', '{"cooldown_days": 0}'),
('m', 'boolean', '1', TRUE, NULL, 25346436, 25000, 7, '{"starting_block": 0}', '{"cooldown_days": 0}'),
('r', 'aggregate', '1', TRUE, 5, 25346436, 25000, 7, '{"starting_block": 0}', '{"cooldown_days": 0}'),
('rv', 'aggregate', '1', TRUE, 5000, 25346436, 25000, 7, '{"starting_block": 0}', '{"cooldown_days": 0}'),
('rd', 'boolean', '1', TRUE, NULL, 25346436, 25000, 7, '{"starting_block": 0}', '{"cooldown_days": 0}');

-- What grant_run lets a role do with the tables of the discovery schema.
CREATE TEMPORARY TABLE grants (name text NOT NULL, privileges text NOT NULL);
INSERT INTO grants (name, privileges)
VALUES
('users', 'SELECT'),
('follows', 'SELECT'),
('saves', 'SELECT'),
('reposts', 'SELECT'),
('tracks', 'SELECT'),
('playlists', 'SELECT'),
('plays', 'SELECT'),
('aggregate_monthly_plays', 'SELECT'),
('aggregate_user', 'SELECT'),
('track_trending_scores', 'SELECT'),
('playlist_trending_scores', 'SELECT'),
('blocks', 'SELECT'),
('challenges', 'SELECT, INSERT, UPDATE'),
('user_challenges', 'SELECT, INSERT, UPDATE'),
('challenge_profile_completion', 'SELECT, INSERT, UPDATE'),
('challenge_listen_streak', 'SELECT, INSERT, UPDATE'),
('trending_results', 'SELECT, INSERT'),
('remixes', 'SELECT'),
('comments', 'SELECT'),
('events', 'SELECT'),
('user_events', 'SELECT'),
('sol_purchases', 'SELECT'),
('challenge_disbursements', 'SELECT'),
('sol_reward_disbursements', 'SELECT'),
('notification', 'SELECT, INSERT');

CREATE TEMPORARY VIEW expected AS
SELECT
    number,
    id,
    to_jsonb(census) - ARRAY['number', 'on_stage', 'on_dev'] AS prod,
    to_jsonb(census) - ARRAY['number', 'on_stage', 'on_dev'] || on_stage AS stage,
    to_jsonb(census) - ARRAY['number', 'on_stage', 'on_dev'] || on_stage || on_dev AS dev
FROM census;

-- Run order.
SELECT results_eq(
    $$SELECT challenge_id::text FROM challenge_status$$,
    $$SELECT id FROM census ORDER BY number$$,
    'the status lists the challenges of the census, in run order'
);
SELECT results_eq(
    $$SELECT challenge_id FROM reconcile_challenges()$$,
    $$SELECT id FROM census ORDER BY number$$,
    'a run goes through the challenges of the census, in that order'
);
SELECT is_empty(
    $$SELECT id FROM census WHERE NOT build.has_builders(id)$$,
    'each has its two builders, by which the shared rules are tested'
);

-- The catalog.
SELECT results_eq(
    $$SELECT to_jsonb(c) FROM challenges AS c ORDER BY id COLLATE "C"$$,
    $$SELECT prod FROM expected ORDER BY id COLLATE "C"$$,
    'CREATE EXTENSION inserts the rows of prod'
);
SELECT results_eq(
    $$SELECT challenge_id::text, action::text FROM sync_challenge_catalog('stage')
    ORDER BY challenge_id::text COLLATE "C"$$,
    $$SELECT id, 'updated' FROM expected WHERE stage <> prod ORDER BY id COLLATE "C"$$,
    'aligning to stage updates the rows that differ from prod'
);
SELECT results_eq(
    $$SELECT to_jsonb(c) FROM challenges AS c ORDER BY id COLLATE "C"$$,
    $$SELECT stage FROM expected ORDER BY id COLLATE "C"$$,
    'stage is prod with what it has instead'
);
SELECT results_eq(
    $$SELECT challenge_id::text, action::text FROM sync_challenge_catalog('dev')
    ORDER BY challenge_id::text COLLATE "C"$$,
    $$SELECT id, 'updated' FROM expected WHERE dev <> stage ORDER BY id COLLATE "C"$$,
    'aligning to dev updates the rows that differ from stage'
);
SELECT results_eq(
    $$SELECT to_jsonb(c) FROM challenges AS c ORDER BY id COLLATE "C"$$,
    $$SELECT dev FROM expected ORDER BY id COLLATE "C"$$,
    'dev is stage with what it has instead'
);

-- Privileges.
SET LOCAL ROLE NONE;
CREATE ROLE census_taker;
SELECT audius_challenges.grant_run('census_taker');
RESET ROLE;
SELECT results_eq(
    $$SELECT name, privileges FROM (
        SELECT
            c.relname::text COLLATE "default" AS name,
            string_agg(privilege, ', ' ORDER BY ordinality) FILTER (
                WHERE has_table_privilege('census_taker', c.oid, privilege)
            ) AS privileges
        FROM pg_class AS c
        CROSS JOIN
            unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER'])
            WITH ORDINALITY AS privilege
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname <> 'user_challenges_log'
        GROUP BY c.relname
    ) AS granted
    WHERE privileges IS NOT NULL ORDER BY name COLLATE "C"$$,
    $$SELECT name, privileges FROM grants ORDER BY name COLLATE "C"$$,
    'grant_run grants what the challenges read and write, and no more'
);
SELECT is_empty(
    $$SELECT name FROM grants WHERE to_regclass('public.' || name) IS NULL$$,
    'all these tables are in the discovery schema'
);

SELECT * FROM finish();
ROLLBACK;
