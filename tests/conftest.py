"""Servers and databases for the tests: throw-away clusters, and a fresh discovery database for each test.

``pytest --major 18`` tests on that PostgreSQL: where it is not this machine's, in a Debian root (needs root), and only
what uses a server and is not marked `one_version`, since the rest is the same on all.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from devtools.cluster import NO_SETTINGS, Cluster
from devtools.debian_root import SUITES, machine_major, root_of
from devtools.discovery import CREATE_EXTENSION, Discovery, create_discovery, require_extension
from devtools.pgtap import LAUNCHER

if TYPE_CHECKING:
    from tests.sessions import NewCluster

# Asserts in these show values, too.
pytest.register_assert_rewrite(
    "tests.anatomy",
    "tests.cli.terminal",
    "tests.deployment.containers",
    "tests.histories",
    "tests.model",
    "tests.pages",
    "tests.sessions",
)

BARE = "discovery_bare"
FULL = "discovery_full"

TESTED = pytest.StashKey[Any]()
"""The versions of the server that was tested, and of its pg_cron."""
_numbers = itertools.count(1)


def pytest_configure() -> None:
    # A shell starts what it runs in the background with SIGINT ignored, and whoever is started inherits that. What is
    # tested here is what Ctrl-C does to somebody at a terminal.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    helped = "test on this PostgreSQL, by default this machine's; another one needs root"
    parser.addoption("--major", type=int, choices=sorted(SUITES), help=helped)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out, on a PostgreSQL that is not this machine's, what would do the same again: what is marked so, and what
    uses no server. Every server that a test has comes with the fixture `root`."""
    if _major(config) == machine_major():
        return
    same = [
        item
        for item in items
        if "root" not in getattr(item, "fixturenames", ()) or item.get_closest_marker("one_version")
    ]
    config.hook.pytest_deselected(items=same)
    items[:] = [item for item in items if item not in same]


@pytest.fixture(scope="session")
def root(pytestconfig: pytest.Config) -> Path | None:
    """Directory of the Debian whose server is tested, None for this machine's."""
    return root_of(_major(pytestconfig))


@pytest.fixture(scope="session")
def cluster(root: Path | None, pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """The cluster that most tests share. Its pg_cron lives in a database of its own, out of their way."""
    with Cluster(root=root, cron_database="postgres") as cluster:
        require_extension(cluster)
        assert cluster.major == _major(pytestconfig)
        with cluster.connect("postgres") as connection:
            versions = connection.execute(
                "SELECT current_setting('server_version'), default_version FROM pg_available_extensions"
                " WHERE name = 'pg_cron'"
            ).fetchone()
        pytestconfig.stash[TESTED] = versions
        yield cluster


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process that runs a part of the tests passes on what it has tested to the one that prints."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["tested"] = session.config.stash.get(TESTED, None)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    if tested := getattr(node, "workeroutput", {}).get("tested"):
        node.config.stash[TESTED] = tested


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if versions := config.stash.get(TESTED, None):
        terminalreporter.write_line("pytest on PostgreSQL {}, pg_cron {}".format(*versions))


@pytest.fixture(scope="session")
def bare_template(cluster: Cluster) -> str:
    """Name of a database with the discovery schema and the builders, to make others from."""
    return create_discovery(cluster, BARE).name


@pytest.fixture(scope="session")
def full_template(cluster: Cluster, bare_template: str) -> str:
    """Name of a database that has the extension too, to make others from."""
    cluster.create_database(FULL, template=bare_template)
    cluster.psql(FULL, CREATE_EXTENSION)
    return FULL


@pytest.fixture
def discovery(cluster: Cluster, full_template: str) -> Iterator[Discovery]:
    """A fresh discovery database with the builders and the extension."""
    yield from _database(cluster, full_template)


@pytest.fixture
def bare_discovery(cluster: Cluster, bare_template: str) -> Iterator[Discovery]:
    """A fresh discovery database with the builders, without the extension."""
    yield from _database(cluster, bare_template)


@pytest.fixture
def empty_database(cluster: Cluster) -> Iterator[Discovery]:
    """A fresh database with nothing in it."""
    yield from _database(cluster, None)


@pytest.fixture
def new_cluster(root: Path | None) -> Iterator[NewCluster]:
    """Starts clusters of a test's own: ``new_cluster(cron_database=…, settings={…})``; `Cluster` tells the
    rest."""
    with ExitStack() as stack:

        def start(*, cron_database: str = "discovery", settings: Mapping[str, str] = NO_SETTINGS) -> Cluster:
            return stack.enter_context(Cluster(root=root, cron_database=cron_database, settings=settings))

        yield start


@pytest.fixture
def cron_cluster(new_cluster: NewCluster) -> Discovery:
    """A cluster of the test's own with pg_cron in its database ``discovery``, which has the builders and the
    extension: so it is scheduled, and ticks on a real clock."""
    cluster = new_cluster()
    require_extension(cluster)
    database = create_discovery(cluster, "discovery")
    database.psql("CREATE EXTENSION pg_cron", CREATE_EXTENSION, LAUNCHER)
    return database


def _major(config: pytest.Config) -> int:
    chosen: int | None = config.getoption("--major")
    return chosen or machine_major()


def _database(cluster: Cluster, template: str | None) -> Iterator[Discovery]:
    name = f"test_{next(_numbers)}"
    cluster.create_database(name, template)
    try:
        yield Discovery(cluster, name)
    finally:
        cluster.drop_database(name)
