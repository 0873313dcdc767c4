"""The parts of the service that a script needs, over a database file that nobody else has open meanwhile."""

import asyncio
import fcntl
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from app.engine.live import LiveLogs
from app.engine.states import States
from app.engine.worker import Worker
from app.errors import ConfigurationError
from app.main import bring_to_head, hold_database, refuse_unless_at_head
from app.metrics import Metrics
from app.settings import Settings
from app.store import agno
from app.store.database import Database
from app.store.migrations import current_revision, head_revision
from app.store.opening import open_database

logger = logging.getLogger(__name__)

TURN_POLL_SECONDS = 0.02
"""How often a script looks whether the one before it has let go of the file."""
TURN_NOTICE_SECONDS = 2.0
"""How long a script waits in silence."""


class Live(Protocol):
    """A live run of this process, as others see it."""

    session_id: str

    @property
    def worker(self) -> Worker:
        """Who executes it, and nobody else."""

    def run_ahead(self) -> None:
        """Wait for its script no longer: somebody waits for its end."""

    async def stop(self) -> None:
        """End it where it stands."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What runs are made of; all of it belongs to one event loop."""

    file: Path
    settings: Settings
    database: Database
    states: States
    live: LiveLogs
    metrics: Metrics
    runs: dict[str, Live] = field(default_factory=dict)
    """The live runs of this process, by id."""
    accepting: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held from a run's acceptance until it is among these: to others it would look like one that was left behind."""


@asynccontextmanager
async def open_parts(settings: Settings, file: Path, *, given_up: Callable[[], bool]) -> AsyncIterator[Parts]:
    """Open the file, migrated, under the service's lock; raises ConfigurationError when a service has it.

    Scripts wait for one another, each for as long as a run of the other takes; `given_up` ends the waiting.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f"{file.name}.script-lock").open("a+") as turn:
        await _take_turn(turn, file, given_up)
        try:
            with hold_database(settings):
                async with _opened(settings, file) as parts:
                    yield parts
        finally:
            fcntl.flock(turn, fcntl.LOCK_UN)  # closing it would leave the lock to processes forked meanwhile


@asynccontextmanager
async def _opened(settings: Settings, file: Path) -> AsyncIterator[Parts]:
    database = open_database(settings.database_url, lease_seconds=settings.lease_seconds)
    try:
        await _bring_to_head(database, settings, file)
        metrics = Metrics()
        yield Parts(
            file=file,
            settings=settings,
            database=database,
            states=States(max_state_bytes=settings.max_state_bytes, cache_bytes=settings.state_cache_bytes),
            live=LiveLogs(metrics),
            metrics=metrics,
        )
    finally:
        await database.close()


async def _take_turn(turn: IO[str], file: Path, given_up: Callable[[], bool]) -> None:
    waited = 0.0
    while True:
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if given_up():
                raise ConfigurationError(f"no longer waiting for the script that has {file} open") from None
            if waited < TURN_NOTICE_SECONDS <= waited + TURN_POLL_SECONDS:
                logger.warning("waiting for another script, which has a run in %s", file)
            waited += TURN_POLL_SECONDS
            await asyncio.sleep(TURN_POLL_SECONDS)
        else:
            return


async def _bring_to_head(database: Database, settings: Settings, file: Path) -> None:
    revision = await database.read(current_revision)
    if revision is None and (taken := await database.read(agno.foreign_tables)):
        raise ConfigurationError(
            f"{file} has tables of the names that Millstream's need: {', '.join(sorted(taken))};"
            " give a file of its own, and take over the old one with `millstream import-agno`"
        )
    if revision != head_revision():
        bring_to_head(settings.database_url)
    await refuse_unless_at_head(database)
