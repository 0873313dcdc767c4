"""Pieces of work that share a commit on SQLite: each is done or not done by itself."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event

from app.errors import Conflict
from app.store.database import Transaction
from app.store.opening import open_database
from tests.support.tables import execute, query

_ADD = {"sqlite": "INSERT INTO pieces (number) VALUES (?)"}
_DOUBLE = {"sqlite": "INSERT INTO pieces (number) VALUES (?), (?)"}


class Fatal(BaseException):
    """What is no Exception."""


@pytest.fixture
def pieces_url(sqlite_url: str) -> str:
    """A database with a table of the test's own."""
    execute(sqlite_url, "CREATE TABLE pieces (number INTEGER PRIMARY KEY)")
    return sqlite_url


@contextmanager
def commits() -> Iterator[list[str]]:
    """Every COMMIT of connections that are made meanwhile."""
    seen: list[str] = []

    def connected(connection: Any, _record: Any) -> None:
        connection.set_trace_callback(lambda sql: seen.append(sql) if sql == "COMMIT" else None)

    event.listen(Engine, "connect", connected)
    try:
        yield seen
    finally:
        event.remove(Engine, "connect", connected)


def adding(number: int, error: BaseException | None = None) -> Any:
    """Work that adds a row, says so after the commit, and may raise after all."""

    def work(transaction: Transaction) -> int:
        transaction.driver(_ADD, (number,))
        transaction.after_commit(lambda: told.append(number))
        if error is not None:
            raise error
        return number

    told: list[int] = []
    work.told = told  # type: ignore[attr-defined]
    return work


def twice(transaction: Transaction) -> None:
    """Work that the database refuses in its second statement."""
    transaction.driver(_ADD, (-1,))
    transaction.driver(_DOUBLE, (-2, -2))


async def test_what_comes_together_is_flushed_together_and_failures_are_each_ones_own(pieces_url: str) -> None:
    works = [adding(1), adding(2, Conflict("no")), adding(3), twice, adding(4, Fatal()), adding(5)]
    with commits() as seen:
        database = open_database(pieces_url, lease_seconds=10)
        try:
            results = await asyncio.gather(*map(database.write, works), return_exceptions=True)
        finally:
            await database.close()
    kinds = [result if isinstance(result, int) else type(result).__name__ for result in results]
    assert kinds == [1, "Conflict", 3, "IntegrityError", "Fatal", 5]
    assert [work.told for work in works if work is not twice] == [[1], [], [3], [], [5]]
    assert [row["number"] for row in query(pieces_url, "SELECT number FROM pieces ORDER BY number")] == [1, 3, 5]
    assert len(seen) == 1


async def test_who_gave_up_before_its_turn_has_nothing_written(pieces_url: str) -> None:
    database = open_database(pieces_url, lease_seconds=10)
    try:
        waiting = [asyncio.create_task(database.write(adding(number))) for number in (1, 2)]
        await asyncio.sleep(0)  # both are in the queue
        waiting[0].cancel()
        assert await waiting[1] == 2
        assert waiting[0].cancelled()
    finally:
        await database.close()
    assert [row["number"] for row in query(pieces_url, "SELECT number FROM pieces")] == [2]


async def test_when_the_commit_fails_all_of_it_has_failed_and_nobody_is_told(pieces_url: str) -> None:
    execute(pieces_url, "CREATE TABLE parents (number INTEGER PRIMARY KEY)")
    reference = "REFERENCES parents (number) DEFERRABLE INITIALLY DEFERRED"
    execute(pieces_url, f"CREATE TABLE children (number INTEGER {reference})")

    def orphan(transaction: Transaction) -> None:
        transaction.driver({"sqlite": "INSERT INTO children (number) VALUES (?)"}, (7,))

    works = [adding(1), adding(2)]
    database = open_database(pieces_url, lease_seconds=10)
    try:
        results = await asyncio.gather(*map(database.write, [*works, orphan]), return_exceptions=True)
        assert all(isinstance(result, Exception) for result in results), results
        assert [work.told for work in works] == [[], []]
        assert await database.write(adding(3)) == 3
    finally:
        await database.close()
    assert [row["number"] for row in query(pieces_url, "SELECT number FROM pieces")] == [3]
