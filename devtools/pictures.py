"""The pictures of docs/: what the command shows of a throw-away database that has lived for half a year."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from rich.console import Console
from rich.text import Text

from devtools import REPOSITORY
from devtools.cluster import Cluster
from devtools.discovery import require_extension

PICTURES = REPOSITORY / "docs" / "pictures"
COMMAND = Path(sys.executable).with_name("audius-challenges")
DATABASE = "discovery"
SCALE = "0.003"
WEEKS = 26
MINUTES = 6
"""Of ticks, with changes in between."""
PAUSE = 4
"""Seconds between two changes."""
SIZE = (1200, 1730)
"""Of the report's picture: down to the end of the third chart."""

# Another service has been paying until now, more from week to week, and most of it is disbursed.
PAST: tuple[LiteralString, ...] = (
    "CREATE EXTENSION audius_challenges CASCADE",
    "SELECT FROM reconcile_challenges()",
    "SELECT FROM unschedule_challenges()",
    "DROP EXTENSION audius_challenges",
    """
    UPDATE user_challenges
    SET completed_at = dated.at, created_at = dated.at
    FROM (
        SELECT
            challenge_id AS of_challenge,
            specifier AS of_specifier,
            now() AT TIME ZONE 'UTC' - INTERVAL '182 days' * power(
                (hashtextextended(challenge_id || specifier, 1) & 1048575) / 1048576.0, 1.4
            ) AS at
        FROM user_challenges
    ) AS dated
    WHERE challenge_id = dated.of_challenge AND specifier = dated.of_specifier AND is_complete
    """,
    """
    INSERT INTO challenge_disbursements (challenge_id, user_id, specifier, signature, slot, amount, created_at)
    SELECT
        challenge_id, user_id, specifier, challenge_id || specifier, 1, amount::text, completed_at + INTERVAL '8 days'
    FROM user_challenges
    WHERE is_complete AND completed_at < now() AT TIME ZONE 'UTC' - INTERVAL '11 days'
    ON CONFLICT DO NOTHING
    """,
    "CREATE EXTENSION audius_challenges CASCADE",
    "SELECT FROM reconcile_challenges()",
)

# What comes in with a block: a few users upload what was missing, others say who they are.
CHANGE: LiteralString = """
    WITH block AS (
        INSERT INTO blocks (blockhash, number)
        SELECT 'picture' || max(number) + 1, max(number) + 1 FROM blocks
        RETURNING number
    ),
    artists AS (
        SELECT user_id FROM user_challenges
        WHERE challenge_id = 'u' AND NOT is_complete AND current_step_count = 2
        ORDER BY random()
        LIMIT 1 + (random() * 3)::integer
    ),
    uploaded AS (
        INSERT INTO tracks (track_id, owner_id, title, is_current, is_delete, blocknumber, created_at, updated_at)
        SELECT
            (SELECT max(track_id) FROM tracks) + row_number() OVER (), user_id, 'The third', TRUE, FALSE, number, now(),
            now()
        FROM artists, block
    )
    UPDATE users SET bio = 'I sing in the shower', blocknumber = block.number, updated_at = now()
    FROM block
    WHERE is_current AND user_id IN (
        SELECT user_id FROM user_challenges INNER JOIN challenge_profile_completion USING (user_id)
        WHERE challenge_id = 'p' AND current_step_count = 6 AND NOT profile_description
        ORDER BY random()
        LIMIT (random() * 4)::integer
    )
"""


def make_pictures() -> list[Path]:
    """Makes them all anew, from a real run; it takes some minutes, because a screen of ticks needs ticks."""
    PICTURES.mkdir(exist_ok=True)
    with Cluster(cron_database=DATABASE) as cluster:
        require_extension(cluster)
        cluster.create_database(DATABASE)
        cluster.psql(DATABASE, REPOSITORY / "discovery" / "schema.sql")
        cluster.psql(DATABASE, REPOSITORY / "discovery" / "generate.sql", variables={"scale": SCALE})
        cluster.psql(DATABASE, "CREATE EXTENSION pg_cron", *PAST)
        with cluster.connect(DATABASE) as connection:
            _live(connection)
            artist = connection.execute(
                "SELECT user_id FROM user_challenges WHERE challenge_id = 'u' AND is_complete"
                " ORDER BY completed_at DESC LIMIT 1"
            ).fetchone()
            newcomer = connection.execute(
                "SELECT user_id FROM user_challenges WHERE challenge_id = 'p' AND current_step_count = 6"
                " AND NOT is_complete ORDER BY user_id LIMIT 1"
            ).fetchone()
        assert artist
        assert newcomer
        shell = _Shell(cluster)
        return [
            shell.watch(),
            shell.terminal("explain", "explain", str(newcomer[0]), "p"),
            shell.terminal("explain-paid", "explain", str(artist[0]), "u"),
            shell.terminal("status", "status"),
            shell.terminal("doctor", "doctor"),
            shell.report(),
        ]


def _live(connection: psycopg.Connection[Any]) -> None:
    """Lets the database live on for some minutes, with its ticks."""
    connection.execute("SELECT FROM schedule_challenges()")
    until = time.monotonic() + MINUTES * 60
    while time.monotonic() < until:
        connection.execute(CHANGE)
        time.sleep(PAUSE)


class _Shell:
    """Takes pictures of the command's answers."""

    def __init__(self, cluster: Cluster) -> None:
        self._environment = cluster.environment() | {"PGDATABASE": DATABASE, "FORCE_COLOR": "1"}

    def terminal(self, name: str, *arguments: str, width: int = 100) -> Path:
        """A command, and what it prints."""
        printed = self._run(*arguments, width=width)
        with Path(os.devnull).open("w") as nowhere:
            console = Console(record=True, width=width, file=nowhere)
            console.print(Text.assemble(("$ ", "bold"), (f"audius-challenges {' '.join(arguments)}", "bold cyan")))
            console.print(Text.from_ansi(printed))
        path = PICTURES / f"{name}.svg"
        console.save_svg(str(path), title="audius-challenges")
        return path

    def watch(self) -> Path:
        """The screen of watch."""
        path = PICTURES / "watch.svg"
        self._run("watch", "--svg", str(path), width=120)
        return path

    def report(self) -> Path:
        """The upper part of the report, as Chromium shows it."""
        path = PICTURES / "report.png"
        with tempfile.TemporaryDirectory() as directory:
            page = Path(directory) / "report.html"
            self._run("report", "-o", str(page), "--weeks", str(WEEKS), width=100)
            subprocess.run(
                [
                    shutil.which("chromium") or "chromium",
                    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                    *("--virtual-time-budget=20000", f"--window-size={SIZE[0]},{SIZE[1]}"),
                    f"--screenshot={path}",
                    page.as_uri(),
                ],
                capture_output=True,
                check=True,
            )
        return path

    def _run(self, *arguments: str, width: int) -> str:
        done = subprocess.run(
            [str(COMMAND), *arguments],
            env=self._environment | {"COLUMNS": str(width)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode > 2:
            raise RuntimeError(f"audius-challenges {' '.join(arguments)} could not ask")
        return done.stdout
