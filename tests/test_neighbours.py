"""What else lives on the server changes nothing: Python packages of the same name, publications, subscriptions."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from devtools.cluster import Cluster
from devtools.discovery import CREATE_EXTENSION, Discovery, create_discovery, require_extension
from tests.sessions import (
    RUN_ORDER,
    column,
    completed,
    replace_package,
    statuses,
    tick,
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
