"""The engine of a script's run."""

import asyncio

from app.engine.execution import StopReason
from app.engine.recovery import recover_run
from app.engine.worker import Worker
from app.script.parts import Parts
from app.store import runs
from app.store.database import Transaction
from app.store.tables import DEFAULT_TENANT, RunRow, SessionRow
from app.workflow.registry import Registry
from app.workflow.status import RunStatus


class SessionEngine:
    """Executes runs of one session. Whatever else an earlier process left in the file waits for a service."""

    def __init__(self, parts: Parts, registry: Registry, session_id: str) -> None:
        self._parts, self._session_id = parts, session_id
        self.worker = Worker(self, parts.database, registry, parts.states, parts.live, parts.metrics, parts.settings)

    @property
    def worker_id(self) -> str:
        """What this process is called in the table of workers."""
        return self.worker.worker_id

    @property
    def draining(self) -> bool:
        """Whether no new run is taken."""
        return self.worker.draining

    async def start(self) -> None:
        """Begin with what the process before left of the session."""
        await self.worker.start()
        await self._parts.database.write(self._take_over)

    def submit(self, transaction: Transaction, run: RunRow, _arriving: SessionRow | None = None) -> None:
        """Have it executed: a script's run by its own worker, another of the session's by this one."""
        if run.session_id == self._session_id:
            transaction.after_commit(lambda: asyncio.get_running_loop().call_soon(self._launch, run))

    def _launch(self, run: RunRow) -> None:
        """A turn after the commit: the same one may have accepted the run, and its script is just to hear of it."""
        live = self._parts.runs.get(run.run_id)
        worker = self.worker if live is None else live.worker
        worker.launch(run)

    async def cancel(self, run: RunRow) -> None:
        """Stop the run's execution."""
        self.worker.stop(run.run_id, StopReason.cancelled)

    async def drain(self) -> None:
        """Let what executes come to its end."""
        await self.worker.drain()

    def _take_over(self, transaction: Transaction) -> None:
        ready = runs.ready_runs(transaction, DEFAULT_TENANT)
        running = runs.runs_with_status(transaction, DEFAULT_TENANT, RunStatus.running)
        for run in filter(self._is_left, running):
            recover_run(transaction, self, self._parts.states, self._parts.live, run)
        for run in filter(self._is_left, ready):
            self.submit(transaction, run)

    def _is_left(self, run: RunRow) -> bool:
        return run.session_id == self._session_id and run.run_id not in self._parts.runs
