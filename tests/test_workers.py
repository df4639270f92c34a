"""Several sessions work off a first build or a catch-up together, and write what one alone would have written.

Helpers are real sessions that call `help()`. A tick that has no time for a second round cuts the slices and takes one
of each challenge, so that it is known what is left for helpers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import errors

from audius_challenges.challenges import CHALLENGES
from audius_challenges.engine.per_user import PerUser
from devtools import REPOSITORY
from devtools.cluster import Cluster
from devtools.discovery import CREATE_EXTENSION, Discovery, create_discovery
from devtools.pgtap import LAUNCHER
from tests.sessions import (
    RUN_LOCK,
    Beside,
    Connection,
    NewCluster,
    column,
    completed,
    failing,
    knows_seconds,
    let_p_wait,
    message_of,
    notices,
    replace_package,
    rows,
    tick,
    until,
    value,
)

HELP = "CALL audius_challenges.help()"
OPEN = "SELECT count(*) FROM audius_challenges.slice"
GO_ROUND = [each.id for each in CHALLENGES if isinstance(each, PerUser)]
SPLIT = ["u", "fp", "p", "v", "e", "p1", "p2", "p3"]
GENERATE = REPOSITORY / "discovery" / "generate.sql"

# Times are those of runs, but for streaks, whose rows have the times of listens.
DERIVED = (
    """
    SELECT challenge_id, specifier, user_id, is_complete, current_step_count, amount,
        CASE WHEN challenge_id = 'e' THEN created_at END,
        CASE WHEN challenge_id = 'e' THEN completed_at END
    FROM user_challenges
    ORDER BY challenge_id, specifier
    """,
    "SELECT * FROM challenge_profile_completion ORDER BY user_id",
    "SELECT * FROM challenge_listen_streak ORDER BY user_id",
    "SELECT group_id, user_ids, data FROM notification ORDER BY group_id",
    # That of streaks is of days that are long past; the others may be before and after midnight.
    "SELECT challenge_id, sum(completions), sum(amount) FROM audius_challenges.challenge_day GROUP BY 1 ORDER BY 1",
    "SELECT challenge_id, phase, completed FROM audius_challenges.processor_state ORDER BY challenge_id",
    OPEN,
)
WRITTEN_TWICE = """
    SELECT challenge_id, specifier, count(*)
    FROM user_challenges_log
    WHERE (new ->> 'is_complete')::boolean
    GROUP BY 1, 2
    HAVING count(*) > 1
"""
BEHIND = """
    SELECT challenges.id
    FROM challenges
    LEFT JOIN audius_challenges.processor_state AS state ON challenges.id = state.challenge_id
    WHERE challenges.active AND state.phase IS DISTINCT FROM 'watching' AND challenges.id = ANY(%s)
    ORDER BY 1
"""


@pytest.fixture(scope="module")
def populated(cluster: Cluster, full_template: str) -> Iterator[str]:
    """Name of a database with generated data and all challenges active, to make others from."""
    name = "workers_populated"
    cluster.create_database(name, full_template)
    cluster.psql(name, GENERATE, variables={"scale": "0.0005", "seed": "1", "today": "2026-01-15"})
    cluster.psql(name, "SELECT count(*) FROM sync_challenge_catalog('stage')")
    cluster.psql(name, "UPDATE challenges SET active = TRUE; ANALYZE")
    yield name
    cluster.drop_database(name)


@pytest.fixture
def people(discovery: Discovery) -> Discovery:
    """Twelve users who have one step of p each, and will complete v and p1, in slices of two; nothing has run yet."""
    with closing(discovery.connect()) as session:
        session.execute("SELECT count(*) FROM sync_challenge_catalog('stage')")
        add_people(session, 1, 12)
    configure(discovery, workers=3, slice_users=2, time_budget="0s", sweep_users=0)
    return discovery


def add_people(session: Connection, first: int, last: int) -> None:
    session.execute(
        """
        SELECT
            count(build.person(p, name => 'n', is_verified => TRUE)),
            count(build.track(100 + p, p)),
            count(build.monthly(100 + p, '2026-01-01', 300))
        FROM generate_series(%s::integer, %s) AS p
        """,
        (first, last),
    )


def configure(database: Discovery, **settings: object) -> None:
    """Sets settings for the database, for sessions that begin from now on."""
    with closing(database.connect()) as session:
        for name, setting in settings.items():
            session.execute(f"ALTER DATABASE {database.name} SET audius_challenges.{name} = '{setting}'")


def tick_of(database: Discovery, time_budget: str | None = None) -> None:
    """A tick in a session of its own, as pg_cron starts it."""
    with closing(database.connect()) as session:
        if time_budget:
            session.execute(f"SET audius_challenges.time_budget = '{time_budget}'")
        session.execute("CALL audius_challenges.tick()")


@contextmanager
def helping(database: Discovery, number: int = 1) -> Iterator[list[Beside]]:
    """So many helpers at work meanwhile; at the end they are cancelled, unless they have ended by themselves."""
    with ExitStack() as stack, closing(database.connect()) as observer:
        helpers = [Beside(stack.enter_context(closing(database.connect())), HELP) for _ in range(number)]
        try:
            yield helpers
        finally:
            for helper in helpers:
                observer.execute("SELECT pg_cancel_backend(%s)", (helper.pid,))
            for helper in helpers:
                error = helper.finish()
                assert error is None or isinstance(error, (errors.QueryCanceled, psycopg.OperationalError)), error


def all_taken(observer: Connection) -> None:
    """Waits until no slice is open."""
    until(lambda: not value(observer, OPEN), "the end of the open slices", seconds=120)


def come_to_rest(database: Discovery) -> None:
    """Ticks until everybody has been examined."""
    with closing(database.connect()) as observer:
        for _ in range(200):
            if not rows(observer, BEHIND, GO_ROUND):
                return
            tick_of(database, "25s")
        raise AssertionError(column(observer, BEHIND, GO_ROUND))


def derived(database: Discovery) -> list[list[tuple[Any, ...]]]:
    with closing(database.connect()) as session:
        return [rows(session, query) for query in DERIVED]


def assert_same(found: list[list[tuple[Any, ...]]], expected: list[list[tuple[Any, ...]]]) -> None:
    """All rows of `DERIVED`; of many, those that differ are shown."""
    for one, other, query in zip(found, expected, DERIVED, strict=True):
        shown, wanted = list(map(str, one)), list(map(str, other))
        assert sorted(set(shown) ^ set(wanted)) == [], query
        assert len(shown) == len(wanted), query


@pytest.fixture(scope="module")
def written_by_one(cluster: Cluster, populated: str) -> list[list[tuple[Any, ...]]]:
    """What the tick alone makes of the generated data."""
    cluster.create_database("workers_one", populated)
    try:
        database = Discovery(cluster, "workers_one")
        come_to_rest(database)
        return derived(database)
    finally:
        cluster.drop_database("workers_one")


@pytest.fixture
def generated(cluster: Cluster, populated: str) -> Iterator[Discovery]:
    """The generated data once more, for three workers and in small slices."""
    name = "workers_three"
    cluster.create_database(name, populated)
    database = Discovery(cluster, name)
    configure(database, workers=3, slice_users=100)
    try:
        yield database
    finally:
        cluster.drop_database(name)


# What is written


def test_the_challenges_that_are_split_are_those_with_one_reward_a_user_and_the_streak() -> None:
    assert [each.id for each in CHALLENGES if isinstance(each, PerUser) and each.is_split] == SPLIT


def test_three_workers_write_what_one_writes(generated: Discovery, written_by_one: list[list[tuple[Any, ...]]]) -> None:
    with closing(generated.connect()) as observer, helping(generated, 2) as helpers:
        come_to_rest(generated)
        assert [helper.error for helper in helpers] == [None, None]
        assert_same(derived(generated), written_by_one)
        assert rows(observer, WRITTEN_TWICE) == []
        assert failing(observer) == {}
        assert value(observer, "SELECT count(*) FROM user_challenges") > 1000


def test_helpers_alone_work_off_what_a_tick_has_cut(
    generated: Discovery, written_by_one: list[list[tuple[Any, ...]]]
) -> None:
    configure(generated, time_budget="0s")
    tick_of(generated)
    with closing(generated.connect()) as observer:
        slices = rows(observer, "SELECT challenge_id, count(*) FROM audius_challenges.slice GROUP BY 1 ORDER BY 1")
        # 1,600 users, of whom the tick has examined 100; p2 and p3 wait for p1.
        assert slices == [("e", 15), ("fp", 15), ("p", 15), ("p1", 15), ("u", 15), ("v", 15)]
        with helping(generated, 2):
            all_taken(observer)
            rounds = "SELECT challenge_id, sweep_rounds FROM audius_challenges.processor_state WHERE phase = 'watching'"
            assert not {challenge for challenge, _ in rows(observer, rounds)} & set(SPLIT)
            come_to_rest(generated)
        takers = "SELECT count(*) FROM challenge_history WHERE challenge_id = 'p' AND rows_inserted > 0"
        assert value(observer, takers) >= 2
    assert_same(derived(generated), written_by_one)


def test_the_number_of_workers_may_change_at_any_time(
    generated: Discovery, written_by_one: list[list[tuple[Any, ...]]]
) -> None:
    configure(generated, time_budget="0s")
    tick_of(generated)
    with closing(generated.connect()) as observer:
        with helping(generated) as (helper,):
            until(lambda: value(observer, OPEN) < 80, "some slices taken")
            configure(generated, workers=1)
            assert helper.finish() is None  # it has seen that
        left = value(observer, OPEN)
        assert 0 < left < 80
        with closing(generated.connect()) as session, notices(session) as heard:
            session.execute(HELP)  # nobody may help any more
            assert [notice.message for notice in heard] == ["audius_challenges.workers is 1: nothing was done"]
        tick_of(generated)
        assert value(observer, OPEN) < left
        configure(generated, workers=2)
        with helping(generated):
            come_to_rest(generated)
    assert_same(derived(generated), written_by_one)


def test_slices_are_cut_without_gaps_behind_what_was_examined_before(people: Discovery) -> None:
    with closing(people.connect()) as session:
        session.execute("DELETE FROM users WHERE user_id IN (6, 7)")
        configure(people, workers=1)
        tick_of(people)  # users 1 and 2
        configure(people, workers=2)
        tick_of(people)  # users 3 and 4
        slices = "SELECT least, greatest, size FROM audius_challenges.slice WHERE challenge_id = 'p' ORDER BY least"
        assert rows(session, slices) == [(5, 8, 2), (9, 10, 2), (11, 12, 2)]
        shown = "SELECT sweep_position, sweep_progress FROM challenge_status WHERE challenge_id = 'p'"
        assert rows(session, shown) == [(12, Decimal("33.3"))]
        metric = 'SELECT value FROM audius_challenges.metrics() WHERE name = %s AND labels = \'{"challenge": "p"}\''
        assert value(session, metric, "audius_challenges_backlog_users") == 8
        assert value(session, metric, "audius_challenges_open_slices") == 3
        come_to_rest(people)
        assert completed(session, "v") == sorted(f"{user:x}" for user in range(1, 13) if user not in (6, 7))


def test_a_small_database_is_not_cut(people: Discovery) -> None:
    configure(people, slice_users=13, time_budget="25s")
    tick_of(people)
    with closing(people.connect()) as session:
        assert value(session, "SELECT count(*) FROM user_challenges WHERE challenge_id = 'p2'") == 12
        # The table was never written.
        assert value(session, "SELECT pg_relation_size('audius_challenges.slice')") == 0


def test_without_workers_no_statement_asks_for_slices_once_all_is_built(people: Discovery) -> None:
    configure(people, workers=3, time_budget="25s")
    tick_of(people)
    with closing(people.connect()) as session:
        assert rows(session, BEHIND, GO_ROUND) == []
        session.execute("LOAD 'auto_explain'")
        session.execute("SET auto_explain.log_min_duration = 0")
        session.execute("SET auto_explain.log_nested_statements = on")
        session.execute("SET auto_explain.log_level = notice")
        heard = [notice.message for notice in tick(session)]
        about = [message for message in heard if re.search(r"audius_challenges\.slice\b|cron\.", message)]
        assert len(heard) > 50
        assert len(about) == 1  # with the states
        assert "FROM audius_challenges.processor_state AS state" in about[0]


# In one hand at a time


@contextmanager
def in_hands(people: Discovery, challenge: str = "p", user: int = 5) -> Iterator[tuple[Connection, Beside]]:
    """A helper that has taken a slice and waits where it writes the user, while the session that is given looks on."""
    with closing(people.connect()) as observer, closing(people.connect(autocommit=False)) as blocker:
        if challenge == "p":
            let_p_wait(observer, f"new.user_id = {user}")
        else:
            configure(people, lock_timeout="10min")
            blocker.execute("INSERT INTO challenge_listen_streak (user_id, listen_streak) VALUES (%s, 0)", (user,))
        blocker.execute("SELECT pg_advisory_xact_lock(7)")
        configure(people, time_budget="0s")
        tick_of(people)
        with helping(people) as (helper,):
            helper.wait_until_blocked(observer)
            yield observer, helper
            blocker.rollback()


def test_what_happens_to_a_user_whose_slice_is_in_hands_is_found_afterwards(people: Discovery) -> None:
    with in_hands(people) as (observer, helper):
        taken = "SELECT least FROM audius_challenges.slice WHERE challenge_id = 'p' ORDER BY least"
        assert column(observer, taken)[0] == 5  # not committed yet
        observer.execute("UPDATE users SET bio = 'b', updated_at = now() WHERE user_id = 5")
        observer.execute("UPDATE users SET bio = 'b', updated_at = now() WHERE user_id = 1")
        for _ in range(8):
            tick_of(people)
        assert column(observer, taken) == [5]  # the ticks have taken all others, and wait
        steps = "SELECT current_step_count FROM user_challenges WHERE challenge_id = 'p' AND user_id = %s"
        assert column(observer, steps, 1) == [1]  # nobody reads the feed meanwhile
        assert column(observer, steps, 5) == []
        assert value(observer, "SELECT phase FROM audius_challenges.processor_state WHERE challenge_id = 'p'") == (
            "first build"
        )
        assert helper.error is None
    come_to_rest(people)
    tick_of(people)
    with closing(people.connect()) as session:
        assert column(session, steps, 1) == [2]
        assert column(session, steps, 5) == [2]
        assert rows(session, WRITTEN_TWICE) == []


def listen(session: Connection, user: int, day: int) -> None:
    session.execute("SELECT build.play(%s, 1, timestamp '2026-01-01 12:00' + %s * interval '1 day')", (user, day))


def test_a_listen_while_the_slice_of_its_user_is_in_hands_counts_once(people: Discovery) -> None:
    with closing(people.connect()) as session:
        for user in range(1, 13):
            for day in range(7):
                listen(session, user, day)
    with in_hands(people, "e", 5) as (observer, _):
        listen(observer, 5, 7)
        listen(observer, 1, 7)
        for _ in range(8):
            tick_of(people)
        listen(observer, 5, 8)
        assert column(observer, "SELECT listen_streak FROM challenge_listen_streak WHERE user_id = 1") == [7]
    come_to_rest(people)
    tick_of(people)
    with closing(people.connect()) as session:
        streaks = dict(rows(session, "SELECT user_id, listen_streak FROM challenge_listen_streak"))
        assert streaks == {**dict.fromkeys(range(1, 13), 7), 1: 8, 5: 9}
        paid = "SELECT user_id, sum(amount) FROM user_challenges WHERE challenge_id = 'e' AND is_complete GROUP BY 1"
        assert dict(rows(session, paid)) == {**dict.fromkeys(range(1, 13), 7), 1: 8, 5: 9}
        assert rows(session, WRITTEN_TWICE) == []


RESTARTS = {
    "catalog": "UPDATE challenges SET step_count = 6 WHERE id = 'p'",
    "pause": "UPDATE challenges SET active = FALSE WHERE id = 'p'",
    "look": "UPDATE audius_challenges.processor_state SET look = NULL WHERE challenge_id = 'p'",
}


@pytest.mark.parametrize("restart", RESTARTS)
def test_what_begins_a_round_anew_waits_for_the_slices_in_hands(people: Discovery, restart: str) -> None:
    with closing(people.connect()) as session:
        with in_hands(people) as (observer, helper):
            observer.execute(RESTARTS[restart])
            run = Beside(session, "CALL audius_challenges.tick()")
            run.wait_until_blocked(observer)
            assert helper.error is None
        assert run.finish() is None
        slices = rows(session, "SELECT least FROM audius_challenges.slice WHERE challenge_id = 'p' ORDER BY least")
        assert slices == ([] if restart == "pause" else [(3,), (5,), (7,), (9,), (11,)])
        if restart == "pause":
            session.execute("UPDATE challenges SET active = TRUE WHERE id = 'p'")
        come_to_rest(people)
        steps = "SELECT count(*), min(current_step_count) FROM user_challenges WHERE challenge_id = 'p'"
        assert rows(session, steps) == [(12, 1)]
        assert failing(session) == {}


FORMS = {
    "full scan": "SELECT * FROM reconcile_challenges('{p}', full_scan => true)",
    "from now": "SELECT * FROM audius_challenges.start_from_now('{p}')",
    "begin": "SELECT * FROM audius_challenges.begin_full_scan('{p}')",
}


@pytest.mark.parametrize("form", FORMS)
def test_who_ends_a_round_by_hand_waits_for_the_slices_in_hands(people: Discovery, form: str) -> None:
    with closing(people.connect()) as session:
        with in_hands(people) as (observer, _):
            run = Beside(session, FORMS[form])
            run.wait_until_blocked(observer)
        assert run.finish() is None
        assert rows(session, "SELECT * FROM audius_challenges.slice WHERE challenge_id = 'p'") == []
        phase = value(session, "SELECT phase FROM audius_challenges.processor_state WHERE challenge_id = 'p'")
        assert phase == ("catching up" if form == "begin" else "watching")
        if form == "full scan":
            assert value(session, "SELECT count(*) FROM user_challenges WHERE challenge_id = 'p'") == 12
        assert rows(session, WRITTEN_TWICE) == []


def test_slices_that_stay_in_hands_are_an_error_that_says_whose(people: Discovery) -> None:
    with in_hands(people) as (observer, helper):
        with closing(people.connect()) as session:
            session.execute("SET audius_challenges.lock_timeout = '1s'")
            # A minute's patience is not for tests.
            session.execute("SELECT audius_challenges.load()")
            session.execute(
                """
                DO LANGUAGE plpython3u $$
                from audius_challenges.engine import open_slices
                open_slices.PATIENCE = 1
                $$
                """
            )
            with pytest.raises(errors.ObjectNotInPrerequisiteState) as raised:
                session.execute("SELECT * FROM audius_challenges.begin_full_scan('{p}')")
        message, hint = message_of(raised.value)
        assert message == f'audius_challenges: slices of challenge "p" are in the hands of helpers: {helper.pid}'
        assert hint == f"Try again later. If they are not at work: SELECT pg_terminate_backend({helper.pid});"
        assert value(observer, "SELECT count(*) FROM audius_challenges.slice WHERE challenge_id = 'p'") == 4


def test_a_dry_run_takes_a_slice_and_gives_it_back(people: Discovery) -> None:
    tick_of(people)
    with closing(people.connect()) as session:
        before = rows(session, "SELECT * FROM audius_challenges.slice ORDER BY 1, 2")
        counted = rows(session, "SELECT challenge_id, phase, completed FROM audius_challenges.processor_state")
        report = "SELECT rows_inserted FROM reconcile_challenges('{p}', dry_run => true)"
        assert column(session, report) == [2]
        assert rows(session, "SELECT * FROM audius_challenges.slice ORDER BY 1, 2") == before
        assert rows(session, "SELECT challenge_id, phase, completed FROM audius_challenges.processor_state") == counted
        assert column(session, report.replace("dry", "full").replace("full_run", "full_scan")) == [10]
        assert rows(session, "SELECT * FROM audius_challenges.slice WHERE challenge_id = 'p'") == []


# One after the other


def test_p2_waits_until_p1_is_through_and_is_neither_limited_nor_lost(people: Discovery) -> None:
    with closing(people.connect()) as session:
        session.execute("SELECT build.monthly(100 + p, '2026-02-01', 20000) FROM generate_series(1, 12) AS p")
        configure(people, max_completions=0)  # the first build of a database has no limit
        tick_of(people)
        slices = "SELECT DISTINCT challenge_id FROM audius_challenges.slice WHERE challenge_id LIKE 'p_' ORDER BY 1"
        assert column(session, slices) == ["p1"]
        with helping(people):
            until(lambda: column(session, slices) == [], "the end of p1's slices")
        tick_of(people)
        assert column(session, slices) == ["p2"]
        with helping(people):
            until(lambda: column(session, slices) == [], "the end of p2's slices")
            come_to_rest(people)
        for challenge in ("p1", "p2", "p3"):
            assert len(completed(session, challenge)) == 12
        assert failing(session) == {}


def test_nothing_waits_for_what_has_failed(people: Discovery) -> None:
    """p1 fails: p2 and p3 begin all the same, and the tick ends at once."""
    configure(people, time_budget="10min")
    with closing(people.connect()) as session:
        session.execute("UPDATE challenges SET amount = 'x' WHERE id = 'p1'")
        with pytest.raises(errors.ExternalRoutineException):
            tick(session)
        assert list(failing(session)) == ["p1"]
        phases = "SELECT phase FROM audius_challenges.processor_state WHERE challenge_id = ANY('{p2,p3}')"
        assert column(session, phases) == ["watching", "watching"]
        session.execute("UPDATE challenges SET amount = '1' WHERE id = 'p1'")
    come_to_rest(people)
    with closing(people.connect()) as session:
        assert len(completed(session, "p1")) == 12


# Limits


def test_the_completions_of_all_workers_together_are_limited(people: Discovery) -> None:
    with closing(people.connect()) as session:
        # A database that has paid before.
        session.execute("UPDATE challenges SET active = id = 'fp'")
        session.execute("SELECT build.playlist(1, 1)")
        come_to_rest(people)
        session.execute("UPDATE challenges SET active = id IN ('v', 'fp')")
        configure(people, max_completions=7)
        tick_of(people)
        assert len(completed(session, "v")) == 2
        with helping(people, 2) as helpers:
            until(lambda: failing(session), "a helper that comes to the limit")
            assert [helper.error for helper in helpers] == [None, None]
        assert len(completed(session, "v")) == 6
        counted = "SELECT completed FROM audius_challenges.processor_state WHERE challenge_id = 'v'"
        assert value(session, counted) == 6
        assert value(session, OPEN) == 3
        assert failing(session)["v"].startswith(
            'challenge "v" would complete at least 8 rewards in its first round; audius_challenges.max_completions is 7'
        )
        assert "earlier runs of the round completed 6." in failing(session)["v"]
        with pytest.raises(errors.ExternalRoutineException):
            tick_of(people)
        assert len(completed(session, "v")) == 6
        session.execute("SET audius_challenges.max_completions = 100")
        session.execute("SELECT * FROM reconcile_challenges('{v}', full_scan => true)")
        assert len(completed(session, "v")) == 12
        assert value(session, OPEN) == 0
        assert value(session, counted) == 0


def test_catching_up_in_slices_is_one_run(people: Discovery) -> None:
    with closing(people.connect()) as session:
        come_to_rest(people)
        assert completed(session, "p") == []
        configure(people, max_completions=4)
        session.execute("UPDATE challenges SET step_count = 1 WHERE id = 'p'")
        tick_of(people)
        tick_of(people)
        assert len(completed(session, "p")) == 4
        for _ in range(2):
            with pytest.raises(errors.ExternalRoutineException):
                tick_of(people)
        assert len(completed(session, "p")) == 4
        assert failing(session)["p"].startswith('challenge "p" would complete at least 6 rewards in one run;')
        # Another change of the catalog is another round.
        session.execute("UPDATE challenges SET step_count = 2 WHERE id = 'p'")
        come_to_rest(people)
        assert failing(session) == {}
        assert value(session, "SELECT completed FROM audius_challenges.processor_state WHERE challenge_id = 'p'") == 0


# What goes wrong


def test_a_user_of_a_helpers_slice_who_cannot_be_written_is_set_aside(people: Discovery) -> None:
    with closing(people.connect()) as session:
        session.execute("ALTER TABLE user_challenges ADD CHECK (user_id <> 9 OR challenge_id <> 'v')")
        tick_of(people)
        with helping(people) as (helper,):
            all_taken(session)
            assert helper.error is None
        assert rows(session, "SELECT challenge_id, user_id FROM audius_challenges.set_aside") == [("v", 9)]
        assert column(session, "SELECT users_set_aside FROM challenge_history WHERE users_set_aside > 0") == [1]
        come_to_rest(people)
        assert len(completed(session, "v")) == 11


def test_a_helper_leaves_a_challenge_that_fails_and_goes_on_with_others(people: Discovery) -> None:
    with closing(people.connect()) as session:
        tick_of(people)
        session.execute("ALTER TABLE challenge_profile_completion RENAME TO away")
        with helping(people) as (helper,):
            until(lambda: column(session, "SELECT DISTINCT challenge_id FROM audius_challenges.slice") == ["p"], "p")
            assert list(failing(session)) == ["p"]
            assert value(session, "SELECT consecutive_failures FROM challenge_status WHERE challenge_id = 'p'") == 1
            assert value(session, OPEN) == 5
            assert helper.error is None
        session.execute("ALTER TABLE away RENAME TO challenge_profile_completion")
        come_to_rest(people)
        assert failing(session) == {}
        assert value(session, "SELECT count(*) FROM user_challenges WHERE challenge_id = 'p'") == 12


@pytest.mark.parametrize("ending", ["terminate", "cancel"])
def test_a_helper_that_is_stopped_gives_its_slice_back(people: Discovery, ending: str) -> None:
    with in_hands(people) as (observer, helper):
        observer.execute(f"SELECT pg_{ending}_backend({helper.pid})")
        assert isinstance(helper.finish(), (errors.QueryCanceled, errors.AdminShutdown))
        until(
            lambda: not rows(observer, "SELECT FROM pg_locks WHERE pid = %s AND locktype <> 'virtualxid'", helper.pid),
            "its locks",
        )
        slices = "SELECT least FROM audius_challenges.slice WHERE challenge_id = 'p' ORDER BY least"
        assert column(observer, slices) == [5, 7, 9, 11]
        assert failing(observer) == {}
    come_to_rest(people)
    with closing(people.connect()) as session:
        assert value(session, "SELECT count(*) FROM user_challenges WHERE challenge_id = 'p'") == 12


def test_a_helper_that_waits_too_long_for_a_lock_gives_its_slice_back_and_takes_it_again(people: Discovery) -> None:
    with closing(people.connect()) as observer, closing(people.connect(autocommit=False)) as blocker:
        let_p_wait(observer, "new.user_id = 5")
        configure(people, lock_timeout="50ms")
        tick_of(people)
        blocker.execute("SELECT pg_advisory_xact_lock(7)")
        with helping(people):
            left = "SELECT challenge_id, least FROM audius_challenges.slice"
            # All others are written meanwhile, by others that begin behind it.
            until(lambda: {challenge for challenge, _ in rows(observer, left)} == {"p"}, "the other challenges")
            assert failing(observer) == {}
            blocker.rollback()
            all_taken(observer)
        assert failing(observer) == {}


def test_a_killed_helper_and_the_crash_that_follows_give_everything_back(new_cluster: NewCluster) -> None:
    cluster = new_cluster(cron_database="postgres")
    discovery = create_discovery(cluster, "discovery")
    discovery.psql(CREATE_EXTENSION)
    with closing(discovery.connect()) as session:
        session.execute("SELECT count(*) FROM sync_challenge_catalog('stage')")
        add_people(session, 1, 12)
    configure(discovery, workers=3, slice_users=2, time_budget="0s", lock_timeout="10min")
    blocker = discovery.connect(autocommit=False)
    with closing(discovery.connect()) as observer:
        let_p_wait(observer, "new.user_id = 5")
        blocker.execute("SELECT pg_advisory_xact_lock(7)")
        tick_of(discovery)
        helper = Beside(discovery.connect(), HELP)
        helper.wait_until_blocked(observer)
    cluster.kill(helper.pid)
    assert helper.finish() is not None
    blocker.close()

    with closing(discovery.connect()) as session:
        slices = "SELECT least FROM audius_challenges.slice WHERE challenge_id = 'p' ORDER BY least"
        assert column(session, slices) == [5, 7, 9, 11]
        with helping(discovery):
            come_to_rest(discovery)
        assert value(session, "SELECT count(*) FROM user_challenges WHERE challenge_id = 'p'") == 12
        assert rows(session, WRITTEN_TWICE) == []
        assert failing(session) == {}


def test_a_turn_that_waits_for_others_is_neither_success_nor_failure(people: Discovery) -> None:
    with in_hands(people) as (observer, _):
        for _ in range(4):
            tick_of(people)  # which take all other slices
        observer.execute(
            "UPDATE audius_challenges.processor_state SET consecutive_failures = 2, last_error = 'of a helper'"
            " WHERE challenge_id = 'p'"
        )
        last = "SELECT last_run, last_success FROM audius_challenges.processor_state WHERE challenge_id = 'p'"
        ((run, success),) = rows(observer, last)
        tick_of(people)
        assert failing(observer) == {"p": "of a helper"}
        ((next_run, next_success),) = rows(observer, last)
        assert next_run > run
        assert next_success == success
    come_to_rest(people)
    with closing(people.connect()) as session:
        assert failing(session) == {}


def test_the_limit_says_what_others_have_completed_while_a_slice_was_in_hands(people: Discovery) -> None:
    with closing(people.connect()) as session:
        # A database that has paid before.
        session.execute("UPDATE challenges SET active = id = 'fp'")
        session.execute("SELECT build.playlist(1, 1)")
        come_to_rest(people)
        session.execute("UPDATE challenges SET active = TRUE, step_count = 1 WHERE id = 'p'")
        configure(people, max_completions=9)
        let_p_wait(session, "new.user_id = 5")
        tick_of(people)
    with closing(people.connect()) as observer, closing(people.connect(autocommit=False)) as blocker:
        blocker.execute("SELECT pg_advisory_xact_lock(7)")
        with helping(people) as (helper,):
            helper.wait_until_blocked(observer)
            assert len(completed(observer, "p")) == 4
            tick_of(people)
            tick_of(people)
            assert len(completed(observer, "p")) == 8
            assert failing(observer) == {}
            blocker.rollback()
            error = until(lambda: failing(observer), "the helper, which comes to the limit")["p"]
            assert "would complete at least 10 rewards in its first round" in error
            assert "earlier runs of the round completed 8." in error


def test_a_helper_ends_before_its_statement_timeout(people: Discovery) -> None:
    tick_of(people)
    with closing(people.connect()) as session:
        session.execute("SET statement_timeout = '8s'")
        session.execute(HELP)
        assert value(session, OPEN) == 0


# Who helps


def test_no_more_helpers_than_workers_but_one(people: Discovery) -> None:
    with in_hands(people), closing(people.connect()) as second, closing(people.connect()) as third:
        waiting = Beside(second, HELP)
        with closing(people.connect()) as observer:
            held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid >= 100 AND pid = %s"
            until(lambda: value(observer, held, waiting.pid), "the second helper")
            with notices(third) as heard:
                third.execute(HELP)
            assert [notice.message for notice in heard] == ["2 helpers are at work already: nothing was done"]
            observer.execute("SELECT pg_cancel_backend(%s)", (waiting.pid,))
            waiting.finish()


def test_a_helper_does_nothing_that_a_tick_would_not(people: Discovery) -> None:
    tick_of(people)
    with closing(people.connect()) as session:
        before = rows(session, "SELECT * FROM audius_challenges.slice ORDER BY 1, 2")
        session.execute("SET audius_challenges.enabled = off")
        session.execute(HELP)
        session.execute("RESET audius_challenges.enabled")
        with pytest.raises(errors.InvalidTransactionTermination) as raised:
            session.execute(f"BEGIN; {HELP}")
        assert message_of(raised.value)[0] == "audius_challenges: help() cannot run inside a transaction block"
        session.execute("ROLLBACK")
        session.execute("SET audius_challenges.workers = 'many'")
        with pytest.raises(errors.InvalidParameterValue):
            session.execute(HELP)
        assert rows(session, "SELECT * FROM audius_challenges.slice ORDER BY 1, 2") == before


REFUSALS = {
    "another database": "UPDATE audius_challenges.installation SET cluster = 1",
    "a restore": "ALTER TABLE user_challenges DROP CONSTRAINT user_challenges_pkey",
    "another catalog": "UPDATE challenges SET starting_block = coalesce(starting_block, 0) + 1",
    "a pause": "UPDATE challenges SET active = FALSE",
    "a lost look": "UPDATE audius_challenges.processor_state SET look = NULL",
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_helper_leaves_slices_that_are_not_to_be_worked_off_any_more(people: Discovery, refusal: str) -> None:
    tick_of(people)
    with closing(people.connect()) as session:
        before = rows(session, "SELECT * FROM audius_challenges.slice ORDER BY 1, 2")
        session.execute(REFUSALS[refusal])
        written = rows(session, "SELECT * FROM user_challenges ORDER BY 1, 2")
        with helping(people) as (helper,):
            polls = "SELECT query_start FROM pg_stat_activity WHERE pid = %s"
            held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 100"
            until(lambda: value(session, held), "the helper")
            sleeping = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
            until(lambda: value(session, sleeping, helper.pid), "its pause")
            assert value(session, polls, helper.pid)
        assert rows(session, "SELECT * FROM audius_challenges.slice ORDER BY 1, 2") == before
        assert rows(session, "SELECT * FROM user_challenges ORDER BY 1, 2") == written
        assert failing(session) == {}


def test_a_helper_pins_no_snapshot_while_it_waits(people: Discovery) -> None:
    with closing(people.connect()) as session, helping(people) as (helper,):
        pinned = """
            SELECT count(*) FROM pg_stat_activity
            WHERE pid = %s AND wait_event = 'PgSleep' AND clock_timestamp() - xact_start > INTERVAL '2 seconds'
        """
        began = value(session, "SELECT clock_timestamp()")
        until(
            lambda: (
                value(session, "SELECT clock_timestamp() - %s > INTERVAL '3 seconds'", began)
                or value(session, pinned, helper.pid)
            ),
            "three seconds",
        )
        assert value(session, pinned, helper.pid) == 0


# Full scans


def test_a_full_scan_can_be_worked_off_by_ticks_and_helpers(people: Discovery) -> None:
    come_to_rest(people)
    with closing(people.connect()) as session:
        rounds = "SELECT challenge_id, sweep_rounds FROM audius_challenges.processor_state WHERE challenge_id = ANY(%s)"
        before = dict(rows(session, rounds, SPLIT))
        # What leaves no trace.
        session.execute("DELETE FROM user_challenges WHERE challenge_id = 'v' AND user_id = 7")
        session.execute("UPDATE audius_challenges.processor_state SET completed = 0")
        begun = column(session, "SELECT audius_challenges.begin_full_scan()")
        assert set(begun) >= {"u", "fp", "p", "v", "p1", "p2", "p3"}
        assert "tt" not in begun
        assert column(session, "SELECT audius_challenges.begin_full_scan('{v,tt}')") == ["v"]
        with helping(people):
            come_to_rest(people)
        assert dict(rows(session, rounds, SPLIT)) == {name: number + 1 for name, number in before.items()}
        assert len(completed(session, "v")) == 12


def test_a_full_scan_does_not_begin_while_a_run_is_under_way(people: Discovery) -> None:
    with closing(people.connect(autocommit=False)) as holder, closing(people.connect()) as session:
        holder.execute(f"SELECT pg_advisory_xact_lock({RUN_LOCK})")
        with pytest.raises(errors.ObjectNotInPrerequisiteState) as raised:
            session.execute("SELECT audius_challenges.begin_full_scan()")
        assert message_of(raised.value)[0] == "audius_challenges: a run of audius_challenges is under way"
        holder.rollback()
        with pytest.raises(errors.InvalidParameterValue):
            session.execute("SELECT audius_challenges.begin_full_scan('{nope}')")


# Jobs

JOBS = """
    SELECT jobname::text, schedule, command, username
    FROM cron.job
    WHERE jobname LIKE 'audius_challenges helper%'
    ORDER BY jobname
"""


@pytest.fixture
def scheduled(new_cluster: NewCluster) -> Discovery:
    """A database with its own pg_cron, which nothing ticks; a role without further rights has what it takes to."""
    cluster = new_cluster(settings={"cron.use_background_workers": "on", "max_worker_processes": "16"})
    database = create_discovery(cluster, "discovery")
    database.psql("CREATE EXTENSION pg_cron", CREATE_EXTENSION, LAUNCHER)
    with closing(database.connect()) as session:
        session.execute("SELECT * FROM unschedule_challenges()")
        session.execute("CREATE ROLE reward_service LOGIN")
        session.execute("SELECT audius_challenges.grant_run('reward_service')")
        session.execute("GRANT INSERT ON user_challenges_log TO reward_service")
        session.execute("SELECT count(*) FROM sync_challenge_catalog('stage')")
        add_people(session, 1, 12)
    configure(database, workers=3, slice_users=2, time_budget="0s")
    return database


def test_a_tick_calls_helpers_that_pg_cron_starts_and_removes_their_jobs(scheduled: Discovery) -> None:
    with closing(scheduled.connect()) as observer, closing(scheduled.connect("reward_service")) as session:
        assert tick(session) == []
        when = "5 seconds" if knows_seconds(observer) else "* * * * *"
        names = [f"audius_challenges helper {number}" for number in (1, 2)]
        assert rows(observer, JOBS) == [(name, when, HELP, "reward_service") for name in names]
        assert value(observer, "SELECT has_helpers FROM audius_challenges.last_tick") is True
        # They are no ticks.
        assert value(observer, "SELECT active_jobs FROM audius_challenges.schedule_facts()") == 0
        until(lambda: not value(observer, OPEN), "helpers that pg_cron starts", seconds=90)
        assert tick(session) == []  # which cuts p2
        assert rows(observer, JOBS) == [(name, when, HELP, "reward_service") for name in names]
        come_to_rest_as(session, observer)
        assert rows(observer, JOBS) == []
        assert value(observer, "SELECT has_helpers FROM audius_challenges.last_tick") is False
        assert len(completed(observer, "p1")) == 12
        assert failing(observer) == {}
        # Without slices no tick looks for jobs.
        assert tick(session) == []
        assert rows(observer, JOBS) == []


def come_to_rest_as(session: Connection, observer: Connection) -> None:
    for _ in range(50):
        if not rows(observer, BEHIND, GO_ROUND):
            break
        session.execute("CALL audius_challenges.tick()")
    tick(session)


def test_the_jobs_follow_the_number_of_workers_and_the_schedule(scheduled: Discovery) -> None:
    with closing(scheduled.connect()) as observer:
        # Whoever pg_cron starts meanwhile finds others at work.
        observer.execute("SELECT pg_advisory_lock(1633903724, 100 + number) FROM generate_series(0, 2) AS number")
        tick_of(scheduled)
        assert len(rows(observer, JOBS)) == 2
        configure(scheduled, workers=4)
        tick_of(scheduled)
        assert len(rows(observer, JOBS)) == 3
        configure(scheduled, workers=2)
        tick_of(scheduled)
        assert len(rows(observer, JOBS)) == 1
        removed = column(observer, "SELECT jobname FROM unschedule_challenges()")
        assert removed == ["audius_challenges helper 1"]
        tick_of(scheduled)
        assert len(rows(observer, JOBS)) == (1 if value(observer, OPEN) else 0)
        configure(scheduled, workers=1)
        tick_of(scheduled)
        assert rows(observer, JOBS) == []


def test_helpers_leave_room_for_ticks_in_what_pg_cron_runs(scheduled: Discovery) -> None:
    with closing(scheduled.connect()) as observer, closing(scheduled.connect("reward_service")) as session:
        assert value(observer, "SHOW cron.max_running_jobs") == "5"
        with pytest.raises(errors.InsufficientPrivilege):  # The role that ticks sees no such setting.
            session.execute("SHOW cron.max_running_jobs")
        observer.execute("SELECT pg_advisory_lock(1633903724, 100 + number) FROM generate_series(0, 6) AS number")
        session.execute("SET audius_challenges.workers = 8")
        (warning,) = tick(session)
        assert warning == (
            "3 of 7 helpers get a job: cron.max_running_jobs is 5",
            "Set audius_challenges.workers lower, or cron.max_running_jobs to 9 or more, which takes a restart.",
        )
        assert len(rows(observer, JOBS)) == 3


def test_where_no_job_can_be_scheduled_the_tick_says_who_can_help(people: Discovery) -> None:
    with closing(people.connect()) as session:
        (warning,) = tick(session)
        assert warning == (
            "the jobs of helpers could not be scheduled: pg_cron is not installed in this database",
            "Without them the tick does all the work. In up to 2 other sessions: CALL audius_challenges.help();",
        )
        assert value(session, "SELECT has_helpers FROM audius_challenges.last_tick") is False
        assert value(session, OPEN) > 0
        session.execute("SET audius_challenges.workers = 1")
        assert tick(session) == []


def test_a_job_of_a_helper_that_fails_is_a_finding(scheduled: Discovery) -> None:
    with closing(scheduled.connect()) as session:
        session.execute("SELECT * FROM schedule_challenges('1 hour')")
        tick_of(scheduled)
        session.execute(
            "INSERT INTO cron.job_run_details (jobid, runid, command, status, return_message)"
            " SELECT jobid, nextval('cron.runid_seq') + 1000, command, 'failed', 'connection failed'"
            " FROM cron.job CROSS JOIN generate_series(1, 3) WHERE jobname = 'audius_challenges helper 2'"
        )
        found = rows(session, "SELECT severity, found FROM audius_challenges.doctor() WHERE what ~ 'fails.*help'")
        assert found == [("critical", "3 times since its last success: connection failed")]


def test_a_helper_that_stands_still_is_a_finding(people: Discovery) -> None:
    with in_hands(people) as (observer, helper):
        query = "SELECT what, statement FROM audius_challenges.doctor() WHERE what LIKE 'a helper%'"
        assert rows(observer, query) == []
        replace_package(observer, "impatient", "\nPATIENCE = 0\n", "operation/checks_of_ticks")
        (finding,) = rows(observer, query)
        assert finding == (
            "a helper has had a slice in hands for long",
            f"SELECT pg_terminate_backend({helper.pid});",
        )


# Dump and restore


def test_open_slices_of_another_database_are_closed_and_everybody_is_examined(people: Discovery) -> None:
    tick_of(people)
    with closing(people.connect()) as session:
        assert value(session, OPEN) > 0
        session.execute("UPDATE audius_challenges.installation SET cluster = 1")
        session.execute("SELECT build.track(999, 12)")
        come_to_rest(people)
        assert value(session, OPEN) == 0
        assert len(completed(session, "v")) == 12
        assert rows(session, WRITTEN_TWICE) == []
