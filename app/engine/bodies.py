"""Author code in motion: the shapes of `run()`, each driven to its end where it may block nobody."""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

from app.engine.content import ContentTally
from app.engine.journal import Journal
from app.engine.steps import RunStopped, SyncRuntime
from app.engine.threads import Ended, contained, start_thread
from app.engine.writer import MAX_PENDING, RunLog
from app.workflow.response import RunResponse, encode_response

TURN_SECONDS = 0.001
"""How long async author code may yield events without waiting before others get the event loop."""
YIELDS_PER_LOOK = 16
"""Events between two looks at the clock."""


class Body(Protocol):
    """One call of `run()`."""

    def start(self) -> "asyncio.Future[Any]":
        """Begin it; the future is done when it has ended, and may be cancelled."""

    def result(self) -> Any:
        """Once it has ended: what it returned, if that was no event; raises what it raised."""

    def stop(self) -> None:
        """Ask it to end: async code at once, sync code at its next yield or step."""


class AsyncBody:
    """An async generator or a coroutine, on the event loop in a task of its own."""

    def __init__(self, call: Callable[[], Any], log: RunLog, journal: Journal, tally: ContentTally) -> None:
        self._call, self._log, self._journal, self._tally = call, log, journal, tally
        self._task: asyncio.Task[Any] | None = None

    def start(self) -> "asyncio.Future[Any]":
        """Begin the task."""
        self._task = asyncio.get_running_loop().create_task(self._drive())
        return self._task

    def result(self) -> Any:
        """Its result; raises RunStopped when it was cancelled, by us or by itself."""
        assert self._task is not None
        if self._task.cancelled():
            raise RunStopped("the run's own task was cancelled")
        return self._task.result()

    def stop(self) -> None:
        """Cancel the task."""
        if self._task is not None:
            self._task.cancel()

    async def _drive(self) -> Any:
        try:
            result = self._call()
            if inspect.isawaitable(result):
                result = await result
            if isinstance(result, AsyncIterator):
                return await self._follow(result)
        except (SystemExit, KeyboardInterrupt) as error:  # would end the event loop
            raise contained(error) from error
        if isinstance(result, RunResponse):
            emit(result, self._journal, self._tally)
            return None
        return result

    async def _follow(self, responses: AsyncIterator[Any]) -> None:
        count, turn_ends = 0, time.monotonic() + TURN_SECONDS
        async for response in responses:
            emit(response, self._journal, self._tally)
            count += 1
            if count % YIELDS_PER_LOOK == 0 and time.monotonic() >= turn_ends:
                await asyncio.sleep(0)
                if len(self._log.pending) >= MAX_PENDING:
                    await self._log.flush()
                turn_ends = time.monotonic() + TURN_SECONDS


class SyncBody:
    """A generator or a function, in a thread of its own."""

    def __init__(
        self, call: Callable[[], Any], log: RunLog, journal: Journal, tally: ContentTally, runtime: SyncRuntime
    ) -> None:
        self._call, self._log, self._journal, self._tally = call, log, journal, tally
        self._runtime = runtime
        self._ended: asyncio.Future[Ended[Any]] | None = None

    def start(self) -> "asyncio.Future[Any]":
        """Begin the thread; cancelling the future does not stop it."""
        self._ended = asyncio.wrap_future(start_thread(self._drive))
        return self._ended

    def result(self) -> Any:
        """Its result; raises RunStopped when it was stopped."""
        assert self._ended is not None
        return self._ended.result().value()

    def stop(self) -> None:
        """Tell the thread."""
        self._runtime.stop()
        self._log.room.set()

    def _drive(self) -> Any:
        result = self._call()
        if isinstance(result, Iterator):
            return self._follow(result)
        if isinstance(result, RunResponse):
            emit(result, self._journal, self._tally)
            return None
        return result

    def _follow(self, responses: Iterator[Any]) -> None:
        for response in responses:
            self._runtime.check()
            emit(response, self._journal, self._tally)
            if not self._log.room.is_set():
                self._log.room.wait()


def emit(response: RunResponse, journal: Journal, tally: ContentTally) -> None:
    """Put one event of the author's into the log, if it is not there from an earlier attempt."""
    name, head = encode_response(response)
    journal.emit(name, head)
    tally.add(name, response.content)
