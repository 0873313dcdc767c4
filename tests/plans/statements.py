"""The statements that the service runs in this process, as the database gets them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
    """What connections that are made meanwhile are asked.

    SQLite tells of every statement itself, whoever runs it. On Postgres it is what psycopg's connections of the service
    are asked; whatever else speaks to the server shows in its counters, see judging.py.
    """
    found = Statements()

    class Telling(AsyncCursor[Any]):
        """A cursor that tells what it is asked."""

        async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
            found.add(str(query), params)
            return await super().execute(query, params, **options)

    def connected(connection: Any, _record: Any) -> None:
        if hasattr(connection, "set_trace_callback"):
            connection.set_trace_callback(found.add)
        else:
            connection.driver_connection.cursor_factory = Telling

    event.listen(Engine, "connect", connected)
    try:
        yield found
    finally:
        event.remove(Engine, "connect", connected)
