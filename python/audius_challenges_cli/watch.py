"""The screen of the command watch: challenges, ticks, completions a minute, what runs did, and what fails."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import ClassVar, TypeVar

from rich.console import Console, Group, RenderableType
from rich.text import Text
from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import DataTable, Footer, Input, Label, Sparkline, Static

from audius_challenges_cli import show
from audius_challenges_cli.database import Challenge, Database, Minute, Past, Ticks
from audius_challenges_cli.errors import CommandError, Exit

Answer = TypeVar("Answer")

MINUTES = 60
"""Of completions, in the picture."""
RUNS = 30
"""Of the history, that are listed."""
FEW = 5
"""Challenges that are named of each run."""
ERRORS = 3
"""Errors that are shown at once."""
WIDE = 90
"""Columns of a terminal from which on the headers of the challenges have room."""
COLUMNS = ("", "challenge", "status", "last success", "progress", "failures", "set aside")
NARROW_COLUMNS = ("", "challenge", "status", "success", "progress", "fails", "aside")


@dataclass(frozen=True)
class Look:
    """What there is to see at one moment."""

    at: dt.datetime
    challenges: Sequence[Challenge]
    ticks: Ticks
    minutes: Sequence[Minute]
    runs: Sequence[Past]

    @classmethod
    def take(cls, database: Database) -> Look:
        """Asks for all of it."""
        return cls(
            dt.datetime.now(dt.UTC),
            [show.visible_in(row) for row in database.challenges()],
            database.ticks(),
            database.minutes(MINUTES),
            database.runs(dt.timedelta(days=1), RUNS),
        )


class Source:
    """The database that is watched, for one question at a time, connected again when the connection is lost."""

    def __init__(self, database: Database, connect: Callable[[], Database]) -> None:
        self._database: Database | None = database
        self._connect = connect
        self._lock = Lock()
        self.heading = f"{show.visible(database.name)}  audius_challenges {database.version}"

    def ask(self, question: Callable[[Database], Answer]) -> Answer:
        """The answer to a question.

        :raises CommandError: if the server does not answer, or refuses
        """
        with self._lock:
            if self._database is None:
                self._database = self._connect()
            try:
                return question(self._database)
            except CommandError:
                if self._database.is_lost:
                    self._database.close()
                    self._database = None
                raise

    def cancel(self) -> None:
        """Cancels the question under way."""
        database = self._database
        if database is not None and not database.is_lost:
            with contextlib.suppress(CommandError):
                database.cancel()

    def close(self) -> None:
        """Ends the session, when the question under way is answered."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None


class Page(Screen[None]):
    """A page of text over the main screen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "app.pop_screen", "Back"),
    ]

    def __init__(self, title: str, source: Source, question: Callable[[Database], RenderableType]) -> None:
        super().__init__()
        self._title = title
        self._source = source
        self._question = question

    def compose(self) -> ComposeResult:
        """The title, the text, the keys."""
        yield Label(show.visible(self._title), id="title", markup=False)
        with VerticalScroll(id="page"):
            yield Static("…", id="text")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Asks, while the page is already there."""
        self.query_one("#page").focus()
        self.ask()

    @work(thread=True)
    def ask(self) -> None:
        """Asks, and shows the answer or why there is none."""
        try:
            text = self._source.ask(self._question)
        except CommandError as error:
            text = _complaint(error)
        self.app.call_from_thread(self.query_one("#text", Static).update, text)


class Whom(ModalScreen[str]):
    """Asks for whom to explain."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss('')", "Back")]

    def compose(self) -> ComposeResult:
        """One line."""
        with Vertical(id="whom"):
            yield Label("Explain which user?")
            yield Input(placeholder="user id or @handle, and a challenge if it is one")

    @on(Input.Submitted)
    def answer(self, event: Input.Submitted) -> None:
        """Hands the line on."""
        self.dismiss(event.value.strip())


class Challenges(DataTable[Text]):
    """The table of challenges, with a key for the one under the cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "This challenge")]


class Watch(App[None]):
    """The screen."""

    CSS_PATH = "watch.tcss"
    TITLE = "audius-challenges"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        # Whatever has the focus, and whatever the server is busy with.
        Binding("ctrl+c", "interrupt", show=False, priority=True),
        Binding("e", "explain", "Explain a user"),
        Binding("d", "doctor", "Doctor"),
        Binding("r", "refresh", "Look now"),
    ]

    def __init__(self, database: Database, every: float, connect: Callable[[], Database]) -> None:
        super().__init__()
        self.source = Source(database, connect)
        self.every = every
        self.look: Look | None = None
        self.is_looking = False

    def compose(self) -> ComposeResult:
        """Challenges above; below them completions and what runs did; at the end what fails."""
        yield Label(self.source.heading, id="title", markup=False)
        yield Static("looking …", id="health")
        yield Challenges(id="challenges", cursor_type="row", zebra_stripes=True)
        with Horizontal(id="below"):
            with Vertical(id="pace"):
                yield Static(id="completions")
                yield Sparkline([0], id="minutes", summary_function=max)
                yield Static(id="axis")
            with Vertical(id="runs"):
                yield DataTable[Text](id="list", cursor_type="none", show_cursor=False)
        yield Static(id="errors")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Makes the tables, looks, and looks again and again."""
        self.theme = "textual-dark"
        challenges = self.query_one("#challenges", Challenges)
        for name in COLUMNS if self.size.width >= WIDE else NARROW_COLUMNS:
            challenges.add_column(name)
        runs = self.query_one("#list", DataTable)
        for name in ("run (UTC)", "took", "completed", "challenges", "failed"):
            runs.add_column(name)
        challenges.focus()
        self.action_refresh()
        self.set_interval(self.every, self.action_refresh)

    def action_refresh(self) -> None:
        """Looks, unless the last look is still under way."""
        if not self.is_looking:
            self.is_looking = True
            self.take_look()

    @work(thread=True)
    def take_look(self) -> None:
        """Looks, and shows what is seen or why nothing is."""
        try:
            look = self.source.ask(Look.take)
        except CommandError as error:
            self.call_from_thread(self.show_complaint, error)
        else:
            self.call_from_thread(self.show_look, look)
        finally:
            self.is_looking = False

    def on_unmount(self) -> None:
        """Ends the session."""
        self.source.close()

    def show_complaint(self, error: CommandError) -> None:
        """Says why there is nothing new; what was seen last stays."""
        health = self.query_one("#health", Static)
        health.set_class(True, "bad")
        health.update(
            Text.assemble(("cannot ask: ", "bold"), show.visible(error.message).split("\n")[0], "; trying again")
        )

    def show_look(self, look: Look) -> None:
        """Shows what is seen."""
        self.look = look
        self._show_health(look)
        self._show_challenges(look)
        self._show_pace(look)
        self._show_runs(look)
        self._show_errors(look)

    async def action_interrupt(self) -> None:
        """Leaves at once: what the server is doing for us is cancelled."""
        await asyncio.to_thread(self.source.cancel)
        self.exit(return_code=Exit.INTERRUPTED)

    def action_explain(self) -> None:
        """Asks for whom, then shows why he has what he has."""

        def answered(line: str | None) -> None:
            name, _, challenge = (line or "").partition(" ")
            if name:
                self.push_screen(Page(f"explain {line}", self.source, _explaining(name, challenge.strip() or None)))

        self.push_screen(Whom(), answered)

    def action_doctor(self) -> None:
        """Shows what doctor() says."""
        self.push_screen(Page("doctor", self.source, lambda database: show.findings(database.findings())))

    @on(DataTable.RowSelected, "#challenges")
    def action_details(self) -> None:
        """Shows the challenge under the cursor: its status, its last error, its history."""
        if self.look is None:
            return
        row = self.look.challenges[self.query_one("#challenges", Challenges).cursor_row]
        self.push_screen(Page(f"{row.challenge_id}  {row.description}", self.source, _details(row.challenge_id)))

    # What is seen

    def _show_health(self, look: Look) -> None:
        problem = next((row.tick_problem for row in look.challenges if row.tick_problem), None)
        failing = [row.challenge_id for row in look.challenges if row.consecutive_failures]
        backlog = max((row.backlog for row in look.challenges), default=0)
        parts = [f"failing: {', '.join(failing)}"] if failing else []
        if problem:
            parts.append(problem.split("\n")[0])
        elif look.ticks.age is None:
            parts.append("no tick yet")
        else:
            parts.append(f"last tick {show.span(look.ticks.age)} ago")
            if look.ticks.duration is not None:
                parts.append(f"took {show.took(dt.timedelta(seconds=look.ticks.duration))}")
            if look.ticks.interval is not None:
                parts.append(f"one every {show.span(look.ticks.interval)}")
        if backlog:
            parts.append(f"backlog: {backlog:,} users")
        health = self.query_one("#health", Static)
        health.set_class(bool(problem or failing), "bad")
        health.update(Text.assemble(f"{look.at:%H:%M:%S} UTC  ", ("  ".join(parts), "bold")))

    def _show_challenges(self, look: Look) -> None:
        made = self.query_one("#challenges", Challenges)
        cursor = made.cursor_row
        made.clear()
        *_, failures, set_aside = (column.label.cell_len for column in made.ordered_columns)
        for row in look.challenges:
            made.add_row(
                Text(row.challenge_id, style="bold"),
                Text(row.description),
                show.status(row.status),
                show.ago(row.last_success),
                show.progress(row),
                _right(show.number(row.consecutive_failures, "bold red"), failures),
                _right(show.number(row.users_set_aside, "yellow"), set_aside),
            )
        made.move_cursor(row=cursor)

    def _show_pace(self, look: Look) -> None:
        pace = [minute.completions for minute in look.minutes]
        self.query_one("#minutes", Sparkline).data = pace
        self.query_one("#completions", Static).update(
            Text.assemble(
                ("completions a minute", "bold"),
                f"\nnow {pace[-1]:,}   most {max(pace):,}   in the hour {sum(pace):,}",
            )
        )
        first, last = look.minutes[0].minute, look.minutes[-1].minute
        self.query_one("#axis", Static).update(Text(f"{first:%H:%M} to {last:%H:%M} UTC", style="bright_black"))

    def _show_runs(self, look: Look) -> None:
        made = self.query_one("#list", DataTable)
        made.clear()
        for run in look.runs:
            made.add_row(
                Text(f"{run.began_at.astimezone(dt.UTC):%H:%M:%S}"),
                show.took(run.duration),
                _right(show.number(run.completions, "green"), 9),
                Text(_few(run.challenges)),
                Text(_few(run.failed), style="red"),
            )

    def _show_errors(self, look: Look) -> None:
        failing = [row for row in look.challenges if row.consecutive_failures and row.last_error]
        lines = [
            Text.assemble((f"{row.challenge_id} ", "bold red"), (row.last_error or "").split("\n")[0])
            for row in failing[:ERRORS]
        ]
        if len(failing) > ERRORS:
            lines.append(Text(f"and {len(failing) - ERRORS} more; Enter on a challenge shows its error"))
        errors = self.query_one("#errors", Static)
        errors.display = bool(lines)
        errors.update(Group(*lines))


def frame_of(app: Watch, size: tuple[int, int]) -> tuple[str, str]:
    """One frame of the screen, with its first look: with the terminal's escapes, and as SVG."""

    async def run() -> tuple[str, str]:
        async with app.run_test(size=size) as pilot:
            await app.workers.wait_for_complete()
            await pilot.pause()
            # As App.export_screenshot() does, which has no other form than SVG.
            frame = app.screen._compositor.render_update(full=True)  # noqa: SLF001
            console = Console(
                width=size[0], height=size[1], file=io.StringIO(), force_terminal=True, color_system="truecolor",
                record=True, legacy_windows=False,
            )  # fmt: skip
            console.print(frame)
            return console.export_text(styles=True), app.export_screenshot()

    return asyncio.run(run())


def _explaining(name: str, challenge: str | None) -> Callable[[Database], RenderableType]:
    def question(database: Database) -> RenderableType:
        user = database.find_user(name)
        descriptions = {row.challenge_id: row.description for row in database.challenges()}
        return show.explanation(user, database.explain(user, challenge), descriptions)

    return question


def _details(challenge: str) -> Callable[[Database], RenderableType]:
    def question(database: Database) -> RenderableType:
        rows = [row for row in database.challenges() if row.challenge_id == challenge]
        return Group(show.challenges(rows), Text(""), show.history(database.history([challenge], limit=50)))

    return question


def _complaint(error: CommandError) -> Text:
    return Text.assemble((show.visible(error.message), "red"), f"\n{show.visible(error.hint)}" if error.hint else "")


def _few(challenges: Sequence[str]) -> str:
    """As many as there is room for."""
    more = len(challenges) - FEW
    return " ".join(challenges[:FEW]) + (f" +{more}" if more > 0 else "")


def _right(text: Text, width: int) -> Text:
    """DataTable aligns nothing."""
    text = text.copy()
    text.pad_left(max(width - len(text), 0))
    return text
