"""A Postgres that any number of processes share: each piece of work on a pooled asynchronous connection.

Work is a plain function; it runs in a greenlet, which goes on with the event loop whenever a statement is under way.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from itertools import chain
from typing import Any, TypeAlias

import asyncpg
from asyncpg import create_pool
from asyncpg.pool import PoolConnectionProxy
from sqlalchemy import Dialect
from sqlalchemy.dialects.postgresql.asyncpg import dialect as asyncpg_dialect
from sqlalchemy.engine import make_url
from sqlalchemy.util import await_only, greenlet_spawn

from app.errors import Unavailable
from app.store.database import Result, Transaction, Work, driver_url
from app.store.refusals import DriverErrors, Refusals

CONNECTION_SECONDS = 5
"""How long a connection to Postgres may take to be made."""
FREE_SECONDS = 15
"""How long work waits for a connection that is free, before whoever asked is told to come again."""
ANSWER_SECONDS = 60
"""How long a statement may take. None of ours takes long: where the network is gone, this is what notices."""
STATEMENTS = 1000
"""Prepared on each connection and kept; more than there are."""
LIBPQ_ONLY = (
    *("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
    *("tcp_user_timeout", "channel_binding", "gssencmode", "client_encoding", "load_balance_hosts"),
)
"""Members of a URL that asyncpg would send to the server as settings."""

POSTGRES = DriverErrors(
    value=(asyncpg.DataError, asyncpg.exceptions.CharacterNotInRepertoireError),
    absence=(
        asyncpg.PostgresConnectionError,
        asyncpg.InsufficientResourcesError,
        asyncpg.OperatorInterventionError,
        asyncpg.PostgresSystemError,
        asyncpg.TransactionRollbackError,
        asyncpg.ObjectNotInPrerequisiteStateError,
        asyncpg.IdleInTransactionSessionTimeoutError,
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        OSError,
        TimeoutError,
    ),
)
LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InvalidCachedStatementError,  # the tables were migrated: what is prepared there is of the past
    asyncpg.OutdatedSchemaCacheError,
    asyncpg.InternalClientError,  # it waits for an answer that does not come: the server has said farewell
    OSError,
)
"""What says that the connection is of no more use."""
BROKEN = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""Whatever may come of a statement."""

_PARAMETER = re.compile(r"\$(\d+)")

Connection: TypeAlias = "PoolConnectionProxy[Any]"


class _Lost(Exception):
    """The connection broke under the work; whether a commit had been asked for by then."""

    def __init__(self, error: BaseException, *, nothing_happened: bool) -> None:
        super().__init__(str(error))
        self.error, self.nothing_happened = error, nothing_happened


class PostgresDriver:
    """A connection of asyncpg's, for work in a greenlet.

    What is added to different tables one after the other goes as one statement: each journey to the database costs more
    than what it does there.
    """

    dialect: Dialect = asyncpg_dialect()  # type: ignore[no-untyped-call]

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._added: dict[str, tuple[str, Sequence[Any]]] = {}

    def rows(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        """All rows that the statement gives."""
        self.flush()
        rows: list[Any] = await_only(self._connection.fetch(sql, *parameters))
        return rows

    def row(self, sql: str, parameters: Sequence[Any]) -> Any | None:
        """The first row that the statement gives, None when there is none."""
        self.flush()
        return await_only(self._connection.fetchrow(sql, *parameters))

    def run(self, sql: str, parameters: Sequence[Any]) -> int:
        """Run a statement that gives no rows; how many it has changed."""
        self.flush()
        status = await_only(self._connection.execute(sql, *parameters))
        count = status.rpartition(" ")[2]
        return int(count) if count.isdigit() else 0

    def add(self, sql: str, parameters: Sequence[Any], table: str) -> None:
        """Insert into, or update, this one table, at the latest before anything else is asked or committed."""
        if table in self._added:  # parts of one statement do not see one another
            self.flush()
        self._added[table] = (sql, parameters)

    def flush(self) -> None:
        """Have what was added written."""
        if self._added:
            parts, self._added = list(self._added.values()), {}
            sql = _joined(tuple((part, len(given)) for part, given in parts))
            await_only(self._connection.execute(sql, *chain.from_iterable(given for _, given in parts)))

    def run_many(self, sql: str, rows: Sequence[Any]) -> None:
        """Run a statement once for each of the rows of parameters."""
        self.flush()
        await_only(self._connection.executemany(sql, rows))

    def forget(self) -> None:
        """Leave out what was added and not yet written."""
        self._added = {}

    @property
    def closed(self) -> bool:
        """Whether nothing can be asked any more."""
        return bool(self._connection.is_closed())


@lru_cache(maxsize=STATEMENTS)
def _joined(parts: tuple[tuple[str, int], ...]) -> str:
    """Statements, each with the number of its parameters, as one."""
    if len(parts) == 1:
        return parts[0][0]
    joined, first = [], 0
    for number, (sql, count) in enumerate(parts):
        renumbered = _PARAMETER.sub(lambda match, first=first: f"${int(match[1]) + first}", sql)  # type: ignore[misc]
        joined.append(f"part_{number} AS ({renumbered})")
        first += count
    return f"WITH {', '.join(joined)} SELECT"


class PostgresDatabase:
    """A Postgres that any number of processes share."""

    def __init__(self, url: str, *, pool_size: int, silence_milliseconds: int) -> None:
        self._url = asyncpg_url(url)
        self._pool_size, self._silence_milliseconds = pool_size, silence_milliseconds
        self._pool: asyncpg.Pool[Any] | None = None
        self._working: set[asyncio.Future[Any]] = set()
        self._refusals = Refusals()

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
        return await self._do(_alone, work, again=True)

    async def check_room(self) -> None:
        """Its disk is another machine's: only a write can tell."""

    async def scrub(self) -> None:
        """Autovacuum does, in its time."""

    async def close(self) -> None:
        """Let work end that nobody waits for any more, and close the pool."""
        await asyncio.gather(*self._working, return_exceptions=True)
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), CONNECTION_SECONDS)
            except TimeoutError:
                self._pool.terminate()

    async def _uninterrupted(self, doing: Coroutine[Any, Any, Result]) -> Result:
        working = asyncio.get_running_loop().create_task(doing)
        self._working.add(working)
        working.add_done_callback(self._done)
        return await asyncio.shield(working)

    async def _do(self, way: "Way", work: Work[Result], *, again: bool) -> Result:
        """With `again`, a connection that breaks before a commit was asked for costs nothing but another one."""
        try:
            async with self._connection() as connection:
                transaction, result = await greenlet_spawn(_on, connection, way, work)
        except _Lost as lost:
            await self._give_up_connections()
            if again and lost.nothing_happened:
                return await self._do(way, work, again=False)
            raise self._refusal(lost.error) from lost.error
        except Exception as error:
            refusal = self._refusal(error)
            if refusal is error:
                raise
            raise refusal from error
        self._refusals.answered = True
        transaction.committed()
        done: Result = result
        return done

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        pool = await self._opened()
        try:
            async with asyncio.timeout(FREE_SECONDS) as waiting:
                connection = await pool.acquire()
        except TimeoutError as error:
            if not waiting.expired():
                raise
            raise Unavailable(
                f"the database is too slow: no connection to it was free for {FREE_SECONDS} s; try again",
                code="database_unavailable",
            ) from error
        try:
            yield connection
        finally:
            await pool.release(connection)

    async def _opened(self) -> "asyncpg.Pool[Any]":
        """The pool, whose connections are made as they are needed."""
        if self._pool is None:
            self._pool = create_pool(
                self._url,
                min_size=0,
                max_size=2 * self._pool_size,
                timeout=CONNECTION_SECONDS,
                command_timeout=ANSWER_SECONDS,
                statement_cache_size=STATEMENTS,
                max_cached_statement_lifetime=0,
                reset=_keep_as_it_is,
                server_settings={
                    # A process that is stopped, or a machine that is gone, must not keep others from its rows.
                    "idle_in_transaction_session_timeout": str(self._silence_milliseconds),
                },
            )
            await self._pool
        return self._pool

    async def _give_up_connections(self) -> None:
        """Where one connection broke, those that are as old have broken too."""
        if self._pool is not None:
            await self._pool.expire_connections()

    def _refusal(self, error: BaseException) -> BaseException:
        return self._refusals.of(error, POSTGRES) or error

    def _done(self, working: "asyncio.Future[Any]") -> None:
        self._working.discard(working)
        if not working.cancelled():
            working.exception()  # whoever waits has it too; where nobody does, it is no news to the event loop


async def _keep_as_it_is(_connection: Connection) -> None:
    """Work leaves nothing behind on a connection: no settings, no locks, no cursors. Asking for it is a journey."""


def asyncpg_url(url: str) -> str:
    """The URL as asyncpg wants it."""
    known = make_url(driver_url(url)).difference_update_query(LIBPQ_ONLY)
    return known.render_as_string(hide_password=False)


def _on(connection: Connection, way: "Way", work: Work[Any]) -> tuple[Transaction, Any]:
    driver = PostgresDriver(connection)
    transaction = Transaction(driver)
    try:
        return transaction, way(driver, transaction, work)
    except BROKEN as error:
        if isinstance(error, LOST) or driver.closed:
            connection.terminate()  # it may not know yet, and would be given to others
            raise _Lost(error, nothing_happened=not transaction.commit_asked) from error
        raise


def _in_transaction(driver: PostgresDriver, transaction: Transaction, work: Work[Any]) -> Any:
    driver.run("BEGIN", ())
    try:
        result = work(transaction)
        driver.flush()
        transaction.commit_asked = True
        driver.run("COMMIT", ())
    except BaseException:
        driver.forget()
        with suppress(*BROKEN):
            driver.run("ROLLBACK", ())
        raise
    return result


def _alone(driver: PostgresDriver, transaction: Transaction, work: Work[Any]) -> Any:
    result = work(transaction)
    driver.flush()
    return result


Way = Callable[[PostgresDriver, Transaction, Work[Any]], Any]
