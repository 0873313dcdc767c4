"""Bytes over a real connection, as no HTTP library would send them."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from tests.support.server import Client

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Answer(NamedTuple):
    """The first answer on a connection; `status` is 0 when it was closed without one."""

    status: int
    head: bytes
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document that it must be."""
        assert b"application/problem+json" in self.head.lower(), self
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        return document


@asynccontextmanager
async def connected(client: Client) -> AsyncIterator[Streams]:
    """A connection to the server of a client."""
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def send(client: Client, pieces: bytes | Iterable[bytes], *, pause: float = 0, seconds: float = 30) -> Answer:
    """What the server answers to these bytes, until it closes or has answered; `pause` is slept after each piece."""
    async with connected(client) as (reader, writer), asyncio.timeout(seconds):
        sending = asyncio.create_task(_send(writer, [pieces] if isinstance(pieces, bytes) else pieces, pause))
        try:
            return await _answer(reader)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def _send(writer: asyncio.StreamWriter, pieces: Iterable[bytes], pause: float) -> None:
    with suppress(OSError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)


async def _answer(reader: asyncio.StreamReader) -> Answer:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        return Answer(int(head.split()[1]), head, await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return Answer(0, b"", b"")
