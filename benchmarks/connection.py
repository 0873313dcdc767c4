"""HTTP/1.1 over one connection, as cheap as Python can: the client's CPU is taken from the server's."""

import asyncio
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import orjson

ANSWER_SECONDS = 120.0
"""No answer of a figure takes longer; whatever does is an error."""

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_BODY_OF_NONE = {204, 304}


class Answer:
    """An answer: of a stream, it grows until `ended`."""

    def __init__(self, mark: bytes | None) -> None:
        self.status = 0
        self.head = b""
        self.parts: list[bytes] = []
        self.marked = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        """With the moment, on the clock of `time.perf_counter`."""
        self._mark = mark

    @property
    def body(self) -> bytes:
        """What has come of it."""
        return b"".join(self.parts)

    def json(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.body)

    def header(self, name: str) -> str:
        """A header's value; empty where there is none."""
        found = re.search(rb"\r\n%b: *([^\r]*)" % name.encode(), self.head, re.IGNORECASE)
        return found[1].decode() if found else ""

    def add(self, part: bytes) -> None:
        """More of the body; looks for the mark until it was there."""
        self.parts.append(part)
        if self._mark is not None and self._mark in (part if len(self.parts) == 1 else self.body):
            self._mark = None
            self.marked.set_result(time.perf_counter())

    def fail(self, error: BaseException) -> None:
        """There will be no more of it."""
        if not self.ended.done():
            self.ended.set_exception(error)
            self.ended.exception()  # some answers nobody waits for


class Connection(asyncio.Protocol):
    """One connection that is kept open; one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._answer: Answer | None = None
        self._read: Callable[[], bool] = self._read_head
        self._length = 0

    @classmethod
    async def open(cls, port: int) -> "Connection":
        """Connect to a server of this machine."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return connection

    def send(self, method: str, path: str, body: Any = None, *, mark: bytes | None = None, **headers: str) -> Answer:
        """Ask, without waiting. `mark` is what the answer's `marked` waits for."""
        assert self._transport is not None
        content = b"" if body is None else orjson.dumps(body)
        lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(content)}"]
        lines += [] if body is None else ["content-type: application/json"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        answer = self.expect(mark=mark)
        self._transport.write("\r\n".join([*lines, "", ""]).encode() + content)
        return answer

    def expect(self, *, mark: bytes | None) -> Answer:
        """What comes next is this answer."""
        assert self._answer is None, "one request at a time"
        self._answer = Answer(mark)
        self._read = self._read_head
        return self._answer

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Ask, and wait for the whole answer."""
        answer = self.send(method, path, body, mark=None, **headers)
        async with asyncio.timeout(ANSWER_SECONDS):
            await answer.ended
        return answer

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not derive from it

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._buffer += data
        while self._answer is not None and self._read():
            pass

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        if self._answer is not None:
            self._answer.fail(exc or ConnectionError("the server hung up in the middle of an answer"))

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        answer = self._current()
        answer.head = bytes(self._buffer[: end + 2])
        answer.status = int(answer.head[9:12])
        del self._buffer[: end + 4]
        if _CHUNKED.search(answer.head):
            self._read = self._read_chunks
        else:
            found = _LENGTH.search(answer.head)
            self._length = 0 if found is None or answer.status in _BODY_OF_NONE else int(found[1])
            self._read = self._read_body
        return True

    def _read_body(self) -> bool:
        if len(self._buffer) < self._length:
            return False
        self._current().add(bytes(self._buffer[: self._length]))
        del self._buffer[: self._length]
        return self._end()

    def _read_chunks(self) -> bool:
        """All whole chunks that are there; the one of no length is the last."""
        buffer, at = self._buffer, 0
        while (end := buffer.find(b"\r\n", at)) >= 0:
            size = int(buffer[at:end], 16)
            following = end + 2 + size + 2
            if len(buffer) < following:
                break
            at = following
            if size == 0:
                del buffer[:at]
                return self._end()
            self._current().add(bytes(buffer[end + 2 : end + 2 + size]))
        del buffer[:at]
        return False

    def _end(self) -> bool:
        answer, self._answer = self._current(), None
        with suppress(asyncio.InvalidStateError):  # who asked may have given up
            answer.ended.set_result(time.perf_counter())
        return False

    def _current(self) -> Answer:
        assert self._answer is not None
        return self._answer
