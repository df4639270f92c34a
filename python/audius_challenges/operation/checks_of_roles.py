"""Checks of the doctor: whether the roles that tick may do what ticks do, with the settings that they have."""

from __future__ import annotations

from collections.abc import Iterator

from audius_challenges.errors import ChallengeError
from audius_challenges.operation.findings import CRITICAL, NOTICE, WARNING, Examined, Finding
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


def grants_of(examined: Examined, roles: list[str]) -> str:
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
                grants_of(examined, [role]),
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


def _some(items: list[str]) -> str:
    """The first of them, and how many more there are."""
    most = 8
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
