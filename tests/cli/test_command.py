"""The commands that ask and run: what they say is what the database says, and what goes wrong is said to people."""

from __future__ import annotations

import signal
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from devtools.cluster import Cluster
from devtools.discovery import Discovery
from tests.cli.terminal import PEOPLE, QUALIFY, ask, begin, on_a_screen
from tests.sessions import RUN_LOCK, RUN_ORDER, let_p_wait, rows, until, value, well

pytestmark = pytest.mark.one_version

# status


def test_status_says_what_challenge_status_says(paid: Discovery) -> None:
    with closing(paid.connect()) as connection:
        expected = rows(connection, "SELECT challenge_id, status, users_set_aside, tick_problem FROM challenge_status")
    answer = ask(paid, "status", "--json")
    assert answer.status == 0, answer
    said = answer.json
    assert [
        (row["challenge_id"], row["status"], row["users_set_aside"], row["tick_problem"]) for row in said["challenges"]
    ] == expected
    assert said["tick_problem"] == expected[0][3]


def test_status_for_people_names_each_challenge_and_why_nothing_ticks(paid: Discovery) -> None:
    answer = ask(paid, "status")
    lines = [line.split() for line in answer.out.splitlines()]
    assert [line[0] for line in lines if line and line[0] in RUN_ORDER] == list(RUN_ORDER)
    assert "nothing ticks" in answer.out
    assert "pg_cron" in answer.out


def test_status_shows_the_error_of_what_fails(failing: Discovery) -> None:
    answer = ask(failing, "status")
    assert "c fails: once" in answer.out
    assert "comments" in answer.out


# When it cannot ask


def test_no_server(paid: Discovery) -> None:
    answer = ask(paid, "status", extra={"PGPORT": "1"})
    assert answer.status == 3
    assert "cannot connect: " in answer.err
    assert "hint: It connects as psql does" in answer.err


def test_no_such_database(paid: Discovery) -> None:
    answer = ask(paid, "status", "-d", "nowhere")
    assert answer.status == 3
    assert 'database "nowhere" does not exist' in answer.err


def test_no_extension(bare_discovery: Discovery) -> None:
    answer = ask(bare_discovery, "status")
    assert answer.status == 3
    assert f"the database {bare_discovery.name} does not have the extension audius_challenges" in answer.err
    assert "CREATE EXTENSION audius_challenges CASCADE" in answer.err


def test_an_older_extension(bare_discovery: Discovery) -> None:
    bare_discovery.psql("CREATE EXTENSION audius_challenges VERSION '1.1.0' CASCADE")
    answer = ask(bare_discovery, "doctor")
    assert answer.status == 3
    assert "has audius_challenges 1.1.0; this command needs 2.0.0 or newer" in answer.err
    assert "ALTER EXTENSION audius_challenges UPDATE" in answer.err


@pytest.mark.parametrize("command", [["status"], ["history"], ["run"], ["report"], ["explain", "1"], ["watch"]])
def test_a_role_without_privileges(paid: Discovery, stranger: str, command: list[str]) -> None:
    answer = ask(paid, *command, user=stranger)
    assert answer.status == 3, answer
    assert "permission denied" in answer.err
    assert f"SELECT audius_challenges.grant_status('{stranger}');" in answer.err


def test_a_password_has_no_place_on_the_command_line(paid: Discovery) -> None:
    answer = ask(paid, "status", "-d", "host=localhost password=secret")
    assert answer.status == 3
    assert "a password on the command line can be seen by everybody" in answer.err
    assert "secret" not in answer.err


@pytest.mark.parametrize("arguments", [["statsu"], ["status", "--nonsense"], ["history", "-n", "0"], ["explain"]])
def test_a_wrong_use_is_not_taken_for_a_critical_finding(paid: Discovery, arguments: list[str]) -> None:
    answer = ask(paid, *arguments)
    assert answer.status == 3
    assert answer.err.startswith("audius-challenges: ")


# How it connects


@pytest.fixture
def stranger(cluster: Cluster) -> str:
    """A role that may connect, and nothing else."""
    with closing(cluster.connect("postgres")) as connection:
        connection.execute("DROP ROLE IF EXISTS stranger")
        connection.execute("CREATE ROLE stranger LOGIN")
    return "stranger"


def test_a_role_that_looks_can_ask_everything(paid: Discovery) -> None:
    with closing(paid.connect()) as connection:
        connection.execute("CREATE ROLE command_watcher LOGIN")
        connection.execute("SELECT audius_challenges.grant_status('command_watcher')")
    try:
        for command in (["status"], ["history", "--daily"], ["explain", "1", "u"], ["watch"], ["report", "--json"]):
            answer = ask(paid, *command, user="command_watcher")
            assert answer.status < 3, (command, answer)
    finally:
        with closing(paid.connect()) as connection:
            connection.execute("DROP OWNED BY command_watcher")
            connection.execute("DROP ROLE command_watcher")


def test_a_service_file(paid: Discovery, tmp_path: Path) -> None:
    place = paid.cluster
    file = tmp_path / "services"
    file.write_text(f"[rewards]\nhost={place.host}\nport={place.port}\ndbname={paid.name}\nuser=postgres\n")
    nowhere = {"PGHOST": "/nonexistent", "PGDATABASE": "nowhere", "PGSERVICEFILE": str(file)}
    for way in ({"PGSERVICE": "rewards"}, {}):
        arguments = [] if way else ["-d", "service=rewards"]
        answer = ask(paid, "status", "--json", *arguments, extra=nowhere | way)
        assert answer.status == 0, answer
        assert [row["challenge_id"] for row in answer.json["challenges"]] == list(RUN_ORDER)


@pytest.mark.parametrize("form", ["{name}", "dbname={name}", "postgresql:///{name}"])
def test_names_strings_and_uris(paid: Discovery, form: str) -> None:
    answer = ask(paid, "status", "-d", form.format(name=paid.name), extra={"PGDATABASE": "nowhere"})
    assert answer.status == 0, answer


def test_only_run_can_write(discovery: Discovery) -> None:
    """Whoever asks cannot change anything, whatever the functions do."""
    with closing(discovery.connect()) as connection:
        connection.execute(
            """
            CREATE FUNCTION write_something() RETURNS text LANGUAGE plpgsql AS
            $$ BEGIN UPDATE challenges SET amount = '9'; RETURN 'x'; END $$
            """
        )
        connection.execute(
            "CREATE OR REPLACE FUNCTION audius_challenges.tick_problem() RETURNS text LANGUAGE sql AS"
            " 'SELECT public.write_something()'"
        )
    answer = ask(discovery, "status")
    assert answer.status == 3
    assert "read-only transaction" in answer.err


# doctor


def test_doctor_says_what_the_function_says(paid: Discovery) -> None:
    with closing(paid.connect()) as connection:
        expected = rows(connection, "SELECT severity, what, statement FROM audius_challenges.doctor()")
    said = ask(paid, "doctor", "--json").json
    assert [(row["severity"], row["what"], row["statement"]) for row in said] == expected


@pytest.mark.parametrize(
    ("severities", "status"),
    [(["ok"], 0), (["notice", "ok"], 0), (["notice", "warning"], 1), (["warning", "critical", "notice"], 2)],
)
def test_the_exit_status_is_that_of_the_worst_finding(discovery: Discovery, severities: list[str], status: int) -> None:
    found = ", ".join(f"('{severity}', 'it is {severity}', 'a', 'b', 'SELECT 1')" for severity in severities)
    discovery.psql(
        "CREATE OR REPLACE FUNCTION audius_challenges.doctor() RETURNS TABLE"
        " (severity text, what text, found text, expected text, statement text)"
        f" LANGUAGE sql AS $$ VALUES {found} $$"
    )
    answer = ask(discovery, "doctor")
    assert answer.status == status
    worst = max(severities, key=["ok", "notice", "warning", "critical"].index)
    assert answer.out.splitlines()[0].endswith(f" it is {worst}")
    assert "SELECT 1" in answer.out


# explain


@pytest.mark.parametrize("user", ["1", "@user1", "USER1"])
def test_explain_takes_ids_and_handles(paid: Discovery, user: str) -> None:
    with closing(paid.connect()) as connection:
        expected = rows(connection, "SELECT line, what, holds, state, says FROM explain_challenge(1, 'u')")
    said = ask(paid, "explain", user, "u", "--json").json
    assert (said["user_id"], said["handle"]) == (1, "user1")
    assert [
        tuple(row[name] for name in ("line", "what", "holds", "state", "says")) for row in said["lines"]
    ] == expected


def test_explain_of_one_challenge_has_the_conditions_and_the_verdict(paid: Discovery) -> None:
    with closing(paid.connect()) as connection:
        lines = "SELECT says FROM explain_challenge(3, 'u') WHERE line = 'verdict'"
        verdict = value(connection, lines)
        conditions = "SELECT what, holds FROM explain_challenge(3, 'u') WHERE line = 'condition'"
        marks = {what: "✓" if holds else "✗" for what, holds in rows(connection, conditions)}
    answer = ask(paid, "explain", "3", "u")
    assert " ".join(verdict.split()) in " ".join(answer.out.split())
    for what, mark in marks.items():
        assert f"{mark}   {what} " in answer.out


def test_explain_shows_a_reward_that_can_never_be_claimed(discovery: Discovery) -> None:
    discovery.psql(PEOPLE, QUALIFY, "SELECT FROM reconcile_challenges()")
    discovery.psql("UPDATE challenges SET cooldown_days = 2147483647 WHERE id = 'u'")
    answer = ask(discovery, "explain", "1", "u")
    assert answer.status == 0, answer
    assert "it can never be claimed: its cooldown does not end." in " ".join(answer.out.split())
    lines = ask(discovery, "explain", "1", "u", "--json").json["lines"]
    (reward,) = (line for line in lines if line["line"] == "reward")
    assert (reward["state"], reward["claimable_at"]) == ("complete", "infinity")


def test_explain_of_all_is_brief_unless_verbose(paid: Discovery) -> None:
    brief, verbose = ask(paid, "explain", "1").out, ask(paid, "explain", "1", "-v").out
    for challenge in RUN_ORDER:
        assert f"\n{challenge}  " in brief
        assert f"\n{challenge}  " in verbose
    assert "demanded  " not in brief
    assert "demanded  " in verbose


def test_explain_a_user_who_is_not_there(paid: Discovery) -> None:
    answer = ask(paid, "explain", "999", "u")
    assert answer.status == 0
    assert "ineligible" in answer.out
    unknown = ask(paid, "explain", "nobody")
    assert unknown.status == 1
    assert "no user has the handle nobody" in unknown.err


def test_explain_an_unknown_challenge(paid: Discovery) -> None:
    answer = ask(paid, "explain", "1", "nonsense")
    assert answer.status == 3
    assert "nonsense" in answer.err


# history


def test_history_says_what_challenge_history_says(paid: Discovery) -> None:
    with closing(paid.connect()) as connection:
        expected = rows(connection, "SELECT challenge_id, rows_completed FROM challenge_history ORDER BY ended_at DESC")
    assert expected
    said = ask(paid, "history", "--json").json
    assert [(row["challenge_id"], row["rows_completed"]) for row in said] == expected


def test_history_of_one_challenge_in_people_s_form(paid: Discovery) -> None:
    lines = ask(paid, "history", "u", "-n", "1").out.splitlines()
    (line,) = [line.split() for line in lines if " u " in line]
    assert line[2:4] == ["u", "ok"]
    assert line[-1] == "2"


def test_history_of_failures(paid: Discovery, failing: Discovery) -> None:
    assert ask(paid, "history", "--failures", "--json").json == []
    assert {row["challenge_id"] for row in ask(failing, "history", "--failures", "--json").json} == {"c"}


def test_each_day_s_rewards(paid: Discovery) -> None:
    said = {
        row["challenge_id"]: (row["completions"], row["amount"])
        for row in ask(paid, "history", "--daily", "--json").json
    }
    assert said["u"] == (2, 2)
    assert said["fp"] == (1, 2)


# run


def test_a_run_does_what_reconcile_challenges_does(discovery: Discovery) -> None:
    discovery.psql(PEOPLE, QUALIFY)
    answer = ask(discovery, "run", "--json")
    assert answer.status == 0, answer
    said = answer.json
    assert [row["challenge_id"] for row in said] == list(RUN_ORDER)
    with closing(discovery.connect()) as connection:
        assert {row["challenge_id"]: (row["status"], row["error"]) for row in said} == well(connection)
        complete = "SELECT count(*) FROM user_challenges WHERE is_complete"
        assert sum(row["rows_completed"] for row in said) == value(connection, complete) > 0


def test_a_run_goes_on_until_the_first_build_is_through(discovery: Discovery) -> None:
    discovery.psql(PEOPLE, f"ALTER DATABASE {discovery.name} SET audius_challenges.slice_users = 7")
    drawn = on_a_screen(discovery, "run", "u", "fp")
    assert " 100 % " in drawn
    assert any(f" {percent} % " in drawn for percent in range(10, 90)), drawn
    with closing(discovery.connect()) as connection:
        query = "SELECT challenge_id, sweep_rounds FROM challenge_status WHERE sweep_rounds > 0"
        assert dict(rows(connection, query)) == {"u": 1, "fp": 1}


def test_a_dry_run_keeps_nothing(discovery: Discovery) -> None:
    discovery.psql(PEOPLE, QUALIFY)
    answer = ask(discovery, "run", "--dry-run", "--json")
    assert answer.status == 0
    assert {row["challenge_id"]: row["rows_completed"] for row in answer.json}["u"] == 2
    with closing(discovery.connect()) as connection:
        assert value(connection, "SELECT count(*) FROM user_challenges") == 0


def test_an_unknown_challenge_is_named_with_the_known_ones(discovery: Discovery) -> None:
    answer = ask(discovery, "run", "u", "nonsense")
    assert answer.status == 3
    assert "nonsense" in answer.err
    assert "fp" in answer.err


def test_a_failed_challenge_ends_the_run_with_1_after_the_others(discovery: Discovery) -> None:
    discovery.psql(PEOPLE, QUALIFY, "ALTER TABLE comments RENAME COLUMN is_visible TO can_be_seen")
    answer = ask(discovery, "run")
    assert answer.status == 1
    assert "comments" in answer.out
    with closing(discovery.connect()) as connection:
        assert value(connection, "SELECT count(*) FROM user_challenges WHERE challenge_id = 'u' AND is_complete") == 2


def test_another_run_is_waited_for(discovery: Discovery) -> None:
    with closing(discovery.connect()) as connection:
        connection.execute(f"SELECT pg_advisory_lock({RUN_LOCK})")
        answer = ask(discovery, "run", "u", "--wait", "0")
        assert answer.status == 1
        assert "another run has been under way" in answer.err
        patient = begin(discovery, "run", "u", "--json")
        assert patient.poll() is None
        connection.execute(f"SELECT pg_advisory_unlock({RUN_LOCK})")
        out, err = patient.communicate(timeout=60)
        assert (patient.returncode, '"status": "ok"' in out) == (0, True), err


def interrupted(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it prints when somebody presses Ctrl-C; who sees nothing happen for long presses once more."""
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        try:
            return process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    return process.communicate()


def test_interrupted_what_was_done_stays_and_nothing_runs_on(discovery: Discovery) -> None:
    discovery.psql(PEOPLE, QUALIFY, "SELECT build.qualify('p', 5)")
    with closing(discovery.connect()) as connection:
        let_p_wait(connection)
        connection.execute("SELECT pg_advisory_lock(7)")
        process = begin(discovery, "run")
        waits = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
        pid = until(lambda: rows(connection, waits), "the run waiting in p")[0][0]
        out, err = interrupted(process)
        assert process.returncode == 130, err
        assert "Traceback" not in err
        assert "what is above was done, and stays" in err
        assert "p1" not in out
        assert rows(connection, "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND state = 'active'", pid) == []
        count = "SELECT count(*) FROM user_challenges WHERE challenge_id = %s AND is_complete"
        assert (value(connection, count, "u"), value(connection, count, "p")) == (2, 0)
        connection.execute("SELECT pg_advisory_unlock(7)")
        assert ask(discovery, "run").status == 0
        assert value(connection, count, "p") == 1


def test_what_the_server_notices_is_passed_on(discovery: Discovery) -> None:
    discovery.psql(f"ALTER DATABASE {discovery.name} SET audius_challenges.enabled = off")
    answer = ask(discovery, "run", "u")
    assert "audius_challenges.enabled" in answer.err
    assert answer.err.startswith("notice: ")
