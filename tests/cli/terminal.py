"""The command audius-challenges as somebody in a terminal, or a machine, runs it."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from devtools import REPOSITORY
from devtools.discovery import Discovery

PEOPLE = "UPDATE challenges SET starting_block = 0; SELECT build.person(id) FROM generate_series(11, 50) AS id"
QUALIFY = "SELECT build.qualify('u', 1), build.qualify('u', 2), build.qualify('fp', 4), build.almost('u', 3)"
RECONCILE = "SELECT FROM reconcile_challenges()"
COMMAND = (sys.executable, "-m", "audius_challenges_cli")
NOTHING: Mapping[str, str] = MappingProxyType({})
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Answer:
    """What a command has printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The output, read as a machine does."""
        return json.loads(self.out)


def environment(database: Discovery, user: str = "postgres") -> dict[str, str]:
    """In which libpq finds the database."""
    return database.cluster.environment() | {
        "PGDATABASE": database.name,
        "PGUSER": user,
        "PYTHONPATH": str(REPOSITORY / "python"),
        "COLUMNS": "120",
    }


def ask(database: Discovery, *arguments: str, user: str = "postgres", extra: Mapping[str, str] = NOTHING) -> Answer:
    """Runs a command; nothing that goes wrong in it is a traceback."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        env={**environment(database, user), **extra},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Answer(done.returncode, done.stdout, done.stderr)


def begin(database: Discovery, *arguments: str) -> subprocess.Popen[str]:
    """Begins a command, which goes on by itself."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment(database),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def on_a_screen(database: Discovery, *arguments: str, keys: bytes = b"", status: int = 0) -> str:
    """Runs a command on a terminal, and returns all that it has drawn there, without escapes.

    :param keys: what is typed when it has drawn its first
    :param status: the exit status that it is to have
    """
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [*COMMAND, *arguments],
            env=environment(database) | {"TERM": "xterm-256color"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        ) as process:
            os.close(theirs)
            drawn = b""
            while True:
                try:
                    more = os.read(ours, 65536)
                except OSError:  # the other side is closed
                    break
                if not more:
                    break
                drawn += more
                if keys and b"completions a minute" in ESCAPE.sub("", drawn.decode(errors="replace")).encode():
                    os.write(ours, keys)
                    keys = b""
            assert process.wait(timeout=60) == status, drawn.decode()
    finally:
        os.close(ours)
    return ESCAPE.sub("", drawn.decode())
