"""A database that is slow, or away at times, or whose answers are lost: a real one behind it."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from app.errors import Unavailable
from app.store.database import Database, Transaction, Work
from app.store.opening import open_database

Result = TypeVar("Result")


class SlowDatabase:
    """Each write waits, and each read; while `away` says so, a write is refused, and when `lost` says so, done and yet
    not answered."""

    def __init__(self, database: Database, *, read_seconds: float = 0) -> None:
        self.seconds = 0.0
        self.read_seconds = read_seconds
        self.writes = 0
        self.refused = 0
        self.away: Callable[[int], bool] = lambda _number: False
        """Asked with the number of each write."""
        self.lost: Callable[[int], bool] = lambda _number: False
        """The same, of writes that are committed while the connection breaks."""
        self._database = database

    async def write(self, work: Work[Result]) -> Result:
        """As the database does it, later or not at all."""
        self.writes += 1
        if self.away(self.writes):
            self.refused += 1
            raise Unavailable("the database does not answer: it is away; try again", code="database_unavailable")
        if self.lost(self.writes):
            return await self._write_in_vain(work)
        if not self.seconds:
            return await self._database.write(work)
        return await asyncio.shield(asyncio.ensure_future(self._write_late(work)))

    async def _write_late(self, work: Work[Result]) -> Result:
        """Who stops waiting does not interrupt it, as on Postgres."""
        await asyncio.sleep(self.seconds / 2)
        result = await self._database.write(work)
        await asyncio.sleep(self.seconds / 2)
        return result

    async def _write_in_vain(self, work: Work[Result]) -> Result:
        """Done, but nobody hears of it."""

        def without_consequences(transaction: Transaction) -> None:
            work(transaction)
            transaction._actions.clear()

        self.refused += 1
        await self._database.write(without_consequences)
        raise Unavailable("the database does not answer: its answer is lost; try again", code="database_unavailable")

    async def write_one(self, work: Work[Result]) -> Result:
        """The same."""
        return await self.write(work)

    async def read(self, work: Work[Result]) -> Result:
        """As the database does it, later."""
        if self.read_seconds:
            await asyncio.sleep(self.read_seconds)
        return await self._database.read(work)

    async def check_room(self) -> None:
        """As the database does it."""
        await self._database.check_room()

    async def scrub(self) -> None:
        """As the database does it."""
        await self._database.scrub()

    async def close(self) -> None:
        """As the database does it."""
        await self._database.close()


@contextmanager
def slow_databases(*, read_seconds: float = 0) -> Iterator[list[SlowDatabase]]:
    """While this lasts, processes of the service that begin in this one get slow databases: these."""
    opened: list[SlowDatabase] = []

    def opening(*arguments: object, **options: object) -> SlowDatabase:
        opened.append(SlowDatabase(open_database(*arguments, **options), read_seconds=read_seconds))  # type: ignore[arg-type]
        return opened[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.main.open_database", opening)
        yield opened
