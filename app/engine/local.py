"""LocalEngine: an asyncio task for each run, in the one process that holds the database."""

from app.correlation import Tracer
from app.engine.execution import StopReason
from app.engine.live import LiveLogs
from app.engine.recovery import recover_run
from app.engine.states import States
from app.engine.worker import Worker
from app.metrics import Metrics
from app.settings import Settings
from app.store import runs, tenants, workers
from app.store.database import Database, Transaction
from app.store.tables import RunRow, SessionRow
from app.workflow.registry import Registry
from app.workflow.status import RunStatus


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
        *,
        tracer: Tracer | None = None,
    ) -> None:
        self._database, self._states, self._live = database, states, live
        self._worker = Worker(self, database, registry, states, live, metrics, settings, tracer=tracer)

    async def start(self) -> None:
        """Take the place of the process before: whatever was running is recovered, what waits goes on."""
        await self._database.write(workers.delete_all_workers)
        await self._worker.start()
        await self._database.write(self._take_over)

    def submit(self, transaction: Transaction, run: RunRow, arriving: SessionRow | None = None) -> None:
        """Execute the run in a task of this loop's, after the commit."""
        if arriving is None or not self._worker.begin(transaction, run, arriving):
            transaction.after_commit(lambda: self._worker.launch(run))

    async def cancel(self, run: RunRow) -> None:
        """Stop the run's execution; one that is just being claimed is found by the worker's next look around."""
        self._worker.stop(run.run_id, StopReason.cancelled)

    async def drain(self) -> None:
        """Let runs end for the drain time, then leave them to the next start."""
        await self._worker.drain()

    @property
    def worker_id(self) -> str:
        """What this process is called in the table of workers."""
        return self._worker.worker_id

    @property
    def draining(self) -> bool:
        """Whether new runs are refused."""
        return self._worker.draining

    def _take_over(self, transaction: Transaction) -> None:
        for tenant in tenants.all_tenants(transaction):
            ready = runs.ready_runs(transaction, tenant)
            for run in runs.runs_with_status(transaction, tenant, RunStatus.running):
                recover_run(transaction, self, self._states, self._live, run)
            for run in ready:
                self.submit(transaction, run)
