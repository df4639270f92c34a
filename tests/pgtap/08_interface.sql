-- The objects of the extension: which there are, how they are called, who may call them, what is said of them.
BEGIN;
SELECT plan(51);

-- Everything that belongs to the extension.
CREATE TEMPORARY VIEW member AS
SELECT
    d.classid,
    d.objid
FROM pg_depend AS d
INNER JOIN pg_extension AS e ON d.refobjid = e.oid
WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'audius_challenges';
CREATE TEMPORARY VIEW routine AS
SELECT
    p.*,
    p.oid::regprocedure::text AS signature,
    n.nspname,
    l.lanname
FROM member
INNER JOIN pg_proc AS p ON member.objid = p.oid AND member.classid = 'pg_proc'::regclass
INNER JOIN pg_namespace AS n ON p.pronamespace = n.oid
INNER JOIN pg_language AS l ON p.prolang = l.oid;
CREATE TEMPORARY VIEW relation AS
SELECT
    c.*,
    n.nspname
FROM member
INNER JOIN pg_class AS c ON member.objid = c.oid AND member.classid = 'pg_class'::regclass
INNER JOIN pg_namespace AS n ON c.relnamespace = n.oid;

-- The extension.
SELECT results_eq(
    $$SELECT extversion, extrelocatable FROM pg_extension WHERE extname = 'audius_challenges'$$,
    $$SELECT default_version COLLATE "C", FALSE FROM pg_available_extensions WHERE name = 'audius_challenges'$$,
    'this is the version that the server has'
);
SELECT results_eq(
    $$SELECT requires FROM pg_available_extension_versions WHERE name = 'audius_challenges' AND installed$$,
    $$VALUES (ARRAY['plpython3u']::name[])$$,
    'the extension requires plpython3u and nothing else'
);
SELECT isnt(obj_description(oid, 'pg_extension'), NULL, 'the extension has a comment')
FROM pg_extension
WHERE extname = 'audius_challenges';
SELECT isnt(obj_description('audius_challenges'::regnamespace, 'pg_namespace'), NULL, 'its schema has a comment');

-- What people call, with the names and types of the contract.
SELECT results_eq(
    $$SELECT proname FROM routine WHERE nspname = 'public' ORDER BY proname$$,
    $$VALUES
        ('explain_challenge'::name), ('reconcile_challenges'), ('schedule_challenges'), ('sync_challenge_catalog'),
        ('unschedule_challenges')$$,
    'only the five functions that people call sit beside the discovery tables'
);
SELECT is(
    pg_get_function_arguments('public.reconcile_challenges'::regproc),
    'challenge_ids text[] DEFAULT NULL::text[], full_scan boolean DEFAULT false, dry_run boolean DEFAULT false, '
    'as_of timestamp with time zone DEFAULT now()',
    'reconcile_challenges takes challenge_ids, full_scan, dry_run and as_of'
);
SELECT is(
    pg_get_function_result('public.reconcile_challenges'::regproc),
    'TABLE(challenge_id text, status text, users_examined bigint, rows_inserted bigint, rows_updated bigint, '
    'rows_completed bigint, duration interval, error text)',
    'reconcile_challenges returns the report'
);
SELECT is(
    pg_get_function_arguments('public.schedule_challenges'::regproc),
    'every interval DEFAULT ''00:00:30''::interval',
    'schedule_challenges takes every, by default 30 seconds'
);
SELECT is(
    pg_get_function_arguments('public.unschedule_challenges'::regproc),
    '',
    'unschedule_challenges takes nothing'
);
SELECT is(
    pg_get_function_result(function::regproc),
    'TABLE(jobid bigint, jobname text, schedule text, command text, database text)',
    function || ' returns jobs'
)
FROM unnest(ARRAY['public.schedule_challenges', 'public.unschedule_challenges']) AS function;
SELECT is(
    pg_get_function_arguments('public.sync_challenge_catalog'::regproc),
    'environment text DEFAULT ''prod''::text, challenge_ids text[] DEFAULT NULL::text[]',
    'sync_challenge_catalog takes an environment, by default prod, and challenge_ids, by default all'
);
SELECT is(
    pg_get_function_result('public.sync_challenge_catalog'::regproc),
    'TABLE(challenge_id text, action text, details text)',
    'sync_challenge_catalog returns what changed'
);
SELECT is(
    pg_get_function_arguments('public.explain_challenge'::regproc),
    'user_id integer, challenge_id text DEFAULT NULL::text',
    'explain_challenge takes a user, and a challenge or all'
);
SELECT is(
    pg_get_function_result('public.explain_challenge'::regproc),
    'TABLE(challenge_id text, line text, what text, demanded text, has text, holds boolean, '
    'since timestamp with time zone, state text, says text, specifier text, amount integer, is_paid boolean, '
    'claimable_at timestamp with time zone)',
    'explain_challenge returns conditions, rewards and verdicts'
);
SELECT is_procedure('audius_challenges', 'tick', ARRAY['interval'], 'tick is a procedure');
SELECT is(
    pg_get_function_arguments('audius_challenges.tick'::regproc),
    'IN delay interval DEFAULT ''00:00:00''::interval',
    'tick takes a delay, by default none'
);
SELECT is(
    pg_get_function_arguments('audius_challenges.start_from_now'::regproc),
    'challenge_ids text[] DEFAULT NULL::text[], dry_run boolean DEFAULT false',
    'start_from_now takes challenge_ids and dry_run'
);
SELECT is(
    pg_get_function_result('audius_challenges.start_from_now'::regproc),
    'TABLE(challenge_id text, passed_over bigint)',
    'start_from_now returns challenge ids, and how many deeds it passed over'
);
SELECT is_procedure('audius_challenges', 'help', ARRAY[]::text[], 'help is a procedure');
SELECT is(
    pg_get_function_arguments('audius_challenges.begin_full_scan'::regproc),
    'challenge_ids text[] DEFAULT NULL::text[]',
    'begin_full_scan takes challenge_ids'
);
SELECT is(
    pg_get_function_result('audius_challenges.begin_full_scan'::regproc),
    'SETOF text',
    'begin_full_scan returns challenge ids'
);
SELECT has_function('audius_challenges', 'grant_run', ARRAY['text'], 'there is grant_run');
SELECT has_function('audius_challenges', 'grant_status', ARRAY['text'], 'there is grant_status');
SELECT has_function('audius_challenges', 'trim_run_details', ARRAY[]::text[], 'there is trim_run_details');
SELECT has_view('public', 'challenge_status', 'there is challenge_status');
SELECT columns_are(
    'public', 'challenge_history',
    ARRAY[
        'started_at', 'challenge_id', 'status', 'duration', 'users_examined', 'rows_inserted', 'rows_updated',
        'rows_completed', 'users_set_aside', 'error', 'runs', 'ended_at'
    ],
    'challenge_history has these columns'
);
SELECT is(
    pg_get_function_result('audius_challenges.metrics'::regproc),
    'TABLE(name text, labels jsonb, value double precision)',
    'metrics returns samples'
);
SELECT has_view('public', 'undisbursed_challenges', 'there is undisbursed_challenges');
SELECT has_function(
    'audius_challenges', 'undisbursed', ARRAY['bigint', 'text', 'bigint', 'text', 'text', 'bigint'],
    'there is undisbursed'
);
SELECT is(
    pg_get_function_arguments('audius_challenges.doctor'::regproc),
    '',
    'doctor takes nothing'
);
SELECT is(
    pg_get_function_result('audius_challenges.doctor'::regproc),
    'TABLE(severity text, what text, found text, expected text, statement text)',
    'doctor returns findings'
);
SELECT results_eq(
    $$SELECT proname, pg_get_function_arguments(oid), pg_get_function_result(oid) FROM routine
    WHERE nspname = 'audius_challenges' AND proname ~ 'share|adoption' AND prorettype = 'text'::regtype ORDER BY proname$$,
    $$VALUES
        ('adopt_share'::name, 'conninfo text', 'SETOF text'),
        ('drop_shares', '', 'SETOF text'),
        ('finish_adoption', '', 'SETOF text'),
        ('join_share', 'share text, conninfo text', 'SETOF text'),
        ('receive_share', 'share text, conninfo text', 'SETOF text'),
        ('share_publications', 'shares integer', 'SETOF text'),
        ('share_tables', '', 'SETOF text'),
        ('share_why_not', '', 'SETOF text')$$,
    'what makes shares, and takes them down, is printed'
);
SELECT results_eq(
    $$SELECT relname FROM relation WHERE relkind = 'r' ORDER BY relname$$,
    $$VALUES ('challenge_day'::name), ('day_backfill'), ('history'), ('installation'), ('last_tick'), ('look'),
        ('passed_over'), ('pause'), ('processor_state'), ('set_aside'), ('share_batch'), ('share_beat'), ('share_node'),
        ('share_plan'), ('share_sent'), ('slice'), ('tastemaker_decision'), ('unpaid_friday'), ('verified_user')$$,
    'the extension owns these tables of state, and no table of the application''s'
);
SELECT results_eq(
    $$SELECT relname FROM relation
    WHERE relkind = 'r' AND oid NOT IN (
        SELECT unnest(extconfig) FROM pg_extension WHERE extname = 'audius_challenges'
    )
    ORDER BY relname$$,
    $$VALUES ('last_tick'::name), ('share_batch'), ('share_beat'), ('share_node'), ('share_plan'), ('share_sent')$$,
    'every table of state is dumped, but for the last tick and shares, which are of that server'
);
SELECT results_eq(
    $$SELECT DISTINCT nspname FROM relation WHERE relkind <> 'v'$$,
    $$VALUES ('audius_challenges'::name)$$,
    'every table of state sits in the extension''s own schema'
);
SELECT is_empty(
    $$SELECT tgname FROM pg_trigger
    INNER JOIN pg_proc ON tgfoid = pg_proc.oid
    INNER JOIN member ON member.objid = pg_proc.oid AND member.classid = 'pg_proc'::regclass$$,
    'the extension puts no trigger on any table'
);
SELECT results_eq(
    $$SELECT proname FROM routine WHERE prokind = 'p' ORDER BY proname$$,
    $$VALUES ('help'::name), ('tick')$$,
    'help and tick are the only procedures'
);

-- Who may.
SELECT is_empty(
    $$SELECT signature FROM routine
    WHERE proacl IS NULL
        OR EXISTS (SELECT FROM aclexplode(proacl) AS granted WHERE granted.grantee = 0)$$,
    'PUBLIC may execute nothing'
);
SELECT is_empty(
    $$SELECT relname FROM relation
    WHERE EXISTS (SELECT FROM aclexplode(relacl) AS granted WHERE granted.grantee = 0)$$,
    'PUBLIC may read no table and no view'
);
SELECT is_empty(
    $$SELECT nspname FROM pg_namespace
    WHERE nspname = 'audius_challenges'
        AND EXISTS (SELECT FROM aclexplode(nspacl) AS granted WHERE granted.grantee = 0)$$,
    'PUBLIC may not use the extension''s schema'
);
SELECT results_eq(
    $$SELECT signature::text FROM routine WHERE prosecdef ORDER BY signature DESC$$,
    $$VALUES ('audius_challenges.schedule_facts()'), ('audius_challenges.job_facts()')$$,
    'every function runs with the rights of its caller, but for what looks whether anything ticks'
);

-- Closed search paths.
SELECT is_empty(
    $$SELECT signature FROM routine
    WHERE prokind = 'f' AND NOT coalesce(proconfig::text LIKE '%search_path=pg_catalog, %pg_temp%', FALSE)$$,
    'every function has a search_path that begins with pg_catalog and ends with pg_temp'
);
SELECT results_eq(
    $$SELECT DISTINCT setting COLLATE "default" FROM routine
    CROSS JOIN LATERAL unnest(proconfig) AS setting
    WHERE setting LIKE 'search_path=%' AND proname NOT IN (
        'reconcile_challenges', 'schedule_challenges', 'unschedule_challenges', 'status'
    )$$,
    $$VALUES ('search_path=pg_catalog, pg_temp')$$,
    'none names the discovery schema, which may be renamed, but those that return sets and are as released'
);
SELECT results_eq(
    $$SELECT proconfig::text FROM routine WHERE proname = 'tick'$$,
    $$VALUES (NULL::text)$$,
    'tick has no SET clause, with which it could not commit'
);
SELECT results_eq(
    $$SELECT DISTINCT provolatile::text FROM routine
    WHERE proname IN (
        'reconcile_challenges', 'schedule_challenges', 'unschedule_challenges', 'sync_challenge_catalog',
        'start_from_now', 'trim_run_details', 'grant_run', 'grant_status'
    )$$,
    $$VALUES ('v')$$,
    'functions that write are volatile'
);
SELECT is_empty(
    $$SELECT signature FROM routine WHERE lanname = 'plpython3u' AND proparallel <> 'u'$$,
    'functions in Python are not parallel safe'
);

-- What is said of them.
SELECT is_empty(
    $$SELECT signature FROM routine
    WHERE coalesce(length(obj_description(oid, 'pg_proc')), 0) < 20$$,
    'every function and procedure has a comment'
);
SELECT is_empty(
    $$SELECT relname FROM relation
    WHERE relkind IN ('r', 'v') AND coalesce(length(obj_description(oid, 'pg_class')), 0) < 20$$,
    'every table and view has a comment'
);
SELECT is_empty(
    $$SELECT relname || '.' || attname FROM relation
    INNER JOIN pg_attribute ON attrelid = relation.oid
    WHERE relkind IN ('r', 'v') AND attnum > 0 AND NOT attisdropped
        AND coalesce(length(col_description(relation.oid, attnum)), 0) < 10$$,
    'every column of a table or view has a comment'
);
SELECT is_empty(
    $$SELECT a.comment FROM (
        SELECT obj_description(oid, 'pg_proc') AS comment FROM routine
    ) AS a
    GROUP BY a.comment
    HAVING count(*) > 1$$,
    'no two functions share a comment'
);

SELECT * FROM finish();
ROLLBACK;
