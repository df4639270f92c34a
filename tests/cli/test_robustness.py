"""The command where not all is well: encodings, output that cannot be written, hostile text, far dates, wrong names."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from audius_challenges_cli import app
from audius_challenges_cli.errors import explained
from devtools.cluster import Cluster
from devtools.discovery import BUILDERS, CREATE_EXTENSION, SCHEMA, Discovery
from tests.cli.terminal import COMMAND, PEOPLE, QUALIFY, RECONCILE, ask, environment
from tests.sessions import RUN_ORDER, value

pytestmark = pytest.mark.one_version

ASCII = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
HOSTILE = "a\x1b]0;owned\x07b\u202ec\x9bd[bold]e\r"
SEEN = r"a\x1b]0;owned\x07b\u202ec\x9bd[bold]e\r"


def in_shell(database: Discovery, line: str) -> subprocess.CompletedProcess[str]:
    """Runs a shell's line, in which $COMMAND is the command."""
    return subprocess.run(
        ["/bin/sh", "-c", line],
        env=environment(database) | {"COMMAND": " ".join(COMMAND)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# Encodings of the database


@pytest.fixture(scope="module", params=["SQL_ASCII", "LATIN1"])
def encoded(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Discovery]:
    """A database in an old encoding, with rewards, and with a handle that is not ASCII."""
    name = f"encoded_{request.param.lower()}"
    with closing(cluster.connect("postgres")) as connection:
        connection.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{request.param}' LC_COLLATE 'C' LC_CTYPE 'C'"
        )
    database = Discovery(cluster, name)
    database.psql(SCHEMA, BUILDERS, CREATE_EXTENSION, PEOPLE, QUALIFY, RECONCILE)
    handle = "convert_from('\\x4afc72676ee9'::bytea, 'LATIN1')" if request.param == "LATIN1" else r"E'J\xfcrgn\xc3\xa9'"
    database.psql(f"UPDATE users SET handle = {handle} WHERE user_id = 1")
    yield database
    cluster.drop_database(name)


@pytest.mark.parametrize(
    "command", [["status"], ["doctor"], ["history"], ["history", "--daily"], ["watch"], ["report", "--json"], ["run"]]
)
def test_a_database_in_an_old_encoding(encoded: Discovery, command: list[str]) -> None:
    answer = ask(encoded, *command)
    assert answer.status < 3, answer
    assert "b'" not in answer.out


def test_text_that_is_not_utf_8(encoded: Discovery) -> None:
    answer = ask(encoded, "explain", "1", "u", "--json", extra={"PYTHONIOENCODING": "utf-8"})
    assert answer.status == 0, answer
    # In SQL_ASCII, \xfc stands for nothing, and \xc3\xa9 is taken for UTF-8.
    assert answer.json["handle"] == ("J\ufffdrgn\xe9" if "ascii" in encoded.name else "J\xfcrgn\xe9")
    assert ask(encoded, "explain", "@user2", "u").status == 0


# What cannot be written or read here


@pytest.mark.parametrize("command", [["status"], ["explain", "1", "-v"], ["watch"], ["history", "--daily"]])
def test_a_terminal_that_knows_ascii_only(paid: Discovery, command: list[str]) -> None:
    answer = ask(paid, *command, extra=ASCII)
    assert answer.status == 0, answer
    assert answer.out.isascii()
    assert "u" in answer.out


def test_json_is_the_same_on_a_terminal_that_knows_ascii_only(discovery: Discovery) -> None:
    discovery.psql(QUALIFY, "UPDATE users SET handle = 'Jürgen' WHERE user_id = 1")
    answer = ask(discovery, "explain", "1", "u", "--json", extra=ASCII)
    assert answer.out.isascii()
    assert answer.json["handle"] == "Jürgen"


def test_a_report_where_only_ascii_is_known(paid: Discovery, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    answer = ask(paid, "report", "-o", str(path), extra=ASCII)
    assert answer.status == 0, answer
    assert " · " in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("form", ["", "--json"])
def test_a_full_disk(paid: Discovery, form: str) -> None:
    done = in_shell(paid, f"$COMMAND status {form} > /dev/full")
    assert done.returncode == 3
    assert done.stderr == "audius-challenges: No space left on device\n"


@pytest.mark.parametrize("form", ["", "--json"])
def test_a_closed_output(paid: Discovery, form: str) -> None:
    done = in_shell(paid, f"$COMMAND status {form} >&-")
    assert done.returncode == 3
    assert done.stderr == "audius-challenges: there is no standard output to write to\n"


def test_closed_errors(paid: Discovery) -> None:
    assert in_shell(paid, "$COMMAND status 2>&-").returncode == 0
    assert in_shell(paid, "$COMMAND history nosuch 2>&-").returncode == 3


@pytest.mark.parametrize("form", ["", "--json"])
def test_whoever_reads_has_had_enough(paid: Discovery, form: str) -> None:
    done = in_shell(paid, f"($COMMAND explain 1 -v {form}; echo status $? >&2) | true")
    assert done.stderr == "status 0\n"


def test_a_picture_that_cannot_be_written(paid: Discovery) -> None:
    answer = ask(paid, "watch", "--svg", "/nonexistent/x.svg")
    assert answer.status == 3
    assert "cannot write /nonexistent/x.svg: No such file or directory" in answer.err


def test_more_weeks_than_there_are(paid: Discovery) -> None:
    answer = ask(paid, "report", "--weeks", "1000000")
    assert answer.status == 3
    assert "520" in answer.err


def test_a_handle_that_is_no_text(paid: Discovery) -> None:
    done = subprocess.run(
        [*COMMAND, "explain", b"\xff"], env=environment(paid), capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 3
    assert done.stderr.startswith(b"audius-challenges: ")
    assert b"Traceback" not in done.stderr


def test_what_nobody_has_foreseen(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def broken(**_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(app, "app", broken)
    with pytest.raises(SystemExit) as ended:
        app.main(["status"])
    assert ended.value.code == 3
    said = capfd.readouterr().err
    assert "ZeroDivisionError: division by zero" in said
    assert "Traceback" not in said


# Hostile text


@pytest.fixture
def hostile(discovery: Discovery) -> Discovery:
    """A database with a handle, an error and a finding full of control characters and markup."""
    discovery.psql(QUALIFY)
    with closing(discovery.connect()) as connection:
        connection.execute("UPDATE users SET handle = %s WHERE user_id = 1", (HOSTILE,))
        connection.execute(
            "INSERT INTO audius_challenges.set_aside (challenge_id, user_id, specifier, error, examined_id)"
            " VALUES ('p', 4, '', %s, 4)",
            (HOSTILE,),
        )
        text = psycopg.sql.Literal(HOSTILE).as_string(connection)
        connection.execute(
            "CREATE OR REPLACE FUNCTION audius_challenges.doctor() RETURNS TABLE"
            " (severity text, what text, found text, expected text, statement text)"
            f" LANGUAGE sql AS $$ SELECT 'warning', {text}, {text}, {text}, {text} $$".encode()
        )
        connection.execute(
            "CREATE OR REPLACE FUNCTION audius_challenges.tick_problem() RETURNS text LANGUAGE sql AS"
            f" $$ SELECT {text} $$".encode()
        )
    return discovery


@pytest.mark.parametrize("command", [["explain", "1", "u"], ["doctor"], ["status"], ["watch"]])
def test_control_characters_are_seen_and_not_obeyed(hostile: Discovery, command: list[str]) -> None:
    answer = ask(hostile, *command, extra={"PYTHONIOENCODING": "utf-8", "COLUMNS": "200"})
    assert answer.status < 2, answer
    assert SEEN in answer.out
    assert [char for char in answer.out if char in HOSTILE and not (char.isprintable() and char.isascii())] == []


def test_control_characters_in_json_are_escaped_and_kept(hostile: Discovery) -> None:
    answer = ask(hostile, "explain", "1", "u", "--json", extra={"PYTHONIOENCODING": "utf-8"})
    assert answer.json["handle"] == HOSTILE
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(answer.out)


def test_control_characters_in_an_error(discovery: Discovery) -> None:
    discovery.psql(
        "CREATE OR REPLACE FUNCTION audius_challenges.tick_problem() RETURNS text LANGUAGE plpgsql AS"
        r" $$ BEGIN RAISE EXCEPTION E'bad\x1b[2J\nsecond' USING HINT = E'so\x1b[2J'; END $$"
    )
    answer = ask(discovery, "status")
    assert answer.status == 3
    assert "bad\\x1b[2J\nsecond" in answer.err
    assert "hint: so\\x1b[2J" in answer.err


# Far dates


def test_dates_beyond_9999(discovery: Discovery) -> None:
    discovery.psql(PEOPLE, QUALIFY, RECONCILE, "UPDATE challenges SET cooldown_days = 9999999 WHERE id = 'u'")
    with closing(discovery.connect()) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        claimable = value(
            connection, "SELECT claimable_at::text FROM explain_challenge(1, 'u') WHERE claimable_at IS NOT NULL"
        )
    assert len(claimable.split("-")[0]) == 5
    answer = ask(discovery, "explain", "1", "u")
    assert answer.status == 0, answer
    assert claimable.split(".")[0].split("+")[0] in answer.out
    lines = ask(discovery, "explain", "1", "u", "--json").json["lines"]
    assert claimable in [line["claimable_at"] for line in lines]


def test_infinite_dates(discovery: Discovery) -> None:
    discovery.psql(PEOPLE, QUALIFY, RECONCILE)
    discovery.psql("UPDATE audius_challenges.history SET started_at = '-infinity', ended_at = 'infinity'")
    answer = ask(discovery, "history")
    assert answer.status == 0, answer
    assert "infinity" in answer.out
    assert {row["started_at"] for row in ask(discovery, "history", "--json").json} == {"-infinity"}


# Names


def test_a_user_id_beyond_all_users(paid: Discovery) -> None:
    answer = ask(paid, "explain", "99999999999")
    assert answer.status == 1
    assert "no user has the id 99999999999" in answer.err


def test_a_negative_user_id(paid: Discovery) -> None:
    answer = ask(paid, "explain", "-5", "u", "--json")
    assert answer.status == 0, answer
    assert answer.json["user_id"] == -5
    assert ask(paid, "explain", "-5", "-v").status == 0
    for wrong in ("--nonsense", "-x"):
        refused = ask(paid, "explain", "1", wrong)
        assert refused.status == 3
        assert f"no such option: {wrong}" in refused.err.lower()


@pytest.mark.parametrize("command", [["history"], ["history", "--daily"], ["explain", "1"], ["run", "--dry-run"]])
def test_an_unknown_challenge_is_refused_with_the_known_ones(paid: Discovery, command: list[str]) -> None:
    answer = ask(paid, *command, "nosuch")
    assert answer.status == 3
    assert 'unknown challenge id: "nosuch"' in answer.err
    assert ", ".join(RUN_ORDER) in " ".join(answer.err.split())


def test_challenges_in_other_case(paid: Discovery) -> None:
    assert {row["challenge_id"] for row in ask(paid, "history", "U", "--json").json} == {"u"}
    assert {row["challenge_id"] for row in ask(paid, "history", "--daily", "FP", "--json").json} == {"fp"}
    assert {line["challenge_id"] for line in ask(paid, "explain", "1", "U", "--json").json["lines"]} == {"u"}
    assert [row["challenge_id"] for row in ask(paid, "run", "--dry-run", "Fp", "--json").json] == ["fp"]


# Errors


@pytest.mark.parametrize(
    ("relation", "is_ours"), [("audius_challenges.challenge_day", True), ("public.users", False), ("users", False)]
)
def test_newer_files_mend_what_is_missing_of_the_extension_alone(relation: str, is_ours: bool) -> None:
    error = explained(errors.UndefinedTable(f'relation "{relation}" does not exist'), "somebody")
    assert relation in error.message
    assert ("Install the newest files" in (error.hint or "")) == is_ours
    assert error.message.startswith("the extension of this database") == is_ours


@pytest.mark.parametrize(
    "target",
    [
        "host=localhost sslpassword=secret",
        "postgresql://localhost/x?sslpassword=secret",
        "postgresql://me:secret@localhost/x",
        "host=localhost oauth_client_secret=secret",
    ],
)
def test_nothing_secret_has_a_place_on_the_command_line(paid: Discovery, target: str) -> None:
    answer = ask(paid, "status", "-d", target)
    assert answer.status == 3
    assert "secret" not in answer.err.replace("oauth_client_secret", "")
    assert "on the command line can be seen by everybody" in answer.err


# The past that is not counted


def test_a_past_that_is_still_being_counted_is_said(discovery: Discovery) -> None:
    discovery.psql(PEOPLE, QUALIFY, RECONCILE)
    with closing(discovery.connect()) as connection:
        assert value(connection, "SELECT count(*) FROM audius_challenges.day_backfill WHERE is_done") > 1
        for wanted in (["history", "--daily"], ["history", "--daily", "--json"]):
            assert "still counting" not in str(ask(discovery, *wanted))
        connection.execute(
            "UPDATE audius_challenges.day_backfill SET is_done = FALSE WHERE challenge_id IN ('u', 'fp')"
        )
    says = "still counting the past of"
    assert f"{says} u, fp" in ask(discovery, "history", "--daily").out
    assert f"{says} fp" in ask(discovery, "history", "--daily", "fp").out
    assert says not in ask(discovery, "history", "--daily", "p").out
    answer = ask(discovery, "history", "--daily", "--json")
    assert f"{says} u, fp" in answer.err
    assert answer.json
