"""The step journal and replay: what earlier attempts of a run did, and is not done again.

The journal is part of the event log. A later attempt calls `run()` from the start, on the frozen base: finished steps
return what they returned, yields are matched against the log instead of appended, a save that is in the log is not made
again. Where the log says nothing, or something else, the run goes live; what it had said beyond that is superseded.

    log of attempt 1     y1  [step A ✓]  y2  [step B …            ← died in step B
    attempt 2            =   = from log  =   RunRecovered(superseded_after y2)  [step B ✓] y3 …
"""

import contextvars
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from app.engine.writer import RunLog
from app.errors import MillstreamError
from app.store.events import LoggedEvent
from app.wire.events import server_event
from app.workflow.encoding import decode, fingerprint
from app.workflow.response import ServerEvent

PARENT: contextvars.ContextVar[str] = contextvars.ContextVar("millstream_step", default="")
"""The step that the code around is part of, so that a step called inside another has an identity of its own."""


class ReplayDiverged(BaseException):
    """The author's code does other things than the log says, and finished steps lie beyond."""

    def __init__(self, what: str, beyond: LoggedEvent) -> None:
        name = decode(beyond.payload)["name"]
        super().__init__(
            f"{what} is not what the run's log has here, and its finished step {name!r} (event {beyond.sequence}) lies"
            " beyond; up to its last finished step, a workflow must do the same again"
        )
        self.event = f"{beyond.event} {beyond.sequence}"


class Journal:
    """The steps, yields and saves of one run, replayed and then written."""

    def __init__(self, log: RunLog, history: Sequence[LoggedEvent], *, attempt: int) -> None:
        self._log, self._attempt = log, attempt
        past = _Past(history)
        self._results = past.results
        self._started = past.started
        self._answers = past.answers
        self._saves = past.saves
        self._sequential = past.sequential
        self._yields = deque(event for event in past.effective if event.event not in _SERVER_NAMES)
        self._unseen = {event.sequence: event for event in past.effective}
        self._live = not history
        self._quiet = past.continued
        self._last = history[-1].sequence if history else 0
        self._calls: Counter[str] = Counter()
        self._save_count = 0
        self._failed: tuple[BaseException, str] | None = None

    def emit(self, name: str, head: bytes) -> None:
        """Put an event of the author's into the log, unless an earlier attempt has. Raises ReplayDiverged."""
        if not self._live:
            logged = self._yields[0] if self._yields else None
            if logged is not None and logged.event == name and self._log.envelope.carries(logged.payload, head):
                self._yields.popleft()
                self._see(logged.sequence)
                return
            self._go_live(f"the event {name!r}", known=False)
        self._log.put(name, head)

    def identify(self, name: str, arguments: Sequence[Any]) -> str:
        """The identity of a call: the same in every attempt, whatever the order in which concurrent calls come.

        It is made of the step around it, the name, the arguments, and how often just this was called before.
        """
        try:
            digest = fingerprint(arguments)[:12]
        except MillstreamError:  # what JSON cannot hold tells calls apart by their order alone
            digest = "-"
        parent = PARENT.get()
        call = f"{parent}/{name}:{digest}" if parent else f"{name}:{digest}"
        self._calls[call] += 1
        return f"{call}:{self._calls[call]}"

    def recall(self, step: str) -> bytes | None:
        """The result of the step, if an earlier attempt finished it."""
        known = self._results.get(step)
        if known is None:
            return None
        started, completed, result = known
        self._see(started)
        self._see(completed)
        return result.encode()

    def expects_others(self, step: str) -> bool:
        """Whether the log knows nothing of this step, but of finished ones that were not called yet."""
        unknown = not self._live and self._sequential and step not in self._started
        return unknown and self._finished_beyond() is not None

    async def begin(self, step: str, name: str) -> float:
        """Commit the start of a step; the moment to count its seconds from. Raises ReplayDiverged."""
        self._go_live(f"the step {name!r}", known=step in self._started)
        self._log.put(ServerEvent.step_started, server_event(ServerEvent.step_started, name=name, step=step))
        await self._log.flush()
        return time.monotonic()

    async def hold(self) -> None:
        """Make sure that the run is still ours, before a step is tried again. Raises Fenced."""
        await self._log.commit_at_last(lambda _transaction, _appender: None)

    async def complete(self, step: str, name: str, begun: float, result: bytes) -> None:
        """Commit the result of a step."""
        seconds = round(time.monotonic() - begun, 6)
        head = server_event(ServerEvent.step_completed, name=name, step=step, seconds=seconds)
        self._log.put(ServerEvent.step_completed, head, result.decode())
        await self._log.flush()

    def answer(self, request: str) -> "Answer | None":
        """The answer to a request for input, if one came."""
        known = self._answers.get(request)
        if known is not None:
            for sequence in known.sequences:
                self._see(sequence)
        return known

    def next_save(self) -> int:
        """The number of the next save of the run."""
        self._save_count += 1
        return self._save_count

    def recall_save(self, number: int) -> bool:
        """Whether an earlier attempt made this save."""
        sequence = self._saves.get(number)
        if sequence is None:
            return False
        self._see(sequence)
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

    def _go_live(self, what: str, *, known: bool) -> None:
        """Leave the replay, and say what it supersedes; `known` where the log has just this, begun and not finished."""
        if self._live:
            return
        if not known and self._sequential and (beyond := self._finished_beyond()) is not None:
            raise ReplayDiverged(what, beyond)
        self._live = True
        superseded_after = min(self._unseen) - 1 if self._unseen else self._last
        if self._unseen or not self._quiet:
            head = server_event(ServerEvent.run_recovered, attempt=self._attempt, superseded_after=superseded_after)
            self._log.put(ServerEvent.run_recovered, head)
        self._yields.clear()
        self._unseen.clear()

    def _finished_beyond(self) -> LoggedEvent | None:
        """The first finished step of the log that was not called again yet."""
        steps = (event for event in self._unseen.values() if event.event == ServerEvent.step_completed)
        return next(steps, None)

    def _see(self, sequence: int) -> None:
        self._unseen.pop(sequence, None)


class Answer:
    """What came in answer to a request for input: a value, or nothing in time."""

    def __init__(self, value: str | None, sequences: tuple[int, ...]) -> None:
        self.value = value
        self.sequences = sequences


class _Past:
    """The log of earlier attempts, read once."""

    def __init__(self, history: Sequence[LoggedEvent]) -> None:
        self.effective: list[LoggedEvent] = []
        """What still counts and has to be met again, in order."""
        self.results: dict[str, tuple[int, int, str]] = {}
        self.started: dict[str, int] = {}
        self.answers: dict[str, Answer] = {}
        self.saves: dict[int, int] = {}
        self.sequential = True
        """Whether no two steps were ever under way together; concurrent code calls its steps in any order."""
        self.continued = bool(history) and history[-1].event == ServerEvent.run_continued
        self._open: set[str] = set()
        self._asked: dict[str, int] = {}
        for event in history:
            self._read(event)

    def _read(self, event: LoggedEvent) -> None:
        if event.event == ServerEvent.run_recovered:
            superseded_after = decode(event.payload)["superseded_after"]
            while self.effective and self.effective[-1].sequence > superseded_after:
                self.effective.pop()
            self._open.clear()
            return
        if event.event in {ServerEvent.workflow_started, ServerEvent.run_queued}:
            return
        self.effective.append(event)
        if event.event == ServerEvent.step_started:
            step = decode(event.payload)["step"]
            self.started[step] = event.sequence
            self.sequential = self.sequential and all(step.startswith(f"{other}/") for other in self._open)
            self._open.add(step)
        elif event.event == ServerEvent.step_completed:
            step = decode(event.payload)["step"]
            self.results[step] = (self.started[step], event.sequence, event.result or "null")
            self._open.discard(step)
        elif event.event == ServerEvent.state_saved:
            self.saves[int(event.result or 0)] = event.sequence
        elif event.event == ServerEvent.run_paused:
            self._asked[decode(event.payload)["request_id"]] = event.sequence
        elif event.event == ServerEvent.run_continued:
            request = decode(event.payload)["request_id"]
            self.answers[request] = Answer(event.result, (self._asked[request], event.sequence))


_SERVER_NAMES = frozenset(ServerEvent)
