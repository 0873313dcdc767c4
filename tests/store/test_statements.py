"""Statements that are compiled once give what SQLAlchemy gives."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import create_engine, select

from app.store import runs, sessions
from app.store.database import Transaction, sync_url
from app.store.opening import open_database
from app.store.sqlite import sqlite_engine
from app.store.tables import Row, RunRow, RunTable, SessionRow, SessionTable, table_of

AT = datetime(2026, 11, 22, 10, 20, 30, 123456, UTC)
ELSEWHERE = timezone(timedelta(hours=5, minutes=30))


def session() -> SessionRow:
    return SessionRow(tenant_id="t", session_id="ü'%s?:x", workflow="w", created_at=AT, updated_at=AT)


def run(**values: Any) -> RunRow:
    given: dict[str, Any] = {"status": "queued", "ordinal": 1, "input": '{"a":"?%(b)s"}', "created_at": AT} | values
    return RunRow(tenant_id="t", run_id="r", workflow="w", session_id=session().session_id, **given)


def by_sqlalchemy(database_url: str, table: type[Row]) -> dict[str, Any]:
    """The table's only row, as SQLAlchemy itself reads it."""
    engine = (
        sqlite_engine(database_url) if database_url.startswith("sqlite:") else create_engine(sync_url(database_url))
    )
    try:
        with engine.connect() as connection:
            return dict(connection.execute(select(table_of(table))).one()._mapping)
    finally:
        engine.dispose()


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"content_truncated": True, "timeout_seconds": 0.25, "used_seconds": 1e-9, "content": '"\u2028"'},
        {"started_at": AT, "finished_at": AT.replace(microsecond=0), "paused_until": AT.astimezone(ELSEWHERE)},
    ],
)
async def test_a_row_comes_back_as_it_was_written(database_url: str, values: dict[str, Any]) -> None:
    written = run(**values)

    def work(transaction: Transaction) -> RunRow | None:
        assert sessions.insert_session(transaction, session())
        assert not sessions.insert_session(transaction, session())
        runs.insert_run(transaction, written)
        return runs.get_run(transaction, "t", "r")

    database = open_database(database_url, lease_seconds=10)
    try:
        read = await database.write(work)
    finally:
        await database.close()
    assert read is not None
    assert read.values == by_sqlalchemy(database_url, RunTable) == written.values
    moments = [value for value in read.values.values() if isinstance(value, datetime)]
    assert all(moment.tzinfo is UTC for moment in moments)


async def test_a_session_counts_arrivals_and_gives_its_turn_once(database_url: str) -> None:
    def arriving(run_id: str) -> Any:
        row = session()
        row.run_count, row.active_run_id = 1, run_id
        return lambda transaction: sessions.arrive(transaction, row)

    database = open_database(database_url, lease_seconds=10)
    try:
        arrived = [await database.write(arriving(run_id)) for run_id in ("a", "b", "c")]
    finally:
        await database.close()
    assert [(row.run_count, row.active_run_id) for row in arrived] == [(1, "a"), (2, "a"), (3, "a")]
    assert arrived[-1].values == by_sqlalchemy(database_url, SessionTable)
