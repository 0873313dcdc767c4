"""A database as it is after years: rows of every kind, written past the service and faster than it could."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

from sqlalchemy import Connection, create_engine, insert

from app import clock
from app.store.database import sync_url
from app.store.events import NewEvent
from app.store.sqlite import sqlite_engine
from app.store.tables import (
    DEFAULT_TENANT,
    DeliveryRow,
    DeliveryTable,
    EventRow,
    EventTable,
    IdempotencyRow,
    IdempotencyTable,
    RevisionRow,
    RevisionTable,
    Row,
    RunRow,
    RunTable,
    SessionRow,
    SessionTable,
    WebhookRow,
    WebhookTable,
    table_of,
)

OLD_SESSION = "the-old-one"
RARE = "rare"
"""A value that a few of the oldest rows have: where it has no index, they are found last."""
RARE_ROWS = 3
WAITING_RUNS = 20
"""Queued ones, in sessions that give nobody the turn: they stay."""
VARIETY = 500
"""Different users and names."""
ROWS_PER_STATEMENT = 5_000
BEGINNING = datetime(2025, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Amounts:
    """How much there is of what."""

    sessions: int
    """Beside the old one; every second has a run."""
    old_runs: int
    """Ended runs of the old session, each with a revision."""
    events: int
    """In all, over all runs."""
    long_events: int
    """Of them, those of one run of the old session."""


@dataclass(frozen=True)
class Filled:
    """What is in it, for those who ask for it."""

    workflow: str
    long_run: str
    """Of the old session; as long as was wanted."""
    deep_run: str
    """Half of all runs are older."""
    deep_session: tuple[datetime, str]


def fill(database_url: str, workflow: str, amounts: Amounts) -> Filled:
    """Fill a migrated database; Postgres gets to know its statistics, as it does by itself, and SQLite never."""
    engine = sqlite_engine(database_url) if _is_sqlite(database_url) else create_engine(sync_url(database_url))
    runs = list(_runs(workflow, amounts))
    try:
        with engine.connect() as connection:
            if _is_sqlite(database_url):
                connection.exec_driver_sql("BEGIN")  # nobody else does, and a commit for each row takes for ever
            _insert(connection, SessionTable, _sessions(workflow, amounts))
            _insert(connection, RevisionTable, _revisions(amounts))
            _insert(connection, RunTable, runs)
            _insert(connection, IdempotencyTable, map(_key_of, runs))
            _insert(connection, WebhookTable, map(_webhook_of, runs))
            _insert(connection, DeliveryTable, map(_delivery_of, runs))
            events = map(_event_row, _events([run.run_id for run in runs], amounts))
            _insert(connection, EventTable, events)
            connection.commit()
        if not _is_sqlite(database_url):
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("ANALYZE")
    finally:
        engine.dispose()
    deep = amounts.sessions // 2
    return Filled(workflow, runs[0].run_id, runs[len(runs) // 2].run_id, (_moment(deep), f"session-{deep:07d}"))


def _insert(connection: Connection, table: type[Row], rows: Iterable[Row]) -> None:
    remaining = iter(rows)
    while page := list(islice(remaining, ROWS_PER_STATEMENT)):
        connection.execute(insert(table_of(table)), [row.model_dump() for row in page])


def _sessions(workflow: str, amounts: Amounts) -> Iterator[SessionRow]:
    yield _session(OLD_SESSION, workflow, 0, revision=amounts.old_runs, run_count=amounts.old_runs)
    for number in range(amounts.sessions):
        yield _session(f"session-{number:07d}", _workflow_of(workflow, number), number, revision=0, run_count=1)


def _session(session_id: str, workflow: str, number: int, *, revision: int, run_count: int) -> SessionRow:
    return SessionRow(
        tenant_id=DEFAULT_TENANT,
        session_id=session_id,
        workflow=workflow,
        user_id=_spread("user", number),
        name=_spread("name", number),
        revision=revision,
        run_count=run_count,
        created_at=_moment(number),
        updated_at=_moment(number),
    )


def _revisions(amounts: Amounts) -> Iterator[RevisionRow]:
    """Of the old session: counting up, with a snapshot as often as the store makes them for small changes."""
    for number in range(1, amounts.old_runs + 1):
        counter = {"op": "add", "path": "/counter", "value": number}
        yield RevisionRow(
            tenant_id=DEFAULT_TENANT,
            session_id=OLD_SESSION,
            revision=number,
            created_at=_moment(number),
            patch=json.dumps([counter], separators=(",", ":")),
            snapshot=json.dumps({"counter": number}, separators=(",", ":")) if number % 50 == 0 else None,
        )


def _runs(workflow: str, amounts: Amounts) -> Iterator[RunRow]:
    """Oldest first, so that ids are in the order of time: those of the old session among the others."""
    every = max(1, amounts.sessions // 2 // amounts.old_runs)
    old = iter(range(1, amounts.old_runs + 1))
    yield _run(OLD_SESSION, workflow, 0, ordinal=next(old))
    for number in range(0, amounts.sessions, 2):
        yield _run(f"session-{number:07d}", _workflow_of(workflow, number), number, ordinal=1)
        if number // 2 % every == 0 and (ordinal := next(old, None)) is not None:
            yield _run(OLD_SESSION, workflow, number, ordinal=ordinal)
    for ordinal in old:
        yield _run(OLD_SESSION, workflow, amounts.sessions, ordinal=ordinal)
    for number in range(WAITING_RUNS):
        yield _run(f"session-{2 * number + 1:07d}", workflow, amounts.sessions, ordinal=1, status="queued")


def _run(session_id: str, workflow: str, number: int, *, ordinal: int, status: str = "completed") -> RunRow:
    return RunRow(
        tenant_id=DEFAULT_TENANT,
        run_id=clock.new_id(),
        workflow=workflow,
        session_id=session_id,
        user_id=_spread("user", number),
        status="failed" if number < RARE_ROWS else status,
        ordinal=ordinal,
        attempt=1,
        worker_id="long-gone",
        input='{"events":10}',
        content='"said"',
        base_revision=0,
        session_revision=0,
        created_at=_moment(number),
        started_at=_moment(number),
        finished_at=_moment(number),
    )


def _key_of(run: RunRow) -> IdempotencyRow:
    return IdempotencyRow(
        tenant_id=run.tenant_id,
        key=f"key-{run.run_id}",
        request_hash="0" * 64,
        run_id=run.run_id,
        created_at=clock.now(),
    )


def _webhook_of(run: RunRow) -> WebhookRow:
    """As if each run had been started with one."""
    return WebhookRow(
        tenant_id=DEFAULT_TENANT,
        webhook_id=clock.new_id(),
        user_id=run.user_id,
        run_id=run.run_id,
        url="https://hooks.example.com/",
        events='["RunFinished"]',
        created_at=run.created_at,
        updated_at=run.created_at,
    )


def _delivery_of(run: RunRow) -> DeliveryRow:
    """Long arrived."""
    return DeliveryRow(
        tenant_id=DEFAULT_TENANT,
        delivery_id=clock.new_id(),
        webhook_id=f"webhook-{run.user_id}",
        user_id=run.user_id,
        run_id=run.run_id,
        sequence=1,
        event="RunFinished",
        payload="{}",
        host="hooks.example.com",
        status="failed" if run.status == "failed" else "delivered",
        attempts=1,
        created_at=run.created_at,
    )


def _events(run_ids: list[str], amounts: Amounts) -> Iterator[NewEvent]:
    yield from _log(run_ids[0], amounts.long_events)
    each = (amounts.events - amounts.long_events) // (len(run_ids) - 1)
    for run_id in run_ids[1:]:
        yield from _log(run_id, each)


def _event_row(event: NewEvent) -> EventRow:
    return EventRow.of(dict(zip(EventRow.model_fields, event, strict=True)))


def _log(run_id: str, count: int) -> Iterator[NewEvent]:
    for sequence in range(1, count):
        payload = (
            f'{{"event":"RunResponse","content":"#{sequence:07d} {"x" * 56}","content_type":"str","run_id":"{run_id}",'
            f'"sequence":{sequence},"created_at":"2025-01-01T00:00:00.000000Z"}}'
        )
        yield DEFAULT_TENANT, run_id, sequence, "RunResponse", payload, None
    last = f'{{"event":"RunFinished","status":"completed","run_id":"{run_id}","sequence":{count}}}'
    yield DEFAULT_TENANT, run_id, count, "RunFinished", last, None


def _spread(what: str, number: int) -> str:
    return RARE if number < RARE_ROWS else f"{what}-{number % VARIETY}"


def _workflow_of(workflow: str, number: int) -> str:
    return RARE if number < RARE_ROWS else workflow


def _moment(number: int) -> datetime:
    return BEGINNING + timedelta(seconds=number)


def _is_sqlite(database_url: str) -> bool:
    return database_url.startswith("sqlite:")
