"""The demo: the extension at work on a throw-away cluster, with every command that it runs on the screen."""

from __future__ import annotations

import datetime as dt
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
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
WIDTH = 80
"""Columns when the output is no terminal. Statements and tables are chosen to fit them."""
WIDEST = 100
"""Columns at most on a terminal."""
LOCALHOST = "127.0.0.1"
"""What is shown to connect to: the socket's directory is closed to other accounts if root runs the demo."""
SETTINGS = {"cron.use_background_workers": "on"}
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
    """Runs the demo. On a terminal it waits after each step, and at the end, so that its visitor can play.

    Exits 1 if a step failed. Ctrl-C on a terminal is the way out, and no failure; elsewhere it exits 130.
    """
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    console = Console(highlight=False)
    console = Console(highlight=False, width=min(console.width, WIDEST) if on_terminal else WIDTH)
    try:
        _Demo(console, on_terminal).run()
    except FAILURES as error:
        console.print(Text(f"\nThe demo failed: {error}", style="bold red"))
        raise SystemExit(1) from error
    except KeyboardInterrupt:
        console.print("\nInterrupted; the cluster is gone.")
        raise SystemExit(0 if on_terminal else 130) from None


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
                "Challenge rewards, reconciled inside PostgreSQL, on a throw-away cluster.\n"
                "Commands start with $, the rest is SQL. All of it can be copied.",
                title="[bold]audius_challenges[/bold]",
                width=WIDTH if self.console.width >= WIDTH else None,
            )
        )
        self.step("Start a throw-away cluster with pg_cron", pause=False)
        with _ShownCluster(cron_database=DATABASE, settings=SETTINGS, in_memory=False) as self.cluster:
            require_extension(self.cluster)
            self.say(
                f"PostgreSQL {self.cluster.major} listens on port {self.cluster.port}. In postgresql.conf:\n\n"
                "  shared_preload_libraries = 'pg_cron'\n"
                f"  cron.database_name = '{DATABASE}'\n"
                "  cron.use_background_workers = on"
            )
            self.fill()
            with psycopg.connect(self.dsn, autocommit=True) as self.connection:
                self.connection.add_notice_handler(self.show_notice)
                self.create_extension()
                self.reconcile()
                self.pay_a_friday()
                self.schedule()
                self.change_data_and_wait()
                self.show_all()
                self.ask_and_watch()
            self.let_play()
        self.console.print("The cluster is stopped and its files are removed.")

    @property
    def dsn(self) -> str:
        """Connection string for any account of this machine."""
        return f"host={LOCALHOST} port={self.cluster.port} dbname={DATABASE} user=postgres"

    @property
    def environment(self) -> dict[str, str]:
        """Environment in which commands find the database, as any account of this machine would."""
        return self.cluster.environment() | {"PGHOST": LOCALHOST, "PGDATABASE": DATABASE}

    # The steps

    def fill(self) -> None:
        self.step("A discovery database, a thousandth of production", pause=False)
        names = ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE")
        exports = [f"{name}={shlex.quote(self.environment[name])}" for name in names]
        _show_command(self.console, f"export {' '.join(exports)}")
        self.command("createdb", DATABASE)
        self.command("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-f", "discovery/schema.sql")
        self.command("psql", "-Xq", "-v", f"scale={SCALE}", "-f", "discovery/generate.sql")

    def create_extension(self) -> None:
        self.step("Create the extension: it fills the catalog")
        self.sql("CREATE EXTENSION audius_challenges CASCADE;")
        self.say(
            "Without pg_cron nothing runs by itself, so the first run is by hand. Two\n"
            "challenges are inactive in production, listen streaks and cosigns. Here they\n"
            "take part:"
        )
        self.sql("UPDATE challenges SET active = TRUE WHERE id IN ('e', 'cs');")

    def reconcile(self) -> None:
        self.step("Reconcile: the first build of every challenge")
        rows = self.sql(
            """
            SELECT challenge_id AS id, status, users_examined AS examined,
                rows_inserted AS inserted, rows_completed AS completed, duration
            FROM reconcile_challenges();
            """
        )
        failed = [row[0] for row in rows if row[1] != "ok"]
        if failed:
            raise DemoError(f"reconcile_challenges() did not go well for {', '.join(failed)}")
        self.say(
            f"A first build examines everybody, here {rows[0][2]:,} users. Later runs examine those of\n"
            "whom something has changed, and a slice of the others, 5,000 users at a time.\n"
            "That is the sweep. It finds what cannot be seen as a change; here a single\n"
            "slice holds everybody, so every run will examine all of them."
        )
        self.pause()
        self.say("One reward of each challenge that has any yet:")
        self.sql(
            """
            SELECT DISTINCT ON (challenge_id) challenge_id AS id, user_id, specifier,
                current_step_count AS steps, is_complete AS complete, amount
            FROM user_challenges
            ORDER BY challenge_id, is_complete DESC, user_id, specifier;
            """
        )
        self.say("A disburser outside of the database pays what is complete. Such a row is final.")

    def pay_a_friday(self) -> None:
        friday = self.value(
            "SELECT (date_trunc('day', now() AT TIME ZONE 'utc')"
            " - interval '1 day' * ((extract(dow FROM now() AT TIME ZONE 'utc')::integer + 2) % 7))::date"
        )
        self.step("Weekly trending is for Fridays: reconcile as of the last one")
        self.sql(
            f"""
            SELECT challenge_id AS id, status, rows_inserted, rows_completed
            FROM reconcile_challenges(
                ARRAY['tt', 'tut', 'tp'], as_of => '{friday} 00:00+00'
            );
            """
        )
        self.say("(Only present scores are kept. On a Friday a tick does it, and what is paid is not paid again.)")
        self.sql("SELECT * FROM trending_results WHERE rank <= 3 ORDER BY type, rank;")

    def schedule(self) -> None:
        self.step("Schedule it: a tick is a run that pg_cron starts, every 30 seconds")
        self.sql("CREATE EXTENSION pg_cron;")
        self.sql("SELECT schedule, command FROM schedule_challenges();")
        self.scheduled_at = self.value("SELECT clock_timestamp()")

    def change_data_and_wait(self) -> None:
        self.step("Data changes, and the next tick picks it up")
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
        star = self.value(
            "SELECT user_id FROM user_challenges WHERE challenge_id = 'p2' AND NOT is_complete"
            " ORDER BY current_step_count DESC, user_id LIMIT 1",
        )
        before = f"""
            SELECT challenge_id AS id, user_id, current_step_count AS steps,
                is_complete AS complete, amount, completed_at
            FROM user_challenges
            WHERE (challenge_id, user_id) IN
                (('u', {artist}), ('p', {newcomer}), ('p2', {star}), ('p3', {star}))
            ORDER BY challenge_id;
            """
        self.say(
            f"User {artist} is one track short, user {newcomer} lacks only a description, and user {star}\n"
            "is on the way to 1,000 plays:"
        )
        self.sql(before)
        self.say("A new block brings all that:")
        block = self.value("SELECT max(number) + 1 FROM blocks")
        self.sql(
            f"""
            BEGIN;
            INSERT INTO blocks (blockhash, number) VALUES ('0xdemo', {block});
            INSERT INTO tracks (track_id, owner_id, title, is_current, is_delete,
                blocknumber, created_at, updated_at)
            SELECT max(track_id) + 1, {artist}, 'The third', TRUE, FALSE,
                {block}, now(), now()
            FROM tracks;
            UPDATE users
            SET bio = 'I sing in the shower', blocknumber = {block}, updated_at = now()
            WHERE user_id = {newcomer} AND is_current;
            UPDATE aggregate_monthly_plays SET count = count + 1000
            WHERE (play_item_id, timestamp, country) = (
                SELECT play_item_id, timestamp, country
                FROM aggregate_monthly_plays
                JOIN tracks ON track_id = play_item_id
                WHERE owner_id = {star} AND tracks.is_current AND NOT tracks.is_delete
                ORDER BY timestamp DESC, play_item_id, country
                LIMIT 1
            );
            COMMIT;
            """
        )
        changed_at = self.value("SELECT clock_timestamp()")
        self.wait_for_tick({"u": artist, "p": newcomer, "p2": star}, changed_at)
        self.sql(before)
        self.say("pg_cron's record of its last runs:")
        self.sql(
            """
            SELECT jobname, status, return_message AS message, start_time
            FROM cron.job_run_details JOIN cron.job USING (jobid)
            ORDER BY runid DESC LIMIT 3;
            """
        )
        if not self.by_the_second():
            self.say(
                "(This pg_cron schedules by the minute. So there are two jobs, one of which\n"
                "sleeps for half of it. The end of both is recorded when that one has ended.)"
            )

    def show_all(self) -> None:
        self.step("How it is doing, and what it pays")
        self.sql(
            """
            SELECT challenge_id AS id, status, last_success,
                consecutive_failures AS failures, sweep_rounds AS rounds
            FROM challenge_status;
            """
        )
        self.say("A round is one walk of the sweep over all users.")
        self.pause()
        self.say("Rewards by challenge, all of the catalog:")
        rows = self.sql(
            """
            SELECT challenge_id, count(*) AS rows,
                count(*) FILTER (WHERE is_complete) AS complete,
                sum(amount) FILTER (WHERE is_complete) AS payable
            FROM user_challenges GROUP BY challenge_id ORDER BY challenge_id;
            """
        )
        missing = {row[0] for row in self.connection.execute("SELECT id FROM challenges")} - {row[0] for row in rows}
        if missing:
            raise DemoError(f"no rows of {', '.join(sorted(missing))}")

    def ask_and_watch(self) -> None:
        self.step("Ask it, and watch it: the command audius-challenges")
        self.say("A user asks why he has, or has not, been rewarded:")
        artist = self.value(
            "SELECT user_id FROM user_challenges WHERE challenge_id = 'u' AND is_complete"
            " ORDER BY completed_at DESC LIMIT 1"
        )
        self.ask("explain", str(artist), "u")
        self.pause()
        self.say("How it fares, on a screen that goes on by itself (here one frame of it):")
        self.ask("watch", "--frame")

    def let_play(self) -> None:
        if not self.on_terminal:
            return
        self.step("Yours to play with")
        self.say("Connect from another terminal, with any account of this machine:")
        _show_command(self.console, shlex.join(["psql", self.dsn]))
        self.say("or watch it there:")
        _show_command(self.console, shlex.join([".venv/bin/audius-challenges", "watch", "-d", self.dsn]))
        self.say("and try:")
        for idea in (
            "SELECT * FROM reconcile_challenges(dry_run => TRUE);",
            "SELECT * FROM audius_challenges.doctor();",
            "SELECT challenge_id, status, sweep_progress FROM challenge_status;",
            "UPDATE challenges SET active = FALSE WHERE id = 'e';  -- at the next tick",
            "SELECT * FROM schedule_challenges(INTERVAL '1 minute');",
        ):
            self.show_sql(idea)
        self.console.print("\nEnter (or Ctrl-C) stops the cluster and removes it.")
        try:
            input()
        except (EOFError, KeyboardInterrupt):
            self.console.print()

    # Waiting

    def pause(self) -> None:
        """On a terminal, waits for Enter. The end of the input is as Ctrl-C."""
        if not self.on_terminal:
            return
        self.console.print(Text("\nEnter: go on   Ctrl-C: end", style="bright_black"), end=" ")
        try:
            input()
        except EOFError:
            raise KeyboardInterrupt from None

    def wait_for_tick(self, users: Mapping[str, int], changed_at: dt.datetime) -> None:
        """Waits until a tick has completed each challenge for its user.

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
            while not self.are_complete(users):
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
        self.say(f"There it is, after {time.monotonic() - began:.0f} s. The same rows:")

    def next_tick(self, changed_at: dt.datetime) -> dt.datetime:
        """When the next tick is due, at the latest."""
        if self.by_the_second():
            last_tick = self.value("SELECT max(start_time) FROM cron.job_run_details") or self.scheduled_at
            return _utc(last_tick) + dt.timedelta(seconds=PERIOD)
        # Two jobs, both started on the minute; the second, which sleeps for half of it, only if it was there then.
        passed = changed_at.timestamp() % MINUTE
        in_same_minute = self.scheduled_at.timestamp() >= changed_at.timestamp() - passed
        half = MINUTE if in_same_minute or passed >= PERIOD else PERIOD
        return _utc(changed_at) + dt.timedelta(seconds=half - passed)

    def by_the_second(self) -> bool:
        """Whether this pg_cron can schedule by the second."""
        return bool(self.value("SELECT bool_or(schedule ~ 'second') FROM cron.job"))

    def are_complete(self, users: Mapping[str, int]) -> bool:
        done = self.value(
            "SELECT count(*) FROM user_challenges"
            " JOIN unnest(%s::text[], %s::integer[]) AS awaited (challenge_id, user_id) USING (challenge_id, user_id)"
            " WHERE is_complete",
            (list(users), list(users.values())),
        )
        return bool(done == len(users))

    # Showing and running

    def step(self, title: str, pause: bool = True) -> None:
        if pause:
            self.pause()
        self.steps += 1
        self.console.print()
        self.console.rule(f"[bold]{self.steps}  {title}[/bold]", align="left")
        self.console.print()

    def say(self, text: str) -> None:
        self.console.print(Text(text))

    def command(self, *command: str) -> None:
        """Shows a command, runs it here and shows what it prints; CalledProcessError if it fails."""
        _show_command(self.console, shlex.join(command))
        program = [str(self.cluster.bin_dir / command[0]), *command[1:]]
        with subprocess.Popen(
            program,
            env=self.environment,
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
        environment = self.environment | {"COLUMNS": str(self.console.width)}
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
        """Shows a statement; a line that is too long for the terminal is left to it, so that it can be copied."""
        syntax = Syntax("", "postgresql", theme="ansi_dark", background_color="default")
        self.console.print(syntax.highlight(indent(statement, "  ")), soft_wrap=True, end="")

    def show_rows(self, names: Sequence[str], rows: Sequence[Row]) -> None:
        texts = [[_text(value) for value in row] for row in rows]
        table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
        for place, header in enumerate(_headers(names, texts, self.console.width)):
            number = any(isinstance(row[place], int) and not isinstance(row[place], bool) for row in rows)
            table.add_column(Text(header), justify="right" if number else "left", overflow="fold")
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
