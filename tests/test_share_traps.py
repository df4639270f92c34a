"""What breaks naive replication, or loses rewards by it: with shares it is refused by name, or does no harm.

Each is done to a primary and a node that replicate for real. What a tick of a node says while its guard refuses is in
`share_why_not()`.

`ANALYZE` of an empty `challenge_profile_completion`, the natural thing on a node, made the first build of p slow on any
server: the comment at the look-up in profile_completion.py tells why it does no more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from devtools.cluster import Cluster, ClusterError
from devtools.discovery import CREATE_EXTENSION, Discovery, create_discovery, require_extension
from devtools.shares import SETTINGS, Node, Shares, conninfo, gexec
from tests.sessions import TICK, column, rows, tick, until, value

ONE = "0/1"
SUBSCRIPTION = "audius_challenges_share_0_of_1"
RETURNING = "audius_challenges_return_0_of_1"

PEOPLE = """
    SELECT count(*) FROM sync_challenge_catalog('stage');
    SELECT count(build.person(n)) FROM generate_series(1, 8) AS n;
"""
# Nothing in between, and large transactions are sent in pieces to whoever wants that.
QUIET = {"autovacuum": "off", "logical_decoding_work_mem": "64kB"}


@pytest.fixture
def hub(root: Path | None) -> Iterator[Discovery]:
    """A primary to be, with a few people and nothing to reward them for. Challenges count from block 0 on."""
    with new_hub(root) as database:
        yield database


@contextmanager
def new_hub(root: Path | None) -> Iterator[Discovery]:
    """The same."""
    with Cluster(root=root, cron_database="postgres", settings={**SETTINGS, **QUIET}) as cluster:
        require_extension(cluster)
        database = create_discovery(cluster, "discovery")
        database.psql(CREATE_EXTENSION, PEOPLE)
        yield database


@pytest.fixture(scope="module")
def at_work(root: Path | None) -> Iterator[Shares]:
    """A primary and a node at work, for tests that leave them so."""
    with new_hub(root) as hub, Shares(hub) as shares:
        shares.set_up(1)
        shares.settle()
        yield shares


@pytest.fixture
def pair(at_work: Shares) -> Shares:
    """The same, as a test finds it."""
    at_work.settle()
    assert node_of(at_work).why_not() == []
    return at_work


@pytest.fixture
def own_pair(hub: Discovery) -> Iterator[Shares]:
    """A primary and a node at work, for one test."""
    with Shares(hub) as shares:
        shares.set_up(1)
        shares.settle()
        yield shares


@pytest.fixture
def alone(hub: Discovery) -> Iterator[tuple[Shares, Node]]:
    """The primary, with one share published, and a node with its tables that has not joined."""
    with Shares(hub) as shares:
        shares.publish(1)
        yield shares, shares.new_node(ONE)


_users = count(100)


@pytest.fixture
def user() -> int:
    """Somebody who is not there yet, and whom no other test rewards. Nor does one reward his neighbour, user + 1."""
    next(_users)
    return next(_users) - 1


def ask(database: Discovery, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    """All rows of a query, in a session of its own."""
    with closing(database.connect()) as session:
        return rows(session, query, *parameters)


def only(database: Discovery, query: str, *parameters: object) -> Any:
    """The only column of the only row of a query, in a session of its own."""
    ((found,),) = ask(database, query, *parameters)
    return found


def do(database: Discovery, *statements: str) -> None:
    """Executes statements, in a session of its own."""
    with closing(database.connect()) as session:
        for statement in statements:
            session.execute(statement)


def node_of(shares: Shares) -> Node:
    """The only node."""
    (node,) = shares.nodes
    return node


def paid(database: Discovery, challenge: str, *users: int) -> list[tuple[int, int, bool]]:
    """The rows of some users in a challenge: user, steps, whether complete."""
    query = """
        SELECT user_id, current_step_count, is_complete
        FROM user_challenges
        WHERE challenge_id = %s
            AND user_id = ANY(%s)
        ORDER BY user_id, specifier
    """
    return ask(database, query, challenge, list(users))


def told(database: Discovery, *users: int) -> int:
    """How many times the application has told these users of a reward."""
    number: int = only(database, "SELECT count(*) FROM notification WHERE user_ids && %s::integer[]", list(users))
    return number


def everything(database: Discovery) -> list[tuple[Any, ...]]:
    """Every row version of the derived tables."""
    return [
        row
        for table in ("user_challenges", "challenge_listen_streak", "challenge_profile_completion")
        for row in ask(database, f"SELECT ctid::text, xmin::text, each::text FROM {table} AS each ORDER BY ctid")
    ]


LISTENS = """
    SELECT build.play({}, 999, '2025-03-01 12:00'::timestamp + day * INTERVAL '1 day')
    FROM generate_series({}, {}) AS day
"""


def stop_following(database: Discovery, subscription: str) -> None:
    """A subscription receives nothing any more, until `follow_again`."""
    do(database, f"ALTER SUBSCRIPTION {subscription} DISABLE")
    following = "SELECT pid FROM pg_stat_subscription WHERE subname = %s AND pid IS NOT NULL"
    until(lambda: not ask(database, following, subscription), f"the end of {subscription}'s worker")


def follow_again(database: Discovery, subscription: str) -> None:
    """It receives what it has missed, and goes on."""
    do(database, f"ALTER SUBSCRIPTION {subscription} ENABLE")


def drop_slot(database: Discovery, slot: str) -> None:
    """Drops a slot, as soon as it is seen that nobody uses it any more."""
    unused = "SELECT FROM pg_replication_slots WHERE slot_name = %s AND NOT active"
    until(lambda: bool(ask(database, unused, slot)), f"{slot} unused")
    do(database, f"SELECT pg_drop_replication_slot('{slot}')")


def has_come(node: Node, condition: str, *parameters: object) -> None:
    """Waits until a node has got rows, while what it sends is on hold."""
    until(lambda: bool(ask(node.database, f"SELECT FROM {condition}", *parameters)), condition)


def numbers_sent(node: Node) -> int:
    """The last number that a node has given to what it sends."""
    number: int = only(node.database, "SELECT number FROM audius_challenges.share_sent")
    return number


def does_nothing(node: Node) -> None:
    """Asserts that a tick of a node derives nothing, and says why."""
    reasons = whatever_the_state(node.why_not())
    before = everything(node.database)
    with closing(node.connect()) as session:
        (heard,) = tick(session)
    # Copies go on meanwhile: it says what was so before, and still is.
    lasting = reasons & whatever_the_state(node.why_not())
    assert lasting
    assert [why for why in lasting if why not in heard.message] == []
    assert everything(node.database) == before
    shown = "SELECT status FROM challenge_status WHERE challenge_id IN ('u', 'fp', 'p', 'v', 'e')"
    catalog = ask(node.database, "SELECT FROM challenges")
    assert {status for (status,) in ask(node.database, shown)} == {"stopped" if catalog else "absent"}


def whatever_the_state(reasons: list[str]) -> set[str]:
    """Reasons for which a node does nothing, without the states that a copy goes through."""
    return {why.partition(" (state ")[0] for why in reasons}


def join(shares: Shares, node: Node) -> None:
    """A node that has its tables joins."""
    gexec(node.database, f"audius_challenges.join_share('{ONE}', '{conninfo(shares.hub)}')")
    be_received(shares, node)


def be_received(shares: Shares, node: Node) -> None:
    """A node that follows the primary is followed by it."""
    gexec(shares.hub, f"audius_challenges.receive_share('{ONE}', '{conninfo(node.database)}')")
    shares.nodes.append(node)


def begin(shares: Shares) -> None:
    """The node is to do the work, and does, until nothing is left."""
    shares.plan(1)
    shares.adopt(node_of(shares))
    shares.settle()


def start_anew(shares: Shares) -> None:
    """A new node takes the place of the one there is, which is thrown away."""
    do(shares.hub, f"ALTER SUBSCRIPTION {RETURNING} DISABLE", f"ALTER SUBSCRIPTION {RETURNING} SET (slot_name = NONE)")
    do(shares.hub, f"DROP SUBSCRIPTION {RETURNING}")
    node_of(shares).cluster.close()
    shares.nodes.clear()
    for (slot,) in ask(shares.hub, "SELECT slot_name FROM pg_replication_slots"):
        drop_slot(shares.hub, slot)
    shares.join(ONE)
    begin(shares)


# 1. The application's trigger


@pytest.mark.parametrize("enabled", ["ENABLE TRIGGER", "ENABLE ALWAYS TRIGGER"])
def test_the_applications_trigger_on_a_node_is_refused_as_users_would_be_told_twice(
    pair: Shares, user: int, enabled: str
) -> None:
    node = node_of(pair)
    do(
        node.database,
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER tell AFTER INSERT OR UPDATE ON user_challenges FOR EACH ROW EXECUTE FUNCTION tell()",
        f"ALTER TABLE user_challenges {enabled} tell",
    )
    do(pair.hub, f"SELECT build.qualify_fp({user})")
    pair.catch_up()
    assert node.why_not() == ["there is another trigger on user_challenges, tell, which fires on the primary as well"]
    does_nothing(node)
    do(node.database, "DROP FUNCTION tell CASCADE")
    pair.settle()
    assert paid(pair.hub, "fp", user) == [(user, 1, True)]


def test_the_applications_trigger_on_the_primary_fires_with_its_search_path_and_once(pair: Shares, user: int) -> None:
    do(pair.hub, f"SELECT build.qualify_fp({user})")
    pair.settle()
    do(pair.hub, f"SELECT build.playlist({user * 1000}, {user})")
    pair.settle()
    assert paid(pair.hub, "fp", user) == [(user, 1, True)]
    assert told(pair.hub, user) == 1


# 2. Rows straight into user_challenges


def test_a_row_that_the_primary_has_already_stops_nothing(pair: Shares, user: int) -> None:
    other = user + 1
    do(
        pair.hub,
        "INSERT INTO user_challenges (challenge_id, user_id, specifier, is_complete, current_step_count, amount)"
        f" VALUES ('u', {user}, to_hex({user}), FALSE, 1, 1)",
        f"SELECT build.qualify_u({other})",
        f"SELECT build.almost_u({user})",
    )
    pair.settle()
    assert paid(pair.hub, "u", user, other) == [(user, 2, False), (other, 3, True)]
    do(pair.hub, f"SELECT build.track({user * 1000}, {user})")
    pair.settle()
    assert paid(pair.hub, "u", user) == [(user, 3, True)]
    assert told(pair.hub, user, other) == 2


def test_a_change_of_a_row_that_the_primary_has_not_arrives(pair: Shares, user: int) -> None:
    do(pair.hub, f"SELECT build.almost_u({user})")
    pair.settle()
    do(pair.hub, "DELETE FROM user_challenges WHERE challenge_id = 'u'", f"SELECT build.track({user * 1000}, {user})")
    pair.settle()
    assert paid(pair.hub, "u", user) == [(user, 3, True)]
    assert told(pair.hub, user) == 1


def test_a_complete_row_of_the_primary_is_never_overwritten(pair: Shares, user: int) -> None:
    do(pair.hub, f"SELECT build.person({user})", f"SELECT build.track({user * 1000}, {user})")
    pair.settle()
    do(
        pair.hub,
        "UPDATE user_challenges SET is_complete = TRUE, current_step_count = 3, completed_blocknumber = 77,"
        f" completed_at = '2025-03-01' WHERE (challenge_id, user_id) = ('u', {user})",
    )
    row = f"SELECT ctid, xmin, each::text FROM user_challenges AS each WHERE user_id = {user}"
    before = ask(pair.hub, row)
    do(pair.hub, f"SELECT build.track({user * 1000 + 1}, {user})")
    pair.settle()
    assert paid(node_of(pair).database, "u", user) == [(user, 2, False)]
    assert ask(pair.hub, row) == before


def test_what_comes_home_does_not_go_out_again(pair: Shares, user: int) -> None:
    node = node_of(pair)
    do(pair.hub, f"SELECT build.qualify_u({user})")
    pair.settle()
    assert paid(pair.hub, "u", user) == [(user, 3, True)]
    before, sent = everything(node.database), numbers_sent(node)
    for _ in range(3):
        pair.tick()
    assert everything(node.database) == before
    assert numbers_sent(node) == sent + 3  # a beat each
    assert only(node.database, "SELECT count(*) FROM audius_challenges.share_batch") == 0


def test_rows_of_a_challenge_that_is_switched_off_on_the_primary_alone_wait(pair: Shares, user: int) -> None:
    """They are derived already when that happens."""
    do(pair.hub, f"SELECT build.qualify_fp({user})")
    pair.catch_up()
    node_of(pair).tick()
    do(pair.hub, "UPDATE challenges SET active = FALSE WHERE id = 'fp'")
    pair.tick()
    assert paid(pair.hub, "fp", user) == []
    assert only(pair.hub, "SELECT count(*) FROM audius_challenges.share_batch WHERE challenge_id = 'fp'") == 1
    do(pair.hub, "UPDATE challenges SET active = TRUE WHERE id = 'fp'")
    pair.settle()
    assert paid(pair.hub, "fp", user) == [(user, 1, True)]
    assert told(pair.hub, user) == 1


# 3. Plays that are cleared and indexed again


def test_plays_indexed_again_with_the_same_ids_change_nothing(pair: Shares, user: int) -> None:
    do(pair.hub, f"SELECT build.person({user})", LISTENS.format(user, 1, 4))
    pair.settle()
    before = everything(pair.hub)
    do(
        pair.hub,
        "CREATE TABLE kept AS TABLE plays",
        "TRUNCATE plays",
        "INSERT INTO plays TABLE kept",
        "DROP TABLE kept",
    )
    pair.settle()
    assert everything(pair.hub) == before
    assert paid(pair.hub, "e", user) == [(user, 4, False)]
    do(pair.hub, LISTENS.format(user, 5, 5))
    pair.settle()
    assert paid(pair.hub, "e", user) == [(user, 5, False)]
    # Those of before are still there: they are pruned on the node itself.
    assert only(node_of(pair).database, "SELECT count(*) FROM plays WHERE user_id = %s", user) == 9


# 4. A filter that the replica identity does not cover


def test_the_application_changes_and_deletes_rows_of_every_table_that_is_published(pair: Shares, user: int) -> None:
    do(
        pair.hub,
        f"SELECT build.qualify_u({user})",
        f"SELECT build.playlist({user * 1000}, {user})",
        f"SELECT build.qualify_p({user + 1})",
        LISTENS.format(user, 1, 1),
    )
    pair.settle()
    published = "SELECT DISTINCT tablename::text FROM pg_publication_tables WHERE schemaname = 'public'"
    tables = [name for (name,) in ask(pair.hub, published)]
    assert len(tables) == 12
    with closing(pair.hub.connect(autocommit=False)) as session:
        session.execute("SET session_replication_role = replica")  # foreign keys are not what this is about
        for table in tables:
            first = "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum = 1"
            (name,) = column(session, first, table)
            assert session.execute(f"UPDATE {table} SET {name} = {name}").rowcount > 0
            assert session.execute(f"DELETE FROM {table}").rowcount > 0
        session.rollback()


def test_a_filter_that_would_stop_the_application_is_refused(alone: tuple[Shares, Node]) -> None:
    shares, _ = alone
    do(shares.hub, "CREATE UNIQUE INDEX narrow ON tracks (track_id, txhash)")
    do(shares.hub, "ALTER TABLE follows DROP CONSTRAINT follows_pkey")
    with pytest.raises(ClusterError, match="follows has no replica identity: once it is published, the application"):
        gexec(shares.hub, "audius_challenges.share_publications(2)")


# 5. Slots that are lost


def test_a_slot_made_again_by_hand_is_seen_by_the_beat_it_lacks(own_pair: Shares, user: int) -> None:
    shares, node = own_pair, node_of(own_pair)
    stop_following(node.database, SUBSCRIPTION)
    drop_slot(shares.hub, SUBSCRIPTION)
    do(shares.hub, f"SELECT build.qualify_u({user})", TICK)
    do(shares.hub, f"SELECT pg_create_logical_replication_slot('{SUBSCRIPTION}', 'pgoutput')")
    follow_again(node.database, SUBSCRIPTION)
    do(shares.hub, f"SELECT build.qualify_fp({user + 1})", TICK)
    shares.catch_up()
    assert node.why_not() == ["beats of the primary are missing, so changes were lost"]
    does_nothing(node)
    # Copied anew it is whole.
    start_anew(shares)
    assert paid(shares.hub, "u", user) == [(user, 3, True)]
    assert paid(shares.hub, "fp", user + 1) == [(user + 1, 1, True)]
    assert told(shares.hub, user, user + 1) == 2


def test_a_node_that_is_away_too_long_loses_its_slot_and_nothing_else_is_lost(own_pair: Shares, user: int) -> None:
    shares, hub, node = own_pair, own_pair.hub, node_of(own_pair)
    do(hub, "ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'", "SELECT pg_reload_conf()")
    do(hub, f"SELECT build.qualify_u({user})")
    shares.settle()
    node.cluster.stop()
    do(hub, f"SELECT build.playlist({user * 1000}, {user})")

    def is_lost() -> bool:
        message = "SELECT count(pg_logical_emit_message(FALSE, '', repeat('x', 1000000))) FROM generate_series(1, 16)"
        do(hub, message, "SELECT pg_switch_wal()", "CHECKPOINT")
        status = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = %s"
        return bool(only(hub, status, SUBSCRIPTION) == "lost")

    until(is_lost, "a slot that is lost")
    node.cluster.start()
    do(hub, f"SELECT build.qualify_u({user + 1})", TICK)
    # What it has is an earlier moment of the primary: late, not wrong.
    node.tick()
    do(hub, TICK)
    assert paid(hub, "u", user, user + 1) == [(user, 3, True)]
    start_anew(shares)
    assert paid(hub, "u", user, user + 1) == [(user, 3, True), (user + 1, 3, True)]
    assert paid(hub, "fp", user) == [(user, 1, True)]
    assert told(hub, user, user + 1) == 3


# 6. Two subscriptions


def test_plays_that_come_ahead_of_their_users_by_a_second_subscription_are_not_passed_over(
    pair: Shares, user: int
) -> None:
    node = node_of(pair)
    columns = only(
        node.database,
        "SELECT string_agg(attname, ', ') FROM pg_attribute WHERE attrelid = 'plays'::regclass AND attnum > 0",
    )
    do(pair.hub, f"CREATE PUBLICATION ahead FOR TABLE plays ({columns}) WITH (publish = 'insert')")
    node.database.psql(
        f"CREATE SUBSCRIPTION ahead CONNECTION '{conninfo(pair.hub)}' PUBLICATION ahead WITH (copy_data = false)"
    )
    stop_following(node.database, SUBSCRIPTION)
    do(pair.hub, f"SELECT build.qualify_e({user})")
    has_come(node, "plays WHERE user_id = %s", user)
    assert "2 subscriptions feed the tables, it must be one: ahead, audius_challenges_share_0_of_1" in node.why_not()
    does_nothing(node)
    follow_again(node.database, SUBSCRIPTION)
    node.database.psql("DROP SUBSCRIPTION ahead")
    do(pair.hub, "DROP PUBLICATION ahead")
    pair.settle()
    assert paid(pair.hub, "e", user) == [(user, 7, True)]
    assert told(pair.hub, user) == 1


# 7. Tables before the extension; 9. keys


def test_a_node_with_the_tables_of_the_application_is_refused_until_nothing_is_in_the_way(
    hub: Discovery, user: int
) -> None:
    """The tables came first, from a dump of the primary's schema: so the extension took it for a server of its own."""
    do(hub, f"SELECT build.qualify_u({user})")
    with Shares(hub) as shares, Cluster(root=hub.cluster.root, cron_database="postgres", settings=SETTINGS) as cluster:
        shares.publish(1)
        node = Node(create_discovery(cluster, "node"), ONE)
        node.database.psql(CREATE_EXTENSION)
        assert only(node.database, "SELECT count(*) > 0 FROM challenges") is True
        for in_the_way in (
            "there are rows in public.challenges: a copy over them would fail",
            "there are foreign keys on the tables of this node",
            "there is a unique index on plays",
            "there are columns that must not be null and that shares do not need",
        ):
            with pytest.raises(ClusterError) as error:
                join(shares, node)
            assert in_the_way in str(error.value)
            node.database.psql(mending(error.value))
        join(shares, node)
        for trigger in ("log_user_challenge", "on_user_challenge"):
            is_another = f"there is another trigger on user_challenges, {trigger}, which fires on the primary as well"
            assert is_another in node.why_not()
        # All that is sent comes, what is not is null.
        until(lambda: not any("is still being copied" in text for text in node.why_not()), "the copies")
        assert only(node.database, "SELECT count(*) FROM users WHERE created_at IS NULL") > 0
        assert "violates not-null constraint" not in cluster.log()
        does_nothing(node)
        shares.plan(0)
        do(hub, TICK)
        assert paid(hub, "u", user) == [(user, 3, True)]


def mending(error: ClusterError) -> str:
    """The statements of a hint that psql has printed, those of tables that others refer to made to work."""
    (hint,) = re.findall(r"HINT: .*?((?:TRUNCATE|ALTER TABLE|DROP INDEX) .*;)", str(error))
    return re.sub(r"(TRUNCATE [^;]*)", r"\1 CASCADE", hint)


def test_an_extension_that_is_created_where_the_share_is_set_fills_and_schedules_nothing(
    alone: tuple[Shares, Node], user: int
) -> None:
    shares, node = alone
    node.database.psql(
        f"ALTER DATABASE {node.database.name} SET audius_challenges.share = '{ONE}'",
        "DROP EXTENSION audius_challenges",
        CREATE_EXTENSION,
    )
    assert only(node.database, "SELECT count(*) FROM challenges") == 0
    join(shares, node)
    do(shares.hub, f"SELECT build.qualify_u({user})")
    begin(shares)
    assert paid(shares.hub, "u", user) == [(user, 3, True)]


def test_emptying_the_catalog_of_a_node_empties_nothing_else(pair: Shares, user: int) -> None:
    node = node_of(pair)
    do(pair.hub, f"SELECT build.qualify_u({user})")
    pair.settle()
    do(node.database, "CREATE TABLE kept AS TABLE challenges", "TRUNCATE challenges CASCADE")
    assert paid(node.database, "u", user) == [(user, 3, True)]
    do(pair.hub, f"SELECT build.playlist({user * 10}, {user})")
    pair.tick()
    assert paid(pair.hub, "fp", user) == []
    do(node.database, "INSERT INTO challenges TABLE kept", "DROP TABLE kept")
    pair.settle()
    assert paid(pair.hub, "fp", user) == [(user, 1, True)]


# 8. Copies


def test_a_copy_over_rows_that_are_there_is_refused_and_where_it_is_forced_nothing_is_done(
    alone: tuple[Shares, Node], user: int
) -> None:
    shares, node = alone
    there = "INSERT INTO users (user_id, is_current, txhash) VALUES (1, TRUE, '')"
    joining = f"SELECT audius_challenges.join_share('{ONE}', '{conninfo(shares.hub)}')"
    do(node.database, there)
    with pytest.raises(psycopg.Error, match=r"there are rows in public\.users: a copy over them would fail"):
        ask(node.database, joining)
    do(node.database, "TRUNCATE users")
    printed = [statement for (statement,) in ask(node.database, joining)]
    do(node.database, there)
    node.database.psql(*printed)
    be_received(shares, node)
    shares.plan(1)
    until(lambda: "COPY users, line 1" in node.cluster.log(), "the copy that fails")
    assert any(text.startswith("table users is still being copied") for text in node.why_not())
    does_nothing(node)
    do(node.database, "TRUNCATE users")
    do(shares.hub, f"SELECT build.qualify_u({user})")
    begin(shares)
    assert paid(shares.hub, "u", user) == [(user, 3, True)]


def test_ticks_in_the_middle_of_a_copy_do_nothing_and_nobody_is_passed_over(
    alone: tuple[Shares, Node], user: int
) -> None:
    """Plays are there before their users: to a tick, these listeners would be nobody."""
    shares, node = alone
    do(shares.hub, f"SELECT build.qualify_e({user})")
    with closing(node.connect(autocommit=False)) as holder:
        holder.execute("LOCK TABLE users IN SHARE MODE")  # the copy waits, who reads does not
        join(shares, node)
        shares.plan(1)
        has_come(node, "audius_challenges.share_plan")
        has_come(node, "plays WHERE user_id = %s", user)
        assert any(text.startswith("table users is still being copied") for text in node.why_not())
        does_nothing(node)
        holder.rollback()
    begin(shares)
    assert paid(shares.hub, "e", user) == [(user, 7, True)]
    assert told(shares.hub, user) == 1


# 10. The block number of what completes


def test_what_a_node_that_lags_completes_is_of_the_block_of_the_primary(pair: Shares, user: int) -> None:
    node = node_of(pair)
    do(pair.hub, f"SELECT build.qualify_u({user})")
    pair.catch_up()
    stop_following(node.database, SUBSCRIPTION)
    do(pair.hub, "SELECT count(build.block(n)) FROM generate_series(500000, 500100) AS n")
    do(node.database, f"ALTER SUBSCRIPTION {SUBSCRIPTION} ENABLE")
    node.tick()
    arrived = "audius_challenges.share_batch WHERE challenge_id = 'u'"
    until(lambda: bool(ask(pair.hub, f"SELECT FROM {arrived}")), arrived)
    do(pair.hub, TICK)
    completed = "SELECT completed_blocknumber FROM user_challenges WHERE (challenge_id, user_id) = ('u', %s)"
    assert only(pair.hub, completed, user) == 500100


# 11. What was sent, and did not arrive


def test_batches_that_were_lost_with_their_slot_are_named_and_sent_again(pair: Shares, user: int) -> None:
    node, other = node_of(pair), user + 1
    do(pair.hub, f"SELECT build.qualify_u({user})")
    pair.settle()
    stop_following(pair.hub, RETURNING)
    do(pair.hub, f"SELECT build.playlist({user * 10}, {user})")
    has_come(node, "playlists WHERE playlist_owner_id = %s", user)
    first = numbers_sent(node) + 1
    node.tick()
    last = numbers_sent(node)
    drop_slot(node.database, RETURNING)

    # With no way back nothing is derived.
    do(pair.hub, f"SELECT build.qualify_fp({other})")
    has_come(node, "playlists WHERE playlist_owner_id = %s", other)
    assert node.why_not() == [f"the return path has no slot ({RETURNING}): the primary is not subscribed to this node"]
    does_nothing(node)
    assert paid(node.database, "fp", other) == []
    unsent = numbers_sent(node)  # beats of a node that does nothing

    do(node.database, f"SELECT pg_create_logical_replication_slot('{RETURNING}', 'pgoutput')")
    follow_again(pair.hub, RETURNING)
    do(pair.hub, f"SELECT build.track({other} * 1000 + n, {other}) FROM generate_series(1, 3) AS n")
    pair.catch_up()
    node.tick()
    pair.catch_up()
    with closing(pair.hub.connect()) as session:
        with pytest.raises(psycopg.Error) as error:
            tick(session)
        problem = f"batches {first} to {max(last, unsent)} of share {ONE} are missing"
        assert problem in str(error.value)
        assert "SELECT audius_challenges.resend();" in str(error.value)
        assert value(session, "SELECT problem FROM audius_challenges.share_node") == problem
    assert paid(pair.hub, "fp", user, other) == []
    assert paid(pair.hub, "u", user, other) == [(user, 3, True)]

    assert only(node.database, "SELECT audius_challenges.resend()") >= 4
    pair.settle()
    assert paid(pair.hub, "fp", user, other) == [(user, 1, True), (other, 1, True)]
    assert paid(pair.hub, "u", user, other) == [(user, 3, True), (other, 3, True)]
    assert told(pair.hub, user, other) == 4


def test_everything_sent_again_changes_nothing_that_was_there(pair: Shares, user: int) -> None:
    do(
        pair.hub,
        f"SELECT build.qualify_p({user})",
        f"SELECT build.almost_u({user + 1})",
        LISTENS.format(user, 1, 9),
    )
    pair.settle()
    before = everything(pair.hub)
    assert paid(pair.hub, "e", user) == [(user, 7, True), (user, 1, True), (user, 1, True)]
    do(node_of(pair).database, "SELECT audius_challenges.resend()")
    pair.settle()
    assert everything(pair.hub) == before
    assert told(pair.hub, user) == 4


# 12. Open transactions


def test_an_open_transaction_holds_up_the_copy_and_then_it_goes_on(alone: tuple[Shares, Node], user: int) -> None:
    shares, node = alone
    do(shares.hub, f"SELECT build.qualify_e({user})")
    with ThreadPoolExecutor(1) as beside, closing(shares.hub.connect(autocommit=False)) as writer:
        writer.execute("SELECT build.playlist(1, 1)")
        joining = beside.submit(join, shares, node)
        waiting = "pg_stat_activity WHERE backend_type = 'walsender' AND wait_event_type = 'Lock'"
        until(lambda: bool(ask(shares.hub, f"SELECT FROM {waiting}")), waiting)
        assert node.why_not()[:2] == ["the tables are not fed by any subscription", "no plan of shares has arrived"]
        does_nothing(node)
        writer.commit()
        joining.result()
    begin(shares)
    assert paid(shares.hub, "e", user) == [(user, 7, True)]
    assert paid(shares.hub, "fp", 1) == [(1, 1, True)]


def test_low_numbers_that_commit_late_are_found_on_a_node_without_the_sweep(pair: Shares) -> None:
    """Block numbers and ids of plays are drawn long before a transaction commits, and a node has its rows only then."""
    node = node_of(pair)
    do(node.database, f"ALTER DATABASE {node.database.name} SET audius_challenges.sweep_users = 0")
    do(pair.hub, "SELECT count(build.block(n)) FROM generate_series(600000, 603000) AS n")
    with closing(pair.hub.connect(autocommit=False)) as late:
        late.execute("SELECT build.playlist(700000, 1, blocknumber => 600000)")
        late.execute("SELECT build.track(n, 2, blocknumber => 600000) FROM generate_series(700000, 700002) AS n")
        late.execute("SELECT build.play(3, 998, '2025-03-01')")  # nobody waits for the count of its month
        late.execute("UPDATE users SET is_verified = TRUE, blocknumber = 600000 WHERE user_id = 4")
        numbers = "generate_series(600001, 603000) AS n"
        do(
            pair.hub,
            f"SELECT count(build.playlist(n, n, blocknumber => n)) FROM {numbers}",
            f"SELECT count(build.track(n, n, blocknumber => n)) FROM {numbers}",
            f"SELECT count(build.person(n, blocknumber => n)) FROM {numbers}",
            f"SELECT count(build.play(n, 999, '2025-03-01')) FROM {numbers}",
        )
        pair.settle()
        pair.tick()
        late.commit()
    pair.settle()
    pair.tick()
    do(node.database, f"ALTER DATABASE {node.database.name} RESET audius_challenges.sweep_users")
    few = "SELECT challenge_id::text, user_id FROM user_challenges WHERE user_id <= 4 ORDER BY 2, 1"
    assert ask(pair.hub, few) == [("fp", 1), ("u", 2), ("e", 3), ("v", 4)]


@pytest.mark.parametrize("streaming", ["on", "parallel"])
def test_a_transaction_that_is_sent_while_it_is_open_counts_when_it_commits(
    pair: Shares, user: int, streaming: str
) -> None:
    """With savepoints, one of them undone. Before 16 nothing is applied in parallel."""
    node, first = node_of(pair), 1_000_000 + user * 10_000
    kind = streaming if streaming == "on" or pair.hub.cluster.major >= 16 else "off"
    do(node.database, f"ALTER SUBSCRIPTION {SUBSCRIPTION} SET (streaming = {kind})")
    with closing(pair.hub.connect(autocommit=False)) as writer:
        for name, number in (("kept", 0), ("undone", 1000), ("last", 2000)):
            writer.execute(f"SAVEPOINT {name}")
            writer.execute(
                "SELECT count(build.qualify_fp(n)) FROM generate_series(%s::integer, %s) AS n",
                [first + number, first + number + 399],
            )
            if name == "undone":
                writer.execute("ROLLBACK TO SAVEPOINT undone")
        pair.settle()
        pair.tick()
        writer.commit()
    pair.settle()
    do(node.database, f"ALTER SUBSCRIPTION {SUBSCRIPTION} SET (streaming = off)")
    users = [*range(first, first + 400), *range(first + 2000, first + 2400)]
    found = f"SELECT user_id FROM user_challenges WHERE user_id BETWEEN {first} AND {first + 9999} ORDER BY 1"
    assert [each for (each,) in ask(pair.hub, found)] == users
    assert told(pair.hub, *users) == len(users)


# 13. Foreign tables


def test_a_foreign_table_as_a_source_is_refused(hub: Discovery) -> None:
    do(
        hub,
        "CREATE EXTENSION postgres_fdw",
        "CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw",
        "CREATE TABLE own AS TABLE saves",
        "DROP TABLE saves",
        """
        CREATE FOREIGN TABLE saves (
            user_id integer, save_item_id integer, save_type savetype, is_current boolean, is_delete boolean,
            blocknumber integer, created_at timestamp, txhash varchar
        ) SERVER elsewhere
        """,
    )
    for function in ("share_publications(1)", "share_tables()"):
        with pytest.raises(ClusterError, match=r"public\.saves"):
            gexec(hub, f"audius_challenges.{function}")


# Beyond those


def test_a_row_put_into_the_inbox_by_hand_with_the_next_number_stops_nothing(pair: Shares, user: int) -> None:
    sequence = "SELECT pg_sequence_last_value(pg_get_serial_sequence('audius_challenges.share_batch', 'id')::regclass)"
    do(
        pair.hub,
        "INSERT INTO audius_challenges.share_batch (id, epoch, share, number, relation)"
        f" SELECT ({sequence}) + 1, 99, '0/9', 1, 'beat'",
        f"SELECT build.qualify_fp({user})",
    )
    pair.settle()
    assert paid(pair.hub, "fp", user) == [(user, 1, True)]


def test_what_a_constraint_on_the_inbox_refuses_arrives_when_it_is_gone(pair: Shares, user: int) -> None:
    node = node_of(pair)
    do(
        pair.hub,
        "ALTER TABLE audius_challenges.share_batch ADD CONSTRAINT in_the_way CHECK (challenge_id <> 'fp') NOT VALID",
        f"SELECT build.qualify_fp({user})",
        f"SELECT build.qualify_u({user + 1})",
    )
    has_come(node, "tracks WHERE owner_id = %s", user + 1)
    node.tick()
    until(lambda: 'violates check constraint "in_the_way"' in pair.hub.cluster.log(), "an error of apply")
    do(pair.hub, TICK)
    assert paid(pair.hub, "fp", user) == []
    do(pair.hub, "ALTER TABLE audius_challenges.share_batch DROP CONSTRAINT in_the_way")
    pair.settle()
    assert paid(pair.hub, "fp", user) == [(user, 1, True)]
    assert paid(pair.hub, "u", user + 1) == [(user + 1, 3, True)]
    assert told(pair.hub, user, user + 1) == 2


def test_a_user_whose_row_the_primary_refuses_is_set_aside_alone_and_tried_again(pair: Shares, user: int) -> None:
    do(
        pair.hub,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one'; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON user_challenges"
        f" FOR EACH ROW WHEN (new.user_id = {user}) EXECUTE FUNCTION refuse()",
        f"SELECT build.qualify_u({user})",
        f"SELECT build.qualify_u({user + 1})",
    )
    pair.settle()
    assert paid(pair.hub, "u", user, user + 1) == [(user + 1, 3, True)]
    set_aside = "SELECT challenge_id::text, examined_id FROM audius_challenges.set_aside"
    assert ask(pair.hub, set_aside) == [("u", user)]
    do(
        pair.hub,
        "DROP FUNCTION refuse CASCADE",
        "UPDATE audius_challenges.set_aside SET tried_at = tried_at - INTERVAL '11 minutes'",
        TICK,
    )
    assert paid(pair.hub, "u", user, user + 1) == [(user, 3, True), (user + 1, 3, True)]
    assert ask(pair.hub, set_aside) == []
    assert told(pair.hub, user, user + 1) == 2


def test_a_plan_that_changes_while_much_waits_loses_no_reward(own_pair: Shares) -> None:
    """A streak's state and its rows are written together, however many wait: whoever goes on from it finds both."""
    shares, hub, node = own_pair, own_pair.hub, node_of(own_pair)
    states, opened = (
        f"SELECT count(*) FROM {table}"
        for table in ("challenge_listen_streak", "user_challenges WHERE challenge_id = 'e'")
    )
    do(hub, "ALTER DATABASE discovery SET audius_challenges.time_budget = '0s'")
    for people in (10_000, 20_000, 30_000, 40_000):
        numbers = f"generate_series({people - 9_000 + 1}, {people + 1_000}) AS n"
        do(
            hub,
            f"SELECT count(build.person(n)) FROM {numbers}",
            f"SELECT count(build.play(n, 999, '2025-03-01')) FROM {numbers}",
        )
        shares.catch_up()
        node.tick()
        assert only(node.database, opened) == people
    shares.catch_up()
    do(hub, TICK)
    written = only(hub, opened)
    assert 0 < written < people  # of which a turn takes no more
    assert only(hub, states) == written
    shares.take_down()
    for _ in range(10):
        do(hub, TICK)
    assert only(hub, states) == people
    assert only(hub, opened) == people


def test_roles_that_may_only_run_tick_on_the_primary_and_on_a_node(pair: Shares, user: int) -> None:
    node, other = node_of(pair), user + 1
    for database in (pair.hub, node.database):
        do(database, "CREATE ROLE runner LOGIN", "SELECT audius_challenges.grant_run('runner')")
    do(
        pair.hub,
        f"SELECT build.qualify_p({user})",
        f"SELECT build.qualify_u({other})",
        f"SELECT build.playlist({other * 1000}, {other})",
        LISTENS.format(other, 1, 7),
    )
    for _ in range(3):
        for database in (node.database, pair.hub):
            pair.catch_up()
            with closing(database.connect("runner")) as session:
                assert tick(session) == []
    assert paid(pair.hub, "p", user) == [(user, 7, True)]
    for challenge, steps in (("u", 3), ("fp", 1), ("e", 7)):
        assert paid(pair.hub, challenge, other) == [(other, steps, True)]
    with closing(node.database.connect("runner")) as session:
        assert column(session, "SELECT audius_challenges.share_why_not()") == []
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("SELECT audius_challenges.resend()")
    with closing(pair.hub.connect("runner")) as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("SELECT audius_challenges.plan_shares(2)")


def test_a_node_that_is_dumped_and_restored_is_no_node_and_sends_nothing(pair: Shares, user: int) -> None:
    node = node_of(pair)
    do(pair.hub, f"SELECT build.qualify_u({user})")
    pair.settle()
    script = node.cluster.run("pg_dump", "--no-subscriptions", "--no-publications", node.database.name).stdout
    node.cluster.create_database("restored")
    node.cluster.run("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname=restored", input=script)
    restored = Discovery(node.cluster, "restored")
    assert paid(restored, "u", user) == [(user, 3, True)]
    for table in ("share_plan", "share_sent", "share_node", "share_batch", "share_beat"):
        assert only(restored, f"SELECT count(*) FROM audius_challenges.{table}") == 0
    node.cluster.drop_database("restored")


# A standby as the source


def test_a_node_is_fed_by_a_standby_of_the_primary_from_16_on(hub: Discovery, user: int) -> None:
    primary = hub.cluster
    data_dir = primary.new_directory("standby")
    options = ["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--create-slot", "--slot=standby"]
    primary.run("pg_basebackup", f"--pgdata={primary.inside(data_dir)}", *options)
    following = {"hot_standby_feedback": "on", "wal_receiver_status_interval": "1s"}
    with Cluster.adopt(data_dir, root=primary.root, settings=following) as cluster, Shares(hub) as shares:
        standby = Discovery(cluster, hub.name)
        shares.publish(1)
        node = shares.new_node(ONE)
        published = "SELECT FROM pg_publication"
        until(lambda: bool(ask(standby, published)), "the publications on the standby")
        if cluster.major < 16:
            with pytest.raises(ClusterError, match="cannot be used while in recovery"):
                gexec(node.database, f"audius_challenges.join_share('{ONE}', '{conninfo(standby)}')")
            return
        with ThreadPoolExecutor(1) as beside:
            joining = beside.submit(
                gexec, node.database, f"audius_challenges.join_share('{ONE}', '{conninfo(standby)}')"
            )
            until_logged(hub, joining.done, "the subscription to the standby")
            joining.result()
            be_received(shares, node)
            shares.plan(1)
            arrived = "SELECT FROM audius_challenges.share_plan"
            until_logged(hub, lambda: bool(ask(node.database, arrived)), "the plan")
            adopting = beside.submit(gexec, node.database, f"audius_challenges.adopt_share('{conninfo(standby)}')")
            until_logged(hub, adopting.done, "the second subscription to the standby")
            adopting.result()
            until_logged(hub, lambda: is_adopted(node), "the adoption")
        assert ask(hub, "SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'logical'") == []
        do(hub, f"SELECT build.qualify_u({user})")
        has_come(node, "tracks WHERE owner_id = %s", user)
        node.tick()
        sent = "audius_challenges.share_batch WHERE challenge_id = 'u'"
        until(lambda: bool(ask(hub, f"SELECT FROM {sent}")), sent)
        do(hub, TICK)
        assert paid(hub, "u", user) == [(user, 3, True)]
        assert told(hub, user) == 1


def until_logged(hub: Discovery, event: Callable[[], bool], what: str) -> None:
    """Waits for an event, while the primary logs what each slot on its standby begins with."""

    def has_come_by_now() -> bool:
        do(hub, "SELECT pg_log_standby_snapshot()")
        return event()

    until(has_come_by_now, what, seconds=60)


def is_adopted(node: Node) -> bool:
    """Has a node finish its adoption, if it can by now."""
    try:
        gexec(node.database, "audius_challenges.finish_adoption()")
    except ClusterError as error:
        if "still being copied" in str(error) or "has not come as far" in str(error):
            return False
        raise
    return True
