"""Pages that are followed on several servers: whose console a command is typed at is said by its prompt, `node0$`, or
`node0#` as root.

A block inside an HTML comment is followed as well: what has to happen and nobody would do by this page.

A machine is a throw-away cluster, and the shell of the server's user on it. A page names addresses such as 10.0.0.20:
here all are 127.0.0.1, each with a port of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devtools.cluster import Cluster
from tests.pages import BLOCK, shape

COMMAND = re.compile(
    r"^(?P<machine>\w+)[$#] (?P<command>[^\n]*<<'?(?P<end>\w+)'?\n.*?^(?P=end)$|[^\n]*)", re.MULTILINE | re.DOTALL
)
REPEATED = "<!-- repeated until it shows this -->\n"
COUNT = re.compile(r"\(\d+ rows?\)")
PATIENCE = 120.0

# What a page calls by Debian's name, and who waits for an answer at a prompt waits here, too.
PRELUDE = """
    set -o pipefail
    pg_ctlcluster() {
        case "$3" in
        stop) set -- --mode=fast stop ;;
        promote) set -- promote ;;
        *) set -- "--log=$PGDATA/../server.log" "$3" ;;
        esac
        pg_ctl --silent --wait "--pgdata=$PGDATA" "$@"
    }
"""


@dataclass(frozen=True)
class Typed:
    """A command of a page: at whose console, what it shows, and whether it is repeated until it does."""

    line: int
    machine: str
    command: str
    shown: str
    is_repeated: bool


def typed(page: Path) -> list[Typed]:
    """The commands of a page that have the prompt of a machine, in their order."""
    text = page.read_text()
    commands = []
    for block in BLOCK.finditer(text):
        if block["language"] != "console":
            continue
        source = block["source"]
        found = list(COMMAND.finditer(source))
        assert found, f"{page.name}: a block without a prompt:\n{source}"
        is_repeated = text[: block.start()].removesuffix("<!--\n").endswith(REPEATED)
        for match, following in zip(found, [*found[1:], None], strict=True):
            shown = source[match.end() : following.start() if following else None].lstrip("\n")
            line = text[: block.start("source") + match.start()].count("\n") + 1
            commands.append(Typed(line, match["machine"], match["command"], shown, is_repeated))
    return commands


class Machine(Cluster):
    """A server, and the shell of its user, at home in the cluster's
    directory. `address`: what pages call it."""

    address: str

    def type(self, command: str, network: Sequence[Machine]) -> tuple[int, str]:
        """Types a command; its exit status, and what it prints. network: the machines whose addresses it may name."""
        environment = self.environment() | {"PGHOST": self.inside(self.socket_dir)}
        environment |= {"PGDATA": self.inside(self.data_dir), "PATH": f"{self.bin_dir}:{os.environ['PATH']}"}
        done = subprocess.run(
            self._as_server(["bash", "-c", PRELUDE + _translated(command, network)]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            cwd=self.directory,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout

    def demand_passwords(self) -> None:
        """Lets nobody in from other machines; pages say who may come."""
        rules = self.data_dir / "pg_hba.conf"
        lines = rules.read_text().splitlines()
        rules.write_text("\n".join(line for line in lines if not line.startswith("host")) + "\n")
        self.psql("postgres", "SELECT pg_reload_conf()")


@dataclass(frozen=True)
class Network:
    """Machines by the names of their prompts."""

    machines: Mapping[str, Machine]

    def follow(self, page: Path) -> None:
        """Follows a page; fails where it shows something else than what comes."""
        for each in typed(page):
            status, printed = self.do(each)
            assert agrees(each, status, printed), (
                f"{page.name}, line {each.line}, at {each.machine}: {each.command}\n"
                f"it shows\n{each.shown}\nbut this came ({status}):\n{printed}\n{self._logs()}"
            )

    def do(self, each: Typed) -> tuple[int, str]:
        """Types a command, again and again if the page says so; its last exit status, and what it printed."""
        machines = list(self.machines.values())
        deadline = time.monotonic() + PATIENCE
        while True:
            status, printed = self.machines[each.machine].type(each.command, machines)
            if not each.is_repeated or agrees(each, status, printed) or time.monotonic() > deadline:
                return status, printed
            time.sleep(0.3)

    def _logs(self) -> str:
        return "\n".join(f"{name} logged:\n{machine.log()[-1500:]}" for name, machine in self.machines.items())


def agrees(each: Typed, status: int, printed: str) -> bool:
    """Whether a command did what the page shows: as `shape` has it, with the same count of rows where it is repeated,
    and failed only if an error is shown."""
    found, expected = shape(printed), shape(each.shown)
    if each.is_repeated:
        found += COUNT.findall(printed)
        expected += COUNT.findall(each.shown)
    has_failed = status != 0 or "ERROR" in found
    return sorted(found) == sorted(expected) and (not has_failed or "ERROR" in expected)


def _translated(command: str, network: Sequence[Machine]) -> str:
    """The command with the addresses and ports of the machines as they are here."""
    for machine in network:
        address = re.escape(machine.address)
        command = re.sub(rf"\bscp (\S+) {address}:", rf"cp \g<1> {machine.inside(machine.directory)}", command)
        command = re.sub(rf"{address}(\s+port=|:)5432\b", rf"127.0.0.1\g<1>{machine.port}", command)
        command = command.replace(machine.address, "127.0.0.1")
    return command
