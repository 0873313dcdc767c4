"""Crashes without killing anybody: the database as it is at some moment of a run is what a killed process leaves."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from app import Workflow
from app.workflow.workflow import workflow_name
from tests.support.following import logged
from tests.support.server import Client, SseEvent, running

Before: TypeAlias = Callable[[Client, str], Awaitable[Any]] | None


class Crashed(Exception):
    """Ends the run in the process that has been left behind."""


class CrashPoint:
    """A place in author code where the crash happens, each time that there is one left."""

    def __init__(self, crashes: int = 1) -> None:
        self._left = crashes
        self.reached = threading.Event()
        self._over = threading.Event()

    def here(self) -> None:
        """In sync code: never returns while a crash is left."""
        if self._begins():
            self._over.wait(20)
            raise Crashed

    async def here_async(self) -> None:
        """In async code."""
        if self._begins():
            while not self._over.is_set():
                await asyncio.sleep(0.005)
            raise Crashed

    def over(self) -> None:
        """The process is left behind; whoever comes here again passes, or crashes once more."""
        self._over.set()
        self._over, self.reached = threading.Event(), threading.Event()

    def _begins(self) -> bool:
        if not self._left:
            return False
        self._left -= 1
        self.reached.set()
        return True


@dataclass
class Recovered:
    """A run at its end, after all crashes."""

    run: dict[str, Any]
    events: list[SseEvent]
    client: Client

    @property
    def names(self) -> list[str]:
        """Of its events."""
        return [event.event for event in self.events]

    def of(self, name: str) -> list[dict[str, Any]]:
        """The data of the events of a name."""
        return [event.data for event in self.events if event.event == name]


@asynccontextmanager
async def recovered(
    sqlite_url: str,
    workflow: type[Workflow],
    point: CrashPoint,
    *,
    crashes: int = 1,
    before: Before = None,
    timeout_seconds: float | None = None,
    **input: Any,
) -> AsyncIterator[Recovered]:
    """Run it, crash it at its point as often as that, and let it end; `before` is what a client does just before."""
    name = workflow_name(workflow)
    async with running(sqlite_url, workflow) as client:
        options = {"session_id": "s", "timeout_seconds": timeout_seconds}
        run_id = (await client.start(name, options, **input))["run_id"]
        url = await _image(sqlite_url, client, point, run_id, 1, before)
    for number in range(2, crashes + 1):
        async with running(url, workflow) as client:
            url = await _image(url, client, point, run_id, number)
    async with running(url, workflow) as client:
        run = await client.ended(run_id)
        events = await client.events(run_id)
        assert [event.data["sequence"] for event in events] == list(range(1, len(events) + 1))
        yield Recovered(run, events, client)


async def _image(
    sqlite_url: str, client: Client, point: CrashPoint, run_id: str, number: int, before: Before = None
) -> str:
    """The URL of a copy of the database as it is at the crash, with all that was said before."""
    async with asyncio.timeout(10):
        while not point.reached.is_set():
            await asyncio.sleep(0.005)
        if before is not None:
            await before(client, run_id)
        known = -1
        while len(await logged(client, run_id)) != known:
            known = len(await logged(client, run_id))
            await asyncio.sleep(0.03)
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    image = file.with_name(f"crash-{number}.db")
    with sqlite3.connect(file) as source, sqlite3.connect(image) as copy:
        source.backup(copy)
    point.over()
    return f"sqlite:///{image}"
