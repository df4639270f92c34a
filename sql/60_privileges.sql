-- Nobody may call anything until it is granted; two functions grant what running and looking take.

CREATE FUNCTION audius_challenges.grant_run(role_name text)
RETURNS void
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    relation record;
    firing record;
    home text := (
        SELECT pg_catalog.quote_ident(namespace.nspname)
        FROM pg_catalog.pg_extension AS extension
        INNER JOIN pg_catalog.pg_namespace AS namespace
            ON extension.extnamespace = namespace.oid
        WHERE extension.extname = 'audius_challenges'
    );
BEGIN
    PERFORM audius_challenges.grant_status(role_name);
    EXECUTE pg_catalog.format('GRANT EXECUTE ON ALL ROUTINES IN SCHEMA audius_challenges TO %I', role_name);
    EXECUTE pg_catalog.format('REVOKE EXECUTE ON ROUTINE @WITHHELD_ROUTINES@ FROM %I', role_name);
    EXECUTE pg_catalog.format(
        'GRANT EXECUTE ON ROUTINE %1$s.reconcile_challenges(text[], boolean, boolean, timestamptz),'
        ' %1$s.schedule_challenges(interval), %1$s.unschedule_challenges(),'
        ' %1$s.sync_challenge_catalog(text, text[]) TO %2$I',
        home,
        role_name
    );
    EXECUTE pg_catalog.format(
        'GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA audius_challenges TO %I', role_name
    );
    -- Which is a view.
    EXECUTE pg_catalog.format('REVOKE INSERT, UPDATE ON audius_challenges.share_status FROM %I', role_name);
    EXECUTE pg_catalog.format('GRANT DELETE ON @EMPTIED_TABLES@ TO %I', role_name);
    FOR relation IN
        SELECT
            class.relname AS name,
            needed.privileges
        FROM (
            VALUES
                @DISCOVERY_PRIVILEGES@
        ) AS needed (name, privileges)
        INNER JOIN pg_catalog.pg_class AS class
            ON class.relname = needed.name
            AND class.relnamespace = pg_catalog.to_regnamespace(home)
    LOOP
        EXECUTE pg_catalog.format(
            'GRANT %s ON TABLE %s.%I TO %I', relation.privileges, home, relation.name, role_name
        );
    END LOOP;
    FOR relation IN
        SELECT sequence.oid::regclass AS name
        FROM pg_catalog.pg_class AS sequence
        INNER JOIN pg_catalog.pg_depend AS dependency
            ON dependency.classid = 'pg_catalog.pg_class'::regclass
            AND dependency.objid = sequence.oid
            AND dependency.deptype IN ('a', 'i')
        WHERE sequence.relkind = 'S'
            AND dependency.refobjid
            = pg_catalog.to_regclass(home || '.notification')
    LOOP
        EXECUTE pg_catalog.format('GRANT USAGE ON SEQUENCE %s TO %I', relation.name, role_name);
    END LOOP;
    IF pg_catalog.to_regnamespace('cron') IS NOT NULL THEN
        EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA cron TO %I', role_name);
    END IF;
    FOR relation IN
        SELECT namespace.nspname AS name
        FROM pg_catalog.pg_namespace AS namespace
        WHERE namespace.nspname = ANY(
                pg_catalog.regexp_split_to_array(
                    pg_catalog.current_setting('audius_challenges.trigger_schemas', TRUE), ' *, *'
                )
            )
    LOOP
        EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I', relation.name, role_name);
    END LOOP;
    FOR firing IN
        SELECT
            needs.trigger_name,
            needs.table_name,
            needs.function_name,
            (
                SELECT pg_catalog.string_agg(pg_catalog.format('GRANT %s TO %I;', lacking.privilege, role_name), ' ')
                FROM pg_catalog.unnest(needs.grants) AS lacking (privilege)
            ) AS statements
        FROM audius_challenges.trigger_needs(role_name) AS needs
    LOOP
        IF firing.statements IS NULL THEN
            RAISE NOTICE 'trigger "%" on %: what its function % needs cannot be told',
                firing.trigger_name, firing.table_name, firing.function_name
                USING HINT = 'A dry run as that role shows what is missing.';
        ELSE
            RAISE WARNING 'trigger "%" on %: its function % seems to need more',
                firing.trigger_name, firing.table_name, firing.function_name
                USING HINT = firing.statements;
        END IF;
    END LOOP;
END
$function$;

COMMENT ON FUNCTION audius_challenges.grant_run(text) IS
'Grants a role what it needs to run challenges, scheduled or by hand: the functions, the state, the discovery tables, '
'notification and user_score_features for the application''s triggers, the schemas of '
'audius_challenges.trigger_schemas, and usage on the schema cron. Warns of what further triggers on the tables that '
'runs write seem to need';

CREATE FUNCTION audius_challenges.grant_status(role_name text)
RETURNS void
LANGUAGE plpgsql
VOLATILE
SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    relation record;
    home text := (
        SELECT pg_catalog.quote_ident(namespace.nspname)
        FROM pg_catalog.pg_extension AS extension
        INNER JOIN pg_catalog.pg_namespace AS namespace
            ON extension.extnamespace = namespace.oid
        WHERE extension.extname = 'audius_challenges'
    );
BEGIN
    IF pg_catalog.to_regrole(pg_catalog.quote_ident(role_name)) IS NULL THEN
        RAISE EXCEPTION 'role "%" does not exist', role_name
            USING ERRCODE = 'undefined_object', HINT = 'Create the role first.';
    END IF;
    EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA audius_challenges, %s TO %I', home, role_name);
    EXECUTE pg_catalog.format(
        'GRANT EXECUTE ON FUNCTION audius_challenges.load(), audius_challenges.status(),'
        ' audius_challenges.unpayable_rows(text), audius_challenges.schedule_facts(), audius_challenges.tick_problem(),'
        ' audius_challenges.metrics(), audius_challenges.doctor(), audius_challenges.examine(),'
        ' audius_challenges.job_facts(), audius_challenges.shares(),'
        ' audius_challenges.undisbursed(bigint, text, bigint, text, text, bigint),'
        ' %s.explain_challenge(integer, text) TO %I',
        home,
        role_name
    );
    EXECUTE pg_catalog.format(
        'GRANT SELECT ON %1$s.challenge_status, %1$s.challenge_history, %1$s.undisbursed_challenges,'
        ' audius_challenges.share_status TO %2$I',
        home,
        role_name
    );
    EXECUTE pg_catalog.format(
        'GRANT SELECT ON audius_challenges.processor_state, audius_challenges.look, audius_challenges.pause,'
        ' audius_challenges.set_aside, audius_challenges.last_tick, audius_challenges.unpaid_friday,'
        ' audius_challenges.passed_over, audius_challenges.verified_user, audius_challenges.tastemaker_decision,'
        ' audius_challenges.history, audius_challenges.challenge_day, audius_challenges.day_backfill,'
        ' audius_challenges.slice,'
        ' audius_challenges.installation, audius_challenges.share_plan, audius_challenges.share_beat,'
        ' audius_challenges.share_batch, audius_challenges.share_node, audius_challenges.share_sent TO %I',
        role_name
    );
    FOR relation IN
        SELECT class.relname AS name
        FROM pg_catalog.pg_class AS class
        WHERE class.relname IN (
                @DISCOVERY_TABLES@
            )
            AND class.relnamespace = pg_catalog.to_regnamespace(home)
    LOOP
        EXECUTE pg_catalog.format('GRANT SELECT ON TABLE %s.%I TO %I', home, relation.name, role_name);
    END LOOP;
END
$function$;

COMMENT ON FUNCTION audius_challenges.grant_status(text) IS
'Grants a role what it needs to read challenge_status, challenge_history, undisbursed_challenges and '
'audius_challenges.share_status, to call metrics() '
'and doctor(), and to explain challenges: to read the discovery tables that challenges read';

-- Of routines that this script has just made, and of no others: the privileges of an object that an extension's script
-- touches are taken for the extension's own, and pg_dump would leave out what people have granted on it since. From
-- everybody: what default privileges have given would be taken for the extension's own, too.
SET LOCAL search_path = pg_catalog, pg_temp;

DO $block$
DECLARE
    made record;
BEGIN
    FOR made IN
        SELECT DISTINCT
            routine.oid::regprocedure AS routine,
            CASE WHEN privilege.grantee = 0 THEN 'PUBLIC' ELSE privilege.grantee::regrole::text END AS role
        FROM pg_extension AS extension
        INNER JOIN pg_depend AS member
            ON member.refclassid = 'pg_extension'::regclass
            AND member.refobjid = extension.oid
            AND member.deptype = 'e'
            AND member.classid = 'pg_proc'::regclass
        INNER JOIN pg_proc AS routine
            ON routine.oid = member.objid
        CROSS JOIN LATERAL aclexplode(coalesce(routine.proacl, acldefault('f', routine.proowner))) AS privilege
        LEFT JOIN pg_init_privs AS known
            ON known.classoid = member.classid
            AND known.objoid = member.objid
        WHERE extension.extname = 'audius_challenges'
            AND known.objoid IS NULL
            AND privilege.grantee <> routine.proowner
    LOOP
        EXECUTE format('REVOKE EXECUTE ON ROUTINE %s FROM %s', made.routine, made.role);
    END LOOP;
END
$block$;

-- Who could read the status before an upgrade can read it afterwards. As these grants are not the extension's own, they
-- are not left in the list of those that are, so that a dump has them.
DO $block$
DECLARE
    reader record;
BEGIN
    FOR reader IN
        SELECT DISTINCT
            CASE WHEN privilege.grantee = 0 THEN 'PUBLIC' ELSE privilege.grantee::regrole::text END AS name
        FROM pg_proc AS routine
        CROSS JOIN LATERAL aclexplode(routine.proacl) AS privilege
        WHERE routine.oid = 'audius_challenges.status()'::regprocedure
            AND privilege.grantee <> routine.proowner
    LOOP
        EXECUTE format(
            'GRANT EXECUTE ON FUNCTION audius_challenges.schedule_facts(), audius_challenges.tick_problem() TO %s',
            reader.name
        );
    END LOOP;
    UPDATE pg_init_privs
    SET initprivs = ARRAY[makeaclitem(routine.proowner, routine.proowner, 'EXECUTE', FALSE)]
    FROM pg_proc AS routine
    WHERE pg_init_privs.classoid = 'pg_proc'::regclass
        AND pg_init_privs.objoid = routine.oid
        AND routine.oid IN (
            'audius_challenges.schedule_facts()'::regprocedure, 'audius_challenges.tick_problem()'::regprocedure
        )
        AND EXISTS (
            SELECT FROM aclexplode(pg_init_privs.initprivs) AS privilege WHERE privilege.grantee <> routine.proowner
        );
    DELETE FROM pg_shdepend
    USING pg_database
    WHERE pg_database.datname = current_database()
        AND pg_shdepend.dbid = pg_database.oid
        AND pg_shdepend.classid = 'pg_proc'::regclass
        AND pg_shdepend.objid IN (
            'audius_challenges.schedule_facts()'::regprocedure, 'audius_challenges.tick_problem()'::regprocedure
        )
        AND pg_shdepend.deptype = 'i';
END
$block$;
