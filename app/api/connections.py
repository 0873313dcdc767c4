"""Connections that cannot cost more than they may: bounded heads, bounded requests, bounded time, a bounded number.

Uvicorn bounds how long a connection is idle between two requests. What it leaves open is bounded here: the size of
a request's head, what follows it, and how long a request may take to arrive. A request that arrives in one piece, as
nearly all do, costs a few comparisons.
"""

import asyncio
import resource
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.api.problems import MEDIA_TYPE
from app.workflow.encoding import encode

MAX_HEAD_BYTES = 64 * 1024
"""Request line and headers; proxies allow 8 to 32 KiB."""
MAX_HEADERS = 200
DISCARDED_BYTES = 16 * 1024 * 1024
"""Of a body that has been refused, so much is read and thrown away: a client that still sends gets its answer."""
SURPLUS_SECONDS = 1.0
"""How long a connection beyond the limit has to send the request that is refused."""
RESERVED_FILES = 100
"""Open files that are not for connections: the database, its pool, the log, what authors open."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What the connections of a process may cost."""

    max_connections: int
    max_body_bytes: int
    request_seconds: float
    """How long a request may take to arrive, from its first byte or from the connection on."""
    refused: Callable[[str], object]
    """Told the code of each refusal."""

    def protocol(self) -> "type[Connection]":
        """The class of connections within these limits, as Uvicorn wants it."""
        return type("LimitedConnection", (Connection,), {"limits": self})


class _Refusal(NamedTuple):
    status: HTTPStatus
    code: str
    detail: str


MALFORMED = _Refusal(HTTPStatus.BAD_REQUEST, "malformed_request", "this is no HTTP request that can be read")
LATE = _Refusal(HTTPStatus.REQUEST_TIMEOUT, "request_timeout", "the request took too long to arrive")
LARGE_HEAD = _Refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "head_too_large",
    f"address and headers are larger than {MAX_HEAD_BYTES} bytes, or there are more than {MAX_HEADERS} headers",
)
CROWDED = _Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE, "too_many_connections", "too many connections are open (MILLSTREAM_MAX_CONNECTIONS)"
)


class Connection(HttpToolsProtocol):
    """One connection."""

    limits: ConnectionLimits
    _deadline: asyncio.TimerHandle | None = None
    _refusal = MALFORMED
    _in_head = True
    _arriving = True
    """Whether a request has begun, or the connection has, and has not been read to its end."""
    _received = 0
    """Bytes of the request that is arriving."""
    _surplus = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come; it has its time to say what it wants."""
        super().connection_made(transport)
        self._surplus = len(self.connections) > self.limits.max_connections
        self._await(SURPLUS_SECONDS if self._surplus else self.limits.request_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has left."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """More of a request."""
        self._received += len(data)
        super().data_received(data)
        if not self._arriving:
            self._stop_waiting()
        elif self._received > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._check_size()
        if self._arriving and self._deadline is None:
            self._await(self.limits.request_seconds)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head = self._arriving = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its head is whole; what is raised here is answered by `send_400_response`."""
        self._in_head = False
        if self._surplus:
            self._refuse(CROWDED)
        if len(self.headers) > MAX_HEADERS or (self._received > MAX_HEAD_BYTES and self._head_bytes() > MAX_HEAD_BYTES):
            self._refuse(LARGE_HEAD)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """It has been read to its end."""
        self._arriving = False
        self._received = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  Uvicorn's own words
        """Refuse what has arrived, and close; amid another answer there is nothing left to say."""
        self._stop_waiting()
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(_answer(self._refusal))
        self.limits.refused(self._refusal.code)
        self.transport.close()

    def _check_size(self) -> None:
        """A head without end, or a body past all that may be read of it."""
        if self._in_head:
            self._refusal = LARGE_HEAD
            self.send_400_response("")
        elif self._received > self._may_receive():
            self.transport.close()  # it has been answered, and does not listen

    def _may_receive(self) -> int:
        """Bytes of a request; the pieces of a chunked one come with sizes and trailers of their own."""
        chunked = any(name == b"transfer-encoding" for name, _ in self.headers)
        return MAX_HEAD_BYTES + self.limits.max_body_bytes + (MAX_HEAD_BYTES if chunked else DISCARDED_BYTES)

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _refuse(self, refusal: _Refusal) -> None:
        self._refusal = refusal
        raise ValueError(refusal.code)  # the parser stops, and Uvicorn answers

    def _await(self, seconds: float) -> None:
        self._deadline = self.loop.call_later(seconds, self._late)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._refusal = LATE
        if self._received:
            self.send_400_response("")
        else:
            self.transport.close()  # it never asked for anything


def connections_that_fit(wanted: int) -> int:
    """How many connections this process may have, once it may open as many files as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard and (hard == resource.RLIM_INFINITY or soft < wanted + RESERVED_FILES):
        needed = wanted + RESERVED_FILES
        soft = max(soft, needed if hard == resource.RLIM_INFINITY else min(hard, needed))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - RESERVED_FILES))


def _answer(refusal: _Refusal) -> bytes:
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": refusal.status.phrase,
        "status": int(refusal.status),
        "detail": refusal.detail,
        "code": refusal.code,
    }
    body = encode(document)
    retry = b"retry-after: 1\r\n" if refusal is CROWDED else b""
    head = f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n".encode()
    return STATUS_LINE[refusal.status] + head + retry + b"\r\n" + body
