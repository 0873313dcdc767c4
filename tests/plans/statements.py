"""The statements that the service runs in this process, as the database gets them."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Engine, event

_PLANNED = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", re.IGNORECASE)
_LITERAL = re.compile(r"'(?:[^']|'')*'|\b\d+(?:\.\d+)?\b|\bNULL\b")


class Statements:
    """One of each shape, with the parameters that it had first."""

    def __init__(self) -> None:
        self.of: dict[str, tuple[str, Any]] = {}

    def add(self, sql: str, parameters: Any = None) -> None:
        """Note a statement, if there is a plan to it and its shape is new."""
        if _PLANNED.match(sql):
            self.of.setdefault(_LITERAL.sub("?", sql), (sql, parameters))

    def about(self, table: str) -> list[str]:
        """The shapes that name a table."""
        return [shape for shape in self.of if re.search(rf"\b{table}\b", shape)]


@contextmanager
def recorded() -> Iterator[Statements]:
    """What connections that are made meanwhile are asked, with its parameters: a constant may have an index of its own.

    These are the connections of the store. What else Postgres is asked shows in its
    counters, see judging.py.
    """
    found = Statements()

    class SqliteConnection(sqlite3.Connection):
        """A connection that tells what it is asked."""

        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            found.add(sql, parameters)
            return super().execute(sql, parameters)

        def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
            rows = list(parameters)
            found.add(sql, *rows[:1])
            return super().executemany(sql, rows)

    async def listen(connection: asyncpg.Connection) -> None:
        connection.add_query_logger(lambda record: found.add(record.query, record.args))

    def create_pool(*arguments: Any, **options: Any) -> asyncpg.Pool:
        return asyncpg.create_pool(*arguments, **options, init=listen)

    def connect(dialect: Any, _record: Any, arguments: Any, options: dict[str, Any]) -> Any:
        return sqlite3.connect(*arguments, **options, factory=SqliteConnection) if dialect.name == "sqlite" else None

    event.listen(Engine, "do_connect", connect)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("app.store.postgres.create_pool", create_pool)
            yield found
    finally:
        event.remove(Engine, "do_connect", connect)
