"""Shares are set up by the statements that are printed, hold what they should, and are guarded where they would not.

Real servers and real replication: a primary and two nodes, whose sources are tables of every kind that there may be.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from devtools.cluster import Cluster, ClusterError
from devtools.discovery import CREATE_EXTENSION, Discovery, create_discovery, require_extension
from devtools.shares import SETTINGS, Node, Shares, conninfo, gexec
from tests.sessions import Connection, NewCluster, Notice, column, notices, rows, tick, until, value

# Rows of users by one column, in other shapes than the application's: partitions, a replica identity of all columns in
# one of them and in a whole table, and one by an index that is not the key.
SHAPES = """
    ALTER TABLE reposts RENAME TO reposts_before;
    CREATE TABLE reposts (
        user_id integer NOT NULL,
        repost_item_id integer NOT NULL,
        repost_type reposttype NOT NULL,
        is_current boolean NOT NULL,
        is_delete boolean NOT NULL,
        blocknumber integer,
        created_at timestamp NOT NULL,
        txhash varchar NOT NULL DEFAULT '',
        PRIMARY KEY (user_id, repost_item_id, repost_type, txhash)
    ) PARTITION BY HASH (user_id);
    CREATE TABLE reposts_0 PARTITION OF reposts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE reposts_1 PARTITION OF reposts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    CREATE INDEX ON reposts (user_id, repost_type);
    DROP TABLE reposts_before;
    ALTER TABLE reposts_1 REPLICA IDENTITY FULL;
    ALTER TABLE playlists REPLICA IDENTITY FULL;
    CREATE UNIQUE INDEX saves_identity ON saves (save_item_id, user_id, save_type, txhash);
    ALTER TABLE saves REPLICA IDENTITY USING INDEX saves_identity;
    CREATE DOMAIN handle AS varchar(50);
    ALTER TABLE users ALTER COLUMN handle_lc TYPE handle;
"""

# Ids of both signs, in every share.
SOURCES = """
    SELECT build.person(id, name => 'name', is_verified => id % 3 = 0) FROM generate_series(-6, 12) AS id;
    SELECT build.follow(id, followee) FROM generate_series(-6, 12) AS id, generate_series(1, 5) AS followee
    WHERE id <> followee;
    SELECT build.save(id, 7) FROM generate_series(-6, 12) AS id;
    SELECT build.repost(id, 7) FROM generate_series(-6, 12) AS id;
    SELECT build.track(id, id) FROM generate_series(1, 12) AS id;
    SELECT build.playlist(id, id) FROM generate_series(1, 12) AS id;
"""
# One of them by nobody.
PLAYS = """
    SELECT build.play(id, 7, '2024-01-01 12:00') FROM generate_series(-6, 12) AS id;
    INSERT INTO plays (play_item_id, created_at, updated_at) VALUES (7, '2024-01-01', '2024-01-01');
"""
FILL = f"{SOURCES} {PLAYS} UPDATE challenges SET active = TRUE"

OF_USERS = {"users": "user_id", "follows": "follower_user_id", "saves": "user_id", "reposts": "user_id"}
WHOLE = ("tracks", "playlists", "blocks", "challenges")


def hub_with(cluster: Cluster, name: str, *statements: str) -> Discovery:
    """A primary with the extension, after these statements."""
    require_extension(cluster)
    hub = create_discovery(cluster, name)
    hub.psql(*statements, CREATE_EXTENSION)
    return hub


@pytest.fixture(scope="module")
def servers(root: Path | None) -> Iterator[tuple[Cluster, Cluster]]:
    """One server for primaries, another one for nodes."""
    with (
        Cluster(root=root, cron_database="postgres", settings=SETTINGS) as first,
        Cluster(root=root, cron_database="postgres", settings=SETTINGS) as second,
    ):
        yield first, second


@pytest.fixture(scope="module")
def pair(servers: tuple[Cluster, Cluster]) -> Iterator[Shares]:
    """A primary and two nodes at work, in the shapes above. Whoever changes something puts it right again."""
    hub = hub_with(servers[0], "hub", SHAPES)
    hub.psql(FILL, "SELECT * FROM reconcile_challenges()")
    with Shares(hub, servers[1]) as shares:
        shares.set_up(2)
        yield shares


@pytest.fixture
def single(servers: tuple[Cluster, Cluster]) -> Iterator[tuple[Shares, Node]]:
    """A primary and its only node, which has yet to adopt; there is no plan."""
    hub = hub_with(servers[0], "hub_of_one")
    hub.psql(FILL, "SELECT * FROM reconcile_challenges()")
    with Shares(hub, servers[1]) as shares:
        shares.publish(1)
        yield shares, shares.join("0/1")
        shares.take_down()
        servers[0].drop_database(hub.name)


@pytest.fixture
def apart(new_cluster: NewCluster) -> tuple[Shares, Node]:
    """The same, each with a server of its own, to which anything may happen."""
    hub = hub_with(new_cluster(cron_database="postgres", settings=SETTINGS), "hub")
    shares = Shares(hub, new_cluster(cron_database="postgres", settings=SETTINGS))
    shares.publish(1)
    return shares, shares.join("0/1")


@pytest.fixture
def hub(pair: Shares) -> Iterator[Connection]:
    with closing(pair.hub.connect()) as connection:
        yield connection


@pytest.fixture
def node(pair: Shares) -> Iterator[Connection]:
    """A session on the first node."""
    with closing(pair.nodes[0].connect()) as connection:
        yield connection


def why_not(connection: Connection) -> list[str]:
    """What the guard says in this session, inside its transaction if there is one."""
    return column(connection, "SELECT audius_challenges.share_why_not()")


def ids(database: Discovery, table: str, name: str = "user_id") -> set[int]:
    with closing(database.connect()) as connection:
        return set(column(connection, f"SELECT {name} FROM {table}"))


def sorted_rows(connection: Connection, table: str, columns: str, where: str = "TRUE") -> list[str]:
    """A table's rows as texts, whatever types its columns have."""
    return column(
        connection,
        f"SELECT ROW({columns})::text AS line FROM (SELECT {columns} FROM {table} WHERE {where}) AS t ORDER BY line",
    )


def differences(shares: Shares) -> list[str]:
    """Tables of which a node has other rows than the primary has of its users."""
    shares.catch_up()
    found = []
    with closing(shares.hub.connect()) as hub:
        for node in shares.nodes:
            number, of = map(int, node.share.split("/"))
            with closing(node.connect()) as connection:
                for table in (*OF_USERS, *WHOLE, "plays"):
                    columns = value(
                        connection,
                        "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attname) FROM pg_attribute"
                        " WHERE attrelid = %s::regclass AND attnum > 0",
                        table,
                    )
                    user = OF_USERS.get(table, "user_id" if table == "plays" else None)
                    where = f"mod(mod({user}, {of}) + {of}, {of}) = {number}" if user else "TRUE"
                    if sorted_rows(connection, table, columns) != sorted_rows(hub, table, columns, where):
                        found.append(f"{table} of {node.share}")
    return found


# What is there


def test_each_user_is_in_one_share_whatever_his_id_is(pair: Shares) -> None:
    first, second = (ids(node.database, "users") for node in pair.nodes)
    assert first == {-6, -4, -2, 0, 2, 4, 6, 8, 10, 12}
    assert second == {-5, -3, -1, 1, 3, 5, 7, 9, 11}
    for table, name in {**OF_USERS, "plays": "user_id", "challenge_profile_completion": "user_id"}.items():
        assert ids(pair.nodes[0].database, table, name) == first, table
        assert ids(pair.nodes[1].database, table, name) == second, table


def test_the_nodes_have_what_the_primary_has_and_work(pair: Shares) -> None:
    assert differences(pair) == []
    assert [node.why_not() for node in pair.nodes] == [[], []]


def test_what_had_been_written_was_adopted(hub: Connection, node: Connection) -> None:
    written = "SELECT challenge_id, specifier, is_complete, created_at FROM user_challenges"
    shared = f"{written} WHERE challenge_id IN ('u', 'fp', 'p', 'v', 'e') AND mod(user_id, 2) = 0 ORDER BY 1, 2"
    assert rows(node, f"{written} ORDER BY 1, 2") == rows(hub, shared)
    assert {challenge for challenge, *_ in rows(node, written)} == {"e", "p", "v"}
    epoch = value(hub, "SELECT epoch FROM audius_challenges.share_plan")
    assert rows(node, "SELECT share, epoch FROM audius_challenges.share_sent") == [("0/2", epoch)]


def test_the_application_writes_as_ever_and_all_of_it_arrives(pair: Shares, hub: Connection) -> None:
    hub.execute("SELECT build.block(101)")
    hub.execute("SELECT build.person(id) FROM generate_series(20, 25) AS id")
    hub.execute("SELECT build.follow(20, 1), build.save(21, 1), build.repost(20, 1), build.repost(21, 1)")
    hub.execute("SELECT build.track(20, 20), build.playlist(20, 20), build.play(20, 1, '2024-01-02')")
    assert differences(pair) == []
    for table in (*OF_USERS, "tracks", "playlists"):
        assert hub.execute(f"UPDATE {table} SET blocknumber = 101").rowcount > 0, table
    hub.execute("UPDATE challenges SET step_count = 4 WHERE id = 'u'")
    hub.execute("UPDATE plays SET play_item_id = 2")
    assert differences(pair) == []
    # A key that changes: into the other share, too.
    hub.execute("UPDATE users SET user_id = 120 WHERE user_id = 22")
    hub.execute("UPDATE users SET user_id = 121 WHERE user_id = 24")
    hub.execute("UPDATE saves SET user_id = 122 WHERE user_id = 21")
    hub.execute("UPDATE reposts SET user_id = 123 WHERE user_id = 20")
    assert differences(pair) == []
    assert 121 in ids(pair.nodes[1].database, "users")
    for table, name in OF_USERS.items():
        assert hub.execute(f"DELETE FROM {table} WHERE {name} >= 20").rowcount > 0, table
    hub.execute("DELETE FROM tracks WHERE track_id = 20")
    hub.execute("DELETE FROM playlists WHERE playlist_id = 20")
    hub.execute("DELETE FROM challenges WHERE id = 'ft'")
    hub.execute("DELETE FROM blocks WHERE number = 101")  # and by its keys all that was stamped with it
    assert value(hub, "SELECT count(*) FROM users") == 0
    assert differences(pair) == []
    hub.execute("DELETE FROM plays WHERE user_id = 20")
    pair.catch_up()
    assert 20 in ids(pair.nodes[0].database, "plays")  # pruned on each server by itself
    with closing(pair.nodes[0].connect()) as connection:
        connection.execute("DELETE FROM plays WHERE user_id = 20")
    hub.execute("TRUNCATE follows, saves, reposts, tracks, playlists")
    assert differences(pair) == []
    hub.execute(SOURCES)
    assert differences(pair) == []


def test_what_the_application_changes_of_its_tables_and_types_stops_nobody(pair: Shares, hub: Connection) -> None:
    hub.execute("ALTER TABLE users ADD COLUMN location text DEFAULT 'here'")
    hub.execute("ALTER TABLE saves ADD COLUMN note text")
    hub.execute("ALTER TYPE savetype ADD VALUE 'show'")
    hub.execute("UPDATE users SET location = 'there', bio = 'bio' WHERE user_id IN (1, 2)")
    hub.execute("SELECT build.save(2, 8, 'show')")
    assert differences(pair) == []
    with closing(pair.nodes[0].connect()) as connection:
        assert column(connection, "SELECT save_type FROM saves WHERE save_item_id = 8") == ["show"]
        assert column(connection, "SELECT bio FROM users WHERE user_id = 2") == ["bio"]


def test_a_node_has_the_columns_that_challenges_read_and_indexes_to_read_by(node: Connection) -> None:
    columns = "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attname"
    assert column(node, columns, "saves") == [
        "blocknumber", "is_current", "is_delete", "save_item_id", "save_type", "txhash", "user_id",
    ]  # fmt: skip
    assert column(node, columns, "challenges") == ["active", "amount", "id", "starting_block", "step_count"]
    assert "playlist_contents" in column(node, columns, "playlists")  # of which all is published
    types = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s"
    assert value(node, types, "saves", "save_type") == "text"
    assert value(node, types, "users", "handle_lc") == "character varying(50)"
    indexes = "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = %s::regclass"
    keys = {one.split(" USING btree ")[1] for one in column(node, indexes, "plays")}
    assert keys == {"(id)", "(created_at)", "(user_id, created_at) WHERE (user_id IS NOT NULL)"}
    assert any(one.endswith("(user_id, repost_type)") for one in column(node, indexes, "reposts"))
    unique = "SELECT count(*) FROM pg_index WHERE indrelid = %s::regclass AND indisunique"
    assert value(node, unique, "plays") == 0
    assert value(node, unique, "saves") == 1
    assert rows(node, "SELECT conname FROM pg_constraint WHERE contype = 'f'") == []


def test_nothing_of_shares_is_told_of_as_if_it_were_somebody_elses(hub: Connection, node: Connection) -> None:
    for connection in (hub, node):
        found = column(connection, "SELECT what FROM audius_challenges.doctor()")
        assert [what for what in found if "logical replication" in what] == []


def test_what_a_node_writes_is_sent_and_leaves_nothing_there(pair: Shares, hub: Connection, node: Connection) -> None:
    before = value(node, "SELECT number FROM audius_challenges.share_sent")
    with node.transaction():
        node.execute("UPDATE challenge_profile_completion SET follows = follows WHERE user_id IN (2, 4)")
    pair.catch_up()
    assert value(node, "SELECT count(*) FROM audius_challenges.share_batch") == 0
    assert rows(
        hub,
        "SELECT number - %s, share, relation, users, is_held FROM audius_challenges.share_batch WHERE share = '0/2'",
        before,
    ) == [(1, "0/2", "challenge_profile_completion", [2, 4], False)]
    hub.execute("DELETE FROM audius_challenges.share_batch")
    node.execute("UPDATE audius_challenges.share_sent SET number = %s", [before])


# The guard, where nothing is broken: what is set, and what a transaction sees that is rolled back


def test_a_server_without_shares_has_no_guard(discovery: Discovery, hub: Connection) -> None:
    with closing(discovery.connect()) as connection:
        assert why_not(connection) == []
    assert why_not(hub) == []


@pytest.mark.parametrize(
    ("share", "reasons"),
    [
        ("", ["audius_challenges.share is not set, though audius_challenges.share_plan is subscribed to"]),
        (
            "1/2",
            [
                "the user challenges of share 0/2 have been adopted, this node is 1/2",
                (
                    "the return path has no slot (audius_challenges_return_1_of_2): the primary is not subscribed"
                    " to this node"
                ),
            ],
        ),
        (
            "0/3",
            [
                "the plan is of 2 shares, this node is 0/3",
                "the user challenges of share 0/2 have been adopted, this node is 0/3",
                (
                    "the return path has no slot (audius_challenges_return_0_of_3): the primary is not subscribed"
                    " to this node"
                ),
            ],
        ),
    ],
)
def test_the_guard_knows_what_is_set(node: Connection, share: str, reasons: list[str]) -> None:
    node.execute("SELECT set_config('audius_challenges.share', %s, FALSE)", [share])
    assert why_not(node) == reasons


def test_the_guard_knows_a_server_that_nobody_feeds(discovery: Discovery) -> None:
    with closing(discovery.connect()) as connection:
        connection.execute("SET audius_challenges.share = '0/2'")
        assert why_not(connection)[:2] == [
            "the tables are not fed by any subscription",
            "no plan of shares has arrived",
        ]


MISSING = "the trigger that sends back is missing on user_challenges, AFTER"


@pytest.mark.parametrize(
    ("broken", "reasons"),
    [
        ("DELETE FROM audius_challenges.share_plan", ["no plan of shares has arrived"]),
        (
            "UPDATE audius_challenges.share_plan SET shares = 0",
            ["the plan has no shares: the primary does everything"],
        ),
        (
            "UPDATE audius_challenges.share_plan SET shares = 3",
            ["the plan is of 3 shares, this node is 0/2"],
        ),
        (
            "UPDATE audius_challenges.share_plan SET epoch = 70; UPDATE audius_challenges.share_sent SET epoch = 69",
            ["the user challenges of epoch 70 have not been adopted (adopted: 69)"],
        ),
        (
            "UPDATE audius_challenges.share_plan SET epoch = 70; DELETE FROM audius_challenges.share_sent",
            ["the user challenges of epoch 70 have not been adopted (adopted: none)"],
        ),
        (
            (
                "DELETE FROM audius_challenges.share_beat;"
                " INSERT INTO audius_challenges.share_beat (number) VALUES (5), (6), (9), (11)"
            ),
            ["beats of the primary are missing, so changes were lost"],
        ),
        (
            "SET session_replication_role = replica",
            ["session_replication_role is replica: what is written would not be sent back"],
        ),
        ("DROP TRIGGER audius_challenges_share_insert ON user_challenges", [f"{MISSING} INSERT"]),
        ("DROP TRIGGER audius_challenges_share_update ON user_challenges", [f"{MISSING} UPDATE"]),
        (
            "DROP TRIGGER audius_challenges_share_insert ON challenge_listen_streak",
            ["the trigger that sends back is missing on challenge_listen_streak, AFTER INSERT"],
        ),
        (
            "ALTER TABLE challenge_profile_completion DISABLE TRIGGER audius_challenges_share_update",
            ["trigger audius_challenges_share_update on challenge_profile_completion is disabled"],
        ),
        (
            "ALTER TABLE user_challenges ENABLE ALWAYS TRIGGER audius_challenges_share_insert",
            ["trigger audius_challenges_share_insert on user_challenges is enabled for what is copied"],
        ),
        (
            "ALTER TABLE user_challenges ENABLE REPLICA TRIGGER audius_challenges_share_insert",
            ["trigger audius_challenges_share_insert on user_challenges is enabled for what is copied"],
        ),
        (
            # One that sends some of what is written, in place of ours.
            (
                "DROP TRIGGER audius_challenges_share_update ON user_challenges;"
                " CREATE TRIGGER partial AFTER UPDATE OF amount ON user_challenges FOR EACH STATEMENT"
                " EXECUTE FUNCTION audius_challenges.send_share()"
            ),
            [
                f"{MISSING} UPDATE",
                "there is another trigger on user_challenges, partial, which fires on the primary as well",
            ],
        ),
        (
            (
                "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
                " CREATE TRIGGER on_user_challenge AFTER INSERT ON user_challenges FOR EACH ROW EXECUTE FUNCTION tell()"
            ),
            ["there is another trigger on user_challenges, on_user_challenge, which fires on the primary as well"],
        ),
        (
            (
                "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
                " CREATE TRIGGER on_user_challenge AFTER INSERT ON user_challenges"
                " FOR EACH ROW EXECUTE FUNCTION tell();"
                " ALTER TABLE user_challenges DISABLE TRIGGER on_user_challenge"
            ),
            [],
        ),
        ("DROP TABLE follows", ["table follows does not exist"]),
    ],
)
def test_the_guard_sees_what_the_transaction_sees(node: Connection, broken: str, reasons: list[str]) -> None:
    with node.transaction(force_rollback=True):
        node.execute(broken)
        assert why_not(node) == reasons
    assert why_not(node) == []


def test_an_ordinary_role_sees_the_same(node: Connection) -> None:
    node.execute("CREATE ROLE runner")
    node.execute("SELECT audius_challenges.grant_run('runner')")
    try:
        with node.transaction(force_rollback=True):
            node.execute("DELETE FROM audius_challenges.share_sent")
            node.execute("ALTER SUBSCRIPTION audius_challenges_share_0_of_2 SET (synchronous_commit = off)")
            node.execute("SET audius_challenges.share = '0/3'")
            seen = why_not(node)
            assert len(seen) == 3
            node.execute("SET ROLE runner")
            assert why_not(node) == seen
        node.execute("SET ROLE runner")
        with pytest.raises(errors.InsufficientPrivilege):
            node.execute("SELECT audius_challenges.join_share('0/2', '')")
        assert why_not(node) == []
    finally:
        node.execute("RESET ROLE")
        node.execute("DROP OWNED BY runner")
        node.execute("DROP ROLE runner")


# The guard, where something is broken


@contextmanager
def locked(database: Discovery, table: str) -> Iterator[None]:
    """Has nobody write a table, so that copying into it, or what its subscription has received, waits."""
    with closing(database.connect(autocommit=False)) as connection:
        connection.execute(f"LOCK TABLE {table} IN SHARE MODE")
        yield
        connection.rollback()


def test_the_guard_sees_tables_that_are_not_followed_not_copied_and_being_copied(
    pair: Shares, hub: Connection, node: Connection
) -> None:
    publication = "audius_challenges_share_0_of_2"
    refresh = f"ALTER SUBSCRIPTION {publication} REFRESH PUBLICATION"
    hub.execute(f"ALTER PUBLICATION {publication} DROP TABLE tracks")
    node.execute(refresh)
    assert why_not(node) == ["table tracks is in no subscription"]

    hub.execute(
        f"ALTER PUBLICATION {publication} ADD TABLE tracks"
        " (track_id, owner_id, is_current, is_delete, is_unlisted, stem_of, blocknumber, txhash)"
    )
    node.execute(f"{refresh} WITH (copy_data = false)")
    assert why_not(node) == ["table tracks was subscribed to without a copy"]

    hub.execute(f"ALTER PUBLICATION {publication} DROP TABLE tracks")
    node.execute(refresh)
    node.execute("TRUNCATE tracks")
    hub.execute(
        f"ALTER PUBLICATION {publication} ADD TABLE tracks"
        " (track_id, owner_id, is_current, is_delete, is_unlisted, stem_of, blocknumber, txhash)"
    )
    with locked(pair.nodes[0].database, "tracks"):
        node.execute(refresh)
        until(lambda: why_not(node) == ["table tracks is still being copied (state d)"], "the copy beginning")
    until(lambda: why_not(node) == [], "the copy ending")
    assert differences(pair) == []


def test_the_guard_sees_a_subscription_that_is_disabled_and_one_too_many(
    pair: Shares, hub: Connection, node: Connection
) -> None:
    node.execute("ALTER SUBSCRIPTION audius_challenges_share_0_of_2 DISABLE")
    assert why_not(node) == ["subscription audius_challenges_share_0_of_2 is disabled"]
    node.execute("ALTER SUBSCRIPTION audius_challenges_share_0_of_2 ENABLE")
    assert why_not(node) == []

    hub.execute("CREATE PUBLICATION further FOR TABLE aggregate_user")
    node.execute(
        "CREATE TABLE aggregate_user (user_id integer PRIMARY KEY, follower_count bigint, following_count bigint)"
    )
    node.execute(f"CREATE SUBSCRIPTION further CONNECTION '{conninfo(pair.hub)}' PUBLICATION further")
    assert why_not(node) == []  # of a table that is no affair of shares
    hub.execute("ALTER PUBLICATION further ADD TABLE user_challenges WHERE (user_id < -100)")
    hub.execute("ALTER PUBLICATION further SET (publish = 'insert')")
    node.execute("ALTER SUBSCRIPTION further REFRESH PUBLICATION")
    two = "2 subscriptions feed the tables, it must be one: audius_challenges_share_0_of_2, further"
    until(lambda: why_not(node) == [two], "the table being copied")
    node.execute("DROP SUBSCRIPTION further")
    node.execute("DROP TABLE aggregate_user")
    hub.execute("DROP PUBLICATION further")
    assert why_not(node) == []


def test_the_guard_sees_a_way_back_that_is_gone(pair: Shares, hub: Connection, node: Connection) -> None:
    hub.execute("DROP SUBSCRIPTION audius_challenges_return_0_of_2")
    assert why_not(node) == [
        "the return path has no slot (audius_challenges_return_0_of_2): the primary is not subscribed to this node"
    ]
    gexec(pair.hub, f"audius_challenges.receive_share('0/2', '{conninfo(pair.nodes[0].database)}')")
    assert why_not(node) == []


def test_the_guard_sees_a_slot_that_is_lost(apart: tuple[Shares, Node]) -> None:
    shares, node = apart
    shares.plan(1)
    shares.adopt(node)
    subscription = "audius_challenges_return_0_of_1"
    with closing(node.connect()) as connection, closing(shares.hub.connect()) as hub:
        connection.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        connection.execute("SELECT pg_reload_conf()")
        hub.execute(f"ALTER SUBSCRIPTION {subscription} DISABLE")
        until(lambda: value(connection, "SELECT NOT active FROM pg_replication_slots"), "the primary leaving")
        for _ in range(4):
            connection.execute("SELECT pg_logical_emit_message(FALSE, 'shares', 'something')")
            connection.execute("SELECT pg_switch_wal()")
        connection.execute("CHECKPOINT")
        assert why_not(connection) == [f"slot {subscription} is lost: what was sent back has not arrived"]

        connection.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        connection.execute("SELECT pg_reload_conf()")
        hub.execute(f"ALTER SUBSCRIPTION {subscription} SET (slot_name = NONE)")
        hub.execute(f"DROP SUBSCRIPTION {subscription}")
        connection.execute("SELECT pg_drop_replication_slot(%s)", [subscription])
        gexec(shares.hub, f"audius_challenges.receive_share('0/1', '{conninfo(node.database)}')")
        assert why_not(connection) == []


def test_the_guard_never_forgets_that_changes_were_lost(apart: tuple[Shares, Node]) -> None:
    """A slot that somebody makes anew begins with what comes then, and PostgreSQL says nothing of what is missing."""
    shares, node = apart
    shares.plan(1)
    shares.adopt(node)
    slot = share(1)
    with closing(node.connect()) as connection, closing(shares.hub.connect()) as hub:
        connection.execute(f"ALTER SUBSCRIPTION {slot} DISABLE")
        until(lambda: value(hub, f"SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{slot}'"), "the end")
        hub.execute("SELECT pg_drop_replication_slot(%s)", [slot])
        hub.execute("SELECT build.person(100)")
        tick(hub)
        hub.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
        connection.execute(f"ALTER SUBSCRIPTION {slot} ENABLE")
        tick(hub)
        lost = ["beats of the primary are missing, so changes were lost"]
        until(lambda: why_not(connection) == lost, "the next beat")
        # Nor when none of the beats is kept any more that there were when it happened.
        for _ in range(110):
            tick(hub)
        shares.catch_up()
        assert why_not(connection) == lost
        assert value(connection, "SELECT count(*) FROM users WHERE user_id = 100") == 0


# Adoption


def refused(connection: Connection, call: str, *parameters: object) -> tuple[str, str | None, str | None]:
    """The error in which the call of a function ends: message, detail, hint."""
    with pytest.raises(psycopg.Error) as error:
        connection.execute(f"SELECT audius_challenges.{call}", parameters or None)
    diagnostic = error.value.diag
    message = (diagnostic.message_primary or "").removeprefix("audius_challenges: ")
    return message, diagnostic.message_detail, diagnostic.message_hint


def test_a_node_adopts_what_there_was_when_the_plan_was_made_or_later_and_nothing_else(
    single: tuple[Shares, Node],
) -> None:
    shares, node = single
    with closing(node.connect()) as connection:

        def adopt() -> tuple[str, str | None, str | None]:
            return refused(connection, "adopt_share('')")

        def finish() -> tuple[str, str | None, str | None]:
            return refused(connection, "finish_adoption()")

        def arrives(epoch: int) -> None:
            plan = "SELECT count(*) FROM audius_challenges.share_plan WHERE epoch = %s"
            until(lambda: value(connection, plan, epoch) == 1, f"plan {epoch}")

        # First a plan, and the right one.
        assert adopt()[0] == finish()[0] == "no plan of shares has arrived"
        arrives(shares.plan(2))
        assert adopt()[0] == finish()[0] == "the plan is of 2 shares, this node is 0/1"
        arrives(shares.plan(1))
        assert finish()[:2] == ("the user challenges of epoch 2 have not been copied", None)

        # The plan changes while the copy is under way.
        *first, copy = column(connection, f"SELECT audius_challenges.adopt_share('{conninfo(shares.hub)}')")
        for statement in first:
            connection.execute(statement)
        with locked(node.database, "challenge_listen_streak"):
            connection.execute(copy)
            subscription = "audius_challenges_adopt_0_of_1_epoch_2"
            still = "table public.challenge_listen_streak is still being copied (state d)"
            until(lambda: finish()[0] == still, "the copy beginning")
            reasons = why_not(connection)
            assert "table challenge_listen_streak is still being copied (state d)" in reasons
            assert f"2 subscriptions feed the tables, it must be one: {subscription}, {share(1)}" in reasons
            assert adopt()[0] == f"there is subscription {subscription} already"
            shares.plan(1)
        copied = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'"
        until(lambda: value(connection, copied) == 0, "the copy ending")
        arrives(3)
        message, detail, hint = finish()
        assert message == "the user challenges of epoch 3 have not been copied"
        assert detail == f"Subscription {subscription} has copied what there was before the plan changed."
        assert value(connection, "SELECT epoch FROM audius_challenges.share_sent") == 0
        assert hint is not None
        connection.execute(hint.split(";")[0])

        # By hand, without a copy.
        connection.execute(
            f"CREATE SUBSCRIPTION audius_challenges_adopt_0_of_1_epoch_3 CONNECTION '{conninfo(shares.hub)}'"
            f" PUBLICATION {share(1)}_adopt WITH (copy_data = false)"
        )
        assert finish()[0] == "table public.challenge_listen_streak was subscribed to without a copy"
        connection.execute("DROP SUBSCRIPTION audius_challenges_adopt_0_of_1_epoch_3")

        # As it should be.
        shares.adopt(node)
        assert why_not(connection) == []
        assert rows(connection, "SELECT share, epoch, number FROM audius_challenges.share_sent") == [("0/1", 3, 0)]
        assert adopt()[0] == "this node has adopted the user challenges of epoch 3"
        of_primary = "SELECT user_id, specifier FROM user_challenges WHERE challenge_id = 'p' ORDER BY 1"
        with closing(shares.hub.connect()) as hub:
            assert rows(connection, of_primary) == rows(hub, of_primary)


def share(shares: int) -> str:
    """The first share's publication, and subscription."""
    return f"audius_challenges_share_0_of_{shares}"


def test_a_node_waits_until_its_sources_are_as_late_as_what_it_adopts(single: tuple[Shares, Node]) -> None:
    shares, node = single
    with closing(node.connect()) as connection:
        shares.plan(1)
        until(lambda: value(connection, "SELECT count(*) FROM audius_challenges.share_plan") == 1, "the plan")
        # The share's own subscription stands still, while the primary goes on and the copy is taken.
        with locked(node.database, "follows"):
            shares.hub.psql("UPDATE follows SET blocknumber = 100")
            gexec(node.database, f"audius_challenges.adopt_share('{conninfo(shares.hub)}')")
            copied = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'"
            until(lambda: value(connection, copied) == 0, "the copy ending")
            message = refused(connection, "finish_adoption()")[0]
            assert message.startswith(f"subscription {share(1)} has not come as far as the copy of public.")
        shares.finish_adoption(node)
        assert why_not(connection) == []


def test_whatever_is_under_way_can_send_nothing_of_what_is_being_adopted(single: tuple[Shares, Node]) -> None:
    shares, node = single
    with closing(node.connect()) as connection:
        shares.plan(1)
        shares.adopt(node)
        shares.plan(1)
        until(lambda: value(connection, "SELECT epoch FROM audius_challenges.share_plan") == 2, "the plan")
        first, *_ = column(connection, "SELECT audius_challenges.adopt_share('')")
        connection.execute(first)
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match="this node has not adopted the user challenges"):
            connection.execute("UPDATE user_challenges SET amount = 2")


# What is refused


def test_a_node_is_made_of_empty_tables_without_keys_that_would_stop_it(servers: tuple[Cluster, Cluster]) -> None:
    node = create_discovery(servers[1], "node")
    node.psql(CREATE_EXTENSION, "SELECT build.person(1)")
    with closing(node.connect()) as connection:

        def join(given: str = "0/2") -> tuple[str, str | None]:
            message, _, hint = refused(connection, "join_share(%s, 'host=primary')", given)
            return message, hint

        message, hint = join()
        filled = "public.users, public.blocks, public.challenges"
        assert message == f"there are rows in {filled}: a copy over them would fail, and try again for ever"
        assert hint == f"If this is to be a node: TRUNCATE {filled};"
        connection.execute("TRUNCATE users, blocks, challenges CASCADE")
        connection.execute("INSERT INTO audius_challenges.share_sent VALUES (TRUE, '0/2', 1, 5)")
        assert join()[0].startswith("there are rows in audius_challenges.share_sent:")
        connection.execute("TRUNCATE audius_challenges.share_sent")

        message, hint = join()
        assert message.startswith("there are foreign keys on the tables of this node")
        assert hint is not None
        assert "ALTER TABLE public.user_challenges DROP CONSTRAINT user_challenges_challenge_id_fkey;" in hint
        connection.execute(hint)
        message, hint = join()
        assert message.startswith("there is a unique index on plays:")
        assert hint == "ALTER TABLE public.plays DROP CONSTRAINT plays_pkey;"
        connection.execute(hint)
        message, hint = join()
        assert message.startswith("there are columns that must not be null and that shares do not need:")
        assert hint is not None
        assert "ALTER TABLE public.users ALTER COLUMN created_at DROP NOT NULL;" in hint
        # What is sent of these is a list of columns, whatever a row is found by.
        connection.execute("ALTER TABLE plays REPLICA IDENTITY FULL")
        assert join()[1] == hint
        connection.execute(hint)

        for wrong in ("", "2/2", "-1/2", "0", "0/0", "one"):
            assert join(wrong)[0] == f'invalid share: "{wrong}"'
        printed = column(connection, "SELECT audius_challenges.join_share('0/2', 'password=''x''')")
        assert len(printed) == 10
        assert printed[-2] == "INSERT INTO audius_challenges.share_sent VALUES (TRUE, '0/2', 0, 0)"
        assert printed[0] == "ALTER DATABASE node SET audius_challenges.share = '0/2'"
        assert printed[-1].startswith(f"CREATE SUBSCRIPTION {share(2)} CONNECTION 'password=''x''' PUBLICATION")
        connection.execute("DROP TABLE playlists")
        message, hint = join()
        assert message == 'table "public.playlists" does not exist'
        assert hint == "SELECT audius_challenges.share_tables(); on the primary prints what creates a node's tables."


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            "ALTER TABLE users DROP CONSTRAINT users_pkey, ADD PRIMARY KEY (txhash)",
            'column "user_id" of public.users is not in its replica identity',
        ),
        ("ALTER TABLE tracks REPLICA IDENTITY NOTHING", "public.tracks has no replica identity"),
        ("ALTER TABLE tracks DROP CONSTRAINT tracks_pkey", "public.tracks has no replica identity"),
        (
            f"{SHAPES} ALTER TABLE reposts_0 REPLICA IDENTITY NOTHING",
            "partition reposts_0 of public.reposts has no replica identity",
        ),
        (
            "CREATE TABLE follows_of_bots () INHERITS (follows)",
            "table public.follows has children that are no partitions",
        ),
        (
            (
                "ALTER TABLE users DROP COLUMN handle_lc,"
                " ADD COLUMN handle_lc varchar GENERATED ALWAYS AS (lower(handle)) STORED"
            ),
            'column "handle_lc" of public.users is generated: replication does not send it',
        ),
        ("DROP TABLE saves", 'table "public.saves" does not exist'),
    ],
)
def test_no_publication_is_printed_that_would_stop_the_application(
    discovery: Discovery, made: str, message: str
) -> None:
    discovery.psql(made)
    with closing(discovery.connect()) as connection:
        said, _, hint = refused(connection, "share_tables()")
    assert said.startswith(message)
    assert hint


def test_tables_are_created_in_the_schema_that_the_extension_is_in(
    discovery: Discovery, empty_database: Discovery
) -> None:
    discovery.psql('ALTER SCHEMA public RENAME TO "the network"')
    with closing(discovery.connect()) as connection, closing(empty_database.connect()) as other:
        for statement in column(connection, "SELECT audius_challenges.share_tables()"):
            other.execute(statement)
        tables = "SELECT relname FROM pg_class WHERE relnamespace = '\"the network\"'::regnamespace AND relkind = 'r'"
        assert set(column(other, tables)) == {
            *OF_USERS, *WHOLE, "plays", "user_challenges", "challenge_profile_completion", "challenge_listen_streak",
        }  # fmt: skip
        assert (
            value(
                other,
                "SELECT nspname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace"
                " WHERE extname = 'audius_challenges'",
            )
            == "the network"
        )


def test_a_server_without_logical_wal_is_told_so(discovery: Discovery) -> None:
    with closing(discovery.connect()) as connection:
        for call in ("share_publications(2)", "join_share('0/2', '')"):
            message, _, hint = refused(connection, call)
            assert message == "wal_level is replica: nobody could subscribe to this server"
            assert hint == "ALTER SYSTEM SET wal_level = logical; and restart the server."


def test_what_is_for_the_primary_is_refused_on_a_node_and_the_other_way_round(
    hub: Connection, node: Connection
) -> None:
    for name in ("share_tables()", "share_publications(2)", "receive_share('0/2', '')"):
        message = refused(node, name)[0]
        assert message == f"{name.split('(')[0]}() is for the primary, this is a node of shares"
    for name in ("adopt_share('')", "finish_adoption()"):
        message = refused(hub, name)[0]
        assert message == f"{name.split('(')[0]}() is for nodes: audius_challenges.share is not set here"


@pytest.mark.parametrize("call", ["share_publications(0)", "share_publications(1001)"])
def test_there_are_one_to_a_thousand_shares(hub: Connection, call: str) -> None:
    message = refused(hub, call)[0]
    assert message.startswith("shares must be between 1 and 1000, not ")


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        ("share_publications(NULL)", "shares"),
        ("receive_share(NULL, '')", "share"),
        ("receive_share('0/2', NULL)", "conninfo"),
    ],
)
def test_nothing_is_taken_for_null(hub: Connection, call: str, argument: str) -> None:
    assert refused(hub, call)[0] == f"{argument} must not be null"


# An installation, and the end


def told(connection: Connection) -> list[Notice]:
    """Creates the extension, and listens."""
    connection.execute("CREATE EXTENSION IF NOT EXISTS plpython3u")
    with notices(connection) as heard:
        connection.execute("CREATE EXTENSION audius_challenges")
    return heard


def test_an_installation_on_a_node_fills_and_schedules_nothing(bare_discovery: Discovery) -> None:
    with closing(bare_discovery.connect()) as connection:
        connection.execute("SET audius_challenges.share = '0/2'")
        (heard,) = told(connection)
        assert heard.message == (
            "this database is to be a node of shares (audius_challenges.share is 0/2): nothing was inserted into"
            " challenges, and nothing was scheduled"
        )
        assert value(connection, "SELECT count(*) FROM challenges") == 0


def test_an_installation_where_the_sources_come_by_a_subscription_fills_and_schedules_nothing(
    pair: Shares, hub: Connection
) -> None:
    cluster = pair.nodes[0].cluster
    hub.execute("CREATE PUBLICATION sources FOR TABLE users")
    hub.execute("ALTER PUBLICATION sources SET (publish = 'insert')")
    copy = create_discovery(cluster, "copy")
    with closing(copy.connect()) as connection:
        connection.execute("ALTER TABLE users DROP CONSTRAINT users_blocknumber_fkey, ADD COLUMN location text")
        connection.execute(f"CREATE SUBSCRIPTION sources CONNECTION '{conninfo(pair.hub)}' PUBLICATION sources")
        heard = [one.message for one in told(connection)]
        assert heard == [
            "table users comes by a subscription: nothing was inserted into challenges, and nothing was scheduled"
        ]
        assert value(connection, "SELECT count(*) FROM challenges") == 0
        connection.execute("DROP SUBSCRIPTION sources")
    hub.execute("DROP PUBLICATION sources")
    cluster.drop_database("copy")


LEFT = """
    SELECT 'subscription ' || subname FROM pg_subscription
    INNER JOIN pg_database ON pg_database.oid = subdbid AND datname = current_database()
    UNION ALL SELECT 'publication ' || pubname FROM pg_publication
    UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE database = current_database()
    UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgname LIKE 'audius_challenges_%'
    UNION ALL SELECT 'setting' FROM pg_db_role_setting
    INNER JOIN pg_database ON pg_database.oid = setdatabase AND datname = current_database()
    WHERE setconfig::text LIKE '%audius_challenges.share%'
    UNION ALL SELECT 'plan of ' || shares FROM audius_challenges.share_plan WHERE shares > 0
    UNION ALL SELECT 'adopted' FROM audius_challenges.share_sent
"""
DROP = "audius_challenges.drop_shares()"


@pytest.mark.parametrize("is_primary_first", [True, False])
def test_nothing_is_left_of_shares_whoever_goes_first(single: tuple[Shares, Node], is_primary_first: bool) -> None:
    shares, node = single
    shares.plan(1)
    shares.adopt(node)
    databases = [shares.hub, node.database] if is_primary_first else [node.database, shares.hub]
    for database in databases:
        with closing(database.connect()) as connection:
            assert len(column(connection, LEFT)) > 3
        gexec(database, DROP)
    for database in databases:
        with closing(database.connect()) as connection:
            assert column(connection, LEFT) == []
            assert column(connection, f"SELECT {DROP}") == []
            assert why_not(connection) == []


def test_the_slot_of_a_node_that_is_gone_is_dropped(apart: tuple[Shares, Node]) -> None:
    shares, node = apart
    with closing(shares.hub.connect()) as hub:
        node.cluster.close()
        until(lambda: value(hub, "SELECT NOT active FROM pg_replication_slots"), "the node leaving")
        statements = column(hub, f"SELECT {DROP}")
        assert f"SELECT pg_drop_replication_slot('{share(1)}')" in statements
        with pytest.raises(ClusterError, match="ALTER SUBSCRIPTION"):
            gexec(shares.hub, DROP)  # PostgreSQL says how to do without the other server
        hub.execute("ALTER SUBSCRIPTION audius_challenges_return_0_of_1 DISABLE")
        hub.execute("ALTER SUBSCRIPTION audius_challenges_return_0_of_1 SET (slot_name = NONE)")
        gexec(shares.hub, DROP)
        assert column(hub, LEFT) == []


def test_on_a_server_without_shares_there_is_nothing_to_drop(discovery: Discovery) -> None:
    with closing(discovery.connect()) as connection:
        assert column(connection, f"SELECT {DROP}") == []


def test_a_primary_that_is_taken_for_a_node_keeps_its_pauses(discovery: Discovery) -> None:
    discovery.psql(f"ALTER DATABASE {discovery.name} SET audius_challenges.share = '0/2'")
    with closing(discovery.connect()) as connection:
        assert column(connection, f"SELECT {DROP}") == [
            f"ALTER DATABASE {discovery.name} RESET audius_challenges.share"
        ]
