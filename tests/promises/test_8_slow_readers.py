"""Promise 8: a client that reads slowly, stops reading or vanishes costs bounded memory and never slows a run."""

import asyncio
import resource
import socket
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

from app import RunResponse, Workflow
from app.engine.live import LiveLog
from tests.support.processes import server_process
from tests.support.server import read_sse, running
from tests.support.waiting import until

READERS = 50
EVENTS, SIZE = 2000, 10_000
"""Twenty megabytes of events: fifty copies in memory would be a gigabyte."""


class Firehose(Workflow):
    async def run(self, events: int = EVENTS) -> AsyncIterator[RunResponse]:
        text = "x" * SIZE
        for number in range(events):
            yield RunResponse(content=text, extra_data=number)
            if number % 20 == 0:
                await asyncio.sleep(0)


class Patient(Workflow):
    go: asyncio.Event

    async def run(self) -> AsyncIterator[RunResponse]:
        yield RunResponse(content="before")
        await asyncio.sleep(600)


def memory_of(pid: int) -> int:
    """Resident bytes of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def stalled(port: int, request: bytes) -> socket.socket:
    """A connection that asks, and then reads nothing."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    connection.sendall(request)
    return connection


def get_events(run_id: str) -> bytes:
    return f"GET /runs/{run_id}/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n".encode()


async def test_readers_that_never_read_cost_little_and_slow_nobody(database_url: str) -> None:
    async with server_process(database_url, Firehose, send_timeout_seconds=60) as server:
        client, port = server.client, server.client.base_url.port or 0
        begun = time.monotonic()
        await client.finish("firehose")
        alone, before = time.monotonic() - begun, memory_of(server.pid)
        with ExitStack() as connections:
            begun = time.monotonic()
            run = await client.start("firehose")
            for _ in range(READERS):
                connections.enter_context(stalled(port, get_events(run["run_id"])))
            reading = asyncio.create_task(client.events(run["run_id"]))
            assert (await client.ended(run["run_id"], seconds=60))["status"] == "completed"
            watched = time.monotonic() - begun
            events = await reading  # and one that reads gets everything, past those that do not
            assert [int(event.id or 0) for event in events] == list(range(1, EVENTS + 3))
            grown = memory_of(server.pid) - before
            assert grown < 250_000_000, f"{grown / 1e6:.0f} MB for {READERS} readers that read nothing"
            assert watched < 10 * alone + 5, f"{watched:.1f} s instead of {alone:.1f} s"
            assert (await client.get("/healthz")).status_code == 200


async def test_a_reader_that_takes_nothing_is_dropped_in_the_end(sqlite_url: str) -> None:
    async with running(sqlite_url, Firehose, send_timeout_seconds=0.3) as client:
        run = await client.finish("firehose")

        async def open_streams() -> float:
            metrics = (await client.get("/metrics")).text
            return float(metrics.split("\nmillstream_streams_open ")[1].split("\n")[0])

        async def all_open() -> bool:
            return await open_streams() == 10

        async def none_open() -> bool:
            return await open_streams() == 0

        with ExitStack() as connections:
            for _ in range(10):
                connections.enter_context(stalled(client.base_url.port or 0, get_events(run["run_id"])))
            await until(all_open)
            await until(none_open)


async def test_readers_that_vanish_leave_nothing_behind(sqlite_url: str) -> None:
    async with running(sqlite_url, Patient) as client:
        run = await client.start("patient")

        async def open_streams(count: int) -> bool:
            return f"\nmillstream_streams_open {count}.0" in (await client.get("/metrics")).text

        with ExitStack() as connections:
            for _ in range(READERS):
                connections.enter_context(stalled(client.base_url.port or 0, get_events(run["run_id"])))
            await until(lambda: open_streams(READERS))
        await until(lambda: open_streams(0))
        assert (await client.get(f"/runs/{run['run_id']}")).json()["status"] == "running"


async def test_a_slow_reader_gets_everything(database_url: str) -> None:
    async with running(database_url, Firehose) as client:
        run = await client.start("firehose", events=400)
        seen = []
        async with client.stream("GET", f"/runs/{run['run_id']}/events") as stream:
            async for event in read_sse(stream):
                seen.append(int(event.id or 0))
                if len(seen) % 20 == 0:
                    await asyncio.sleep(0.005)
        assert seen == list(range(1, 403))


def test_what_a_run_keeps_for_its_readers_is_bounded() -> None:
    log, text = LiveLog(), b"x" * SIZE
    log.readers = 1
    for number in range(1, EVENTS + 1):
        log.publish(number, [("RunResponse", text)])
    first = next(cursor for cursor in range(EVENTS) if log.after(cursor, limit=EVENTS) is not None)
    cursor, kept = first, 0
    while frames := log.after(cursor, limit=EVENTS):
        cursor, kept = cursor + len(frames), kept + sum(map(len, frames))
    assert cursor == EVENTS
    assert 0 < kept < 2_000_000
