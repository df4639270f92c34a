"""The screen of watch, driven by Textual's pilot against a real server."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from contextlib import closing

import pytest
from rich.console import Console
from textual.pilot import Pilot
from textual.widgets import DataTable, Sparkline, Static

from audius_challenges_cli.database import Database
from audius_challenges_cli.watch import Watch
from devtools.discovery import Discovery
from tests.cli.terminal import ask, on_a_screen
from tests.sessions import RUN_ORDER, rows, until

pytestmark = pytest.mark.one_version

SIZE = (120, 44)

Scene = Callable[[Watch, Pilot[None]], Awaitable[None]]


def play(discovery: Discovery, scene: Scene, every: float = 60, size: tuple[int, int] = SIZE) -> None:
    """Opens the screen, plays a scene after its first look, and closes it."""

    async def run() -> None:
        app = Watch(Database(discovery.dsn()), every, lambda: Database(discovery.dsn()))
        async with app.run_test(size=size) as pilot:
            await settle(app, pilot)
            await scene(app, pilot)

    asyncio.run(run())


async def settle(app: Watch, pilot: Pilot[None]) -> None:
    """Waits until every question is answered and shown."""
    await pilot.pause()
    await app.workers.wait_for_complete()
    await pilot.pause()


def text(widget: Static) -> str:
    """What a widget shows, as text."""
    console = Console(width=SIZE[0], record=True, file=io.StringIO())
    console.print(widget.visual if isinstance(widget.content, str) else widget.content)
    return console.export_text()


def test_every_challenge_is_there_with_its_status(paid: Discovery) -> None:
    with closing(paid.connect()) as connection:
        expected = rows(connection, "SELECT challenge_id, description, status FROM challenge_status")

    async def scene(app: Watch, _: Pilot[None]) -> None:
        table = app.query_one("#challenges", DataTable)
        shown = [tuple(str(cell) for cell in table.get_row_at(row)[:3]) for row in range(table.row_count)]
        assert shown == expected

    play(paid, scene)


def test_all_columns_of_the_challenges_fit_80_columns(paid: Discovery) -> None:
    async def scene(app: Watch, _: Pilot[None]) -> None:
        table = app.query_one("#challenges", DataTable)
        assert table.row_count == len(RUN_ORDER)
        assert len(table.columns) == 7
        assert table.virtual_size.width <= 80

    play(paid, scene, size=(80, 44))


def test_completions_and_runs_are_those_of_the_history(paid: Discovery) -> None:
    async def scene(app: Watch, _: Pilot[None]) -> None:
        assert sum(app.query_one(Sparkline).data or ()) == 3
        runs = app.query_one("#list", DataTable)
        assert runs.row_count == 1
        assert [str(cell).strip() for cell in runs.get_row_at(0)[2:]] == ["3", "u fp", ""]

    play(paid, scene)


def test_what_fails_is_said_and_the_screen_turns_red(failing: Discovery) -> None:

    async def scene(app: Watch, _: Pilot[None]) -> None:
        assert "failing: c" in text(app.query_one("#health", Static))
        assert app.query_one("#health").has_class("bad")
        assert "comments" in text(app.query_one("#errors", Static))

    play(failing, scene)


def test_e_explains_a_user(paid: Discovery) -> None:
    async def scene(app: Watch, pilot: Pilot[None]) -> None:
        await pilot.press("e", *"@user1 u", "enter")
        await settle(app, pilot)
        shown = text(app.screen.query_one("#text", Static))
        assert shown.startswith("user 1  @user1")
        assert "u  track upload" in shown
        await pilot.press("escape")
        assert app.screen.query("#challenges")

    play(paid, scene)


def test_e_for_nobody_says_so(paid: Discovery) -> None:
    async def scene(app: Watch, pilot: Pilot[None]) -> None:
        await pilot.press("e", *"nobody", "enter")
        await settle(app, pilot)
        assert "no user has the handle nobody" in text(app.screen.query_one("#text", Static))

    play(paid, scene)


def test_d_opens_the_doctor(paid: Discovery) -> None:
    with closing(paid.connect()) as connection:
        ((what,),) = rows(connection, "SELECT what FROM audius_challenges.doctor() LIMIT 1")

    async def scene(app: Watch, pilot: Pilot[None]) -> None:
        await pilot.press("d")
        await settle(app, pilot)
        assert what in text(app.screen.query_one("#text", Static))

    play(paid, scene)


def test_enter_shows_the_challenge_under_the_cursor(paid: Discovery) -> None:
    async def scene(app: Watch, pilot: Pilot[None]) -> None:
        await pilot.press("down", "up", "enter")
        await settle(app, pilot)
        shown = text(app.screen.query_one("#text", Static))
        assert "track upload" in shown
        assert "completed" in shown

    play(paid, scene)


@pytest.mark.parametrize("keys", [[], ["e"], ["e", "x"], ["d"]])
def test_ctrl_c_leaves_from_everywhere(paid: Discovery, keys: list[str]) -> None:
    async def scene(app: Watch, pilot: Pilot[None]) -> None:
        await pilot.press(*keys, "ctrl+c")
        await pilot.pause()
        assert app.return_code == 130
        assert not app.is_running

    play(paid, scene)


def test_ctrl_c_does_not_wait_for_the_server(discovery: Discovery) -> None:
    async def scene(app: Watch, pilot: Pilot[None]) -> None:
        with closing(discovery.connect()) as connection:
            busy = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
            connection.execute(
                "CREATE OR REPLACE FUNCTION audius_challenges.tick_problem() RETURNS text LANGUAGE sql AS"
                " $$ SELECT pg_sleep(90)::text $$"
            )
            await pilot.press("r")
            await asyncio.to_thread(until, lambda: rows(connection, busy), "a look under way")
            await pilot.press("ctrl+c")
            await asyncio.to_thread(until, lambda: not rows(connection, busy), "its end", seconds=10)
        assert app.return_code == 130

    play(discovery, scene)


def test_ctrl_c_in_a_terminal(paid: Discovery) -> None:
    assert on_a_screen(paid, "watch", keys=b"\x03", status=130)


def test_titles_are_text(paid: Discovery) -> None:
    async def scene(app: Watch, pilot: Pilot[None]) -> None:
        await pilot.press("e", *"[/x] u", "enter")
        await settle(app, pilot)
        assert "no user has the handle [/x]" in text(app.screen.query_one("#text", Static))

    play(paid, scene)


def test_it_looks_again_and_again(paid: Discovery) -> None:
    async def scene(app: Watch, pilot: Pilot[None]) -> None:
        first = app.look
        for _ in range(50):
            await pilot.pause(0.1)
            if app.look is not first:
                return
        raise AssertionError("no second look")

    play(paid, scene, every=0.5)


def test_a_lost_connection_is_said_and_found_again(paid: Discovery) -> None:
    async def scene(app: Watch, pilot: Pilot[None]) -> None:
        with closing(paid.connect()) as connection:
            others = "datname = current_database() AND pid <> pg_backend_pid()"
            connection.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}")
        await pilot.press("r")
        await settle(app, pilot)
        assert "cannot ask: " in text(app.query_one("#health", Static))
        assert app.query_one("#challenges", DataTable).row_count == len(RUN_ORDER)
        await pilot.press("r")
        await settle(app, pilot)
        assert "cannot ask" not in text(app.query_one("#health", Static))

    play(paid, scene)


def test_without_a_terminal_it_prints_one_frame(paid: Discovery) -> None:
    answer = ask(paid, "watch")
    assert answer.status == 0, answer
    assert "completions a minute" in answer.out
    assert "\x1b" not in answer.out
    for challenge in RUN_ORDER:
        assert f"\n {challenge} " in answer.out
