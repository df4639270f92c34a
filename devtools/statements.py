"""Every statement of every challenge, as PostgreSQL gets it: in files, for sqlfluff, and planned by a server."""

import re
import shutil
from collections.abc import Iterator
from typing import Any

import psycopg

from audius_challenges.challenges import CHALLENGES
from audius_challenges.database import Statement, translated
from audius_challenges.engine import feed, users
from devtools import REPOSITORY
from devtools.cluster import Cluster
from devtools.discovery import SCHEMA

DIRECTORY = REPOSITORY / "build" / "statements"
# The tables of state, without what only a script of an extension may say of them.
STATE = ("10_schema.sql", "20_tables.sql")
# Where a piece of a statement is empty.
BLANKS = re.compile(r"[ \t]*\n(?:[ \t]*\n)*")
NOT_IN_A_SCRIPT = re.compile(r"^SELECT .*pg_extension_config_dump.*$", re.MULTILINE)


def explain() -> list[str]:
    """Writes the statements to build/statements, has a server plan them on the discovery schema and the tables of
    state, and returns what it says against them, each with the statement's name."""
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    DIRECTORY.mkdir(parents=True)
    complaints = []
    with Cluster(settings={"shared_preload_libraries": ""}) as cluster:
        cluster.create_database("statements")
        state = "\n".join((REPOSITORY / "sql" / name).read_text() for name in STATE)
        cluster.psql("statements", SCHEMA, NOT_IN_A_SCRIPT.sub("", state))
        with cluster.connect("statements") as connection:
            for name, statement in _statements():
                (DIRECTORY / f"{name}.sql").write_text(BLANKS.sub("\n", f"{statement.text.strip()};\n"))
                if complaint := _explain(connection, statement):
                    complaints.append(f"{name}: {complaint}")
    return complaints


def _statements() -> Iterator[tuple[str, Statement]]:
    statements = {
        "slice": users.USER_ID.slice,
        "look_load": feed.STANDINGS,
        "look_save": feed.SAVE,
        "look_trim": feed.TRIM,
        "look_merge": feed.MERGE,
    }
    for table, present in feed.PRESENT.items():
        statements[f"present_{table}"] = present
        statements[f"any_changed_{table}"] = feed.any_changed_row(table)
    for processor in CHALLENGES:
        for name, text in processor.statements.items():
            statements[f"{processor.id}_{name}"] = text
        for source in getattr(processor, "sources", ()):
            statements[f"{processor.id}_changed_{source.table}"] = feed.changed_rows(source)
    for name, text in statements.items():
        yield name, translated(text, "public")


def _explain(connection: psycopg.Connection[Any], statement: Statement) -> str | None:
    types = ", ".join(statement.parameters.values())
    prepare = f"PREPARE checked{f' ({types})' if types else ''} AS {statement.text}"
    nulls = ", ".join("NULL" for _ in statement.parameters)
    try:
        connection.execute(prepare.encode())
        connection.execute(f"EXPLAIN EXECUTE checked{f' ({nulls})' if nulls else ''}".encode())
        connection.execute("DEALLOCATE checked")
    except psycopg.Error as error:
        connection.execute("DEALLOCATE ALL")
        return str(error).strip()
    return None
