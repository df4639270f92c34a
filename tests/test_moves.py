"""Schemas and tables that are renamed, moved, replaced by copies: the same is paid, or an error says what to do."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from audius_challenges.challenges import CHALLENGES
from audius_challenges.sources import TABLES
from devtools.cluster import Cluster
from devtools.discovery import Discovery
from tests.histories import FILLED_USERS, challenges_written, fill, goes_on
from tests.sessions import (
    RUN_ORDER,
    Connection,
    failing,
    notices,
    rows,
    statuses,
    tick,
    value,
    well,
)

USED = [name for name, table in TABLES.items() if table.columns]
CLOCKED = [name for name, table in TABLES.items() if table.clock]
STATE = ("processor_state", "look", "pause", "installation")

FRIDAY = "2025-03-07 10:00+00"
PAID = """
    SELECT challenge_id::text, user_id, specifier::text, is_complete, current_step_count, amount
    FROM user_challenges
    ORDER BY 1, 2, 3
"""


@pytest.fixture
def filled(discovery: Discovery) -> Iterator[Connection]:
    """A session in a database with a history."""
    with closing(discovery.connect()) as connection:
        fill(connection)
        yield connection


def rename_schema(connection: Connection, old: str, new: str) -> None:
    """As an operator does; and what the tests call goes along."""
    connection.execute(f'ALTER SCHEMA "{old}" RENAME TO "{new}"')
    connection.execute(f'SET search_path = "{new}", pg_temp')
    builders = "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'build'::regnamespace"
    for (builder,) in rows(connection, builders):
        connection.execute(f'ALTER FUNCTION {builder} SET search_path = "{new}", pg_temp')


def state(connection: Connection) -> dict[str, list[Any]]:
    """What is remembered, every row version of it."""
    query = "SELECT xmin::text, to_jsonb(each) FROM audius_challenges.{} AS each ORDER BY each::text"
    return {table: rows(connection, query.format(table)) for table in STATE}


# A schema that is renamed


@pytest.mark.parametrize("name", ["discovery", "Discovery Provider", "pg's %s :limit"])
def test_a_renamed_schema_changes_nothing(filled: Connection, name: str) -> None:
    before, written = state(filled), challenges_written(filled)
    rename_schema(filled, "public", name)
    assert tick(filled) == []
    assert challenges_written(filled) == written
    after = state(filled)
    assert after["installation"] == before["installation"]
    assert after["pause"] == before["pause"]
    remembered = "SELECT challenge_id, phase, look, sources, nothing_written FROM audius_challenges.processor_state"
    assert {row[1] for row in rows(filled, remembered)} == {"watching"}
    goes_on(filled)


def test_every_function_and_the_view_work_in_a_renamed_schema(filled: Connection) -> None:
    rename_schema(filled, "public", "discovery")
    assert statuses(filled) == well(filled)
    assert statuses(filled, "reconcile_challenges(full_scan => TRUE, dry_run => TRUE)") == well(filled)
    unpayable = "SELECT unpayable_rows FROM challenge_status WHERE challenge_id = 'v'"
    assert value(filled, unpayable) == 1
    filled.execute("UPDATE challenges SET amount = '9' WHERE id = 'v'")
    changed = rows(filled, "SELECT challenge_id, action, details FROM sync_challenge_catalog()")
    assert ("v", "updated", "amount: 9 -> 5") in changed
    assert len(rows(filled, "SELECT audius_challenges.start_from_now()")) == len(RUN_ORDER)
    filled.execute("CREATE ROLE moved_runner")
    try:
        filled.execute("SELECT audius_challenges.grant_run('moved_runner')")
        filled.execute("SET ROLE moved_runner")
        assert statuses(filled) == well(filled)
        assert tick(filled) == []
        assert value(filled, unpayable) == 1
    finally:
        filled.execute("RESET ROLE")
        filled.execute("DROP OWNED BY moved_runner")
        filled.execute("DROP ROLE moved_runner")


def test_a_session_goes_on_when_the_schema_is_renamed_beside_it(discovery: Discovery, filled: Connection) -> None:
    with closing(discovery.connect()) as ticking:
        assert tick(ticking) == []
        rename_schema(filled, "public", "discovery")
        assert tick(ticking) == []
        filled.execute("SELECT build.person(4095, is_verified => TRUE)")
        assert tick(ticking) == []
        rename_schema(filled, "discovery", "public")
        filled.execute("SELECT build.person(4094, is_verified => TRUE)")
        assert tick(ticking) == []
    paid = "SELECT user_id FROM user_challenges WHERE challenge_id = 'v' AND is_complete AND user_id > 4000 ORDER BY 1"
    assert rows(filled, paid) == [(4094,), (4095,)]


def test_nothing_that_takes_the_old_name_or_shadows_a_table_is_read(filled: Connection) -> None:
    """Neither tables and functions in a new schema of the old name, nor temporary ones."""
    rename_schema(filled, "public", "discovery")
    filled.execute("CREATE SCHEMA public")
    for name in USED:
        filled.execute(f"CREATE TABLE public.{name} (LIKE discovery.{name} INCLUDING ALL)")
        filled.execute(f"CREATE TEMPORARY TABLE {name} (LIKE discovery.{name} INCLUDING ALL)")
    filled.execute("INSERT INTO public.users TABLE discovery.users")
    filled.execute("INSERT INTO pg_temp.challenges SELECT * FROM discovery.challenges")
    filled.execute("SET search_path = discovery, public, pg_temp")
    written = challenges_written(filled)
    assert tick(filled) == []
    assert {status for status, _ in statuses(filled).values()} == {"ok"}
    filled.execute("SELECT build.playlist(255, 2, blocknumber => 3)")
    assert tick(filled) == []
    assert challenges_written(filled) == written + 1
    assert value(filled, "SELECT count(*) FROM public.user_challenges") == 0
    assert value(filled, "SELECT count(*) FROM pg_temp.user_challenges") == 0


def test_a_database_with_a_renamed_schema_is_dumped_and_restored(discovery: Discovery, filled: Connection) -> None:
    rename_schema(filled, "public", "discovery")
    cluster, name = discovery.cluster, f"{discovery.name}_copy"
    script = cluster.run("pg_dump", discovery.name).stdout
    cluster.create_database(name)
    try:
        cluster.run("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--dbname={name}", input=script)
        with closing(Discovery(cluster, name).connect()) as copy:
            copy.execute("SET search_path = discovery")
            goes_on(copy)
    finally:
        cluster.drop_database(name)


def test_a_version_that_named_its_schema_is_updated_after_a_rename(bare_discovery: Discovery) -> None:
    bare_discovery.psql("CREATE EXTENSION audius_challenges VERSION '1.1.0' CASCADE")
    with closing(bare_discovery.connect()) as connection:
        fill(connection)
        rename_schema(connection, "public", "discovery")
        connection.execute("ALTER EXTENSION audius_challenges UPDATE")
        # What 1.1.0 has not converted of e is examined once more, which goes_on() does not expect of a version.
        assert tick(connection) == []
        goes_on(connection)
        rename_schema(connection, "discovery", "elsewhere")
        assert tick(connection) == []


def test_the_extensions_own_schema_renamed_is_an_error_that_names_it(filled: Connection) -> None:
    filled.execute("ALTER SCHEMA audius_challenges RENAME TO its_state")
    for call in ("CALL its_state.tick()", "SELECT * FROM reconcile_challenges()", "SELECT * FROM challenge_status"):
        with pytest.raises(psycopg.Error) as error:
            filled.execute(call)
        assert error.value.sqlstate == "3F000"
        assert 'schema "audius_challenges" does not exist' in str(error.value)
    filled.execute("ALTER SCHEMA its_state RENAME TO audius_challenges")
    goes_on(filled)


# Tables that are moved to another schema


@pytest.mark.parametrize("table", USED)
def test_a_table_moved_to_another_schema_fails_by_name_and_says_where_it_is(filled: Connection, table: str) -> None:
    filled.execute("CREATE SCHEMA elsewhere")
    filled.execute(f"ALTER TABLE {table} SET SCHEMA elsewhere")
    with pytest.raises(psycopg.Error):
        tick(filled)
    found = failing(filled)
    expected = {challenge.id for challenge in CHALLENGES if table in challenge.reads or table == "challenges"}
    assert set(found) == expected
    for error in found.values():
        assert error.startswith(f'table "public.{table}" does not exist')
        assert f"is in schema public, and there is a table {table} in schema elsewhere" in error
    filled.execute(f"ALTER TABLE elsewhere.{table} SET SCHEMA public")
    goes_on(filled)


def test_before_anything_is_remembered_it_may_be_a_restore(discovery: Discovery) -> None:
    with closing(discovery.connect()) as connection:
        connection.execute("CREATE SCHEMA archive")
        connection.execute("ALTER TABLE user_challenges SET SCHEMA archive")
        (heard,) = tick(connection)
        assert heard.message == (
            "there is no table public.user_challenges: a restore seems to be under way, nothing was done"
        )
        assert "there is a table user_challenges in schema archive" in (heard.hint or "")
        assert value(connection, "SELECT count(*) FROM audius_challenges.processor_state") == 0


# Tables that are replaced by a copy of theirs


def copy(connection: Connection, table: str) -> None:
    """A copy of a table, named new_…, with other names for keys and triggers."""
    new = f"new_{table}"
    connection.execute(f"CREATE TABLE {new} (LIKE {table} INCLUDING ALL)")
    keys = """
        SELECT pg_get_constraintdef(oid) FROM pg_constraint
        WHERE conrelid = %s::regclass AND contype = 'f'
    """
    for (definition,) in rows(connection, keys, table):
        connection.execute(f"ALTER TABLE {new} ADD {definition}")
    connection.execute(f"INSERT INTO {new} SELECT * FROM {table}")


def take_its_place(connection: Connection, table: str) -> None:
    """The copy becomes the table, and the table is dropped."""
    new = f"new_{table}"
    triggers = """
        SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger
        WHERE tgrelid = %s::regclass AND NOT tgisinternal AND tgname <> 'sync'
    """
    for name, definition in rows(connection, triggers, table):
        renamed = definition.replace(f" {name} ", f" new_{name} ", 1)
        connection.execute(renamed.replace(f".{table} ", f".{new} ", 1))
    owned = "SELECT column_name FROM information_schema.columns WHERE table_name = %s AND column_default ~ 'nextval'"
    for (name,) in rows(connection, owned, table):
        sequence = value(connection, "SELECT pg_get_serial_sequence(%s, %s)", table, name)
        connection.execute(f"ALTER SEQUENCE {sequence} OWNED BY {new}.{name}")
    referencing = """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE confrelid = %s::regclass AND contype = 'f' AND conparentid = 0
    """
    found = rows(connection, referencing, table)
    for referring, name, _ in found:
        connection.execute(f"ALTER TABLE {referring} DROP CONSTRAINT {name}")
    connection.execute(f"DROP TABLE {table}")
    connection.execute(f"ALTER TABLE {new} RENAME TO {table}")
    for referring, name, definition in found:
        connection.execute(f"ALTER TABLE {referring} ADD CONSTRAINT {name}_of_copy {definition}")


def qualify_everybody(connection: Connection, first: int) -> None:
    """A user for each challenge, from this id on."""
    connection.execute("UPDATE challenges SET active = TRUE, starting_block = 0")
    for number, challenge in enumerate(RUN_ORDER):
        connection.execute("SELECT build.qualify(%s, %s)", [challenge, first + number])


def paid_before_and_after_a_swap(discovery: Discovery, table: str | None, *, is_early: bool = False) -> object:
    """What is paid to users of before, some of them unseen, and to users of after; how often it was written.

    :param is_early: the copy is made long before, and a trigger keeps it up to date
    """
    with closing(discovery.connect()) as session:
        qualify_everybody(session, 10)
        session.execute(f"SELECT FROM reconcile_challenges(as_of => '{FRIDAY}')")
        session.execute("SET audius_challenges.sweep_users = 0")
        assert tick(session) == []
        if table and is_early:
            copy(session, table)
            session.execute(
                f"""
                CREATE FUNCTION sync() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN
                    DELETE FROM new_{table} AS copied WHERE tg_op = 'UPDATE' AND copied::text = old::text;
                    INSERT INTO new_{table} SELECT new.*;
                    RETURN NULL;
                END $$;
                CREATE TRIGGER sync AFTER INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION sync();
                """
            )
        qualify_everybody(session, 50)
        assert tick(session) == []
        qualify_everybody(session, 90)
        with session.transaction():
            if table:
                if not is_early:
                    copy(session, table)
                take_its_place(session, table)
        assert tick(session) == []
        assert tick(session) == []
        qualify_everybody(session, 130)
        assert tick(session) == []
        assert failing(session) == {}
        written = challenges_written(session)
        paid = rows(session, PAID), value(session, "SELECT count(*) FROM notification")
        # Nothing is left to be found by whatever else there is.
        assert tick(session) == []
        session.execute("SELECT FROM reconcile_challenges(full_scan => TRUE)")
        assert (rows(session, PAID), value(session, "SELECT count(*) FROM notification")) == paid
        assert challenges_written(session) == written
        return written, paid


@pytest.fixture(scope="module")
def expected(cluster: Cluster, full_template: str) -> Iterator[object]:
    """What is paid where no table is replaced."""
    cluster.create_database("unmoved", full_template)
    yield paid_before_and_after_a_swap(Discovery(cluster, "unmoved"), None)
    cluster.drop_database("unmoved")


@pytest.mark.parametrize("table", USED)
def test_a_table_replaced_by_its_copy_changes_nothing(discovery: Discovery, expected: object, table: str) -> None:
    assert paid_before_and_after_a_swap(discovery, table) == expected


@pytest.mark.parametrize("table", CLOCKED)
def test_nor_does_one_replaced_by_a_copy_that_was_made_long_before(
    discovery: Discovery, expected: object, table: str
) -> None:
    assert paid_before_and_after_a_swap(discovery, table, is_early=True) == expected


def test_a_copy_of_user_challenges_without_a_trigger_that_was_there_waits_for_it(filled: Connection) -> None:
    """Rewards that are written without it, nobody is told of."""
    with filled.transaction():
        copy(filled, "user_challenges")
        filled.execute("DROP TRIGGER on_user_challenge ON user_challenges")
        take_its_place(filled, "user_challenges")
    written = challenges_written(filled)
    filled.execute("SELECT build.person(255, is_verified => TRUE)")
    reason = "user_challenges has no trigger that calls handle_user_challenge() yet"
    with notices(filled) as heard:
        tick(filled)
    assert [notice.message for notice in heard] == [f"{reason}: a restore seems to be under way, nothing was done"]
    assert challenges_written(filled) == written
    filled.execute(
        "CREATE TRIGGER notify AFTER INSERT OR UPDATE ON user_challenges"
        " FOR EACH ROW EXECUTE FUNCTION handle_user_challenge()"
    )
    goes_on_after = value(filled, "SELECT count(*) FROM notification")
    assert tick(filled) == []
    assert value(filled, "SELECT count(*) FROM notification") == goes_on_after + 1


def test_of_two_triggers_that_call_one_function_both_have_to_be_there(filled: Connection) -> None:
    filled.execute("DROP TRIGGER on_user_challenge ON user_challenges")
    for event in ("INSERT", "UPDATE"):
        filled.execute(
            f"CREATE TRIGGER on_{event} AFTER {event} ON user_challenges"
            " FOR EACH ROW EXECUTE FUNCTION handle_user_challenge()"
        )
    assert tick(filled) == []
    with filled.transaction():
        copy(filled, "user_challenges")
        filled.execute("DROP TRIGGER on_update ON user_challenges")
        take_its_place(filled, "user_challenges")
    (heard,) = tick(filled)
    assert heard.message.startswith("user_challenges has no trigger that calls handle_user_challenge() yet")
    assert statuses(filled) == well(filled)  # by hand: accepted as it is
    assert tick(filled) == []


def test_what_1_1_0_remembered_by_name_is_still_waited_for(filled: Connection) -> None:
    names = "{log_user_challenge,on_user_challenge,user_challenges_challenge_id_fkey}"
    filled.execute("UPDATE audius_challenges.installation SET cluster = 1, guards = %s", [names])
    filled.execute("ALTER TRIGGER on_user_challenge ON user_challenges RENAME TO another")
    (heard,) = tick(filled)
    assert heard.message.startswith("user_challenges has no on_user_challenge yet")
    filled.execute("ALTER TRIGGER another ON user_challenges RENAME TO on_user_challenge")
    assert tick(filled) == []
    assert value(filled, "SELECT count(*) FROM users") == FILLED_USERS
