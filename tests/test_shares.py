"""Shares at work, with real servers, replication and crashes: the rows come out as those of one server, told once.

Writers change the sources all the time, and every server ticks back to back. Meanwhile one server becomes a primary
with two nodes, then three others, then one, then none; nodes and the primary are killed. When all is quiet, the primary
must hold what a server that never had shares makes of the same sources, and its application must have been told of
each complete row once.

    AUDIUS_CHALLENGES_SHARE_SEEDS=10 pytest tests/test_shares.py      more histories
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest

from devtools.cluster import Cluster
from devtools.discovery import CREATE_EXTENSION, Discovery, create_discovery, require_extension
from devtools.shares import SETTINGS, Shares
from tests.sessions import TICK, Connection, column, rows, until, value

SEEDS = range(1, 1 + int(os.environ.get("AUDIUS_CHALLENGES_SHARE_SEEDS", "1")))
WRITERS = 4
HELP = "CALL audius_challenges.help()"
USERS = range(1, 61)
# Long ago: what claims to be from later than now is not there yet.
FIRST_LISTEN = datetime(2025, 1, 1)  # noqa: DTZ001 (as the column)
LAST_LISTEN = FIRST_LISTEN + timedelta(days=300)

# Small steps, so that there are many: slices, turns, sweeps. Each server has a helper, too, that takes slices.
OURS = {
    "workers": "2",
    "slice_users": "15",
    "changed_users": "8",
    "sweep_users": "7",
    "time_budget": "0s",
    "lock_timeout": "30s",
}

# Users of even writers only gain, so whatever they completed they would complete again; but for a while they may be
# deactivated or gone. Those of odd ones gain and lose, and complete nothing but v: two tracks at most, no playlist, no
# bio.
POPULATION = """
    SELECT count(*) FROM sync_challenge_catalog('stage');
    SELECT count(build.person(person, is_verified => person % 2 = 1)) FROM generate_series(1, 60) AS person;
    SELECT count(build.track(2 * person + track, person))
    FROM generate_series(1, 60) AS person, generate_series(0, 1) AS track;
    SELECT count(build.follow(person, 900 + followee))
    FROM generate_series(1, 60) AS person, generate_series(1, 4) AS followee;
    SELECT count(build.monthly(2 * person, '2025-01-01', CASE WHEN person % 2 = 0 THEN 248 ELSE 10 END))
    FROM generate_series(1, 60) AS person;

    CREATE TABLE gone (LIKE users);

    -- Plays are pruned. Whoever never had shares is to read all that there were.
    CREATE TABLE every_play (LIKE plays);
    CREATE FUNCTION keep_play() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO every_play VALUES (new.*);
        RETURN NULL;
    END
    $$;
    CREATE TRIGGER keep_play AFTER INSERT ON plays FOR EACH ROW EXECUTE FUNCTION keep_play();
"""
SOURCES = (
    "blocks",
    "users",
    "follows",
    "saves",
    "reposts",
    "tracks",
    "playlists",
    "aggregate_monthly_plays",
)

# What has been counted, and is a while ago.
PRUNE = """
    DELETE FROM plays
    USING challenge_listen_streak AS streak
    WHERE streak.user_id = plays.user_id
        AND plays.created_at < streak.last_listen_date - INTERVAL '3 days'
"""

STEP = "UPDATE users SET {} = 'something', blocknumber = %(block)s WHERE user_id = %(user)s AND is_current"
GAINS = (
    "SELECT build.track(%(id)s, %(user)s, blocknumber => %(block)s)",
    "SELECT build.playlist(%(id)s, %(user)s, blocknumber => %(block)s)",
    "SELECT build.follow(%(user)s, %(id)s, blocknumber => %(block)s)",
    "SELECT build.save(%(user)s, %(id)s, blocknumber => %(block)s)",
    "SELECT build.repost(%(user)s, %(id)s, blocknumber => %(block)s)",
    *(STEP.format(step) for step in ("name", "bio", "profile_picture", "cover_photo")),
    "UPDATE users SET is_verified = TRUE, blocknumber = %(block)s WHERE user_id = %(user)s AND is_current",
    # Without a trace in what the feed goes by: the sweep finds it.
    "UPDATE users SET bio = 'by hand' WHERE user_id = %(user)s AND is_current",
    "SELECT build.track(%(id)s, %(user)s, blocknumber => NULL)",
    "UPDATE aggregate_monthly_plays SET count = count + 2 WHERE play_item_id = 2 * %(user)s",
)
LEAVES = (
    "UPDATE users SET is_deactivated = TRUE, blocknumber = %(block)s WHERE user_id = %(user)s",
    """
    WITH leaving AS (
        DELETE FROM users
        WHERE user_id = %(user)s
        RETURNING *
    )
    INSERT INTO gone TABLE leaving
    """,
)
RETURNS = (
    """
    WITH back AS (
        DELETE FROM gone
        WHERE user_id = %(user)s
        RETURNING *
    )
    INSERT INTO users TABLE back
    """,
    "UPDATE users SET is_deactivated = FALSE, blocknumber = %(block)s WHERE user_id = %(user)s AND is_deactivated",
    # Whose block was reverted.
    """
    INSERT INTO users (user_id, is_current, handle_lc, is_verified, blocknumber, created_at, updated_at)
    SELECT %(user)s, TRUE, 'user' || %(user)s, TRUE, %(block)s, '2024-01-01', '2024-01-01'
    WHERE %(user)s %% 2 = 1
    ON CONFLICT (user_id, txhash) DO UPDATE SET blocknumber = excluded.blocknumber
    """,
)
CHANGES = (
    "UPDATE tracks SET is_unlisted = NOT is_unlisted, blocknumber = %(block)s WHERE track_id = 2 * %(user)s",
    "UPDATE tracks SET is_delete = NOT is_delete, blocknumber = %(block)s WHERE track_id = 2 * %(user)s + 1",
    "UPDATE follows SET is_current = FALSE WHERE follower_user_id = %(user)s AND followee_user_id = 904",
    "DELETE FROM follows WHERE follower_user_id = %(user)s AND followee_user_id = 903",
    "DELETE FROM tracks WHERE track_id = 2 * %(user)s + 1",
    """
    INSERT INTO follows (follower_user_id, followee_user_id, is_current, is_delete, blocknumber, created_at)
    VALUES (%(user)s, %(id)s, TRUE, FALSE, %(block)s, '2024-01-01')
    """,
    """
    INSERT INTO saves (user_id, save_item_id, save_type, is_current, is_delete, blocknumber, created_at)
    VALUES (%(user)s, 1, 'track', TRUE, FALSE, %(block)s, '2024-01-01')
    ON CONFLICT (user_id, save_item_id, save_type, txhash)
        DO UPDATE SET is_delete = NOT saves.is_delete, blocknumber = excluded.blocknumber
    """,
    """
    INSERT INTO reposts (user_id, repost_item_id, repost_type, is_current, is_delete, blocknumber, created_at)
    VALUES (%(user)s, 1, 'track', TRUE, FALSE, %(block)s, '2024-01-01')
    ON CONFLICT (user_id, repost_item_id, repost_type, txhash)
        DO UPDATE SET is_delete = NOT reposts.is_delete, blocknumber = excluded.blocknumber
    """,
)

# Rows that fell back to 0 stay, where a first build opens none.
DERIVED = """
    SELECT challenge_id::text, specifier::text, user_id, is_complete, current_step_count, amount
    FROM user_challenges
    WHERE current_step_count > 0
    ORDER BY challenge_id COLLATE "C", specifier COLLATE "C"
"""
STREAK_ROWS = """
    SELECT specifier::text, created_at, completed_at
    FROM user_challenges
    WHERE challenge_id = 'e'
    ORDER BY specifier COLLATE "C"
"""
STREAKS = "SELECT user_id, last_listen_date, listen_streak FROM challenge_listen_streak ORDER BY user_id"
COMPLETIONS = """
    SELECT *
    FROM challenge_profile_completion AS profile
    WHERE TRUE IN (
        profile_description, profile_name, profile_picture, profile_cover_photo, follows, favorites, reposts
    )
    ORDER BY user_id
"""


class Traffic:
    """Writers that change the sources of a server, each in a session of its own, one transaction after another.

    A transaction takes its block number when it begins. Those that are cut off by the end of the server are forgotten.
    """

    def __init__(self, database: Discovery, seed: int) -> None:
        self.database = database
        self.committed = 0
        self.errors: list[BaseException] = []
        self._lock = threading.Lock()
        self._numbers = count(1000)
        self._blocks: list[int] = []
        self._is_over = threading.Event()
        self._heard_at = {user: FIRST_LISTEN + timedelta(hours=user % 24) for user in USERS}
        self._threads: list[threading.Thread] = []
        self._dice = [random.Random(f"{seed} {writer}") for writer in range(WRITERS)]

    def __enter__(self) -> Self:
        self._is_over.clear()
        self._threads = [threading.Thread(target=self._write, args=(number,), daemon=True) for number in range(WRITERS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(60)
        assert self.errors == []
        with closing(self.database.connect()) as session:
            # Nobody stays away.
            block = next(self._numbers)
            session.execute("SELECT build.block(%s)", [block])
            for user in USERS:
                come_back(session, {"user": user, "block": block})

    def go_on(self, transactions: int = 60) -> None:
        """Waits until so many more transactions have been committed."""
        goal = self.committed + transactions
        until(lambda: self.errors or self.committed >= goal, f"{transactions} transactions", seconds=60)
        assert self.errors == []

    def _write(self, writer: int) -> None:
        dice = self._dice[writer]
        mine = [user for user in USERS if user % WRITERS == writer]
        session: Connection | None = None
        try:
            while not self._is_over.is_set():
                try:
                    session = session or self._connect()
                    self._transact(session, writer, mine, dice)
                except psycopg.OperationalError as error:
                    if not is_end_of_server(error):
                        raise
                    if session:
                        session.close()
                    session = None
                    time.sleep(0.05)
        except BaseException as error:  # noqa: BLE001 (the test tells it)
            self.errors.append(error)
        finally:
            if session:
                session.close()

    def _connect(self) -> Connection:
        return self.database.connect(autocommit=False)

    def _transact(self, session: Connection, writer: int, users: list[int], dice: random.Random) -> None:
        with self._lock:
            block = next(self._numbers)
        session.execute("SELECT build.block(%s)", [block])
        for _ in range(dice.randint(1, 6)):
            with self._lock:
                number = next(self._numbers)
            values = {"user": dice.choice(users), "block": block, "id": number}
            self._change(session, writer, values, dice)
        if dice.random() < 0.1:
            session.rollback()
        else:
            session.commit()
            with self._lock:
                self.committed += 1
                if writer % 2:
                    self._blocks.append(block)
        chance = dice.random()
        if chance < 0.05 and writer % 2 and self._blocks:
            with self._lock:
                reverted = self._blocks.pop(dice.randrange(len(self._blocks)))
            session.execute("DELETE FROM blocks WHERE number = %s", [reverted])
        elif chance < 0.1 and writer == 0:
            session.execute(PRUNE)
        elif chance < 0.12:
            switched = dice.choice(["u", "fp", "p", "v", "e"])
            session.execute("UPDATE challenges SET active = NOT active WHERE id = %s", [switched])
        session.commit()
        self._is_over.wait(0.03)

    def _change(self, session: Connection, writer: int, values: dict[str, Any], dice: random.Random) -> None:
        chance = dice.random()
        user = values["user"]
        if chance < 0.35 and self._heard_at[user] < LAST_LISTEN:
            with self._lock:
                self._heard_at[user] += timedelta(hours=dice.choice([1, 15, 17, 24, 24, 24, 24, 24, 40, 50]))
                values["at"] = self._heard_at[user]
            session.execute("SELECT build.play(%(user)s, 2 * %(user)s, %(at)s)", values)
        elif chance < 0.4:
            come_back(session, values)
        elif writer % 2:
            session.execute(dice.choice(CHANGES), values)
        elif chance < 0.44:
            session.execute(dice.choice(LEAVES), values)
        else:
            session.execute(dice.choice(GAINS), values)


def come_back(session: Connection, values: dict[str, Any]) -> None:
    """A user who is deactivated or gone is there again."""
    for statement in RETURNS:
        session.execute(statement, values)


class Clock:
    """Calls a procedure of a server again and again, in a session for a while and then another, until told to stop.

    A server that is gone is waited for; whatever else a call says is kept in `errors`.
    """

    def __init__(self, database: Discovery, call: str) -> None:
        self.database = database
        self.call = call
        self.calls = 0
        self.errors: list[BaseException] = []
        self._session: Connection | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the call that is under way, a helper's at once; the test fails if one has failed."""
        self._is_over.set()
        deadline = time.monotonic() + 60
        while self._thread.is_alive() and time.monotonic() < deadline:
            if self.call == HELP and (session := self._session):
                with suppress(psycopg.Error):
                    session.cancel()
            self._thread.join(0.2)
        assert not self._thread.is_alive()
        assert self.errors == []

    def _run(self) -> None:
        while not self._is_over.is_set():
            try:
                with closing(self.database.connect()) as self._session:
                    for _ in range(5):
                        if self._is_over.is_set():
                            return
                        self._session.execute(self.call)
                        self.calls += 1
                        self._is_over.wait(0.02)
            except psycopg.OperationalError as error:
                if not is_end_of_server(error) and not (self._is_over.is_set() and self.call == HELP):
                    self.errors.append(error)
                self._is_over.wait(0.05)
            except BaseException as error:  # noqa: BLE001 (the test tells it)
                self.errors.append(error)
                self._is_over.wait(0.05)


def is_end_of_server(error: psycopg.OperationalError) -> bool:
    """Whether a connection failed or broke since its server was killed, or is about to start."""
    return error.sqlstate is None or error.sqlstate.startswith("57P") or error.sqlstate.startswith("08")


class Servers:
    """A primary and its nodes, of which each ticks all the time, and has a helper."""

    def __init__(self, shares: Shares) -> None:
        self.shares = shares
        self.clocks: dict[int, list[Clock]] = {}
        self._let_tick(shares.hub)

    def move_to(self, number: int) -> None:
        """So many other nodes do the work; they tick from when they have joined."""
        former, self.shares.nodes = self.shares.nodes, []
        self.shares.publish(number)
        for each in range(number):
            node = self.shares.join(f"{each}/{number}")
            for name, text in OURS.items():
                node.database.psql(f"ALTER DATABASE {node.database.name} SET audius_challenges.{name} = '{text}'")
            self._let_tick(node.database)
        self.shares.plan(number)
        for node in self.shares.nodes:
            self.shares.adopt(node)
        for node in former:
            self._stop(node.database)
            self.shares.leave(node)

    def move_back(self) -> None:
        """The primary does everything, nodes are gone."""
        for node in self.shares.nodes:
            self._stop(node.database)
        self.shares.take_down()

    def rest(self) -> None:
        """Ends all ticks; then every change is followed, and brought home."""
        for database in (self.shares.hub, *(node.database for node in self.shares.nodes)):
            self._stop(database)
        with closing(self.shares.hub.connect()) as session:
            session.execute("UPDATE challenges SET active = TRUE")
        # Two, so that what a switched off challenge had to wait for is over.
        for _ in range(2):
            self.shares.settle()
        for node in self.shares.nodes:
            with closing(node.connect()) as session:
                found = rows(session, "SELECT challenge_id, status, error FROM reconcile_challenges(full_scan => TRUE)")
                assert [row for row in found if row[1] not in {"ok", "inactive"}] == []
        self.shares.settle()
        with closing(self.shares.hub.connect()) as session:
            for _ in range(2):
                session.execute("SELECT * FROM reconcile_challenges(full_scan => TRUE)")

    def resume(self) -> None:
        """Ticks again."""
        for database in (self.shares.hub, *(node.database for node in self.shares.nodes)):
            self._let_tick(database)

    def _let_tick(self, database: Discovery) -> None:
        self.clocks[database.cluster.port] = [Clock(database, TICK), Clock(database, HELP)]
        for clock in self.clocks[database.cluster.port]:
            clock.start()

    def _stop(self, database: Discovery) -> None:
        for clock in self.clocks.pop(database.cluster.port):
            clock.stop()


def crash(cluster: Cluster) -> None:
    """Kills a server, and starts it again."""
    cluster.crash()
    cluster.start()


@pytest.fixture
def primary(root: Path | None) -> Iterator[Discovery]:
    """A server with a population, that is about to have shares."""
    with Cluster(root=root, cron_database="postgres", settings={**SETTINGS, "autovacuum": "off"}) as cluster:
        require_extension(cluster)
        database = create_discovery(cluster, "discovery")
        database.psql(CREATE_EXTENSION, POPULATION)
        for name, text in OURS.items():
            database.psql(f"ALTER DATABASE discovery SET audius_challenges.{name} = '{text}'")
        yield database


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_the_rows_are_those_of_one_server_and_told_once(primary: Discovery, seed: int) -> None:
    dice = random.Random(seed)
    with Shares(primary) as shares:
        servers = Servers(shares)
        traffic = Traffic(primary, seed)
        with traffic:
            traffic.go_on()
            servers.move_to(2)
            traffic.go_on()
            for _ in range(2):
                for cluster in dice.sample([primary.cluster, *(node.cluster for node in shares.nodes)], 3):
                    time.sleep(dice.random() / 5)  # at any moment of a tick
                    crash(cluster)
                    traffic.go_on(20)
            servers.move_to(3)
            traffic.go_on()
            crash(primary.cluster)
            crash(dice.choice(shares.nodes).cluster)
            traffic.go_on()
        servers.rest()
        assert_as_one_server(primary, "after_shares")

        servers.resume()
        with traffic:
            traffic.go_on(30)
            servers.move_to(1)
            traffic.go_on()
            servers.move_back()
            traffic.go_on(30)
        servers.rest()
        assert_as_one_server(primary, "in_the_end")
        assert_nothing_is_left(primary)


def assert_as_one_server(primary: Discovery, name: str) -> None:
    """What there is is what a server that never had shares makes of the same sources, and was written and told once."""
    single = create_discovery(primary.cluster, name)
    stage = "SELECT count(*) FROM sync_challenge_catalog('stage')"
    single.psql(
        CREATE_EXTENSION, stage, "ALTER TABLE plays DISABLE TRIGGER USER", "UPDATE challenges SET active = TRUE"
    )
    with closing(primary.connect()) as session, closing(single.connect()) as other:
        for table in SOURCES:
            copy(session, table, other, table)
        copy(session, "every_play", other, "plays")
        other.execute("SELECT * FROM reconcile_challenges(full_scan => TRUE)")
        for query in (DERIVED, STREAK_ROWS, STREAKS, COMPLETIONS):
            expected = rows(other, query)
            assert len(expected) > 0
            assert rows(session, query) == expected
        assert_once(session)


def assert_once(session: Connection) -> None:
    """Each complete row was completed by one write, never touched again, and the application has told of it once."""
    complete = rows(
        session,
        "SELECT challenge_id::text, specifier::text FROM user_challenges WHERE is_complete ORDER BY 1, 2",
    )
    assert len(complete) > 50
    written = rows(
        session,
        "SELECT challenge_id::text, specifier::text FROM user_challenges_log WHERE (new ->> 'is_complete')::boolean"
        " ORDER BY 1, 2",
    )
    assert written == complete
    told = rows(session, "SELECT data ->> 'challenge_id', data ->> 'specifier' FROM notification ORDER BY 1, 2")
    assert told == complete
    unpayable = "SELECT count(*) FROM user_challenges WHERE is_complete AND completed_blocknumber IS NULL"
    assert value(session, unpayable) == 0


def assert_nothing_is_left(primary: Discovery) -> None:
    """Of shares, on a server that has none any more."""
    with closing(primary.connect()) as session:
        for catalog, name in (
            ("pg_publication", "pubname"),
            ("pg_subscription", "subname"),
            ("pg_replication_slots", "slot_name"),
        ):
            assert column(session, f"SELECT {name} FROM {catalog}") == []
        assert column(session, "SELECT shares FROM audius_challenges.share_plan") == [0]
        assert value(session, "SELECT count(*) FROM audius_challenges.share_batch") == 0


def copy(source: Connection, table: str, target: Connection, into: str) -> None:
    """Copies a table's rows to another database."""
    names = ", ".join(
        column(
            source,
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
            " AND attgenerated = '' ORDER BY attnum",
            table,
        )
    )
    with (
        source.cursor() as reading,
        target.cursor() as writing,
        reading.copy(f"COPY {table} ({names}) TO STDOUT") as out,
        writing.copy(f"COPY {into} ({names}) FROM STDIN") as incoming,
    ):
        for data in out:
            incoming.write(data)
