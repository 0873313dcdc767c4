"""The roof: builds the service out of its parts, and serves it."""

import asyncio
import fcntl
import gc
import ipaddress
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import uvicorn
from fastapi import FastAPI
from sqlalchemy.engine import make_url

from app.api.application import make_application
from app.api.connections import ConnectionLimits, connections_that_fit
from app.api.observed import Observed
from app.api.service import Service
from app.api.sse import Streams
from app.correlation import traces_wanted
from app.discovery import load_registry
from app.engine.deliveries import Deliveries as Sending
from app.engine.deliveries import DeliveryRules
from app.engine.hooks import Hooks
from app.engine.live import LiveLogs
from app.engine.local import LocalEngine
from app.engine.seam import Engine
from app.engine.states import States
from app.errors import ConfigurationError, DatabaseHeld
from app.metrics import Metrics
from app.network.sending import GuardedClient
from app.network.targets import TargetRules
from app.operations.access import Access
from app.operations.deliveries import Deliveries
from app.operations.events import Events
from app.operations.feeds import Feeds
from app.operations.figures import Figures
from app.operations.health import Health
from app.operations.keys import Keys
from app.operations.limits import RunLimits
from app.operations.rates import rates_of, sweep
from app.operations.runs import Runs
from app.operations.schedules import Schedules
from app.operations.sessions import Sessions
from app.operations.stream_tokens import StreamTokens
from app.operations.ticker import Ticker
from app.operations.users import Users
from app.operations.webhooks import Webhooks
from app.operations.workflows import Workflows
from app.settings import Settings
from app.store.database import Database
from app.store.migrations import current_revision, head_revision, migrate
from app.store.opening import open_database
from app.workflow.registry import Registry

if TYPE_CHECKING:
    from app.tracing import OpenTelemetry

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""How long a reader of a run in another process waits before it looks at the table again."""
GRACEFUL_SHUTDOWN_SECONDS = 5
"""How long connections may take to end once streams and waits were told to; what is left is short requests."""
USER_TIMEOUT_MILLISECONDS = 30_000
"""How long the kernel keeps a connection whose other end acknowledges nothing."""


WATCH_SECONDS = 0.5
"""How often the event loop is asked whether it is in time; a stall that is shorter may go unseen."""
YOUNG_OBJECTS = 20_000
"""How many more objects than before are made before the garbage collector looks at them; a run makes some hundred."""


class Server(uvicorn.Server):
    """Uvicorn, which has the drain begin before it waits for connections to end."""

    def __init__(self, config: uvicorn.Config, begin_drain: Callable[[], None]) -> None:
        super().__init__(config)
        self._begin_drain = begin_drain

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called once, when the process is to stop."""
        self._begin_drain()
        await super().shutdown(sockets)


class Millstream:
    """One process of the service, put together from its settings."""

    def __init__(self, settings: Settings, registry: Registry | None = None, *, work: bool = True) -> None:
        """Loads the workflows; raises ConfigurationError for whatever keeps the service from starting.

        Without `work`, a process on Postgres serves HTTP and leaves the runs to workers.
        """
        self.settings = settings
        self._work = work
        self._running: Engine | None = None
        self._drained: asyncio.Future[None] | None = None
        self.registry = registry if registry is not None else load_registry(settings)
        self.metrics = Metrics(definition.name for definition in self.registry)
        self.tracer = load_tracer()
        self.live = LiveLogs(self.metrics)
        self.application: FastAPI = make_application(self.open, docs=settings.docs, cors_origins=settings.cors_origins)

    @asynccontextmanager
    async def open_worker(self) -> AsyncIterator[None]:
        """A process that executes runs and serves nothing; raises ConfigurationError where there can be but one."""
        if self.settings.embedded:
            raise ConfigurationError(
                "a SQLite file has one process, `millstream serve`, which works too;"
                " put MILLSTREAM_DATABASE_URL on Postgres for workers of their own"
            )
        async with self._opened(serving=False):
            yield

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Service]:
        """The running service: the database at head, runs being executed, until the block ends.

        Raises ConfigurationError for an address that others reach, as long as nobody has to say who they are.
        """
        async with self._opened(serving=True) as service:
            yield service

    @asynccontextmanager
    async def _opened(self, *, serving: bool) -> AsyncIterator[Service]:
        settings = self.settings
        async with self._opened_database() as database:
            access = await self._access(database)
            if serving and not access.on:
                refuse_unless_loopback(settings.host)
            states = States(max_state_bytes=settings.max_state_bytes, cache_bytes=settings.state_cache_bytes)
            hooks = Hooks(database, self._targets)
            await hooks.refresh()
            engine = self._engine(database, states)
            await engine.start()
            self._running = engine
            service = self._service(database, engine, states, access, hooks)
            ticker = self._ticker(database, engine, service.runs)
            async with self._client() as client, beside(*self._services(database, hooks, client), ticker.run()):
                try:
                    async with watching(access, service.streams):
                        yield service
                finally:
                    self.begin_drain()
                    if self._drained is not None:
                        await self._drained

    @asynccontextmanager
    async def _opened_database(self) -> AsyncIterator[Database]:
        settings = self.settings
        with hold_database(settings):
            if settings.embedded:
                await asyncio.to_thread(bring_to_head, settings.database_url)
            database = open_database(settings.database_url, lease_seconds=settings.lease_seconds)
            try:
                await refuse_unless_at_head(database)
                yield database
            finally:
                await database.close()
                if self.tracer is not None:
                    await self.tracer.close()

    def begin_drain(self) -> None:
        """Send readers away, and take no new runs; those that are live get their time from now on."""
        self.live.close()
        if self._running is not None and self._drained is None:
            self._drained = asyncio.ensure_future(self._running.drain())

    def _engine(self, database: Database, states: States) -> Engine:
        parts = (database, self.registry, states, self.live, self.metrics, self.settings)
        if self.settings.embedded:
            return LocalEngine(*parts, tracer=self.tracer)
        from app.engine.procrastinate import ProcrastinateEngine  # noqa: PLC0415  a library of the extra `postgres`

        return ProcrastinateEngine(*parts, work=self._work, tracer=self.tracer)

    def _ticker(self, database: Database, engine: Engine, runs: Runs) -> Ticker:
        settings = self.settings
        return Ticker(
            database,
            self.registry,
            engine,
            runs,
            self.live,
            grace_seconds=settings.schedule_grace_seconds,
            alone=settings.embedded,
        )

    @property
    def _targets(self) -> TargetRules:
        settings = self.settings
        return TargetRules(allow_http=settings.webhook_allow_http, allow_private=settings.webhook_allow_private)

    def _client(self) -> GuardedClient:
        settings = self.settings
        return GuardedClient(
            allow_private=settings.webhook_allow_private, timeout_seconds=settings.webhook_timeout_seconds
        )

    def _services(self, database: Database, hooks: Hooks, client: GuardedClient) -> Iterator[Coroutine[Any, Any, None]]:
        """What goes on beside the runs, also while they are drained."""
        rules = DeliveryRules(
            targets=self._targets,
            timeout_seconds=self.settings.webhook_timeout_seconds,
            pauses_seconds=self.settings.webhook_retry_seconds,
        )
        yield Sending(database, self.live, self.metrics, hooks, client, rules).run()
        yield watch_loop(self.metrics.loop_lag.observe)
        if not self.settings.embedded:
            yield hooks.run()
            yield sweep(database)

    async def _access(self, database: Database) -> Access:
        issuer = None
        if self.settings.oidc_issuer is not None:
            from app.operations.issuer import Issuer  # noqa: PLC0415  libraries that are needed for this alone

            issuer = Issuer(self.settings)
        access = Access(database, issuer)
        await access.start()
        return access

    def _service(self, database: Database, engine: Engine, states: States, access: Access, hooks: Hooks) -> Service:
        settings = self.settings
        poll_seconds = None if settings.embedded else POLL_SECONDS
        runs = Runs(
            database,
            self.registry,
            engine,
            states,
            self.live,
            self.metrics,
            hooks=hooks,
            key_lifetime=timedelta(hours=settings.idempotency_hours),
            limits=RunLimits(
                queued_per_tenant=settings.max_queued_runs_per_tenant,
                queued_per_session=settings.max_queued_runs_per_session,
                seconds=settings.max_run_seconds,
            ),
        )
        events = Events(database, self.live, poll_seconds=poll_seconds)
        feeds = Feeds(database, self.live, poll_seconds=poll_seconds)
        return Service(
            workflows=Workflows(self.registry),
            runs=runs,
            events=events,
            feeds=feeds,
            keys=Keys(database, access),
            access=access,
            stream_tokens=StreamTokens(database, access, runs, feeds, lifetime_seconds=settings.stream_token_seconds),
            sessions=Sessions(database, self.registry, states),
            users=Users(database, states, hooks, access),
            schedules=Schedules(database, self.registry, runs, self.live),
            webhooks=Webhooks(database, hooks),
            deliveries=Deliveries(database, self.live),
            health=Health(database, engine, embedded=settings.embedded, lease_seconds=settings.lease_seconds),
            streams=Streams(
                self.metrics,
                max_streams=settings.max_streams,
                max_per_key=settings.max_streams_per_key,
                max_per_tenant=settings.max_streams_per_tenant,
                ping_seconds=settings.ping_seconds,
                send_timeout_seconds=settings.send_timeout_seconds,
            ),
            figures=Figures(database, self.metrics, lag_events=events.lag),
            rates=rates_of(settings, database),
            metrics=self.metrics,
            max_body_bytes=settings.max_body_bytes,
            max_state_bytes=settings.max_state_bytes,
        )

    def server(self) -> Server:
        """An HTTP server over the application, not yet running."""
        config = uvicorn.Config(
            Observed(self.application, self.metrics, access_log=self.settings.access_log, tracer=self.tracer),
            log_config=None,
            access_log=False,
            server_header=False,
            http=self._connections().protocol(),
            ws="none",  # there are none here, and so nothing to be upgraded to
            timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_SECONDS,
        )
        return Server(config, self.begin_drain)

    def _connections(self) -> ConnectionLimits:
        settings = self.settings
        return ConnectionLimits(
            max_connections=connections_that_fit(settings.max_connections),
            max_body_bytes=settings.max_body_bytes,
            request_seconds=settings.request_seconds,
            refused=self.metrics.refused,
        )


async def watch_loop(observe: Callable[[float], None]) -> None:
    """Tell how late the event loop is with what is due, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + WATCH_SECONDS
        await asyncio.sleep(WATCH_SECONDS)
        observe(max(0.0, loop.time() - due))


def load_tracer() -> "OpenTelemetry | None":
    """What makes spans, if the environment says where they go; else nothing of OpenTelemetry is loaded."""
    if not traces_wanted(os.environ):
        return None
    try:
        from app.tracing import OpenTelemetry  # noqa: PLC0415  a library of the extra `otel`, which takes its time
    except ModuleNotFoundError:
        raise ConfigurationError(
            "OTEL_EXPORTER_OTLP_ENDPOINT names a collector for traces, which needs the extra:"
            " pip install 'millstream[otel]'; or set OTEL_SDK_DISABLED=true"
        ) from None
    return OpenTelemetry()


@asynccontextmanager
async def beside(*services: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Services that go on as long as the block does; none of them ends by itself, and none dies in silence."""
    tasks = [asyncio.get_running_loop().create_task(service) for service in services]
    for task in tasks:
        task.add_done_callback(_report)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("task_died", exc_info=error)


@asynccontextmanager
async def watching(access: Access, streams: Streams) -> AsyncIterator[None]:
    """Have streams end whose readers are known no longer, and a first key noticed, until the block ends."""
    watch = asyncio.create_task(access.watch(streams))
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        await access.close()


def settle() -> None:
    """Tell the garbage collector that what the start has made stays; looking through it takes a tenth of a second."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


def listen(settings: Settings) -> socket.socket:
    """A listening socket; raises ConfigurationError when the address is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # small answers wait for nothing
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MILLISECONDS)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        raise ConfigurationError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; choose another with --port"
        ) from None
    listening.listen(2048)
    return listening


def refuse_unless_loopback(host: str) -> None:
    """Raises ConfigurationError for an address that others than this machine reach."""
    try:
        found = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        found = []
    if not found or not all(_is_loopback(str(address[0])) for *_, address in found):
        raise ConfigurationError(
            f"{host or 'every address'} can be reached from other machines, and nobody would have to say who they are:"
            " make a key first, with `millstream keys create --name=first --scope=admin`, or set"
            " MILLSTREAM_OIDC_ISSUER; without either, only 127.0.0.1 is listened on"
        )


def _is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address)
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


@contextmanager
def hold_database(settings: Settings) -> Iterator[None]:
    """Keep other processes off the SQLite file while this one has it; raises ConfigurationError when one is there."""
    if not settings.embedded:
        yield
        return
    database = Path(make_url(settings.database_url).database or "").absolute()
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f"{database.name}.lock").open("a+") as lock:
        _lock(lock, database)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # a process forked meanwhile has the open file too, and may outlive us


def _lock(lock: IO[str], database: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise DatabaseHeld(
            f"another process has {database} open; one process serves a SQLite file."
            " Stop it, use another file, or put MILLSTREAM_DATABASE_URL on Postgres for several"
        ) from None


def bring_to_head(url: str) -> None:
    """Migrate an embedded database; nothing is loaded where nothing is to do."""
    migrate(url)


async def refuse_unless_at_head(database: Database) -> None:
    """Raises ConfigurationError when the tables are not those of this version."""
    revision = await database.read(current_revision)
    if revision != (head := head_revision()):
        at = "has no tables" if revision is None else f"is at migration {revision}"
        raise ConfigurationError(f"the database {at}, this version needs {head}; run `millstream migrate`")
