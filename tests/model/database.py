"""The database under test: takes source rows from a model, runs, and gives derived rows back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from psycopg import errors, sql
from psycopg.rows import class_row
from psycopg.types.string import TextLoader

from devtools.cluster import Cluster
from devtools.discovery import Discovery
from tests.model.rows import (
    Challenge,
    ListenStreak,
    Play,
    ProfileCompletion,
    Row,
    Sources,
    TrendingResult,
    UserChallenge,
)
from tests.model.rules import MODELS, Outcome
from tests.model.spaces import USERS
from tests.sessions import replace_package

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Environment = Literal["prod", "stage", "dev"]
D = TypeVar("D", bound="DataclassInstance")

DERIVED = ("user_challenges", "challenge_profile_completion", "challenge_listen_streak", "trending_results")


@dataclass(frozen=True)
class Run:
    """One call of reconcile_challenges."""

    as_of: datetime | None
    """None: the present."""
    full_scan: bool = False
    rehearsed: bool = False
    """Whether a dry run comes first."""
    challenge_ids: tuple[str, ...] | None = None
    in_slices: bool = False
    """Whether a run examines two users only, and those whose rows changed."""

    @property
    def repetitions(self) -> int:
        """How many runs it takes until everybody was examined, thrice, since one milestone opens the next."""
        return 3 * len(USERS) if self.in_slices and not self.full_scan else 1


HELPERS_OF_A_RUN = """
# They end at once where there is nothing to take, go by the clock of the run, and begin at the same time.
PATIENCE, POLL = 0.001, 0.001
_NOW = "SELECT current_setting('test.as_of')"
_clock = time
class time:
    monotonic, time = _clock.monotonic, lambda: _clock.time() // 60 * 60
"""
HELP = "CALL audius_challenges.help()"
WRITTEN = ("rows_inserted", "rows_updated", "rows_completed")


@contextmanager
def one_database(cluster: Cluster, template: str, workers: int = 1) -> Iterator[Database]:
    """One database for all worlds, one after the other: emptying the tables is quicker than a new one."""
    cluster.create_database("model", template)
    discovery = Discovery(cluster, "model")
    with closing(discovery.connect()) as connection:
        connection.execute(f"ALTER DATABASE model SET audius_challenges.workers = {workers}")
        if workers > 1:
            replace_package(connection, "model", HELPERS_OF_A_RUN, "operation/helping")
    with closing(Database(discovery, workers)) as database:
        yield database
    cluster.drop_database("model")


class Database:
    """The discovery database: takes source rows from a model, runs, and gives derived rows back."""

    def __init__(self, discovery: Discovery, workers: int = 1) -> None:
        self._discovery = discovery
        self.connection = discovery.connect()
        self._helpers = [discovery.connect() for _ in range(workers - 1)]
        self.connection.adapters.register_loader("jsonb", TextLoader)
        self.late_writer = discovery.connect()
        """A session that commits later than it writes."""
        self.late_writer.autocommit = False
        with self.connection.cursor() as cursor:
            tables = cursor.execute(
                """
                SELECT oid::regclass::text
                FROM pg_class
                WHERE relkind = 'r'
                    AND relnamespace IN ('audius_challenges'::regnamespace, 'public'::regnamespace)
                    AND relname <> 'installation'
                """
            ).fetchall()
        self.staging = self._catalog("stage")
        """The catalog of staging."""
        # Rows are few: deleting them is far quicker than truncating as many tables and indexes.
        self._empty = "; ".join(
            [
                "SET session_replication_role = replica",
                *(f"DELETE FROM {name}" for (name,) in tables),
                "RESET session_replication_role",
            ]
        )
        self._mirrored: dict[str, dict[Any, Row]] = {}

    def close(self) -> None:
        for session in (self.late_writer, self.connection, *self._helpers):
            session.close()

    def _catalog(self, environment: Environment) -> list[Challenge]:
        """Aligns the catalog, and returns its rows."""
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM sync_challenge_catalog(%s)", [environment])
        return self._read(Challenge, "challenges")

    def reset(self, environment: Environment, timezone: str) -> list[Challenge]:
        """Empties every table, aligns the catalog, and returns its rows."""
        self.late_writer.rollback()
        self._mirrored = {}
        with self.connection.cursor() as cursor:
            cursor.execute(self._empty)
            cursor.execute("SELECT set_config('TimeZone', %s, false)", [timezone])
        catalog = self._catalog(environment)
        self._mirrored["challenges"] = {row.key: row for row in catalog}
        return catalog

    @property
    def has_helpers(self) -> bool:
        """Whether runs go slice by slice, with helpers beside them."""
        return bool(self._helpers)

    # Sources

    def mirror(self, sources: Sources) -> None:
        """Makes the source tables equal to the model's; deletes come first, those of blocks last among them."""
        deletes: list[tuple[sql.Composed, dict[str, Any]]] = []
        upserts: list[tuple[sql.Composed, dict[str, Any]]] = []
        for name, table in sources.tables().items():
            rows: dict[Any, Row] = table.rows
            there = self._mirrored.get(name, {})
            gone = [row for key, row in there.items() if key not in rows]
            deletes += [(DELETE[type(row)], dict(zip(row.KEY, row.key, strict=True))) for row in gone]
            changed = [row for key, row in rows.items() if there.get(key) != row]
            upserts += [(UPSERT[type(row)], row.values()) for row in changed]
            self._mirrored[name] = dict(rows)
        if deletes or upserts:
            with self.connection.pipeline(), self.connection.cursor() as cursor:
                for query, values in deletes[::-1] + upserts:
                    cursor.execute(query, values)

    def mirrored(self, row: Row) -> None:
        """A source row that came into the database by another way than `mirror`."""
        self._mirrored.setdefault(row.TABLE, {})[row.key] = row

    def write_plays_late(self, plays: Iterable[Play], *, under_a_savepoint: bool) -> None:
        """Inserts plays and commits when `commit_late_writer` says so."""
        with self.late_writer.cursor() as cursor:
            if under_a_savepoint:
                cursor.execute("SAVEPOINT listening")
            for play in plays:
                cursor.execute(UPSERT[Play], play.values())
            if under_a_savepoint:
                cursor.execute("RELEASE SAVEPOINT listening")

    def hold_a_transaction_open(self) -> None:
        """A writer with a transaction id that stays until `commit_late_writer`."""
        self.late_writer.execute("SELECT pg_current_xact_id()")

    def commit_late_writer(self) -> None:
        self.late_writer.commit()

    def now(self) -> datetime:
        """The real clock."""
        with self.connection.cursor() as cursor:
            found = cursor.execute("SELECT clock_timestamp()").fetchone()
        assert found is not None
        now: datetime = found[0]
        return now

    def start_from_now(self, challenge: str) -> None:
        self.connection.execute("SELECT audius_challenges.start_from_now(%s)", [[challenge]])

    def see_plays_again(self) -> None:
        """New versions of all plays, with nothing in them that counts."""
        self.connection.execute("UPDATE plays SET updated_at = updated_at + INTERVAL '1 second'")

    # Derived tables

    def write_user_challenge(self, row: UserChallenge) -> None:
        """What an earlier service left."""
        self._replace("user_challenges", ("challenge_id", "specifier"), row)

    def write_streak(self, row: ListenStreak) -> None:
        """What an earlier service left."""
        self._replace("challenge_listen_streak", ("user_id",), row)

    def _replace(self, table: str, key: tuple[str, ...], row: UserChallenge | ListenStreak) -> None:
        values = {column.name: getattr(row, column.name) for column in fields(row)}
        self.connection.execute(_upsert_into(table, key, tuple(values)), values)

    def delete_derived(self, table: str, **key: object) -> None:
        """What somebody lost."""
        conditions = sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in key
        )
        self.connection.execute(sql.SQL("DELETE FROM {} WHERE {}").format(sql.Identifier(table), conditions), key)

    def derived(self) -> dict[str, set[Any]]:
        """What has a model in the derived tables; times in UTC: others do not compare well when clocks are set back."""
        rows = [row for row in self._read(UserChallenge, "user_challenges") if row.challenge_id in MODELS]
        return {
            "user_challenges": {replace(row, created_at=row.created_at.astimezone(UTC)) for row in rows},
            "challenge_profile_completion": set(self._read(ProfileCompletion, "challenge_profile_completion")),
            "challenge_listen_streak": set(self._read(ListenStreak, "challenge_listen_streak")),
            "trending_results": set(self._read(TrendingResult, "trending_results")),
        }

    def differences(self, sources: Sources) -> list[str]:
        """The rows that only the source tables and the catalog have, or only the model."""
        tables = sources.tables()
        rows = (set(self._read(kind, kind.TABLE)) ^ set(tables[kind.TABLE]) for kind in Row.__subclasses__())
        return [str(row) for differing in rows for row in differing]

    def tuple_versions(self, *, locks: bool) -> set[Any]:
        """Where each derived row lies, who wrote it, and who locked it if asked for."""
        columns = sql.SQL("ctid::text, xmin::text, xmax::text" if locks else "ctid::text, xmin::text")
        query = sql.SQL(" UNION ALL ").join(
            sql.SQL("SELECT {}, {} FROM {}").format(sql.Literal(table), columns, sql.Identifier(table))
            for table in DERIVED
        )
        with self.connection.cursor() as cursor:
            return set(cursor.execute(query).fetchall())

    def writes(self) -> int:
        """How often a user challenge that has a model was written so far, changed or not."""
        query = "SELECT count(*) FROM user_challenges_log WHERE challenge_id = ANY(%s)"
        with self.connection.cursor() as cursor:
            found = cursor.execute(query, [list(MODELS)]).fetchone()
        assert found is not None
        return int(found[0])

    def _read(self, kind: type[D], table: str) -> list[D]:
        columns = sql.SQL(", ").join([sql.Identifier(column.name) for column in fields(kind)])
        query = sql.SQL("SELECT {} FROM {}").format(columns, sql.Identifier(table))
        with self.connection.cursor(row_factory=class_row(kind)) as cursor:
            return cursor.execute(query).fetchall()

    # Runs

    def reconcile(self, run: Run, *, dry_run: bool = False) -> list[Outcome]:
        """One run, or as many as it takes, and what they report together; `error` is the one message."""
        if self._helpers and run.in_slices and not dry_run:
            return self._reconcile_with_helpers(run)
        reports = [self._reconcile(run, dry_run) for _ in range(1 if dry_run else run.repetitions)]
        return [
            replace(
                outcomes[-1],
                rows_inserted=sum(outcome.rows_inserted for outcome in outcomes),
                rows_updated=sum(outcome.rows_updated for outcome in outcomes),
                rows_completed=sum(outcome.rows_completed for outcome in outcomes),
            )
            for outcomes in zip(*reports, strict=True)
        ]

    def _reconcile_with_helpers(self, run: Run) -> list[Outcome]:
        """As many runs as it takes, with helpers beside each of them; what all have written together."""
        before = self._written()
        for helper in self._helpers:
            helper.execute("SELECT set_config('test.as_of', coalesce(%s, now())::text, false)", [run.as_of])
        with ThreadPoolExecutor() as executor:
            for _ in range(run.repetitions):
                beside = [executor.submit(helper.execute, HELP) for helper in self._helpers]
                outcomes = self._reconcile(run, dry_run=False)
                # And those who come when it has committed what it has cut.
                wait(beside)
                afterwards = [executor.submit(helper.execute, HELP) for helper in self._helpers]
                for each in (*beside, *afterwards):
                    each.result()
        written = self._written()
        written.subtract(before)
        return [
            replace(outcome, rows_inserted=inserted, rows_updated=updated, rows_completed=completed)
            for outcome in outcomes
            for inserted, updated, completed in [[written[outcome.challenge_id, column] for column in WRITTEN]]
        ]

    def _written(self) -> Counter[tuple[str, str]]:
        """What the history says, by challenge and column."""
        query = f"SELECT challenge_id, {', '.join(WRITTEN)} FROM audius_challenges.history"
        written: Counter[tuple[str, str]] = Counter()
        with self.connection.cursor() as cursor:
            for challenge, *counts in cursor.execute(query).fetchall():
                written.update({(challenge, column): count for column, count in zip(WRITTEN, counts, strict=True)})
        return written

    def refusal(self, run: Run) -> str | None:
        """What a run says, up to the time in it, instead of beginning; None if it begins."""
        try:
            self._reconcile(run, dry_run=True)
        except errors.InvalidParameterValue as refused:
            found = re.fullmatch(r"audius_challenges: (.*): \d.*", refused.diag.message_primary or "")
            return found and found[1]
        return None

    def _reconcile(self, run: Run, dry_run: bool) -> list[Outcome]:
        query = """
            SELECT challenge_id, status, rows_inserted, rows_updated, rows_completed, error
            FROM reconcile_challenges(
                challenge_ids => %s::text[], full_scan => %s, dry_run => %s, as_of => %s
            )
        """
        ids = None if run.challenge_ids is None else list(run.challenge_ids)
        with self.connection.cursor() as cursor:
            for name in ("slice_users", "sweep_users"):
                size = "" if not run.in_slices else "1" if self._helpers else "2"
                cursor.execute("SELECT set_config('audius_challenges.' || %s, %s, false)", [name, size])
            rows = cursor.execute(query, [ids, run.full_scan, dry_run, run.as_of]).fetchall()
        return [
            Outcome(name, status, inserted, updated, completed, (error,) if error else ())
            for name, status, inserted, updated, completed, error in rows
        ]


def _delete(kind: type[Row]) -> sql.Composed:
    conditions = sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in kind.KEY
    )
    return sql.SQL("DELETE FROM {} WHERE {}").format(sql.Identifier(kind.TABLE), conditions)


def _upsert(kind: type[Row]) -> sql.Composed:
    columns = tuple(column.name for column in fields(kind))
    return _upsert_into(kind.TABLE, kind.KEY, columns, kind.FILLERS)


def _upsert_into(
    table: str, key: tuple[str, ...], columns: tuple[str, ...], fillers: Mapping[str, str] = Row.FILLERS
) -> sql.Composed:
    """Inserts the row, or updates the one with its key in place."""
    comma = sql.SQL(", ")
    others = [name for name in columns if name not in key]
    return sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {}").format(
        sql.Identifier(table),
        comma.join(sql.Identifier(name) for name in (*columns, *fillers)),
        comma.join([*(sql.Placeholder(name) for name in columns), *map(sql.Literal, fillers.values())]),
        comma.join(map(sql.Identifier, key)),
        comma.join(sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(name)) for name in others or columns),
    )


DELETE = {kind: _delete(kind) for kind in Row.__subclasses__()}
UPSERT = {kind: _upsert(kind) for kind in Row.__subclasses__()}
