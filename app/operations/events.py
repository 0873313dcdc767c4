"""Following a run's events: the table from the cursor, then live, to the end."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from app.engine.live import MAX_SEND_BYTES, LiveLog, LiveLogs
from app.errors import Malformed
from app.operations.caller import Caller
from app.operations.kept import check_rows, events_gone, last_event
from app.operations.runs import existing_run
from app.store import events, retention
from app.store.database import Database, Transaction
from app.store.events import LoggedEvent
from app.wire.frames import frame
from app.workflow.response import ServerEvent
from app.workflow.status import ENDED

FRAMES_PER_SEND = 256
"""Frames that are joined into one send at the most."""
ROWS_PER_READ = 500
FIRST_ROWS_PER_READ = 50
VOUCHED_SECONDS = 30.0
"""How long a reader that waits takes it for granted that the run is still there."""

Frames: TypeAlias = tuple[list[bytes], bool]
"""Frames of a run, and whether the last of them is its end."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reader stands in a run's log."""

    run_id: str
    cursor: int
    at_end: bool = False
    """Whether the run has ended and the reader has seen all of it."""
    first: Frames | None = None
    """Of an ended run, what comes first: read with the check of the cursor, so that a stream is never empty."""


@dataclass(eq=False, slots=True)
class Reader:
    """Somebody who follows a run in this process."""

    log: LiveLog
    cursor: int

    @property
    def behind(self) -> int:
        """Events that are there and that it has not taken, as far as this process knows."""
        return max(0, self.log.last - self.cursor)


class Events:
    """Reading the event logs of runs."""

    def __init__(self, database: Database, live: LiveLogs, *, poll_seconds: float | None) -> None:
        """`poll_seconds` is how long a reader trusts that it would have been woken; None where nobody else writes."""
        self._database, self._live, self._poll_seconds = database, live, poll_seconds
        self._readers: set[Reader] = set()

    def lag(self) -> int:
        """How many events the reader furthest behind has yet to take."""
        return max((reader.behind for reader in self._readers), default=0)

    async def place(self, caller: Caller, run_id: str, cursor: int) -> Place:
        """Check a cursor; raises NotFound for an unknown run, Malformed beyond the end, Gone before retention."""

        def work(transaction: Transaction) -> Place:
            run = existing_run(transaction, caller, run_id)
            last = last_event(transaction, run, cursor)
            if cursor > last:
                raise Malformed(
                    f"the cursor {cursor} is beyond the end of run {run_id}, whose last event is {last}",
                    code="invalid_cursor",
                )
            if run.status not in ENDED:
                return Place(run_id, cursor)
            if cursor == last:
                return Place(run_id, cursor, at_end=True)
            reader = TableReader(self._database, caller.tenant, run_id)
            return Place(run_id, cursor, first=reader.take(transaction, cursor))

        return await self._database.read(work)

    async def page(
        self, caller: Caller, run_id: str, *, after: int, limit: int
    ) -> tuple[list[LoggedEvent], int | None]:
        """Events past a cursor, and the cursor of the next page; raises NotFound, and Gone after retention."""

        def work(transaction: Transaction) -> list[LoggedEvent]:
            run = existing_run(transaction, caller, run_id)
            rows = events.read_events(transaction, caller.tenant, run_id, after=after, limit=limit + 1)
            check_rows(rows, run_id, after)
            last_event(transaction, run, after)
            return rows

        rows = await self._database.read(work)
        return rows[:limit], rows[limit - 1].sequence if len(rows) > limit else None

    async def follow(
        self, caller: Caller, run_id: str, cursor: int, first: Frames | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Frames past the cursor, several joined where they are ready together, until the run's last event.

        Raises Gone when the events are removed meanwhile.
        """
        with self._live.reading(run_id) as log:
            trusted, table = True, TableReader(self._database, caller.tenant, run_id)
            with self._following(log, cursor) as reader:
                while True:
                    change = log.change()
                    frames, ended = first or (self._from_memory(log, reader.cursor) if trusted else (None, False))
                    first = None
                    if frames is None:
                        frames, ended = await table.read(reader.cursor)
                    if frames:
                        yield b"".join(frames)
                        reader.cursor += len(frames)
                        await asyncio.sleep(0)  # a reader that is never kept waiting must not keep others
                    if ended or self._live.closed:
                        return
                    if not frames:
                        woken, _ = await asyncio.wait({change}, timeout=self._poll_seconds)
                        trusted = bool(woken)

    @contextmanager
    def _following(self, log: LiveLog, cursor: int) -> Iterator[Reader]:
        """A reader, while it is one."""
        reader = Reader(log, cursor)
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.remove(reader)

    def _from_memory(self, log: LiveLog, cursor: int) -> tuple[list[bytes] | None, bool]:
        frames = log.after(cursor, limit=FRAMES_PER_SEND)
        return frames, frames is not None and log.ended and cursor + len(frames) >= log.last


class TableReader:
    """Reads a log page by page: as many rows at a time as make up what a reader may cost."""

    def __init__(self, database: Database, tenant: str, run_id: str) -> None:
        self._database, self._tenant, self._run_id = database, tenant, run_id
        self._rows = FIRST_ROWS_PER_READ
        self._vouched_at = -math.inf

    async def read(self, cursor: int) -> Frames:
        """The next frames past the cursor, and whether the last of them ends the run; raises Gone after retention."""
        return await self._database.read(lambda transaction: self.take(transaction, cursor))

    def take(self, transaction: Transaction, cursor: int) -> Frames:
        """The same within a transaction; raises Gone when they are no longer kept."""
        rows = events.read_events(transaction, self._tenant, self._run_id, after=cursor, limit=self._rows)
        check_rows(rows, self._run_id, cursor)
        if not rows:
            self._check_kept(transaction)
        frames = [frame(row.sequence, row.event, row.payload.encode()) for row in rows]
        if frames:
            affordable = MAX_SEND_BYTES * len(frames) // sum(map(len, frames))
            self._rows = max(1, min(ROWS_PER_READ, affordable))
        return frames, bool(rows) and rows[-1].event == ServerEvent.run_finished

    def _check_kept(self, transaction: Transaction) -> None:
        """Whether there is something to wait for; raises Gone when there is not."""
        now = time.monotonic()
        if now - self._vouched_at > VOUCHED_SECONDS:
            if not retention.is_kept(transaction, self._tenant, self._run_id):
                raise events_gone(self._run_id)
            self._vouched_at = now
