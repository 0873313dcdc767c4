"""Promise 3: events are numbered without a gap, and who comes back gets every later one, once, in order."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator

from app import RunResponse, Workflow
from tests.support.server import Client, SseEvent, read_sse, running

SSE = {"Accept": "text/event-stream"}
EVENTS = 1500


class Bursts(Workflow):
    async def run(self) -> AsyncIterator[RunResponse]:
        for number in range(EVENTS):
            yield RunResponse(content=f"{number}" * (number % 50))
            if number % 97 == 0:
                await asyncio.sleep(0.005)


class SyncBursts(Workflow):
    def run(self) -> Iterator[RunResponse]:
        for number in range(EVENTS):
            yield RunResponse(content=f"{number}" * (number % 50))
            if number % 97 == 0:
                time.sleep(0.005)


async def read_with_cuts(client: Client, run_id: str, chance: random.Random) -> list[SseEvent]:
    """All events of a run, by a client whose connection breaks again and again."""
    seen: list[SseEvent] = []
    while True:
        headers = SSE | ({"Last-Event-ID": seen[-1].id or ""} if seen else {})
        async with client.stream("GET", f"/runs/{run_id}/events", headers=headers) as stream:
            if stream.status_code == 204:
                return seen
            left = chance.choice([1, 2, 7, 100, 400])
            reading = read_sse(stream)
            async for event in reading:
                seen.append(event)
                left -= 1
                if left == 0:
                    break
            await reading.aclose()
        await asyncio.sleep(chance.choice([0, 0, 0.01]))


async def test_readers_that_come_and_go_all_get_the_whole(database_url: str) -> None:
    async with running(database_url, Bursts, SyncBursts) as client:
        for workflow in ("bursts", "sync-bursts"):
            run = await client.start(workflow)
            readers = [read_with_cuts(client, run["run_id"], random.Random(seed)) for seed in range(6)]
            whole, *cut = await asyncio.gather(client.events(run["run_id"]), *readers)
            assert [event.id for event in whole] == [f"{number}" for number in range(1, EVENTS + 3)]
            assert [event.data["sequence"] for event in whole] == list(range(1, EVENTS + 3))
            assert whole[-1].event == "RunFinished"
            for events in cut:
                assert events == whole


async def test_the_log_is_the_same_long_after_and_from_another_process(database_url: str) -> None:
    async with running(database_url, Bursts) as client:
        run = await client.start("bursts")
        live = await client.events(run["run_id"])
    async with running(database_url, Bursts) as client:
        assert await client.events(run["run_id"]) == live
        for cursor in (0, 1, 500, EVENTS, EVENTS + 1):
            assert await client.events(run["run_id"], after=cursor) == live[cursor:]


async def test_many_runs_at_once_mix_no_events(database_url: str) -> None:
    class Speaker(Workflow):
        async def run(self, name: str) -> AsyncIterator[RunResponse]:
            for _ in range(30):
                yield RunResponse(content=name)
                await asyncio.sleep(0)

    async with running(database_url, Speaker) as client:
        runs = await asyncio.gather(*(client.start("speaker", name=f"{number}") for number in range(40)))
        streams = await asyncio.gather(*(client.events(run["run_id"]) for run in runs))
        for number, (run, events) in enumerate(zip(runs, streams, strict=True)):
            assert [event.id for event in events] == [f"{place}" for place in range(1, 33)]
            assert {event.data["run_id"] for event in events} == {run["run_id"]}
            assert {event.data["content"] for event in events if event.event == "RunResponse"} == {f"{number}"}
