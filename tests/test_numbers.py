"""Numbers of the application's tables: of other types, beyond integer, and clocks that begin again at lower ones."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from audius_challenges.challenges import CHALLENGES
from audius_challenges.sources import INTEGER, TABLES
from devtools.cluster import Cluster
from devtools.discovery import Discovery
from tests.sessions import RUN_ORDER, Connection, completed, failing, rows, statuses, tick, value, well

NUMBERS = [
    (table.name, column) for table in TABLES.values() for column, types in table.columns.items() if types is INTEGER
]
FRIDAY = "2025-03-07 10:00+00"
PAID = """
    SELECT challenge_id::text, user_id, specifier::text, is_complete, current_step_count, completed_blocknumber, amount
    FROM user_challenges
    ORDER BY challenge_id COLLATE "C", user_id, specifier COLLATE "C"
"""
REPORT = f"SELECT challenge_id, status, error, rows_inserted FROM reconcile_challenges(as_of => '{FRIDAY}')"


def qualify_everybody(connection: Connection, first: int) -> None:
    """A user for each challenge, from this id on."""
    connection.execute("UPDATE challenges SET active = TRUE, starting_block = 0")
    for number, challenge in enumerate(RUN_ORDER):
        connection.execute("SELECT build.qualify(%s, %s)", [challenge, first + number])


@pytest.fixture(scope="module")
def peopled(cluster: Cluster, full_template: str) -> Iterator[Discovery]:
    """A database in which somebody has qualified for every challenge, before and after the first build."""
    cluster.create_database("numbers", full_template)
    database = Discovery(cluster, "numbers")
    with closing(database.connect()) as session:
        qualify_everybody(session, 10)
        session.execute(f"SELECT FROM reconcile_challenges('{{p,u,e,v}}', as_of => '{FRIDAY}')")
        qualify_everybody(session, 50)
    yield database
    cluster.drop_database("numbers")


def alter(connection: Connection, table: str, columns: list[str], kind: str, using: str = "{}") -> None:
    """Other types for columns of a table."""
    actions = (f"ALTER COLUMN {name} TYPE {kind} USING {using.format(name)}" for name in columns)
    connection.execute(f"ALTER TABLE {table} {', '.join(actions)}")


def columns_of(table: str) -> list[str]:
    """Its numbers."""
    return [column for each, column in NUMBERS if each == table]


def paid(database: Discovery, change: list[tuple[str, str]]) -> tuple[list[Any], list[Any]]:
    """What a run reports, and what is paid then, where these columns are bigints; nothing of it stays.

    In a session of its own: triggers in PL/pgSQL keep the types that they have met.
    """
    with closing(database.connect()) as session, session.transaction(force_rollback=True):
        for table in dict(change):
            alter(session, table, [column for each, column in change if each == table], "bigint")
        return rows(session, REPORT), rows(session, PAID)


CHANGES = [
    *[[number] for number in NUMBERS],
    *[[(table, column) for column in columns_of(table)] for table in TABLES if columns_of(table)],
    NUMBERS,
]


def test_every_number_may_be_a_bigint(peopled: Discovery) -> None:
    """Each column alone, those of each table, and all of them."""
    expected = paid(peopled, [])
    assert {status for _, status, *_ in expected[0]} == {"ok"}
    assert len(expected[1]) > len(RUN_ORDER)
    assert [change for change in CHANGES if paid(peopled, change) != expected] == []
    assert len(CHANGES) > 50


@pytest.mark.parametrize("kind", ["smallint", "numeric"])
def test_a_number_of_another_type_is_refused_by_the_columns_name(discovery: Discovery, kind: str) -> None:
    with closing(discovery.connect()) as session:
        keys = "SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype = 'f'"
        for table, name in rows(session, keys):
            session.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
        session.execute("UPDATE challenges SET active = TRUE, starting_block = 0, step_count = 1")
        for table, column in NUMBERS:
            with session.transaction(force_rollback=True):
                alter(session, table, [column], kind, "least({}, 100)")
                found = statuses(session)
            message = f'column "{column}" of table "public.{table}" is of type {kind}'
            for challenge in CHALLENGES:
                status, error = found[challenge.id]
                if column in challenge.reads.get(table, ()) or table == "challenges":
                    assert (status, (error or "")[: len(message)]) == ("failed", message)
                else:
                    assert (status, error) == ("ok", None)


BEYOND = 1 << 33
OF_IDS = {"cp", "cs", "w", "t", "b", "s", "r", "rv", "rd"}
"""Challenges whose specifiers are ids throughout, but for a `t`; those of others begin with one."""
NAMED_IN_A_CONTEST = """
    SELECT jsonb_array_elements_text(events.event_data -> 'winners')::bigint
    FROM events
"""


def widen_everything(connection: Connection) -> None:
    """Every number a bigint, also those of the application's triggers."""
    for table in TABLES:
        if columns_of(table):
            alter(connection, table, columns_of(table), "bigint")
    for statement in (
        "ALTER TABLE notification ALTER user_ids TYPE bigint[], ALTER blocknumber TYPE bigint",
        "ALTER TABLE user_challenges_log ALTER user_id TYPE bigint",
        "ALTER SEQUENCE plays_id_seq AS bigint",
    ):
        connection.execute(statement)


def lift(connection: Connection) -> None:
    """Every id and block number that is an integer becomes greater than one can be, but ids that contests name."""
    connection.execute("SET LOCAL session_replication_role = replica")
    connection.execute(
        f"UPDATE user_challenges SET specifier = regexp_replace(specifier, '^[0-9a-f]+',"
        f" to_hex(user_id + {BEYOND})), user_id = user_id + {BEYOND},"
        f" completed_blocknumber = completed_blocknumber + {BEYOND} WHERE user_id < {BEYOND}"
    )
    connection.execute(f"DELETE FROM blocks WHERE number + {BEYOND} IN (SELECT number FROM blocks)")
    for table, column in NUMBERS:
        others = {("plays", "id"), ("blocks", "number"), ("user_events", "referrer")}
        ids = column.endswith(("_id", "blocknumber")) or (table, column) in others
        if ids and table not in ("user_challenges", "challenges"):
            but = f" AND {column} NOT IN ({NAMED_IN_A_CONTEST})" if column == "track_id" else ""
            connection.execute(f"UPDATE {table} SET {column} = {column} + {BEYOND} WHERE {column} < {BEYOND}{but}")
    connection.execute("UPDATE blocks SET blockhash = number::text")


def specifier_beyond(challenge: str, specifier: str, user: int) -> str:
    """What a specifier becomes when every id is greater."""
    if challenge in OF_IDS:
        return ":".join(part if part == "t" else f"{int(part, 16) + BEYOND:x}" for part in specifier.split(":"))
    if challenge in {"tt", "tut", "tp"}:
        return specifier
    return f"{user + BEYOND:x}" + specifier.removeprefix(f"{user:x}")


def paid_in_two_waves(session: Connection, *, is_lifted: bool) -> list[Any]:
    """What is paid by a first build and by the feed."""
    if is_lifted:
        widen_everything(session)
    for first in (10, 50):
        with session.transaction():
            qualify_everybody(session, first)
            if is_lifted:
                lift(session)
        if first == 10:
            assert {status for _, status, *_ in rows(session, REPORT)} == {"ok"}
            session.execute("SET audius_challenges.sweep_users = 0")
    assert tick(session) == []
    assert failing(session) == {}
    return rows(session, PAID)


def test_numbers_may_be_greater_than_an_integer(cluster: Cluster, full_template: str) -> None:
    found = []
    for is_lifted in (False, True):
        cluster.create_database("beyond", full_template)
        try:
            with closing(Discovery(cluster, "beyond").connect()) as session:
                found.append(paid_in_two_waves(session, is_lifted=is_lifted))
        finally:
            cluster.drop_database("beyond")
    integers, lifted = found
    assert lifted == [
        (
            challenge,
            user + BEYOND,
            specifier_beyond(challenge, specifier, user),
            is_complete,
            steps,
            None if block is None else block + BEYOND,
            amount,
        )
        for challenge, user, specifier, is_complete, steps, block, amount in integers
    ]
    assert len(lifted) > 2 * len(RUN_ORDER)


def test_a_user_whose_id_does_not_fit_user_challenges_is_set_aside(discovery: Discovery) -> None:
    with closing(discovery.connect()) as session:
        for table in ("users", "tracks", "playlists", "plays"):
            alter(session, table, columns_of(table), "bigint")
        session.execute("UPDATE challenges SET active = TRUE, starting_block = 0")
        challenges = ("u", "fp", "p", "v", "e")
        for number, challenge in enumerate(challenges):
            session.execute("SELECT build.qualify(%s, %s)", [challenge, 10 + number])
            session.execute("SELECT build.qualify(%s, %s)", [challenge, 50 + number])
        for table, owner in (
            ("users", "user_id"),
            ("tracks", "owner_id"),
            ("playlists", "playlist_owner_id"),
            ("plays", "user_id"),
        ):
            session.execute(f"UPDATE {table} SET {owner} = {owner} + {BEYOND} WHERE {owner} >= 50")
        for table, owner in (("follows", "follower_user_id"), ("saves", "user_id"), ("reposts", "user_id")):
            alter(session, table, [owner], "bigint")
            session.execute(f"UPDATE {table} SET {owner} = {owner} + {BEYOND} WHERE {owner} >= 50")
        assert statuses(session) == well(session)
        for number, challenge in enumerate(challenges):
            paid = "SELECT user_id FROM user_challenges WHERE challenge_id = %s AND is_complete"
            assert (challenge, rows(session, paid, challenge)) == (challenge, [(10 + number,)])
            aside = "SELECT user_id FROM audius_challenges.set_aside WHERE challenge_id = %s AND error ~ 'out of range'"
            assert BEYOND + 50 + number in {user for (user,) in rows(session, aside, challenge)}


def test_block_numbers_that_do_not_fit_completed_blocknumber_are_an_error_that_names_it(discovery: Discovery) -> None:
    with closing(discovery.connect()) as session:
        alter(session, "blocks", ["number"], "bigint")
        session.execute("SELECT build.person(255, is_verified => TRUE)")
        assert statuses(session) == well(session)
        session.execute("SELECT build.person(256, is_verified => TRUE)")
        blocks = f"SELECT n::text, {BEYOND} + n FROM generate_series(1, 30) AS n"
        session.execute(f"INSERT INTO blocks (blockhash, number) {blocks}")
        for status, error in statuses(session).values():
            assert status == "failed"
            assert error == (
                f'block number {BEYOND + 30} does not fit column "completed_blocknumber" of table'
                ' "public.user_challenges" HINT: ALTER TABLE public.user_challenges ALTER COLUMN completed_blocknumber'
                " TYPE bigint; rewrites the table."
            )
        alter(session, "user_challenges", ["completed_blocknumber"], "bigint")
        alter(session, "notification", ["blocknumber"], "bigint")
    with closing(discovery.connect()) as session:
        assert statuses(session) == well(session)
        paid = "SELECT user_id, completed_blocknumber FROM user_challenges WHERE challenge_id = 'v' ORDER BY 1"
        assert rows(session, paid) == [(255, 100), (256, BEYOND + 30)]


# Clocks that begin again at lower numbers

HIGH, MANY = 1_000_000, 700
# For each source: so many rows that it has a position, and one that completes a challenge of user 7 or adds to it.
FILLS = {
    "users": "SELECT build.person(1000 + n, blocknumber => {block})",
    "follows": "SELECT build.follow(1000 + n, 1, blocknumber => {block})",
    "saves": "SELECT build.save(1000 + n, 1, blocknumber => {block})",
    "reposts": "SELECT build.repost(1000 + n, 1, blocknumber => {block})",
    "tracks": "SELECT build.track(1000 + n, 1000 + n, blocknumber => {block})",
    "playlists": "SELECT build.playlist(1000 + n, 1000 + n, blocknumber => {block})",
    "plays": "SELECT build.play(1000 + n, 1, timestamp '2024-01-01' + n * interval '1 s', id => {block})",
}
DEEDS = {
    "users": ("v", "SELECT build.person(7, is_verified => TRUE, txhash => 'new', blocknumber => {block})"),
    "follows": ("p", "SELECT build.follow(7, n, blocknumber => {block}) FROM generate_series(1, 5) AS n"),
    "saves": ("p", "SELECT build.save(7, 1, blocknumber => {block})"),
    "reposts": ("p", "SELECT build.repost(7, 1, blocknumber => {block})"),
    "tracks": ("u", "SELECT build.track(n, 7, blocknumber => {block}) FROM generate_series(1, 3) AS n"),
    "playlists": ("fp", "SELECT build.playlist(7, 7, blocknumber => {block})"),
    "plays": ("e", "SELECT build.play(7, 1, '2024-05-01', id => {block})"),
}
# Of the user before, who lacks just that.
BEFORE = {
    "p": "SELECT build.qualify_p(7)",
    "follows": "DELETE FROM follows WHERE follower_user_id = 7",
    "saves": "DELETE FROM saves WHERE user_id = 7",
    "reposts": "DELETE FROM reposts WHERE user_id = 7",
}
WROTE = "SELECT count(*) FROM user_challenges WHERE (challenge_id, user_id) = (%s, 7) AND (is_complete OR %s = 'e')"


def prepare(session: Connection, source: str) -> str:
    """A source whose numbers have come far, followed by all; a user who lacks one thing. Returns the challenge."""
    challenge, _ = DEEDS[source]
    session.execute("UPDATE challenges SET active = TRUE, starting_block = 0")
    if challenge == "p":
        session.execute(BEFORE["p"])
        session.execute(BEFORE[source])
    else:
        session.execute("SELECT build.person(7, is_current => %s)", [source != "users"])
    session.execute(f"{FILLS[source].format(block=f'{HIGH} + n')} FROM generate_series(1, {MANY}) AS n")
    assert tick(session) == []
    assert tick(session) == []
    seen = "SELECT max(position) FROM audius_challenges.look WHERE source = %s"
    assert value(session, seen, source) > HIGH
    assert value(session, WROTE, challenge, challenge) == 0
    return challenge


@pytest.mark.parametrize("source", FILLS)
def test_where_the_old_rows_are_gone_the_feed_finds_lower_numbers_at_once(discovery: Discovery, source: str) -> None:
    with closing(discovery.connect()) as session:
        challenge = prepare(session, source)
        session.execute("SET audius_challenges.sweep_users = 0")
        session.execute(f"DELETE FROM {'plays WHERE id' if source == 'plays' else 'blocks WHERE number'} > {HIGH}")
        session.execute(DEEDS[source][1].format(block=1))
        assert tick(session) == []
        assert value(session, WROTE, challenge, challenge) == 1


@pytest.mark.parametrize("source", FILLS)
def test_where_they_stay_or_many_have_come_meanwhile_the_sweep_does(discovery: Discovery, source: str) -> None:
    with closing(discovery.connect()) as session:
        challenge = prepare(session, source)
        session.execute(DEEDS[source][1].format(block=1))
        session.execute("SET audius_challenges.sweep_users = 0")
        assert tick(session) == []
        assert value(session, WROTE, challenge, challenge) == 0
        session.execute("SET audius_challenges.sweep_users = 100")
        users = value(session, "SELECT count(*) FROM users")
        for _ in range(users // 100 + 2):
            assert tick(session) == []
        assert value(session, WROTE, challenge, challenge) == 1


@pytest.mark.parametrize("source", FILLS)
def test_once_they_have_begun_again_the_feed_goes_on_from_there(discovery: Discovery, source: str) -> None:
    """The old rows are gone, and as many new ones have come at lower numbers."""
    with closing(discovery.connect()) as session:
        challenge = prepare(session, source)
        session.execute("SET audius_challenges.sweep_users = 0")
        session.execute(f"DELETE FROM {'plays WHERE id' if source == 'plays' else 'blocks WHERE number'} > {HIGH}")
        session.execute(f"{FILLS[source].format(block='1000 + n')} FROM generate_series(1, {MANY}) AS n")
        assert tick(session) == []
        session.execute(DEEDS[source][1].format(block=1001 + MANY))
        assert tick(session) == []
        assert value(session, WROTE, challenge, challenge) == 1


def test_ids_of_plays_that_begin_again_are_followed_though_the_old_ones_stay(discovery: Discovery) -> None:
    """As after a reset of the sequence: the latest plays say where it is."""
    with closing(discovery.connect()) as session:
        prepare(session, "plays")
        session.execute("SET audius_challenges.sweep_users = 0")
        later = "SELECT build.play(2000 + n, 1, timestamp '2024-04-01' + n * interval '1 s', id => n)"
        session.execute(f"{later} FROM generate_series(1, 30) AS n")
        assert tick(session) == []
        session.execute(DEEDS["plays"][1].format(block=31))
        assert tick(session) == []
        assert value(session, WROTE, "e", "e") == 1


def test_completed_blocknumber_follows_the_blocks_that_there_are(discovery: Discovery) -> None:
    with closing(discovery.connect()) as session:
        prepare(session, "follows")
        session.execute("SELECT build.person(8, is_verified => TRUE, blocknumber => 5)")
        assert tick(session) == []
        session.execute(f"DELETE FROM blocks WHERE number > {HIGH}")
        session.execute("SELECT build.person(9, is_verified => TRUE, blocknumber => 6)")
        assert tick(session) == []
        assert completed(session, "v") == ["8", "9"]
        blocks = "SELECT completed_blocknumber FROM user_challenges WHERE challenge_id = 'v' ORDER BY user_id"
        assert rows(session, blocks) == [(HIGH + MANY,), (100,)]
