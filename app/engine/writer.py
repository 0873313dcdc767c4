"""The event writer: one group commit for the events of all runs of the process, fenced by attempt.

An event gets its number when it is written, so numbers have no gaps whatever fails before. It is shown to readers after
the commit, never before: a crash cannot take back what a client has seen.

    author ── put ──▸ RunLog.pending ──┐
    author ── put ──▸ RunLog.pending ──┼─▸ EventWriter: one transaction ─▸ LiveLog of each run ─▸ readers
    end, save ─ commit(work) ──────────┘   (work has a transaction of its own, with the run's pending events first)
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import groupby
from typing import NamedTuple, TypeAlias, TypeVar

from app import clock
from app.engine import outbox
from app.engine.live import LiveLogs
from app.engine.outbox import Hook
from app.errors import Unavailable
from app.metrics import Metrics
from app.store import events, sessions
from app.store.database import Database, Transaction
from app.store.events import LoggedEvent, NewEvent
from app.store.tables import RunRow, SessionRow
from app.wire.events import Envelope

logger = logging.getLogger(__name__)

MAX_ROWS = 500
"""Rows of one commit: larger ones gain nothing and hold the loop for longer."""
MAX_PENDING = 1000
"""Events of one run that may wait for their commit before its author is made to wait."""
GATHERING_TURNS = 2
"""Turns of the event loop before a commit: runs that are ready add their parts, and one that has ended its end."""
RETRY_SECONDS = 0.5
"""Wait before a commit that the database refused is tried again; that of a single run doubles it each time, up to …"""
LONGEST_RETRY_SECONDS = 5.0
"""… this, so that thousands of runs that wait for a database do not keep the process busy."""

Result = TypeVar("Result")


class Fenced(BaseException):
    """This process has lost the run: another attempt owns it. No Exception, so that author code cannot swallow it."""


PendingEvent: TypeAlias = tuple[str, bytes, int, str | None]
"""An event that waits for its number: its name, the author's part of its payload, when (microseconds), its result."""


class RunLog:
    """The open end of the log of a run that this process executes. `put` may be called from any thread."""

    def __init__(self, run: RunRow, *, last_sequence: int, writer: "EventWriter") -> None:
        self.tenant, self.run_id, self.attempt = run.tenant_id, run.run_id, run.attempt
        self.pending: deque[PendingEvent] = deque()
        self.sequence = last_sequence
        self.room = threading.Event()
        self.room.set()
        self.envelope = Envelope(run_id=run.run_id, session_id=run.session_id, workflow=run.workflow)
        self.hooks = outbox.read_hooks(run.webhooks)
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._awake = False
        self._put = 0
        self._written = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._failure: BaseException | None = None
        self.uncertain = False
        """Whether the last commit may have happened although it failed."""
        self._writing = asyncio.Lock()

    def put(self, name: str, head: bytes, result: str | None = None) -> None:
        """Add an event; it is written with the next commit. Raises Fenced once the run is lost."""
        if self._failure is not None:
            raise self._failure
        self.pending.append((name, head, clock.microseconds(), result))
        self._put += 1
        if len(self.pending) >= MAX_PENDING:
            self.room.clear()
        if not self._awake:
            self._awake = True
            if threading.get_ident() == self._loop_thread:
                self._writer.wake(self)
            else:
                self._loop.call_soon_threadsafe(self._writer.wake, self)

    async def flush(self) -> None:
        """Wait until everything that was put before has been committed."""
        if self._written < self._put and self._failure is None:
            written = self._loop.create_future()
            self._waiting.append((self._put, written))
            await written
        if self._failure is not None:
            raise self._failure

    async def commit(self, work: "RunWork[Result]") -> Result:
        """Everything put so far, and then the work with the events that it appends, in one transaction.

        It holds the run's row and its session's. The database may refuse; then nothing has happened, and Unavailable
        is raised.
        """
        async with self._writing:
            if self._failure is not None:
                raise self._failure
            pending = self.take(len(self.pending))

            def write(transaction: Transaction) -> tuple[Result, Appender]:
                session = sessions.lock_session_of(transaction, self.tenant, self.run_id, attempt=self.attempt)
                if session is None:
                    raise Fenced(self.run_id)
                if self.diverged(transaction):
                    raise Fenced(self.run_id)
                appender = self.appender(pending)
                result = work(transaction, appender, session)
                events.append_events(transaction, appender.rows(self.tenant, self.run_id))
                appender.post(transaction, self._writer.live, self.tenant, self.run_id)
                return result, appender

            began = time.perf_counter()
            try:
                result, appender = await self._writer.database.write(write)
            except Fenced as fenced:
                self.fail(fenced)
                raise
            except BaseException:
                self.give_back(pending)
                raise
            self._writer.metrics.committed(len(appender.events), time.perf_counter() - began)
            self.written(appender, len(pending))
        if self.pending:
            self._writer.wake(self)
        return result

    async def logged(self, *, after: int, limit: int) -> list[LoggedEvent]:
        """Events that are in the log, as soon as the database lets us see them."""
        while True:
            try:
                return await self._writer.database.read(
                    lambda transaction: events.read_events(
                        transaction, self.tenant, self.run_id, after=after, limit=limit
                    )
                )
            except Unavailable:
                logger.warning("log_not_read, trying again", extra={"run_id": self.run_id})
                await asyncio.sleep(RETRY_SECONDS)

    async def commit_at_last(self, work: "RunWork[Result]") -> Result:
        """The same, as soon as the database lets us: nothing that a run has come to is lost because it was away."""
        seconds = RETRY_SECONDS
        while True:
            try:
                return await self.commit(work)
            except Unavailable:
                logger.debug("not_written, trying again", extra={"run_id": self.run_id})
                await asyncio.sleep(seconds)
                seconds = min(2 * seconds, LONGEST_RETRY_SECONDS)

    def take(self, count: int) -> list[PendingEvent]:
        """The oldest pending events, up to a number."""
        self._awake = False  # before taking: whoever puts from now on rings again
        return [self.pending.popleft() for _ in range(min(count, len(self.pending)))]

    def give_back(self, pending: list[PendingEvent]) -> None:
        """They were not written after all, or the answer to their commit was lost."""
        self.pending.extendleft(reversed(pending))
        self.uncertain = True

    def diverged(self, transaction: Transaction) -> bool:
        """Whether the log has events that we do not know of: those of a commit whose answer was lost. A replay does."""
        return self.uncertain and events.last_sequence(transaction, self.tenant, self.run_id) != self.sequence

    def appender(self, pending: Iterable[PendingEvent]) -> "Appender":
        """The events with their numbers, not yet written."""
        appender = Appender(self.envelope, self.sequence, self.hooks)
        appender.extend(pending)
        return appender

    def written(self, appender: "Appender", count: int) -> None:
        """The appender's events have been committed, `count` of them from the pending ones."""
        first, self.sequence = self.sequence + 1, appender.sequence
        self.uncertain = False
        if appender.events:
            self._writer.live.publish(self.run_id, first, appender.events, ended=appender.ended)
        self._written += count
        if len(self.pending) < MAX_PENDING // 2:
            self.room.set()
        while self._waiting and self._waiting[0][0] <= self._written:
            _, future = self._waiting.pop(0)
            if not future.done():
                future.set_result(None)

    def fail(self, failure: BaseException) -> None:
        """Nothing more of this attempt will be written."""
        self._failure = failure
        self.pending.clear()
        self.room.set()
        for _, future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    @property
    def writing(self) -> asyncio.Lock:
        """Held by whoever writes this log: its events are written by one transaction at a time."""
        return self._writing


class Appender:
    """Events on their way into one transaction, numbered on from the log's last."""

    def __init__(self, envelope: Envelope, sequence: int, hooks: Sequence[Hook] = ()) -> None:
        """`hooks` is what the run's events are posted to."""
        self.sequence = sequence
        self.hooks = hooks
        self.events: list[tuple[str, bytes]] = []
        self.ended = False
        self._first = sequence + 1
        self._results: dict[int, str] = {}
        self._envelope = envelope

    @classmethod
    def after(cls, run: RunRow, sequence: int) -> "Appender":
        """For a run that is not executing: its events follow on this sequence."""
        envelope = Envelope(run_id=run.run_id, session_id=run.session_id, workflow=run.workflow)
        return cls(envelope, sequence, outbox.read_hooks(run.webhooks))

    def append(self, name: str, head: bytes, *, at: datetime, result: str | None = None) -> None:
        """Seal one event."""
        self._seal(name, head, clock.rfc3339(at).encode(), result)

    def extend(self, pending: Iterable[PendingEvent]) -> None:
        """Seal several."""
        for name, head, at, result in pending:
            self._seal(name, head, clock.rfc3339_of(at), result)

    def _seal(self, name: str, head: bytes, at: bytes, result: str | None) -> None:
        self.sequence = sequence = self.sequence + 1
        if result is not None:
            self._results[sequence] = result
        self.events.append((name, self._envelope.seal(head, sequence, at)))

    def rows(self, tenant: str, run_id: str) -> list[NewEvent]:
        """As rows of the log."""
        result_of = self._results.get
        return [
            (tenant, run_id, sequence, name, payload.decode(), result_of(sequence))
            for sequence, (name, payload) in enumerate(self.events, self._first)
        ]

    def post(self, transaction: Transaction, live: LiveLogs, tenant: str, run_id: str) -> None:
        """Put the events that webhooks want on their way, with the rows; most runs have none."""
        if self.hooks:
            outbox.post(transaction, live, tenant, run_id, self.hooks, self.events, first=self._first)


RunWork = Callable[[Transaction, Appender, SessionRow], Result]
"""What is written for a run beside its events: in their transaction, which has locked the run and the session."""


class EventWriter:
    """Writes what the runs of this process put: at once when it is idle, in batches when it is busy."""

    def __init__(self, database: Database, live: LiveLogs, metrics: Metrics) -> None:
        self.database = database
        self.live = live
        self.metrics = metrics
        self._dirty: dict[RunLog, None] = {}
        self._work = asyncio.Event()

    def wake(self, log: RunLog) -> None:
        """The log has pending events. On the loop's thread."""
        self._dirty[log] = None
        self._work.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._work.wait()
            for _ in range(GATHERING_TURNS):
                await asyncio.sleep(0)
            self._work.clear()
            try:
                await self._write_batch()
            except Unavailable:
                logger.debug("events_not_written, trying again")
                await asyncio.sleep(RETRY_SECONDS)
            if self._dirty:
                self._work.set()

    async def _write_batch(self) -> None:
        """One commit for the logs that nobody else is writing just now; those wake us when they are done."""
        batch = await self._take_batch()
        if not batch:
            return
        began = time.perf_counter()
        try:
            write = self.database.write_one if _is_one_statement(batch) else self.database.write
            lost = await write(lambda transaction: _append(transaction, batch, self.live))
        except Unavailable:
            for part in batch:
                part.log.give_back(part.pending)
                part.log.writing.release()
                self.wake(part.log)
            raise
        except Exception:  # a commit whose answer was lost, say: what is in the log now, only a replay can tell
            logger.exception("events_not_written", extra={"run_ids": [part.log.run_id for part in batch]})
            for part in batch:
                part.log.writing.release()
                part.log.fail(Fenced(part.log.run_id))
            return
        self.metrics.committed(sum(len(part.pending) for part in batch), time.perf_counter() - began)
        for part in batch:
            part.log.writing.release()
            if part.log in lost:
                part.log.fail(Fenced(part.log.run_id))
                continue
            part.log.written(part.appender, len(part.pending))
            if part.log.pending:
                self.wake(part.log)

    async def _take_batch(self) -> "list[_Part]":
        batch: list[_Part] = []
        rows = 0
        for log in list(self._dirty):
            if rows >= MAX_ROWS:
                break
            del self._dirty[log]
            if not log.writing.locked():
                await log.writing.acquire()
                pending = log.take(MAX_ROWS - rows)
                rows += len(pending)
                batch.append(_Part(log, pending, log.appender(pending)))
        return batch


class _Part(NamedTuple):
    """What one log adds to a batch."""

    log: RunLog
    pending: list[PendingEvent]
    appender: Appender


def _append(transaction: Transaction, batch: list[_Part], live: LiveLogs) -> set[RunLog]:
    """Write the batch's events but those of runs that this process has lost; which these are."""
    lost = set()
    for tenant, parts in groupby(sorted(batch, key=_tenant_of), key=_tenant_of):
        written = {part.log.run_id: part for part in parts if not part.log.diverged(transaction)}
        attempts = {run_id: part.log.attempt for run_id, part in written.items()}
        rows = [row for part in written.values() for row in part.appender.rows(tenant, part.log.run_id)]
        kept = events.append_fenced(transaction, tenant, attempts, rows)
        lost |= {part.log for part in batch if part.log.tenant == tenant and part.log.run_id not in kept}
        for run_id, part in written.items():
            if run_id in kept:
                part.appender.post(transaction, live, tenant, run_id)
    return lost


def _tenant_of(part: _Part) -> str:
    return part.log.tenant


def _is_one_statement(batch: list[_Part]) -> bool:
    """Whether nothing has to be asked before the events are written, and one statement writes all of them."""
    if any(part.log.hooks and outbox.wanted(part.log.hooks, part.appender.events) for part in batch):
        return False
    return len({part.log.tenant for part in batch}) == 1 and not any(part.log.uncertain for part in batch)
