"""What breaks naive replication, or loses rewards by it: with shares it is refused by name, or does no harm.

Each is done to a primary and a node that replicate for real. What a tick of a node says while its guard refuses is in
`share_why_not()`.

`ANALYZE` of an empty `challenge_profile_completion`, the natural thing on a node, made the first build of p slow on any
server: the comment at the look-up in profile_completion.py tells why it does no more.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from devtools.cluster import Cluster, ClusterError
from devtools.discovery import CREATE_EXTENSION, Discovery, create_discovery, require_extension
from devtools.shares import DATABASE, SETTINGS, Node, Shares, conninfo, gexec
from tests.sessions import Beside, Connection, column, failed, rows, tick, until, value

ONE = "0/1"
SUBSCRIPTION = "audius_challenges_share_0_of_1"
RETURNING = "audius_challenges_return_0_of_1"

PEOPLE = """
    SELECT count(*) FROM sync_challenge_catalog('stage');
    SELECT count(build.person(n)) FROM generate_series(1, 8) AS n;
"""


@pytest.fixture
def hub(root: Path | None) -> Iterator[Discovery]:
    """A primary to be, with eight people and nothing to reward them for. Challenges count from block 0 on."""
    with Cluster(root=root, cron_database="postgres", settings={**SETTINGS, "autovacuum": "off"}) as cluster:
        require_extension(cluster)
        database = create_discovery(cluster, "discovery")
        database.psql(CREATE_EXTENSION, PEOPLE)
        yield database


@pytest.fixture
def pair(hub: Discovery) -> Iterator[Shares]:
    """The same with one node, at work."""
    with Shares(hub) as shares:
        shares.set_up(1)
        shares.settle()
        yield shares


@pytest.fixture
def alone(hub: Discovery) -> Iterator[Shares]:
    """The primary, with one share published, and a node with its tables that has not joined."""
    with Shares(hub) as shares:
        shares.publish(1)
        shares.nodes.append(shares.new_node(ONE))
        yield shares


def ask(database: Discovery, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    """All rows of a query, in a session of its own."""
    with closing(database.connect()) as session:
        return rows(session, query, *parameters)


def do(database: Discovery, *statements: str) -> None:
    """Executes statements, in a session of its own."""
    with closing(database.connect()) as session:
        for statement in statements:
            session.execute(statement)


def node_of(shares: Shares) -> Node:
    """The only node."""
    (node,) = shares.nodes
    return node


def paid(database: Discovery, challenge: str) -> list[tuple[Any, ...]]:
    """A challenge's rows: user, steps, whether complete."""
    query = """
        SELECT user_id, current_step_count, is_complete
        FROM user_challenges
        WHERE challenge_id = %s
        ORDER BY user_id, specifier
    """
    return ask(database, query, challenge)


def told(database: Discovery) -> int:
    """How many times the application has told a user."""
    ((number,),) = ask(database, "SELECT count(*) FROM notification")
    return int(number)


def listen(database: Discovery, user: int, days: int, first: str = "2025-03-01 12:00") -> None:
    """A user listens so many days, once a day."""
    do(
        database,
        f"SELECT build.play({user}, 999, '{first}'::timestamp + day * INTERVAL '1 day')"
        f" FROM generate_series(0, {days - 1}) AS day",
    )


def stop_following(database: Discovery, subscription: str) -> None:
    """A subscription receives nothing any more, until `follow_again`."""
    do(database, f"ALTER SUBSCRIPTION {subscription} DISABLE")
    following = "SELECT pid FROM pg_stat_subscription WHERE subname = %s AND pid IS NOT NULL"
    until(lambda: not ask(database, following, subscription), f"the end of {subscription}'s worker")


def follow_again(database: Discovery, subscription: str) -> None:
    """It receives what it has missed, and goes on."""
    do(database, f"ALTER SUBSCRIPTION {subscription} ENABLE")


def drop_slot(database: Discovery, slot: str) -> None:
    """Drops a slot that nobody uses any more, as soon as its walsender has noticed."""
    unused = "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND NOT active"
    until(lambda: bool(ask(database, unused, slot)), f"{slot} unused")
    do(database, f"SELECT pg_drop_replication_slot('{slot}')")


def numbers_sent(node: Node) -> int:
    """How many batches a node has sent."""
    ((number,),) = ask(node.database, "SELECT number FROM audius_challenges.share_sent")
    return int(number)


def does_nothing(node: Node) -> None:
    """Asserts that a tick of a node derives nothing, and says why."""
    (why, *_) = node.why_not()
    before = ask(node.database, "SELECT * FROM user_challenges ORDER BY challenge_id, specifier")
    with closing(node.connect()) as session:
        (heard,) = tick(session)
    assert why in heard.message
    assert ask(node.database, "SELECT * FROM user_challenges ORDER BY challenge_id, specifier") == before
    shown = "SELECT DISTINCT status FROM challenge_status WHERE challenge_id IN ('u', 'fp', 'p', 'v', 'e')"
    assert ask(node.database, shown) == [("stopped",)]


# 1. The application's trigger


@pytest.mark.parametrize("enabled", ["ENABLE TRIGGER on_user_challenge", "ENABLE ALWAYS TRIGGER on_user_challenge"])
def test_the_applications_trigger_on_a_node_is_refused_as_users_would_be_told_twice(pair: Shares, enabled: str) -> None:
    node = node_of(pair)
    do(
        node.database,
        "CREATE FUNCTION handle_user_challenge() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER on_user_challenge AFTER INSERT OR UPDATE ON user_challenges"
        " FOR EACH ROW EXECUTE FUNCTION handle_user_challenge()",
        f"ALTER TABLE user_challenges {enabled}",
    )
    do(pair.hub, "SELECT build.playlist(1, 1)")
    pair.catch_up()
    assert node.why_not() == [
        "there is another trigger on user_challenges, on_user_challenge, which fires on the primary as well"
    ]
    does_nothing(node)
    do(node.database, "DROP TRIGGER on_user_challenge ON user_challenges")
    pair.settle()
    assert paid(pair.hub, "fp") == [(1, 1, True)]


def test_the_applications_trigger_on_the_primary_fires_with_its_search_path_and_once(pair: Shares) -> None:
    do(pair.hub, "SELECT build.playlist(1, 1)", "SELECT build.playlist(2, 1)")
    pair.settle()
    pair.settle()
    assert paid(pair.hub, "fp") == [(1, 1, True)]
    assert told(pair.hub) == 1


# 2. Rows straight into user_challenges


def test_a_row_that_the_primary_has_already_stops_nothing(pair: Shares) -> None:
    do(
        pair.hub,
        "INSERT INTO user_challenges (challenge_id, user_id, specifier, is_complete, current_step_count, amount)"
        " VALUES ('u', 1, '1', FALSE, 1, 1)",
        "SELECT build.qualify_u(9)",
        "SELECT build.track(n, 1) FROM generate_series(1, 2) AS n",
    )
    pair.settle()
    assert paid(pair.hub, "u") == [(1, 2, False), (9, 3, True)]
    do(pair.hub, "SELECT build.track(3, 1)")
    pair.settle()
    assert paid(pair.hub, "u") == [(1, 3, True), (9, 3, True)]
    assert told(pair.hub) == 2


def test_a_change_of_a_row_that_the_primary_has_not_arrives(pair: Shares) -> None:
    do(pair.hub, "SELECT build.track(n, 1) FROM generate_series(1, 2) AS n")
    pair.settle()
    do(pair.hub, "DELETE FROM user_challenges WHERE challenge_id = 'u'", "SELECT build.track(3, 1)")
    pair.settle()
    assert paid(pair.hub, "u") == [(1, 3, True)]
    assert told(pair.hub) == 1


def test_a_complete_row_of_the_primary_is_never_overwritten(pair: Shares) -> None:
    do(pair.hub, "SELECT build.track(1, 1)")
    pair.settle()
    do(
        pair.hub,
        "UPDATE user_challenges SET is_complete = TRUE, current_step_count = 3, completed_blocknumber = 77,"
        " completed_at = '2025-03-01' WHERE challenge_id = 'u'",
    )
    row = "SELECT ctid, each::text FROM user_challenges AS each"
    before = ask(pair.hub, row)
    do(pair.hub, "SELECT build.track(2, 1)")
    pair.settle()
    assert paid(node_of(pair).database, "u") == [(1, 2, False)]
    assert ask(pair.hub, row) == before


def test_what_comes_home_does_not_go_out_again(pair: Shares) -> None:
    node = node_of(pair)
    do(pair.hub, "SELECT build.qualify_u(9)")
    pair.settle()
    before = ask(node.database, "SELECT ctid, xmin, each::text FROM user_challenges AS each")
    sent, ticks = numbers_sent(node), 3
    for _ in range(ticks):
        pair.tick()
    assert ask(node.database, "SELECT ctid, xmin, each::text FROM user_challenges AS each") == before
    assert numbers_sent(node) == sent + ticks  # a beat each
    assert ask(node.database, "SELECT count(*) FROM audius_challenges.share_batch") == [(0,)]


def test_rows_of_a_challenge_that_the_catalog_lacks_wait(pair: Shares) -> None:
    do(pair.hub, "SELECT build.playlist(1, 1)")
    pair.catch_up()
    node_of(pair).tick()
    do(
        pair.hub,
        "CREATE TABLE kept AS SELECT * FROM challenges WHERE id = 'fp'",
        "DELETE FROM challenges WHERE id = 'fp'",
    )
    pair.tick()
    assert paid(pair.hub, "fp") == []
    assert not pair.is_settled()
    do(pair.hub, "INSERT INTO challenges TABLE kept")
    pair.settle()
    assert paid(pair.hub, "fp") == [(1, 1, True)]
    assert told(pair.hub) == 1


# 3. Plays that are cleared and indexed again


def test_plays_indexed_again_with_the_same_ids_change_nothing(pair: Shares) -> None:
    listen(pair.hub, 1, 4)
    pair.settle()
    before = ask(pair.hub, "SELECT * FROM user_challenges")
    assert paid(pair.hub, "e") == [(1, 4, False)]
    do(
        pair.hub,
        "CREATE TABLE kept AS TABLE plays",
        "TRUNCATE plays",
        "INSERT INTO plays TABLE kept",
    )
    pair.settle()
    assert ask(pair.hub, "SELECT * FROM user_challenges") == before
    listen(pair.hub, 1, 1, first="2025-03-05 12:00")
    pair.settle()
    assert paid(pair.hub, "e") == [(1, 5, False)]
    assert ask(node_of(pair).database, "SELECT count(*) FROM plays") == [(9,)]


# 4. A filter that the replica identity does not cover


def test_the_application_changes_and_deletes_rows_of_every_table_that_is_published(pair: Shares) -> None:
    do(
        pair.hub,
        "SELECT build.track(1, 1)",
        "SELECT build.playlist(1, 1)",
        "SELECT build.follow(1, 2)",
        "SELECT build.save(1, 1)",
        "SELECT build.repost(1, 1)",
        "SELECT build.play(1, 1, '2025-03-01')",
        "SELECT build.block(5)",
    )
    pair.settle()
    tables = column_of(pair.hub, "SELECT DISTINCT tablename FROM pg_publication_tables WHERE schemaname = 'public'")
    assert len(tables) == 12
    for table in tables:
        (name,) = column_of(
            pair.hub,
            "SELECT min(attname) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND attgenerated = ''",
            table,
        )
        do(pair.hub, f"BEGIN; UPDATE {table} SET {name} = {name}; DELETE FROM {table} CASCADE; ROLLBACK")


def column_of(database: Discovery, query: str, *parameters: object) -> list[Any]:
    """The only column of a query, in a session of its own."""
    with closing(database.connect()) as session:
        return column(session, query, *parameters)


def test_a_filter_that_would_stop_the_application_is_refused(hub: Discovery) -> None:
    do(hub, "ALTER TABLE follows DROP CONSTRAINT follows_pkey")
    with pytest.raises(ClusterError, match="follows has no replica identity: once it is published, the application"):
        gexec(hub, "audius_challenges.share_publications(1)")


# 5. Slots that are lost


def test_a_slot_made_again_by_hand_is_seen_by_the_beat_it_lacks(pair: Shares) -> None:
    node = node_of(pair)
    stop_following(node.database, SUBSCRIPTION)
    drop_slot(pair.hub, SUBSCRIPTION)
    do(pair.hub, "SELECT build.qualify_u(9)", "CALL audius_challenges.tick()")
    do(pair.hub, f"SELECT pg_create_logical_replication_slot('{SUBSCRIPTION}', 'pgoutput')")
    follow_again(node.database, SUBSCRIPTION)
    do(pair.hub, "SELECT build.playlist(1, 1)", "CALL audius_challenges.tick()")
    pair.catch_up()
    assert node.why_not() == ["beats of the primary are missing: 1, so changes were lost"]
    does_nothing(node)
    # Copied anew it is whole.
    start_anew(pair)
    assert paid(pair.hub, "u") == [(9, 3, True)]
    assert paid(pair.hub, "fp") == [(1, 1, True)]
    assert told(pair.hub) == 2


def start_anew(shares: Shares) -> None:
    """A new node takes the place of the one there is, which is thrown away."""
    do(shares.hub, f"ALTER SUBSCRIPTION {RETURNING} DISABLE", f"ALTER SUBSCRIPTION {RETURNING} SET (slot_name = NONE)")
    do(shares.hub, f"DROP SUBSCRIPTION {RETURNING}")
    node_of(shares).cluster.close()
    shares.nodes.clear()
    left = "SELECT slot_name FROM pg_replication_slots WHERE slot_name ~ '^audius_challenges_'"
    for slot in column_of(shares.hub, left):
        drop_slot(shares.hub, slot)
    shares.join(ONE)
    shares.plan(1)
    for node in shares.nodes:
        shares.adopt(node)
    shares.settle()


def test_a_node_that_is_away_too_long_loses_its_slot_and_nothing_else_is_lost(hub: Discovery) -> None:
    do(hub, "ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'", "SELECT pg_reload_conf()")
    with Shares(hub) as shares:
        shares.set_up(1)
        node = node_of(shares)
        do(hub, "SELECT build.qualify_u(9)")
        shares.settle()
        node.cluster.stop()
        lost = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = %s"
        fill = "SELECT count(pg_logical_emit_message(FALSE, '', repeat('x', 1000000))) FROM generate_series(1, 16)"

        def is_lost() -> bool:
            do(hub, fill, "SELECT pg_switch_wal()", "CHECKPOINT")
            return ask(hub, lost, SUBSCRIPTION) == [("lost",)]

        do(hub, "SELECT build.playlist(1, 1)")
        until(is_lost, "a slot that is lost")
        node.cluster.start()
        # What it has is an earlier moment of the primary: late, not wrong.
        do(hub, "SELECT build.qualify_u(10)", "CALL audius_challenges.tick()")
        node.tick()
        do(hub, "CALL audius_challenges.tick()")
        assert paid(hub, "u") == [(9, 3, True)]
        start_anew(shares)
        assert paid(hub, "u") == [(9, 3, True), (10, 3, True)]
        assert paid(hub, "fp") == [(1, 1, True)]
        assert told(hub) == 3


# 6. Two subscriptions


def test_plays_that_come_ahead_of_their_users_by_a_second_subscription_are_not_passed_over(pair: Shares) -> None:
    node = node_of(pair)
    do(pair.hub, "CREATE PUBLICATION ahead FOR TABLE plays WITH (publish = 'insert')")
    node.database.psql(
        f"CREATE SUBSCRIPTION ahead CONNECTION '{conninfo(pair.hub)}' PUBLICATION ahead WITH (copy_data = false)"
    )
    stop_following(node.database, SUBSCRIPTION)
    do(pair.hub, "SELECT build.qualify_e(9)")
    until(lambda: ask(node.database, "SELECT count(*) FROM plays") == [(7,)], "the plays")
    assert (
        "2 subscriptions feed the tables, it must be one: ahead, audius_challenges_share_0_of_1" in node.why_not()
    )
    does_nothing(node)
    follow_again(node.database, SUBSCRIPTION)
    node.database.psql("DROP SUBSCRIPTION ahead")
    pair.settle()
    assert paid(pair.hub, "e") == [(9, 7, True)]
    assert told(pair.hub) == 1


# 7. Tables before the extension


def test_a_node_whose_tables_were_there_before_the_extension_is_refused_until_it_is_empty(hub: Discovery) -> None:
    with Shares(hub) as shares:
        shares.publish(1)
        node = shares.new_node(ONE)
        # As if the tables had come first: the extension takes it for a server of its own.
        node.database.psql(
            "DROP EXTENSION audius_challenges", CREATE_EXTENSION, "SELECT count(*) FROM challenges"
        )
        assert ask(node.database, "SELECT count(*) > 0 FROM challenges") == [(True,)]
        with pytest.raises(ClusterError, match=r"there are rows in public\.challenges: a copy over them would fail"):
            gexec(node.database, f"audius_challenges.join_share('{ONE}', '{conninfo(hub)}')")
        node.database.psql("TRUNCATE public.challenges")
        join(shares, node)
        do(hub, "SELECT build.qualify_u(9)")
        shares.settle()
        assert paid(hub, "u") == [(9, 3, True)]


def test_an_extension_that_is_created_where_the_share_is_set_fills_and_schedules_nothing(hub: Discovery) -> None:
    with Shares(hub) as shares:
        shares.publish(1)
        node = shares.new_node(ONE)
        node.database.psql(
            f"ALTER DATABASE {DATABASE} SET audius_challenges.share = '{ONE}'",
            "DROP EXTENSION audius_challenges",
            CREATE_EXTENSION,
        )
        assert ask(node.database, "SELECT count(*) FROM challenges") == [(0,)]
        join(shares, node)
        do(hub, "SELECT build.qualify_u(9)")
        shares.settle()
        assert paid(hub, "u") == [(9, 3, True)]


def join(shares: Shares, node: Node) -> None:
    """A node that has its tables joins, the plan is made, and it adopts."""
    gexec(node.database, f"audius_challenges.join_share('{ONE}', '{conninfo(shares.hub)}')")
    gexec(shares.hub, f"audius_challenges.receive_share('{ONE}', '{conninfo(node.database)}')")
    shares.nodes.append(node)
    shares.plan(1)
    shares.adopt(node)


# 8. A copy over rows


def test_a_copy_over_rows_that_are_there_is_refused_and_where_it_is_forced_nothing_is_done(alone: Shares) -> None:
    node = node_of(alone)
    alone.nodes.clear()
    node.database.psql("INSERT INTO users (user_id, is_current, txhash) VALUES (1, TRUE, '')")
    with pytest.raises(ClusterError, match=r"there are rows in public\.users: a copy over them would fail"):
        gexec(node.database, f"audius_challenges.join_share('{ONE}', '{conninfo(alone.hub)}')")
    node.database.psql("TRUNCATE users")
    joining = column_of(node.database, f"SELECT audius_challenges.join_share('{ONE}', '{conninfo(alone.hub)}')")
    node.database.psql("INSERT INTO users (user_id, is_current, txhash) VALUES (1, TRUE, '')")
    node.database.psql(*joining)
    gexec(alone.hub, f"audius_challenges.receive_share('{ONE}', '{conninfo(node.database)}')")
    alone.nodes.append(node)
    alone.plan(1)
    until(lambda: 'COPY users, line 1' in node.cluster.log(), "the copy that fails")
    assert any(text.startswith("table users is still being copied") for text in node.why_not())
    does_nothing(node)
    node.database.psql("TRUNCATE users")
    alone.adopt(node)
    do(alone.hub, "SELECT build.qualify_u(9)")
    alone.settle()
    assert paid(alone.hub, "u") == [(9, 3, True)]


def test_ticks_in_the_middle_of_a_copy_do_nothing_and_nobody_is_passed_over(alone: Shares) -> None:
    """Plays are there before their users: to a tick, these listeners would be nobody."""
    node = node_of(alone)
    alone.nodes.clear()
    do(alone.hub, "SELECT build.qualify_e(9)")
    with closing(alone.hub.connect(autocommit=False)) as holder:
        holder.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        gexec(node.database, f"audius_challenges.join_share('{ONE}', '{conninfo(alone.hub)}')")
        gexec(alone.hub, f"audius_challenges.receive_share('{ONE}', '{conninfo(node.database)}')")
        until(lambda: ask(node.database, "SELECT count(*) FROM plays") == [(7,)], "the plays")
        assert any(text.startswith("table users is still being copied") for text in node.why_not())
        does_nothing(node)
        holder.rollback()
    alone.nodes.append(node)
    alone.plan(1)
    alone.adopt(node)
    alone.settle()
    assert paid(alone.hub, "e") == [(9, 7, True)]
    assert told(alone.hub) == 1


# 9. TRUNCATE challenges CASCADE


def test_emptying_the_catalog_of_a_node_empties_nothing_else(pair: Shares) -> None:
    node = node_of(pair)
    do(pair.hub, "SELECT build.qualify_u(9)")
    pair.settle()
    do(node.database, "CREATE TABLE kept AS TABLE challenges", "TRUNCATE challenges CASCADE")
    assert paid(node.database, "u") == [(9, 3, True)]
    do(pair.hub, "SELECT build.playlist(1, 1)")
    pair.tick()
    assert paid(pair.hub, "fp") == []
    do(node.database, "INSERT INTO challenges TABLE kept")
    pair.settle()
    assert paid(pair.hub, "fp") == [(1, 1, True)]


def test_foreign_keys_on_a_node_are_refused(alone: Shares) -> None:
    node = node_of(alone)
    alone.nodes.clear()
    node.database.psql("ALTER TABLE user_challenges ADD CONSTRAINT fk FOREIGN KEY (challenge_id) REFERENCES challenges")
    with pytest.raises(ClusterError, match="there are foreign keys on the tables of this node") as error:
        gexec(node.database, f"audius_challenges.join_share('{ONE}', '{conninfo(alone.hub)}')")
    assert "DROP CONSTRAINT fk;" in str(error.value)


# 10. The block number of what completes


def test_a_node_that_lags_completes_rows_at_the_block_of_the_primary(pair: Shares) -> None:
    do(pair.hub, "SELECT build.qualify_u(9)")
    pair.catch_up()
    node_of(pair).tick()
    do(pair.hub, "SELECT count(build.block(n)) FROM generate_series(5000, 5100) AS n")
    stop_following(node_of(pair).database, SUBSCRIPTION)
    until(lambda: bool(ask(pair.hub, "SELECT FROM audius_challenges.share_batch WHERE challenge_id = 'u'")), "a batch")
    do(pair.hub, "CALL audius_challenges.tick()")
    assert paid(pair.hub, "u") == [(9, 3, True)]
    assert ask(pair.hub, "SELECT completed_blocknumber FROM user_challenges") == [(5100,)]


# 11. What was sent, and did not arrive


def test_a_node_with_no_slot_for_its_way_back_derives_nothing(pair: Shares) -> None:
    node = node_of(pair)
    stop_following(pair.hub, RETURNING)
    drop_slot(node.database, RETURNING)
    do(pair.hub, "SELECT build.playlist(1, 1)")
    until(lambda: ask(node.database, "SELECT count(*) FROM playlists") == [(1,)], "the playlist")
    assert node.why_not() == [f"the return path has no slot ({RETURNING}): the primary is not subscribed to this node"]
    does_nothing(node)
    assert paid(node.database, "fp") == []


def test_batches_that_were_lost_with_their_slot_are_named_and_sent_again(pair: Shares) -> None:
    node = node_of(pair)
    do(pair.hub, "SELECT build.qualify_u(9)")
    pair.settle()
    stop_following(pair.hub, RETURNING)
    do(pair.hub, "SELECT build.playlist(1, 1)")
    until(lambda: ask(node.database, "SELECT count(*) FROM playlists") == [(1,)], "the playlist")
    first = numbers_sent(node) + 1
    node.tick()
    last = numbers_sent(node)
    drop_slot(node.database, RETURNING)
    do(node.database, f"SELECT pg_create_logical_replication_slot('{RETURNING}', 'pgoutput')")
    follow_again(pair.hub, RETURNING)
    do(pair.hub, "SELECT build.playlist(2, 2)", "SELECT build.qualify_u(10)")
    pair.catch_up()
    node.tick()
    pair.catch_up()
    with closing(pair.hub.connect()) as session:
        with pytest.raises(psycopg.Error) as error:
            tick(session)
        problem = f"batches {first} to {last} of share {ONE} are missing"
        assert problem in f"{error.value.diag.message_primary} {error.value.diag.message_detail}"
        assert "audius_challenges.resend()" in str(error.value)
        assert value(session, "SELECT problem FROM audius_challenges.share_node") == problem
    assert paid(pair.hub, "fp") == []
    assert paid(pair.hub, "u") == [(9, 3, True)]
    ((sent,),) = ask(node.database, "SELECT audius_challenges.resend()")
    assert sent >= 4
    pair.settle()
    assert paid(pair.hub, "fp") == [(1, 1, True), (2, 1, True)]
    assert paid(pair.hub, "u") == [(9, 3, True), (10, 3, True)]
    assert told(pair.hub) == 4


def test_everything_sent_again_changes_nothing_that_was_there(pair: Shares) -> None:
    listen(pair.hub, 1, 9)
    do(pair.hub, "SELECT build.qualify_u(9)", "SELECT build.follow(2, 3)")
    pair.settle()
    everything = """
        SELECT 'user_challenges', ctid, xmin, each::text FROM user_challenges AS each
        UNION ALL SELECT 'streaks', ctid, xmin, each::text FROM challenge_listen_streak AS each
        UNION ALL SELECT 'profiles', ctid, xmin, each::text FROM challenge_profile_completion AS each
        ORDER BY 1, 2
    """
    before = ask(pair.hub, everything)
    assert len(before) >= 6
    do(node_of(pair).database, "SELECT audius_challenges.resend()")
    pair.settle()
    assert ask(pair.hub, everything) == before
    assert told(pair.hub) == 4


# 12. One open transaction


def test_an_open_transaction_holds_up_the_copy_and_then_it_goes_on(alone: Shares) -> None:
    node = node_of(alone)
    alone.nodes.clear()
    do(alone.hub, "SELECT build.qualify_e(9)")
    errors: list[BaseException] = []

    def join_in_the_meantime() -> None:
        try:
            gexec(node.database, f"audius_challenges.join_share('{ONE}', '{conninfo(alone.hub)}')")
        except BaseException as error:  # noqa: BLE001 (told below)
            errors.append(error)

    with closing(alone.hub.connect(autocommit=False)) as writer:
        writer.execute("SELECT build.playlist(1, 1)")
        joining = threading.Thread(target=join_in_the_meantime)
        joining.start()
        waiting = "SELECT FROM pg_stat_activity WHERE backend_type = 'walsender' AND wait_event_type = 'Lock'"
        until(lambda: bool(ask(alone.hub, waiting)), "the slot that waits")
        assert node.why_not() == ["the tables are not fed by any subscription", "no plan of shares has arrived"]
        does_nothing(node)
        writer.commit()
    joining.join(60)
    assert errors == []
    gexec(alone.hub, f"audius_challenges.receive_share('{ONE}', '{conninfo(node.database)}')")
    alone.nodes.append(node)
    alone.plan(1)
    alone.adopt(node)
    alone.settle()
    assert paid(alone.hub, "e") == [(9, 7, True)]
    assert paid(alone.hub, "fp") == [(1, 1, True)]


def test_low_numbers_that_commit_late_are_found_on_a_node_without_the_sweep(pair: Shares) -> None:
    """Block numbers and ids of plays are drawn long before a transaction commits, and a node has its rows then only."""
    node = node_of(pair)
    do(node.database, f"ALTER DATABASE {DATABASE} SET audius_challenges.sweep_users = 0")
    with closing(pair.hub.connect(autocommit=False)) as late:
        late.execute("SELECT build.playlist(1, 1, blocknumber => 201)")
        late.execute("SELECT build.track(n, 2, blocknumber => 201) FROM generate_series(1, 3) AS n")
        late.execute("SELECT build.play(3, 999, '2025-03-01')")
        late.execute("UPDATE users SET is_verified = TRUE, blocknumber = 201 WHERE user_id = 4")
        do(
            pair.hub,
            "SELECT count(build.playlist(n, n + 1000, blocknumber => n)) FROM generate_series(202, 3200) AS n",
            "SELECT count(build.track(n, n + 1000, blocknumber => n)) FROM generate_series(202, 3200) AS n",
            "SELECT count(build.play(n + 1000, 999, '2025-03-01')) FROM generate_series(1, 3000) AS n",
            "SELECT count(build.person(n + 1000, blocknumber => n)) FROM generate_series(202, 3200) AS n",
        )
        pair.settle()
        pair.tick()
        late.commit()
    pair.settle()
    pair.tick()
    few = "SELECT challenge_id::text, user_id FROM user_challenges WHERE user_id <= 8 ORDER BY 2, 1"
    assert ask(pair.hub, few) == [("fp", 1), ("u", 2), ("e", 3), ("v", 4)]


# 13. Foreign tables


def test_a_foreign_table_as_a_source_is_refused(hub: Discovery) -> None:
    do(
        hub,
        "CREATE EXTENSION postgres_fdw",
        "CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw",
        "ALTER TABLE saves RENAME TO own_saves",
        "IMPORT FOREIGN SCHEMA public LIMIT TO (nothing) FROM SERVER elsewhere INTO public"
        if False
        else """
        DO $$
        BEGIN
            EXECUTE (
                SELECT format(
                    'CREATE FOREIGN TABLE saves (%s) SERVER elsewhere',
                    string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)
                )
                FROM pg_attribute
                WHERE attrelid = 'own_saves'::regclass AND attnum > 0 AND NOT attisdropped
            );
        END
        $$
        """,
    )
    for function in ("share_publications(1)", "share_tables()"):
        with pytest.raises(ClusterError, match="saves"):
            gexec(hub, f"audius_challenges.{function}")


# Beyond those


def test_a_row_put_into_the_inbox_by_hand_with_the_next_number_stops_nothing(pair: Shares) -> None:
    do(pair.hub, "CALL audius_challenges.tick()")
    ((following,),) = ask(
        pair.hub,
        "SELECT last_value + 1 FROM audius_challenges.share_batch_id_seq",
    )
    do(
        pair.hub,
        "INSERT INTO audius_challenges.share_batch (id, epoch, share, number, relation)"
        f" VALUES ({following}, 99, '0/9', 1, 'beat')",
        "SELECT build.playlist(1, 1)",
    )
    pair.settle()
    assert paid(pair.hub, "fp") == [(1, 1, True)]


def test_what_a_constraint_on_the_inbox_refuses_arrives_when_it_is_gone(pair: Shares) -> None:
    node = node_of(pair)
    do(
        pair.hub,
        "ALTER TABLE audius_challenges.share_batch ADD CONSTRAINT in_the_way CHECK (challenge_id <> 'fp') NOT VALID",
        "SELECT build.playlist(1, 1)",
        "SELECT build.qualify_u(9)",
    )
    until(lambda: ask(node.database, "SELECT count(*) FROM playlists") == [(1,)], "the playlist")
    node.tick()
    until(lambda: 'violates check constraint "in_the_way"' in pair.hub.cluster.log(), "an error of apply")
    do(pair.hub, "CALL audius_challenges.tick()")
    assert paid(pair.hub, "fp") == []
    do(pair.hub, "ALTER TABLE audius_challenges.share_batch DROP CONSTRAINT in_the_way")
    pair.settle()
    assert paid(pair.hub, "fp") == [(1, 1, True)]
    assert paid(pair.hub, "u") == [(9, 3, True)]
    assert told(pair.hub) == 2


def test_a_user_whose_row_the_primary_refuses_is_set_aside_alone_and_tried_again(pair: Shares) -> None:
    do(
        pair.hub,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN RAISE 'not this one'; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON user_challenges FOR EACH ROW WHEN (new.user_id = 9)"
        " EXECUTE FUNCTION refuse()",
        "SELECT build.qualify_u(9)",
        "SELECT build.qualify_u(10)",
    )
    pair.settle()
    assert paid(pair.hub, "u") == [(10, 3, True)]
    assert ask(pair.hub, "SELECT challenge_id, examined_id FROM audius_challenges.set_aside") == [("u", 9)]
    do(
        pair.hub,
        "DROP TRIGGER refuse ON user_challenges",
        "UPDATE audius_challenges.set_aside SET tried_at = tried_at - INTERVAL '11 minutes'",
        "CALL audius_challenges.tick()",
    )
    assert paid(pair.hub, "u") == [(9, 3, True), (10, 3, True)]
    assert ask(pair.hub, "SELECT challenge_id, examined_id FROM audius_challenges.set_aside") == []
    assert told(pair.hub) == 2


@pytest.mark.parametrize("streaming", ["on", "parallel"])
def test_a_transaction_that_is_sent_while_it_is_open_counts_when_it_commits(hub: Discovery, streaming: str) -> None:
    """With savepoints, one of them undone. Before 16 there is no parallel: it stays off there."""
    do(hub, "ALTER SYSTEM SET logical_decoding_work_mem = '64kB'", "SELECT pg_reload_conf()")
    with Shares(hub) as shares:
        shares.set_up(1)
        node = node_of(shares)
        kind = streaming if streaming == "on" or hub.cluster.major >= 16 else "off"
        do(node.database, f"ALTER SUBSCRIPTION {SUBSCRIPTION} SET (streaming = {kind})")
        with closing(hub.connect(autocommit=False)) as writer:
            for name, first in (("kept", 1000), ("undone", 3000), ("last", 5000)):
                writer.execute(f"SAVEPOINT {name}")
                writer.execute(
                    "SELECT count(build.qualify_fp(n)) FROM generate_series(%s::integer, %s) AS n", [first, first + 799]
                )
                if name == "undone":
                    writer.execute("ROLLBACK TO SAVEPOINT undone")
            shares.settle()
            shares.tick()
            assert paid(hub, "fp") == []
            writer.commit()
        shares.settle()
        expected = [(user, 1, True) for user in (*range(1000, 1800), *range(5000, 5800))]
        assert paid(hub, "fp") == expected
        assert told(hub) == len(expected)


def test_a_plan_that_changes_while_much_waits_loses_no_reward(hub: Discovery) -> None:
    """A streak's state and its rows are written together, however many wait: whoever goes on from it finds both."""
    people = 30_000
    do(
        hub,
        f"SELECT count(build.person(n)) FROM generate_series(1001, {1000 + people}) AS n",
        f"SELECT count(build.play(n, 999, '2025-03-01')) FROM generate_series(1001, {1000 + people}) AS n",
    )
    with Shares(hub) as shares:
        shares.set_up(1)
        node = node_of(shares)
        until(lambda: not beats_behind(node), "the node's first build")
        shares.catch_up()
        do(
            hub,
            "ALTER DATABASE discovery SET audius_challenges.time_budget = '0s'",
            "ALTER DATABASE discovery SET audius_challenges.max_completions = 0",
        )
        do(hub, "CALL audius_challenges.tick()")
        states = "SELECT count(*) FROM challenge_listen_streak"
        opened = "SELECT count(*) FROM user_challenges WHERE challenge_id = 'e'"
        ((written,),) = ask(hub, states)
        assert 0 < written < people
        assert ask(hub, opened) == [(written,)]
        shares.take_down()
        do(hub, "ALTER DATABASE discovery RESET audius_challenges.time_budget")
        until(lambda: (do(hub, "CALL audius_challenges.tick()"), ask(hub, states))[1] == [(people,)], "the primary's")
        assert ask(hub, opened) == [(people,)]


def beats_behind(node: Node) -> list[Any]:
    """The challenges whose users a node has not examined all, after one more tick."""
    node.tick()
    return ask(
        node.database,
        "SELECT FROM audius_challenges.processor_state WHERE challenge_id = 'e' AND phase <> 'watching'",
    )


# Roles with the least rights


def test_roles_that_may_only_run_tick_on_the_primary_and_on_a_node(pair: Shares) -> None:
    node = node_of(pair)
    for database in (pair.hub, node.database):
        do(database, "CREATE ROLE runner LOGIN", "SELECT audius_challenges.grant_run('runner')")
    do(pair.hub, "SELECT build.qualify_u(9)", "SELECT build.qualify_fp(10)", "SELECT build.qualify_p(11)")
    listen(pair.hub, 1, 7)
    for _ in range(3):
        pair.catch_up()
        with closing(node.database.connect("runner")) as session:
            assert tick(session) == []
        pair.catch_up()
        with closing(pair.hub.connect("runner")) as session:
            assert tick(session) == []
    assert paid(pair.hub, "u") == [(9, 3, True)]
    assert paid(pair.hub, "fp") == [(10, 1, True)]
    assert paid(pair.hub, "e") == [(1, 7, True)]
    assert (11, 7, True) in paid(pair.hub, "p")
    with closing(node.database.connect("runner")) as session:
        assert column(session, "SELECT audius_challenges.share_why_not()") == []
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("SELECT audius_challenges.resend()")
    with closing(pair.hub.connect("runner")) as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("SELECT audius_challenges.plan_shares(2)")


# A dump of a node


def test_a_node_that_is_dumped_and_restored_is_no_node_and_sends_nothing(pair: Shares) -> None:
    node = node_of(pair)
    do(pair.hub, "SELECT build.qualify_u(9)")
    pair.settle()
    script = node.cluster.run("pg_dump", "--no-subscriptions", "--no-publications", DATABASE).stdout
    node.cluster.create_database("restored")
    node.cluster.run("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname=restored", input=script)
    restored = Discovery(node.cluster, "restored")
    assert paid(restored, "u") == [(9, 3, True)]
    assert ask(restored, "SELECT count(*) FROM audius_challenges.share_sent") == [(0,)]
    assert ask(restored, "SELECT count(*) FROM audius_challenges.share_plan") == [(0,)]
