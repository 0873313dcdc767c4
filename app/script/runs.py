"""One run that a script asked for, from its acceptance to its end. All of this happens on the file's own loop."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from app import clock
from app.engine.hooks import Hooks
from app.engine.worker import Worker
from app.errors import Conflict, MillstreamError, NotFound
from app.network.targets import TargetRules
from app.operations.caller import Caller
from app.operations.events import Events
from app.operations.imports import Imports
from app.operations.runs import RunRequest, Runs
from app.operations.sessions import Sessions
from app.script.bodies import INSIDE, ScriptBody
from app.script.engine import SessionEngine
from app.script.parts import Parts
from app.workflow.encoding import decode, encode
from app.workflow.patches import merge_changes
from app.workflow.registry import Registry, WorkflowDefinition
from app.workflow.response import RESERVED, RunResponse, ServerEvent
from app.workflow.state import StateDocument
from app.workflow.status import RunStatus
from app.workflow.workflow import Workflow

END_MARGIN_SECONDS = 30.0
"""Beyond the cancel grace: what a stopped run may take until its end is on disk."""


class RunFailed(MillstreamError):
    """The run has not ended well, and not by what its own code raised; the code is that of the run's error."""

    code = "run_failed"


class End(NamedTuple):
    """The end of a run; with the error that its script is to see."""

    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """What a script wants to have run."""

    author: Workflow
    definition: WorkflowDefinition
    arguments: dict[str, Any]
    table: str


class LiveRun:
    """A run that has been accepted; `begin_run` makes it."""

    def __init__(self, parts: Parts, start: Start, caller: Caller, session_id: str) -> None:
        self.over = False
        self.session_id = session_id
        self.body = ScriptBody(start.author, (str(parts.file), session_id), asyncio.get_running_loop())
        registry = Registry([self.body.definition(start.definition)])
        self.engine = SessionEngine(parts, registry, session_id)
        self._runs = Runs(
            parts.database,
            registry,
            self.engine,
            parts.states,
            parts.live,
            parts.metrics,
            hooks=Hooks(parts.database, TargetRules()),  # never read: a script posts to nobody
            key_lifetime=timedelta(hours=parts.settings.idempotency_hours),
        )
        self._sessions = Sessions(parts.database, registry, parts.states)
        self._parts, self._start, self._caller = parts, start, caller
        self._run_id = ""
        self._log = self._follow()
        self._first: asyncio.Task[RunResponse | End] | None = None
        self._last: RunResponse | None = None

    async def accept(self) -> None:
        """Put the run on disk, after what an earlier process left in the session's queue."""
        async with self._parts.accepting:
            await self._accept()

    async def _accept(self) -> None:
        author, name = self._start.author, self._start.definition.name
        for other in self._parts.runs.values():
            if other.session_id == self.session_id:
                other.run_ahead()  # this one waits for its end
        await self.engine.start()
        try:
            await self._prepare_session(name)
            request = RunRequest(name, self._start.arguments, session_id=self.session_id, user_id=author.user_id)
            run = await self._runs.start(self._caller, request)
        except BaseException:
            await self.engine.drain()
            raise
        self._run_id = self.body.run_id = run["run_id"]
        self._parts.runs[self._run_id] = self
        author.run_id, author.session_id, author.input = self._run_id, self.session_id, self._start.arguments

    async def next(self) -> RunResponse | End:
        """The next of the author's responses, once it is on disk."""
        if self._first is not None:
            first, self._first = self._first, None
            return await first
        async for name, payload in self._log:
            if name == ServerEvent.run_finished:
                await self._settle()
                return End(self._error(decode(payload)))
            if name == ServerEvent.run_paused:
                await self._settle()
                return End(self._paused(decode(payload)))
            if name not in RESERVED:
                self._last = self._named(self.body.next_said(), decode(payload))
                return self._last
        return End(RunFailed(f"the log of run {self._run_id} broke off"))

    async def streams(self) -> bool:
        """Whether `run()` comes back with an iterator, as soon as that is known."""
        self._first = asyncio.create_task(self.next())
        waiting: set[asyncio.Future[Any]] = {self._first, self.body.streams}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        return self.body.streams.done() and self.body.streams.result()

    @property
    def worker(self) -> Worker:
        """Who executes it, and nobody else."""
        return self.engine.worker

    def go_on(self) -> None:
        """The script has had what was said last, and wants more."""
        self.body.pace.go_on()

    def run_ahead(self) -> None:
        """Wait for the script no longer: somebody waits for the end of this run."""
        self.body.pace.free()

    @property
    def returned(self) -> Any:
        """What `run()` returned."""
        return self._last if isinstance(self.body.returned, RunResponse) else self.body.returned

    async def stop(self) -> None:
        """End it as cancelled, at the yield where it stands; nothing when it has ended."""
        if self._first is not None:
            self._first.cancel()
        if not self.over:
            await self._runs.cancel(self._caller, self._run_id)
            self.body.pace.leave()
            seconds = self._parts.settings.cancel_grace_seconds + END_MARGIN_SECONDS
            await self._runs.wait(self._caller, self._run_id, seconds)
            await self._settle()

    async def _prepare_session(self, workflow: str) -> None:
        """Make the session where it needs a name or a state to begin with; else bring in what the author has set."""
        author = self._start.author
        title: str | None = getattr(author, "session_name", None)
        given, is_default = _given_state(author, self.session_id)
        try:
            known = await self._sessions.get(self._caller, self.session_id)
        except NotFound:
            if title or given:
                await self._sessions.create(
                    self._caller,
                    workflow=workflow,
                    session_id=self.session_id,
                    session_state=given,
                    user_id=author.user_id,
                    name=title,
                    metadata={},
                )
            return
        if known["workflow"] != workflow:
            return  # the run will be refused
        await self._refuse_behind_a_question(known["active_run_id"])
        if given:
            await self._sessions.change_state(
                self._caller,
                self.session_id,
                lambda document: _changed(document, author, given, is_default),
                expected=None,
            )
        if title and title != known["name"]:
            await self._sessions.update(self._caller, self.session_id, {"name": title}, check=lambda _known: None)

    async def _refuse_behind_a_question(self, run_id: str | None) -> None:
        if run_id is not None and (await self._runs.get(self._caller, run_id))["status"] == RunStatus.paused:
            raise Conflict(
                f"session {self.session_id!r} has run {run_id}, which waits for an answer, so that this one would wait"
                f" for ever; serve {self._parts.file}, and answer or cancel it",
                code="session_busy",
                run_id=run_id,
            )

    async def _settle(self) -> None:
        """The run has ended: let go of it, and tell the author's instance what became of it."""
        if self.over:
            return
        self.over = True
        with suppress(RuntimeError):  # somebody is reading it just now, to the end
            await self._log.aclose()
        await self.engine.drain()
        self._parts.runs.pop(self._run_id, None)
        author = self._start.author
        _, document = await self._sessions.state(self._caller, self.session_id)
        self.body.give_back()
        author.session_state = decode(document)
        author.__dict__["_last_saved"] = (self.session_id, document)

    async def _follow(self) -> AsyncGenerator[tuple[str, bytes], None]:
        """Name and payload of each of the run's events, to the last."""
        events = Events(self._parts.database, self._parts.live, poll_seconds=None)
        async for chunk in events.follow(self._caller, self._run_id, 0):
            for frame in chunk.split(b"\n\n")[:-1]:
                fields = dict(line.split(b": ", 1) for line in frame.split(b"\n"))
                yield fields[b"event"].decode(), fields[b"data"]

    def _named(self, response: RunResponse, event: Mapping[str, Any]) -> RunResponse:
        """The response as the seed gave it to the caller: with the ids of the run, and the time in seconds."""
        response.run_id, response.session_id = event["run_id"], event["session_id"]
        response.workflow_id = event["workflow"]
        response.content_type = event.get("content_type", response.content_type)
        response.created_at = int(datetime.fromisoformat(event["created_at"]).timestamp())
        return response

    def _paused(self, question: Mapping[str, Any]) -> RunFailed:
        request_id = question["request_id"]
        return RunFailed(
            f"run {self._run_id} waits for an answer to {question.get('prompt')!r}, which a service takes:"
            f" serve {self._parts.file}, and POST /runs/{self._run_id}/input with the request_id {request_id!r}",
            code="run_paused",
            run_id=self._run_id,
            session_id=self.session_id,
            request_id=request_id,
        )

    def _error(self, finished: Mapping[str, Any]) -> BaseException | None:
        if finished["status"] == RunStatus.completed:
            return None
        told = finished.get("error") or {"code": "run_cancelled", "message": f"run {self._run_id} was cancelled"}
        if finished["status"] == RunStatus.failed and self.body.error is not None:
            self.body.error.add_note(f"run {self._run_id} of session {self.session_id!r} failed with this")
            return self.body.error
        return RunFailed(told["message"], code=told["code"], run_id=self._run_id, session_id=self.session_id)


async def begin_run(parts: Parts, start: Start) -> LiveRun:
    """Accept a run; first take over the table of the storage's name, should the seed have left one in the file."""
    author, definition = start.author, start.definition
    session_id = author.session_id or clock.new_id()
    if (str(parts.file), session_id) in INSIDE.get():
        raise Conflict(
            f"a run of session {session_id!r} cannot start another in its own session, and wait for it;"
            " give that one a session_id of its own",
            code="session_busy",
        )
    caller = Caller(name=author.user_id or "script")
    imports = Imports(
        parts.database,
        parts.states,
        max_content_bytes=parts.settings.max_content_bytes,
        names={type(author).__name__: definition.name, definition.name: definition.name},
    )
    await imports.on_first_use(caller, parts.file, start.table, workflow=definition.name)
    run = LiveRun(parts, start, caller, session_id)
    await run.accept()
    return run


def _given_state(author: Workflow, session_id: str) -> tuple[dict[str, Any], bool]:
    """The state that the author's instance brings, and whether it consists of defaults.

    Before the instance's first run in a session these are the constructor's. Later, what counts is what the author
    has changed in `session_state` since the last run; nothing, when he has changed nothing.
    """
    session, saved = author.__dict__.get("_last_saved", (None, b"{}"))
    given = author.session_state
    return ({} if encode(given) == saved else given), session != session_id


def _changed(document: StateDocument, author: Workflow, given: dict[str, Any], is_default: bool) -> StateDocument:
    plain = StateDocument.of(given).root
    if is_default:
        return document.changed_to(_with_defaults(document.root, plain))
    _, saved = author.__dict__["_last_saved"]
    merged, _ = merge_changes(decode(saved), plain, document.root)
    return document.changed_to(merged)


def _with_defaults(stored: Any, defaults: Any) -> Any:
    """What is stored, and the defaults of keys that it does not have, at any depth."""
    if not isinstance(stored, dict) or not isinstance(defaults, dict):
        return stored
    filled = {name: _with_defaults(value, defaults.get(name)) for name, value in stored.items()}
    return filled | {name: value for name, value in defaults.items() if name not in stored}
