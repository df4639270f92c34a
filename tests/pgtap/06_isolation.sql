-- Runs need READ COMMITTED: a snapshot older than the lock would read what another run has changed since.
BEGIN ISOLATION LEVEL SERIALIZABLE;
DO $$
BEGIN
    PERFORM reconcile_challenges();
    PERFORM set_config('tests.serializable', 'no error', FALSE);
EXCEPTION WHEN OTHERS THEN
    PERFORM set_config('tests.serializable', sqlerrm, FALSE);
END
$$;
COMMIT;

BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT plan(3);

SELECT build.person(1, is_verified => TRUE);
SELECT throws_ilike(
    $$SELECT * FROM reconcile_challenges()$$,
    '%repeatable read%',
    'a run in REPEATABLE READ is an error that names the isolation'
);
SELECT is_empty(
    $$SELECT user_id FROM user_challenges$$,
    'a run in REPEATABLE READ writes nothing'
);
SELECT ialike(
    current_setting('tests.serializable'),
    '%serializable%',
    'a run in SERIALIZABLE is an error too'
);

SELECT * FROM finish();
ROLLBACK;
