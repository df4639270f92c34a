"""What else lives on the server changes nothing: Python packages of the same name, publications, subscriptions."""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from devtools.cluster import Cluster
from devtools.discovery import CREATE_EXTENSION, Discovery, create_discovery, require_extension
from tests.sessions import (
    RUN_ORDER,
    Connection,
    column,
    completed,
    notices,
    replace_package,
    statuses,
    tick,
    until,
    value,
    well,
)

FOREIGN = "raise AssertionError('the package of somebody else')"


@pytest.fixture(scope="module")
def beside_a_package(root: Path | None) -> Iterator[Discovery]:
    """A server whose Python finds a package of our name in a directory of its path."""
    with Cluster(root=root, cron_database="postgres") as cluster, pytest.MonkeyPatch.context() as environment:
        require_extension(cluster)
        yield with_a_package(cluster, environment)


def with_a_package(cluster: Cluster, environment: pytest.MonkeyPatch) -> Discovery:
    """Puts the package there, and restarts the server with the path to it."""
    package = cluster.new_directory("python") / "audius_challenges"
    package.mkdir()
    for module in ("entry", "errors"):
        (package / f"{module}.py").write_text(FOREIGN)
    (package / "__init__.py").write_text("FOREIGN = True")
    for path in (package.parent, package, *package.iterdir()):
        path.chmod(0o755)
    environment.setenv("PYTHONPATH", cluster.inside(package.parent))
    cluster.restart()
    database = create_discovery(cluster, "discovery")
    database.psql(CREATE_EXTENSION)
    return database


# What a function of somebody else does in the session, as PL/Python.
IMPORTED = "import audius_challenges\nassert audius_challenges.FOREIGN"
REPLACED = """
import sys
from types import ModuleType
for name in [name for name in sys.modules if name.startswith('audius_challenges')]:
    sys.modules[name] = ModuleType(name)
"""
IN_PARTS = """
import sys
from types import ModuleType
sys.modules['audius_challenges.operation.status'] = ModuleType('audius_challenges.operation.status')
"""
FORGOTTEN = """
import sys
for name in [name for name in sys.modules if name.startswith('audius_challenges')]:
    del sys.modules[name]
"""
FINDER = f"""
import sys
from importlib.machinery import PathFinder
sys.meta_path[:] = [PathFinder, *(finder for finder in sys.meta_path if finder is not PathFinder)]
{FORGOTTEN}
"""


def test_a_package_of_this_name_on_the_server_never_wins(beside_a_package: Discovery) -> None:
    with closing(beside_a_package.connect()) as connection:
        assert statuses(connection) == well(connection)
        connection.execute("SELECT build.person(255, is_verified => TRUE)")
        assert tick(connection) == []
        assert completed(connection, "v") == ["ff"]
    with closing(beside_a_package.connect()) as connection:
        connection.execute(f"DO LANGUAGE plpython3u $${IMPORTED}$$")  # the path is as it was meant to be
        assert tick(connection) == []
        assert statuses(connection) == well(connection)


@pytest.mark.parametrize("meanwhile", [REPLACED, IN_PARTS, FORGOTTEN, FINDER])
def test_what_a_function_of_the_session_does_to_the_package_is_undone(
    beside_a_package: Discovery, meanwhile: str
) -> None:
    with closing(beside_a_package.connect()) as connection:
        for before in ("SELECT", "SELECT FROM reconcile_challenges()"):
            connection.execute(before)
            connection.execute(f"DO LANGUAGE plpython3u $${meanwhile}$$")
            assert column(connection, "SELECT challenge_id FROM challenge_status") == list(RUN_ORDER)
            assert statuses(connection) == well(connection)


def test_another_version_of_the_package_replaces_the_one_before_in_a_session(discovery: Discovery) -> None:
    finders = """
        DO LANGUAGE plpython3u $$
        import sys
        names = [type(finder).__name__ for finder in sys.meta_path]
        plpy.execute(f"SELECT set_config('neighbours.finders', '{names.count('PackageFinder')} {names[0]}', false)")
        $$
    """
    with closing(discovery.connect()) as connection:
        for mark in ("first", "second"):
            replace_package(connection, mark, f"\n__version__ = '{mark}'\n")
            assert statuses(connection) == well(connection)
            connection.execute(finders)
            assert value(connection, "SELECT current_setting('neighbours.finders')") == "1 PackageFinder"


def test_a_session_takes_bytecode_and_needs_no_source(discovery: Discovery) -> None:
    with closing(discovery.connect()) as connection:
        load = value(connection, "SELECT pg_get_functiondef('audius_challenges.load()'::regprocedure)")
        without, replaced = re.subn(r"^# \(.*$", "# ('', {})", load, flags=re.MULTILINE)
        assert replaced == 1
        connection.execute(without)
    with closing(discovery.connect()) as session:
        session.execute("SELECT build.person(255, is_verified => TRUE)")
        assert tick(session) == []
        assert completed(session, "v") == ["ff"]


# Logical replication


@pytest.fixture(scope="module")
def replicating(root: Path | None) -> Iterator[Cluster]:
    """A server with three databases: a publisher that has the extension, and two subscribers to be."""
    settings = {"wal_level": "logical", "wal_retrieve_retry_interval": "100ms"}
    with Cluster(root=root, cron_database="postgres", settings=settings) as cluster:
        require_extension(cluster)
        for name in ("publisher", "replica", "runner"):
            create_discovery(cluster, name)
        yield cluster


def subscribe(cluster: Cluster, publisher: Connection, subscriber: Connection, name: str, publication: str) -> None:
    """Subscribes to a database of the same server, where the slot has to be made beforehand."""
    publisher.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
    at = f"host={cluster.inside(Path(publisher.info.host))} port={publisher.info.port}"
    info = f"{at} user=postgres dbname={publisher.info.dbname}"
    subscriber.execute(
        f"CREATE SUBSCRIPTION {name} CONNECTION '{info}' PUBLICATION {publication} WITH (create_slot = false)"
    )


def warned(connection: Connection) -> list[str]:
    """Creates the extension; the warnings, with their hints."""
    connection.execute("CREATE EXTENSION IF NOT EXISTS plpython3u")
    with notices(connection) as heard:
        connection.execute("CREATE EXTENSION audius_challenges")
    return [f"{one.message} / {one.hint}" for one in heard if "publi" in one.message or "subscri" in one.message]


def test_every_table_of_the_state_has_a_key_by_which_replication_finds_its_rows(discovery: Discovery) -> None:
    keyless = """
        SELECT relname FROM pg_class
        WHERE relnamespace = 'audius_challenges'::regnamespace AND relkind = 'r'
            AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = pg_class.oid AND indisprimary)
    """
    with closing(discovery.connect()) as connection:
        assert column(connection, keyless) == []


def test_publications_and_subscriptions_are_told_and_what_the_page_says_of_them_is_so(replicating: Cluster) -> None:
    with (
        closing(replicating.connect("publisher")) as publisher,
        closing(replicating.connect("replica")) as replica,
        closing(replicating.connect("runner")) as runner,
    ):
        sources = "blocks, users, tracks, playlists, follows, saves, reposts, plays"
        publisher.execute("CREATE PUBLICATION whole FOR ALL TABLES")
        publisher.execute("CREATE PUBLICATION of_schema FOR TABLES IN SCHEMA public")
        publisher.execute("CREATE PUBLICATION of_one FOR TABLE user_challenges, users")
        publisher.execute(f"CREATE PUBLICATION sources FOR TABLE {sources}")
        subscribe(replicating, publisher, replica, "to_whole", "whole")
        synced = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'"
        until(lambda: value(replica, synced) == 0, "the first copy")

        heard = warned(publisher)

        assert [one.split(" publishes ")[0] for one in heard] == [
            'publication "of_one"',
            'publication "of_schema"',
            'publication "whole"',
            'publication "whole"',
        ]
        assert heard[0].startswith(
            'publication "of_one" publishes user_challenges, which runs write / Nobody may write'
        )
        assert "publishes the tables of schema audius_challenges: a subscription stops with an error" in heard[2]

        # A subscriber to all tables stops at the first tick, until it has the extension, too. That schedules nothing.
        publisher.execute("SELECT build.person(255, is_verified => TRUE)")
        assert tick(publisher) == []
        stopped = 'logical replication target relation "audius_challenges.'
        until(lambda: stopped in replicating.log(), "the subscription stopping")
        assert completed(replica, "v") == []
        assert (
            'subscription "to_whole" writes challenge_listen_streak, challenge_profile_completion, '
            in warned(replica)[0]
        )
        until(lambda: completed(replica, "v") == ["ff"], "the subscription going on")
        assert value(replica, "SELECT count(*) FROM notification") == 1  # copied, not made again by the trigger there
        assert value(replica, "SELECT count(*) FROM audius_challenges.processor_state") == 0

        # A subscriber to the sources alone runs challenges itself: what the subscription writes is found as it comes.
        assert warned(runner) == []
        assert tick(runner) == []
        runner.execute("SET audius_challenges.sweep_users = 0")
        subscribe(replicating, publisher, runner, "to_sources", "sources")
        until(lambda: value(runner, synced) == 0, "the first copy")
        assert statuses(runner) == well(runner)
        assert completed(runner, "v") == ["ff"]
        publisher.execute("SELECT build.person(4095, is_verified => TRUE)")
        until(lambda: value(runner, "SELECT count(*) FROM users") == 2, "the second user")
        assert statuses(runner) == well(runner)
        assert completed(runner, "v") == ["ff", "fff"]

        for subscriber, name in ((replica, "to_whole"), (runner, "to_sources")):
            subscriber.execute(f"ALTER SUBSCRIPTION {name} DISABLE")
            subscriber.execute(f"ALTER SUBSCRIPTION {name} SET (slot_name = NONE)")
            subscriber.execute(f"DROP SUBSCRIPTION {name}")
