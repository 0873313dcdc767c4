"""Runs beside readers that take nothing: `ROUNDS=2 SECONDS=3 python -m benchmarks.pressure [sqlite|postgres]`."""

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager

from benchmarks import calls, table
from benchmarks.calls import Wrong
from benchmarks.command import run
from benchmarks.connection import Connection
from benchmarks.goals import DATABASES
from benchmarks.peers import ours
from benchmarks.samples import Samples
from benchmarks.servers import Server
from benchmarks.slices import SHORT_RUN, idle_streams
from tests.support import databases

STALLED_READERS = 50
IDLE_STREAMS = 2_000
LONG_EVENTS, LONG_SIZE = 10_000, 2_000
"""Twenty megabytes: fifty copies would be a gigabyte."""
GOAL = 1.2
SETTLING_SECONDS = 1.0

ALONE, STALLED, IDLE = "alone", "stalled", "idle"
TITLES = {
    ALONE: "alone",
    STALLED: f"beside {STALLED_READERS} readers of a long run that never read",
    IDLE: f"beside {IDLE_STREAMS:,} idle streams",
}


async def main(chosen: list[str]) -> int:
    """Measure on each database; the exit code is not by time."""
    rounds, seconds = int(os.environ.get("ROUNDS", "2")), float(os.environ.get("SECONDS", "3"))
    for database in [name for name in DATABASES if name in chosen] or DATABASES:
        if database == "postgres" and not databases.postgres_answers():
            print(f"NO POSTGRES at {databases.POSTGRES}: set MILLSTREAM_TEST_POSTGRES", flush=True)
            continue
        samples = await _measure(database, rounds=rounds, seconds=seconds)
        print(f"\n{table.heading(table.commit())} {rounds} rounds, slices of {seconds:g} s; medians.\n", flush=True)
        print("\n".join([*_table(database, samples), "", *table.notes(samples), ""]), flush=True)
    return 0


async def _measure(database: str, *, rounds: int, seconds: float) -> dict[str, Samples]:
    """Latencies and memory, under each pressure."""
    samples = {pressure: Samples() for pressure in TITLES}
    with ours(database, send_timeout_seconds=600).started() as server:
        await server.ready()
        await _runs(server, Samples(), seconds=1)
        for number in range(rounds):
            await _runs(server, samples[ALONE], seconds=seconds)
            async with _stalled_readers(server.port):
                await _runs(server, samples[STALLED], seconds=seconds)
            try:
                async with idle_streams(server.port, IDLE_STREAMS, on_disconnect="cancel"):
                    await _runs(server, samples[IDLE], seconds=seconds)
            except Wrong as wrong:
                samples[IDLE].errors[str(wrong)] += 1
            await asyncio.sleep(SETTLING_SECONDS)
            print(f"  {database}: {number + 1} of {rounds}", flush=True)
    return samples


async def _runs(server: Server, samples: Samples, *, seconds: float) -> None:
    """Short runs, one after the other."""
    await asyncio.sleep(SETTLING_SECONDS)
    taken: list[float] = []
    async with calls.connections(server.port, 1) as (connection,):
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            taken.append((await calls.run(connection, events=SHORT_RUN)).seconds * 1000)
    samples.add("complete", *taken)
    samples.add("complete_p99", *taken)
    samples.add("memory", server.resident_bytes() / 1e6)


@asynccontextmanager
async def _stalled_readers(port: int) -> AsyncIterator[None]:
    """Readers that ask for a run while it says much and fast, and take nothing of it."""
    connection = await Connection.open(port)
    answer = calls.start(connection, events=LONG_EVENTS, size=LONG_SIZE)
    await answer.marked
    run_id = answer.header("content-location").removeprefix("/runs/")
    request = f"GET /runs/{run_id}/events HTTP/1.1\r\nhost: x\r\naccept: {calls.STREAM}\r\n\r\n".encode()
    with ExitStack() as stack:
        for _ in range(STALLED_READERS):
            stack.enter_context(_stalled(port, request))
        await answer.ended  # the run itself is followed, and comes to its end
        yield
    connection.close()


def _stalled(port: int, request: bytes) -> socket.socket:
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", port))
    reader.sendall(request)
    return reader


def _table(database: str, samples: dict[str, Samples]) -> Iterator[str]:
    yield f"| {database} | run of 10 events, p50, ms | ratio | p99, ms | memory, MB | goal of the ratio | |"
    yield "|---|---:|---:|---:|---:|---:|---|"
    for pressure, found in samples.items():
        ratio = None if pressure == ALONE else found.ratio("complete", samples[ALONE])
        verdict = "" if ratio is None else "held" if ratio <= GOAL else "MISSED"
        figures = [table.number(found.value("complete")), table.times(ratio), table.number(found.value("complete_p99"))]
        figures += [table.number(found.value("memory")), "" if ratio is None else f"≤ {GOAL:g}x", verdict]
        yield f"| {TITLES[pressure]} | {' | '.join(figures)} |"


if __name__ == "__main__":
    run(main(sys.argv[1:]))
