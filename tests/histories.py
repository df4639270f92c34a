"""A database with a history, and how it has to go on wherever it was moved or whatever version it was upgraded to."""

from pathlib import Path

from devtools.cluster import Cluster
from tests.sessions import Connection, column, completed, rows, shown, tables, tick, until, value, well

# What has been paid, what is under way, a streak of six days, and a week's trending winners.
HISTORY = (
    "UPDATE challenges SET active = TRUE, starting_block = 0",
    "SELECT build.person(n, name => 'n', is_verified => n % 2 = 0) FROM generate_series(1, 40) AS n",
    "SELECT build.playlist(n, n) FROM generate_series(1, 40, 4) AS n",
    "SELECT build.track(n, n % 20 + 1) FROM generate_series(1, 50) AS n",
    "SELECT build.monthly(n, '2026-01-01', n * 40) FROM generate_series(1, 50) AS n",
    "SELECT build.track_score(n, n) FROM generate_series(1, 30) AS n",
    "SELECT build.play(1, 999, now()::timestamp - n * INTERVAL '28 hours') FROM generate_series(1, 6) AS n",
    "SELECT build.play(2, 999, now()::timestamp - n * INTERVAL '28 hours') FROM generate_series(1, 9) AS n",
    "SELECT * FROM reconcile_challenges(as_of => '2026-11-20 12:00Z')",
    """
    UPDATE user_challenges SET completed_blocknumber = NULL
    WHERE challenge_id = 'v' AND specifier = '2'
    """,
)
FILLED_USERS = 40


def fill(connection: Connection) -> None:
    """A discovery database with a history, whose first build is done."""
    for statement in HISTORY:
        connection.execute(statement)
    assert tick(connection) == []
    # pg_cron's launcher may need a moment to come up in a new server.
    until(lambda: shown(connection) == well(connection), "that all is well")


def contents(connection: Connection) -> dict[str, list[str]]:
    """Every row of every table, and of pg_cron's jobs, by table."""
    every_row = 'SELECT each::text FROM {} AS each ORDER BY each::text COLLATE "C"'
    has_jobs = value(connection, "SELECT to_regclass('cron.job') IS NOT NULL")
    found = tables(connection, "public", "audius_challenges") + ["cron.job"] * has_jobs
    of_one_server = "audius_challenges.last_tick"
    return {
        table.removeprefix("public."): column(connection, every_row.format(table))
        for table in found
        if table != of_one_server
    }


def challenges_written(connection: Connection) -> int:
    """How many writes there have ever been of user challenges."""
    written: int = value(connection, "SELECT count(*) FROM user_challenges_log")
    return written


def dump(cluster: Cluster, database: str) -> Path:
    """Dumps a database, in the format of pg_restore."""
    path = cluster.new_directory(f"dump of {database}") / "custom.dump"
    cluster.run("pg_dump", "--format=custom", f"--file={cluster.inside(path)}", database)
    return path


def goes_on(connection: Connection) -> None:
    """Asserts that a moved database pays on from where it was, and nothing twice."""
    connection.execute("SET audius_challenges.sweep_users = 0")  # so that only what is due is examined
    final = "SELECT ctid, xmin, each::text FROM user_challenges AS each WHERE is_complete ORDER BY 3"
    streak = """
        SELECT specifier, current_step_count, is_complete
        FROM user_challenges
        WHERE (challenge_id, user_id) = ('e', 1)
    """
    notified = "SELECT count(*) FROM notification"
    before, written, told = rows(connection, final), challenges_written(connection), value(connection, notified)
    ((running, *progress),) = rows(connection, streak)
    assert progress == [6, False]

    # What came between the dump and the first tick, at a number that was used long ago; the streak's seventh day.
    connection.execute("SELECT build.person(255, is_verified => TRUE, blocknumber => 1)")
    connection.execute("SELECT build.play(1, 999, now()::timestamp - INTERVAL '5 minutes')")
    assert tick(connection) == []

    new = column(connection, "SELECT specifier FROM user_challenges_log ORDER BY id OFFSET %s", written)
    assert sorted(new) == sorted([running, "ff"])
    after = rows(connection, final)
    assert [row for row in after if row in before] == before
    assert len(after) == len(before) + 2
    assert value(connection, notified) == told + 2
    assert rows(connection, streak) == [(running, 7, True)]
    # pg_cron's launcher may need a moment to come up in a new server.
    until(lambda: shown(connection) == well(connection), "that all is well")

    # From here on the feed of changes goes by the transactions of this cluster.
    connection.execute("SELECT build.playlist(99, 2, blocknumber => 2)")
    assert tick(connection) == []
    assert "2" in completed(connection, "fp")
    assert tick(connection) == []
    assert challenges_written(connection) == written + 3
