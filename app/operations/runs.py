"""What callers may ask of runs."""

import asyncio
import re
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from app import clock
from app.correlation import TRACEPARENT
from app.engine.claims import publish
from app.engine.endings import Outcome
from app.engine.hooks import Hooks
from app.engine.live import LiveLogs, session_key
from app.engine.outbox import write_hooks
from app.engine.recovery import continue_run, end_idle_run
from app.engine.seam import Engine
from app.engine.states import States
from app.engine.writer import Appender
from app.errors import Conflict, Invalid, NotFound, Unavailable
from app.metrics import Metrics
from app.operations.caller import Caller
from app.operations.cursors import cut_page, read_cursor, write_cursor
from app.operations.limits import NO_LIMITS, RunLimits
from app.operations.resources import run_at, run_resource, unknown_session
from app.store import idempotency, runs, sessions, webhooks
from app.store.database import Database, Transaction
from app.store.tables import IdempotencyRow, RunRow, SessionRow, WebhookRow
from app.wire.events import server_event
from app.wire.webhooks import RunWebhook
from app.workflow.encoding import decode, encode, fingerprint
from app.workflow.inputs import check_answer
from app.workflow.registry import Registry
from app.workflow.response import ServerEvent
from app.workflow.state import EMPTY
from app.workflow.status import ENDED, RunStatus

_RUN_ID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

OF_USER = "\x1f"
"""Between a user and the user's Idempotency-Key, which has printable characters alone."""
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
    webhook: RunWebhook | None = None

    def digest(self) -> str:
        """The same for the same request, in whatever order its members came."""
        members = {name: getattr(self, name) for name in self.__slots__}
        if self.webhook is None:
            del members["webhook"]  # as in digests that were made before there were any
        return fingerprint(members)


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
        *,
        hooks: Hooks,
        key_lifetime: timedelta,
        limits: RunLimits = NO_LIMITS,
    ) -> None:
        """`key_lifetime` is how long an Idempotency-Key is remembered."""
        self._limits = limits
        self._hooks = hooks
        self._key_lifetime = key_lifetime
        self._database, self._registry, self._engine = database, registry, engine
        self._states, self._live, self._metrics = states, live, metrics

    async def start(self, caller: Caller, request: RunRequest, *, idempotency_key: str | None = None) -> dict[str, Any]:
        """Accept a run: on disk when this returns, and begun if its session is free.

        Raises NotFound for an unknown workflow, Invalid for an input that does not fit, Conflict for another workflow's
        session or a busy one that is not to be waited for, TooMany for a full queue, Unavailable while draining. The
        same key gives the same run.
        """
        request = _of(caller, request)
        self.check(request)
        digest = "" if idempotency_key is None else request.digest()
        traceparent = TRACEPARENT.get()  # here: on SQLite, work that comes together shares the context of the first

        def work(transaction: Transaction) -> tuple[dict[str, Any], str | None]:
            run_id, at = clock.new_id(), clock.now()
            if idempotency_key is not None:
                key = IdempotencyRow(
                    tenant_id=caller.tenant,
                    key=_key_of(caller, idempotency_key),
                    request_hash=digest,
                    run_id=run_id,
                    created_at=at,
                )
                if (known := self._use_key(transaction, key)) is not None:
                    return run_resource(transaction, known), None
            if self._engine.draining:
                raise Unavailable("the server is stopping; start the run again in a moment", code="draining")
            return self._accept(transaction, caller, request, run_id, at, traceparent)

        resource, interrupted = await self._database.write(work)
        await self.interrupt(caller, interrupted)
        return resource

    def check(self, request: RunRequest) -> None:
        """Raises NotFound, Invalid or TooLarge for a request that can be seen to be wrong without asking anybody."""
        self._registry.get(request.workflow).input.validate(request.input)
        self.check_seconds(request.timeout_seconds)
        if request.webhook is not None:
            self._hooks.check(request.webhook.url)
        if request.session_state is not None:
            self._states.check_size(EMPTY.changed_to(request.session_state))

    def check_seconds(self, seconds: float | None) -> None:
        """Raises Invalid for a `timeout_seconds` that is more than runs have."""
        self._limits.check_seconds(seconds)

    def accept(
        self, transaction: Transaction, caller: Caller, request: RunRequest
    ) -> tuple[dict[str, Any], str | None]:
        """Accept a run that was checked, in a transaction that does more; with it the live one that it interrupts.

        Raises Conflict and TooMany like `start`, and Unavailable while draining. Who calls interrupts the other.
        """
        if self._engine.draining:
            raise Unavailable("the server is stopping; start the run again in a moment", code="draining")
        return self._accept(transaction, caller, request, clock.new_id(), clock.now(), None)

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
        if caller.user_id is not None:
            filters = filters | {"user_id": caller.owner(filters.get("user_id"))}

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
                if run["status"] in ENDED or left <= 0 or self._live.closed:
                    return run
                await asyncio.wait({change}, timeout=min(left, POLL_SECONDS))

    async def cancel(self, caller: Caller, run_id: str) -> tuple[dict[str, Any], bool]:
        """Stop a run; with it, whether there was still something to stop. Asking twice is fine."""

        def work(transaction: Transaction) -> tuple[RunRow, dict[str, Any]]:
            row = locked_run(transaction, caller, run_id)
            self._cancel(transaction, row)
            return row, run_resource(transaction, existing_run(transaction, caller, run_id))

        row, resource = await self._database.write(work)
        if row.status == RunStatus.running:
            await self._engine.cancel(row)
        return resource, row.status not in ENDED

    async def interrupt(self, caller: Caller, run_id: str | None) -> None:
        """Stop the live run, if there is one, whose session's turn an accepted run wants, whosever run it is.

        In a transaction of its own: a run is locked before its session.
        """
        if run_id is not None:
            await self.cancel(replace(caller, user_id=None), run_id)

    async def answer(self, caller: Caller, run_id: str, *, request_id: str, value: Any) -> dict[str, Any]:
        """Answer a paused run, which goes on; raises Conflict when it does not wait for that, Invalid for a misfit."""

        def work(transaction: Transaction) -> dict[str, Any]:
            row = locked_run(transaction, caller, run_id)
            question = None if row.question is None else decode(row.question)
            if row.status != RunStatus.paused or question is None or question["request_id"] != request_id:
                waits = f"waits for {question['request_id']!r}" if question else f"is {row.status}"
                raise Conflict(
                    f"run {run_id} does not wait for {request_id[:200]!r}: it {waits}",
                    code="not_waiting",
                    run_id=run_id,
                )
            if question["schema"] is not None:
                check_answer(value, question["schema"])
            encoded = encode(value).decode()
            continue_run(transaction, self._engine, self._live, row, request_id=request_id, value=encoded)
            return run_resource(transaction, existing_run(transaction, caller, run_id))

        return await self._database.write(work)

    async def retry(self, caller: Caller, run_id: str, *, input: dict[str, Any] | None) -> dict[str, Any]:
        """A new run like an ended one, with the same input or another; raises Conflict while the old one lives."""

        def work(transaction: Transaction) -> tuple[RunRow, RunWebhook | None]:
            row = existing_run(transaction, caller, run_id)
            if row.status not in ENDED:
                raise Conflict(
                    f"run {run_id} is {row.status}; cancel it, or wait for its end", code="run_not_ended", run_id=run_id
                )
            return row, None if row.webhooks is None else _webhook_of(transaction, row)

        row, webhook = await self._database.read(work)
        request = RunRequest(
            workflow=row.workflow,
            input=decode(row.input) if input is None else input,
            session_id=row.session_id,
            user_id=row.user_id,
            metadata=decode(row.annotations),
            on_disconnect="continue",
            timeout_seconds=self._limits.at_most(row.timeout_seconds),
            webhook=webhook,
        )
        return await self.start(caller, request)

    def _cancel(self, transaction: Transaction, row: RunRow) -> None:
        """End a run that nobody executes, or ask whoever executes it. The run is locked by the transaction."""
        if row.status in {RunStatus.queued, RunStatus.paused}:
            outcome = Outcome(RunStatus.cancelled)
            end_idle_run(transaction, self._engine, self._states, self._live, row, outcome)
        elif row.status == RunStatus.running:
            runs.request_cancel(transaction, row.tenant_id, row.run_id, clock.now())

    def _use_key(self, transaction: Transaction, key: IdempotencyRow) -> RunRow | None:
        """Take the key for a new run; the run that it stands for already, if it does."""
        if idempotency.insert_key(transaction, key):
            return None
        known = idempotency.get_key(transaction, key.tenant_id, key.key)
        if known is None or known.created_at < key.created_at - self._key_lifetime:
            idempotency.delete_key(transaction, key.tenant_id, key.key)
            return self._use_key(transaction, key)
        if known.request_hash != key.request_hash:
            raise Invalid(
                f"the Idempotency-Key {key.key.rpartition(OF_USER)[2]!r} was used for another request;"
                " a new request takes a new key",
                code="idempotency_key_reused",
                run_id=known.run_id,
            )
        return runs.get_run(transaction, key.tenant_id, known.run_id)

    def _accept(
        self,
        transaction: Transaction,
        caller: Caller,
        request: RunRequest,
        run_id: str,
        at: datetime,
        traceparent: str | None,
    ) -> tuple[dict[str, Any], str | None]:
        """Write the run, and give it the session's turn if that is free; with it the live one that it interrupts."""
        session = sessions.arrive(transaction, _arrival(caller, request, run_id, at))
        if not caller.sees(session.user_id):
            raise unknown_session(session.session_id)  # and nothing has arrived
        _check_workflow(session, request.workflow)
        busy = session.active_run_id != run_id
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
            run_id=run_id,
            workflow=request.workflow,
            session_id=session.session_id,
            user_id=request.user_id if request.user_id is not None else session.user_id,
            status=RunStatus.queued.value,
            ordinal=session.run_count,
            input=encode(request.input).decode(),
            annotations=encode(request.metadata).decode(),
            state_patch=None if request.session_state is None else encode(request.session_state).decode(),
            on_disconnect=request.on_disconnect,
            timeout_seconds=self._limits.seconds_of(request.timeout_seconds),
            created_at=at,
            traceparent=traceparent,
        )
        hooks = self._hooks.applying(row.tenant_id, row.user_id)
        own = None if request.webhook is None else webhook_row(caller, row, request.webhook)
        if own is not None:
            hooks.append(self._hooks.hook(own))
        row.webhooks = write_hooks(hooks)
        transaction.after_commit(lambda: self._metrics.run_started(row.workflow))
        transaction.after_commit(lambda: self._live.ring(session_key(row.tenant_id, row.session_id)))
        if not busy:
            self._engine.submit(transaction, row, session)
        if row.status == RunStatus.queued:
            self._limits.check_tenant(transaction, row.tenant_id)
        runs.insert_run(transaction, row)
        if own is not None:
            webhooks.insert_webhook(transaction, own)
        if not busy:
            return run_at(row, None), None
        position = runs.queue_position(transaction, row)
        self._limits.check_position(session, position)
        self._announce_queued(transaction, row, position)
        return run_at(row, position), session.active_run_id if request.on_busy == "interrupt" else None

    def _announce_queued(self, transaction: Transaction, row: RunRow, position: int | None) -> None:
        appender = Appender.after(row, 0)
        head = server_event(ServerEvent.run_queued, position=position)
        appender.append(ServerEvent.run_queued, head, at=row.created_at)
        publish(transaction, self._live, row, appender)


def existing_run(transaction: Transaction, caller: Caller, run_id: str) -> RunRow:
    """The run; raises NotFound."""
    row = runs.get_run(transaction, caller.tenant, run_id) if _RUN_ID.fullmatch(run_id) else None
    if row is None or not caller.sees(row.user_id):
        raise unknown_run(run_id)
    return row


def locked_run(transaction: Transaction, caller: Caller, run_id: str) -> RunRow:
    """The run, locked until the transaction ends; raises NotFound."""
    row = runs.lock_run(transaction, caller.tenant, run_id) if _RUN_ID.fullmatch(run_id) else None
    if row is None or not caller.sees(row.user_id):
        raise unknown_run(run_id)
    return row


def unknown_run(run_id: str) -> NotFound:
    """The error for an id that no run has."""
    return NotFound(f"there is no run {run_id[:100]!r}", code="unknown_run")


def _of(caller: Caller, request: RunRequest) -> RunRequest:
    """The request as a run of the user that the caller is bound to; raises Forbidden when it names another."""
    return request if caller.user_id is None else replace(request, user_id=caller.owner(request.user_id))


def webhook_row(caller: Caller, run: RunRow, webhook: RunWebhook) -> WebhookRow:
    """The webhook that a run is started with: it is the caller's, whosever run it is, and signed by its secret."""
    return WebhookRow(
        tenant_id=run.tenant_id,
        webhook_id=clock.new_id(),
        user_id=caller.user_id,
        run_id=run.run_id,
        url=webhook.url,
        events=encode(webhook.events).decode(),
        secret=webhook.secret,
        created_at=run.created_at,
        updated_at=run.created_at,
    )


def _webhook_of(transaction: Transaction, run: RunRow) -> RunWebhook | None:
    """The webhook that a run was started with, for one like it."""
    row = webhooks.webhook_of_run(transaction, run.tenant_id, run.run_id)
    return None if row is None else RunWebhook(url=row.url, events=decode(row.events), secret=row.secret)


def _key_of(caller: Caller, idempotency_key: str) -> str:
    """The key as it is kept: those of two users never meet, and a user's never one of the whole tenant's."""
    return idempotency_key if caller.user_id is None else f"{caller.user_id}{OF_USER}{idempotency_key}"


def _arrival(caller: Caller, request: RunRequest, run_id: str, at: datetime) -> SessionRow:
    """The session as it is if this run is its first: the run has its turn."""
    return SessionRow(
        tenant_id=caller.tenant,
        session_id=request.session_id or clock.new_id(),
        workflow=request.workflow,
        user_id=request.user_id,
        run_count=1,
        active_run_id=run_id,
        created_at=at,
        updated_at=at,
    )


def _check_workflow(session: SessionRow, workflow: str) -> None:
    if session.workflow != workflow:
        raise Conflict(
            f"the session {session.session_id!r} belongs to the workflow {session.workflow!r}, not {workflow!r};"
            " use another session_id",
            code="session_of_another_workflow",
        )
