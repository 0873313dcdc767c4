"""Server-sent events over HTTP: the only module that knows sse-starlette.

What the library does: pings, dropping a reader that takes nothing, closing the generator of a
client that left. What it gets from us: bytes of whole frames, joined as they are ready together.
"""

import logging
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import anyio
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from app.errors import Gone, TooMany, Unavailable
from app.metrics import Metrics
from app.operations.caller import Caller
from app.wire.frames import comment, retry

logger = logging.getLogger(__name__)

RETRY_MILLISECONDS = (500, 2000)
"""A client that was cut off waits for a time between these, so that a restart does not bring all back at once."""
OWN_STREAMS_SECONDS = 5
"""When a caller with too many streams may come again; nobody knows when it closes one."""
FAREWELL_SECONDS = 2.0
"""How long an open stream may take to end by itself at shutdown, before it is cut."""


class Streams:
    """The event streams that this process has open, up to a number."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        max_streams: int,
        ping_seconds: float,
        send_timeout_seconds: float,
        max_per_key: int | None = None,
        max_per_tenant: int | None = None,
    ) -> None:
        self._metrics = metrics
        self._own = _OwnStreams(max_per_key, max_per_tenant)
        self._max_streams = max_streams
        self._ping_seconds = ping_seconds
        self._send_timeout_seconds = send_timeout_seconds
        self.open = 0
        self._sending: dict[object, float] = {}
        """Since when each stream's reader has been taking what it was sent last."""
        metrics.stream_lag_seconds.set_function(self._lag_seconds)
        self._endings: dict[Caller, set[anyio.CancelScope]] = {}

    def require_place(self, caller: Caller) -> None:
        """Raises Unavailable when too many are open, TooMany when the caller or its tenant has too many of them."""
        self._own.require_place(caller)
        if self.open >= self._max_streams:
            raise Unavailable(
                f"{self._max_streams} streams are open, which is the limit (MILLSTREAM_MAX_STREAMS)",
                code="too_many_streams",
                retry_after_seconds=5,
            )

    def response(
        self, frames: AsyncGenerator[bytes, None], headers: dict[str, str] | None = None, *, caller: Caller
    ) -> EventSourceResponse:
        """Answer a caller with a stream; raises Unavailable or TooMany when too many are open."""
        self.require_place(caller)
        ending = anyio.CancelScope()
        return _Stream(
            self._own.counted(self._counted(frames, caller, ending), caller),
            ending=ending,
            on_drop=self._metrics.readers_dropped.inc,
            headers=headers,
            sep="\n",
            ping=self._ping_seconds,
            ping_message_factory=_ping,
            send_timeout=self._send_timeout_seconds,
            shutdown_event=anyio.Event(),
            shutdown_grace_period=FAREWELL_SECONDS,
        )

    def callers(self) -> list[Caller]:
        """Who reads."""
        return list(self._endings)

    def dismiss(self, caller: Caller) -> None:
        """End the streams of a caller who is known no longer."""
        for ending in self._endings.get(caller, ()):
            ending.cancel()

    async def _counted(
        self, frames: AsyncGenerator[bytes, None], caller: Caller, ending: anyio.CancelScope
    ) -> AsyncGenerator[bytes, None]:
        """The frames, opened by the retry field. A place is taken here: a client gone before never gets this far."""
        self.open += 1
        self._metrics.streams_open.inc()
        sending, stream = self._sending, object()
        endings = self._endings.setdefault(caller, set())
        endings.add(ending)
        opening = retry(random.randint(*RETRY_MILLISECONDS))
        try:
            async with aclosing(frames):
                async for chunk in frames:
                    sending[stream] = time.monotonic()
                    yield opening + chunk
                    del sending[stream]
                    opening = b""
        except Gone as error:  # a client that comes back for the rest is told the same by a 410
            logger.info("stream_ended", extra={"reason": error.message})
            yield opening + comment(error.message)
        except Unavailable as error:
            # The headers are gone: a clean end, after which the client comes back, says "not now" best.
            logger.warning("stream_ended", extra={"reason": error.message})
        finally:
            self.open -= 1
            self._metrics.streams_open.dec()
            sending.pop(stream, None)
            endings.discard(ending)
            if not endings and self._endings.get(caller) is endings:
                del self._endings[caller]

    def _lag_seconds(self) -> float:
        """How long the slowest reader has been taking what it was sent."""
        return time.monotonic() - min(self._sending.values()) if self._sending else 0.0


class _OwnStreams:
    """How many streams each account and each tenant has open here, up to numbers."""

    def __init__(self, max_per_key: int | None, max_per_tenant: int | None) -> None:
        self._max_per_key, self._max_per_tenant = max_per_key, max_per_tenant
        self._open: Counter[tuple[str, ...]] = Counter()

    def require_place(self, caller: Caller) -> None:
        """Raises TooMany when the caller, or its tenant, has too many open."""
        if self._max_per_key is not None and self._open[caller.tenant, caller.account] >= self._max_per_key:
            raise TooMany(
                f"you have {self._max_per_key} streams open here, which is the limit (MILLSTREAM_MAX_STREAMS_PER_KEY);"
                " close one, or follow many runs over one connection by GET /events",
                code="too_many_streams_of_key",
                retry_after_seconds=OWN_STREAMS_SECONDS,
            )
        if self._max_per_tenant is not None and self._open[caller.tenant,] >= self._max_per_tenant:
            raise TooMany(
                f"your tenant has {self._max_per_tenant} streams open here, which is the limit"
                " (MILLSTREAM_MAX_STREAMS_PER_TENANT); close one, or follow many runs over one connection",
                code="too_many_streams_of_tenant",
                retry_after_seconds=OWN_STREAMS_SECONDS,
            )

    def counted(self, chunks: AsyncGenerator[bytes, None], caller: Caller) -> AsyncGenerator[bytes, None]:
        """The chunks of a stream, which is counted while it is read."""
        if self._max_per_key is None and self._max_per_tenant is None:
            return chunks
        return self._held(chunks, caller)

    async def _held(self, chunks: AsyncGenerator[bytes, None], caller: Caller) -> AsyncGenerator[bytes, None]:
        async with aclosing(chunks):
            try:
                self.require_place(caller)
            except TooMany as error:  # several came at once: the headers are gone, and a clean end says it best
                yield retry(OWN_STREAMS_SECONDS * 1000) + comment(error.message)
                return
            accounts = ((caller.tenant,), (caller.tenant, caller.account))
            self._open.update(accounts)
            try:
                async for chunk in chunks:
                    yield chunk
            finally:
                self._open.subtract(accounts)
                self._open = +self._open


class _Stream(EventSourceResponse):
    """A reader that takes nothing is dropped without an error: it is its own doing, and it may come back.

    One that is sent away by `ending` gets a clean end.
    """

    def __init__(
        self,
        frames: AsyncIterator[bytes],
        *,
        ending: anyio.CancelScope,
        on_drop: Callable[[], None],
        **options: Any,
    ) -> None:
        super().__init__(frames, **options)
        self._ending, self._on_drop = ending, on_drop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._ending:
            try:
                await super().__call__(scope, receive, send)
            except SendTimeoutError:
                self._on_drop()
                return
        if self._ending.cancelled_caught:
            with anyio.move_on_after(FAREWELL_SECONDS):
                await send({"type": "http.response.body", "body": b"", "more_body": False})


def _ping() -> ServerSentEvent:
    return ServerSentEvent(comment="ping", sep="\n")
