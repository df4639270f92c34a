"""Runs among other sessions: locks, cancels, crashes, failing processors, limits, and what an idle run costs."""

import datetime as dt
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import errors

from devtools.cluster import Cluster
from devtools.discovery import CREATE_EXTENSION, Discovery, create_discovery
from tests.sessions import (
    REGISTRY,
    RUN_LOCK,
    RUN_ORDER,
    TICK,
    Beside,
    Connection,
    NewCluster,
    Notice,
    column,
    completed,
    failed,
    failing,
    let_p_wait,
    message_of,
    notices,
    processor_of,
    replace_package,
    row_versions,
    rows,
    shown,
    statuses,
    tick,
    until,
    value,
    well,
)

RECONCILE = "SELECT * FROM reconcile_challenges()"
IDLE_WAL = 8_192
"""Bytes of WAL that an idle tick may log, all challenges active."""
BUSY = [Notice("another run of audius_challenges is under way: nothing was done", None)]

# User 255, then 4095, complete fp and v, and have one step of u and of p.
PERSON = (
    "SELECT build.person({id}, name => 'n', is_verified => TRUE)",
    "SELECT build.playlist({id}, {id}, blocknumber => 28350000)",
    "SELECT build.track({id}, {id}, blocknumber => 25346436)",
)
PAID_255 = [("fp", "ff", 2, 1, True), ("p", "ff", 1, 1, False), ("u", "ff", 1, 1, False), ("v", "ff", 5, 1, True)]


@pytest.fixture
def connection(discovery: Discovery) -> Iterator[Connection]:
    """A session in a fresh discovery database with the extension, in which everybody's first build is done."""
    with closing(discovery.connect()) as connection:
        assert tick(connection) == []
        yield connection


@pytest.fixture(scope="module")
def still_discovery(cluster: Cluster, full_template: str) -> Iterator[Discovery]:
    """A database in which user 255 has not been seen yet, for tests after which it is as before."""
    still = Discovery(cluster, "still")
    cluster.create_database(still.name, full_template)
    with closing(still.connect()) as connection:
        assert tick(connection) == []
        add_person(connection, 255)
    yield still
    cluster.drop_database(still.name)


@pytest.fixture
def still(still_discovery: Discovery) -> Iterator[Connection]:
    """A session in that database; nothing has changed in the end, and no lock is left."""
    with closing(still_discovery.connect()) as observer:
        before = everything(observer)
        with closing(still_discovery.connect()) as connection:
            yield connection
            assert everything(observer) == before
            assert run_locks(observer) == 0


def add_person(connection: Connection, user_id: int) -> None:
    """Somebody who completes fp and v."""
    for statement in PERSON:
        connection.execute(statement.format(id=user_id))


def paid(connection: Connection) -> list[tuple[Any, ...]]:
    """The user challenges that somebody like this has, without their times and blocks."""
    return rows(
        connection,
        """
        SELECT challenge_id, specifier, amount, current_step_count, is_complete
        FROM user_challenges
        WHERE challenge_id = ANY(%s)
        ORDER BY challenge_id, specifier
        """,
        [row[0] for row in PAID_255],
    )


def everything(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Every row version of every table of the database, but for what is remembered of the last tick."""
    found = row_versions(connection, "public", "audius_challenges")
    return {table: versions for table, versions in found.items() if table != "audius_challenges.last_tick"}


def run_locks(observer: Connection) -> int:
    """How many sessions hold the lock of a run in this database."""
    found: int = value(
        observer,
        """
        SELECT count(*)
        FROM pg_locks
        WHERE locktype = 'advisory'
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        """,
    )
    return found


def set_for_database(connection: Connection, name: str, setting: str | None) -> None:
    """ALTER DATABASE … SET, and the same in this session; None: RESET."""
    database = f'ALTER DATABASE "{connection.info.dbname}"'
    if setting is None:
        connection.execute(f"{database} RESET {name}")
        connection.execute(f"RESET {name}")
    else:
        connection.execute(f"{database} SET {name} = '{setting}'")
        connection.execute(f"SET {name} = '{setting}'")


# Two runs never overlap


def test_a_second_run_finds_the_first_busy_and_changes_nothing(connection: Connection, discovery: Discovery) -> None:
    add_person(connection, 255)
    set_for_database(connection, "audius_challenges.lock_timeout", "1min")
    with (
        closing(discovery.connect()) as first,
        closing(discovery.connect(autocommit=False)) as blocker,
        closing(discovery.connect()) as second,
    ):
        blocker.execute("LOCK TABLE aggregate_monthly_plays")
        run = Beside(first, TICK)
        run.wait_until_blocked(connection)
        before = everything(blocker)

        assert tick(second) == BUSY
        with notices(second) as heard:
            assert statuses(second) == dict.fromkeys(RUN_ORDER, ("busy", None))
        assert heard == BUSY
        with pytest.raises(errors.ObjectNotInPrerequisiteState) as refused:
            second.execute("SELECT audius_challenges.start_from_now()")
        assert refused.value.diag.message_primary == "audius_challenges: a run of audius_challenges is under way"
        assert f"SELECT pg_terminate_backend({run.pid});" in (refused.value.diag.message_hint or "")
        assert everything(blocker) == before

        blocker.rollback()
        assert run.finish() is None
        assert paid(connection) == PAID_255
        assert tick(second) == []


def test_a_tick_beside_an_open_reconcile_says_so(connection: Connection, discovery: Discovery) -> None:
    with closing(discovery.connect(autocommit=False)) as first:
        first.execute(RECONCILE)
        assert tick(connection) == BUSY
        first.rollback()
        assert tick(connection) == []


def test_a_failed_tick_leaves_no_lock(connection: Connection, discovery: Discovery) -> None:
    connection.execute("ALTER TABLE playlists RENAME TO away")
    with pytest.raises(errors.ExternalRoutineException):
        tick(connection)
    assert run_locks(connection) == 0
    with closing(discovery.connect()) as second, pytest.raises(errors.ExternalRoutineException) as raised:
        tick(second)
    assert {"fp", "tp"} <= set(failed(raised.value.diag.message_primary))


@dataclass(frozen=True)
class Interruption:
    """A way to stop a session in mid-run, and the SQLSTATE that it sees."""

    before: str | None
    during: str | None
    sqlstate: str


INTERRUPTIONS = {
    "cancel": Interruption(None, "SELECT pg_cancel_backend(%s)", "57014"),
    "statement timeout": Interruption("SET statement_timeout = '1s'", None, "57014"),
    "terminate": Interruption(None, "SELECT pg_terminate_backend(%s)", "57P01"),
}


@pytest.mark.parametrize("statement", [TICK, RECONCILE], ids=["tick", "reconcile"])
@pytest.mark.parametrize("name", INTERRUPTIONS)
def test_an_interrupted_run_leaves_nothing_half_done_and_no_lock(
    connection: Connection, discovery: Discovery, name: str, statement: str
) -> None:
    interruption = INTERRUPTIONS[name]
    add_person(connection, 255)
    let_p_wait(connection)  # at a trigger, after its rows: u and fp come before, v after
    with (
        closing(discovery.connect()) as session,
        closing(discovery.connect(autocommit=False)) as blocker,
    ):
        blocker.execute("SELECT pg_advisory_xact_lock(7)")
        if interruption.before:
            session.execute(interruption.before)
        run = Beside(session, statement)
        run.wait_until_blocked(connection)
        if interruption.during:
            connection.execute(interruption.during, (run.pid,))
        error = run.finish()

        assert error is not None
        assert error.sqlstate == interruption.sqlstate
        until(lambda: not rows(connection, "SELECT FROM pg_locks WHERE pid = %s", run.pid), "the end of its locks")
        # A tick keeps what its earlier processors did; reconcile_challenges() is one transaction.
        whole = [row for row in PAID_255 if row[0] in ("u", "fp")] if statement == TICK else []
        assert paid(connection) == whole
        assert value(connection, "SELECT count(*) FROM challenge_profile_completion") == 0
        # Whoever is terminated tells nobody; that is up to the next tick.
        assert list(failing(connection)) == ["p"] * (statement == TICK and name != "terminate")

        blocker.rollback()
        assert tick(connection) == []
        assert paid(connection) == PAID_255
        assert shown(connection) == well(connection)
        if name != "terminate":  # the session itself can go on, too
            session.execute("RESET statement_timeout")
            assert statuses(session)["p"] == ("ok", None)
            assert run_locks(connection) == 0


# A first build, slice by slice


SOURCES = (
    "SELECT build.person(n, name => 'n', is_verified => n % 2 = 0) FROM generate_series(1, 90) AS n",
    "SELECT build.playlist(n, n, blocknumber => 28350000) FROM generate_series(1, 90, 3) AS n",
    "SELECT build.track(n, n % 30 + 1, blocknumber => 25346436) FROM generate_series(1, 90) AS n",
    "SELECT build.follow(n % 40 + 1, n % 7 + 50, txhash => n::text) FROM generate_series(1, 250) AS n",
    "SELECT build.save(n, 1) FROM generate_series(1, 90, 2) AS n",
    "SELECT build.monthly(n, '2026-01-01', n * 40) FROM generate_series(1, 90) AS n",
    """
    SELECT build.play(n % 25 + 1, 1, TIMESTAMP '2026-01-01 12:00' + (n / 25) * INTERVAL '1 day')
    FROM generate_series(0, 249) AS n
    """,
)
# A row, but for the moment and the block in which it was written.
DERIVED = (
    """
    SELECT challenge_id, specifier, user_id, is_complete, current_step_count, amount
    FROM user_challenges
    ORDER BY challenge_id, specifier COLLATE "C"
    """,
    "SELECT * FROM challenge_profile_completion ORDER BY user_id",
    "SELECT * FROM challenge_listen_streak ORDER BY user_id",
)


def derived(connection: Connection) -> list[list[tuple[Any, ...]]]:
    """What the source tables lead to."""
    return [rows(connection, query) for query in DERIVED]


def add_ninety(discovery: Discovery) -> None:
    """Ninety users with something of everything, all challenges active."""
    with closing(discovery.connect()) as connection:
        connection.execute("UPDATE challenges SET active = TRUE, starting_block = 0")
        for statement in SOURCES:
            connection.execute(statement)


def test_a_server_killed_in_a_first_build_finishes_it_after_the_restart(new_cluster: NewCluster) -> None:
    cluster = new_cluster(cron_database="postgres", settings={"audius_challenges.lock_timeout": "1min"})
    crashing = create_discovery(cluster, "crashing")
    crashing.psql(CREATE_EXTENSION)
    add_ninety(crashing)
    cluster.create_database("unharmed", template="crashing")
    unharmed = Discovery(cluster, "unharmed")
    for setting in ("slice_users = 20", "sweep_users = 20", "time_budget = '0ms'"):
        crashing.psql(f"ALTER DATABASE crashing SET audius_challenges.{setting}")

    session, blocker = crashing.connect(), crashing.connect(autocommit=False)
    assert tick(session) == []
    assert column(session, "SELECT sweep_position FROM challenge_status WHERE challenge_id = 'p'") == [20]
    blocker.execute("LOCK TABLE challenge_profile_completion")
    run = Beside(session, TICK)
    with closing(crashing.connect()) as observer:
        run.wait_until_blocked(observer)  # u and fp have committed their second slice, p is in the middle of it
    cluster.crash()
    assert run.finish() is not None
    blocker.close()
    session.close()
    cluster.start()

    with closing(crashing.connect()) as connection:
        assert dict(rows(connection, "SELECT challenge_id, sweep_position FROM challenge_status"))["p"] == 20
        assert shown(connection) != well(connection)
        for _ in range(8):
            assert tick(connection) == []
        assert shown(connection) == well(connection)
        with closing(unharmed.connect()) as other:
            assert statuses(other, "reconcile_challenges(full_scan => TRUE)") == dict.fromkeys(RUN_ORDER, ("ok", None))
            expected = derived(other)
        assert derived(connection) == expected
        assert [len(found) for found in expected][1:] == [90, 25]
        assert {row[0] for row in expected[0] if row[3]} >= {"fp", "u", "v", "e", "p1", "p2"}
        assert value(connection, "SELECT count(*) FROM user_challenges_log WHERE old = new") == 0


def test_a_tick_keeps_to_its_time_budget_and_shows_the_progress(discovery: Discovery) -> None:
    add_ninety(discovery)
    with closing(discovery.connect()) as connection:
        connection.execute("SET audius_challenges.slice_users = 25")
        connection.execute("SET audius_challenges.time_budget = '0ms'")
        progress = """
            SELECT status, sweep_progress::float8, sweep_position, sweep_rounds
            FROM challenge_status
            WHERE challenge_id = 'fp'
        """
        assert rows(connection, progress) == [("stopped", None, None, None)]
        seen = []
        for _ in range(4):
            assert tick(connection) == []
            seen += rows(connection, progress)
        # 90 users, the greatest id 90, in slices of 25
        assert seen == [
            ("first build", 27.8, 25, 0),
            ("first build", 55.6, 50, 0),
            ("first build", 83.3, 75, 0),
            ("ok", None, None, 1),
        ]
        assert completed(connection, "fp") == sorted(f"{n:x}" for n in range(1, 91, 3))


def test_a_first_build_is_done_in_one_tick_where_the_time_budget_allows(discovery: Discovery) -> None:
    add_ninety(discovery)
    with closing(discovery.connect()) as connection:
        connection.execute("SET audius_challenges.slice_users = 25")
        connection.execute("SET audius_challenges.time_budget = '10min'")
        assert tick(connection) == []
        assert shown(connection) == well(connection)
        rounds = dict(rows(connection, "SELECT challenge_id, sweep_rounds FROM challenge_status"))
        swept = ("u", "fp", "p", "v", "p1", "p2", "p3")
        assert {challenge: rounds[challenge] for challenge in swept} == dict.fromkeys(swept, 1)
        assert completed(connection, "fp") == sorted(f"{n:x}" for n in range(1, 91, 3))


# One failing processor never stops or undoes another


TRIGGER_THAT_CANNOT_WORK = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO dropped VALUES (new.specifier);
    END $$;
"""


@dataclass(frozen=True)
class Breakage:
    """Something that makes challenges fail, these among them, with what each of them says, and how it is repaired."""

    statement: str
    fail: tuple[str, ...]
    error: str
    repair: str


BREAKAGES = {
    "table renamed away": Breakage(
        "ALTER TABLE playlists RENAME TO away",
        ("fp", "tp"),
        'table "public.playlists" does not exist',
        "ALTER TABLE away RENAME TO playlists",
    ),
    "column dropped": Breakage(
        "ALTER TABLE users DROP COLUMN bio",
        ("p",),
        'column "bio" of table "public.users" does not exist',
        "ALTER TABLE users ADD COLUMN bio varchar",
    ),
    "column of another type": Breakage(
        "ALTER TABLE saves ALTER COLUMN is_delete TYPE text",
        ("p",),
        'column "is_delete" of table "public.saves" is of type text',
        "ALTER TABLE saves ALTER COLUMN is_delete TYPE boolean USING is_delete::boolean",
    ),
    "trigger that cannot work": Breakage(
        TRIGGER_THAT_CANNOT_WORK
        + """
        CREATE TRIGGER refuse AFTER INSERT ON user_challenges
        FOR EACH ROW WHEN (new.challenge_id = 'fp') EXECUTE FUNCTION refuse()
        """,
        ("fp",),
        'relation "dropped" does not exist',
        "DROP TRIGGER refuse ON user_challenges",
    ),
    "deferred constraint trigger that cannot work at commit": Breakage(
        TRIGGER_THAT_CANNOT_WORK
        + """
        CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON user_challenges DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (new.challenge_id = 'fp') EXECUTE FUNCTION refuse()
        """,
        ("fp",),
        'relation "dropped" does not exist',
        "DROP TRIGGER refuse ON user_challenges",
    ),
    "catalog amount that is no number": Breakage(
        "UPDATE challenges SET amount = '2.5' WHERE id = 'fp'",
        ("fp",),
        'challenge "fp" has an invalid amount in the catalog: "2.5"',
        "UPDATE challenges SET amount = '2' WHERE id = 'fp'",
    ),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_failing_processor_stops_and_undoes_no_other(connection: Connection, name: str) -> None:
    breakage = BREAKAGES[name]
    add_person(connection, 255)
    tick(connection)
    add_person(connection, 4095)
    connection.execute(breakage.statement)

    with pytest.raises(errors.ExternalRoutineException) as raised:
        tick(connection)

    assert breakage.error in (raised.value.diag.message_detail or "")
    found = failing(connection)
    assert failed(raised.value.diag.message_primary) == list(found)
    assert set(breakage.fail) <= set(found)
    assert [error for error in found.values() if not error.startswith(breakage.error)] == []
    both = sorted([*PAID_255, *((*row[:1], "fff", *row[2:]) for row in PAID_255)])
    assert paid(connection) == [row for row in both if row[1] == "ff" or row[0] not in breakage.fail]
    assert shown(connection) == well(connection) | {name: ("failing", error) for name, error in found.items()}

    connection.execute(breakage.repair)
    assert tick(connection) == []
    assert shown(connection) == well(connection)
    assert paid(connection) == both


def test_a_processor_does_not_queue_behind_somebodys_lock(connection: Connection, discovery: Discovery) -> None:
    add_person(connection, 255)
    connection.execute("SET audius_challenges.lock_timeout = '100ms'")
    with closing(discovery.connect(autocommit=False)) as somebody:
        somebody.execute("LOCK TABLE aggregate_monthly_plays")
        began = time.monotonic()
        with pytest.raises(errors.ExternalRoutineException) as raised:
            tick(connection)
        assert time.monotonic() - began < 10
    found = failing(connection)
    assert failed(raised.value.diag.message_primary) == list(found)
    assert {"p1", "p2", "p3"} <= set(found)
    assert set(found.values()) == {"canceling statement due to lock timeout (SQLSTATE 55P03)"}
    assert paid(connection) == PAID_255
    assert tick(connection) == []
    assert failing(connection) == {}
    assert value(connection, "SHOW lock_timeout") == "0"  # what a run sets ends with it


def test_a_mistake_of_our_own_fails_its_processor_and_shows_file_line_and_source(connection: Connection) -> None:
    add_person(connection, 255)
    connection.execute("UPDATE challenges SET active = TRUE WHERE id = 'e'")
    mistake = f"""

def fall(self, *_):
    raise LookupError("nobody thought of " + self.id)


type({processor_of("e")}).run = fall
"""
    replace_package(connection, "mistaken", mistake, REGISTRY)

    with pytest.raises(errors.ExternalRoutineException) as raised:
        tick(connection)

    assert failed(raised.value.diag.message_primary) == ["e"]
    error = failing(connection)["e"]
    assert error.startswith("Traceback (most recent call last):\n")
    assert re.search(
        rf'  File "audius_challenges/{REGISTRY}.py", line \d+, in fall\n'
        r'    raise LookupError\("nobody thought of " \+ self.id\)\n',
        error,
    )
    assert error.splitlines()[-1] == "LookupError: nobody thought of e"
    assert paid(connection) == PAID_255


# Where a run cannot work


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_any_other_isolation_than_read_committed_is_an_error(still: Connection, isolation: str) -> None:
    """Of the caller's transaction; a tick makes its own."""
    still.execute(f"SET default_transaction_isolation = '{isolation}'")

    with pytest.raises(errors.ActiveSqlTransaction) as refused:
        still.execute(RECONCILE)

    message, hint = message_of(refused.value)
    assert message == f"audius_challenges: a run requires READ COMMITTED, not {isolation.upper()}"
    assert (hint or "").startswith("Use READ COMMITTED")


@pytest.mark.parametrize("statement", [TICK, RECONCILE], ids=["tick", "reconcile"])
def test_a_read_only_transaction_is_an_error(still: Connection, statement: str) -> None:
    still.execute("SET default_transaction_read_only = on")
    with pytest.raises(errors.ReadOnlySqlTransaction) as refused:
        still.execute(statement)
    assert message_of(refused.value)[0] == "audius_challenges: the transaction is read-only"


def test_a_tick_inside_a_transaction_is_an_error_that_says_what_to_call(still: Connection) -> None:
    expected = (
        "audius_challenges: tick() cannot run inside a transaction block",
        "Call it alone, or use SELECT * FROM reconcile_challenges(); in a transaction.",
    )
    with pytest.raises(errors.InvalidTransactionTermination) as refused, still.transaction():
        still.execute(TICK)
    assert message_of(refused.value) == expected
    with pytest.raises(errors.InvalidTransactionTermination) as refused:
        still.execute(f"SELECT pg_sleep(0); {TICK}")
    assert message_of(refused.value) == expected
    # A DO block alone is no transaction block; a function is always in somebody's.
    still.execute(f"CREATE FUNCTION pg_temp.ticking() RETURNS void LANGUAGE plpgsql AS $$ BEGIN {TICK}; END $$")
    with pytest.raises(errors.InvalidTransactionTermination) as refused:
        still.execute("SELECT pg_temp.ticking()")
    assert message_of(refused.value) == expected

    with still.transaction(force_rollback=True):
        assert statuses(still)["v"] == ("ok", None)
        assert paid(still) == PAID_255


RESTORES = {
    "pg_restore is connected": (
        "SET application_name = 'pg_restore'",
        "Wait until pg_restore has finished.",
        "RESET application_name",
    ),
    "there is no table public.user_challenges": (
        "ALTER TABLE user_challenges RENAME TO away",
        "The extension looks for the discovery tables in schema public; CREATE EXTENSION ... SCHEMA sets another.",
        "ALTER TABLE away RENAME TO user_challenges",
    ),
    "no primary key on user_challenges yet": (
        "ALTER TABLE user_challenges DROP CONSTRAINT user_challenges_pkey",
        "If no restore is under way, create the primary key of user_challenges; nothing runs without it.",
        "ALTER TABLE user_challenges ADD PRIMARY KEY (challenge_id, specifier)",
    ),
    "user_challenges has no trigger_of_old yet": (
        "UPDATE audius_challenges.installation SET cluster = 1, guards = guards || 'trigger_of_old'::text",
        "If no restore is under way, create it; or SELECT * FROM reconcile_challenges(); accepts the table as it is.",
        "SELECT * FROM reconcile_challenges()",
    ),
}


@pytest.mark.parametrize("reason", RESTORES)
def test_what_looks_like_a_restore_has_a_hint_that_mends_it(connection: Connection, reason: str) -> None:
    assert tick(connection) == []
    sign, hint, mend = RESTORES[reason]
    connection.execute(sign)
    for _ in range(2):
        assert tick(connection) == [Notice(f"{reason}: a restore seems to be under way, nothing was done", hint)]
    connection.execute(mend)
    assert tick(connection) == []
    assert shown(connection) == well(connection)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("enabled", "maybe"),
        ("max_completions", "many"),
        ("max_completions", "-1"),
        ("max_completions", "1e3"),
        ("slice_users", "0"),
        ("sweep_users", "2147483648"),
        ("changed_users", "1.5"),
        ("time_budget", "25"),
        ("time_budget", "25 parsecs"),
        ("lock_timeout", "-1s"),
    ],
)
def test_a_setting_that_does_not_parse_is_an_error_and_nothing_changes(
    still: Connection, name: str, setting: str
) -> None:
    still.execute(f"SET audius_challenges.{name} = '{setting}'")
    for statement in (TICK, RECONCILE, "SELECT audius_challenges.start_from_now()"):
        with pytest.raises(errors.InvalidParameterValue) as refused:
            still.execute(statement)
        message, hint = message_of(refused.value)
        assert message == f'audius_challenges: invalid value for setting "audius_challenges.{name}": "{setting}"'
        assert f"audius_challenges.{name}" in (hint or "")


def test_switched_off_runs_do_nothing_and_say_so(connection: Connection, discovery: Discovery) -> None:
    add_person(connection, 255)
    set_for_database(connection, "audius_challenges.enabled", "off")
    before = everything(connection)
    with closing(discovery.connect()) as new_session:
        off = [Notice("audius_challenges.enabled is off: nothing was done", None)]
        assert tick(new_session) == off
        with notices(new_session) as heard:
            assert statuses(new_session) == dict.fromkeys(RUN_ORDER, ("inactive", "audius_challenges.enabled is off"))
        assert heard == off
    assert everything(connection) == before

    set_for_database(connection, "audius_challenges.enabled", None)
    assert tick(connection) == []
    assert paid(connection) == PAID_255


# A mass payout is an accident until a person says otherwise


def test_more_completions_than_the_maximum_fail_their_processor_alone(connection: Connection) -> None:
    connection.execute("SET audius_challenges.max_completions = 3")
    connection.execute("SELECT build.person(n, is_verified => TRUE, name => 'n') FROM generate_series(1, 4) AS n")
    connection.execute("SELECT build.playlist(n, n, blocknumber => 28350000) FROM generate_series(1, 3) AS n")

    with pytest.raises(errors.ExternalRoutineException) as raised:
        tick(connection)

    assert failed(raised.value.diag.message_primary) == ["v"]
    error = failing(connection)["v"]
    assert error.startswith(
        'challenge "v" would complete at least 4 rewards in one run; audius_challenges.max_completions is 3'
        " DETAIL: Nothing was written"
    )
    assert "SET audius_challenges.max_completions" in error
    assert rows(connection, "SELECT FROM user_challenges WHERE challenge_id = 'v'") == []
    assert completed(connection, "fp") == ["1", "2", "3"]
    assert value(connection, "SELECT count(*) FROM user_challenges WHERE challenge_id = 'p'") == 4
    assert statuses(connection)["v"][0] == "failed"  # it stays so until a person says otherwise

    connection.execute("SET audius_challenges.max_completions = 4")
    assert tick(connection) == []
    assert completed(connection, "v") == ["1", "2", "3", "4"]


def test_a_first_build_may_complete_any_number(discovery: Discovery) -> None:
    with closing(discovery.connect()) as connection:
        connection.execute("SET audius_challenges.max_completions = 3")
        connection.execute("SET audius_challenges.slice_users = 2")
        connection.execute("SELECT build.person(n, is_verified => TRUE) FROM generate_series(1, 9) AS n")
        assert tick(connection) == []
        assert completed(connection, "v") == [str(n) for n in range(1, 10)]


def test_the_first_build_of_a_database_has_no_limit_whatever_fails_at_first(discovery: Discovery) -> None:
    with closing(discovery.connect()) as connection:
        connection.execute("SET audius_challenges.max_completions = 3")
        connection.execute("SELECT build.person(n, is_verified => TRUE) FROM generate_series(1, 9) AS n")
        connection.execute("SELECT build.playlist(n, n, blocknumber => 28350000) FROM generate_series(1, 9) AS n")
        connection.execute("ALTER TABLE playlists RENAME TO away")
        with pytest.raises(errors.ExternalRoutineException):
            tick(connection)
        assert (len(completed(connection, "v")), len(completed(connection, "fp"))) == (9, 0)
        connection.execute("ALTER TABLE away RENAME TO playlists")
        assert tick(connection) == []
        assert len(completed(connection, "fp")) == 9


def living_database(connection: Connection, change: str) -> None:
    """One that has paid v; then fp is added, nine of whose rewards were earned before."""
    connection.execute(change)
    connection.execute("SELECT build.person(n, is_verified => TRUE) FROM generate_series(1, 9) AS n")
    connection.execute("SELECT build.playlist(n, n, blocknumber => 28350000) FROM generate_series(1, 9) AS n")
    assert tick(connection) == []
    assert (len(completed(connection, "v")), len(completed(connection, "fp"))) == (9, 0)
    connection.execute("SET audius_challenges.max_completions = 5")
    connection.execute("SET audius_challenges.slice_users = 2")
    connection.execute("SET audius_challenges.time_budget = '0 ms'")


ACTIVE = "UPDATE challenges SET active = {} WHERE id = '{}'"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (ACTIVE.format("FALSE", "fp"), ACTIVE.format("TRUE", "fp")),
        (
            "DELETE FROM challenges WHERE id = 'fp'",
            "INSERT INTO challenges (id, type, amount, active, starting_block) VALUES ('fp', 'boolean', '2', TRUE, 0)",
        ),
    ],
)
def test_a_challenge_that_is_added_to_a_living_database_does_not_pay_its_past_without_a_limit(
    discovery: Discovery, before: str, after: str
) -> None:
    with closing(discovery.connect()) as connection:
        living_database(connection, before)
        connection.execute(after)
        assert tick(connection) == tick(connection) == []
        assert len(completed(connection, "fp")) == 4
        with pytest.raises(errors.ExternalRoutineException):
            tick(connection)
        assert len(completed(connection, "fp")) == 4
        assert failing(connection) == {
            "fp": 'challenge "fp" would complete at least 6 rewards in its first round;'
            " audius_challenges.max_completions is 5"
            " DETAIL: Nothing was written for it in this run; earlier runs of the round completed 4."
            " It begins in a database that has paid before, so its past must be approved first."
            " HINT: To leave its past out: give it a starting_block of the present."
            " To pay it: SET audius_challenges.max_completions = ...;"
            " SELECT * FROM reconcile_challenges('{fp}', full_scan => true);"
        }
        connection.execute("SET audius_challenges.max_completions = 9")
        connection.execute("SELECT * FROM reconcile_challenges('{fp}', full_scan => true)")
        connection.execute("SET audius_challenges.max_completions = 1")
        assert tick(connection) == []
        assert len(completed(connection, "fp")) == 9


def test_the_round_after_start_from_now_is_limited_too(discovery: Discovery) -> None:
    with closing(discovery.connect()) as connection:
        living_database(connection, ACTIVE.format("FALSE", "fp"))
        connection.execute(ACTIVE.format("TRUE", "fp"))
        connection.execute("SELECT audius_challenges.start_from_now('{fp}')")
        connection.execute("SET audius_challenges.sweep_users = 2")
        assert tick(connection) == tick(connection) == []
        with pytest.raises(errors.ExternalRoutineException, match="fp"):
            tick(connection)
        assert len(completed(connection, "fp")) == 4


def test_what_comes_after_start_from_now_is_not_of_the_round(discovery: Discovery) -> None:
    with closing(discovery.connect()) as connection:
        living_database(connection, ACTIVE.format("FALSE", "fp"))
        connection.execute("SELECT audius_challenges.start_from_now('{v}')")
        connection.execute("SET audius_challenges.sweep_users = 0")  # as a service that is being adopted may be run
        for user in range(101, 113):
            connection.execute("SELECT build.person(%s, is_verified => TRUE)", (user,))
            assert tick(connection) == []
        assert len(completed(connection, "v")) == 9 + 12


def test_a_first_build_that_is_paused_is_still_one(discovery: Discovery) -> None:
    with closing(discovery.connect()) as connection:
        connection.execute("SET audius_challenges.max_completions = 5")
        connection.execute("SET audius_challenges.slice_users = 7")
        connection.execute("SET audius_challenges.time_budget = '0 ms'")
        connection.execute("SELECT build.person(n, is_verified => TRUE) FROM generate_series(1, 20) AS n")
        assert tick(connection) == []
        assert len(completed(connection, "v")) == 7
        for active in ("FALSE", "TRUE"):
            connection.execute(ACTIVE.format(active, "v"))
            assert tick(connection) == []
        for _ in range(3):
            assert tick(connection) == []
        assert len(completed(connection, "v")) == 20


@pytest.mark.parametrize(
    ("challenge", "hint"),
    [
        ("v", "To pay it: SET"),
        ("e", "To leave its past out: SELECT audius_challenges.start_from_now('{e}'); To pay it: SET"),
    ],
)
def test_the_limit_says_what_leaves_the_past_out_if_anything_does(
    discovery: Discovery, challenge: str, hint: str
) -> None:
    with closing(discovery.connect()) as connection:
        connection.execute("UPDATE challenges SET starting_block = 0")
        connection.execute(ACTIVE.format("FALSE", challenge))
        connection.execute("SELECT build.qualify_fp(n) FROM generate_series(101, 103) AS n")
        assert tick(connection) == []
        connection.execute(f"SELECT build.qualify_{challenge}(n) FROM generate_series(1, 9) AS n")
        connection.execute(ACTIVE.format("TRUE", challenge))
        connection.execute("SET audius_challenges.max_completions = 5")
        ((_, error),) = statuses(connection, f"reconcile_challenges('{{{challenge}}}')").values()
        assert (error or "").split("HINT: ")[1].startswith(hint)


def test_a_first_round_of_one_slice_is_called_so(discovery: Discovery) -> None:
    with closing(discovery.connect()) as connection:
        living_database(connection, "UPDATE challenges SET active = FALSE WHERE id = 'fp'")
        connection.execute("UPDATE challenges SET active = TRUE WHERE id = 'fp'")
        connection.execute("SET audius_challenges.slice_users = 50000")
        ((status, error),) = statuses(connection, "reconcile_challenges('{fp}')").values()
        assert (status, (error or "").split(";")[0]) == (
            "failed",
            'challenge "fp" would complete at least 9 rewards in its first round',
        )


def test_after_the_first_round_each_run_is_limited_by_itself(connection: Connection) -> None:
    connection.execute("SET audius_challenges.max_completions = 3")
    for first in (1, 4, 7):
        connection.execute(
            "SELECT build.person(n, is_verified => TRUE) FROM generate_series(%s::integer, %s) AS n", (first, first + 2)
        )
        assert tick(connection) == []
    assert len(completed(connection, "v")) == 9


def test_a_lower_target_in_the_catalog_is_no_first_build(connection: Connection) -> None:
    connection.execute("SELECT build.person(n) FROM generate_series(1, 4) AS n")
    connection.execute("SELECT build.track(n, n, blocknumber => 25346436) FROM generate_series(1, 4) AS n")
    assert tick(connection) == []
    assert [row[3:] for row in paid(connection)] == [(1, False)] * 4
    connection.execute("SET audius_challenges.max_completions = 3")
    connection.execute("UPDATE challenges SET step_count = 1 WHERE id = 'u'")

    with pytest.raises(errors.ExternalRoutineException):
        tick(connection)

    assert failing(connection)["u"].startswith(
        'challenge "u" would complete at least 4 rewards in one run; audius_challenges.max_completions is 3'
    )
    assert [row[3:] for row in paid(connection)] == [(1, False)] * 4
    connection.execute("SET audius_challenges.max_completions = 4")
    assert tick(connection) == []
    assert completed(connection, "u") == ["1", "2", "3", "4"]


# What a run leaves behind, and what it depends on


@pytest.mark.parametrize("wal_level", ["replica", "logical"])  # which logs rows whole
def test_an_idle_tick_writes_no_user_challenge_and_hardly_any_wal(new_cluster: NewCluster, wal_level: str) -> None:
    cluster = new_cluster(cron_database="postgres", settings={"wal_level": wal_level})
    idle = create_discovery(cluster, "idle")
    idle.psql(CREATE_EXTENSION)
    add_ninety(idle)
    with closing(idle.connect()) as connection:
        assert value(connection, "SHOW wal_level") == wal_level
        connection.execute("CHECKPOINT")  # so that none comes in between, after which pages are logged whole
        for _ in range(2):
            assert tick(connection) == []
        written = "SELECT count(*), sum(('x' || md5(each::text))::bit(32)::bigint) FROM user_challenges_log AS each"
        before = rows(connection, written)
        logged = []
        for _ in range(5):
            began = value(connection, "SELECT pg_current_wal_insert_lsn()")
            assert tick(connection) == []
            logged.append(value(connection, "SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", began))
        assert rows(connection, written) == before
        assert value(connection, "SELECT count(*) FROM user_challenges_log") > 200
        # The median: autovacuum and the background writer log, too.
        assert sorted(logged)[2] <= IDLE_WAL, logged


def test_the_sessions_time_zone_and_styles_change_nothing_that_is_written(
    discovery: Discovery, cluster: Cluster, full_template: str
) -> None:
    cluster.create_database(f"{discovery.name}_elsewhere", template=full_template)
    elsewhere = Discovery(cluster, f"{discovery.name}_elsewhere")
    written = []
    with ExitStack() as stack:
        stack.callback(cluster.drop_database, elsewhere.name)
        for database in (discovery, elsewhere):
            add_ninety(database)
            session = stack.enter_context(closing(database.connect()))
            for statement in (
                "SELECT build.track_score(n, n), build.playlist_score(3 * n - 2, n) FROM generate_series(1, 12) AS n",
                "SELECT build.track_score(90 - n, n, 'UNDERGROUND_TRACKS') FROM generate_series(1, 12) AS n",
            ):
                session.execute(statement)
            if database is elsewhere:
                session.execute("SET TimeZone = 'Asia/Kolkata'")  # whose IST reads as Israel's
                session.execute("SET DateStyle = 'SQL, DMY'")
                session.execute("SET IntervalStyle = 'sql_standard'")
                session.execute("SET extra_float_digits = -15")
                session.execute("SET bytea_output = 'escape'")
            # Friday, 2026-11-20 in UTC, Saturday already in Kolkata
            session.execute("SELECT * FROM reconcile_challenges(as_of => TIMESTAMPTZ '2026-11-20 22:30:00.123456Z')")
            began = dt.datetime.now(dt.UTC)
            session.execute("SELECT build.person(255, is_verified => TRUE)")
            # The tick is today's, which may be a Friday.
            session.execute("UPDATE challenges SET active = FALSE WHERE id IN ('tt', 'tut', 'tp')")
            tick(session)
            session.execute("RESET ALL")
            ((created_at, completed_at),) = rows(
                session,
                "SELECT created_at, completed_at FROM user_challenges WHERE challenge_id = 'v' AND specifier = 'ff'",
            )
            assert began - dt.timedelta(seconds=1) <= created_at <= dt.datetime.now(dt.UTC)
            assert completed_at == created_at.replace(tzinfo=None)
            session.execute("DELETE FROM user_challenges WHERE user_id = 255")
            # A week's rows carry the real clock.
            session.execute(
                "UPDATE user_challenges SET created_at = '2026-11-20Z', completed_at = '2026-11-20'"
                " WHERE challenge_id IN ('tt', 'tut', 'tp')"
            )
            tables = ("user_challenges", "challenge_profile_completion", "challenge_listen_streak", "trending_results")
            written.append({table: rows(session, f"SELECT * FROM {table} AS each ORDER BY each") for table in tables})
    assert written[0] == written[1]
    assert len(written[0]["trending_results"]) == 30
    created = {row[7].isoformat() for row in written[0]["user_challenges"] if row[0] in ("u", "fp", "p", "v")}
    assert created == {"2026-11-20T22:30:00.123456+00:00"}


@pytest.mark.parametrize("call", [RECONCILE, TICK], ids=["reconcile", "tick"])
def test_the_applications_triggers_find_schemas_that_a_setting_adds(connection: Connection, call: str) -> None:
    connection.execute(
        """
        CREATE SCHEMA extras;
        CREATE SCHEMA "More, of it";
        CREATE SCHEMA "More extras";
        CREATE TABLE "More extras".audited (specifier text);
        CREATE FUNCTION extras.marked(text) RETURNS text LANGUAGE sql AS $$ SELECT 'audited ' || $1 $$;
        CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO audited VALUES (marked(new.specifier));
            RETURN NULL;
        END
        $$;
        CREATE TRIGGER audit AFTER INSERT ON user_challenges FOR EACH ROW EXECUTE FUNCTION audit();
        SELECT build.person(255, is_verified => TRUE);
        """
    )
    connection.execute("SET audius_challenges.trigger_schemas = 'extras, More extras'")
    before = value(connection, "SHOW search_path")
    connection.execute(call)
    assert value(connection, "SHOW search_path") == before
    assert column(connection, 'SELECT specifier FROM "More extras".audited') == ["audited ff"]


@pytest.mark.parametrize("path", ["", "pg_catalog", "build, nowhere"])
def test_the_applications_triggers_find_their_tables_whatever_the_sessions_search_path(
    connection: Connection, path: str
) -> None:
    told = "SELECT count(*) FROM notification WHERE data ->> 'challenge_id' IN ('fp', 'v')"
    with closing(psycopg.connect(connection.info.dsn, autocommit=True)) as session:
        add_person(connection, 255)
        session.execute("SELECT set_config('search_path', %s, false)", (path,))
        assert tick(session) == []
        assert value(connection, told) == 2
        add_person(connection, 4095)
        session.execute("SELECT * FROM public.reconcile_challenges()")
        assert value(connection, told) == 4
        assert value(session, "SELECT current_setting('search_path')") == path


def test_the_delay_of_a_tick_holds_no_lock_and_pins_no_snapshot(connection: Connection, discovery: Discovery) -> None:
    with closing(discovery.connect()) as session:
        delayed = Beside(session, "CALL audius_challenges.tick(delay => '1 minute')")
        activity = "SELECT xact_start FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
        (first,) = until(lambda: column(connection, activity, delayed.pid), "the delay")
        until(
            lambda: [began for began in column(connection, activity, delayed.pid) if began > first],
            "another transaction of the same delay",
        )
        assert run_locks(connection) == 0
        add_person(connection, 255)
        assert tick(connection) == []
        assert paid(connection) == PAID_255

        connection.execute("SELECT pg_cancel_backend(%s)", (delayed.pid,))
        assert isinstance(delayed.finish(), errors.QueryCanceled)
        began = time.monotonic()
        session.execute("CALL audius_challenges.tick(delay => '1 second')")
        assert time.monotonic() - began >= 1


@pytest.mark.parametrize("delay", ["-1 second", "1 hour 1 second"])
def test_a_delay_out_of_bounds_is_an_error_that_names_it(still: Connection, delay: str) -> None:
    with pytest.raises(errors.InvalidParameterValue) as refused:
        still.execute("CALL audius_challenges.tick(%s::interval)", (delay,))
    interval = value(still, "SELECT %s::interval::text", delay)
    assert message_of(refused.value) == (
        f"audius_challenges: delay must be between 0 and 1 hour, not {interval}",
        None,
    )


# Another version of the code


def test_a_session_takes_the_version_of_the_package_that_its_database_has(
    connection: Connection, discovery: Discovery
) -> None:
    add_person(connection, 255)
    with closing(discovery.connect()) as session:
        tick(session)  # and so has loaded the old code
        description = "SELECT description FROM challenge_status WHERE challenge_id = 'v'"
        assert value(session, description) == "connect verified"
        replace_package(
            connection,
            "other",
            f"\nobject.__setattr__({processor_of('v')}, 'description', 'verified by another version')\n",
            REGISTRY,
        )

        assert value(session, description) == "verified by another version"
        add_person(connection, 4095)
        assert tick(session) == []
        assert statuses(session)["v"] == ("ok", None)
        assert completed(connection, "v") == ["ff", "fff"]


def test_a_run_under_way_ends_in_the_version_in_which_it_began(connection: Connection, discovery: Discovery) -> None:
    add_person(connection, 255)
    set_for_database(connection, "audius_challenges.lock_timeout", "1min")
    with closing(discovery.connect()) as session, closing(discovery.connect(autocommit=False)) as blocker:
        blocker.execute("LOCK TABLE playlists")
        run = Beside(session, TICK)
        run.wait_until_blocked(connection)
        original = value(connection, "SELECT pg_get_functiondef('audius_challenges.load()'::regprocedure)")
        replace_package(connection, "other", "\nraise ImportError('half of another version')\n", "operation/run")
        blocker.rollback()
        assert run.finish() is None
        assert paid(connection) == PAID_255
        with pytest.raises(psycopg.Error, match="half of another version"):
            tick(session)
        connection.execute(original)
        assert tick(session) == []


def test_the_lock_of_a_run_is_of_one_database(connection: Connection, cluster: Cluster) -> None:
    with closing(cluster.connect("postgres")) as elsewhere:
        assert value(elsewhere, f"SELECT pg_try_advisory_lock({RUN_LOCK})") is True
        assert tick(connection) == []


@pytest.mark.parametrize("delay", ["0", "1 second"])
def test_a_tick_calls_no_function_of_the_callers_search_path(discovery: Discovery, delay: str) -> None:
    with closing(discovery.connect()) as session:
        session.execute("CREATE TABLE hijacked (name text)")
        session.execute(
            """
            CREATE FUNCTION public.pg_is_in_recovery() RETURNS boolean LANGUAGE sql
            AS $$ INSERT INTO public.hijacked VALUES ('pg_is_in_recovery'); SELECT false $$;
            CREATE FUNCTION public.pg_sleep(double precision) RETURNS void LANGUAGE sql
            AS $$ INSERT INTO public.hijacked VALUES ('pg_sleep') $$;
            """
        )
        session.execute("SET search_path = public, pg_catalog")
        session.execute("CALL audius_challenges.tick(%s::interval)".replace("%s", f"'{delay}'").encode())
        assert rows(session, "SELECT DISTINCT name FROM hijacked") == []
