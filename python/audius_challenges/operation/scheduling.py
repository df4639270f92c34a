"""The schedule: pg_cron jobs that tick this database, and a daily one that trims what pg_cron records of them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from audius_challenges.annotations import Any
from audius_challenges.database import Database
from audius_challenges.engine import history
from audius_challenges.errors import OBJECT_NOT_IN_PREREQUISITE_STATE, ChallengeError, null_argument
from audius_challenges.settings import PREFIX, read_settings

TICK = "audius_challenges tick"
TICK_HALF_MINUTE = "audius_challenges tick +30s"
TRIM = "audius_challenges trim"
HELPER_JOBS = tuple(f"audius_challenges helper {number}" for number in range(1, 64))
"""The jobs of helpers: ticks create and remove them."""
JOBS = (TICK, TICK_HALF_MINUTE, TRIM, *HELPER_JOBS)

TICK_COMMAND = "CALL audius_challenges.tick()"
HELP_COMMAND = "CALL audius_challenges.help()"
TRIM_COMMAND = "SELECT audius_challenges.trim_run_details()"
TRIM_SCHEDULE = "23 3 * * *"
KEPT_DAYS = 7

# So many running jobs of pg_cron are left to ticks, which are two jobs before 1.5; or one and the daily one.
TICKING = 2

FIRST_WITH_SECONDS = (1, 5)

_MINUTE, _HOUR = 60, 3600

_REMEMBER_SCHEDULE = """
    INSERT INTO audius_challenges.last_tick (singleton, scheduled_at)
    SELECT
        true,
        clock_timestamp()
    ON CONFLICT (singleton) DO UPDATE SET scheduled_at = excluded.scheduled_at
"""

Job = tuple[str, str, str]
"""Name, schedule, command."""


def schedule(db: Database, every: str | None) -> list[dict[str, Any]]:
    """Replace whatever schedule of ours there is.

    :param every: the interval between two ticks, as text
    :returns: the jobs, as they stand in `cron.job`
    :raises ChallengeError: if pg_cron cannot tick this database, or not at this interval
    """
    if every is None:
        raise null_argument("every")
    knows_seconds = pg_cron_version(db) >= FIRST_WITH_SECONDS
    jobs = [*_ticks(db, every, knows_seconds=knows_seconds), (TRIM, TRIM_SCHEDULE, TRIM_COMMAND)]
    unschedule(db)
    for name, when, command in jobs:
        _schedule(db, name, when, command)
    db.rows(_REMEMBER_SCHEDULE)
    if _cron_setting(db, "use_background_workers") == "off":
        db.plpy.notice(
            'pg_cron will connect over libpq; ticks fail with "connection failed" if it needs a password',
            hint="Allow its connections without a password (cron.host, pg_hba.conf), or set"
            " cron.use_background_workers = on and restart the server.",
        )
    return _jobs(db)


def unschedule(db: Database) -> list[dict[str, Any]]:
    """Remove every job of ours, wherever it points.

    :returns: the jobs that were removed
    :raises ChallengeError: if pg_cron is not in this database
    """
    pg_cron_version(db)
    jobs = _jobs(db)
    for job in jobs:
        db.rows("SELECT cron.unschedule(:job_id::bigint)", job_id=job["jobid"])
    return jobs


def call_helpers(db: Database, number: int) -> None:
    """Have jobs for so many helpers, and for no more; no more, either, than pg_cron can run beside the jobs that tick.

    :raises ChallengeError: if pg_cron is not in this database
    """
    running = db.value("SELECT max_running_jobs FROM audius_challenges.schedule_facts()")
    most = len(HELPER_JOBS) if running is None else running - TICKING
    if number > most:
        db.plpy.warning(
            f"{max(most, 0)} of {number} helpers get a job: cron.max_running_jobs is {most + TICKING}",
            detail="Helpers run as long as there is work. Ticks must not wait for them.",
            hint=f"Set {PREFIX}workers lower, or cron.max_running_jobs to {number + TICKING} or more,"
            " which takes a restart.",
        )
        number = max(most, 0)
    when = "5 seconds" if pg_cron_version(db) >= FIRST_WITH_SECONDS else "* * * * *"
    there = {job["jobname"]: job["jobid"] for job in _jobs(db, HELPER_JOBS)}
    for name in HELPER_JOBS[:number]:
        if name not in there:
            _schedule(db, name, when, HELP_COMMAND)
    for name in HELPER_JOBS[number:]:
        if name in there:
            db.rows("SELECT cron.unschedule(:job_id::bigint)", job_id=there[name])


def trim_run_details(db: Database) -> int:
    """Delete what pg_cron recorded of our jobs more than a week ago, and return how many rows that were.

    It is what the daily job calls, so it trims the history of runs, too.

    :raises ChallengeError: if pg_cron is not in this database
    """
    pg_cron_version(db)
    history.trim(db, read_settings(db).history_days)
    deleted: int = db.value(
        f"""
        WITH deleted AS (
            DELETE FROM cron.job_run_details
            WHERE (command ~* '^ *call +audius_challenges[.](tick|help) *[(]' OR command = '{TRIM_COMMAND}')
                AND CASE
                    WHEN coalesce(end_time, start_time) IS NOT NULL
                        THEN coalesce(end_time, start_time) < clock_timestamp() - interval '{KEPT_DAYS} days'
                    -- A refused connection is recorded without any time: what a week of ticks leaves is kept.
                    ELSE runid < (SELECT max(runid) FROM cron.job_run_details) - {KEPT_DAYS} * 24 * 60 * 2
                END
            RETURNING 1
        )
        SELECT count(*) FROM deleted
        """
    )
    return deleted


def has_pg_cron(db: Database) -> bool:
    """Whether pg_cron is installed in this database."""
    return bool(db.value("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_cron')"))


def _schedule(db: Database, name: str, when: str, command: str) -> None:
    db.rows(
        "SELECT cron.schedule(:name::text, :schedule::text, :command::text)", name=name, schedule=when, command=command
    )


def _jobs(db: Database, names: Sequence[str] = JOBS) -> list[dict[str, Any]]:
    return db.rows(
        """
        SELECT jobid, jobname::text AS jobname, schedule, command, database
        FROM cron.job
        WHERE jobname = ANY(:names::text[])
        ORDER BY jobname
        """,
        names=list(names),
    )


def how_to_get_pg_cron(db: Database) -> str:
    """What to do where pg_cron is not installed in this database."""
    home = db.value("SELECT home FROM audius_challenges.schedule_facts()")
    here = db.value("SELECT current_database()::text")
    if home is None:
        return "Add pg_cron to shared_preload_libraries, restart the server, then CREATE EXTENSION pg_cron;"
    if home == here:
        return "CREATE EXTENSION pg_cron; SELECT * FROM schedule_challenges();"
    version = db.value("SELECT max(default_version) FROM pg_available_extensions WHERE name = 'pg_cron'")
    jobs = _ticks(db, "30 seconds", knows_seconds=_major_and_minor(version) >= FIRST_WITH_SECONDS)
    commands = db.value(
        """
        SELECT string_agg(
            format(
                'SELECT cron.schedule_in_database(%L, %L, %L, %L);',
                job[1] || ' ' || current_database()::text, job[2], job[3], current_database()
            ),
            ' '
        )
        FROM jsonb_array_elements(:jobs::jsonb) AS element
        CROSS JOIN LATERAL (SELECT ARRAY(SELECT jsonb_array_elements_text(element)) AS job) AS parts
        """,
        jobs=json.dumps(jobs),
    )
    return f"The database of pg_cron is {home}. Run there: CREATE EXTENSION IF NOT EXISTS pg_cron; {commands}"


def _cron_setting(db: Database, name: str) -> str | None:
    """A setting of pg_cron; None if it is not loaded, or if its settings are not ours to see."""
    found = db.rows("SELECT setting FROM pg_settings WHERE pg_settings.name = :name::text", name=f"cron.{name}")
    return found[0]["setting"] if found else None


def pg_cron_version(db: Database) -> tuple[int, ...]:
    """Major and minor of the pg_cron of this database.

    :raises ChallengeError: if it has none
    """
    found = db.rows("SELECT extversion AS version FROM pg_extension WHERE extname = 'pg_cron'")
    if not found:
        raise ChallengeError(
            "pg_cron is not installed in this database",
            sqlstate=OBJECT_NOT_IN_PREREQUISITE_STATE,
            hint=how_to_get_pg_cron(db),
        )
    return _major_and_minor(found[0]["version"])


def _major_and_minor(version: str) -> tuple[int, ...]:
    """(1, 4) of 1.4-1."""
    return tuple(int(number) for number in version.split("-", maxsplit=1)[0].split(".")[:2])


def _ticks(db: Database, every: str, *, knows_seconds: bool) -> list[Job]:
    seconds = db.value("SELECT extract(epoch FROM :every::interval)::float8", every=every)
    if knows_seconds and 1 <= seconds < _MINUTE and seconds == int(seconds):
        return [(TICK, f"{int(seconds)} seconds", TICK_COMMAND)]
    if seconds == 30:
        half_minute = "CALL audius_challenges.tick(delay => '30 seconds')"
        return [(TICK, "* * * * *", TICK_COMMAND), (TICK_HALF_MINUTE, "* * * * *", half_minute)]
    if seconds > 0 and seconds % _MINUTE == 0 and _HOUR % seconds == 0:
        minutes = int(seconds // _MINUTE)
        return [(TICK, "0 * * * *" if minutes == 60 else f"*/{minutes} * * * *", TICK_COMMAND)]
    possible = (
        "1 to 59 whole seconds" if knows_seconds else "30 seconds (the only interval below a minute before pg_cron 1.5)"
    )
    raise ChallengeError(
        f"challenges cannot be scheduled every {every}",
        hint=f"Use {possible}, or a number of whole minutes that divides 60, such as 1, 5 or 60.",
    )
