"""The pages of docs/ as they are followed: their SQL and console blocks, with what they show."""

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

# Comments, which a reader of the page does not see, say where a block runs.
PLACE = r"(?:<!-- in the database (?P<database>\w+) -->\n)?(?:<!-- (?P<seconds>pg_cron 1.5 or newer) -->\n)?"
BLOCK = re.compile(rf"^{PLACE}```(?P<language>\w+)\n(?P<source>.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ ([^\n]*<<(\w+)\n.*?^\2$|[^\n]*)", re.MULTILINE | re.DOTALL)
RULE = re.compile(r"[-+]+")
COMMAND_TAG = re.compile(r"[A-Z]+(?: [A-Z]+)*(?: \d+)*")


@dataclass(frozen=True)
class SqlBlock:
    """A block of SQL, the block of text that follows it (empty if none does), and where it runs: in which database,
    and whether only with a pg_cron that knows schedules of seconds."""

    line: int
    database: str
    needs_seconds: bool
    source: str
    shown: str


def sql_blocks(page: Path, database: str) -> list[SqlBlock]:
    """The page's SQL in its order. What is not marked for another database runs in this one."""
    text = page.read_text()
    found = list(BLOCK.finditer(text))
    blocks = []
    for match, following in zip(found, [*found[1:], None], strict=True):
        if match["language"] == "sql":
            shown = following["source"] if following and following["language"] == "text" else ""
            line = text[: match.start("source")].count("\n") + 1
            block = SqlBlock(line, match["database"] or database, bool(match["seconds"]), match["source"], shown)
            blocks.append(block)
    return blocks


def console_commands(page: Path) -> list[str]:
    """The commands of the page's console blocks in their order: what comes after `$ `, with its here-document."""
    commands = []
    for match in BLOCK.finditer(page.read_text()):
        if match["language"] == "console":
            commands += [found[1] for found in COMMAND.finditer(match["source"])]
    return commands


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
