"""Listen streaks, one history each, to the model and to the database: what becomes of state and rows.

How listens are counted is told in tests/test_streak_rule.py. Among the histories are those that once went wrong
elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from devtools.cluster import Cluster
from tests.model.challenges.listen_streak import streak_specifier
from tests.model.database import Database, Run, one_database
from tests.model.events import AlterChallenge, PrunePlays
from tests.model.rows import ListenStreak, UserChallenge
from tests.model.spaces import HOUR, SHORTLY
from tests.model.world import World

LISTENER = 255
BLOCK = 28350000


def day(number: int, offset: timedelta = timedelta(0)) -> datetime:
    """A time on a day, in UTC, counted from the first of October 2025, 10:15."""
    return datetime(2025, 10, 1, 10, 15, tzinfo=UTC).replace(tzinfo=None) + timedelta(days=number) + offset


def days(first: int, last: int) -> tuple[datetime, ...]:
    """A time on each of some days, the last one included."""
    return tuple(day(number) for number in range(first, last + 1))


def a_row(
    opened: datetime,
    steps: int,
    *,
    completed: datetime | None = None,
    amount: int = 7,
    specifier: str | None = None,
    block: int | None = BLOCK,
) -> UserChallenge:
    """A user challenge of the listener, complete if it says when."""
    return UserChallenge(
        "e",
        specifier or streak_specifier(LISTENER, opened),
        LISTENER,
        completed is not None,
        steps,
        block if completed else None,
        amount,
        opened.replace(tzinfo=UTC),
        completed,
    )


def seven(opened: datetime, completed: datetime) -> UserChallenge:
    """The row of seven days."""
    return a_row(opened, 7, completed=completed)


def extra(at: datetime) -> UserChallenge:
    """The row of one day after the seventh."""
    return a_row(at, 1, completed=at, amount=1)


@dataclass(frozen=True)
class Streak:
    """What a user listened to, with a run after each batch, and what must be there then."""

    batches: tuple[tuple[datetime, ...], ...]
    rows: tuple[UserChallenge, ...]
    last_listen: datetime | None
    """None: there is no state."""
    listen_streak: int = 0
    left_state: ListenStreak | None = None
    """What an earlier service left."""
    left_rows: tuple[UserChallenge, ...] = ()


STREAKS = {
    "listens are read from exactly 16 hours after the state on": Streak(
        batches=((day(0),), (day(0, 16 * HOUR - SHORTLY),), (day(0, 16 * HOUR), day(0, 16 * HOUR + SHORTLY))),
        rows=(a_row(day(0), 2),),
        last_listen=day(0, 16 * HOUR),
        listen_streak=2,
    ),
    "the last listen is kept to the microsecond": Streak(
        batches=((day(0, SHORTLY),), (day(2),), (day(4),)),
        rows=(a_row(day(0, SHORTLY), 2), a_row(day(4), 1)),
        last_listen=day(4),
        listen_streak=1,
    ),
    "each day after the seventh adds one row, in one batch": Streak(
        batches=(days(0, 8),),
        rows=(seven(day(0), day(6)), extra(day(7)), extra(day(8))),
        last_listen=day(8),
        listen_streak=9,
    ),
    "each day after the seventh adds one row, a run each": Streak(
        batches=tuple((at,) for at in days(0, 8)),
        rows=(seven(day(0), day(6)), extra(day(7)), extra(day(8))),
        last_listen=day(8),
        listen_streak=9,
    ),
    "plays of a batch count in the order they were played": Streak(
        batches=((*reversed(days(0, 7)),),),
        rows=(seven(day(0), day(6)), extra(day(7))),
        last_listen=day(7),
        listen_streak=8,
    ),
    "a play that arrives late changes nothing": Streak(
        batches=((day(0), day(1)), (day(0, 17 * HOUR), day(-1), day(1, -SHORTLY)), (day(2),)),
        rows=(a_row(day(0), 3),),
        last_listen=day(2),
        listen_streak=3,
    ),
    "a running row with the old specifier is completed, and extra days have the new one": Streak(
        left_state=ListenStreak(LISTENER, day(5), 6),
        left_rows=(a_row(day(0), 6, specifier="ff:20251001"),),
        batches=(days(6, 7),),
        rows=(a_row(day(0), 7, completed=day(6), specifier="ff:20251001"), extra(day(7))),
        last_listen=day(7),
        listen_streak=8,
    ),
    "the state decides the count, not the row": Streak(
        left_state=ListenStreak(LISTENER, day(2), 3),
        left_rows=(a_row(day(0), 1, amount=1, specifier="ff:20251001"),),
        batches=((day(3),),),
        rows=(a_row(day(0), 4, specifier="ff:20251001"),),
        last_listen=day(3),
        listen_streak=4,
    ),
    "after a complete row of an earlier service comes one row a day": Streak(
        left_state=ListenStreak(LISTENER, day(6), 7),
        left_rows=(a_row(day(0), 7, completed=day(6), specifier="ff:20251001", block=None),),
        batches=((day(6, HOUR), day(7)),),
        rows=(
            a_row(day(0), 7, completed=day(6), specifier="ff:20251001", block=None),
            extra(day(7)),
        ),
        last_listen=day(7),
        listen_streak=8,
    ),
    "a missing running row is opened with the count of the state": Streak(
        left_state=ListenStreak(LISTENER, day(2), 3),
        batches=((day(3),), (day(4),)),
        rows=(a_row(day(3), 5),),
        last_listen=day(4),
        listen_streak=5,
    ),
    "the latest row is the one opened last, whatever its specifier": Streak(
        left_state=ListenStreak(LISTENER, day(2), 3),
        left_rows=(a_row(day(-30), 2, specifier="ff:20250901"), a_row(day(0), 3)),
        batches=((day(3),),),
        rows=(a_row(day(-30), 2, specifier="ff:20250901"), a_row(day(0), 4)),
        last_listen=day(3),
        listen_streak=4,
    ),
    "only the latest row can be the running one": Streak(
        left_state=ListenStreak(LISTENER, day(7), 8),
        left_rows=(a_row(day(1), 3), a_row(day(6), 1, completed=day(6), amount=1)),
        batches=((day(8),),),
        rows=(a_row(day(1), 3), a_row(day(6), 1, completed=day(6), amount=1), extra(day(8))),
        last_listen=day(8),
        listen_streak=9,
    ),
    "a state without a last listen starts over": Streak(
        left_state=ListenStreak(LISTENER, None, 5),
        batches=((day(0),),),
        rows=(a_row(day(0), 1),),
        last_listen=day(0),
        listen_streak=1,
    ),
    "a lost state is counted anew into the running row": Streak(
        left_rows=(a_row(day(0), 3),),
        batches=((*days(0, 2), day(3)), (day(4),)),
        rows=(a_row(day(0), 5),),
        last_listen=day(4),
        listen_streak=5,
    ),
    "a state lost after the seventh day earns nothing twice": Streak(
        left_rows=(a_row(day(0), 7, completed=day(6)),),
        batches=(days(0, 6), (day(6, HOUR),)),
        rows=(seven(day(0), day(6)),),
        last_listen=None,
    ),
    "a specifier has the hour in UTC": Streak(
        batches=((day(0, timedelta(hours=13, minutes=44, seconds=59)),),),
        rows=(a_row(day(0, timedelta(hours=13, minutes=44, seconds=59)), 1, specifier="ff2025100123"),),
        last_listen=day(0, timedelta(hours=13, minutes=44, seconds=59)),
        listen_streak=1,
    ),
}

PRESENT = Run(None, challenge_ids=("e",))
MONDAY = Run(datetime(2025, 11, 3, 12, tzinfo=UTC), challenge_ids=("e",))


@pytest.fixture(scope="module")
def database(cluster: Cluster, full_template: str) -> Iterator[Database]:
    with one_database(cluster, full_template) as database:
        yield database


@pytest.fixture
def world(database: Database) -> World:
    """A world with one listener, the catalog of staging, in which `e` is active, and a clock far from UTC."""
    world = World(database, "stage", "Asia/Tokyo")
    world.person(LISTENER, blocknumber=world.stamp(BLOCK))
    return world


@pytest.mark.parametrize("streak", STREAKS.values(), ids=STREAKS.keys())
def test_a_listen_streak_leaves_exactly_its_rows(world: World, streak: Streak) -> None:
    if streak.left_state:
        world.leave_streak(streak.left_state)
    for row in streak.left_rows:
        world.leave_user_challenge(row)

    for batch in streak.batches:
        for at in batch:
            world.listen(LISTENER, at)
        world.reconcile(MONDAY)
    assert streak_rows(world) == set(streak.rows)
    assert streak_state(world) == (streak.last_listen, streak.listen_streak)

    world.database.see_plays_again()
    world.reconcile(replace(MONDAY, full_scan=True))
    assert streak_rows(world) == set(streak.rows)
    assert streak_state(world) == (streak.last_listen, streak.listen_streak)


def test_the_first_run_that_finds_the_challenge_active_counts_all_plays(world: World) -> None:
    AlterChallenge("e", "active", False).happen(world)
    for at in days(0, 3):
        world.listen(LISTENER, at)
        world.reconcile(MONDAY)
    assert streak_rows(world) == set()

    AlterChallenge("e", "active", True).happen(world)
    world.reconcile(MONDAY)
    assert streak_rows(world) == {a_row(day(0), 4)}


def is_active(world: World, active: bool) -> None:
    """Switches the challenge on or off, and a run finds it so."""
    AlterChallenge("e", "active", active).happen(world)
    world.reconcile(PRESENT)


@pytest.mark.parametrize("seen_again", ["not at all", "updated", "indexed again", "committed late"])
def test_listens_during_a_pause_never_count(world: World, seen_again: str) -> None:
    first = world.now() - 30 * HOUR
    world.listen(LISTENER, first)
    world.reconcile(PRESENT)

    is_active(world, False)
    if seen_again == "committed late":
        world.mirror()
        world.listen_uncommitted(LISTENER, [world.now()], under_a_savepoint=False)
    else:
        world.listen_now(LISTENER)
    world.reconcile(PRESENT)
    AlterChallenge("e", "active", True).happen(world)
    world.listen_now(LISTENER)  # no run has found it active yet
    world.reconcile(PRESENT)
    if seen_again == "updated":
        world.database.see_plays_again()
    elif seen_again == "indexed again":
        world.index_plays_again()
    else:
        world.commit_late_writer()
    world.reconcile(PRESENT)
    assert streak_rows(world) == {a_row(first, 1)}
    assert streak_state(world) == (first, 1)

    now = world.listen_now(LISTENER)
    world.reconcile(PRESENT)
    assert streak_rows(world) == {a_row(first, 2)}
    assert streak_state(world) == (now, 2)


@pytest.mark.parametrize("was_active", [True, False])
def test_a_pause_begins_though_the_run_that_found_it_active_failed(world: World, was_active: bool) -> None:
    """It is remembered that it was found active, whatever came of that run."""
    first = world.now() - 30 * HOUR
    if not was_active:
        is_active(world, False)
        world.database.connection.execute("DELETE FROM audius_challenges.processor_state WHERE challenge_id = 'e'")
        world.database.connection.execute("DELETE FROM audius_challenges.pause")
    else:
        world.listen(LISTENER, first)
        world.reconcile(PRESENT)
        is_active(world, False)
    connection = world.database.connection
    AlterChallenge("e", "active", True).happen(world)
    connection.execute("ALTER TABLE challenge_listen_streak RENAME TO away")
    connection.execute("SELECT * FROM reconcile_challenges('{e}')")
    connection.execute("ALTER TABLE away RENAME TO challenge_listen_streak")
    AlterChallenge("e", "active", False).happen(world)
    connection.execute("SELECT * FROM reconcile_challenges('{e}')")
    world.listen_now(LISTENER)
    AlterChallenge("e", "active", True).happen(world)
    connection.execute("SELECT * FROM reconcile_challenges('{e}')")
    expected = {a_row(first, 1)} if was_active else set()
    assert streak_rows(world) == expected


def test_every_pause_is_kept(world: World) -> None:
    world.reconcile(PRESENT)
    for _ in range(3):
        is_active(world, False)
        world.listen_now(LISTENER)
        is_active(world, True)
    assert streak_rows(world) == set()
    assert streak_state(world) == (None, 0)

    now = world.listen_now(LISTENER)
    world.reconcile(PRESENT)
    assert streak_rows(world) == {a_row(now, 1)}


def test_a_listen_from_before_a_pause_counts_whenever_it_is_committed(world: World) -> None:
    first = world.now() - 30 * HOUR
    world.listen(LISTENER, first)
    world.reconcile(PRESENT)
    second = world.now()
    world.listen_uncommitted(LISTENER, [second], under_a_savepoint=False)

    is_active(world, False)
    is_active(world, True)
    assert streak_rows(world) == {a_row(first, 1)}

    world.commit_late_writer()
    world.reconcile(PRESENT)
    assert streak_rows(world) == {a_row(first, 2)}
    assert streak_state(world) == (second, 2)


@pytest.mark.parametrize("seen_again", [False, True])
def test_what_was_listened_before_a_start_from_now_never_counts(world: World, seen_again: bool) -> None:
    first = world.now() - 30 * HOUR
    world.listen(LISTENER, first)
    world.reconcile(PRESENT)
    world.listen_now(LISTENER)
    world.mirror()

    world.start_streaks_from_now()
    if seen_again:
        world.index_plays_again()
    world.reconcile(PRESENT)
    assert streak_rows(world) == {a_row(first, 1)}

    # The state goes on.
    now = world.listen_now(LISTENER)
    world.reconcile(PRESENT)
    assert streak_rows(world) == {a_row(first, 2)}
    assert streak_state(world) == (now, 2)


def test_a_start_from_now_may_be_called_again(world: World) -> None:
    world.reconcile(PRESENT)
    for _ in range(2):
        world.listen_now(LISTENER)
        world.mirror()
        world.start_streaks_from_now()
        world.reconcile(PRESENT)
    assert streak_rows(world) == set()

    now = world.listen_now(LISTENER)
    world.reconcile(PRESENT)
    assert streak_rows(world) == {a_row(now, 1)}


@pytest.mark.parametrize("started", ["before it is switched on", "before a run finds it so"])
def test_a_start_from_now_in_a_pause_does_not_keep_it_open(world: World, started: str) -> None:
    world.reconcile(PRESENT)
    is_active(world, False)
    if started == "before it is switched on":
        world.start_streaks_from_now()
    AlterChallenge("e", "active", True).happen(world)
    if started == "before a run finds it so":
        world.mirror()
        world.start_streaks_from_now()
    world.listen_now(LISTENER)
    world.reconcile(PRESENT)
    assert streak_rows(world) == set()

    now = world.listen_now(LISTENER)
    world.reconcile(PRESENT)
    assert streak_rows(world) == {a_row(now, 1)}


@pytest.mark.parametrize("seen_again", [False, True])
@pytest.mark.parametrize("reason", ["deactivated", "not current", "unknown"])
def test_listens_of_somebody_without_a_valid_row_count_once_there_is_one(
    world: World, reason: str, seen_again: bool
) -> None:
    states: Mapping[str, Callable[[], None]] = {
        "deactivated": lambda: world.person(LISTENER, is_deactivated=True),
        "not current": lambda: world.person(LISTENER, is_current=False),
        "unknown": lambda: world.sources.users.delete(lambda row: row.user_id == LISTENER),
    }
    states[reason]()
    world.listen(LISTENER, day(0))
    world.listen(LISTENER, day(1))
    world.reconcile(MONDAY)
    assert streak_rows(world) == set()

    world.person(LISTENER, blocknumber=BLOCK)
    world.mirror()
    if seen_again:
        world.database.see_plays_again()
    world.reconcile(MONDAY)
    assert streak_rows(world) == {a_row(day(0), 2)}

    world.listen(LISTENER, day(2))
    world.reconcile(MONDAY)
    assert streak_rows(world) == {a_row(day(0), 3)}


def test_plays_that_are_indexed_again_count_once(world: World) -> None:
    for at in days(0, 8):
        world.listen(LISTENER, at)
    world.reconcile(MONDAY)
    for _ in range(2):
        world.index_plays_again()
        world.reconcile(MONDAY)
    assert streak_rows(world) == {seven(day(0), day(6)), extra(day(7)), extra(day(8))}
    assert streak_state(world) == (day(8), 9)


def test_a_state_that_is_lost_again_and_again_pays_nothing_twice(world: World) -> None:
    for at in days(0, 8):
        world.listen(LISTENER, at)
        world.reconcile(MONDAY)
        world.lose_streak(LISTENER)
    assert streak_rows(world) == {seven(day(0), day(6)), extra(day(7)), extra(day(8))}


def test_a_failed_run_loses_no_listen(world: World) -> None:
    world.listen(LISTENER, day(0))
    world.reconcile(MONDAY)
    AlterChallenge("e", "amount", "much").happen(world)
    world.listen(LISTENER, day(1))
    world.reconcile(MONDAY)
    assert streak_rows(world) == {a_row(day(0), 1)}

    AlterChallenge("e", "amount", "1").happen(world)
    world.reconcile(MONDAY)
    assert streak_rows(world) == {a_row(day(0), 2)}


def test_a_streak_is_carried_without_its_plays(world: World) -> None:
    for at in days(0, 8):
        world.listen(LISTENER, at)
        world.reconcile(MONDAY)
        PrunePlays(0).happen(world)
    assert streak_rows(world) == {seven(day(0), day(6)), extra(day(7)), extra(day(8))}


@pytest.mark.parametrize("under_a_savepoint", [False, True])
def test_a_listen_that_commits_late_counts_once_if_it_is_newer_than_the_last(
    world: World, under_a_savepoint: bool
) -> None:
    world.listen(LISTENER, day(0))
    world.mirror()
    world.listen_uncommitted(LISTENER, [day(1)], under_a_savepoint=under_a_savepoint)
    world.reconcile(MONDAY)
    world.reconcile(MONDAY)
    assert streak_rows(world) == {a_row(day(0), 1)}

    world.commit_late_writer()
    world.reconcile(MONDAY)
    world.reconcile(MONDAY)
    assert streak_rows(world) == {a_row(day(0), 2)}


def streak_rows(world: World) -> set[UserChallenge]:
    """The listener's user challenges of the streak."""
    return {row for row in world.model.user_challenges.values() if row.challenge_id == "e"}


def streak_state(world: World) -> tuple[datetime | None, int]:
    """The listener's last counted listen and streak."""
    state = world.model.challenge_listen_streak.get(LISTENER)
    return (state.last_listen_date, state.listen_streak) if state else (None, 0)
