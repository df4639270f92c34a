"""What the server sends, read where psycopg would give up: text that is no UTF-8, times that Python does not have."""

from __future__ import annotations

import datetime as dt
from typing import Any, Self

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.types.datetime import TimestamptzLoader

TEXTS = ("text", "varchar", "bpchar", "name")


class Beyond(dt.datetime):
    """A time that Python does not have, before the year 1, after 9999 or infinite: the nearest that it has.

    :ivar says: the time as the server says it
    """

    says: str

    @classmethod
    def of(cls, says: str) -> Self:
        """The time that the server says."""
        is_past = says == "-infinity" or says.endswith(" BC")
        made = cls(1, 1, 1, tzinfo=dt.UTC) if is_past else cls(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
        made.says = says
        return made


class _Times(TimestamptzLoader):
    def load(self, data: Buffer) -> dt.datetime:
        try:
            return super().load(data)
        except psycopg.DataError:
            return Beyond.of(bytes(data).decode())


class _Text(Loader):
    def load(self, data: Buffer) -> str:
        return bytes(data).decode(errors="replace")


def read_leniently(connection: psycopg.Connection[Any]) -> None:
    """Has times that Python does not have read as Beyond; in a database without an encoding (SQL_ASCII), text as
    UTF-8, with a mark for each byte that is none."""
    connection.adapters.register_loader("timestamptz", _Times)
    if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
        # With any other encoding the server refuses bytes that are none of it.
        connection.execute("SET client_encoding = 'SQL_ASCII'")
        for name in TEXTS:
            connection.adapters.register_loader(name, _Text)
