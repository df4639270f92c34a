"""What listens do to a streak: stories for the rule alone, without a server.

What is kept of it in tables is told in tests/test_streaks.py.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace

import pytest

from audius_challenges.challenges.listen_streak import Row, Streak

MICROSECOND = 1
MINUTE = 60_000_000
HOUR = 60 * MINUTE


def day(number: int, offset: int = 0) -> int:
    """A time on a day, counted from the first of October 2025, 10:15, as the rule counts: microseconds since 2000."""
    return (9405 * 24 + 10) * HOUR + 15 * MINUTE + number * 24 * HOUR + offset


def days(first: int, last: int) -> tuple[int, ...]:
    """A time on each of some days, the last one included."""
    return tuple(day(number) for number in range(first, last + 1))


def running(opened: int, steps: int, specifier: str | None = None) -> Row:
    """A row on its way to seven days."""
    return Row(opened, steps, 7, None, specifier)


def seven(opened: int, completed: int, specifier: str | None = None) -> Row:
    """The row of seven days."""
    return Row(opened, 7, 7, completed, specifier)


def extra(at: int) -> Row:
    """The row of one day after the seventh."""
    return Row(at, 1, 1, at)


@dataclass(frozen=True)
class Story:
    """What a user listened to, and which rows and state it leads to, in one run or in a run for each listen.

    :ivar left_state: length and last listen from before; None: there is none, or it was lost
    :ivar left_row: his latest row from before
    :ivar state: None: nothing was counted, and none is written
    """

    listens: tuple[int, ...]
    rows: tuple[Row, ...]
    state: tuple[int, int] | None
    left_state: tuple[int, int] | None = None
    left_row: Row | None = None


STORIES = {
    # 16 and 48 hours
    "the first listen opens a row": Story(
        listens=(day(0),),
        rows=(running(day(0), 1),),
        state=(1, day(0)),
    ),
    "a listen less than 16 hours later changes nothing": Story(
        listens=(day(0), day(0, 16 * HOUR - MICROSECOND)),
        rows=(running(day(0), 1),),
        state=(1, day(0)),
    ),
    "a listen exactly 16 hours later counts, in the same row": Story(
        listens=(day(0), day(0, 16 * HOUR)),
        rows=(running(day(0), 2),),
        state=(2, day(0, 16 * HOUR)),
    ),
    "16 hours are counted from the last counted listen": Story(
        listens=(day(0), day(0, 10 * HOUR), day(0, 20 * HOUR)),
        rows=(running(day(0), 2),),
        state=(2, day(0, 20 * HOUR)),
    ),
    "a listen just under 48 hours later counts": Story(
        listens=(day(0), day(2, -MICROSECOND)),
        rows=(running(day(0), 2),),
        state=(2, day(2, -MICROSECOND)),
    ),
    "a listen exactly 48 hours later starts over, and the broken row stays": Story(
        listens=(*days(0, 1), day(3)),
        rows=(running(day(0), 2), running(day(3), 1)),
        state=(1, day(3)),
    ),
    "the row of a broken streak is never continued": Story(
        listens=(*days(0, 2), *days(10, 11)),
        rows=(running(day(0), 3), running(day(10), 2)),
        state=(2, day(11)),
    ),
    "a listen at the very time of the last one changes nothing": Story(
        listens=(day(0), day(0)),
        rows=(running(day(0), 1),),
        state=(1, day(0)),
    ),
    "a listen from before the last counted one changes nothing": Story(
        listens=(day(0), day(3), day(1), day(2)),
        rows=(running(day(0), 1), running(day(3), 1)),
        state=(1, day(3)),
    ),
    # Seven for the seventh, one for each day after it
    "seven days complete one row": Story(
        listens=days(0, 6),
        rows=(seven(day(0), day(6)),),
        state=(7, day(6)),
    ),
    "each day after the seventh adds one row": Story(
        listens=days(0, 8),
        rows=(seven(day(0), day(6)), extra(day(7)), extra(day(8))),
        state=(9, day(8)),
    ),
    "a second listen on the day of completion opens no second row": Story(
        listens=(*days(0, 6), day(6, HOUR), day(6, 15 * HOUR)),
        rows=(seven(day(0), day(6)),),
        state=(7, day(6)),
    ),
    "a second listen on a day after completion adds no second row": Story(
        listens=(*days(0, 7), day(7, MICROSECOND), day(7, 2 * HOUR)),
        rows=(seven(day(0), day(6)), extra(day(7))),
        state=(8, day(7)),
    ),
    "many listens a day make one row, and one for each day after the seventh": Story(
        listens=tuple(at + minute * MINUTE for at in days(0, 8) for minute in range(20)),
        rows=(seven(day(0), day(6)), extra(day(7)), extra(day(8))),
        state=(9, day(8)),
    ),
    "after completion a broken streak opens a new row": Story(
        listens=(*days(0, 7), *days(9, 10)),
        rows=(seven(day(0), day(6)), extra(day(7)), running(day(9), 2)),
        state=(2, day(10)),
    ),
    "two full streaks earn seven twice": Story(
        listens=(*days(0, 6), *days(10, 16)),
        rows=(seven(day(0), day(6)), seven(day(10), day(16))),
        state=(7, day(16)),
    ),
    # Rows that an earlier service left
    "a running row of an earlier format is continued": Story(
        left_state=(3, day(2)),
        left_row=running(day(0), 3, "ff:20251001"),
        listens=days(3, 4),
        rows=(running(day(0), 5, "ff:20251001"),),
        state=(5, day(4)),
    ),
    "a missing running row is opened complete on the seventh day": Story(
        left_state=(6, day(5)),
        listens=days(6, 7),
        rows=(seven(day(6), day(6)), extra(day(7))),
        state=(8, day(7)),
    ),
    "an older, broken row is not taken for a missing running row": Story(
        left_state=(3, day(20)),
        left_row=running(day(12), 5),
        listens=(day(21),),
        rows=(running(day(12), 5), running(day(21), 4)),
        state=(4, day(21)),
    ),
    "a row exactly as old as the streak can be is its running row": Story(
        left_state=(3, day(20)),
        left_row=running(day(15), 5),
        listens=(day(21),),
        rows=(running(day(15), 4),),
        state=(4, day(21)),
    ),
    "a row just older than the streak can be is not its running row": Story(
        left_state=(3, day(20)),
        left_row=running(day(15, -MICROSECOND), 5),
        listens=(day(21),),
        rows=(running(day(15, -MICROSECOND), 5), running(day(21), 4)),
        state=(4, day(21)),
    ),
    "an incomplete running row after the seventh day is completed instead of an extra one": Story(
        left_state=(8, day(7)),
        left_row=running(day(0), 6),
        listens=days(8, 9),
        rows=(seven(day(0), day(8)), extra(day(9))),
        state=(10, day(9)),
    ),
    # A lost state, for which the latest row stands in
    "a state lost within the hour opens no second row": Story(
        left_row=running(day(0), 3),
        listens=(day(0, 10 * MINUTE), day(1)),
        rows=(running(day(0), 2),),
        state=(2, day(1)),
    ),
    "a lost state whose plays are gone, too, goes on with the second day": Story(
        left_row=running(day(0), 5),
        listens=(day(1),),
        rows=(running(day(0), 2),),
        state=(2, day(1)),
    ),
    "a state lost too long ago leaves the row, and opens another": Story(
        left_row=running(day(0), 5),
        listens=(day(5),),
        rows=(running(day(0), 5), running(day(5), 1)),
        state=(1, day(5)),
    ),
    "a state lost after the seventh day goes on with one row a day": Story(
        left_row=seven(day(0), day(6)),
        listens=days(0, 8),
        rows=(seven(day(0), day(6)), extra(day(7)), extra(day(8))),
        state=(9, day(8)),
    ),
    "a state lost after an extra day goes on with one row a day": Story(
        left_row=extra(day(7)),
        listens=days(0, 8),
        rows=(extra(day(7)), extra(day(8))),
        state=(9, day(8)),
    ),
    "a state lost after a full streak that has ended starts over": Story(
        left_row=seven(day(0), day(6)),
        listens=(*days(0, 6), *days(10, 11)),
        rows=(seven(day(0), day(6)), running(day(10), 2)),
        state=(2, day(11)),
    ),
    "a listen within the hour of a complete row is that row's": Story(
        left_row=seven(day(0), day(0)),
        listens=(day(0, 10 * MINUTE),),
        rows=(seven(day(0), day(0)),),
        state=None,
    ),
    "days after a complete row of one step are extra days": Story(
        left_row=extra(day(0)),
        listens=(day(0, 10 * MINUTE), *days(1, 2)),
        rows=(extra(day(0)), extra(day(1)), extra(day(2))),
        state=(10, day(2)),
    ),
}


@pytest.mark.parametrize("each_in_a_run", [False, True], ids=["in one run", "a run each"])
@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_listens_lead_to_rows_and_a_state(story: Story, each_in_a_run: bool) -> None:
    runs = [story.listens[n : n + 1] for n in range(len(story.listens))] if each_in_a_run else [story.listens]
    assert counted(story, runs) == (list(story.rows), story.state)


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_listens_that_are_seen_again_change_nothing(story: Story) -> None:
    assert counted(story, [story.listens, story.listens]) == (list(story.rows), story.state)


def counted(story: Story, runs: list[tuple[int, ...]]) -> tuple[list[Row], tuple[int, int] | None]:
    """The rows in the order they were opened, and the state, after runs that keep both."""
    rows = {story.left_row.created_at: replace(story.left_row)} if story.left_row else {}
    state = story.left_state
    for listens in runs:
        latest = copy(rows[max(rows)]) if rows else None
        streak = Streak(*state, latest) if state else Streak.after(latest)
        streak.count(listens)
        if streak.changed:
            assert streak.last_listen is not None
            state = (streak.length, streak.last_listen)
            rows |= {row.created_at: row for row in streak.changed.values()}
    return [rows[opened] for opened in sorted(rows)], state
