"""A Postgres that any number of processes share: each piece of work on a pooled asynchronous connection."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import create_async_engine

from app.errors import ConfigurationError, Unavailable
from app.store.database import Result, Transaction, Work, sync_url
from app.store.refusals import Refusals

CONNECTION_SECONDS = 5
"""How long a connection to Postgres may take to be made."""
FREE_SECONDS = 15
"""How long work waits for a connection that is free, before whoever asked is told to come again."""


class _Lost(Exception):
    """The connection broke under the work; whether a commit had been asked for by then."""

    def __init__(self, error: Exception, *, nothing_happened: bool) -> None:
        super().__init__(str(error))
        self.error, self.nothing_happened = error, nothing_happened


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
                isolation_level="AUTOCOMMIT",  # transactions are begun by whoever needs one
            )
        except ModuleNotFoundError:
            raise ConfigurationError("Postgres needs the extra: pip install 'millstream[postgres]'") from None
        self._lost_at = 0.0
        event.listen(self._engine.sync_engine, "connect", _note_when_made)
        event.listen(self._engine.sync_engine, "checkout", self._check_out)

    async def write(self, work: Work[Result]) -> Result:
        """The work in one transaction, on a pooled connection.

        A caller who stops waiting does not interrupt it: that would cost the connection, and leave the outcome open.
        """
        return await self._uninterrupted(self._do(_in_transaction, work, again=True))

    async def write_one(self, work: Work[Result]) -> Result:
        """The work's one statement, committed by itself: one journey to the database instead of three."""
        return await self._uninterrupted(self._do(_alone, work, again=False))

    async def read(self, work: Work[Result]) -> Result:
        """The same without a transaction."""
        return await self._uninterrupted(self._do(_alone, work, again=True))

    async def check_room(self) -> None:
        """Its disk is another machine's: only a write can tell."""

    async def _uninterrupted(self, doing: Coroutine[Any, Any, Result]) -> Result:
        working = asyncio.get_running_loop().create_task(doing)
        self._working.add(working)
        working.add_done_callback(self._done)
        return await asyncio.shield(working)

    async def _do(self, way: "Way", work: Work[Result], *, again: bool) -> Result:
        """With `again`, a connection that breaks before a commit was asked for costs nothing but another one."""
        try:
            async with self._engine.connect() as connection:
                transaction, result = await connection.run_sync(self._on, way, work)
        except _Lost as lost:
            if again and lost.nothing_happened:
                return await self._do(way, work, again=False)
            raise self._refusal(lost.error) from lost.error
        except PoolTimeout as error:
            raise Unavailable(
                f"the database is too slow: no connection to it was free for {FREE_SECONDS} s; try again",
                code="database_unavailable",
            ) from error
        except Exception as error:
            refusal = self._refusal(error)
            if refusal is error:
                raise
            raise refusal from error
        self._refusals.answered = True
        transaction.committed()
        done: Result = result
        return done

    def _on(self, connection: Connection, way: "Way", work: Work[Any]) -> tuple[Transaction, Any]:
        transaction, dbapi = Transaction(connection), self._engine.dialect.loaded_dbapi
        try:
            return transaction, way(connection, transaction, work)
        except (DBAPIError, dbapi.OperationalError, dbapi.InterfaceError) as error:
            if not self._is_lost(connection, error):
                raise
            self._lost_at = time.monotonic()
            raise _Lost(error, nothing_happened=not transaction.commit_asked) from error

    def _is_lost(self, connection: Connection, error: Any) -> bool:
        """Whether the connection broke. It is given up then; after statements of its own, SQLAlchemy has done so."""
        if isinstance(error, DBAPIError):
            return error.connection_invalidated
        lost: bool = self._engine.dialect.is_disconnect(error, connection.connection, None)
        if lost:
            connection.invalidate(error)
        return lost

    def _refusal(self, error: Exception) -> Exception:
        return self._refusals.of(error, self._engine.dialect.loaded_dbapi) or error

    def _check_out(self, _connection: Any, record: Any, _proxy: Any) -> None:
        """Where one connection broke, those that are as old have broken too."""
        if record.info["made_at"] < self._lost_at:
            raise InvalidatePoolError

    async def close(self) -> None:
        """Let work end that nobody waits for any more, and close the pool."""
        await asyncio.gather(*self._working, return_exceptions=True)
        await self._engine.dispose()

    def _done(self, working: "asyncio.Future[Any]") -> None:
        self._working.discard(working)
        if not working.cancelled():
            working.exception()  # whoever waits has it too; where nobody does, it is no news to the event loop


def _note_when_made(_connection: Any, record: Any) -> None:
    record.info["made_at"] = time.monotonic()


def _in_transaction(connection: Connection, transaction: Transaction, work: Work[Any]) -> Any:
    driver = connection.connection
    driver.cursor().execute("BEGIN")
    try:
        result = work(transaction)
        transaction.commit_asked = True
        driver.cursor().execute("COMMIT")
    except BaseException:
        if not connection.invalidated:
            driver.rollback()
        raise
    return result


def _alone(_connection: Connection, transaction: Transaction, work: Work[Any]) -> Any:
    return work(transaction)


Way = Callable[[Connection, Transaction, Work[Any]], Any]
