"""The how-to pages work as written: their SQL runs, in its order, and fails where they show an error.

Each is followed twice: every block in a session of its own, and all of them in one session, as people do.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from devtools import REPOSITORY
from devtools.cluster import Cluster
from devtools.discovery import CREATE_EXTENSION, SCHEMA, Discovery, require_extension
from tests.pages import SqlBlock, shape, sql_blocks
from tests.sessions import knows_seconds

HOW_TO = REPOSITORY / "docs" / "how-to"
GENERATE = REPOSITORY / "discovery" / "generate.sql"
SAMPLE = "sample"
END = "-- end of the block"

INSTALLED = (CREATE_EXTENSION, "SELECT FROM reconcile_challenges()")
# What has happened in the database before somebody opens the page.
SITUATIONS = {
    "adopt.md": (
        # Another service has been paying, which has missed some, and left others without a block number.
        *INSTALLED,
        "SELECT FROM unschedule_challenges()",
        "DROP EXTENSION audius_challenges",
        "DELETE FROM user_challenges WHERE challenge_id IN ('u', 'p') AND user_id % 50 = 7",
        "UPDATE user_challenges SET completed_blocknumber = NULL WHERE challenge_id = 'fp' AND user_id % 10 = 3",
        # These are slots.
        "UPDATE user_challenges SET completed_blocknumber = 4 * completed_blocknumber WHERE challenge_id = 'v'",
        # A week that was paid just now, where today is a Friday.
        "DELETE FROM user_challenges WHERE challenge_id IN ('tt', 'tut', 'tp')",
        "DELETE FROM trending_results",
        "DELETE FROM challenges WHERE id IN ('tt', 'tut', 'tp')",
        "UPDATE challenges SET amount = '3' WHERE id = 'fp'",
    ),
    "answer-a-users-question.md": INSTALLED,
    "be-paged.md": INSTALLED,
    "least-privilege.md": (CREATE_EXTENSION, "REVOKE ALL ON user_challenges_log FROM public"),
    "mass-completion.md": INSTALLED,
    "monitor.md": INSTALLED,
    "move-to-another-schema.md": INSTALLED,
    "page-disbursements.md": (
        # Some were completed ten days ago, and some of these without a block number.
        *INSTALLED,
        "UPDATE user_challenges SET completed_at = completed_at - INTERVAL '10 days' WHERE user_id % 2 = 0",
        "UPDATE user_challenges SET completed_blocknumber = NULL WHERE challenge_id = 'v' AND user_id % 2 = 0",
    ),
    "past-friday.md": INSTALLED,
    "put-it-on-your-dashboard.md": INSTALLED,
    "repair-unpayable-rows.md": (
        *INSTALLED,
        "UPDATE user_challenges SET completed_blocknumber = NULL WHERE challenge_id = 'fp' AND user_id % 10 = 3",
    ),
    "schedule.md": INSTALLED,
    "users-set-aside.md": INSTALLED,
    "use-all-cores.md": (*INSTALLED, "SELECT FROM unschedule_challenges()"),
    "uninstall.md": (*INSTALLED, "ALTER DATABASE discovery SET audius_challenges.max_completions = 20000"),
}

# Pages that are held in another way, or by hand.
OTHERS = {
    **dict.fromkeys(
        (
            "scale-out.md",
            "change-the-number-of-shares.md",
            "lose-a-node.md",
            "change-the-schema-of-shares.md",
        ),
        "followed by test_how_to_shares.py",
    ),
    "dump-restore-upgrade.md": "its commands are those of test_restore.py and tests/deployment/test_majors.py",
    "install.md": "followed by tests/deployment/test_packages.py",
    "release.md": "for maintainers; tests/test_versions.py and tests/test_upgrade.py hold what it asks for",
    "run-the-image.md": "its commands are those of tests/deployment/test_image.py",
    "troubleshoot.md": "its situations take locks and failures; tests/test_runs.py makes them",
    "watch-and-report.md": "its commands are those of tests/cli",
    "upgrade.md": "its way back is run by tests/test_upgrade.py, which does the rest in its own words",
}


@pytest.fixture(scope="module")
def sampled(root: Path | None) -> Iterator[Cluster]:
    """A cluster with a database that others are made from, which has a thousandth of production."""
    with Cluster(root=root) as cluster:
        require_extension(cluster)
        cluster.create_database(SAMPLE)
        cluster.psql(SAMPLE, SCHEMA)
        cluster.psql(SAMPLE, GENERATE, variables={"scale": "0.001"})
        yield cluster


@pytest.fixture
def situation(sampled: Cluster, request: pytest.FixtureRequest) -> Iterator[Discovery]:
    """The database of pg_cron, in the situation of a page; beside it staging, another one."""
    for name in ("discovery", "staging"):
        sampled.create_database(name, template=SAMPLE)
    try:
        sampled.psql("discovery", "CREATE EXTENSION pg_cron", *SITUATIONS[request.param])
        yield Discovery(sampled, "discovery")
    finally:
        for name in ("discovery", "staging"):
            sampled.drop_database(name)
        with closing(sampled.connect("postgres")) as connection:
            connection.execute("DROP ROLE IF EXISTS challenge_runner, challenge_watcher, prometheus")


def psql(cluster: Cluster, database: str, source: str, user: str = "postgres") -> tuple[str, str]:
    """What psql prints in one session: errors and notices, and the rest."""
    command = ["--no-psqlrc", f"--dbname={database}", f"--username={user}", "--file=-"]
    done = cluster.run("psql", *command, input=source, check=False)
    return done.stderr, done.stdout


def run(cluster: Cluster, block: SqlBlock, user: str = "postgres") -> str:
    """What psql prints for the block, in a session of its own."""
    return "".join(psql(cluster, block.database, block.source, user))


def in_many_sessions(cluster: Cluster, blocks: Sequence[SqlBlock]) -> list[str]:
    """What psql prints for each block, in a session of its own."""
    return [run(cluster, block) for block in blocks]


def in_one_session(cluster: Cluster, blocks: Sequence[SqlBlock]) -> list[str]:
    """What psql prints for each block, all in one session, as long as they stay in one database."""
    database = blocks[0].database
    script = ""
    for block in blocks:
        if block.database != database:
            database = block.database
            script += f"\\connect {database}\n"
        script += f"{block.source}\\echo {END}\n\\warn {END}\n"
    errors, outputs = (printed.split(f"{END}\n") for printed in psql(cluster, blocks[0].database, script))
    assert len(errors) == len(outputs) == len(blocks) + 1
    return [error + output for error, output in zip(errors, outputs, strict=True)][:-1]


@pytest.mark.parametrize("printed_by", [in_many_sessions, in_one_session])
@pytest.mark.parametrize(("situation", "page"), [(page, page) for page in SITUATIONS], indirect=["situation"])
def test_the_page_works_as_written(
    situation: Discovery, page: str, printed_by: Callable[[Cluster, Sequence[SqlBlock]], list[str]]
) -> None:
    with closing(situation.connect()) as connection:
        has_seconds = knows_seconds(connection)
    blocks = [each for each in sql_blocks(HOW_TO / page, situation.name) if has_seconds or not each.needs_seconds]
    for block, printed in zip(blocks, printed_by(situation.cluster, blocks), strict=True):
        found, expected = sorted(shape(printed)), sorted(shape(block.shown))
        wrong = found != expected if block.shown else "ERROR" in found
        assert not wrong, f"{page}, line {block.line}: it shows\n{block.shown}\nbut this came:\n{printed}"


@pytest.mark.parametrize("situation", ["monitor.md"], indirect=True)
def test_the_role_that_monitors_can_run_every_query_of_the_page(situation: Discovery) -> None:
    role, *queries = sql_blocks(HOW_TO / "monitor.md", situation.name)
    run(situation.cluster, role)
    assert len(queries) > 5
    for block in queries:
        printed = run(situation.cluster, block, user="challenge_watcher")
        assert shape(printed) == shape(block.shown), f"line {block.line}:\n{printed}"


@pytest.mark.parametrize("situation", ["monitor.md"], indirect=True)
def test_the_alert_for_a_friday_stays_until_it_is_paid_or_given_up(situation: Discovery) -> None:
    role, *queries = sql_blocks(HOW_TO / "monitor.md", situation.name)
    run(situation.cluster, role)
    (alerts,) = [block for block in queries if "Friday not paid" in block.source]

    def alerted() -> list[tuple[str, str]]:
        printed = run(situation.cluster, alerts, user="challenge_watcher")
        return re.findall(r"Friday not paid \| (\w+) +\| (\d+) in all", printed)

    assert alerted() == []  # Nothing was ever paid.
    paid = "SELECT FROM reconcile_challenges('{tt,tut,tp}', as_of => date_trunc('week', now()) + INTERVAL '%s days')"
    situation.psql(paid % (4 - 35))
    weeks = sorted(alerted())
    assert [found[0] for found in weeks] == ["tp", "tt", "tut"]
    missed = int(weeks[0][1])
    assert missed in (4, 5)  # The last one may be today's.

    situation.psql(paid % (4 - 14))
    assert sorted(alerted()) == [(found[0], str(missed - 1)) for found in weeks]
    give_up, *_ = [
        block for block in sql_blocks(HOW_TO / "past-friday.md", situation.name) if "FROM (VALUES" in block.source
    ]
    assert "ERROR" not in run(situation.cluster, give_up)
    assert alerted() == [] or missed == 5


def test_no_page_is_forgotten() -> None:
    assert {page.name for page in HOW_TO.glob("*.md")} == {*SITUATIONS, *OTHERS}
