"""The application's tables may be partitioned; a view or a foreign table in the place of one is refused by its name."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from audius_challenges.challenges import CHALLENGES
from audius_challenges.sources import TABLES
from devtools.cluster import Cluster
from devtools.discovery import Discovery
from tests.sessions import RUN_ORDER, Connection, rows, statuses, tick, value

READ = [name for name, table in TABLES.items() if any(name in challenge.reads for challenge in CHALLENGES)]
# Not blocks: its two keys have no column in common, so that it cannot be partitioned.
PARTITIONED = [name for name in READ if name != "blocks"]

FRIDAY = "2025-03-07 10:00+00"
PAID = """
    SELECT challenge_id::text, user_id, specifier::text, is_complete, current_step_count, amount
    FROM user_challenges
    WHERE challenge_id <> 'e'
    ORDER BY 1, 2, 3
"""
KEY = """
    SELECT attname::text
    FROM pg_index
    INNER JOIN pg_attribute
        ON attrelid = indrelid AND attnum = indkey[0]
    WHERE indrelid = %s::regclass AND indisprimary
"""


@pytest.fixture
def session(discovery: Discovery) -> Iterator[Connection]:
    """A session in a fresh database, every challenge active."""
    with closing(discovery.connect()) as connection:
        connection.execute("UPDATE challenges SET active = TRUE, starting_block = 0")
        yield connection


def replace_by_view(connection: Connection, table: str, kind: str = "VIEW") -> None:
    connection.execute(f"ALTER TABLE {table} RENAME TO {table}_rows")
    connection.execute(f"CREATE {kind} {table} AS SELECT * FROM {table}_rows")


def partition(connection: Connection, table: str) -> None:
    """Replaces a table by one like it, with its triggers, in two partitions."""
    triggers = rows(
        connection,
        "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal",
        table,
    )
    key = value(connection, KEY, table)
    connection.execute(f"ALTER TABLE {table} RENAME TO {table}_rows")
    connection.execute(f"CREATE TABLE {table} (LIKE {table}_rows INCLUDING ALL) PARTITION BY HASH ({key})")
    for number in range(2):
        connection.execute(
            f"CREATE TABLE {table}_{number} PARTITION OF {table} FOR VALUES WITH (MODULUS 2, REMAINDER {number})"
        )
    connection.execute(f"INSERT INTO {table} SELECT * FROM {table}_rows")
    for (definition,) in triggers:
        connection.execute(definition)


@pytest.mark.parametrize("table", READ)
def test_a_view_in_the_place_of_a_table_fails_whoever_reads_it_by_its_name(session: Connection, table: str) -> None:
    replace_by_view(session, table)
    found = statuses(session)
    for challenge in CHALLENGES:
        status, error = found[challenge.id]
        if table in challenge.reads or table == "challenges":
            assert (status, (error or "").split(" DETAIL")[0].split(" HINT")[0]) == (
                "failed",
                f'"public.{table}" is a view, not a table',
            )
        else:
            assert (status, error) == ("ok", None)


def test_so_does_a_materialized_view(session: Connection) -> None:
    replace_by_view(session, "tracks", "MATERIALIZED VIEW")
    error = statuses(session, "reconcile_challenges('{u}')")["u"][1]
    assert error is not None
    assert error.startswith('"public.tracks" is a materialized view, not a table')


@pytest.mark.parametrize("way", ["PARTITION OF", "INHERITS"])
def test_a_foreign_partition_fails_whoever_reads_the_table(session: Connection, way: str) -> None:
    session.execute("CREATE EXTENSION postgres_fdw; CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw")
    if way == "INHERITS":
        session.execute("CREATE FOREIGN TABLE playlists_far () INHERITS (playlists) SERVER elsewhere")
    else:
        session.execute("ALTER TABLE playlists RENAME TO playlists_rows")
        session.execute("CREATE TABLE playlists (LIKE playlists_rows) PARTITION BY RANGE (playlist_id)")
        session.execute("CREATE TABLE playlists_near PARTITION OF playlists DEFAULT PARTITION BY HASH (playlist_id)")
        session.execute(
            "CREATE FOREIGN TABLE playlists_far PARTITION OF playlists_near FOR VALUES WITH (MODULUS 1, REMAINDER 0)"
            " SERVER elsewhere"
        )
    found = statuses(session, "reconcile_challenges('{u,fp}')")
    assert found["u"] == ("ok", None)
    status, error = found["fp"]
    assert (status, (error or "").split(" DETAIL")[0]) == (
        "failed",
        '"public.playlists" is a table with a foreign partition',
    )


def paid_through_a_first_build_and_the_feed(discovery: Discovery, *, is_partitioned: bool) -> object:
    """What every challenge pays two users each, one in the first build, one by the feed; and what the runs report."""
    with closing(discovery.connect()) as session:
        session.execute("UPDATE challenges SET active = TRUE, starting_block = 0")
        for table in PARTITIONED if is_partitioned else []:
            partition(session, table)
        for number, challenge in enumerate(RUN_ORDER):
            session.execute("SELECT build.qualify(%s, %s)", [challenge, 10 + number])
        report = "SELECT challenge_id, status, rows_inserted, rows_updated, rows_completed, error FROM {}"
        first = rows(session, report.format(f"reconcile_challenges(as_of => '{FRIDAY}')"))
        session.execute("SET audius_challenges.sweep_users = 0")
        for number, challenge in enumerate(RUN_ORDER):
            session.execute("SELECT build.qualify(%s, %s)", [challenge, 50 + number])
        assert tick(session) == []
        last = rows(session, report.format("reconcile_challenges(full_scan => TRUE)"))
        return first, rows(session, PAID), last


def test_partitioned_tables_pay_what_plain_ones_do(cluster: Cluster, full_template: str) -> None:
    """All that can be partitioned at once."""
    paid = []
    for is_partitioned in (False, True):
        cluster.create_database("shapes", full_template)
        try:
            database = Discovery(cluster, "shapes")
            paid.append(paid_through_a_first_build_and_the_feed(database, is_partitioned=is_partitioned))
        finally:
            cluster.drop_database("shapes")
    assert paid[1] == paid[0]
    assert len(PARTITIONED) > 10
