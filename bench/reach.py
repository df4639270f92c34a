"""How far one server reaches, on paper, and what shares take from it: table and picture of explanation/scale.md.

All of it follows from what was measured: on one server at production's size (docs/explanation/performance.md), and of
shares by `make bench-nodes`, whose table is in the page. `python -m bench.reach` draws the picture anew.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devtools import REPOSITORY

# One server at production's size, all challenges.
USERS = 3_200_000
FIRST_BUILD = 568.0
"""Seconds, the sum of all challenges in one session."""
CHANGED = {10: 0.384, 100: 0.453, 1_000: 0.912, 10_000: 4.863}
"""Seconds of a tick, by how many users have changed, without the indexes that production lacks."""
PER_USER = (CHANGED[10_000] - CHANGED[1_000]) / 9_000
"""Seconds for each user who changes."""
SWEEP = 63.5e-6
"""Seconds for each user, all challenges."""
DISK = 17.4
"""Gigabytes of what is read and written, with indexes."""

PERIOD = 30.0
"""Seconds between two ticks."""
BUSY = 1_000
"""Users who change between two ticks at production's size: nearly everybody, every day."""

FACTORS = (1, 10, 30, 100)


@dataclass(frozen=True)
class Reach:
    """What one server needs at so many times production's size, in one session, if all that it reads is in memory."""

    factor: int

    @property
    def users(self) -> int:
        """Users in the database."""
        return USERS * self.factor

    @property
    def changed(self) -> int:
        """Users who change between two ticks."""
        return BUSY * self.factor

    @property
    def tick(self) -> float:
        """Seconds of processor time between two ticks, for those who change."""
        return PER_USER * self.changed

    @property
    def sweep_round(self) -> float:
        """Hours of a round of the sweep that takes a tenth of the time between two ticks."""
        return self.users * SWEEP / (PERIOD / 10) * PERIOD / 3600

    @property
    def first_build(self) -> float:
        """Seconds of a first build."""
        return FIRST_BUILD * self.factor

    @property
    def disk(self) -> float:
        """Gigabytes of what is read and written."""
        return DISK * self.factor


PAGE = REPOSITORY / "docs" / "explanation" / "scale.md"

NODES = (1, 2, 4)


@dataclass(frozen=True)
class Shared:
    """Processor seconds with nodes, by the number of nodes.

    :ivar alone: those of one server
    :ivar each_node: those of each node
    :ivar primary: those of the primary, by what they were for
    """

    alone: float
    each_node: list[float]
    primary: dict[str, list[float]]


def figures(page: str, line: str) -> list[list[float]]:
    """A line of the table of shares in the page: for one server and each number of nodes, the numbers of the cell."""
    cells = next(row for row in page.splitlines() if row.startswith(f"| {line} |")).split("|")[2:-1]
    return [[float(number) for number in re.findall(r"[\d.]+", cell)] for cell in cells]


def first_build(page: str) -> Shared:
    """A first build of u, fp, p, v and e."""
    (alone,), *ticks = figures(page, "first build: each node's ticks")
    _, *senders = figures(page, "its walsender")
    _, *primary = figures(page, "of which absorb / apply / walsenders")
    return Shared(alone, [sum(tick + sender) for tick, sender in zip(ticks, senders, strict=True)], _parts(primary))


def changes(page: str) -> Shared:
    """What follows when 10,000 users have changed; the other challenges are the primary's."""
    _, *nodes = figures(page, "10,000 users changed: each node, tick + apply")
    (alone,), *primary = figures(page, "10,000 users changed: primary, absorb / apply / walsenders")
    (others_alone,), *others = figures(page, "10,000 users changed: primary, the other challenges")
    parts = _parts(primary) | {"the other challenges": [seconds for (seconds,) in others]}
    return Shared(alone + others_alone, [sum(node) for node in nodes], parts)


def _parts(primary: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    absorb, apply, send = ([cell[part] for cell in primary] for part in range(3))
    return {"taking in (apply)": apply, "writing (absorb)": absorb, "sending to nodes": send}


_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "reach",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#dddddd",
}
# Colors that people of any color vision can tell apart (Okabe and Ito).
_COLORS = {
    "alone": "#000000",
    "each node": "#0072B2",
    "taking in (apply)": "#56B4E9",
    "writing (absorb)": "#D55E00",
    "sending to nodes": "#E69F00",
    "the other challenges": "#999999",
}


def draw(path: Path) -> None:
    """Writes the picture as SVG; it is the same each time."""
    import matplotlib as mpl  # noqa: PLC0415 - the table does without
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(14, 5), layout="constrained")
        reach, build, changed = figure.subplots(1, 3)
        _draw_reach(reach)
        page = PAGE.read_text()
        _draw_nodes(build, first_build(page))
        build.set(title="A first build of u, fp, p, v, e", ylabel="seconds of processor time")
        _draw_nodes(changed, changes(page))
        changed.set(title="10,000 users have changed", ylabel="seconds of processor time")
        handles = {
            label: handle
            for axes in (build, changed)
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower right", ncols=3, frameon=False)
        figure.savefig(path, metadata={"Date": None})


def _draw_reach(axes: Any) -> None:
    factors = [1, 2, 5, 10, 20, 50, 100]
    at = [Reach(factor) for factor in factors]
    axes.plot(factors, [each.tick for each in at], color="#0072B2", linewidth=2.5, marker="o")
    axes.axhline(PERIOD, color="#D55E00", linewidth=1.5, linestyle="--")
    axes.annotate("30 s: the next tick", (1, PERIOD), xytext=(0, 5), textcoords="offset points", color="#D55E00")
    axes.annotate("one session", (2, Reach(2).tick), xytext=(8, -12), textcoords="offset points", color="#0072B2")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(factors, [f"{factor} x" for factor in factors])
    axes.set_xticks([], minor=True)
    axes.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    axes.set(
        title="One server, on paper: a tick after\n1,000 changed users for each x",
        xlabel="times production's size",
        ylabel="seconds of processor time",
    )


def _draw_nodes(axes: Any, shared: Shared) -> None:
    axes.bar([0], [shared.alone], 0.35, label="one server", color=_COLORS["alone"])
    places = range(1, len(NODES) + 1)
    below = [0.0] * len(NODES)
    for label, values in shared.primary.items():
        axes.bar([place - 0.2 for place in places], values, 0.35, bottom=below, label=label, color=_COLORS[label])
        below = [sum(pair) for pair in zip(below, values, strict=True)]
    axes.bar([place + 0.2 for place in places], shared.each_node, 0.35, label="each node", color=_COLORS["each node"])
    axes.set_xticks([0, *places], ["alone", *(f"{n} node{'s' if n > 1 else ''}" for n in NODES)])
    axes.set_xlabel("primary (left) and each node (right)")
    axes.grid(visible=False, axis="x")


if __name__ == "__main__":
    draw(REPOSITORY / "docs" / "explanation" / "scale.svg")
