"""One bad row never stops the others: the user is set aside, shown, counted, and tried again; where deeds are rewarded
singly, the deed is."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from audius_challenges.challenges import CHALLENGES
from audius_challenges.engine.per_user import PerUser
from audius_challenges.engine.rule import Rule
from audius_challenges.engine.users import USER_ID
from devtools.discovery import Discovery
from tests.sessions import RUN_ORDER, Connection, column, failing, notices, rows, tick, value

PER_USER = [challenge.id for challenge in CHALLENGES if isinstance(challenge, PerUser)]
DEEDS = [challenge.id for challenge in CHALLENGES if isinstance(challenge, Rule) and challenge.is_deed]
"""The challenges of which a deed is set aside, and not the user."""
BY_OTHERS = {
    challenge.id
    for challenge in CHALLENGES
    if isinstance(challenge, Rule) and (challenge.key != USER_ID or not challenge.is_of_earner)
}
"""Those that do not examine who earns: a change of his row alone has nobody tried again."""

PAID = "SELECT user_id FROM user_challenges WHERE challenge_id = %s AND is_complete ORDER BY user_id"
SET_ASIDE = "SELECT challenge_id, user_id, specifier, error FROM audius_challenges.set_aside ORDER BY 1, 2, 3"

WAYS = ("first build", "changed rows", "sweep")

RAISES = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        {body}
        RETURN NEW;
    END $$;
    CREATE {kind} refuse {when} ON {table} {timing} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse();
"""


def refuse(
    connection: Connection,
    condition: str,
    *,
    body: str = "RAISE EXCEPTION 'user % has no wallet', new.user_id;",
    table: str = "user_challenges",
    deferred: bool = False,
) -> None:
    """Has a trigger of the application refuse rows that fulfil a condition."""
    kind, when, timing = (
        ("CONSTRAINT TRIGGER", "AFTER INSERT OR UPDATE", "DEFERRABLE INITIALLY DEFERRED")
        if deferred
        else ("TRIGGER", "BEFORE INSERT OR UPDATE", "")
    )
    statement = RAISES.format(body=body, table=table, condition=condition, kind=kind, when=when, timing=timing)
    connection.execute(statement)


def mend(connection: Connection, table: str = "user_challenges") -> None:
    connection.execute(f"DROP TRIGGER refuse ON {table}; DROP FUNCTION refuse();")


def touch(connection: Connection, user: int) -> None:
    """Changes the user's row, as any edit of a profile does."""
    connection.execute("UPDATE users SET name = 'changed' WHERE user_id = %s", (user,))


@pytest.fixture
def session(discovery: Discovery) -> Iterator[Connection]:
    """A session in a fresh database, every challenge active, with a thousand others, so that nobody is alone."""
    with closing(discovery.connect()) as connection:
        connection.execute("UPDATE challenges SET active = TRUE, starting_block = 0")
        connection.execute("SELECT build.person(n) FROM generate_series(1001, 2000) AS n")
        yield connection


def qualify(connection: Connection, challenge: str, *users: int) -> None:
    connection.execute(f"SELECT build.qualify_{challenge}(n) FROM unnest(%s) AS n", (list(users),))


def come(connection: Connection, way: str, challenge: str, *users: int) -> None:
    """Has these users come to be examined, in the next tick, in one of the ways."""
    if way != "first build":
        tick(connection)
    qualify(connection, challenge, *users)
    if way == "sweep":
        # Nothing of them can be found by the feed: it stands behind them.
        connection.execute("SELECT audius_challenges.start_from_now()")
        connection.execute("DELETE FROM audius_challenges.passed_over")
        connection.execute("DELETE FROM audius_challenges.tastemaker_decision")
        connection.execute("SET audius_challenges.sweep_users = 5000")
    else:
        connection.execute("SET audius_challenges.sweep_users = 0")


@pytest.mark.parametrize("way", [*WAYS, "full scan"])
@pytest.mark.parametrize("challenge", [each for each in PER_USER if each != "e"])
def test_everybody_else_is_paid_and_the_user_is_tried_again(session: Connection, challenge: str, way: str) -> None:
    refuse(session, f"new.user_id = 13 AND new.challenge_id = '{challenge}'")
    come(session, "sweep" if way == "full scan" else way, challenge, *range(11, 16))
    with notices(session) as heard:
        if way == "full scan":
            session.execute("SELECT reconcile_challenges(full_scan => TRUE)")
        else:
            tick(session)

    assert column(session, PAID, challenge) == [11, 12, 14, 15]
    error = "user 13 has no wallet (SQLSTATE P0001)"
    ((*aside, specifier, found),) = rows(session, SET_ASIDE)
    assert (*aside, found) == (challenge, 13, error)
    assert [(each.message, each.hint) for each in heard] == [
        (
            f'challenge "{challenge}": user 13 set aside: {error}',
            "The others were written. See audius_challenges.set_aside.",
        )
    ]
    assert failing(session) == {}
    query = "SELECT challenge_id, users_set_aside FROM challenge_status WHERE users_set_aside > 0"
    assert rows(session, query) == [(challenge, 1)]

    mend(session)
    session.execute("SET audius_challenges.sweep_users = 0")
    assert tick(session) == []
    assert column(session, PAID, challenge) == [11, 12, 14, 15]
    if challenge in BY_OTHERS:
        session.execute("SET audius_challenges.sweep_users = 5000")
    else:
        touch(session, 13)
    assert tick(session) == []
    assert column(session, PAID, challenge) == [11, 12, 13, 14, 15]
    assert rows(session, SET_ASIDE) == []
    own = "SELECT specifier FROM user_challenges WHERE challenge_id = %s AND user_id = 13"
    assert specifier == (value(session, own, challenge) if challenge in DEEDS else "")


@pytest.mark.parametrize("way", WAYS[:2])
def test_listens_of_everybody_else_are_counted(session: Connection, way: str) -> None:
    refuse(session, "new.user_id = 13 AND new.is_complete")
    come(session, way, "e", *range(11, 16))
    tick(session)
    assert column(session, PAID, "e") == [11, 12, 14, 15]
    streaks = "SELECT user_id FROM challenge_listen_streak ORDER BY user_id"
    assert column(session, streaks) == [11, 12, 14, 15]  # his listens are still to be counted
    assert [row[:2] for row in rows(session, SET_ASIDE)] == [("e", 13)]

    mend(session)
    touch(session, 13)
    assert tick(session) == []
    assert column(session, PAID, "e") == column(session, streaks) == [11, 12, 13, 14, 15]
    assert rows(session, SET_ASIDE) == []


def test_the_sweep_tries_again_once_a_round(session: Connection) -> None:
    session.execute("SET audius_challenges.sweep_users = 250")
    qualify(session, "u", 11, 13)
    refuse(session, "new.user_id = 13")
    tick(session)
    tries = "SELECT tries FROM audius_challenges.set_aside WHERE user_id = 13"
    assert value(session, tries) == 1
    for _ in range(4):  # 1,002 users are a little more than four slices
        assert tick(session) == []
    assert value(session, tries) == 2
    mend(session)
    for _ in range(5):
        assert tick(session) == []
    assert column(session, PAID, "u") == [11, 13]
    assert rows(session, SET_ASIDE) == []


@pytest.mark.parametrize(
    ("table", "challenge"), [("challenge_profile_completion", "p"), ("challenge_listen_streak", "e")]
)
def test_a_side_table_or_a_state_that_refuses_the_user(session: Connection, table: str, challenge: str) -> None:
    refuse(session, "new.user_id = 13", table=table)
    qualify(session, challenge, *range(11, 16))
    tick(session)
    assert column(session, PAID, challenge) == [11, 12, 14, 15]
    assert column(session, f"SELECT user_id FROM {table} WHERE user_id < 100 ORDER BY 1") == [11, 12, 14, 15]
    assert [row[:2] for row in rows(session, SET_ASIDE)] == [(challenge, 13)]
    mend(session, table)
    tick(session)
    assert column(session, PAID, challenge) == [11, 12, 13, 14, 15]
    assert rows(session, SET_ASIDE) == []


def test_an_odd_state_concerns_its_user_alone(session: Connection) -> None:
    session.execute("ALTER TABLE challenge_listen_streak ALTER listen_streak DROP NOT NULL")
    states = "(1, NULL, 3), (2, 'infinity', 3), (3, '-infinity', 3), (4, '2025-01-31 12:00', NULL), (5, NULL, NULL)"
    session.execute(f"INSERT INTO challenge_listen_streak (user_id, last_listen_date, listen_streak) VALUES {states}")
    qualify(session, "e", 1, 2, 3, 4, 5, 6)
    tick(session)
    assert failing(session) == {}
    assert 6 in column(session, PAID, "e")


@pytest.mark.parametrize(
    ("name", "body", "sqlstate"),
    [
        ("raise", "RAISE EXCEPTION 'no';", "P0001"),
        ("raise with a SQLSTATE of its own", "RAISE EXCEPTION 'no' USING ERRCODE = 'AU001';", "AU001"),
        ("raise no data", "RAISE EXCEPTION 'no' USING ERRCODE = 'no_data_found';", "P0002"),
        ("assert", "ASSERT FALSE, 'no';", "P0004"),
        ("division by zero", "PERFORM 1 / (new.user_id - 13);", "22012"),
        ("number out of range", "PERFORM (2147483640 + new.user_id)::integer;", "22003"),
        ("no uuid", "PERFORM new.specifier::uuid;", "22P02"),
        ("a null", "new.specifier := NULL;", "23502"),
        ("a foreign key", "new.challenge_id := 'none';", "23503"),
        ("several rows", "PERFORM (SELECT 1 FROM generate_series(1, 2));", "21000"),
        ("a case that is missing", "CASE new.user_id WHEN 1 THEN NULL; END CASE;", "20000"),
        ("a state that it does not like", "RAISE object_not_in_prerequisite_state;", "55000"),
        ("a limit", "RAISE program_limit_exceeded;", "54000"),
    ],
)
@pytest.mark.parametrize("deferred", [False, True])
def test_errors_that_may_be_of_one_row(
    session: Connection, name: str, body: str, sqlstate: str, deferred: bool
) -> None:
    if deferred and name in ("a null", "a foreign key"):
        body = f"RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}';"  # nothing can be changed then
    qualify(session, "fp", 12, 13, 14)
    refuse(session, "new.user_id = 13", body=body, deferred=deferred)
    tick(session)
    assert column(session, PAID, "fp") == [12, 14]
    ((_, user, _, error),) = rows(session, SET_ASIDE)
    assert (user, error.count(f"(SQLSTATE {sqlstate})")) == (13, 1)
    assert failing(session) == {}


@pytest.mark.parametrize(
    ("constraint", "sqlstate"),
    [
        ("CHECK (user_id <> 13)", "23514"),
        ("EXCLUDE USING btree (user_id WITH =, challenge_id WITH =)", "23P01"),
        ("UNIQUE (user_id)", "23505"),
    ],
)
def test_constraints_of_the_application(session: Connection, constraint: str, sqlstate: str) -> None:
    qualify(session, "fp", 12, 13, 14)
    session.execute("SELECT build.complete('fp', 13, 'another')")
    session.execute(
        f"ALTER TABLE user_challenges ADD CONSTRAINT odd {constraint} NOT VALID"
        if "CHECK" in constraint
        else f"ALTER TABLE user_challenges ADD CONSTRAINT odd {constraint}"
    )
    tick(session)
    assert column(session, PAID, "fp") == [12, 13, 14]  # his is the other one
    ((challenge, user, _, error),) = rows(session, SET_ASIDE)
    assert (challenge, user, error.count(f"(SQLSTATE {sqlstate})")) == ("fp", 13, 1)
    assert failing(session) == {}


def test_a_value_out_of_range_in_a_source(session: Connection) -> None:
    qualify(session, "p1", 11, 12, 14)
    qualify(session, "p1", 13)
    session.execute("ALTER TABLE aggregate_monthly_plays ALTER count TYPE bigint")
    for month in ("2025-02-01", "2025-03-01"):
        session.execute(
            "INSERT INTO aggregate_monthly_plays (play_item_id, timestamp, count, country)"
            " SELECT track_id, %s, 9223372036854775807, 'x' FROM tracks WHERE owner_id = 13",
            (month,),
        )
    tick(session)
    assert column(session, PAID, "p1") == [11, 12, 13, 14]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("INSERT INTO nowhere VALUES (1);", 'relation "nowhere" does not exist'),
        ("RAISE insufficient_privilege;", "insufficient_privilege"),
        ("RAISE lock_not_available;", "lock_not_available"),
        ("RAISE disk_full;", "disk_full"),
    ],
)
def test_what_no_user_can_help_fails_the_challenge(session: Connection, body: str, error: str) -> None:
    qualify(session, "fp", 12, 13, 14)
    refuse(session, "new.user_id = 13", body=body)
    with pytest.raises(Exception, match=f"1 of {len(RUN_ORDER)} challenges failed: fp"):
        tick(session)
    assert [text.split(" (")[0] for text in failing(session).values()] == [error]
    assert rows(session, SET_ASIDE) == []
    assert column(session, PAID, "fp") == []


def test_too_many_fail_together_and_nobody_is_set_aside(session: Connection) -> None:
    session.execute("SELECT build.qualify_fp(n) FROM generate_series(2001, 3500) AS n")
    refuse(session, "new.user_id > 2499")
    with pytest.raises(Exception, match=f"1 of {len(RUN_ORDER)} challenges failed: fp"):
        tick(session)
    assert failing(session)["fp"].startswith('challenge "fp" fails for 1001 users DETAIL: Nothing was written, and')
    assert (rows(session, SET_ASIDE), column(session, PAID, "fp")) == ([], [])
    mend(session)
    refuse(session, "new.user_id > 2500")
    tick(session)
    assert value(session, "SELECT count(*) FROM audius_challenges.set_aside") == 1000
    assert column(session, PAID, "fp") == list(range(2001, 2501))
    mend(session)
    assert tick(session) == []
    assert value(session, "SELECT count(*) FROM user_challenges WHERE challenge_id = 'fp'") == 1500


def test_what_refuses_everybody_fails_the_challenge_soon(session: Connection) -> None:
    session.execute("SELECT build.qualify_fp(n) FROM generate_series(2001, 2200) AS n")
    refuse(session, "TRUE")
    with pytest.raises(Exception, match=f"1 of {len(RUN_ORDER)} challenges failed: fp"):
        tick(session)
    assert failing(session)["fp"].startswith(
        'challenge "fp" fails for 51 users, and nobody else could be written DETAIL'
    )
    assert rows(session, SET_ASIDE) == []


@pytest.mark.parametrize("way", ["changed rows", "full scan"])
def test_slices_keep_the_bad_rows_of_many_apart(session: Connection, way: str) -> None:
    tick(session)
    session.execute("SELECT build.qualify_fp(n) FROM generate_series(3001, 6000) AS n")
    refuse(session, "new.user_id % 2 = 0")
    session.execute("SET audius_challenges.slice_users = 1000")
    if way == "full scan":
        session.execute("SELECT reconcile_challenges('{fp}', full_scan => TRUE)")
    else:
        session.execute("SET audius_challenges.changed_users = 100")  # the sweep takes them over
        for _ in range(5):
            tick(session)
    assert value(session, "SELECT count(*) FROM audius_challenges.set_aside") == 1500
    assert value(session, "SELECT count(*) FROM user_challenges WHERE challenge_id = 'fp'") == 1500


def test_who_is_due_at_every_run_is_not_tried_at_every_run(session: Connection) -> None:
    session.execute("SET audius_challenges.sweep_users = 0")
    tick(session)
    qualify(session, "p2", 12, 13, 14)
    refuse(session, "new.user_id = 13 AND new.challenge_id = 'p2'")
    tick(session)
    assert column(session, PAID, "p2") == [12, 14]
    assert tick(session) == tick(session) == []
    assert value(session, "SELECT tries FROM audius_challenges.set_aside") == 1


def test_a_deed_under_a_cap_is_set_aside_with_its_place(session: Connection) -> None:
    session.execute("SET audius_challenges.sweep_users = 0")
    session.execute("SELECT build.person(n), build.track(n, n) FROM generate_series(11, 16) AS n")
    session.execute("SELECT build.person(100, is_verified => TRUE)")
    tick(session)
    session.execute("SELECT build.contest(4096, 100, '[11, 12, 13, 14, 15, 16]')")
    refuse(session, "new.user_id = 12 AND new.challenge_id = 'w'")
    tick(session)
    assert column(session, PAID, "w") == [11, 13, 14, 15]
    assert [row[:3] for row in rows(session, SET_ASIDE)] == [("w", 12, "1000:c")]
    touch(session, 100)
    assert tick(session) == []
    assert column(session, PAID, "w") == [11, 13, 14, 15]
    mend(session)
    touch(session, 100)
    assert tick(session) == []
    assert column(session, PAID, "w") == [11, 12, 13, 14, 15]
    assert rows(session, SET_ASIDE) == []


def test_a_dry_run_says_who_and_keeps_nothing(session: Connection) -> None:
    qualify(session, "fp", 12, 13, 14)
    refuse(session, "new.user_id = 13")
    with notices(session) as heard:
        found = rows(
            session,
            "SELECT status, rows_completed, error FROM reconcile_challenges('{fp}', dry_run => TRUE)",
        )
    assert found == [("ok", 2, None)]
    assert ["user 13 set aside" in each.message for each in heard] == [True]
    assert rows(session, SET_ASIDE) == []


def test_a_user_who_is_gone_or_has_nothing_any_more_is_not_set_aside_any_more(session: Connection) -> None:
    qualify(session, "fp", 12, 13, 14)
    refuse(session, "new.user_id IN (13, 14)")
    tick(session)
    assert [row[1] for row in rows(session, SET_ASIDE)] == [13, 14]
    session.execute("DELETE FROM users WHERE user_id = 13; UPDATE playlists SET is_delete = TRUE")
    tick(session)
    assert rows(session, SET_ASIDE) == []


def test_who_had_the_greatest_id_and_is_gone_is_not_set_aside_any_more(session: Connection) -> None:
    qualify(session, "fp", 9999)
    refuse(session, "new.user_id = 9999")
    tick(session)
    assert [row[1] for row in rows(session, SET_ASIDE)] == [9999]
    session.execute("DELETE FROM users WHERE user_id = 9999")
    assert tick(session) == []
    assert rows(session, SET_ASIDE) == []


def test_users_set_aside_survive_a_dump(session: Connection) -> None:
    config = "SELECT 'audius_challenges.set_aside'::regclass = ANY(extconfig) FROM pg_extension WHERE extname = %s"
    assert value(session, config, "audius_challenges") is True
