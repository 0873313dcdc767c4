"""SqliteWorkflowStorage: a workflow's `run()` in a plain script, durable on the service's own tables."""

import asyncio
import inspect
import sys
from collections.abc import AsyncGenerator, Coroutine, Generator
from concurrent.futures import Future
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError
from sqlalchemy.engine import make_url

from app.errors import ConfigurationError, Invalid
from app.script.files import OpenFile, release_file, use_file
from app.script.runs import End, LiveRun, Start, begin_run
from app.wire.sessions import CreateSession
from app.workflow.registry import WorkflowDefinition
from app.workflow.response import RunResponse
from app.workflow.workflow import Workflow

Result = TypeVar("Result")


class SqliteWorkflowStorage:
    """Keeps sessions and runs of scripts in a SQLite file, the one that a service may serve at other times.

    `table_name` names no table of ours: should the file hold one of that name that Agno 1.x or phidata wrote, its
    sessions and runs are taken over on first use. The seed's other options are taken and have no effect.

    A run is accepted when its first response is asked for (of a `run()` that yields nothing: when it is called), and
    goes on from yield to yield as responses are asked for, each of which is on disk by then. An iterator that is
    closed, or dropped, before its end cancels the run; one that was never asked for anything has no run at all. A run
    that fails raises what its code raised. Scripts wait for each other's runs; a file that a service has open is
    refused.

    Each run has an instance of its own, with what was set on the author's; what `run()` sets on it, the author's
    instance has when the run has ended, with `session_state`, `run_id` and `session_id`. Sync code runs in a thread of
    its own, async code on an event loop of its own.
    """

    def __init__(
        self,
        table_name: str,
        db_url: str | None = None,
        db_file: str | Path | None = None,
        **options: Any,
    ) -> None:
        if unknown := options.keys() - _SEED_OPTIONS:
            raise TypeError(f"SqliteWorkflowStorage() got unknown options: {', '.join(sorted(unknown))}")
        self.table_name = table_name
        self.file = _file_of(db_url) if db_url is not None else Path(db_file or "").absolute()
        if db_url is None and not db_file:
            raise ConfigurationError("SqliteWorkflowStorage() needs a file: db_file='tmp/workflows.db'")

    def run(self, workflow: Workflow, arguments: dict[str, Any]) -> Any:
        """Run it; called by the workflow's own `run()`.

        A generator gives an iterator of its responses, an async one an async iterator; a function what it returned,
        a coroutine function a coroutine of that. Raises TypeError for missing or unknown arguments, Invalid for those
        that do not fit.
        """
        body = type(workflow).run
        inspect.signature(body).bind(workflow, **arguments)
        definition = _definition(type(workflow))  # type: ignore[arg-type]  # a class is hashable
        definition.input.validate(arguments)
        _check_names(workflow, definition.name)
        desk = Desk(self.file, Start(workflow, definition, arguments, self.table_name))
        if inspect.isasyncgenfunction(body):
            return _responses(desk)
        if inspect.iscoroutinefunction(body):
            return _result(desk)
        responses = Responses(desk)
        return responses if inspect.isgeneratorfunction(body) else responses.result()


class Desk:
    """Where a run is asked for from another thread: opens the file for it, and gives the file back."""

    def __init__(self, path: Path, start: Start) -> None:
        self._path, self._start = path, start
        self._file: OpenFile | None = None
        self._run: LiveRun | None = None
        self._turn = asyncio.Lock()
        self._asked = False

    @property
    def returned(self) -> Any:
        """What `run()` returned, once the run has ended."""
        return None if self._run is None else self._run.returned

    @property
    def is_here(self) -> bool:
        """Whether the file's own thread asks."""
        return self._file is not None and self._file.is_here

    def ask(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of one of the coroutines below, from sync code."""
        if self.opened().is_here:
            work.close()
            raise Invalid(
                "async code of a run cannot wait for a sync run in the same file; await asyncio.to_thread(...) of it"
            )
        future = self.opened().submit(work)
        try:
            return future.result()
        finally:
            future.cancel()

    async def ask_async(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The same from async code."""
        return await asyncio.wrap_future(self.opened().submit(work))

    async def advance(self) -> RunResponse | End:
        """The next response; the run is accepted with the first."""
        async with self._turn:
            run = await self._begun()
            if self._asked:
                run.go_on()
            self._asked = True
            return await run.next()

    async def streams(self) -> bool:
        """Begin the run; whether its `run()` came back with an iterator."""
        async with self._turn:
            return await (await self._begun()).streams()

    def leave(self) -> "Future[OpenFile | None] | None":
        """End the run, and give the file back, whether anybody waits for that or not; None when that is done.

        The result is the file, if it is being closed.
        """
        if (file := self._file) is None or file.closed.done():
            return None
        return file.submit(self._leave(file))

    async def _leave(self, file: OpenFile) -> OpenFile | None:
        try:
            async with self._turn:
                if self._run is not None:
                    await self._run.stop()
        finally:
            self._file = None
            closing = release_file(file)
        return file if closing else None

    def opened(self) -> OpenFile:
        """The file, from the first question on."""
        if self._file is None:
            self._file = use_file(self._path)
        return self._file

    async def _begun(self) -> LiveRun:
        if self._run is None:
            self._run = await begin_run(await self.opened().parts(), self._start)
        return self._run


class Responses(Generator[RunResponse, None, None]):
    """The responses of a run, each on disk when it is given."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._done = False

    def send(self, _value: None = None) -> RunResponse:
        """The next one."""
        if self._done:
            raise StopIteration
        try:
            response = self._desk.ask(self._desk.advance())
        except BaseException:
            self.close()
            raise
        if isinstance(response, RunResponse):
            return response
        self.close()
        if response.error is not None:
            raise response.error
        raise StopIteration

    def throw(self, error: Any, value: Any = None, trace: Any = None) -> NoReturn:
        """Close it, and raise the error."""
        self.close()
        raise (error(value) if isinstance(error, type) else error).with_traceback(trace)

    def close(self) -> None:
        """Cancel the run if it has not ended, and close the file if nobody else uses it."""
        if self._done:
            return
        self._done = True
        leaving = None if sys.is_finalizing() else self._desk.leave()
        if leaving is None or self._desk.is_here:  # where garbage is collected is chance
            return
        if (file := leaving.result()) is not None:
            file.closed.result()

    def result(self) -> Any:
        """What `run()` returned, at the end of the run; these responses, when it returned an iterator."""
        streams = False
        try:
            if streams := self._desk.ask(self._desk.streams()):
                return self
            while isinstance(response := self._desk.ask(self._desk.advance()), RunResponse):
                pass
        finally:
            if not streams:
                self.close()
        if response.error is not None:
            raise response.error
        return self._desk.returned

    def __del__(self) -> None:
        self.close()


async def _responses(desk: Desk) -> AsyncGenerator[RunResponse, None]:
    try:
        while isinstance(response := await desk.ask_async(desk.advance()), RunResponse):
            yield response
        if response.error is not None:
            raise response.error
    finally:
        await _leave(desk)


async def _result(desk: Desk) -> Any:
    """What the coroutine returned; the responses when that was an iterator."""
    streams = False
    try:
        if streams := await desk.ask_async(desk.streams()):
            return _responses(desk)
        while isinstance(response := await desk.ask_async(desk.advance()), RunResponse):
            pass
        if response.error is not None:
            raise response.error
        return desk.returned
    finally:
        if not streams:
            await _leave(desk)


async def _leave(desk: Desk) -> None:
    if (leaving := desk.leave()) is None:
        return
    if (file := await asyncio.shield(asyncio.wrap_future(leaving))) is not None:
        await asyncio.shield(asyncio.wrap_future(file.closed))


_definition = lru_cache(maxsize=256)(WorkflowDefinition)


def _file_of(url: str) -> Path:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise ConfigurationError(f"SqliteWorkflowStorage() keeps things in a file: db_url='sqlite:///…', not {url!r}")
    return Path(parsed.database).absolute()


def _check_names(workflow: Workflow, name: str) -> None:
    title = getattr(workflow, "session_name", None)
    try:
        CreateSession(workflow=name, session_id=workflow.session_id, user_id=workflow.user_id, name=title)
    except ValidationError as error:
        found = error.errors()[0]
        raise Invalid(f"{found['loc'][0]} {found['input']!r}: {found['msg']}") from None


_SEED_OPTIONS = frozenset({"schema_version", "auto_upgrade_schema", "mode"})
