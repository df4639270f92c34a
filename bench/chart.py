"""The picture: cost against the size of the database and against the number of changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bench.database import USER_DERIVED
from bench.result import Figures, Result

# Colors that people of any color vision can tell apart (Okabe and Ito).
_EXTENSION: dict[str, Any] = {"label": "this extension", "color": "#0072B2", "marker": "o", "linewidth": 2.5}
_BY_HAND: dict[str, Any] = {"label": "set-based SQL by hand, once", "color": "#000000", "marker": "x", "linewidth": 1.2}
_REREADING: dict[str, Any] = {
    "label": "model (a): re-read, row by row",
    "color": "#D55E00",
    "marker": "^",
    "linewidth": 1.5,
}
_CHECKPOINTED: dict[str, Any] = {
    "label": "model (b): checkpoints, batches",
    "color": "#E69F00",
    "marker": "s",
    "linewidth": 1.5,
}
_TRIGGERS: dict[str, Any] = {
    "label": "model (c): triggers, added to the writers",
    "color": "#009E73",
    "marker": "D",
    "linewidth": 1.5,
}

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bench",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#dddddd",
}


def draw(result: Result, path: Path) -> None:
    """Writes the picture as SVG; the same result gives the same file."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(14, 5), layout="constrained")
        first_build, by_size, by_changes = figure.subplots(1, 3)
        _draw_first_build(first_build, result.figures)
        _draw_tick_by_size(by_size, result.figures)
        _draw_tick_by_changes(by_changes, result.figures[-1])
        handles = {
            label: handle
            for axes in (first_build, by_size, by_changes)
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})


def _draw_first_build(axes: Axes, figures: list[Figures]) -> None:
    users = [one.sizes["users"] for one in figures]
    axes.plot(users, [_seconds(one.rereading_build) for one in figures], **_REREADING)
    axes.plot(users, [_seconds(one.checkpointed_build) for one in figures], **_CHECKPOINTED)
    axes.plot(
        users,
        [_seconds(sum(one.first_build[challenge] for challenge in USER_DERIVED)) for one in figures],
        **_EXTENSION,
    )
    by_hand = [
        _seconds(sum(one.handwritten[challenge] for challenge in ("eligible", *USER_DERIVED))) for one in figures
    ]
    axes.plot(users, by_hand, **_BY_HAND)
    axes.set(title="First build, seven challenges", ylabel="seconds")
    _scale_by_users(axes, users)


def _draw_tick_by_size(axes: Axes, figures: list[Figures]) -> None:
    users = [one.sizes["users"] for one in figures]
    changed = max(set(figures[0].after) & set(figures[-1].after) & {10, 100, 1000})
    axes.plot(users, [_seconds(one.rereading_tick) for one in figures], **_REREADING)
    axes.plot(users, [_seconds(one.checkpointed_after[changed].median) for one in figures], **_CHECKPOINTED)
    axes.plot(users, [_seconds(one.triggers_after[changed]) for one in figures], **_TRIGGERS)
    axes.plot(users, [_seconds(one.after[changed].median) for one in figures], **_EXTENSION)
    axes.plot(
        users, [_seconds(one.idle_warm.median) for one in figures], **{**_EXTENSION, "label": None, "linestyle": ":"}
    )
    axes.plot(
        users,
        [_seconds(one.checkpointed_idle.median) for one in figures],
        **{**_CHECKPOINTED, "label": None, "linestyle": ":"},
    )
    axes.set(title=f"A tick after {changed:,} users changed\n(dotted: after none)", ylabel="seconds")
    _scale_by_users(axes, users)


def _draw_tick_by_changes(axes: Axes, figures: Figures) -> None:
    changed = list(figures.after)
    with_none = [0, *changed]
    axes.plot(with_none, [_seconds(figures.rereading_tick)] * len(with_none), **_REREADING)
    checkpointed = [figures.checkpointed_idle, *(figures.checkpointed_after[users] for users in changed)]
    axes.plot(with_none, [_seconds(measure.median) for measure in checkpointed], **_CHECKPOINTED)
    axes.plot(changed, [_seconds(figures.triggers_after[users]) for users in changed], **_TRIGGERS)
    ticks = [figures.idle_warm, *figures.after.values()]
    axes.plot(with_none, [_seconds(measure.median) for measure in ticks], **_EXTENSION)
    axes.set_xscale("symlog", linthresh=10)
    axes.set_yscale("log")
    axes.set_xticks(with_none, [f"{users:,}" for users in with_none])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
    axes.set(
        title=f"A tick, {figures.sizes['users']:,} users in the database", xlabel="users changed", ylabel="seconds"
    )


def _scale_by_users(axes: Axes, users: list[int]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(users, [f"{count:,}" for count in users])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
    axes.set_xlabel("users in the database")


def _seconds(milliseconds: float) -> float:
    return milliseconds / 1000
