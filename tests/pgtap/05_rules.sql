-- The rules that every challenge follows, for every challenge there is. A challenge joins by its two builders,
-- build.qualify_<id> and build.almost_<id>; build.exemption says which of the rules it need not follow.
-- Each scenario begins in an empty database with the challenge active and its starting block 0, and is undone. Users:
-- 255 and 256 qualify, 171 almost does; user 1000 + n qualifies for challenge number n.
BEGIN;
SELECT no_plan();

UPDATE challenges SET active = TRUE, starting_block = 0;

CREATE TYPE pg_temp.verdict AS (found text, expected text, rule text);

-- A Friday, so that trending is decided.
CREATE FUNCTION pg_temp.friday() RETURNS timestamptz
LANGUAGE sql IMMUTABLE AS $$
    SELECT '2025-03-07 10:00+00'::timestamptz;
$$;
CREATE FUNCTION pg_temp.monday() RETURNS timestamptz
LANGUAGE sql IMMUTABLE AS $$
    SELECT '2025-03-10 10:00+00'::timestamptz;
$$;

-- A run of one challenge, and what it reports: status, users examined, rows inserted, updated, completed, error.
CREATE FUNCTION pg_temp.report(
    id text, as_of timestamptz, full_scan boolean DEFAULT FALSE, dry_run boolean DEFAULT FALSE
) RETURNS text
LANGUAGE sql AS $$
    SELECT concat_ws(' ', status, users_examined, rows_inserted, rows_updated, rows_completed, error)
    FROM public.reconcile_challenges(ARRAY[id], full_scan, dry_run, as_of);
$$;

-- The same without the users examined: what the run did.
CREATE FUNCTION pg_temp.effect(
    id text, as_of timestamptz, full_scan boolean DEFAULT FALSE, dry_run boolean DEFAULT FALSE
) RETURNS text
LANGUAGE sql AS $$
    SELECT concat_ws(' ', status, rows_inserted, rows_updated, rows_completed, error)
    FROM public.reconcile_challenges(ARRAY[id], full_scan, dry_run, as_of);
$$;

-- The rows of a challenge, with their tuples' places and versions.
CREATE FUNCTION pg_temp.rows_of(id text) RETURNS text[]
LANGUAGE sql AS $$
    SELECT coalesce(array_agg(c::text || ' ' || c.ctid || ' ' || c.xmin ORDER BY c.specifier), '{}')
    FROM public.user_challenges AS c
    WHERE c.challenge_id = id;
$$;

-- Which of these users have a complete row of the challenge.
CREATE FUNCTION pg_temp.completed(id text, VARIADIC users integer[]) RETURNS text
LANGUAGE sql AS $$
    SELECT coalesce(string_agg(DISTINCT c.user_id::text, ' '), 'nobody')
    FROM public.user_challenges AS c
    WHERE c.challenge_id = id AND c.is_complete AND c.user_id = ANY(users);
$$;

-- What is in one of two lists and not in the other.
CREATE FUNCTION pg_temp.difference(before text[], after text[]) RETURNS text
LANGUAGE sql AS $$
    SELECT coalesce(string_agg(line, E'\n'), 'none')
    FROM (
        (SELECT '- ' || b AS line FROM unnest(before) AS b EXCEPT SELECT '- ' || a FROM unnest(after) AS a)
        UNION ALL
        (SELECT '+ ' || a FROM unnest(after) AS a EXCEPT SELECT '+ ' || b FROM unnest(before) AS b)
    ) AS differing;
$$;

-- A scenario's verdicts on a challenge; what it did is undone. An error is the verdict that it failed.
CREATE FUNCTION pg_temp.verdicts_of(scenario text, id text) RETURNS SETOF pg_temp.verdict
LANGUAGE plpgsql AS $$
DECLARE
    verdicts pg_temp.verdict[];
    details text;
    hint text;
BEGIN
    BEGIN
        EXECUTE format('SELECT array_agg(v) FROM pg_temp.%I($1) AS v', scenario) INTO verdicts USING id;
        RAISE EXCEPTION USING errcode = 'UE000';
    EXCEPTION
        WHEN SQLSTATE 'UE000' THEN
            RETURN QUERY SELECT (v).* FROM unnest(verdicts) AS v;
        WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS details = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
            RETURN QUERY VALUES (concat_ws(' ', sqlerrm, details, hint), 'no error', replace(scenario, '_', ' '));
    END;
END
$$;

CREATE FUNCTION pg_temp.what_does_not_run(id text) RETURNS SETOF pg_temp.verdict
LANGUAGE plpgsql AS $$
DECLARE
    the_row public.challenges;
BEGIN
    PERFORM build.qualify(id, 255);
    UPDATE challenges AS c SET active = FALSE WHERE c.id = $1;
    RETURN QUERY VALUES (
        concat_ws(' ', pg_temp.report(id, pg_temp.friday()), 'rows:', cardinality(pg_temp.rows_of(id))),
        'inactive 0 0 0 0 rows: 0',
        'rule 1: an inactive challenge does nothing and says so'
    );
    DELETE FROM challenges AS c WHERE c.id = $1 RETURNING c.* INTO the_row;
    RETURN QUERY VALUES (
        concat_ws(' ', pg_temp.report(id, pg_temp.friday()), 'rows:', cardinality(pg_temp.rows_of(id))),
        'absent 0 0 0 0 rows: 0',
        'rule 1: an absent challenge does nothing and says so'
    );
    the_row.active := TRUE;
    INSERT INTO challenges SELECT the_row.*;
    PERFORM build.run(ARRAY[id], as_of => pg_temp.friday());
    RETURN QUERY VALUES (
        pg_temp.completed(id, 255), '255', 'rule 1: when it is active again it pays what was due meanwhile'
    );
END
$$;

CREATE FUNCTION pg_temp.what_is_final(id text) RETURNS SETOF pg_temp.verdict
LANGUAGE plpgsql AS $$
DECLARE
    complete text[];
BEGIN
    PERFORM build.qualify(id, 255);
    PERFORM build.run(ARRAY[id], as_of => pg_temp.friday());
    -- As a service may have left it that was here before.
    UPDATE user_challenges SET
        current_step_count = -5,
        completed_blocknumber = NULL,
        amount = 77,
        completed_at = NULL
    WHERE challenge_id = id AND is_complete;
    complete := pg_temp.rows_of(id);
    RETURN QUERY VALUES (pg_temp.completed(id, 255), '255', 'rule 2: there is a complete row');
    PERFORM build.run(ARRAY[id], full_scan => TRUE, as_of => pg_temp.friday());
    RETURN QUERY VALUES (
        pg_temp.difference(complete, pg_temp.rows_of(id)),
        'none',
        'rule 2: a complete row stays, whatever an earlier service wrote there'
    );
    UPDATE challenges AS c SET
        amount = '4711',
        step_count = CASE WHEN c.type = 'numeric' THEN 20000 ELSE c.step_count END,
        starting_block = 2147483647
    WHERE c.id = $1;
    PERFORM build.run(ARRAY[id], as_of => pg_temp.friday());
    PERFORM build.run(ARRAY[id], full_scan => TRUE, as_of => pg_temp.monday());
    RETURN QUERY VALUES (
        pg_temp.difference(complete, pg_temp.rows_of(id)),
        'none',
        'rule 2: a complete row stays, whatever happens to the catalog'
    );
    UPDATE users SET is_deactivated = TRUE;
    PERFORM build.run(ARRAY[id], full_scan => TRUE, as_of => pg_temp.monday() + '1 day'::interval);
    PERFORM build.forget('users');
    UPDATE users SET is_deactivated = FALSE;
    PERFORM build.run(ARRAY[id], full_scan => TRUE, as_of => pg_temp.monday() + '2 days'::interval);
    PERFORM build.forget();
    PERFORM build.run(ARRAY[id], full_scan => TRUE, as_of => pg_temp.monday() + '3 days'::interval);
    RETURN QUERY VALUES (
        pg_temp.difference(complete, pg_temp.rows_of(id)),
        'none',
        'rule 2: a complete row stays, whatever happens to the sources'
    );
END
$$;

-- A numeric challenge: an incomplete row follows the sources. Others have none, or one with rules of its own.
CREATE FUNCTION pg_temp.what_is_incomplete(id text) RETURNS SETOF pg_temp.verdict
LANGUAGE plpgsql AS $$
DECLARE
    target integer := (SELECT c.step_count FROM challenges AS c WHERE c.id = $1 AND c.type = 'numeric');
    tuesday timestamptz := pg_temp.monday() + '1 day'::interval;
BEGIN
    PERFORM build.almost(id, 171);
    PERFORM build.run(ARRAY[id], as_of => pg_temp.friday());
    RETURN QUERY VALUES (pg_temp.completed(id, 171), 'nobody', 'who lacks one thing has nothing complete');
    IF target IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT
        string_agg(
            concat_ws(
                ' ', u.current_step_count, u.is_complete, u.amount, u.created_at = pg_temp.friday(),
                num_nulls(u.completed_at, u.completed_blocknumber)
            ),
            ', '
        ),
        (
            SELECT concat_ws(' ', target - 1, FALSE, c.amount, TRUE, 2) FROM challenges AS c
            WHERE c.id = $1
        ),
        'rules 3, 5, 6: an incomplete row has its steps, the amount of the catalog, and nothing of a completion'
    FROM user_challenges AS u
    WHERE u.challenge_id = $1;
    UPDATE challenges AS c SET amount = '4711' WHERE c.id = $1;
    PERFORM build.run(ARRAY[id], as_of => pg_temp.monday());
    RETURN QUERY
    SELECT
        string_agg(concat_ws(' ', u.current_step_count, u.amount, u.created_at = pg_temp.friday()), ', '),
        concat_ws(' ', target - 1, 4711, TRUE),
        'rule 5: an incomplete row takes a changed amount'
    FROM user_challenges AS u
    WHERE u.challenge_id = $1;
    PERFORM build.forget('users', 'blocks');
    PERFORM build.run(ARRAY[id], full_scan => TRUE, as_of => pg_temp.monday());
    RETURN QUERY
    SELECT
        string_agg(concat_ws(' ', u.current_step_count BETWEEN 0 AND target - 2, u.is_complete), ', '),
        concat_ws(' ', TRUE, FALSE),
        'rule 3: an incomplete row follows the sources down'
    FROM user_challenges AS u
    WHERE u.challenge_id = $1;
    PERFORM build.forget();
    PERFORM build.qualify(id, 171);
    PERFORM build.run(ARRAY[id], as_of => tuesday);
    RETURN QUERY
    SELECT
        string_agg(
            concat_ws(
                ' ', u.current_step_count, u.is_complete, u.amount, u.created_at = pg_temp.friday(),
                u.completed_at = tuesday AT TIME ZONE 'UTC', num_nulls(u.completed_blocknumber)
            ),
            ', '
        ),
        concat_ws(' ', target, TRUE, 4711, TRUE, TRUE, 0),
        'rules 3, 6, 7: it follows them up, completes at the target, and stays created when it was'
    FROM user_challenges AS u
    WHERE u.challenge_id = $1;
    RETURN QUERY
    SELECT
        string_agg(l.operation, ' ' ORDER BY l.id),
        'INSERT UPDATE UPDATE UPDATE',
        'rule 10: it is written once for each change, and no more'
    FROM user_challenges_log AS l
    WHERE l.challenge_id = $1;
END
$$;

CREATE FUNCTION pg_temp.what_is_complete(id text) RETURNS SETOF pg_temp.verdict
LANGUAGE plpgsql AS $$
DECLARE
    challenge public.challenges;
BEGIN
    PERFORM set_config('timezone', 'Asia/Tokyo', TRUE);
    UPDATE challenges AS c SET amount = '4711' WHERE c.id = $1 RETURNING c.* INTO challenge;
    PERFORM build.qualify(id, 255);
    PERFORM build.qualify(id, 256);
    PERFORM build.almost(id, 171);
    PERFORM build.run(ARRAY[id], as_of => pg_temp.friday());
    RETURN QUERY VALUES (
        pg_temp.completed(id, 255, 256, 171), '255 256', 'whoever qualifies completes in one run, and nobody else'
    );
    RETURN QUERY
    SELECT
        string_agg(DISTINCT concat_ws(' of ', u.current_step_count, challenge.step_count), ', '),
        CASE challenge.type
            WHEN 'numeric' THEN concat_ws(' of ', challenge.step_count, challenge.step_count)
            ELSE string_agg(
                DISTINCT concat_ws(
                    ' of ', least(greatest(u.current_step_count, 1), coalesce(challenge.step_count, 1)),
                    challenge.step_count
                ),
                ', '
            )
        END,
        'rule 4: the steps of a complete row are the target''s, or 1'
    FROM user_challenges AS u
    WHERE u.challenge_id = $1 AND u.is_complete;
    IF NOT build.is_exempt(id, 'amount') THEN
        RETURN QUERY
        SELECT
            string_agg(DISTINCT u.amount::text, ' '), '4711', 'rule 5: the amount is the catalog''s'
        FROM user_challenges AS u
        WHERE u.challenge_id = $1;
    END IF;
    IF NOT build.is_exempt(id, 'created_at') THEN
        RETURN QUERY
        SELECT
            string_agg(DISTINCT (u.created_at AT TIME ZONE 'UTC')::text, ' '),
            (pg_temp.friday() AT TIME ZONE 'UTC')::text,
            'rule 6: created_at is the time of the run'
        FROM user_challenges AS u
        WHERE u.challenge_id = $1;
    END IF;
    IF NOT build.is_exempt(id, 'completed_at') THEN
        RETURN QUERY
        SELECT
            string_agg(DISTINCT u.completed_at::text, ' '),
            (pg_temp.friday() AT TIME ZONE 'UTC')::text,
            'rule 6: completed_at is the time of the run in UTC, whatever the time zone'
        FROM user_challenges AS u
        WHERE u.challenge_id = $1 AND u.is_complete;
    END IF;
    RETURN QUERY
    SELECT
        count(*) FILTER (WHERE u.created_at IS NULL OR u.completed_at IS NULL)::text,
        '0',
        'rule 6: no complete row lacks its times'
    FROM user_challenges AS u
    WHERE u.challenge_id = $1 AND u.is_complete;
    RETURN QUERY
    SELECT
        string_agg(DISTINCT coalesce(u.completed_blocknumber::text, 'null'), ' '),
        (SELECT max(number)::text FROM blocks),
        'rule 7: completed_blocknumber is the greatest block'
    FROM user_challenges AS u
    WHERE u.challenge_id = $1 AND u.is_complete;
    IF NOT build.is_exempt(id, 'specifier') THEN
        RETURN QUERY
        SELECT
            count(*) FILTER (WHERE NOT starts_with(u.specifier, to_hex(u.user_id)))::text,
            '0',
            'rule 12: specifiers begin with the user id in lower-case hex'
        FROM user_challenges AS u
        WHERE u.challenge_id = $1;
    END IF;
    RETURN QUERY
    SELECT
        count(*)::text,
        (SELECT count(*)::text FROM user_challenges AS u WHERE u.challenge_id = $1 AND u.is_complete),
        'the application''s trigger notifies once for each complete row'
    FROM notification AS n
    WHERE n.data ->> 'challenge_id' = $1 AND n.user_ids[1] IN (255, 256);
END
$$;

CREATE FUNCTION pg_temp.what_has_more_steps_than_the_target(id text) RETURNS SETOF pg_temp.verdict
LANGUAGE plpgsql AS $$
DECLARE
    target integer;
BEGIN
    UPDATE challenges AS c SET step_count = c.step_count - 1 WHERE c.id = $1 AND c.type = 'numeric'
    RETURNING c.step_count INTO target;
    IF target IS NOT NULL THEN
        PERFORM build.qualify(id, 255);
        PERFORM build.run(ARRAY[id], as_of => pg_temp.friday());
        RETURN QUERY
        SELECT
            string_agg(u.current_step_count::text, ' '), target::text, 'rule 4: steps never exceed the target'
        FROM user_challenges AS u
        WHERE u.challenge_id = $1;
    END IF;
END
$$;

CREATE FUNCTION pg_temp.what_a_bad_amount_does(id text) RETURNS SETOF pg_temp.verdict
LANGUAGE plpgsql AS $$
DECLARE
    good text := (SELECT c.amount FROM challenges AS c WHERE c.id = $1);
    before text[];
    failures text;
BEGIN
    PERFORM build.qualify(c.challenge_id, 1000 + c.number) FROM build.challenges() AS c
    WHERE build.has_builders(c.challenge_id) OR c.challenge_id = $1;
    before := pg_temp.rows_of(id);
    UPDATE challenges AS c SET amount = '1.5' WHERE c.id = $1;
    SELECT string_agg(concat_ws(' ', r.challenge_id, r.error), E'\n') INTO failures
    FROM reconcile_challenges(as_of => pg_temp.friday()) AS r
    WHERE r.status = 'failed';
    RETURN QUERY VALUES (
        regexp_replace(failures, format('^%s [^\n]*"%s"[^\n]*"1[.]5"[^\n]*$', id, id), 'fails with id and value'),
        'fails with id and value',
        'rule 5: an amount that is not a whole number fails that challenge alone, and says which and what'
    );
    RETURN QUERY VALUES (
        pg_temp.difference(before, pg_temp.rows_of(id)), 'none', 'rules 5, 11: a challenge that fails writes nothing'
    );
    RETURN QUERY
    SELECT
        string_agg(c.challenge_id, ' ') FILTER (
            WHERE build.has_builders(c.challenge_id)
                AND pg_temp.completed(c.challenge_id, 1000 + c.number) = 'nobody'
        ),
        id,
        'rule 11: one that fails stops and undoes none of the others'
    FROM build.challenges() AS c;
    UPDATE challenges AS c SET amount = good WHERE c.id = $1;
    PERFORM build.run(as_of => pg_temp.friday());
    RETURN QUERY
    SELECT
        pg_temp.completed(id, 1000 + c.number),
        (1000 + c.number)::text,
        'rule 11: it does what it could not do when its trouble is over'
    FROM build.challenges() AS c
    WHERE c.challenge_id = $1;
END
$$;

CREATE FUNCTION pg_temp.what_a_deactivated_user_gains(id text) RETURNS SETOF pg_temp.verdict
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM build.qualify(id, 255);
    UPDATE users SET is_deactivated = TRUE WHERE user_id = 255;
    PERFORM build.run(ARRAY[id], as_of => pg_temp.friday());
    RETURN QUERY VALUES (pg_temp.rows_of(id)::text, '{}', 'rule 8: a deactivated user gains nothing');
    UPDATE users SET is_deactivated = FALSE, is_current = FALSE WHERE user_id = 255;
    PERFORM build.run(ARRAY[id], full_scan => TRUE, as_of => pg_temp.friday());
    RETURN QUERY VALUES (pg_temp.rows_of(id)::text, '{}', 'rule 8: a user without a current row gains nothing');
    IF NOT build.is_exempt(id, 'back again') THEN
        UPDATE users SET is_current = TRUE WHERE user_id = 255;
        PERFORM build.run(ARRAY[id], full_scan => TRUE, as_of => pg_temp.friday());
        RETURN QUERY VALUES (
            pg_temp.completed(id, 255), '255', 'rule 8: a user who is back gains what there is then'
        );
    END IF;
END
$$;

CREATE FUNCTION pg_temp.what_another_run_changes(id text) RETURNS SETOF pg_temp.verdict
LANGUAGE plpgsql AS $$
DECLARE
    before text[];
    effect text;
BEGIN
    PERFORM build.qualify(id, 255);
    PERFORM build.almost(id, 171);
    PERFORM build.run(ARRAY[id], as_of => pg_temp.friday());
    before := ARRAY(SELECT build.tuples('public'));
    RETURN QUERY VALUES (pg_temp.completed(id, 255), '255', 'rule 10: there is something to be changed');
    effect := pg_temp.effect(id, pg_temp.friday());
    RETURN QUERY VALUES (
        concat_ws(E'\n', effect, pg_temp.difference(before, ARRAY(SELECT build.tuples('public')))),
        E'ok 0 0 0\nnone',
        'rule 10: running again reports nothing and changes not a tuple version'
    );
    effect := pg_temp.effect(id, pg_temp.monday());
    RETURN QUERY VALUES (
        concat_ws(E'\n', effect, pg_temp.difference(before, ARRAY(SELECT build.tuples('public')))),
        E'ok 0 0 0\nnone',
        'rule 10: running later reports nothing and changes not a tuple version'
    );
    effect := pg_temp.effect(id, pg_temp.monday(), full_scan => TRUE);
    RETURN QUERY VALUES (
        concat_ws(E'\n', effect, pg_temp.difference(before, ARRAY(SELECT build.tuples('public')))),
        E'ok 0 0 0\nnone',
        'rule 10: a full scan reports nothing and changes not a tuple version'
    );
    effect := pg_temp.effect(id, pg_temp.monday(), dry_run => TRUE);
    RETURN QUERY VALUES (
        concat_ws(E'\n', effect, pg_temp.difference(before, ARRAY(SELECT build.tuples('public')))),
        E'ok 0 0 0\nnone',
        'rule 10: a dry run reports nothing and changes not a tuple version'
    );
END
$$;

CREATE FUNCTION pg_temp.what_a_dry_run_does(id text) RETURNS SETOF pg_temp.verdict
LANGUAGE plpgsql AS $$
DECLARE
    before text[];
    dry text;
BEGIN
    PERFORM build.qualify(id, 255);
    PERFORM build.almost(id, 171);
    before := ARRAY(SELECT build.tuples('public', 'audius_challenges'));
    dry := pg_temp.report(id, pg_temp.friday(), dry_run => TRUE);
    RETURN QUERY VALUES (
        pg_temp.difference(before, ARRAY(SELECT build.tuples('public', 'audius_challenges'))),
        'none',
        'a dry run keeps nothing, not even of its own state'
    );
    RETURN QUERY VALUES (
        dry, pg_temp.report(id, pg_temp.friday()), 'a dry run reports what the run after it does'
    );
    RETURN QUERY VALUES (pg_temp.completed(id, 255), '255', 'the run after a dry run does it');
END
$$;

CREATE FUNCTION pg_temp.what_the_sweep_finds(id text) RETURNS SETOF pg_temp.verdict
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM build.run(ARRAY[id], as_of => pg_temp.friday());
    PERFORM build.run(ARRAY[id], as_of => pg_temp.friday());
    PERFORM build.qualify(id, 255);
    PERFORM build.unstamp();
    PERFORM build.run(ARRAY[id], as_of => pg_temp.friday());
    RETURN QUERY VALUES (pg_temp.completed(id, 255), '255', 'the sweep finds what has no block number');
END
$$;

CREATE TEMPORARY TABLE judged AS
SELECT
    s.challenge_id,
    v.found,
    v.expected,
    v.rule
FROM build.challenges() AS s
CROSS JOIN
    unnest(ARRAY[
        'what_does_not_run', 'what_is_final', 'what_is_incomplete', 'what_is_complete',
        'what_has_more_steps_than_the_target', 'what_a_bad_amount_does', 'what_a_deactivated_user_gains',
        'what_another_run_changes', 'what_a_dry_run_does', 'what_the_sweep_finds'
    ]) AS scenario
CROSS JOIN LATERAL pg_temp.verdicts_of(scenario, s.challenge_id) AS v;

SELECT is(found, expected, format('%s: %s', challenge_id, rule))
FROM judged;
SELECT cmp_ok(count(v.rule), '>=', 24::bigint, format('%s: the rules were tested', s.challenge_id))
FROM build.challenges() AS s
LEFT JOIN judged AS v ON s.challenge_id = v.challenge_id
GROUP BY s.challenge_id;

SELECT * FROM finish();
ROLLBACK;
