"""A real peer: pg_ivm, incremental view maintenance, beside this extension in one run on one database.

It keeps what its language can say: how many tracks each user has, as `u` counts them, and whom each user follows, as
one step of `p` does. Of these alone it keeps the numbers: no users who count, no distinct tracks, no rewards, no
finality. It keeps them by triggers, in the transaction that writes.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from rich.table import Table

from bench.changes import Indexer
from bench.database import Subject, create_subject, server_settings
from bench.extension import build_challenge
from bench.measuring import Connection, Timing
from bench.models.triggers import FOLLOWS, TRACKS, insert
from devtools.cluster import Cluster
from devtools.debian_root import installed_root
from devtools.discovery import require_extension

MAJOR = 18
"""Debian has pg_ivm for this PostgreSQL; it is that of `debian_root`."""

PACKAGE = "postgresql-{major}-pg-ivm"

_WRITES = {"follows": FOLLOWS, "tracks": TRACKS}
_CHALLENGES = {"follows": "p", "tracks": "u"}

_VIEWS = {
    "follows": """
        SELECT
            follower_user_id,
            count(*) AS quantity
        FROM follows
        WHERE is_current
            AND NOT is_delete
        GROUP BY follower_user_id
    """,
    "tracks": """
        SELECT
            owner_id,
            count(*) AS quantity
        FROM tracks
        WHERE is_current
            AND NOT is_delete
            AND NOT is_unlisted
            AND stem_of IS NULL
            AND coalesce(blocknumber, 0) >= {starting_block}
        GROUP BY owner_id
    """,
}

_RECONCILE = "SELECT count(*) FROM reconcile_challenges('{u,p}')"
_ONE_FOLLOW = """
    INSERT INTO follows (follower_user_id, followee_user_id, is_current, is_delete, blocknumber, created_at, txhash)
    VALUES (%s, 1, true, false, (SELECT max(number) FROM blocks), now(), 'bench')
"""


@dataclass
class _OfTable:
    """What was measured of a source table; times in milliseconds.

    build: of the view; first_build: of the whole challenge by this extension.
    statement, rows: 1,000 rows written by one statement, and by 1,000, without the view and with it.
    reconciling: a run of u and p after 1,000 rows were written.
    megabytes: of the view and its index.
    """

    build: float = 0
    first_build: float = 0
    statement: dict[bool, Timing] = field(default_factory=dict)
    rows: dict[bool, Timing] = field(default_factory=dict)
    reconciling: Timing = field(default_factory=Timing)
    megabytes: float = 0
    differing: int = 0


def compare_with_peer(
    scale: float, seed: int, repeats: int, say: Callable[[str], None], show: Callable[[Table], None]
) -> None:
    """Measures both on PostgreSQL 18, in a Debian that has pg_ivm, and shows it.

    Raises DebianRootError where there is no such Debian.
    """
    root = installed_root(MAJOR, extra=(PACKAGE,))
    settings = server_settings(scale) | {"shared_preload_libraries": "pg_ivm"}
    with Cluster(
        root.bin_dir(MAJOR), cron_database="postgres", settings=settings, root=root.path, in_memory=False
    ) as cluster:
        require_extension(cluster)
        subject = create_subject(cluster, scale, seed)
        say("generated")
        figures = {table: _OfTable() for table in _WRITES}
        indexer = Indexer(subject)
        with subject.connect() as connection:
            _measure_extension(connection, figures, repeats)
            say("this extension measured")
            _measure_writes(connection, figures, repeats, with_view=False)
            waits_without = _waits(subject)
            connection.execute("CREATE EXTENSION pg_ivm")
            found = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'pg_ivm'")
            ((version,),) = found.fetchall()
            _create_views(connection, figures)
            say("views built")
            _measure_writes(connection, figures, repeats, with_view=True)
            waits_with = _waits(subject)
            for table, of_table in figures.items():
                of_table.differing = _differing(connection, table)
        indexer.close()
    show(_table(figures, version, {False: waits_without, True: waits_with}))


def _measure_extension(connection: Connection, figures: dict[str, _OfTable], repeats: int) -> None:
    for table, challenge in _CHALLENGES.items():
        figures[table].first_build = sum(build_challenge(connection, challenge).wall)
    connection.execute("VACUUM ANALYZE user_challenges, challenge_profile_completion")
    connection.execute(_RECONCILE)
    for table, write in _WRITES.items():
        for number in range(repeats):
            with _writers(connection):
                connection.execute(write.replace("'bench'", f"'bench{number}'"))
            with figures[table].reconciling.lap(connection):
                connection.execute(_RECONCILE)


@contextmanager
def _writers(connection: Connection) -> Iterator[None]:
    connection.execute(
        """
        CREATE TEMPORARY TABLE writers AS
        SELECT
            user_id,
            row_number() OVER () AS k
        FROM (SELECT user_id FROM bench_active_users ORDER BY random() LIMIT 1000) AS active
        """
    )
    yield
    connection.execute("DROP TABLE writers")


def _measure_writes(connection: Connection, figures: dict[str, _OfTable], repeats: int, *, with_view: bool) -> None:
    for table, write in _WRITES.items():
        figures[table].statement[with_view] = insert(connection, write, repeats)
        figures[table].rows[with_view] = insert(connection, write, repeats, row_by_row=True)


def _create_views(connection: Connection, figures: dict[str, _OfTable]) -> None:
    for table, of_table in figures.items():
        timing = Timing()
        with timing.lap(connection):
            connection.execute("SELECT pgivm.create_immv(%s, %s)", [_name(table), _query(connection, table)])
        of_table.build = timing.median
        found = connection.execute("SELECT pg_total_relation_size(%s::regclass)", [_name(table)])
        ((size,),) = found.fetchall()
        of_table.megabytes = size / 1e6


def _name(table: str) -> str:
    return f"{table}_of_users"


def _query(connection: Connection, table: str) -> str:
    found = connection.execute("SELECT coalesce(starting_block, 0) FROM challenges WHERE id = 'u'")
    ((starting_block,),) = found.fetchall()
    return _VIEWS[table].format(starting_block=starting_block)


def _differing(connection: Connection, table: str) -> int:
    """Groups of a view that are not what its query says now, after a commit of another 1,000 rows."""
    with _writers(connection):
        connection.execute(_WRITES[table].replace("'bench'", "'bench at last'"))
    user, query = {"follows": "follower_user_id", "tracks": "owner_id"}[table], _query(connection, table)
    found = connection.execute(
        f"""
        SELECT count(*)
        FROM ({query}) AS said
        FULL JOIN {_name(table)} AS kept
            ON kept.{user} = said.{user}
        WHERE kept.quantity IS DISTINCT FROM said.quantity
        """
    )
    ((count,),) = found.fetchall()
    return int(count)


def _waits(subject: Subject) -> bool:
    """Whether somebody who follows waits until somebody else, who does too, has committed."""
    with subject.connect() as first, subject.connect() as second:
        found = first.execute("SELECT min(user_id), max(user_id) FROM bench_active_users")
        ((one, other),) = found.fetchall()
        second.execute("SET lock_timeout = '500ms'")
        with first.transaction(force_rollback=True):
            first.execute(_ONE_FOLLOW, [one])
            try:
                with second.transaction(force_rollback=True):
                    second.execute(_ONE_FOLLOW, [other])
            except psycopg.errors.LockNotAvailable:
                return True
    return False


def _table(figures: dict[str, _OfTable], version: str, waits: dict[bool, bool]) -> Table:
    table = Table("what", f"pg_ivm {version}", "this extension", title="medians, milliseconds")

    def say(number: float) -> str:
        return f"{number:,.4g}"

    def writes(timings: dict[bool, Timing]) -> tuple[str, str]:
        without, having = timings[False].median, timings[True].median
        return f"{say(having)} ({having / without:.2f} x)", f"{say(without)} (as without)"

    for name, challenge in _CHALLENGES.items():
        of_table = figures[name]
        table.add_row(f"build: {name} of each user; all of {challenge}", say(of_table.build), say(of_table.first_build))
        table.add_row(f"size of it, MB: {name} of each user", say(of_table.megabytes), "")
    for name, of_table in figures.items():
        table.add_row(f"1,000 {name} in one statement, the writer", *writes(of_table.statement))
        table.add_row(f"1,000 {name} row by row, the writer", *writes(of_table.rows))
    table.add_row("two who write at once", *("one waits" if waits[known] else "none waits" for known in (True, False)))
    table.add_row("how late it is", "at commit: not at all", "at the next tick")
    for name, of_table in figures.items():
        late = f"and by {say(statistics.median(of_table.reconciling.wall))}"
        table.add_row(f"the same after 1,000 {name}, a run of u and p", "", late)
    for name, of_table in figures.items():
        table.add_row(f"{name} of users that were wrong in the end", f"{of_table.differing:,}", "")
    return table
