"""The commands behind the Makefile's targets, as ``make demo`` and ``make lint``: ``python -m devtools COMMAND``."""

from pathlib import Path
from typing import Annotated

import typer

from devtools.cluster import ClusterError
from devtools.debian_root import DebianRootError, machine_major, root_of
from devtools.discovery import NotInstalledError

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command("demo")
def demo_command() -> None:
    """Show the extension at work on a throw-away cluster."""
    from devtools.demo import demo  # noqa: PLC0415 (the other commands need not load it)

    demo()


@app.command("pgtap")
def pgtap_command(
    files: Annotated[list[Path] | None, typer.Argument(help="Test files; by default all there are.")] = None,
    major: Annotated[
        int | None,
        typer.Option(help="On this PostgreSQL: in a Debian root (needs root) where it is not the machine's."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every assertion.")] = False,
) -> None:
    """Run the pgTAP suite by pg_prove on a throw-away cluster."""
    from devtools.pgtap import run_pgtap  # noqa: PLC0415

    try:
        code = run_pgtap(files or [], root_of(major or machine_major()), verbose)
    except (ClusterError, DebianRootError, NotInstalledError) as error:
        typer.secho(str(error), err=True, fg="red")
        raise typer.Exit(1) from error
    raise typer.Exit(code)


@app.command("explain")
def explain_command() -> None:
    """Have a server plan every statement of every challenge; they are left in build/statements."""
    from devtools.statements import explain  # noqa: PLC0415

    complaints = explain()
    for complaint in complaints:
        typer.secho(complaint, err=True, fg="red")
    raise typer.Exit(1 if complaints else 0)


@app.command("pictures")
def pictures_command() -> None:
    """Make the pictures of docs/ anew, from a real run."""
    from devtools.pictures import make_pictures  # noqa: PLC0415

    for path in make_pictures():
        typer.echo(path)


@app.command("lint")
def lint_command() -> None:
    """Run ruff, mypy, sqlfluff and pgspot over the repository."""
    from devtools.lint import run_lint  # noqa: PLC0415

    raise typer.Exit(1 if run_lint() else 0)
