"""One stream over many runs and sessions."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx

from app import RunResponse, Workflow
from tests.support.server import Client, SseEvent, read_sse, running


class Count(Workflow):
    async def run(self, to: int = 3, pause: float = 0) -> AsyncIterator[RunResponse]:
        for number in range(to):
            yield RunResponse(content=str(number))
            await asyncio.sleep(pause)


async def take(client: Client, count: int | None, cursor: str = "", **named: Any) -> list[SseEvent]:
    """So many events of the stream, or all up to its end."""
    taken: list[SseEvent] = []
    headers = {"Last-Event-ID": cursor} if cursor else {}
    async with client.stream("GET", "/events", params=named, headers=headers) as stream:
        async for event in read_sse(stream):
            taken.append(event)
            if len(taken) == count:
                break
    return taken


def of_each(events: list[SseEvent]) -> dict[str, list[int]]:
    sequences: dict[str, list[int]] = {}
    for event in events:
        sequences.setdefault(event.data["run_id"], []).append(event.data["sequence"])
    return sequences


async def test_named_runs_come_whole_and_the_stream_ends_with_them(database_url: str) -> None:
    async with running(database_url, Count) as client:
        runs = [(await client.start("count", to=5, pause=0.01))["run_id"] for _ in range(4)]
        events = await take(client, None, run_id=runs)
        assert of_each(events) == {run: list(range(1, 8)) for run in runs}
        again = await client.get("/events", params={"run_id": runs}, headers={"Last-Event-ID": events[-1].id or ""})
        assert again.status_code == 204


async def test_cut_anywhere_it_goes_on_where_it_was(database_url: str) -> None:
    async with running(database_url, Count) as client:
        runs = [(await client.start("count", to=4, pause=0.005))["run_id"] for _ in range(3)]
        events: list[SseEvent] = []
        while len(events) < 18:
            events += await take(client, 4, cursor=(events[-1].id or "") if events else "", run_id=runs)
        assert of_each(events) == {run: list(range(1, 7)) for run in runs}


async def test_a_session_brings_its_live_and_future_runs(database_url: str) -> None:
    async with running(database_url, Count) as client:
        before = await client.finish("count", {"session_id": "one"}, to=1)
        live = await client.start("count", {"session_id": "one"}, to=3, pause=0.05)
        following = asyncio.create_task(take(client, 15, session_id="one"))
        await asyncio.sleep(0.05)
        waiting = await client.start("count", {"session_id": "one"}, to=3)
        await client.ended(waiting["run_id"])
        later = await client.start("count", {"session_id": "one"}, to=2)
        events = await asyncio.wait_for(following, 10)
        sequences = of_each(events)
        assert before["run_id"] not in sequences
        assert sequences[live["run_id"]] == [1, 2, 3, 4, 5]
        assert sequences[waiting["run_id"]] == [1, 2, 3, 4, 5, 6]
        assert sequences[later["run_id"]] == [1, 2, 3, 4]
        middle = events[6].id or ""
        rest = await take(client, 8, cursor=middle, session_id="one")
        assert [(event.data["run_id"], event.data["sequence"]) for event in rest] == [
            (event.data["run_id"], event.data["sequence"]) for event in events[7:]
        ]


async def test_what_cannot_be_followed_is_refused_before_any_byte_of_stream(sqlite_url: str) -> None:
    async with running(sqlite_url, Count) as client:
        run = await client.finish("count")

        async def status(params: dict[str, Any], **headers: str) -> tuple[int, str]:
            answer: httpx.Response = await client.get("/events", params=params, headers=headers)
            return answer.status_code, answer.json()["code"]

        assert await status({}) == (422, "invalid_parameter")
        assert await status({"run_id": "none"}) == (404, "unknown_run")
        assert await status({"session_id": "none"}) == (404, "unknown_session")
        assert await status({"run_id": [str(number) for number in range(101)]}) == (422, "invalid_parameter")
        assert await status({"run_id": run["run_id"]}, **{"Last-Event-ID": "nonsense"}) == (400, "invalid_cursor")
