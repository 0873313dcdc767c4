"""A busy session: runs wait in the order of their arrival, or are refused."""

import asyncio
from collections.abc import AsyncIterator

from app import RunResponse, Workflow
from tests.support.problems import problem_of
from tests.support.server import Client, running


class Waiter(Workflow):
    """Runs until the test says `go`, by the state."""

    async def run(self, name: str, seconds: float = 60) -> AsyncIterator[RunResponse]:
        yield RunResponse(content=name)
        await asyncio.sleep(seconds)
        self.session_state.setdefault("order", []).append(name)


async def positions(client: Client, runs: list[dict[str, object]]) -> list[object]:
    return [(await client.get(f"/runs/{run['run_id']}")).json()["position"] for run in runs]


async def test_runs_of_a_busy_session_wait_with_their_position(database_url: str) -> None:
    async with running(database_url, Waiter) as client:
        runs = [
            await client.start("waiter", {"session_id": "s"}, name=f"{n}", seconds=60 if n == 0 else 0)
            for n in range(4)
        ]
        assert [run["status"] for run in runs[1:]] == ["queued"] * 3
        assert [run["position"] for run in runs] == [None, 1, 2, 3]
        assert runs[3]["started_at"] is None
        assert runs[3]["attempt"] == 0
        await client.post(f"/runs/{runs[2]['run_id']}/cancel")
        assert await positions(client, runs) == [None, 1, None, 2]
        await client.post(f"/runs/{runs[0]['run_id']}/cancel")
        last = await client.ended(runs[3]["run_id"])
        assert last["status"] == "completed"
        assert (await client.get("/sessions/s/state")).json() == {"order": ["1", "3"]}
        assert await positions(client, runs) == [None] * 4


async def test_a_run_that_must_wait_says_so_in_its_first_event(database_url: str) -> None:
    async with running(database_url, Waiter) as client:
        runs = [await client.start("waiter", {"session_id": "s"}, name="n", seconds=0.3) for _ in range(3)]
        events = [await client.events(run["run_id"]) for run in runs]
        assert [[event.event for event in of_run][:3] for of_run in events] == [
            ["WorkflowStarted", "RunResponse", "StateSaved"],
            ["RunQueued", "WorkflowStarted", "RunResponse"],
            ["RunQueued", "WorkflowStarted", "RunResponse"],
        ]
        assert [of_run[0].data.get("position") for of_run in events] == [None, 1, 2]
        assert all([event.id for event in of_run] == [str(n + 1) for n in range(len(of_run))] for of_run in events)


async def test_a_stream_of_a_queued_run_shows_that_it_waits(database_url: str) -> None:
    async with running(database_url, Waiter) as client:
        first = await client.start("waiter", {"session_id": "s"}, name="a")
        queued = await client.start("waiter", {"session_id": "s"}, name="b", seconds=0)
        following = asyncio.create_task(client.events(queued["run_id"]))
        await asyncio.sleep(0.1)
        assert not following.done()
        await client.post(f"/runs/{first['run_id']}/cancel")
        events = await following
        assert [event.event for event in events] == [
            *("RunQueued", "WorkflowStarted", "RunResponse", "StateSaved", "RunFinished"),
        ]


async def test_who_asked_to_be_rejected_is_told_when_to_come_back(database_url: str) -> None:
    async with running(database_url, Waiter) as client:
        run = await client.start("waiter", {"session_id": "s"}, name="a")
        body = {"input": {"name": "b", "seconds": 0}, "session_id": "s", "on_busy": "reject"}
        answer = await client.post("/workflows/waiter/runs", json=body)
        assert problem_of(answer, 409, "session_busy")["run_id"] == run["run_id"]
        assert int(answer.headers["retry-after"]) >= 1
        assert len((await client.get("/runs")).json()["items"]) == 1
        await client.post(f"/runs/{run['run_id']}/cancel")
        await client.ended(run["run_id"])
        assert (await client.post("/workflows/waiter/runs", json=body)).status_code == 202


async def test_a_free_session_rejects_nobody(sqlite_url: str) -> None:
    async with running(sqlite_url, Waiter) as client:
        run = await client.finish("waiter", {"session_id": "s", "on_busy": "reject"}, name="a", seconds=0)
        assert run["status"] == "completed"


async def test_sessions_do_not_wait_for_one_another(database_url: str) -> None:
    async with running(database_url, Waiter) as client:
        await client.start("waiter", {"session_id": "slow"}, name="a")
        run = await client.finish("waiter", {"session_id": "fast"}, name="b", seconds=0)
        assert run["status"] == "completed"


async def test_a_failed_run_gives_its_turn_on(database_url: str) -> None:
    class Failing(Workflow):
        async def run(self, fail: bool) -> None:
            await asyncio.sleep(0.1)
            if fail:
                raise ValueError

    async with running(database_url, Failing) as client:
        bad = await client.start("failing", {"session_id": "s"}, fail=True)
        good = await client.start("failing", {"session_id": "s"}, fail=False)
        assert (await client.ended(good["run_id"]))["status"] == "completed"
        assert (await client.ended(bad["run_id"]))["status"] == "failed"
        assert (await client.get("/sessions/s")).json()["active_run_id"] is None
