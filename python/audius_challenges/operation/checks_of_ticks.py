"""Checks of the doctor: whether ticks come, in time and in peace."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator

from audius_challenges.database import Row
from audius_challenges.engine.open_slices import HELPERS
from audius_challenges.errors import INSUFFICIENT_PRIVILEGE
from audius_challenges.operation.checks_of_roles import grants_of
from audius_challenges.operation.findings import CRITICAL, NOTICE, WARNING, Examined, Finding
from audius_challenges.operation.scheduling import (
    FIRST_WITH_SECONDS,
    HELPER_JOBS,
    TICK_HALF_MINUTE,
    TRIM_COMMAND,
    pg_cron_version,
)
from audius_challenges.operation.stillness import find_stillness

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

_HAS_HELPERS = "SELECT EXISTS (SELECT FROM audius_challenges.last_tick WHERE has_helpers)"

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

# Of a session that begins now.
_IS_COMPILED = """
    SELECT strpos(prosrc, 'BYTECODE = (' || :made_of::text) > 0
    FROM pg_proc
    WHERE oid = 'audius_challenges.load()'::regprocedure
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
    yield from _left_helpers(examined)
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


def _left_helpers(examined: Examined) -> Iterator[Finding]:
    """Jobs of helpers that no tick will remove: a role's ticks remove its own, and know whether there are any."""
    ticking = {job["username"] for job in examined.ticks}
    if examined.db.value(_HAS_HELPERS) and not ticking:
        return  # Without pg_cron whoever ticks removes them.
    for job in examined.jobs:
        if job["jobname"] in HELPER_JOBS and job["username"] not in ticking:
            yield Finding(
                WARNING,
                "a job of helpers that no tick removes",
                f"job {job['jobid']} of {job['username']}, of whom no job ticks: {job['command']}",
                "jobs of helpers are scheduled and removed by the ticks of the same role",
                f"SELECT cron.unschedule({job['jobid']});",
            )


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
            grants_of(examined, examined.roles) if is_refused else "",
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
    """Whether the server has files of another version than the database, or another Python than the package's."""
    for row in examined.db.rows(_VERSIONS):
        yield Finding(
            NOTICE,
            "the server has another version of the extension",
            f"{row['installed']} in this database, {row['available']} on the server",
            "see docs/how-to/upgrade.md",
            "ALTER EXTENSION audius_challenges UPDATE;",
        )
    package = getattr(sys.modules[__name__].__loader__, "digest", None)
    # A standby has the primary's.
    if not examined.me["is_standby"] and not examined.db.value(
        _IS_COMPILED, made_of=f"'{package}', '{importlib.util.MAGIC_NUMBER.hex()}'"
    ):
        yield Finding(
            NOTICE,
            "each session compiles the package",
            f"it is not compiled by the server's Python, {sys.version_info.major}.{sys.version_info.minor}",
            "compiled once, so that each tick begins sooner",
            "SELECT audius_challenges.compile();",
        )
