"""How much a run may say: its end is written, readers see it, and a later attempt counts the same."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from app import RunResponse, Workflow
from tests.engine import crashes
from tests.engine.crashes import CrashPoint
from tests.support.server import Client, running


class Talker(Workflow):
    async def run(self, events: int = 5, size: int = 1) -> AsyncIterator[RunResponse]:
        for _ in range(events):
            yield RunResponse(content="x" * size)


class SyncTalker(Workflow):
    def run(self, events: int = 5, size: int = 1) -> Iterator[RunResponse]:
        for _ in range(events):
            yield RunResponse(content="x" * size)


class Stepper(Workflow):
    async def run(self, steps: int = 3, size: int = 1) -> int:
        return sum([len(await self.step(self.work, number, size)) for number in range(steps)])

    def work(self, number: int, size: int) -> str:
        return f"{number}" * size


class Stubborn(Workflow):
    async def run(self) -> str:
        try:
            for number in range(10):
                await self.step(str, number)
        except BaseException:
            await asyncio.sleep(0)
        return "as if nothing had been"


class Grouped(Workflow):
    async def run(self) -> str:
        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(self.step(str, number))
        return "done"


class Saver(Workflow):
    async def run(self) -> None:
        for number in range(50):
            self.session_state["n"] = number
            await self.write_to_storage()


async def refused(client: Client, workflow: str, **input: Any) -> tuple[str, list[str]]:
    """The code of a run that has failed, and the names of its events; all that tells of it tells the same."""
    run = await client.finish(workflow, {"session_id": workflow}, **input)
    events = await client.events(run["run_id"])
    assert run["status"] == "failed", run
    told = {name: value for name, value in run["error"].items() if value is not None}
    assert events[-1].data["error"] == told
    assert "MILLSTREAM_MAX_EVENT" in run["error"]["message"]
    session = (await client.get(f"/sessions/{workflow}")).json()
    assert session["active_run_id"] is None, "the session is free"
    return run["error"]["code"], [event.event for event in events]


@pytest.mark.parametrize("workflow", ["talker", "sync-talker"])
async def test_a_run_with_too_many_events_fails(database_url: str, workflow: str) -> None:
    async with running(database_url, Talker, SyncTalker, max_events_per_run=20) as client:
        assert (await client.finish(workflow, events=20))["status"] == "completed"
        code, names = await refused(client, workflow, events=1_000_000)
        assert code == "too_many_events"
        assert names.count("RunResponse") + names.count("run_response") in {0, 20}
        assert len(names) == 20 + 2, "those that it may, the first and the last"


@pytest.mark.parametrize("workflow", ["talker", "sync-talker"])
async def test_a_run_that_says_too_much_fails(database_url: str, workflow: str) -> None:
    async with running(database_url, Talker, SyncTalker, max_event_bytes_per_run=10_000) as client:
        assert (await client.finish(workflow, events=5, size=1_000))["status"] == "completed"
        code, names = await refused(client, workflow, events=1_000, size=1_000)
        assert code == "too_much_output"
        assert 8 <= len(names) <= 12


async def test_an_event_that_is_too_large_fails_its_run(sqlite_url: str) -> None:
    async with running(sqlite_url, Talker, Stepper, max_event_bytes=2_000) as client:
        assert (await client.finish("talker", events=50, size=1_000))["status"] == "completed"
        assert (await refused(client, "talker", size=3_000))[0] == "event_too_large"
        assert (await refused(client, "stepper", size=3_000))[0] == "event_too_large"


async def test_steps_count_with_what_they_return(database_url: str) -> None:
    async with running(database_url, Stepper, max_events_per_run=10, max_event_bytes_per_run=10_000) as client:
        assert (await client.finish("stepper", steps=5))["status"] == "completed"
        assert (await refused(client, "stepper", steps=6))[0] == "too_many_events"
        assert (await refused(client, "stepper", steps=4, size=4_000))[0] == "too_much_output"


async def test_saves_count(sqlite_url: str) -> None:
    async with running(sqlite_url, Saver, max_events_per_run=10) as client:
        code, names = await refused(client, "saver")
        assert code == "too_many_events"
        assert names.count("StateSaved") == 10


@pytest.mark.parametrize("workflow", ["stubborn", "grouped"])
async def test_author_code_cannot_swallow_it(sqlite_url: str, workflow: str) -> None:
    async with running(sqlite_url, Stubborn, Grouped, max_events_per_run=5) as client:
        assert (await refused(client, workflow))[0] == "too_many_events"


class Crashing(Workflow):
    point: CrashPoint

    async def run(self, events: int) -> AsyncIterator[RunResponse]:
        for number in range(3):
            yield RunResponse(content=f"{number}")
        yield RunResponse(content=await self.step(str, "x" * 100))
        await Crashing.point.here_async()
        for number in range(events):
            yield RunResponse(content=f"{number}")


@pytest.mark.parametrize(("events", "code"), [(4, None), (5, "too_many_events")])
async def test_a_later_attempt_counts_the_same(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, events: int, code: str | None
) -> None:
    monkeypatch.setenv("MILLSTREAM_MAX_EVENTS_PER_RUN", "10")
    Crashing.point = CrashPoint()
    async with crashes.recovered(sqlite_url, Crashing, Crashing.point, events=events) as ended:
        assert ended.run["attempt"] == 2
        assert (ended.run["error"] or {"code": None})["code"] == code


@pytest.mark.parametrize(("limit", "code"), [(900, None), (600, "too_much_output")])
async def test_a_later_attempt_counts_the_same_bytes(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, limit: int, code: str | None
) -> None:
    monkeypatch.setenv("MILLSTREAM_MAX_EVENT_BYTES_PER_RUN", f"{limit}")
    lengths = set()
    for crashed in (0, 1):
        Crashing.point = CrashPoint(crashed)
        if crashed:
            async with crashes.recovered(sqlite_url, Crashing, Crashing.point, events=4) as ended:
                run, names = ended.run, ended.names
        else:
            async with running(sqlite_url, Crashing) as client:
                run = await client.finish("crashing", events=4)
                names = [event.event for event in await client.events(run["run_id"])]
        assert (run["attempt"], (run["error"] or {"code": None})["code"]) == (1 + crashed, code)
        lengths.add(len([name for name in names if name not in {"WorkflowStarted", "RunRecovered"}]))
    assert len(lengths) == 1, "it said the same"
