"""Steps and saves of a run in progress: the runtimes that author code sees, over one journal.

A step's function is called only after its StepStarted is committed under the fence, and its result is committed
before the author gets it. So a worker that has lost the run starts no step, and a result that was used is never
computed twice.
"""

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

from app.correlation import TRACER, Span, step_span
from app.engine.journal import PARENT, Journal
from app.engine.pauses import Asking, Pauses
from app.engine.threads import in_thread, start_thread
from app.errors import Overdue
from app.workflow.encoding import decode, encode
from app.workflow.results import from_log
from app.workflow.runtime import InputRequest, StepCall, StreamCall

STREAM_AHEAD = 256
"""Pieces of a stream that may wait for sync author code."""

SETTLING_TURNS = 10
"""Turns of the event loop that concurrent code gets before a step is taken for one that the log does not have."""

Result = TypeVar("Result")


class RunStopped(BaseException):
    """The run was asked to stop; raised in sync author code at its next step or yield."""


Save = Callable[[], Awaitable[None]]
"""Take the session state as it is at the call, and make it durable; the awaitable ends with the commit."""


class AsyncRuntime:
    """What async author code sees, on the event loop."""

    asynchronous = True

    def __init__(self, journal: Journal, save: Save, pauses: Pauses) -> None:
        self._journal, self._save, self._pauses = journal, save, pauses

    def step(self, call: StepCall) -> Coroutine[Any, Any, Any]:
        """Journal one call of the function; sync functions run in a thread of their own."""
        return self._step(call, self._journal.identify(call.name, call.arguments))

    def stream(self, call: StreamCall) -> AsyncIterator[Any]:
        """Journal the pieces as they come."""
        return self._stream(call, self._journal.identify(call.name, call.arguments))

    def save(self) -> Awaitable[None]:
        """Take the state now; it is written whether this is awaited or not."""
        return self._save()

    def wait_for_input(self, request: InputRequest) -> Coroutine[Any, Any, Any]:
        """Pause the run until the answer is there."""
        return self._pauses.ask(request, self._journal.identify("input", (request.prompt, request.schema)))

    async def _step(self, call: StepCall, step: str) -> Any:
        if (completed := self._journal.recall(step)) is not None:
            await asyncio.sleep(0)  # concurrent code gets its turn here as it did at first
            return from_log(call.function, await self._journal.result(completed))
        await self._settle(step)
        begun = await self._journal.begin(step, call.name)
        with self._pauses.at_work(), _inside(step), step_span(call.name):
            for retry in range(call.retries + 1):
                try:
                    result = encode(await self._try(call))
                    break
                except Exception as error:
                    if retry == call.retries:
                        self._journal.fail(call.name, error)
                        raise
                    await asyncio.sleep(call.backoff_seconds * 2**retry)
                    await self._journal.hold()
            await self._journal.complete(step, call.name, begun, result)
        return from_log(call.function, result)

    async def _try(self, call: StepCall) -> Any:
        try:
            async with asyncio.timeout(call.timeout_seconds):
                if inspect.iscoroutinefunction(call.function):
                    return await call.function(*call.arguments)
                result = await in_thread(lambda: call.function(*call.arguments))
                return await result if inspect.isawaitable(result) else result
        except TimeoutError as error:
            raise _timeout_of(call, error) from None

    async def _stream(self, call: StreamCall, step: str) -> AsyncIterator[Any]:
        if (completed := self._journal.recall(step)) is not None:
            for piece in decode(await self._journal.result(completed)):
                yield piece
            return
        await self._settle(step)
        begun = await self._journal.begin(step, call.name)
        pieces = []
        try:
            async with aclosing(_spanned(call)) as source:
                async for piece in source:
                    pieces.append(piece)
                    yield piece
        except Exception as error:
            self._journal.fail(call.name, error)
            raise
        await self._journal.complete(step, call.name, begun, encode(pieces))

    async def _settle(self, step: str) -> None:
        """Before a step that the log does not know: let concurrent code call those that it does."""
        for _ in range(SETTLING_TURNS):
            if not self._journal.expects_others(step):
                return
            await self._journal.fetched()
            await asyncio.sleep(0)


class SyncRuntime:
    """What sync author code sees, in the run's own thread."""

    asynchronous = False

    def __init__(self, journal: Journal, save: Save, pauses: Pauses, loop: asyncio.AbstractEventLoop) -> None:
        self._journal, self._save, self._pauses, self._loop = journal, save, pauses, loop
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
        step = self._journal.identify(call.name, call.arguments)
        if (completed := self._journal.recall(step)) is not None:
            return from_log(call.function, self._result(completed))
        begun = self.on_loop(self._journal.begin(step, call.name))
        with _inside(step), step_span(call.name):
            for retry in range(call.retries + 1):
                try:
                    result = encode(self._try(call))
                    break
                except Exception as error:
                    if retry == call.retries:
                        self._journal.fail(call.name, error)
                        raise
                    self._stop.wait(call.backoff_seconds * 2**retry)
                    self.on_loop(self._journal.hold())
        self.on_loop(self._journal.complete(step, call.name, begun, result))
        return from_log(call.function, result)

    def stream(self, call: StreamCall) -> Iterator[Any]:
        """Journal the pieces as they come from the event loop."""
        self.check()
        step = self._journal.identify(call.name, call.arguments)
        if (completed := self._journal.recall(step)) is not None:
            yield from decode(self._result(completed))
            return
        begun = self.on_loop(self._journal.begin(step, call.name))
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
        self.on_loop(self._journal.complete(step, call.name, begun, encode(pieces)))

    def save(self) -> None:
        """Write the state, and wait for it."""
        self.check()
        self.on_loop(_awaited(self._save))

    def wait_for_input(self, request: InputRequest) -> Any:
        """Pause the run until the answer is there."""
        self.check()
        step = self._journal.identify("input", (request.prompt, request.schema))
        asking: Asking = self._pauses.ask(request, step)
        return self.on_loop(asking)

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

    def _result(self, completed: int) -> bytes:
        """A finished step's result, without the event loop where it is at hand."""
        kept = self._journal.kept_result(completed)
        return self.on_loop(self._journal.result(completed)) if kept is None else kept

    def _try(self, call: StepCall) -> Any:
        if inspect.iscoroutinefunction(call.function):
            return self._await(call, call.function(*call.arguments))
        if call.timeout_seconds is None:
            result = call.function(*call.arguments)
            return self._await(call, result) if inspect.iscoroutine(result) else result
        try:
            return start_thread(lambda: call.function(*call.arguments)).result(call.timeout_seconds).value()
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
            async with aclosing(_spanned(self._call)) as source:
                async for piece in source:
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


def _timeout_of(call: StepCall, error: TimeoutError) -> TimeoutError:
    """Our own error when it was the step's timeout, else the one that the function raised."""
    if call.timeout_seconds is None or str(error):
        return error
    return Overdue(f"the step {call.name!r} took longer than {call.timeout_seconds:g} seconds")


@contextmanager
def _inside(step: str) -> Iterator[None]:
    """What the function of a step calls is part of the step."""
    token = PARENT.set(step)
    try:
        yield
    finally:
        PARENT.reset(token)


async def _awaited(save: Save) -> None:
    """Call it on the event loop, where the state is taken while the author's thread waits."""
    await save()


def _spanned(call: StreamCall) -> Any:
    """The pieces of a stream, while traces are on as a span of its own."""
    tracer, source = TRACER.get(), _generator(call.start())
    return source if tracer is None else _in_span(source, tracer.step(call.name))


async def _in_span(source: Any, span: Span) -> AsyncGenerator[Any, None]:
    """What the author does between two pieces is no part of the span."""
    failure: Exception | None = None
    end = object()
    try:
        async with aclosing(source):
            while True:
                with span.within():
                    piece = await anext(source, end)
                if piece is end:
                    return
                yield piece
    except Exception as error:
        failure = error
        raise
    finally:
        span.end(failure)


def _generator(pieces: AsyncIterator[Any]) -> Any:
    """As something with aclose(), which a stream of an agent's needs when its author leaves early."""
    return pieces if hasattr(pieces, "aclose") else _closable(pieces)


async def _closable(pieces: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    async for piece in pieces:
        yield piece
