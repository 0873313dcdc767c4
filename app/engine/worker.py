"""The worker: executes runs in this process, whichever engine sends them."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from app import clock
from app.correlation import REQUEST_ID, RUN, TRACEPARENT, TRACER, Tracer
from app.engine.allowance import allowance_of
from app.engine.claims import Claim, begin_run, claim_run
from app.engine.endings import failed
from app.engine.execution import Execution, StopReason
from app.engine.live import LiveLogs
from app.engine.recovery import continue_run, end_idle_run, make_ready, recover_run
from app.engine.retention import Retention, removals
from app.engine.seam import Engine
from app.engine.states import States
from app.engine.writer import EventWriter, Fenced, RunLog
from app.errors import NotFound, Unavailable
from app.metrics import Metrics
from app.settings import Settings
from app.store import idempotency, runs, tenants, workers
from app.store.database import Database, Transaction
from app.store.tables import RunRow, SessionRow, WorkerRow
from app.workflow.encoding import decode
from app.workflow.registry import Registry, WorkflowDefinition
from app.workflow.status import RunStatus

logger = logging.getLogger(__name__)

TICK_SECONDS = 1.0
"""How often the worker looks for what no event tells it: cancels from elsewhere, answers that are overdue."""
BEGUN_SECONDS = 5.0
"""How long a transaction that begins a run may take; most of those that are not heard of again were refused."""
KEY_SWEEP = timedelta(minutes=10)
"""How much longer than its lifetime an Idempotency-Key may be in the table."""


class Worker:
    """One process's share of the work."""

    def __init__(
        self,
        engine: Engine,
        database: Database,
        registry: Registry,
        states: States,
        live: LiveLogs,
        metrics: Metrics,
        settings: Settings,
        *,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer = tracer
        self._engine, self._database, self._registry = engine, database, registry
        self._states, self._live, self._metrics, self._settings = states, live, metrics, settings
        self.worker_id = clock.new_id()
        self.draining = False
        self._key_lifetime = timedelta(hours=settings.idempotency_hours)
        self._keys_kept_since = datetime.min.replace(tzinfo=UTC)
        self._writer = EventWriter(database, live, metrics)
        self._slots = asyncio.Semaphore(settings.max_live_runs)
        self._threads = asyncio.Semaphore(settings.author_threads)
        self._executions: dict[str, Execution] = {}
        self._begun: dict[str, tuple[float, RunRow]] = {}
        """Runs that were begun in a transaction whose commit nobody has told of, and since when."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._services: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Be known, and begin to write what runs put."""
        row = WorkerRow(
            worker_id=self.worker_id,
            host=socket.gethostname(),
            process_id=os.getpid(),
            started_at=clock.now(),
            heartbeat_at=clock.now(),
        )
        await self._database.write(lambda transaction: workers.insert_worker(transaction, row))
        self._spawn(self._writer.run(), self._services)
        self._spawn(self._look_around(), self._services)
        if due := list(removals(self._settings, self._metrics)):
            self._spawn(Retention(self._database, due).run(), self._services)

    def launch(self, run: RunRow) -> None:
        """Execute a ready run in a task of its own."""
        if not self.draining:
            self._spawn(self.execute(run), self._tasks)

    def begin(self, transaction: Transaction, run: RunRow, session: SessionRow) -> bool:
        """Claim an arriving run in the transaction that accepts it, to execute it after the commit; False without room.

        What this process would have to wait for, it leaves queued.
        """
        definition = self._registry.get(run.workflow)
        crowded = self._slots.locked() or (not definition.asynchronous and self._threads.locked())
        if self.draining or crowded:
            return False
        transaction.after_commit(lambda: self._live.hold(run.run_id))  # for what it says first, until it is taken up
        claim = begin_run(transaction, self._states, self._live, run, session, worker=self.worker_id)
        self._begun[run.run_id] = (asyncio.get_running_loop().time(), run)
        transaction.after_commit(lambda: self._take_up(claim, definition))
        return True

    @property
    def live_count(self) -> int:
        """How many runs are executing here."""
        return len(self._executions)

    async def work_on(self, run: RunRow) -> None:
        """Execute a ready run, and wait for it; who stops waiting does not stop it."""
        await asyncio.wait({self._spawn(self.execute(run), self._tasks)})

    async def execute(self, run: RunRow) -> None:
        """Execute a run, if it is to be had; returns when it has ended, paused, or been lost."""
        try:
            definition = self._registry.get(run.workflow)
        except NotFound as error:
            await self._refuse(run, error)
            return
        async with self._place(definition):
            await self._attempt(run)

    def stop(self, run_id: str, reason: StopReason) -> bool:
        """Ask a run of this process to end; whether it is one."""
        execution = self._executions.get(run_id)
        if execution is None:
            return False
        execution.stop(reason)
        return True

    async def drain(self) -> None:
        """Take nothing more, let runs end for the drain time, and make the others ready for whoever comes."""
        self.draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._settings.drain_seconds)
        for execution in list(self._executions.values()):
            execution.stop(StopReason.drain)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._settings.cancel_grace_seconds)
        for task in self._tasks | self._services:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._services, return_exceptions=True)
        with suppress(Unavailable):  # then its runs are found by their worker's silence
            await self._database.write(self._hand_over)

    async def _attempt(self, run: RunRow) -> None:
        if self.draining:
            return
        with self._live.holding(run.run_id):
            claim = await self._claimed(run)
            if claim is not None:
                await self._perform(claim)

    def _take_up(self, claim: Claim, definition: WorkflowDefinition) -> None:
        self._begun.pop(claim.run.run_id, None)

        async def perform() -> None:
            try:
                async with self._place(definition):
                    await self._perform(claim)
            finally:
                self._live.release(claim.run.run_id)

        self._spawn(perform(), self._tasks)

    @asynccontextmanager
    async def _place(self, definition: WorkflowDefinition) -> AsyncIterator[None]:
        """A place among the runs that this process executes, and if need be one among its threads."""
        async with self._slots:
            if definition.asynchronous:
                yield
            else:
                async with self._threads:
                    yield

    async def _perform(self, claim: Claim) -> None:
        """Execute what has been claimed. Whatever is logged within says so, and belongs to no request any more."""
        run = claim.run
        RUN.set(run)
        REQUEST_ID.set(None)
        TRACEPARENT.set(run.traceparent)
        if self._tracer is None:
            await self._execute(claim)
        else:
            await self._traced(self._tracer, claim)

    async def _traced(self, tracer: Tracer, claim: Claim) -> None:
        """The same, as one span in the trace of the request that started the run, however long ago and wherever."""
        TRACER.set(tracer)
        span = tracer.run(claim.run.traceparent, claim.run)
        try:
            with span.within():
                status = await self._execute(claim)
        except BaseException as error:
            span.end(error)
            raise
        span.say({"millstream.status": status or "left"})
        span.end()

    async def _execute(self, claim: Claim) -> RunStatus | None:
        """How it ended; None when it was left to another attempt."""
        run = claim.run
        with self._live.holding(run.run_id) as live:
            log = RunLog(run, last_sequence=claim.last_sequence, writer=self._writer)
            execution = Execution(
                claim,
                self._registry.get(run.workflow),
                log,
                states=self._states,
                engine=self._engine,
                metrics=self._metrics,
                max_content_bytes=self._settings.max_content_bytes,
                grace_seconds=self._settings.cancel_grace_seconds,
                allowance=allowance_of(self._settings),
            )
            self._executions[run.run_id] = execution
            live.writers += 1
            self._metrics.runs_live.inc()
            try:
                return await execution.run()
            except Fenced:
                logger.warning("run_lost", extra={"run_id": run.run_id})
                await self._let_go(run)
            except Exception:
                logger.exception("execution_broken", extra={"run_id": run.run_id})
                await self._let_go(run)
            finally:
                live.writers -= 1
                if self._executions.get(run.run_id) is execution:  # not that of a later claim of the same run
                    del self._executions[run.run_id]
                self._metrics.runs_live.dec()
        return None

    async def _let_go(self, run: RunRow) -> None:
        """Have a run that this process cannot go on with recovered, unless another has it already."""

        def work(transaction: Transaction) -> None:
            row = runs.lock_run(transaction, run.tenant_id, run.run_id)
            if row is not None and row.status == RunStatus.running and row.attempt == run.attempt:
                recover_run(transaction, self._engine, self._states, self._live, row)

        await self._write_at_last(work)

    async def _write_at_last(self, work: Callable[[Transaction], None]) -> None:
        """Write as soon as the database lets us; a drain leaves it to whoever comes."""
        while not self.draining:
            try:
                await self._database.write(work)
            except Unavailable:
                await asyncio.sleep(TICK_SECONDS)
            else:
                return

    async def _claimed(self, run: RunRow) -> Claim | None:
        """The claim, as soon as the database lets us: nobody else may be there to make it."""
        claim = self._claim
        while not self.draining:
            try:
                return await self._database.write(lambda transaction: claim(transaction, run))  # noqa: B023  awaited here
            except Unavailable:
                logger.debug("claim_not_written, trying again", extra={"run_id": run.run_id})
                claim = self._claim_again
                await asyncio.sleep(TICK_SECONDS)
        return None

    def _claim_again(self, transaction: Transaction, run: RunRow) -> Claim | None:
        """The answer to a claim may have been lost with its connection: then the run is ours, and not executed."""
        row = runs.lock_run(transaction, run.tenant_id, run.run_id)
        ours = row is not None and row.status == RunStatus.running and row.worker_id == self.worker_id
        if row is not None and ours and run.run_id not in self._executions:
            runs.requeue_run(
                transaction, run.tenant_id, run.run_id, recoveries=row.recoveries, used_seconds=row.used_seconds
            )
        return self._claim(transaction, run)

    def _claim(self, transaction: Transaction, run: RunRow) -> Claim | None:
        return claim_run(
            transaction, self._states, self._live, tenant=run.tenant_id, run_id=run.run_id, worker=self.worker_id
        )

    async def _refuse(self, run: RunRow, error: NotFound) -> None:
        """End a run whose workflow this process does not have."""
        outcome = failed("unknown_workflow", error.message)

        def work(transaction: Transaction) -> None:
            row = runs.lock_run(transaction, run.tenant_id, run.run_id)
            if row is not None and row.status == run.status:
                end_idle_run(transaction, self._engine, self._states, self._live, row, outcome)

        await self._write_at_last(work)

    def _hand_over(self, transaction: Transaction) -> None:
        """What a drain could not wait for becomes ready; a death it is not."""
        for tenant, run_id in runs.runs_under(transaction, tenants.all_tenants(transaction), self.worker_id):
            run = runs.lock_run(transaction, tenant, run_id)
            if run is not None and run.worker_id == self.worker_id and run.status == RunStatus.running:
                make_ready(transaction, self._engine, run, recoveries=run.recoveries)
        workers.delete_worker(transaction, self.worker_id)

    async def _look_around(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                cancels = await self._database.write(self._tick)
            except Unavailable:
                continue
            except Exception:  # whatever it was, the next look may go better, and nobody else looks for this worker
                logger.exception("look_around_failed")
                continue
            for run in cancels:
                self.stop(run.run_id, StopReason.cancelled)
            await self._look_after_begun()

    async def _look_after_begun(self) -> None:
        """A commit whose answer was lost may have left a run to us that nobody executes."""
        now = asyncio.get_running_loop().time()
        for run_id, (since, run) in list(self._begun.items()):
            if now > since + BEGUN_SECONDS:
                await self._let_go(run)
                self._begun.pop(run_id, None)

    def _tick(self, transaction: Transaction) -> list[RunRow]:
        everybody = tenants.all_tenants(transaction)
        for run in runs.overdue_pauses(transaction, everybody, clock.now()):
            if run.question is not None:
                request_id = decode(run.question)["request_id"]
                continue_run(transaction, self._engine, self._live, run, request_id=request_id, value=None)
        if (oldest := clock.now() - self._key_lifetime) > self._keys_kept_since + KEY_SWEEP:
            idempotency.delete_keys(transaction, before=oldest)
            self._keys_kept_since = oldest
        return runs.cancels_for(transaction, everybody, self.worker_id)

    def _spawn(self, work: Coroutine[Any, Any, None], group: set[asyncio.Task[None]]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        group.add(task)
        task.add_done_callback(group.discard)
        task.add_done_callback(_report)
        return task


def _report(task: asyncio.Task[None]) -> None:
    """No task of ours dies in silence."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("task_died", exc_info=error)
