"""What explain_challenge() says of a user is what the next run does.

It is asked about everybody before a run that examines everybody, whatever has happened; then its rewards are compared
with what the run has written, and its conditions with whether it has.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from psycopg import errors

from devtools.cluster import Cluster
from devtools.discovery import Discovery
from tests.model.database import Database, one_database
from tests.model.spaces import STRANGER, USERS
from tests.model.strategies import History, histories
from tests.model.world import World
from tests.sessions import RUN_ORDER, Connection, column, rows, tick

HISTORIES = int(os.environ.get("AUDIUS_CHALLENGES_EXPLAIN_HISTORIES", "10"))
SEED = os.environ.get("AUDIUS_CHALLENGES_MODEL_SEED") or ("1" if os.environ.get("CI") else "")

ONE_HISTORY = settings(
    max_examples=2,
    deadline=None,
    database=None,
    derandomize=False,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

NOBODY = 77
"""A user id that nobody has."""
MOST_OTHERS = 1
"""Of users whom a history has besides the three that it is about."""

ONE_REWARD = ("u", "fp", "p", "v", "p1", "p2", "p3")
"""Challenges with one reward a user, which is earned where all conditions hold."""

# By a clock of a test's own, which people cannot choose.
EXPLAIN_AT = """
    CREATE FUNCTION build.explain_at(user_id bigint, as_of timestamptz)
    RETURNS TABLE (
        challenge_id text, line text, what text, demanded text, has text, holds boolean, since timestamptz,
        state text, says text, specifier text, amount integer, is_paid boolean, claimable_at timestamptz
    )
    LANGUAGE plpython3u STABLE SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO'
    AS $$
    plpy.execute('SELECT audius_challenges.load()')
    from audius_challenges import entry
    return entry.explain(plpy, user_id, None, as_of)
    $$
"""

USER_CHALLENGES = """
    SELECT challenge_id::text, specifier::text, user_id, is_complete, amount
    FROM user_challenges
"""


@dataclass
class Told:
    """What is said of one user and one challenge."""

    conditions: list[tuple[str, str, bool | None]]
    rewards: dict[str | None, tuple[str, int | None]]
    verdict: tuple[str, str]

    def of(self, *states: str) -> dict[str | None, int | None]:
        """The amounts of rewards in these states, by specifier."""
        return {specifier: amount for specifier, (state, amount) in self.rewards.items() if state in states}

    @property
    def lacks(self) -> list[tuple[str, str, bool | None]]:
        """The conditions that do not hold."""
        return [condition for condition in self.conditions if condition[2] is False]


def told(connection: Connection, user_id: int, call: str = "explain_challenge(%s)", *more: object) -> dict[str, Told]:
    """What is said of a user, by challenge, in run order."""
    found: dict[str, Told] = {}
    query = f"SELECT challenge_id, line, what, has, holds, state, says, specifier, amount FROM {call}"
    for challenge, line, what, has, holds, state, says, specifier, amount in rows(connection, query, user_id, *more):
        here = found.setdefault(challenge, Told([], {}, ("", "")))
        if line == "condition":
            here.conditions.append((what, has, holds))
        elif line == "reward":
            assert specifier not in here.rewards, f"{challenge}: two lines of {specifier}"
            here.rewards[specifier] = (state, amount)
        else:
            here.verdict = (state, says)
    return found


@dataclass(frozen=True)
class Row:
    """A user challenge."""

    user_id: int
    is_complete: bool
    amount: int


def user_challenges(connection: Connection) -> dict[tuple[str, str], Row]:
    return {
        (challenge, specifier): Row(user_id, is_complete, amount)
        for challenge, specifier, user_id, is_complete, amount in rows(connection, USER_CHALLENGES)
    }


def is_true(
    said: dict[str, Told],
    user_id: int,
    before: dict[tuple[str, str], Row],
    after: dict[tuple[str, str], Row],
    statuses: dict[str, str],
) -> None:
    """Asserts that what was said of a user is what the run has done."""
    assert tuple(said) == RUN_ORDER
    for challenge, one in said.items():
        context = (user_id, challenge, one)
        own = {key[1]: row for key, row in after.items() if key[0] == challenge and row.user_id == user_id}
        was_complete = {key[1] for key, row in before.items() if key[0] == challenge and row.is_complete}
        new = {name: row.amount for name, row in own.items() if row.is_complete and name not in was_complete}
        incomplete = {name: row.amount for name, row in own.items() if not row.is_complete}
        complete = {name: row.amount for name, row in own.items() if name in was_complete}
        assert one.of("complete") == complete, context
        assert one.of("next_run") == new, context
        assert one.of("in_progress") == incomplete, context
        state = one.verdict[0]
        if statuses[challenge] != "ok" and not (complete and challenge in ONE_REWARD):
            assert state == statuses[challenge] or not one.conditions[0][2], context
            assert new == {}, context
        elif statuses[challenge] == "ok":
            assert (state == "next_run") == bool(new), context
            # p asks for as many of its steps as its step_count says, which histories change.
            assert new == {} or one.lacks == [] or challenge == "p", context
            if challenge in ONE_REWARD and not one.lacks:
                assert own[next(iter(own))].is_complete, context
        assert one.verdict[1], context


@pytest.fixture(scope="module")
def database(cluster: Cluster, full_template: str) -> Iterator[Database]:
    with one_database(cluster, full_template) as database:
        database.connection.execute(EXPLAIN_AT)
        yield database


def some_users(connection: Connection) -> list[int]:
    """Those whom histories are about, one of the others, and nobody."""
    known = column(connection, "SELECT user_id FROM users UNION SELECT user_id FROM user_challenges ORDER BY user_id")
    others = [user for user in known if user not in (*USERS, STRANGER)]
    return [*USERS, STRANGER, *others[:MOST_OTHERS], NOBODY]


def compare(connection: Connection, as_of: datetime | None, users: list[int]) -> int:
    """Asks about users, and runs for all; all of it is rolled back. Returns how many rewards were foretold."""
    with connection.transaction(force_rollback=True):
        clock = as_of or connection.execute("SELECT now()").fetchone()[0]  # type: ignore[index]
        before = user_challenges(connection)
        said = {user: told(connection, user, "build.explain_at(%s, %s)", clock) for user in users}
        query = "SELECT challenge_id, status FROM reconcile_challenges(full_scan => TRUE, as_of => %s)"
        statuses = dict(rows(connection, query, clock))
        after = user_challenges(connection)
        for user, one in said.items():
            is_true(one, user, before, after, statuses)
        return sum(len(one.of("next_run")) for each in said.values() for one in each.values())


def test_what_it_says_is_what_the_next_run_does(database: Database) -> None:
    foretold = 0

    def follow(history: History) -> None:
        nonlocal foretold
        if not any(chapter.events for chapter in history.chapters):
            return
        world = World(database, history.environment, history.timezone)
        for person in history.people:
            person.happen(world)
        for chapter in history.chapters:
            for event in chapter.events:
                event.happen(world)
                world.mirror()
            try:
                foretold += compare(database.connection, chapter.run.as_of, some_users(database.connection))
                database.reconcile(replace(chapter.run, as_of=chapter.run.as_of or database.now()))
            except errors.InvalidParameterValue as refused:
                assert "as_of must not be earlier" in str(refused)  # noqa: PT017 - the history goes back in time
            # What happens next goes by the rows that there are.
            there = database.derived()["user_challenges"]
            world.model.user_challenges = {(row.challenge_id, row.specifier): row for row in there}

    first = int(SEED) if SEED else random.SystemRandom().randrange(2**32)
    for number in range(first, first + HISTORIES):
        try:
            seed(number)(ONE_HISTORY(given(histories)(follow)))()
        except BaseException:
            print(f"again: AUDIUS_CHALLENGES_MODEL_SEED={number} AUDIUS_CHALLENGES_EXPLAIN_HISTORIES=1")
            raise
    assert foretold > HISTORIES


@pytest.fixture
def session(discovery: Discovery) -> Iterator[Connection]:
    """A session in a fresh database, every challenge active."""
    with closing(discovery.connect()) as connection:
        connection.execute("UPDATE challenges SET active = TRUE, starting_block = 0")
        connection.execute(EXPLAIN_AT)
        yield connection


FRIDAY = datetime.fromisoformat("2026-11-20 12:00+00:00")


def test_who_qualifies_is_told_so_and_who_almost_does_is_told_what_he_lacks(session: Connection) -> None:
    for number, challenge in enumerate(RUN_ORDER):
        session.execute("SELECT build.qualify(%s, %s)", [challenge, 100 + number])
        session.execute("SELECT build.almost(%s, %s)", [challenge, 200 + number])
    everybody = column(session, "SELECT DISTINCT user_id FROM users")
    assert compare(session, FRIDAY, everybody) >= len(RUN_ORDER)
    for number, challenge in enumerate(RUN_ORDER):
        qualified = told(session, 100 + number, "build.explain_at(%s, %s)", FRIDAY)[challenge]
        assert (qualified.verdict[0], qualified.lacks) == ("next_run", []), challenge
        almost = told(session, 200 + number, "build.explain_at(%s, %s)", FRIDAY)[challenge]
        assert almost.verdict[0] != "next_run", challenge
        assert almost.lacks != [], challenge
    session.execute("SELECT count(*) FROM reconcile_challenges(full_scan => TRUE, as_of => %s)", [FRIDAY])
    for number, challenge in enumerate(RUN_ORDER):
        paid = told(session, 100 + number, "build.explain_at(%s, %s)", FRIDAY)[challenge]
        assert paid.verdict[0] in ("complete", "waits"), challenge
    assert compare(session, FRIDAY, [100, 104]) == 0


def test_a_role_with_grant_status_may_ask_and_one_that_lacks_a_table_is_told_the_grant(session: Connection) -> None:
    session.execute("DROP ROLE IF EXISTS asking")
    session.execute("CREATE ROLE asking")
    session.execute("SELECT audius_challenges.grant_status('asking')")
    session.execute("SELECT build.person(1, is_verified => TRUE)")
    session.execute("SET ROLE asking")
    assert [one.verdict[0] for one in told(session, 1).values()].count("next_run") == 1
    session.execute("RESET ROLE; REVOKE SELECT ON follows FROM asking; SET ROLE asking")
    with pytest.raises(errors.InsufficientPrivilege, match="follows") as refused:
        told(session, 1)
    hint = "SELECT audius_challenges.grant_status('asking'); grants what is read."
    assert (refused.value.diag.message_hint or "").startswith(hint)
    session.execute("RESET ROLE; SELECT audius_challenges.grant_status('asking')")
    session.execute("CREATE POLICY most ON users USING (user_id > 1); ALTER TABLE users ENABLE ROW LEVEL SECURITY")
    session.execute("SET ROLE asking")
    with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
        told(session, 1)
    session.execute("RESET ROLE; DROP OWNED BY asking; DROP ROLE asking")


def test_it_answers_in_a_renamed_schema_and_without_the_optional_table(session: Connection) -> None:
    session.execute("SELECT build.qualify('v', 1)")
    session.execute("DROP TABLE sol_reward_disbursements")
    session.execute("ALTER SCHEMA public RENAME TO discovery_provider")
    session.execute("SET search_path = discovery_provider")
    assert told(session, 1)["v"].of("next_run") == {"1": 5}


def test_a_table_that_is_missing_fails_the_challenges_that_read_it_and_the_others_answer(session: Connection) -> None:
    session.execute("SELECT build.qualify('v', 1)")
    session.execute("DROP TABLE playlists CASCADE")
    verdicts = {challenge: one.verdict for challenge, one in told(session, 1).items()}
    assert verdicts["v"][0] == "next_run"
    assert 'table "public.playlists" does not exist' in verdicts["fp"][1]
    assert {challenge for challenge, (state, _) in verdicts.items() if state == "failed"} == {"fp", "tp", "b", "s"}


@pytest.mark.parametrize("table", ["users", "challenge_disbursements", "user_challenges", "challenges"])
def test_a_table_without_which_there_is_no_answer_is_named(session: Connection, table: str) -> None:
    session.execute("SELECT build.qualify('v', 1)")
    session.execute(f"ALTER TABLE {table} RENAME TO moved")
    with pytest.raises(errors.UndefinedTable) as refused:
        told(session, 1)
    diagnostics = refused.value.diag
    assert diagnostics.message_primary == f'audius_challenges: table "public.{table}" does not exist'
    assert "The extension looks for the discovery tables in schema public" in (diagnostics.message_hint or "")


REWARD = "SELECT says, claimable_at::text FROM explain_challenge(1, 'v') WHERE line = 'reward'"


@pytest.mark.parametrize(
    ("completed_at", "cooldown", "says", "claimable_at"),
    [
        ("2026-01-01 10:00", 2147483647, "it can never be claimed: its cooldown does not end.", "infinity"),
        ("infinity", 7, "it can never be claimed: its cooldown does not end.", "infinity"),
        ("-infinity", 7, "it can be claimed: its cooldown ended before all time.", "-infinity"),
        ("2026-01-01 10:00", -2147483648, "it can be claimed: its cooldown ended before all time.", "-infinity"),
        ("294276-12-31 10:00", 0, "it can be claimed from 294276-12-31 10:00 UTC.", "294276-12-31 10:00:00+00"),
        ("294276-12-31 10:00", 1, "it can never be claimed: its cooldown does not end.", "infinity"),
        ("2026-01-01 10:00", -800000, "it can be claimed since 0166-09-05 BC 10:00 UTC.", "0166-09-05 10:00:00+00 BC"),
    ],
)
def test_when_it_can_be_claimed_is_told_whatever_the_dates(
    session: Connection, completed_at: str, cooldown: int, says: str, claimable_at: str
) -> None:
    session.execute("SET timezone = 'UTC'")
    session.execute("SELECT build.qualify('v', 1)")
    session.execute("SELECT FROM reconcile_challenges(ARRAY['v'])")
    session.execute("UPDATE user_challenges SET completed_at = %s WHERE challenge_id = 'v'", (completed_at,))
    session.execute("UPDATE challenges SET cooldown_days = %s WHERE id = 'v'", (cooldown,))
    assert rows(session, REWARD) == [(f"Not paid; {says}", claimable_at)]


def test_after_a_failed_run_it_says_when_and_why_and_what_the_next_one_does(session: Connection) -> None:
    session.execute("UPDATE challenges SET amount = 'five' WHERE id = 'v'")
    session.execute("SELECT build.qualify('v', 1), build.person(2)")
    session.execute("SELECT FROM reconcile_challenges(ARRAY['v'])")
    state, says = told(session, 1)["v"].verdict
    assert state == "failed"
    assert re.match(r"The challenge fails, and nothing moves until that is mended\. The error: .*five", says)
    session.execute("UPDATE challenges SET amount = '5' WHERE id = 'v'")
    at = "SELECT to_char(last_error_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') FROM challenge_status"
    (when,) = column(session, f"{at} WHERE challenge_id = 'v'")
    failed = rf"^Failed at its last run \({when} UTC\); the next run tries again\. "
    said = told(session, 1)["v"]
    assert said.of("next_run") == {"1": 5}
    assert said.verdict[0] == "failed"
    assert re.match(rf"{failed}Earned: 1 reward, 5 \$AUDIO\. .* The error: .*invalid amount.*five", said.verdict[1])
    assert re.match(rf"{failed}Not earned\. Missing: verification .* The error: ", told(session, 2)["v"].verdict[1])
    session.execute("SELECT FROM reconcile_challenges(ARRAY['v'])")
    assert told(session, 1)["v"].verdict[0] == "complete"
    assert told(session, 2)["v"].verdict[0] == "below_target"


@pytest.mark.parametrize("switch", ["SET", "ALTER DATABASE {} SET"])
def test_where_challenges_are_switched_off_verdicts_say_so(session: Connection, switch: str) -> None:
    session.execute("SELECT build.qualify('v', 1), build.person(2)")
    session.execute("SELECT FROM reconcile_challenges(ARRAY['u'])")
    session.execute("UPDATE challenges SET active = FALSE WHERE id = 'u'")
    session.execute(f"{switch.format(session.info.dbname)} audius_challenges.enabled = off")
    off = "audius_challenges.enabled is off"
    state, says = told(session, 1)["v"].verdict
    assert (state, says.count(off)) == ("next_run", 1), says
    state, says = told(session, 2)["v"].verdict
    assert (state, says.count(off)) == ("below_target", 1), says
    assert told(session, 1)["u"].verdict == ("inactive", "The challenge is not active, so nothing moves.")
    session.execute("SET audius_challenges.enabled = off")
    tick(session)
    state, says = told(session, 1)["v"].verdict
    assert (state, says.count(off)) == ("next_run", 1), says
