"""The command run: a reconcile, with the progress of first builds and of catching up.

Each challenge runs in a transaction of its own, as in a tick, and those that are not through are run again. So whoever
stops it loses no more than the turn that is under way. A dry run is one call, so that what follows from one challenge
to the other shows.
"""

from __future__ import annotations

import datetime as dt
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from audius_challenges_cli import show
from audius_challenges_cli.database import Challenge, Database, Outcome
from audius_challenges_cli.errors import CommandError, Exit

PAUSE = 1.0
"""Seconds between two tries while another run is under way."""


@dataclass(frozen=True)
class Wish:
    """What somebody wants to be run.

    :ivar challenges: which challenges; None: all of them
    :ivar patience: seconds to wait for another run to end
    """

    challenges: Sequence[str] | None = None
    full_scan: bool = False
    as_of: dt.datetime | None = None
    patience: float = 120.0


@dataclass
class Run:
    """A run that goes on until no challenge has a first build or a catching up to finish."""

    database: Database
    wish: Wish
    bars: Bars
    results: dict[str, Outcome] = field(default_factory=dict)

    def to_its_end(self) -> list[Outcome]:
        """What was done for each challenge, in run order.

        :raises CommandError: if another run does not end in time
        :raises KeyboardInterrupt: the turn under way is rolled back; `results` has the others
        """
        wanted = self.wish.challenges
        known = self.database.challenges()
        queue = deque(row for row in known if wanted is None or row.challenge_id in wanted)
        for row in queue:
            self.bars.add(row)
        while queue:
            row = queue.popleft()
            self.bars.begin(row)
            outcome = self._turn(row.challenge_id)
            done = self.results.get(row.challenge_id)
            self.results[row.challenge_id] = outcome = _sum(done, outcome)
            now = next(each for each in self.database.challenges() if each.challenge_id == row.challenge_id)
            goes_on = now.backlog > 0 and outcome.status == "ok"
            self.bars.end(now, outcome, goes_on=goes_on)
            if goes_on:
                queue.append(row)
        return list(self.results.values())

    def _turn(self, challenge: str) -> Outcome:
        began = time.monotonic()
        # Everybody at once only the first time: what is left after that is for slices.
        full_scan = self.wish.full_scan and challenge not in self.results
        while True:
            (outcome,) = interruptible(
                self.database,
                lambda: self.database.reconcile([challenge], full_scan=full_scan, dry_run=False, as_of=self.wish.as_of),
            )
            if outcome.status != "busy":
                return outcome
            if time.monotonic() - began > self.wish.patience:
                raise CommandError(
                    f"another run has been under way for {self.wish.patience:.0f} s",
                    "Ticks go on by themselves: audius-challenges watch shows them. --wait has more patience.",
                    Exit.WARNING,
                )
            self.bars.wait()
            time.sleep(PAUSE)


def interruptible(database: Database, ask: Callable[[], list[Outcome]]) -> list[Outcome]:
    """Asks; Ctrl-C cancels it on the server before it ends the command."""
    try:
        return ask()
    except KeyboardInterrupt:
        database.cancel()
        raise


def _sum(done: Outcome | None, more: Outcome) -> Outcome:
    if done is None:
        return more
    return replace(
        more,
        users_examined=done.users_examined + more.users_examined,
        rows_inserted=done.rows_inserted + more.rows_inserted,
        rows_updated=done.rows_updated + more.rows_updated,
        rows_completed=done.rows_completed + more.rows_completed,
        duration=done.duration + more.duration,
    )


class Bars:
    """A bar for each challenge: how far its round over all users has come."""

    def __init__(self, console: Console) -> None:
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("[bold]{task.fields[id]:<4}[/bold]"),
            TextColumn("{task.description}", markup=False),
            BarColumn(30),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[says]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._here: TaskID | None = None

    @contextmanager
    def shown(self) -> Iterator[Bars]:
        """Shows the bars meanwhile, where there is a terminal."""
        with self._progress:
            yield self

    def add(self, row: Challenge) -> None:
        """A challenge whose turn will come."""
        self._tasks[row.challenge_id] = self._progress.add_task(
            show.visible(row.description), start=False, total=100, id=row.challenge_id, says=""
        )

    def begin(self, row: Challenge) -> None:
        """It is its turn."""
        self._here = self._tasks[row.challenge_id]
        self._progress.start_task(self._here)

    def wait(self) -> None:
        """Another run is under way."""
        if self._here is not None:
            self._progress.update(self._here, says="[yellow]waits for the run under way[/yellow]")

    def end(self, row: Challenge, outcome: Outcome, *, goes_on: bool) -> None:
        """Its turn is over."""
        says = f"{outcome.rows_completed:,} completed" if outcome.status == "ok" else outcome.status
        completed = float(row.sweep_progress or 0) if goes_on else 100
        task = self._tasks[row.challenge_id]
        self._progress.update(task, completed=completed, says=says)
        if not goes_on:
            self._progress.stop_task(task)
