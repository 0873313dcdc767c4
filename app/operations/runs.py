"""What callers may ask of runs."""

import asyncio
import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app import clock
from app.engine.endings import Outcome, end_run
from app.engine.live import LiveLogs
from app.engine.seam import Engine
from app.engine.states import States
from app.engine.writer import Appender
from app.errors import Conflict, Invalid, NotFound, Unavailable
from app.metrics import Metrics
from app.operations.caller import Caller
from app.operations.cursors import cut_page, read_cursor, write_cursor
from app.operations.resources import run_resource
from app.store import events, idempotency, runs, sessions
from app.store.database import Database, Transaction
from app.store.tables import IdempotencyRow, RunRow, SessionRow
from app.wire.events import Envelope, server_event
from app.workflow.encoding import encode
from app.workflow.registry import Registry
from app.workflow.response import ServerEvent
from app.workflow.state import EMPTY
from app.workflow.status import ENDED, RunStatus

POLL_SECONDS = 1.0
"""How long a wait trusts that it would have been woken."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a caller wants to have run; see wire.runs.StartRun."""

    workflow: str
    input: dict[str, Any]
    session_id: str | None = None
    user_id: str | None = None
    session_state: dict[str, Any] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    on_busy: str = "enqueue"
    on_disconnect: str = "continue"
    timeout_seconds: float | None = None

    def digest(self) -> str:
        """The same for the same request."""
        members = {name: getattr(self, name) for name in self.__slots__}
        return hashlib.sha256(encode(members)).hexdigest()


class Runs:
    """Starting, seeing and stopping runs."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        engine: Engine,
        states: States,
        live: LiveLogs,
        metrics: Metrics,
    ) -> None:
        self._database, self._registry, self._engine = database, registry, engine
        self._states, self._live, self._metrics = states, live, metrics

    @property
    def closing(self) -> bool:
        """Whether readers are being sent away."""
        return self._live.closed

    async def start(self, caller: Caller, request: RunRequest, *, idempotency_key: str | None = None) -> dict[str, Any]:
        """Accept a run: on disk when this returns, and begun if its session is free.

        Raises NotFound for an unknown workflow, Invalid for an input that does not fit, Conflict for another workflow's
        session or a busy one that is not to be waited for, Unavailable while draining. The same key gives the same run.
        """
        definition = self._registry.get(request.workflow)
        definition.input.validate(request.input)
        if request.session_state is not None:
            self._states.check_size(EMPTY.changed_to(request.session_state))
        digest = request.digest()

        def work(transaction: Transaction) -> dict[str, Any]:
            if idempotency_key is not None and (known := self._known(transaction, caller, idempotency_key, digest)):
                return run_resource(transaction, known)
            if self._engine.draining:
                raise Unavailable("the server is stopping; start the run again in a moment", code="draining")
            row = self._accept(transaction, caller, request, clock.now())
            if idempotency_key is not None:
                key = IdempotencyRow(
                    tenant_id=caller.tenant,
                    key=idempotency_key,
                    request_hash=digest,
                    run_id=row.run_id,
                    created_at=row.created_at,
                )
                idempotency.insert_key(transaction, key)
            return run_resource(transaction, row)

        return await self._database.write(work)

    async def get(self, caller: Caller, run_id: str) -> dict[str, Any]:
        """The run; raises NotFound."""
        return await self._database.read(
            lambda transaction: run_resource(transaction, existing_run(transaction, caller, run_id))
        )

    async def page(
        self, caller: Caller, *, filters: dict[str, Any], limit: int, cursor: str | None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Runs, newest first, and the cursor of the next page."""
        before = None if cursor is None else read_cursor(cursor, str)[0]

        def work(transaction: Transaction) -> tuple[list[dict[str, Any]], str | None]:
            rows = runs.list_runs(transaction, caller.tenant, filters=filters, before=before, limit=limit + 1)
            page, following = cut_page(rows, limit, lambda row: write_cursor(row.run_id))
            return [run_resource(transaction, row) for row in page], following

        return await self._database.read(work)

    async def wait(self, caller: Caller, run_id: str, seconds: float) -> dict[str, Any]:
        """The run when it has ended, or as it is after so many seconds."""
        deadline = asyncio.get_running_loop().time() + seconds
        with self._live.holding(run_id) as log:
            while True:
                change = log.change()
                run = await self.get(caller, run_id)
                left = deadline - asyncio.get_running_loop().time()
                if run["status"] in ENDED or left <= 0:
                    return run
                await asyncio.wait({change}, timeout=min(left, POLL_SECONDS))

    async def cancel(self, caller: Caller, run_id: str) -> tuple[dict[str, Any], bool]:
        """Stop a run; with it, whether there was still something to stop. Asking twice is fine."""

        def work(transaction: Transaction) -> tuple[RunRow, dict[str, Any]]:
            row = runs.lock_run(transaction, caller.tenant, run_id)
            if row is None:
                raise unknown_run(run_id)
            if row.status == RunStatus.queued:
                self._end_queued(transaction, row)
            return row, run_resource(transaction, existing_run(transaction, caller, run_id))

        row, resource = await self._database.write(work)
        if row.status == RunStatus.running:
            await self._engine.cancel(row)
        return resource, row.status not in ENDED

    def _known(self, transaction: Transaction, caller: Caller, key: str, digest: str) -> RunRow | None:
        """The run that the key stands for already."""
        row = idempotency.get_key(transaction, caller.tenant, key)
        if row is None:
            return None
        if row.request_hash != digest:
            raise Invalid(
                f"the Idempotency-Key {key!r} was used for another request; a new request takes a new key",
                code="idempotency_key_reused",
                run_id=row.run_id,
            )
        return runs.get_run(transaction, caller.tenant, row.run_id)

    def _accept(self, transaction: Transaction, caller: Caller, request: RunRequest, at: datetime) -> RunRow:
        """Write the run, and give it the session's turn if that is free."""
        session = self._session_for(transaction, caller, request, at)
        busy = session.active_run_id is not None
        if busy and request.on_busy == "reject":
            raise Conflict(
                f"the session {session.session_id!r} is busy with run {session.active_run_id};"
                " wait for its end, or send on_busy: enqueue",
                code="session_busy",
                run_id=session.active_run_id,
                retry_after_seconds=1,
            )
        row = RunRow(
            tenant_id=caller.tenant,
            run_id=clock.new_id(),
            workflow=request.workflow,
            session_id=session.session_id,
            user_id=request.user_id if request.user_id is not None else session.user_id,
            status=RunStatus.queued.value,
            ordinal=session.run_count + 1,
            input=encode(request.input).decode(),
            annotations=encode(request.metadata).decode(),
            state_patch=None if request.session_state is None else encode(request.session_state).decode(),
            on_disconnect=request.on_disconnect,
            timeout_seconds=request.timeout_seconds,
            created_at=at,
        )
        runs.insert_run(transaction, row)
        active = session.active_run_id if busy else row.run_id
        sessions.accept_run(
            transaction, caller.tenant, session.session_id, run_count=row.ordinal, active_run_id=active, at=at
        )
        if busy:
            self._announce_queued(transaction, row)
        else:
            self._engine.submit(transaction, row)
        transaction.after_commit(self._metrics.runs_started.labels(row.workflow).inc)
        return row

    def _session_for(self, transaction: Transaction, caller: Caller, request: RunRequest, at: datetime) -> SessionRow:
        """The session, locked: the one named, made if it is new."""
        if request.session_id is not None:
            known = sessions.lock_session(transaction, caller.tenant, request.session_id)
            if known is not None:
                return _checked_session(known, request.workflow)
        session = SessionRow(
            tenant_id=caller.tenant,
            session_id=request.session_id or clock.new_id(),
            workflow=request.workflow,
            user_id=request.user_id,
            created_at=at,
            updated_at=at,
        )
        if sessions.insert_session(transaction, session):
            return session
        known = sessions.lock_session(transaction, caller.tenant, session.session_id)
        assert known is not None  # the insert has just met it, and waited for its transaction
        return _checked_session(known, request.workflow)

    def _announce_queued(self, transaction: Transaction, row: RunRow) -> None:
        head = server_event(ServerEvent.run_queued, position=runs.queue_position(transaction, row))
        appender = _appender_of(row, 0)
        appender.append(ServerEvent.run_queued, head, at=row.created_at)
        events.append_events(transaction, appender.rows(row.tenant_id, row.run_id))
        transaction.after_commit(lambda: self._live.publish(row.run_id, 1, appender.events))

    def _end_queued(self, transaction: Transaction, row: RunRow) -> None:
        """End a run that has not begun."""
        first = events.last_sequence(transaction, row.tenant_id, row.run_id) + 1
        appender = _appender_of(row, first - 1)
        end_run(transaction, appender, self._states, self._engine, row, Outcome(RunStatus.cancelled), clock.now())
        events.append_events(transaction, appender.rows(row.tenant_id, row.run_id))
        transaction.after_commit(lambda: self._live.publish(row.run_id, first, appender.events, ended=True))


def existing_run(transaction: Transaction, caller: Caller, run_id: str) -> RunRow:
    """The run; raises NotFound."""
    row = runs.get_run(transaction, caller.tenant, run_id)
    if row is None:
        raise unknown_run(run_id)
    return row


def unknown_run(run_id: str) -> NotFound:
    """The error for an id that no run has."""
    return NotFound(f"there is no run {run_id[:100]!r}", code="unknown_run")


def _checked_session(session: SessionRow, workflow: str) -> SessionRow:
    if session.workflow != workflow:
        raise Conflict(
            f"the session {session.session_id!r} belongs to the workflow {session.workflow!r}, not {workflow!r};"
            " use another session_id",
            code="session_of_another_workflow",
        )
    return session


def _appender_of(row: RunRow, sequence: int) -> Appender:
    return Appender(Envelope(run_id=row.run_id, session_id=row.session_id, workflow=row.workflow), sequence)
