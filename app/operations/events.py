"""Following a run's events: the table from the cursor, then live, to the end."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from app.engine.live import MAX_SEND_BYTES, LiveLog, LiveLogs
from app.errors import Gone, Malformed
from app.operations.caller import Caller
from app.operations.runs import existing_run
from app.store import events
from app.store.database import Database, Transaction
from app.store.events import LoggedEvent
from app.wire.frames import frame
from app.workflow.response import ServerEvent
from app.workflow.status import ENDED

FRAMES_PER_SEND = 256
"""Frames that are joined into one send at the most."""
ROWS_PER_READ = 500
FIRST_ROWS_PER_READ = 50


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reader stands in a run's log."""

    run_id: str
    cursor: int
    at_end: bool
    """Whether the run has ended and the reader has seen all of it."""


class Events:
    """Reading the event logs of runs."""

    def __init__(self, database: Database, live: LiveLogs, *, poll_seconds: float | None) -> None:
        """`poll_seconds` is how long a reader trusts that it would have been woken; None where nobody else writes."""
        self._database, self._live, self._poll_seconds = database, live, poll_seconds

    async def place(self, caller: Caller, run_id: str, cursor: int) -> Place:
        """Check a cursor; raises NotFound for an unknown run, Malformed beyond the end, Gone before retention."""

        def work(transaction: Transaction) -> Place:
            run = existing_run(transaction, caller, run_id)
            last = events.last_sequence(transaction, caller.tenant, run_id)
            if cursor > last:
                if run.status in ENDED and last == 0:
                    raise Gone(f"the events of run {run_id} are no longer kept", code="events_gone")
                raise Malformed(
                    f"the cursor {cursor} is beyond the end of run {run_id}, whose last event is {last}",
                    code="invalid_cursor",
                )
            return Place(run_id, cursor, at_end=run.status in ENDED and cursor == last and last > 0)

        return await self._database.read(work)

    async def page(
        self, caller: Caller, run_id: str, *, after: int, limit: int
    ) -> tuple[list[LoggedEvent], int | None]:
        """Events past a cursor, and the cursor of the next page."""

        def work(transaction: Transaction) -> list[LoggedEvent]:
            existing_run(transaction, caller, run_id)
            return events.read_events(transaction, caller.tenant, run_id, after=after, limit=limit + 1)

        rows = await self._database.read(work)
        return rows[:limit], rows[limit - 1].sequence if len(rows) > limit else None

    async def follow(self, caller: Caller, run_id: str, cursor: int) -> AsyncGenerator[bytes, None]:
        """Frames past the cursor, several joined where they are ready together, until the run's last event."""
        with self._live.reading(run_id) as log:
            trusted, reader = True, TableReader(self._database, caller.tenant, run_id)
            while True:
                change = log.change()
                frames, ended = self._from_memory(log, cursor) if trusted else (None, False)
                if frames is None:
                    frames, ended = await reader.read(cursor)
                if frames:
                    cursor += len(frames)
                    yield b"".join(frames)
                    await asyncio.sleep(0)  # a reader that is never kept waiting must not keep others
                if ended or self._live.closed:
                    return
                if not frames:
                    woken, _ = await asyncio.wait({change}, timeout=self._poll_seconds)
                    trusted = bool(woken)

    def _from_memory(self, log: LiveLog, cursor: int) -> tuple[list[bytes] | None, bool]:
        frames = log.after(cursor, limit=FRAMES_PER_SEND)
        return frames, frames is not None and log.ended and cursor + len(frames) >= log.last


class TableReader:
    """Reads a log page by page: as many rows at a time as make up what a reader may cost."""

    def __init__(self, database: Database, tenant: str, run_id: str) -> None:
        self._database, self._tenant, self._run_id = database, tenant, run_id
        self._rows = FIRST_ROWS_PER_READ

    async def read(self, cursor: int) -> tuple[list[bytes], bool]:
        """The next frames past the cursor, and whether the last of them ends the run."""
        rows = await self._database.read(
            lambda transaction: events.read_events(
                transaction, self._tenant, self._run_id, after=cursor, limit=self._rows
            )
        )
        frames = [frame(row.sequence, row.event, row.payload.encode()) for row in rows]
        if frames:
            affordable = MAX_SEND_BYTES * len(frames) // sum(map(len, frames))
            self._rows = max(1, min(ROWS_PER_READ, affordable))
        return frames, bool(rows) and rows[-1].event == ServerEvent.run_finished
