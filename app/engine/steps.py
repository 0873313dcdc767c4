"""Steps and saves of a run in progress: the runtimes that author code sees, over one journal.

A step's function is called only after its StepStarted is committed under the fence, and its result is committed
before the author gets it. So a worker that has lost the run starts no step, and a result that was used is never computed twice.
"""

import asyncio
import contextvars
import inspect
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any, Protocol, TypeVar

from app.engine.writer import RunLog
from app.wire.events import server_event
from app.workflow.encoding import encode
from app.workflow.response import ServerEvent
from app.workflow.results import from_log
from app.workflow.runtime import StepCall, StreamCall

STREAM_AHEAD = 256
"""Pieces of a stream that may wait for sync author code."""

Result = TypeVar("Result")


class RunStopped(BaseException):
    """The run was asked to stop; raised in sync author code at its next step or yield."""


class StepTimeoutError(TimeoutError):
    """A step took longer than its timeout allows."""


class Save(Protocol):
    """Makes the session state durable as it is at the call; the awaitable ends with the commit."""

    def __call__(self) -> Awaitable[None]:
        """Take the state now, and write it."""


class Journal:
    """The steps of one run in its log."""

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._failed: tuple[BaseException, str] | None = None

    async def begin(self, name: str) -> float:
        """Commit the start of a step; the moment to count its seconds from."""
        self._log.put(ServerEvent.step_started, server_event(ServerEvent.step_started, name=name))
        await self._log.flush()
        return time.monotonic()

    async def complete(self, name: str, begun: float, result: bytes) -> None:
        """Commit the result of a step."""
        head = server_event(ServerEvent.step_completed, name=name, seconds=round(time.monotonic() - begun, 6))
        self._log.put(ServerEvent.step_completed, head, result.decode())
        await self._log.flush()

    def fail(self, name: str, error: BaseException) -> None:
        """Remember which step raised, should the author let it pass."""
        self._failed = (error, name)

    def step_of(self, error: BaseException) -> str | None:
        """The step that raised this error."""
        return self._failed[1] if self._failed is not None and self._failed[0] is error else None


class AsyncRuntime:
    """What async author code sees, on the event loop."""

    asynchronous = True

    def __init__(self, journal: Journal, save: Save) -> None:
        self._journal, self._save = journal, save

    def step(self, call: StepCall) -> Coroutine[Any, Any, Any]:
        """Journal one call of the function; sync functions run in a thread of their own."""
        return self._step(call)

    async def stream(self, call: StreamCall) -> AsyncIterator[Any]:
        """Journal the pieces as they come."""
        begun = await self._journal.begin(call.name)
        pieces = []
        try:
            async for piece in call.start():
                pieces.append(piece)
                yield piece
        except Exception as error:
            self._journal.fail(call.name, error)
            raise
        await self._journal.complete(call.name, begun, encode(pieces))

    def save(self) -> Awaitable[None]:
        """Take the state now; it is written whether this is awaited or not."""
        return asyncio.ensure_future(self._save())

    async def _step(self, call: StepCall) -> Any:
        begun = await self._journal.begin(call.name)
        for retry in range(call.retries + 1):
            try:
                result = encode(await self._try(call))
                break
            except Exception as error:
                if retry == call.retries:
                    self._journal.fail(call.name, error)
                    raise
                await asyncio.sleep(call.backoff_seconds * 2**retry)
        await self._journal.complete(call.name, begun, result)
        return from_log(call.function, result)

    async def _try(self, call: StepCall) -> Any:
        try:
            async with asyncio.timeout(call.timeout_seconds):
                if inspect.iscoroutinefunction(call.function):
                    return await call.function(*call.arguments)
                result = await asyncio.wrap_future(in_thread(lambda: call.function(*call.arguments)))
                return await result if inspect.isawaitable(result) else result
        except TimeoutError as error:
            raise _timeout_of(call, error) from None


class SyncRuntime:
    """What sync author code sees, in the run's own thread."""

    asynchronous = False

    def __init__(
        self, journal: Journal, save: Callable[[], Coroutine[Any, Any, None]], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._journal, self._save, self._loop = journal, save, loop
        self._stop = threading.Event()
        self._awaited: Future[Any] | None = None

    def stop(self) -> None:
        """Raise RunStopped at the next step, and at once where the author's thread waits for the event loop."""
        self._stop.set()
        if self._awaited is not None:
            self._awaited.cancel()

    def check(self) -> None:
        """Raises RunStopped when author code has to end."""
        if self._stop.is_set():
            raise RunStopped

    def step(self, call: StepCall) -> Any:
        """Journal one call of the function; async functions run on the event loop."""
        self.check()
        begun = self.on_loop(self._journal.begin(call.name))
        for retry in range(call.retries + 1):
            try:
                result = encode(self._try(call))
                break
            except Exception as error:
                if retry == call.retries:
                    self._journal.fail(call.name, error)
                    raise
                self._stop.wait(call.backoff_seconds * 2**retry)
                self.check()
        self.on_loop(self._journal.complete(call.name, begun, result))
        return from_log(call.function, result)

    def stream(self, call: StreamCall) -> Iterator[Any]:
        """Journal the pieces as they come from the event loop."""
        self.check()
        begun = self.on_loop(self._journal.begin(call.name))
        pump = _Pump(call)
        pieces: list[Any] = []
        task = asyncio.run_coroutine_threadsafe(pump.run(), self._loop)
        try:
            while batch := self.on_loop(pump.take()):
                for piece in batch:
                    self.check()
                    pieces.append(piece)
                    yield piece
            task.result()
        except Exception as error:
            self._journal.fail(call.name, error)
            raise
        finally:
            task.cancel()
        self.on_loop(self._journal.complete(call.name, begun, encode(pieces)))

    def save(self) -> None:
        """Write the state, and wait for it."""
        self.check()
        self.on_loop(self._save())

    def on_loop(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do async work from the author's thread."""
        self._awaited = future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            self.check()
            return future.result()
        except CancelledError:
            raise RunStopped from None
        finally:
            future.cancel()
            self._awaited = None

    def _try(self, call: StepCall) -> Any:
        if inspect.iscoroutinefunction(call.function):
            return self._await(call, call.function(*call.arguments))
        if call.timeout_seconds is None:
            result = call.function(*call.arguments)
            return self._await(call, result) if inspect.iscoroutine(result) else result
        try:
            return in_thread(lambda: call.function(*call.arguments)).result(call.timeout_seconds)
        except TimeoutError as error:
            raise _timeout_of(call, error) from None

    def _await(self, call: StepCall, coroutine: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            try:
                async with asyncio.timeout(call.timeout_seconds):
                    return await coroutine
            except TimeoutError as error:
                raise _timeout_of(call, error) from None

        return self.on_loop(bounded())


class _Pump:
    """Drives an async stream in one task of the loop's, a bounded number of pieces ahead of who takes them."""

    def __init__(self, call: StreamCall) -> None:
        self._call = call
        self._pieces: asyncio.Queue[Any] = asyncio.Queue(STREAM_AHEAD)
        self._ended = object()

    async def run(self) -> None:
        try:
            async for piece in self._call.start():
                await self._pieces.put(piece)
        except Exception:
            await self._pieces.put(self._ended)
            raise
        await self._pieces.put(self._ended)

    async def take(self) -> list[Any]:
        """The pieces that are there, at least one; none at the end."""
        batch = [await self._pieces.get()]
        while not self._pieces.empty():
            batch.append(self._pieces.get_nowait())
        if batch[-1] is self._ended:
            self._pieces.put_nowait(self._ended)  # for the next call, should these be the last pieces
            return batch[:-1]
        return batch


def in_thread(function: Callable[[], Result]) -> "Future[Result]":
    """Call a function in a daemon thread: one that never returns cannot keep the process from ending."""
    future: Future[Result] = Future()
    context = contextvars.copy_context()

    def call() -> None:
        try:
            result = context.run(function)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=call, daemon=True, name="millstream-author").start()
    return future


def _timeout_of(call: StepCall, error: TimeoutError) -> TimeoutError:
    """Our own error when it was the step's timeout, else the one that the function raised."""
    if call.timeout_seconds is None or str(error):
        return error
    return StepTimeoutError(f"the step {call.name!r} took longer than {call.timeout_seconds:g} seconds")
