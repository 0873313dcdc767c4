"""`timeout_seconds`: the time that a run may execute."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from app import RunResponse, Workflow
from tests.engine.crashes import CrashPoint, recovered
from tests.support.server import running


class Sleeper(Workflow):
    async def run(self, seconds: float = 60) -> str:
        self.session_state["written"] = True
        await asyncio.sleep(seconds)
        return "slept"


class Ticker(Workflow):
    def run(self) -> Iterator[RunResponse]:
        while True:
            yield RunResponse(content="tick")
            time.sleep(0.01)


class Blocked(Workflow):
    def run(self) -> None:
        time.sleep(3)


@pytest.mark.parametrize("workflow", ["sleeper", "ticker", "blocked"])
async def test_a_run_past_its_time_fails_with_timeout(database_url: str, workflow: str) -> None:
    async with running(database_url, Sleeper, Ticker, Blocked, cancel_grace_seconds=0.2) as client:
        run = await client.finish(workflow, {"session_id": "s", "timeout_seconds": 0.2})
        assert (run["status"], run["error"]["code"]) == ("failed", "timeout")
        assert run["error"]["message"]
        assert (await client.events(run["run_id"]))[-1].data["error"]["code"] == "timeout"
        assert (await client.get("/sessions/s/state")).json() == {}
        assert (await client.get("/sessions/s")).json()["active_run_id"] is None


async def test_a_run_within_its_time_completes(sqlite_url: str) -> None:
    async with running(sqlite_url, Sleeper) as client:
        assert (await client.finish("sleeper", {"timeout_seconds": 30}, seconds=0))["status"] == "completed"


async def test_time_in_the_queue_does_not_count(database_url: str) -> None:
    async with running(database_url, Sleeper) as client:
        await client.start("sleeper", {"session_id": "s"}, seconds=1)
        run = await client.finish("sleeper", {"session_id": "s", "timeout_seconds": 0.7}, seconds=0)
        assert run["status"] == "completed", run["error"]


async def test_a_cancel_before_the_timeout_counts(sqlite_url: str) -> None:
    async with running(sqlite_url, Sleeper) as client:
        run = await client.start("sleeper", {"timeout_seconds": 30})
        await client.post(f"/runs/{run['run_id']}/cancel")
        assert (await client.ended(run["run_id"]))["status"] == "cancelled"


class Crashing(Workflow):
    point: CrashPoint

    async def run(self) -> AsyncIterator[RunResponse]:
        yield RunResponse(content="begun")
        await asyncio.sleep(1.5)
        yield RunResponse(content="half")
        await Crashing.point.here_async()
        yield RunResponse(content="done")


@pytest.mark.slow
async def test_time_before_a_crash_counts(sqlite_url: str) -> None:
    Crashing.point = CrashPoint()
    async with recovered(sqlite_url, Crashing, Crashing.point, timeout_seconds=2.8) as ended:
        assert ended.run["attempt"] == 2
        assert (ended.run["status"], ended.run["error"]["code"]) == ("failed", "timeout")
