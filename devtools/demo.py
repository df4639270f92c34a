"""The demo: the extension at work on a throw-away cluster, with every command that it runs on the screen."""

from __future__ import annotations

import datetime as dt
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent, indent
from typing import Any, LiteralString

import psycopg
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from devtools import REPOSITORY
from devtools.cluster import SERVER_PROGRAMS, Cluster, ClusterError
from devtools.discovery import NotInstalledError, require_extension

DATABASE = "discovery"
SCALE = "0.001"
WIDTH = 100
"""Columns when the output is no terminal, and at most on one."""
MINUTE = 60
PERIOD = 30
"""Seconds between two ticks, the default of schedule_challenges()."""
PATIENCE = 3 * PERIOD
"""Seconds after which a tick that has not come is a failed step."""

Row = tuple[Any, ...]


class DemoError(RuntimeError):
    """A step did not show what it should have shown."""


FAILURES = (ClusterError, DemoError, NotInstalledError, psycopg.Error, subprocess.CalledProcessError)


def demo() -> None:
    """Runs the demo; on a terminal it then waits, so that its visitor can play. Exits 1 if a step failed."""
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    console = Console(highlight=False)
    console = Console(highlight=False, width=min(console.width, WIDTH) if on_terminal else WIDTH)
    try:
        _Demo(console, on_terminal).run()
    except FAILURES as error:
        console.print(Text(f"\nThe demo failed: {error}", style="bold red"))
        raise SystemExit(1) from error
    except KeyboardInterrupt:
        console.print("\nInterrupted; the cluster is gone.")
        raise SystemExit(130) from None


class _ShownCluster(Cluster):
    """A cluster that shows the programs it runs."""

    console: Console

    def run(self, program: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [str(self.bin_dir / program), *arguments]
        if program in SERVER_PROGRAMS:
            command = self._as_server(command)
        if "--version" not in arguments and program != "pg_config":
            _show_command(self.console, shlex.join(command))
        return super().run(program, *arguments, **options)


class _Demo:
    """The steps, in the order in which `run` calls them."""

    def __init__(self, console: Console, on_terminal: bool) -> None:
        self.console = console
        self.on_terminal = on_terminal
        self.steps = 0

    def run(self) -> None:
        _ShownCluster.console = self.console
        self.console.print(
            Panel(
                "Challenge rewards, reconciled inside PostgreSQL, on a cluster that is gone when you leave.\n"
                "Commands start with $, the rest is SQL: all of it can be copied while the cluster is here.",
                title="[bold]audius_challenges[/bold]",
                width=WIDTH if self.console.width >= WIDTH else None,
            )
        )
        self.step("Start a throw-away cluster with pg_cron")
        with _ShownCluster(cron_database=DATABASE) as self.cluster:
            require_extension(self.cluster)
            self.say(
                f"PostgreSQL {self.cluster.major} listens on port {self.cluster.port}. Its configuration\n"
                f"has shared_preload_libraries = 'pg_cron' and cron.database_name = '{DATABASE}'."
            )
            self.fill()
            with self.cluster.connect(DATABASE) as self.connection:
                self.connection.add_notice_handler(self.show_notice)
                self.create_extension()
                self.reconcile()
                self.pay_a_friday()
                self.change_data_and_wait()
                self.show_status()
                self.ask_and_watch()
            self.let_play()
        self.console.print("The cluster is stopped and its files are removed.")

    # The steps

    def fill(self) -> None:
        self.step("A discovery database, a thousandth of production")
        environment = self.cluster.environment()
        exports = [f"{name}={shlex.quote(environment[name])}" for name in ("PGHOST", "PGPORT", "PGUSER")]
        _show_command(self.console, f"export {' '.join(exports)} PGDATABASE={DATABASE}")
        self.command("createdb", DATABASE)
        self.command("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-f", "discovery/schema.sql")
        self.command("psql", "-Xq", "-v", f"scale={SCALE}", "-f", "discovery/generate.sql")

    def create_extension(self) -> None:
        self.step("Create the extension: it fills the catalog and schedules itself")
        self.wait_for_room()
        self.sql("CREATE EXTENSION pg_cron;")
        self.sql("CREATE EXTENSION audius_challenges CASCADE;")
        self.scheduled_at = self.value("SELECT clock_timestamp()")
        self.sql("SELECT jobname, schedule, command FROM cron.job ORDER BY jobid;")

    def reconcile(self) -> None:
        self.step("Reconcile: the first build of every challenge")
        rows = self.sql("SELECT * FROM reconcile_challenges();")
        failed = [row[0] for row in rows if row[1] not in {"ok", "inactive"}]
        if failed:
            raise DemoError(f"reconcile_challenges() did not go well for {', '.join(failed)}")
        self.say("What it wrote, and what a few users see:")
        self.sql(
            """
            SELECT challenge_id, count(*) AS rows,
                count(*) FILTER (WHERE is_complete) AS complete,
                sum(amount) FILTER (WHERE is_complete) AS payable
            FROM user_challenges GROUP BY challenge_id ORDER BY challenge_id;
            """
        )
        self.sql(
            """
            SELECT challenge_id, specifier, user_id, current_step_count AS steps, is_complete, amount,
                completed_blocknumber
            FROM user_challenges
            WHERE user_id IN (
                SELECT user_id FROM user_challenges GROUP BY user_id ORDER BY count(*) DESC, user_id LIMIT 2
            )
            ORDER BY user_id, challenge_id;
            """
        )

    def pay_a_friday(self) -> None:
        friday = self.value(
            "SELECT (date_trunc('day', now() AT TIME ZONE 'utc')"
            " - interval '1 day' * ((extract(dow FROM now() AT TIME ZONE 'utc')::integer + 2) % 7))::date"
        )
        self.step("Weekly trending is for Fridays: reconcile as of the last one")
        self.sql(
            f"""
            SELECT challenge_id, status, rows_inserted, rows_completed
            FROM reconcile_challenges(ARRAY['tt', 'tut', 'tp'], as_of => '{friday} 00:00+00');
            """
        )
        self.sql("SELECT * FROM trending_results WHERE rank <= 3 ORDER BY type, rank;")

    def change_data_and_wait(self) -> None:
        self.step("Data changes, and pg_cron picks it up at its next tick")
        artist = self.value(
            "SELECT user_id FROM user_challenges"
            " WHERE challenge_id = 'u' AND current_step_count = 2 AND NOT is_complete"
            " ORDER BY user_id LIMIT 1",
        )
        newcomer = self.value(
            "SELECT user_id FROM user_challenges JOIN challenge_profile_completion USING (user_id)"
            " WHERE challenge_id = 'p' AND current_step_count = 6 AND NOT profile_description"
            " ORDER BY user_id LIMIT 1",
        )
        before = f"""
            SELECT challenge_id, user_id, current_step_count, is_complete, amount, completed_at
            FROM user_challenges
            WHERE (challenge_id, user_id) IN (('u', {artist}), ('p', {newcomer}))
            ORDER BY challenge_id;
            """
        self.say(f"User {artist} is one track short, user {newcomer} lacks only a description:")
        self.sql(before)
        self.say("A new block brings both:")
        self.sql(
            f"""
            BEGIN;
            INSERT INTO blocks (blockhash, number) VALUES ('0xdemo', 130000001);
            INSERT INTO tracks (track_id, owner_id, title, is_current, is_delete, blocknumber,
                created_at, updated_at)
            SELECT max(track_id) + 1, {artist}, 'The third', TRUE, FALSE, 130000001, now(), now()
            FROM tracks;
            UPDATE users SET bio = 'I sing in the shower', blocknumber = 130000001, updated_at = now()
            WHERE user_id = {newcomer} AND is_current;
            COMMIT;
            """
        )
        changed_at = self.value("SELECT clock_timestamp()")
        self.wait_for_tick((artist, newcomer), changed_at)
        self.sql(
            f"""
            SELECT jobname, runid, status, return_message, start_time, end_time
            FROM cron.job_run_details JOIN cron.job USING (jobid)
            WHERE end_time > '{changed_at:%Y-%m-%d %H:%M:%S%z}' ORDER BY runid;
            """
        )
        self.sql(before)

    def show_status(self) -> None:
        self.step("How it is doing")
        self.sql(
            "SELECT challenge_id, status, last_success, consecutive_failures, sweep_rounds, unpayable_rows\n"
            "FROM challenge_status;"
        )

    def ask_and_watch(self) -> None:
        self.step("Ask it, and watch it: the command audius-challenges")
        self.say("A user asks why he has, or has not, been rewarded:")
        artist = self.value(
            "SELECT user_id FROM user_challenges WHERE challenge_id = 'u' AND is_complete"
            " ORDER BY completed_at DESC LIMIT 1"
        )
        self.ask("explain", str(artist), "u")
        self.say("How it fares, on a screen that goes on by itself (here one frame of it):")
        self.ask("watch", "--frame")

    def let_play(self) -> None:
        if not self.on_terminal:
            return
        self.step("Yours to play with")
        dsn = self.cluster.dsn(DATABASE)
        self.say("Connect from another terminal:")
        _show_command(self.console, shlex.join(["psql", dsn]))
        self.say(f"or from a program, with the connection string\n  {dsn}")
        self.say("or watch it there:")
        _show_command(self.console, shlex.join([".venv/bin/audius-challenges", "watch", "-d", dsn]))
        self.say("and try:")
        for idea in (
            "SELECT * FROM reconcile_challenges(dry_run => TRUE);",
            "UPDATE challenges SET active = TRUE WHERE id = 'e';  -- listen streaks, at the next tick",
            "SELECT challenge_id, status, sweep_progress FROM challenge_status;",
            "SELECT * FROM schedule_challenges(INTERVAL '1 minute');",
        ):
            self.show_sql(idea)
        self.console.print("\nEnter (or Ctrl-C) stops the cluster and removes it.")
        try:
            input()
        except (EOFError, KeyboardInterrupt):
            self.console.print()

    # Waiting

    def wait_for_room(self) -> None:
        """Waits, if a tick could come between this moment and the first build: that one is to be seen."""
        second = time.time() % MINUTE
        if second > MINUTE - 8:
            with self.console.status("Waiting for the next minute, so that no tick gets in first …"):
                time.sleep(MINUTE - second + 1)

    def wait_for_tick(self, users: tuple[int, int], changed_at: dt.datetime) -> None:
        """Waits until pg_cron has run a tick to its end and both users are complete.

        Raises DemoError when that takes longer than PATIENCE, with what pg_cron has to say.
        """
        due = self.next_tick(changed_at)
        wait = (due - changed_at).total_seconds()
        self.say(f"Waiting for the tick that is due at {due:%H:%M:%S} UTC …")
        began = time.monotonic()
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(40),
            TextColumn("{task.fields[left]}"),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            bar = progress.add_task("next tick", total=wait, left="")
            while not self.tick_is_done(users, changed_at):
                if time.monotonic() - began > PATIENCE:
                    raise DemoError(f"no tick completed them within {PATIENCE} s; pg_cron:\n{self.cluster.log()}")
                left = (due - dt.datetime.now(dt.UTC)).total_seconds()
                progress.update(
                    bar,
                    completed=wait - max(left, 0),
                    description="next tick in" if left > 0 else "the tick is running",
                    left=f"{left:2.0f} s" if left > 0 else "",
                )
                time.sleep(0.25)
        self.say(f"There it is, after {time.monotonic() - began:.0f} s. pg_cron's record of it, and the rows:")

    def next_tick(self, changed_at: dt.datetime) -> dt.datetime:
        """When the next tick is due, at the latest."""
        in_seconds = self.value("SELECT bool_or(schedule ~ 'second') FROM cron.job")
        if in_seconds:
            last_tick = self.value("SELECT max(start_time) FROM cron.job_run_details") or self.scheduled_at
            return _utc(last_tick) + dt.timedelta(seconds=PERIOD)
        # Two jobs, both started on the minute; the second, which sleeps for half of it, only if it was there then.
        passed = changed_at.timestamp() % MINUTE
        in_same_minute = self.scheduled_at.timestamp() >= changed_at.timestamp() - passed
        half = MINUTE if in_same_minute or passed >= PERIOD else PERIOD
        return _utc(changed_at) + dt.timedelta(seconds=half - passed)

    def tick_is_done(self, users: tuple[int, int], changed_at: dt.datetime) -> bool:
        artist, newcomer = users
        done = self.value(
            "SELECT count(*) = 2 AND EXISTS ("
            "   SELECT FROM cron.job_run_details WHERE status = 'succeeded' AND end_time > %s)"
            " FROM user_challenges WHERE is_complete AND (challenge_id, user_id) IN (('u', %s), ('p', %s))",
            (changed_at, artist, newcomer),
        )
        return bool(done)

    # Showing and running

    def step(self, title: str) -> None:
        self.steps += 1
        self.console.print()
        self.console.rule(f"[bold]{self.steps}  {title}[/bold]", align="left")
        self.console.print()

    def say(self, text: str) -> None:
        self.console.print(Text(text))

    def command(self, *command: str) -> None:
        """Shows a command, runs it here and shows what it prints; CalledProcessError if it fails."""
        _show_command(self.console, shlex.join(command))
        environment = self.cluster.environment() | {"PGDATABASE": DATABASE}
        program = [str(self.cluster.bin_dir / command[0]), *command[1:]]
        with subprocess.Popen(
            program,
            env=environment,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            for line in process.stdout or ():
                self.console.print(Text(f"  {line.rstrip()}", style="bright_black"))
        if process.returncode != 0:
            raise subprocess.CalledProcessError(process.returncode, shlex.join(command))

    def ask(self, *arguments: str) -> None:
        """Shows the command audius-challenges, and what it says; CalledProcessError if it cannot ask."""
        program = Path(sys.executable).with_name("audius-challenges")
        _show_command(self.console, shlex.join([str(program.relative_to(REPOSITORY)), *arguments]))
        environment = self.cluster.environment() | {"PGDATABASE": DATABASE, "COLUMNS": str(self.console.width)}
        if self.console.is_terminal:
            environment["FORCE_COLOR"] = "1"
        command = [str(program), *arguments]
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
        )
        self.console.print(Text.from_ansi(done.stdout))

    def sql(self, statement: str) -> Sequence[Row]:
        """Shows statements, runs them and shows the rows of the last one; returns them."""
        statement = dedent(statement).strip()
        self.show_sql(statement)
        cursor = self.connection.execute(statement.encode())
        while cursor.nextset():
            pass
        if cursor.description is None:
            self.console.print(Text(f"  {cursor.statusmessage}\n", style="bright_black"))
            return []
        rows = cursor.fetchall()
        self.show_rows([column.name for column in cursor.description], rows)
        return rows

    def value(self, query: LiteralString, parameters: Sequence[Any] | None = None) -> Any:
        """The first column of the first row of a query that is not shown; DemoError if there is none."""
        row = self.connection.execute(query, parameters).fetchone()
        if row is None:
            raise DemoError(f"the sample data has no row for: {query}")
        return row[0]

    def show_sql(self, statement: str) -> None:
        text = indent(statement, "  ")
        self.console.print(Syntax(text, "postgresql", theme="ansi_dark", background_color="default"))

    def show_rows(self, names: Sequence[str], rows: Sequence[Row]) -> None:
        texts = [[_text(value) for value in row] for row in rows]
        table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
        for place, header in enumerate(_headers(names, texts, self.console.width)):
            number = any(isinstance(row[place], int) and not isinstance(row[place], bool) for row in rows)
            table.add_column(Text(header), justify="right" if number else "left")
        for row in texts:
            table.add_row(*map(Text, row))
        self.console.print(table)

    def show_notice(self, notice: psycopg.errors.Diagnostic) -> None:
        lines = [f"{notice.severity}:  {notice.message_primary}"]
        if notice.message_detail:
            lines.append(f"DETAIL:  {notice.message_detail}")
        if notice.message_hint:
            lines.append(f"HINT:  {notice.message_hint}")
        self.console.print(Padding(Text("\n".join(lines), style="yellow"), (0, 0, 0, 2)))


def _show_command(console: Console, line: str) -> None:
    console.print(Text(f"$ {line}", style="bold cyan"), soft_wrap=True)


def _headers(names: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """The names, those that most outgrow their values broken at the underscores until the table fits."""
    headers = list(names)
    longest = [max((len(row[place]) for row in rows), default=0) for place in range(len(names))]

    def widths() -> list[int]:
        lines = [max(map(len, header.split("\n"))) for header in headers]
        return [max(pair) for pair in zip(lines, longest, strict=True)]

    for place in sorted(range(len(names)), key=lambda place: longest[place] - len(names[place])):
        if sum(widths()) + 3 * len(names) <= width:
            break
        headers[place] = names[place].replace("_", "_\n")
    return headers


def _text(value: Any) -> str:
    """A value as psql would print it, without microseconds."""
    match value:
        case None:
            return ""
        case bool():
            return "t" if value else "f"
        case dt.datetime():
            return f"{value:%Y-%m-%d %H:%M:%S}"
        case dt.timedelta():
            return f"{value.total_seconds() * 1000:,.0f} ms"
        case _:
            return str(value)


def _utc(moment: dt.datetime) -> dt.datetime:
    return moment.astimezone(dt.UTC)
