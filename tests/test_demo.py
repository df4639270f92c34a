"""The demo, as its visitors see it: on 80 columns, with every challenge, and with a way out."""

import os
import pty
import re
import signal
import subprocess
import sys
import time

from devtools import REPOSITORY
from tests.sessions import RUN_ORDER

DEMO = [sys.executable, "-m", "devtools", "demo"]
COLUMNS = 80
STARTED = 60
"""Seconds until its first pause, at most."""


def test_the_demo_shows_rewards_of_every_challenge_and_fits_80_columns() -> None:
    done = subprocess.run(
        DEMO,
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    totals = done.stdout.partition("Rewards by challenge")[2].partition("Ask it, and watch it")[0]
    assert sorted(re.findall(r"^ ([a-z]+[0-9]?) +[1-9]", totals, re.MULTILINE)) == sorted(RUN_ORDER)
    # The terminal wraps commands, which can be copied then.
    too_long = [line for line in done.stdout.splitlines() if len(line) > COLUMNS and not line.startswith("$ ")]
    assert too_long == []
    assert "connection failed" not in done.stdout
    assert "rd   referred user" in done.stdout.partition("watch --frame")[2]


def test_on_a_terminal_the_demo_pauses_and_ctrl_c_is_the_way_out() -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        DEMO, cwd=REPOSITORY, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        shown = _read_until(ours, "Enter: go on")
        os.write(ours, b"\n")
        shown += _read_until(ours, "Enter: go on")
        os.killpg(process.pid, signal.SIGINT)
        shown += _read_until(ours, "the cluster is gone")
        assert process.wait(STARTED) == 0
    os.close(ours)
    assert "Traceback" not in shown


def _read_until(terminal: int, awaited: str) -> str:
    shown = ""
    deadline = time.monotonic() + STARTED
    while awaited not in shown:
        assert time.monotonic() < deadline, shown
        shown += os.read(terminal, 65536).decode(errors="replace")
    return shown
