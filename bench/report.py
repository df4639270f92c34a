"""The tables: the goals beside what was measured, the first build by challenge, and the alternatives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.database import BY_HAND, CHALLENGES, USER_DERIVED
from bench.result import Figures, Measure, Result


@dataclass(frozen=True)
class Goal:
    """A line of the first table: a figure at both sizes, and what it should be at most."""

    what: str
    smaller: float | None
    larger: float | None
    most: float | None
    unit: str
    spread: Measure | None = None

    @property
    def is_met(self) -> bool:
        """Whether the larger database is within the goal, if there is one."""
        return self.larger is not None and self.most is not None and self.larger <= self.most


def first_build_ratio(figures: Figures, challenges: Iterable[str]) -> float | None:
    """The extension's first build of these challenges against the hand-written one; `eligible` is shared by all.

    None if one of them was not built by hand.
    """
    ids = list(challenges)
    if not figures.handwritten.keys() >= set(ids):
        return None
    by_hand = sum(figures.handwritten[challenge] for challenge in ids) + figures.handwritten["eligible"]
    return sum(figures.first_build[challenge] for challenge in ids) / by_hand


def goals(smaller: Figures, larger: Figures) -> list[Goal]:
    """What the project set out for, in its order."""
    users = max(users for users in larger.after.keys() & smaller.after.keys() if users <= 1000)
    lines = [
        Goal("idle tick, warm session (change detection)", smaller.idle_warm.median, larger.idle_warm.median, 15, "ms"),
        Goal("idle tick, new connection", smaller.idle_whole.median, larger.idle_whole.median, 80, "ms"),
        Goal("idle tick: row versions written", smaller.idle_rows, larger.idle_rows, 0, "rows"),
        Goal("idle tick: WAL", smaller.idle_wal / 1000, larger.idle_wal / 1000, 8, "kB"),
        Goal(f"tick after {users:,} users changed", smaller.after[users].median, larger.after[users].median, 200, "ms"),
        Goal(
            "the same against a tenth of the size",
            None,
            larger.after[users].median / smaller.after[users].median,
            1.3,
            "x",
        ),
        Goal(
            "the same with the indexes that production lacks",
            smaller.after_with_indexes.median,
            larger.after_with_indexes.median,
            200,
            "ms",
        ),
        Goal(
            "these against a tenth of the size",
            None,
            larger.after_with_indexes.median / smaller.after_with_indexes.median,
            1.3,
            "x",
        ),
        Goal("sweep, all challenges", smaller.sweep_per_user, larger.sweep_per_user, 60, "µs/user"),
        Goal("the same, first time round", smaller.sweep_per_user_cold, larger.sweep_per_user_cold, None, "µs/user"),
        Goal(
            "first build against SQL by hand",
            first_build_ratio(smaller, BY_HAND),
            first_build_ratio(larger, BY_HAND),
            1.25,
            "x",
        ),
        Goal(
            "the same with e, by hand a loop",
            first_build_ratio(smaller, [*BY_HAND, "e"]),
            first_build_ratio(larger, [*BY_HAND, "e"]),
            1.25,
            "x",
        ),
        Goal("memory of the backend over it, above its start", smaller.memory_growth, larger.memory_growth, 300, "MB"),
    ]
    measures = {0: larger.idle_warm, 1: larger.idle_whole, 4: larger.after[users], 6: larger.after_with_indexes}
    return [
        Goal(line.what, line.smaller, line.larger, line.most, line.unit, measures.get(place))
        for place, line in enumerate(lines)
    ]


def show(result: Result, console: Console) -> None:
    """Prints everything."""
    smaller, larger = result.figures
    machine = result.machine
    console.print(
        f"\n{machine.at}: PostgreSQL {machine.postgres}, {machine.processors} processors ({machine.processor}), "
        f"{machine.memory_gb:g} GB, load {machine.load:.1f} at the beginning; seed {result.seed}; "
        f"{result.seconds / 60:.0f} minutes."
    )
    console.print(
        "Source rows: "
        + ", ".join(f"{name} {count:,}" for name, count in larger.sizes.items())
        + f"; {larger.gigabytes:g} GB. The smaller database is a tenth of it."
    )
    console.print(_goals_table(smaller, larger))
    console.print(_first_build_table(larger))
    console.print(_alternatives_table(smaller, larger))
    console.print(
        "≈: measured on a part and extrapolated. (a), (b) and (c) are models, written for this comparison; they know "
        f"{', '.join(USER_DERIVED)} alone,\nthe extension's ticks all challenges. Times are medians; the range is of "
        "the larger database."
    )
    for figures in result.figures:
        if figures.differing:
            console.print(
                Text(
                    f"scale {figures.scale:g}: the extension and the SQL by hand wrote different rows: "
                    + ", ".join(figures.differing),
                    style="bold red",
                )
            )


def _goals_table(smaller: Figures, larger: Figures) -> Table:
    table = _table("Goals", "what", f"scale {smaller.scale:g}", f"scale {larger.scale:g}", "range", "goal", "of goal")
    for line in goals(smaller, larger):
        table.add_row(
            line.what,
            _with_unit(line.smaller, line.unit),
            _with_unit(line.larger, line.unit),
            f"{_number(line.spread.least)} to {_number(line.spread.greatest)}" if line.spread else "",
            _most(line),
            _verdict(line),
        )
    return table


def _most(line: Goal) -> str:
    if line.most is None:
        return ""
    return f"≤ {line.most:g} {line.unit}" if line.most else f"{line.most:g}"


def _verdict(line: Goal) -> Text:
    if line.larger is None or line.most is None:
        return Text("")
    words = f"{line.larger / line.most:.2f} x" if line.most else "met" if line.is_met else "missed"
    return Text(words, style="green" if line.is_met else "red")


def _first_build_table(figures: Figures) -> Table:
    table = _table(f"First build at scale {figures.scale:g}", "challenge", "rows", "extension", "by hand", "ratio")
    for challenge in CHALLENGES:
        by_hand = figures.handwritten.get(challenge)
        table.add_row(
            challenge,
            f"{figures.rows.get(challenge, 0):,}",
            _seconds(figures.first_build[challenge]),
            _seconds(by_hand) if by_hand else "",
            f"{figures.first_build[challenge] / by_hand:.2f} x" if by_hand else "",
        )
    table.add_row("eligible users, for all of these", "", "", _seconds(figures.handwritten["eligible"]), "")
    compared = [challenge for challenge in CHALLENGES if challenge in figures.handwritten]
    total = sum(figures.first_build[challenge] for challenge in compared)
    by_hand = sum(figures.handwritten.values())
    table.add_row("sum of those", "", _seconds(total), _seconds(by_hand), f"{total / by_hand:.2f} x")
    if figures.first_build_by_ticks is not None:
        table.add_row("everything in one tick", "", _seconds(figures.first_build_by_ticks), "", "")
    return table


def _alternatives_table(smaller: Figures, larger: Figures) -> Table:
    table = _table(
        "The alternatives",
        "what",
        "database",
        "extension",
        "(a) re-read, row by row",
        "(b) checkpoints, batches",
        "(c) triggers",
    )
    for figures in (smaller, larger):
        size = f"scale {figures.scale:g}"
        mark_a = "≈ " if figures.rereading_extrapolated else ""
        mark_b = "≈ " if figures.checkpointed_extrapolated else ""
        user_derived = sum(figures.first_build[challenge] for challenge in USER_DERIVED)
        table.add_row(
            f"first build of {', '.join(USER_DERIVED)}",
            size,
            _seconds(user_derived),
            mark_a + _seconds(figures.rereading_build),
            mark_b + _seconds(figures.checkpointed_build),
            "",
        )
        tick_a = mark_a + _milliseconds(figures.rereading_tick)
        table.add_row(
            "idle tick",
            size,
            _milliseconds(figures.idle_warm.median),
            tick_a,
            _milliseconds(figures.checkpointed_idle.median),
            "0",
        )
        table.add_row(
            "rows that it writes",
            size,
            f"{figures.idle_rows:,}",
            f"{figures.rereading_rows:,}",
            f"{figures.checkpointed_idle_rows:,}",
            "0",
        )
        for users, measure in figures.after.items():
            table.add_row(
                f"tick after {users:,} users changed",
                size,
                _milliseconds(measure.median),
                tick_a,
                _milliseconds(figures.checkpointed_after[users].median),
                f"+ {_milliseconds(figures.triggers_after[users])}, the writers",
            )
    for name, both in larger.inserts.items():
        without, having = both["without"].median, both["with"].median
        table.add_row(
            f"1,000 rows inserted into {name}",
            f"scale {larger.scale:g}",
            _milliseconds(without),
            _milliseconds(without),
            _milliseconds(without),
            f"{_milliseconds(having)} ({having / without:.1f} x)",
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right")
    return table


def _with_unit(value: float | None, unit: str) -> str:
    return "" if value is None else f"{_number(value)} {unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _milliseconds(value: float) -> str:
    return f"{_number(value)} ms" if value < 10_000 else _seconds(value)


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1000:,.0f} s" if milliseconds >= 100_000 else f"{milliseconds / 1000:.3g} s"
