"""The command behind ``make bench``: ``python -m bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from devtools import REPOSITORY
from devtools.cluster import ClusterError
from devtools.discovery import NotInstalledError

RESULTS = REPOSITORY / "bench" / "results"

app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def bench(
    scale: Annotated[
        float, typer.Option(envvar="SCALE", min=0.001, max=1, help="Size of the larger database; 1 is production's.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the generated data.")] = 1,
    repeats: Annotated[int, typer.Option(min=3, help="Of an idle tick.")] = 21,
    results: Annotated[Path, typer.Option(help="Directory for SCALE.json and SCALE.svg.")] = RESULTS,
    against: Annotated[
        str | None, typer.Option(help="Measure only this build beside an earlier release, such as 1.1.0, in turns.")
    ] = None,
    peer: Annotated[
        bool, typer.Option("--peer", help="Measure only pg_ivm beside this extension, on PostgreSQL 18 (needs root).")
    ] = False,
    nodes: Annotated[
        bool, typer.Option("--nodes", help="Measure only shares: 1, 2 and 4 nodes beside one server.")
    ] = False,
    show: Annotated[
        Path | None, typer.Option(exists=True, help="Measure nothing: show and draw the result of an earlier run.")
    ] = None,
) -> None:
    """Measure what the extension costs, at two sizes, beside what one would otherwise have.

    Starts a throw-away cluster, generates a database of the scale and one of a tenth of it, and measures: first build,
    memory, idle ticks, ticks after changes, the sweep; set-based SQL by hand for the same rows; models of a job that
    re-reads everything, of one with checkpoints, and of triggers. Exits 1 if the extension and the SQL by hand wrote
    different rows.
    """
    console = Console(highlight=False)
    console = Console(highlight=False, width=max(console.width, 150) if not console.is_terminal else None)
    if against:
        from bench.releases import compare  # noqa: PLC0415

        compare(against, scale, seed, repeats, lambda message: console.print(message, style="dim"), console.print)
        return
    if peer:
        from bench.peer import compare_with_peer  # noqa: PLC0415

        compare_with_peer(scale, seed, repeats, lambda message: console.print(message, style="dim"), console.print)
        return
    if nodes:
        _measure_nodes(scale, seed, max(3, repeats // 7), results, console)
        return
    from bench.chart import draw  # noqa: PLC0415 (--help works without what the charts need)
    from bench.report import show as show_tables  # noqa: PLC0415
    from bench.result import Result  # noqa: PLC0415
    from bench.run import run  # noqa: PLC0415

    if show:
        result, path = Result.load(show), show
    else:
        try:
            result = run(scale, seed, repeats, lambda message: console.print(message, style="dim"))
        except (ClusterError, NotInstalledError) as error:
            typer.secho(str(error), err=True, fg="red")
            raise typer.Exit(1) from error
        path = results / f"{scale:g}.json"
        result.save(path)
    draw(result, path.with_suffix(".svg"))
    show_tables(result, console)
    console.print(f"\n{path}\n{path.with_suffix('.svg')}")
    if any(figures.differing for figures in result.figures):
        raise typer.Exit(1)


def _measure_nodes(scale: float, seed: int, repeats: int, results: Path, console: Console) -> None:
    from bench.nodes import run, table  # noqa: PLC0415

    try:
        result = run(scale, seed, repeats, lambda message: console.print(message, style="dim"))
    except (ClusterError, NotInstalledError) as error:
        typer.secho(str(error), err=True, fg="red")
        raise typer.Exit(1) from error
    path = results / f"nodes-{scale:g}.json"
    result.save(path)
    console.print(table(result), path, sep="\n")
    if any(figures.differing for figures in result.figures):
        raise typer.Exit(1)
