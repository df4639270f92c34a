"""c goes by comments, not by users: what leads from a user to his comments is an index that there may be or not."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from devtools.discovery import Discovery
from tests.sessions import Connection, column, failing, rows, tick, value

WEEKS = "SELECT specifier FROM user_challenges WHERE challenge_id = 'c' ORDER BY specifier"
INDEX = "CREATE INDEX comments_user_id_idx ON comments (user_id)"
STATE = """
    SELECT phase::text, sources, sweep_rounds
    FROM audius_challenges.processor_state
    WHERE challenge_id = 'c'
"""


@pytest.fixture
def session(discovery: Discovery) -> Iterator[Connection]:
    """A session in a fresh database with c alone, and users 1 to 20, 11 to 20 deactivated, with a comment each."""
    with closing(discovery.connect()) as connection:
        connection.execute("UPDATE challenges SET active = id = 'c'")
        connection.execute(
            """
            SELECT
                build.person(n, is_deactivated => n > 10),
                build.comment(n * 1000, n, created_at => '2025-01-08')
            FROM generate_series(1, 20) AS n
            """
        )
        yield connection


def set_to(connection: Connection, **settings: int) -> None:
    """Changes settings of the extension for the session."""
    for name, number in settings.items():
        connection.execute("SELECT set_config(%s, %s, false)", [f"audius_challenges.{name}", str(number)])


def activate(connection: Connection, *users: int) -> None:
    """Users are active again."""
    connection.execute("UPDATE users SET is_deactivated = FALSE WHERE user_id = ANY(%s)", [list(users)])


def weeks(*users: int) -> list[str]:
    """The rewards of users for their first comment."""
    return sorted(f"{user:x}:202502" for user in users)


def examined(connection: Connection) -> int:
    return int(value(connection, "SELECT users_examined FROM reconcile_challenges('{c}')"))


def test_a_first_build_examines_comments_slice_by_slice_of_their_ids(session: Connection) -> None:
    set_to(session, slice_users=6, sweep_users=0)
    assert [examined(session) for _ in range(4)] == [6, 6, 6, 2]
    assert column(session, WEEKS) == weeks(*range(1, 11))
    assert rows(session, STATE) == [("watching", ["comments"], 1)]


def test_the_sweep_goes_through_the_comments_and_says_how_far_it_is(session: Connection) -> None:
    tick(session)
    activate(session, 13, 18)
    set_to(session, sweep_users=15)
    progress = "SELECT sweep_progress, sweep_position FROM challenge_status WHERE challenge_id = 'c'"
    assert examined(session) == 15
    assert column(session, WEEKS) == weeks(*range(1, 11), 13)
    assert rows(session, progress) == [(75, 15000)]
    assert examined(session) == 15
    assert column(session, WEEKS) == weeks(*range(1, 11), 13, 18)


def test_without_the_index_a_user_who_is_active_again_is_left_to_the_sweep(session: Connection) -> None:
    set_to(session, sweep_users=0)
    tick(session)
    activate(session, 13)
    assert tick(session) == []
    assert examined(session) == 0
    assert column(session, WEEKS) == weeks(*range(1, 11))


def test_with_the_index_his_comments_are_examined_by_the_next_tick(session: Connection) -> None:
    session.execute(INDEX)
    set_to(session, sweep_users=0)
    tick(session)
    assert rows(session, STATE) == [("watching", ["comments", "users"], 1)]
    activate(session, 13)
    assert examined(session) == 1
    assert column(session, WEEKS) == weeks(*range(1, 11), 13)


@pytest.mark.parametrize(
    "other",
    [
        "CREATE INDEX other ON comments (user_id) WHERE NOT is_delete",
        "CREATE INDEX other ON comments (entity_id, user_id)",
        "CREATE SCHEMA o; CREATE TABLE o.comments (user_id integer); CREATE INDEX other ON o.comments (user_id)",
        f"{INDEX}; UPDATE pg_index SET indisvalid = FALSE WHERE indexrelid = 'comments_user_id_idx'::regclass",
    ],
    ids=["partial", "second column", "another table", "invalid"],
)
def test_an_index_that_does_not_lead_to_all_comments_of_a_user_is_none(session: Connection, other: str) -> None:
    session.execute(other)
    tick(session)
    assert rows(session, STATE) == [("watching", ["comments"], 1)]


def test_when_the_index_comes_or_goes_all_comments_are_examined_once_more(session: Connection) -> None:
    set_to(session, sweep_users=0)
    tick(session)
    activate(session, 13)
    session.execute(INDEX)
    assert examined(session) == 20
    assert column(session, WEEKS) == weeks(*range(1, 11), 13)
    assert examined(session) == 0
    session.execute("DROP INDEX comments_user_id_idx")
    activate(session, 14)
    assert examined(session) == 20
    assert column(session, WEEKS) == weeks(*range(1, 11), 13, 14)
    assert examined(session) == 0


def test_a_week_whose_comments_lie_in_two_slices_is_one_reward(session: Connection) -> None:
    session.execute("SELECT build.comment(1000000 - n, n, created_at => '2025-01-09') FROM generate_series(1, 5) AS n")
    set_to(session, slice_users=4, sweep_users=0)
    while tick(session) or rows(session, STATE)[0][0] != "watching":
        pass
    assert column(session, WEEKS) == weeks(*range(1, 11))
    assert value(session, "SELECT count(*) FROM user_challenges_log WHERE challenge_id = 'c'") == 10


def test_a_comment_that_changes_hands_pays_whose_it_is(session: Connection) -> None:
    set_to(session, sweep_users=0)
    tick(session)
    session.execute("UPDATE comments SET user_id = 1, created_at = '2025-02-03' WHERE comment_id = 12000")
    assert examined(session) == 1
    assert column(session, WEEKS) == sorted([*weeks(*range(1, 11)), "1:202506"])


REFUSES = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'not %', new.specifier;
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON user_challenges
    FOR EACH ROW WHEN (new.specifier = '3:202502') EXECUTE FUNCTION refuse();
"""


def test_a_deed_is_set_aside_under_its_user_and_tried_again_with_its_comments(session: Connection) -> None:
    """Two comments of his week cannot be written; a third, of another week, is."""
    set_to(session, sweep_users=0)
    session.execute("SELECT build.comment(3001, 3, created_at => '2025-01-09')")
    session.execute("SELECT build.comment(3002, 3, created_at => '2025-01-15')")
    session.execute(REFUSES)
    (warning,) = tick(session)
    assert warning.message == 'challenge "c": user 3 and 1 more set aside: not 3:202502 (SQLSTATE P0001)'
    assert failing(session) == {}
    assert column(session, WEEKS) == sorted([*weeks(*({*range(1, 11)} - {3})), "3:202503"])
    aside = "SELECT user_id, specifier, examined_id, tries FROM audius_challenges.set_aside ORDER BY examined_id"
    assert rows(session, aside) == [(3, "3:202502", 3000, 1), (3, "3:202502", 3001, 1)]
    assert value(session, "SELECT users_set_aside FROM challenge_status WHERE challenge_id = 'c'") == 1

    # One of the two goes: nothing of it is left to be tried.
    session.execute("DELETE FROM comments WHERE comment_id = 3001")
    set_to(session, sweep_users=5000)
    assert tick(session) == []
    assert rows(session, aside) == [(3, "3:202502", 3000, 2)]

    session.execute("DROP TRIGGER refuse ON user_challenges")
    set_to(session, sweep_users=0)
    assert tick(session) == []
    assert rows(session, aside) == [(3, "3:202502", 3000, 2)]
    session.execute("UPDATE comments SET text = 'changed' WHERE comment_id = 3000")
    assert tick(session) == []
    assert rows(session, aside) == []
    assert column(session, WEEKS) == sorted([*weeks(*range(1, 11)), "3:202503"])


def test_a_comment_of_the_future_waits_for_the_sweep(session: Connection) -> None:
    set_to(session, sweep_users=0)
    session.execute("SELECT build.comment(9, 1, created_at => (now() AT TIME ZONE 'UTC')::timestamp + INTERVAL '1 h')")
    tick(session)
    assert column(session, WEEKS) == weeks(*range(1, 11))
    session.execute("UPDATE comments SET blocknumber = NULL, created_at = '2025-02-03' WHERE comment_id = 9")
    tick(session)
    assert column(session, WEEKS) == weeks(*range(1, 11))
    set_to(session, sweep_users=5000)
    tick(session)
    assert column(session, WEEKS) == sorted([*weeks(*range(1, 11)), "1:202506"])
