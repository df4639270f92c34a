"""A rule may reward several deeds of a user: the challenges of tests/deeds.py, which the product does not have.

The sweep is off but where a test is about it: what is found is found by the first build or by the feed of changes.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from psycopg import errors

from devtools.discovery import Discovery
from tests.sessions import (
    REGISTRY,
    Connection,
    failing,
    replace_package,
    row_versions,
    rows,
    statuses,
    tick,
)

Deeds = dict[str, tuple[int, int, bool, int]]
"""Specifier → user, steps, whether complete, amount."""

DEEDS = Path(__file__).with_name("deeds.py")
REGISTERED = """
from audius_challenges.challenges.deeds import DEEDS

CHALLENGES = (*CHALLENGES, *DEEDS)
"""
# v is what x3 comes after.
CATALOG = """
    UPDATE challenges SET active = id = 'v';
    INSERT INTO challenges (id, type, amount, active, step_count, starting_block) VALUES
        ('x1', 'boolean', '2', TRUE, NULL, 100),
        ('x2', 'numeric', '5', TRUE, 3, NULL),
        ('x3', 'boolean', '7', TRUE, NULL, NULL);
"""


@pytest.fixture
def connection(discovery: Discovery) -> Iterator[Connection]:
    """A session in a database that has these challenges, and has not run them yet."""
    with closing(discovery.connect()) as connection:
        replace_package(connection, "deeds", REGISTERED, REGISTRY, {"challenges/deeds": DEEDS.read_text()})
        connection.execute(CATALOG)
        set_to(connection, "sweep_users", "0")
        yield connection


@pytest.fixture
def watching(connection: Connection) -> Connection:
    """The same, with all first builds done, and 500 users of which nothing is known, not to be alone."""
    connection.execute("SELECT count(build.person(user_id)) FROM generate_series(501, 1000) AS user_id")
    assert tick(connection) == []
    assert phases(connection) == {"x1": "watching", "x2": "watching", "x3": "watching"}
    return connection


def set_to(connection: Connection, name: str, setting: str) -> None:
    """Changes a setting of the extension for the session."""
    connection.execute(f"SET audius_challenges.{name} = '{setting}'")


def person(connection: Connection, user_id: int, *, is_verified: bool = True) -> None:
    connection.execute("SELECT build.person(%s, is_verified => %s)", (user_id, is_verified))


def repost(connection: Connection, user_id: int, item: int, block: int = 103, txhash: str = "") -> None:
    connection.execute("SELECT build.repost(%s, %s, blocknumber => %s, txhash => %s)", (user_id, item, block, txhash))


def save(connection: Connection, user_id: int, *items: int) -> None:
    for item in items:
        connection.execute("SELECT build.save(%s, %s)", (user_id, item))


def deeds(connection: Connection, challenge: str) -> Deeds:
    """The user challenges that there are."""
    found = rows(
        connection,
        """
        SELECT specifier, user_id, current_step_count, is_complete, amount
        FROM user_challenges
        WHERE challenge_id = %s
        ORDER BY specifier
        """,
        challenge,
    )
    return {specifier: (user_id, steps, complete, amount) for specifier, user_id, steps, complete, amount in found}


def phases(connection: Connection) -> dict[str, str]:
    query = "SELECT challenge_id, phase FROM audius_challenges.processor_state WHERE challenge_id LIKE 'x%'"
    return dict(rows(connection, query))


def report(connection: Connection, arguments: str = "") -> dict[str, tuple[Any, ...]]:
    """What a run reports: status, users examined, rows inserted, updated, completed; by challenge."""
    query = f"""
        SELECT challenge_id, status, users_examined, rows_inserted, rows_updated, rows_completed
        FROM reconcile_challenges({arguments})
        WHERE challenge_id LIKE 'x%'
    """
    return {challenge: tuple(rest) for challenge, *rest in rows(connection, query)}


# What a deed is


def test_each_deed_has_its_row_with_its_own_specifier_and_amount(watching: Connection) -> None:
    person(watching, 255)
    repost(watching, 255, 10, block=103)
    repost(watching, 255, 11, block=105)
    save(watching, 255, 20, 21, 30, 40, 41, 42, 43)
    assert tick(watching) == []
    assert deeds(watching, "x1") == {"ff:x:a": (255, 1, True, 6), "ff:x:b": (255, 1, True, 10)}
    assert deeds(watching, "x2") == {
        "ff:2": (255, 2, False, 5),
        "ff:3": (255, 1, False, 5),
        "ff:4": (255, 3, True, 5),
    }
    assert deeds(watching, "x3") == {"a": (255, 1, True, 7), "b": (255, 1, True, 7)}


@pytest.mark.parametrize("blocks", [(103, 105), (105, 103)])
def test_two_rows_that_lead_to_one_specifier_are_one_reward_of_the_greater_amount(
    watching: Connection, blocks: tuple[int, int]
) -> None:
    person(watching, 255)
    for block in blocks:
        repost(watching, 255, 10, block=block, txhash=f"0x{block}")
    assert tick(watching) == []
    assert deeds(watching, "x1") == {"ff:x:a": (255, 1, True, 10)}


def test_of_two_earners_of_one_specifier_the_first_keeps_it(watching: Connection) -> None:
    person(watching, 255)
    person(watching, 16)
    repost(watching, 255, 10)
    assert tick(watching) == []
    repost(watching, 16, 10)
    assert tick(watching) == []
    statuses(watching, "reconcile_challenges(full_scan => true)")
    assert deeds(watching, "x3") == {"a": (255, 1, True, 7)}


def test_of_two_earners_in_one_run_the_lower_id_gets_it(watching: Connection) -> None:
    for user_id in (255, 16):
        person(watching, user_id)
        repost(watching, user_id, 10)
    assert tick(watching) == []
    assert deeds(watching, "x3") == {"a": (16, 1, True, 7)}


def test_steps_go_up_and_down_until_the_deed_is_complete(watching: Connection) -> None:
    person(watching, 255)
    save(watching, 255, 20, 30, 31, 32)
    assert tick(watching) == []
    assert deeds(watching, "x2") == {"ff:2": (255, 1, False, 5), "ff:3": (255, 3, True, 5)}

    save(watching, 255, 21)
    assert tick(watching) == []
    assert deeds(watching, "x2")["ff:2"] == (255, 2, False, 5)

    watching.execute("UPDATE saves SET is_delete = TRUE WHERE save_item_id = 20")
    assert tick(watching) == []
    assert deeds(watching, "x2")["ff:2"] == (255, 1, False, 5)

    # Both deeds vanish: the incomplete row says so, the complete one is final.
    watching.execute("UPDATE saves SET is_delete = TRUE")
    assert tick(watching) == []
    assert deeds(watching, "x2") == {"ff:2": (255, 0, False, 5), "ff:3": (255, 3, True, 5)}

    watching.execute("UPDATE saves SET is_delete = FALSE")
    save(watching, 255, 22)
    assert tick(watching) == []
    assert deeds(watching, "x2") == {"ff:2": (255, 3, True, 5), "ff:3": (255, 3, True, 5)}


def test_an_incomplete_row_goes_with_its_deed_to_whoever_earns_it_now(watching: Connection) -> None:
    watching.execute(
        "INSERT INTO challenges (id, type, amount, active, step_count) VALUES ('d4', 'numeric', '5', TRUE, 10)"
    )
    for user in (1, 2):
        person(watching, user)
    watching.execute("SELECT build.track(200, 2), build.monthly(200, '2026-01-01', 6)")
    assert tick(watching) == []
    assert deeds(watching, "d4") == {"c8": (2, 6, False, 5)}

    watching.execute("UPDATE tracks SET owner_id = 1")
    set_to(watching, "sweep_users", "1")
    for _ in range(4):
        assert tick(watching) == []
    assert deeds(watching, "d4") == {"c8": (1, 6, False, 5)}
    versions = row_versions(watching, "public")
    for _ in range(4):
        assert tick(watching) == []
    assert row_versions(watching, "public") == versions

    watching.execute("SELECT build.monthly(200, '2026-01-01', 10)")
    assert statuses(watching, "reconcile_challenges('{d4}', full_scan => TRUE)") == {"d4": ("ok", None)}
    watching.execute("UPDATE tracks SET owner_id = 2")
    assert statuses(watching, "reconcile_challenges('{d4}', full_scan => TRUE)") == {"d4": ("ok", None)}
    assert deeds(watching, "d4") == {"c8": (1, 10, True, 5)}


def test_a_deed_of_one_step_stays_when_it_vanishes(watching: Connection) -> None:
    person(watching, 255)
    repost(watching, 255, 10)
    assert tick(watching) == []
    before = row_versions(watching, "public")["public.user_challenges"]
    watching.execute("UPDATE reposts SET is_delete = TRUE")
    assert tick(watching) == []
    assert statuses(watching, "reconcile_challenges('{x1,x2,x3}', full_scan => true)") == {
        "x1": ("ok", None),
        "x2": ("ok", None),
        "x3": ("ok", None),
    }
    assert row_versions(watching, "public")["public.user_challenges"] == before


# First builds


def build_first(connection: Connection) -> None:
    """Six users, of whom each has two deeds of x1, and of x2 one that is complete and one that is not."""
    for user_id in range(1, 7):
        person(connection, user_id)
        repost(connection, user_id, 10)
        repost(connection, user_id, 11)
        save(connection, user_id, 20, 21, 22, 30)


def whole(users: int) -> tuple[Deeds, Deeds]:
    """The rows of x1 and x2 that the first so many of them lead to."""
    x1: Deeds = {}
    x2: Deeds = {}
    for user_id in range(1, users + 1):
        x1 |= {f"{user_id}:x:{item}": (user_id, 1, True, 6) for item in "ab"}
        x2 |= {f"{user_id}:2": (user_id, 3, True, 5), f"{user_id}:3": (user_id, 1, False, 5)}
    return x1, x2


def built(connection: Connection) -> tuple[Deeds, Deeds]:
    return deeds(connection, "x1"), deeds(connection, "x2")


def test_a_first_build_takes_a_slice_a_tick_and_no_limit_of_completions(connection: Connection) -> None:
    build_first(connection)
    for name, setting in (("slice_users", "2"), ("time_budget", "0ms"), ("max_completions", "1")):
        set_to(connection, name, setting)
    connection.execute("UPDATE challenges SET active = FALSE WHERE id IN ('v', 'x3')")
    for users in (2, 4, 6):
        assert tick(connection) == []
        assert built(connection) == whole(users)
        assert phases(connection)["x1"] == "first build"
    assert tick(connection) == []
    assert phases(connection) == {"x1": "watching", "x2": "watching", "x3": None}

    # From here on the limit holds: two deeds of one user are two completions.
    person(connection, 255)
    repost(connection, 255, 10)
    repost(connection, 255, 11)
    with pytest.raises(errors.ExternalRoutineException):
        tick(connection)
    assert list(failing(connection)) == ["x1"]
    assert "would complete at least 2 rewards in one run" in failing(connection)["x1"]
    assert built(connection) == whole(6)


def test_a_first_build_goes_on_after_a_failure_and_a_restore(connection: Connection) -> None:
    build_first(connection)
    for name, setting in (("slice_users", "2"), ("time_budget", "0ms")):
        set_to(connection, name, setting)
    assert tick(connection) == []

    connection.execute("UPDATE challenges SET amount = 'much' WHERE id IN ('x1', 'x2')")
    with pytest.raises(errors.ExternalRoutineException):
        tick(connection)
    connection.execute(
        "UPDATE challenges SET amount = CASE id WHEN 'x1' THEN '2' ELSE '5' END WHERE id IN ('x1', 'x2')"
    )
    assert built(connection) == whole(2)
    assert tick(connection) == []
    assert built(connection) == whole(4)

    # A restore forgets where it was; it begins again.
    connection.execute("UPDATE audius_challenges.installation SET cluster = 1")
    for _ in range(2):
        assert tick(connection) == []
        assert built(connection) == whole(4)
        assert phases(connection)["x1"] == "first build"
    for _ in range(2):
        assert tick(connection) == []
    assert built(connection) == whole(6)
    assert phases(connection)["x1"] == "watching"
    assert rows(connection, "SELECT specifier FROM user_challenges_log WHERE operation = 'UPDATE'") == []


# Changes


@pytest.mark.parametrize("under_a_savepoint", [False, True])
def test_a_deed_that_commits_late_is_found(watching: Connection, discovery: Discovery, under_a_savepoint: bool) -> None:
    for user_id in (254, 255):
        person(watching, user_id)
    with closing(discovery.connect(autocommit=False)) as writer:
        if under_a_savepoint:
            writer.execute("SELECT pg_current_xact_id()")
            writer.execute("SAVEPOINT deed")
        repost(writer, 255, 10, block=103)
        save(writer, 255, 20)
        if under_a_savepoint:
            writer.execute("RELEASE deed")
        assert tick(watching) == []
        repost(watching, 254, 11, block=205)
        save(watching, 254, 20)
        assert tick(watching) == []
        assert tick(watching) == []
        assert list(deeds(watching, "x1")) == ["fe:x:b"]
        writer.commit()
    assert tick(watching) == []
    assert deeds(watching, "x1") == {"fe:x:b": (254, 1, True, 10), "ff:x:a": (255, 1, True, 6)}
    assert list(deeds(watching, "x2")) == ["fe:2", "ff:2"]
    assert list(deeds(watching, "x3")) == ["a", "b"]


def leave_no_trace(connection: Connection) -> None:
    """Somebody who has done everything becomes a user who counts, and no row shows that it has changed."""
    person(connection, 255)
    connection.execute(
        "SELECT build.person(255, is_verified => TRUE, is_deactivated => TRUE, blocknumber => 200, txhash => '0x1')"
    )
    connection.execute("SELECT build.complete('v', 255, 'ff')")
    repost(connection, 255, 10)
    save(connection, 255, 20)
    assert tick(connection) == []
    connection.execute("DELETE FROM users WHERE user_id = 255 AND is_deactivated")


EVERYTHING_OF_255 = {
    "x1": {"ff:x:a": (255, 1, True, 6)},
    "x2": {"ff:2": (255, 1, False, 5)},
    "x3": {"a": (255, 1, True, 7)},
}


def everything(connection: Connection) -> dict[str, Deeds]:
    return {challenge: deeds(connection, challenge) for challenge in ("x1", "x2", "x3")}


def test_the_sweep_finds_deeds_that_leave_no_trace(watching: Connection) -> None:
    leave_no_trace(watching)
    watching.execute("UPDATE challenges SET active = FALSE WHERE id = 'x3'")  # whose users are due
    assert tick(watching) == []
    assert everything(watching) == {"x1": {}, "x2": {}, "x3": {}}
    set_to(watching, "sweep_users", "1000")
    assert tick(watching) == []
    assert everything(watching) == {**EVERYTHING_OF_255, "x3": {}}


def test_a_full_scan_finds_deeds_that_leave_no_trace(watching: Connection) -> None:
    leave_no_trace(watching)
    assert report(watching, "full_scan => true") == {
        "x1": ("ok", 501, 1, 0, 1),
        "x2": ("ok", 501, 1, 0, 0),
        "x3": ("ok", 501, 1, 0, 1),
    }
    assert everything(watching) == EVERYTHING_OF_255


def test_who_is_due_is_examined_at_every_run(watching: Connection) -> None:
    leave_no_trace(watching)
    assert tick(watching) == []
    assert deeds(watching, "x1") == {}
    watching.execute("SELECT build.aggregate_user(255, follower_count => 100)")
    assert tick(watching) == []
    assert deeds(watching, "x1") == EVERYTHING_OF_255["x1"]


def test_a_dry_run_reports_all_and_keeps_nothing(watching: Connection) -> None:
    person(watching, 255)
    repost(watching, 255, 10)
    repost(watching, 255, 11)
    save(watching, 255, 20, 30, 31, 32)
    before = row_versions(watching, "public", "audius_challenges")
    expected = {
        "x1": ("ok", 1, 2, 0, 2),
        "x2": ("ok", 1, 2, 0, 1),
        "x3": ("ok", 1, 2, 0, 2),
    }
    assert report(watching, "dry_run => true") == expected
    assert row_versions(watching, "public", "audius_challenges") == before
    assert report(watching) == expected


def test_start_from_now_pays_only_what_comes_later(connection: Connection) -> None:
    person(connection, 255)
    repost(connection, 255, 10)
    save(connection, 255, 20, 21, 22)
    connection.execute("SELECT audius_challenges.start_from_now()")
    assert tick(connection) == []
    assert everything(connection) == {"x1": {}, "x2": {}, "x3": {}}

    person(connection, 254)
    repost(connection, 254, 11)
    save(connection, 254, 20)
    assert tick(connection) == []
    assert everything(connection) == {
        "x1": {"fe:x:b": (254, 1, True, 6)},
        "x2": {"fe:2": (254, 1, False, 5)},
        "x3": {"b": (254, 1, True, 7)},
    }


def test_running_again_writes_nothing(watching: Connection) -> None:
    build_first(watching)
    assert tick(watching) == []
    before = row_versions(watching, "public")
    assert tick(watching) == []
    assert {outcome[2:] for outcome in report(watching, "full_scan => true").values()} == {(0, 0, 0)}
    assert row_versions(watching, "public") == before


# The catalog


def test_a_new_amount_is_for_what_is_not_complete(watching: Connection) -> None:
    person(watching, 255)
    repost(watching, 255, 10)
    save(watching, 255, 20, 30, 31, 32)
    assert tick(watching) == []
    watching.execute("UPDATE challenges SET amount = '100' WHERE id IN ('x1', 'x2', 'x3')")
    repost(watching, 255, 11)
    assert tick(watching) == []
    assert everything(watching) == {
        "x1": {"ff:x:a": (255, 1, True, 6), "ff:x:b": (255, 1, True, 300)},
        "x2": {"ff:2": (255, 1, False, 100), "ff:3": (255, 3, True, 5)},
        "x3": {"a": (255, 1, True, 7), "b": (255, 1, True, 100)},
    }


def test_a_lower_step_count_completes_what_there_is(watching: Connection) -> None:
    person(watching, 255)
    save(watching, 255, 20, 30, 31)
    assert tick(watching) == []
    watching.execute("UPDATE challenges SET step_count = 2 WHERE id = 'x2'")
    assert tick(watching) == []
    assert deeds(watching, "x2") == {"ff:2": (255, 1, False, 5), "ff:3": (255, 2, True, 5)}


def test_a_lower_starting_block_counts_older_deeds(watching: Connection) -> None:
    person(watching, 255)
    repost(watching, 255, 10, block=99)
    repost(watching, 255, 11, block=101)
    assert tick(watching) == []
    assert list(deeds(watching, "x1")) == ["ff:x:b"]
    watching.execute("UPDATE challenges SET starting_block = 99 WHERE id = 'x1'")
    assert tick(watching) == []
    assert list(deeds(watching, "x1")) == ["ff:x:a", "ff:x:b"]


ABSENT = """
    CREATE TABLE kept AS SELECT * FROM challenges WHERE id LIKE 'x%';
    ALTER TABLE user_challenges DROP CONSTRAINT user_challenges_challenge_id_fkey;
    DELETE FROM challenges WHERE id LIKE 'x%';
"""
SWITCHED_OFF = {
    "inactive": (
        "UPDATE challenges SET active = FALSE WHERE id LIKE 'x%'",
        "UPDATE challenges SET active = TRUE WHERE id LIKE 'x%'",
    ),
    "absent": (ABSENT, "INSERT INTO challenges SELECT * FROM kept"),
}


@pytest.mark.parametrize("word", SWITCHED_OFF)
def test_nothing_moves_while_inactive_or_absent_and_everything_is_caught_up_then(
    watching: Connection, word: str
) -> None:
    off, on = SWITCHED_OFF[word]
    person(watching, 255)
    save(watching, 255, 20, 30)
    assert tick(watching) == []
    watching.execute(off)
    before = row_versions(watching, "public")["public.user_challenges"]
    repost(watching, 255, 10)
    save(watching, 255, 21)
    watching.execute("UPDATE saves SET is_delete = TRUE WHERE save_item_id = 30")
    assert report(watching, "full_scan => true") == dict.fromkeys(("x1", "x2", "x3"), (word, 0, 0, 0, 0))
    assert row_versions(watching, "public")["public.user_challenges"] == before

    watching.execute(on)
    assert tick(watching) == []
    assert everything(watching) == {
        "x1": {"ff:x:a": (255, 1, True, 6)},
        "x2": {"ff:2": (255, 2, False, 5), "ff:3": (255, 0, False, 5)},
        "x3": {"a": (255, 1, True, 7)},
    }


# Who


INELIGIBLE: dict[str, Callable[[Connection], object]] = {
    "deactivated": lambda connection: connection.execute("SELECT build.person(255, is_deactivated => TRUE)"),
    "not current": lambda connection: connection.execute("SELECT build.person(255, is_current => FALSE)"),
    "unknown": lambda _connection: None,
}


@pytest.mark.parametrize("reason", INELIGIBLE)
def test_deeds_of_somebody_who_does_not_count_pay_once_he_does(watching: Connection, reason: str) -> None:
    INELIGIBLE[reason](watching)
    watching.execute("SELECT build.complete('v', 255, 'ff')")
    repost(watching, 255, 10)
    save(watching, 255, 20)
    assert tick(watching) == []
    assert {outcome[2:] for outcome in report(watching, "full_scan => true").values()} == {(0, 0, 0)}
    assert everything(watching) == {"x1": {}, "x2": {}, "x3": {}}

    watching.execute("DELETE FROM users WHERE user_id = 255")
    person(watching, 255)
    assert tick(watching) == []
    assert everything(watching) == EVERYTHING_OF_255


def test_deeds_of_somebody_who_counts_no_more_do_not_move(watching: Connection) -> None:
    person(watching, 255)
    save(watching, 255, 20, 30)
    assert tick(watching) == []
    before = deeds(watching, "x2")
    watching.execute("UPDATE users SET is_deactivated = TRUE WHERE user_id = 255")
    watching.execute("UPDATE saves SET is_delete = TRUE WHERE save_item_id = 20")
    save(watching, 255, 31)
    statuses(watching, "reconcile_challenges(full_scan => true)")
    assert deeds(watching, "x2") == before


def test_who_does_not_take_part_does_not_move_not_even_down(watching: Connection) -> None:
    person(watching, 255)
    person(watching, 254, is_verified=False)
    save(watching, 255, 20, 30)
    save(watching, 254, 20)
    assert tick(watching) == []
    assert deeds(watching, "x2") == {"ff:2": (255, 1, False, 5), "ff:3": (255, 1, False, 5)}

    watching.execute("UPDATE users SET is_verified = FALSE WHERE user_id = 255")
    watching.execute("UPDATE saves SET is_delete = TRUE WHERE save_item_id = 20")
    save(watching, 255, 31)
    assert tick(watching) == []
    assert deeds(watching, "x2") == {"ff:2": (255, 1, False, 5), "ff:3": (255, 1, False, 5)}

    watching.execute("UPDATE users SET is_verified = TRUE WHERE user_id IN (254, 255)")
    watching.execute("UPDATE saves SET is_delete = FALSE WHERE user_id = 254")
    assert tick(watching) == []
    assert deeds(watching, "x2") == {
        "fe:2": (254, 1, False, 5),
        "ff:2": (255, 0, False, 5),
        "ff:3": (255, 2, False, 5),
    }


def test_deeds_wait_for_the_challenge_before_though_their_sources_have_not_changed_since(
    watching: Connection,
) -> None:
    person(watching, 255, is_verified=False)
    repost(watching, 255, 10)
    repost(watching, 255, 11)
    assert tick(watching) == []
    assert deeds(watching, "x3") == {}
    watching.execute("SELECT build.complete('v', 255, 'ff')")
    assert tick(watching) == []
    assert deeds(watching, "x3") == {"a": (255, 1, True, 7), "b": (255, 1, True, 7)}


def test_deeds_follow_in_the_run_that_completes_the_challenge_before(watching: Connection) -> None:
    person(watching, 255)
    repost(watching, 255, 10)
    assert tick(watching) == []
    assert deeds(watching, "x3") == {"a": (255, 1, True, 7)}


# What was paid before, and what is passed over

SAVED = "INSERT INTO challenges (id, type, amount, active, starting_block) VALUES ('w5', 'aggregate', '3', TRUE, 100)"
PINNED = "INSERT INTO challenges (id, type, amount, active) VALUES ('w6', 'aggregate', '3', TRUE)"


def paid_out(connection: Connection, challenge: str, user_id: int, specifier: str) -> None:
    connection.execute(
        "INSERT INTO challenge_disbursements (challenge_id, user_id, specifier, signature, slot, amount)"
        " VALUES (%s, %s, %s, 'sig', 1, '300000000')",
        (challenge, user_id, specifier),
    )


def paid_out_on_chain(connection: Connection, challenge: str, specifier: str) -> None:
    connection.execute(
        "INSERT INTO sol_reward_disbursements VALUES (%s, 0, 300000000, 1, 'bank', %s, %s)",
        (f"{challenge} {specifier}", challenge, specifier),
    )


def test_a_deed_that_was_paid_before_in_whatever_way_is_never_paid_again(watching: Connection) -> None:
    watching.execute(SAVED)
    person(watching, 255)
    save(watching, 255, *range(10, 19))
    paid_out(watching, "w5", 255, "ff:a")
    paid_out(watching, "w5", 7, "ff:b")  # whoever it was paid to
    paid_out(watching, "w5", 255, "255:12")  # in the earlier format
    paid_out(watching, "w6", 255, "ff:d")  # as the other challenge
    paid_out_on_chain(watching, "w5", "ff:e")
    paid_out_on_chain(watching, "w5", "255:15")
    paid_out_on_chain(watching, "x1", "ff:10")  # as one that it has nothing to do with
    watching.execute(PINNED)
    watching.execute("SELECT build.complete('w6', 7, 'ff:11')")
    watching.execute("SELECT build.complete('w5', 255, '255:18')")
    assert tick(watching) == []
    watching.execute("SELECT * FROM reconcile_challenges('{w5}', full_scan => TRUE)")
    assert sorted(deeds(watching, "w5")) == ["255:18", "ff:10"]


def test_what_is_paid_on_chain_may_be_unknown_and_come_later(watching: Connection) -> None:
    watching.execute("ALTER TABLE sol_reward_disbursements RENAME TO away")
    watching.execute(SAVED)
    person(watching, 255)
    save(watching, 255, 10)
    # A tick would wait for it to come back: that one does without it, somebody has to say.
    watching.execute("SELECT FROM reconcile_challenges()")
    assert tick(watching) == []
    assert sorted(deeds(watching, "w5")) == ["ff:a"]
    watching.execute("ALTER TABLE away RENAME TO sol_reward_disbursements")
    paid_out_on_chain(watching, "w5", "ff:b")
    save(watching, 255, 11, 12)
    assert tick(watching) == []
    assert sorted(deeds(watching, "w5")) == ["ff:a", "ff:c"]


def test_what_is_paid_on_chain_is_read_by_its_columns(watching: Connection) -> None:
    watching.execute("ALTER TABLE sol_reward_disbursements RENAME COLUMN specifier TO what")
    watching.execute(SAVED)
    missing = 'column "specifier" of table "public.sol_reward_disbursements" does not exist'
    hint = "HINT: It should be of type character varying."
    assert statuses(watching, "reconcile_challenges('{w5}')") == {"w5": ("failed", f"{missing} {hint}")}


def test_a_deed_is_of_its_own_time(connection: Connection) -> None:
    connection.execute(SAVED)
    person(connection, 255)
    save(connection, 255, 10)
    connection.execute("UPDATE saves SET created_at = '2025-02-03 04:05:06'")
    connection.execute("SELECT * FROM reconcile_challenges('{w5}', as_of => '2025-03-07 10:00+00')")
    times = "SELECT created_at AT TIME ZONE 'UTC', completed_at FROM user_challenges WHERE challenge_id = 'w5'"
    assert [[str(time) for time in row] for row in rows(connection, times)] == [
        ["2025-02-03 04:05:06", "2025-03-07 10:00:00"]
    ]


def test_start_from_now_passes_over_every_deed_that_is_there_for_good(watching: Connection) -> None:
    watching.execute(SAVED)
    person(watching, 255)
    person(watching, 256)
    save(watching, 255, 10, 11)
    save(watching, 256, 10)
    watching.execute("SELECT build.complete('w5', 255, 'ff:a')")
    # Whatever does not count now: a user who is not active, a block before the start.
    watching.execute("UPDATE users SET is_deactivated = TRUE WHERE user_id = 256")
    watching.execute("SELECT build.save(255, 12, blocknumber => 1)")
    start = "SELECT * FROM audius_challenges.start_from_now('{w5,x1}'"
    before = row_versions(watching, "audius_challenges", "public")
    assert rows(watching, f"{start}, dry_run => TRUE)") == [("x1", 0), ("w5", 3)]
    assert row_versions(watching, "audius_challenges", "public") == before
    assert rows(watching, f"{start})") == [("x1", 0), ("w5", 3)]
    assert rows(watching, f"{start})") == [("x1", 0), ("w5", 0)]
    watching.execute("SELECT build.block(101)")
    watching.execute("UPDATE users SET is_deactivated = FALSE, blocknumber = 101")
    watching.execute("UPDATE saves SET blocknumber = 101")
    assert tick(watching) == []
    for setting in ("0", "5000"):
        set_to(watching, "sweep_users", setting)
        assert tick(watching) == []
    watching.execute("SELECT * FROM reconcile_challenges(full_scan => TRUE)")
    assert sorted(deeds(watching, "w5")) == ["ff:a"]
    save(watching, 256, 13)
    assert tick(watching) == []
    assert sorted(deeds(watching, "w5")) == ["100:d", "ff:a"]


def test_what_is_passed_over_is_so_in_a_first_build_too(connection: Connection) -> None:
    connection.execute(SAVED)
    person(connection, 255)
    save(connection, 255, 10)
    connection.execute("SELECT * FROM audius_challenges.start_from_now('{w5}')")
    connection.execute("DELETE FROM audius_challenges.processor_state")
    save(connection, 255, 11)
    assert tick(connection) == []
    assert sorted(deeds(connection, "w5")) == ["ff:b"]


def test_a_deed_may_be_examined_by_another_than_who_earns_it(watching: Connection) -> None:
    watching.execute(PINNED)
    assert tick(watching) == []
    person(watching, 255)
    watching.execute("SELECT build.track(10, 255), build.track(11, 255)")
    watching.execute(
        """
        INSERT INTO comments
            (comment_id, user_id, entity_id, entity_type, text, created_at, updated_at, txhash, blockhash)
        SELECT id, user_id, id, 'Track', 'Nice.', '2025-01-01', '2025-01-01', '', ''
        FROM (VALUES (10, 501), (11, 255)) AS comment (id, user_id);
        UPDATE tracks SET pinned_comment_id = track_id;
        """
    )
    watching.execute("SELECT * FROM reconcile_challenges(full_scan => TRUE)")
    assert deeds(watching, "w6") == {"ff:a": (501, 1, True, 3), "ff:b": (255, 1, True, 3)}


# Failures and roles


def test_an_amount_too_great_sets_its_deed_aside_and_no_other(watching: Connection) -> None:
    person(watching, 255)
    for item, block in ((10, 101), (11, 102), (12, 101)):
        repost(watching, 255, item, block)
    repost(watching, 256, 13, 101)
    person(watching, 256)
    watching.execute("UPDATE challenges SET amount = '2000000000' WHERE id = 'x1'")
    (warning,) = tick(watching)
    assert warning.message.startswith('challenge "x1": user 255 set aside: integer out of range')
    assert failing(watching) == {}
    assert sorted(deeds(watching, "x1")) == ["100:x:d", "ff:x:a", "ff:x:c"]
    aside = "SELECT challenge_id, user_id, specifier, tries FROM audius_challenges.set_aside"
    assert rows(watching, aside) == [("x1", 255, "ff:x:b", 1)]

    watching.execute("UPDATE challenges SET amount = '2' WHERE id = 'x1'")
    assert tick(watching) == []
    assert sorted(deeds(watching, "x1")) == ["100:x:d", "ff:x:a", "ff:x:b", "ff:x:c"]
    assert rows(watching, aside) == []


def test_a_deed_that_a_trigger_refuses_is_set_aside_and_the_steps_of_others_go_on(watching: Connection) -> None:
    person(watching, 255)
    for item in (10, 20, 30):
        save(watching, 255, item)
    watching.execute(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'no album %', new.specifier;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON user_challenges
        FOR EACH ROW WHEN (new.specifier = 'ff:2') EXECUTE FUNCTION refuse();
        """
    )
    tick(watching)
    assert sorted(deeds(watching, "x2")) == ["ff:1", "ff:3"]
    save(watching, 255, 31)
    watching.execute("UPDATE saves SET is_delete = TRUE WHERE save_item_id = 10")
    assert tick(watching) == []
    assert {specifier: deed[1] for specifier, deed in deeds(watching, "x2").items()} == {"ff:1": 0, "ff:3": 2}
    aside = "SELECT challenge_id, user_id, specifier, tries FROM audius_challenges.set_aside"
    assert rows(watching, aside) == [("x2", 255, "ff:2", 2)]


def test_a_missing_column_of_a_source_is_named(watching: Connection) -> None:
    watching.execute("UPDATE challenges SET active = TRUE WHERE id = 'p'")
    watching.execute("ALTER TABLE reposts RENAME COLUMN repost_item_id TO item_id")
    with pytest.raises(errors.ExternalRoutineException):
        tick(watching)
    missing = 'column "repost_item_id" of table "public.reposts" does not exist HINT: It should be of type integer.'
    assert failing(watching) == {"x1": missing, "x3": missing}


def test_a_role_with_grant_run_runs_them(watching: Connection, discovery: Discovery) -> None:
    watching.execute("DROP ROLE IF EXISTS deeds_runner")
    watching.execute("CREATE ROLE deeds_runner LOGIN")
    try:
        watching.execute("SELECT audius_challenges.grant_run('deeds_runner')")
        person(watching, 255)
        repost(watching, 255, 10)
        save(watching, 255, 20)
        with closing(discovery.connect(user="deeds_runner")) as runner:
            assert tick(runner) == []
        assert everything(watching) == EVERYTHING_OF_255
    finally:
        watching.execute("DROP OWNED BY deeds_runner")
        watching.execute("DROP ROLE deeds_runner")


def test_a_rule_that_names_no_conditions_is_explained_by_what_it_finds(connection: Connection) -> None:
    for user_id in (1, 2):
        person(connection, user_id)
        save(connection, user_id, 10, 11)
    save(connection, 2, 12)
    repost(connection, 1, 10, block=102)
    query = "SELECT what, demanded, has, holds FROM explain_challenge(%s, 'x2') WHERE line = 'condition'"
    assert rows(connection, query, 1)[1:] == [("saved albums", "one", "0", False)]
    assert rows(connection, query, 2)[1:] == [("saved albums", "one", "1", True)]
    query = "SELECT challenge_id, state FROM explain_challenge(1) WHERE line = 'verdict' AND challenge_id LIKE 'x%%'"
    assert dict(rows(connection, query))["x1"] == "next_run"
    assert dict(rows(connection, query))["x2"] == "in_progress"
