"""What the commands ask of a database, each question in SQL as the extension's interface has it."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, LiteralString, Self, TypeVar

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import Diagnostic
from psycopg.rows import class_row

from audius_challenges_cli.errors import CommandError, Exit, explained
from audius_challenges_cli.lenient import read_leniently

Record = TypeVar("Record")

OLDEST = (2, 0)
"""The oldest version of the extension that has everything asked here."""
_RUNS = """
    WITH turn AS (
        -- A row that stands for many runs, which failed alike, is taken for the last of them.
        SELECT
            challenge_id, rows_completed, error, ended_at,
            CASE WHEN runs > 1 THEN ended_at - duration / runs ELSE started_at END AS began_at
        FROM {home}.challenge_history
        WHERE duration IS NOT NULL AND ended_at >= now() - %s::interval
    ),
    bounded AS (
        SELECT
            turn.*,
            began_at > max(ended_at) OVER (ORDER BY began_at ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
            + INTERVAL '2 seconds' AS is_first
        FROM turn
    ),
    numbered AS (
        SELECT bounded.*, count(*) FILTER (WHERE is_first) OVER (ORDER BY began_at) AS run FROM bounded
    ),
    run AS (
        SELECT
            min(began_at) AS began_at,
            max(ended_at) - min(began_at) AS duration,
            array_agg(challenge_id ORDER BY began_at) AS challenges,
            sum(rows_completed)::bigint AS completions,
            coalesce(array_agg(challenge_id ORDER BY began_at) FILTER (WHERE error IS NOT NULL), '{}') AS failed
        FROM numbered
        GROUP BY run
    )
"""
SETTINGS = (
    "default_transaction_isolation = 'read committed'", "TimeZone = 'UTC'", "DateStyle = 'ISO'",
    "IntervalStyle = 'postgres'",
)  # fmt: skip
"""Of each session, whatever the role or the database has."""
SECRETS = ("password", "secret", "scram_client_key", "scram_server_key")
"""In the names of what has no place on a command line."""
INTEGER = range(-(2**31), 2**31)
CONNECT_TIMEOUT = 10
"""Seconds, unless the environment or the connection string says otherwise."""


@dataclass(frozen=True)
class Challenge:
    """A row of challenge_status, and how many users a first build or a catching up has yet to come to."""

    challenge_id: str
    description: str
    status: str
    last_run: dt.datetime | None
    last_success: dt.datetime | None
    consecutive_failures: int
    last_error: str | None
    last_error_at: dt.datetime | None
    sweep_progress: Decimal | None
    sweep_rounds: int | None
    users_set_aside: int
    tick_problem: str | None
    backlog: int
    unpayable_rows: int | None = None


@dataclass(frozen=True)
class Finding:
    """A row of doctor()."""

    severity: str
    what: str
    found: str | None
    expected: str | None
    statement: str | None


@dataclass(frozen=True)
class Line:
    """A row of explain_challenge()."""

    challenge_id: str
    line: str
    what: str | None
    demanded: str | None
    has: str | None
    holds: bool | None
    since: dt.datetime | None
    state: str | None
    says: str | None
    specifier: str | None
    amount: int | None
    is_paid: bool | None
    claimable_at: dt.datetime | None


@dataclass(frozen=True)
class Deed:
    """A row of challenge_history: what a run did for a challenge."""

    started_at: dt.datetime
    challenge_id: str
    status: str
    duration: dt.timedelta | None
    users_examined: int | None
    rows_inserted: int | None
    rows_updated: int | None
    rows_completed: int | None
    users_set_aside: int | None
    error: str | None
    runs: int
    ended_at: dt.datetime


@dataclass(frozen=True)
class Day:
    """A row of challenge_day: what a challenge paid on a day."""

    day: dt.date
    challenge_id: str
    completions: int
    amount: Decimal
    is_backfilled: bool


@dataclass(frozen=True)
class Uncounted:
    """A challenge whose past is still being counted by day."""

    challenge_id: str


@dataclass(frozen=True)
class Outcome:
    """A row of reconcile_challenges()."""

    challenge_id: str
    status: str
    users_examined: int
    rows_inserted: int
    rows_updated: int
    rows_completed: int
    duration: dt.timedelta
    error: str | None


@dataclass(frozen=True)
class Minute:
    """How many rewards were completed in a minute, by the history."""

    minute: dt.datetime
    completions: int


@dataclass(frozen=True)
class Ticks:
    """The last tick and the schedule, in seconds, as metrics() has them; None where it is not known."""

    age: float | None
    duration: float | None
    interval: float | None


@dataclass(frozen=True)
class Past:
    """A run in the history: turns of challenges, each of which began before the one before it had long ended."""

    began_at: dt.datetime
    duration: dt.timedelta
    challenges: list[str]
    completions: int
    failed: list[str]


@dataclass(frozen=True)
class Hour:
    """How long the runs of an hour took, in seconds, by the history."""

    hour: dt.datetime
    runs: int
    median: float
    longest: float
    failures: int


@dataclass(frozen=True)
class Failure:
    """An error in the history, and how often it came."""

    challenge_id: str
    error: str
    times: int
    first: dt.datetime
    last: dt.datetime


@dataclass(frozen=True)
class Unpaid:
    """What is earned and not paid yet, of a challenge."""

    challenge_id: str
    in_cooldown: bool
    rewards: int
    amount: Decimal


@dataclass(frozen=True)
class Aside:
    """Users whose rows cannot be written, by challenge and error."""

    challenge_id: str
    error: str
    users: int
    example: int
    since: dt.datetime


@dataclass(frozen=True)
class User:
    """Whom a question is about."""

    user_id: int
    handle: str | None


class Database:
    """A connection to a database with the extension.

    Opening it raises CommandError if nobody answers, the password is on the command line, or the extension is not
    there or too old; so does every question that the server refuses.
    """

    def __init__(self, target: str | None, *, reads_only: bool = True) -> None:
        self._connection = _connect(target)
        self.role = self._connection.info.user
        with self._explained():
            for setting in SETTINGS:
                self._connection.execute(f"SET {setting}".encode())
            read_leniently(self._connection)
            self.home, self.version = self._find_extension()
            if reads_only:
                self._connection.execute("SET default_transaction_read_only = on")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the session."""
        self._connection.close()

    @property
    def name(self) -> str:
        """The database, and where it is."""
        info = self._connection.info
        host = info.host if info.host and not info.host.startswith("/") else "this machine"
        return f"{info.dbname} on {host}, port {info.port}"

    @property
    def is_lost(self) -> bool:
        """Whether the connection is gone."""
        return bool(self._connection.closed)

    @property
    def server(self) -> str:
        """The server's version."""
        return self._connection.info.parameter_status("server_version") or ""

    def on_notice(self, listener: Callable[[Diagnostic], None]) -> None:
        """Has the server's notices handed on."""
        self._connection.add_notice_handler(listener)

    def cancel(self) -> None:
        """Cancels what the server is doing for us, and waits until it has stopped."""
        with self._explained():
            self._connection.cancel_safe(timeout=5)

    # Questions

    def challenges(self, *, with_unpayable: bool = False) -> list[Challenge]:
        """How each challenge fares, in run order.

        :param with_unpayable: count complete rows without completed_blocknumber, which reads user_challenges
        """
        unpayable = ", status.unpayable_rows" if with_unpayable else ""
        return self._ask(
            Challenge,
            f"""
            SELECT
                status.challenge_id, status.description, status.status, status.last_run, status.last_success,
                status.consecutive_failures, status.last_error, status.last_error_at, status.sweep_progress,
                status.sweep_rounds, status.users_set_aside, status.tick_problem,
                coalesce(backlog.value, 0)::bigint AS backlog{unpayable}
            FROM {{home}}.challenge_status AS status
            LEFT JOIN audius_challenges.metrics() AS backlog
                ON backlog.name = 'audius_challenges_backlog_users'
                AND backlog.labels ->> 'challenge' = status.challenge_id
            """,
        )

    def ticks(self) -> Ticks:
        """When the last tick was, how long it took, and how often there is to be one."""
        (found,) = self._ask(
            Ticks,
            """
            SELECT
                max(value) FILTER (WHERE name = 'audius_challenges_tick_age_seconds') AS age,
                max(value) FILTER (WHERE name = 'audius_challenges_tick_duration_seconds') AS duration,
                max(value) FILTER (WHERE name = 'audius_challenges_tick_interval_seconds') AS interval
            FROM audius_challenges.metrics()
            """,
        )
        return found

    def findings(self) -> list[Finding]:
        """What doctor() says."""
        return self._ask(Finding, "SELECT severity, what, found, expected, statement FROM audius_challenges.doctor()")

    def find_user(self, name: str) -> User:
        """The user of an id or a handle: digits are an id, unless @ precedes them.

        :raises CommandError: if nobody has the handle, several have it, or no id is so great
        """
        if re.fullmatch("-?[0-9]{1,4000}", name):
            user_id = int(name)
            if user_id not in INTEGER:
                raise CommandError(
                    f"no user has the id {name}", f"Ids go from {INTEGER[0]} to {INTEGER[-1]}.", Exit.WARNING
                )
            found = self._ask(
                User,
                "SELECT user_id, handle FROM {home}.users WHERE user_id = %s AND is_current ORDER BY blocknumber DESC",
                user_id,
            )
            return found[0] if found else User(user_id, None)
        handle = name.removeprefix("@")
        found = self._ask(
            User,
            "SELECT DISTINCT user_id, handle FROM {home}.users WHERE handle_lc = lower(%s) AND is_current"
            " ORDER BY user_id",
            handle,
        )
        if not found:
            raise CommandError(
                f"no user has the handle {handle}",
                "A user id works, too.",
                Exit.WARNING,
            )
        if len({user.user_id for user in found}) > 1:
            ids = ", ".join(str(user.user_id) for user in found)
            raise CommandError(f"several users have the handle {handle}: {ids}", "Ask by the id.", Exit.WARNING)
        return found[0]

    def named(self, challenges: Sequence[str] | None) -> list[str] | None:
        """The ids of the challenges that somebody has named, in upper or lower case. None stays None: all.

        :raises CommandError: if there is no such challenge
        """
        if not challenges:
            return None
        known = [row.challenge_id for row in self.challenges()]
        found = []
        for name in challenges:
            alike = [name] if name in known else [each for each in known if each.lower() == name.lower()]
            if len(alike) != 1:
                raise CommandError(f'unknown challenge id: "{name}"', f"The challenges are {', '.join(known)}.")
            found += alike
        return found

    def explain(self, user: User, challenge: str | None) -> list[Line]:
        """What explain_challenge() says of a user."""
        (wanted,) = self.named([challenge] if challenge else None) or (None,)
        return self._ask(
            Line,
            """
            SELECT
                challenge_id, line, what, demanded, has, holds, since, state, says, specifier, amount, is_paid,
                claimable_at
            FROM {home}.explain_challenge(%s::integer, %s)
            """,
            user.user_id,
            wanted,
        )

    def history(
        self, challenges: Sequence[str] | None = None, *, limit: int | None = None, failures: bool = False
    ) -> list[Deed]:
        """What runs did, the newest first."""
        return self._ask(
            Deed,
            """
            SELECT
                started_at, challenge_id, status, duration, users_examined, rows_inserted, rows_updated,
                rows_completed, users_set_aside, error, runs, ended_at
            FROM {home}.challenge_history
            WHERE (%s::text[] IS NULL OR challenge_id = ANY (%s)) AND (NOT %s OR error IS NOT NULL)
            ORDER BY ended_at DESC, challenge_id
            LIMIT %s
            """,
            challenges,
            challenges,
            failures,
            limit,
        )

    def days(
        self,
        challenges: Sequence[str] | None = None,
        *,
        since: dt.date | None = None,
        until: dt.date | None = None,
        limit: int | None = None,
    ) -> list[Day]:
        """What was completed each day, the newest first; since and until are days of it."""
        return self._ask(
            Day,
            """
            SELECT day, challenge_id, completions, amount, is_backfilled
            FROM audius_challenges.challenge_day
            WHERE (%s::text[] IS NULL OR challenge_id = ANY (%s))
                AND (%s::date IS NULL OR day >= %s) AND (%s::date IS NULL OR day <= %s)
            ORDER BY day DESC, challenge_id
            LIMIT %s
            """,
            challenges,
            challenges,
            since,
            since,
            until,
            until,
            limit,
        )

    def uncounted(self, challenges: Sequence[str] | None = None) -> list[str]:
        """The challenges whose past is still being counted by day, in run order."""
        found = self._ask(
            Uncounted,
            """
            SELECT status.challenge_id
            FROM {home}.challenge_status AS status
            LEFT JOIN audius_challenges.day_backfill AS backfill ON backfill.challenge_id = status.challenge_id
            WHERE status.status NOT IN ('absent', 'inactive', 'elsewhere') AND backfill.is_done IS NOT TRUE
                AND (%s::text[] IS NULL OR status.challenge_id = ANY (%s))
            """,
            challenges,
            challenges,
        )
        return [row.challenge_id for row in found]

    def minutes(self, count: int) -> list[Minute]:
        """Completions of each of the last minutes, the oldest first."""
        return self._ask(
            Minute,
            """
            SELECT minute, coalesce(sum(history.rows_completed), 0)::bigint AS completions
            FROM generate_series(
                date_trunc('minute', now()) - (%s - 1) * INTERVAL '1 minute', date_trunc('minute', now()),
                INTERVAL '1 minute'
            ) AS minute
            LEFT JOIN {home}.challenge_history AS history
                ON history.started_at >= minute AND history.started_at < minute + INTERVAL '1 minute'
            GROUP BY minute
            ORDER BY minute
            """,
            count,
        )

    def runs(self, since: dt.timedelta, limit: int) -> list[Past]:
        """The last runs that did something, the newest first."""
        return self._ask(Past, f"{_RUNS} SELECT * FROM run ORDER BY began_at DESC LIMIT %s", since, limit)

    def hours(self, since: dt.timedelta) -> list[Hour]:
        """How long runs took, by hour."""
        return self._ask(
            Hour,
            f"""
            {_RUNS}
            SELECT
                date_trunc('hour', began_at) AS hour,
                count(*) AS runs,
                percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM duration)) AS median,
                max(extract(epoch FROM duration))::double precision AS longest,
                count(*) FILTER (WHERE failed <> '{{}}') AS failures
            FROM run
            GROUP BY 1
            ORDER BY 1
            """,
            since,
        )

    def failures(self, limit: int) -> list[Failure]:
        """The errors of the history, the most recent first."""
        return self._ask(
            Failure,
            """
            SELECT challenge_id, error, sum(runs)::bigint AS times, min(started_at) AS first, max(ended_at) AS last
            FROM {home}.challenge_history
            WHERE error IS NOT NULL
            GROUP BY challenge_id, error
            ORDER BY last DESC, challenge_id
            LIMIT %s
            """,
            limit,
        )

    def unpaid(self) -> list[Unpaid]:
        """What is earned and not paid yet."""
        return self._ask(
            Unpaid,
            """
            SELECT challenge_id, in_cooldown, count(*) AS rewards, coalesce(sum(amount), 0)::numeric AS amount
            FROM {home}.undisbursed_challenges
            GROUP BY challenge_id, in_cooldown
            ORDER BY challenge_id, in_cooldown
            """,
        )

    def set_aside(self, limit: int) -> list[Aside]:
        """Users whose rows cannot be written, those that have waited longest first."""
        return self._ask(
            Aside,
            """
            SELECT
                challenge_id, error, count(DISTINCT user_id) AS users, min(user_id) AS example,
                min(set_aside_at) AS since
            FROM audius_challenges.set_aside
            GROUP BY challenge_id, error
            ORDER BY since, challenge_id
            LIMIT %s
            """,
            limit,
        )

    def reconcile(
        self, challenges: Sequence[str] | None, *, full_scan: bool, dry_run: bool, as_of: dt.datetime | None
    ) -> list[Outcome]:
        """One run, in a transaction of its own."""
        return self._ask(
            Outcome,
            """
            SELECT
                challenge_id, status, users_examined, rows_inserted, rows_updated, rows_completed, duration, error
            FROM {home}.reconcile_challenges(%s, %s, %s, coalesce(%s, now()))
            """,
            challenges,
            full_scan,
            dry_run,
            as_of,
        )

    # Within

    def _ask(self, record: type[Record], query: str, *parameters: object) -> list[Record]:
        with self._explained(), self._connection.cursor(row_factory=class_row(record)) as cursor:
            composed = query.replace("{home}", sql.Identifier(self.home).as_string(self._connection))
            cursor.execute(composed.encode(), parameters or None)
            return cursor.fetchall()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise explained(error, self.role) from error

    def _find_extension(self) -> tuple[str, str]:
        query: LiteralString = """
            SELECT namespace.nspname, extension.extversion
            FROM pg_catalog.pg_extension AS extension
            INNER JOIN pg_catalog.pg_namespace AS namespace
                ON extension.extnamespace = namespace.oid
            WHERE extension.extname = 'audius_challenges'
        """
        found: tuple[Any, ...] | None = self._connection.execute(query).fetchone()
        name = self._connection.info.dbname
        if found is None:
            raise CommandError(
                f"the database {name} does not have the extension audius_challenges",
                "Another database is named by -d or PGDATABASE. Else: CREATE EXTENSION audius_challenges CASCADE.",
            )
        home, version = found
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
            oldest = ".".join(map(str, (*OLDEST, 0)))
            raise CommandError(
                f"the database {name} has audius_challenges {version}; this command needs {oldest} or newer",
                "ALTER EXTENSION audius_challenges UPDATE; see docs/how-to/upgrade.md.",
            )
        return home, version


def _connect(target: str | None) -> psycopg.Connection[Any]:
    try:
        # As psql takes it: a connection string, a URI, or the name of a database.
        given: dict[str, Any] = {}
        if target:
            is_string = "=" in target or target.startswith(("postgresql://", "postgres://"))
            given = dict(conninfo_to_dict(target)) if is_string else {"dbname": target}
        if named := next((name for name in given if given[name] and any(part in name for part in SECRETS)), None):
            what = {"password": "a password"}.get(named, named)
            raise CommandError(
                f"{what} on the command line can be seen by everybody on this machine",
                "Leave it to ~/.pgpass, PGPASSWORD or a service in ~/.pg_service.conf.",
            )
        # libpq takes the rest from the environment and the service.
        if "PGCONNECT_TIMEOUT" not in os.environ:
            given.setdefault("connect_timeout", CONNECT_TIMEOUT)
        given.setdefault("fallback_application_name", "audius-challenges")
        given["client_encoding"] = "UTF8"
        return psycopg.connect(**given, autocommit=True)
    except psycopg.Error as error:
        raise CommandError(
            f"cannot connect: {str(error).strip()}",
            "It connects as psql does: -d NAME, PGHOST, PGPORT, PGUSER, PGDATABASE, PGSERVICE, ~/.pgpass.",
        ) from error
