"""The errors that people meet: what was wrong, where, and what to do about it."""

from __future__ import annotations

import traceback

from audius_challenges.annotations import Any

INVALID_PARAMETER_VALUE = "22023"
NULL_VALUE_NOT_ALLOWED = "22004"
ACTIVE_SQL_TRANSACTION = "25001"
READ_ONLY_SQL_TRANSACTION = "25006"
INVALID_TRANSACTION_TERMINATION = "2D000"
INSUFFICIENT_PRIVILEGE = "42501"
UNDEFINED_TABLE = "42P01"
UNDEFINED_COLUMN = "42703"
WRONG_OBJECT_TYPE = "42809"
NUMERIC_VALUE_OUT_OF_RANGE = "22003"
UNIQUE_VIOLATION = "23505"
DATATYPE_MISMATCH = "42804"
PROGRAM_LIMIT_EXCEEDED = "54000"
OBJECT_NOT_IN_PREREQUISITE_STATE = "55000"
LOCK_NOT_AVAILABLE = "55P03"
EXTERNAL_ROUTINE_EXCEPTION = "38000"

# Class 57 is "operator intervention": a cancel, a statement timeout, a shutdown.
OPERATOR_INTERVENTION = "57"


class ChallengeError(Exception):
    """An error with the parts PostgreSQL shows: message, detail, hint, SQLSTATE."""

    def __init__(
        self,
        message: str,
        *,
        sqlstate: str = INVALID_PARAMETER_VALUE,
        detail: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.sqlstate = sqlstate
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        """All parts in one text, as `last_error` and the column `error` show them."""
        parts = [self.message]
        if self.detail:
            parts.append(f"DETAIL: {self.detail}")
        if self.hint:
            parts.append(f"HINT: {self.hint}")
        return " ".join(parts)


def null_argument(name: str) -> ChallengeError:
    """The error of a call whose argument is null."""
    return ChallengeError(
        f"{name} must not be null",
        sqlstate=NULL_VALUE_NOT_ALLOWED,
        hint="Leave the argument out to get its default.",
    )


def is_operator_intervention(error: BaseException) -> bool:
    """Whether somebody wants the whole run to stop (rule 11), which is never one processor's failure."""
    return (sqlstate_of(error) or "").startswith(OPERATOR_INTERVENTION)


def sqlstate_of(error: BaseException) -> str | None:
    """The SQLSTATE of an error of PostgreSQL, None of any other.

    An error of a class that PostgreSQL has no name for comes without the attribute, but with the code packed.
    """
    if spidata := getattr(error, "spidata", None):
        return "".join(chr((spidata[0] >> shift & 0x3F) + ord("0")) for shift in range(0, 30, 6))
    sqlstate: str | None = getattr(error, "sqlstate", None)
    return sqlstate


def describe(error: BaseException) -> str:
    """What went wrong in one processor, in a text for people.

    A mistake of our own (neither a ChallengeError nor an error of PostgreSQL) comes with its traceback.
    """
    if isinstance(error, ChallengeError):
        return str(error)
    if sqlstate := sqlstate_of(error):
        detail, hint = (getattr(error, "spidata", None) or (None, None, None))[1:3]
        parts = (f"{error} (SQLSTATE {sqlstate})", detail and f"DETAIL: {detail}", hint and f"HINT: {hint}")
        return " ".join(part for part in parts if part)
    return "".join(traceback.format_exception(error)).rstrip()


def as_postgres_error(plpy: Any, error: ChallengeError) -> Exception:
    """The same error as an exception that PL/Python reports with its own detail, hint and SQLSTATE.

    PL/Python puts the class's name before the message, hence a class of this name.
    """
    named = type("audius_challenges", (plpy.Error,), {"__module__": "builtins"})
    reported: Exception = named(error.message)
    for part in ("sqlstate", "detail", "hint"):
        setattr(reported, part, getattr(error, part))
    return reported
