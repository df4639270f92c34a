"""Checks of the doctor: whether ticks come, as a role that may do what they do, in time and in peace."""

from __future__ import annotations

import re
from collections.abc import Iterator

from audius_challenges.database import Row
from audius_challenges.engine.open_slices import HELPERS
from audius_challenges.errors import INSUFFICIENT_PRIVILEGE, ChallengeError
from audius_challenges.operation.findings import CRITICAL, NOTICE, WARNING, Examined, Finding
from audius_challenges.operation.scheduling import FIRST_WITH_SECONDS, TICK_HALF_MINUTE, TRIM_COMMAND, pg_cron_version
from audius_challenges.operation.stillness import find_stillness
from audius_challenges.operation.transaction import may_cut_off
from audius_challenges.operation.triggers import trigger_needs
from audius_challenges.settings import (
    PREFIX,
    expected_of,
    is_off,
    nearest_name,
    read_settings,
    stored_settings,
    unknown_settings,
)
from audius_challenges.sources import EMPTIED, TABLES, WITHHELD, Table

# One or two failures resolve themselves: a lock, a restart.
MANY_FAILURES = 3

# Seconds for which a transaction may be open.
PATIENCE = 600

_FAILURES = """
    SELECT
        challenge_id,
        consecutive_failures,
        last_error
    FROM audius_challenges.processor_state
    WHERE consecutive_failures > 0
    ORDER BY challenge_id
"""

# Routines that jobs call, and those that these need.
OF_TICKS = ("tick", "load", "trim_run_details")

# What grant_run grants, as far as it is missing. Grants on columns do where they are on all that are declared.
_LACKING = """
    WITH member AS (
        SELECT
            dependency.classid,
            dependency.objid AS oid
        FROM pg_extension AS extension
        INNER JOIN pg_depend AS dependency
            ON dependency.refclassid = 'pg_extension'::regclass
            AND dependency.refobjid = extension.oid
            AND dependency.deptype = 'e'
        WHERE extension.extname = 'audius_challenges'
    ),

    relation AS (
        SELECT
            found.oid,
            wanted.privilege,
            wanted.columns,
            wanted.is_for_ticks,
            format('%s ON %I.%I', wanted.privilege, namespace.nspname, found.relname) AS description
        FROM (
            SELECT
                class.oid,
                of_a_run.privilege,
                '' AS columns,
                class.relkind = 'r' AS is_for_ticks
            FROM member
            INNER JOIN pg_class AS class
                ON member.classid = 'pg_class'::regclass
                AND member.oid = class.oid
            CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS of_a_run (privilege)
            WHERE CASE
                    WHEN class.relkind = 'v' THEN of_a_run.privilege = 'SELECT'
                    WHEN of_a_run.privilege = 'DELETE' THEN class.relname = ANY(:emptied::text[])
                    ELSE class.relkind = 'r'
                END
            UNION ALL
            SELECT
                class.oid,
                unnest(string_to_array(declared.privileges, ', ')),
                declared.columns,
                TRUE
            FROM unnest(:tables::text[], :privileges::text[], :columns::text[]) AS declared (name, privileges, columns)
            INNER JOIN pg_class AS class
                ON class.relname = declared.name
                AND class.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :schema::text)
        ) AS wanted
        INNER JOIN pg_class AS found
            ON wanted.oid = found.oid
        INNER JOIN pg_namespace AS namespace
            ON namespace.oid = found.relnamespace
    )

    SELECT
        needed.privilege,
        needed.is_for_ticks
    FROM (
        SELECT
            'USAGE ON SCHEMA ' || quote_ident(namespace.nspname),
            namespace.nspname <> 'cron',
            has_schema_privilege(:role::text::name, namespace.oid, 'USAGE')
        FROM pg_namespace AS namespace
        WHERE namespace.nspname IN ('audius_challenges', 'cron', :schema::text)
            OR namespace.nspname = ANY(
                regexp_split_to_array(current_setting('audius_challenges.trigger_schemas', TRUE), ' *, *')
            )
        UNION ALL
        SELECT
            'EXECUTE ON ' || routine.oid::regprocedure,
            routine.proname = ANY(:of_ticks::text[]),
            has_function_privilege(:role::text::name, routine.oid, 'EXECUTE')
        FROM member
        INNER JOIN pg_proc AS routine
            ON member.classid = 'pg_proc'::regclass
            AND member.oid = routine.oid
        WHERE routine.oid <> ALL(:withheld::text[]::regprocedure[])
        UNION ALL
        SELECT
            relation.description,
            relation.is_for_ticks,
            has_table_privilege(:role::text::name, relation.oid, relation.privilege)
            OR (
                relation.privilege <> 'DELETE'
                AND relation.columns <> ''
                AND (
                    SELECT bool_and(has_column_privilege(:role::text::name, attrelid, attnum, relation.privilege))
                    FROM pg_attribute
                    WHERE attrelid = relation.oid
                        AND attname = ANY(string_to_array(relation.columns, ' '))
                        AND (attnum > 0 OR relation.privilege = 'SELECT')
                )
            )
        FROM relation
        UNION ALL
        SELECT
            format('USAGE ON SEQUENCE %I.%I', namespace.nspname, sequence.relname),
            TRUE,
            -- Also asked of what is no sequence, before the condition below.
            CASE WHEN sequence.relkind = 'S' THEN has_sequence_privilege(:role::text::name, sequence.oid, 'USAGE') END
        FROM pg_namespace AS namespace
        INNER JOIN pg_class AS filled
            ON filled.relnamespace = namespace.oid
            AND filled.relname = 'notification'
        INNER JOIN pg_depend AS dependency
            ON dependency.refclassid = 'pg_class'::regclass
            AND dependency.refobjid = filled.oid
            AND dependency.classid = 'pg_class'::regclass
            AND dependency.deptype IN ('a', 'i')
        INNER JOIN pg_class AS sequence
            ON sequence.oid = dependency.objid
            AND sequence.relkind = 'S'
        WHERE namespace.nspname = :schema::text
    ) AS needed (privilege, is_for_ticks, is_there)
    WHERE NOT needed.is_there
    ORDER BY
        NOT needed.is_for_ticks,
        needed.privilege
"""

_HIDDEN = """
    SELECT relation.relname::text AS name
    FROM pg_class AS relation
    INNER JOIN pg_namespace AS namespace
        ON namespace.oid = relation.relnamespace
        AND namespace.nspname = :schema::text
    INNER JOIN pg_roles AS role
        ON role.rolname = :role::text::name
    WHERE relation.relname = ANY(:tables::text[])
        AND relation.relrowsecurity
        AND NOT role.rolsuper
        AND NOT role.rolbypassrls
        AND (relation.relforcerowsecurity OR NOT pg_has_role(role.oid, relation.relowner, 'USAGE'))
    ORDER BY relation.relname
"""

# A number without a unit is milliseconds; a day is none of PostgreSQL's for intervals.
_SECONDS = """
    SELECT CASE
        WHEN :setting::text ~ '^ *[0-9]+ *$' THEN :setting::text::float8 / 1000
        ELSE extract(epoch FROM :setting::text::interval)::float8
    END
"""

_OLD = """
    SELECT
        pid,
        coalesce(datname::text, 'no database') AS database,
        coalesce(usename::text, 'nobody') AS role,
        state,
        date_trunc('second', clock_timestamp() - xact_start)::text AS age,
        backend_xid IS NOT NULL AS has_written
    FROM pg_stat_activity
    WHERE pid <> pg_backend_pid()
        AND backend_type = 'client backend'
        AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL)
        AND xact_start < clock_timestamp() - :patience::float8 * interval '1 second'
    ORDER BY xact_start
    LIMIT 10
"""

# A helper that has nothing in hands has no transaction for longer than it sleeps.
_HELPERS = """
    SELECT
        helper.pid,
        coalesce(helper.usename::text, 'nobody') AS role,
        date_trunc('second', clock_timestamp() - helper.xact_start)::text AS age,
        coalesce(helper.wait_event_type || ': ' || helper.wait_event, 'at work') AS waits
    FROM pg_locks AS lock
    INNER JOIN pg_stat_activity AS helper
        ON lock.pid = helper.pid
    WHERE lock.locktype = 'advisory'
        AND lock.classid = :class::bigint::oid
        AND lock.objid >= :object::bigint::oid
        AND lock.objsubid = 2
        AND lock.granted
        AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND helper.xact_start < clock_timestamp() - :patience::float8 * interval '1 second'
    ORDER BY helper.pid
"""

_PREPARED = """
    SELECT
        quote_literal(gid) AS gid,
        quote_ident(database) AS database,
        owner::text AS owner,
        date_trunc('second', clock_timestamp() - prepared)::text AS age
    FROM pg_prepared_xacts
    WHERE prepared < clock_timestamp() - :patience::float8 * interval '1 second'
    ORDER BY prepared
    LIMIT 10
"""

_SLOTS = """
    SELECT
        slot_name::text AS name,
        slot_type AS kind,
        coalesce(xmin, catalog_xmin) IS NOT NULL AS holds,
        pg_size_pretty(
            pg_wal_lsn_diff(
                CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                restart_lsn
            )
        ) AS wal
    FROM pg_replication_slots
    WHERE NOT active
        AND coalesce(xmin, catalog_xmin) IS NOT NULL
        AND slot_name !~ '^(audius_challenges|pg_[0-9]+_sync)_'
    ORDER BY slot_name
    LIMIT 10
"""

_VERSIONS = """
    SELECT
        extension.extversion AS installed,
        available.default_version AS available
    FROM pg_extension AS extension
    INNER JOIN pg_available_extensions AS available
        ON available.name = extension.extname
    WHERE extension.extname = 'audius_challenges'
        AND available.default_version <> extension.extversion
"""


def stillness(examined: Examined) -> Iterator[Finding]:
    """Whether ticks come: what `challenge_status` says in `tick_problem`, but for what a node's guard says."""
    still = find_stillness(examined.db)
    if not still or still.reason in [share.says for share in examined.shares]:
        return
    what = "nothing ticks" if still.status == "stopped" else "a tick is overdue"
    # What a tick has remembered comes in one text.
    reason, _, hint = still.reason.partition(" HINT: ")
    expected = still.hint or hint or "ticks come"
    yield Finding(CRITICAL if still.status == "stopped" else WARNING, what, reason, expected, still.statement)


def jobs(examined: Examined) -> Iterator[Finding]:
    """Whether the jobs are those that `schedule_challenges()` creates, and their last runs succeeded."""
    ticks = examined.ticks
    if not ticks:
        return
    schedule = f"SELECT * FROM {examined.home}.schedule_challenges('{examined.facts['period']:g} seconds');"
    if len(owners := {job["username"] for job in ticks}) > 1:
        found = "; ".join(f"job {job['jobid']} of {job['username']}: {job['command']}" for job in ticks)
        expected = f"one of {', '.join(sorted(owners))} ticks; the others call unschedule_challenges()"
        yield Finding(WARNING, "several roles tick", found, expected)
    elif pg_cron_version(examined.db) < FIRST_WITH_SECONDS:
        yield from _halves(ticks, examined)
    elif len(ticks) > 1:
        found = f"{len(ticks)} jobs: {', '.join(job['jobname'] or job['command'] for job in ticks)}"
        yield Finding(NOTICE, "more jobs than needed", found, "one job, since pg_cron knows seconds", schedule)
    if not any(job["command"] == TRIM_COMMAND and job["active"] for job in examined.jobs):
        expected = f"a daily job calls {TRIM_COMMAND.removeprefix('SELECT ')}"
        yield Finding(NOTICE, "nothing trims cron.job_run_details", "no active job does", expected, schedule)
    for job in examined.jobs:
        message = (job["last_message"] or "").partition("\n")[0]
        # Challenges that fail are findings of their own.
        if job["failures"] and not re.search(r"\d+ of \d+ challenges failed", message):
            severity = CRITICAL if job["failures"] >= MANY_FAILURES else WARNING
            found = f"{job['failures']} times since its last success: {message}"
            expected = 'its runs succeed; see docs/how-to/troubleshoot.md, "What pg_cron recorded"'
            yield Finding(severity, f"job {job['jobid']} of pg_cron fails ({job['command']})", found, expected)


def _halves(ticks: list[Row], examined: Examined) -> Iterator[Finding]:
    """Before pg_cron 1.5, half a minute is two jobs: one without the other ticks half as often as it was asked to."""
    names = {job["jobname"] for job in examined.jobs if job["is_tick"]}
    if TICK_HALF_MINUTE in names and len(ticks) == 1:
        yield Finding(
            WARNING,
            "one of the two jobs that tick is missing or inactive",
            f"only job {ticks[0]['jobid']} is active: {ticks[0]['command']}",
            "two jobs a minute, the second with a delay of 30 seconds: pg_cron before 1.5 knows no seconds",
            f"SELECT * FROM {examined.home}.schedule_challenges();",
        )


def failures(examined: Examined) -> Iterator[Finding]:
    """Challenges whose last run failed."""
    for row in examined.db.rows(_FAILURES):
        error, _, hint = (row["last_error"] or "").partition(" HINT: ")
        # What policies hide is a finding of its own: no grant mends that.
        is_refused = f"(SQLSTATE {INSUFFICIENT_PRIVILEGE})" in error and "row-level security" not in error
        yield Finding(
            CRITICAL if row["consecutive_failures"] >= MANY_FAILURES else WARNING,
            f'challenge "{row["challenge_id"]}" fails',
            f"{row['consecutive_failures']} times in a row: {error}",
            hint or "see docs/reference/errors.md",
            _grants(examined, examined.roles) if is_refused else "",
        )


def _grants(examined: Examined, roles: list[str]) -> str:
    """SQL that grants roles what runs take."""
    return " ".join(f"SELECT audius_challenges.grant_run({examined.literal(role)});" for role in roles)


def privileges(examined: Examined) -> Iterator[Finding]:
    """Whether the roles that tick have what `grant_run` grants."""
    if not examined.roles and not examined.me["is_standby"]:
        expected = "ask as a role that ticks, or see that it has called grant_run()"
        yield Finding(NOTICE, "not checked: privileges of the role that ticks", "no job is seen here", expected)
    declared = [table for table in TABLES.values() if table.name in examined.contract.columns or not table.columns]
    for role in examined.roles:
        lacking = examined.db.rows(
            _LACKING,
            role=role,
            schema=examined.db.schema,
            tables=[table.name for table in declared],
            privileges=[table.privileges for table in declared],
            columns=[" ".join(_columns(table)) for table in declared],
            emptied=list(EMPTIED),
            withheld=[f"audius_challenges.{routine}" for routine in WITHHELD],
            of_ticks=list(OF_TICKS),
        )
        if lacking:
            may_tick = not lacking[0]["is_for_ticks"]
            yield Finding(
                NOTICE if may_tick else CRITICAL,
                f"role {role} lacks privileges" + (" that ticks do without" if may_tick else ""),
                _some([row["privilege"] for row in lacking]),
                "what grant_run() grants",
                _grants(examined, [role]),
            )


def _columns(table: Table) -> list[str]:
    """The columns that are read or written of a table; with `xmin` where that tells what has changed."""
    return [*table.columns, *(["xmin"] if table.clock else [])]


def trigger_privileges(examined: Examined) -> Iterator[Finding]:
    """Whether they have what the application's triggers seem to need."""
    for role in examined.roles:
        for need in trigger_needs(examined.db, role):
            if need.grants:
                yield Finding(
                    CRITICAL,
                    f"role {role} lacks privileges for trigger {need.trigger} on {need.table}",
                    f"its function {need.function} seems to need {', '.join(need.grants)}",
                    "a role that runs challenges may do what the application's triggers do",
                    " ".join(f"GRANT {grant} TO {examined.ident(role)};" for grant in need.grants),
                )


def row_security(examined: Examined) -> Iterator[Finding]:
    """Whether policies hide rows from the roles that tick."""
    for role in examined.roles:
        hidden = examined.db.rows(_HIDDEN, role=role, schema=examined.db.schema, tables=list(TABLES))
        if hidden:
            yield Finding(
                CRITICAL,
                f"row-level security hides rows from role {role}",
                f"policies on {', '.join(row['name'] for row in hidden)}",
                "a run sees all rows: what it cannot see it must not take for gone, so it fails",
                f"ALTER ROLE {examined.ident(role)} BYPASSRLS;",
            )


def settings(examined: Examined) -> Iterator[Finding]:
    """Settings that switch runs off, that do not parse, or that have unknown names."""
    is_known = False
    for stored in examined.stored:
        if stored.role and stored.role not in examined.roles:
            continue
        found = f"{stored.name} = '{stored.value}' for {stored.scope}"
        if expected := expected_of(stored):
            is_known = True
            yield Finding(CRITICAL, "a setting is invalid, so ticks fail", found, expected, stored.reset)
        elif stored.name == f"{PREFIX}enabled" and is_off(stored.value):
            is_known = True
            yield Finding(CRITICAL, "challenges are switched off", found, f"{stored.name} is on", stored.reset)
    for unknown in unknown_settings(examined.db):
        is_sql = unknown.reset.startswith(("ALTER", "RESET"))
        expected = f"the nearest name is {nearest_name(unknown)}" + ("" if is_sql else f"; {unknown.reset}")
        yield Finding(
            WARNING,
            "a setting is unknown, so it has no effect",
            unknown.name,
            expected,
            unknown.reset if is_sql else "",
        )
    if is_known:
        return
    try:
        enabled = read_settings(examined.db).enabled
    except ChallengeError as error:
        yield Finding(CRITICAL, "a setting is invalid, so ticks fail", error.message, str(error.detail))
        return
    if not enabled:
        expected = f"{PREFIX}enabled is on: see this session, and the configuration files of the server"
        yield Finding(CRITICAL, "challenges are switched off", f"{PREFIX}enabled is off in this session", expected)


def statement_timeout(examined: Examined) -> Iterator[Finding]:
    """Whether a timeout may end ticks before their time budget is used up: it counts for a tick as a whole."""
    db = examined.db
    try:
        budget = read_settings(db).time_budget / 1000
    except ChallengeError:  # Which is a finding of its own.
        return
    delay = 30.0 if any("delay" in job["command"] for job in examined.ticks) else 0.0
    for role in examined.roles:
        kept = [each for each in stored_settings(db, "statement_timeout") if each.role in (role, None)]
        if kept:
            setting, scope = kept[0].value, kept[0].scope
        else:
            setting = db.value("SELECT reset_val FROM pg_settings WHERE name = 'statement_timeout'")
            scope = "the server"
        seconds = db.value(_SECONDS, setting=setting)
        if may_cut_off(seconds, delay, budget):
            where = f" IN DATABASE {examined.me['database']}" if "IN DATABASE" in scope else ""
            yield Finding(
                WARNING,
                f"statement_timeout may cut off the ticks of role {role}",
                f"{seconds:g} s, set for {scope}",
                f"0, or more than {delay + budget:g} s: a delay of {delay:g} s, and the time budget of {budget:g} s",
                f"ALTER ROLE {examined.ident(role)}{where} SET statement_timeout = 0;",
            )


def old_transactions(examined: Examined) -> Iterator[Finding]:
    """Sessions whose transactions have been open for long."""
    if not examined.me["sees_sessions"]:
        yield Finding(
            NOTICE,
            "not checked: old transactions of other roles",
            f"role {examined.me['role']} does not see them",
            "a role that has pg_read_all_stats",
            f"GRANT pg_read_all_stats TO {examined.me['name']};",
        )
    for row in examined.db.rows(_OLD, patience=PATIENCE):
        idles = (row["state"] or "").startswith("idle")
        effect = "makes every tick read again what was written since" if row["has_written"] else "holds VACUUM back"
        end_it = f"SELECT pg_terminate_backend({row['pid']});"
        yield Finding(
            WARNING if row["has_written"] else NOTICE,
            f"an old transaction {effect}",
            f"process {row['pid']} of {row['role']} in {row['database']}: {row['state']}, open for {row['age']}",
            "it ends" if idles else f"it ends by itself, or by {end_it}",
            end_it if idles else "",
        )


def helpers(examined: Examined) -> Iterator[Finding]:
    """Helpers that have had a slice in hands for long: whatever begins the round anew waits for them."""
    class_, first = HELPERS
    for row in examined.db.rows(_HELPERS, **{"class": class_, "object": first}, patience=PATIENCE):
        yield Finding(
            WARNING,
            "a helper has had a slice in hands for long",
            f"process {row['pid']} of {row['role']}, for {row['age']}: {row['waits']}",
            "a slice takes seconds; if the process is ended, it is given back",
            f"SELECT pg_terminate_backend({row['pid']});",
        )


def prepared_transactions(examined: Examined) -> Iterator[Finding]:
    """Transactions that were prepared long ago, and neither committed nor rolled back."""
    for row in examined.db.rows(_PREPARED, patience=PATIENCE):
        yield Finding(
            WARNING,
            "an old prepared transaction makes every tick read again what was written since",
            f"{row['gid']} of {row['owner']} in {row['database']}, prepared {row['age']} ago",
            f"whoever prepared it knows which: COMMIT PREPARED {row['gid']}; or ROLLBACK PREPARED {row['gid']};"
            f" in database {row['database']}",
        )


def replication_slots(examined: Examined) -> Iterator[Finding]:
    """Slots without a consumer that keep VACUUM from removing rows, and WAL from being removed."""
    for row in examined.db.rows(_SLOTS):
        drop = f"SELECT pg_drop_replication_slot('{row['name']}');"
        yield Finding(
            WARNING,
            "a replication slot that nobody reads holds VACUUM back",
            f"{row['kind']} slot {row['name']}, behind by {row['wal']} of WAL",
            f"its consumer connects again, or, if it is gone for good: {drop}",
        )


def version(examined: Examined) -> Iterator[Finding]:
    """Whether the server has files of another version than the database."""
    for row in examined.db.rows(_VERSIONS):
        yield Finding(
            NOTICE,
            "the server has another version of the extension",
            f"{row['installed']} in this database, {row['available']} on the server",
            "see docs/how-to/upgrade.md",
            "ALTER EXTENSION audius_challenges UPDATE;",
        )


def _some(items: list[str]) -> str:
    """The first of them, and how many more there are."""
    most = 8
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
