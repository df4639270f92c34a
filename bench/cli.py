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


Scale = Annotated[
    float, typer.Option(envvar="SCALE", min=0.001, max=1, help="Size of the larger database; 1 is production's.")
]
Seed = Annotated[int, typer.Option(help="Of the generated data.")]
Results = Annotated[Path, typer.Option(help="Directory of the results, as JSON and SVG, by scale.")]


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    scale: Scale = 0.1,
    seed: Seed = 1,
    repeats: Annotated[int, typer.Option(min=3, help="Of an idle tick.")] = 21,
    results: Results = RESULTS,
    against: Annotated[
        str | None, typer.Option(help="Measure only this build beside an earlier release, such as 1.1.0, in turns.")
    ] = None,
    peer: Annotated[
        bool, typer.Option("--peer", help="Measure only pg_ivm beside this extension, on PostgreSQL 18 (needs root).")
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
    if context.invoked_subcommand:
        return
    console = _console()
    if against:
        from bench.releases import compare  # noqa: PLC0415

        compare(against, scale, seed, repeats, lambda message: console.print(message, style="dim"), console.print)
        return
    if peer:
        from bench.peer import compare_with_peer  # noqa: PLC0415

        compare_with_peer(scale, seed, repeats, lambda message: console.print(message, style="dim"), console.print)
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


@app.command()
def workers(
    numbers: Annotated[str, typer.Argument(help="How many, in turns, such as 1,2.")] = "1,2",
    scale: Scale = 0.1,
    seed: Seed = 1,
) -> None:
    """Measure first builds by several workers, and what they wait for."""
    from bench.workers import compare  # noqa: PLC0415

    console = _console()
    compare(
        [int(number) for number in numbers.split(",")],
        scale,
        seed,
        lambda message: console.print(message, style="dim"),
        console.print,
    )


@app.command()
def nodes(
    scale: Scale = 0.1,
    seed: Seed = 1,
    repeats: Annotated[int, typer.Option(min=3, help="Of what takes little time.")] = 3,
    results: Results = RESULTS,
) -> None:
    """Measure shares: 1, 2 and 4 nodes beside one server. Exits 1 if they wrote other rows than one server."""
    from bench.nodes import run, table  # noqa: PLC0415

    console = _console()
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


def _console() -> Console:
    console = Console(highlight=False)
    return Console(highlight=False, width=max(console.width, 150) if not console.is_terminal else None)
