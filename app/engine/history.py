"""What earlier attempts of a run left in its log, read page by page and kept small enough for a log of any length.

Of a yield its place and a digest are kept, of everything else a flag; what steps returned is kept up to a size, and
read again when it is asked for beyond that. The claim has fenced the log before it is read: until this attempt writes,
nobody does. A cancel of a running run is no event, an answer comes to a paused one alone, and whoever recovers the run
raises the attempt, after which nothing that was read here can be written on.
"""

import asyncio
import sys
from array import array
from bisect import bisect_right
from typing import NamedTuple

from app.engine.writer import Fenced, RunLog
from app.store.events import LoggedEvent
from app.wire.events import opening_of
from app.workflow.encoding import decode
from app.workflow.response import ServerEvent

PAGE_ROWS = 500
FIRST_PAGE_ROWS = 50
PAGE_BYTES = 512 * 1024
"""About what a page holds: the event loop waits while one is taken in."""
KEPT_RESULT_BYTES = 1024 * 1024
"""What the results of a run's finished steps may take up in memory; those beyond are read when they are needed."""


class FinishedStep(NamedTuple):
    """Where the log says that a step was finished."""

    sequence: int
    name: str


class History:
    """The log of earlier attempts, up to a sequence; empty for a first attempt, whose log is none."""

    def __init__(self, log: RunLog, *, last: int) -> None:
        self.last = last
        self.started: dict[str, int] = {}
        """By step: the sequence of its start, and below of its end."""
        self.completed: dict[str, int] = {}
        self.answers: dict[str, tuple[int, int]] = {}
        """By request: the sequences of the question and of its answer."""
        self.saves: dict[int, int] = {}
        self.sequential = True
        """Whether no two steps were ever under way together; concurrent code calls its steps in any order."""
        self.continued = False
        """Whether the last thing that happened was an answer."""
        self._log = log
        self._unseen = bytearray(last + 1)
        """By sequence: whether the event still counts and has to be met again."""
        self._lowest = 0
        """Nothing below it is unseen."""
        self._yields, self._digests = array("I"), array("q")
        self._next_yield = 0
        self._finished: list[FinishedStep] = []
        self._next_finished = 0
        self._results: dict[int, str | None] = {}
        self._result_bytes = 0
        self._fetching = asyncio.Lock()
        self._open: set[str] = set()
        self._asked: dict[str, int] = {}

    async def read(self, *, until: "asyncio.Future[None]") -> bool:
        """Take in the log; whether all of it was, before the event. Others get the event loop between two pages."""
        rows, cursor = FIRST_PAGE_ROWS, 0
        while cursor < self.last and not until.done():
            page = await self._log.logged(after=cursor, limit=min(rows, self.last - cursor))
            if not page:  # the run has ended elsewhere, and its events have been removed
                raise Fenced(self._log.run_id)
            for event in page:
                self._take_in(event)
            cursor = page[-1].sequence
            size = sum(len(event.payload) + len(event.result or "") for event in page)
            rows = max(1, min(PAGE_ROWS, PAGE_BYTES * len(page) // size))
            await asyncio.sleep(0)
        return not until.done()

    def meet_yield(self, opening: bytes) -> bool:
        """Whether the log's next yield is just this one, which then has been seen."""
        place = self._next_yield
        if place >= len(self._yields) or self._digests[place] != hash(opening):
            return False
        self._next_yield += 1
        self.see(self._yields[place])
        return True

    def see(self, sequence: int) -> None:
        """The event has been met again."""
        self._unseen[sequence] = 0

    def first_unseen(self) -> int | None:
        """The first event that counts and has not been met again."""
        found = self._unseen.find(1, self._lowest)
        self._lowest = len(self._unseen) if found < 0 else found
        return None if found < 0 else found

    def finished_beyond(self) -> FinishedStep | None:
        """The first finished step that was not called again yet."""
        while self._next_finished < len(self._finished):
            step = self._finished[self._next_finished]
            if self._unseen[step.sequence]:
                return step
            self._next_finished += 1
        return None

    def supersede(self) -> None:
        """Nothing of it has to be met again."""
        self._unseen = bytearray(self.last + 1)
        self._drop_after(0)

    def kept_result(self, sequence: int) -> str | None:
        """What an event carries beside its payload, if it is in memory; asked for once."""
        return self._results.pop(sequence, None)

    async def result(self, sequence: int) -> str | None:
        """What an event carries beside its payload, from memory or from the log."""
        if sequence in self._results:
            return self._results.pop(sequence)
        async with self._fetching:
            page = await self._log.logged(after=sequence - 1, limit=1)
        if not page:
            raise Fenced(self._log.run_id)
        return page[0].result

    async def fetched(self) -> None:
        """Wait for whoever is just reading a result."""
        async with self._fetching:
            return

    def _take_in(self, event: LoggedEvent) -> None:
        self.continued = event.event == ServerEvent.run_continued
        if event.event == ServerEvent.run_recovered:
            self._drop_after(decode(event.payload)["superseded_after"])
            self._open.clear()
        elif event.event not in _OF_THE_ATTEMPT:
            self._unseen[event.sequence] = 1
            if event.event in _SERVER_NAMES:
                self._take_in_ours(event)
            else:
                self._yields.append(event.sequence)
                self._digests.append(hash(opening_of(event.payload, event.sequence).encode()))

    def _take_in_ours(self, event: LoggedEvent) -> None:
        if event.event == ServerEvent.state_saved:
            self.saves[int(event.result or 0)] = event.sequence
            return
        members = decode(event.payload)
        if event.event == ServerEvent.step_started:
            step = members["step"]
            self.started[step] = event.sequence
            self.sequential = self.sequential and all(step.startswith(f"{other}/") for other in self._open)
            self._open.add(step)
        elif event.event == ServerEvent.step_completed:
            self.completed[members["step"]] = event.sequence
            self._finished.append(FinishedStep(event.sequence, sys.intern(members["name"])))
            self._keep(event)
            self._open.discard(members["step"])
        elif event.event == ServerEvent.run_paused:
            self._asked[members["request_id"]] = event.sequence
        elif event.event == ServerEvent.run_continued:
            self.answers[members["request_id"]] = (self._asked[members["request_id"]], event.sequence)
            self._keep(event)

    def _keep(self, event: LoggedEvent) -> None:
        size = len(event.result or "")
        if self._result_bytes + size <= KEPT_RESULT_BYTES:
            self._result_bytes += size
            self._results[event.sequence] = event.result

    def _drop_after(self, sequence: int) -> None:
        """What came later no longer counts."""
        self._unseen[sequence + 1 :] = bytes(len(self._unseen) - sequence - 1)
        kept = bisect_right(self._yields, sequence)
        del self._yields[kept:], self._digests[kept:]
        del self._finished[bisect_right(self._finished, sequence, key=lambda step: step.sequence) :]


_SERVER_NAMES = frozenset(ServerEvent)
_OF_THE_ATTEMPT = frozenset({ServerEvent.workflow_started, ServerEvent.run_queued})
"""What each attempt has of its own, and is not met again."""
