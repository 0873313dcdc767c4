"""The statements that the service runs in this process, as the database gets them."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from psycopg import AsyncCursor
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

    These are the connections that SQLAlchemy makes, whoever speaks over them. What else Postgres is asked shows in its
    counters, see judging.py.
    """
    found = Statements()

    class SqliteCursor(sqlite3.Cursor):
        """A cursor that tells what it is asked."""

        def execute(self, sql: str, parameters: Any = (), /) -> Self:
            found.add(sql, parameters)
            return super().execute(sql, parameters)

        def executemany(self, sql: str, parameters: Any, /) -> Self:
            rows = list(parameters)
            found.add(sql, *rows[:1])
            return super().executemany(sql, rows)

    class SqliteConnection(sqlite3.Connection):
        """A connection with such cursors."""

        def cursor(self, factory: Any = SqliteCursor) -> Any:
            return super().cursor(factory)

    class PostgresCursor(AsyncCursor[Any]):
        """The same of Postgres."""

        async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
            found.add(str(query), params)
            return await super().execute(query, params, **options)

    def connect(dialect: Any, _record: Any, arguments: Any, options: dict[str, Any]) -> Any:
        return sqlite3.connect(*arguments, **options, factory=SqliteConnection) if dialect.name == "sqlite" else None

    def connected(connection: Any, _record: Any) -> None:
        if not isinstance(connection, sqlite3.Connection):
            connection.driver_connection.cursor_factory = PostgresCursor

    event.listen(Engine, "do_connect", connect)
    event.listen(Engine, "connect", connected)
    try:
        yield found
    finally:
        event.remove(Engine, "do_connect", connect)
        event.remove(Engine, "connect", connected)
