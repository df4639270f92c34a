"""Whatever writers, runs and crashes do to each other, the derived tables come out as if nothing had happened.

A history is invented from a seed: writers with open transactions, savepoints, rollbacks and retries; ticks that are
cancelled, terminated or hit by a kill -9 of the whole server, in the middle of a write, too. In every third history
three workers share what there is to do, and helpers are ended in the same ways. When all is quiet, the
derived tables must hold what a first build from nothing makes of the same sources. Streaks depend on the order in
which listens became visible: those of users who are always heard in order must be what a model of the rules makes of
their plays, the others' must obey the rules that hold in any order.

    AUDIUS_CHALLENGES_CRASH_SEEDS=100 pytest tests/test_crashes.py      more histories
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from devtools.cluster import Cluster
from devtools.discovery import CREATE_EXTENSION, Discovery, create_discovery, require_extension
from tests.model import Challenge, Model, Play, User
from tests.sessions import replace_package

HELP = "CALL audius_challenges.help()"
# A helper ends soon after the last slice, and looks for the next one at once.
IMPATIENT = "PATIENCE, POLL = 0.3, 0.02"

Connection = psycopg.Connection[Any]
Statement = tuple[str, dict[str, Any]]

SEEDS = range(1, 1 + int(os.environ.get("AUDIUS_CHALLENGES_CRASH_SEEDS", "6")))
STEPS = 50
WRITERS = 4

USERS = range(1, 41)
UNBORN = range(42, 52, 2)
HEARD_IN_ORDER = range(1, 21)
HEARD_LATE = range(21, 29)

# Even users only ever gain, so whatever they completed they would complete again. Odd ones gain and lose, and complete
# nothing but v: two tracks at most, no playlist, no bio. User, writer and block are all even or all odd.
POPULATION = """
    INSERT INTO blocks (blockhash, number)
    SELECT 'block' || number, number
    FROM generate_series(1, 20000) AS number;

    SELECT count(build.person(person, is_verified => person % 2 = 1)) FROM generate_series(1, 40) AS person;
    SELECT count(build.track(2 * person + track, person))
    FROM generate_series(1, 40) AS person, generate_series(0, 1) AS track;
    SELECT count(build.follow(person, 900 + followee))
    FROM generate_series(1, 40) AS person, generate_series(1, 4) AS followee;
    SELECT count(build.monthly(2 * person, '2026-01-01', CASE WHEN person % 2 = 0 THEN 248 ELSE 10 END))
    FROM generate_series(1, 40) AS person;
    SELECT count(*) FROM sync_challenge_catalog('stage');

    -- A run that writes a row of a challenge waits for whoever holds the lock of it.
    CREATE FUNCTION wait_at_the_gate() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(4711, hashtext(new.challenge_id));
        RETURN new;
    END
    $$;
    CREATE TRIGGER wait_at_the_gate BEFORE INSERT OR UPDATE ON user_challenges
    FOR EACH ROW EXECUTE FUNCTION wait_at_the_gate();
"""

# Rows that concern nobody, of the blocks from `first` on: they take what is still open out of reach of a window that
# only goes by the latest numbers.
BURST = """
    WITH numbers AS (SELECT generate_series(%(first)s::integer, %(first)s + %(count)s - 1) AS number),
    users_of_it AS (
        INSERT INTO users (user_id, is_current, blocknumber, txhash, created_at, updated_at)
        SELECT 1000, FALSE, number, number, '2024-01-01', '2024-01-01' FROM numbers
    ),
    follows_of_it AS (
        INSERT INTO follows (follower_user_id, followee_user_id, is_current, is_delete, blocknumber, created_at)
        SELECT 1000, number, TRUE, FALSE, number, '2024-01-01' FROM numbers
    ),
    saves_of_it AS (
        INSERT INTO saves (user_id, save_item_id, save_type, is_current, is_delete, blocknumber, created_at)
        SELECT 1000, number, 'track', TRUE, FALSE, number, '2024-01-01' FROM numbers
    ),
    reposts_of_it AS (
        INSERT INTO reposts (user_id, repost_item_id, repost_type, is_current, is_delete, blocknumber, created_at)
        SELECT 1000, number, 'track', TRUE, FALSE, number, '2024-01-01' FROM numbers
    ),
    tracks_of_it AS (
        INSERT INTO tracks (track_id, owner_id, is_current, is_delete, blocknumber, created_at, updated_at)
        SELECT 100000 + number, 1000, TRUE, FALSE, number, '2024-01-01', '2024-01-01' FROM numbers
    ),
    playlists_of_it AS (
        INSERT INTO playlists
            (playlist_id, playlist_owner_id, is_album, is_private, playlist_contents, is_current, is_delete,
             blocknumber, created_at, updated_at)
        SELECT 100000 + number, 1000, FALSE, FALSE, '{}', TRUE, FALSE, number, '2024-01-01', '2024-01-01'
        FROM numbers
    )
    INSERT INTO plays (user_id, play_item_id, created_at, updated_at)
    SELECT NULL, 100000 + number, '2024-01-01', '2024-01-01' FROM numbers
"""

# Column of a profile → what makes a step of it. The version before loses is_current.
PROFILE = {
    "name": "'someone'",
    "bio": "'something'",
    "profile_picture": "'face'",
    "cover_photo": "'sea'",
    "is_verified": "TRUE",
}
NEW_VERSION = """
    WITH previous AS (
        UPDATE users SET is_current = FALSE
        WHERE user_id = %(user)s
            AND is_current
        RETURNING *
    )
    INSERT INTO users
        (user_id, is_current, handle_lc, name, bio, profile_picture, cover_photo, is_verified,
         blocknumber, txhash, created_at, updated_at)
    SELECT user_id, TRUE, handle_lc, {columns}, %(block)s, %(txhash)s, created_at, updated_at
    FROM previous
"""


def new_version(column: str) -> str:
    """SQL of a user's new row version, with one more step of the profile done."""
    return NEW_VERSION.format(columns=", ".join(PROFILE[name] if name == column else name for name in PROFILE))


@dataclass
class Writer:
    """One of those who write source tables: one transaction after another, each of a block taken when it begins.

    :ivar statements: what the open transaction has done so far; to be done again if the server crashes
    """

    number: int
    connection: Connection
    block: int | None = None
    statements: list[Statement] = field(default_factory=list)
    savepoint: int | None = None

    def do(self, *statement: Any) -> None:
        """Run a statement in the open transaction."""
        query, values = statement
        self.connection.execute(query, values)
        self.statements.append((query, values))

    def commit(self) -> None:
        """End the transaction."""
        self.connection.commit()
        self._forget()

    def roll_back(self) -> None:
        """Undo the transaction."""
        self.connection.rollback()
        self._forget()

    def set_savepoint(self) -> None:
        """Begin a subtransaction, unless there is one."""
        if self.savepoint is None:
            self.connection.execute("SAVEPOINT here")
            self.savepoint = len(self.statements)

    def end_savepoint(self, *, undo: bool) -> None:
        """End the subtransaction."""
        if self.savepoint is not None:
            self.connection.execute("ROLLBACK TO SAVEPOINT here" if undo else "RELEASE SAVEPOINT here")
            if undo:
                del self.statements[self.savepoint :]
            self.savepoint = None

    def _forget(self) -> None:
        self.block, self.savepoint = None, None
        self.statements.clear()


class History:
    """One invented history in a database of its own; `journal` tells it, step by step."""

    def __init__(self, cluster: Cluster, name: str, seed: int, *, has_helpers: bool = False) -> None:
        self.cluster = cluster
        self.database = Discovery(cluster, name)
        self.random = random.Random(seed)
        # With the sweep there is more that may happen: changes that leave no trace in the columns the feed goes by.
        self.has_sweep = seed % 2 == 0
        self.has_helpers = has_helpers
        self.journal: list[str] = []
        self.done: Counter[str] = Counter()
        self._executor = ThreadPoolExecutor(4)
        self._last_block = 1000
        self._next_id = 1000
        self._heard_at = {user: datetime(2026, 1, 1, user % 24) for user in HEARD_IN_ORDER}  # noqa: DTZ001
        self._odd_blocks: list[int] = []
        self._unborn = list(UNBORN)
        self.writers = [Writer(number, self._writer_session()) for number in range(WRITERS)]

    def close(self) -> None:
        """Close all sessions."""
        for writer in self.writers:
            writer.connection.close()
        self._executor.shutdown()

    # The writers

    def write(self) -> None:
        """A writer begins, goes on with, or ends its transaction."""
        writer = self.random.choice(self.writers)
        if writer.block is None:
            self._last_block += 1
            writer.block = self._last_block
        for _ in range(self.random.randint(2, 8)):
            chance = self.random.random()
            if chance < 0.15:
                writer.set_savepoint()
            elif chance < 0.25:
                writer.end_savepoint(undo=self.random.random() < 0.4)
            else:
                writer.do(*self._change(writer))
        chance = self.random.random()
        if chance < 0.45:
            self._commit(writer)
        elif chance < 0.55:
            self.tell("roll back", writer)
            writer.roll_back()
        else:
            self.tell("leave open", writer)

    def burst(self) -> None:
        """Many rows at once that concern nobody."""
        count = self.random.randint(200, 700)
        self.tell(f"burst of {count} from block {self._last_block + 1} on")
        with closing(self.database.connect()) as session:
            session.execute(BURST, {"first": self._last_block + 1, "count": count})
        self._last_block += count

    def revert(self) -> None:
        """A block is deleted, and all its rows with it: one of those who may lose."""
        if self._odd_blocks and all(writer.block is None for writer in self.writers if writer.number % 2):
            block = self._odd_blocks.pop(self.random.randrange(len(self._odd_blocks)))
            self.tell(f"revert block {block}")
            with closing(self.database.connect()) as session:
                session.execute("DELETE FROM blocks WHERE number = %s", [block])

    def change_catalog(self) -> None:
        """Somebody switches a challenge off or on."""
        challenge = self.random.choice(["u", "fp", "p", "v", "p1"])
        self.tell(f"switch {challenge}")
        with closing(self.database.connect()) as session:
            session.execute("UPDATE challenges SET active = NOT active WHERE id = %s", [challenge])

    def _commit(self, writer: Writer) -> None:
        self.tell("commit", writer)
        if writer.number % 2 and writer.block is not None:
            self._odd_blocks.append(writer.block)
        writer.commit()

    def _change(self, writer: Writer) -> Statement:
        mine = [user for user in USERS if user % WRITERS == writer.number]
        user = self.random.choice(mine)
        self._next_id += 1
        values = {"user": user, "block": writer.block, "id": self._next_id, "txhash": f"{self._next_id}"}
        changes = [self._play, self._play, self._lose_and_gain if writer.number % 2 else self._gain]
        if self.has_sweep:
            changes.append(self._change_without_a_trace)
        return self.random.choice(changes)(writer, values)

    def _gain(self, writer: Writer, values: dict[str, Any]) -> Statement:
        if self._unborn and writer.number == 0 and self.random.random() < 0.1:
            values["user"] = self._unborn.pop()
            return "SELECT build.person(%(user)s, name => 'born', blocknumber => %(block)s)", values
        statements = [
            "SELECT build.track(%(id)s, %(user)s, blocknumber => %(block)s)",
            "SELECT build.playlist(%(id)s, %(user)s, blocknumber => %(block)s)",
            "SELECT build.follow(%(user)s, %(id)s, blocknumber => %(block)s)",
            "SELECT build.save(%(user)s, %(id)s, blocknumber => %(block)s)",
            "SELECT build.repost(%(user)s, %(id)s, blocknumber => %(block)s)",
            *(new_version(column) for column in PROFILE),
        ]
        return self.random.choice(statements), values

    def _lose_and_gain(self, _writer: Writer, values: dict[str, Any]) -> Statement:
        values["item"] = self.random.randint(0, 1)
        values["flag"] = self.random.random() < 0.5
        statements = [
            """
            UPDATE tracks SET is_unlisted = NOT is_unlisted, blocknumber = %(block)s
            WHERE track_id = 2 * %(user)s + %(item)s
            """,
            """
            UPDATE tracks SET is_delete = NOT is_delete, blocknumber = %(block)s
            WHERE track_id = 2 * %(user)s + %(item)s
            """,
            """
            WITH previous AS (
                UPDATE follows SET is_current = FALSE
                WHERE follower_user_id = %(user)s
                    AND followee_user_id = 904 + %(item)s
            )
            SELECT build.follow(
                %(user)s, 904 + %(item)s, is_delete => %(flag)s, blocknumber => %(block)s, txhash => %(txhash)s
            )
            """,
            """
            WITH previous AS (
                UPDATE saves SET is_current = FALSE
                WHERE user_id = %(user)s
                    AND save_item_id = %(item)s
            )
            SELECT build.save(
                %(user)s, %(item)s, is_delete => %(flag)s, blocknumber => %(block)s, txhash => %(txhash)s
            )
            """,
            """
            WITH previous AS (
                UPDATE reposts SET is_current = FALSE
                WHERE user_id = %(user)s
                    AND repost_item_id = %(item)s
            )
            SELECT build.repost(
                %(user)s, %(item)s, is_delete => %(flag)s, blocknumber => %(block)s, txhash => %(txhash)s
            )
            """,
        ]
        return self.random.choice(statements), values

    def _change_without_a_trace(self, writer: Writer, values: dict[str, Any]) -> Statement:
        gaining = [
            "UPDATE users SET bio = 'by hand' WHERE user_id = %(user)s AND is_current",
            "SELECT build.track(%(id)s, %(user)s, blocknumber => NULL)",
            "SELECT build.playlist(%(id)s, %(user)s, blocknumber => 5)",
            "UPDATE aggregate_monthly_plays SET count = count + 2 WHERE play_item_id = 2 * %(user)s",
        ]
        losing = [
            "UPDATE tracks SET is_unlisted = NOT is_unlisted WHERE track_id = 2 * %(user)s",
            "UPDATE tracks SET is_delete = NOT is_delete, blocknumber = 5 WHERE track_id = 2 * %(user)s + 1",
            "UPDATE follows SET is_current = FALSE WHERE follower_user_id = %(user)s AND followee_user_id = 904",
            "UPDATE aggregate_monthly_plays SET count = 5 WHERE play_item_id = 2 * %(user)s",
        ]
        return self.random.choice(losing if writer.number % 2 else gaining), values

    def _play(self, writer: Writer, values: dict[str, Any]) -> Statement:
        """A listen, of a track that no other writer's listeners play: monthly counts would keep them waiting."""
        mine = [user for user in HEARD_IN_ORDER if user % WRITERS == writer.number]
        listener = self.random.choice([*mine, *mine, *HEARD_LATE])
        if listener in self._heard_at:
            self._heard_at[listener] += timedelta(hours=self.random.choice([1, 15, 17, 24, 24, 24, 24, 40, 50]))
            at = self._heard_at[listener]
        else:
            at = datetime(2026, 2, self.random.randint(1, 20), self.random.choice([12, 12, 20]))  # noqa: DTZ001
        values |= {"listener": listener, "at": at}
        return "SELECT build.play(%(listener)s, 2 * %(user)s, %(at)s)", values

    # The runs

    def tick(self) -> None:
        """A tick, in a session of its own, undisturbed."""
        self.tell("tick")
        self._tick()

    def reconcile(self) -> None:
        """The interactive form, sometimes taken back."""
        kept = self.random.random() < 0.6
        self.tell("reconcile" if kept else "reconcile, roll back")
        with closing(self.database.connect(autocommit=False)) as session:
            session.execute("SELECT * FROM reconcile_challenges()")
            if kept:
                session.commit()

    def tick_while_writers_go_on(self) -> None:
        """A tick stands still at a row of some challenge, if it comes to one, while others write and commit."""
        challenge = self.random.choice(["u", "fp", "p", "v", "e", "p1", "p2"])
        ending = self.random.choice(["go on", "cancel", "terminate", "crash", "crash"])
        self.tell(f"tick, held at {challenge}")
        gate = self.database.connect()
        gate.execute("SELECT pg_advisory_lock(4711, hashtext(%s))", [challenge])
        session = self.database.connect()
        pid = session.info.backend_pid
        tick = self._executor.submit(self._tick, session)
        if self._is_held(gate, pid, tick):
            for _ in range(self.random.randint(0, 4)):
                self.write()
            if ending == "crash":
                self.crash()
            elif ending != "go on":
                self.tell(ending)
                gate.execute(f"SELECT pg_{ending}_backend(%s)", [pid])
        gate.close()
        if ending == "go on":
            tick.result()
        else:
            with suppress(psycopg.errors.QueryCanceled, psycopg.OperationalError):
                tick.result()

    def help_beside_a_tick(self) -> None:
        """Two helpers take slices beside a tick, and are ended at any moment of it, or not."""
        ending = self.random.choice(["go on", "go on", "cancel", "terminate", "crash"])
        self.tell("tick, with helpers")
        sessions = [self.database.connect() for _ in range(2)]
        pids = [session.info.backend_pid for session in sessions]
        helping = [self._executor.submit(session.execute, HELP) for session in sessions]
        tick = self._executor.submit(self._tick)
        if ending != "go on":
            time.sleep(self.random.random() * 0.3)
            if ending == "crash":
                self.crash()
            else:
                self.tell(ending)
                with closing(self.database.connect()) as session:
                    session.execute(f"SELECT pg_{ending}_backend(pid) FROM unnest(%s) AS pid", [pids])
        with suppress(*([psycopg.OperationalError] if ending == "crash" else [])):
            tick.result()
        for each in helping:
            with suppress(*([] if ending == "go on" else [psycopg.errors.QueryCanceled, psycopg.OperationalError])):
                each.result()
        for session in sessions:
            session.close()

    def crash_in_a_tick(self) -> None:
        """The server dies at any moment of a tick."""
        tick = self._executor.submit(self._tick)
        time.sleep(self.random.random() * 0.2)
        self.crash()
        with suppress(psycopg.OperationalError):
            tick.result()

    def crash(self) -> None:
        """The server is killed and started again."""
        self.tell("crash")
        self.cluster.crash()
        self.cluster.start()
        self.reconnect_writers()

    def reconnect_writers(self) -> None:
        """After the end of their server, writers do their open transaction again, or forget it."""
        for writer in self.writers:
            writer.connection.close()
            writer.connection = self._writer_session()
            statements, writer.statements, writer.savepoint = writer.statements, [], None
            if self.random.random() < 0.7:
                for statement in statements:
                    writer.do(*statement)
            else:
                writer.roll_back()

    def come_to_rest(self) -> None:
        """Nobody writes any more, and ticks go on until nothing is left to do."""
        self.tell("come to rest")
        for writer in self.writers:
            self._commit(writer)
        with closing(self.database.connect()) as session:
            session.execute("UPDATE challenges SET active = TRUE")
            for _ in range(60):
                session.execute("CALL audius_challenges.tick()")
                unfinished = session.execute(
                    "SELECT FROM audius_challenges.processor_state WHERE phase <> 'watching'"
                ).fetchall()
                if not unfinished:
                    break
            else:
                pytest.fail("the processors are still catching up after 60 ticks")
            for _ in range(10 if self.has_sweep else 2):
                session.execute("CALL audius_challenges.tick()")

    def _tick(self, session: Connection | None = None) -> None:
        with closing(session or self.database.connect()) as ticking:
            ticking.execute("CALL audius_challenges.tick()")

    def _is_held(self, gate: Connection, pid: int, tick: Future[None]) -> bool:
        """Wait until the tick is held at the gate, or has ended."""
        while not tick.done():
            waiting = "SELECT FROM pg_locks WHERE pid = %s AND locktype = 'advisory' AND NOT granted"
            if gate.execute(waiting, [pid]).fetchall():
                return True
            time.sleep(0.002)
        return False

    def _writer_session(self) -> Connection:
        session = self.database.connect(autocommit=False)
        session.execute("SET lock_timeout = '5s'")
        session.commit()
        return session

    def tell(self, event: str, writer: Writer | None = None) -> None:
        """Add to the journal."""
        self.done[event.split(maxsplit=1)[0]] += 1
        self.journal.append(event if writer is None else f"writer {writer.number}: {event}, block {writer.block}")


@pytest.fixture(scope="module")
def durable_cluster(root: Path | None) -> Iterator[Cluster]:
    """A cluster that survives being killed, with a population that the extension has not seen yet."""
    settings = {"autovacuum": "off", "recovery_init_sync_method": "syncfs"}
    with Cluster(root=root, cron_database="postgres", settings=settings) as cluster:
        require_extension(cluster)
        population = create_discovery(cluster, "population")
        population.psql(CREATE_EXTENSION, POPULATION)
        with closing(population.connect()) as session:
            session.execute(BURST, {"first": 301, "count": 700})
            replace_package(session, "crashes", IMPATIENT, "operation/helping")
        yield cluster


@pytest.mark.parametrize("seed", SEEDS)
def test_after_any_history_the_rows_are_those_of_a_first_build(durable_cluster: Cluster, seed: int) -> None:
    cluster = durable_cluster
    set_fsync(cluster, "off")  # a new database is many files
    cluster.create_database("history", template="population")
    settings = {"slice_users": "15", "changed_users": "8", "time_budget": "0s", "lock_timeout": "30s"}
    settings["sweep_users"] = "7" if seed % 2 == 0 else "0"
    settings["workers"] = "3" if seed % 3 == 0 else "1"
    with closing(cluster.connect("postgres")) as session:
        for name, value in settings.items():
            session.execute(f"ALTER DATABASE history SET audius_challenges.{name} = '{value}'")
        # A sequence copied with its database gives up to 32 numbers without logging them, and again after a crash,
        # unless a checkpoint came in between.
        session.execute("CHECKPOINT")
    set_fsync(cluster, "on")
    history = History(cluster, "history", seed, has_helpers=settings["workers"] != "1")
    try:
        tell_history(history)
        print(*history.journal, sep="\n")
        assert history.done["crash"] >= 2
        history.close()
        set_fsync(cluster, "off")
        assert_same_as_first_build(cluster)
        with closing(history.database.connect()) as session:
            assert_streaks_of_those_heard_in_order(session)
            assert_rules_of_streaks_in_any_order(session)
            assert_final_rows_were_written_once(session)
            assert_what_is_kept_of_days_and_runs_is_what_was_written(session)
    finally:
        history.close()
        cluster.drop_database("history")
        cluster.drop_database("from_nothing")


def set_fsync(cluster: Cluster, setting: str) -> None:
    """Whether commits reach the disk."""
    with closing(cluster.connect("postgres")) as session:
        session.execute(f"ALTER SYSTEM SET fsync = {setting}")
        session.execute("SELECT pg_reload_conf()")


def tell_history(history: History) -> None:
    """Let the seed decide what happens, with a crash in the first build and one in what follows."""
    steps: dict[Callable[[], None], int] = {
        history.write: 24,
        history.tick: 7,
        history.tick_while_writers_go_on: 4,
        history.burst: 2,
        history.reconcile: 2,
        history.change_catalog: 1,
    }
    if history.has_helpers:
        steps[history.help_beside_a_tick] = 7
    if history.has_sweep:
        steps[history.revert] = 2
    for number in range(STEPS):
        (step,) = history.random.choices(list(steps), weights=list(steps.values()))
        if number in (5, STEPS - 10):
            step = history.crash_in_a_tick
        step()
    history.come_to_rest()


# A row that fell back to 0 stays; a first build would not have opened it.
DERIVED = """
    SELECT challenge_id, specifier, user_id, is_complete, current_step_count, amount
    FROM user_challenges
    WHERE challenge_id <> 'e'
        AND current_step_count > 0
    ORDER BY challenge_id, specifier
"""
PROFILES = """
    SELECT *
    FROM challenge_profile_completion AS profile
    WHERE TRUE IN (
        profile_description, profile_name, profile_picture, profile_cover_photo, follows, favorites, reposts
    )
    ORDER BY user_id
"""


def assert_same_as_first_build(cluster: Cluster) -> None:
    """A copy that has forgotten everything derived makes the same of the same sources."""
    cluster.create_database("from_nothing", template="history")
    with closing(cluster.connect("from_nothing")) as copy, closing(cluster.connect("history")) as session:
        copy.execute(
            """
            TRUNCATE user_challenges, challenge_profile_completion, challenge_listen_streak,
                audius_challenges.processor_state, audius_challenges.look, audius_challenges.pause,
                audius_challenges.installation
            """
        )
        copy.execute("CALL audius_challenges.tick()")
        for query in (DERIVED, PROFILES):
            from_nothing = copy.execute(query).fetchall()
            assert len(from_nothing) > 0
            assert session.execute(query).fetchall() == from_nothing


def assert_streaks_of_those_heard_in_order(session: Connection) -> None:
    """Whose plays became visible in the order they were played: what the model makes of the plays that are there."""
    model = Model()
    columns = ", ".join(column.name for column in fields(Challenge))
    for row in session.execute(f"SELECT {columns} FROM challenges"):
        model.sources.challenges.put(Challenge(*row))
    for user in HEARD_IN_ORDER:
        model.sources.users.put(User(user_id=user, txhash="", is_current=True, blocknumber=100))
    plays = session.execute(
        "SELECT id, user_id, play_item_id, created_at FROM plays WHERE user_id = ANY(%s)", [list(HEARD_IN_ORDER)]
    ).fetchall()
    for row in plays:
        model.sources.plays.put(Play(*row))
    model.reconcile(datetime(2026, 11, 1, tzinfo=UTC), ("e",))

    states = {state.user_id: state for state in model.challenge_listen_streak.values()}
    expected_states = {(user, state.last_listen_date, state.listen_streak) for user, state in states.items()}
    found = session.execute(
        "SELECT user_id, last_listen_date, listen_streak FROM challenge_listen_streak WHERE user_id = ANY(%s)",
        [list(HEARD_IN_ORDER)],
    )
    assert set(found) == expected_states
    expected = {
        (row.specifier, row.user_id, row.is_complete, row.current_step_count, row.amount)
        for row in model.user_challenges.values()
    }
    found = session.execute(
        """
        SELECT specifier, user_id, is_complete, current_step_count, amount
        FROM user_challenges
        WHERE challenge_id = 'e'
            AND user_id = ANY(%s)
        """,
        [list(HEARD_IN_ORDER)],
    )
    assert set(found) == expected


def assert_rules_of_streaks_in_any_order(session: Connection) -> None:
    """Nothing newer than the state is left uncounted, and nothing counts twice: listens count 16 hours apart."""
    for user in HEARD_LATE:
        plays = session.execute(
            "SELECT created_at FROM plays WHERE user_id = %s ORDER BY created_at", [user]
        ).fetchall()
        counted_at_most = 0
        last: datetime | None = None
        for (at,) in plays:
            if last is None or at - last >= timedelta(hours=16):
                counted_at_most, last = counted_at_most + 1, at
        state = session.execute(
            "SELECT last_listen_date FROM challenge_listen_streak WHERE user_id = %s", [user]
        ).fetchall()
        assert len(state) == (1 if plays else 0)
        assert all(at < state[0][0] + timedelta(hours=16) for (at,) in plays)
        rows = session.execute(
            """
            SELECT current_step_count, created_at AT TIME ZONE 'UTC'
            FROM user_challenges
            WHERE challenge_id = 'e'
                AND user_id = %s
            """,
            [user],
        ).fetchall()
        assert sum(steps for steps, _ in rows) <= counted_at_most
        assert {opened for _, opened in rows} <= {at for (at,) in plays}


def assert_final_rows_were_written_once(session: Connection) -> None:
    """A complete row was completed once, and no run touched it again."""
    completions = session.execute(
        """
        SELECT challenge_id, specifier
        FROM user_challenges_log
        WHERE (new ->> 'is_complete')::boolean
        """
    ).fetchall()
    completed = session.execute("SELECT challenge_id, specifier FROM user_challenges WHERE is_complete").fetchall()
    assert sorted(completions) == sorted(completed)


def assert_what_is_kept_of_days_and_runs_is_what_was_written(session: Connection) -> None:
    """Whatever was cut off: the totals of each day, and the counts of the history, are those of the rows."""
    of_rows = session.execute(
        """
        SELECT completed_at::date, challenge_id::text, count(*), sum(amount)
        FROM user_challenges
        WHERE is_complete
        GROUP BY 1, 2
        ORDER BY 1, 2
        """
    ).fetchall()
    kept = session.execute(
        "SELECT day, challenge_id, completions, amount FROM audius_challenges.challenge_day ORDER BY day, challenge_id"
    ).fetchall()
    assert kept == of_rows
    of_history = session.execute(
        "SELECT challenge_id, sum(rows_inserted), sum(rows_updated), sum(rows_completed) FROM challenge_history"
        " WHERE rows_inserted + rows_updated > 0 GROUP BY 1 ORDER BY 1"
    ).fetchall()
    of_log = session.execute(
        """
        SELECT
            challenge_id::text,
            count(*) FILTER (WHERE operation = 'INSERT'),
            count(*) FILTER (WHERE operation = 'UPDATE'),
            count(*) FILTER (WHERE (new ->> 'is_complete')::boolean)
        FROM user_challenges_log
        GROUP BY 1
        ORDER BY 1
        """
    ).fetchall()
    assert of_history == of_log
