"""Promise 4: a finished step is never executed again; the one under way when a process died is."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app import RunResponse, Workflow
from tests.support.ledger import Ledger
from tests.support.processes import server_process
from tests.support.server import Client, SseEvent


class SyncSteps(Workflow):
    """Steps in a loop, with text and a save between them."""

    def run(self, ledger: str, steps: int = 4, seconds: float = 0.15) -> Iterator[RunResponse]:
        for number in range(steps):
            yield RunResponse(content=f"before {number} ")
            square = self.step(self.square, ledger, number, seconds, name="square")
            self.session_state.setdefault("squares", []).append(square)
            self.write_to_storage()
            yield RunResponse(content=f"after {number} is {square} ")

    def square(self, ledger: str, number: int, seconds: float) -> int:
        with Ledger(ledger).call(f"{number}"):
            time.sleep(seconds)
        return number * number


class AsyncSteps(Workflow):
    """The same in async code, with branches that run together, each with steps of its own."""

    async def run(self, ledger: str, steps: int = 3, seconds: float = 0.12) -> AsyncIterator[RunResponse]:
        yield RunResponse(content="begin ")
        sums = await asyncio.gather(*(self.branch(ledger, branch, steps, seconds) for branch in "abc"))
        self.session_state["sums"] = sums
        outer = await self.step(self.outer, ledger, seconds)
        yield RunResponse(content=f"{sums} {outer}")

    async def branch(self, ledger: str, branch: str, steps: int, seconds: float) -> int:
        total = 0
        for number in range(steps):
            total += await self.step(self.add, ledger, branch, number, seconds)
        return total

    async def add(self, ledger: str, branch: str, number: int, seconds: float) -> int:
        with Ledger(ledger).call(f"{branch}{number}"):
            await asyncio.sleep(seconds)
        return number

    async def outer(self, ledger: str, seconds: float) -> int:
        """A step that has steps inside."""
        first = await self.step(self.add, ledger, "inner", 1, seconds)
        second = await self.step(self.add, ledger, "inner", 2, seconds)
        return int(first + second)


class Forgetful(Workflow):
    """Does something else each time it is begun."""

    def run(self, ledger: str) -> Iterator[RunResponse]:
        attempt = Ledger(ledger).note("begun")
        yield RunResponse(content=f"attempt {attempt}")
        self.step(lambda: None, name="finished")
        time.sleep(0.5 if attempt == 1 else 0)


class Changing(Workflow):
    """Says something else each time, but only after its last finished step."""

    def run(self, ledger: str) -> Iterator[RunResponse]:
        attempt = Ledger(ledger).note("begun")
        yield RunResponse(content="always ")
        self.step(lambda: None, name="finished")
        yield RunResponse(content="the same ")
        for number in range(3):
            yield RunResponse(content=f"[{attempt}.{number}] ")
            time.sleep(0.3 if attempt == 1 else 0)


class Suicidal(Workflow):
    """Takes its process with it."""

    def run(self, ledger: str) -> None:
        Ledger(ledger).note("begun")
        time.sleep(0.3)


def counted(events: list[SseEvent]) -> list[SseEvent]:
    """The events that still count, after what each RunRecovered supersedes."""
    kept: list[SseEvent] = []
    for event in events:
        if event.event == "RunRecovered":
            kept = [one for one in kept if one.data["sequence"] <= event.data["superseded_after"]]
        kept.append(event)
    return kept


async def started(client: Client, workflow: str, ledger: Path, run_seconds: float) -> str:
    run = await client.start(workflow, {"session_id": "s"}, ledger=str(ledger))
    await asyncio.sleep(run_seconds)
    return str(run["run_id"])


@pytest.mark.parametrize("workflow", ["sync-steps", "async-steps"])
async def test_only_what_was_under_way_is_done_again(database_url: str, tmp_path: Path, workflow: str) -> None:
    ledger = tmp_path / "ledger"
    settings = {"lease_seconds": 1}
    kills = 3
    async with server_process(database_url, SyncSteps, AsyncSteps, **settings) as server:
        run_id = await started(server.client, workflow, ledger, 0.25)
        server.kill()
    for _ in range(kills - 1):
        async with server_process(database_url, SyncSteps, AsyncSteps, **settings) as server:
            await asyncio.sleep(0.25 if database_url.startswith("sqlite") else 1.6)
            server.kill()
    async with server_process(database_url, SyncSteps, AsyncSteps, **settings) as server:
        run = await server.client.ended(run_id, seconds=30)
        events = await server.client.events(run_id)
        state = (await server.client.get("/sessions/s/state")).json()
    assert run["status"] == "completed", run
    assert [event.data["sequence"] for event in events] == list(range(1, len(events) + 1))
    calls, ends = Ledger(str(ledger)).calls(), Ledger(str(ledger)).ends()
    completed = Counter(event.data["step"] for event in events if event.event == "StepCompleted")
    assert set(completed.values()) == {1}, "a step was completed twice"
    # A call that ended without its StepCompleted on disk was still under way; each kill leaves at most those behind.
    concurrent = 1 if workflow == "sync-steps" else 3
    again = sum(calls.values()) - len(calls)
    assert again <= kills * (concurrent + 1)
    assert all(count >= 1 for count in ends.values())
    if workflow == "sync-steps":
        assert state == {"squares": [0, 1, 4, 9]}
        assert run["content"] == "".join(f"before {n} after {n} is {n * n} " for n in range(4))
        texts = [event.data["content"] for event in counted(events) if event.event == "RunResponse"]
        assert "".join(texts) == run["content"], "what counts in the log is what the run says"
    else:
        assert state == {"sums": [3, 3, 3]}
        assert run["content"] == "begin [3, 3, 3] 3"


async def test_saying_something_else_before_a_finished_step_fails(database_url: str, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    async with server_process(database_url, Forgetful, lease_seconds=1) as server:
        run_id = await started(server.client, "forgetful", ledger, 0.3)
        server.kill()
    async with server_process(database_url, Forgetful, lease_seconds=1) as server:
        run = await server.client.ended(run_id)
        assert (run["status"], run["error"]["code"], run["attempt"]) == ("failed", "replay_diverged", 2)
        assert "'finished'" in run["error"]["message"]
        assert run["error"]["event"] == "StepCompleted 4"


async def test_saying_something_else_after_the_last_finished_step_supersedes(database_url: str, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    async with server_process(database_url, Changing, lease_seconds=1) as server:
        run_id = await started(server.client, "changing", ledger, 0.45)
        server.kill()
    async with server_process(database_url, Changing, lease_seconds=1) as server:
        run = await server.client.ended(run_id)
        events = await server.client.events(run_id)
    assert run["status"] == "completed"
    assert run["content"] == "always the same [2.0] [2.1] [2.2] "
    recovered = next(event for event in events if event.event == "RunRecovered")
    same = next(event for event in events if event.data.get("content") == "the same ")
    assert recovered.data["superseded_after"] == same.data["sequence"]
    assert recovered.data["attempt"] == 2


async def test_a_run_that_takes_its_process_along_ends_as_crash_loop(sqlite_url: str, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    async with server_process(sqlite_url, Suicidal) as server:
        run_id = await started(server.client, "suicidal", ledger, 0.1)
        server.kill()
    for _ in range(5):
        async with server_process(sqlite_url, Suicidal) as server:
            server.kill()
    async with server_process(sqlite_url, Suicidal) as server:
        run = await server.client.ended(run_id)
        assert (run["status"], run["error"]["code"]) == ("failed", "crash_loop")
        assert (await server.client.finish("suicidal", {"session_id": "s"}, ledger=str(ledger)))[
            "status"
        ] == "completed"
