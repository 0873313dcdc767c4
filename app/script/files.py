"""Database files that runs of this process have open, each with an event loop in a thread of its own.

The lock on a file is the process's, so all runs that overlap in it share one opening. The file is closed when the last
of them has ended: a service, or another script, can have it from then on.
"""

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from app.script.parts import Parts, open_parts
from app.settings import Settings

Result = TypeVar("Result")

EXIT_MARGIN_SECONDS = 2.0
"""Beyond the cancel grace: what the end of the process waits for runs that it cuts off, and no longer."""

_guard = threading.Lock()
_files: dict[tuple[int, Path], "OpenFile"] = {}
"""By process too: a fork has the entries of its parent, but none of its threads."""


class OpenFile:
    """One file while it is in use."""

    def __init__(self, path: Path) -> None:
        """Begin to open it; `parts` tells whether that went well."""
        self.path = path
        self.users = 0
        self.settings = Settings(database_url=f"sqlite:///{path}")
        self.closed: Future[None] = Future()
        self._loop = asyncio.new_event_loop()
        self._parts: asyncio.Future[Parts] = self._loop.create_future()
        self._leaving = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="millstream-script")
        self._thread.start()
        atexit.register(self._cut_off)

    async def parts(self) -> Parts:
        """What the file offers, on its own loop; raises what kept it from being opened."""
        return await asyncio.shield(self._parts)

    @property
    def is_here(self) -> bool:
        """Whether this is the file's own thread, which may wait for nothing that happens in it."""
        return threading.current_thread() is self._thread

    def submit(self, work: Coroutine[Any, Any, Result]) -> "Future[Result]":
        """Do it on the file's loop, from any thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def leave(self) -> None:
        """Close it soon; `closed` tells when that is done."""
        atexit.unregister(self._cut_off)
        self._loop.call_soon_threadsafe(self._leaving.set)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._hold())
        finally:
            self.closed.set_result(None)

    async def _hold(self) -> None:
        try:
            async with open_parts(self.settings, self.path, given_up=self._leaving.is_set) as parts:
                self._parts.set_result(parts)
                await self._leaving.wait()
        except Exception as error:
            if self._parts.done():
                raise
            self._parts.set_exception(error)
            self._parts.exception()  # whoever waits raises it; nobody may be waiting any more
            await self._leaving.wait()

    def _cut_off(self) -> None:
        """The process ends: its live runs end as cancelled, unless their code does not listen in time."""
        seconds = self.settings.cancel_grace_seconds + EXIT_MARGIN_SECONDS
        with suppress(RuntimeError):
            wait_for([self.submit(self._stop_runs())], timeout=seconds)
            self.leave()
            wait_for([self.closed], timeout=seconds)

    async def _stop_runs(self) -> None:
        if self._parts.done() and self._parts.exception() is None:
            await asyncio.gather(*(run.stop() for run in list(self._parts.result().runs.values())))


def use_file(path: Path) -> OpenFile:
    """The open file, counted as used once more."""
    with _guard:
        key = (os.getpid(), path)
        if (file := _files.get(key)) is None:
            file = _files[key] = OpenFile(path)
        file.users += 1
        return file


def release_file(file: OpenFile) -> bool:
    """One use less; whether it was the last, so that the file is being closed."""
    with _guard:
        file.users -= 1
        if file.users:
            return False
        del _files[os.getpid(), file.path]
    file.leave()
    return True
