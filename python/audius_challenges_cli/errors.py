"""What ends a command: a message for people, and the exit status."""

from __future__ import annotations

from enum import IntEnum

import psycopg
from psycopg import errors


class Exit(IntEnum):
    """The exit statuses, those of a monitoring plugin."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    CANNOT_ASK = 3
    INTERRUPTED = 130


class CommandError(Exception):
    """Ends a command with a message, and a hint about what to do."""

    def __init__(self, message: str, hint: str | None = None, status: Exit = Exit.CANNOT_ASK) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = status


def explained(error: psycopg.Error, role: str | None) -> CommandError:
    """The server's error as people are told it.

    :param role: who has asked, None if nobody could connect
    """
    diagnostic = error.diag
    message = diagnostic.message_primary or str(error).strip() or type(error).__name__
    hint = diagnostic.message_hint
    match error:
        case errors.InsufficientPrivilege() if not hint:
            name = (role or "").replace("'", "''")
            hint = (
                f"As a superuser: SELECT audius_challenges.grant_status('{name}'); lets this role look, and\n"
                f"SELECT audius_challenges.grant_run('{name}'); lets it run challenges."
            )
        case errors.UndefinedFunction() | errors.UndefinedTable() if "audius_challenges." in message:
            message = f"the extension of this database does not have all that this command asks for: {message}"
            hint = "Install the newest files, then ALTER EXTENSION audius_challenges UPDATE."
        case errors.QueryCanceled():
            hint = hint or "There is a statement_timeout, or somebody has cancelled it."
    if diagnostic.message_detail:
        message += f"\n{diagnostic.message_detail}"
    return CommandError(message, hint)
