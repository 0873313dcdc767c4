"""Running a workflow in a plain script without storage: the body as it stands, steps called where they are met."""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from app import clock
from app.errors import Invalid
from app.workflow.results import revive
from app.workflow.runtime import InputRequest, StepCall, StreamCall

if TYPE_CHECKING:
    from app.workflow.workflow import Workflow


def run_directly(workflow: "Workflow", body: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call the body with its state in memory alone; what it returns is returned, an iterator if it is one."""
    asynchronous = inspect.iscoroutinefunction(body) or inspect.isasyncgenfunction(body)
    workflow.bind(
        AsyncDirectRuntime() if asynchronous else DirectRuntime(),
        run_id=clock.new_id(),
        session_id=workflow.session_id or clock.new_id(),
        user_id=workflow.user_id,
        input=arguments,
        state=workflow.session_state,
    )
    return body(workflow, **arguments)


class DirectRuntime:
    """Steps of sync code: called at once, remembered nowhere."""

    asynchronous = False

    def step(self, call: StepCall) -> Any:
        """Call the function, again as often as its retries allow."""
        for attempt in range(call.retries + 1):
            try:
                result = call.function(*call.arguments)
                return revive(call.function, asyncio.run(result) if inspect.iscoroutine(result) else result)
            except Exception:
                if attempt == call.retries:
                    raise
                time.sleep(call.backoff_seconds * 2**attempt)
        raise AssertionError("unreachable")

    def stream(self, call: StreamCall) -> Iterator[Any]:
        """Drive the async stream from sync code, on an event loop of its own."""
        pieces = call.start()
        with asyncio.Runner() as runner:
            while True:
                try:
                    yield runner.run(_next(pieces))
                except StopAsyncIteration:
                    return

    def save(self) -> None:
        """Nothing: without storage, the state lives as long as the instance."""

    def wait_for_input(self, request: InputRequest) -> Any:
        """Nobody can answer a script."""
        raise _unanswerable(request)


async def _next(pieces: AsyncIterator[Any]) -> Any:
    return await anext(pieces)


class AsyncDirectRuntime:
    """Steps of async code."""

    asynchronous = True

    async def step(self, call: StepCall) -> Any:
        """Call the function, again as often as its retries allow."""
        for attempt in range(call.retries + 1):
            try:
                result = call.function(*call.arguments)
                return revive(call.function, await result if inspect.isawaitable(result) else result)
            except Exception:
                if attempt == call.retries:
                    raise
                await asyncio.sleep(call.backoff_seconds * 2**attempt)
        raise AssertionError("unreachable")

    def stream(self, call: StreamCall) -> AsyncIterator[Any]:
        """The stream as it is."""
        return call.start()

    async def save(self) -> None:
        """Nothing: without storage, the state lives as long as the instance."""

    async def wait_for_input(self, request: InputRequest) -> Any:
        """Nobody can answer a script."""
        raise _unanswerable(request)


def _unanswerable(request: InputRequest) -> Invalid:
    return Invalid(f"a plain script has nobody to ask {request.prompt!r}; serve the workflow to wait for input")
