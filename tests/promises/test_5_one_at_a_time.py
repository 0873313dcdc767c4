"""Promise 5: runs of one session execute one at a time, in the order of arrival, each on what the one before saved."""

import asyncio
import time
from itertools import pairwise
from typing import Any

import pytest

from app import Workflow
from tests.support.server import running

RUNS = 100


class Counter(Workflow):
    """Adds a key and counts, slowly enough that two at once would lose a count."""

    at_work = 0
    order: list[int] = []  # noqa: RUF012  what the test watches, of all runs together

    async def run(self, number: int) -> int:
        Counter.at_work += 1
        Counter.order.append(number)
        assert Counter.at_work == 1, "two runs of one session at once"
        count: int = self.session_state.get("count", 0)
        assert len([key for key in self.session_state if key.startswith("key")]) == count
        await asyncio.sleep(0.0005)
        self.session_state[f"key{number}"] = number
        self.session_state["count"] = count + 1
        Counter.at_work -= 1
        return count


class SyncCounter(Workflow):
    def run(self, number: int) -> int:
        Counter.order.append(number)
        count: int = self.session_state.get("count", 0)
        time.sleep(0.0005)
        self.session_state[f"key{number}"] = number
        self.session_state["count"] = count + 1
        return count


@pytest.mark.parametrize("workflow", ["counter", "sync-counter"])
async def test_of_100_runs_at_once_each_adds_its_key_and_its_count(database_url: str, workflow: str) -> None:
    Counter.at_work, Counter.order = 0, []
    async with running(database_url, Counter, SyncCounter) as client:
        bodies = [{"input": {"number": number}, "session_id": "s"} for number in range(RUNS)]
        path, headers = f"/workflows/{workflow}/runs", {"Prefer": "wait=60"}
        answers = await asyncio.gather(*(client.post(path, json=body, headers=headers, timeout=90) for body in bodies))
        ended = [answer.json() for answer in answers]
        assert {run["status"] for run in ended} == {"completed"}, [run["error"] for run in ended if run["error"]][:1]
        state = (await client.get("/sessions/s/state")).json()
        assert state["count"] == RUNS
        assert {key for key in state if key != "count"} == {f"key{number}" for number in range(RUNS)}
        assert sorted(run["content"] for run in ended) == list(range(RUNS))
        assert (await client.get("/sessions/s")).json()["revision"] == RUNS
        assert sorted(run["session_revision"] for run in ended) == list(range(1, RUNS + 1))


async def test_the_order_is_that_of_arrival(database_url: str) -> None:
    Counter.at_work, Counter.order = 0, []
    async with running(database_url, Counter) as client:
        runs = [await client.start("counter", {"session_id": "s"}, number=number) for number in range(20)]
        ended = [await client.ended(run["run_id"]) for run in runs]
        assert Counter.order == list(range(20))
        assert [run["content"] for run in ended] == list(range(20))
        for before, after in pairwise(ended):
            assert before["finished_at"] <= after["started_at"]


async def test_each_run_begins_with_what_the_one_before_saved_and_not_with_what_it_lost(database_url: str) -> None:
    class Mixed(Workflow):
        async def run(self, number: int) -> Any:
            seen = dict(self.session_state)
            self.session_state[f"{number}"] = True
            if number % 3 == 0:
                raise ValueError
            return list(seen)

    async with running(database_url, Mixed) as client:
        runs = [await client.start("mixed", {"session_id": "s"}, number=number) for number in range(9)]
        ended = [await client.ended(run["run_id"]) for run in runs]
        saved = [f"{number}" for number in range(9) if number % 3]
        assert [run["content"] for run in ended if run["content"] is not None] == [saved[:n] for n in range(len(saved))]


async def test_cancelled_and_rejected_runs_leave_no_gap_in_the_line(database_url: str) -> None:
    Counter.at_work, Counter.order = 0, []
    async with running(database_url, Counter) as client:

        async def start(number: int) -> dict[str, Any] | None:
            body = {"input": {"number": number}, "session_id": "s", "on_busy": ("enqueue", "reject")[number % 4 == 3]}
            answer = await client.post("/workflows/counter/runs", json=body)
            if answer.status_code == 409:
                return None
            if number % 5 == 4:
                await client.post(f"/runs/{answer.json()['run_id']}/cancel")
            return dict(answer.json())

        runs = [run for run in await asyncio.gather(*map(start, range(40))) if run is not None]
        await asyncio.gather(*(client.events(run["run_id"]) for run in runs))
        ended = [(await client.get(f"/runs/{run['run_id']}")).json() for run in runs]
        completed = [run for run in ended if run["status"] == "completed"]
        Counter.at_work = 0  # a run that was cancelled at work did not count itself out
        assert {run["status"] for run in ended} <= {"completed", "cancelled", "failed"}
        state = (await client.get("/sessions/s/state")).json()
        assert state["count"] == len(completed) == (await client.get("/sessions/s")).json()["revision"]
        assert (await client.get("/sessions/s")).json()["active_run_id"] is None
