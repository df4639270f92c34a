"""Whether anything ticks: the one place that decides `stopped` and `late`, and says why and what to do."""

from __future__ import annotations

from dataclasses import dataclass

from audius_challenges.database import Database, Row
from audius_challenges.errors import ChallengeError
from audius_challenges.operation.scheduling import how_to_get_pg_cron
from audius_challenges.operation.transaction import lock_holder
from audius_challenges.settings import read_settings

_FACTS = "SELECT * FROM audius_challenges.schedule_facts()"

# A row, whether or not there has been a tick.
_LAST_TICK = """
    SELECT
        pg_is_in_recovery() AS is_standby,
        current_database()::text AS here,
        tick.problem,
        tick.ended_at::timestamptz(0)::text AS ended_at,
        extract(epoch FROM clock_timestamp() - greatest(tick.ended_at, tick.scheduled_at))::float8 AS age
    FROM (SELECT true) AS always
    LEFT JOIN audius_challenges.last_tick AS tick
        ON true
"""

# Where jobs cannot be seen, because pg_cron is in another database or something else ticks.
_UNKNOWN_PERIOD = 5 * 60
_DEFAULT_BUDGET = 25.0

_SCHEDULE = "SELECT * FROM schedule_challenges();"


@dataclass(frozen=True)
class Stillness:
    """Why challenges do not tick.

    :ivar status: stopped or late
    :ivar statement: SQL that mends it, if any does
    """

    status: str
    reason: str
    hint: str | None = None
    statement: str = ""

    def __str__(self) -> str:
        """Both in one text, as `last_error` has them."""
        return f"{self.reason} HINT: {self.hint}" if self.hint else self.reason


def find_stillness(db: Database) -> Stillness | None:
    """What keeps ticks from coming or from doing anything; None: they come.

    A standby is ticked by its primary, whose launcher cannot be seen from there.
    """
    last = db.row(_LAST_TICK)
    facts = db.row(_FACTS)
    if not last["is_standby"] and (stopped := _stopped(db, facts, last)):
        return stopped
    if last["problem"]:
        return Stillness("stopped", last["problem"])
    return _late(db, facts, last)


def _stopped(db: Database, facts: Row, last: Row) -> Stillness | None:
    """What is wrong with the schedule, as far as it can be seen from here."""
    if facts["has_pg_cron"] and facts["home"] is None:
        return Stillness(
            "stopped",
            "the server has not loaded pg_cron",
            "Add pg_cron to shared_preload_libraries and restart the server.",
        )
    if facts["home"] is not None and not facts["has_launcher"]:
        return Stillness(
            "stopped",
            "pg_cron's launcher does not run, so no job starts",
            "Restart the server. The launcher ends when all connections to pg_cron's database are terminated.",
        )
    if facts["has_pg_cron"] and facts["home"] != last["here"]:
        return Stillness(
            "stopped",
            f"pg_cron runs the jobs of database {facts['home']}, not those of this one",
            f"Set cron.database_name = '{last['here']}' and restart the server, or schedule in {facts['home']}.",
        )
    if facts["has_pg_cron"] and not facts["active_jobs"]:
        if facts["inactive_jobs"]:
            reason = "the jobs are switched off (cron.job.active is false)"
        elif facts["elsewhere"]:
            reason = f"the jobs tick another database: {facts['elsewhere']}"
        else:
            reason = "no job of pg_cron ticks this database"
        return Stillness("stopped", reason, _SCHEDULE, _schedule_here(db))
    if not facts["has_pg_cron"] and last["ended_at"] is None:
        statement = f"CREATE EXTENSION pg_cron; {_schedule_here(db)}" if facts["home"] == last["here"] else ""
        reason = "no tick has come yet, and no schedule is known here"
        return Stillness("stopped", reason, how_to_get_pg_cron(db), statement)
    return None


def _late(db: Database, facts: Row, last: Row) -> Stillness | None:
    """Whether a tick is overdue: two intervals and the time budget have passed."""
    period = facts["period"]
    if last["age"] is not None and last["age"] <= patience(db, period):
        return None
    since = f"the last tick ended at {last['ended_at']}" if last["ended_at"] else "no tick has ended yet"
    due = f", one is due every {period:g} s" if period else ""
    if facts["wrong_host"]:
        reason = f"the jobs connect to another server: {facts['wrong_host']}; {since}"
        return Stillness("stopped", reason, _SCHEDULE, _schedule_here(db))
    if holder := lock_holder(db):
        reason = f"{since}{due}; process {holder} holds the lock of a run"
        end_it = f"SELECT pg_terminate_backend({holder});"
        return Stillness("late", reason, f"If it is not at work: {end_it}", end_it)
    if not facts["has_pg_cron"]:
        return Stillness("late", since, "See cron.job_run_details in pg_cron's database, or what else calls tick().")
    return Stillness(
        "late",
        f"{since}{due}",
        "See cron.job_run_details: SELECT * FROM cron.job_run_details"
        " WHERE command LIKE 'CALL audius%' ORDER BY runid DESC LIMIT 5;",
    )


def patience(db: Database, period: float | None) -> float:
    """Seconds after which a tick is overdue, given how many are between two; None: nobody knows from here."""
    return 2 * period + _budget(db) if period else _UNKNOWN_PERIOD


def _schedule_here(db: Database) -> str:
    """The same, whatever the search_path is."""
    return f"SELECT * FROM {db.plpy.quote_ident(db.schema)}.schedule_challenges();"


def _budget(db: Database) -> float:
    try:
        return read_settings(db).time_budget / 1000
    except ChallengeError:  # Which ticks complain of; looking goes on.
        return _DEFAULT_BUDGET
