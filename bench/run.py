"""One run: two databases, one a tenth of the other, everything measured on both."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from bench import extension
from bench.changes import Indexer
from bench.database import Subject, create_subject, server_settings
from bench.handwritten import build_by_hand
from bench.measuring import Timing, rows_written
from bench.models.checkpointed import CheckpointedJob
from bench.models.rereading import rereading_tick
from bench.models.triggers import insert_follows, insert_tracks, triggers
from bench.result import Figures, Machine, Measure, Result
from devtools.cluster import Cluster
from devtools.discovery import require_extension

R = TypeVar("R")

SMALL = 0.1
"""Up to this scale the streaks are built by hand, too, and the extension builds by ticks as well: minutes each."""

CHECKPOINTED_SECONDS = 10
"""After so many seconds model (b)'s first build gives up on a source; the rest is extrapolated."""

Say = Callable[[str], None]


def run(scale: float, seed: int, repeats: int, say: Say) -> Result:
    """Measures everything at the scale and at a tenth of it.

    repeats: of an idle tick; what takes longer is repeated less.
    say: is told what is being done.
    Raises NotInstalledError if the server has not this repository's build of the extension.
    """
    began = time.monotonic()
    settings = server_settings(scale)
    with Cluster(cron_database="postgres", settings=settings, in_memory=False) as cluster:
        require_extension(cluster)
        with cluster.connect("postgres") as connection:
            (version,) = connection.execute("SHOW server_version").fetchone() or ("",)
        machine = Machine.here(version)
        figures = [_Run(cluster, size, seed, repeats, say).figures() for size in (scale / 10, scale)]
    return Result(machine, settings, seed, round(time.monotonic() - began), figures)


class _Run:
    """Everything at one size, in the order of `figures`."""

    def __init__(self, cluster: Cluster, scale: float, seed: int, repeats: int, say: Say) -> None:
        self.cluster, self.scale, self.seed, self.repeats, self._say = cluster, scale, seed, repeats, say

    def figures(self) -> Figures:
        """Measures; the database is dropped in the end."""
        is_small = self.scale <= SMALL
        subject = self.step("generating", lambda: create_subject(self.cluster, self.scale, self.seed))
        by_hand = self.step("first build by hand", lambda: build_by_hand(subject, with_streaks=is_small))
        subject.forget()
        rereading_build = self.step("first build of model (a)", lambda: rereading_tick(subject))
        subject.forget()
        job = CheckpointedJob(subject)
        checkpointed_build = self.step("first build of model (b)", lambda: job.build(CHECKPOINTED_SECONDS))
        build = self.step("first build", lambda: extension.first_build(subject, by_ticks=is_small))
        idle = self.step("idle ticks", lambda: extension.idle(subject, self.repeats))
        after = self.step("ticks after changes", lambda: extension.after_changes(subject))
        sweep = self.step("sweep", lambda: extension.sweep(subject, self.repeats))
        with_indexes = self.step("ticks with the indexes", lambda: extension.after_changes_with_indexes(subject))
        rereading = self.step("a tick of model (a)", lambda: rereading_tick(subject))
        subject.settle()
        job_idle, job_rows, job_after = self.step(
            "ticks of model (b)", lambda: _ticks_of_job(subject, job, self.repeats)
        )
        job.close()
        triggers_after, inserts = self.step("writers with model (c)", lambda: _writers(subject, self.repeats))
        self.cluster.drop_database(subject.discovery.name)
        differing = [
            name
            for name in by_hand.digest.keys() | build.digest.keys()
            if by_hand.digest.get(name) != build.digest.get(name)
            and (is_small or name not in {"e", "challenge_listen_streak"})
        ]
        return Figures(
            scale=self.scale,
            sizes=dict(subject.sizes),
            gigabytes=round(subject.bytes / 1e9, 2),
            handwritten=dict(by_hand.milliseconds),
            first_build={challenge: sum(timing.wall) for challenge, timing in build.by_challenge.items()},
            first_build_by_ticks=sum(build.by_ticks.wall) if is_small else None,
            rows={challenge: digest.rows for challenge, digest in build.digest.items()},
            differing=sorted(differing),
            memory=build.memory,
            memory_growth=build.memory_growth,
            idle_warm=Measure.of(idle.warm),
            idle_by_challenge=idle.by_challenge,
            idle_whole=Measure.of(idle.whole),
            connection=Measure.of(idle.connection),
            idle_rows=sum(idle.rows.values()),
            idle_wal=idle.wal,
            after={users: Measure.of(timing) for users, timing in after.items()},
            after_with_indexes=Measure.of(with_indexes),
            sweep_per_user=sweep.per_user,
            sweep_per_user_cold=sweep.per_user_cold,
            rereading_build=rereading_build.milliseconds,
            rereading_tick=rereading.milliseconds,
            rereading_rows=rereading.rows,
            rereading_extrapolated=rereading.is_extrapolated,
            checkpointed_build=checkpointed_build.milliseconds,
            checkpointed_extrapolated=checkpointed_build.is_extrapolated,
            checkpointed_idle=Measure.of(job_idle),
            checkpointed_idle_rows=job_rows,
            checkpointed_after={users: Measure.of(timing) for users, timing in job_after.items()},
            triggers_after=triggers_after,
            inserts=inserts,
        )

    def step(self, name: str, action: Callable[[], R]) -> R:
        """Does one thing and says how long it took."""
        began = time.monotonic()
        outcome = action()
        self._say(f"scale {self.scale:g}: {name}, {time.monotonic() - began:.0f} s")
        return outcome


def _ticks_of_job(subject: Subject, job: CheckpointedJob, repeats: int) -> tuple[Timing, int, dict[int, Timing]]:
    """Model (b): idle ticks, the rows that one writes, and ticks after changes."""
    idle, after = Timing(), {}
    job.catch_up()
    job.tick()
    before = rows_written(job.connection, "user_challenges")
    for _ in range(repeats):
        with idle.lap(job.connection):
            job.tick()
    rows = (rows_written(job.connection, "user_challenges") - before) // repeats
    indexer = Indexer(subject)
    for users in extension.changed_users(subject):
        after[users] = Timing()
        for _ in range(3):
            indexer.change(users)
            with after[users].lap(job.connection):
                job.tick()
    indexer.close()
    return idle, rows, after


def _writers(subject: Subject, repeats: int) -> tuple[dict[int, float], dict[str, dict[str, Measure]]]:
    """Model (c): what the triggers add to transactions that change so many users, and to 1,000 inserts."""
    indexer = Indexer(subject)

    def change_all() -> dict[int, float]:
        return {users: min(indexer.change(users) for _ in range(3)) for users in extension.changed_users(subject)}

    def insert_all() -> dict[str, Measure]:
        return {
            "follows": Measure.of(insert_follows(indexer.connection, repeats)),
            "tracks": Measure.of(insert_tracks(indexer.connection, repeats)),
        }

    without, inserts_without = change_all(), insert_all()
    with triggers(subject):
        having, inserts_with = change_all(), insert_all()
    indexer.close()
    return (
        {users: max(0.0, having[users] - without[users]) for users in without},
        {table: {"without": inserts_without[table], "with": inserts_with[table]} for table in inserts_without},
    )
