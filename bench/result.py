"""A result: what was measured on each database, where, and how; kept as JSON."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from bench.measuring import Timing


@dataclass(frozen=True)
class Measure:
    """A repeated measurement, in milliseconds: median, least and greatest wall time, median processor time."""

    median: float
    least: float
    greatest: float
    cpu: float
    repeats: int

    @classmethod
    def of(cls, timing: Timing) -> Self:
        """Sums up a timing."""
        cpu = statistics.median(timing.cpu) if timing.cpu else 0.0
        return cls(timing.median, *timing.spread, cpu, len(timing.wall))


@dataclass(frozen=True)
class Machine:
    """Where and when it was measured. load: the load average as the run began."""

    at: str
    postgres: str
    processor: str
    processors: int
    memory_gb: float
    load: float

    @classmethod
    def here(cls, postgres: str) -> Self:
        """This machine, now."""
        model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        return cls(
            at, postgres, model[1] if model else "unknown", os.cpu_count() or 0, round(memory, 1), os.getloadavg()[0]
        )


@dataclass(frozen=True)
class Figures:
    """What was measured at one size; times are milliseconds unless said otherwise.

    sizes: rows of the source tables; ``users`` counts ids.
    handwritten: the hand-written first build, by challenge, and `eligible`, which these share.
    first_build: the extension's, by challenge; first_build_by_ticks: all of it in one tick, not measured on the largest
    databases, nor is `e` by hand.
    rows: rows of the derived tables after it; differing: where they are not those of the hand-written one.
    memory_growth: of the backend over the first build, MB.
    idle_rows: row versions that idle ticks wrote in the derived tables.
    idle_wal: bytes.
    after: ticks after so many users changed.
    after_with_indexes: the same of 1,000, with the indexes that production lacks and the extension uses.
    sweep_per_user: microseconds, of users examined before; …_cold: of users of whom nothing need be in memory.
    rereading_…: model (a); checkpointed_…: model (b); …_extrapolated says that it was measured on a part.
    triggers_after: what model (c) adds to the transactions that change so many users.
    inserts: 1,000 rows inserted into follows and tracks, `without` and `with` the triggers.
    """

    scale: float
    sizes: dict[str, int]
    gigabytes: float
    handwritten: dict[str, float]
    first_build: dict[str, float]
    first_build_by_ticks: float | None
    rows: dict[str, int]
    differing: list[str]
    memory: float
    memory_growth: float
    idle_warm: Measure
    idle_by_challenge: dict[str, float]
    idle_whole: Measure
    connection: Measure
    idle_rows: int
    idle_wal: float
    after: dict[int, Measure]
    after_with_indexes: Measure
    sweep_per_user: float
    sweep_per_user_cold: float
    rereading_build: float
    rereading_tick: float
    rereading_rows: int
    rereading_extrapolated: bool
    checkpointed_build: float
    checkpointed_extrapolated: bool
    checkpointed_idle: Measure
    checkpointed_idle_rows: int
    checkpointed_after: dict[int, Measure]
    triggers_after: dict[int, float]
    inserts: dict[str, dict[str, Measure]]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The figures as `Result.save` wrote them."""
        measures = {name: Measure(**data[name]) for name in _MEASURES}
        by_users = {
            name: {int(users): Measure(**value) for users, value in data[name].items()} for name in _MEASURES_BY_USERS
        }
        triggers = {int(users): value for users, value in data["triggers_after"].items()}
        inserts = {
            table: {name: Measure(**value) for name, value in both.items()} for table, both in data["inserts"].items()
        }
        return cls(**{**data, **measures, **by_users, "triggers_after": triggers, "inserts": inserts})


_MEASURES = ("idle_warm", "idle_whole", "connection", "after_with_indexes", "checkpointed_idle")
_MEASURES_BY_USERS = ("after", "checkpointed_after")


@dataclass(frozen=True)
class Result:
    """A run of the benchmark: the smaller database first."""

    machine: Machine
    settings: dict[str, str]
    seed: int
    seconds: float
    figures: list[Figures]

    def save(self, path: Path) -> None:
        """Writes the result."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a result that `save` wrote."""
        data = json.loads(path.read_text())
        figures = [Figures.from_json(figures) for figures in data.pop("figures")]
        return cls(**{**data, "machine": Machine(**data["machine"]), "figures": figures})
