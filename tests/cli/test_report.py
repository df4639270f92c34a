"""The report, opened in a real browser that has no network."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from html import unescape
from pathlib import Path

import pytest

from audius_challenges_cli.database import Day
from audius_challenges_cli.report import Week, by_week
from devtools.cluster import Cluster
from devtools.discovery import Discovery
from tests.cli.terminal import PEOPLE, QUALIFY, RECONCILE, Answer, ask
from tests.sessions import rows

pytestmark = pytest.mark.one_version

EVIL = "</script><script>document.body.dataset.charts='stolen'</script>"
BROWSER = ("--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND")
"""Debian's Chromium, as root, too; no name leads anywhere."""


@pytest.fixture(scope="module")
def weeks(cluster: Cluster, full_template: str) -> Iterator[Discovery]:
    """A database with rewards of two weeks, and a user who is set aside with an evil error."""
    cluster.create_database("weeks", full_template)
    database = Discovery(cluster, "weeks")
    database.psql(PEOPLE, QUALIFY, RECONCILE)
    with closing(database.connect()) as connection:
        connection.execute(
            "INSERT INTO audius_challenges.challenge_day (day, challenge_id, completions, amount)"
            " VALUES (current_date - 7, 'u', 5, 5), (current_date - 7, 'v', 1, 5)"
        )
        connection.execute(
            "INSERT INTO audius_challenges.set_aside (challenge_id, user_id, specifier, error, examined_id)"
            " VALUES ('p', 4, '', %s, 4)",
            (EVIL,),
        )
    yield database
    cluster.drop_database("weeks")


@pytest.fixture(scope="module")
def report(weeks: Discovery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    answer = ask(weeks, "report", "-o", str(path))
    assert answer.status == 0, answer
    return path


@pytest.fixture(scope="module")
def drawn(report: Path) -> str:
    """What the browser has made of the file."""
    return browse("--dump-dom", report.as_uri())


def browse(*options: str, zone: str = "UTC") -> str:
    """What Chromium prints, in a time zone."""
    program = shutil.which("chromium")
    assert program, "devtools/bootstrap.sh tests installs chromium"
    done = subprocess.run(
        [program, *BROWSER, "--virtual-time-budget=20000", *options],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env=os.environ | {"TZ": zone},
    )
    return done.stdout


def test_the_browser_draws_every_chart_without_network(drawn: str) -> None:
    assert '<body data-charts="drawn">' in drawn
    for name in ("audio", "completions", "unpaid", "hours"):
        chart = drawn.split(f'id="chart-{name}"')[1].split("</section>", maxsplit=1)[0]
        assert "<svg" in chart, name
    bars = re.findall(r"\$AUDIO: ([^;]*); challenge: ([^;]*); week of: ([^;\"]*)", unescape(drawn))
    last_week = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=7)
    monday = last_week - dt.timedelta(days=last_week.weekday())
    assert ("5", "u  track upload", f"{monday}") in bars
    assert ("5", "v  connect verified", f"{monday}") in bars


def test_weeks_and_hours_are_those_of_utc_wherever_the_browser_is(report: Path, drawn: str) -> None:
    elsewhere = browse("--dump-dom", report.as_uri(), zone="America/Los_Angeles")
    assert 'data-charts="drawn"' in elsewhere
    for name, tip in (("audio", "week of"), ("completions", "week of"), ("hours", "hour")):
        tips = tips_of(elsewhere, name, tip)
        assert tips
        assert tips == tips_of(drawn, name, tip)
        assert labels(chart(elsewhere, name)) == labels(chart(drawn, name))
    assert all(dt.date.fromisoformat(week).weekday() == 0 for week in tips_of(elsewhere, "audio", "week of"))
    mondays = {f"{dt.date.fromisoformat(week):%b %d}" for week in tips_of(elsewhere, "audio", "week of")}
    assert mondays <= set(labels(chart(elsewhere, "audio")))


def tips_of(page: str, name: str, tip: str) -> list[str]:
    """What the tooltips of a chart say of something."""
    return re.findall(rf"{tip}: ([^;\"]*)", unescape(chart(page, name)))


def chart(page: str, name: str) -> str:
    """A chart in what the browser has made."""
    return page.split(f'id="chart-{name}"')[1].split("</section>", maxsplit=1)[0]


def labels(drawing: str) -> list[str]:
    """The texts in a chart."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", drawing)


def test_nothing_in_it_comes_from_elsewhere(report: Path) -> None:
    source = report.read_text()
    assert re.findall(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", source.split("<script>")[0]) == []
    assert "default-src 'none'" in source
    assert "<link" not in source.split("<script>")[0]


def test_an_error_s_text_is_text(report: Path, drawn: str) -> None:
    assert EVIL not in report.read_text()
    assert EVIL in unescape(drawn)
    assert 'data-charts="drawn"' in drawn


def test_it_is_no_blank_page(report: Path, tmp_path: Path) -> None:
    picture = tmp_path / "report.png"
    browse(f"--screenshot={picture}", "--window-size=1200,2400", report.as_uri())
    assert picture.stat().st_size > 100_000


def test_its_numbers_are_those_of_the_database(weeks: Discovery) -> None:
    numbers = ask(weeks, "report", "--json").json
    with closing(weeks.connect()) as connection:
        days = rows(
            connection, "SELECT sum(completions)::bigint, sum(amount)::bigint FROM audius_challenges.challenge_day"
        )
        unpaid = rows(connection, "SELECT count(*), sum(amount)::bigint FROM undisbursed_challenges")
    of_weeks = numbers["weeks"]
    assert [(sum(week["completions"] for week in of_weeks), sum(week["amount"] for week in of_weeks))] == days
    assert [
        (sum(row["rewards"] for row in numbers["unpaid"]), sum(row["amount"] for row in numbers["unpaid"]))
    ] == unpaid
    assert [(row["challenge_id"], row["users"], row["error"]) for row in numbers["set_aside"]] == [("p", 1, EVIL)]


def test_a_report_of_nothing_is_one_too(discovery: Discovery, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    answer: Answer = ask(discovery, "report", "-o", str(path))
    assert answer.status == 0, answer
    assert "Nothing was completed in this time." in path.read_text()
    assert 'data-charts="drawn"' in browse("--dump-dom", path.as_uri())


def test_a_file_that_cannot_be_written(weeks: Discovery) -> None:
    answer = ask(weeks, "report", "-o", "/nonexistent/report.html")
    assert answer.status == 3
    assert "cannot write /nonexistent/report.html: there is no directory /nonexistent" in answer.err


def test_weeks_begin_on_monday() -> None:
    sunday, monday = dt.date(2026, 11, 22), dt.date(2026, 11, 23)
    days = [Day(day, "u", 1, Decimal(2), is_backfilled=False) for day in (monday, sunday, monday + dt.timedelta(6))]
    assert by_week(days) == [Week(dt.date(2026, 11, 16), "u", 1, Decimal(2)), Week(monday, "u", 2, Decimal(4))]


def test_the_specs_are_json(report: Path) -> None:
    specs = report.read_text().split('<script type="application/json" id="specs">')[1].split("</script>")[0]
    assert set(json.loads(specs)) == {"audio", "completions", "unpaid", "hours"}


@pytest.fixture(scope="module")
def months(cluster: Cluster, full_template: str) -> Iterator[Discovery]:
    """A database with a reward on the first and the last day of each of three months."""
    cluster.create_database("months", full_template)
    database = Discovery(cluster, "months")
    database.psql(
        "INSERT INTO audius_challenges.challenge_day (day, challenge_id, completions, amount)"
        " SELECT day, 'u', 1, extract(month FROM day)"
        " FROM unnest('{2024-01-01,2024-01-31,2024-02-01,2024-02-29,2024-03-01,2024-03-31}'::date[]) AS day"
    )
    yield database
    cluster.drop_database("months")


@pytest.mark.parametrize(
    ("options", "days", "sums"),
    [
        (["--month", "2024-02"], ("2024-02-01", "2024-02-29"), (2, 4)),
        (["--from", "2024-01-31", "--to", "2024-02-01"], ("2024-01-31", "2024-02-01"), (2, 3)),
        (["--from", "2024-03-31", "--to", "2024-03-31"], ("2024-03-31", "2024-03-31"), (1, 3)),
        (["--weeks", "1"], None, (0, 0)),
        (["--from", "2024-02-29"], None, (3, 8)),
    ],
)
def test_a_month_or_any_other_days(
    months: Discovery, options: list[str], days: tuple[str, str] | None, sums: tuple[int, int]
) -> None:
    numbers = ask(months, "report", "--json", *options).json
    today = f"{dt.datetime.now(dt.UTC):%Y-%m-%d}"
    assert numbers["until"] == (days[1] if days else today)
    if days:
        assert numbers["since"] == days[0]
    weeks = numbers["weeks"]
    assert (sum(week["completions"] for week in weeks), sum(week["amount"] for week in weeks)) == sums


def test_a_past_month_says_which_and_nothing_of_this_week(months: Discovery, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    assert ask(months, "report", "--month", "2024-02", "-o", str(path)).status == 0
    source = path.read_text(encoding="utf-8")
    assert "<span>2024-02-01 to 2024-02-29</span>" in source
    assert "this week" not in source
    assert "from 2024-02-01 to 2024-02-29" in source


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--month", "2024-02", "--weeks", "3"], "one of --weeks, --month"),
        (["--month", "2024-02", "--from", "2024-02-01"], "one of --weeks, --month"),
        (["--to", "2024-02-01"], "--to needs --from"),
        (["--from", "2024-02-02", "--to", "2024-02-01"], "there is no day from 2024-02-02 to 2024-02-01"),
        (["--month", "2024-13"], "2024-13"),
    ],
)
def test_days_that_make_no_sense(months: Discovery, options: list[str], says: str) -> None:
    answer = ask(months, "report", *options)
    assert answer.status == 3
    assert says in answer.err


def test_sums_that_are_not_complete_yet_say_so(discovery: Discovery, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    discovery.psql(PEOPLE, QUALIFY, RECONCILE)
    assert ask(discovery, "report", "-o", str(path)).status == 0
    assert "still counting" not in path.read_text(encoding="utf-8")
    discovery.psql("UPDATE audius_challenges.day_backfill SET is_done = FALSE WHERE challenge_id = 'u'")
    assert ask(discovery, "report", "-o", str(path)).status == 0
    assert "still counting the past of u:" in path.read_text(encoding="utf-8")
    assert ask(discovery, "report", "--json").json["uncounted"] == ["u"]
