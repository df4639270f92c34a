"""Several workers beside one: first builds of the challenges that are split, in turns on one database."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field

import psycopg
from rich.table import Table

from audius_challenges.challenges import CHALLENGES
from audius_challenges.engine.per_user import PerUser
from bench.database import Subject, create_subject, server_settings
from bench.extension import TICK
from bench.measuring import processor_time
from devtools.cluster import Cluster
from devtools.discovery import require_extension

SPLIT = tuple(challenge.id for challenge in CHALLENGES if isinstance(challenge, PerUser) and challenge.is_split)
"""Those whose users several sessions examine."""

TURNS = 3
_SLICES = 64
"""Of each challenge: as many as production's size makes of slices of 50,000."""
_INTERVAL = 0.05
"""Seconds between two samples of what sessions wait for."""
_FIRST_POLL = 0.6
"""Seconds after which a helper that has been called looks for slices: it is at work when the tick begins."""

_WAITS = """
    SELECT coalesce(wait_event_type || ': ' || wait_event, 'at work')
    FROM pg_stat_activity
    WHERE pid = ANY(%s)
        AND state = 'active'
"""
_UNFINISHED = """
    SELECT count(*)
    FROM challenges
    LEFT JOIN audius_challenges.processor_state AS state
        ON challenges.id = state.challenge_id
    WHERE challenges.active
        AND state.phase IS DISTINCT FROM 'watching'
"""


class UnfinishedError(RuntimeError):
    """A tick that had time for everything has left something to do."""


@dataclass
class Figures:
    """Of so many workers: seconds of each first build, in the order of turns, and what sessions waited for.

    processor: seconds of processor time that all sessions took together, for each build.
    """

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    waits: Counter[str] = field(default_factory=Counter)

    @property
    def median(self) -> float:
        """Seconds of a first build."""
        return statistics.median(self.wall)

    def shares(self) -> Iterator[tuple[str, float]]:
        """What part of the samples each kind of waiting has, the greatest first; pauses between looks left out."""
        counted = {event: count for event, count in self.waits.items() if event != "Timeout: PgSleep"}
        for event, count in sorted(counted.items(), key=lambda item: -item[1]):
            yield event, count / sum(counted.values())


def compare(
    numbers: Sequence[int], scale: float, seed: int, say: Callable[[str], None], show: Callable[[Table], None]
) -> dict[int, Figures]:
    """Measures first builds by so many workers each, in turns, and shows the medians.

    :raises UnfinishedError: if a build did not come to its end
    """
    figures = {number: Figures() for number in numbers}
    with Cluster(cron_database="postgres", settings=server_settings(scale), in_memory=False) as cluster:
        require_extension(cluster)
        subject = create_subject(cluster, scale, seed)
        size = max(1, subject.sizes["users"] // _SLICES)
        with closing(subject.connect()) as connection:
            connection.execute("UPDATE challenges SET active = id = ANY(%s)", [list(SPLIT)])
            connection.execute(f"ALTER DATABASE {subject.discovery.name} SET audius_challenges.slice_users = {size}")
        for turn in range(TURNS):
            for number, of_number in figures.items():
                subject.forget()
                _measure(subject, number, of_number)
                say(f"turn {turn + 1} of {TURNS}: {number} workers, {of_number.wall[-1]:.1f} s")
    show(_table(figures, scale))
    return figures


def _measure(subject: Subject, number: int, figures: Figures) -> None:
    name = subject.discovery.name
    with closing(subject.connect()) as connection:
        connection.execute(f"ALTER DATABASE {name} SET audius_challenges.workers = {number}")
        connection.execute("CHECKPOINT")
    with ExitStack() as stack:
        leader = stack.enter_context(closing(subject.connect()))
        helpers = [stack.enter_context(closing(subject.connect())) for _ in range(number - 1)]
        stack.enter_context(_helping(subject, helpers))
        pids = [session.info.backend_pid for session in (leader, *helpers)]
        stack.enter_context(_sampling(subject, pids, figures.waits))
        sessions = (leader, *helpers)
        before, began = sum(map(processor_time, sessions)), time.monotonic()
        leader.execute(TICK)
        figures.wall.append(time.monotonic() - began)
        figures.processor.append((sum(map(processor_time, sessions)) - before) / 1000)
        found = leader.execute(_UNFINISHED).fetchall()
    if found != [(0,)]:
        raise UnfinishedError(f"{number} workers have left challenges to build: {found[0][0]}")


@contextmanager
def _helping(subject: Subject, helpers: Sequence[psycopg.Connection[object]]) -> Iterator[None]:
    """Helpers at work meanwhile, one in each of these sessions."""

    def help_out(session: psycopg.Connection[object]) -> None:
        with suppress(psycopg.errors.QueryCanceled):
            session.execute("CALL audius_challenges.help()")

    threads = [threading.Thread(target=help_out, args=(session,), daemon=True) for session in helpers]
    for thread in threads:
        thread.start()
    if threads:
        time.sleep(_FIRST_POLL)
    try:
        yield
    finally:
        with closing(subject.connect()) as connection:
            for session in helpers:
                connection.execute("SELECT pg_cancel_backend(%s)", [session.info.backend_pid])
        for thread in threads:
            thread.join()


@contextmanager
def _sampling(subject: Subject, pids: Sequence[int], waits: Counter[str]) -> Iterator[None]:
    """Counts what these sessions wait for meanwhile."""
    over = threading.Event()

    def sample() -> None:
        with closing(subject.connect()) as connection:
            while not over.wait(_INTERVAL):
                waits.update(event for (event,) in connection.execute(_WAITS, [list(pids)]))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _table(figures: dict[int, Figures], scale: float) -> Table:
    one = figures[min(figures)].median
    title = f"First build of {', '.join(SPLIT)} at {scale:g} of production, median of {TURNS}"
    table = Table(
        "workers", "seconds", "times as fast", "processor, s", "what sessions waited for (part of samples)", title=title
    )
    for number, of_number in figures.items():
        processor = statistics.median(of_number.processor)
        waits = ", ".join(f"{event} {share:.1%}" for event, share in list(of_number.shares())[:6])
        table.add_row(
            str(number), f"{of_number.median:.1f}", f"{one / of_number.median:.2f}", f"{processor:.1f}", waits
        )
    return table
