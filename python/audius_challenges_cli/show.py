"""What answers look like in a terminal, and to a machine."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from audius_challenges_cli.database import Challenge, Day, Deed, Finding, Line, Outcome, User
from audius_challenges_cli.lenient import Beyond

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")

COLOURS = {
    "ok": "green",
    "inactive": "bright_black",
    "absent": "bright_black",
    "elsewhere": "bright_black",
    "first build": "cyan",
    "catching up": "cyan",
    "never run": "cyan",
    "busy": "yellow",
    "late": "yellow",
    "stopped": "red",
    "failing": "red",
    "failed": "red",
    "notice": "cyan",
    "warning": "yellow",
    "critical": "red",
}
MARKS = {"ok": "✓", "notice": "·", "warning": "!", "critical": "✗"}
SEVERITIES = tuple(MARKS)
"""From the mildest on."""
GOOD_STATES = {"complete", "next_run"}
BAD_STATES = {"failed", "set_aside"}
QUIET_STATES = {"inactive", "absent"}
BAR = "━"
BAR_WIDTH = 10
WRAPPED = {"condition", "demanded", "has"}
"""Columns of people's words."""
NONE = Text("-", style="bright_black")
# C0 but for the end of a line and the tabulator, DEL, C1, and what turns the direction of writing.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """A text with its control characters as escapes, which a terminal shows and does not obey."""
    return CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def visible_in(record: Record) -> Record:
    """A record with the control characters of its texts as escapes."""
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    texts: dict[str, Any] = {name: visible(value) for name, value in values.items() if isinstance(value, str)}
    return dataclasses.replace(record, **texts)


def as_json(value: object, *, ascii_only: bool = False) -> str:
    """Records, and lists and mappings of them, as JSON: times as ISO 8601, intervals in seconds."""
    text = json.dumps(value, default=_plain, indent=2, ensure_ascii=ascii_only)
    # JSON has escapes for C0, and lets the others pass.
    return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _plain(value: Any) -> Any:
    match value:
        case Beyond():
            return value.says
        case dt.datetime() | dt.date():
            return value.isoformat()
        case dt.timedelta():
            return value.total_seconds()
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no form in JSON")


# Small things


def status(name: str) -> Text:
    """A status in its colour."""
    return Text(name, style=COLOURS.get(name, ""))


def ago(moment: dt.datetime | None) -> Text:
    """How long ago that was."""
    if moment is None:
        return NONE
    if isinstance(moment, Beyond):
        return Text(moment.says)
    return Text(f"{span((dt.datetime.now(dt.UTC) - moment).total_seconds())} ago")


def span(seconds: float) -> str:
    """A span of time in its greatest unit: 12 s, 5 min, 3 h, 2 d."""
    seconds = max(seconds, 0)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def took(duration: dt.timedelta | None) -> Text:
    """How long something took, in milliseconds or seconds."""
    if duration is None:
        return NONE
    seconds = duration.total_seconds()
    return Text(f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s")


def number(value: int | Decimal | None, style: str = "") -> Text:
    """A count; a zero steps back."""
    if value is None:
        return NONE
    return Text(f"{value:,}", style=style if value else "bright_black")


def moment(value: dt.datetime) -> Text:
    """A time, in UTC."""
    if isinstance(value, Beyond):
        return Text(value.says)
    return Text(f"{value.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}")


def progress(challenge: Challenge) -> Text:
    """How far a first build or a catching up has come; nothing for a challenge that follows changes."""
    if not challenge.backlog:
        return Text("")
    percent = float(challenge.sweep_progress or 0)
    full = round(percent * BAR_WIDTH / 100)
    bar = Text.assemble((BAR * full, "cyan"), (BAR * (BAR_WIDTH - full), "bright_black"))
    return bar.append(f" {percent:.0f} %, {challenge.backlog:,} users left")


def table(*headers: str, right: Iterable[str] = ()) -> Table:
    """An empty table in the one style that all have."""
    made = Table(box=SIMPLE_HEAD, show_edge=False, header_style="bold", pad_edge=False, padding=(0, 1))
    numbers = set(right)
    for header in headers:
        made.add_column(
            header,
            justify="right" if header in numbers else "left",
            no_wrap=header not in WRAPPED,
            overflow="ellipsis" if header not in WRAPPED else "fold",
        )
    return made


# Answers


def challenges(rows: Sequence[Challenge]) -> RenderableType:
    """The answer of status. A column without anything to say is left out."""
    rows = [visible_in(row) for row in rows]
    counts = {
        "failures": [number(row.consecutive_failures, "red") for row in rows if any_of(rows, "consecutive_failures")],
        "unpayable": [number(row.unpayable_rows, "yellow") for row in rows if any_of(rows, "unpayable_rows")],
        "set aside": [number(row.users_set_aside, "yellow") for row in rows if any_of(rows, "users_set_aside")],
        "progress": [progress(row) for row in rows if any_of(rows, "backlog")],
    }
    shown = [name for name, cells in counts.items() if cells]
    made = table(
        "", "challenge", "status", "last success", *shown, right=[name for name in shown if name != "progress"]
    )
    for place, row in enumerate(rows):
        made.add_row(
            Text(row.challenge_id, style="bold"),
            Text(row.description),
            status(row.status),
            ago(row.last_success),
            *(counts[name][place] for name in shown),
        )
    parts: list[RenderableType] = [made]
    if problem := next((row.tick_problem for row in rows if row.tick_problem), None):
        parts.append(Panel(Text(problem), title="nothing ticks", title_align="left", border_style="red"))
    parts.extend(failure(row) for row in rows if row.consecutive_failures and row.last_error)
    return Group(*parts)


def any_of(rows: Sequence[object], name: str) -> bool:
    """Whether one of the rows has something there."""
    return any(getattr(row, name) for row in rows)


def failure(row: Challenge) -> RenderableType:
    """The last error of a challenge."""
    times = "once" if row.consecutive_failures == 1 else f"{row.consecutive_failures:,} times in a row"
    return Panel(
        Text(row.last_error or ""),
        title=f"{row.challenge_id} fails: {times}",
        title_align="left",
        border_style="red",
    )


def findings(rows: Sequence[Finding]) -> RenderableType:
    """The answer of doctor, the worst first."""
    parts: list[RenderableType] = []
    for row in sorted(map(visible_in, rows), key=lambda row: -SEVERITIES.index(row.severity)):
        colour = COLOURS[row.severity]
        parts.append(Text.assemble((f"{MARKS[row.severity]} ", f"bold {colour}"), (row.what, f"bold {colour}")))
        for name, text in (("found", row.found), ("expected", row.expected)):
            if text:
                parts.append(Padding(Text.assemble((f"{name:<9}", "bright_black"), text), (0, 0, 0, 2)))
        if row.statement:
            parts.append(Padding(sql(row.statement), (0, 0, 0, 2)))
        parts.append(Text(""))
    return Group(*parts[:-1])


def sql(statement: str) -> Syntax:
    """A statement, to be copied."""
    return Syntax(statement, "postgresql", theme="ansi_dark", background_color="default", word_wrap=True)


def explanation(
    user: User, lines: Sequence[Line], descriptions: dict[str, str], *, conditions: bool = True
) -> RenderableType:
    """The answer of explain.

    :param descriptions: what each challenge rewards, by its id
    :param conditions: what is demanded, too, and what the user has
    """
    user, lines = visible_in(user), [visible_in(line) for line in lines]
    parts: list[RenderableType] = [
        Text.assemble("user ", (str(user.user_id), "bold"), f"  @{user.handle}" if user.handle else "")
    ]
    for challenge, of_it in groupby(lines, key=lambda line: line.challenge_id):
        parts.append(Text(""))
        parts.extend(_explained(challenge, list(of_it), descriptions.get(challenge, ""), conditions=conditions))
    return Group(*parts)


def _explained(challenge: str, lines: Sequence[Line], description: str, *, conditions: bool) -> list[RenderableType]:
    verdict = next((line for line in lines if line.line == "verdict"), None)
    state = (verdict.state if verdict else None) or ""
    parts: list[RenderableType] = [
        Text.assemble((challenge, "bold cyan"), f"  {description}  ", (state.replace("_", " "), _colour(state)))
    ]
    if verdict and verdict.says:
        parts.append(_below(Text(verdict.says)))
    asked = [line for line in lines if line.line == "condition"] if conditions else []
    if asked:
        has_since = any_of(asked, "since")
        made = table("", "condition", "demanded", "has", *(["since"] if has_since else []))
        for line in asked:
            since = [moment(line.since) if line.since else NONE] if has_since else []
            words = [Text(words or "") for words in (line.what, line.demanded, line.has)]
            made.add_row(_holds(line.holds), *words, *since)
        parts.extend([Text(""), _below(made)])
    rewards = [line for line in lines if line.line == "reward"]
    if rewards:
        made = table("reward", "state", "$AUDIO", "paid", "claimable (UTC)", right=("$AUDIO",))
        for line in rewards:
            made.add_row(
                Text(line.specifier or "-"),
                Text((line.state or "").replace("_", " "), style=_colour(line.state or "")),
                number(line.amount),
                NONE if line.is_paid is None else Text("paid" if line.is_paid else "not yet"),
                moment(line.claimable_at) if line.claimable_at else NONE,
            )
        parts.extend([Text(""), _below(made)])
    return parts


def _below(part: RenderableType) -> Padding:
    return Padding(part, (0, 0, 0, 2))


def _holds(holds: bool | None) -> Text:
    return {True: Text("✓", style="green"), False: Text("✗", style="red"), None: Text("·", style="bright_black")}[holds]


def _colour(state: str) -> str:
    if state in GOOD_STATES:
        return "green"
    if state in QUIET_STATES:
        return "bright_black"
    return "red" if state in BAD_STATES else "yellow"


def history(rows: Sequence[Deed]) -> RenderableType:
    """The answer of history, and the errors below it, each once."""
    if not rows:
        return Text("No run has written, failed or set anybody aside.")
    rows = [visible_in(row) for row in rows]
    has_aside = any_of(rows, "users_set_aside")
    numbers = ("took", "examined", "written", "completed", *(["set aside"] if has_aside else []))
    made = table("until (UTC)", "", "status", *numbers, right=numbers)
    for row in rows:
        made.add_row(
            moment(row.ended_at),
            Text(row.challenge_id, style="bold"),
            status(row.status) if row.runs == 1 else status(row.status).append(f" {row.runs:,} times", style="red"),
            took(row.duration),
            number(row.users_examined),
            number((row.rows_inserted or 0) + (row.rows_updated or 0)),
            number(row.rows_completed, "green"),
            *([number(row.users_set_aside, "yellow")] if has_aside else []),
        )
    errors = dict.fromkeys((row.challenge_id, row.error) for row in rows if row.error)
    return Group(
        made,
        *(Panel(Text(error), title=name, title_align="left", border_style="red") for name, error in errors if error),
    )


def uncounted(challenges: Sequence[str]) -> str:
    """That the days are not all there yet."""
    return f"still counting the past of {', '.join(challenges)}: earlier days will follow"


def days(rows: Sequence[Day], waiting: Sequence[str] = ()) -> RenderableType:
    """The answer of history --daily.

    :param waiting: the challenges whose past is still being counted
    """
    numbers = ("completions", "$AUDIO")
    made = table("day", "", *numbers, "", right=numbers)
    for row in rows:
        made.add_row(
            f"{row.day}",
            Text(row.challenge_id, style="bold"),
            number(row.completions),
            number(row.amount),
            Text("from user_challenges" if row.is_backfilled else "", style="bright_black"),
        )
    answer = made if rows else Text("Nothing has been completed.")
    return Group(answer, Text(f"\n{uncounted(waiting)}", style="yellow")) if waiting else answer


def outcomes(rows: Sequence[Outcome]) -> RenderableType:
    """The answer of run."""
    rows = [visible_in(row) for row in rows]
    numbers = ("examined", "inserted", "updated", "completed", "took")
    made = table("", "status", *numbers, right=numbers)
    for row in rows:
        made.add_row(
            Text(row.challenge_id, style="bold"),
            status(row.status),
            number(row.users_examined),
            number(row.rows_inserted),
            number(row.rows_updated),
            number(row.rows_completed, "green"),
            took(row.duration),
        )
    errors = [
        Panel(Text(row.error), title=row.challenge_id, title_align="left", border_style="red")
        for row in rows
        if row.error
    ]
    return Group(made, *errors)
