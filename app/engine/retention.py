"""Retention: what is old enough is removed, a few at a time, while everything else goes on."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from app import clock
from app.errors import Unavailable
from app.metrics import Metrics
from app.settings import Settings
from app.store import deliveries, retention, revisions, sessions, tenants
from app.store.database import Database, Transaction
from app.store.revisions import OldSnapshot

logger = logging.getLogger(__name__)

ROWS_PER_BATCH = 500
RUNS_PER_BATCH = 100
"""What one transaction removes: on SQLite the event loop waits for it."""
SNAPSHOTS_PER_BATCH = 20
PASS_SECONDS = 3600.0
"""How often old documents are all looked at again."""
BEGINNING = (datetime(1970, 1, 1, tzinfo=UTC), "")
PAUSE_SECONDS = 0.05
REST = 4
"""After a batch, at least this many times as long as it took belongs to others."""
LOOK_SECONDS = 60.0
"""How often it is asked whether more is due, once nothing was."""
LOOKS_PER_AGE = 100
"""For short ages: how late a removal may be."""
RETRY_SECONDS = 5.0


class Removal(Protocol):
    """One kind of what gets old."""

    name: str
    age: timedelta

    def remove(self, transaction: Transaction, before: datetime) -> int | None:
        """Remove some of what is older, as much as one transaction may; how much, or None when nothing is due."""


class Retention:
    """Removes what is older than a number of days. Any process may; each takes other rows."""

    def __init__(self, database: Database, removals: Sequence[Removal]) -> None:
        """One after the other, so that what one has emptied the next may find at once."""
        self._database, self._removals = database, removals
        youngest = min(removal.age.total_seconds() for removal in removals)
        self._look_seconds = min(LOOK_SECONDS, max(1.0, youngest / LOOKS_PER_AGE))
        self._totals: Counter[str] = Counter()

    async def run(self) -> None:
        """Remove until cancelled."""
        while True:
            began = time.monotonic()
            try:
                removed = await self._remove()
            except Unavailable:
                await asyncio.sleep(RETRY_SECONDS)
                continue
            except Exception:  # whatever it was, the next batch may go better, and nobody else looks for this process
                logger.exception("retention_failed")
                await asyncio.sleep(LOOK_SECONDS)
                continue
            if removed:
                await asyncio.sleep(max(PAUSE_SECONDS, REST * (time.monotonic() - began)))
                continue
            for name, rows in self._totals.items():
                logger.info("%s_removed", name, extra={"rows": rows})
            self._totals.clear()
            await asyncio.sleep(self._look_seconds)

    async def _remove(self) -> bool:
        """Remove a batch of the first kind that something of is due; whether there was any."""
        for removal in self._removals:
            before = clock.now() - removal.age
            removed = await self._database.write(
                lambda transaction: removal.remove(transaction, before)  # noqa: B023  awaited here
            )
            if removed is not None:
                self._totals[removal.name] += removed
                return True
        return False


def removals(settings: Settings, metrics: Metrics) -> Iterator[Removal]:
    """What is to be removed by the settings. The events of a run go before the run does."""
    ages = [days for days in (settings.event_retention_days, settings.run_retention_days) if days is not None]
    if ages:
        yield OldEvents(metrics, days=min(ages))
    if settings.run_retention_days is not None:
        yield OldRuns(days=settings.run_retention_days)
    if settings.revision_retention_days is not None:
        yield OldRevisions(days=settings.revision_retention_days)
    if settings.delivery_retention_days is not None:
        yield OldDeliveries(days=settings.delivery_retention_days)


class OldEvents:
    """The events of runs that ended long ago."""

    name = "events"

    def __init__(self, metrics: Metrics, *, days: float) -> None:
        self._metrics = metrics
        self.age = timedelta(days=days)

    def remove(self, transaction: Transaction, before: datetime) -> int | None:
        """Remove some events."""
        at = clock.now()
        for tenant in tenants.all_tenants(transaction):
            due = retention.take_due_runs(transaction, tenant, before=before, count=RUNS_PER_BATCH)
            if due:
                removed = self._remove_some(transaction, tenant, due, at)
                transaction.after_commit(lambda: self._metrics.events_removed.inc(removed))  # noqa: B023  returned next
                return removed
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


class OldRuns:
    """Runs that ended long ago, and have no events any more."""

    name = "runs"

    def __init__(self, *, days: float) -> None:
        self.age = timedelta(days=days)

    def remove(self, transaction: Transaction, before: datetime) -> int | None:
        """Remove some runs, with what is about them."""
        for tenant in tenants.all_tenants(transaction):
            runs = retention.take_closed_runs(transaction, tenant, before=before, count=RUNS_PER_BATCH)
            if runs:
                return retention.remove_runs(transaction, tenant, runs)
        return None


class OldRevisions:
    """The history of states before the newest whole document that is old: from that one on, all can be read."""

    name = "revisions"

    def __init__(self, *, days: float) -> None:
        self.age = timedelta(days=days)
        self._looked_at: dict[str, tuple[datetime, str]] = {}
        """Up to which document each tenant's have been looked at."""
        self._began = time.monotonic()

    def remove(self, transaction: Transaction, before: datetime) -> int | None:
        """Remove some revisions."""
        for tenant in tenants.all_tenants(transaction):
            after = self._looked_at.get(tenant, BEGINNING)
            old = revisions.old_snapshots(transaction, tenant, before=before, after=after, count=SNAPSHOTS_PER_BATCH)
            if old:
                return self._remove_before(transaction, tenant, old)
        if time.monotonic() > self._began + min(PASS_SECONDS, self.age.total_seconds()):
            self._began = time.monotonic()
            self._looked_at.clear()  # sessions that were in use have their turn
        return None

    def _remove_before(self, transaction: Transaction, tenant: str, old: list[OldSnapshot]) -> int:
        removed, looked_at = 0, None
        for snapshot in old:
            session = sessions.get_session(transaction, tenant, snapshot.session_id)
            oldest = revisions.oldest_revision(transaction, tenant, snapshot.session_id)
            if session is not None and session.active_run_id is None and oldest is not None:
                upto = min(snapshot.revision, oldest + ROWS_PER_BATCH - removed)
                removed += revisions.remove_revisions(transaction, tenant, snapshot.session_id, before=upto)
                if upto < snapshot.revision:  # the rest of it, in the next transaction
                    break
            looked_at = (snapshot.created_at, snapshot.session_id)
        if looked_at is not None:
            transaction.after_commit(lambda: self._looked_at.update({tenant: looked_at}))
        return removed


class OldDeliveries:
    """What was sent to webhooks, or was given up."""

    name = "deliveries"

    def __init__(self, *, days: float) -> None:
        self.age = timedelta(days=days)

    def remove(self, transaction: Transaction, before: datetime) -> int | None:
        """Remove some deliveries."""
        return deliveries.remove_old_deliveries(transaction, before=before, count=ROWS_PER_BATCH) or None
