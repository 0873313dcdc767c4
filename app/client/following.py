"""Following one run: every event once, in order, across as many connections as it takes."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx

from app.client.answers import problem_of
from app.client.errors import ClientError, ServerProblem, ServerUnreachable
from app.client.sse import SseDecoder, SseMessage
from app.wire.events import Event

SILENCE_SECONDS = 45.0
"""The server says something every 15 s at the latest; three of them missed is a dead connection."""
CONNECT_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 10.0
DEFAULT_PAUSE_SECONDS = 1.0
MAX_GAPS = 3
"""Connections in a row that skip an event before we say that the stream is broken."""

LAST_EVENT = "RunFinished"
EVENT_STREAM = "text/event-stream"
PASSING_STATUSES = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class ReceivedEvent:
    """One event as it came: its number, its name, and its payload, which is one line of JSON."""

    sequence: int
    name: str
    payload: str

    @cached_property
    def members(self) -> dict[str, Any]:
        """The payload's members."""
        members: dict[str, Any] = json.loads(self.payload)
        return members

    def model(self) -> Event:
        """The payload as a model of the wire."""
        return Event.model_validate(self.members)


class Follower:
    """One reader of one run. After a loss it comes back with the number of the last event that it gave out."""

    def __init__(
        self,
        http: httpx.Client,
        run_id: str,
        *,
        after: int,
        patience_seconds: float,
        on_loss: Callable[[str], None] | None,
    ) -> None:
        self._http = http
        self._url = str(http.base_url).rstrip("/")
        self._path = f"/runs/{run_id}/events"
        self._patience_seconds = patience_seconds
        self._on_loss = on_loss
        self._cursor = after
        self._ended = False
        self._contacted = False
        self._lost_at: float | None = None
        """Since when there is no connection; None while something is heard."""
        self._losses = 0
        self._gaps = 0
        self._pause_seconds = DEFAULT_PAUSE_SECONDS

    def events(self) -> Iterator[ReceivedEvent]:
        """The events past the cursor, to the run's last one."""
        while True:
            reason, pause = "the server has closed the stream", None
            try:
                yield from self._connection()
            except httpx.RequestError as error:
                reason = str(error) or type(error).__name__
            except _Gap as error:
                reason = str(error)
            except ServerProblem as error:
                if error.status not in PASSING_STATUSES:
                    raise
                reason, pause, self._contacted = error.detail, error.retry_after_seconds, True
            if self._ended:
                return
            self._wait(reason, pause)

    def _connection(self) -> Iterator[ReceivedEvent]:
        headers = {"Accept": EVENT_STREAM, "Cache-Control": "no-store", "Last-Event-ID": str(self._cursor)}
        timeout = httpx.Timeout(CONNECT_SECONDS, read=SILENCE_SECONDS)
        with self._http.stream("GET", self._path, headers=headers, timeout=timeout) as answer:
            if answer.status_code == httpx.codes.NO_CONTENT:
                self._ended = True
                return
            if answer.status_code != httpx.codes.OK or not answer.headers["Content-Type"].startswith(EVENT_STREAM):
                answer.read()
                raise problem_of(answer)
            self._contacted = True
            yield from self._read(answer)

    def _read(self, answer: httpx.Response) -> Iterator[ReceivedEvent]:
        decoder = SseDecoder()
        for chunk in answer.iter_bytes():
            self._lost_at = None
            for message in decoder.feed(chunk):
                if (event := self._accept(message)) is not None:
                    yield event
            if decoder.retry_milliseconds is not None:
                self._pause_seconds = decoder.retry_milliseconds / 1000
            if self._ended:
                return

    def _accept(self, message: SseMessage) -> ReceivedEvent | None:
        """The event if it is the next one, nothing if it was seen before; raises _Gap when one is missing."""
        if not (message.id.isascii() and message.id.isdigit()):
            return None
        sequence = int(message.id)
        if sequence <= self._cursor:
            return None
        if sequence != self._cursor + 1:
            self._gaps += 1
            raise _Gap(f"the stream goes from event {self._cursor} to {sequence}")
        self._cursor, self._losses, self._gaps = sequence, 0, 0
        self._ended = message.event == LAST_EVENT
        return ReceivedEvent(sequence, message.event, message.data)

    def _wait(self, reason: str, pause: float | None) -> None:
        """Wait before the next connection; raises ClientError when it is no use."""
        if not self._contacted:
            raise ServerUnreachable(self._url, reason, contacted=False)
        if self._gaps >= MAX_GAPS:
            raise ClientError(f"{reason}, again and again; something between here and {self._url} loses events")
        if pause is None:
            pause = min(self._pause_seconds * 2 ** min(self._losses, 8), LONGEST_PAUSE_SECONDS)
        now = time.monotonic()
        self._lost_at = now if self._lost_at is None else self._lost_at
        if now + pause - self._lost_at > self._patience_seconds:
            raise ServerUnreachable(self._url, reason, contacted=True)
        self._losses += 1
        if self._on_loss is not None:
            self._on_loss(reason)
        time.sleep(pause)


class _Gap(Exception):
    """The stream has skipped an event."""
