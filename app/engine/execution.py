"""One attempt of a run, from its claim to its end."""

import asyncio
import logging
from collections.abc import Awaitable
from enum import StrEnum
from typing import Any

from app import clock
from app.engine.allowance import Allowance
from app.engine.bodies import AsyncBody, Body, SyncBody
from app.engine.claims import Claim
from app.engine.content import ContentTally
from app.engine.endings import Outcome, StateChange, end_run, failed, failure_of, save_state, seconds_since
from app.engine.history import History
from app.engine.journal import Journal, ReplayDiverged
from app.engine.pauses import Pauses, RunPaused
from app.engine.seam import Engine
from app.engine.states import States
from app.engine.steps import AsyncRuntime, SyncRuntime
from app.engine.writer import Appender, Fenced, RunLog
from app.metrics import Metrics
from app.store.database import Transaction
from app.store.tables import SessionRow
from app.workflow.encoding import decode
from app.workflow.registry import WorkflowDefinition
from app.workflow.state import StateDocument
from app.workflow.status import RunStatus
from app.workflow.workflow import Workflow

logger = logging.getLogger(__name__)

LARGE_STATE_BYTES = 64 * 1024
"""From here on, encoding a state takes longer than handing it to a thread."""


class StopReason(StrEnum):
    """Why a run was asked to stop."""

    cancelled = "cancelled"
    timeout = "timeout"
    drain = "drain"


class Execution:
    """Runs the author's code of one claimed run and writes what it does."""

    def __init__(
        self,
        claim: Claim,
        definition: WorkflowDefinition,
        log: RunLog,
        *,
        states: States,
        engine: Engine,
        metrics: Metrics,
        max_content_bytes: int,
        grace_seconds: float,
        allowance: Allowance | None,
    ) -> None:
        self._allowance = allowance
        self._run = claim.run
        self._definition = definition
        self._log = log
        self._states, self._engine = states, engine
        self._grace_seconds = grace_seconds
        self._base = claim.base
        self._refusal = claim.refusal
        self._tally = ContentTally(max_content_bytes)
        self._journal = Journal(
            log, History(log, last=claim.known_sequence), attempt=claim.run.attempt, allowance=allowance
        )
        self._metrics = metrics
        self._stopped: StopReason | None = None
        self._awake: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the author's code has ended, or is to end."""
        self._workflow: Workflow | None = None
        self._saves: set[asyncio.Future[None]] = set()

    def stop(self, reason: StopReason) -> None:
        """Ask the author's code to end; the first reason counts."""
        self._stopped = self._stopped or reason
        self._wake()

    async def run(self) -> RunStatus | None:
        """Execute it, and write its end: how it ended, or None when it is left to another attempt.

        Raises Fenced when another attempt has taken over.
        """
        outcome = self._refusal or await self._outcome()
        return None if outcome is None else await self._end(outcome)

    async def _outcome(self) -> Outcome | None:
        """How the author's code ended; None when the run is left to another attempt."""
        if not await self._journal.read(until=self._awake):
            return self._stopped_outcome()
        try:
            body = self._prepare()
        except Exception as error:
            return failure_of(error)
        try:
            returned = await self._drive(body)
            if self._stopped is not None:
                return self._stopped_outcome()
            self._refuse_excess()
            if self._saves:
                await asyncio.gather(*self._saves)
            mine = await self._document()
            content = self._tally.result(returned)
            self._journal.go_live("the end of run()")
        except (Fenced, asyncio.CancelledError):  # the run is another's now, or this process is going
            raise
        except RunPaused:
            return None
        except ReplayDiverged as error:
            return failed("replay_diverged", str(error), kind="ReplayDiverged", event=error.event)
        except BaseException as error:
            return self._stopped_outcome() if self._stopped is not None else self._failure(error)
        return Outcome(RunStatus.completed, content=content, change=StateChange(self._base, mine))

    def _refuse_excess(self) -> None:
        """Raises OutputExceeded for a run that has said too much, whatever author code has made of it."""
        if self._allowance is not None and self._allowance.exceeded is not None:
            raise self._allowance.exceeded

    def _failure(self, error: BaseException) -> Outcome:
        """The failure that author code has ended with; too much said counts also where it came out as another."""
        excess = None if self._allowance is None else self._allowance.exceeded
        if excess is not None:
            return failed(excess.code, str(excess))
        logger.info("run_failed", extra={"run_id": self._run.run_id}, exc_info=error)
        return failure_of(error, step=self._journal.step_of(error))

    def _prepare(self) -> Body:
        """The author's instance, bound to the run, about to be called."""
        arguments = self._definition.input.validate(decode(self._run.input))
        pauses = Pauses(self._log, self._journal, used_seconds=self._run.used_seconds)
        runtime: AsyncRuntime | SyncRuntime
        if self._definition.asynchronous:
            runtime = AsyncRuntime(self._journal, self._save, pauses)
            return AsyncBody(lambda: self._call(runtime, arguments), self._log, self._journal, self._tally)
        runtime = SyncRuntime(self._journal, self._save, pauses, asyncio.get_running_loop())
        return SyncBody(lambda: self._call(runtime, arguments), self._log, self._journal, self._tally, runtime)

    def _call(self, runtime: AsyncRuntime | SyncRuntime, arguments: dict[str, Any]) -> Any:
        """Make the run's own instance and call its `run()`; where the author's code may block."""
        workflow = self._workflow = self._definition.workflow()
        workflow.bind(
            runtime,
            run_id=self._run.run_id,
            session_id=self._run.session_id,
            user_id=self._run.user_id,
            input=arguments,
            state=self._base.copy(),
        )
        return self._definition.workflow.run(workflow, **arguments)

    async def _drive(self, body: Body) -> Any:
        """Let it run until it ends, is stopped, or has used up its time."""
        driving = body.start()
        driving.add_done_callback(lambda _ended: self._wake())
        limit = self._seconds_left()
        timer = None if limit is None else asyncio.get_running_loop().call_later(limit, self.stop, StopReason.timeout)
        try:
            await self._awake
            if not driving.done():
                body.stop()
                await asyncio.wait({driving}, timeout=self._grace_seconds)
            return body.result() if driving.done() else None
        finally:
            driving.cancel()
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if not self._awake.done():
            self._awake.set_result(None)

    def _stopped_outcome(self) -> Outcome | None:
        if self._stopped == StopReason.drain:
            return None
        if self._stopped == StopReason.timeout:
            seconds = self._run.timeout_seconds
            return failed("timeout", f"the run took longer than {seconds:g} seconds", kind="TimeoutError")
        return Outcome(RunStatus.cancelled)

    def _seconds_left(self) -> float | None:
        limit = self._run.timeout_seconds
        return None if limit is None else max(0, limit - self._run.used_seconds)

    def _save(self) -> Awaitable[None]:
        """Take the state at once, and write it in its turn, whether anybody waits for it or not."""
        mine, number = self._taken_state(), self._journal.next_save()
        base, self._base = self._base, mine
        saving = asyncio.ensure_future(self._write_save(StateChange(base, mine), number))
        self._saves.add(saving)
        saving.add_done_callback(self._saves.discard)
        return saving

    async def _write_save(self, change: StateChange, number: int) -> None:
        if self._journal.recall_save(number) or not change.changes:
            return
        self._journal.go_live("the save of the state")

        def work(transaction: Transaction, appender: Appender, session: SessionRow) -> None:
            save_state(
                transaction, appender, self._states, session, self._run.run_id, change, clock.now(), number=number
            )

        await self._log.commit_at_last(work)

    async def _document(self) -> StateDocument:
        """The state at the end. Encoding a large one is left to a thread where the author's code ran in one."""
        if self._definition.asynchronous or self._base.size_bytes < LARGE_STATE_BYTES:
            return self._taken_state()
        return await asyncio.to_thread(self._taken_state)

    def _taken_state(self) -> StateDocument:
        assert self._workflow is not None
        return self._base.changed_to(self._workflow.session_state)

    async def _end(self, outcome: Outcome) -> RunStatus:
        def work(transaction: Transaction, appender: Appender, session: SessionRow) -> RunStatus:
            return end_run(transaction, appender, self._states, self._engine, self._run, session, outcome, clock.now())

        status = await self._log.commit_at_last(work)
        self._metrics.run_finished(self._run.workflow, status, seconds_since(self._run.started_at, clock.now()))
        self._log.fail(Fenced(self._run.run_id))  # whatever an abandoned thread still says is not heard
        return status
