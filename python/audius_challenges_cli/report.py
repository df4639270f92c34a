"""The report: one HTML file with everything in it, the charts and the program that draws them included."""

from __future__ import annotations

import calendar
import datetime as dt
import importlib.resources
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, Self

import altair as alt
import vl_convert
from jinja2 import Environment

from audius_challenges_cli.database import Aside, Challenge, Database, Day, Failure, Finding, Hour, Unpaid
from audius_challenges_cli.lenient import Beyond
from audius_challenges_cli.show import COLOURS, SEVERITIES, uncounted

ROWS = 50
"""Rows of a table at most."""
HISTORY_DAYS = 30
"""The history that the picture of durations shows."""
# Vega's own tableau20, and a few more: neighbours differ, and there are more than challenges.
PALETTE = (
    "#4c78a8", "#9ecae9", "#f58518", "#ffbf79", "#54a24b", "#88d27a", "#b79a20", "#f2cf5b", "#439894", "#83bcb6",
    "#e45756", "#ff9d98", "#79706e", "#bab0ac", "#d67195", "#fcbfd2", "#b279a2", "#d6a5c9", "#9e765f", "#d8b5a5",
    "#2f4b7c", "#c9b3f2", "#3b7d3a", "#f06a6a",
)  # fmt: skip
VIOLET, PALE, GREY = "#7e1bcc", "#d9c6ef", "#9a93a8"
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"

PROGRAM = "window.vegaEmbed = vegaEmbed;"
"""What is made of the libraries, which come with vl-convert."""

Measure = Literal["amount", "completions"]


@dataclass(frozen=True)
class Period:
    """From one day to another, both included."""

    first: dt.date
    last: dt.date

    @classmethod
    def of_month(cls, day: dt.date) -> Self:
        """The month that has this day."""
        return cls(day.replace(day=1), day.replace(day=calendar.monthrange(day.year, day.month)[1]))

    @classmethod
    def of_weeks(cls, weeks: int, today: dt.date) -> Self:
        """So many weeks, the present one included."""
        return cls(_monday(today) - dt.timedelta(weeks=weeks - 1), today)


@dataclass(frozen=True)
class Week:
    """What a challenge paid in a week that begins on this Monday."""

    week: dt.date
    challenge_id: str
    completions: int
    amount: Decimal


@dataclass(frozen=True)
class Numbers:
    """Everything that the report shows."""

    database: str
    version: str
    server: str
    made_at: dt.datetime
    since: dt.date
    until: dt.date
    uncounted: Sequence[str]
    weeks: Sequence[Week]
    hours: Sequence[Hour]
    challenges: Sequence[Challenge]
    unpaid: Sequence[Unpaid]
    failures: Sequence[Failure]
    set_aside: Sequence[Aside]
    findings: Sequence[Finding]


def collect(database: Database, period: Period) -> Numbers:
    """Asks for all of it.

    :param period: of what was completed; all else is as it is now
    """
    return Numbers(
        database.name,
        database.version,
        database.server.split()[0],
        dt.datetime.now(dt.UTC),
        period.first,
        period.last,
        database.uncounted(),
        by_week(database.days(since=period.first, until=period.last)),
        database.hours(dt.timedelta(days=HISTORY_DAYS)),
        database.challenges(),
        database.unpaid(),
        database.failures(ROWS),
        database.set_aside(ROWS),
        database.findings(),
    )


def by_week(days: Sequence[Day]) -> list[Week]:
    """The days' sums by week and challenge, the oldest first."""
    sums: dict[tuple[dt.date, str], tuple[int, Decimal]] = defaultdict(lambda: (0, Decimal()))
    for day in days:
        key = (_monday(day.day), day.challenge_id)
        completions, amount = sums[key]
        sums[key] = (completions + day.completions, amount + day.amount)
    return [Week(*key, *found) for key, found in sorted(sums.items())]


def render(numbers: Numbers) -> str:
    """The file's text."""
    charts = {
        "audio": _weekly(numbers, "amount", "$AUDIO"),
        "completions": _weekly(numbers, "completions", "completions"),
        "hours": _durations(numbers.hours),
        "unpaid": _unpaid(numbers),
    }
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["moment"] = _moment
    environment.filters["number"] = lambda number: f"{number:,}"
    template = importlib.resources.files("audius_challenges_cli").joinpath("report.html").read_text(encoding="utf-8")
    specs = {name: chart.to_dict() for name, chart in charts.items() if chart is not None}
    return environment.from_string(template).render(
        numbers=numbers,
        waiting=uncounted(numbers.uncounted) if numbers.uncounted else None,
        tiles=_tiles(numbers),
        findings=sorted(numbers.findings, key=lambda finding: -SEVERITIES.index(finding.severity)),
        specs=specs,
        # In a script, nothing that could end it.
        specs_json=json.dumps(specs).replace("<", "\\u003c"),
        program=vl_convert.javascript_bundle(PROGRAM).replace("</script", "<\\/script"),
        colours=COLOURS,
        rows=ROWS,
    )


def _moment(moment: dt.datetime) -> str:
    return moment.says if isinstance(moment, Beyond) else f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"


def _monday(day: dt.date) -> dt.date:
    return day - dt.timedelta(days=day.weekday())


def _tiles(numbers: Numbers) -> list[tuple[str, str, str]]:
    """Headings, big numbers, and what they are of."""
    today = numbers.made_at.date()
    is_now = numbers.until >= today
    days = f"since {numbers.since}" if is_now else f"{numbers.since} to {numbers.until}"
    this_week = _monday(today)
    amount = sum((week.amount for week in numbers.weeks), Decimal())
    lately = sum((week.amount for week in numbers.weeks if week.week == this_week), Decimal())
    completions = sum(week.completions for week in numbers.weeks)
    unpaid = sum((row.amount for row in numbers.unpaid), Decimal())
    claimable = sum((row.amount for row in numbers.unpaid if not row.in_cooldown), Decimal())
    worst = max((SEVERITIES.index(finding.severity) for finding in numbers.findings), default=0)
    troubles = sum(finding.severity not in {"ok", "notice"} for finding in numbers.findings)
    return [
        ("$AUDIO earned", f"{amount:,.0f}", f"{days}, {lately:,.0f} of it this week" if is_now else days),
        ("Rewards completed", f"{completions:,}", days),
        ("Not paid yet", f"{unpaid:,.0f}", f"$AUDIO, {claimable:,.0f} of it claimable"),
        ("Users set aside", f"{sum(row.users_set_aside for row in numbers.challenges):,}", "rows cannot be written"),
        ("Health", SEVERITIES[worst], _things(troubles)),
    ]


def _things(count: int) -> str:
    if not count:
        return "nothing to do"
    return "one thing to do" if count == 1 else f"{count} things to do"


def _names(numbers: Numbers) -> dict[str, str]:
    return {row.challenge_id: f"{row.challenge_id}  {row.description}" for row in numbers.challenges}


def _data(values: list[dict[str, Any]]) -> alt.InlineData:
    return alt.InlineData(values=values)


def _colour(numbers: Numbers, present: set[str]) -> Any:
    """A challenge has the same colour in all charts, whoever else is there."""
    names = _names(numbers)
    shown = [(name, PALETTE[place % len(PALETTE)]) for place, (key, name) in enumerate(names.items()) if key in present]
    return alt.Color(
        "challenge:N",
        title=None,
        scale=alt.Scale(domain=[name for name, _ in shown], range=[colour for _, colour in shown]),
    )


def _weekly(numbers: Numbers, measure: Measure, title: str) -> Any:
    """Stacked bars, a week each; a click on the legend shows one challenge alone."""
    if not numbers.weeks:
        return None
    names = _names(numbers)
    values = [
        {
            "week": week.week.isoformat(),
            "challenge": names.get(week.challenge_id, week.challenge_id),
            "value": float(getattr(week, measure)),
        }
        for week in numbers.weeks
    ]
    chosen = alt.selection_point(fields=["challenge"], bind="legend")
    chart = (
        alt.Chart(_data(values))
        .mark_bar()
        .encode(
            # Days are days of UTC, wherever the browser is.
            x=alt.X(
                "week:O",
                title=None,
                axis=alt.Axis(labelExpr="utcFormat(toDate(datum.value), '%b %d')", labelAngle=0, labelOverlap="greedy"),
            ),
            y=alt.Y("sum(value):Q", title=title, axis=alt.Axis(format=",.0f", tickCount=8)),
            color=_colour(numbers, {week.challenge_id for week in numbers.weeks}),
            opacity=alt.condition(chosen, alt.value(1), alt.value(0.12)),
            tooltip=[
                alt.Tooltip("challenge:N", title="challenge"),
                alt.Tooltip("week:N", title="week of"),
                alt.Tooltip("sum(value):Q", title=title, format=",.0f"),
            ],
        )
        .add_params(chosen)
    )
    return _styled(chart, height=300)


def _durations(hours: Sequence[Hour]) -> Any:
    """Lines: how long runs took, the median and the longest of each hour."""
    if not hours:
        return None
    values = [
        {"hour": hour.hour.isoformat(), "at": _moment(hour.hour), "which": which, "seconds": seconds, "runs": hour.runs}
        for hour in hours
        for which, seconds in (("median", hour.median), ("longest", hour.longest))
    ]
    chart = (
        alt.Chart(_data(values))
        .mark_line(point=alt.OverlayMarkDef(size=36))
        .encode(
            x=alt.X("hour:T", title=None, scale=alt.Scale(type="utc")),
            y=alt.Y("seconds:Q", title="seconds", scale=alt.Scale(type="symlog", constant=0.1)),
            color=alt.Color(
                "which:N",
                title=None,
                scale=alt.Scale(domain=["longest", "median"], range=[VIOLET, GREY]),
            ),
            tooltip=[
                alt.Tooltip("which:N", title="of the hour"),
                alt.Tooltip("at:N", title="hour"),
                alt.Tooltip("seconds:Q", format=".3f"),
                alt.Tooltip("runs:Q", title="runs"),
            ],
        )
    )
    return _styled(chart, height=220)


def _unpaid(numbers: Numbers) -> Any:
    """Bars: $AUDIO that is earned and not paid, claimable or in its cooldown."""
    if not numbers.unpaid:
        return None
    names = _names(numbers)
    values = [
        {
            "challenge": names.get(row.challenge_id, row.challenge_id),
            "state": "in cooldown" if row.in_cooldown else "claimable",
            "amount": float(row.amount),
            "rewards": row.rewards,
        }
        for row in numbers.unpaid
    ]
    chart = (
        alt.Chart(_data(values))
        .mark_bar()
        .encode(
            x=alt.X("amount:Q", title="$AUDIO", axis=alt.Axis(format=",.0f", tickCount=8)),
            y=alt.Y("challenge:N", title=None, sort="-x"),
            color=alt.Color(
                "state:N",
                title=None,
                scale=alt.Scale(domain=["claimable", "in cooldown"], range=[VIOLET, PALE]),
            ),
            tooltip=[
                "challenge:N",
                "state:N",
                alt.Tooltip("amount:Q", title="$AUDIO", format=",.0f"),
                alt.Tooltip("rewards:Q", format=","),
            ],
        )
    )
    return _styled(chart, height=alt.Step(24))


def _styled(chart: Any, height: Any) -> Any:
    return (
        chart.properties(width="container", height=height)
        .properties(autosize=alt.AutoSizeParams(type="fit-x", contains="padding"))
        .configure(font=FONT, background="transparent")
        .configure_view(stroke=None)
        .configure_axis(
            labelColor="#5f5a6b", titleColor="#5f5a6b", titleFontWeight="normal", gridColor="#ece9f1",
            domainColor="#cfcad8", tickColor="#cfcad8", labelFontSize=12, titleFontSize=12, labelLimit=260,
        )
        .configure_legend(labelFontSize=12, labelColor="#3b3547", symbolType="square", labelLimit=220, rowPadding=4)
    )  # fmt: skip
