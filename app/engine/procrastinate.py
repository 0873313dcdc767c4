"""ProcrastinateEngine: runs as jobs on the same Postgres, executed by any worker process.

A job says no more than "execute this run". It is deferred in the transaction that makes the run ready; whether it comes
late, twice or never can cost time, but no event: the claim decides, and what the claim cannot see, the watch finds.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import psycopg
from procrastinate import App, PsycopgConnector
from procrastinate.connector import Notify
from procrastinate.exceptions import ConnectorException

from app.correlation import Tracer
from app.engine.execution import StopReason
from app.engine.live import LiveLogs
from app.engine.recovery import recover_run
from app.engine.states import States
from app.engine.worker import TICK_SECONDS, Worker
from app.errors import Unavailable
from app.metrics import Metrics
from app.settings import Settings
from app.store import jobs, runs, tenants, workers
from app.store.database import Database, Transaction, driver_url
from app.store.doorbell import Doorbell
from app.store.tables import RunRow, SessionRow
from app.workflow.registry import Registry

logger = logging.getLogger(__name__)

HEARTBEATS_PER_LEASE = 5
SWEEP_LEASES = 10
"""Age of the jobs of silent workers that are removed: a worker that wakes before may still tidy up itself."""
RESTART_SECONDS = 1.0
KEPT_RUNS = 1000
"""Runs that a process executes as it accepts them; beyond that, whoever is free takes what arrives.

Most runs wait for something, so that many cost little; those of sync code find their limit in the threads.
"""
CONNECTION_SECONDS = 5
"""How long the library waits for a connection, before it hears that the database is away."""
RECONNECT_SECONDS = 1.0
"""How long its pool goes on trying by itself: its pauses double, and would outlast a long absence by as much again."""

Answer = TypeVar("Answer")


def _away(error: ConnectorException) -> bool:
    """Whether the database is away, or takes no writes, and may be asked again."""
    cause = error.__cause__
    return isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError | psycopg.errors.ReadOnlySqlTransaction)


class _Connector(PsycopgConnector):
    """The library's connections: what may be asked twice is asked until the database is back.

    Otherwise the library's worker would stop, and tell of it at length, whenever a connection breaks.
    """

    def __init__(self, url: str) -> None:
        super().__init__(
            conninfo=driver_url(url),
            min_size=1,
            max_size=4,
            timeout=CONNECTION_SECONDS,
            reconnect_timeout=RECONNECT_SECONDS,
            kwargs={"connect_timeout": CONNECTION_SECONDS},
        )
        self.patient = True

    async def execute_query_async(self, query: Any, **arguments: Any) -> None:
        """Heartbeats, and the end of a job: one that is gone has been ended before, or was swept away."""
        ask = super().execute_query_async
        try:
            await self._patiently(lambda: ask(query, **arguments))
        except ConnectorException as error:
            if not isinstance(error.__cause__, psycopg.errors.RaiseException):
                raise

    async def execute_query_all_async(self, query: Any, **arguments: Any) -> list[dict[str, Any]]:
        """Looking around. Fetching a job is not here: whether one was given, only a new worker need not know."""
        ask = super().execute_query_all_async
        return await self._patiently(lambda: ask(query, **arguments))

    async def listen_notify(self, on_notification: Notify, channels: Iterable[str]) -> None:
        """Listen, over as many connections as it takes."""
        listen = super().listen_notify
        await self._patiently(lambda: listen(on_notification, channels))

    async def _patiently(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        while True:
            try:
                return await ask()
            except ConnectorException as error:
                if not self.patient or not _away(error):
                    raise
            await asyncio.sleep(RESTART_SECONDS)


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
        tracer: Tracer | None = None,
    ) -> None:
        self._database, self._states, self._live, self._settings = database, states, live, settings
        self._work = work
        self._worker = Worker(self, database, registry, states, live, metrics, settings, tracer=tracer)
        self._doorbell = Doorbell(settings.database_url, live.heard)
        self._connector = _Connector(settings.database_url)
        self._jobs = App(connector=self._connector)
        self._jobs.task(name=jobs.TASK, queue=jobs.QUEUE)(self._execute)
        self._services: list[asyncio.Task[None]] = []
        self._fetching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Be known as a worker, if this is one; watch for the runs of those that died in any case."""
        try:
            await self._jobs.open_async()
        except psycopg.OperationalError as error:
            raise Unavailable(
                f"the database does not answer: {error}; try again", code="database_unavailable"
            ) from error
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
        self._connector.patient = False
        fetching = set() if self._fetching is None else {self._fetching}
        for task in fetching:
            task.cancel()  # the library fetches no more; what it has fetched goes on without it
        await self._worker.drain()
        if fetching:
            await asyncio.wait(fetching, timeout=self._settings.cancel_grace_seconds)
        remaining = fetching | set(self._services)
        for task in remaining:
            task.cancel()
        await asyncio.gather(*remaining, return_exceptions=True)
        await self._jobs.close_async()

    @property
    def worker_id(self) -> str:
        """What this process is called in the table of workers."""
        return self._worker.worker_id

    @property
    def draining(self) -> bool:
        """Whether new runs are refused."""
        return self._worker.draining

    async def _execute(self, *, tenant: str, run_id: str) -> None:
        """The job: returns when the run has ended, paused, or turned out to be somebody else's."""
        try:
            run = await self._database.read(lambda transaction: runs.get_run(transaction, tenant, run_id))
            if run is None:
                return
            if self._worker.draining:
                await self._database.write(lambda transaction: jobs.defer_run(transaction, run))
                return
        except Unavailable:  # a watch will find that the run has no job
            return
        await self._worker.work_on(run)

    async def _fetch(self) -> None:
        """Take jobs until the drain; a broken connection may end the library's worker, not ours."""
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
                    shutdown_graceful_timeout=0,  # else it would fetch nothing until its longest run has ended
                )
            except Exception as error:
                if isinstance(error, ConnectorException) and _away(error):
                    await asyncio.sleep(RESTART_SECONDS)
                    continue
                logger.warning("fetching_stopped, starting again", exc_info=True)
                await asyncio.sleep(RESTART_SECONDS)

    async def _beat(self) -> None:
        pause = self._settings.lease_seconds / HEARTBEATS_PER_LEASE
        seconds = pause
        while True:
            await asyncio.sleep(seconds)
            try:
                await self._database.write(lambda transaction: workers.beat(transaction, self._worker.worker_id))
                seconds = pause
            except Unavailable:
                seconds = min(pause, TICK_SECONDS)  # as soon as it is back
            except Exception:  # a heart that stops beating for good loses every run
                logger.warning("heartbeat_failed", exc_info=True)

    async def _watch(self) -> None:
        """Find what no living worker will: runs of the dead, and ready runs whose job was lost.

        When the database was away, so was every heartbeat: then the living get a lease to be heard again.
        """
        loop, lease = asyncio.get_running_loop(), self._settings.lease_seconds
        lost_at: float | None = None
        judge_from = loop.time()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = loop.time()
            if lost_at is not None and now - lost_at > lease / 2 + TICK_SECONDS:
                judge_from = now + lease
            try:
                await self._database.write(self._recover if now >= judge_from else self._keep_jobs)
                lost_at = None
            except Unavailable:
                lost_at = now if lost_at is None else lost_at
            except Exception:
                logger.exception("watch_failed")

    def _recover(self, transaction: Transaction) -> None:
        for run in jobs.runs_of_dead_workers(
            transaction, tenants.all_tenants(transaction), lease_seconds=self._settings.lease_seconds
        ):
            logger.warning("run_recovered", extra={"run_id": run.run_id, "worker_id": run.worker_id})
            recover_run(transaction, self, self._states, self._live, run)
        self._keep_jobs(transaction)

    def _keep_jobs(self, transaction: Transaction) -> None:
        lease = self._settings.lease_seconds
        for run in jobs.runs_without_job(transaction, lease_seconds=lease):
            jobs.defer_run(transaction, run)
        jobs.delete_dead_jobs(transaction, lease_seconds=lease * SWEEP_LEASES)
