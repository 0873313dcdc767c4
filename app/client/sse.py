"""Server-sent events out of bytes, however these are cut into chunks."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class SseMessage:
    """One event of a stream. `id` is the last one that the stream named, empty while it has named none."""

    id: str
    event: str
    data: str


class SseDecoder:
    """Reads a stream as the HTML standard says: lines end with LF, CRLF or CR and with nothing else.

    Lines are cut before they are decoded, so neither a character nor a CRLF can be split by a chunk's end. What follows
    the last empty line is an unfinished event and is never given out.
    """

    def __init__(self) -> None:
        self.retry_milliseconds: int | None = None
        """How long the server asks its clients to wait before they come back."""
        self._rest = bytearray()
        self._searched = 0
        self._after_carriage_return = False
        self._at_start = True
        self._id = ""
        self._event = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[SseMessage]:
        """The events that this chunk completes."""
        for line in self._lines(chunk):
            if line:
                self._field(line)
            elif (message := self._dispatch()) is not None:
                yield message

    def _lines(self, chunk: bytes) -> Iterator[str]:
        if self._after_carriage_return and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_carriage_return = False
        self._rest += chunk
        if self._at_start and not self._skip_mark():
            return
        start = 0
        for end in _LINE_END.finditer(self._rest, self._searched):
            line = bytes(self._rest[start : end.start()])
            start = end.end()
            # a CR at the very end is a line's end already; an LF that comes next belongs to it
            self._after_carriage_return = end[0] == b"\r" and start == len(self._rest)
            yield line.decode("utf-8", "replace")
        del self._rest[:start]
        self._searched = len(self._rest)

    def _skip_mark(self) -> bool:
        """Drop a byte order mark; false while there is too little to see whether there is one."""
        if len(self._rest) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(self._rest):
            return False
        self._at_start = False
        if self._rest.startswith(_BYTE_ORDER_MARK):
            del self._rest[: len(_BYTE_ORDER_MARK)]
        return True

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_milliseconds = int(value)

    def _dispatch(self) -> SseMessage | None:
        data, event = self._data, self._event or "message"
        self._data, self._event = [], ""
        return SseMessage(self._id, event, "\n".join(data)) if data else None
