"""Pausing a run for an answer from outside: it leaves its worker, and comes back by replay."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeAlias

from app import clock
from app.engine.journal import Journal
from app.engine.writer import Appender, Fenced, RunLog
from app.errors import Overdue
from app.store import runs
from app.store.database import Transaction
from app.store.tables import SessionRow
from app.wire.events import server_event
from app.workflow.encoding import decode, encode
from app.workflow.response import ServerEvent
from app.workflow.runtime import InputRequest

Asking: TypeAlias = Coroutine[Any, Any, Any]


class RunPaused(BaseException):
    """The run has left this worker; raised through author code to end it."""


class Pauses:
    """The questions of one run."""

    def __init__(self, log: RunLog, journal: Journal, *, used_seconds: float) -> None:
        self._log, self._journal = log, journal
        self._began = asyncio.get_running_loop().time() - used_seconds
        self._steps_at_work = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def ask(self, request: InputRequest, request_id: str) -> Any:
        """The answer that came; without one, the run is paused here."""
        answer = await self._journal.answer(request_id)
        if answer is None:
            await self._idle.wait()  # concurrent steps end first: what they did is not done again
            await self._pause(request, request_id)
            raise RunPaused
        if answer.value is None:
            raise Overdue(f"nobody answered {request.prompt!r} within {request.timeout_seconds:g} seconds")
        return request.read(decode(answer.value))

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """A step that a pause waits for."""
        self._steps_at_work += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._steps_at_work -= 1
            if not self._steps_at_work:
                self._idle.set()

    async def _pause(self, request: InputRequest, request_id: str) -> None:
        self._journal.go_live(f"the question {request.prompt!r}")
        used = asyncio.get_running_loop().time() - self._began

        def work(transaction: Transaction, appender: Appender, _session: SessionRow) -> bool:
            row = runs.get_run(transaction, self._log.tenant, self._log.run_id)
            if row is None or row.cancel_requested_at is not None:
                return False
            at = clock.now()
            members = {"request_id": request_id, "prompt": request.prompt, "schema": request.schema}
            appender.append(ServerEvent.run_paused, server_event(ServerEvent.run_paused, **members), at=at)
            until = None if request.timeout_seconds is None else at + timedelta(seconds=request.timeout_seconds)
            question = encode({"request_id": request_id, "schema": request.schema}).decode()
            run = self._log
            runs.pause_run(transaction, run.tenant, run.run_id, question=question, until=until, used_seconds=used)
            return True

        if not await self._log.commit_at_last(work):
            await asyncio.Event().wait()  # for the stop that was asked for before: it is on its way, or a tick away
        self._log.fail(Fenced(self._log.run_id))
