"""A SQLite file that this process alone has open for writing.

Work runs on the event loop's own thread: a small write costs less than handing it to another. Pieces of work that come
in the same turn of the loop share a transaction, each in a savepoint of its own, and so share the flush at its end.
"""

import asyncio
import shutil
import sqlite3
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Dialect, Engine, PoolProxiedConnection, create_engine, event

from app.store.database import Result, Transaction, Work
from app.store.refusals import DriverErrors, Refusals, no_room

WAL_BYTES = 16 * 1024 * 1024
"""What a write-ahead log keeps of the disk once it has been longer, for a copy being made or a large transaction."""
SQLITE = DriverErrors(value=(sqlite3.DataError,), absence=(sqlite3.OperationalError, sqlite3.InterfaceError))
ROOM_BYTES = 4 * 1024 * 1024
"""Less than this is no room: one change of a state of the largest size takes some three times its 1 MiB."""
MAX_GROUP = 64
"""Pieces of work in one transaction at the most, so that the event loop gets its turn."""


def sqlite_engine(url: str) -> Engine:
    """An engine over a SQLite file: WAL, every commit flushed, transactions begun by whoever needs one."""
    engine = create_engine(url, connect_args={"isolation_level": None, "timeout": 5}, hide_parameters=True)
    Path(engine.url.database or "").absolute().parent.mkdir(parents=True, exist_ok=True)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA secure_delete=ON")  # what was deleted is not to be found in the file
        connection.execute("PRAGMA cache_size=-32768")
        connection.execute(f"PRAGMA journal_size_limit={WAL_BYTES}")

    return engine


class SqliteDriver:
    """A connection of the standard library's."""

    def __init__(self, connection: sqlite3.Connection, dialect: Dialect) -> None:
        self.dialect = dialect
        self._connection = connection

    def rows(self, sql: str, parameters: Any) -> list[Any]:
        """All rows that the statement gives."""
        return self._connection.execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Any) -> Any | None:
        """The first row that the statement gives, None when there is none."""
        cursor = self._connection.execute(sql, parameters)
        row = cursor.fetchone()
        cursor.close()  # whatever SQLite has not stepped to its end would keep the transaction open
        return row

    def run(self, sql: str, parameters: Any) -> int:
        """Run a statement that gives no rows; how many it has changed."""
        return self._connection.execute(sql, parameters).rowcount

    def add(self, sql: str, parameters: Any, table: str) -> None:  # noqa: ARG002  it costs no journey to do it at once
        """Insert into a table, or update it."""
        self._connection.execute(sql, parameters)

    def run_many(self, sql: str, rows: Sequence[Any]) -> None:
        """Run a statement once for each of the rows of parameters."""
        self._connection.executemany(sql, rows)

    @property
    def in_transaction(self) -> bool:
        """Whether one has been begun and not ended, by us or by SQLite itself."""
        return self._connection.in_transaction


class _Piece(NamedTuple):
    """A piece of work, and who waits for it."""

    work: Work[Any]
    done: "asyncio.Future[Any]"


class _Returned(NamedTuple):
    """What a piece of work returned, which may be None."""

    value: Any


class SqliteDatabase:
    """The file; see the module."""

    def __init__(self, url: str) -> None:
        self._engine = sqlite_engine(url)
        self._folder = Path(self._engine.url.database or "").absolute().parent
        self._refusals = Refusals()
        self._pooled: PoolProxiedConnection | None = None
        self._driver: SqliteDriver | None = None
        self._pieces: deque[_Piece] = deque()

    async def write(self, work: Work[Result]) -> Result:
        """The work, in the next transaction."""
        loop = asyncio.get_running_loop()
        if not self._pieces:
            loop.call_soon(self._write_group)
        piece = _Piece(work, loop.create_future())
        self._pieces.append(piece)
        result: Result = await piece.done
        return result

    async def write_one(self, work: Work[Result]) -> Result:
        """As any other: a transaction costs no journey here."""
        return await self.write(work)

    async def read(self, work: Work[Result]) -> Result:
        """The work; nobody can write meanwhile."""
        transaction = Transaction(self._connected())
        try:
            result = work(transaction)
        except Exception as error:
            if (refusal := self._refusals.of(error, SQLITE)) is None:
                raise
            raise refusal from error
        transaction.committed()
        return result

    async def check_room(self) -> None:
        """A small write may still find a place inside the files when no large one does: so look at the disk itself."""
        if (left := shutil.disk_usage(self._folder).free) < ROOM_BYTES:
            raise no_room(f"{left} bytes are left in {self._folder}")

    async def scrub(self) -> None:
        """Fold the write-ahead log in, and empty it: the file itself has nothing of what was deleted."""
        while self._pieces:
            self._write_group()
        self._connected().rows("PRAGMA wal_checkpoint(TRUNCATE)", ())

    async def close(self) -> None:
        """Close the file; the last one out folds the write-ahead log into it."""
        while self._pieces:
            self._write_group()
        if self._pooled is not None:
            self._pooled.close()
        self._engine.dispose()

    def _write_group(self) -> None:
        """BEGIN IMMEDIATE, what has come together, COMMIT, without ever leaving the thread."""
        pieces = [self._pieces.popleft() for _ in range(min(len(self._pieces), MAX_GROUP))]
        if self._pieces:
            asyncio.get_running_loop().call_soon(self._write_group)
        pieces = [piece for piece in pieces if not piece.done.done()]  # nobody waits for the others any more
        if not pieces:
            return
        try:
            ended = self._commit(pieces)
        except BaseException as error:
            for piece in pieces:
                self._fail(piece, error)
            return
        self._refusals.answered = True
        for piece, transaction, result in ended:
            transaction.committed()
            piece.done.set_result(result)

    def _commit(self, pieces: list[_Piece]) -> list[tuple[_Piece, Transaction, Any]]:
        """Those that did their work, with what they returned; the others know by now why they did not."""
        driver, ended = self._connected(), []
        try:
            driver.run("BEGIN IMMEDIATE", ())
            for piece in pieces:
                transaction = Transaction(driver)
                if len(pieces) == 1:
                    ended.append((piece, transaction, piece.work(transaction)))
                elif (result := self._in_savepoint(driver, piece, transaction)) is not None:
                    ended.append((piece, transaction, result.value))
            driver.run("COMMIT", ())
        except BaseException:
            if driver.in_transaction:
                driver.run("ROLLBACK", ())
            raise
        return ended

    def _in_savepoint(self, driver: SqliteDriver, piece: _Piece, transaction: Transaction) -> "_Returned | None":
        """What the work returned; None when it failed, which costs the others nothing."""
        driver.run("SAVEPOINT piece", ())
        try:
            returned = _Returned(piece.work(transaction))
        except BaseException as error:
            if not driver.in_transaction:  # SQLite itself gave up on the whole of it, as when the disk is full
                raise
            driver.run("ROLLBACK TO piece", ())
            self._fail(piece, error)
            returned = None
        driver.run("RELEASE piece", ())
        return returned

    def _fail(self, piece: _Piece, error: BaseException) -> None:
        if not piece.done.done():
            piece.done.set_exception(self._refusals.of(error, SQLITE) or error)

    def _connected(self) -> SqliteDriver:
        if self._driver is None:
            self._pooled = self._engine.raw_connection()
            connection = self._pooled.driver_connection
            assert isinstance(connection, sqlite3.Connection)
            self._driver = SqliteDriver(connection, self._engine.dialect)
        return self._driver
