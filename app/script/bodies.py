"""What the engine calls instead of the author's class: an instance made like the author's, and a paced `run()`."""

import asyncio
import copy
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Generator, Iterator
from contextvars import ContextVar
from inspect import isawaitable
from typing import Any, cast

from app.engine.pauses import RunPaused
from app.engine.steps import RunStopped
from app.engine.writer import Fenced
from app.workflow.registry import WorkflowDefinition
from app.workflow.response import RunResponse
from app.workflow.runtime import PerRun
from app.workflow.workflow import Workflow

INSIDE: ContextVar[frozenset[tuple[str, str]]] = ContextVar("inside", default=frozenset())
"""The file and session of each run that this code is part of: waiting for another there would never end."""

_BOUND = frozenset({"run", "session_state", "input", "run_id", "session_id", "user_id", "_runtime", "_last_saved"})
"""Attributes that belong to one run, or to the author's instance alone."""


class Pace:
    """Lets a body go on from one yield to the next when the script has asked for more."""

    def __init__(self) -> None:
        self._turns = threading.Semaphore(0)
        self._turns_of_async = asyncio.Semaphore(0)
        self._free = self._gone = False

    def go_on(self) -> None:
        """The script wants one more. On the loop."""
        self._turns.release()
        self._turns_of_async.release()

    def free(self) -> None:
        """Run ahead from now on: somebody waits for the end."""
        self._free = True
        self.go_on()

    def leave(self) -> None:
        """The script wants nothing more: the body ends at the yield where it stands."""
        self._gone = True
        self.free()

    def wait(self) -> None:
        """In sync author code, after a yield."""
        if not self._free:
            self._turns.acquire()
        if self._gone:
            raise RunStopped

    async def wait_async(self) -> None:
        """In async author code, after a yield."""
        if not self._free:
            await self._turns_of_async.acquire()


class ScriptBody:
    """The author's `run()` in one run: what it says and returns is kept as it is, for the script to have."""

    def __init__(self, author: Workflow, inside: tuple[str, str], loop: asyncio.AbstractEventLoop) -> None:
        self._author, self._inside, self._loop = author, inside, loop
        self.run_id: str | None = None
        self.pace = Pace()
        self.returned: Any = None
        self.error: BaseException | None = None
        self.streams: asyncio.Future[bool] = loop.create_future()
        """Whether `run()` came back with an iterator; known as soon as it has come back."""
        self._said: deque[RunResponse] = deque()
        self._executed: Workflow | None = None

    def definition(self, known: WorkflowDefinition) -> WorkflowDefinition:
        """The class's definition, whose runs are executed here."""
        own = copy.copy(known)
        own.workflow = cast("type[Workflow]", self)
        return own

    def __call__(self) -> Workflow:
        """An instance for one run: with what the author set on his own, but state and agents apart."""
        own = Workflow.__new__(type(self._author))
        for name, value in vars(self._author).items():
            if name not in _BOUND:
                own.__dict__[name] = value.copy_for(own) if isinstance(value, PerRun) else value
        return own

    def run(self, workflow: Workflow, **arguments: Any) -> Any:
        """Call the author's `run()`. Runs that an earlier process left in the session's queue are not the script's."""
        body = type(self._author).run
        if workflow.run_id != self.run_id:
            return body(workflow, **arguments)
        self._executed = workflow
        INSIDE.set(INSIDE.get() | {self._inside})
        try:
            result = body(workflow, **arguments)
        except BaseException as error:
            self._fail(error)
            raise
        return self._shaped(result)

    def next_said(self) -> RunResponse:
        """The oldest response that the script has not had; there is one for each event of the author's."""
        return self._said.popleft()

    def give_back(self) -> None:
        """Set on the author's instance what the run has set on its own."""
        if self._executed is not None:
            for name, value in vars(self._executed).items():
                if name not in _BOUND and not isinstance(value, PerRun):
                    self._author.__dict__[name] = value

    def _shaped(self, result: Any) -> Any:
        if isawaitable(result):
            return self._awaited(result)
        self._tell(streams=isinstance(result, Iterator | AsyncIterator))
        if isinstance(result, Iterator):
            return self._paced(result)
        if isinstance(result, AsyncIterator):
            return self._paced_async(result)
        if isinstance(result, RunResponse):
            self._say(result)
        self.returned = result
        return result

    async def _awaited(self, result: Awaitable[Any]) -> Any:
        try:
            returned = await result
        except BaseException as error:
            self._fail(error)
            raise
        return self._shaped(returned)

    def _paced(self, responses: Iterator[Any]) -> Iterator[Any]:
        try:
            for response in responses:
                self._say(response)
                yield response
                self.pace.wait()
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            if isinstance(responses, Generator):
                responses.close()

    async def _paced_async(self, responses: AsyncIterator[Any]) -> AsyncIterator[Any]:
        try:
            async for response in responses:
                self._say(response)
                yield response
                await self.pace.wait_async()
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            if isinstance(responses, AsyncGenerator):
                await responses.aclose()

    def _say(self, response: Any) -> None:
        if isinstance(response, RunResponse):
            self._said.append(copy.copy(response))

    def _fail(self, error: BaseException) -> None:
        """Keep the error for the script, unless it is how the engine ends code."""
        if not isinstance(error, GeneratorExit | asyncio.CancelledError | RunStopped | RunPaused | Fenced):
            self.error = error
            self._tell(streams=False)

    def _tell(self, *, streams: bool) -> None:
        def tell() -> None:
            if not self.streams.done():
                self.streams.set_result(streams)

        self._loop.call_soon_threadsafe(tell)
