-- The clock of a run goes forward. Weekly trending alone goes back: no other challenge does, named or not, dry or not.
BEGIN;
SELECT plan(8);

SELECT build.person(1, is_verified => TRUE);
SELECT build.run(as_of => '2025-03-10 10:00+00');
SELECT build.person(2, is_verified => TRUE);
CREATE TEMPORARY TABLE before AS SELECT t FROM build.tuples('public', 'audius_challenges') AS t;
SELECT alike(
    build.error_of(format($$SELECT * FROM reconcile_challenges(%sas_of => '2025-03-07 10:00+00')$$, call.arguments)),
    format('22023: %%as_of must not be earlier than the last run of %s: 2025-03-07%%{tt,tut,tp}%%', call.named),
    format('reconcile_challenges(%sas_of => before the last run) is an error that names who cannot', call.arguments)
)
FROM (
    SELECT
        '',
        string_agg(c.challenge_id, ', ' ORDER BY c.number) FILTER (WHERE c.challenge_id NOT IN ('tt', 'tut', 'tp'))
    FROM build.challenges() AS c
    UNION ALL
    VALUES
        ($$ARRAY['tt', 'v', 'u'], $$, 'u, v'),
        ($$ARRAY['v'], dry_run => TRUE, $$, 'v'),
        ($$ARRAY['v'], full_scan => TRUE, $$, 'v')
) AS call (arguments, named);
SELECT bag_eq(
    $$SELECT t FROM build.tuples('public', 'audius_challenges') AS t$$,
    $$SELECT before.t FROM before$$,
    'a run that goes back changes not a tuple version'
);
SELECT results_eq(
    $$SELECT challenge_id, status FROM reconcile_challenges(ARRAY['tp', 'tt', 'tut'], as_of => '2025-03-07 10:00+00')$$,
    $$VALUES ('tt', 'ok'), ('tut', 'ok'), ('tp', 'ok')$$,
    'weekly trending runs for an earlier time'
);
SELECT results_eq(
    $$SELECT DISTINCT as_of FROM audius_challenges.processor_state$$,
    $$VALUES ('2025-03-10 10:00+00'::timestamptz)$$,
    'and moves nothing back by that'
);
SELECT results_eq(
    $$SELECT status, rows_inserted FROM reconcile_challenges(ARRAY['v'], as_of => '2025-03-10 10:00+00')$$,
    $$VALUES ('ok', 1::bigint)$$,
    'a run at the time of the last one goes on'
);

SELECT * FROM finish();
ROLLBACK;
