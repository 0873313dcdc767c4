"""The step journal and replay: what earlier attempts of a run did, and is not done again.

The journal is part of the event log. A later attempt calls `run()` from the start, on the frozen base: finished steps
return what they returned, yields are matched against the log instead of appended, a save that is in the log is not made
again. Where the log says nothing, or something else, the run goes live; what it had said beyond that is superseded.

    log of attempt 1     y1  [step A ✓]  y2  [step B …            ← died in step B
    attempt 2            =   = from log  =   RunRecovered(superseded_after y2)  [step B ✓] y3 …
"""

import asyncio
import contextvars
import time
from collections.abc import Sequence
from typing import Any

from app.engine.allowance import EVENTS_OF_A_STEP, Allowance
from app.engine.history import FinishedStep, History
from app.engine.writer import RunLog
from app.errors import MillstreamError
from app.wire.events import server_event
from app.workflow.encoding import fingerprint
from app.workflow.response import ServerEvent

PARENT: contextvars.ContextVar[str] = contextvars.ContextVar("millstream_step", default="")
"""The step that the code around is part of, so that a step called inside another has an identity of its own."""


class ReplayDiverged(BaseException):
    """The author's code does other things than the log says, and finished steps lie beyond."""

    def __init__(self, what: str, beyond: FinishedStep) -> None:
        super().__init__(
            f"{what} is not what the run's log has here, and its finished step {beyond.name!r} (event"
            f" {beyond.sequence}) lies beyond; up to its last finished step, a workflow must do the same again"
        )
        self.event = f"{ServerEvent.step_completed} {beyond.sequence}"


class Journal:
    """The steps, yields and saves of one run, replayed and then written."""

    def __init__(self, log: RunLog, history: History, *, attempt: int, allowance: Allowance | None = None) -> None:
        self._allowance = allowance
        self._log, self._history, self._attempt = log, history, attempt
        self._live = not history.last
        self._calls: dict[str, int] = {}
        self._save_count = 0
        self._failed: tuple[BaseException, str] | None = None

    async def read(self, *, until: "asyncio.Future[None]") -> bool:
        """Take in what earlier attempts did; whether all of it was, before this one is to end."""
        return await self._history.read(until=until)

    def emit(self, name: str, head: bytes) -> None:
        """Put an event of the author's into the log, unless an earlier attempt has.

        Raises ReplayDiverged and OutputExceeded.
        """
        if self._allowance is not None:
            self._allowance.spend(1, len(head))
        if not self._live:
            if self._history.meet_yield(self._log.envelope.opening(head)):
                return
            self._go_live(f"the event {name!r}", known=False)
        self._log.put(name, head)

    def identify(self, name: str, arguments: Sequence[Any]) -> str:
        """The identity of a call: the same in every attempt, whatever the order in which concurrent calls come.

        It is made of the step around it, the name, the arguments, and how often just this was called before.
        Raises OutputExceeded.
        """
        if self._allowance is not None:
            self._allowance.spend(EVENTS_OF_A_STEP, 0)
        try:
            digest = fingerprint(arguments)[:12]
        except MillstreamError:  # what JSON cannot hold tells calls apart by their order alone
            digest = "-"
        parent = PARENT.get()
        call = f"{parent}/{name}:{digest}" if parent else f"{name}:{digest}"
        self._calls[call] = number = self._calls.get(call, 0) + 1
        return f"{call}:{number}"

    def recall(self, step: str) -> int | None:
        """The sequence of the step's end, if an earlier attempt finished it."""
        completed = self._history.completed.get(step)
        if completed is not None:
            self._history.see(self._history.started[step])
            self._history.see(completed)
        return completed

    def kept_result(self, completed: int) -> bytes | None:
        """The result of a finished step, if it is in memory; asked for once."""
        kept = self._history.kept_result(completed)
        if kept is None:
            return None
        encoded = kept.encode()
        self._spend_result(encoded)
        return encoded

    async def result(self, completed: int) -> bytes:
        """The result of a finished step."""
        encoded = (await self._history.result(completed) or "null").encode()
        self._spend_result(encoded)
        return encoded

    async def fetched(self) -> None:
        """Wait for concurrent code that is just getting the result of a finished step."""
        await self._history.fetched()

    def expects_others(self, step: str) -> bool:
        """Whether the log knows nothing of this step, but of finished ones that were not called yet."""
        unknown = not self._live and self._history.sequential and step not in self._history.started
        return unknown and self._history.finished_beyond() is not None

    async def begin(self, step: str, name: str) -> float:
        """Commit the start of a step; the moment to count its seconds from. Raises ReplayDiverged."""
        self._go_live(f"the step {name!r}", known=step in self._history.started)
        self._log.put(ServerEvent.step_started, server_event(ServerEvent.step_started, name=name, step=step))
        await self._log.flush()
        return time.monotonic()

    async def hold(self) -> None:
        """Make sure that the run is still ours, before a step is tried again. Raises Fenced."""
        await self._log.commit_at_last(lambda _transaction, _appender, _session: None)

    async def complete(self, step: str, name: str, begun: float, result: bytes) -> None:
        """Commit the result of a step; raises OutputExceeded."""
        self._spend_result(result)
        seconds = round(time.monotonic() - begun, 6)
        head = server_event(ServerEvent.step_completed, name=name, step=step, seconds=seconds)
        self._log.put(ServerEvent.step_completed, head, result.decode())
        await self._log.flush()

    async def answer(self, request: str) -> "Answer | None":
        """The answer to a request for input, if one came."""
        known = self._history.answers.get(request)
        if known is None:
            return None
        for sequence in known:
            self._history.see(sequence)
        return Answer(await self._history.result(known[1]))

    def next_save(self) -> int:
        """The number of the next save of the run; raises OutputExceeded."""
        if self._allowance is not None:
            self._allowance.spend(1, 0)
        self._save_count += 1
        return self._save_count

    def recall_save(self, number: int) -> bool:
        """Whether an earlier attempt made this save."""
        sequence = self._history.saves.get(number)
        if sequence is None:
            return False
        self._history.see(sequence)
        return True

    def go_live(self, what: str) -> None:
        """From here on everything is written. Raises ReplayDiverged when the log has finished steps beyond."""
        self._go_live(what, known=False)

    def fail(self, name: str, error: BaseException) -> None:
        """Remember which step raised, should the author let it pass."""
        self._failed = (error, name)

    def step_of(self, error: BaseException) -> str | None:
        """The step that raised this error."""
        return self._failed[1] if self._failed is not None and self._failed[0] is error else None

    def _spend_result(self, result: bytes) -> None:
        if self._allowance is not None:
            self._allowance.spend(0, len(result))

    def _go_live(self, what: str, *, known: bool) -> None:
        """Leave the replay, and say what it supersedes; `known` where the log has just this, begun and not finished."""
        if self._live:
            return
        history = self._history
        if not known and history.sequential and (beyond := history.finished_beyond()) is not None:
            raise ReplayDiverged(what, beyond)
        self._live = True
        unseen = history.first_unseen()
        if unseen is not None or not history.continued:  # a run that was paused goes on where it was
            superseded_after = history.last if unseen is None else unseen - 1
            head = server_event(ServerEvent.run_recovered, attempt=self._attempt, superseded_after=superseded_after)
            self._log.put(ServerEvent.run_recovered, head)
        history.supersede()


class Answer:
    """What came in answer to a request for input: a value, or nothing in time."""

    def __init__(self, value: str | None) -> None:
        self.value = value
