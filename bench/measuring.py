"""Stopwatches: wall time and the backend's processor time, its memory, the WAL; medians over repeats."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psycopg

Connection = psycopg.Connection[Any]


@dataclass
class Timing:
    """Repeated measurements of one thing, in milliseconds.

    wall: by the client's clock.
    cpu: the processor time of the backend; steadier than the wall clock on a machine that does other things.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median of the wall times."""
        return statistics.median(self.wall)

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the greatest wall time."""
        return min(self.wall), max(self.wall)

    @contextmanager
    def lap(self, connection: Connection) -> Iterator[None]:
        """Measures what this session does in the block, and adds it."""
        cpu, began = processor_time(connection), time.perf_counter()
        yield
        self.wall.append((time.perf_counter() - began) * 1000)
        self.cpu.append(processor_time(connection) - cpu)

    @classmethod
    def of(cls, connection: Connection, statement: str, repeats: int) -> Self:
        """Runs a statement a number of times."""
        timing = cls()
        for _ in range(repeats):
            with timing.lap(connection):
                connection.execute(statement)
        return timing


def stopwatch(action: Callable[[], object]) -> float:
    """Milliseconds that an action takes."""
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


def processor_time(connection: Connection) -> float:
    """Processor time that the session's backend has taken so far, in milliseconds."""
    fields = Path(f"/proc/{connection.info.backend_pid}/schedstat").read_text().split()
    return int(fields[0]) / 1e6


def private_memory(pid: int) -> float:
    """Memory that a process has of its own, without what it shares (RssAnon), in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no RssAnon in /proc/{pid}/status: this needs Linux 4.5 or later")


class MemoryWatch:
    """Samples the private memory of a session's backend, every 10 ms while the block runs.

    start, peak: in MB.
    """

    def __init__(self, connection: Connection) -> None:
        self._pid = connection.info.backend_pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.start = self.peak = private_memory(self._pid)

    @property
    def growth(self) -> float:
        """The peak above the start, in MB."""
        return self.peak - self.start

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(0.01):
            self.peak = max(self.peak, private_memory(self._pid))


def wal_position(connection: Connection) -> int:
    """Bytes of WAL written in the cluster's life."""
    row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
    assert row is not None
    return int(row[0])


def rows_written(connection: Connection, table: str) -> int:
    """Row versions ever written in a table, dead ones and those of aborted transactions included."""
    connection.execute("SELECT pg_stat_force_next_flush()")
    row = connection.execute(
        "SELECT n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables WHERE relid = %s::regclass", [table]
    ).fetchone()
    assert row is not None
    return int(row[0])
