"""The view of what is to be paid, whatever becomes of the tables that it reads."""

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from psycopg import errors

from devtools.discovery import CREATE_EXTENSION, Discovery
from tests.sessions import Beside, Connection, column, message_of, rows, value

NEEDED = ("user_challenges", "challenges", "users", "challenge_disbursements")
READ = (*NEEDED, "sol_reward_disbursements")
SHOWN = "SELECT specifier FROM undisbursed_challenges ORDER BY 1"
EVERYTHING = "SELECT to_jsonb(line) FROM undisbursed_challenges AS line ORDER BY line.specifier"
READER = "SET ROLE disbursing_reader"


@pytest.fixture
def session(discovery: Discovery) -> Iterator[Connection]:
    """A session in a database in which 2 was paid, 3 on the other chain, and 1 and 4 were not."""
    with closing(discovery.connect()) as connection:
        for user_id in range(1, 5):
            connection.execute("SELECT build.person(%s)", [user_id])
            connection.execute("SELECT build.complete('v', %s, %s)", [user_id, str(user_id)])
        connection.execute("SELECT build.disbursed('v', 2, '2')")
        connection.execute("INSERT INTO sol_reward_disbursements VALUES ('a', 0, 1, 1, 'bank', 'v', '3')")
        yield connection


@pytest.fixture
def reader(session: Connection) -> Iterator[Connection]:
    """The same, beside a role of which nothing is granted yet."""
    session.execute("CREATE ROLE disbursing_reader")
    try:
        yield session
    finally:
        session.execute("RESET ROLE")
        session.execute("DROP OWNED BY disbursing_reader CASCADE")
        session.execute("DROP ROLE disbursing_reader")


def swap(connection: Connection, table: str) -> None:
    """Replaces a table by a copy of it."""
    connection.execute(f"CREATE TABLE new_{table} (LIKE {table} INCLUDING ALL)")
    connection.execute(f"INSERT INTO new_{table} SELECT * FROM {table}")
    connection.execute(f"DROP TABLE {table} CASCADE")
    connection.execute(f"ALTER TABLE new_{table} RENAME TO {table}")


def test_an_empty_database_shows_nothing(empty_database: Discovery) -> None:
    with closing(empty_database.connect()) as connection:
        connection.execute(CREATE_EXTENSION)
        assert rows(connection, SHOWN) == []
        assert rows(connection, "SELECT * FROM audius_challenges.undisbursed(1, page_size => 10)") == []


def test_the_other_chain_may_be_missing_and_come_later(session: Connection) -> None:
    assert column(session, SHOWN) == ["1", "4"]
    session.execute("ALTER TABLE sol_reward_disbursements RENAME TO away")
    assert column(session, SHOWN) == ["1", "3", "4"]
    session.execute("ALTER TABLE away RENAME TO sol_reward_disbursements")
    assert column(session, SHOWN) == ["1", "4"]


def test_it_is_found_by_a_session_that_has_read_before(discovery: Discovery, session: Connection) -> None:
    session.execute("ALTER TABLE sol_reward_disbursements RENAME TO away")
    with closing(discovery.connect()) as other:
        other.execute(f"PREPARE shown AS {SHOWN}")
        assert column(other, "EXECUTE shown") == ["1", "3", "4"]
        session.execute("ALTER TABLE away RENAME TO sol_reward_disbursements")
        assert column(other, "EXECUTE shown") == ["1", "4"]


@pytest.mark.parametrize("table", NEEDED)
def test_a_table_that_is_missing_is_an_error_that_names_it(session: Connection, table: str) -> None:
    """Without what was paid, all would be taken for unpaid."""
    session.execute(f"ALTER TABLE {table} RENAME TO away")
    with pytest.raises(errors.UndefinedTable, match=rf"table public\.{table} does not exist"):
        session.execute(SHOWN)


@pytest.mark.parametrize("table", READ)
def test_a_table_may_be_replaced_by_a_copy(discovery: Discovery, session: Connection, table: str) -> None:
    before = rows(session, EVERYTHING)
    with closing(discovery.connect()) as other:
        other.execute(f"PREPARE shown AS {EVERYTHING}")
        other.execute("EXECUTE shown")
        swap(session, table)
        assert rows(other, "EXECUTE shown") == before
        session.execute("SELECT build.disbursed('v', 1, '1')")
        assert column(other, SHOWN) == ["4"]


@pytest.mark.parametrize("table", READ)
def test_a_table_may_be_dropped(session: Connection, table: str) -> None:
    """Nothing of the extension depends on it, or goes with it."""
    members = "SELECT count(*) FROM pg_depend WHERE refobjid = (SELECT oid FROM pg_extension WHERE extname = %s)"
    before = value(session, members, "audius_challenges")
    if table == "challenges":
        session.execute("ALTER TABLE user_challenges DROP CONSTRAINT user_challenges_challenge_id_fkey")
    session.execute(f"DROP TABLE {table}")
    assert value(session, members, "audius_challenges") == before


def test_all_may_be_partitioned(session: Connection) -> None:
    before = rows(session, EVERYTHING)
    for table in READ:
        session.execute(f"ALTER TABLE {table} RENAME TO {table}_rows")
        key = "id" if table == "challenges" else "user_id" if table == "users" else "challenge_id"
        session.execute(f"CREATE TABLE {table} (LIKE {table}_rows) PARTITION BY HASH ({key})")
        for number in range(2):
            session.execute(
                f"CREATE TABLE {table}_{number} PARTITION OF {table} FOR VALUES WITH (MODULUS 2, REMAINDER {number})"
            )
        session.execute(f"INSERT INTO {table} SELECT * FROM {table}_rows")
    assert rows(session, EVERYTHING) == before


@pytest.mark.parametrize("table", READ)
def test_who_reads_while_a_copy_takes_its_place_sees_the_copy(
    discovery: Discovery, session: Connection, table: str
) -> None:
    """The reader's statement is older than the copy's rows: without them, all that was paid would be shown."""
    before = rows(session, EVERYTHING)
    with closing(discovery.connect(autocommit=False)) as swapping, closing(discovery.connect()) as other:
        swap(swapping, table)
        reading = Beside(other, f"CREATE TEMPORARY TABLE seen AS {EVERYTHING}")
        reading.wait_until_blocked(session)
        swapping.commit()
        assert reading.finish() is None
        assert rows(other, "TABLE seen") == before


@pytest.mark.parametrize("table", READ)
def test_a_transaction_that_cannot_see_the_copy_fails(discovery: Discovery, session: Connection, table: str) -> None:
    with closing(discovery.connect()) as other:
        other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT pg_current_snapshot()")
        with session.transaction():
            swap(session, table)
        with pytest.raises(errors.SerializationFailure) as failure:
            other.execute(SHOWN)
        assert message_of(failure.value) == (
            f"table public.{table} was replaced after this transaction began",
            "Try again, in a new transaction.",
        )


def test_so_does_one_whose_other_chain_came_later(discovery: Discovery, session: Connection) -> None:
    session.execute("DROP TABLE sol_reward_disbursements")
    with closing(discovery.connect()) as other:
        other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT pg_current_snapshot()")
        session.execute("CREATE TABLE sol_reward_disbursements (challenge_id varchar, specifier varchar)")
        with pytest.raises(errors.SerializationFailure, match=r"sol_reward_disbursements was replaced"):
            other.execute(SHOWN)


def test_a_transaction_that_may_only_read_reads(session: Connection) -> None:
    session.execute("BEGIN READ ONLY")
    assert column(session, SHOWN) == ["1", "4"]
    session.execute("COMMIT")


@pytest.mark.parametrize("name", ["discovery", "The Network"])
def test_the_schema_may_be_renamed(session: Connection, name: str) -> None:
    before = rows(session, EVERYTHING)
    session.execute(f'ALTER SCHEMA public RENAME TO "{name}"')
    renamed = EVERYTHING.replace("FROM ", f'FROM "{name}".')
    assert rows(session, renamed) == before
    # Neither what takes the old name nor what is temporary is read.
    session.execute("CREATE SCHEMA public")
    for table in READ:
        session.execute(f'CREATE TABLE public.{table} (LIKE "{name}".{table})')
        session.execute(f'CREATE TEMPORARY TABLE {table} (LIKE "{name}".{table})')
    assert rows(session, renamed) == before
    session.execute(f'DROP TABLE "{name}".challenge_disbursements')
    with pytest.raises(errors.UndefinedTable, match=r"challenge_disbursements does not exist"):
        session.execute(renamed)


def test_who_has_no_grant_is_told_which(reader: Connection) -> None:
    reader.execute("GRANT USAGE ON SCHEMA audius_challenges TO disbursing_reader")
    reader.execute("GRANT SELECT ON undisbursed_challenges, user_challenges, challenges TO disbursing_reader")
    reader.execute(
        "GRANT EXECUTE ON FUNCTION audius_challenges.undisbursed(bigint, text, bigint, text, text, bigint)"
        " TO disbursing_reader"
    )
    reader.execute(READER)
    with pytest.raises(errors.InsufficientPrivilege) as refused:
        reader.execute(SHOWN)
    hint = "SELECT audius_challenges.grant_status('disbursing_reader'); grants what is read."
    assert message_of(refused.value) == ("permission denied for table users", hint)
    reader.execute("RESET ROLE")
    reader.execute(hint.split(";", maxsplit=1)[0])
    reader.execute(READER)
    assert column(reader, SHOWN) == ["1", "4"]


def test_grant_status_is_all_that_it_takes(reader: Connection) -> None:
    reader.execute("SELECT audius_challenges.grant_status('disbursing_reader')")
    reader.execute(READER)
    assert column(reader, SHOWN) == ["1", "4"]
    assert column(reader, "SELECT specifier FROM audius_challenges.undisbursed(of_user => 4)") == ["4"]


def test_a_table_that_comes_later_has_to_be_granted(reader: Connection) -> None:
    """It is not passed over: what it says was paid would be shown."""
    reader.execute("ALTER TABLE sol_reward_disbursements RENAME TO away")
    reader.execute("SELECT audius_challenges.grant_status('disbursing_reader')")
    reader.execute("CREATE TABLE sol_reward_disbursements (LIKE away)")
    reader.execute("INSERT INTO sol_reward_disbursements TABLE away")
    reader.execute(READER)
    with pytest.raises(errors.InsufficientPrivilege, match=r"denied for table sol_reward_disbursements"):
        reader.execute(SHOWN)
    reader.execute("RESET ROLE")
    reader.execute("SELECT audius_challenges.grant_status('disbursing_reader')")
    reader.execute(READER)
    assert column(reader, SHOWN) == ["1", "4"]


@pytest.mark.parametrize("table", READ)
def test_rows_that_row_level_security_hides_are_not_taken_for_missing(reader: Connection, table: str) -> None:
    reader.execute("SELECT audius_challenges.grant_status('disbursing_reader')")
    reader.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    reader.execute(READER)
    with pytest.raises(psycopg.Error) as refused:
        reader.execute(SHOWN)
    assert message_of(refused.value) == (
        f'query would be affected by row-level security policy for table "{table}"',
        "ALTER ROLE disbursing_reader BYPASSRLS;",
    )
    reader.execute("RESET ROLE")
    reader.execute("ALTER ROLE disbursing_reader BYPASSRLS")
    reader.execute(READER)
    assert column(reader, SHOWN) == ["1", "4"]
