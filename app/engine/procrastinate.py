"""ProcrastinateEngine: runs as jobs on the same Postgres, executed by any worker process.

A job says no more than "execute this run". It is deferred in the transaction that makes the run ready; whether it comes
late, twice or never can cost time, but no event: the claim decides, and what the claim cannot see, the watch finds.
"""

import asyncio
import logging

from procrastinate import App, PsycopgConnector

from app.engine.execution import StopReason
from app.engine.live import LiveLogs
from app.engine.recovery import recover_run
from app.engine.states import States
from app.engine.worker import TICK_SECONDS, Worker
from app.errors import Unavailable
from app.metrics import Metrics
from app.settings import Settings
from app.store import jobs, runs, workers
from app.store.database import Database, Transaction, driver_url
from app.store.doorbell import Doorbell
from app.store.tables import RunRow, SessionRow
from app.workflow.registry import Registry

logger = logging.getLogger(__name__)

HEARTBEATS_PER_LEASE = 5
SWEEP_LEASES = 10
"""Age of the jobs of silent workers that are removed: a worker that wakes before may still tidy up itself."""
RESTART_SECONDS = 1.0
KEPT_RUNS = 64
"""Runs that a process executes as it accepts them; beyond that, whoever is free takes what arrives."""


class ProcrastinateEngine:
    """Sends runs to whichever worker is free; with `work`, this process is one."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        states: States,
        live: LiveLogs,
        metrics: Metrics,
        settings: Settings,
        *,
        work: bool,
    ) -> None:
        self._database, self._states, self._live, self._settings = database, states, live, settings
        self._work = work
        self._worker = Worker(self, database, registry, states, live, metrics, settings)
        self._doorbell = Doorbell(settings.database_url, live.heard)
        self._jobs = App(connector=PsycopgConnector(conninfo=driver_url(settings.database_url), min_size=1, max_size=4))
        self._jobs.task(name=jobs.TASK, queue=jobs.QUEUE)(self._execute)
        self._services: list[asyncio.Task[None]] = []
        self._fetching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Be known as a worker, if this is one; watch for the runs of those that died in any case."""
        await self._jobs.open_async()
        self._live.on_publish = self._doorbell.ring
        await self._worker.start()
        self._services = [
            asyncio.create_task(service) for service in (self._doorbell.run(), self._beat(), self._watch())
        ]
        if self._work:
            self._fetching = asyncio.create_task(self._fetch())

    def submit(self, transaction: Transaction, run: RunRow, arriving: SessionRow | None = None) -> None:
        """Begin an arriving run here, if this process works and has little to do; else a job for any worker."""
        keeps = self._work and arriving is not None and self._worker.live_count < KEPT_RUNS
        if not keeps or arriving is None or not self._worker.begin(transaction, run, arriving):
            jobs.defer_run(transaction, run)

    async def cancel(self, run: RunRow) -> None:
        """Stop the run where it executes: here at once, elsewhere by the doorbell and the request in its row."""
        if not self._worker.stop(run.run_id, StopReason.cancelled):
            self._doorbell.ring(run.run_id)

    async def drain(self) -> None:
        """Fetch nothing more, let runs end for the drain time, and make the others ready for other workers."""
        self._worker.draining = True
        fetching = set() if self._fetching is None else {self._fetching}
        for task in fetching:
            task.cancel()  # the library fetches no more, and waits for the jobs that it has
        await self._worker.drain()
        if fetching:
            await asyncio.wait(fetching, timeout=self._settings.cancel_grace_seconds)
        remaining = fetching | set(self._services)
        for task in remaining:
            task.cancel()
        await asyncio.gather(*remaining, return_exceptions=True)
        await self._jobs.close_async()

    @property
    def draining(self) -> bool:
        """Whether new runs are refused."""
        return self._worker.draining

    async def _execute(self, *, tenant: str, run_id: str) -> None:
        """The job: returns when the run has ended, paused, or turned out to be somebody else's."""
        run = await self._database.read(lambda transaction: runs.get_run(transaction, tenant, run_id))
        if run is None:
            return
        if self._worker.draining:
            await self._database.write(lambda transaction: jobs.defer_run(transaction, run))
            return
        await self._worker.work_on(run)

    async def _fetch(self) -> None:
        """Take jobs until the drain; a broken connection ends the library's worker, not ours."""
        while not self._worker.draining:
            try:
                await self._jobs.run_worker_async(
                    queues=[jobs.QUEUE],
                    concurrency=self._settings.max_live_runs,
                    fetch_job_polling_interval=TICK_SECONDS,
                    delete_jobs="always",
                    install_signal_handlers=False,
                    update_heartbeat_interval=self._settings.lease_seconds / HEARTBEATS_PER_LEASE,
                    stalled_worker_timeout=self._settings.lease_seconds * 2,
                )
            except Exception:
                logger.warning("fetching_stopped, starting again", exc_info=True)
                await asyncio.sleep(RESTART_SECONDS)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_seconds / HEARTBEATS_PER_LEASE)
            try:
                await self._database.write(lambda transaction: workers.beat(transaction, self._worker.worker_id))
            except Exception:  # a heart that stops beating for good loses every run
                logger.warning("heartbeat_failed", exc_info=True)

    async def _watch(self) -> None:
        """Find what no living worker will: runs of the dead, and ready runs whose job was lost."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self._database.write(self._recover)
            except Unavailable:
                logger.warning("database_unavailable")
            except Exception:
                logger.exception("watch_failed")

    def _recover(self, transaction: Transaction) -> None:
        lease = self._settings.lease_seconds
        for run in jobs.runs_of_dead_workers(transaction, lease_seconds=lease):
            logger.warning("run_recovered", extra={"run_id": run.run_id, "worker_id": run.worker_id})
            recover_run(transaction, self, self._states, self._live, run)
        for run in jobs.runs_without_job(transaction, lease_seconds=lease):
            jobs.defer_run(transaction, run)
        jobs.delete_dead_jobs(transaction, lease_seconds=lease * SWEEP_LEASES)
