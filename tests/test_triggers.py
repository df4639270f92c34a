"""The application's triggers on the tables that runs write: what a role needs for them, granted or said."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from psycopg import errors

from devtools.discovery import Discovery
from tests.sessions import Connection, Notice, notices, rows, statuses, value, well

WRITTEN = (
    "user_challenges",
    "challenge_profile_completion",
    "challenge_listen_streak",
    "trending_results",
    "challenges",
)


@pytest.fixture
def owner(discovery: Discovery) -> Iterator[Connection]:
    """A superuser, in a database whose tables of the application's own are closed, with a role to grant to."""
    with closing(discovery.connect()) as connection:
        connection.execute("CREATE ROLE runner LOGIN")
        connection.execute("REVOKE ALL ON user_challenges_log FROM public")
        connection.execute("DROP TRIGGER log_user_challenge ON user_challenges")
        try:
            yield connection
        finally:
            connection.execute("RESET ROLE")
            connection.execute("DROP OWNED BY runner")
            connection.execute("DROP ROLE runner")


def grant(connection: Connection) -> list[Notice]:
    """Grants, and returns what was said."""
    with notices(connection) as heard:
        connection.execute("SELECT audius_challenges.grant_run('runner')")
    return heard


def add_trigger(connection: Connection, table: str, body: str, options: str = "", level: str = "STATEMENT") -> None:
    """A trigger of the application on a table that runs write."""
    connection.execute(
        f"CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql {options} AS $$ BEGIN {body}; RETURN NULL; END $$"
    )
    connection.execute(
        f"CREATE TRIGGER remember AFTER INSERT OR UPDATE ON {table} FOR EACH {level} EXECUTE FUNCTION remember()"
    )


def test_what_production_s_triggers_need_is_granted(owner: Connection) -> None:
    owner.execute(
        "CREATE TABLE user_score_features (user_id integer PRIMARY KEY, challenge_count bigint, updated_at date)"
    )
    add_trigger(
        owner,
        "user_challenges",
        "INSERT INTO user_score_features SELECT new.user_id, count(*), now() FROM user_challenges"
        " WHERE user_id = new.user_id AND is_complete"
        " ON CONFLICT (user_id) DO UPDATE SET challenge_count = excluded.challenge_count, updated_at = now()",
        level="ROW",
    )
    assert grant(owner) == []
    owner.execute("SELECT build.person(255, is_verified => TRUE)")
    owner.execute("SET ROLE runner")
    assert statuses(owner) == well(owner)
    owner.execute("RESET ROLE")
    assert rows(owner, "SELECT user_id, challenge_count FROM user_score_features") == [(255, 1)]


@pytest.mark.parametrize(
    ("body", "needed"),
    [
        (
            "INSERT INTO kept (note) VALUES (tg_op)",
            ["INSERT ON TABLE public.kept", "USAGE ON SEQUENCE public.kept_id_seq"],
        ),
        ("UPDATE public.kept SET note = tg_op", ["SELECT ON TABLE public.kept", "UPDATE ON TABLE public.kept"]),
        ('DELETE FROM "kept" WHERE id = 0', ["DELETE ON TABLE public.kept", "SELECT ON TABLE public.kept"]),
        ("PERFORM 1 FROM challenges JOIN Kept ON TRUE -- INSERT INTO users\n", ["SELECT ON TABLE public.kept"]),
    ],
)
def test_what_another_trigger_seems_to_need_is_said(owner: Connection, body: str, needed: list[str]) -> None:
    owner.execute("CREATE TABLE kept (id serial PRIMARY KEY, note text)")
    owner.execute("GRANT UPDATE ON trending_results TO runner")
    hint = " ".join(f"GRANT {each} TO runner;" for each in needed)
    for table in WRITTEN:
        add_trigger(owner, table, body)

        heard = grant(owner)

        seems = f'trigger "remember" on {table}: its function public.remember() seems to need more'
        assert heard == [Notice(seems, hint)]
        # What is said is needed, and enough.
        write = f"UPDATE {table} SET {'id = id' if table == 'challenges' else 'user_id = user_id'} WHERE FALSE"
        with owner.transaction(force_rollback=True):
            owner.execute("SET LOCAL ROLE runner")
            with pytest.raises(errors.InsufficientPrivilege), owner.transaction():
                owner.execute(write)
            owner.execute("RESET ROLE")
            owner.execute(hint)
            assert grant(owner) == []
            owner.execute("SET LOCAL ROLE runner")
            owner.execute(write)
        owner.execute("DROP FUNCTION remember() CASCADE")


def test_a_function_with_a_path_and_schemas_of_the_setting_are_looked_through_in_their_order(owner: Connection) -> None:
    owner.execute("CREATE SCHEMA extras")
    owner.execute("CREATE TABLE extras.kept (note text)")
    owner.execute('CREATE SCHEMA "More extras"')
    owner.execute('CREATE TABLE "More extras".further (note text)')
    add_trigger(owner, "user_challenges", "INSERT INTO kept VALUES (tg_op)", 'SET search_path = "More extras", extras')
    seems = 'trigger "remember" on user_challenges: its function public.remember() seems to need more'
    assert grant(owner) == [
        Notice(seems, "GRANT INSERT ON TABLE extras.kept TO runner; GRANT USAGE ON SCHEMA extras TO runner;")
    ]
    owner.execute("ALTER FUNCTION remember() RESET search_path")
    assert grant(owner) == []  # no such table on the path of a run: it fails whatever is granted
    owner.execute("SET audius_challenges.trigger_schemas = 'More extras, extras'")
    assert grant(owner) == [Notice(seems, "GRANT INSERT ON TABLE extras.kept TO runner;")]
    assert value(owner, "SELECT has_schema_privilege('runner', 'More extras', 'USAGE')") is True
    owner.execute("GRANT INSERT ON extras.kept TO runner")
    assert grant(owner) == []


def test_a_function_that_runs_as_its_owner_needs_nothing(owner: Connection) -> None:
    owner.execute("CREATE TABLE kept (note text)")
    add_trigger(owner, "user_challenges", "INSERT INTO kept VALUES (tg_op)", "SECURITY DEFINER")
    assert grant(owner) == []
    # Nor is EXECUTE asked for when a trigger fires.
    owner.execute("REVOKE EXECUTE ON FUNCTION remember() FROM public")
    owner.execute("SELECT build.person(255, is_verified => TRUE)")
    owner.execute("SET ROLE runner")
    assert statuses(owner) == well(owner)


def test_of_a_compiled_function_it_says_that_nothing_can_be_told(owner: Connection) -> None:
    owner.execute(
        "CREATE TRIGGER same BEFORE UPDATE ON user_challenges"
        " FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    )
    assert grant(owner) == [
        Notice(
            'trigger "same" on user_challenges: what its function pg_catalog.suppress_redundant_updates_trigger()'
            " needs cannot be told",
            "A dry run as that role shows what is missing.",
        )
    ]
    owner.execute("ALTER TABLE user_challenges DISABLE TRIGGER same")
    assert grant(owner) == []
