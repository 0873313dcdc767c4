"""Stopping the server, gently and not."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from app import RunResponse, Workflow
from tests.support.processes import server_process
from tests.support.server import read_sse, running

SSE = {"Accept": "text/event-stream"}


class Endless(Workflow):
    async def run(self) -> AsyncIterator[RunResponse]:
        number = 0
        while True:
            number += 1
            self.session_state["number"] = number
            yield RunResponse(content=number)
            await asyncio.sleep(0.01)


class Stubborn(Workflow):
    """Sync code that hears nothing."""

    def run(self) -> Iterator[RunResponse]:
        yield RunResponse(content="here")
        time.sleep(600)


class Brief(Workflow):
    async def run(self, seconds: float = 0.5) -> str:
        await asyncio.sleep(seconds)
        self.session_state["done"] = True
        return "done"


class Quitter(Workflow):
    def run(self, how: str) -> None:
        raise {"exit": SystemExit(3), "interrupt": KeyboardInterrupt()}[how]


class AsyncQuitter(Workflow):
    async def run(self, how: str) -> None:
        raise {"exit": SystemExit(3), "interrupt": KeyboardInterrupt()}[how]


async def test_a_stopping_server_ends_its_streams_cleanly_and_exits_with_0(database_url: str) -> None:
    async with server_process(database_url, Endless, Stubborn) as server:
        runs = [await server.client.start("endless") for _ in range(3)] + [await server.client.start("stubborn")]

        open_streams = asyncio.Semaphore(0)

        async def follow(run_id: str) -> list[int]:
            async with server.client.stream("GET", f"/runs/{run_id}/events", headers=SSE) as stream:
                open_streams.release()
                return [int(event.id or 0) async for event in read_sse(stream)]

        following = [asyncio.create_task(follow(run["run_id"])) for run in runs for _ in range(5)]
        for _ in following:
            await open_streams.acquire()
        await asyncio.sleep(0.3)
        begun = time.monotonic()
        server.terminate()
        async with asyncio.timeout(15):
            seen = await asyncio.gather(*following)  # no reader was cut inside a frame or by a reset
        assert await server.exited(15) == 0
        assert time.monotonic() - begun < 6
        assert all(ids == list(range(1, len(ids) + 1)) and ids for ids in seen)


async def test_a_client_that_waits_does_not_hold_the_server_up(sqlite_url: str) -> None:
    async with server_process(sqlite_url, Endless, drain_seconds=1) as server:
        waiting = asyncio.create_task(
            server.client.post("/workflows/endless/runs", json={"input": {}}, headers={"Prefer": "wait=60"})
        )
        await asyncio.sleep(0.3)
        begun = time.monotonic()
        server.terminate()
        assert await server.exited(20) == 0
        assert time.monotonic() - begun < 4.5  # a drain of one second, and a grace of one
        try:
            answer = await waiting
        except httpx.TransportError:
            return
        assert answer.status_code in {202, 503}


async def test_a_stopping_server_takes_no_new_run(database_url: str) -> None:
    async with server_process(database_url, Brief, drain_seconds=10) as server:
        going = await server.client.start("brief", {"session_id": "s"}, seconds=1.5)
        server.terminate()
        late = []
        for _ in range(20):
            try:
                answer = await server.client.post("/workflows/brief/runs", json={"input": {"seconds": 0}})
            except httpx.TransportError:
                continue  # the door is closed
            if answer.status_code == 503:
                assert int(answer.headers["retry-after"]) >= 1
            else:
                late.append(answer.json()["run_id"])  # it came before the signal did
            await asyncio.sleep(0.02)
        assert await server.exited(15) == 0
    async with server_process(database_url, Brief) as server:
        for run_id in [going["run_id"], *late]:
            assert (await server.client.ended(run_id))["status"] == "completed"


async def test_runs_that_end_within_the_drain_are_waited_for(database_url: str) -> None:
    async with running(database_url, Brief, drain_seconds=10) as client:
        run = await client.start("brief", {"session_id": "s"})
        while (await client.get(f"/runs/{run['run_id']}")).json()["status"] == "queued":
            await asyncio.sleep(0.01)
    async with running(database_url, Brief) as client:
        ended = (await client.get(f"/runs/{run['run_id']}")).json()
        assert (ended["status"], ended["content"]) == ("completed", "done")
        assert (await client.get("/sessions/s/state")).json() == {"done": True}
        assert [event.event for event in await client.events(run["run_id"])][-1] == "RunFinished"


async def test_runs_that_wait_go_on_at_the_next_start(database_url: str) -> None:
    async with running(database_url, Brief) as client:
        first = await client.start("brief", {"session_id": "s"}, seconds=60)
        queued = [await client.start("brief", {"session_id": "s"}, seconds=0) for _ in range(3)]
    async with running(database_url, Brief) as client:
        await client.post(f"/runs/{first['run_id']}/cancel")  # it goes on too, and would keep the others waiting
        for run in queued:
            assert (await client.ended(run["run_id"]))["status"] == "completed"
        assert (await client.get(f"/runs/{first['run_id']}")).json()["status"] == "cancelled"


async def test_author_code_cannot_end_the_server(sqlite_url: str) -> None:
    async with server_process(sqlite_url, Quitter, AsyncQuitter, Brief) as server:
        for workflow in ("quitter", "async-quitter"):
            for how in ("exit", "interrupt"):
                run = await server.client.finish(workflow, how=how)
                assert (run["status"], run["error"]["code"]) == ("failed", "author_error"), (workflow, how)
        assert (await server.client.finish("brief", seconds=0))["status"] == "completed"


async def test_a_second_server_on_one_file_refuses_to_start(sqlite_url: str) -> None:
    async with server_process(sqlite_url, Brief):
        with pytest.raises(RuntimeError, match="MILLSTREAM_DATABASE_URL") as raised:
            async with server_process(sqlite_url, Brief):
                pass
        assert "Traceback" not in str(raised.value)
