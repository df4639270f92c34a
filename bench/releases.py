"""This build beside an earlier release: first builds and idle ticks of both, in turns on one database.

Active are the challenges that the release knows; whatever has come since is inactive.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from rich.table import Table

from bench import extension
from bench.database import Subject, create_subject, server_settings
from bench.measuring import Connection
from devtools.cluster import Cluster
from devtools.discovery import require_extension

_TURNS = 3
_TICKS_COUNTED = 5


@dataclass
class _Figures:
    """Of one version, in the order of its turns; times in milliseconds."""

    builds: list[dict[str, float]] = field(default_factory=list)
    idle_warm: list[float] = field(default_factory=list)
    idle_whole: list[float] = field(default_factory=list)
    wal: list[float] = field(default_factory=list)
    statements: float = 0
    memory: list[float] = field(default_factory=list)


def compare(
    release: str, scale: float, seed: int, repeats: int, say: Callable[[str], None], show: Callable[[Table], None]
) -> None:
    """Measures both versions in turns, so that what else the machine does hits both, and shows the medians.

    release: a version whose script is installed.
    repeats: idle ticks in each turn.
    """
    settings = server_settings(scale) | {"shared_preload_libraries": "pg_stat_statements"}
    with Cluster(cron_database="postgres", settings=settings, in_memory=False) as cluster:
        require_extension(cluster)
        subject = create_subject(cluster, scale, seed)
        with subject.connect() as connection:
            connection.execute("CREATE EXTENSION pg_stat_statements")
            found = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'audius_challenges'")
            ((present,),) = found.fetchall()
        challenges = subject.use(release)
        figures = {release: _Figures(), present: _Figures()}
        for turn in range(_TURNS):
            for version, of_version in figures.items():
                subject.use(version, challenges)
                _measure(subject, challenges, repeats, of_version)
                say(f"turn {turn + 1} of {_TURNS}: {version} done")
    show(_table(figures, release, present, challenges))


def _measure(subject: Subject, challenges: Sequence[str], repeats: int, figures: _Figures) -> None:
    build = extension.first_build(subject, by_ticks=False, challenges=challenges)
    figures.builds.append({challenge: sum(timing.wall) for challenge, timing in build.by_challenge.items()})
    figures.memory.append(build.memory_growth)
    idle = extension.idle(subject, repeats)
    figures.idle_warm += idle.warm.wall
    figures.idle_whole += idle.whole.wall
    figures.wal.append(idle.wal)
    with subject.connect() as connection:
        figures.statements = _statements(connection)


def _statements(connection: Connection) -> float:
    """SQL statements that an idle tick runs, with those inside functions."""
    connection.execute(extension.TICK)
    connection.execute("SET pg_stat_statements.track = 'all'")
    connection.execute("SELECT pg_stat_statements_reset()")
    for _ in range(_TICKS_COUNTED):
        connection.execute(extension.TICK)
    found = connection.execute(
        "SELECT sum(calls) FROM pg_stat_statements WHERE query !~ 'pg_stat_statements' AND query !~ 'tick'"
    )
    ((calls,),) = found.fetchall()
    return float(calls) / _TICKS_COUNTED


def _build_of(challenge: str, figures: _Figures) -> float:
    return statistics.median(build[challenge] for build in figures.builds)


def _table(figures: dict[str, _Figures], old: str, new: str, challenges: Sequence[str]) -> Table:
    table = Table("what", old, new, "ratio", title="medians, milliseconds")

    def add(what: str, value: Callable[[_Figures], float]) -> None:
        before, after = value(figures[old]), value(figures[new])
        table.add_row(what, f"{before:,.4g}", f"{after:,.4g}", f"{after / before:.2f}")

    add("idle tick, warm session", lambda one: statistics.median(one.idle_warm))
    add("idle tick, new connection", lambda one: statistics.median(one.idle_whole))
    add("idle tick, statements", lambda one: one.statements)
    add("idle tick, bytes of WAL", lambda one: statistics.median(one.wal))
    for challenge in challenges:
        add(f"first build, {challenge}", partial(_build_of, challenge))
    add("first build, all", lambda one: statistics.median(sum(build.values()) for build in one.builds))
    add("memory of the first build, MB", lambda one: statistics.median(one.memory))
    return table
