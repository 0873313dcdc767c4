"""How many streams a key and a tenant keep open."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx

from app import RunResponse, Workflow
from tests.support.keys import as_caller, first_key, new_key
from tests.support.server import Client, running
from tests.support.waiting import until

STREAM = {"Accept": "text/event-stream"}


class Slow(Workflow):
    async def run(self, seconds: float = 60) -> AsyncIterator[RunResponse]:
        yield RunResponse(content="begun")
        await asyncio.sleep(seconds)


async def opened(stack: AsyncExitStack, client: Client, path: str) -> httpx.Response:
    """The answer to a request for a stream, which stays open; its first bytes have come."""
    answer = await stack.enter_async_context(client.stream("GET", path, headers=STREAM))
    if answer.status_code == 200:
        chunks = answer.aiter_raw()  # to be kept: where it goes, so does the connection
        stack.push_async_callback(chunks.aclose)  # type: ignore[attr-defined]
        await anext(chunks)
    else:
        await answer.aread()
    return answer


async def test_a_key_has_so_many_streams_and_no_more(database_url: str) -> None:
    async with running(database_url, Slow, max_streams_per_key=2) as client, AsyncExitStack() as all_streams:
        admin = await first_key(client)
        one, other = [as_caller(client, (await new_key(client, admin))["key"]) for _ in range(2)]
        run = await one.start("slow")
        path = f"/runs/{run['run_id']}/events"
        closing = await all_streams.enter_async_context(AsyncExitStack())
        assert (await opened(closing, one, path)).status_code == 200
        assert (await opened(all_streams, one, path)).status_code == 200
        refused = await opened(all_streams, one, path)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
        assert refused.json()["code"] == "too_many_streams_of_key"
        started = await one.post("/workflows/slow/runs", json={"input": {}}, headers=STREAM)
        assert started.status_code == 429
        assert len((await one.get("/runs")).json()["items"]) == 1, "who is refused starts nothing"
        assert (await opened(all_streams, other, path)).status_code == 200, "another key has its own"
        await closing.aclose()

        async def room() -> bool:
            return (await opened(all_streams, one, path)).status_code == 200

        await until(room)
        figures = (await as_caller(client, admin).get("/metrics")).text
        assert 'millstream_requests_refused_total{code="too_many_streams_of_key"}' in figures
        await one.post(f"/runs/{run['run_id']}/cancel")


async def test_a_tenant_has_so_many_streams_and_no_more(sqlite_url: str) -> None:
    async with running(sqlite_url, Slow, max_streams_per_tenant=2) as client, AsyncExitStack() as all_streams:
        admin = await first_key(client)
        north = [as_caller(client, (await new_key(client, admin, tenant="north"))["key"]) for _ in range(2)]
        south = as_caller(client, (await new_key(client, admin, tenant="south"))["key"])
        run = await north[0].start("slow")
        path = f"/runs/{run['run_id']}/events"
        assert (await opened(all_streams, north[0], path)).status_code == 200
        assert (await opened(all_streams, north[1], path)).status_code == 200
        refused = await opened(all_streams, north[1], path)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams_of_tenant")
        elsewhere = await south.start("slow")
        assert (await opened(all_streams, south, f"/runs/{elsewhere['run_id']}/events")).status_code == 200


async def test_streams_that_come_at_once_are_no_more_either(sqlite_url: str) -> None:
    async with running(sqlite_url, Slow, max_streams_per_key=3) as client:
        run = await client.start("slow")
        outcomes: Counter[str] = Counter()
        held = asyncio.Event()

        async def read() -> None:
            async with client.stream("GET", f"/runs/{run['run_id']}/events", headers=STREAM) as answer:
                if answer.status_code != 200:
                    outcomes[f"{answer.status_code}"] += 1
                    return
                chunks = answer.aiter_raw()
                first = await anext(chunks)
                if b"MILLSTREAM_MAX_STREAMS_PER_KEY" in first:
                    assert first.startswith(b"retry: 5000\n")
                    outcomes["ended"] += 1
                    return
                outcomes["open"] += 1
                await held.wait()

        readers = [asyncio.create_task(read()) for _ in range(20)]

        async def all_answered() -> bool:
            return sum(outcomes.values()) == 20

        await until(all_answered)
        held.set()
        await asyncio.gather(*readers)
        assert outcomes["open"] == 3
