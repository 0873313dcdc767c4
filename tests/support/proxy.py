"""A proxy that breaks connections where a test wants it, and serves a page of the test's own beside the server."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx


class CuttingProxy:
    """Forwards to a server, one request for each connection; those that follow events are reset after so many bytes.

    `cuts` are their numbers of bytes; when they are used up, nothing is cut any more. `GET /page` is the page,
    `POST /report` is what the page has to say.
    """

    def __init__(self, server: httpx.URL, cuts: list[int], page: str) -> None:
        self.cuts, self.connections = list(cuts), 0
        self.report: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.url = ""
        self._server, self._page = server, page

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client's."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1]
            if path == b"/page":
                await _answer(writer, b"text/html", self._page.encode())
            elif path == b"/report":
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                self.report.set_result(await reader.readexactly(int(length.split(b":")[1])))
                await _answer(writer, b"text/plain", b"")
            else:
                await self._forward(head, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _forward(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, sink = await asyncio.open_connection(self._server.host, self._server.port)
        follows = b"/events" in head.split(b"\r\n", 1)[0]
        self.connections += follows
        left = self.cuts.pop(0) if follows and self.cuts else None
        sink.write(re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head)[:-2] + b"Connection: close\r\n\r\n")
        sending = asyncio.create_task(_pipe(reader, sink))
        try:
            while chunk := await upstream.read(65536):
                if left is not None and len(chunk) >= left:
                    writer.write(chunk[:left])
                    await writer.drain()
                    await asyncio.sleep(0.05)  # the client may see what came before the cut
                    writer.transport.abort()
                    return
                left = None if left is None else left - len(chunk)
                writer.write(chunk)
                await writer.drain()
        finally:
            sending.cancel()
            sink.transport.abort()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()


async def _answer(writer: asyncio.StreamWriter, kind: bytes, body: bytes) -> None:
    writer.write(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (kind, len(body))
    )
    writer.write(body)
    await writer.drain()


@asynccontextmanager
async def cutting_proxy(server: httpx.URL, cuts: list[int], page: str = "") -> AsyncIterator[CuttingProxy]:
    """A proxy before the server; `cuts` are the bytes that each stream's connection carries before it breaks."""
    proxy = CuttingProxy(server, cuts, page)
    listening = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        listening.close()
