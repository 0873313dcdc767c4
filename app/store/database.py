"""The database: one transaction for a piece of work, on SQLite or on Postgres.

Work is a plain function of a transaction, so no transaction can be held across author code, an open stream or anything
else that waits. On SQLite it runs on the event loop's own thread: a small commit costs less than handing it to another.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from sqlalchemy import Dialect

from app.errors import ConfigurationError
from app.store.statements import Statement

Result = TypeVar("Result")
Record = dict[str, Any]
"""A row by the names of its columns."""


class Driver(Protocol):
    """A connection as its driver gives it, with the one dialect that its statements are compiled for."""

    dialect: Dialect

    def rows(self, sql: str, parameters: Any) -> list[Any]:
        """All rows that the statement gives."""

    def row(self, sql: str, parameters: Any) -> Any | None:
        """The first row that the statement gives, None when there is none."""

    def run(self, sql: str, parameters: Any) -> int:
        """Run a statement that gives no rows; how many it has changed."""

    def add(self, sql: str, parameters: Any, table: str) -> None:
        """Insert into, or update, this one table, at the latest before anything else is asked or committed."""

    def run_many(self, sql: str, rows: Sequence[Any]) -> None:
        """Run a statement once for each of the rows of parameters."""


class Transaction:
    """What work gets: statements to run, and a promise of what happens once they are committed."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._actions: list[Callable[[], object]] = []
        self.dialect = driver.dialect.name
        self.commit_asked = False
        """Whether the database may have committed it, whatever becomes of the connection."""

    def one(self, statement: Statement, parameters: Mapping[str, Any]) -> Record | None:
        """The first row that the statement gives, None when there is none."""
        compiled = statement.compiled(self._driver.dialect)
        row = self._driver.row(compiled.sql, compiled.parameters(parameters))
        return None if row is None else compiled.record(row)

    def all(self, statement: Statement, parameters: Mapping[str, Any]) -> list[Record]:
        """The rows that the statement gives."""
        compiled = statement.compiled(self._driver.dialect)
        return [compiled.record(row) for row in self._driver.rows(compiled.sql, compiled.parameters(parameters))]

    def run(self, statement: Statement, parameters: Mapping[str, Any]) -> None:
        """Run a statement that gives no rows, an insert or an update perhaps together with others that follow."""
        compiled = statement.compiled(self._driver.dialect)
        if compiled.adds_to is None:
            self._driver.run(compiled.sql, compiled.parameters(parameters))
        else:
            self._driver.add(compiled.sql, compiled.parameters(parameters), compiled.adds_to)

    def count(self, statement: Statement, parameters: Mapping[str, Any]) -> int:
        """Run a statement that gives no rows; how many it has changed."""
        compiled = statement.compiled(self._driver.dialect)
        return self._driver.run(compiled.sql, compiled.parameters(parameters))

    def driver(self, statements: Mapping[str, str], parameters: Sequence[Any]) -> list[Any]:
        """Run the dialect's one of the statements as it is, and give its rows as tuples."""
        return self._driver.rows(statements[self.dialect], parameters)

    def driver_add(self, statements: Mapping[str, str], parameters: Sequence[Any], *, table: str) -> None:
        """Run the dialect's one of the statements, which adds to this table, perhaps with others that follow."""
        self._driver.add(statements[self.dialect], parameters, table)

    def driver_many(self, statement: str, rows: Sequence[Any]) -> None:
        """Run a statement of the driver's once for each of the rows."""
        self._driver.run_many(statement, rows)

    def after_commit(self, action: Callable[[], object]) -> None:
        """Do this when, and only when, the transaction has been committed; it may not fail."""
        self._actions.append(action)

    def committed(self) -> None:
        """Called by the database, once."""
        for action in self._actions:
            action()


Work = Callable[[Transaction], Result]


class Database(Protocol):
    """Where the tables are."""

    async def write(self, work: Work[Result]) -> Result:
        """Do the work in one transaction, committed when it returns; raises Unavailable when it is not to be had."""

    async def write_one(self, work: Work[Result]) -> Result:
        """The same for work of a single statement, which needs no transaction around it."""

    async def read(self, work: Work[Result]) -> Result:
        """Do work that only reads; each of its statements sees what is committed when it runs."""

    async def check_room(self) -> None:
        """Raises Unavailable when the disk, as far as this process sees it, has no room for what a request writes."""

    async def scrub(self) -> None:
        """Have what was deleted be gone from the files too, as far as it is this process's to do."""

    async def close(self) -> None:
        """Give up all connections."""


def check_url(url: str) -> None:
    """Raises ConfigurationError for what is no URL of a database of ours."""
    if not url.startswith(("sqlite:", "postgresql:", "postgres:", "postgresql+psycopg:")):
        shown = url.rpartition("@")[2]
        raise ConfigurationError(f"MILLSTREAM_DATABASE_URL is {shown!r}; it starts with sqlite:/// or postgresql://")


def sync_url(url: str) -> str:
    """The URL as SQLAlchemy wants it."""
    for scheme in ("postgresql:", "postgres:"):
        if url.startswith(scheme):
            return "postgresql+psycopg:" + url.removeprefix(scheme)
    return url


def driver_url(url: str) -> str:
    """The URL as libpq wants it."""
    return url.replace("postgresql+psycopg:", "postgresql:", 1)
