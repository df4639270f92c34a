-- Bad input: each an error that names the value and says what to do, and nothing is changed.
BEGIN;
SELECT plan(94);

-- Everything that a run or a call could change, as one text.
CREATE FUNCTION pg_temp.everything() RETURNS text
LANGUAGE sql AS $$
    SELECT md5(concat_ws(
        '|',
        (SELECT string_agg(c::text || c.ctid || c.xmin, ',' ORDER BY c.id) FROM public.challenges AS c),
        (SELECT string_agg(c::text || c.ctid || c.xmin, ',' ORDER BY c::text) FROM public.user_challenges AS c),
        (SELECT string_agg(c::text, ',' ORDER BY c.user_id) FROM public.challenge_profile_completion AS c),
        (SELECT string_agg(c::text, ',' ORDER BY c.user_id) FROM public.challenge_listen_streak AS c),
        (SELECT string_agg(t::text, ',' ORDER BY t::text) FROM public.trending_results AS t),
        (SELECT string_agg(s::text, ',' ORDER BY s::text) FROM audius_challenges.processor_state AS s),
        (SELECT string_agg(l::text, ',' ORDER BY l::text) FROM audius_challenges.look AS l),
        (SELECT string_agg(p::text, ',' ORDER BY p::text) FROM audius_challenges.pause AS p),
        (SELECT string_agg(j::text, ',' ORDER BY j.jobid) FROM cron.job AS j)
    ));
$$;

-- A user with something to gain, whom every bad call would reward if it ran; and a schedule to spoil.
SELECT build.person(1, is_verified => TRUE, bio => 'Tuba.');
SELECT jobname FROM schedule_challenges() WHERE jobname = '';
CREATE TEMPORARY TABLE at_first AS SELECT pg_temp.everything() AS content;

-- Challenge ids. The known ones come in run order.
CREATE TEMPORARY TABLE known AS
SELECT string_agg(s.challenge_id, ', ') AS ids
FROM challenge_status AS s;
SELECT alike(
    build.error_of($$SELECT * FROM reconcile_challenges(ARRAY['v', 'velocity'])$$),
    '22023: %velocity%' || ids || '%',
    'an unknown challenge id is an error that names it and the known ones'
)
FROM known;
SELECT alike(
    build.error_of($$SELECT * FROM reconcile_challenges(ARRAY['V'])$$),
    '22023: %V%',
    'a challenge id is written in lower case'
);
SELECT alike(
    build.error_of($$SELECT * FROM reconcile_challenges(ARRAY['v', NULL])$$),
    '22023: %null%' || ids || '%',
    'a NULL among the challenge ids is an error that says so'
)
FROM known;
SELECT alike(
    build.error_of($$SELECT * FROM reconcile_challenges(ARRAY[''])$$),
    '22023: %""%',
    'an empty challenge id is an error'
);
SELECT alike(
    build.error_of($$SELECT audius_challenges.start_from_now(ARRAY['velocity'])$$),
    '22023: %velocity%' || ids || '%',
    'start_from_now names an unknown challenge id and the known ones, too'
)
FROM known;

-- Flags.
SELECT alike(
    build.error_of($$SELECT * FROM reconcile_challenges(full_scan => NULL)$$),
    '22004: %full_scan%null%',
    'a NULL full_scan is an error that says so'
);
SELECT alike(
    build.error_of($$SELECT * FROM reconcile_challenges(dry_run => NULL)$$),
    '22004: %dry_run%null%',
    'a NULL dry_run is an error that says so: it must never be taken for a wet one'
);

-- The clock.
SELECT alike(
    build.error_of($$SELECT * FROM reconcile_challenges(as_of => NULL)$$),
    '22004: %as_of%null%',
    'a NULL as_of is an error that says so'
);
SELECT alike(
    build.error_of($$SELECT * FROM reconcile_challenges(as_of => 'infinity')$$),
    '22023: %as_of%infinity%',
    'an infinite as_of is an error that names it'
);
SELECT alike(
    build.error_of($$SELECT * FROM reconcile_challenges(as_of => '-infinity')$$),
    '22023: %as_of%-infinity%',
    'an as_of of minus infinity is an error that names it'
);
SELECT alike(
    build.error_of($$SELECT * FROM reconcile_challenges(as_of => '2999-12-31 00:00+00')$$),
    '22023: %as_of%future%2999-12-31%',
    'an as_of in the future is an error that names it'
);
SELECT alike(
    build.error_of($$SELECT * FROM reconcile_challenges(as_of => '2999-12-31 00:00+00', dry_run => TRUE)$$),
    '22023: %as_of%future%2999-12-31%',
    'an as_of in the future is an error in a dry run, too'
);

SELECT alike(
    build.error_of(
        $$SET LOCAL transaction_read_only = ON;
        SELECT * FROM public.reconcile_challenges(dry_run => TRUE);$$
    ),
    '25006: %read-only%',
    'a run in a read-only transaction is an error that says so'
);

-- The environment of the catalog.
SELECT alike(
    build.error_of($$SELECT * FROM sync_challenge_catalog('production')$$),
    '22023: %production%prod%stage%dev%',
    'an unknown environment is an error that names it and the known ones'
);
SELECT alike(
    build.error_of($$SELECT * FROM sync_challenge_catalog('PROD')$$),
    '22023: %PROD%prod%stage%dev%',
    'an environment is written in lower case'
);
SELECT alike(
    build.error_of($$SELECT * FROM sync_challenge_catalog(NULL)$$),
    '22004: %environment%null%',
    'a NULL environment is an error that says so'
);
SELECT alike(
    build.error_of($$SELECT * FROM sync_challenge_catalog('prod', ARRAY['p', 'velocity'])$$),
    '22023: %unknown challenge id: "velocity"%The challenges are %p, %v, %',
    'a challenge id that the catalog does not know is an error that names it and the known ones'
);
SELECT alike(
    build.error_of($$SELECT * FROM sync_challenge_catalog(challenge_ids => ARRAY['p', NULL])$$),
    '22023: %null%The challenges are %p, %v, %',
    'a NULL among the challenge ids is an error there, too'
);

-- The schedule.
SELECT alike(
    build.error_of($$SELECT * FROM schedule_challenges('0 seconds')$$),
    '22023: %00:00:00%',
    'a schedule of 0 s is an error that names it'
);
SELECT alike(
    build.error_of($$SELECT * FROM schedule_challenges('61 seconds')$$),
    '22023: %00:01:01%',
    'a schedule of 61 s is an error that names it'
);
SELECT alike(
    build.error_of($$SELECT * FROM schedule_challenges('90 seconds')$$),
    '22023: %00:01:30%',
    'a schedule of 90 s is an error that names it'
);
SELECT alike(
    build.error_of($$SELECT * FROM schedule_challenges(NULL)$$),
    '22004: %null%',
    'a schedule of NULL is an error that says so'
);
SELECT alike(
    build.error_of($$SELECT * FROM schedule_challenges('-30 seconds')$$),
    '22023: %-00:00:30%',
    'a schedule into the past is an error that names it'
);
SELECT alike(
    build.error_of($$SELECT * FROM schedule_challenges('1.5 seconds')$$),
    '22023: %00:00:01.5%',
    'a schedule of a part of a second is an error that names it'
);
SELECT alike(
    build.error_of($$SELECT * FROM schedule_challenges('1 month')$$),
    '22023: %1 mon%',
    'a schedule of a month, which has no length, is an error that names it'
);

-- Settings: each with a value that does not parse and one that is out of its range.
SELECT alike(
    build.error_of(
        format(
            'SET LOCAL audius_challenges.%I = %L; SELECT * FROM public.reconcile_challenges();', name, setting
        )
    ),
    '22023: %audius_challenges.' || name || '%"' || setting || '"%',
    format('%s = %s is an error that names the setting and the value', name, setting)
)
FROM
    (
        VALUES
        ('enabled', 'maybe'), ('enabled', '2'),
        ('max_completions', 'many'), ('max_completions', '-1'), ('max_completions', '1e4'),
        ('max_completions', '2147483648'),
        ('slice_users', 'all'), ('slice_users', '0'), ('slice_users', '-1'),
        ('sweep_users', 'none'), ('sweep_users', '-1'),
        ('changed_users', '1.5'), ('changed_users', '-1'),
        ('time_budget', 'long'), ('time_budget', '-1s'), ('time_budget', '25 fortnights'),
        ('lock_timeout', 'soon'), ('lock_timeout', '-1s'),
        ('share', '1'), ('share', '2/2'), ('share', '-1/2'), ('share', '0/0')
    ) AS bad (name, setting);
SELECT alike(
    build.error_of(
        $$SET LOCAL audius_challenges.max_completions = 'many';
        SELECT * FROM public.reconcile_challenges(dry_run => TRUE);$$
    ),
    '22023: %audius_challenges.max_completions%"many"%',
    'a setting that does not parse is an error of a dry run, too'
);

-- Privileges.
CREATE ROLE nobody_in_particular;
SELECT alike(
    build.error_of(format('SET LOCAL ROLE nobody_in_particular; %s', call)),
    '42501: permission denied%' || object || '%',
    format('without a grant, %s is an error that names it', object)
)
FROM
    (
        VALUES
        ('SELECT * FROM public.reconcile_challenges()', 'reconcile_challenges'),
        ('SELECT * FROM public.reconcile_challenges(dry_run => TRUE)', 'reconcile_challenges'),
        ('SELECT * FROM public.sync_challenge_catalog()', 'sync_challenge_catalog'),
        ('SELECT * FROM public.schedule_challenges()', 'schedule_challenges'),
        ('SELECT * FROM public.unschedule_challenges()', 'unschedule_challenges'),
        ('SELECT * FROM public.challenge_status', 'challenge_status'),
        ('SELECT * FROM public.challenge_history', 'challenge_history'),
        ('SELECT * FROM audius_challenges.metrics()', 'audius_challenges'),
        ('CALL audius_challenges.tick()', 'audius_challenges'),
        ('SELECT audius_challenges.start_from_now()', 'audius_challenges'),
        ('SELECT audius_challenges.trim_run_details()', 'audius_challenges'),
        ('SELECT audius_challenges.grant_run(''nobody_in_particular'')', 'audius_challenges'),
        ('SELECT audius_challenges.grant_status(''nobody_in_particular'')', 'audius_challenges')
    ) AS forbidden (call, object);
SELECT alike(
    build.error_of($$SELECT audius_challenges.grant_run('missing_role')$$),
    '42704: %missing_role%',
    'a grant to a role that does not exist is an error that names it'
);
SELECT alike(
    build.error_of($$SELECT audius_challenges.grant_status('missing_role')$$),
    '42704: %missing_role%',
    'a grant of the status to a role that does not exist is an error that names it'
);
SELECT unalike(
    build.error_of($$SELECT audius_challenges.grant_run(NULL)$$),
    'no error',
    'a grant to NULL is an error'
);

-- A tick inside somebody's transaction cannot commit.
SELECT alike(
    build.error_of($$CALL audius_challenges.tick()$$),
    '2D000: %transaction%reconcile_challenges%',
    'a tick inside a transaction is an error that says what to use there'
);
SELECT alike(
    build.error_of($$CALL audius_challenges.tick(NULL)$$),
    '2%: %',
    'a tick with a NULL delay is an error'
);

-- A cancel in mid-run, real and by its error code, takes the whole run with it.
CREATE FUNCTION pg_temp.cancelled_run() RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM public.reconcile_challenges();
    RETURN 'no error';
EXCEPTION WHEN query_canceled THEN
    RETURN sqlstate;
END
$$;
CREATE FUNCTION pg_temp.cancel_me() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF new.challenge_id = 'v' THEN
        PERFORM pg_cancel_backend(pg_backend_pid());
        PERFORM pg_sleep(10);
    END IF;
    RETURN new;
END
$$;
CREATE TRIGGER cancel_me BEFORE INSERT ON user_challenges
FOR EACH ROW EXECUTE FUNCTION pg_temp.cancel_me();
SELECT is(
    pg_temp.cancelled_run(), '57014', 'a cancel in mid-run stops the whole run, and is no failure of a processor'
);
SELECT is_empty(
    $$SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()$$,
    'a cancelled run leaves no lock'
);
DROP TRIGGER cancel_me ON user_challenges;
SELECT is(
    pg_temp.everything(), at_first.content, 'none of these calls changed anything, a cancelled run included'
)
FROM at_first;

-- Errors of one challenge, each beside the others that go on. First the catalog.
SELECT build.person(2, is_verified => TRUE, bio => 'Viola.');
CREATE TEMPORARY TABLE bad_catalog AS
SELECT
    challenge_id,
    assignment,
    naming,
    NULL::text AS status,
    NULL::text AS error,
    NULL::bigint AS rows_written,
    NULL::bigint AS others_failed
FROM
    (
        VALUES
        ('v', 'amount = ''five''', '%v%"five"%'),
        ('v', 'amount = ''-5''', '%v%"-5"%'),
        ('v', 'amount = ''5.0''', '%v%"5.0"%'),
        ('v', 'amount = ''5e1''', '%v%"5e1"%'),
        ('v', 'amount = ''''', '%v%""%'),
        ('v', 'amount = ''2147483648''', '%v%"2147483648"%'),
        ('v', 'amount = ''٥''', '%v%"٥"%'),
        ('p', 'step_count = -1', '%p%step_count%-1%'),
        ('p', 'step_count = 0', '%p%step_count%0%'),
        ('p', 'step_count = NULL', '%p%step_count%null%'),
        ('u', 'step_count = -1', '%u%step_count%-1%'),
        ('p1', 'step_count = NULL', '%p1%step_count%null%')
    ) AS bad (challenge_id, assignment, naming);
DO $$
DECLARE
    bad record;
BEGIN
    FOR bad IN SELECT challenge_id, assignment FROM bad_catalog LOOP
        EXECUTE format('UPDATE challenges SET %s WHERE id = %L', bad.assignment, bad.challenge_id);
        UPDATE bad_catalog SET
            status = run.status,
            error = run.error,
            rows_written = run.rows_written,
            others_failed = run.others_failed
        FROM (
            SELECT
                min(r.status) FILTER (WHERE r.challenge_id = bad.challenge_id) AS status,
                min(r.error) FILTER (WHERE r.challenge_id = bad.challenge_id) AS error,
                sum(r.rows_inserted + r.rows_updated) FILTER (WHERE r.challenge_id = bad.challenge_id)
                    AS rows_written,
                count(*) FILTER (WHERE r.status = 'failed' AND r.challenge_id <> bad.challenge_id)
                    AS others_failed
            FROM reconcile_challenges(dry_run => TRUE) AS r
        ) AS run
        WHERE bad_catalog.challenge_id = bad.challenge_id AND bad_catalog.assignment = bad.assignment;
        PERFORM sync_challenge_catalog();
    END LOOP;
END
$$;
SELECT alike(
    concat_ws(' ', status, rows_written, others_failed, error),
    'failed 0 0 ' || naming,
    format('%s of %s is an error of that challenge alone, with its id and the value', assignment, challenge_id)
)
FROM bad_catalog;
UPDATE challenges SET amount = 'five' WHERE id = 'v';
SELECT results_eq(
    $$SELECT challenge_id, status, rows_inserted
    FROM reconcile_challenges(ARRAY['p', 'v'], as_of => '2025-03-07 10:00+00')$$,
    $$VALUES ('p', 'ok', 2::bigint), ('v', 'failed', 0)$$,
    'a bad amount fails its challenge, and the others run'
);
SELECT is_empty(
    $$SELECT specifier FROM user_challenges WHERE challenge_id = 'v'$$,
    'a bad amount writes nothing'
);
UPDATE challenges SET amount = '5' WHERE id = 'v';

-- Then source tables and columns that are missing or of another type: what a run of some challenges says that failed.
CREATE FUNCTION pg_temp.report_after(command text, VARIADIC ids text[]) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    report text;
BEGIN
    BEGIN
        EXECUTE command;
        SELECT string_agg(concat_ws(' ', challenge_id, error), E'\n' ORDER BY ordinality) INTO report
        FROM reconcile_challenges(ids, as_of => '2025-03-07 10:00+00') WITH ORDINALITY
        WHERE status = 'failed';
        RAISE EXCEPTION USING errcode = 'UE000', message = coalesce(report, 'no error');
    EXCEPTION WHEN SQLSTATE 'UE000' THEN
        RETURN sqlerrm;
    END;
END
$$;
SELECT matches(
    pg_temp.report_after('ALTER TABLE saves RENAME TO saves_away', 'u', 'p', 'v'),
    '^p [^\n]*saves[^\n]*$',
    'without the table saves p fails, names it, and nothing else fails'
);
SELECT matches(
    pg_temp.report_after('ALTER TABLE playlist_trending_scores RENAME TO away', 'p', 'tt', 'tp'),
    '^tp [^\n]*playlist_trending_scores[^\n]*$',
    'without the table playlist_trending_scores tp fails, names it, and nothing else fails'
);
SELECT matches(
    pg_temp.report_after('ALTER TABLE aggregate_user RENAME TO away', 'p', 'tt', 'tut'),
    '^tut [^\n]*aggregate_user[^\n]*$',
    'without the table aggregate_user tut fails, names it, and nothing else fails'
);
SELECT matches(
    pg_temp.report_after('ALTER TABLE aggregate_monthly_plays RENAME TO away', 'u', 'e', 'p1', 'p2', 'p3'),
    '^p1 [^\n]*aggregate_monthly_plays[^\n]*\np2 [^\n]*aggregate_monthly_plays[^\n]*\n'
    'p3 [^\n]*aggregate_monthly_plays[^\n]*$',
    'without the table aggregate_monthly_plays p1, p2 and p3 fail and name it'
);
SELECT matches(
    pg_temp.report_after(
        'UPDATE challenges SET active = TRUE WHERE id = ''e''; ALTER TABLE plays RENAME TO away', 'u', 'e', 'v'
    ),
    '^e [^\n]*plays[^\n]*$',
    'without the table plays e fails and names it, and nothing else fails'
);
SELECT matches(
    pg_temp.report_after('ALTER TABLE users RENAME COLUMN is_verified TO verified', 'u', 'v', 'p1', 'p2', 'p3'),
    '^v [^\n]*is_verified[^\n]*users[^\n]*\np1 [^\n]*is_verified[^\n]*\np2 [^\n]*is_verified[^\n]*\n'
    'p3 [^\n]*is_verified[^\n]*$',
    'without the column users.is_verified v and the milestones fail and name column and table'
);
SELECT matches(
    pg_temp.report_after('ALTER TABLE tracks RENAME COLUMN stem_of TO stem', 'u', 'p', 'p1'),
    '^u [^\n]*stem_of[^\n]*tracks[^\n]*$',
    'without the column tracks.stem_of u fails, names column and table, and nothing else fails'
);
SELECT matches(
    pg_temp.report_after('ALTER TABLE tracks ALTER COLUMN stem_of TYPE text', 'u', 'p', 'p1'),
    '^u [^\n]*stem_of[^\n]*tracks[^\n]*text[^\n]*jsonb[^\n]*$',
    'a column of another type fails u, which names column, table and both types'
);
SELECT matches(
    pg_temp.report_after('ALTER TABLE challenge_profile_completion RENAME TO away', 'u', 'p', 'v'),
    '^p [^\n]*challenge_profile_completion[^\n]*$',
    'without the table challenge_profile_completion p fails and names it'
);
SELECT matches(
    pg_temp.report_after('ALTER TABLE trending_results RENAME TO away', 'u', 'tt', 'tut', 'tp'),
    '^tt [^\n]*trending_results[^\n]*\ntut [^\n]*trending_results[^\n]*\ntp [^\n]*trending_results[^\n]*$',
    'without the table trending_results the three trending challenges fail and name it'
);

-- pg_cron away.
DROP EXTENSION pg_cron CASCADE;
SELECT alike(
    build.error_of($$SELECT * FROM schedule_challenges()$$),
    '55000: %pg_cron%CREATE EXTENSION pg_cron%',
    'without pg_cron, schedule_challenges is an error that says what to do'
);

SELECT * FROM finish();
ROLLBACK;
