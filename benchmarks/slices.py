"""One slice of each figure: a server that has the machine for itself and the client, for some seconds."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count

from benchmarks import calls
from benchmarks.calls import Run, Wrong
from benchmarks.connection import Answer, Connection
from benchmarks.samples import Samples
from benchmarks.servers import Server

SHORT_RUN, LONG_RUN, MANY_RUNS, RUN_OF_MANY = 10, 10_000, 32, 1_000
TAIL = 100
STATE_CLIENTS = 8
IDLE_STREAMS = 1_000
OPENING_AT_A_TIME = 64
IDLE_SECONDS = 3.0
SETTLING_SECONDS = 1.0
HOLD_SECONDS = 600.0
"""Longer than any slice: a run that waits."""
OPEN_SECONDS = 0.06
"""For each: twenty times the goal. What is not open by then is an error."""

Call = Callable[[Connection], Awaitable[object]]


class Slices:
    """The slices of one server; they leave their samples behind."""

    def __init__(self, server: Server, samples: Samples, *, seconds: float) -> None:
        self.server, self._samples, self._seconds = server, samples, seconds
        self._long_run: Run | None = None

    async def warm(self) -> None:
        """What a first request costs is no figure."""
        async with calls.connections(self.server.port, 1) as (connection,):
            for _ in range(20):
                await calls.run(connection, events=SHORT_RUN)

    async def latency(self) -> None:
        """Runs one after the other."""
        runs: list[Run] = []

        async def call(connection: Connection) -> None:
            runs.append(await calls.run(connection, events=SHORT_RUN))

        await self._repeat("latency", call, clients=1)
        for key, times in (
            ("first_event", [run.first_seconds for run in runs]),
            ("complete", [r.seconds for r in runs]),
        ):
            milliseconds = [seconds * 1000 for seconds in times]
            self._samples.add(key, *milliseconds)
            self._samples.add(f"{key}_p99", *milliseconds)

    async def throughput(self) -> None:
        """As many runs as there can be, of 16 clients and of 64."""
        for clients in (16, 64):
            cpu = self.server.cpu_seconds()
            number, seconds = await self._repeat(f"runs_{clients}", _short_run, clients=clients)
            self._samples.add(f"runs_{clients}", number / seconds)
            if clients == 16 and number:
                self._samples.add("cpu_runs", (self.server.cpu_seconds() - cpu) * 1000 / number)

    async def long(self) -> None:
        """One run of many events at a time."""
        cpu = self.server.cpu_seconds()
        number, seconds = await self._repeat("events_one", _long_run, clients=1)
        if number:
            self._samples.add("events_one", number * LONG_RUN / seconds)
            self._samples.add("cpu_events", (self.server.cpu_seconds() - cpu) * 100_000 / (number * LONG_RUN))

    async def many(self) -> None:
        """Many runs of some events at a time."""

        async def all_at_once() -> None:
            await asyncio.gather(*(calls.run(connection, events=RUN_OF_MANY) for connection in opened))

        async with calls.connections(self.server.port, MANY_RUNS) as opened:
            with self._client_cpu("events_many"):
                begun, number = time.perf_counter(), 0
                while (seconds := time.perf_counter() - begun) < self._seconds or not number:
                    await all_at_once()
                    number += 1
                seconds = time.perf_counter() - begun
        self._samples.add("events_many", number * MANY_RUNS * RUN_OF_MANY / seconds)

    async def replay(self) -> None:
        """A long log again, whole, and its end."""
        async with calls.connections(self.server.port, 1) as (connection,):
            if self._long_run is None:
                self._long_run = await calls.run(connection, events=LONG_RUN)
        run = self._long_run

        speeds: list[float] = []
        tails: list[float] = []

        async def whole(connection: Connection) -> None:
            speeds.append(LONG_RUN / await calls.replay(connection, run, events=LONG_RUN))

        async def tail(connection: Connection) -> None:
            tails.append(1000 * await calls.replay(connection, run, events=LONG_RUN, last=TAIL))

        await self._repeat("replay", whole, clients=1, seconds=self._seconds / 2)
        await self._repeat("tail", tail, clients=1, seconds=self._seconds / 2)
        self._samples.add("replay", *speeds)
        self._samples.add("tail", *tails)

    async def states(self) -> None:
        """A state is read, and changed, by several at a time; no change may be lost."""
        session_id, values = calls.new_session(), count(1)
        wanted: dict[str, int] = {}

        async def get(connection: Connection) -> None:
            await calls.get_state(connection, session_id)

        async def patch(connection: Connection) -> None:
            key, value = f"client-{id(connection)}", next(values)
            await calls.patch_state(connection, session_id, {key: value})
            wanted[key] = value

        async with calls.connections(self.server.port, 1) as (connection,):
            await calls.run(connection, events=1, session_id=session_id)
            for name, call in (("get_state", get), ("patch_state", patch)):
                number, seconds = await self._repeat(name, call, clients=STATE_CLIENTS, seconds=self._seconds / 2)
                self._samples.add(name, number / seconds)
            found = (await calls.get_state(connection, session_id)).json()
        lost = {key: value for key, value in wanted.items() if found.get(key) != value}
        if lost:
            raise Wrong(f"changes of a state were lost: {lost}")

    async def idle(self) -> None:
        """CPU without clients, and what streams cost on which nothing happens."""
        cpu = self.server.cpu_seconds()
        await asyncio.sleep(IDLE_SECONDS)
        self._samples.add("idle_cpu", (self.server.cpu_seconds() - cpu) * 100 / IDLE_SECONDS)
        before, begun = self.server.resident_bytes(), time.perf_counter()
        async with idle_streams(self.server.port, IDLE_STREAMS):
            self._samples.add("idle_open", time.perf_counter() - begun)
            await asyncio.sleep(SETTLING_SECONDS)
            self._samples.add("idle_memory", (self.server.resident_bytes() - before) / 1000 / IDLE_STREAMS)

    async def _repeat(self, name: str, call: Call, *, clients: int, seconds: float | None = None) -> tuple[int, float]:
        """The call again and again, by so many clients at a time; how often it went well, and in how many seconds."""
        done = 0
        async with calls.connections(self.server.port, clients) as opened:
            begun = time.perf_counter()
            end = begun + (self._seconds if seconds is None else seconds)

            async def client(connection: Connection) -> None:
                nonlocal done
                while time.perf_counter() < end:
                    try:
                        await call(connection)
                        done += 1
                    except Wrong as wrong:
                        self._samples.errors[str(wrong)] += 1

            with self._client_cpu(name):
                await asyncio.gather(*map(client, opened))
                seconds = time.perf_counter() - begun
        return done, seconds

    @contextmanager
    def _client_cpu(self, name: str) -> Iterator[None]:
        cpu, begun = time.process_time(), time.perf_counter()
        yield
        share = (time.process_time() - cpu) / (time.perf_counter() - begun)
        self._samples.client_cpu[name].append(100 * share)


@asynccontextmanager
async def idle_streams(port: int, number: int, *, on_disconnect: str | None = None) -> AsyncIterator[None]:
    """So many runs that have begun and wait, each with its reader, all open; raises Wrong when one does not open."""
    opened: list[Connection] = []
    begun = 0
    places = asyncio.Semaphore(OPENING_AT_A_TIME)

    async def open_one() -> None:
        nonlocal begun
        async with places:
            connection = await Connection.open(port)
            opened.append(connection)
            answer: Answer = calls.start(connection, events=2, hold_seconds=HOLD_SECONDS, on_disconnect=on_disconnect)
            await asyncio.wait({answer.marked, answer.ended}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.marked.done():
                raise Wrong(f"an idle stream was answered {answer.status}: {answer.body[:200]!r}")
            begun += 1

    try:
        try:
            async with asyncio.timeout(OPEN_SECONDS * number), asyncio.TaskGroup() as opening:
                for _ in range(number):
                    opening.create_task(open_one())
        except TimeoutError:
            raise Wrong(f"{begun} of {number} idle streams were open after {OPEN_SECONDS * number:g} s") from None
        yield
    finally:
        for connection in opened:
            connection.close()


async def _short_run(connection: Connection) -> None:
    await calls.run(connection, events=SHORT_RUN)


async def _long_run(connection: Connection) -> None:
    await calls.run(connection, events=LONG_RUN)
