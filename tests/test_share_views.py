"""What people see of shares where they are at work: a primary and a node, real replication, and what stops it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from devtools.cluster import Cluster
from devtools.discovery import CREATE_EXTENSION, Discovery, create_discovery, require_extension
from devtools.shares import SETTINGS, Node, Shares, conninfo
from tests.sessions import TICK, Connection, column, notices, rows, until, value

FINDINGS = "SELECT severity, what, found, expected, statement FROM audius_challenges.doctor()"
SUBSCRIPTION = "audius_challenges_share_0_of_1"
RETURN = "audius_challenges_return_0_of_1"


@pytest.fixture(scope="module")
def shares(root: Path | None) -> Iterator[Shares]:
    """A primary, and one node that works."""
    settings = {**SETTINGS, "max_slot_wal_keep_size": "1GB"}
    with Cluster(root=root, cron_database="postgres", settings=settings) as cluster:
        require_extension(cluster)
        hub = create_discovery(cluster, "discovery")
        hub.psql(CREATE_EXTENSION, "UPDATE challenges SET active = TRUE")
        with Shares(hub, settings={"max_slot_wal_keep_size": "1GB"}) as shares:
            shares.set_up(1)
            shares.settle()
            yield shares


@pytest.fixture
def node(shares: Shares) -> Node:
    (node,) = shares.nodes
    return node


@pytest.fixture(scope="module")
def on_node(shares: Shares) -> Iterator[Connection]:
    """A session on the node."""
    (node,) = shares.nodes
    with closing(node.connect()) as connection:
        yield connection


@pytest.fixture(scope="module")
def on_hub(shares: Shares) -> Iterator[Connection]:
    """A session on the primary."""
    with closing(shares.hub.connect()) as connection:
        yield connection


@contextmanager
def session(where: Discovery | Connection) -> Iterator[Connection]:
    """A session in the database, or the one that is given."""
    if isinstance(where, Discovery):
        with closing(where.connect()) as connection:
            yield connection
    else:
        yield where


def found(where: Discovery | Connection, what: str) -> list[tuple[str, ...]]:
    """What the doctor finds by this name."""
    with session(where) as connection:
        return [row for row in rows(connection, FINDINGS) if re.fullmatch(what, row[1])]


def execute(where: Discovery | Connection, *statements: str) -> None:
    with session(where) as connection:
        for statement in statements:
            connection.execute(statement)


def shown(where: Discovery | Connection, *columns: str) -> list[tuple[object, ...]]:
    with session(where) as connection:
        return rows(connection, f"SELECT {', '.join(columns)} FROM audius_challenges.share_status")


NOTHING = "this node does nothing"


@dataclass(frozen=True)
class Trouble:
    """What somebody does on the node, and what is said of it.

    by_hand: what is done where no statement is given
    after: what else puts the node back as it was
    """

    does: Sequence[str]
    found: str
    statement: str = ""
    by_hand: Sequence[str] = ()
    after: Sequence[str] = ()
    what: str = NOTHING


SENDS = (
    "CREATE TRIGGER audius_challenges_share_insert AFTER INSERT ON public.user_challenges"
    " REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION audius_challenges.send_share();"
)
TROUBLES = {
    "a trigger that is gone": Trouble(
        ["DROP TRIGGER audius_challenges_share_insert ON user_challenges"],
        "the trigger that sends back is missing on user_challenges, AFTER INSERT",
        SENDS,
    ),
    "a trigger that is disabled": Trouble(
        ["ALTER TABLE challenge_listen_streak DISABLE TRIGGER audius_challenges_share_update"],
        "trigger audius_challenges_share_update on challenge_listen_streak is disabled",
        "ALTER TABLE public.challenge_listen_streak ENABLE TRIGGER audius_challenges_share_update;",
    ),
    "a trigger that fires for what is copied": Trouble(
        ["ALTER TABLE user_challenges ENABLE ALWAYS TRIGGER audius_challenges_share_update"],
        "trigger audius_challenges_share_update on user_challenges is enabled for what is copied",
        "ALTER TABLE public.user_challenges ENABLE TRIGGER audius_challenges_share_update;",
    ),
    "the application's trigger": Trouble(
        [
            "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            'CREATE TRIGGER "Tell, all" AFTER INSERT ON user_challenges FOR EACH ROW EXECUTE FUNCTION tell()',
        ],
        "there is another trigger on user_challenges, Tell, all, which fires on the primary as well",
        'ALTER TABLE public.user_challenges DISABLE TRIGGER "Tell, all";',
        after=["DROP FUNCTION tell() CASCADE"],
    ),
    "a subscription that is disabled": Trouble(
        [f"ALTER SUBSCRIPTION {SUBSCRIPTION} DISABLE"],
        f"subscription {SUBSCRIPTION} is disabled",
        f"ALTER SUBSCRIPTION {SUBSCRIPTION} ENABLE;",
    ),
    "a setting that is gone": Trouble(
        ["ALTER DATABASE node_0_of_1 RESET audius_challenges.share"],
        "audius_challenges.share is not set, though .*",
        "ALTER DATABASE node_0_of_1 SET audius_challenges.share = '0/1';",
    ),
    "a plan of others": Trouble(
        ["UPDATE audius_challenges.share_plan SET shares = 3"],
        "the plan is of 3 shares, this node is 0/1",
        by_hand=["UPDATE audius_challenges.share_plan SET shares = 1"],
    ),
    "a plan without shares": Trouble(
        ["UPDATE audius_challenges.share_plan SET shares = 0"],
        "the plan has no shares: .*",
        by_hand=["UPDATE audius_challenges.share_plan SET shares = 1"],
    ),
    "an adoption of another plan": Trouble(
        ["UPDATE audius_challenges.share_sent SET epoch = epoch + 7"],
        "the user challenges of epoch 1 have not been adopted .*",
        by_hand=["UPDATE audius_challenges.share_sent SET epoch = epoch - 7"],
    ),
    "an adoption of another share": Trouble(
        ["UPDATE audius_challenges.share_sent SET share = '1/2'"],
        "the user challenges of share 1/2 have been adopted, this node is 0/1",
        by_hand=["UPDATE audius_challenges.share_sent SET share = '0/1'"],
    ),
    "beats that are missing": Trouble(
        ["INSERT INTO audius_challenges.share_beat (number) VALUES (10001), (10003)"],
        "beats of the primary are missing.*",
        by_hand=["DELETE FROM audius_challenges.share_beat WHERE number > 10000"],
    ),
    "another subscription": Trouble(
        [
            "CREATE SUBSCRIPTION other CONNECTION 'dbname=nowhere' PUBLICATION none WITH (connect = false)",
            (
                "INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate, srsublsn)"
                " SELECT oid, 'users'::regclass, 'r', '0/1' FROM pg_subscription WHERE subname = 'other'"
            ),
        ],
        "2 subscriptions feed the tables.*",
        by_hand=["ALTER SUBSCRIPTION other SET (slot_name = NONE)", "DROP SUBSCRIPTION other"],
    ),
    "a foreign key": Trouble(
        ["ALTER TABLE user_challenges ADD CONSTRAINT of_users FOREIGN KEY (challenge_id) REFERENCES challenges"],
        "without it: ALTER TABLE public.user_challenges DROP CONSTRAINT of_users;",
        "ALTER TABLE public.user_challenges DROP CONSTRAINT of_users;",
        what="a foreign key on a node's tables.*",
    ),
    "a unique index on plays": Trouble(
        ["CREATE UNIQUE INDEX once ON plays (id)"],
        "without it: DROP INDEX public.once;",
        "DROP INDEX public.once;",
        what="a unique index on a node's plays",
    ),
    "a column that shares do not need": Trouble(
        ["ALTER TABLE playlists ADD COLUMN later text, ADD COLUMN latest text, ALTER COLUMN latest SET NOT NULL"],
        "without it: ALTER TABLE public.playlists ALTER COLUMN latest DROP NOT NULL;",
        "ALTER TABLE public.playlists ALTER COLUMN latest DROP NOT NULL;",
        what="columns of a node's tables that must not be null, .*",
        after=["ALTER TABLE playlists DROP COLUMN later, DROP COLUMN latest"],
    ),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_what_stops_a_node_is_found_and_gone_once_its_statement_has_run(
    node: Node, on_node: Connection, name: str
) -> None:
    trouble = TROUBLES[name]
    # In which session another setting holds.
    asked = node.database if any("DATABASE" in each for each in trouble.does) else on_node
    assert found(asked, trouble.what) == []
    execute(on_node, *trouble.does)
    findings = [row for row in found(asked, trouble.what) if re.fullmatch(trouble.found, row[2])]
    assert len(findings) == 1, found(asked, trouble.what)
    ((severity, _, _, expected, statement),) = findings
    assert severity == ("critical" if trouble.what == NOTHING else "warning")
    assert statement == trouble.statement
    assert expected
    assert not expected.startswith("see docs")
    assert bool(statement) is not bool(trouble.by_hand)
    if trouble.what == NOTHING:
        ((status, says),) = shown(asked, "status", "says")
        assert status == "stopped"
        assert re.search(trouble.found, str(says))
    execute(on_node, *([statement] if statement else trouble.by_hand))
    until(lambda: not found(asked, trouble.what), "it is mended")
    execute(on_node, *trouble.after)


CHALLENGES = "SELECT DISTINCT challenge_id IN ('u', 'fp', 'p', 'v', 'e'), status FROM challenge_status ORDER BY 1 DESC"
PROBLEM = "SELECT DISTINCT tick_problem FROM challenge_status"


def test_both_sides_say_what_each_challenge_does(on_hub: Connection, on_node: Connection) -> None:
    assert rows(on_hub, CHALLENGES) == [(True, "ok"), (False, "ok")]
    assert rows(on_node, CHALLENGES) == [(True, "ok"), (False, "elsewhere")]
    assert value(on_hub, PROBLEM) is None
    assert value(on_node, PROBLEM) is None
    assert shown(on_hub, "number") == shown(on_node, "number")


def test_the_primary_is_told_why_a_node_does_nothing(shares: Shares, on_hub: Connection, on_node: Connection) -> None:
    (node,) = shares.nodes
    trigger = "challenge_listen_streak {} TRIGGER audius_challenges_share_update"
    says = "trigger audius_challenges_share_update on challenge_listen_streak is disabled"
    execute(on_node, f"ALTER TABLE {trigger.format('DISABLE')}")
    node.tick()
    shares.catch_up()
    execute(on_hub, TICK)
    assert shown(on_hub, "status", "says") == [("stopped", says)]
    assert rows(on_hub, CHALLENGES) == [(True, "late"), (False, "ok")]
    assert value(on_hub, PROBLEM) == f"node 0/1 does nothing: {says}"
    ((_, _, has, _, _),) = found(on_hub, "node 0/1 does nothing")
    assert has == says
    # There, one finding says it, though the last tick has, too.
    assert rows(on_node, CHALLENGES) == [(True, "stopped"), (False, "elsewhere")]
    assert value(on_node, PROBLEM) == says
    assert [row[1] for row in rows(on_node, FINDINGS) if row[2] == says] == [NOTHING]
    execute(on_node, f"ALTER TABLE {trigger.format('ENABLE')}")
    shares.tick()
    assert shown(on_hub, "status") == [("ok",)]
    assert value(on_hub, PROBLEM) is None


def test_what_is_lost_on_the_way_is_found_and_made_good(
    shares: Shares, on_hub: Connection, on_node: Connection
) -> None:
    execute(on_hub, "SELECT build.person(5, is_verified => TRUE)")
    shares.catch_up()
    (node,) = shares.nodes
    node.tick()
    shares.catch_up()
    ((lost,),) = rows(
        on_hub, "DELETE FROM audius_challenges.share_batch WHERE challenge_id = 'v' RETURNING share_batch.number"
    )
    with pytest.raises(psycopg.Error, match="missing"):
        execute(on_hub, TICK)
    ((status, problem, number),) = shown(on_hub, "status", "problem", "number")
    assert (status, number) == ("gap", lost - 1)
    assert rows(on_hub, CHALLENGES) == [(True, "late"), (False, "ok")]
    assert value(on_hub, PROBLEM) == problem
    ((severity, _, has, expected, _),) = found(on_hub, "share 0/1 is not written.*")
    assert (severity, has) == ("critical", problem)
    (call,) = re.findall(r"SELECT audius_challenges\.resend\(\);", expected)
    execute(on_node, call)
    shares.settle()
    assert shown(on_hub, "status", "problem") == [("ok", None)]
    assert found(on_hub, "share 0/1 is not written.*") == []
    assert rows(on_hub, "SELECT user_id FROM user_challenges WHERE challenge_id = 'v'") == [(5,)]


def test_what_is_adopted_is_not_adopted_again(on_node: Connection) -> None:
    with notices(on_node) as heard:
        assert rows(on_node, "SELECT audius_challenges.finish_adoption()") == []
    (epoch,) = column(on_node, "SELECT epoch FROM audius_challenges.share_sent")
    assert [one.message for one in heard] == [
        f"this node has adopted the user challenges of epoch {epoch}: nothing is left to do"
    ]


def test_both_sides_are_well(on_hub: Connection, on_node: Connection) -> None:
    columns = ("share", "status", "plan", "epoch", "says", "problem", "subscription", "slot", "copying")
    well: list[tuple[object, ...]] = [("0/1", "ok", 1, 1, None, None, "running", "active", [])]
    until(lambda: shown(on_node, *columns) == well, "the node is well")
    assert found(on_node, ".*(share|node|subscri|logical|replica|publi|slot).*") == []
    assert found(on_hub, ".*(share|subscri|logical|replica|publi|slot|fail).*|node .* not fed") == []
    ((subscription, slot, apply_errors, held),) = shown(on_hub, "subscription", "slot", "apply_errors", "slot_bytes")
    assert (subscription, slot, apply_errors) == ("running", "active", 0)
    assert isinstance(held, int)


def test_a_return_path_that_is_cut_is_found_on_both_sides(on_hub: Connection, on_node: Connection) -> None:
    execute(on_hub, f"ALTER SUBSCRIPTION {RETURN} DISABLE")
    ((severity, _, has, _, statement),) = found(on_hub, f'subscription "{RETURN}" receives nothing')
    assert (severity, has) == ("critical", "it is disabled")
    until(lambda: shown(on_node, "slot") == [("inactive",)], "the slot is left")
    ((severity, _, has, _, _),) = found(on_node, "nobody reads the slot of a share")
    assert severity == "warning"
    assert RETURN in has
    execute(on_hub, statement)
    until(lambda: shown(on_node, "slot") == [("active",)], "the slot is read")
    assert found(on_hub, f'subscription "{RETURN}".*') == []
    assert found(on_node, "nobody reads the slot of a share") == []


def test_what_the_node_cannot_take_in_is_found(shares: Shares, on_hub: Connection, on_node: Connection) -> None:
    execute(on_node, "INSERT INTO users (user_id, is_current, txhash) VALUES (77, TRUE, 'x')")
    execute(on_hub, "SELECT build.person(77, txhash => 'x')")
    what = f'subscription "{SUBSCRIPTION}" has failed.*'
    until(lambda: found(on_node, what), "it fails")
    ((severity, _, has, expected, _),) = found(on_node, what)
    assert severity == "warning"
    assert re.fullmatch(r"\d+ times", has)
    execute(on_node, "DELETE FROM users")
    shares.catch_up()

    def be_steady_after(seconds: int) -> None:
        execute(
            on_node,
            f"""
            DO LANGUAGE plpython3u $$
            from audius_challenges.operation import checks_of_shares
            checks_of_shares.STEADY = {seconds}
            $$
            """,
        )

    # A minute's patience is not for tests.
    be_steady_after(0)
    assert found(on_node, what) == []
    ((failures,),) = shown(on_node, "apply_errors")
    assert isinstance(failures, int)
    assert failures > 0
    be_steady_after(60)
    (reset,) = re.findall(r"SELECT pg_stat_reset_subscription_stats\(\d+\);", expected)

    def is_mended() -> bool:
        execute(on_node, reset)
        return not found(on_node, what)

    until(is_mended, "it begins to count anew")
    assert shown(on_node, "apply_errors") == [(0,)]


def test_a_role_that_looks_sees_where_nothing_connects_to(node: Node, on_node: Connection) -> None:
    execute(on_node, "CREATE ROLE watcher LOGIN", "SELECT audius_challenges.grant_status('watcher')")
    with closing(node.database.connect("watcher")) as connection:
        found_by_him = rows(connection, "SELECT share, status, subscription, slot FROM audius_challenges.share_status")
        assert found_by_him == [("0/1", "ok", "running", "active")]
        said = [row for row in rows(connection, FINDINGS) if "not checked" in row[1]]
        of_others = ["privileges of the role that ticks", "old transactions of other roles"]
        assert [row[1] for row in said] == [f"not checked: {what}" for what in of_others]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT subconninfo FROM pg_subscription")
    execute(on_node, "DROP OWNED BY watcher", "DROP ROLE watcher")


def test_a_copy_under_way_is_shown_by_its_tables(shares: Shares, on_hub: Connection, on_node: Connection) -> None:
    """A node that adopts anew, and of whose tables one cannot be written yet."""
    number = value(on_hub, "SELECT audius_challenges.plan_shares(1)")
    (node,) = shares.nodes
    arrived = "SELECT epoch FROM audius_challenges.share_plan"
    until(lambda: value(on_node, arrived) == number, "the plan")
    with closing(node.connect(autocommit=False)) as other:
        *cleared, copied = column(on_node, "SELECT audius_challenges.adopt_share(%s)", conninfo(shares.hub))
        for statement in cleared:
            on_node.execute(statement)
        other.execute("LOCK TABLE challenge_listen_streak IN SHARE MODE")
        on_node.execute(copied)
        until(lambda: shown(on_node, "copying") == [(["challenge_listen_streak"],)], "the others are copied")
        texts = [row[2] for row in found(on_node, NOTHING)]
        assert "table challenge_listen_streak is still being copied (state d)" in texts, texts
        assert shown(on_node, "status") == [("stopped",)]
        other.rollback()
    until(lambda: shown(on_node, "copying") == [([],)], "all are copied")
    shares.finish_adoption(node)
    until(lambda: found(on_node, NOTHING) == [], "it works")
