"""Retention: the events of runs that ended long ago are removed, a few at a time, while everything else goes on."""

import asyncio
import logging
import time
from datetime import datetime, timedelta

from app import clock
from app.errors import Unavailable
from app.metrics import Metrics
from app.store import retention, tenants
from app.store.database import Database, Transaction

logger = logging.getLogger(__name__)

ROWS_PER_BATCH = 500
RUNS_PER_BATCH = 100
"""What one transaction removes: on SQLite the event loop waits for it."""
PAUSE_SECONDS = 0.05
REST = 4
"""After a batch, at least this many times as long as it took belongs to others."""
LOOK_SECONDS = 60.0
"""How often it is asked whether more is due, once nothing was."""
LOOKS_PER_AGE = 100
"""For short ages: how late a removal may be."""
RETRY_SECONDS = 5.0


class Retention:
    """Removes the events of runs that ended more than a number of days ago. Any process may; each takes other runs."""

    def __init__(self, database: Database, metrics: Metrics, *, days: float) -> None:
        self._database, self._metrics = database, metrics
        self._age = timedelta(days=days)
        self._look_seconds = min(LOOK_SECONDS, max(1.0, self._age.total_seconds() / LOOKS_PER_AGE))

    async def run(self) -> None:
        """Remove until cancelled."""
        total = 0
        while True:
            began = time.monotonic()
            try:
                removed = await self._database.write(self._remove_batch)
            except Unavailable:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            except Exception:  # whatever it was, the next batch may go better, and nobody else looks for this process
                logger.exception("retention_failed")
                await asyncio.sleep(LOOK_SECONDS)
                continue
            if removed is not None:
                self._metrics.events_removed.inc(removed)
                total += removed
                await asyncio.sleep(max(PAUSE_SECONDS, REST * (time.monotonic() - began)))
                continue
            if total:
                logger.info("events_removed", extra={"events": total})
                total = 0
            await asyncio.sleep(self._look_seconds)

    def _remove_batch(self, transaction: Transaction) -> int | None:
        """Remove some events; how many, or None when no run is due."""
        at = clock.now()
        for tenant in tenants.all_tenants(transaction):
            due = retention.take_due_runs(transaction, tenant, before=at - self._age, count=RUNS_PER_BATCH)
            if due:
                return self._remove_some(transaction, tenant, due, at)
        return None

    def _remove_some(self, transaction: Transaction, tenant: str, due: list[retention.DueRun], at: datetime) -> int:
        """Remove as many events of the tenant's due runs as one transaction may; how many."""
        whole, rows = [], 0
        for run in due:
            rows += run.last
            if rows > ROWS_PER_BATCH:
                break
            whole.append(run.run_id)
        if whole:
            removed = retention.remove_events(transaction, tenant, whole)
        else:
            removed, last = _remove_part(transaction, tenant, due[0])
            whole = [due[0].run_id] if last else []
        if whole:
            retention.close_runs(transaction, tenant, whole, at=at)
        return removed


def _remove_part(transaction: Transaction, tenant: str, run: retention.DueRun) -> tuple[int, bool]:
    """Remove the oldest events of a run that has many; how many, and whether these were the last."""
    first = retention.first_sequence(transaction, tenant, run.run_id)
    if first is None:
        return 0, True
    upto = first + ROWS_PER_BATCH - 1
    return retention.remove_events_upto(transaction, tenant, run.run_id, upto), upto >= run.last
