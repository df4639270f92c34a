"""How far one server reaches, on paper, and what shares take from it: table and picture of explanation/scale.md.

All of it follows from what was measured: on one server at production's size (docs/explanation/performance.md), and of
shares with a prototype, at a tenth of that size. `python -m bench.reach` draws the picture anew.
"""

from __future__ import annotations

from collections.abc import Mapping
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


# Processor seconds of a first build of 1.32 million rows at a tenth of production's size, by the number of nodes.
NODES = (1, 2, 4)
ALONE_BUILD = 64.4
EACH_NODE_BUILD = (64.9, 33.5, 17.1)
PRIMARY_BUILD = {
    "taking in (apply)": (10.5, 11.9, 11.0),
    "writing (absorb)": (43.9, 49.0, 44.6),
    "sending to nodes": (2.8, 6.3, 11.3),
}
# The same after 10,000 users have changed.
ALONE_CHANGES = 0.79
EACH_NODE_CHANGES = (0.75 + 0.22, 0.48 + 0.16, 0.21 + 0.09)
PRIMARY_CHANGES = {
    "taking in (apply)": (0.06, 0.09, 0.08),
    "writing (absorb)": (0.33, 0.37, 0.23),
    "sending to nodes": (0.14, 0.26, 0.43),
    "the other challenges": (0.20, 0.21, 0.13),
}

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
        reach, build, changes = figure.subplots(1, 3)
        _draw_reach(reach)
        _draw_nodes(build, ALONE_BUILD, EACH_NODE_BUILD, PRIMARY_BUILD)
        build.set(title="A first build of 1.32 million rows", ylabel="seconds of processor time")
        _draw_nodes(changes, ALONE_CHANGES, EACH_NODE_CHANGES, PRIMARY_CHANGES)
        changes.set(title="10,000 users have changed", ylabel="seconds of processor time")
        handles = {
            label: handle
            for axes in (build, changes)
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


def _draw_nodes(axes: Any, alone: float, nodes: tuple[float, ...], primary: Mapping[str, tuple[float, ...]]) -> None:
    axes.bar([0], [alone], 0.35, label="one server", color=_COLORS["alone"])
    places = range(1, len(NODES) + 1)
    below = [0.0] * len(NODES)
    for label, values in primary.items():
        axes.bar([place - 0.2 for place in places], values, 0.35, bottom=below, label=label, color=_COLORS[label])
        below = [sum(pair) for pair in zip(below, values, strict=True)]
    axes.bar([place + 0.2 for place in places], nodes, 0.35, label="each node", color=_COLORS["each node"])
    axes.set_xticks([0, *places], ["alone", *(f"{n} node{'s' if n > 1 else ''}" for n in NODES)])
    axes.set_xlabel("primary (left) and each node (right)")
    axes.grid(visible=False, axis="x")


if __name__ == "__main__":
    draw(REPOSITORY / "docs" / "explanation" / "scale.svg")
