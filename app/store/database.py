"""The database: one transaction for a piece of work, on SQLite or on Postgres.

Work is a plain function of a transaction, so no transaction can be held across author code, an open stream or anything
else that waits. On SQLite it runs on the event loop's own thread: a small commit costs less than handing it to another.
"""

import asyncio
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, CursorResult, Engine, Executable, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import create_async_engine

from app.errors import ConfigurationError, Unavailable
from app.store.refusals import Refusals, no_room

WAL_BYTES = 16 * 1024 * 1024
"""What a write-ahead log keeps of the disk once it has been longer, for a copy being made or a large transaction."""
CONNECTION_SECONDS = 5
"""How long a connection to Postgres may take to be made."""
FREE_SECONDS = 15
"""How long work waits for a connection that is free, before whoever asked is told to come again."""
ROOM_BYTES = 4 * 1024 * 1024
"""Less than this is no room: one change of a state of the largest size takes some three times its 1 MiB."""

Result = TypeVar("Result")


class Transaction:
    """What work gets: statements to run, and a promise of what happens once they are committed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._actions: list[Callable[[], None]] = []
        self.dialect = connection.dialect.name

    def execute(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> CursorResult[Any]:
        """Run one statement."""
        return self._connection.execute(statement, parameters)

    def driver(self, statements: Mapping[str, str], parameters: Any) -> CursorResult[Any]:
        """Run the dialect's one of the statements as it is; a list of tuples runs it for each."""
        return self._connection.exec_driver_sql(statements[self.dialect], parameters)

    def after_commit(self, action: Callable[[], None]) -> None:
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

    async def read(self, work: Work[Result]) -> Result:
        """Do work that only reads."""

    async def check_room(self) -> None:
        """Raises Unavailable when the disk, as far as this process sees it, has no room for what a request writes."""

    async def close(self) -> None:
        """Give up all connections."""


def open_database(url: str, *, lease_seconds: float, pool_size: int = 10) -> Database:
    """The database of a URL: `sqlite:///file` or `postgresql://…`; raises ConfigurationError for another.

    On Postgres, a process that falls silent in a transaction loses it, and its locks, after the lease.
    """
    check_url(url)
    if url.startswith("sqlite:"):
        return SqliteDatabase(url)
    return PostgresDatabase(url, pool_size=pool_size, silence_milliseconds=max(1, int(lease_seconds * 1000)))


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


def sqlite_engine(url: str) -> Engine:
    """An engine over a SQLite file: WAL, every commit flushed, transactions begun by whoever needs one."""
    engine = create_engine(url, connect_args={"isolation_level": None, "timeout": 5}, hide_parameters=True)
    Path(engine.url.database or "").absolute().parent.mkdir(parents=True, exist_ok=True)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA cache_size=-32768")
        connection.execute(f"PRAGMA journal_size_limit={WAL_BYTES}")

    return engine


class SqliteDatabase:
    """A file that this process alone has open for writing."""

    def __init__(self, url: str) -> None:
        self._engine = sqlite_engine(url)
        self._folder = Path(self._engine.url.database or "").absolute().parent
        self._connection: Connection | None = None
        self._refusals = Refusals()

    async def write(self, work: Work[Result]) -> Result:
        """BEGIN IMMEDIATE, the work, COMMIT, without ever leaving the thread."""
        connection = self._connected()
        transaction = Transaction(connection)
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            result = work(transaction)
            connection.commit()
        except DBAPIError as error:
            connection.rollback()
            self._refusals.check(error)
            raise
        except BaseException:
            connection.rollback()
            raise
        transaction.committed()
        return result

    async def read(self, work: Work[Result]) -> Result:
        """The work; nobody can write meanwhile."""
        connection = self._connected()
        try:
            return work(Transaction(connection))
        except DBAPIError as error:
            self._refusals.check(error)
            raise
        finally:
            connection.rollback()

    async def check_room(self) -> None:
        """A small write may still find a place inside the files when no large one does: so look at the disk itself."""
        if (left := shutil.disk_usage(self._folder).free) < ROOM_BYTES:
            raise no_room(f"{left} bytes are left in {self._folder}")

    async def close(self) -> None:
        """Close the file; the last one out folds the write-ahead log into it."""
        if self._connection is not None:
            self._connection.close()
        self._engine.dispose()

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection


class PostgresDatabase:
    """A Postgres that any number of processes share."""

    def __init__(self, url: str, *, pool_size: int, silence_milliseconds: int) -> None:
        self._working: set[asyncio.Future[Any]] = set()
        self._refusals = Refusals()
        options = {
            # A process that is stopped, or a machine that is gone, must not keep others from its rows.
            "options": f"-c idle_in_transaction_session_timeout={silence_milliseconds}",
            "connect_timeout": CONNECTION_SECONDS,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": silence_milliseconds,
        }
        try:
            self._engine = create_async_engine(
                sync_url(url),
                pool_size=pool_size,
                max_overflow=pool_size,
                pool_timeout=FREE_SECONDS,
                connect_args=options,
                hide_parameters=True,
            )
        except ModuleNotFoundError:
            raise ConfigurationError("Postgres needs the extra: pip install 'millstream[postgres]'") from None

    async def write(self, work: Work[Result]) -> Result:
        """The work in one transaction, on a pooled connection.

        A caller who stops waiting does not interrupt it: that would cost the connection, and leave the outcome open.
        """
        working = asyncio.ensure_future(self._write(work))
        self._working.add(working)
        working.add_done_callback(self._done)
        return await asyncio.shield(working)

    async def _write(self, work: Work[Result], *, again: bool = True) -> Result:
        transactions: list[Transaction] = []
        done = False

        def begun(connection: Connection) -> Result:
            transactions.append(Transaction(connection))
            return work(transactions[0])

        try:
            async with self._engine.begin() as connection:
                result = await connection.run_sync(begun)
                done = True
        except DBAPIError as error:
            # A connection of the pool was dead, or died before the commit was asked for: nothing has happened.
            if again and error.connection_invalidated and not done:
                return await self._write(work, again=False)
            self._refusals.check(error)
            raise
        except PoolTimeout as error:
            raise Unavailable(
                f"the database is too slow: no connection to it was free for {FREE_SECONDS} s; try again",
                code="database_unavailable",
            ) from error
        transactions[0].committed()
        return result

    async def read(self, work: Work[Result]) -> Result:
        """The same; reads need no other isolation."""
        return await self.write(work)

    async def check_room(self) -> None:
        """Its disk is another machine's: only a write can tell."""

    async def close(self) -> None:
        """Let work end that nobody waits for any more, and close the pool."""
        await asyncio.gather(*self._working, return_exceptions=True)
        await self._engine.dispose()

    def _done(self, working: "asyncio.Future[Any]") -> None:
        self._working.discard(working)
        if not working.cancelled():
            working.exception()  # whoever waits has it too; where nobody does, it is no news to the event loop
