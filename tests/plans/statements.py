"""The statements that the service runs in this process, as the database gets them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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

    It is what SQLAlchemy runs, with its parameters. What SQLite is asked past it, SQLite tells itself; what Postgres
    is, shows in its counters, see judging.py.
    """
    found = Statements()

    def connected(connection: Any, _record: Any) -> None:
        if hasattr(connection, "set_trace_callback"):
            connection.set_trace_callback(found.add)

    def executed(_connection: Any, _cursor: Any, sql: str, parameters: Any, _context: Any, many: bool) -> None:
        found.add(sql, parameters[0] if many else parameters)

    event.listen(Engine, "connect", connected)
    event.listen(Engine, "before_cursor_execute", executed)
    try:
        yield found
    finally:
        event.remove(Engine, "connect", connected)
        event.remove(Engine, "before_cursor_execute", executed)
