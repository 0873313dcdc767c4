"""A database that is slow, or away at times, or whose answers are lost: a real one behind it."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from app.errors import Unavailable
from app.store.database import Database, Transaction, Work, open_database

Result = TypeVar("Result")


class SlowDatabase:
    """Each write waits; while `away` says so, it is refused, and when `lost` says so, done and yet not answered."""

    def __init__(self, database: Database) -> None:
        self.seconds = 0.0
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
        if self.seconds:
            await asyncio.sleep(self.seconds)
        if not self.lost(self.writes):
            return await self._database.write(work)

        def without_consequences(transaction: Transaction) -> None:
            work(transaction)
            transaction._actions.clear()

        self.refused += 1
        await self._database.write(without_consequences)
        raise Unavailable("the database does not answer: its answer is lost; try again", code="database_unavailable")

    async def read(self, work: Work[Result]) -> Result:
        """As the database does it."""
        return await self._database.read(work)

    async def check_room(self) -> None:
        """As the database does it."""
        await self._database.check_room()

    async def close(self) -> None:
        """As the database does it."""
        await self._database.close()


@contextmanager
def slow_databases() -> Iterator[list[SlowDatabase]]:
    """While this lasts, processes of the service that begin in this one get slow databases: these."""
    opened: list[SlowDatabase] = []

    def opening(*arguments: object, **options: object) -> SlowDatabase:
        opened.append(SlowDatabase(open_database(*arguments, **options)))  # type: ignore[arg-type]
        return opened[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.main.open_database", opening)
        yield opened
