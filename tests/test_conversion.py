"""From 1.1.0 to 2.0.0: what a challenge had read, what it had not read yet, and its pauses come along, to the row.

The sweep is off, so that a listen streak catches up, and everything else is found by the feed of changed rows, which
has to go on from where 1.1.0 has left it.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest

from devtools.cluster import Cluster
from devtools.discovery import CREATE_EXTENSION, Discovery
from tests.sessions import Connection, notices
from tests.test_changes import (
    CROWD,
    FEEDS,
    LATEST,
    NEXT,
    PEOPLE,
    PLAYS,
    Feed,
    World,
    assert_streaks,
    day,
    each,
    open_world,
    play,
)

RELEASE = "1.1.0"
UPDATE = "ALTER EXTENSION audius_challenges UPDATE"
PEOPLED, BUILT = "released_people", "released_built"

# All that is derived from the sources, but for the times at which a run wrote it.
DERIVED = {
    "user challenges": """
        SELECT
            challenge_id, user_id, specifier, current_step_count, is_complete, amount,
            CASE challenge_id WHEN 'e' THEN concat_ws(' ', created_at, completed_at) END
        FROM user_challenges
        ORDER BY challenge_id, specifier
    """,
    "steps of profiles": "SELECT * FROM challenge_profile_completion ORDER BY user_id",
    "streaks": "SELECT * FROM challenge_listen_streak ORDER BY user_id",
}
COMPLETED_TWICE = """
    SELECT challenge_id, specifier
    FROM user_challenges_log
    WHERE (new ->> 'is_complete')::boolean
    GROUP BY challenge_id, specifier
    HAVING count(*) > 1
"""


@pytest.fixture(scope="module")
def people_template(cluster: Cluster, bare_template: str) -> str:
    """Name of a database with people in it and 1.1.0, which has not run yet."""
    cluster.create_database(PEOPLED, template=bare_template)
    cluster.psql(PEOPLED, f"CREATE EXTENSION audius_challenges VERSION '{RELEASE}' CASCADE", PEOPLE)
    with cluster.connect(PEOPLED) as connection:
        for feed in FEEDS:
            feed.write_crowd(connection, NEXT - CROWD)
        connection.execute("ANALYZE")
    return PEOPLED


@pytest.fixture(scope="module")
def built_template(cluster: Cluster, people_template: str) -> str:
    """Name of the same with the first build behind it."""
    cluster.create_database(BUILT, template=people_template)
    with cluster.connect(BUILT) as connection:
        connection.execute("SET audius_challenges.sweep_users = 0")
        for _ in range(2):
            connection.execute("CALL audius_challenges.tick()")
    return BUILT


@pytest.fixture
def world(cluster: Cluster, built_template: str) -> Iterator[World]:
    """A database with 1.1.0 and the first build behind it, the sweep off."""
    with open_world(cluster, built_template) as world:
        yield world


@pytest.fixture
def new_world(cluster: Cluster, people_template: str) -> Iterator[World]:
    """The same before 1.1.0 has ever run."""
    with open_world(cluster, people_template) as world:
        yield world


def states(world: World) -> dict[str, list[Any]]:
    """Of each challenge that has read sources: phase, whether it follows them, and the rounds of its sweep."""
    found = world.rows(
        """
        SELECT challenge_id, phase, look IS NOT NULL, sweep_rounds
        FROM audius_challenges.processor_state
        WHERE challenge_id IN (SELECT id FROM challenges WHERE type <> 'trending')
        """
    )
    return {challenge: state for challenge, *state in found}


def update(world: World) -> None:
    """Update, in the session that ticks."""
    world.execute(UPDATE)


def derived(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """What is derived from the sources."""
    return {name: connection.execute(query).fetchall() for name, query in DERIVED.items()}


def assert_exact(world: World) -> None:
    """All that is there is what a single first build makes of the same sources, and nothing was completed twice."""
    assert world.rows(COMPLETED_TWICE) == []
    cluster, name = world.database.cluster, "built_at_once"
    found = derived(world.connection)
    world.forget_sessions()
    world.connection.close()
    cluster.create_database(name, template=world.database.name)
    try:
        fresh = Discovery(cluster, name)
        tables = "user_challenges, challenge_profile_completion, challenge_listen_streak, trending_results"
        # A challenge that is younger than the release has no row in an updated catalog, and is not begun here either.
        fresh.psql(
            "CREATE TABLE known AS SELECT id FROM challenges",
            "DROP EXTENSION audius_challenges",
            f"TRUNCATE {tables}",
            CREATE_EXTENSION,
            "DELETE FROM challenges WHERE id NOT IN (SELECT id FROM known)",
        )
        with fresh.connect() as connection:
            for _ in range(2):
                connection.execute("CALL audius_challenges.tick()")
            expected = derived(connection)
    finally:
        cluster.drop_database(name)
    for subject, rows in expected.items():
        assert found[subject] == rows, subject
    assert len(expected["user challenges"]) > 20


# Rows that 1.1.0 had not read


FOLLOWED = ("users", "follows", "saves", "reposts", "tracks", "playlists", "plays")
"""The sources that 1.1.0 read."""
COMPUTED = {"u", "fp", "p", "v", "e", "p1", "p2", "p3", "tt", "tut", "tp"}
"""The challenges that it knew."""


@each([feed for feed in FEEDS if feed.table in FOLLOWED and feed.steps.keys() <= COMPUTED])
def test_whatever_is_open_or_unread_at_the_update_is_found(world: World, feed: Feed) -> None:
    earliest, across, saved, between = (world.writer() for _ in range(4))
    feed.write(earliest, 1, NEXT)
    feed.write_crowd(world.connection, NEXT + 10)
    world.tick()
    feed.write(across, 2, NEXT + 1)
    saved.execute("SAVEPOINT first")
    feed.write(saved, 3, NEXT + 2)
    saved.execute("RELEASE SAVEPOINT first")
    feed.write(between, 4, NEXT + 3)
    feed.write_crowd(world.connection, NEXT + 10 + CROWD)
    world.tick()
    feed.write(world.connection, 5, NEXT + 4)

    update(world)

    between.commit()
    world.tick()
    assert [world.found(feed, person) for person in (1, 2, 3, 4, 5)] == [{}, {}, {}, feed.steps, feed.steps]
    late = world.writer()
    feed.write(late, 6, NEXT + 5)
    for number in range(NEXT + 10 + 2 * CROWD, NEXT + 10 + 3 * CROWD, CROWD // 3):
        feed.write_crowd(world.connection, number, CROWD // 3)
        world.tick()
    saved.execute("SAVEPOINT second")
    feed.write(saved, 7, NEXT + 6)
    saved.execute("ROLLBACK TO SAVEPOINT second")
    for writer in (late, saved, across, earliest):
        writer.commit()
        world.tick()
    found = [world.found(feed, person) for person in range(1, 8)]
    assert found == [*[feed.steps] * 6, {}]
    assert {(phase, follows) for phase, follows, _ in states(world).values()} == {("watching", True)}
    assert_exact(world)


@each([feed for feed in FEEDS if feed.table in ("follows", "playlists")])
def test_what_was_open_when_a_source_had_few_rows_is_found(new_world: World, feed: Feed) -> None:
    """1.1.0 remembered no position then, and one later: of both, the update keeps the one that reaches back further."""
    world = new_world
    world.execute(f"DELETE FROM {feed.table} WHERE {feed.user} >= 900000")
    world.tick(2)
    late = world.writer()
    feed.write(late, 1, NEXT)
    feed.write_crowd(world.connection, NEXT + 10, 2 * CROWD)
    world.tick()
    history = """
        SELECT DISTINCT jsonb_array_length(progress -> 'history')
        FROM audius_challenges.checkpoint
        WHERE progress -> 'sources' ? %s
    """
    assert world.rows(history, feed.table) == [(2,)]
    update(world)
    world.tick()
    late.commit()
    world.tick()
    assert world.found(feed, 1) == feed.steps


def listen_daily(session: Connection, users: Sequence[int], updated: threading.Event) -> None:
    """Nine days of listening, a transaction for each play, in their order; the fifth is open across the update."""
    for number, user in itertools.product(range(1, 10), users):
        with session.transaction():
            play(session, user, day(number))
            if number == 5:
                updated.wait(60)
        time.sleep(0.02)


def write_out_of_order(
    session: Connection, people: Sequence[int], numbers: Iterator[int], updated: threading.Event
) -> None:
    """A row of each of these people in every source but plays, a few in a transaction, some of which stay open long."""
    chance = random.Random(people[0])
    deeds = [(feed, person) for feed in FEEDS if feed is not PLAYS for person in people]
    chance.shuffle(deeds)
    for at in range(0, len(deeds), 5):
        with session.transaction():
            for feed, person in deeds[at : at + 5]:
                with session.transaction():  # a savepoint
                    feed.write(session, person, next(numbers))
                time.sleep(0.02)
            if at == 30:
                updated.wait(60)
            elif chance.random() < 0.2:
                time.sleep(0.5)


def test_nothing_is_lost_or_paid_twice_while_writers_and_ticks_hurry_through_the_update(world: World) -> None:
    numbers, updated = itertools.count(NEXT), threading.Event()
    with ThreadPoolExecutor(6) as pool:
        writers = [
            *(pool.submit(listen_daily, world.session(), users, updated) for users in ((1, 2), (3, 120))),
            *(
                pool.submit(write_out_of_order, world.session(), range(first, 49, 4), numbers, updated)
                for first in (1, 2, 3, 4)
            ),
        ]
        written = "SELECT count(*) FROM plays WHERE id > %s"
        try:
            while world.value(written, LATEST) < 16:
                world.tick()
            update(world)
        finally:
            updated.set()
        while not all(writer.done() for writer in writers):
            world.tick()
        for writer in writers:
            writer.result()
    world.tick(2)
    assert world.value(written, LATEST) == 36
    daily = [day(number) for number in range(1, 10)]
    assert_streaks(world, dict.fromkeys((1, 2, 3, 120), daily))
    assert {(phase, follows) for phase, follows, _ in states(world).values()} == {("watching", True)}
    assert_exact(world)


def test_a_challenge_that_was_failing_stays_behind_and_catches_up(world: World) -> None:
    amount = world.value("SELECT amount FROM challenges WHERE id = 'u'")
    tracks = next(feed for feed in FEEDS if feed.table == "tracks")
    world.execute("UPDATE challenges SET amount = 'much' WHERE id = 'u'")
    tracks.write(world.connection, 1, NEXT)
    for number in range(NEXT + 1, NEXT + 1 + 4 * CROWD, CROWD):
        tracks.write_crowd(world.connection, number)
        with pytest.raises(Exception, match=r"1 of \d+ challenges failed: u\b"):
            world.tick()
    assert world.found(tracks, 1) == {"p1": 10}

    update(world)

    with pytest.raises(Exception, match=r"1 of \d+ challenges failed: u\b"):
        world.tick()
    tracks.write_crowd(world.connection, NEXT + 1 + 4 * CROWD)
    with pytest.raises(Exception, match=r"1 of \d+ challenges failed: u\b"):
        world.tick()
    world.execute("UPDATE challenges SET amount = %s WHERE id = 'u'", amount)
    rounds = states(world)["u"]
    world.tick()
    assert world.found(tracks, 1) == tracks.steps
    assert states(world)["u"] == rounds == ["watching", True, 1]
    assert_exact(world)


def test_a_first_build_goes_on_with_the_users_after_those_it_has_examined(new_world: World) -> None:
    world = new_world
    world.set(slice_users=40, time_budget="0s")
    world.tick()
    passed = 1
    assert (world.phase("u"), world.phase("v")) == ("first build", "first build")
    world.execute("SELECT build.track(30001, %s, blocknumber => %s)", passed, NEXT)
    update(world)
    building = "SELECT challenge_id FROM audius_challenges.processor_state WHERE nothing_written ORDER BY 1"
    assert [challenge for (challenge,) in world.rows(building)] == ["fp", "p", "p1", "u", "v"]
    report = world.reconcile()
    assert {report[challenge]["users_examined"] for challenge in ("u", "fp", "p", "v", "p1")} == {40}
    assert world.steps(passed, "u") == {}
    world.set(slice_users=5000, time_budget="10s")
    world.tick(2)
    assert world.steps(passed, "u") == {"u": 1}
    assert world.rows(building) == []
    assert_exact(world)


@pytest.mark.parametrize("restored", [True, False], ids=["restored", "in place"])
def test_what_was_not_trusted_is_not_trusted_now(world: World, restored: bool) -> None:
    """Checkpoints of another cluster, before and after 1.1.0 has noticed that it was moved."""
    low = 5
    world.execute("SELECT build.track(30001, 1, blocknumber => %s)", low)
    if restored:
        world.execute("UPDATE audius_challenges.checkpoint SET horizon = -1")
    else:
        world.execute("UPDATE audius_challenges.installation SET cluster = cluster + 1")
    update(world)
    if restored:
        assert {follows for _, follows, _ in states(world).values()} == {False}
        assert world.value("SELECT count(*) FROM audius_challenges.look") == 0
    world.tick(2)
    assert world.steps(1, "u") == {"u": 1}
    assert {(phase, follows) for phase, follows, _ in states(world).values()} == {("watching", True)}
    assert_exact(world)


# Listen streaks


def now(world: World) -> datetime:
    """The real clock, as plays have it."""
    at: datetime = world.value("SELECT clock_timestamp() AT TIME ZONE 'UTC'")
    return at


def streak(world: World, user: int) -> tuple[int, datetime] | None:
    """The length of a user's streak and its last counted listen."""
    found = world.rows("SELECT listen_streak, last_listen_date FROM challenge_listen_streak WHERE user_id = %s", user)
    return found[0] if found else None


def activate(world: World, active: bool) -> None:
    """Let the challenge of streaks be active or not, and have a run see it."""
    world.execute("UPDATE challenges SET active = %s WHERE id = 'e'", active)
    world.tick()


PAUSES = ("over", "open", "over, but no run has seen it")


@pytest.mark.parametrize("pause", PAUSES)
def test_what_was_listened_during_a_pause_of_1_1_0_never_counts(world: World, pause: str) -> None:
    before = now(world) - timedelta(hours=24)
    for user in (1, 2):
        play(world.connection, user, before)
    world.tick()
    activate(world, False)
    during = now(world)
    late = world.writer()
    play(world.connection, 1, during)
    play(late, 2, during)
    play(late, 3, during)
    world.tick()
    if pause == "over":
        activate(world, True)
    elif pause != "open":
        world.execute("UPDATE challenges SET active = TRUE WHERE id = 'e'")

    update(world)

    known = world.rows("SELECT began_at < %s, ended_at > %s FROM audius_challenges.pause", *[f"{during}Z"] * 2)
    assert known == [(True, True if pause == "over" else None)]
    if pause == "open":
        world.tick()
        play(world.connection, 4, now(world))
        activate(world, True)
    late.commit()
    world.tick(3)
    streaks = {user: streak(world, user) for user in (1, 2, 3, 4)}
    assert streaks == {1: (1, before), 2: (1, before), 3: None, 4: None}

    after = now(world)
    for user in (1, 3, 4):
        play(world.connection, user, after)
    world.tick()
    assert [streak(world, user) for user in (1, 3, 4)] == [(2, after), (1, after), (1, after)]
    assert world.value("SELECT count(*) FROM audius_challenges.pause WHERE ended_at IS NULL") == 0


def test_pauses_come_along_to_the_microsecond_and_more_can_follow(world: World) -> None:
    for active in (False, True, False, True, False):
        activate(world, active)
    (kept,) = world.rows("SELECT progress FROM audius_challenges.checkpoint WHERE challenge_id = 'e'")
    expected = [*(tuple(times) for times in kept[0]["pauses"]), (kept[0]["paused_since"], None)]
    assert len(expected) == 3
    update(world)
    pauses = """
        SELECT (extract(epoch FROM began_at) * 1000000)::bigint, (extract(epoch FROM ended_at) * 1000000)::bigint
        FROM audius_challenges.pause
        ORDER BY began_at
    """
    assert world.rows(pauses) == expected
    world.tick()
    assert world.rows(pauses) == expected
    for active in (True, False):
        activate(world, active)
    assert [ended is None for _, ended in world.rows(pauses)] == [False, False, False, True]


def test_a_pause_that_ended_before_it_began_is_none(world: World) -> None:
    """The clock was set back between two runs of 1.1.0, which took nothing for listened then."""
    world.execute(
        """
        UPDATE audius_challenges.checkpoint
        SET progress = progress || '{"pauses": [[1700000000000000, 1600000000000000]]}'
        WHERE challenge_id = 'e'
        """
    )
    play(world.connection, 1, day(1))
    update(world)
    world.tick()
    assert streak(world, 1) == (1, day(1))


def test_what_was_listened_before_1_1_0_was_started_from_now_never_counts(new_world: World) -> None:
    world = new_world
    late = world.writer()
    play(world.connection, 1, day(1))
    play(late, 2, day(1))
    world.execute("SELECT audius_challenges.start_from_now()")
    world.tick()
    play(world.connection, 3, now(world))
    update(world)
    world.tick()
    late.commit()
    world.tick()
    world.reconcile("full_scan => TRUE")
    assert [streak(world, user) for user in (1, 2)] == [None, None]
    assert streak(world, 3) is not None
    after = now(world)
    play(world.connection, 1, after)
    world.tick()
    assert streak(world, 1) == (1, after)


def test_before_streaks_have_ever_been_active_all_the_plays_wait(new_world: World) -> None:
    world = new_world
    play(world.connection, 1, day(1))
    activate(world, False)
    play(world.connection, 1, day(2))
    world.tick()
    update(world)
    world.tick()
    play(world.connection, 1, day(3))
    activate(world, True)
    assert_streaks(world, {1: [day(number) for number in (1, 2, 3)]})
    assert world.value("SELECT count(*) FROM audius_challenges.pause") == 0


def test_a_backlog_of_1_1_0_is_counted(world: World) -> None:
    """More plays than a run of 1.1.0 took: of two users it has counted some of the days."""
    daily = [day(number) for number in range(1, 10)]
    world.replace_in_package(r"LISTENS = 200_000", "LISTENS = 8")
    for at in daily:
        for user in (1, 120):
            play(world.connection, user, at)
    world.forget_sessions()
    world.set(time_budget="0s")
    world.tick()
    assert streak(world, 1) == streak(world, 120) == (4, day(4))
    backlog = "SELECT progress ->> 'backlog' IS NOT NULL FROM audius_challenges.checkpoint WHERE challenge_id = 'e'"
    assert world.value(backlog)
    update(world)
    world.tick()
    assert_streaks(world, dict.fromkeys((1, 120), daily))
    assert_exact(world)


def test_a_first_reading_that_1_1_0_has_not_ended_is_done_again_and_pays_nothing_twice(new_world: World) -> None:
    world = new_world
    world.set(slice_users=40, time_budget="0s")
    daily = [day(number) for number in range(1, 10)]
    for user in (1, 30, 150):
        for at in daily:
            play(world.connection, user, at)
    world.tick()
    assert (world.phase("e"), streak(world, 30), streak(world, 150)) == ("first build", (9, day(9)), None)
    update(world)
    world.set(slice_users=5000, max_completions=1)  # no limit to a first build
    world.tick()
    assert_streaks(world, dict.fromkeys((1, 30, 150), daily))
    assert_exact(world)


def test_listens_that_1_1_0_has_skipped_count_once_the_user_is_eligible(world: World) -> None:
    world.execute("SELECT build.person(301, is_deactivated => TRUE)")
    for user in (301, 302):
        play(world.connection, user, day(1))
    PLAYS.write_crowd(world.connection, NEXT + 10)
    world.tick(2)
    world.execute("UPDATE users SET is_deactivated = FALSE, blocknumber = %s WHERE user_id = 301", NEXT)
    world.tick()
    play(world.connection, 1, day(1))
    world.tick()
    assert streak(world, 301) is None
    update(world)
    world.tick()
    assert (streak(world, 301), streak(world, 302)) == ((1, day(1)), None)
    world.execute("SELECT build.person(302, blocknumber => %s)", NEXT)
    world.tick()
    assert_streaks(world, {1: [day(1)], 301: [day(1)], 302: [day(1)]})


# Challenges that 1.1.0 did not know


def test_what_another_service_pays_waits_until_somebody_asks_for_it(world: World) -> None:
    world.execute(
        """
        INSERT INTO challenges (id, type, amount, active, starting_block) VALUES
            ('c', 'aggregate', '1', TRUE, 0), ('m', 'boolean', '1', TRUE, 0), ('t', 'aggregate', '100', FALSE, 0)
        """
    )
    world.execute("SELECT build.qualify_c(5001), build.qualify_m(5002)")
    with notices(world.connection) as heard:
        update(world)
    assert ("new challenges wait to be asked for, since somebody else may be paying them: c,m,t") in [
        notice.message for notice in heard
    ]
    world.tick(2)
    status = "SELECT status FROM challenge_status WHERE challenge_id IN ('c', 'm', 't', 'rd')"
    assert world.rows(status) == [("absent",)] * 4
    new = "SELECT challenge_id, user_id FROM user_challenges WHERE challenge_id IN ('c', 'm')"
    assert world.rows(new) == []
    findings = "SELECT found, statement FROM audius_challenges.doctor() WHERE what = 'challenges wait to be asked for'"
    assert world.rows(findings) == [("c,m,t", "SELECT * FROM audius_challenges.start_from_now('{c,m,t}');")]

    # A dry run of one shows it, and asks for nothing.
    dry = "SELECT rows_completed FROM reconcile_challenges('{m}', dry_run => TRUE)"
    assert world.rows(dry) == [(1,)]
    world.tick()
    assert world.rows(new) == []
    assert world.rows("SELECT challenge_id FROM audius_challenges.start_from_now('{c}')") == [("c",)]
    assert world.rows("SELECT action FROM sync_challenge_catalog('prod', '{m}')") != []
    world.execute("UPDATE challenges SET starting_block = 0 WHERE id = 'm'")
    world.execute("SELECT build.person(5003), build.comment(7, 5003, blocknumber => %s)", NEXT)
    world.tick()
    assert sorted(world.rows(new)) == [("c", 5003), ("m", 5002)]
