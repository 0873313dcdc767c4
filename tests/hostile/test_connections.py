"""Connections: heads without end, requests without end, time without end, and too many at once."""

import asyncio
import resource
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack

import pytest

from app import RunResponse, Workflow
from app.api.connections import MAX_HEAD_BYTES, MAX_HEADERS, connections_that_fit
from tests.hostile.sockets import connected, send
from tests.hostile.watching import watched
from tests.support.processes import server_process
from tests.support.server import Client, running

GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /workflows/slow/runs HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
MEBIBYTE = 1024 * 1024


class Slow(Workflow):
    async def run(self, seconds: float = 0) -> AsyncIterator[RunResponse]:
        await asyncio.sleep(seconds)
        yield RunResponse(content="done")


async def works(client: Client) -> None:
    """The service goes on for everybody else."""
    assert (await client.get("/healthz")).status_code == 200
    assert (await client.finish("slow"))["status"] == "completed"


def headers_of(count: int, size: int = 20) -> bytes:
    return b"".join(b"X-%d: %s\r\n" % (number, b"a" * size) for number in range(count))


@pytest.mark.parametrize(
    "head",
    [
        GET + b"X-Large: " + b"a" * 10 * MEBIBYTE + b"\r\n\r\n",
        GET + b"X" * 10 * MEBIBYTE + b": a\r\n\r\n",
        GET + headers_of(100_000) + b"\r\n",
        GET + headers_of(MAX_HEADERS + 1) + b"\r\n",
        GET + headers_of(100, 1000) + b"\r\n",
        b"GET /" + b"a" * 10 * MEBIBYTE + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /runs?" + b"status=a&" * MEBIBYTE + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        GET + b"Cookie: " + b"a=b; " * 20_000 + b"\r\n\r\n",
        GET + b"X-Folded: a\r\n" + b" b\r\n" * MEBIBYTE + b"\r\n",
    ],
    ids=["value", "name", "many", "a few too many", "together", "path", "query", "cookie", "folded"],
)
async def test_a_head_has_a_size(sqlite_url: str, head: bytes) -> None:
    async with running(sqlite_url, Slow) as client:
        async with watched():
            answer = await send(client, head)
        assert answer.status in {0, 400, 431}
        if answer.status:
            assert answer.problem["code"] == ("malformed_request" if answer.status == 400 else "head_too_large")
            assert b"connection: close" in answer.head
        await works(client)


async def test_what_is_not_too_much_passes(sqlite_url: str) -> None:
    async with running(sqlite_url, Slow) as client:
        large = await send(client, GET + b"X-Large: " + b"a" * (MAX_HEAD_BYTES - 200) + b"\r\n\r\n")
        many = await send(client, GET + headers_of(MAX_HEADERS - 1) + b"\r\n")
        assert (large.status, many.status) == (200, 200)
        slowly = await send(client, [bytes([byte]) for byte in GET + b"\r\n"], pause=0.001)
        assert slowly.status == 200
        body = b'{"input":{}}'
        pieces = [POST + b"Content-Length: %d\r\n\r\n" % len(body), *(bytes([byte]) for byte in body)]
        assert (await send(client, pieces, pause=0.001)).status == 202
        later = POST + b"Expect: 100-continue\r\nContent-Length: 12\r\n\r\n"
        assert (await send(client, [later, body], pause=0.05)).status in {100, 202}


@pytest.mark.parametrize(
    "bytes_",
    [
        b"\x00" * 1000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 500,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /%ff%fe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /runs/%00%0d%0aX:%20y HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n" * 5000 + b"nonsense\r\n\r\n",
        GET + b"X: a\x00b\r\n\r\n",
        GET + b"Bad Name: a\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        POST + b"Transfer-Encoding: gzip\r\n\r\n\x1f\x8b",
    ],
    ids=lambda sent: repr(sent[:40] + sent[-20:]),
)
async def test_what_is_no_request_is_refused(sqlite_url: str, bytes_: bytes) -> None:
    async with running(sqlite_url, Slow, request_seconds=1) as client:
        answer = await send(client, bytes_)
        assert answer.status == 0 or 400 <= answer.status < 500, answer
        if answer.status:
            assert answer.problem["code"]
        await works(client)


async def test_an_upgrade_to_what_is_not_here_is_an_ordinary_request(sqlite_url: str) -> None:
    async with running(sqlite_url, Slow) as client:
        upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a\r\n"
        assert (await send(client, GET + upgrade + b"\r\n")).status == 200
        assert (await send(client, b"GET /runs/a/events HTTP/1.1\r\nHost: a\r\n" + upgrade + b"\r\n")).status == 404
        await works(client)


def drip(*pieces: bytes, then: bytes) -> Iterator[bytes]:
    yield from pieces
    while True:
        yield then


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        (drip(then=b""), 0),
        (drip(b"G", then=b""), 408),
        (drip(b"GET /healthz HTTP/1.1\r\n", then=b"X-A: b\r\n"), 408),
        (drip(b"GET /", then=b"a"), 408),
        (drip(POST + b"Content-Length: 100000\r\n\r\n", then=b" "), 408),
        (drip(POST + b"Content-Length: 100000\r\n\r\n", then=b""), 408),
        (drip(POST + b"Transfer-Encoding: chunked\r\n\r\n", then=b"1\r\n \r\n"), 408),
        (drip(POST + b"Transfer-Encoding: chunked\r\n\r\n1;", then=b"a"), 408),
        (drip(POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", then=b"X: y\r\n"), 408),
    ],
    ids=["nothing", "one byte", "headers", "path", "body", "no body", "chunks", "extension", "trailers"],
)
async def test_a_request_has_its_time(
    sqlite_url: str, pieces: Iterable[bytes], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(sqlite_url, Slow, request_seconds=0.5) as client:
        answer = await send(client, pieces, pause=0.05, seconds=10)
        assert answer.status == status
        if status:
            assert answer.problem["code"] == "request_timeout"
        await works(client)
        assert len((await client.get("/runs")).json()["items"]) == 1, "what was not sent whole starts nothing"
    assert "request_failed" not in caplog.text


async def test_a_slow_request_after_a_quick_one_has_its_time_too(sqlite_url: str) -> None:
    async with running(sqlite_url, Slow, request_seconds=0.5) as client, connected(client) as (reader, writer):
        writer.write(GET + b"\r\n")
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"GET /healthz HTTP/1.1\r\n")
        async with asyncio.timeout(10):
            assert b"408" in await reader.read()


async def test_an_answer_has_all_the_time_there_is(sqlite_url: str) -> None:
    async with running(sqlite_url, Slow, request_seconds=0.3) as client:
        body = {"input": {"seconds": 1.2}}
        waited = await client.post("/workflows/slow/runs", json=body, headers={"Prefer": "wait=10"})
        assert (waited.status_code, waited.json()["status"]) == (200, "completed")
        streamed = await client.post("/workflows/slow/runs", json=body, headers={"Accept": "text/event-stream"})
        assert "event: RunFinished" in streamed.text


async def test_a_body_without_end_is_not_kept(sqlite_url: str) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    trailers = b"X-%d: " % 1 + b"a" * 60_000 + b"\r\n"
    async with running(sqlite_url, Slow) as client:
        before = peak_kibibytes()
        for start, more in [
            (b"Transfer-Encoding: chunked\r\n\r\n", chunk),
            (b"Transfer-Encoding: chunked\r\n\r\n0\r\n", trailers),
            (b"Content-Length: 1000000000\r\n\r\n", b" " * 60_000),
            (b"Content-Length: 1000\r\n\r\n", b" " * 60_000),
        ]:
            pieces = (POST + start if number == 0 else more for number in range(4000))
            answer = await send(client, pieces)
            assert answer.status in {0, 400, 413}
        assert peak_kibibytes() - before < 64 * 1024, "of some 900 MiB"
        await works(client)


def peak_kibibytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def test_a_pipeline_is_not_kept_either(sqlite_url: str) -> None:
    async with running(sqlite_url, Slow) as client:
        before = peak_kibibytes()
        wait = b'{"input":{"seconds":1}}'
        first = POST + b"Prefer: wait=5\r\nContent-Length: %d\r\n\r\n" % len(wait) + wait
        pieces = (first if number == 0 else (GET + b"\r\n") * 2000 for number in range(1000))
        assert (await send(client, pieces)).status == 200
        assert peak_kibibytes() - before < 64 * 1024
        await works(client)


async def test_connections_have_a_number(sqlite_url: str) -> None:
    async with running(sqlite_url, Slow, max_connections=20) as client:
        await works(client)  # one connection, which the client keeps
        async with AsyncExitStack() as stack:
            for _ in range(19):
                await stack.enter_async_context(connected(client))
            refused = await send(client, GET + b"\r\n")
            assert (refused.status, refused.problem["code"]) == (503, "too_many_connections")
            assert b"retry-after" in refused.head
            silent = await send(client, b"", seconds=5)
            assert silent.status == 0, "and it does not stay"
            await works(client)
            figures = (await client.get("/metrics")).text
            assert 'millstream_requests_refused_total{code="too_many_connections"} 1.0' in figures
        assert (await send(client, GET + b"\r\n")).status == 200


async def test_a_flood_of_slow_connections_keeps_nobody_out(sqlite_url: str) -> None:
    async with (
        server_process(sqlite_url, Slow, max_connections=300, request_seconds=1) as server,
        AsyncExitStack() as stack,
    ):
        for number in range(400):
            _, writer = await stack.enter_async_context(connected(server.client))
            writer.write((b"", b"GET / HT", POST + b"Content-Length: 5\r\n\r\n{")[number % 3])

        async def answered() -> None:
            while True:
                answer = await send(server.client, GET + b"\r\n")
                if answer.status == 200:
                    return
                await asyncio.sleep(0.1)

        await asyncio.wait_for(answered(), 20)
        await works(server.client)


def test_connections_leave_room_for_other_files() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, before[1]), before[1]))
        fitting = connections_that_fit(500)
        assert fitting == 500
        assert connections_that_fit(10**9) < resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 50
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
