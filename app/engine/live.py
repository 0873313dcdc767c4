"""The newest events of runs that somebody in this process is following.

A reader keeps nothing but its cursor: it takes frames from here while they are here, and from the table when it has
fallen behind. So a slow reader costs no memory, and a run never waits for one.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from app.metrics import Metrics
from app.wire.frames import frame

MAX_FRAMES = 2048
MAX_BYTES = 1024 * 1024
"""What one run keeps for its readers; past either, the older half is dropped."""
YOUNG_BYTES = 8 * 1024
"""What it keeps while nobody reads: whoever starts a run and follows it need not ask the table for its beginning."""
MAX_SEND_BYTES = 128 * 1024
"""About what a reader takes at a time, which is what one that has stopped reading costs."""


class LiveLog:
    """The frames that were committed last, for whoever reads along."""

    def __init__(self) -> None:
        self.readers = 0
        self.holders = 0
        self.writers = 0
        """Executions of the run in this process: where there is one, nobody else writes for it."""
        self.ended = False
        self._frames: list[bytes] = []
        self._next = 0
        """The sequence after the last frame; 0 while none has been seen."""
        self._bytes = 0
        self._changed: asyncio.Future[None] | None = None

    def publish(self, sequence: int, events: Sequence[tuple[str, bytes]], *, ended: bool = False) -> None:
        """Tell of committed events, `(name, payload)`, the first of them with this sequence."""
        whole = sequence == 1 or (sequence == self._next and self._next == len(self._frames) + 1)
        if self.readers or (whole and self._bytes < YOUNG_BYTES):
            if sequence != self._next:
                self._frames, self._bytes = [], 0
            fresh = [frame(number, name, payload) for number, (name, payload) in enumerate(events, sequence)]
            self._frames += fresh
            self._bytes += sum(map(len, fresh))
            while (len(self._frames) > MAX_FRAMES or self._bytes > MAX_BYTES) and len(self._frames) > 1:
                half = len(self._frames) // 2
                self._bytes -= sum(map(len, self._frames[:half]))
                del self._frames[:half]
        else:
            self._frames, self._bytes = [], 0
        self._next = sequence + len(events)
        self.ended = self.ended or ended
        self.ring()

    @property
    def last(self) -> int:
        """The sequence of the last event that was told of; 0 when none has been."""
        return max(self._next - 1, 0)

    def heard(self) -> None:
        """Another process may have written: what is here is no longer all there is."""
        self._frames, self._bytes, self._next = [], 0, 0
        self.ring()

    def ring(self) -> None:
        """Wake the readers: there may be something new."""
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
        self._changed = None

    def after(self, cursor: int, *, limit: int) -> list[bytes] | None:
        """The frames past a cursor, as far as they are here; None when the table has to be asked."""
        first = self._next - len(self._frames)
        if not self._frames or cursor + 1 < first:
            return [] if self._next and cursor + 1 >= self._next else None
        start = cursor + 1 - first
        affordable = max(1, MAX_SEND_BYTES * len(self._frames) // self._bytes)
        return self._frames[start : start + min(limit, affordable)]

    def change(self) -> asyncio.Future[None]:
        """A future that ends with the next event. Taken before looking, it cannot miss one."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        return self._changed


class LiveLogs:
    """The live logs of this process, by run; one is there as long as somebody holds it."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self._written = metrics.events_written.inc
        self._logs: dict[str, LiveLog] = {}
        self.on_publish: Callable[[str], None] | None = None
        """Told of each run that has news, so that other processes can be; None where there are none."""
        self.closed = False
        """Whether readers should go, and come back to another process."""

    def close(self) -> None:
        """Send the readers away."""
        self.closed = True
        for log in self._logs.values():
            log.ring()

    @contextmanager
    def reading(self, run_id: str) -> Iterator[LiveLog]:
        """The run's log, while it is followed."""
        with self.holding(run_id) as log:
            log.readers += 1
            try:
                yield log
            finally:
                log.readers -= 1

    @contextmanager
    def holding(self, run_id: str) -> Iterator[LiveLog]:
        """The run's log, while it is written."""
        log = self.hold(run_id)
        try:
            yield log
        finally:
            self.release(run_id)

    def hold(self, run_id: str) -> LiveLog:
        """The run's log, until it is released as often as it was held."""
        log = self._logs.setdefault(run_id, LiveLog())
        log.holders += 1
        return log

    def release(self, run_id: str) -> None:
        """Let go of a log that was held."""
        log = self._logs[run_id]
        log.holders -= 1
        if not log.holders:
            del self._logs[run_id]

    def publish(self, run_id: str, sequence: int, events: Sequence[tuple[str, bytes]], *, ended: bool = False) -> None:
        """Tell of committed events: the run's readers, if there are any, and other processes."""
        self._written(len(events))
        if (log := self._logs.get(run_id)) is not None:
            log.publish(sequence, events, ended=ended)
        if self.on_publish is not None:
            self.on_publish(run_id)

    def ring(self, key: str) -> None:
        """Wake whoever follows this, if anybody does."""
        if (log := self._logs.get(key)) is not None:
            log.ring()

    def heard(self, run_id: str) -> None:
        """The run has news, from this process or another."""
        if (log := self._logs.get(run_id)) is not None and not log.writers:
            log.heard()


def session_key(tenant: str, session_id: str) -> str:
    """What is rung when a run comes to a session."""
    return f"session/{tenant}/{session_id}"
