"""A run with a long log goes on in bounded memory, and the server answers while the log is read."""

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any, ClassVar

import pytest

from app import RunResponse, Workflow, clock
from app.engine.history import KEPT_RESULT_BYTES
from app.store.events import NewEvent, append_events
from app.store.opening import open_database
from app.wire.events import Envelope, server_event
from app.workflow.response import ServerEvent, encode_response
from tests.engine.crashes import CrashPoint, recovered
from tests.support.following import logged
from tests.support.server import Client, running
from tests.support.slow_database import slow_databases
from tests.support.tables import execute, query
from tests.support.waiting import until

MEBIBYTE = 1024 * 1024


class Long(Workflow):
    """Says a number of things, finishes a step, and gets no further in its first life."""

    count: ClassVar[int]
    begun: ClassVar[int] = 0
    finished: ClassVar[int]
    point: ClassVar[CrashPoint]

    async def run(self) -> AsyncIterator[RunResponse]:
        Long.begun += 1
        for number in range(Long.count):
            yield piece(number)
        await self.step(self.finish)
        await Long.point.here_async()
        yield RunResponse(content="end")

    def finish(self) -> None:
        Long.finished += 1


class SyncLong(Workflow):
    """The same in a thread."""

    name = "long"

    def run(self) -> Iterator[RunResponse]:
        Long.begun += 1
        for number in range(Long.count):
            yield piece(number)
        self.step(self.finish)
        Long.point.here()
        yield RunResponse(content="end")

    def finish(self) -> None:
        Long.finished += 1


def piece(number: int) -> RunResponse:
    return RunResponse(content=f"The {number}th piece of an answer that has ever more to say, as models do. ")


class Ticker:
    """How often the event loop came round, and the longest that it took."""

    def __init__(self) -> None:
        self.turns = 0
        self.longest_seconds = 0.0

    async def run(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.001)
            now = time.monotonic()
            self.turns, self.longest_seconds, last = self.turns + 1, max(self.longest_seconds, now - last), now


async def left_behind(database_url: str, workflow: type[Workflow]) -> str:
    """A run whose process has gone after its first finished step."""
    Long.count, Long.finished, Long.point = 1, 0, CrashPoint()
    async with running(database_url, workflow, drain_seconds=0, cancel_grace_seconds=0.1) as client:
        run_id = str((await client.start("long"))["run_id"])
        assert await asyncio.to_thread(Long.point.reached.wait, 10)
    Long.point.over()
    return run_id


async def lengthen(database_url: str, run_id: str, count: int) -> None:
    """Put so many yields into the log of the run, before its finished step, as the run would have."""
    (run,) = query(database_url, "SELECT session_id FROM runs WHERE run_id = :run", run=run_id)
    envelope = Envelope(run_id=run_id, session_id=run["session_id"], workflow="long")
    (completed,) = query(
        database_url, "SELECT payload FROM run_events WHERE run_id = :run AND event = 'StepCompleted'", run=run_id
    )
    step = completed["payload"].partition('"step":"')[2].partition('"')[0]
    members: dict[str, Any] = {"name": "finish", "step": step}
    tail = [
        (ServerEvent.step_started, server_event(ServerEvent.step_started, **members), None),
        (ServerEvent.step_completed, server_event(ServerEvent.step_completed, **members, seconds=0.1), "null"),
    ]
    execute(database_url, "DELETE FROM run_events WHERE run_id = :run AND sequence > 1", run=run_id)
    database = open_database(database_url, lease_seconds=10)
    try:
        for begin in range(0, count + len(tail), 5000):
            heads = [
                (*encode_response(piece(number)), None) if number < count else tail[number - count]
                for number in range(begin, min(begin + 5000, count + len(tail)))
            ]
            at = clock.rfc3339(clock.now()).encode()
            rows: list[NewEvent] = [
                ("default", run_id, sequence, name, envelope.seal(head, sequence, at).decode(), result)
                for sequence, (name, head, result) in enumerate(heads, begin + 2)
            ]
            await database.write(partial(append_events, rows=rows))
    finally:
        await database.close()
    Long.count = count


async def next_life(database_url: str, workflow: type[Workflow], run_id: str) -> tuple[dict[str, Any], Ticker, int]:
    """The run, recovered to its end; the loop's turns, and how many bytes its process took up at the most."""
    ticker = Ticker()
    ticking = asyncio.create_task(ticker.run())
    tracemalloc.start(1)
    try:
        before = tracemalloc.get_traced_memory()[0]
        async with running(database_url, workflow) as client:
            run = await client.ended(run_id, seconds=100)
        return run, ticker, tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
        ticking.cancel()


@pytest.mark.parametrize("workflow", [Long, SyncLong])
async def test_a_long_log_is_replayed_in_little_memory(sqlite_url: str, workflow: type[Workflow]) -> None:
    events = 60_000
    run_id = await left_behind(sqlite_url, workflow)
    await lengthen(sqlite_url, run_id, events)
    run, ticker, most = await next_life(sqlite_url, workflow, run_id)
    assert (run["status"], Long.finished) == ("completed", 1), run["error"]
    assert most < 16 * MEBIBYTE, "the events alone are more than that"
    assert ticker.turns > events / 1000, "the server had its turns meanwhile"
    assert ticker.longest_seconds < 2, "and never waited for the whole log"
    (last,) = query(sqlite_url, "SELECT max(sequence) AS last FROM run_events")
    assert last["last"] == events + 6, "nothing was said again"


@pytest.mark.parametrize("workflow", [Long, SyncLong])
async def test_a_run_is_cancelled_while_its_log_is_read(database_url: str, workflow: type[Workflow]) -> None:
    run_id = await left_behind(database_url, workflow)
    await lengthen(database_url, run_id, 4000)
    Long.begun = 0
    with slow_databases(read_seconds=0.05):
        async with running(database_url, workflow) as client:

            async def claimed() -> bool:
                return bool((await client.get(f"/runs/{run_id}")).json()["attempt"] == 2)

            await until(claimed)
            assert (await client.post(f"/runs/{run_id}/cancel")).json()["status"] == "running"
            run = await client.ended(run_id)
    assert (run["status"], Long.begun) == ("cancelled", 0)


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_results_that_memory_does_not_keep_are_read_again(sqlite_url: str, asynchronous: bool) -> None:
    calls: list[int] = []
    point = CrashPoint()
    large, steps = KEPT_RESULT_BYTES // 10, 25

    class AsyncLarge(Workflow):
        name = "large"

        async def run(self) -> AsyncIterator[RunResponse]:
            for number in range(steps):
                result = await self.step(self.work, number)
                yield RunResponse(content=[number, len(result), set(result) == {f"{number % 10}"}])
            await point.here_async()
            branches = await asyncio.gather(*(self.step(self.work, number) for number in range(steps)))
            yield RunResponse(content=[len(branch) for branch in branches])

        def work(self, number: int) -> str:
            calls.append(number)
            return f"{number % 10}" * large

    class SyncLarge(Workflow):
        name = "large"

        def run(self) -> Iterator[RunResponse]:
            for number in range(steps):
                result = self.step(self.work, number)
                yield RunResponse(content=[number, len(result), set(result) == {f"{number % 10}"}])
            point.here()
            yield RunResponse(content=[len(self.step(self.work, number)) for number in range(steps)])

        def work(self, number: int) -> str:
            calls.append(number)
            return f"{number % 10}" * large

    async with recovered(sqlite_url, AsyncLarge if asynchronous else SyncLarge, point) as after:
        assert after.run["status"] == "completed", after.run["error"]
        assert calls[:steps] == list(range(steps)), "those that were finished are not called again"
        assert sorted(calls[steps:]) == list(range(steps)), "those after the crash are others"
        said = [event["content"] for event in after.of("RunResponse")]
        assert said == [*([number, large, True] for number in range(steps)), [large] * steps]


async def test_an_answer_that_memory_does_not_keep_is_read_again(sqlite_url: str) -> None:
    point = CrashPoint()
    answers = ["a" * (KEPT_RESULT_BYTES // 2 + 1), "b" * (KEPT_RESULT_BYTES // 2 + 1)]

    class Asking(Workflow):
        async def run(self) -> AsyncIterator[RunResponse]:
            given = [await self.wait_for_input(f"number {number}") for number in range(2)]
            yield RunResponse(content=[len(answer) for answer in given])
            await point.here_async()
            yield RunResponse(content=[answer == answers[number] for number, answer in enumerate(given)])

    async def answer(client: Client, run_id: str) -> None:
        for value in answers:

            async def paused() -> bool:
                return bool((await client.get(f"/runs/{run_id}")).json()["status"] == "paused")

            await until(paused)
            asked = [event for event in await logged(client, run_id) if event["event"] == "RunPaused"]
            body = {"request_id": asked[-1]["request_id"], "value": value}
            assert (await client.post(f"/runs/{run_id}/input", json=body)).status_code == 202

    async with running(sqlite_url, Asking) as client:
        run_id = (await client.start("asking"))["run_id"]
        await answer(client, run_id)
        assert await asyncio.to_thread(point.reached.wait, 10)
    point.over()
    async with running(sqlite_url, Asking) as client:
        run = await client.ended(run_id)
        assert run["status"] == "completed", run["error"]
        events = [event.data for event in await client.events(run_id) if event.event == "RunResponse"]
        assert [event["content"] for event in events] == [[len(value) for value in answers], [True, True]]
