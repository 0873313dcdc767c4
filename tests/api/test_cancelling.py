"""Stopping runs: queued ones, running ones, sync and async code, clients that leave."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from app import RunResponse, Workflow
from tests.support.problems import problem_of
from tests.support.server import Client, read_sse, running
from tests.support.waiting import until


class Sleeper(Workflow):
    async def run(self) -> AsyncIterator[RunResponse]:
        yield RunResponse(content="before ")
        self.session_state["written"] = True
        await asyncio.sleep(60)
        yield RunResponse(content="after")


class Ticker(Workflow):
    def run(self) -> Iterator[RunResponse]:
        self.session_state["written"] = True
        while True:
            yield RunResponse(content="tick")
            time.sleep(0.01)


class Stepper(Workflow):
    def run(self) -> str:
        for number in range(10_000):
            self.step(time.sleep, 0.01, name=f"{number}")
        return "never"


class Deaf(Workflow):
    """Swallows whatever asks it to stop."""

    async def run(self) -> AsyncIterator[RunResponse]:
        yield RunResponse(content="before")
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                yield RunResponse(content="I stay")


class Blocked(Workflow):
    """Sync code that neither yields nor takes a step."""

    release = threading.Event()

    def run(self) -> Iterator[RunResponse]:
        yield RunResponse(content="before")
        self.release.wait(30)
        self.session_state["late"] = True
        yield RunResponse(content="late")


async def started(client: Client, run_id: str, events: int = 2) -> None:
    """Wait until the author's code is at work."""

    async def seen() -> bool:
        page = await client.get(f"/runs/{run_id}/events", headers={"Accept": "application/json"})
        return len(page.json()["items"]) >= events

    await until(seen)


@pytest.mark.parametrize("workflow", ["sleeper", "ticker", "stepper", "deaf"])
async def test_a_cancelled_run_ends_as_cancelled_and_saves_nothing(database_url: str, workflow: str) -> None:
    async with running(database_url, Sleeper, Ticker, Stepper, Deaf) as client:
        run = await client.start(workflow, {"session_id": "s"})
        await started(client, run["run_id"])
        answer = await client.post(f"/runs/{run['run_id']}/cancel")
        assert answer.status_code == 202
        assert answer.json()["run_id"] == run["run_id"]
        ended = await client.ended(run["run_id"])
        assert (ended["status"], ended["error"]) == ("cancelled", None)
        events = await client.events(run["run_id"])
        assert [event.event for event in events].count("RunFinished") == 1
        assert (events[-1].event, events[-1].data["status"]) == ("RunFinished", "cancelled")
        assert (await client.get("/sessions/s/state")).json() == {}
        assert (await client.get("/sessions/s")).json()["active_run_id"] is None


async def test_a_queued_run_is_cancelled_at_once(database_url: str) -> None:
    async with running(database_url, Sleeper) as client:
        first = await client.start("sleeper", {"session_id": "s"})
        queued = await client.start("sleeper", {"session_id": "s"})
        answer = await client.post(f"/runs/{queued['run_id']}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
        assert answer.json()["started_at"] is None
        assert answer.json()["position"] is None
        assert [event.event for event in await client.events(queued["run_id"])] == ["RunQueued", "RunFinished"]
        assert (await client.get(f"/runs/{first['run_id']}")).json()["status"] == "running"


async def test_asking_twice_is_fine(database_url: str) -> None:
    async with running(database_url, Sleeper, Ticker) as client:
        run = await client.start("sleeper")
        await started(client, run["run_id"])
        answers = await asyncio.gather(*(client.post(f"/runs/{run['run_id']}/cancel") for _ in range(5)))
        assert {answer.status_code for answer in answers} <= {200, 202}
        ended = await client.ended(run["run_id"])
        again = await client.post(f"/runs/{run['run_id']}/cancel")
        assert (again.status_code, again.json()) == (200, ended)


async def test_a_run_that_has_ended_is_not_changed(sqlite_url: str) -> None:
    class Quick(Workflow):
        def run(self) -> str:
            return "done"

    async with running(sqlite_url, Quick) as client:
        run = await client.finish("quick")
        answer = await client.post(f"/runs/{run['run_id']}/cancel")
        assert (answer.status_code, answer.json()) == (200, run)


async def test_an_unknown_run_cannot_be_cancelled(sqlite_url: str) -> None:
    async with running(sqlite_url, Sleeper) as client:
        problem_of(await client.post("/runs/none/cancel"), 404, "unknown_run")


async def test_a_run_can_be_cancelled_at_any_moment_of_its_start(database_url: str) -> None:
    async with running(database_url, Sleeper) as client:

        async def start_and_cancel(delay: float) -> dict[str, object]:
            run = await client.start("sleeper")
            await asyncio.sleep(delay)
            assert (await client.post(f"/runs/{run['run_id']}/cancel")).status_code == 202
            return await client.ended(run["run_id"], seconds=15)

        ended = await asyncio.gather(*(start_and_cancel(number * 0.0005) for number in range(60)))
        assert {run["status"] for run in ended} == {"cancelled"}


async def test_code_that_cannot_be_stopped_is_left_behind(database_url: str) -> None:
    Blocked.release.clear()
    async with running(database_url, Blocked, cancel_grace_seconds=0.2) as client:
        run = await client.start("blocked", {"session_id": "s"})
        await started(client, run["run_id"])
        await client.post(f"/runs/{run['run_id']}/cancel")
        assert (await client.ended(run["run_id"]))["status"] == "cancelled"
        before = await client.events(run["run_id"])
        Blocked.release.set()
        await asyncio.sleep(0.2)
        assert await client.events(run["run_id"]) == before
        assert (await client.get("/sessions/s/state")).json() == {}


async def test_what_was_saved_before_stays(database_url: str) -> None:
    class Saver(Workflow):
        async def run(self) -> None:
            self.session_state["kept"] = 1
            await self.write_to_storage()
            self.session_state["lost"] = 1
            await asyncio.sleep(60)

    async with running(database_url, Saver) as client:
        run = await client.start("saver", {"session_id": "s"})
        await started(client, run["run_id"])
        await client.post(f"/runs/{run['run_id']}/cancel")
        ended = await client.ended(run["run_id"])
        assert ended["session_revision"] == 1
        assert (await client.get("/sessions/s/state")).json() == {"kept": 1}


async def leave_after_first_event(client: Client, on_disconnect: str) -> str:
    """Start a run with its stream, and go away; its id."""
    body = {"input": {}, "session_id": "s", "on_disconnect": on_disconnect}
    headers = {"Accept": "text/event-stream"}
    async with httpx.AsyncClient(base_url=client.base_url) as leaving:  # noqa: SIM117  its connection goes with it
        async with leaving.stream("POST", "/workflows/ticker/runs", json=body, headers=headers) as stream:
            async for event in read_sse(stream):
                return str(event.data["run_id"])
    raise AssertionError("the stream had no event")


async def test_a_client_that_leaves_does_not_stop_its_run(database_url: str) -> None:
    async with running(database_url, Ticker) as client:
        run_id = await leave_after_first_event(client, "continue")
        await asyncio.sleep(0.3)
        assert (await client.get(f"/runs/{run_id}")).json()["status"] == "running"


async def test_a_client_that_asked_for_it_stops_its_run_by_leaving(database_url: str) -> None:
    async with running(database_url, Ticker) as client:
        run_id = await leave_after_first_event(client, "cancel")
        assert (await client.ended(run_id))["status"] == "cancelled"


async def test_only_the_stream_of_the_request_counts_for_leaving(database_url: str) -> None:
    async with running(database_url, Sleeper) as client:
        run = await client.start("sleeper", {"on_disconnect": "cancel"})
        async with client.stream("GET", f"/runs/{run['run_id']}/events") as stream:
            async for _ in stream.aiter_raw():
                break
        await asyncio.sleep(0.3)
        assert (await client.get(f"/runs/{run['run_id']}")).json()["status"] == "running"


async def test_a_stream_that_was_read_to_its_end_cancels_nothing(database_url: str) -> None:
    class Short(Workflow):
        async def run(self) -> AsyncIterator[RunResponse]:
            yield RunResponse(content="done")

    async with running(database_url, Short) as client:
        body = {"input": {}, "on_disconnect": "cancel"}
        headers = {"Accept": "text/event-stream"}
        async with client.stream("POST", "/workflows/short/runs", json=body, headers=headers) as stream:
            events = [event async for event in read_sse(stream)]
        assert events[-1].data["status"] == "completed"


class Asks(Workflow):
    async def run(self) -> AsyncIterator[RunResponse]:
        yield RunResponse(content="about to ask")
        await self.step(str.upper, "a")
        await self.wait_for_input("well?")


@pytest.mark.parametrize("later", range(4))
async def test_a_run_that_is_just_about_to_pause_is_cancelled(database_url: str, later: int) -> None:
    async with running(database_url, Asks) as client:
        for _ in range(5):
            run = await client.start("asks")
            for _ in range(later):
                await client.get("/version")
            await client.post(f"/runs/{run['run_id']}/cancel")
            assert (await client.ended(run["run_id"]))["status"] == "cancelled"
