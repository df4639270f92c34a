"""The commands of audius-challenges, and how they end."""

from __future__ import annotations

import datetime as dt
import io
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TextIO

import typer
from psycopg.errors import Diagnostic
from rich.console import Console
from rich.text import Text

from audius_challenges_cli import __version__, show
from audius_challenges_cli.database import Database, Deed, Outcome
from audius_challenges_cli.errors import CommandError, Exit
from audius_challenges_cli.run import Bars, Run, Wish, interruptible

HELP = """Ask and watch the extension audius_challenges in a database.

It connects as psql does: by PGHOST, PGPORT, PGUSER, PGDATABASE, a service (PGSERVICE) and ~/.pgpass.
-d takes the name of a database, a connection string or a URI; never a password.
"""
EPILOG = "Exit status: 0 fine, 1 warning, 2 critical, 3 cannot ask, 130 interrupted."
MOMENTS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%d %H:%M:%S%z"]

app = typer.Typer(help=HELP, epilog=EPILOG, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
WIDTH = 100
"""Columns where the output is no terminal, unless COLUMNS says otherwise."""


def _has_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


out = Console(highlight=False, width=None if _has_terminal() or "COLUMNS" in os.environ else WIDTH)
err = Console(highlight=False, stderr=True)

Target = Annotated[
    str | None,
    typer.Option("-d", "--dbname", metavar="DATABASE", help="Name, connection string or URI of the database."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Challenges = Annotated[list[str] | None, typer.Argument(metavar="[CHALLENGE]...", help="Only these challenges.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; exits with its status, whatever happens."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What a terminal cannot show is no reason to show nothing.
            stream.reconfigure(errors="replace")
    code = _ended(arguments)
    _flush(sys.stderr)
    sys.exit(code)


def _ended(arguments: Sequence[str] | None) -> int:
    """The exit status of a command, when all is written."""
    if sys.stdout is None:
        complain("there is no standard output to write to")
        return Exit.CANNOT_ASK
    try:
        code = app(args=arguments, prog_name="audius-challenges", standalone_mode=False)
        sys.stdout.flush()
    except CommandError as error:
        complain(error.message, error.hint)
        code = error.status
    except typer.TyperException as error:
        complain(error.format_message(), "audius-challenges --help")
        code = Exit.CANNOT_ASK
    except (typer.Abort, KeyboardInterrupt):
        code = Exit.INTERRUPTED
    except (BrokenPipeError, SystemExit):
        # Whoever read our output has had enough, as head does. Rich and Typer make an exit of it.
        code = Exit.OK
    except OSError as error:
        complain(_words(error))
        code = Exit.CANNOT_ASK
    except UnicodeError as error:
        complain(f"this is no text: {error}", "Arguments and files are text in UTF-8.")
        code = Exit.CANNOT_ASK
    except Exception as error:  # noqa: BLE001
        # A traceback says little to people, and 1 is a warning to a monitoring.
        place = traceback.extract_tb(error.__traceback__)[-1]
        complain(
            f"{type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno})",
            "This is an error of the command. Please report it, with what you asked.",
        )
        code = Exit.CANNOT_ASK
    _flush(sys.stdout)
    return int(code or 0)


def _flush(stream: TextIO | None) -> None:
    """Writes what is left; what cannot be written is forgotten, or Python would complain as it ends."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _words(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def complain(message: str, hint: str | None = None) -> None:
    """Says what went wrong, and what to do."""
    message, hint = show.visible(message), show.visible(hint or "")
    try:
        err.print(Text.assemble(("audius-challenges: ", "bold red"), message), soft_wrap=True)
        if hint:
            err.print(Text.assemble(("  hint: ", "cyan"), hint.replace("\n", "\n        ")), soft_wrap=True)
    except OSError:
        _flush(sys.stderr)  # Nobody hears it; the exit status says it.


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"audius-challenges {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True, no_args_is_help=False)
def options(
    context: typer.Context,
    _: Annotated[
        bool, typer.Option("--version", help="Show the version of this command.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    # Without a docstring, which would be taken for the help.
    if context.invoked_subcommand is None:
        out.print(context.get_help())


@app.command()
def status(target: Target = None, as_json: AsJson = False) -> None:
    """Show how each challenge fares, and why nothing ticks if nothing does."""
    with Database(target) as database:
        rows = database.challenges(with_unpayable=True)
        if as_json:
            answer(
                {
                    "database": database.name,
                    "version": database.version,
                    "tick_problem": next((row.tick_problem for row in rows), None),
                    "challenges": rows,
                }
            )
            return
        out.print(_heading(database))
        out.print()
        out.print(show.challenges(rows))


@app.command()
def doctor(target: Target = None, as_json: AsJson = False) -> None:
    """Look for what makes runs late, slow or wrong; say what to do. The exit status is for monitoring:
    0 ok or notice, 1 warning, 2 critical, 3 cannot ask."""
    with Database(target) as database:
        found = database.findings()
        if as_json:
            answer(found)
        else:
            if out.is_terminal:  # A monitoring takes the first line for the answer.
                out.print(_heading(database))
                out.print()
            out.print(show.findings(found))
    worst = max((show.SEVERITIES.index(row.severity) for row in found), default=0)
    raise typer.Exit((Exit.OK, Exit.OK, Exit.WARNING, Exit.CRITICAL)[worst])


@app.command(context_settings={"ignore_unknown_options": True})
def explain(
    user: Annotated[str, typer.Argument(help="A user id, or a handle; @ marks a handle that is all digits.")],
    challenge: Annotated[
        str | None, typer.Argument(help="This challenge, with its conditions; by default all, in brief.")
    ] = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Conditions, too, of all challenges.")] = False,
    target: Target = None,
    as_json: AsJson = False,
) -> None:
    """Say why a user has a reward, or has it not: conditions, rewards, paid or not, claimable when."""
    for word in (user, challenge or ""):
        # A negative id looks like an option; all else that does is one that there is not.
        if word.startswith("-") and not re.fullmatch("-[0-9]+", word):
            raise typer.BadParameter(f"No such option: {word}")
    with Database(target) as database:
        whom = database.find_user(user)
        lines = database.explain(whom, challenge)
        if as_json:
            answer({"user_id": whom.user_id, "handle": whom.handle, "lines": lines})
            return
        descriptions = {row.challenge_id: row.description for row in database.challenges()}
        conditions = verbose or challenge is not None
        out.print(show.explanation(whom, lines, descriptions, conditions=conditions))


@app.command()
def history(
    challenges: Challenges = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="At most so many rows.")] = 20,
    failures: Annotated[bool, typer.Option("--failures", help="Only what failed.")] = False,
    daily: Annotated[bool, typer.Option("--daily", help="Completions and $AUDIO a day, kept for good.")] = False,
    target: Target = None,
    as_json: AsJson = False,
) -> None:
    """Show what runs did, the newest first: those that wrote, failed or set somebody aside."""
    if daily and failures:
        raise typer.BadParameter("--daily has no failures", param_hint="--failures")
    with Database(target) as database:
        wanted = database.named(challenges)
        if daily:
            days = database.days(wanted, limit=limit)
            waiting = database.uncounted(wanted)
            if as_json:
                answer(days)
                _say_uncounted(waiting)
            else:
                out.print(show.days(days, waiting))
            return
        rows: list[Deed] = database.history(wanted, limit=limit, failures=failures)
        if as_json:
            answer(rows)
        else:
            out.print(show.history(rows))


@app.command()
def run(
    challenges: Challenges = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Report what a run would do, and keep none of it.")
    ] = False,
    full_scan: Annotated[bool, typer.Option("--full-scan", help="Examine every user now.")] = False,
    as_of: Annotated[
        dt.datetime | None, typer.Option(formats=MOMENTS, help="The clock of the run; UTC unless it says otherwise.")
    ] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a run that is under way.")] = 120,
    target: Target = None,
    as_json: AsJson = False,
) -> None:
    """Reconcile now, until no challenge is left in its first build or catching up. Ctrl-C is safe: what was done
    stays, the turn under way is rolled back, the next run goes on from there. Exits with 1 if a challenge failed."""
    if as_of and as_of.tzinfo is None:
        as_of = as_of.replace(tzinfo=dt.UTC)
    with Database(target, reads_only=False) as database:
        database.on_notice(_pass_on)
        wanted = database.named(challenges)
        if dry_run:
            with err.status("A dry run …"):
                outcomes = interruptible(
                    database,
                    lambda: database.reconcile(wanted, full_scan=full_scan, dry_run=True, as_of=as_of),
                )
        else:
            bars = Bars(err)
            work = Run(database, Wish(wanted, full_scan, as_of, wait), bars)
            try:
                with bars.shown():
                    outcomes = work.to_its_end()
            except KeyboardInterrupt:
                _report_outcomes(list(work.results.values()), as_json=as_json)
                complain(
                    "interrupted: what is above was done, and stays",
                    "The turn under way was rolled back. The next run, or the next tick, goes on from there.",
                )
                raise typer.Exit(Exit.INTERRUPTED) from None
    _report_outcomes(outcomes, as_json=as_json)
    if dry_run and not as_json:
        err.print("A dry run: nothing of this was kept.")
    if any(outcome.status in {"failed", "busy"} for outcome in outcomes):
        raise typer.Exit(Exit.WARNING)


@app.command()
def watch(
    every: Annotated[float, typer.Option(min=0.5, help="Seconds between two looks.")] = 2,
    frame: Annotated[bool, typer.Option("--frame", help="Print one frame and leave.")] = False,
    svg: Annotated[Path | None, typer.Option(help="Write one frame into this file, as SVG, and leave.")] = None,
    target: Target = None,
) -> None:
    """Watch challenges, ticks and completions on a full screen. Without a terminal it prints one frame."""
    from audius_challenges_cli.watch import Look, Watch, frame_of

    with Database(target) as database:
        look = Look.take(database)  # What cannot be asked is said here, not on the screen.
        screen = Watch(database, every, lambda: Database(target))
        if svg or frame or not out.is_terminal:
            text, picture = frame_of(screen, (max(out.width, 80), len(look.challenges) + 20))
            if svg:
                write(svg, picture, "--svg")
            else:
                out.file.write(text if out.is_terminal else Text.from_ansi(text).plain + "\n")
            return
        screen.run()
    raise typer.Exit(screen.return_code or Exit.OK)


@app.command()
def report(
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")] = Path("audius-challenges.html"),
    weeks: Annotated[
        int | None,
        typer.Option(min=1, max=520, help="How many weeks to look back, the present one included.  [default: 26]"),
    ] = None,
    month: Annotated[dt.datetime | None, typer.Option(formats=["%Y-%m"], help="This month.")] = None,
    first: Annotated[dt.datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="From this day on.")] = None,
    last: Annotated[
        dt.datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="To this day, by default today.")
    ] = None,
    target: Target = None,
    as_json: AsJson = False,
) -> None:
    """Write a report: one HTML file that needs no network, with a picture of each week's rewards, run times,
    backlog, failures and users set aside. With --json, print its numbers instead."""
    from audius_challenges_cli.report import Period, collect, render

    if sum(given is not None for given in (weeks, month, first or last)) > 1:
        raise typer.BadParameter("one of --weeks, --month, or --from with --to")
    today = dt.datetime.now(dt.UTC).date()
    if month:
        period = Period.of_month(month.date())
    elif first or last:
        if not first:
            raise typer.BadParameter("--to needs --from")
        period = Period(first.date(), last.date() if last else today)
        if period.last < period.first:
            raise typer.BadParameter(f"there is no day from {period.first} to {period.last}")
    else:
        period = Period.of_weeks(weeks or 26, today)
    if not as_json and not output.parent.is_dir():
        raise CommandError(f"cannot write {output}: there is no directory {output.parent}", "Name another file by -o.")
    with Database(target) as database:
        numbers = collect(database, period)
    if as_json:
        answer(numbers)
        _say_uncounted(numbers.uncounted)
        return
    write(output, render(numbers), "-o")
    out.print(f"{output}: {output.stat().st_size / 1e6:.1f} MB, open it in a browser")


def answer(value: object) -> None:
    """What a machine is told."""
    is_utf = (getattr(out.file, "encoding", None) or "utf-8").lower().startswith("utf")
    out.file.write(show.as_json(value, ascii_only=not is_utf) + "\n")


def write(path: Path, text: str, option: str) -> None:
    """Writes a file.

    :param option: which names another one
    :raises CommandError: if it cannot be written
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}", f"Name another file by {option}.") from error


def _say_uncounted(challenges: Sequence[str]) -> None:
    """Beside the answer to a machine."""
    if challenges:
        err.print(Text.assemble(("notice: ", "yellow"), show.uncounted(challenges)), soft_wrap=True)


def _heading(database: Database) -> Text:
    return Text.assemble(
        (show.visible(database.name), "bold"),
        f"  audius_challenges {database.version}  PostgreSQL {database.server.split()[0]}",
    )


def _pass_on(notice: Diagnostic) -> None:
    severity = (notice.severity or "NOTICE").lower()
    err.print(Text.assemble((f"{severity}: ", "yellow"), show.visible(notice.message_primary or "")), soft_wrap=True)
    if notice.message_hint:
        err.print(Text.assemble(("  hint: ", "cyan"), show.visible(notice.message_hint)), soft_wrap=True)


def _report_outcomes(outcomes: list[Outcome], *, as_json: bool) -> None:
    if as_json:
        answer(outcomes)
    else:
        out.print(show.outcomes(outcomes))
