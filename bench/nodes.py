"""Shares beside one server: what each server's processes cost when 1, 2 or 4 nodes derive, and when none does.

The primary's database is the same each time. Measured are the challenges that nodes derive, on all sides. Processor
time is that of the processes, by what they are: who runs ticks, who sends WAL, who applies what was sent.
"""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from rich.table import Table

from audius_challenges.engine.shares import SHARED
from bench.changes import Indexer
from bench.database import Digest, Subject, create_subject, server_settings
from bench.extension import TICK, build_challenge
from bench.measuring import Connection, Timing
from bench.result import Machine
from devtools import guard
from devtools.cluster import Cluster
from devtools.discovery import Discovery, require_extension
from devtools.shares import SETTINGS, Node, Shares

NODES = (1, 2, 4)
CHANGED = (10_000, 1_000)
"""How many users change at a time, as far as the database has three times as many."""

COMMITS = 30
"""Small commits whose way to a node is timed."""

DATABASE_SETTINGS = {"audius_challenges.time_budget": "10h", "audius_challenges.sweep_users": "0"}
OF_THE_SHARED = frozenset({*SHARED, "challenge_profile_completion", "challenge_listen_streak"})

# What `ps` says of a process -> what it does here. Whoever copies tables is both a backend's kin and an applier.
KINDS = {"walsender": "walsender", "logical replication": "apply", "[local]": "backend", "127.0.0.1": "backend"}

_FULL_SCAN = "SELECT status, error FROM reconcile_challenges('{u,fp,p,v}', full_scan => TRUE)"
_RECONCILE = f"SELECT status, error FROM reconcile_challenges('{{{','.join(SHARED)}}}')"
_LEFT = "SELECT EXISTS (SELECT FROM audius_challenges.share_batch WHERE relation <> 'beat')"
_ROWS = "SELECT count(*) FROM user_challenges WHERE challenge_id = ANY(%s)"
_SMALL_COMMIT = """
    UPDATE users
    SET bio = %s
    WHERE user_id = (SELECT min(user_id) FROM bench_active_users)
        AND is_current
"""
_ARRIVED = "SELECT EXISTS (SELECT FROM users WHERE bio = %s)"
# Everything that a row costs whoever inserts it: trigger, foreign key, three indexes.
_INSERT_ALL = "INSERT INTO user_challenges SELECT * FROM bench_user_challenges ORDER BY challenge_id, user_id"

Say = Callable[[str], None]


class Meter:
    """Processor time of a server's processes, in seconds, sampled: also of those that have ended."""

    def __init__(self, cluster: Cluster) -> None:
        self._directory = cluster.data_dir
        self._seen: dict[int, tuple[str, int]] = {}
        self._lock = threading.Lock()

    def reading(self) -> Counter[str]:
        """What each kind of process has taken until now."""
        with self._lock:
            for pid in guard.processes_in(self._directory):
                try:
                    title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    nanoseconds = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
                except (OSError, IndexError):  # it has ended
                    continue
                # Of one that is about to end, the title has gone first.
                known, _ = self._seen.get(pid, ("other", 0))
                kind = next((kind for name, kind in KINDS.items() if name in title), known)
                self._seen[pid] = kind, nanoseconds
            taken: Counter[str] = Counter()
            for kind, nanoseconds in self._seen.values():
                taken[kind] += nanoseconds
        return taken

    @contextmanager
    def measured(self) -> Iterator[Taken]:
        """Measures what is taken while the block runs."""
        before, taken, done = self.reading(), Taken(), threading.Event()

        def sample() -> None:
            while not done.wait(0.05):
                self.reading()

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        began = time.perf_counter()
        yield taken
        taken.wall = time.perf_counter() - began
        done.set()
        thread.join()
        after = self.reading()
        taken.by_kind = {kind: (after[kind] - before[kind]) / 1e9 for kind in after}


@dataclass
class Taken:
    """Seconds: by the clock, and of processor time by kind of process."""

    wall: float = 0
    by_kind: Mapping[str, float] = field(default_factory=dict)

    def of(self, *kinds: str) -> float:
        """Of these kinds."""
        return sum(self.by_kind.get(kind, 0) for kind in kinds)

    @property
    def whole(self) -> float:
        """Of the whole server."""
        return sum(self.by_kind.values())

    @classmethod
    def median(cls, several: list[Self]) -> Self:
        """The median of each figure."""
        kinds = {kind for taken in several for kind in taken.by_kind}
        return cls(
            statistics.median(taken.wall for taken in several),
            {kind: statistics.median(taken.of(kind) for taken in several) for kind in kinds},
        )


@dataclass
class Step:
    """What one step took: on the primary, and on each node."""

    primary: Taken
    nodes: list[Taken] = field(default_factory=list)

    @property
    def node(self) -> Taken:
        """The median node."""
        return Taken.median(self.nodes)


@dataclass
class Figures:
    """With so many nodes.

    copy: of the tables; build: everything derived for the first time, and written on the primary; rows: those.
    changed: users who changed -> what finding and writing it took; others: what the primary's tick took besides.
    full_scan: of u, fp, p, v with nothing to write.
    delay: of a small commit until a node has it, confirmed: of 10,000 changed users until all nodes confirm; ms.
    disk: bytes of a node's database, or of the primary's where there is none.
    differing: what is not as without nodes.
    """

    nodes: int
    build: Step
    rows: int
    changed: dict[int, Step]
    full_scan: Step
    disk: int
    copy: Step | None = None
    others: dict[int, float] = field(default_factory=dict)
    delay: float = 0
    confirmed: float = 0
    insert: float = 0
    differing: list[str] = field(default_factory=list)


@dataclass
class Result:
    """A run: where, at what size, and the figures; those without nodes first."""

    machine: Machine
    scale: float
    seed: int
    sizes: Mapping[str, int]
    figures: list[Figures]

    def save(self, path: Path) -> None:
        """Writes it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")


def run(scale: float, seed: int, repeats: int, say: Say) -> Result:
    """Measures without nodes, and with each number of them.

    repeats: of the steps after changes.
    Raises NotInstalledError if the server has not this repository's build of the extension.
    """
    settings = {**SETTINGS, **server_settings(scale)}
    with Cluster(cron_database="postgres", settings=settings, in_memory=False) as cluster:
        require_extension(cluster)
        with cluster.connect("postgres") as connection:
            (version,) = connection.execute("SHOW server_version").fetchone() or ("",)
        machine = Machine.here(version)
        template = create_subject(cluster, scale, seed)
        say(f"scale {scale:g}: generated")
        plain, expected = _Plain(_copy_of(template, "plain"), repeats, say).figures()
        figures = [plain]
        for nodes in NODES:
            subject = _copy_of(template, f"hub{nodes}")
            with Shares(subject.discovery, settings=server_settings(scale)) as shares:
                figures.append(_WithNodes(subject, shares, nodes, repeats, say).figures(expected))
                shares.take_down()
            cluster.drop_database(subject.discovery.name)
    return Result(machine, scale, seed, dict(template.sizes), figures)


def _copy_of(template: Subject, name: str) -> Subject:
    cluster = template.discovery.cluster
    cluster.create_database(name, template=template.discovery.name)
    discovery = Discovery(cluster, name)
    _set(discovery)
    return Subject(template.scale, discovery, template.sizes, template.bytes)


def _set(discovery: Discovery) -> None:
    for name, value in DATABASE_SETTINGS.items():
        discovery.psql(f"ALTER DATABASE {discovery.name} SET {name} = '{value}'")


class _Plain:
    """One server that does everything."""

    def __init__(self, subject: Subject, repeats: int, say: Say) -> None:
        self.subject, self.repeats, self._say = subject, repeats, say
        self.meter = Meter(subject.discovery.cluster)

    def figures(self) -> tuple[Figures, dict[str, Digest]]:
        """Measures; the database is dropped in the end."""
        subject = self.subject
        with subject.connect() as connection, self.meter.measured() as taken:
            for challenge in SHARED:
                build_challenge(connection, challenge)
        build, digest = Step(taken), subject.digest()
        self._say(f"plain: built, {taken.wall:.0f} s")
        with subject.connect() as connection:
            rows = _value(connection, _ROWS, list(SHARED))
            insert = self._insert(connection)
        subject.settle()
        changed, others = _after_changes(subject, self.repeats, self._measure)
        with subject.connect() as connection, self.meter.measured() as taken:
            _reconcile(connection, _FULL_SCAN)
            disk = _value(connection, "SELECT pg_database_size(current_database())")
        full_scan = Step(taken)
        self._say("plain: done")
        subject.discovery.cluster.drop_database(subject.discovery.name)
        figures = Figures(0, build, rows, changed, full_scan, disk, others=others, insert=insert)
        return figures, digest

    def _measure(self, connection: Connection) -> Step:
        with self.meter.measured() as taken:
            _reconcile(connection, _RECONCILE)
        return Step(taken)

    def _insert(self, connection: Connection) -> float:
        """Seconds of processor time of a plain INSERT of the same rows, the way they were."""
        connection.execute("CREATE TABLE bench_user_challenges AS TABLE user_challenges")
        connection.execute("TRUNCATE user_challenges, notification")
        with self.meter.measured() as taken:
            connection.execute(_INSERT_ALL)
        connection.execute("DROP TABLE bench_user_challenges")
        return taken.of("backend")


class _WithNodes:
    """A primary and its nodes, in the order of `figures`."""

    def __init__(self, subject: Subject, shares: Shares, nodes: int, repeats: int, say: Say) -> None:
        self.subject, self.shares, self.count, self.repeats = subject, shares, nodes, repeats
        self._say_to = say
        self.meter = Meter(subject.discovery.cluster)
        self.meters: dict[str, Meter] = {}
        self.sessions: dict[str, Connection] = {}

    def figures(self, expected: Mapping[str, Digest]) -> Figures:
        """Measures. expected: what the derived tables hold on a server without nodes, after the first build."""
        copy = self._copy()
        # One session each: what a backend has taken is read while it is there.
        self.sessions = {node.share: node.connect() for node in self.shares.nodes}
        build = self._build()
        digest = self.subject.digest()
        differing = sorted(name for name in OF_THE_SHARED if digest.get(name) != expected.get(name))
        with self.subject.connect() as connection:
            rows = _value(connection, _ROWS, list(SHARED))
        self._settle()
        changed, others = _after_changes(self.subject, self.repeats, self._after_change)
        self._say("changes measured")
        full_scan = self._full_scan()
        delay, confirmed = self._delay(), self._confirmed()
        disk = statistics.median(map(_disk, self.shares.nodes))
        for session in self.sessions.values():
            session.close()
        self._say("done")
        return Figures(
            self.count, build, rows, changed, full_scan, round(disk), copy, others, delay, confirmed, 0, differing
        )

    def _say(self, message: str) -> None:
        self._say_to(f"N = {self.count}: {message}")

    def _copy(self) -> Step:
        """Joins the nodes one after the other; the wall time is that of all."""
        self.shares.publish(self.count)
        taken = []
        with self.meter.measured() as primary:
            for number in range(self.count):
                node = self.shares.new_node(f"{number}/{self.count}")
                meter = self.meters[node.share] = Meter(node.cluster)
                with meter.measured() as of_node:
                    self.shares.join_node(node)
                    self.shares.until(partial(_is_copied, node), f"the copy of {node.share}", node.why_not)
                taken.append(of_node)
                _set(node.database)
                node.database.psql("VACUUM (ANALYZE)")
        self._say(f"copied, {primary.wall:.0f} s")
        return Step(primary, taken)

    def _build(self) -> Step:
        """All nodes tick at once, while the primary writes what has come."""
        self.shares.plan(self.count)
        for node in self.shares.nodes:
            self.shares.adopt(node)
        with self._all_measured() as step, ThreadPoolExecutor(self.count) as pool:
            ticks = [pool.submit(session.execute, TICK) for session in self.sessions.values()]
            with self.subject.connect() as connection:
                while not all(tick.done() for tick in ticks) or self._is_left(connection):
                    if _value(connection, _LEFT):
                        _reconcile(connection, _RECONCILE)
                    else:
                        time.sleep(0.05)
            for tick in ticks:
                tick.result()
        self._say(f"built, {step.primary.wall:.0f} s")
        return step

    def _is_left(self, connection: Connection) -> bool:
        self.shares.catch_up()
        return bool(_value(connection, _LEFT))

    def _settle(self) -> None:
        """What autovacuum would have done, everywhere."""
        self.subject.settle()
        for node in self.shares.nodes:
            node.database.psql("VACUUM (ANALYZE)")

    def _after_change(self, connection: Connection) -> Step:
        """From a commit on the primary until its rewards are written there."""
        with self._all_measured() as step:
            self.shares.catch_up()
            for session in self.sessions.values():
                session.execute(TICK)
            self.shares.catch_up()
            _reconcile(connection, _RECONCILE)
        return step

    def _full_scan(self) -> Step:
        with self._all_measured() as step:
            for session in self.sessions.values():
                _reconcile(session, _FULL_SCAN)
        return step

    def _delay(self) -> float:
        """The median time from a small commit until the node of the user has it."""
        timing = Timing()
        indexer = Indexer(self.subject)
        with indexer.connection as connection:
            user = _value(connection, "SELECT min(user_id) FROM bench_active_users")
            with self.shares.nodes[user % self.count].connect() as there:
                for number in range(COMMITS):
                    connection.execute(_SMALL_COMMIT, [f"commit {number}"])
                    began = time.perf_counter()
                    while not _value(there, _ARRIVED, f"commit {number}"):
                        pass
                    timing.wall.append((time.perf_counter() - began) * 1000)
        return timing.median

    def _confirmed(self) -> float:
        indexer = Indexer(self.subject)
        indexer.change(max(_changed_users(self.subject)))
        began = time.perf_counter()
        self.shares.catch_up()
        indexer.close()
        return (time.perf_counter() - began) * 1000

    @contextmanager
    def _all_measured(self) -> Iterator[Step]:
        step = Step(Taken())
        with self.meter.measured() as step.primary, _each(list(self.meters.values())) as step.nodes:
            yield step


@contextmanager
def _each(meters: list[Meter]) -> Iterator[list[Taken]]:
    if not meters:
        yield []
        return
    with meters[0].measured() as first, _each(meters[1:]) as others:
        yield [first, *others]


def _after_changes(
    subject: Subject, repeats: int, measure: Callable[[Connection], Step]
) -> tuple[dict[int, Step], dict[int, float]]:
    """What it takes after so many users changed; and what the other challenges then take on the primary."""
    changed, others = {}, {}
    indexer = Indexer(subject)
    with subject.connect() as connection:
        for _ in range(2):  # the others' first build, and all that is only done once
            connection.execute(TICK)
        for users in _changed_users(subject):
            steps, rest = [], Timing()
            for _ in range(repeats):
                indexer.change(users)
                steps.append(measure(connection))
                with rest.lap(connection):
                    connection.execute(TICK)
            nodes = [Taken.median(list(several)) for several in zip(*(step.nodes for step in steps), strict=True)]
            changed[users] = Step(Taken.median([step.primary for step in steps]), nodes)
            others[users] = statistics.median(rest.cpu) / 1000
    indexer.close()
    return changed, others


def _changed_users(subject: Subject) -> list[int]:
    return [users for users in CHANGED if users * 3 <= subject.sizes["users"]]


def _reconcile(connection: Connection, statement: str) -> None:
    found = connection.execute(statement).fetchall()
    if failed := [error for status, error in found if status != "ok"]:
        raise RuntimeError("; ".join(map(str, failed)))


def _is_copied(node: Node) -> bool:
    return node.why_not() == ["no plan of shares has arrived"]


def _disk(node: Node) -> int:
    with node.connect() as connection:
        return _value(connection, "SELECT pg_database_size(current_database())")


def _value(connection: Connection, query: str, *parameters: Any) -> int:
    row = connection.execute(query, parameters or None).fetchone()
    assert row is not None
    return int(row[0])


def table(result: Result) -> Table:
    """The figures beside each other: seconds of processor time, where nothing else is said."""
    plain, *shared = result.figures
    shown = Table("", "plain", *(f"N = {figures.nodes}" for figures in shared), title=f"scale {result.scale:g}")

    def row(what: str, say: Callable[[Figures], str], *, of_plain: bool = True, of_shared: bool = True) -> None:
        cells = [say(figures) if of_shared else "" for figures in shared]
        shown.add_row(what, say(plain) if of_plain else "", *cells)

    row("copy: wall / each node / primary's walsenders", _copied, of_plain=False)
    row("first build: each node's ticks", lambda each: _s(_deriving(each.build)))
    row("the same, wall", lambda each: _s(each.build.primary.wall))
    row("its walsender", lambda each: _s(each.build.node.of("walsender")), of_plain=False)
    row("first build: primary", lambda each: _s(_primary(each.build)))
    row("of which absorb / apply / walsenders", lambda each: _parts(each.build.primary), of_plain=False)
    for users in plain.changed:
        row(f"{users:,} users changed: each node, tick + apply", partial(_by_node, users))
        row(f"{users:,} users changed: primary, absorb / apply / walsenders", partial(_by_primary, users))
        row(f"{users:,} users changed: primary, the other challenges", partial(_by_others, users))
    row("full scan of u, fp, p, v, nothing to write: each", lambda each: _s(_deriving(each.full_scan)))
    row("a small commit, until a node has it, ms", lambda each: f"{each.delay:.1f}", of_plain=False)
    row(
        f"{max(plain.changed):,} users in one transaction, until confirmed, ms",
        lambda each: f"{each.confirmed:,.0f}",
        of_plain=False,
    )
    row("disk, MB", lambda each: f"{each.disk / 1e6:,.0f}")
    row("a row on the primary, all in all, us", lambda each: _a_row(each, _primary(each.build)))
    row("of which absorb, us", lambda each: _a_row(each, each.build.primary.of("backend")), of_plain=False)
    row("of which apply, us", lambda each: _a_row(each, each.build.primary.of("apply")), of_plain=False)
    row("a plain INSERT of these rows, us a row", lambda each: _a_row(each, each.insert), of_shared=False)
    row("differing from plain", lambda each: ", ".join(each.differing) or "nothing", of_plain=False)
    return shown


def _copied(figures: Figures) -> str:
    assert figures.copy is not None
    of_primary, of_node = figures.copy.primary, figures.copy.node
    return f"{_s(of_primary.wall)} / {_s(of_node.whole)} / {_s(of_primary.of('walsender'))}"


def _by_node(users: int, figures: Figures) -> str:
    step = figures.changed[users]
    applied = f" + {_s(step.node.of('apply'))}" if step.nodes else ""
    return f"{_s(_deriving(step))}{applied}"


def _by_primary(users: int, figures: Figures) -> str:
    step = figures.changed[users]
    return _parts(step.primary) if step.nodes else _s(_primary(step))


def _by_others(users: int, figures: Figures) -> str:
    return _s(figures.others[users])


def _deriving(step: Step) -> float:
    """What deriving takes: a node's sessions, or the only server's."""
    return (step.node if step.nodes else step.primary).of("backend")


def _primary(step: Step) -> float:
    return step.primary.of("backend", "apply", "walsender")


def _parts(primary: Taken) -> str:
    return " / ".join(_s(primary.of(kind)) for kind in ("backend", "apply", "walsender"))


def _a_row(figures: Figures, seconds: float) -> str:
    return f"{seconds * 1e6 / figures.rows:.1f}"


def _s(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.1f}"
