"""monitoring/ at work: Debian's exporter asks a ticking database, Debian's Prometheus asks the exporter, and every
panel of the dashboard and every alert rule has the data it goes by."""

from __future__ import annotations

import json
import math
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from devtools import REPOSITORY
from devtools.cluster import Cluster
from devtools.discovery import Discovery, create_discovery, require_extension
from tests.pages import sql_blocks
from tests.sessions import RUN_ORDER, Connection, column, rows, tick, until

MONITORING = REPOSITORY / "monitoring"
PAGE = REPOSITORY / "docs" / "how-to" / "put-it-on-your-dashboard.md"
ALERTS = MONITORING / "alerts.yaml"
PANELS = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
TARGETS = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]

FRIDAY = "SELECT FROM reconcile_challenges('{tt,tut,tp}', as_of => date_trunc('week', now()) - INTERVAL '17 days')"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def fetched(url: str) -> str:
    """The text at an address of ours; empty while nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - http, and ours
            text: str = answer.read().decode()
            return text
    except (urllib.error.URLError, ConnectionError):
        return ""


class Stack:
    """A database that has been ticking, the exporter and Prometheus beside it."""

    def __init__(self, database: Discovery, exporter: str, prometheus: str) -> None:
        self.database = database
        self.exporter = exporter
        self.prometheus = prometheus

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What Prometheus answers: samples with their labels ("metric") and values."""
        query = urllib.parse.urlencode({"query": expression})
        answer = json.loads(fetched(f"{self.prometheus}/api/v1/query?{query}"))
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found


def arguments_of_the_page() -> list[str]:
    """The exporter's options, as the page has them set."""
    found = re.search(r'^ARGS="(.*)"$', PAGE.read_text(), re.MULTILINE)
    assert found
    installed = "/etc/prometheus/audius-challenges-exporter.yaml"
    assert installed in found[1]
    return found[1].replace(installed, str(MONITORING / "postgres-exporter.yaml")).split()


@pytest.fixture(scope="module")
def cluster(root: Path | None) -> Iterator[Cluster]:
    with Cluster(root=root, settings={"wal_level": "logical"}) as cluster:
        require_extension(cluster)
        yield cluster


@pytest.fixture(scope="module")
def ticking(cluster: Cluster) -> Discovery:
    """A database that ticks, in which every number there may be is known."""
    database = create_discovery(cluster, "discovery")
    with closing(database.connect()) as connection:
        connection.execute("CREATE EXTENSION pg_cron")
        connection.execute("CREATE EXTENSION audius_challenges CASCADE")
        connection.execute("UPDATE challenges SET active = TRUE")
        connection.execute("SELECT build.qualify_tt(101), build.qualify_tut(102), build.qualify_tp(103)")
        connection.execute("SELECT build.person(n, is_verified => TRUE) FROM generate_series(1, 20) AS n")
        connection.execute("CALL audius_challenges.tick()")
        connection.execute(FRIDAY)
        for statement in SHARE:
            connection.execute(statement)
    for block in sql_blocks(PAGE, "discovery"):
        database.psql(block.source)
    return database


# A primary of a share that nobody derives anything of, so that all else is as it is without.
SHARE = (
    "INSERT INTO audius_challenges.share_plan VALUES (TRUE, 1, 1, '{}', '0/0', now())",
    "INSERT INTO audius_challenges.share_node (share, epoch, number, beat_at) VALUES ('0/1', 1, 1, now())",
    "SELECT pg_create_logical_replication_slot('audius_challenges_share_0_of_1', 'pgoutput')",
    "CREATE SUBSCRIPTION audius_challenges_return_0_of_1 CONNECTION 'dbname=x' PUBLICATION x WITH (connect = false)",
)


@pytest.fixture(scope="module")
def stack(ticking: Discovery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All of it; Prometheus asks every second, as people have it do every half minute."""
    directory = tmp_path_factory.mktemp("prometheus")
    for name in ("alerts.yaml", "prometheus.yaml"):
        shutil.copy(MONITORING / name, directory)
    exporter, prometheus = (f"127.0.0.1:{free_port()}" for _ in range(2))
    config = yaml.safe_load((directory / "prometheus.yaml").read_text())
    (directory / "alerts.yaml").rename(directory / config["rule_files"][0])
    (job,) = config["scrape_configs"]
    job["scrape_interval"] = "1s"
    job["static_configs"] = [{"targets": [exporter]}]
    config["global"] = {"evaluation_interval": "1s"}
    (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))
    source = ticking.cluster.dsn(ticking.name, "prometheus") + " sslmode=disable"
    commands: list[tuple[list[str], dict[str, str]]] = [
        (
            ["prometheus-postgres-exporter", f"--web.listen-address={exporter}", *arguments_of_the_page()],
            {"DATA_SOURCE_NAME": source},
        ),
        (
            [
                "prometheus",
                f"--config.file={directory / 'prometheus.yaml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address={prometheus}",
            ],
            {},
        ),
    ]
    with ExitStack() as processes:
        for command, environment in commands:
            log = processes.enter_context((directory / f"{command[0]}.log").open("w"))
            process = processes.enter_context(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            processes.callback(process.terminate)
        found = Stack(ticking, f"http://{exporter}", f"http://{prometheus}")
        until(lambda: fetched(f"{found.exporter}/metrics"), "the exporter")
        until(lambda: fetched(f"{found.prometheus}/-/ready"), "Prometheus")
        until(lambda: found.query("audius_challenges_build_info"), "the first samples")
        # Something is completed between two samples.
        with closing(ticking.connect()) as connection:
            connection.execute("SELECT build.person(n, is_verified => TRUE) FROM generate_series(21, 30) AS n")
            tick(connection)
        until(lambda: found.query("audius_challenges_completions_total{challenge='v'} == 30"), "samples of that tick")
        time.sleep(2)  # and one more, for rates
        yield found


def samples(connection: Connection) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What metrics() says, by name and labels."""
    return {
        (name, frozenset(labels.items())): value
        for name, labels, value in rows(connection, "SELECT name, labels, value FROM audius_challenges.metrics()")
    }


SAMPLE = re.compile(r"^(\w+)\{(.*)\} (\S+)$")
LABEL = re.compile(r'(\w+)="([^"]*)"')


def exported(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What the exporter says, but for numbers that nobody knows, and the label that is the server's."""
    found = {}
    for line in text.splitlines():
        if (sample := SAMPLE.match(line)) and sample[1].startswith("audius_challenges"):
            labels = frozenset(label for label in LABEL.findall(sample[2]) if label[0] != "server")
            if not math.isnan(float(sample[3])):
                found[sample[1], labels] = float(sample[3])
    return found


def test_the_exporter_hands_on_every_sample_of_metrics(stack: Stack) -> None:
    with closing(stack.database.connect("prometheus")) as connection:
        expected = samples(connection)
        found = exported(fetched(f"{stack.exporter}/metrics"))
    assert found.keys() == expected.keys()
    changing = re.compile("_age_seconds$|_tick_|_rounds_total$|_size_bytes$")
    for sample, number in expected.items():
        assert changing.search(sample[0]) or found[sample] == number, sample
    assert {dict(labels).get("challenge") for _, labels in found} == {None, *RUN_ORDER}
    assert {dict(labels).get("share") for _, labels in found} == {None, "0/1"}


def test_the_exporter_leaves_out_totals_while_the_past_is_counted(stack: Stack) -> None:
    def totals(text: str) -> set[str]:
        return set(re.findall(r'^audius_challenges_(\w+_total)\{challenge="p",', text, re.MULTILINE))

    everything = {"completions_total", "audio_total", "sweep_rounds_total"}
    assert totals(fetched(f"{stack.exporter}/metrics")) == everything
    with closing(stack.database.connect()) as connection:
        update = "UPDATE audius_challenges.day_backfill SET is_done = %s WHERE challenge_id = 'p'"
        connection.execute(update, (False,))
        try:
            assert totals(fetched(f"{stack.exporter}/metrics")) == {"sweep_rounds_total"}
        finally:
            connection.execute(update, (True,))


def test_the_exporter_complains_of_nothing(stack: Stack) -> None:
    text = fetched(f"{stack.exporter}/metrics")
    assert re.findall("^pg_exporter_last_scrape_error (.*)$", text, re.MULTILINE) == ["0"]


@pytest.mark.parametrize(("title", "expression"), TARGETS, ids=[f"{number}" for number in range(len(TARGETS))])
def test_every_panel_of_the_dashboard_has_data(stack: Stack, title: str, expression: str) -> None:
    expression = expression.replace("$instance", ".+").replace("$__rate_interval", "1m")
    assert "$" not in expression
    found = stack.query(expression)
    assert found, title
    assert all(not math.isnan(float(each["value"][1])) for each in found), (title, found)
    if "completions_total" in expression:
        assert max(float(each["value"][1]) for each in found) > 0


def test_every_metric_is_on_the_dashboard_or_in_an_alert(stack: Stack) -> None:
    shown = " ".join([expression for _, expression in TARGETS] + [ALERTS.read_text()])
    with closing(stack.database.connect()) as connection:
        names = set(column(connection, "SELECT name FROM audius_challenges.metrics()"))
    assert {name for name in names if not re.search(rf"\b{name}\b", shown)} == {
        "audius_challenges_past_counted",
        "audius_challenges_share_held_rows",
        "audius_challenges_share_inbox_rows",
        "audius_challenges_sweep_rounds_total",
        "audius_challenges_tick_interval_seconds",
    }


def test_the_alert_rules_are_sound_and_fire_when_they_should() -> None:
    for command in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]):
        done = subprocess.run(["promtool", *command], cwd=MONITORING, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_goes_by_metrics_that_there_are(stack: Stack) -> None:
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    for rule in rules:
        for name in set(re.findall(r"audius_challenges_\w+", rule["expr"])):
            assert stack.query(name), (rule["alert"], name)


def test_an_alert_comes_and_goes(stack: Stack) -> None:
    firing = 'ALERTS{alertname="ChallengeFails", alertstate="firing"}'
    assert stack.query(firing) == []
    with closing(stack.database.connect()) as connection:
        connection.execute("UPDATE challenges SET amount = 'five' WHERE id = 'fp'")
        for _ in range(3):
            connection.execute("SELECT FROM reconcile_challenges()")
        (alert,) = until(lambda: stack.query(firing), "the alert")
        assert alert["metric"]["challenge"] == "fp"
        connection.execute("UPDATE challenges SET amount = '5' WHERE id = 'fp'")
        connection.execute("SELECT FROM reconcile_challenges()")
    until(lambda: not stack.query(firing), "the end of the alert")
