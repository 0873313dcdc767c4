"""What an operator sees at a glance: the figures of this process, with those that the database or the readers know."""

import asyncio
from collections.abc import Callable

from app import clock
from app.errors import Unavailable
from app.metrics import Metrics
from app.store.database import Database
from app.store.queue import look_at_queue

MAX_COUNTED = 10_000
"""Runs that are counted at a scrape; how many more there are changes nothing about what has to be done."""
SCRAPE_SECONDS = 2.0
"""How long a scrape waits for the database: figures are wanted most when it is slow."""
FRESH_SECONDS = 1.0
"""How long the queue is taken to be what it was: several scrapers cost no more than one."""


class Figures:
    """All figures at a scrape."""

    def __init__(self, database: Database, metrics: Metrics, *, lag_events: Callable[[], int]) -> None:
        """`lag_events` tells how far the slowest reader is behind."""
        self._database, self._metrics, self._lag_events = database, metrics, lag_events
        self._looked_at: float | None = None

    async def scrape(self) -> tuple[bytes, str]:
        """The text that Prometheus reads, and its media type."""
        now = asyncio.get_running_loop().time()
        if self._looked_at is None or now >= self._looked_at + FRESH_SECONDS:
            self._looked_at = now
            await self._look()
        self._metrics.stream_lag_events.set(self._lag_events())
        return self._metrics.render()

    async def _look(self) -> None:
        metrics = self._metrics
        try:
            async with asyncio.timeout(SCRAPE_SECONDS):
                queue = await self._database.read(lambda transaction: look_at_queue(transaction, at_most=MAX_COUNTED))
        except (Unavailable, TimeoutError):  # what waits is not known: no figure is better than an old one
            metrics.database_up.set(0)
            metrics.runs_queued.set(float("nan"))
            metrics.oldest_queued.set(float("nan"))
            return
        age = 0.0 if queue.oldest_at is None else (clock.now() - queue.oldest_at).total_seconds()
        metrics.database_up.set(1)
        metrics.runs_queued.set(queue.waiting)
        metrics.oldest_queued.set(max(0.0, age))
