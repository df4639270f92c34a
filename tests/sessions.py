"""What the tests of operation do in a session: tick, read, listen to notices, wait for an event, run beside others."""

import ast
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg.errors import Diagnostic

from audius_challenges.challenges import CHALLENGES
from devtools.cluster import Cluster

T = TypeVar("T")
Connection = psycopg.Connection[Any]
NewCluster = Callable[..., Cluster]
"""The fixture that starts clusters of a test's own."""

RUN_ORDER = tuple(processor.id for processor in CHALLENGES)
"""The challenges in the order they run. It is all that the tests import from the package."""
REGISTRY = "challenges/__init__"
"""The module of the package where `CHALLENGES` is."""
NO_MODULES: Mapping[str, str] = MappingProxyType({})
TICK = "CALL audius_challenges.tick()"
RUN_LOCK = "1633903724, 1"
"""The advisory lock of a run: whoever holds it, a run finds another one under way."""


class Notice(NamedTuple):
    """A notice or warning of the server."""

    message: str
    hint: str | None


def rows(connection: Connection, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    """All rows of a query."""
    return connection.execute(query, parameters or None).fetchall()


def value(connection: Connection, query: str, *parameters: object) -> Any:
    """The only column of the only row of a query."""
    ((only,),) = rows(connection, query, *parameters)
    return only


def column(connection: Connection, query: str, *parameters: object) -> list[Any]:
    """The only column of a query."""
    return [only for (only,) in rows(connection, query, *parameters)]


@contextmanager
def notices(connection: Connection) -> Iterator[list[Notice]]:
    """Collects the notices that come meanwhile."""
    heard: list[Notice] = []

    def listen(diagnostic: Diagnostic) -> None:
        heard.append(Notice(diagnostic.message_primary or "", diagnostic.message_hint))

    connection.add_notice_handler(listen)
    try:
        yield heard
    finally:
        connection.remove_notice_handler(listen)


def tick(connection: Connection) -> list[Notice]:
    """Ticks once, and returns the notices."""
    with notices(connection) as heard:
        connection.execute(TICK)
    return heard


def statuses(connection: Connection, call: str = "reconcile_challenges()") -> dict[str, tuple[str, str | None]]:
    """Runs once in the caller's transaction: status and error by challenge, in run order."""
    found = rows(connection, f"SELECT challenge_id, status, error FROM {call}")
    return {challenge: (status, error) for challenge, status, error in found}


def shown(connection: Connection) -> dict[str, tuple[str, str | None]]:
    """What the view shows: status, and the error if the last run failed, by challenge, in run order."""
    query = """
        SELECT challenge_id, status, CASE WHEN consecutive_failures > 0 THEN last_error END
        FROM challenge_status
    """
    return {challenge: (status, error) for challenge, status, error in rows(connection, query)}


def well(connection: Connection) -> dict[str, tuple[str, None]]:
    """What `statuses` and `shown` return when all is well: the catalog says which challenges are at work."""
    active = dict(rows(connection, "SELECT id, active FROM challenges"))
    words = {True: "ok", False: "inactive", None: "absent"}
    known = column(connection, "SELECT challenge_id FROM challenge_status")
    return {challenge: (words[active.get(challenge)], None) for challenge in known}


def failing(connection: Connection) -> dict[str, str]:
    """The challenges whose last run failed, with the error."""
    query = "SELECT challenge_id, last_error FROM challenge_status WHERE consecutive_failures > 0"
    return dict(rows(connection, query))


def failed(message: str | None) -> list[str]:
    """The challenges that a tick's error message names as failed, in run order."""
    found = re.search(r"audius_challenges: (\d+) of (\d+) challenges failed: ([\w, ]+)", message or "")
    assert found, message
    names = found[3].split(", ")
    assert (int(found[1]), int(found[2])) == (len(names), len(RUN_ORDER)), message
    assert names == [challenge for challenge in RUN_ORDER if challenge in names], message
    return names


def completed(connection: Connection, challenge: str) -> list[str]:
    """The specifiers of a challenge's complete rows."""
    return column(
        connection,
        "SELECT specifier FROM user_challenges WHERE challenge_id = %s AND is_complete ORDER BY specifier",
        challenge,
    )


def tables(connection: Connection, *schemas: str) -> list[str]:
    """The tables of these schemas, quoted."""
    query = "SELECT format('%%I.%%I', schemaname, tablename) FROM pg_tables WHERE schemaname = ANY(%s)"
    return column(connection, query, list(schemas))


def row_versions(connection: Connection, *schemas: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row version of every table of these schemas: where it is, who wrote it, and what it holds."""
    query = "SELECT ctid::text, xmin::text, to_jsonb(each) FROM {} AS each ORDER BY ctid"
    return {table: rows(connection, query.format(table)) for table in tables(connection, *schemas)}


def knows_seconds(connection: Connection) -> bool:
    """Whether this database's pg_cron has schedules of seconds, as it does from 1.5 on."""
    version: str = value(connection, "SELECT extversion FROM pg_extension WHERE extname = 'pg_cron'")
    return tuple(int(part) for part in version.split("-", maxsplit=1)[0].split(".")) >= (1, 5)


def let_p_wait(connection: Connection, condition: str = "TRUE") -> None:
    """From now on the challenge p waits for lock 7 where it writes, as long as that takes, in new sessions."""
    connection.execute(f"ALTER DATABASE {connection.info.dbname} SET audius_challenges.lock_timeout = '10min'")
    connection.execute(
        """
        CREATE FUNCTION wait_for_the_test() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_advisory_xact_lock(7);
            RETURN NULL;
        END $$
        """
    )
    connection.execute(
        f"""
        CREATE TRIGGER zz_wait AFTER INSERT ON user_challenges
        FOR EACH ROW WHEN (new.challenge_id = 'p' AND {condition}) EXECUTE FUNCTION wait_for_the_test()
        """
    )


def message_of(error: psycopg.Error) -> tuple[str | None, str | None]:
    """The primary message and the hint of an error."""
    return error.diag.message_primary, error.diag.message_hint


def until(event: Callable[[], T | None], what: str, *, seconds: float = 60) -> T:
    """Waits for an event, asking ten times a second, and returns what it gives.

    Raises AssertionError, naming what was waited for, when it does not come within this many seconds.
    """
    deadline = time.monotonic() + seconds
    while not (came := event()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.1)
    return came


class Beside:
    """A statement under way in a session of its own, while the test goes on in others.

    error: what came of it, once it is over; None if it succeeded.
    """

    def __init__(self, connection: Connection, statement: str) -> None:
        self.connection = connection
        self.pid = connection.info.backend_pid
        self.error: psycopg.Error | None = None
        self._statement = statement
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.connection.execute(self._statement)
        except psycopg.Error as error:
            self.error = error

    def wait_until_blocked(self, observer: Connection) -> None:
        """Waits until the statement waits for a lock."""
        query = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
        until(lambda: rows(observer, query, self.pid), f"{self._statement} waiting for a lock")

    def finish(self, seconds: float = 60) -> psycopg.Error | None:
        """Waits for the end of the statement, and returns its error."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"{self._statement}: not over within {seconds:g} s"
        return self.error


def processor_of(challenge: str) -> str:
    """Python for the processor of a challenge, at the end of the registry's module."""
    return f"next(each for each in CHALLENGES if each.id == {challenge!r})"


def replace_package(
    connection: Connection,
    mark: str,
    epilogue: str = "",
    module: str = "__init__",
    new_modules: Mapping[str, str] = NO_MODULES,
) -> None:
    """Gives a database another version of the extension's Python package: the same with another digest, with
    lines added at the end of one module, and with further modules (name → source). It touches the loader's source
    in this database and no file."""
    definition = value(connection, "SELECT pg_get_functiondef('audius_challenges.load()'::regprocedure)")
    code, _, rest = definition.rpartition("\n# ")
    literal, end = rest.split("\n", 1)
    _, sources = ast.literal_eval(literal)
    sources |= {f"audius_challenges/{name}.py": source for name, source in new_modules.items()}
    sources[f"audius_challenges/{module}.py"] += epilogue
    code, replaced = re.subn(r"^DIGEST = '\w+'$", f"DIGEST = '{mark}'", code, flags=re.MULTILINE)
    assert replaced == 1
    connection.execute(f"{code}\n# {(mark, sources)!r}\n{end}")
    connection.execute("SELECT audius_challenges.compile()")
