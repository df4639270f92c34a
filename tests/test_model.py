"""Whatever happens to the sources, the database's derived tables hold what the model of the rules says.

Hypothesis invents histories: what indexers, people and repairs do to the source tables, with runs in between.
After each run the derived tables must equal the model's, the run's report must tell what it wrote, and the
same run again must change nothing, not even a tuple version. The histories of listen streaks that once went
wrong elsewhere are told one by one, to the model and to the database.

    AUDIUS_CHALLENGES_MODEL_HISTORIES=2000 pytest tests/test_model.py     more of them
    AUDIUS_CHALLENGES_MODEL_SEED=4711 pytest tests/test_model.py          the histories from this seed on

With CI set, the histories are the same every time. Otherwise they are new, and a failure prints the seed.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.string import TextLoader

from devtools.cluster import Cluster
from devtools.discovery import Discovery
from tests.model import (
    MILESTONES,
    RUN_ORDER,
    Block,
    Challenge,
    Follow,
    ListenStreak,
    Model,
    MonthlyPlays,
    Outcome,
    Play,
    Playlist,
    PlaylistScore,
    ProfileCompletion,
    Repost,
    Row,
    Save,
    Sources,
    Table,
    Track,
    TrackScore,
    TrendingResult,
    User,
    UserChallenge,
    UserCounters,
    catalog,
    specifier_of,
    streak_specifier,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Environment = Literal["prod", "stage", "dev"]
D = TypeVar("D", bound="DataclassInstance")

# Columns that a table demands and no rule reads.
FILLERS: Mapping[str, Mapping[str, str]] = {
    "users": {"created_at": "2025-01-01", "updated_at": "2025-01-01"},
    "follows": {"created_at": "2025-01-01"},
    "saves": {"created_at": "2025-01-01"},
    "reposts": {"created_at": "2025-01-01"},
    "tracks": {"created_at": "2025-01-01", "updated_at": "2025-01-01"},
    "playlists": {"created_at": "2025-01-01", "updated_at": "2025-01-01", "playlist_contents": "[]"},
    "plays": {"updated_at": "2025-01-01"},
    "track_trending_scores": {"created_at": "2025-01-01"},
    "playlist_trending_scores": {"created_at": "2025-01-01"},
}
DERIVED = ("user_challenges", "challenge_profile_completion", "challenge_listen_streak", "trending_results")


@dataclass(frozen=True)
class Run:
    """One call of reconcile_challenges."""

    as_of: datetime
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


class Database:
    """The discovery database: takes source rows from a model, runs, and gives derived rows back."""

    def __init__(self, discovery: Discovery) -> None:
        self._discovery = discovery
        self.connection = discovery.connect()
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
        self.late_writer.close()
        self.connection.close()

    def reset(self, environment: Environment, timezone: str) -> None:
        """Empties every table, and aligns the catalog."""
        self.late_writer.rollback()
        self._mirrored = {}
        with self.connection.cursor() as cursor:
            cursor.execute(self._empty)
            cursor.execute("SELECT set_config('TimeZone', %s, false)", [timezone])
            cursor.execute("SELECT count(*) FROM sync_challenge_catalog(%s)", [environment])
        self._mirrored["challenges"] = {row.key: row for row in self._read(Challenge, "challenges")}

    # Sources

    def mirror(self, sources: Sources) -> None:
        """Makes the source tables equal to the model's; deletes come first, a block takes its rows along."""
        deletes: list[tuple[sql.Composed, dict[str, Any]]] = []
        upserts: list[tuple[sql.Composed, dict[str, Any]]] = []
        for table in fields(sources):
            rows: dict[Any, Row] = getattr(sources, table.name).rows
            there = self._mirrored.get(table.name, {})
            gone = [row for key, row in there.items() if key not in rows]
            deletes += [(DELETE[type(row)], dict(zip(row.KEY, row.key, strict=True))) for row in gone]
            changed = [row for key, row in rows.items() if there.get(key) != row]
            upserts += [(UPSERT[type(row)], row.values()) for row in changed]
            self._mirrored[table.name] = dict(rows)
        if deletes or upserts:
            with self.connection.pipeline(), self.connection.cursor() as cursor:
                for query, values in deletes + upserts:
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
        """All rows of the derived tables, times in UTC: others do not compare well when clocks are set back."""
        rows = self._read(UserChallenge, "user_challenges")
        return {
            "user_challenges": {replace(row, created_at=row.created_at.astimezone(UTC)) for row in rows},
            "challenge_profile_completion": set(self._read(ProfileCompletion, "challenge_profile_completion")),
            "challenge_listen_streak": set(self._read(ListenStreak, "challenge_listen_streak")),
            "trending_results": set(self._read(TrendingResult, "trending_results")),
        }

    def holds(self, sources: Sources) -> bool:
        """Whether the source tables and the catalog hold the model's rows, and no others."""
        return all(
            set(self._read(kind, kind.TABLE)) == set(getattr(sources, kind.TABLE)) for kind in Row.__subclasses__()
        )

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
        """How often a user challenge was written so far, changed or not."""
        with self.connection.cursor() as cursor:
            found = cursor.execute("SELECT count(*) FROM user_challenges_log").fetchone()
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
                size = "2" if run.in_slices else ""
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
    return _upsert_into(kind.TABLE, kind.KEY, columns, FILLERS.get(kind.TABLE, {}))


def _upsert_into(
    table: str, key: tuple[str, ...], columns: tuple[str, ...], fillers: Mapping[str, str] = {}
) -> sql.Composed:
    """Inserts the row, or updates the one with its key in place."""
    comma = sql.SQL(", ")
    return sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {}").format(
        sql.Identifier(table),
        comma.join(sql.Identifier(name) for name in (*columns, *fillers)),
        comma.join([*(sql.Placeholder(name) for name in columns), *map(sql.Literal, fillers.values())]),
        comma.join(map(sql.Identifier, key)),
        comma.join(sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(name)) for name in columns if name not in key),
    )


DELETE = {kind: _delete(kind) for kind in Row.__subclasses__()}
UPSERT = {kind: _upsert(kind) for kind in Row.__subclasses__()}


class World:
    """The model and the database side by side."""

    def __init__(self, database: Database, environment: Environment = "stage", timezone: str = "UTC") -> None:
        self.database = database
        self.model = Model()
        self.sources = self.model.sources
        for row in catalog(environment):
            self.sources.challenges.put(row)
        self.last_listen: dict[int | None, datetime] = {}
        self._next_play = 1
        self._uncommitted: list[Play] = []
        database.reset(environment, timezone)
        assert database.holds(self.sources)

    def stamp(self, number: int | None) -> int | None:
        """A block number for a row; makes the block when it is new."""
        if number is not None:
            self.sources.blocks.put(Block(f"hash-{number}", number))
        return number

    def person(self, user_id: int, **columns: Any) -> None:
        """A user that counts, unless the columns say otherwise."""
        self.sources.users.put(User(user_id, **columns))

    def listen(self, user_id: int | None, at: datetime, track_id: int = 1) -> None:
        """A play, which also counts into its month."""
        self.sources.plays.put(Play(self._next_play, user_id, track_id, at))
        self._next_play += 1
        self._count_into_month(track_id, at)

    def _count_into_month(self, track_id: int, at: datetime) -> MonthlyPlays:
        month = date(at.year, at.month, 1)
        there = self.sources.aggregate_monthly_plays.get(track_id, month, "")
        row = MonthlyPlays(track_id, month, there.count + 1 if there else 1)
        self.sources.aggregate_monthly_plays.put(row)
        return row

    def listen_uncommitted(self, user_id: int, times: list[datetime], *, under_a_savepoint: bool) -> None:
        """Plays whose ids are taken now, to be seen when `commit_late_writer` says so."""
        plays: list[Play] = []
        for at in times:
            plays.append(Play(self._next_play, user_id, UNHEARD + self._next_play, at))
            self._next_play += 1
        self.database.write_plays_late(plays, under_a_savepoint=under_a_savepoint)
        self._uncommitted += plays

    def commit_late_writer(self) -> None:
        self.database.commit_late_writer()
        for play in self._uncommitted:
            self.sources.plays.put(play)
            self.database.mirrored(play)
            self.database.mirrored(self._count_into_month(play.play_item_id, play.created_at))
        self._uncommitted = []

    def mirror(self) -> None:
        self.database.mirror(self.sources)

    def leave_user_challenge(self, row: UserChallenge) -> None:
        """A row of an earlier service, unless its challenge is absent or a complete row is there."""
        there = self.model.user_challenges.get((row.challenge_id, row.specifier))
        if self.sources.challenges.get(row.challenge_id) and not (there and there.is_complete):
            self.model.user_challenges[row.challenge_id, row.specifier] = row
            self.database.write_user_challenge(row)

    def leave_streak(self, row: ListenStreak) -> None:
        """A state of an earlier service."""
        self.model.challenge_listen_streak[row.user_id] = row
        self.database.write_streak(row)

    def lose_user_challenge(self, challenge_id: str, specifier: str) -> None:
        del self.model.user_challenges[challenge_id, specifier]
        self.database.delete_derived("user_challenges", challenge_id=challenge_id, specifier=specifier)

    def lose_profile(self, user_id: int) -> None:
        self.model.challenge_profile_completion.pop(user_id, None)
        self.database.delete_derived("challenge_profile_completion", user_id=user_id)

    def reconcile(self, run: Run) -> list[Outcome]:
        """A run in both: they must agree; a dry run before it, a second run after it must change nothing."""
        self.mirror()
        if run.rehearsed:
            with self._nothing_written(but_rolled_back=True):
                reported = self.database.reconcile(run, dry_run=True)
            if run.repetitions == 1:
                agree(reported, self.model.reconcile(run.as_of, run.challenge_ids, dry_run=True))

        writes = self.database.writes()
        reported = self.database.reconcile(run)
        expected = self.model.reconcile(run.as_of, run.challenge_ids)
        self.assert_equal()
        agree(reported, expected)
        needed = sum(outcome.rows_inserted + outcome.rows_updated for outcome in expected)
        assert self.database.writes() - writes == needed

        with self._nothing_written():
            again = self.database.reconcile(run)
        agree(again, self.model.reconcile(run.as_of, run.challenge_ids))
        assert all(outcome.rows_inserted == outcome.rows_updated == 0 for outcome in again)
        return expected

    @contextmanager
    def _nothing_written(self, *, but_rolled_back: bool = False) -> Iterator[None]:
        """The derived rows stay the same versions, not even locked; a rolled back update looks like a lock."""
        versions, writes = self.database.tuple_versions(locks=not but_rolled_back), self.database.writes()
        yield
        assert self.database.tuple_versions(locks=not but_rolled_back) == versions
        assert self.database.writes() == writes

    def assert_equal(self) -> None:
        """The database's derived tables hold the model's rows, and no others."""
        derived = self.database.derived()
        for table in DERIVED:
            expected = set(getattr(self.model, table).values())
            in_database = sorted(str(row) for row in derived[table] - expected)
            in_model = sorted(str(row) for row in expected - derived[table])
            assert in_database == in_model, table


def agree(reported: list[Outcome], expected: list[Outcome]) -> None:
    """What a run reports is what the model reports; an error holds the words that it must."""
    errors = {outcome.challenge_id: outcome.error for outcome in reported if outcome.error}
    assert [replace(outcome, error=()) for outcome in reported] == [
        replace(outcome, error=()) for outcome in expected
    ], errors
    for outcome in expected:
        if outcome.status == "failed":
            (message,) = errors[outcome.challenge_id]
            assert [word for word in outcome.error if word not in message] == [], message


#
# What happens to the sources. Ids come from small spaces, so that they collide.
#

BASE = datetime(2025, 10, 20, 9, 30, tzinfo=UTC).replace(tzinfo=None)
HOUR = timedelta(hours=1)
SHORTLY = timedelta(microseconds=1)

USERS = (10, 255, 256)
STRANGER = 4096
HASHES = ("0xa", "0xb", "0xc")
BLOCKS = (None, 25346435, 25346436, 28349999, 28350000, 28350001)
TRACKS = (1, 2, 3, 4, 5)
UNHEARD = 1_000_000
"""Tracks from here on are listened to once, so that no two sessions count into the same month."""
CHARTED = 100
"""The first track, and playlist, of those that charts are about."""
MONTHS = (date(2024, 12, 1), date(2025, 1, 1), date(2025, 10, 1))
SCORE_TYPES = ("TRACKS", "UNDERGROUND_TRACKS", "PLAYLISTS")
PROFILE = ("name", "bio", "profile_picture", "profile_picture_sizes", "cover_photo", "cover_photo_sizes")


class Event(Protocol):
    """Something that happens; its fields say all about it, so that a failing history can be read."""

    def happen(self, world: World) -> None: ...


@dataclass(frozen=True)
class UserVersion:
    """A new version of a user; the old ones lose is_current, unless they are kept by mistake."""

    user_id: int
    txhash: str
    blocknumber: int | None
    filled: tuple[str, ...]
    has_handle: bool = True
    is_verified: bool = False
    is_deactivated: bool = False
    is_current: bool = True
    keeps_old: bool = False

    def happen(self, world: World) -> None:
        if not self.keeps_old:
            world.sources.users.update(lambda row: row.user_id == self.user_id, is_current=False)
        world.person(
            self.user_id,
            txhash=self.txhash,
            blocknumber=world.stamp(self.blocknumber),
            handle_lc="handle" if self.has_handle else None,
            is_verified=self.is_verified,
            is_deactivated=self.is_deactivated,
            is_current=self.is_current,
            **dict.fromkeys(self.filled, "something"),
        )


@dataclass(frozen=True)
class UserRepair:
    """A column set by hand in all versions of a user, whose block numbers stay."""

    user_id: int
    column: Literal["is_verified", "is_deactivated", "name", "bio", "profile_picture_sizes", "handle_lc"]
    value: bool

    def happen(self, world: World) -> None:
        value: object = self.value
        if not self.column.startswith("is_"):
            value = "something" if self.value else None
        world.sources.users.update(lambda row: row.user_id == self.user_id, **{self.column: value})


@dataclass(frozen=True)
class Follows:
    """A user follows several others, or no longer."""

    user_id: int
    first: int
    count: int
    txhash: str
    blocknumber: int | None
    is_delete: bool
    is_current: bool

    def happen(self, world: World) -> None:
        for followee in range(self.first, self.first + self.count):
            world.sources.follows.put(
                Follow(
                    self.user_id,
                    followee,
                    self.txhash,
                    self.is_current,
                    self.is_delete,
                    world.stamp(self.blocknumber),
                )
            )


@dataclass(frozen=True)
class Likes:
    """A user saves or reposts, or no longer."""

    user_id: int
    table: Literal["saves", "reposts"]
    item_id: int
    item_type: Literal["track", "playlist", "album"]
    txhash: str
    blocknumber: int | None
    is_delete: bool
    is_current: bool

    def happen(self, world: World) -> None:
        state = (self.txhash, self.is_current, self.is_delete, world.stamp(self.blocknumber))
        if self.table == "saves":
            world.sources.saves.put(Save(self.user_id, self.item_id, self.item_type, *state))
        else:
            world.sources.reposts.put(Repost(self.user_id, self.item_id, self.item_type, *state))


@dataclass(frozen=True)
class CompleteProfile:
    """All seven steps at once, as far as the user has a row."""

    user_id: int

    def happen(self, world: World) -> None:
        columns = {"name": "a", "bio": "b", "profile_picture": "c", "cover_photo_sizes": "d"}
        world.sources.users.update(lambda row: row.user_id == self.user_id, **columns)
        for followee in range(5):
            world.sources.follows.put(Follow(self.user_id, followee))
        world.sources.saves.put(Save(self.user_id, 1))
        world.sources.reposts.put(Repost(self.user_id, 1))


@dataclass(frozen=True)
class Upload:
    """Several tracks, new or updated in place, or second current versions of them."""

    owner_id: int
    first: int
    count: int
    txhash: str
    blocknumber: int | None
    is_current: bool = True
    is_delete: bool = False
    is_unlisted: bool = False
    is_available: bool = True
    stem_of: str | None = None

    def happen(self, world: World) -> None:
        for track_id in range(self.first, self.first + self.count):
            world.sources.tracks.put(
                Track(
                    track_id,
                    self.owner_id,
                    self.txhash,
                    self.is_current,
                    self.is_delete,
                    self.is_unlisted,
                    self.is_available,
                    self.stem_of,
                    world.stamp(self.blocknumber),
                )
            )


@dataclass(frozen=True)
class Compile:
    """A playlist or an album, new or updated in place, or a second current version of it."""

    owner_id: int
    playlist_id: int
    txhash: str
    blocknumber: int | None
    is_current: bool = True
    is_delete: bool = False
    is_album: bool = False
    is_private: bool = False

    def happen(self, world: World) -> None:
        world.sources.playlists.put(
            Playlist(
                self.playlist_id,
                self.owner_id,
                self.txhash,
                self.is_current,
                self.is_delete,
                self.is_album,
                self.is_private,
                world.stamp(self.blocknumber),
            )
        )


@dataclass(frozen=True)
class HandOver:
    """A track, or playlist, gets another owner in place."""

    item_id: int
    owner_id: int

    def happen(self, world: World) -> None:
        world.sources.tracks.update(lambda row: row.track_id == self.item_id, owner_id=self.owner_id)
        world.sources.playlists.update(lambda row: row.playlist_id == self.item_id, playlist_owner_id=self.owner_id)


@dataclass(frozen=True)
class Delete:
    """A repair deletes one row of a table."""

    table: str
    position: int

    def happen(self, world: World) -> None:
        table: Table[Any] = getattr(world.sources, self.table)
        if len(table):
            victim = list(table)[self.position % len(table)]
            table.delete(lambda row: row == victim)


@dataclass(frozen=True)
class Revert:
    """A block is reverted, and every row with its number is gone."""

    number: int

    def happen(self, world: World) -> None:
        world.sources.revert(self.number)


@dataclass(frozen=True)
class NewBlock:
    """A block without a row of ours; some blocks have no number."""

    number: int | None

    def happen(self, world: World) -> None:
        world.sources.blocks.put(Block(f"hash-{self.number}", self.number))


@dataclass(frozen=True)
class Listens:
    """Plays of a user, each some time after the one before; a negative gap is a play that arrives late."""

    user_id: int | None
    gaps: tuple[timedelta, ...]
    track_id: int

    def happen(self, world: World) -> None:
        for at in listening_times(world, self.user_id, self.gaps):
            world.listen(self.user_id, at, self.track_id)


@dataclass(frozen=True)
class UncommittedListens:
    """Plays in a transaction that stays open, while others with higher ids are seen."""

    user_id: int
    gaps: tuple[timedelta, ...]
    under_a_savepoint: bool

    def happen(self, world: World) -> None:
        times = listening_times(world, self.user_id, self.gaps)
        world.listen_uncommitted(self.user_id, times, under_a_savepoint=self.under_a_savepoint)


@dataclass(frozen=True)
class LateCommit:
    """The open transaction commits."""

    def happen(self, world: World) -> None:
        world.commit_late_writer()


@dataclass(frozen=True)
class OpenTransaction:
    """A writer that holds back what the change detection may take for finished."""

    def happen(self, world: World) -> None:
        world.database.hold_a_transaction_open()


@dataclass(frozen=True)
class SeePlaysAgain:
    """All plays get new row versions."""

    def happen(self, world: World) -> None:
        world.database.see_plays_again()


@dataclass(frozen=True)
class Crowd:
    """Plays of others, more than the change detection keeps in view."""

    def happen(self, world: World) -> None:
        for minute in range(700):
            world.listen(None, BASE + minute * timedelta(minutes=1), UNHEARD)


@dataclass(frozen=True)
class PrunePlays:
    """Old plays go, the latest stay."""

    kept: int

    def happen(self, world: World) -> None:
        latest = sorted(world.sources.plays, key=lambda play: play.created_at, reverse=True)[: self.kept]
        world.sources.plays.delete(lambda play: play not in latest)


@dataclass(frozen=True)
class Count:
    """The plays of a track in a month, set by hand."""

    track_id: int
    month: date
    country: str
    count: int

    def happen(self, world: World) -> None:
        world.sources.aggregate_monthly_plays.put(MonthlyPlays(self.track_id, self.month, self.count, self.country))


@dataclass(frozen=True)
class Hit:
    """A user's track with that many plays in a month."""

    owner_id: int
    track_id: int
    month: date
    count: int

    def happen(self, world: World) -> None:
        world.sources.tracks.put(Track(self.track_id, self.owner_id))
        world.sources.aggregate_monthly_plays.put(MonthlyPlays(self.track_id, self.month, self.count))


@dataclass(frozen=True)
class Chart:
    """Scores of tracks, or playlists, one after the other, which belong to the users in turn."""

    type: str
    first: int
    scores: tuple[float, ...]
    version: str = "pnagD"
    time_range: str = "week"

    def happen(self, world: World) -> None:
        for item_id, score in enumerate(self.scores, start=CHARTED + self.first):
            owner = USERS[item_id % len(USERS)]
            row = (item_id, score, self.type, self.version, self.time_range)
            if self.type == "PLAYLISTS":
                world.sources.playlist_trending_scores.put(PlaylistScore(*row))
                world.sources.playlists.put(Playlist(item_id, owner))
            else:
                world.sources.track_trending_scores.put(TrackScore(*row))
                world.sources.tracks.put(Track(item_id, owner))


@dataclass(frozen=True)
class Charts:
    """Scores of tracks in both charts, whose ids overlap."""

    scores: tuple[float, ...]
    first_underground: int
    underground_scores: tuple[float, ...]

    def happen(self, world: World) -> None:
        Chart("TRACKS", 0, self.scores).happen(world)
        Chart("UNDERGROUND_TRACKS", self.first_underground, self.underground_scores).happen(world)


@dataclass(frozen=True)
class Score:
    """One score, which may be of another version or time range, or of a track that is not there."""

    type: str
    item_id: int
    score: float
    version: str = "pnagD"
    time_range: str = "week"

    def happen(self, world: World) -> None:
        state = (self.item_id, self.score, self.type, self.version, self.time_range)
        world.sources.track_trending_scores.put(TrackScore(*state))
        world.sources.playlist_trending_scores.put(PlaylistScore(*state))


@dataclass(frozen=True)
class DropScores:
    """All scores of a type go, as when they are about to be computed again."""

    type: str

    def happen(self, world: World) -> None:
        world.sources.track_trending_scores.delete(lambda row: row.type == self.type)
        world.sources.playlist_trending_scores.delete(lambda row: row.type == self.type)


@dataclass(frozen=True)
class Counters:
    """How many follow a user, and how many the user follows."""

    user_id: int
    follower_count: int | None
    following_count: int | None

    def happen(self, world: World) -> None:
        world.sources.aggregate_user.put(UserCounters(self.user_id, self.follower_count, self.following_count))


@dataclass(frozen=True)
class AlterChallenge:
    """A column of the catalog changes."""

    id: str
    column: Literal["active", "amount", "step_count", "starting_block"]
    value: str | int | bool | None

    def happen(self, world: World) -> None:
        world.sources.challenges.update(lambda row: row.id == self.id, **{self.column: self.value})


@dataclass(frozen=True)
class RestoreChallenge:
    """A challenge is in the catalog as staging has it, `e` active."""

    id: str

    def happen(self, world: World) -> None:
        for row in catalog("stage"):
            if row.id == self.id:
                world.sources.challenges.put(row)


@dataclass(frozen=True)
class RemoveChallenge:
    """A challenge leaves the catalog, as far as no user challenge holds it there."""

    id: str

    def happen(self, world: World) -> None:
        if not any(name == self.id for name, _ in world.model.user_challenges):
            world.sources.challenges.delete(lambda row: row.id == self.id)


@dataclass(frozen=True)
class Leftover:
    """A user challenge of an earlier service; it left complete ones without a block number."""

    challenge_id: Literal["u", "fp", "p", "v", "p1", "p2", "p3"]
    user_id: int
    is_complete: bool
    current_step_count: int | None
    amount: int

    def happen(self, world: World) -> None:
        specifier = specifier_of(self.user_id)
        if self.challenge_id in MILESTONES:
            specifier = f"{specifier}:{MILESTONES[self.challenge_id]}"
        world.leave_user_challenge(
            UserChallenge(
                self.challenge_id,
                specifier,
                self.user_id,
                self.is_complete,
                self.current_step_count,
                None,
                self.amount,
                datetime(2025, 2, 3, 4, 5, 6, 789, UTC),
                BASE if self.is_complete else None,
            )
        )


@dataclass(frozen=True)
class LeftoverStreak:
    """State, and perhaps a running row, of an earlier service whose specifiers end with the day."""

    user_id: int
    streak: int
    last_listen_is_known: bool
    has_row: bool

    def happen(self, world: World) -> None:
        if self.user_id in world.model.challenge_listen_streak:
            return
        last = world.last_listen.setdefault(self.user_id, BASE)
        world.leave_streak(ListenStreak(self.user_id, last if self.last_listen_is_known else None, self.streak))
        start = last - timedelta(days=self.streak - 1, minutes=1)
        if self.has_row:
            world.leave_user_challenge(
                UserChallenge(
                    "e",
                    f"{self.user_id:x}:{start:%Y%m%d}",
                    self.user_id,
                    False,
                    min(self.streak, 7),
                    None,
                    7,
                    start.replace(tzinfo=UTC),
                    None,
                )
            )


@dataclass(frozen=True)
class ForeignWinner:
    """Somebody else wrote a user challenge of a week."""

    challenge_id: Literal["tt", "tut", "tp"]
    friday: date
    rank: int
    user_id: int

    def happen(self, world: World) -> None:
        at = datetime(self.friday.year, self.friday.month, self.friday.day, tzinfo=UTC)
        specifier = f"{self.friday}:{self.rank}"
        world.leave_user_challenge(
            UserChallenge(self.challenge_id, specifier, self.user_id, True, 1, None, 1, at, at.replace(tzinfo=None))
        )


@dataclass(frozen=True)
class Loss:
    """Somebody deletes an incomplete user challenge, or a user's seven steps."""

    table: Literal["user_challenges", "challenge_profile_completion"]
    position: int

    def happen(self, world: World) -> None:
        if self.table == "user_challenges":
            rows = [row for row in world.model.user_challenges.values() if not row.is_complete]
            for row in chosen(rows, self.position):
                world.lose_user_challenge(row.challenge_id, row.specifier)
        else:
            for profile in chosen(world.model.challenge_profile_completion.values(), self.position):
                world.lose_profile(profile.user_id)


def chosen(rows: Iterable[D], position: int) -> list[D]:
    """One of the rows, or none if there are none."""
    ordered = sorted(rows, key=str)
    return [ordered[position % len(ordered)]] if ordered else []


def listening_times(world: World, user_id: int | None, gaps: tuple[timedelta, ...]) -> list[datetime]:
    """When a user listens, who listened last when the world remembers."""
    times = []
    for gap in gaps:
        world.last_listen[user_id] = world.last_listen.get(user_id, BASE) + gap
        times.append(world.last_listen[user_id])
    return times


#
# Strategies.
#

users = st.sampled_from(USERS)
hashes = st.sampled_from(HASHES)
blocks = st.sampled_from(BLOCKS)
seldom = st.sampled_from((False, False, False, True))
mostly = st.sampled_from((True, True, True, False))
positions = st.integers(0, 30)

gap = st.sampled_from(
    (
        *(24 * HOUR,) * 3,
        timedelta(0),
        HOUR,
        16 * HOUR - SHORTLY,
        16 * HOUR,
        30 * HOUR,
        48 * HOUR - SHORTLY,
        48 * HOUR,
        100 * HOUR,
        -SHORTLY,
        -24 * HOUR,
    )
)
gaps = st.one_of(
    st.lists(gap, min_size=1, max_size=6).map(tuple),
    st.builds(lambda days, hours: (hours * HOUR,) * days, st.integers(3, 10), st.sampled_from((16, 24, 47))),
)
counts = st.sampled_from((0, 1, 1, 100, 248, 249, 250, 750, 999, 1000, 9000, 9999, 10000, 2000000000))
scores = st.sampled_from((0.0, 0.5, 1.0, 1.5, 2.0, 1e9))

some_scores = st.lists(scores, min_size=1, max_size=13).map(tuple)
many_scores = st.lists(scores, min_size=18, max_size=26).map(tuple)

user_versions = st.builds(
    UserVersion,
    users,
    hashes,
    blocks,
    st.lists(st.sampled_from(PROFILE), unique=True, max_size=4).map(lambda columns: tuple(sorted(columns))),
    has_handle=mostly,
    is_verified=st.booleans(),
    is_deactivated=seldom,
    is_current=mostly,
    keeps_old=seldom,
)


def weighted(*choices: tuple[int, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """One of the strategies; the numbers say how often. (`one_of` would flatten and forget repetitions.)"""
    pool = [strategy for weight, strategy in choices for _ in range(weight)]
    return st.integers(0, len(pool) - 1).flatmap(pool.__getitem__)


def alterations(ids: tuple[str, ...]) -> st.SearchStrategy[Any]:
    """What happens to challenges in the catalog."""
    names = st.sampled_from(ids)
    amounts = st.sampled_from(("0", "3", " 12 ", "007", "2147483647"))
    bad_amounts = st.sampled_from(("2147483648", "-1", "1.5", "abc", "", "1e3"))
    targets = st.sampled_from((1, 2, 5, 6, 250, 2147483647))
    bad_targets = st.sampled_from((0, -1, None))
    return weighted(
        (1, st.builds(AlterChallenge, names, st.just("active"), st.booleans())),
        (2, st.builds(AlterChallenge, names, st.just("amount"), amounts)),
        (1, st.builds(AlterChallenge, names, st.just("amount"), bad_amounts)),
        (1, st.builds(AlterChallenge, names, st.just("starting_block"), blocks)),
        (1, st.builds(AlterChallenge, names, st.just("starting_block"), st.none())),
        (1, st.builds(RemoveChallenge, names)),
        (5, st.builds(RestoreChallenge, names)),
        (3, st.builds(AlterChallenge, names, st.just("step_count"), targets)),
        (1, st.builds(AlterChallenge, names, st.just("step_count"), bad_targets)),
    )


def leftovers(*ids: str) -> st.SearchStrategy[Any]:
    """Rows of earlier services, and rows that somebody lost."""
    steps = st.sampled_from((None, 0, 1, 2, 400))
    return weighted(
        (2, st.builds(Leftover, st.sampled_from(ids), users, seldom, steps, st.sampled_from((0, 1, 3)))),
        (1, st.builds(Loss, st.sampled_from(("user_challenges", "challenge_profile_completion")), positions)),
    )


def deletes(*tables: str) -> st.SearchStrategy[Any]:
    """Repairs that delete a row."""
    return st.builds(Delete, st.sampled_from(tables), positions)


account = weighted(
    (3, user_versions),
    (
        3,
        st.builds(
            UserRepair,
            users,
            st.sampled_from(("is_verified", "is_deactivated", "name", "bio", "profile_picture_sizes", "handle_lc")),
            st.booleans(),
        ),
    ),
    (1, deletes("users")),
)
reorganizations = weighted(
    (2, st.builds(Revert, st.sampled_from([number for number in BLOCKS if number]))),
    (1, st.builds(NewBlock, st.sampled_from((None, 7, 28350002, 28350003)))),
    (1, st.builds(OpenTransaction)),
)

follows = st.builds(Follows, users, st.integers(1, 4), st.integers(1, 5), hashes, blocks, seldom, mostly)
likes = st.builds(
    Likes,
    users,
    st.sampled_from(("saves", "reposts")),
    st.sampled_from((1, 2)),
    st.sampled_from(("track", "playlist", "album")),
    hashes,
    blocks,
    seldom,
    mostly,
)
profile = weighted(
    (6, follows),
    (5, likes),
    (3, user_versions),
    (4, account),
    (1, reorganizations),
    (1, st.builds(CompleteProfile, users)),
    (2, deletes("follows", "saves", "reposts")),
    (2, leftovers("p", "v")),
    (2, alterations(("p", "v"))),
)

plain_uploads = st.builds(Upload, users, st.sampled_from(TRACKS), st.integers(1, 4), hashes, blocks)
uploads = st.builds(
    Upload,
    users,
    st.sampled_from(TRACKS),
    st.integers(1, 2),
    hashes,
    blocks,
    mostly,
    seldom,
    seldom,
    mostly,
    st.sampled_from((None, None, None, "null", '{"parent_track_id": 1}')),
)
playlists = st.builds(Compile, users, st.sampled_from(TRACKS), hashes, blocks, mostly, seldom, st.booleans(), seldom)
handovers = st.builds(HandOver, st.sampled_from((*TRACKS, CHARTED, CHARTED + 1)), users)
works = weighted(
    (6, uploads),
    (4, playlists),
    (1, plain_uploads),
    (2, handovers),
    (2, account),
    (2, reorganizations),
    (2, deletes("tracks", "playlists")),
    (2, leftovers("u", "fp")),
    (3, alterations(("u", "fp"))),
)

months = st.sampled_from(MONTHS)
milestones = weighted(
    (4, st.builds(Count, st.sampled_from(TRACKS), months, st.sampled_from(("", "US")), counts)),
    (8, st.builds(Hit, users, st.sampled_from(TRACKS), months, counts)),
    (4, uploads),
    (1, handovers),
    (3, account),
    (1, reorganizations),
    (1, deletes("tracks", "aggregate_monthly_plays")),
    (2, leftovers("p1", "p2", "p3")),
    (2, alterations(("p1", "p2", "p3"))),
)

listening = weighted(
    (10, st.builds(Listens, users, gaps, st.sampled_from(TRACKS))),
    (1, st.builds(Listens, st.sampled_from((None, STRANGER)), gaps, st.sampled_from(TRACKS))),
    (3, st.builds(UncommittedListens, users, gaps, st.booleans())),
    (3, st.builds(LateCommit)),
    (2, st.builds(SeePlaysAgain)),
    (1, st.builds(Crowd)),
    (1, st.builds(PrunePlays, st.integers(0, 5))),
    (2, st.builds(LeftoverStreak, users, st.sampled_from((1, 3, 6, 7, 9)), mostly, mostly)),
    (2, account),
    (1, reorganizations),
    (2, st.builds(Loss, st.just("user_challenges"), positions)),
    (4, st.builds(AlterChallenge, st.just("e"), st.just("active"), st.booleans())),
    (1, alterations(("e",))),
)

offsets = st.sampled_from((0, 2, 14))
many_followers = st.sampled_from((None, 0, 1499, 1500))
charted_uploads = st.builds(
    Upload,
    users,
    st.sampled_from((CHARTED, CHARTED + 4)),
    st.integers(1, 3),
    hashes,
    blocks,
    mostly,
    seldom,
    seldom,
    mostly,
)
charted_playlists = st.builds(
    Compile,
    users,
    st.sampled_from((CHARTED, CHARTED + 1, CHARTED + 2)),
    hashes,
    blocks,
    mostly,
    seldom,
    st.booleans(),
    seldom,
)
charts = weighted(
    (4, st.builds(Chart, st.sampled_from(SCORE_TYPES), offsets, some_scores)),
    (1, st.builds(Chart, st.sampled_from(SCORE_TYPES), offsets, some_scores, st.just("EJ57D"))),
    (1, st.builds(Chart, st.sampled_from(SCORE_TYPES), offsets, some_scores, time_range=st.just("month"))),
    (1, st.builds(Charts, some_scores, offsets, some_scores)),
    (3, st.builds(Charts, many_scores, offsets, many_scores)),
    (
        2,
        st.builds(
            Score,
            st.sampled_from((*SCORE_TYPES, "OTHER")),
            st.sampled_from((*TRACKS, CHARTED, CHARTED + 1, 999)),
            scores,
            st.sampled_from(("pnagD", "pnagD", "EJ57D")),
            st.sampled_from(("week", "week", "month")),
        ),
    ),
    (1, st.builds(DropScores, st.sampled_from(SCORE_TYPES))),
    (3, st.builds(Counters, users, many_followers, many_followers)),
    (3, charted_uploads),
    (3, charted_playlists),
    (1, handovers),
    (2, account),
    (1, reorganizations),
    (2, deletes("aggregate_user", "track_trending_scores", "playlist_trending_scores")),
    (
        1,
        st.builds(
            ForeignWinner,
            st.sampled_from(("tt", "tut", "tp")),
            st.sampled_from((date(2025, 11, 7), date(2025, 11, 14))),
            st.sampled_from((1, 3, 10)),
            users,
        ),
    ),
    (1, alterations(("tt", "tut", "tp"))),
)
anything = weighted(
    *((4, theme) for theme in (profile, works, milestones, listening, charts)), (1, alterations(RUN_ORDER))
)


def several(events: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Event, ...]]:
    """Events, fifteen on average: a list alone would be shorter."""
    some = st.lists(events, max_size=15)
    return st.builds(joined, some, some, some)


def joined(*parts: list[Event]) -> tuple[Event, ...]:
    """Lists, one after the other."""
    return tuple(chain(*parts))


clocks = st.sampled_from(
    (
        datetime(2025, 11, 7, 0, 0, tzinfo=UTC),  # Fridays
        datetime(2025, 11, 7, 23, 59, 59, 999999, UTC),
        datetime(2025, 11, 14, 12, 30, 15, 123456, UTC),
        datetime(2025, 11, 21, 3, tzinfo=UTC),
        datetime(2025, 11, 15, 8, 59, 59, tzinfo=timezone(9 * HOUR)),  # Friday in UTC
        datetime(2025, 11, 8, 0, 0, tzinfo=UTC),  # other days
        datetime(2025, 11, 6, 23, 59, 59, 999999, UTC),
        datetime(2025, 11, 14, 8, 59, 59, tzinfo=timezone(9 * HOUR)),  # Thursday in UTC
    )
)
runs = st.builds(
    Run,
    clocks,
    st.booleans(),
    seldom,
    weighted(
        (3, st.none()),
        (1, st.lists(st.sampled_from(RUN_ORDER), min_size=1, max_size=10, unique=True).map(tuple)),
    ),
    in_slices=seldom,
)


@dataclass(frozen=True)
class Chapter:
    """Events, and a run after them."""

    events: tuple[Event, ...]
    run: Run


@dataclass(frozen=True)
class History:
    """What happens in one example."""

    environment: Environment
    timezone: str
    people: tuple[UserVersion, ...]
    chapters: tuple[Chapter, ...]


def chapters(events: st.SearchStrategy[Any], *, most: int = 4) -> st.SearchStrategy[tuple[Chapter, ...]]:
    """Several chapters about one theme: what has to meet meets more often."""
    return st.lists(st.builds(Chapter, several(events), runs), min_size=1, max_size=most).map(tuple)


histories = st.builds(
    History,
    st.sampled_from(("prod", "stage", "stage", "dev")),
    st.sampled_from(("UTC", "Asia/Tokyo", "America/Los_Angeles")),
    st.tuples(
        *(
            st.builds(UserVersion, st.just(user_id), st.just("0xa"), blocks, st.just(("name",)), is_verified=mostly)
            for user_id in USERS
        )
    ),
    weighted(
        (3, chapters(profile)),
        (3, chapters(works)),
        (4, chapters(milestones)),
        (4, chapters(listening, most=7)),
        (3, chapters(charts)),
        (1, chapters(anything)),
    ),
)


#
# The test.
#

HISTORIES = int(os.environ.get("AUDIUS_CHALLENGES_MODEL_HISTORIES", "150"))
SEED = os.environ.get("AUDIUS_CHALLENGES_MODEL_SEED") or ("1" if os.environ.get("CI") else "")

# Hypothesis tries the simplest example, then one at random, and then variations of that one; here a new one is worth
# more. So each history is a search of its own, with a seed of its own.
ONE_HISTORY = settings(
    max_examples=2,
    deadline=None,
    database=None,
    derandomize=False,
    phases=[Phase.generate, Phase.shrink],
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def database(cluster: Cluster, full_template: str) -> Iterator[Database]:
    """One database for all worlds, one after the other: emptying the tables is quicker than a new one."""
    cluster.create_database("model", full_template)
    with closing(Database(Discovery(cluster, "model"))) as database:
        yield database
    cluster.drop_database("model")


def test_the_database_follows_the_model_through_any_history(database: Database) -> None:
    def follow(history: History) -> None:
        if not any(chapter.events for chapter in history.chapters):
            return
        world = World(database, history.environment, history.timezone)
        for person in history.people:
            person.happen(world)
        for chapter in history.chapters:
            for event in chapter.events:
                event.happen(world)
                world.mirror()
            world.reconcile(chapter.run)
        assert database.holds(world.sources)

    first = int(SEED) if SEED else random.SystemRandom().randrange(2**32)
    for number in range(first, first + HISTORIES):
        try:
            seed(number)(ONE_HISTORY(given(histories)(follow)))()
        except BaseException:
            print(f"again: AUDIUS_CHALLENGES_MODEL_SEED={number} AUDIUS_CHALLENGES_MODEL_HISTORIES=1")
            raise


#
# Listen streaks, one history each.
#

LISTENER = 255
BLOCK = 28350000


def day(number: int, offset: timedelta = timedelta(0)) -> datetime:
    """A time on a day, in UTC, counted from the first of October 2025, 10:15."""
    return datetime(2025, 10, 1, 10, 15, tzinfo=UTC).replace(tzinfo=None) + timedelta(days=number) + offset


def days(first: int, last: int) -> tuple[datetime, ...]:
    """A time on each of some days, the last one included."""
    return tuple(day(number) for number in range(first, last + 1))


def a_row(
    opened: datetime,
    steps: int,
    *,
    completed: datetime | None = None,
    amount: int = 7,
    specifier: str | None = None,
    block: int | None = BLOCK,
) -> UserChallenge:
    """A user challenge of the listener, complete if it says when."""
    return UserChallenge(
        "e",
        specifier or streak_specifier(LISTENER, opened),
        LISTENER,
        completed is not None,
        steps,
        block if completed else None,
        amount,
        opened.replace(tzinfo=UTC),
        completed,
    )


def seven(opened: datetime, completed: datetime) -> UserChallenge:
    """The row of seven days."""
    return a_row(opened, 7, completed=completed)


def extra(at: datetime) -> UserChallenge:
    """The row of one day after the seventh."""
    return a_row(at, 1, completed=at, amount=1)


@dataclass(frozen=True)
class Streak:
    """What a user listened to, with a run after each batch, and what must be there then."""

    batches: tuple[tuple[datetime, ...], ...]
    rows: tuple[UserChallenge, ...]
    last_listen: datetime
    listen_streak: int
    left_state: ListenStreak | None = None
    """What an earlier service left."""
    left_rows: tuple[UserChallenge, ...] = ()


STREAKS = {
    "the first listen opens a row": Streak(
        batches=((day(0),),),
        rows=(a_row(day(0), 1),),
        last_listen=day(0),
        listen_streak=1,
    ),
    "a listen less than 16 hours later changes nothing": Streak(
        batches=((day(0),), (day(0, 16 * HOUR - SHORTLY),)),
        rows=(a_row(day(0), 1),),
        last_listen=day(0),
        listen_streak=1,
    ),
    "a listen exactly 16 hours later counts, in the same row": Streak(
        batches=((day(0),), (day(0, 16 * HOUR),)),
        rows=(a_row(day(0), 2),),
        last_listen=day(0, 16 * HOUR),
        listen_streak=2,
    ),
    "16 hours are counted from the last counted listen": Streak(
        batches=((day(0), day(0, 10 * HOUR), day(0, 20 * HOUR)),),
        rows=(a_row(day(0), 2),),
        last_listen=day(0, 20 * HOUR),
        listen_streak=2,
    ),
    "a listen just under 48 hours later counts": Streak(
        batches=((day(0),), (day(2, -SHORTLY),)),
        rows=(a_row(day(0), 2),),
        last_listen=day(2, -SHORTLY),
        listen_streak=2,
    ),
    "a listen exactly 48 hours later starts over, and the broken row stays": Streak(
        batches=((day(0), day(1)), (day(3),)),
        rows=(a_row(day(0), 2), a_row(day(3), 1)),
        last_listen=day(3),
        listen_streak=1,
    ),
    "the row of a broken streak is never continued": Streak(
        batches=(days(0, 2), (*days(10, 11),)),
        rows=(a_row(day(0), 3), a_row(day(10), 2)),
        last_listen=day(11),
        listen_streak=2,
    ),
    "seven days in one batch complete one row": Streak(
        batches=(days(0, 6),),
        rows=(seven(day(0), day(6)),),
        last_listen=day(6),
        listen_streak=7,
    ),
    "seven days, a run each, complete one row": Streak(
        batches=tuple((at,) for at in days(0, 6)),
        rows=(seven(day(0), day(6)),),
        last_listen=day(6),
        listen_streak=7,
    ),
    "each day after the seventh adds one row, in one batch": Streak(
        batches=(days(0, 8),),
        rows=(seven(day(0), day(6)), extra(day(7)), extra(day(8))),
        last_listen=day(8),
        listen_streak=9,
    ),
    "each day after the seventh adds one row, a run each": Streak(
        batches=tuple((at,) for at in days(0, 8)),
        rows=(seven(day(0), day(6)), extra(day(7)), extra(day(8))),
        last_listen=day(8),
        listen_streak=9,
    ),
    "a second listen on the day of completion opens no second row, in the same batch": Streak(
        batches=((*days(0, 6), day(6, HOUR), day(6, 15 * HOUR)),),
        rows=(seven(day(0), day(6)),),
        last_listen=day(6),
        listen_streak=7,
    ),
    "a second listen on the day of completion opens no second row, in a later run": Streak(
        batches=(days(0, 6), (day(6, HOUR),), (day(6, 15 * HOUR),)),
        rows=(seven(day(0), day(6)),),
        last_listen=day(6),
        listen_streak=7,
    ),
    "a second listen on a day after completion adds no second row": Streak(
        batches=((*days(0, 7), day(7, SHORTLY)), (day(7, 2 * HOUR),)),
        rows=(seven(day(0), day(6)), extra(day(7))),
        last_listen=day(7),
        listen_streak=8,
    ),
    "many plays in one batch make one row, and one for each day after the seventh": Streak(
        batches=(tuple(at + minute * timedelta(minutes=1) for at in days(0, 8) for minute in range(20)),),
        rows=(seven(day(0), day(6)), extra(day(7)), extra(day(8))),
        last_listen=day(8),
        listen_streak=9,
    ),
    "plays of a batch count in the order they were played": Streak(
        batches=((*reversed(days(0, 7)),),),
        rows=(seven(day(0), day(6)), extra(day(7))),
        last_listen=day(7),
        listen_streak=8,
    ),
    "after completion a broken streak opens a new row": Streak(
        batches=(days(0, 7), days(9, 10)),
        rows=(seven(day(0), day(6)), extra(day(7)), a_row(day(9), 2)),
        last_listen=day(10),
        listen_streak=2,
    ),
    "two full streaks earn seven twice": Streak(
        batches=(days(0, 6), days(10, 16)),
        rows=(seven(day(0), day(6)), seven(day(10), day(16))),
        last_listen=day(16),
        listen_streak=7,
    ),
    "a play that arrives late changes nothing": Streak(
        batches=((day(0), day(1)), (day(0, 17 * HOUR), day(-1), day(1, -SHORTLY)), (day(2),)),
        rows=(a_row(day(0), 3),),
        last_listen=day(2),
        listen_streak=3,
    ),
    "a play that arrives late does not mend a broken streak": Streak(
        batches=((day(0), day(3)), (day(1), day(2))),
        rows=(a_row(day(0), 1), a_row(day(3), 1)),
        last_listen=day(3),
        listen_streak=1,
    ),
    "a play at the very time of the last one changes nothing": Streak(
        batches=((day(0), day(0)), (day(0),)),
        rows=(a_row(day(0), 1),),
        last_listen=day(0),
        listen_streak=1,
    ),
    "a running row with the old specifier is continued": Streak(
        left_state=ListenStreak(LISTENER, day(2), 3),
        left_rows=(a_row(day(0), 3, specifier="ff:20251001"),),
        batches=((day(3),), (day(4),)),
        rows=(a_row(day(0), 5, specifier="ff:20251001"),),
        last_listen=day(4),
        listen_streak=5,
    ),
    "a running row with the old specifier is completed, and extra days have the new one": Streak(
        left_state=ListenStreak(LISTENER, day(5), 6),
        left_rows=(a_row(day(0), 6, specifier="ff:20251001"),),
        batches=(days(6, 7),),
        rows=(a_row(day(0), 7, completed=day(6), specifier="ff:20251001"), extra(day(7))),
        last_listen=day(7),
        listen_streak=8,
    ),
    "the state decides the count, not the row": Streak(
        left_state=ListenStreak(LISTENER, day(2), 3),
        left_rows=(a_row(day(0), 1, amount=1, specifier="ff:20251001"),),
        batches=((day(3),),),
        rows=(a_row(day(0), 4, specifier="ff:20251001"),),
        last_listen=day(3),
        listen_streak=4,
    ),
    "after a complete row of an earlier service comes one row a day": Streak(
        left_state=ListenStreak(LISTENER, day(6), 7),
        left_rows=(a_row(day(0), 7, completed=day(6), specifier="ff:20251001", block=None),),
        batches=((day(6, HOUR), day(7)),),
        rows=(
            a_row(day(0), 7, completed=day(6), specifier="ff:20251001", block=None),
            extra(day(7)),
        ),
        last_listen=day(7),
        listen_streak=8,
    ),
    "a missing running row is opened with the count of the state": Streak(
        left_state=ListenStreak(LISTENER, day(2), 3),
        batches=((day(3),), (day(4),)),
        rows=(a_row(day(3), 5),),
        last_listen=day(4),
        listen_streak=5,
    ),
    "a missing running row is opened complete on the seventh day": Streak(
        left_state=ListenStreak(LISTENER, day(5), 6),
        batches=((day(6),), (day(7),)),
        rows=(a_row(day(6), 7, completed=day(6)), extra(day(7))),
        last_listen=day(7),
        listen_streak=8,
    ),
    "an older, broken row is not taken for a missing running row": Streak(
        left_state=ListenStreak(LISTENER, day(20), 3),
        left_rows=(a_row(day(12), 5),),
        batches=((day(21),),),
        rows=(a_row(day(12), 5), a_row(day(21), 4)),
        last_listen=day(21),
        listen_streak=4,
    ),
    "a row exactly as old as the streak can be is its running row": Streak(
        left_state=ListenStreak(LISTENER, day(20), 3),
        left_rows=(a_row(day(13), 5),),
        batches=((day(21),),),
        rows=(a_row(day(13), 4),),
        last_listen=day(21),
        listen_streak=4,
    ),
    "a row just older than the streak can be is not its running row": Streak(
        left_state=ListenStreak(LISTENER, day(20), 3),
        left_rows=(a_row(day(13, -SHORTLY), 5),),
        batches=((day(21),),),
        rows=(a_row(day(13, -SHORTLY), 5), a_row(day(21), 4)),
        last_listen=day(21),
        listen_streak=4,
    ),
    "the latest row is the one opened last, whatever its specifier": Streak(
        left_state=ListenStreak(LISTENER, day(2), 3),
        left_rows=(a_row(day(-30), 2, specifier="ff:20250901"), a_row(day(0), 3)),
        batches=((day(3),),),
        rows=(a_row(day(-30), 2, specifier="ff:20250901"), a_row(day(0), 4)),
        last_listen=day(3),
        listen_streak=4,
    ),
    "only the latest row can be the running one": Streak(
        left_state=ListenStreak(LISTENER, day(7), 8),
        left_rows=(a_row(day(1), 3), a_row(day(6), 1, completed=day(6), amount=1)),
        batches=((day(8),),),
        rows=(a_row(day(1), 3), a_row(day(6), 1, completed=day(6), amount=1), extra(day(8))),
        last_listen=day(8),
        listen_streak=9,
    ),
    "an incomplete running row after the seventh day is completed instead of an extra one": Streak(
        left_state=ListenStreak(LISTENER, day(7), 8),
        left_rows=(a_row(day(0), 6),),
        batches=((day(8),), (day(9),)),
        rows=(seven(day(0), day(8)), extra(day(9))),
        last_listen=day(9),
        listen_streak=10,
    ),
    "a state without a last listen starts over": Streak(
        left_state=ListenStreak(LISTENER, None, 5),
        batches=((day(0),),),
        rows=(a_row(day(0), 1),),
        last_listen=day(0),
        listen_streak=1,
    ),
    "a state lost within the hour opens no second row": Streak(
        left_rows=(a_row(day(0), 3),),
        batches=((day(0, 10 * timedelta(minutes=1)),), (day(1),)),
        rows=(a_row(day(0), 2),),
        last_listen=day(1),
        listen_streak=2,
    ),
    "a complete row with the specifier of a first listen stays as it is": Streak(
        left_rows=(a_row(day(0), 7, completed=day(0), amount=7, block=None),),
        batches=((day(0, 10 * timedelta(minutes=1)),),),
        rows=(a_row(day(0), 7, completed=day(0), amount=7, block=None),),
        last_listen=day(0, 10 * timedelta(minutes=1)),
        listen_streak=1,
    ),
    "a day after such a row opens one of its own, in the same batch": Streak(
        left_rows=(a_row(day(0), 1, completed=day(0), amount=1, block=None),),
        batches=((day(0, 10 * timedelta(minutes=1)), day(1), day(2)),),
        rows=(a_row(day(0), 1, completed=day(0), amount=1, block=None), a_row(day(1), 3)),
        last_listen=day(2),
        listen_streak=3,
    ),
    "a day after such a row opens one of its own, a run each": Streak(
        left_rows=(a_row(day(0), 1, completed=day(0), amount=1, block=None),),
        batches=((day(0, 10 * timedelta(minutes=1)),), (day(1),), (day(2),)),
        rows=(a_row(day(0), 1, completed=day(0), amount=1, block=None), a_row(day(1), 3)),
        last_listen=day(2),
        listen_streak=3,
    ),
    "a specifier has the hour in UTC": Streak(
        batches=((day(0, timedelta(hours=13, minutes=44, seconds=59)),),),
        rows=(a_row(day(0, timedelta(hours=13, minutes=44, seconds=59)), 1, specifier="ff2025100123"),),
        last_listen=day(0, timedelta(hours=13, minutes=44, seconds=59)),
        listen_streak=1,
    ),
}

MONDAY = Run(datetime(2025, 11, 3, 12, tzinfo=UTC), challenge_ids=("e",))


@pytest.fixture
def world(database: Database) -> World:
    """A world with one listener, the catalog of staging, in which `e` is active, and a clock far from UTC."""
    world = World(database, "stage", "Asia/Tokyo")
    world.person(LISTENER, blocknumber=world.stamp(BLOCK))
    return world


@pytest.mark.parametrize("streak", STREAKS.values(), ids=STREAKS.keys())
def test_a_listen_streak_leaves_exactly_its_rows(world: World, streak: Streak) -> None:
    if streak.left_state:
        world.leave_streak(streak.left_state)
    for row in streak.left_rows:
        world.leave_user_challenge(row)

    for batch in streak.batches:
        for at in batch:
            world.listen(LISTENER, at)
        world.reconcile(MONDAY)
    assert streak_rows(world) == set(streak.rows)
    assert streak_state(world) == (streak.last_listen, streak.listen_streak)

    world.database.see_plays_again()
    world.reconcile(replace(MONDAY, full_scan=True))
    assert streak_rows(world) == set(streak.rows)
    assert streak_state(world) == (streak.last_listen, streak.listen_streak)


def test_the_first_run_that_finds_the_challenge_active_counts_all_plays(world: World) -> None:
    AlterChallenge("e", "active", False).happen(world)
    for at in days(0, 3):
        world.listen(LISTENER, at)
        world.reconcile(MONDAY)
    assert streak_rows(world) == set()

    AlterChallenge("e", "active", True).happen(world)
    world.reconcile(MONDAY)
    assert streak_rows(world) == {a_row(day(0), 4)}


def test_listens_during_a_pause_never_count(world: World) -> None:
    world.listen(LISTENER, day(0))
    world.reconcile(MONDAY)

    AlterChallenge("e", "active", False).happen(world)
    world.listen(LISTENER, day(1))
    world.reconcile(MONDAY)
    AlterChallenge("e", "active", True).happen(world)
    world.reconcile(MONDAY)
    assert streak_rows(world) == {a_row(day(0), 1)}

    world.listen(LISTENER, day(2, -HOUR))
    world.reconcile(MONDAY)
    assert streak_rows(world) == {a_row(day(0), 2)}


def test_a_listen_during_a_pause_does_not_count_when_it_is_seen_again(world: World) -> None:
    world.listen(LISTENER, day(0))
    world.reconcile(MONDAY)
    AlterChallenge("e", "active", False).happen(world)
    world.listen(LISTENER, day(1))
    world.reconcile(MONDAY)

    AlterChallenge("e", "active", True).happen(world)
    world.mirror()
    world.database.see_plays_again()
    world.reconcile(MONDAY)

    assert streak_rows(world) == {a_row(day(0), 1)}


@pytest.mark.parametrize("seen_again", [False, True])
@pytest.mark.parametrize("reason", ["deactivated", "not current", "unknown"])
def test_listens_of_somebody_without_a_valid_row_are_skipped_for_good(
    world: World, reason: str, seen_again: bool
) -> None:
    states: Mapping[str, Callable[[], None]] = {
        "deactivated": lambda: world.person(LISTENER, is_deactivated=True),
        "not current": lambda: world.person(LISTENER, is_current=False),
        "unknown": lambda: world.sources.users.delete(lambda row: row.user_id == LISTENER),
    }
    states[reason]()
    world.listen(LISTENER, day(0))
    world.listen(LISTENER, day(1))
    world.reconcile(MONDAY)

    world.person(LISTENER, blocknumber=BLOCK)
    world.mirror()
    if seen_again:
        world.database.see_plays_again()
    world.reconcile(MONDAY)
    assert streak_rows(world) == set()

    world.listen(LISTENER, day(2))
    world.reconcile(MONDAY)
    assert streak_rows(world) == {a_row(day(2), 1)}


def test_a_failed_run_loses_no_listen(world: World) -> None:
    world.listen(LISTENER, day(0))
    world.reconcile(MONDAY)
    AlterChallenge("e", "amount", "much").happen(world)
    world.listen(LISTENER, day(1))
    world.reconcile(MONDAY)
    assert streak_rows(world) == {a_row(day(0), 1)}

    AlterChallenge("e", "amount", "1").happen(world)
    world.reconcile(MONDAY)
    assert streak_rows(world) == {a_row(day(0), 2)}


def test_a_streak_is_carried_without_its_plays(world: World) -> None:
    for at in days(0, 8):
        world.listen(LISTENER, at)
        world.reconcile(MONDAY)
        PrunePlays(0).happen(world)
    assert streak_rows(world) == {seven(day(0), day(6)), extra(day(7)), extra(day(8))}


@pytest.mark.parametrize("under_a_savepoint", [False, True])
def test_a_listen_that_commits_late_counts_once_if_it_is_newer_than_the_last(
    world: World, under_a_savepoint: bool
) -> None:
    world.listen(LISTENER, day(0))
    world.mirror()
    world.listen_uncommitted(LISTENER, [day(1)], under_a_savepoint=under_a_savepoint)
    world.reconcile(MONDAY)
    world.reconcile(MONDAY)
    assert streak_rows(world) == {a_row(day(0), 1)}

    world.commit_late_writer()
    world.reconcile(MONDAY)
    world.reconcile(MONDAY)
    assert streak_rows(world) == {a_row(day(0), 2)}


def streak_rows(world: World) -> set[UserChallenge]:
    """The listener's user challenges of the streak."""
    return {row for row in world.model.user_challenges.values() if row.challenge_id == "e"}


def streak_state(world: World) -> tuple[datetime | None, int]:
    """The listener's last counted listen and streak."""
    state = world.model.challenge_listen_streak[LISTENER]
    return state.last_listen_date, state.listen_streak
