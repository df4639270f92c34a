"""Change detection misses nothing, whatever order transactions commit in, and finds nothing where nothing happened.

The sweep is off but where a test says so: what is found here is found by the feed of changed rows, or by the catching
up that a test is about. Every source has so many rows that the feed has to choose a window; and where the rule is
about the order of commits, a feed that goes by `> checkpoint` alone looks on, and is seen to miss the row.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from devtools.cluster import Cluster
from devtools.discovery import CREATE_EXTENSION, Discovery, create_discovery

Connection = psycopg.Connection[Any]

# The last block number, and the last id of a play, that is there when a test begins; the sources have 1,200 rows up to
# it, more than the feed's window reaches back.
LATEST = 2200
NEXT = LATEST + 1

# A transaction id, 64 bits, whose lower 32 bits are zero: row versions carry just those.
WRAPPED = 5 << 32

# As many rows as take a row written before them out of reach of a window that reaches back from the latest position.
CROWD = 1200

PEOPLE = """
    INSERT INTO blocks (blockhash, number)
    SELECT 'block' || number, number
    FROM generate_series(1, 9000) AS number;

    -- 1 to 50: verified, one follow short of five, plays waiting for a track of theirs (20000 + user).
    SELECT count(build.person(person, is_verified => TRUE)) FROM generate_series(1, 50) AS person;
    SELECT count(build.follow(person, 900 + followee))
    FROM generate_series(1, 50) AS person, generate_series(1, 4) AS followee;
    SELECT count(build.monthly(20000 + person, '2026-10-01', 10)) FROM generate_series(1, 50) AS person;

    -- 101 to 150: verified owners of a track that nobody has played (20000 + user).
    SELECT count(build.person(person, is_verified => TRUE)) FROM generate_series(101, 150) AS person;
    SELECT count(build.track(20000 + person, person)) FROM generate_series(101, 150) AS person;

    -- 201 to 250: a track with plays and a playlist each, but no user yet.
    SELECT count(build.track(20000 + person, person)) FROM generate_series(201, 250) AS person;
    SELECT count(build.playlist(20000 + person, person)) FROM generate_series(201, 250) AS person;
    SELECT count(build.monthly(20000 + person, '2026-10-01', 10)) FROM generate_series(201, 250) AS person;

    -- 401 to 450: verified owners of a track (30000 + user) to which a comment is pinned that is not there.
    SELECT count(build.person(person, is_verified => TRUE)) FROM generate_series(401, 450) AS person;
    SELECT count(build.track(30000 + person, person)) FROM generate_series(401, 450) AS person;
    SELECT count(build.pin(30000 + person, 30000 + person)) FROM generate_series(401, 450) AS person;

    -- 501 to 550 and 601 to 650: verified owners of a track (30000 + user), of which the one a hundred further on, or
    -- back, has made a remix (31000 + user).
    SELECT count(build.person(person, is_verified => TRUE))
    FROM (SELECT generate_series(501, 550) UNION ALL SELECT generate_series(601, 650)) AS artists (person);
    SELECT count(build.track(30000 + user_id, user_id)), count(build.track(31000 + user_id, user_id))
    FROM users WHERE user_id BETWEEN 501 AND 650;
    SELECT count(build.remix(30000 + user_id, 31000 + user_id + CASE WHEN user_id < 600 THEN 100 ELSE -100 END))
    FROM users WHERE user_id BETWEEN 501 AND 650;

    -- 701 to 750, whose remix (32000 + user) is not there, and 801 to 850, who are not there but for theirs: artists
    -- from 401 on have saved them.
    SELECT count(build.person(person)) FROM generate_series(701, 750) AS person;
    SELECT count(build.track(32000 + person, person)) FROM generate_series(801, 850) AS person;
    SELECT
        count(build.remix(30400 + person, 32000 + more + person)),
        count(build.save(400 + person, 32000 + more + person))
    FROM generate_series(1, 50) AS person, unnest(ARRAY[700, 800]) AS more;

    SELECT count(*) FROM sync_challenge_catalog('stage');
    UPDATE challenges SET active = TRUE, starting_block = 0 WHERE id IN ('cs', 'w');
"""


@dataclass(frozen=True)
class Feed:
    """A source table: a row of it that gives a user steps, and rows that concern nobody.

    :ivar steps: challenge → current_step_count that one row leads to
    :ivar first_user: the user of `write` is this and the person's number
    :ivar user: the column of the user
    :ivar row: SQL that writes the row, of the parameters user and number
    :ivar crowd: SQL that writes a row for each `number` of `numbers`
    """

    table: str
    column: str
    user: str
    steps: dict[str, int]
    first_user: int
    row: str
    crowd: str

    def write(self, connection: Connection, person: int, number: int) -> None:
        """Write one row that gives a person steps, numbered so."""
        connection.execute(self.row, {"user": self.first_user + person, "number": number})

    def write_crowd(self, connection: Connection, first: int, count: int = CROWD) -> None:
        """Write so many rows that concern nobody, numbered from there on, in one transaction."""
        numbers = "WITH numbers AS (SELECT generate_series(%s::integer, %s) AS number) "
        connection.execute(numbers + self.crowd, [first, first + count - 1])
        if self.column == "id":
            connection.execute("SELECT setval('plays_id_seq', %s)", [first + count - 1])


USERS = Feed(
    table="users",
    column="blocknumber",
    user="user_id",
    steps={"u": 1, "fp": 1, "p": 1, "v": 1, "p1": 10},
    first_user=200,
    row="SELECT build.person(%(user)s, name => 'someone', is_verified => TRUE, blocknumber => %(number)s)",
    crowd="""
        INSERT INTO users (user_id, is_current, is_deactivated, blocknumber, created_at, updated_at)
        SELECT 900000 + number, TRUE, TRUE, number, '2024-01-01', '2024-01-01' FROM numbers
    """,
)
FOLLOWS = Feed(
    table="follows",
    column="blocknumber",
    user="follower_user_id",
    steps={"p": 1},
    first_user=0,
    row="SELECT build.follow(%(user)s, 999, blocknumber => %(number)s)",
    crowd="""
        INSERT INTO follows (follower_user_id, followee_user_id, is_current, is_delete, blocknumber, created_at)
        SELECT 900000, number, TRUE, FALSE, number, '2024-01-01' FROM numbers
    """,
)
SAVES = Feed(
    table="saves",
    column="blocknumber",
    user="user_id",
    steps={"p": 1},
    first_user=0,
    row="SELECT build.save(%(user)s, 1, blocknumber => %(number)s)",
    crowd="""
        INSERT INTO saves (user_id, save_item_id, save_type, is_current, is_delete, blocknumber, created_at)
        SELECT 900000, number, 'track', TRUE, FALSE, number, '2024-01-01' FROM numbers
    """,
)
REPOSTS = Feed(
    table="reposts",
    column="blocknumber",
    user="user_id",
    steps={"p": 1},
    first_user=0,
    row="SELECT build.repost(%(user)s, 1, blocknumber => %(number)s)",
    crowd="""
        INSERT INTO reposts (user_id, repost_item_id, repost_type, is_current, is_delete, blocknumber, created_at)
        SELECT 900000, number, 'track', TRUE, FALSE, number, '2024-01-01' FROM numbers
    """,
)
TRACKS = Feed(
    table="tracks",
    column="blocknumber",
    user="owner_id",
    steps={"u": 1, "p1": 10},
    first_user=0,
    row="SELECT build.track(20000 + %(user)s, %(user)s, blocknumber => %(number)s)",
    crowd="""
        INSERT INTO tracks (track_id, owner_id, is_current, is_delete, blocknumber, created_at, updated_at)
        SELECT 900000 + number, 900000 + number, TRUE, FALSE, number, '2024-01-01', '2024-01-01' FROM numbers
    """,
)
PLAYLISTS = Feed(
    table="playlists",
    column="blocknumber",
    user="playlist_owner_id",
    steps={"fp": 1},
    first_user=0,
    row="SELECT build.playlist(%(user)s, %(user)s, blocknumber => %(number)s)",
    crowd="""
        INSERT INTO playlists
            (playlist_id, playlist_owner_id, is_album, is_private, playlist_contents, is_current, is_delete,
             blocknumber, created_at, updated_at)
        SELECT
            900000 + number, 900000 + number, FALSE, FALSE, '{}', TRUE, FALSE, number, '2024-01-01', '2024-01-01'
        FROM numbers
    """,
)
PLAYS = Feed(
    table="plays",
    column="id",
    user="user_id",
    steps={"e": 1, "p1": 1},
    first_user=100,
    row="SELECT build.play(%(user)s, 20000 + %(user)s, '2026-11-01 12:00', id => %(number)s)",
    crowd="""
        INSERT INTO plays (id, user_id, play_item_id, created_at, updated_at)
        SELECT number, NULL, 900000, '2026-11-01', '2026-11-01' FROM numbers
    """,
)
COMMENTS = Feed(
    table="comments",
    column="blocknumber",
    user="user_id",
    steps={"c": 1},
    first_user=0,
    row="SELECT build.comment(20000 + %(user)s, %(user)s, blocknumber => %(number)s)",
    crowd="""
        INSERT INTO comments
            (comment_id, user_id, entity_id, entity_type, text, blocknumber, created_at, updated_at, txhash, blockhash)
        SELECT 900000 + number, 900000, 1, 'Track', '', number, '2024-01-01', '2024-01-01', '', '' FROM numbers
    """,
)
USER_EVENTS = Feed(
    table="user_events",
    column="blocknumber",
    user="user_id",
    steps={"m": 1},
    first_user=400,
    row="SELECT build.user_event(%(user)s, is_mobile_user => TRUE, blocknumber => %(number)s)",
    crowd="""
        INSERT INTO user_events (blocknumber, is_current, user_id, is_mobile_user)
        SELECT number, TRUE, 900000, TRUE FROM numbers
    """,
)
# The person refers somebody, and is referred by him.
REFERRALS = Feed(
    table="user_events",
    column="blocknumber",
    user="referrer",
    steps={"rv": 1, "rd": 1},
    first_user=0,
    row="""
        SELECT
            build.user_event(100 + %(user)s, referrer => %(user)s, blocknumber => %(number)s),
            build.user_event(%(user)s, referrer => 100 + %(user)s, blocknumber => %(number)s)
    """,
    crowd="""
        INSERT INTO user_events (blocknumber, is_current, user_id, referrer)
        SELECT number, TRUE, 900000 + number, 900000 FROM numbers
    """,
)
# The rows of the crowd are wide: the end of the table, which is looked at whatever the numbers are, is soon far away.
PURCHASES = Feed(
    table="sol_purchases",
    column="valid_after_blocknumber",
    user="buyer_user_id",
    steps={"b": 1},
    first_user=0,
    row="SELECT build.purchase(%(user)s, %(number)s, valid_after_blocknumber => %(number)s)",
    crowd="""
        INSERT INTO sol_purchases (
            signature, instruction_index, amount, slot, from_account, content_type, content_id, buyer_user_id,
            access_type, valid_after_blocknumber, is_valid
        )
        SELECT
            'crowd' || number, 0, 1000000, 250000000, repeat('x', 1800), 'track', 900000, 900000, 'stream', number, TRUE
        FROM numbers
    """,
)
PINNED_COMMENTS = Feed(
    table="comments",
    column="blocknumber",
    user="user_id",
    steps={"cp": 1},
    first_user=0,
    row="SELECT build.comment(30400 + %(user)s, %(user)s, 30400 + %(user)s, blocknumber => %(number)s)",
    crowd="""
        INSERT INTO comments
            (comment_id, user_id, entity_id, entity_type, text, created_at, updated_at, txhash, blockhash,
             blocknumber)
        SELECT 1000000000 + number, 900000, 900000, 'Track', 'Nice.', '2024-01-01', '2024-01-01', '', '', number
        FROM numbers
    """,
)
# The person saves, or reposts, a remix of somebody who does the same with one of his.
COSIGNING_SAVES = Feed(
    table="saves",
    column="blocknumber",
    user="user_id",
    steps={"cs": 1},
    first_user=500,
    row="""
        SELECT
            build.save(%(user)s, 31100 + %(user)s, blocknumber => %(number)s),
            build.save(100 + %(user)s, 31000 + %(user)s, blocknumber => %(number)s)
    """,
    crowd=SAVES.crowd.replace("900000", "900001"),
)
COSIGNING_REPOSTS = Feed(
    table="reposts",
    column="blocknumber",
    user="user_id",
    steps={"cs": 1},
    first_user=500,
    row="""
        SELECT
            build.repost(%(user)s, 31100 + %(user)s, blocknumber => %(number)s),
            build.repost(100 + %(user)s, 31000 + %(user)s, blocknumber => %(number)s)
    """,
    crowd=REPOSTS.crowd.replace("900000", "900001"),
)
# What is paid waits for the remix, or for who has made it; who is examined is the artist.
COSIGNED_TRACKS = Feed(
    table="tracks",
    column="blocknumber",
    user="owner_id",
    steps={"cs": 1},
    first_user=700,
    row="SELECT build.track(32000 + %(user)s, %(user)s, blocknumber => %(number)s)",
    crowd=TRACKS.crowd.replace("900000", "910000"),
)
COSIGNED_USERS = Feed(
    table="users",
    column="blocknumber",
    user="user_id",
    steps={"cs": 1},
    first_user=800,
    row="SELECT build.person(%(user)s, blocknumber => %(number)s)",
    crowd=USERS.crowd.replace("900000", "910000"),
)
# One of those from 401 on names the person's track.
CONTESTS = Feed(
    table="events",
    column="blocknumber",
    user="event_id",
    steps={"w": 1},
    first_user=100,
    row="""
        SELECT build.contest(
            %(user)s, 300 + %(user)s, jsonb_build_array(20000 + %(user)s), blocknumber => %(number)s
        )
    """,
    crowd="""
        INSERT INTO events
            (event_id, event_type, user_id, event_data, created_at, updated_at, txhash, blockhash, blocknumber)
        SELECT
            900000 + number, 'remix_contest', 900000, '{"winners": [20101]}', '2024-01-01', '2024-01-01', '', '', number
        FROM numbers
    """,
)
COSIGN_FEEDS = (COSIGNING_SAVES, COSIGNING_REPOSTS, COSIGNED_TRACKS, COSIGNED_USERS)
BLOCK_FEEDS = (
    *(USERS, FOLLOWS, SAVES, REPOSTS, TRACKS, PLAYLISTS, COMMENTS, PINNED_COMMENTS, CONTESTS, USER_EVENTS, REFERRALS),
    *COSIGN_FEEDS,
)
FEEDS = (*BLOCK_FEEDS, PURCHASES, PLAYS)

# A time that prints alike here and there: without zeros at the end.
NOW = "SELECT date_trunc('milliseconds', clock_timestamp()::timestamp) + INTERVAL '1001 microseconds'"

# One of each kind, where the sources do not differ: an actor's row, a row with an owner, one that has to be checked, a
# row that is counted once, a row that is examined itself.
KINDS = (FOLLOWS, TRACKS, PURCHASES, PLAYS, COMMENTS)


def each(feeds: Sequence[Feed]) -> pytest.MarkDecorator:
    """Parametrize a test by source."""
    return pytest.mark.parametrize("feed", feeds, ids=[feed.table for feed in feeds])


class World:
    """A database under test, with a session that ticks and writers beside it.

    A writer is a session in a transaction; `execute` commits at once.
    """

    def __init__(self, database: Discovery, stack: ExitStack) -> None:
        self.database = database
        self._stack = stack
        self._sessions: list[Connection] = []
        self.connection = self.session()

    def session(self) -> Connection:
        """A session that commits each statement."""
        session = self._stack.enter_context(self.database.connect())
        self._sessions.append(session)
        return session

    def writer(self) -> Connection:
        """A session that commits when told to."""
        writer = self.session()
        writer.autocommit = False
        return writer

    def forget_sessions(self) -> None:
        """Close all sessions; the next tick is one of a new session."""
        for session in self._sessions:
            session.close()
        self.connection = self.session()

    def execute(self, statement: str, *values: Any) -> None:
        """Run a statement and commit it."""
        self.connection.execute(statement, values)

    def value(self, query: str, *values: Any) -> Any:
        """The one column of the one row of a query."""
        row = self.connection.execute(query, values).fetchone()
        assert row is not None
        return row[0]

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return self.connection.execute(query, values).fetchall()

    def set(self, **settings: int | str) -> None:
        """Change settings of the extension for the session that ticks."""
        for name, value in settings.items():
            self.connection.execute("SELECT set_config(%s, %s, false)", [f"audius_challenges.{name}", str(value)])

    def tick(self, times: int = 1) -> None:
        """CALL audius_challenges.tick(), the scheduled form of a run."""
        for _ in range(times):
            self.connection.execute("CALL audius_challenges.tick()")

    def reconcile(self, arguments: str = "") -> dict[str, dict[str, Any]]:
        """The interactive form of a run: its report, by challenge."""
        cursor = self.connection.cursor(row_factory=psycopg.rows.dict_row)
        query = f"SELECT * FROM reconcile_challenges({arguments})"
        report = {row["challenge_id"]: row for row in cursor.execute(query)}
        assert [row["error"] for row in report.values() if row["error"]] == []
        return report

    def steps(self, user: int, *challenges: str) -> dict[str, int]:
        """current_step_count of a user's rows, for these challenges."""
        found = self.rows(
            """
            SELECT challenge_id, current_step_count
            FROM user_challenges
            WHERE user_id = %s
                AND challenge_id = ANY(%s)
            """,
            user,
            list(challenges),
        )
        return dict(found)

    def found(self, feed: Feed, person: int) -> dict[str, int]:
        """The steps that a row by `feed.write` has led to."""
        return self.steps(feed.first_user + person, *feed.steps)

    def streak(self, user: int) -> tuple[int, str] | None:
        """The length of a user's streak and its last counted listen."""
        found = self.rows(
            "SELECT listen_streak, last_listen_date::text FROM challenge_listen_streak WHERE user_id = %s", user
        )
        return (found[0][0], found[0][1]) if found else None

    def versions(self, table: str) -> dict[str, str]:
        """Which tuple version each row of a table is, by key: a pointless update shows here."""
        key = {"look": "source || ' ' || number", "user_challenges": "challenge_id || ' ' || specifier"}[table]
        schema = "audius_challenges" if table == "look" else "public"
        return dict(self.rows(f"SELECT {key}, xmin || ' ' || ctid FROM {schema}.{table}"))

    def writes(self) -> int:
        """How many times a user challenge was inserted or updated so far."""
        return int(self.value("SELECT count(*) FROM user_challenges_log"))

    def phase(self, challenge: str) -> str:
        """How far the processor has come."""
        return str(self.value("SELECT phase FROM audius_challenges.processor_state WHERE challenge_id = %s", challenge))

    def replace_in_package(self, pattern: str, replacement: str) -> None:
        """Give this database a package with one line changed; sessions that are open keep theirs."""
        definition = self.value("SELECT pg_get_functiondef('audius_challenges.load'::regproc)")
        changed, replaced = re.subn(pattern, replacement, definition)
        assert replaced == 1
        self.connection.execute(changed)


class NaiveFeed:
    """What a feed finds that asks for rows `> checkpoint`, the greatest number that it has seen.

    A model in two queries of what such jobs do, to show what they miss.
    """

    def __init__(self, world: World, feed: Feed) -> None:
        names = {"table": feed.table, "column": feed.column, "user": feed.user}
        self._world = world
        self._users = _composed("SELECT DISTINCT {user} FROM {table} WHERE {column} > %s", names)
        self._greatest = _composed("SELECT coalesce(max({column}), %s) FROM {table} WHERE {column} > %s", names)
        self._first_user = feed.first_user
        self._checkpoint = 0
        self.seen: set[int] = set()
        self.poll()
        self.seen.clear()

    def poll(self) -> None:
        """Find the users of rows beyond the checkpoint, and move it to the greatest number."""
        connection = self._world.connection
        for (user,) in connection.execute(self._users, [self._checkpoint]):
            self.seen.add(user)
        for (greatest,) in connection.execute(self._greatest, [self._checkpoint, self._checkpoint]):
            self._checkpoint = greatest

    def has_seen(self, person: int) -> bool:
        """Whether it has found the row that `feed.write` wrote for a person."""
        return self._first_user + person in self.seen


def _composed(template: str, names: dict[str, str]) -> sql.Composed:
    return sql.SQL(template).format(**{key: sql.Identifier(name) for key, name in names.items()})


def make_people(cluster: Cluster, full_template: str) -> str:
    """Make a database with people in it, in which the extension has not run yet, and return its name."""
    cluster.create_database("discovery_people", template=full_template)
    database = Discovery(cluster, "discovery_people")
    database.psql(PEOPLE)
    with database.connect() as connection:
        for feed in FEEDS:
            feed.write_crowd(connection, NEXT - CROWD)
        connection.execute("ANALYZE")
    return database.name


def make_built(cluster: Cluster, people_template: str) -> str:
    """Make the same with the first build behind it, and return its name."""
    cluster.create_database("discovery_built", template=people_template)
    with cluster.connect("discovery_built") as connection:
        connection.execute("SET audius_challenges.sweep_users = 0")
        connection.execute("CALL audius_challenges.tick()")
        connection.execute("CALL audius_challenges.tick()")
        phases = connection.execute("SELECT DISTINCT phase FROM audius_challenges.processor_state").fetchall()
        assert phases == [("watching",)]
    return "discovery_built"


@pytest.fixture(scope="session")
def people_template(cluster: Cluster, full_template: str) -> str:
    """Name of a database to make others from: people, and an extension that has not run yet."""
    return make_people(cluster, full_template)


@pytest.fixture(scope="session")
def built_template(cluster: Cluster, people_template: str) -> str:
    """Name of the same with the first build behind it."""
    return make_built(cluster, people_template)


@pytest.fixture(scope="session")
def wrapping_cluster(root: Path | None) -> Iterator[Cluster]:
    """A cluster that is a few thousand transactions before WRAPPED, and knows prepared transactions."""
    settings = {"max_prepared_transactions": "5", "autovacuum": "off"}
    with Cluster(root=root, cron_database="postgres", settings=settings) as cluster:
        cluster.run("vacuumdb", "--all", "--freeze", "--quiet")
        cluster.stop()
        next_xid = (1 << 32) - 4000
        transaction_log = cluster.data_dir / "pg_xact" / f"{next_xid >> 20:04X}"
        transaction_log.write_bytes(bytes(1 << 18))
        owner = (cluster.data_dir / "PG_VERSION").stat()
        os.chown(transaction_log, owner.st_uid, owner.st_gid)
        cluster.run(
            "pg_resetwal",
            f"--next-transaction-id={next_xid}",
            f"--oldest-transaction-id={next_xid - 5}",
            f"--epoch={(WRAPPED >> 32) - 1}",
            f"--pgdata={cluster.inside(cluster.data_dir)}",
        )
        cluster.start()
        full = create_discovery(cluster, "discovery_full")
        full.psql(CREATE_EXTENSION)
        make_built(cluster, make_people(cluster, full.name))
        yield cluster


@contextmanager
def open_world(cluster: Cluster, template: str) -> Iterator[World]:
    """A copy of a template in a world of its own, with the sweep off."""
    cluster.create_database("world", template)
    try:
        with cluster.connect("postgres") as connection:
            connection.execute("ALTER DATABASE world SET audius_challenges.sweep_users = 0")
            connection.execute("ALTER DATABASE world SET lock_timeout = '20s'")
        with ExitStack() as stack:
            yield World(Discovery(cluster, "world"), stack)
    finally:
        cluster.drop_database("world")


@pytest.fixture
def world(cluster: Cluster, built_template: str) -> Iterator[World]:
    """A database with the first build behind it and the sweep off."""
    with open_world(cluster, built_template) as world:
        yield world


@pytest.fixture
def new_world(cluster: Cluster, people_template: str) -> Iterator[World]:
    """The same before the extension has ever run."""
    with open_world(cluster, people_template) as world:
        yield world


@pytest.fixture
def wrapping_world(wrapping_cluster: Cluster) -> Iterator[World]:
    """A database with the first build behind it, in a cluster that is close to WRAPPED."""
    with open_world(wrapping_cluster, "discovery_built") as world:
        yield world


# Orders of commits


@each(FEEDS)
def test_a_lower_number_that_commits_after_a_higher_one_was_read_is_found(world: World, feed: Feed) -> None:
    naive = NaiveFeed(world, feed)
    late, early = world.writer(), world.writer()
    feed.write(late, 1, NEXT)
    feed.write(early, 2, NEXT + 1)
    early.commit()
    world.tick()
    naive.poll()
    assert world.found(feed, 2) == feed.steps
    assert world.found(feed, 1) == {}

    late.commit()
    world.tick()
    naive.poll()
    assert world.found(feed, 1) == feed.steps
    assert naive.has_seen(2)
    assert not naive.has_seen(1)


@each(FEEDS)
def test_a_row_written_under_a_savepoint_is_found(world: World, feed: Feed) -> None:
    naive = NaiveFeed(world, feed)
    late = world.writer()
    late.execute("SAVEPOINT first")
    feed.write(late, 1, NEXT)
    late.execute("RELEASE SAVEPOINT first")
    feed.write_crowd(world.connection, NEXT + 10)
    world.tick()
    naive.poll()
    late.execute("SAVEPOINT second")
    feed.write(late, 2, NEXT + 1)
    late.execute("SAVEPOINT third")
    feed.write(late, 3, NEXT + 2)
    late.execute("ROLLBACK TO SAVEPOINT third")
    late.commit()
    world.tick()
    naive.poll()
    assert [world.found(feed, person) for person in (1, 2, 3)] == [feed.steps, feed.steps, {}]
    assert not naive.has_seen(1)
    assert not naive.has_seen(2)


@each(FEEDS)
def test_a_transaction_open_across_ticks_loses_nothing(world: World, feed: Feed) -> None:
    naive = NaiveFeed(world, feed)
    late = world.writer()
    feed.write(late, 1, NEXT)
    for begin in range(NEXT + 10, NEXT + 10 + CROWD, CROWD // 4):
        feed.write_crowd(world.connection, begin, CROWD // 4)
        world.tick()
        naive.poll()
    feed.write(late, 2, NEXT + 1)
    late.commit()
    world.tick()
    naive.poll()
    assert [world.found(feed, person) for person in (1, 2)] == [feed.steps, feed.steps]
    assert not naive.has_seen(1)
    assert not naive.has_seen(2)


@each((TRACKS, PLAYS))
def test_a_transaction_open_across_more_ticks_than_are_remembered_loses_nothing(world: World, feed: Feed) -> None:
    late = world.writer()
    feed.write(late, 1, NEXT)
    for number in range(NEXT + 10, NEXT + 10 + 50 * 40, 40):
        feed.write_crowd(world.connection, number, 40)
        world.reconcile("ARRAY['u', 'e', 'p1']")
    late.commit()
    world.tick()
    assert world.found(feed, 1) == feed.steps


@each(FEEDS)
def test_the_higher_numbers_may_be_of_a_transaction_that_began_first(world: World, feed: Feed) -> None:
    naive = NaiveFeed(world, feed)
    early, late = world.writer(), world.writer()
    early.execute("SELECT pg_current_xact_id()")
    feed.write(late, 1, NEXT)
    feed.write_crowd(early, NEXT + 1)
    early.commit()
    world.tick()
    naive.poll()
    late.commit()
    world.tick()
    naive.poll()
    assert world.found(feed, 1) == feed.steps
    assert not naive.has_seen(1)


@each(FEEDS)
def test_a_run_does_not_count_as_ended_for_another_in_its_own_transaction(world: World, feed: Feed) -> None:
    early, late, twice = world.writer(), world.writer(), world.writer()
    early.execute("SELECT pg_current_xact_id()")
    feed.write(late, 1, NEXT)
    feed.write_crowd(early, NEXT + 1)
    early.commit()
    twice.execute("SELECT reconcile_challenges()")
    feed.write(twice, 2, NEXT + 1 + CROWD)
    twice.execute("SELECT reconcile_challenges()")
    twice.commit()
    late.commit()
    world.tick()
    assert [world.found(feed, person) for person in (1, 2)] == [feed.steps, feed.steps]


@each(BLOCK_FEEDS)
def test_two_commits_in_one_block_with_a_tick_between_them_are_both_found(world: World, feed: Feed) -> None:
    naive = NaiveFeed(world, feed)
    for person in (1, 2):
        feed.write(world.connection, person, NEXT)
        world.tick()
        naive.poll()
        assert world.found(feed, person) == feed.steps
    assert naive.has_seen(1)
    assert not naive.has_seen(2)


@each(FEEDS)
def test_what_commits_while_a_tick_writes_is_found_by_the_next(world: World, feed: Feed) -> None:
    feed.write(world.connection, 1, NEXT)
    with tick_held_at_its_first_row(world) as outside:
        feed.write(outside, 2, NEXT + 1)
        feed.write_crowd(outside, NEXT + 10)
    world.tick()
    assert [world.found(feed, person) for person in (1, 2)] == [feed.steps, feed.steps]


def test_nothing_is_missed_while_writers_and_ticks_hurry(world: World) -> None:
    """Each user has one track and one play, committed by three sessions in the order that chance decides."""
    people = 450
    world.execute("SELECT count(build.person(n, blocknumber => %s)) FROM generate_series(1001, 1000 + %s) n", 5, people)
    world.reconcile("full_scan => TRUE")
    sessions = [world.session() for _ in range(3)]

    def write(number: int, session: Connection) -> None:
        for person in range(1001 + number, 1001 + people, len(sessions)):
            with session.transaction():
                session.execute(
                    "SELECT build.track(%(user)s, %(user)s, blocknumber => %(user)s + 1500)", {"user": person}
                )
                session.execute(
                    "SELECT build.play(%(user)s, 900001 + %(by)s, now()::timestamp)", {"user": person, "by": number}
                )

    threads = [threading.Thread(target=write, args=(number, session)) for number, session in enumerate(sessions)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        world.reconcile("ARRAY['u', 'e']")
    world.tick()
    found = world.rows("SELECT challenge_id, count(*) FROM user_challenges WHERE user_id > 1000 GROUP BY 1 ORDER BY 1")
    assert found == [("e", people), ("u", people)]


@each(FEEDS)
def test_a_transaction_open_since_before_the_first_run_is_found_by_the_sweep(new_world: World, feed: Feed) -> None:
    late = new_world.writer()
    feed.write(late, 1, NEXT)
    feed.write_crowd(new_world.connection, NEXT + 1)
    new_world.tick(2)
    assert new_world.found(feed, 1) == {}
    late.commit()
    new_world.set(sweep_users=5000)
    new_world.tick()
    assert new_world.found(feed, 1) == feed.steps


def test_a_play_open_since_before_the_first_run_counts_once(new_world: World) -> None:
    world = new_world
    bystander, late = world.writer(), world.writer()
    bystander.execute("SELECT pg_current_xact_id()")
    play(late, 1, day(1))
    PLAYS.write_crowd(world.connection, NEXT + 10)
    world.tick(2)
    late.commit()
    world.set(sweep_users=5000)
    world.tick(2)
    bystander.commit()
    world.tick(2)
    assert world.streak(1) == (1, str(day(1)))
    assert world.value("SELECT count(*) FROM user_challenges_log WHERE challenge_id = 'e'") == 1


def test_the_transaction_ids_may_wrap_around(wrapping_world: World) -> None:
    world = wrapping_world
    late = world.writer()
    for feed in (TRACKS, PLAYS):
        feed.write(late, 1, NEXT)
        feed.write_crowd(world.connection, NEXT + 10, CROWD // 2)
    world.tick()
    consume_transaction_ids(world, past=WRAPPED)
    for feed in (TRACKS, PLAYS):
        feed.write(world.connection, 2, NEXT + 1)
        feed.write_crowd(world.connection, NEXT + 10 + CROWD // 2, CROWD // 2)
    world.tick()
    for feed in (TRACKS, PLAYS):
        assert [world.found(feed, person) for person in (1, 2)] == [{}, feed.steps]

    late.commit()
    world.tick()
    for feed in (TRACKS, PLAYS):
        assert world.found(feed, 1) == feed.steps
    versions, writes = world.versions("look"), world.writes()
    world.tick()
    assert (world.versions("look"), world.writes()) == (versions, writes)


def test_looks_stay_few_while_a_challenge_fails_and_a_transaction_stays_open(world: World) -> None:
    late = world.writer()
    TRACKS.write(late, 1, NEXT)
    world.execute("UPDATE challenges SET amount = 'none' WHERE id = 'v'")
    for number in range(NEXT + 10, NEXT + 10 + 120 * 40, 40):
        TRACKS.write_crowd(world.connection, number, 40)
        USERS.write_crowd(world.connection, number, 1)
        world.connection.execute("SELECT * FROM reconcile_challenges('{u, v}')")
    looks = "SELECT max(number) FROM (SELECT count(*) AS number FROM audius_challenges.look GROUP BY source) AS sources"
    assert world.value(looks) <= 2 * 32
    late.commit()
    world.execute("SELECT build.person(255, is_verified => TRUE, blocknumber => %s)", NEXT)
    world.execute("UPDATE challenges SET amount = '5' WHERE id = 'v'")
    world.tick()
    assert (world.steps(1, "u"), world.steps(255, "v")) == ({"u": 1}, {"v": 1})
    for number in (8000, 8100):
        USERS.write_crowd(world.connection, number, 1)
        TRACKS.write_crowd(world.connection, number, 1)
        world.tick()
    assert world.value(looks) <= 4


def test_a_challenge_that_stays_at_its_very_first_look_keeps_it(new_world: World) -> None:
    """As one does whose first build takes hours, with a transaction open that was there before."""
    world = new_world
    bystander = world.writer()
    bystander.execute("SELECT pg_current_xact_id()")
    world.tick(2)
    assert (world.phase("u"), world.phase("v")) == ("watching", "watching")
    world.execute("UPDATE challenges SET amount = 'none' WHERE id = 'v'")
    for number in range(NEXT, NEXT + 80 * 40, 40):
        USERS.write_crowd(world.connection, number, 40)
        world.connection.execute("SELECT * FROM reconcile_challenges('{u, v}')")
    USERS.write(world.connection, 1, NEXT + 80 * 40)
    world.execute("UPDATE challenges SET amount = '5' WHERE id = 'v'")
    world.reconcile("'{v}'")
    assert world.steps(201, "v") == {"v": 1}
    assert world.rows("SELECT phase, sweep_rounds FROM audius_challenges.processor_state WHERE challenge_id = 'v'") == [
        ("watching", 1)
    ]


# Numbers that do not only grow


@each(BLOCK_FEEDS)
def test_after_a_revert_lower_numbers_are_found(world: World, feed: Feed) -> None:
    feed.write_crowd(world.connection, NEXT)
    naive = NaiveFeed(world, feed)
    world.tick()
    revert(world, NEXT)
    world.tick()
    naive.poll()
    feed.write(world.connection, 1, NEXT)
    world.tick()
    naive.poll()
    assert world.found(feed, 1) == feed.steps
    assert not naive.has_seen(1)


@each((FOLLOWS, TRACKS))
def test_a_lower_number_may_follow_a_revert_between_two_ticks(world: World, feed: Feed) -> None:
    feed.write_crowd(world.connection, NEXT)
    world.tick()
    for first in (NEXT + CROWD, NEXT + CROWD + 40):  # by then the position before the crowd is forgotten
        feed.write_crowd(world.connection, first, 40)
        world.tick()
    revert(world, NEXT)
    revert(world, NEXT + CROWD)
    feed.write(world.connection, 1, NEXT)
    world.tick()
    assert world.found(feed, 1) == feed.steps


@each((FOLLOWS, TRACKS))
def test_a_revert_while_some_transaction_stays_open_blinds_nothing(world: World, feed: Feed) -> None:
    feed.write_crowd(world.connection, NEXT)
    world.tick()
    bystander = world.writer()
    bystander.execute("SELECT pg_current_xact_id()")
    late = world.writer()
    revert(world, NEXT)
    world.tick()
    feed.write(late, 1, NEXT)
    feed.write(world.connection, 2, NEXT + 1)
    world.tick()
    assert world.found(feed, 2) == feed.steps
    late.commit()
    world.tick()
    assert world.found(feed, 1) == feed.steps


def test_a_revert_is_remembered_across_more_ticks_than_are_remembered(world: World) -> None:
    TRACKS.write_crowd(world.connection, NEXT)
    world.tick()
    TRACKS.write_crowd(world.connection, NEXT + CROWD, 40)
    world.tick()
    bystander, late = world.writer(), world.writer()
    bystander.execute("SELECT pg_current_xact_id()")
    revert(world, NEXT)
    revert(world, NEXT + CROWD)
    world.tick()
    TRACKS.write(late, 1, NEXT)
    world.execute(
        "INSERT INTO blocks SELECT 'again' || number, number FROM generate_series(%s::integer, %s::integer) AS number",
        NEXT + 10,
        NEXT + 2 * CROWD - 1,
    )
    TRACKS.write_crowd(world.connection, NEXT + 10)  # the one low position is among high ones
    world.reconcile("ARRAY['u']")
    for number in range(NEXT + 10 + CROWD, NEXT + 10 + CROWD + 50 * 20, 20):
        TRACKS.write_crowd(world.connection, number, 20)
        world.reconcile("ARRAY['u']")
    late.commit()
    world.tick()
    assert world.steps(1, "u") == {"u": 1}


@each(KINDS)
def test_one_absurd_number_blinds_nothing(world: World, feed: Feed) -> None:
    naive = NaiveFeed(world, feed)
    feed.write(world.connection, 1, 2_000_000_000)
    world.tick()
    naive.poll()
    for person in (3, 4):  # by then the position before the absurd one is forgotten
        feed.write(world.connection, person, 2_000_000_000 + person)
        world.tick()
    feed.write(world.connection, 2, NEXT)
    world.tick()
    naive.poll()
    assert [world.found(feed, person) for person in (1, 2, 3, 4)] == [feed.steps] * 4
    assert naive.has_seen(1)
    assert not naive.has_seen(2)


@each((FOLLOWS, TRACKS))
def test_an_absurd_block_of_many_rows_blinds_nothing(world: World, feed: Feed) -> None:
    feed.write_crowd(world.connection, NEXT)
    world.execute("DELETE FROM blocks WHERE number > %s", NEXT + CROWD)
    world.execute("INSERT INTO blocks (blockhash, number) VALUES ('absurd', 2000000000)")
    world.connection.execute(
        _composed("UPDATE {table} SET blocknumber = 2000000000 WHERE blocknumber > %s", {"table": feed.table}), [LATEST]
    )
    world.tick()
    for person in (2, 3):  # by then the position before the absurd one is forgotten
        feed.write(world.connection, person, 2_000_000_000)
        world.tick()
    feed.write(world.connection, 1, NEXT + CROWD)
    world.tick()
    assert [world.found(feed, person) for person in (1, 2, 3)] == [feed.steps] * 3


# Purchases, which count when they have been checked


def test_a_purchase_that_is_checked_late_is_found_then(world: World) -> None:
    naive = NaiveFeed(world, PURCHASES)
    for person in (1, 2):
        PURCHASES.write(world.connection, person, NEXT + person)
    world.execute("UPDATE sol_purchases SET is_valid = NULL WHERE buyer_user_id <= 2")
    for first in (NEXT + 10, NEXT + 10 + CROWD):
        PURCHASES.write_crowd(world.connection, first)
        world.tick(2)
        naive.poll()
    assert [world.found(PURCHASES, person) for person in (1, 2)] == [{}, {}]
    naive.seen.clear()
    for person in (2, 1):
        check_in_its_place(world, person)
        world.tick()
        naive.poll()
        assert world.found(PURCHASES, person) == PURCHASES.steps
    assert not naive.has_seen(1)


def test_a_purchase_that_is_checked_while_a_transaction_stays_open_is_found_then(world: World) -> None:
    bystander, late = world.writer(), world.writer()
    bystander.execute("SELECT pg_current_xact_id()")
    PURCHASES.write(world.connection, 1, NEXT)
    world.execute("UPDATE sol_purchases SET is_valid = NULL WHERE buyer_user_id = 1")
    world.tick()
    late.execute("UPDATE sol_purchases SET is_valid = TRUE WHERE buyer_user_id = 1")
    PURCHASES.write_crowd(world.connection, NEXT + 10)
    world.tick(2)
    late.commit()
    world.tick()
    assert world.found(PURCHASES, 1) == PURCHASES.steps
    bystander.commit()
    world.tick(2)
    assert world.reconcile()["b"]["users_examined"] == 0


def test_a_purchase_that_is_never_checked_does_not_hold_the_feed_for_ever(world: World) -> None:
    PURCHASES.write(world.connection, 1, NEXT)
    world.execute("UPDATE sol_purchases SET is_valid = NULL WHERE buyer_user_id = 1")
    world.tick()
    position = "SELECT position FROM audius_challenges.look WHERE source = 'sol_purchases' ORDER BY number DESC LIMIT 1"
    high = NEXT + 300_000
    oldest = high + 10 - 200_000  # there are 20 blocks above the first of these
    world.execute(
        "INSERT INTO blocks SELECT 'high' || number, number FROM generate_series(%s::integer, %s::integer) AS number",
        high,
        high + 30,
    )
    PURCHASES.write_crowd(world.connection, NEXT + 1)
    world.tick()
    assert world.value(position) > NEXT
    PURCHASES.write(world.connection, 2, oldest)
    world.execute("UPDATE sol_purchases SET is_valid = NULL WHERE buyer_user_id = 2")
    PURCHASES.write_crowd(world.connection, high)
    world.tick()
    assert world.value(position) == oldest

    # Found by the sweep.
    check_in_its_place(world, 1)
    world.tick()
    assert world.found(PURCHASES, 1) == {}
    world.set(sweep_users=5000)
    world.tick()
    assert world.found(PURCHASES, 1) == PURCHASES.steps


def test_a_purchase_at_the_end_of_the_table_is_found_whatever_its_number_is(world: World) -> None:
    PURCHASES.write_crowd(world.connection, NEXT)
    world.tick()
    PURCHASES.write(world.connection, 1, 5)
    PURCHASES.write_crowd(world.connection, NEXT + CROWD, 40)
    world.tick()
    assert world.found(PURCHASES, 1) == PURCHASES.steps

    PURCHASES.write(world.connection, 2, 5)
    PURCHASES.write_crowd(world.connection, NEXT + CROWD + 40)
    world.tick()
    assert world.found(PURCHASES, 2) == {}
    users, slices = world.value("SELECT count(DISTINCT user_id) FROM users"), 5
    world.set(sweep_users=-(-users // slices))
    world.tick(slices)
    assert world.found(PURCHASES, 2) == PURCHASES.steps


def test_the_same_is_so_where_purchases_are_partitioned(world: World) -> None:
    world.execute(
        """
        ALTER TABLE sol_purchases RENAME TO copied;
        CREATE TABLE sol_purchases (LIKE copied INCLUDING ALL) PARTITION BY RANGE (signature, instruction_index);
        CREATE TABLE sol_purchases_1 PARTITION OF sol_purchases FOR VALUES FROM (MINVALUE, MINVALUE) TO ('9', 0);
        CREATE TABLE sol_purchases_2 PARTITION OF sol_purchases FOR VALUES FROM ('9', 0) TO (MAXVALUE, MAXVALUE);
        INSERT INTO sol_purchases SELECT * FROM copied;
        """
    )
    world.tick(2)
    PURCHASES.write(world.connection, 1, NEXT)
    PURCHASES.write(world.connection, 2, 5)
    world.tick()
    assert [world.found(PURCHASES, person) for person in (1, 2)] == [PURCHASES.steps] * 2


def sell(world: World, seller: int, content_type: str = "track") -> None:
    """Somebody buys the track, or playlist, 20000 + seller; the feed finds no purchase any more."""
    world.execute("SELECT build.purchase(900000, %s, content_type => %s)", 20000 + seller, content_type)
    PURCHASES.write_crowd(world.connection, NEXT)
    world.tick(2)


def test_a_purchase_is_found_for_the_seller(world: World) -> None:
    for seller, content_type in ((101, "track"), (1, "album"), (2, "playlist")):
        if seller < 101:
            world.execute("SELECT build.playlist(20000 + %s, %s, blocknumber => 5)", seller, seller)
        world.execute("SELECT build.purchase(900000, %s, content_type => %s)", 20000 + seller, content_type)
    world.tick()
    assert [world.steps(seller, "s") for seller in (101, 1, 2)] == [{"s": 1}] * 3


def test_a_seller_who_is_verified_later_is_found_then(world: World) -> None:
    world.execute("SELECT build.person(201, blocknumber => 5)")
    sell(world, 201)
    assert world.steps(201, "s") == {}
    world.execute("UPDATE users SET is_verified = TRUE, blocknumber = %s WHERE user_id = 201", NEXT)
    world.tick()
    assert world.steps(201, "s") == {"s": 1}


@pytest.mark.parametrize("feed", [TRACKS, PLAYLISTS], ids=["track", "playlist"])
def test_what_was_sold_before_it_was_indexed_is_found_then(world: World, feed: Feed) -> None:
    sell(world, 1, feed.table[:-1])
    assert world.steps(1, "s") == {}
    if feed is TRACKS:
        feed.write(world.connection, 1, NEXT)
    else:
        world.execute("SELECT build.playlist(20001, 1, blocknumber => %s)", NEXT)
    world.tick()
    assert world.steps(1, "s") == {"s": 1}


def test_a_new_owner_sells_from_then_on_and_who_bought_of_himself_is_found_within_a_round(world: World) -> None:
    world.execute("SELECT build.purchase(101, 20101)")
    sell(world, 101, "album")
    assert (world.steps(101, "b", "s"), world.steps(1, "s")) == ({}, {})
    world.execute("UPDATE tracks SET owner_id = 1, blocknumber = %s WHERE owner_id = 101", NEXT)
    world.tick()
    assert (world.steps(101, "b", "s"), world.steps(1, "s")) == ({}, {"s": 1})
    users, slices = world.value("SELECT count(DISTINCT user_id) FROM users"), 5
    world.set(sweep_users=-(-users // slices))
    world.tick(slices)
    assert world.steps(101, "b", "s") == {"b": 1}


# Nothing happened


@each(KINDS)
def test_an_idle_tick_finds_nothing_and_writes_nothing(world: World, feed: Feed) -> None:
    feed.write(world.connection, 1, NEXT)
    world.tick()
    assert world.found(feed, 1) == feed.steps

    user_challenges, checkpoints, writes = (
        world.versions("user_challenges"),
        world.versions("look"),
        world.writes(),
    )
    world.tick(2)
    report = world.reconcile()
    assert {challenge: row["users_examined"] for challenge, row in report.items() if row["users_examined"]} == {}
    assert world.versions("user_challenges") == user_challenges
    assert world.versions("look") == checkpoints
    assert world.writes() == writes


@each(KINDS)
def test_a_transaction_in_another_database_makes_rows_looked_at_again_and_nothing_written(
    world: World, feed: Feed
) -> None:
    with world.database.cluster.connect("postgres", autocommit=False) as elsewhere:
        elsewhere.execute("SELECT pg_current_xact_id()")
        feed.write(world.connection, 1, NEXT)
        world.tick()
        assert world.found(feed, 1) == feed.steps

        user_challenges, writes = world.versions("user_challenges"), world.writes()
        report = world.reconcile()
        assert {challenge for challenge, row in report.items() if row["users_examined"]} >= set(feed.steps)
        world.tick()
        assert world.versions("user_challenges") == user_challenges
        assert world.writes() == writes
        assert world.found(feed, 1) == feed.steps
    world.tick(2)
    report = world.reconcile()
    assert {challenge for challenge, row in report.items() if row["users_examined"]} == set()


def test_a_prepared_transaction_is_found_when_it_is_committed(wrapping_world: World) -> None:
    world = wrapping_world
    writer = world.writer()
    TRACKS.write(writer, 1, NEXT)
    PLAYS.write(writer, 1, NEXT)
    writer.execute("PREPARE TRANSACTION 'late'")
    writer.commit()
    for feed in (TRACKS, PLAYS):
        feed.write_crowd(world.connection, NEXT + 1)
    world.tick(2)
    assert [world.found(feed, 1) for feed in (TRACKS, PLAYS)] == [{}, {}]
    world.execute("COMMIT PREPARED 'late'")
    world.tick()
    assert [world.found(feed, 1) for feed in (TRACKS, PLAYS)] == [TRACKS.steps, PLAYS.steps]


# Checkpoints that are not to be trusted, and runs that did not come to their end


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE audius_challenges.look SET horizon = horizon + 1000000",
        "UPDATE audius_challenges.look SET horizon = horizon - (1::bigint << 32)",
        "UPDATE audius_challenges.installation SET cluster = cluster + 1",
        "UPDATE audius_challenges.installation SET relation = relation + 1",
        "DELETE FROM audius_challenges.look",
    ],
    ids=["from the future", "too old", "another cluster", "another table", "lost"],
)
def test_without_a_checkpoint_to_trust_everybody_is_examined_again(world: World, tampering: str) -> None:
    without_a_trace(world, user=1)
    yesterday = world.value("SELECT date_trunc('second', now()::timestamp) - INTERVAL '1 day'")
    play(world.connection, 2, yesterday, number=5)
    world.tick()
    assert (world.steps(1, "u"), world.streak(2)) == ({}, None)

    play(world.connection, 3, yesterday, number=NEXT)
    world.execute(tampering)
    world.tick(2)
    assert world.steps(1, "u") == {"u": 1}
    assert world.streak(2) == world.streak(3) == (1, str(yesterday))
    assert {world.phase(challenge) for challenge in ("u", "fp", "p", "v", "p1", "e")} == {"watching"}
    writes = world.writes()
    world.tick()
    assert world.writes() == writes


def test_a_distrusted_checkpoint_is_caught_up_over_several_ticks(world: World) -> None:
    for user in (1, 50):
        without_a_trace(world, user)
    world.tick()
    world.set(slice_users=40)
    world.execute("UPDATE audius_challenges.installation SET cluster = cluster + 1")
    world.tick()
    assert world.phase("u") == "catching up"
    assert (world.steps(1, "u"), world.steps(50, "u")) == ({"u": 1}, {})
    TRACKS.write(world.connection, 4, NEXT)  # behind the position of the sweep
    world.tick()
    assert (world.steps(4, "u"), world.steps(50, "u")) == ({"u": 1}, {"u": 1})
    world.set(slice_users=5000)
    world.tick()
    assert world.phase("u") == "watching"


@each(KINDS)
def test_what_a_failed_processor_found_is_found_again(world: World, feed: Feed) -> None:
    feed.write(world.connection, 1, NEXT)
    world.execute(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO dropped VALUES (new.specifier);
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON user_challenges FOR EACH ROW EXECUTE FUNCTION refuse();
        """
    )
    with pytest.raises(psycopg.DatabaseError, match="challenges failed"):
        world.tick()
    world.execute("DROP TRIGGER refuse ON user_challenges")
    feed.write_crowd(world.connection, NEXT + 10)
    world.tick()
    assert world.found(feed, 1) == feed.steps


@each((TRACKS, PLAYS))
def test_what_a_rolled_back_run_found_is_found_again(world: World, feed: Feed) -> None:
    feed.write(world.connection, 1, NEXT)
    world.reconcile("dry_run => TRUE")
    with world.connection.transaction(force_rollback=True):
        world.reconcile()
        assert world.found(feed, 1) == feed.steps
    assert world.found(feed, 1) == {}
    feed.write_crowd(world.connection, NEXT + 10)
    world.tick()
    assert world.found(feed, 1) == feed.steps


@each(KINDS)
def test_what_a_cancelled_tick_found_is_found_again(world: World, feed: Feed) -> None:
    feed.write(world.connection, 1, NEXT)
    with tick_held_at_its_first_row(world, cancelled=True) as outside:
        feed.write(outside, 2, NEXT + 1)
        feed.write_crowd(outside, NEXT + 10)
    assert world.found(feed, 1) == {}
    world.tick()
    assert [world.found(feed, person) for person in (1, 2)] == [feed.steps, feed.steps]


# The catalog, masses, and the sweep


@pytest.mark.parametrize(
    "change",
    ["active = FALSE", "amount = '2'", "step_count = 5", "starting_block = 1"],
    ids=["active off and on", "amount", "step_count", "starting_block"],
)
def test_a_change_of_the_catalog_has_everybody_examined(world: World, change: str) -> None:
    without_a_trace(world, user=1)
    world.tick()
    assert world.steps(1, "u") == {}
    world.execute(f"UPDATE challenges SET {change} WHERE id = 'u'")
    world.tick()
    world.execute("UPDATE challenges SET active = TRUE WHERE id = 'u'")
    world.tick()
    assert world.steps(1, "u") == {"u": 1}
    assert world.phase("u") == "watching"


def test_a_milestone_begins_when_the_one_before_it_is_reached_though_its_own_sources_have_not_changed_since(
    world: World,
) -> None:
    world.execute("UPDATE challenges SET amount = 'none' WHERE id = 'p1'")
    world.execute("SELECT build.monthly(20101, '2026-10-01', 999)")
    PLAYS.write(world.connection, 1, NEXT)
    statuses = world.rows("SELECT challenge_id, status FROM reconcile_challenges('{p1, p2}')")
    assert statuses == [("p1", "failed"), ("p2", "ok")]
    world.execute("UPDATE challenges SET amount = '25' WHERE id = 'p1'")
    world.reconcile()
    assert world.steps(101, "p1", "p2") == {"p1": 250, "p2": 1000}


@each(FEEDS)
def test_a_change_of_the_catalog_forgets_no_open_transaction(world: World, feed: Feed) -> None:
    late = world.writer()
    feed.write(late, 1, NEXT)
    feed.write_crowd(world.connection, NEXT + 1)
    world.tick()
    world.execute("UPDATE challenges SET amount = amount::integer + 1")
    world.tick(2)
    late.commit()
    world.tick()
    assert world.found(feed, 1) == feed.steps


def test_more_changes_than_a_run_takes_are_caught_up_by_the_sweep(world: World) -> None:
    masses = range(950001, 950011)
    world.execute("SELECT count(build.person(n, blocknumber => 5)) FROM generate_series(950001, 950010) AS n")
    world.tick()
    world.set(changed_users=5, slice_users=400)
    for user in masses:
        TRACKS.write(world.connection, user, NEXT)
    world.tick()
    assert world.phase("u") == "catching up"
    assert {user for user in masses if world.steps(user, "u")} == set()
    TRACKS.write(world.connection, 1, NEXT + 1)
    world.tick()
    assert world.steps(1, "u") == {"u": 1}
    world.tick(10)
    assert world.phase("u") == "watching"
    assert {user for user in masses if world.steps(user, "u")} == set(masses)


def test_more_changes_than_a_run_takes_may_come_while_catching_up(world: World) -> None:
    world.set(changed_users=5, slice_users=400)
    for user in range(40, 50):
        TRACKS.write(world.connection, user, NEXT)
    world.tick()
    assert world.phase("u") == "catching up"
    for user in range(1, 11):
        TRACKS.write(world.connection, user, NEXT + 1)
    world.tick(20)
    assert world.phase("u") == "watching"
    assert {user for user in range(1, 51) if world.steps(user, "u")} == {*range(1, 11), *range(40, 50)}


UNTRACED = {
    "a user updated in place": ("UPDATE users SET name = 'someone' WHERE user_id = 1", 1, {"p": 1}),
    "a null block number": ("SELECT build.track(1, 1, blocknumber => NULL)", 1, {"u": 1}),
    "a low block number": ("SELECT build.playlist(1, 1, blocknumber => 5)", 1, {"fp": 1}),
    "a row moved back": (
        "UPDATE tracks SET is_unlisted = FALSE, blocknumber = 50 WHERE track_id = 333",
        33,
        {"u": 1, "p1": 10},
    ),
    "monthly plays by hand": ("SELECT build.monthly(20101, '2026-11-01', 7)", 101, {"p1": 7}),
    "verified by hand": ("UPDATE users SET is_verified = TRUE WHERE user_id = 301", 301, {"v": 1}),
    "deleted in place": ("UPDATE tracks SET is_delete = TRUE WHERE owner_id = 101", 101, {"u": 0}),
    "a pinned comment that comes back": ("UPDATE comments SET is_delete = FALSE", 1, {"cp": 1}),
    "a remix that comes after its track": ("SELECT build.remix(30401, 34001)", 701, {"cs": 1}),
    "a cosign of a null block number": ("SELECT build.save(402, 32751, blocknumber => NULL)", 751, {"cs": 1}),
    "a cosign of whose time it was too early": (
        "UPDATE saves SET created_at = now()::timestamp WHERE created_at = 'infinity'",
        752,
        {"cs": 1},
    ),
    "an artist verified by hand": ("UPDATE users SET is_verified = TRUE WHERE user_id = 461", 753, {"cs": 1}),
    "a reverted block": (f"DELETE FROM blocks WHERE number = {NEXT}", 34, {"u": 0, "p1": 0}),
}


@pytest.mark.parametrize(("change", "user", "steps"), UNTRACED.values(), ids=UNTRACED)
def test_what_leaves_no_trace_is_found_within_one_round_of_the_sweep(
    world: World, change: str, user: int, steps: dict[str, int]
) -> None:
    world.execute("SELECT build.person(301, blocknumber => 5)")
    world.execute("SELECT build.track(333, 33, is_unlisted => TRUE, blocknumber => %s)", NEXT)
    world.execute("SELECT build.track(20034, 34, blocknumber => %s)", NEXT)
    world.execute("SELECT build.monthly(333, '2026-10-01', 10)")
    world.execute("SELECT build.comment(30401, 1, 30401, is_delete => TRUE, blocknumber => 5)")
    world.execute("SELECT build.track(34001, 701, blocknumber => 5), build.save(401, 34001, blocknumber => 5)")
    world.execute("SELECT build.person(461, blocknumber => 5), build.track(30461, 461, blocknumber => 5)")
    for maker, artist in ((751, 402), (752, 403), (753, 461)):
        world.execute("SELECT build.person(%s, blocknumber => 5)", maker)
        world.execute("SELECT build.track(32000 + %s, %s, blocknumber => 5)", maker, maker)
        world.execute("SELECT build.remix(30000 + %s, 32000 + %s)", artist, maker)
    world.execute("SELECT build.save(403, 32752, created_at => 'infinity', blocknumber => %s)", NEXT)
    world.execute("SELECT build.save(461, 32753, blocknumber => %s)", NEXT)
    world.tick(2)
    world.execute(change)
    users, slices = world.value("SELECT count(DISTINCT user_id) FROM users"), 5
    world.set(sweep_users=-(-users // slices))
    world.tick(slices)
    assert world.steps(user, *steps) == steps


def test_a_new_owner_is_found_at_once_and_the_old_one_within_a_round(world: World) -> None:
    world.execute("UPDATE tracks SET owner_id = 1, blocknumber = %s WHERE owner_id = 101", NEXT)
    world.tick()
    assert world.steps(1, "u") == {"u": 1}
    users, slices = world.value("SELECT count(DISTINCT user_id) FROM users"), 5
    world.set(sweep_users=-(-users // slices))
    world.tick(slices)
    assert (world.steps(1, "u"), world.steps(101, "u")) == ({"u": 1}, {"u": 0})


def test_a_new_owner_by_a_new_version_affects_both_at_once(world: World) -> None:
    with world.connection.transaction():
        world.execute("UPDATE tracks SET is_current = FALSE WHERE owner_id = 101")
        world.execute("SELECT build.track(20101, 1, blocknumber => %s, txhash => 'new')", NEXT)
    world.tick()
    assert (world.steps(1, "u"), world.steps(101, "u")) == ({"u": 1}, {"u": 0})


# Pins


def pin_by(world: World, owners: range) -> None:
    """Owners pin comments of user 1 to tracks of old blocks."""
    for owner in owners:
        world.execute("SELECT build.comment(40000 + %s, 1, 30000 + %s, blocknumber => 5)", owner, owner)
        world.execute("SELECT build.pin(30000 + %s, 40000 + %s)", owner, owner)


def pins_paid(world: World) -> int:
    return int(world.value("SELECT count(*) FROM user_challenges WHERE challenge_id = 'cp'"))


def last_run_was(world: World, ago: str, challenge: str = "cp") -> None:
    world.execute(
        "UPDATE audius_challenges.processor_state SET as_of = now() - %s::interval WHERE challenge_id = %s",
        ago,
        challenge,
    )


def test_a_pin_is_found_within_ten_minutes_of_which_no_run_misses_a_second(world: World) -> None:
    world.tick(2)
    pin_by(world, range(401, 451))
    world.tick()
    assert pins_paid(world) < 10
    last_run_was(world, "10 minutes")
    world.reconcile("ARRAY['cp'], as_of => now() - INTERVAL '5 minutes'")
    assert 10 < pins_paid(world) < 40
    world.tick()
    assert pins_paid(world) == 50


def test_a_pin_waits_for_no_sweep_though_runs_are_rare(world: World) -> None:
    world.tick(2)
    pin_by(world, range(401, 451))
    last_run_was(world, "1 day")
    report = world.reconcile("ARRAY['cp']")
    assert (report["cp"]["users_examined"], pins_paid(world)) == (50, 50)
    last_run_was(world, "1 day")
    assert world.reconcile("ARRAY['cp']")["cp"]["users_examined"] == 0


def test_whoever_is_verified_by_hand_is_known_after_a_round_of_the_sweep(world: World) -> None:
    world.execute("SELECT build.person(460, blocknumber => 5), build.track(30460, 460, blocknumber => 5)")
    world.tick(2)
    world.execute("UPDATE users SET is_verified = TRUE WHERE user_id = 460")
    users, slices = world.value("SELECT count(DISTINCT user_id) FROM users"), 5
    world.set(sweep_users=-(-users // slices))
    world.tick(slices)
    world.set(sweep_users=0)
    pin_by(world, range(460, 461))
    last_run_was(world, "10 minutes")
    world.tick()
    assert pins_paid(world) == 1


def test_start_from_now_knows_who_may_pin(new_world: World) -> None:
    world = new_world
    world.execute("SELECT audius_challenges.start_from_now()")
    pin_by(world, range(401, 451))
    world.tick()
    last_run_was(world, "10 minutes")
    world.tick()
    assert pins_paid(world) == 50


# Cosigns: who is examined is the artist, who is found through others

# Artists from 461 on have saved the remixes (32751 and up) that users from 751 on have made of their tracks.
COSIGNS = """
    SELECT
        count(build.person(460 + n, is_verified => TRUE, blocknumber => 5)),
        count(build.person(750 + n, blocknumber => 5)),
        count(build.track(30460 + n, 460 + n, blocknumber => 5)),
        count(build.track(32750 + n, 750 + n, blocknumber => 5)),
        count(build.remix(30460 + n, 32750 + n)),
        count(build.save(460 + n, 32750 + n, blocknumber => 5))
    FROM generate_series(1, 9) AS n;
    -- One thing is amiss with each.
    UPDATE users SET is_deactivated = TRUE WHERE user_id IN (751, 462);
    UPDATE users SET is_verified = FALSE WHERE user_id = 463;
    UPDATE tracks SET is_delete = TRUE WHERE track_id IN (32754, 30465);
    UPDATE tracks SET owner_id = 460 WHERE track_id = 30466;
    UPDATE tracks SET owner_id = 467 WHERE track_id = 32757;
    UPDATE saves SET is_delete = TRUE WHERE save_item_id = 32758;
    DELETE FROM remixes WHERE child_track_id = 32759;
    DELETE FROM tracks WHERE track_id = 32759;
"""
COSIGNED = {
    "the maker is back": ("UPDATE users SET is_deactivated = FALSE, blocknumber = {} WHERE user_id = 751", 751),
    "the artist is back": ("UPDATE users SET is_deactivated = FALSE, blocknumber = {} WHERE user_id = 462", 752),
    "the artist is verified": ("UPDATE users SET is_verified = TRUE, blocknumber = {} WHERE user_id = 463", 753),
    "the remix is back": ("UPDATE tracks SET is_delete = FALSE, blocknumber = {} WHERE track_id = 32754", 754),
    "the original is back": ("UPDATE tracks SET is_delete = FALSE, blocknumber = {} WHERE track_id = 30465", 755),
    "the original is the artist's": ("UPDATE tracks SET owner_id = 466, blocknumber = {} WHERE track_id = 30466", 756),
    "the remix is another's": ("UPDATE tracks SET owner_id = 757, blocknumber = {} WHERE track_id = 32757", 757),
    "the save is back": ("UPDATE saves SET is_delete = FALSE, blocknumber = {} WHERE save_item_id = 32758", 758),
    "the remix comes": ("SELECT build.track(32759, 759, blocknumber => {}), build.remix(30469, 32759)", 759),
}


@pytest.fixture
def cosigns(world: World) -> World:
    """A world with cosigns that lack one thing each."""
    world.database.psql(COSIGNS)
    world.tick(2)
    assert world.value("SELECT count(*) FROM user_challenges WHERE challenge_id = 'cs'") == 0
    return world


@pytest.mark.parametrize(("change", "earner"), COSIGNED.values(), ids=COSIGNED)
def test_a_cosign_is_found_by_whatever_changes_last(cosigns: World, change: str, earner: int) -> None:
    cosigns.execute(change.format(NEXT))
    cosigns.tick()
    assert cosigns.rows("SELECT user_id FROM user_challenges WHERE challenge_id = 'cs'") == [(earner,)]


# Contests: what is told of by no number of theirs


def contests_of(world: World, hosts: range, name: str = "jsonb_build_array(19700 + host)") -> None:
    """Hosts from 401 on name the tracks of users from 101 on, in contests of old blocks and numbers from 401 on."""
    world.execute(
        f"SELECT count(build.contest(host, host, {name}, blocknumber => 5))"
        " FROM generate_series(%s::integer, %s) AS host",
        hosts.start,
        hosts.stop - 1,
    )


def winners_paid(world: World) -> int:
    return int(world.value("SELECT count(*) FROM user_challenges WHERE challenge_id = 'w'"))


NAMED_AGAIN = {
    "the winner is active again": (
        "UPDATE users SET is_deactivated = TRUE WHERE user_id BETWEEN 101 AND 150",
        "UPDATE users SET is_deactivated = FALSE WHERE user_id BETWEEN 101 AND 150",
    ),
    "the track is back": (
        "UPDATE tracks SET is_delete = TRUE WHERE owner_id BETWEEN 101 AND 150",
        "UPDATE tracks SET is_delete = FALSE WHERE owner_id BETWEEN 101 AND 150",
    ),
    "the track gets another owner": (
        "UPDATE tracks SET owner_id = owner_id + 300 WHERE owner_id BETWEEN 101 AND 150",
        "UPDATE tracks SET owner_id = owner_id - 400 WHERE owner_id BETWEEN 401 AND 450 AND track_id < 30000",
    ),
}


@pytest.mark.parametrize(("before", "after"), NAMED_AGAIN.values(), ids=NAMED_AGAIN)
def test_a_winner_whose_contest_does_not_move_is_found_within_ten_minutes(
    world: World, before: str, after: str
) -> None:
    contests_of(world, range(401, 451))
    world.execute(before)
    world.tick(2)
    assert winners_paid(world) == 0
    world.execute(after)
    last_run_was(world, "10 minutes", "w")
    world.reconcile("ARRAY['w'], as_of => now() - INTERVAL '5 minutes'")
    assert 10 < winners_paid(world) < 40
    world.tick()
    assert winners_paid(world) == 50


def test_a_contest_has_one_turn_in_ten_minutes_and_its_host_is_examined_only_where_a_winner_has_no_row(
    world: World,
) -> None:
    contests_of(world, range(401, 451))
    world.tick(2)
    last_run_was(world, "1 day", "w")
    world.tick()
    assert winners_paid(world) == 50
    world.execute("UPDATE events SET event_data = '{\"winners\": [20101]}' WHERE event_id IN (402, 403)")
    world.execute("UPDATE users SET is_verified = FALSE WHERE user_id = 403")
    last_run_was(world, "1 day", "w")
    assert world.reconcile("ARRAY['w']")["w"]["users_examined"] == 1
    assert winners_paid(world) == 51
    world.execute("DELETE FROM user_challenges WHERE challenge_id = 'w' AND user_id IN (101, 104)")
    world.execute("SELECT audius_challenges.start_from_now('{w}')")
    last_run_was(world, "1 day", "w")
    # Of 401, 402 and 404 a winner has no row: that is passed over. 403 is not verified.
    assert world.reconcile("ARRAY['w']")["w"]["users_examined"] == 3
    assert world.reconcile("ARRAY['w']")["w"]["users_examined"] == 0
    assert winners_paid(world) == 48


def test_a_host_who_is_verified_is_found_at_once(world: World) -> None:
    contests_of(world, range(451, 452), "'[20101]'")
    world.execute("SELECT build.person(451, blocknumber => 5)")
    world.tick(2)
    assert winners_paid(world) == 0
    world.execute("UPDATE users SET is_verified = TRUE, blocknumber = %s WHERE user_id = 451", NEXT)
    world.tick()
    assert winners_paid(world) == 1


def test_a_contest_that_changes_hands_is_its_new_hosts_at_once(world: World) -> None:
    contests_of(world, range(451, 452), "'[20101]'")
    world.tick(2)
    assert winners_paid(world) == 0
    world.execute("UPDATE events SET user_id = 401, blocknumber = %s WHERE event_id = 451", NEXT)
    world.tick()
    assert winners_paid(world) == 1


# Referrals: the users who are examined are found through others, and not by the sweep's slices


@pytest.fixture
def referrals(world: World) -> World:
    """Nobody verified: user 1 may refer one user, and has referred 301 and then 302, of whom 301 is not active."""
    world.execute("UPDATE users SET is_verified = FALSE WHERE user_id = 1")
    world.execute("UPDATE challenges SET step_count = 1 WHERE id = 'r'")
    world.execute("SELECT build.person(301, is_deactivated => TRUE, blocknumber => 5), build.person(302)")
    world.execute("SELECT build.user_event(301, referrer => 1, blocknumber => 5)")
    world.tick(2)
    return world


def referred(world: World) -> list[str]:
    """What the referrals of user 1 have paid him, and those whom he referred."""
    query = """
        SELECT concat_ws(' ', challenge_id, specifier)
        FROM user_challenges
        WHERE challenge_id IN ('r', 'rv', 'rd')
        ORDER BY 1
    """
    return [found for (found,) in world.rows(query)]


def test_a_referrer_is_found_by_the_account_of_whom_he_referred(referrals: World) -> None:
    referrals.execute("UPDATE users SET is_deactivated = FALSE, blocknumber = %s WHERE user_id = 301", NEXT)
    referrals.tick()
    assert referred(referrals) == ["r 1:12d", "rd 12d:1"]


def test_of_what_waits_and_what_is_new_the_earlier_takes_the_last_place(referrals: World) -> None:
    # No block number moves: the feed sees the new row, and only the new row.
    referrals.execute("UPDATE users SET is_deactivated = FALSE WHERE user_id = 301")
    referrals.execute("SELECT build.user_event(302, referrer => 1, blocknumber => %s)", NEXT)
    referrals.tick()
    assert referred(referrals) == ["r 1:12d", "rd 12e:1"]


def test_what_the_cap_refused_is_paid_when_the_referrer_is_seen_to_be_verified(referrals: World) -> None:
    referrals.execute("UPDATE users SET is_deactivated = FALSE, blocknumber = %s WHERE user_id = 301", NEXT)
    referrals.execute("SELECT build.user_event(302, referrer => 1, blocknumber => %s)", NEXT)
    referrals.tick()
    assert referred(referrals) == ["r 1:12d", "rd 12d:1", "rd 12e:1"]
    referrals.execute("UPDATE users SET is_verified = TRUE, blocknumber = %s WHERE user_id = 1", NEXT + 1)
    referrals.tick()
    assert referred(referrals) == ["r 1:12d", "rd 12d:1", "rd 12e:1", "rv 1:12e"]


@pytest.mark.parametrize(
    ("index", "helps"),
    [
        (None, False),
        ("CREATE INDEX ON user_events (referrer) WHERE is_current", False),
        ("CREATE INDEX ON user_events (referrer)", True),
        ("CREATE INDEX ON user_events (referrer) WHERE referrer IS NOT NULL", True),
    ],
    ids=["none", "of some", "of all", "of referrers"],
)
def test_a_referrer_who_is_active_again_is_found_at_once_with_an_index_and_otherwise_within_a_round(
    referrals: World, index: str | None, helps: bool
) -> None:
    if index:
        referrals.execute(index)
    referrals.execute("UPDATE users SET is_deactivated = TRUE WHERE user_id = 1")
    referrals.execute("SELECT build.user_event(302, referrer => 1, blocknumber => %s)", NEXT)
    referrals.tick()
    assert referred(referrals) == []
    referrals.execute("UPDATE users SET is_deactivated = FALSE, blocknumber = %s WHERE user_id = 1", NEXT + 1)
    referrals.tick()
    assert referred(referrals) == (["r 1:12e"] if helps else [])
    users, slices = referrals.value("SELECT count(DISTINCT user_id) FROM users"), 5
    referrals.set(sweep_users=-(-users // slices))
    referrals.tick(slices + 1)
    assert referred(referrals) == ["r 1:12e", "rd 12e:1"]


def test_a_referral_without_a_trace_is_found_within_a_round_of_the_sweep(referrals: World) -> None:
    referrals.execute("SELECT build.user_event(302, referrer => 1, blocknumber => NULL)")
    referrals.tick()
    assert referred(referrals) == []
    users, slices = referrals.value("SELECT count(DISTINCT user_id) FROM users"), 5
    referrals.set(sweep_users=-(-users // slices))
    referrals.tick(slices + 1)
    assert referred(referrals) == ["r 1:12e", "rd 12e:1"]


# Start from now


def test_start_from_now_passes_over_what_is_there_and_follows_what_changes(new_world: World) -> None:
    world = new_world
    late = world.writer()
    for feed in FEEDS:
        feed.write(world.connection, 1, NEXT)
    for feed in FEEDS:
        feed.write(late, 2, NEXT + 1)
    world.execute("SELECT audius_challenges.start_from_now()")
    world.tick(2)
    assert world.writes() == 0

    late.commit()
    for feed in FEEDS:
        feed.write(world.connection, 3, NEXT + 2)
    world.tick()
    for feed in FEEDS:
        steps = feed.steps if feed not in (FOLLOWS, SAVES, REPOSTS) else {"p": 3}
        if feed is PLAYS:
            steps = {"p1": 1}
        elif feed in (COSIGNED_TRACKS, COSIGNED_USERS):
            steps = {}  # The save was there: it is passed over, whoever and whatever comes later.
        assert [world.found(feed, person) for person in (2, 3)] == [steps, steps]
    assert {world.streak(user) for user in (101, 102, 103)} == {None}


def test_plays_from_before_start_from_now_never_count(new_world: World) -> None:
    world = new_world
    late = world.writer()
    play(late, 2, day(1))
    play(world.connection, 1, day(1))
    world.execute("SELECT audius_challenges.start_from_now()")
    world.tick()
    world.execute("UPDATE plays SET updated_at = now()")
    late.commit()
    world.tick()
    index_again(world)
    world.tick()
    world.reconcile("full_scan => TRUE")
    assert (world.streak(1), world.streak(2)) == (None, None)
    now = world.value(NOW)
    play(world.connection, 1, now)
    world.tick()
    assert world.streak(1) == (1, str(now))


# Listens


def test_a_listen_older_than_the_last_counted_one_changes_nothing(world: World) -> None:
    play(world.connection, 1, day(1))
    play(world.connection, 1, day(2))
    world.tick()
    writes = world.writes()
    play(world.connection, 1, day(1, hour=20))
    play(world.connection, 1, day(2))
    world.tick()
    assert world.streak(1) == (2, str(day(2)))
    assert streak_rows(world, 1) == [("12026110112", 2, False, 7)]
    assert world.writes() == writes


def test_a_late_listen_that_is_newer_than_the_last_counted_one_counts_once(world: World) -> None:
    bystander, late = world.writer(), world.writer()
    bystander.execute("SELECT pg_current_xact_id()")
    play(late, 1, day(2), number=NEXT)
    play(world.connection, 1, day(1), number=NEXT + 1)
    PLAYS.write_crowd(world.connection, NEXT + 10)
    world.tick(2)
    assert world.streak(1) == (1, str(day(1)))
    writes = world.writes()
    late.commit()
    world.tick(3)
    bystander.commit()
    world.tick(2)
    assert world.streak(1) == (2, str(day(2)))
    assert streak_rows(world, 1) == [("12026110112", 2, False, 7)]
    assert world.writes() == writes + 1


def test_a_listen_seen_again_counts_once(world: World) -> None:
    for number in range(1, 10):
        play(world.connection, 1, day(number))
    world.tick()
    rows, writes = streak_rows(world, 1), world.writes()
    assert rows == [
        ("12026110112", 7, True, 7),
        ("12026110812", 1, True, 1),
        ("12026110912", 1, True, 1),
    ]
    world.execute("UPDATE plays SET updated_at = now()")
    world.tick()
    world.reconcile("full_scan => TRUE")
    world.execute("DELETE FROM plays WHERE id <= %s", LATEST)
    world.tick()
    assert (streak_rows(world, 1), world.writes()) == (rows, writes)


def test_listens_of_a_deactivated_or_unknown_user_count_once_he_is_eligible(world: World) -> None:
    world.execute("SELECT build.person(301, is_deactivated => TRUE)")
    for number in (1, 2):
        play(world.connection, 301, day(number))
        play(world.connection, 302, day(number))  # nobody yet
    PLAYS.write_crowd(world.connection, NEXT + 10)
    world.tick(2)
    assert (world.streak(301), world.streak(302)) == (None, None)
    world.execute("UPDATE users SET is_deactivated = FALSE, blocknumber = %s WHERE user_id = 301", NEXT)
    world.execute("SELECT build.person(302, blocknumber => %s)", NEXT)
    world.tick()
    assert_streaks(world, {user: [day(1), day(2)] for user in (301, 302)})


def test_plays_that_are_cleared_and_indexed_again_count_once(world: World) -> None:
    for number in range(1, 10):
        play(world.connection, 1, day(number))
    play(world.connection, 2, day(1))
    world.tick()
    writes = world.writes()
    index_again(world)
    world.tick()
    world.reconcile("full_scan => TRUE")
    assert world.writes() == writes
    play(world.connection, 1, day(10))
    world.tick()
    assert_streaks(world, {1: [day(number) for number in range(1, 11)], 2: [day(1)]})


def test_a_lost_state_pays_nothing_again_and_the_streak_goes_on(world: World) -> None:
    """The latest row stands in for the state: an open one, a complete one of seven days, one of a later day."""
    lengths = {1: 3, 2: 7, 3: 9}
    for user, length in lengths.items():
        for number in range(1, length + 1):
            play(world.connection, user, day(number))
    world.tick()
    rows = {user: streak_rows(world, user) for user in lengths}
    world.execute("DELETE FROM challenge_listen_streak")
    world.execute("UPDATE plays SET updated_at = now()")
    world.tick()
    world.reconcile("full_scan => TRUE")
    assert {user: streak_rows(world, user) for user in lengths} == rows

    for user, length in lengths.items():
        play(world.connection, user, day(length + 1))
    world.tick()
    assert_streaks(world, {1: [day(number) for number in range(1, 5)]}, among=1)
    assert streak_rows(world, 2) == [*rows[2], ("22026110812", 1, True, 1)]
    assert streak_rows(world, 3) == [*rows[3], ("32026111012", 1, True, 1)]
    assert (world.streak(2), world.streak(3)) == ((8, str(day(8))), (9, str(day(10))))


def test_what_is_listened_during_a_pause_never_counts(world: World) -> None:
    """The clock is real: whether a listen was during the pause shows in its time alone if it commits later."""
    bystander, late = world.writer(), world.writer()
    bystander.execute("SELECT pg_current_xact_id()")
    now = world.value("SELECT date_trunc('second', now()::timestamp)")
    play(world.connection, 1, now - timedelta(hours=24))
    world.tick()
    world.execute("UPDATE challenges SET active = FALSE WHERE id = 'e'")
    world.tick()
    for user, writer in ((1, world.connection), (2, world.connection), (3, late)):
        play(
            writer,
            user,
            world.value(NOW),
        )
    PLAYS.write_crowd(world.connection, NEXT + 10)
    world.tick(2)
    world.execute("UPDATE challenges SET active = TRUE WHERE id = 'e'")
    world.tick()
    late.commit()
    world.tick()
    world.execute("UPDATE plays SET updated_at = now() WHERE id > %s", LATEST)
    world.tick()
    bystander.commit()
    world.tick(2)
    assert world.streak(1) == (1, str(now - timedelta(hours=24)))
    assert (world.streak(2), world.streak(3)) == (None, None)

    after = world.value(NOW)
    play(world.connection, 1, after)
    world.tick()
    assert world.streak(1) == (2, str(after))


def test_a_clock_that_was_set_back_during_a_pause_stops_no_streak(world: World) -> None:
    world.execute("UPDATE challenges SET active = FALSE WHERE id = 'e'")
    world.tick()
    world.execute("UPDATE audius_challenges.pause SET began_at = began_at + INTERVAL '1 hour'")
    world.execute("UPDATE challenges SET active = TRUE WHERE id = 'e'")
    play(world.connection, 1, day(1))
    world.tick()
    assert world.streak(1) == (1, str(day(1)))


def test_a_pause_ends_when_a_run_finds_the_challenge_active_though_it_fails(world: World) -> None:
    for change in ("active = FALSE", "active = TRUE, amount = 'plenty'"):
        world.execute(f"UPDATE challenges SET {change} WHERE id = 'e'")
        world.connection.execute("SELECT * FROM reconcile_challenges('{e}')")
    now = world.value(NOW)
    time.sleep(0.01)
    play(world.connection, 1, now)
    world.execute("UPDATE challenges SET amount = '1' WHERE id = 'e'")
    world.tick()
    assert world.streak(1) == (1, str(now))


def test_a_state_that_is_older_than_the_users_complete_row_pays_nothing_again(world: World) -> None:
    """As after a restore of that table alone."""
    for number in range(1, 10):
        play(world.connection, 1, day(number))
    world.tick()
    rows, writes = streak_rows(world, 1), world.writes()
    world.execute("UPDATE challenge_listen_streak SET last_listen_date = %s, listen_streak = 3", day(3))
    world.execute("UPDATE plays SET updated_at = now()")
    world.tick()
    world.reconcile("full_scan => TRUE")
    assert (streak_rows(world, 1), world.writes()) == (rows, writes)
    play(world.connection, 1, day(10))
    world.tick()
    assert streak_rows(world, 1) == [*rows, ("12026111012", 1, True, 1)]


def test_a_state_beyond_all_bounds_stops_its_user_alone(world: World) -> None:
    world.execute(
        """
        INSERT INTO challenge_listen_streak (user_id, last_listen_date, listen_streak)
        VALUES (1, '2026-10-31 12:00', 2147483647), (2, '294276-12-31 23:59', 3), (3, 'infinity', 3)
        """
    )
    world.execute(
        """
        INSERT INTO user_challenges
            (challenge_id, user_id, specifier, is_complete, current_step_count, amount, created_at)
        VALUES ('e', 4, 'odd', FALSE, 1, 7, 'infinity')
        """
    )
    for user in range(1, 6):
        play(world.connection, user, day(1))
    world.tick()
    assert world.streak(1) == (2147483647, str(day(1)))
    assert [world.streak(user) for user in (4, 5)] == [(1, str(day(1)))] * 2


def test_the_first_run_that_finds_the_challenge_active_counts_all_the_plays_there_are(new_world: World) -> None:
    world = new_world
    world.execute("UPDATE challenges SET active = FALSE WHERE id = 'e'")
    play(world.connection, 1, day(1))
    world.tick()
    play(world.connection, 1, day(2), number=5)
    world.tick()
    world.execute("UPDATE challenges SET active = TRUE WHERE id = 'e'")
    world.tick()
    assert world.streak(1) == (2, str(day(2)))


def test_the_first_build_of_streaks_takes_slice_after_slice(new_world: World) -> None:
    world = new_world
    world.set(slice_users=60, time_budget="10s")
    users = (1, 2, 101, 150)
    for number in range(1, 10):
        for user in users:
            play(world.connection, user, day(number), number=100 - number * 5 + users.index(user))
    world.tick()
    assert world.phase("e") == "watching"
    daily = [day(number) for number in range(1, 10)]
    assert_streaks(world, dict.fromkeys(users, daily))


def test_a_first_build_of_streaks_over_several_ticks_misses_no_play(new_world: World) -> None:
    world = new_world
    world.set(slice_users=60, time_budget="0s")
    late = world.writer()
    play(late, 2, day(2))
    for user in (1, 2, 150):
        play(world.connection, user, day(1))
    PLAYS.write_crowd(world.connection, NEXT + 100)
    world.tick()
    assert (world.phase("e"), world.streak(1), world.streak(150)) == ("first build", (1, str(day(1))), None)
    play(world.connection, 1, day(2))
    play(world.connection, 150, day(2))
    late.commit()
    world.set(slice_users=1000, sweep_users=5000)
    world.tick(5)
    assert world.phase("e") == "watching"
    daily = [day(1), day(2)]
    assert_streaks(world, dict.fromkeys((1, 2, 150), daily))


@pytest.mark.parametrize("broken_by", ["a pause", "another cluster", "both"])
def test_listens_that_wait_for_the_sweep_survive(world: World, broken_by: str) -> None:
    """More listeners than a run takes; a pause or a restore comes before the sweep has been with all of them."""
    now = world.value("SELECT date_trunc('second', now()::timestamp)")
    daily = [now - timedelta(days=number) for number in range(9, 0, -1)]
    for at in daily:
        for user in (1, 2, 250):
            play(world.connection, user, at)
    world.set(changed_users=2, slice_users=60)
    world.tick()
    assert world.phase("e") == "catching up"
    world.tick()
    assert (world.streak(1), world.streak(250)) == ((9, str(daily[-1])), None)

    if broken_by != "a pause":
        world.execute("UPDATE audius_challenges.installation SET cluster = cluster + 1")
    if broken_by != "another cluster":
        world.execute("UPDATE challenges SET active = FALSE WHERE id = 'e'")
        world.tick()
        world.execute("UPDATE challenges SET active = TRUE WHERE id = 'e'")
    world.set(slice_users=5000)
    world.tick(2)
    assert world.phase("e") == "watching"
    assert_streaks(world, dict.fromkeys((1, 2), daily), among=2)


# What the tests above say in a word


def day(number: int, hour: int = 12) -> datetime:
    """A time in November 2026."""
    return datetime(2026, 11, number, hour)  # noqa: DTZ001 - plays.created_at has no zone


def play(connection: Connection, user: int, at: datetime, number: int | None = None) -> None:
    """A user listens to a track of its own: what is counted by track keeps nobody waiting."""
    connection.execute(
        """
        SELECT build.play(%s, 3000000 + id, %s, id)
        FROM (SELECT coalesce(%s, nextval('plays_id_seq')::integer) AS id) AS next
        """,
        [user, at, number],
    )


def index_again(world: World) -> None:
    """Clear plays and write them once more, under new ids and transactions."""
    world.execute("CREATE TEMPORARY TABLE cleared AS SELECT * FROM plays")
    world.execute("DELETE FROM plays")
    world.execute(
        "INSERT INTO plays SELECT (jsonb_populate_record(cleared, jsonb_build_object('id', nextval('plays_id_seq')))).*"
        " FROM cleared"
    )


def streak_rows(world: World, user: int) -> list[tuple[Any, ...]]:
    """Specifier, current_step_count, is_complete, amount of a user's rows, oldest first."""
    return world.rows(
        """
        SELECT specifier, current_step_count, is_complete, amount
        FROM user_challenges
        WHERE challenge_id = 'e'
            AND user_id = %s
        ORDER BY created_at
        """,
        user,
    )


def assert_streaks(world: World, listens: dict[int, list[datetime]], among: int | None = None) -> None:
    """The streaks of users who have listened daily without a break are what their counted listens make them.

    :param among: the greatest of the users whom this is about; None: all of them
    """
    for user, times in listens.items():
        opened, *later = (f"{user:x}{time:%Y%m%d%H}" for time in times)
        steps = min(len(times), 7)
        expected = [(opened, steps, steps == 7, 7), *((specifier, 1, True, 1) for specifier in later[6:])]
        assert streak_rows(world, user) == expected
        assert world.streak(user) == (len(times), str(times[-1]))
    query = "SELECT count(*) FROM user_challenges WHERE challenge_id = 'e' AND user_id <= coalesce(%s, user_id)"
    rows = world.value(query, among)
    assert rows == sum(1 + max(len(times) - 7, 0) for times in listens.values())


def without_a_trace(world: World, user: int) -> None:
    """A track of the user in a block so low that the feed does not look there."""
    world.execute("SELECT build.track(20000 + %s, %s, blocknumber => 5)", user, user)


def check_in_its_place(world: World, buyer: int) -> None:
    """A purchase turns valid, and the new version of its row is not at the end of the table."""
    world.execute("DELETE FROM sol_purchases WHERE buyer_user_id = 900000 AND content_id = 900000 AND ctid < '(9,0)'")
    world.execute("VACUUM sol_purchases")
    world.execute("UPDATE sol_purchases SET is_valid = TRUE WHERE buyer_user_id = %s", buyer)
    page = "SELECT split_part(trim('(' FROM ctid::text), ',', 1)::integer FROM sol_purchases WHERE buyer_user_id = %s"
    pages = world.value("SELECT pg_relation_size('sol_purchases') / 8192")
    assert world.value(page, buyer) < pages - 16


def revert(world: World, first: int) -> None:
    """Delete a crowd's blocks, and with them its rows; those of events do not go by themselves."""
    for table, column in (("events", "blocknumber"), ("blocks", "number")):
        world.execute(f"DELETE FROM {table} WHERE {column} BETWEEN %s AND %s", first, first + CROWD - 1)


def consume_transaction_ids(world: World, past: int) -> None:
    """Use transaction ids up until the one with these lower 32 bits, and an epoch more, is behind."""
    statement = """
        DO $$
        BEGIN
            WHILE pg_current_xact_id()::text::bigint <= {} LOOP
                COMMIT;
            END LOOP;
        END
        $$
    """
    world.connection.execute(sql.SQL(statement).format(sql.Literal(past)))


@contextmanager
def tick_held_at_its_first_row(world: World, *, cancelled: bool = False) -> Iterator[Connection]:
    """A tick that has found somebody stands still when it writes the first row, and goes on after the block.

    The block gets another session; with `cancelled`, the tick is cancelled after it.
    """
    outside = world.session()
    outside.execute(
        """
        CREATE FUNCTION wait_at_the_gate() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_advisory_xact_lock_shared(4711);
            RETURN new;
        END
        $$;
        CREATE TRIGGER wait_at_the_gate BEFORE INSERT OR UPDATE ON user_challenges
        FOR EACH ROW EXECUTE FUNCTION wait_at_the_gate();
        SELECT pg_advisory_lock(4711);
        """
    )
    world.set(lock_timeout="60s")
    backend = world.connection.info.backend_pid
    with ThreadPoolExecutor(1) as executor:
        tick = executor.submit(world.tick)
        try:
            while not outside.execute(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = %s AND NOT granted)", [backend]
            ).fetchall()[0][0]:
                assert not tick.done()
                time.sleep(0.002)
            yield outside
            if cancelled:
                outside.execute("SELECT pg_cancel_backend(%s)", [backend])
                with pytest.raises(psycopg.errors.QueryCanceled):
                    tick.result()
        finally:
            outside.execute("SELECT pg_advisory_unlock(4711)")
        if not cancelled:
            tick.result()
