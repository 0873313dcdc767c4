"""LocalEngine: an asyncio task for each run, in the one process that holds the database."""

import asyncio
import logging
import os
import socket
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from app import clock
from app.engine.claims import Claim, claim_run
from app.engine.endings import end_run, failed
from app.engine.execution import Execution, StopReason
from app.engine.live import LiveLogs
from app.engine.states import States
from app.engine.writer import Appender, EventWriter, Fenced, RunLog
from app.errors import NotFound, Unavailable
from app.metrics import Metrics
from app.settings import Settings
from app.store import events, runs, workers
from app.store.database import Database, Transaction
from app.store.tables import DEFAULT_TENANT, RunRow, WorkerRow
from app.wire.events import Envelope
from app.workflow.registry import Registry
from app.workflow.status import RunStatus

logger = logging.getLogger(__name__)


class LocalEngine:
    """Executes every run in this process."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        states: States,
        live: LiveLogs,
        metrics: Metrics,
        settings: Settings,
    ) -> None:
        self._database, self._registry, self._states, self._live = database, registry, states, live
        self._metrics, self._settings = metrics, settings
        self._writer = EventWriter(database, metrics)
        self._worker_id = clock.new_id()
        self._slots = asyncio.Semaphore(settings.max_live_runs)
        self._threads = asyncio.Semaphore(settings.author_threads)
        self._executions: dict[str, Execution] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._services: set[asyncio.Task[None]] = set()
        self._draining = False

    async def start(self) -> None:
        """Take the place of the process before, end what it left undone, and go on with what waits."""
        worker = WorkerRow(
            worker_id=self._worker_id,
            host=socket.gethostname(),
            process_id=os.getpid(),
            started_at=clock.now(),
            heartbeat_at=clock.now(),
        )
        self._spawn(self._writer.run(), self._services)

        def recover(transaction: Transaction) -> None:
            workers.insert_worker(transaction, worker)
            for run in runs.runs_with_status(transaction, DEFAULT_TENANT, RunStatus.running):
                self._give_up(transaction, run)
            for run in runs.ready_runs(transaction, DEFAULT_TENANT):
                self.submit(transaction, run)

        await self._database.write(recover)

    def submit(self, transaction: Transaction, run: RunRow) -> None:
        """Execute the run in a task of this loop's, after the commit."""
        transaction.after_commit(lambda: self._launch(run))

    async def cancel(self, run: RunRow) -> None:
        """Stop the run's execution, if it is here."""
        if (execution := self._executions.get(run.run_id)) is not None:
            execution.stop(StopReason.cancelled)

    async def drain(self) -> None:
        """Let runs end for the drain time, then leave them to the next start."""
        self._draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._settings.drain_seconds)
        for execution in self._executions.values():
            execution.stop(StopReason.drain)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._settings.cancel_grace_seconds)
        for task in self._tasks | self._services:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._services, return_exceptions=True)
        with suppress(Unavailable):
            await self._database.write(lambda transaction: workers.delete_worker(transaction, self._worker_id))

    @property
    def draining(self) -> bool:
        """Whether new runs are refused."""
        return self._draining

    def _launch(self, run: RunRow) -> None:
        if not self._draining:
            self._spawn(self._execute(run), self._tasks)

    async def _execute(self, run: RunRow) -> None:
        try:
            definition = self._registry.get(run.workflow)
        except NotFound as error:
            await self._refuse(run, error)
            return
        async with self._slots:
            if definition.asynchronous:
                await self._attempt(run)
                return
            async with self._threads:
                await self._attempt(run)

    async def _attempt(self, run: RunRow) -> None:
        if self._draining:
            return
        with self._live.holding(run.run_id) as live:
            claim = await self._claim(run)
            if claim is None:
                return
            log = RunLog(claim.run, last_sequence=claim.last_sequence, live=live, writer=self._writer)
            execution = Execution(
                claim,
                self._registry.get(run.workflow),
                log,
                states=self._states,
                engine=self,
                max_content_bytes=self._settings.max_content_bytes,
                grace_seconds=self._settings.cancel_grace_seconds,
            )
            self._executions[run.run_id] = execution
            self._metrics.runs_live.inc()
            try:
                await execution.run()
            except Fenced:
                logger.warning("run_lost", extra={"run_id": run.run_id})
            finally:
                del self._executions[run.run_id]
                self._metrics.runs_live.dec()

    async def _claim(self, run: RunRow) -> Claim | None:
        def work(transaction: Transaction) -> Claim | None:
            return claim_run(
                transaction, self._states, self._live, tenant=run.tenant_id, run_id=run.run_id, worker=self._worker_id
            )

        return await self._database.write(work)

    async def _refuse(self, run: RunRow, error: NotFound) -> None:
        """End a run whose workflow this process does not have."""
        await self._database.write(
            lambda transaction: self._end_unclaimed(transaction, run, failed("unknown_workflow", error.message))
        )

    def _give_up(self, transaction: Transaction, run: RunRow) -> None:
        outcome = failed("worker_lost", "the process that executed the run has died; retry it")
        self._end_unclaimed(transaction, run, outcome)

    def _end_unclaimed(self, transaction: Transaction, run: RunRow, outcome: Any) -> None:
        sequence = events.last_sequence(transaction, run.tenant_id, run.run_id)
        appender = Appender(Envelope(run_id=run.run_id, session_id=run.session_id, workflow=run.workflow), sequence)
        end_run(transaction, appender, self._states, self, run, outcome, clock.now())
        events.append_events(transaction, appender.rows(run.tenant_id, run.run_id))
        transaction.after_commit(lambda: self._live.publish(run.run_id, sequence + 1, appender.events, ended=True))

    def _spawn(self, work: Coroutine[Any, Any, None], group: set[asyncio.Task[None]]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        group.add(task)
        task.add_done_callback(group.discard)
        task.add_done_callback(_report)


def _report(task: asyncio.Task[None]) -> None:
    """No task of ours dies in silence."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("task_died", exc_info=error)
