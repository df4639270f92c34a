"""The pages of docs/ as they are followed: their SQL and console blocks, with what they show."""

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

BLOCK = re.compile(r"^(?:<!-- in the database (\w+) -->\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RULE = re.compile(r"[-+]+")
COMMAND_TAG = re.compile(r"[A-Z]+(?: [A-Z]+)*(?: \d+)*")


@dataclass(frozen=True)
class SqlBlock:
    """A block of SQL, the block of text that follows it (empty if none does), and where the page says to run it."""

    page: str
    line: int
    database: str
    source: str
    shown: str


def sql_blocks(page: Path, database: str) -> list[SqlBlock]:
    """The page's SQL in its order. What is not marked for another database runs in this one."""
    text = page.read_text()
    found = list(BLOCK.finditer(text))
    blocks = []
    for match, following in zip(found, [*found[1:], None], strict=True):
        if match[2] == "sql":
            shown = following[3] if following and following[2] == "text" else ""
            line = text[: match.start(3)].count("\n") + 1
            blocks.append(SqlBlock(page.name, line, match[1] or database, match[3], shown))
    return blocks


def console_commands(page: Path) -> list[str]:
    """The commands of the page's console blocks in their order: what comes after `$ `, with its here-document."""
    commands = []
    for match in BLOCK.finditer(page.read_text()):
        if match[2] == "console":
            commands += re.findall(r"^\$ (.*<<(\w+)\n.*?^\2$|.*)", match[3], re.MULTILINE | re.DOTALL)
    return [command for command, _ in commands]


def shape(printed: str) -> list[str]:
    """What psql's output says whatever the rows are: the names of columns, the tags of commands, and ERROR."""
    shape = []
    for line, following in pairwise([*printed.splitlines(), ""]):
        if line.startswith("ERROR:") or ": ERROR: " in line:
            shape.append("ERROR")
        elif "-" in following and RULE.fullmatch(following):
            shape.append(" ".join(name.strip() for name in line.split("|")))
        elif COMMAND_TAG.fullmatch(line) and not line.startswith(("DETAIL", "HINT")):
            shape.append(re.sub(r" \d+", "", line))
    return shape
