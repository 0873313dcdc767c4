"""What callers get of a run whose events are kept no longer: all that its row knows, and never a part of its log."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app import RunResponse, Workflow
from tests.api.test_many_events import take
from tests.support.ages import SECOND_IN_DAYS, events_left, half_remove, removed
from tests.support.problems import problem_of
from tests.support.server import Client, read_sse, running

JSON = {"Accept": "application/json"}
STREAM = {"Accept": "text/event-stream"}


class Count(Workflow):
    """Says numbers."""

    async def run(self, to: int = 3, pause: float = 0, size: int = 1) -> AsyncIterator[RunResponse]:
        for number in range(to):
            yield RunResponse(content=f"{number}".rjust(size))
            if pause:
                await asyncio.sleep(pause)


class Asking(Workflow):
    """Waits for an answer."""

    async def run(self) -> str:
        return str(await self.wait_for_input("well?"))


@pytest.fixture(params=["whole", "half"])
def removal(request: pytest.FixtureRequest) -> str:
    """How far it has come."""
    return str(request.param)


async def old_run(database_url: str, removal: str, **options: Any) -> str:
    """A run of five events, three of them its author's, which retention has removed or is just removing."""
    days = SECOND_IN_DAYS / 10 if removal == "whole" else None
    async with running(database_url, Count, event_retention_days=days) as client:
        run = await client.finish("count", {"session_id": "old"} | options)
        if removal == "whole":
            await removed(database_url, run["run_id"])
    if removal == "half":
        half_remove(database_url, run["run_id"], upto=2)
        assert events_left(database_url, run["run_id"]) == 3
    return str(run["run_id"])


async def test_a_cursor_into_what_is_gone_is_410_and_one_at_its_end_204(database_url: str, removal: str) -> None:
    run_id = await old_run(database_url, removal)
    async with running(database_url, Count) as client:
        for cursor in range(5):
            for headers in (JSON, STREAM):
                answer = await client.get(f"/runs/{run_id}/events", params={"after": cursor}, headers=headers)
                problem = problem_of(answer, 410, "events_gone")
                assert problem["run_id"] == run_id
                assert f"GET /runs/{run_id}" in problem["detail"]
        at_end = {"after": 5}
        assert (await client.get(f"/runs/{run_id}/events", params=at_end, headers=STREAM)).status_code == 204
        page = await client.get(f"/runs/{run_id}/events", params=at_end, headers=JSON)
        assert page.json() == {"items": [], "next_cursor": None}
        problem_of(await client.get(f"/runs/{run_id}/events?after=6", headers=STREAM), 400, "invalid_cursor")


async def test_the_run_itself_stays_and_can_be_run_again(database_url: str, removal: str) -> None:
    run_id = await old_run(database_url, removal)
    async with running(database_url, Count) as client:
        run = (await client.get(f"/runs/{run_id}")).json()
        assert (run["status"], run["content"], run["error"]) == ("completed", "012", None)
        assert [item["run_id"] for item in (await client.get("/runs")).json()["items"]] == [run_id]
        assert (await client.post(f"/runs/{run_id}/cancel")).status_code == 200
        again = await client.post(f"/runs/{run_id}/retry")
        assert again.status_code == 202, again.text
        assert (await client.ended(again.json()["run_id"]))["content"] == "012"
        assert len(await client.events(again.json()["run_id"])) == 5
        assert (await client.delete("/sessions/old")).status_code == 204
        problem_of(await client.get(f"/runs/{run_id}"), 404, "unknown_run")
        problem_of(await client.get(f"/runs/{run_id}/events"), 404, "unknown_run")
        assert events_left(database_url, run_id) == 0


async def test_a_stream_of_many_is_refused_for_one_that_is_gone_and_says_which(database_url: str, removal: str) -> None:
    run_id = await old_run(database_url, removal)
    async with running(database_url, Count) as client:
        other = (await client.finish("count", {"session_id": "new"}))["run_id"]
        answer = await client.get("/events", params={"run_id": [other, run_id]})
        problem = problem_of(answer, 410, "events_gone")
        assert problem["run_id"] == run_id
        assert "leave it out" in problem["detail"]
        assert len(await take(client, None, run_id=[other])) == 5


async def test_a_stream_of_many_that_has_seen_the_end_goes_on(database_url: str) -> None:
    async with running(database_url, Count) as client:
        runs = [(await client.finish("count", {"session_id": name}))["run_id"] for name in ("old", "new")]
        events = await take(client, None, run_id=runs)
        half_remove(database_url, runs[0], upto=2)
        seen = {"Last-Event-ID": events[6].id or ""}  # all five of the old one, two of the other
        async with client.stream("GET", "/events", params={"run_id": runs}, headers=seen) as stream:
            assert [event.data["sequence"] async for event in read_sse(stream)] == [3, 4, 5]
        end = {"Last-Event-ID": events[-1].id or ""}
        assert (await client.get("/events", params={"run_id": runs}, headers=end)).status_code == 204
        early = {"Last-Event-ID": events[2].id or ""}
        problem_of(await client.get("/events", params={"run_id": runs}, headers=early), 410, "events_gone")


@pytest.mark.parametrize("seen", ["part of it", "nothing of it"])
async def test_a_stream_of_a_session_whose_runs_are_gone_begins_anew(database_url: str, seen: str) -> None:
    async with running(database_url, Count) as client:
        await client.start("count", {"session_id": "s"}, to=2, pause=0.1)
        first = await take(client, 3 if seen == "part of it" else 4, session_id="s")
        run = await client.finish("count", {"session_id": "s"})
        if seen == "part of it":
            half_remove(database_url, first[0].data["run_id"], upto=1)
        else:
            half_remove(database_url, run["run_id"], upto=1)
        cursor = {"Last-Event-ID": first[-1].id or ""}
        problem = problem_of(
            await client.get("/events", params={"session_id": "s"}, headers=cursor), 410, "events_gone"
        )
        assert "without a cursor" in problem["detail"]
        anew = asyncio.create_task(take(client, 5, session_id="s"))
        await asyncio.sleep(0.1)
        await client.start("count", {"session_id": "s"})
        assert [event.data["sequence"] for event in await asyncio.wait_for(anew, 10)] == [1, 2, 3, 4, 5]


async def test_an_idempotency_key_gives_the_run_but_no_empty_stream(database_url: str, removal: str) -> None:
    async with running(database_url, Count) as client:
        body, key = {"input": {}, "session_id": "old"}, {"Idempotency-Key": "one"}
        run = (await client.post("/workflows/count/runs", json=body, headers=key)).json()
        await client.ended(run["run_id"])
        again = await client.post("/workflows/count/runs", json=body, headers=key | STREAM)
        assert again.text.count("event:") == 5
        half_remove(database_url, run["run_id"], upto=2 if removal == "half" else 5)
        problem_of(await client.post("/workflows/count/runs", json=body, headers=key | STREAM), 410, "events_gone")
        plain = await client.post("/workflows/count/runs", json=body, headers=key)
        assert (plain.status_code, plain.json()["run_id"]) == (202, run["run_id"])
        waited = await client.post("/workflows/count/runs", json=body, headers=key | {"Prefer": "wait=5"})
        assert (waited.status_code, waited.json()["content"]) == (200, "012")


@pytest.mark.parametrize("path", ["/runs/{run}/events", "/events?run_id={run}"])
async def test_a_stream_is_cut_where_its_log_is_removed(database_url: str, path: str) -> None:
    async with running(database_url, Count) as client:
        run = await client.finish("count", to=3000, size=3000)
        url = path.format(run=run["run_id"])
        async with client.stream("GET", url, headers=STREAM) as stream:
            chunks = stream.aiter_raw()
            text = await anext(chunks)
            half_remove(database_url, run["run_id"], upto=2900)  # most is not even on its way to the client
            async with asyncio.timeout(10):
                async for chunk in chunks:
                    text += chunk
        assert b"event: RunFinished" not in text
        *frames, last = text.strip().split(b"\n\n")
        assert last.startswith(b": the events of run " + run["run_id"].encode())
        seen = frames[-1].partition(b"id: ")[2].partition(b"\n")[0].decode()
        assert len(frames) < 2900
        problem_of(await client.get(url, headers=STREAM | {"Last-Event-ID": seen}), 410, "events_gone")


async def test_a_page_is_refused_where_the_log_is_removed(database_url: str) -> None:
    async with running(database_url, Count) as client:
        run = await client.finish("count", to=50)
        first = await client.get(f"/runs/{run['run_id']}/events?limit=10", headers=JSON)
        half_remove(database_url, run["run_id"], upto=20)
        problem_of(await client.get(first.links["next"]["url"], headers=JSON), 410, "events_gone")
        problem_of(await client.get(f"/runs/{run['run_id']}/events?after=30", headers=JSON), 410, "events_gone")


async def test_a_stream_of_an_old_log_that_is_deleted_with_its_session_ends(database_url: str) -> None:
    async with running(database_url, Count) as client:
        run = await client.finish("count", {"session_id": "s"}, to=3000, size=3000)
        async with client.stream("GET", f"/runs/{run['run_id']}/events") as stream:
            chunks = stream.aiter_raw()
            await anext(chunks)
            assert (await client.delete("/sessions/s")).status_code == 204
            async with asyncio.timeout(10):
                rest = b"".join([chunk async for chunk in chunks])
        assert b"event: RunFinished" not in rest


async def test_what_has_not_ended_is_kept_however_old(database_url: str) -> None:
    async with running(database_url, Count, Asking, event_retention_days=SECOND_IN_DAYS / 10) as client:
        live = (await client.start("count", to=25, pause=0.1))["run_id"]
        asking = (await client.start("asking"))["run_id"]
        ended = (await client.finish("count"))["run_id"]
        await removed(database_url, ended)
        async with asyncio.timeout(20):
            assert [event.data["sequence"] for event in await client.events(live)] == list(range(1, 28))
        page = (await client.get(f"/runs/{asking}/events", headers=JSON)).json()["items"]
        assert [event["event"] for event in page] == ["WorkflowStarted", "RunPaused"]
        answer = {"request_id": page[-1]["request_id"], "value": "yes"}
        assert (await client.post(f"/runs/{asking}/input", json=answer)).status_code == 202
        assert (await client.ended(asking))["content"] == "yes"


async def test_without_the_setting_everything_is_kept(database_url: str) -> None:
    async with running(database_url, Count) as client:
        run = await client.finish("count")
        await asyncio.sleep(1.5)
        assert len(await client.events(run["run_id"])) == 5


async def answers_of(client: Client, run_id: str) -> list[int]:
    """The run's events by their pages, or none when they are gone; never a part."""
    answer = await client.get(f"/runs/{run_id}/events", params={"limit": 200}, headers=JSON)
    if answer.status_code == 410:
        return []
    return [event["sequence"] for event in answer.json()["items"]]


async def test_removal_goes_on_beside_everything_else(database_url: str) -> None:
    runs, events = 60, 100
    async with running(database_url, Count, event_retention_days=SECOND_IN_DAYS) as client:
        followed = (await client.start("count", to=600, pause=0.01))["run_id"]
        following = asyncio.create_task(client.events(followed))
        old = [run["run_id"] for run in [await client.start("count", to=events - 2) for _ in range(runs)]]
        for run_id in old:
            await client.ended(run_id)
        seen: set[str] = set()
        async with asyncio.timeout(60):
            while len(seen) < runs:
                for run_id in old:
                    sequences = await answers_of(client, run_id)
                    assert sequences in ([], list(range(1, events + 1))), "a part of a log"
                    if not sequences:
                        seen.add(run_id)
        sequences = [event.data["sequence"] for event in await asyncio.wait_for(following, 60)]
        assert sequences == list(range(1, 603))
        await removed(database_url, *old)
        figures = (await client.get("/metrics")).text
        assert float(figures.partition("\nmillstream_events_removed_total ")[2].split()[0]) >= runs * events
