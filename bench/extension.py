"""What the extension itself costs: first build, idle ticks, ticks after changes, the sweep."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from audius_challenges.sources import HELPFUL_INDEXES
from bench.changes import Indexer
from bench.database import CHALLENGES, Digest, Subject
from bench.measuring import Connection, MemoryWatch, Timing, processor_time, rows_written, wal_position

TICK = "CALL audius_challenges.tick()"
SWEEP_USERS = 5000
"""Users of a slice of the sweep, the default of audius_challenges.sweep_users."""

CHANGED_USERS = (10, 100, 1_000, 10_000)
MANY = 1_000
"""Of these, how many the goals are about."""

_REPEATS_BY_CHANGED = {10: 15, 100: 11, 1_000: 7, 10_000: 3}
_WRITTEN_TABLES = ("user_challenges", "challenge_profile_completion", "challenge_listen_streak")


@dataclass
class FirstBuild:
    """From nothing to everything.

    by_challenge: reconcile_challenges() of one challenge after the other, in one session; from it the backend's
    memory, in MB: `memory` where it began, `memory_growth` the peak above that.
    by_ticks: one tick that has time for everything, in another; none if it was not asked for.
    """

    by_challenge: dict[str, Timing] = field(default_factory=dict)
    by_ticks: Timing = field(default_factory=Timing)
    memory: float = 0
    memory_growth: float = 0
    digest: Mapping[str, Digest] = field(default_factory=dict)


@dataclass
class Idle:
    """Ticks with nothing to do, the sweep off.

    warm: in a session that has run one before.
    by_challenge: what reconcile_challenges() says each challenge took in such a session, median, ms.
    connection: a new connection that does nothing else.
    whole: a new connection that runs a tick, as pg_cron has it.
    wal: bytes of WAL, median of the warm ticks.
    rows: row versions written in the derived tables by all the warm ticks together.
    """

    warm: Timing = field(default_factory=Timing)
    by_challenge: dict[str, float] = field(default_factory=dict)
    connection: Timing = field(default_factory=Timing)
    whole: Timing = field(default_factory=Timing)
    wal: float = 0
    rows: dict[str, int] = field(default_factory=dict)


@dataclass
class Sweep:
    """Ticks with a slice of the sweep and without, in one session.

    cold: slices of users whose rows were last read when they were built; with_slice: the same slices once more.
    """

    users: int
    without: Timing = field(default_factory=Timing)
    cold: Timing = field(default_factory=Timing)
    with_slice: Timing = field(default_factory=Timing)

    @property
    def per_user(self) -> float:
        """Microseconds a user, all challenges together; of `c`, a comment in place of a user."""
        return (self.with_slice.median - self.without.median) * 1000 / self.users

    @property
    def per_user_cold(self) -> float:
        """The same of the first time."""
        return (self.cold.median - self.without.median) * 1000 / self.users


def first_build(subject: Subject, *, by_ticks: bool, challenges: Sequence[str] = CHALLENGES) -> FirstBuild:
    """Builds from nothing, by ticks first if that is asked for; the build by challenge stays, settled."""
    build = FirstBuild()
    if by_ticks:
        subject.forget()
        with subject.connect() as connection:
            while not build.by_ticks.wall or _is_building(connection):
                with build.by_ticks.lap(connection):
                    connection.execute(TICK)
    subject.forget()
    with subject.connect() as connection, MemoryWatch(connection) as memory:
        for challenge in challenges:
            build.by_challenge[challenge] = build_challenge(connection, challenge)
    build.memory, build.memory_growth = memory.start, memory.growth
    build.digest = subject.digest()
    subject.settle()
    return build


def idle(subject: Subject, repeats: int) -> Idle:
    """Ticks on a database in which nothing happens."""
    measured = Idle()
    with subject.connect() as connection:
        connection.execute(TICK)
        connection.execute(TICK)
        before = {table: rows_written(connection, table) for table in _WRITTEN_TABLES}
        wal = []
        for _ in range(repeats):
            position = wal_position(connection)
            with measured.warm.lap(connection):
                connection.execute(TICK)
            wal.append(wal_position(connection) - position)
        measured.wal = statistics.median(wal)
        measured.rows = {table: rows_written(connection, table) - before[table] for table in _WRITTEN_TABLES}
        durations: dict[str, list[float]] = {}
        for _ in range(repeats):
            for challenge, milliseconds in connection.execute(
                "SELECT challenge_id, extract(epoch FROM duration)::float8 * 1000 FROM reconcile_challenges()"
            ):
                durations.setdefault(challenge, []).append(milliseconds)
        measured.by_challenge = {challenge: statistics.median(values) for challenge, values in durations.items()}
    for _ in range(repeats):
        with _new_session(subject, measured.connection):
            pass
        with _new_session(subject, measured.whole) as connection:
            connection.execute(TICK)
    return measured


def after_changes(subject: Subject) -> dict[int, Timing]:
    """Ticks in a warm session after so many users changed."""
    indexer = Indexer(subject)
    with subject.connect() as connection:
        connection.execute(TICK)
        measured = {users: _ticks_after(connection, indexer, users) for users in changed_users(subject)}
    indexer.close()
    return measured


def after_changes_with_indexes(subject: Subject) -> Timing:
    """The same after 1,000 users changed, or as many as there are enough of, with the indexes that production lacks.

    They stay. Everybody is examined again before, for whoever they lead to.
    """
    indexer = Indexer(subject)
    with subject.connect() as connection:
        for index in HELPFUL_INDEXES:
            connection.execute(index.statement())
        connection.execute(TICK)
        while _is_catching_up(connection):
            connection.execute(TICK)
        measured = _ticks_after(connection, indexer, max(users for users in changed_users(subject) if users <= MANY))
    indexer.close()
    return measured


def _ticks_after(connection: Connection, indexer: Indexer, users: int) -> Timing:
    timing = Timing()
    for _ in range(_REPEATS_BY_CHANGED[users]):
        indexer.change(users)
        with timing.lap(connection):
            connection.execute(TICK)
    return timing


def changed_users(subject: Subject) -> list[int]:
    """How many users to change at a time, as far as there are enough of them."""
    return [users for users in CHANGED_USERS if users * 3 <= subject.sizes["users"]]


def sweep(subject: Subject, repeats: int) -> Sweep:
    """What examining users costs who have not changed."""
    measured = Sweep(SWEEP_USERS)
    with subject.connect() as connection:
        connection.execute(TICK)
        for users, timing in (
            (0, measured.without),
            (measured.users, measured.cold),
            (measured.users, measured.with_slice),
        ):
            connection.execute("UPDATE audius_challenges.processor_state SET sweep_position = NULL")
            connection.execute(f"SET audius_challenges.sweep_users = {users}")
            for _ in range(repeats):
                with timing.lap(connection):
                    connection.execute(TICK)
    return measured


def build_challenge(connection: Connection, challenge: str) -> Timing:
    """The first build of one challenge, run after run."""
    timing = Timing()
    while not timing.wall or _is_building(connection, challenge):
        with timing.lap(connection):
            row = connection.execute("SELECT status, error FROM reconcile_challenges(%s)", [[challenge]]).fetchone()
        if row is None or row[0] != "ok":
            raise RuntimeError(f"challenge {challenge}: {row}")
    return timing


def _is_catching_up(connection: Connection) -> bool:
    found = connection.execute("SELECT bool_or(phase <> 'watching') FROM audius_challenges.processor_state").fetchone()
    return found is not None and bool(found[0])


def _is_building(connection: Connection, challenge: str | None = None) -> bool:
    row = connection.execute(
        """
        SELECT bool_or(phase = 'first build')
        FROM audius_challenges.processor_state
        WHERE challenge_id = coalesce(%s, challenge_id)
        """,
        [challenge],
    ).fetchone()
    return row is not None and bool(row[0])


@contextmanager
def _new_session(subject: Subject, timing: Timing) -> Iterator[Connection]:
    """Measures from before the connection is made until the block ends; the backend's time is all it ever had."""
    began = time.perf_counter()
    with subject.connect() as connection:
        yield connection
        timing.wall.append((time.perf_counter() - began) * 1000)
        timing.cpu.append(processor_time(connection))
