"""Settings whose names are unknown: nothing reads them, so every run says so, wherever they were set."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from audius_challenges.settings import PREFIX, Settings
from devtools.discovery import Discovery
from tests.sessions import Connection, Notice, notices, rows, tick

NAMES = [name for name in Settings.__annotations__ if name != "unknown"]


@pytest.fixture
def here(discovery: Discovery) -> Iterator[Connection]:
    """A session of a superuser, beside a role that has settings of its own."""
    with closing(discovery.connect()) as connection:
        connection.execute("CREATE ROLE setter")
        try:
            yield connection
        finally:
            connection.execute("DROP ROLE setter")


def heard_of(connection: Connection, statement: str) -> list[Notice]:
    """What a statement says of settings."""
    with notices(connection) as heard:
        connection.execute(statement)
    return [one for one in heard if "setting" in one.message]


def warning(name: str, nearest: str, reset: str) -> Notice:
    """What is said of an unknown name."""
    return Notice(
        f'unknown setting "{PREFIX}{name}": it has no effect', f"The nearest name is {PREFIX}{nearest}. {reset}"
    )


RUN = "SELECT FROM reconcile_challenges()"


def test_settings_with_known_names_are_not_spoken_of(here: Connection, discovery: Discovery) -> None:
    for name in NAMES:
        here.execute(f"ALTER DATABASE {discovery.name} SET {PREFIX}{name} = ''")
        here.execute(f"SET {PREFIX.upper()}{name} = ''")
    assert heard_of(here, RUN) == []
    assert tick(here) == []
    assert heard_of(here, "SELECT audius_challenges.start_from_now()") == []
    assert heard_of(here, "SELECT audius_challenges.install()") == []


@pytest.mark.parametrize("name", NAMES)
def test_a_misspelt_name_is_told_by_every_run(here: Connection, discovery: Discovery, name: str) -> None:
    spelt = f"{name}_x"
    expected = []
    for target in (
        f"DATABASE {discovery.name}",
        f"ROLE setter IN DATABASE {discovery.name}",
        "ROLE setter",
        "ROLE ALL",
    ):
        here.execute(f"ALTER {target} SET {PREFIX}{spelt} = 5")
        expected.append(warning(spelt, name, f"ALTER {target} RESET {PREFIX}{spelt};"))
    # Those of other databases are not this one's.
    here.execute(f"ALTER ROLE setter IN DATABASE postgres SET {PREFIX}{spelt} = 5")
    try:
        for heard in (
            heard_of(here, RUN),
            tick(here),
            heard_of(here, "SELECT audius_challenges.start_from_now()"),
            heard_of(here, "SELECT audius_challenges.install()"),
        ):
            assert sorted(heard, key=str) == sorted(expected, key=str)
        for one in expected:
            here.execute((one.hint or "").split(". ", 1)[1])
        assert heard_of(here, RUN) == []
        assert rows(here, "SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = 0") == []
    finally:
        here.execute("ALTER ROLE ALL RESET ALL")


@pytest.mark.parametrize("name", NAMES)
def test_a_slip_of_the_keyboard_in_the_session_is_told_by_a_run(here: Connection, name: str) -> None:
    half = len(name) // 2
    for slip in (name[:-1], name[1:], name[:half] + name[half + 1 :], f"{name}s", name[:2] + name[1:]):
        here.execute(f"SET {PREFIX}{slip} = 5")
        assert heard_of(here, RUN) == [warning(slip, name, f"RESET {PREFIX}{slip};")]
        here.execute(f"RESET {PREFIX}{slip}")
        assert heard_of(here, RUN) == []


def test_a_misspelt_name_in_the_servers_files_is_told_with_its_line(here: Connection, discovery: Discovery) -> None:
    file = discovery.cluster.data_dir / "postgresql.auto.conf"
    before = file.read_text()
    file.write_text(f"{before}Audius_Challenges.Max_Completion = 5\n")
    try:
        (heard,) = heard_of(here, RUN)
        line = len(before.splitlines()) + 1
        of_file = f"Delete line {line} of {discovery.cluster.inside(file)}."
        assert heard == warning("max_completion", "max_completions", of_file)
        here.execute("SELECT audius_challenges.grant_run('setter')")
        here.execute("SET ROLE setter")  # who may not read the files
        assert heard_of(here, RUN) == []
        here.execute("RESET ROLE")
        here.execute("DROP OWNED BY setter")
    finally:
        file.write_text(before)
