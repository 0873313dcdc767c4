"""Promise 7, the orderly side: runs that are cancelled, interrupted and handed over between processes."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import RunResponse, Workflow
from tests.conformance.calls import read_calls, recorded
from tests.support import databases
from tests.support.cluster import Cluster, cluster, run_command
from tests.support.finding import find
from tests.support.following import follow, logged
from tests.support.problems import problem_of
from tests.support.server import Client, running
from tests.support.tables import query
from tests.support.waiting import until

LONG_LEASE_SECONDS = 30
"""So long that nothing here can be the work of a lease that ran out."""


class Sleeper(Workflow):
    """Async code that waits for ever, in one piece."""

    async def run(self) -> AsyncIterator[RunResponse]:
        yield RunResponse(content="begun")
        await asyncio.sleep(1000)


class SyncSleeper(Workflow):
    """A thread that yields now and then."""

    def run(self, seconds: float = 0.5) -> Iterator[RunResponse]:
        while True:
            yield RunResponse(content=".")
            time.sleep(seconds)


class Steps(Workflow):
    """Steps and text, of some length."""

    async def run(self, ledger: str, steps: int, seconds: float) -> AsyncIterator[RunResponse]:
        for number in range(steps):
            yield RunResponse(content=await self.step(self.work, ledger, f"{number}", seconds, name=f"{number}"))
        self.session_state["done"] = True

    async def work(self, ledger: str, step: str, seconds: float) -> str:
        with recorded(ledger, self.run_id, step):
            await asyncio.sleep(seconds)
        return f"{step} "


class Asking(Workflow):
    """Wants a number."""

    async def run(self) -> AsyncIterator[RunResponse]:
        answer = await self.wait_for_input("how many?", schema={"type": "integer", "minimum": 1})
        yield RunResponse(content=f"{answer}")


class SyncAsking(Workflow):
    """The same in a thread, with a step first."""

    def run(self) -> Iterator[RunResponse]:
        self.step(lambda: 1, name="first")
        yield RunResponse(content=f"{self.wait_for_input('how many?', schema={'type': 'integer', 'minimum': 1})}")


class Impatient(Workflow):
    """Shows that the error is the author's to catch."""

    def run(self, caught: bool) -> str:
        try:
            self.wait_for_input("anybody?", timeout_seconds=0.1)
        except TimeoutError:
            if caught:
                return "nobody"
            raise
        return "somebody"


class Fussy(Workflow):
    """Fails for one input."""

    def run(self, number: int) -> int:
        if number == 13:
            raise ValueError("not that one")
        self.session_state["number"] = number
        return number


@pytest.fixture(scope="module")
async def members(postgres_template: str) -> AsyncIterator[Cluster]:
    """Two servers and two workers, whose lease nobody waits for."""
    with databases.copy_of_postgres(postgres_template) as url:
        workflows = (Sleeper, SyncSleeper, Steps)
        async with cluster(url, *workflows, lease_seconds=LONG_LEASE_SECONDS) as found:
            yield found


async def event_of(client: Client, run_id: str, name: str) -> dict[str, Any]:
    """The run's first event of this name, once it is there."""

    async def look() -> dict[str, Any] | None:
        return next((event for event in await logged(client, run_id) if event["event"] == name), None)

    return await find(look)


@pytest.mark.parametrize(("workflow", "within"), [("sleeper", 0.5), ("sync-sleeper", 1.0)])
async def test_a_cancel_reaches_whatever_process_executes_the_run(
    members: Cluster, workflow: str, within: float
) -> None:
    async with members.client() as client, members.client(1) as other:
        taken = []
        for asking in (client, other, client):
            run_id = (await client.start(workflow))["run_id"]
            await event_of(other, run_id, "RunResponse")
            began = time.monotonic()
            assert (await asking.post(f"/runs/{run_id}/cancel")).status_code == 202
            run = await client.ended(run_id)
            taken.append(time.monotonic() - began)
            assert run["status"] == "cancelled"
            log = await client.events(run_id)
            await asyncio.sleep(0.6)
            assert await client.events(run_id) == log, "after the end nothing is written"
            assert log[-1].event == "RunFinished"
    assert min(taken) < within, f"{taken}: by the doorbell, not by a look once in a while"
    assert max(taken) < within + 1.5


async def test_a_run_that_interrupts_ends_the_one_before_it_anywhere(members: Cluster, tmp_path: Path) -> None:
    async with members.client() as client, members.client(1) as other:
        first = await client.start("steps", {"session_id": "i"}, ledger=str(tmp_path / "l"), steps=100, seconds=0.1)
        await event_of(client, first["run_id"], "RunResponse")
        options = {"session_id": "i", "on_busy": "interrupt"}
        second = await other.start("steps", options, ledger=str(tmp_path / "l"), steps=1, seconds=0)
        assert (await client.ended(first["run_id"]))["status"] == "cancelled"
        assert (await client.ended(second["run_id"]))["status"] == "completed"
        ends = {run["run_id"]: run["finished_at"] for run in (await client.get("/runs?session_id=i")).json()["items"]}
        assert ends[first["run_id"]] < ends[second["run_id"]]


async def test_interrupting_again_and_again_leaves_one_run_and_no_error(database_url: str) -> None:
    async with running(database_url, Sleeper) as client:
        options = {"session_id": "s", "on_busy": "interrupt"}
        runs = await asyncio.gather(*(client.start("sleeper", options) for _ in range(12)))

        async def one_left() -> bool:
            found = (await client.get("/runs", params={"session_id": "s"})).json()["items"]
            return sum(run["status"] == "running" for run in found) == 1 and all(
                run["status"] in {"running", "cancelled", "queued"} for run in found
            )

        assert await until(one_left)
        for run in runs:
            assert (await client.post(f"/runs/{run['run_id']}/cancel")).status_code in {200, 202}
            assert (await client.ended(run["run_id"]))["status"] == "cancelled"


async def test_a_stopping_worker_hands_its_run_over_at_once(members: Cluster, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    async with members.client() as client:
        run_id = (await client.start("steps", ledger=str(ledger), steps=12, seconds=0.2))["run_id"]
        await event_of(client, run_id, "StepCompleted")
        sql = "SELECT process_id FROM runs JOIN workers USING (worker_id) WHERE run_id = :run"
        (row,) = query(members.database_url, sql, run=run_id)
        leaving = next(worker for worker in members.workers if worker.pid == row["process_id"])
        asked_at = time.time()
        leaving.terminate()
        assert await leaving.exited(10) == 0, leaving.said()
        recovered = await event_of(client, run_id, "RunRecovered")
        assert datetime.fromisoformat(recovered["created_at"]).timestamp() - asked_at < 5
        run = await client.ended(run_id)
        assert (run["status"], run["attempt"]) == ("completed", 2)
        assert run["content"] == "".join(f"{number} " for number in range(12))
        assert query(members.database_url, "SELECT recoveries FROM runs WHERE run_id = :run", run=run_id) == [
            {"recoveries": 0}
        ], "a drain is no death"
        assert not query(members.database_url, "SELECT 1 FROM workers WHERE process_id = :process", process=leaving.pid)
    assert read_calls(ledger).repeated <= 1
    await leaving.start()


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
async def test_a_rolling_restart_under_load_loses_no_event_and_fails_no_run(
    request: pytest.FixtureRequest, tmp_path: Path, database: str
) -> None:
    ledger = tmp_path / "ledger"
    if database == "sqlite":
        await _roll(request.getfixturevalue("sqlite_url"), ledger)
    else:
        with databases.copy_of_postgres(request.getfixturevalue("postgres_template")) as url:
            await _roll(url, ledger)


async def _roll(url: str, ledger: Path) -> None:
    async with cluster(url, Steps, servers=2, workers=0, lease_seconds=LONG_LEASE_SECONDS, drain_seconds=0.3) as both:
        urls = [server.url for server in both.servers]
        readers: list[asyncio.Task[Any]] = []
        loading = asyncio.create_task(_keep_starting(urls, ledger, readers))
        for server in (both.servers[0], both.servers[-1]):
            await asyncio.sleep(0.7)
            server.terminate()
            assert await server.exited(10) == 0, server.said()
            await server.start()
        loading.cancel()
        streams = await asyncio.gather(*readers)
        async with both.client() as client:
            for events in streams:
                run_id = events[0].data["run_id"]
                run = (await client.get(f"/runs/{run_id}")).json()
                assert run["status"] == "completed", run["error"]
                assert events == await client.events(run_id)
                assert all(b.data["sequence"] == a.data["sequence"] + 1 for a, b in pairwise(events))
    assert len(streams) > 2 * len(urls)
    completed: set[tuple[str, str]] = set()
    for events in streams:
        steps = [event.data["name"] for event in events if event.event == "StepCompleted"]
        assert len(steps) == len(set(steps))
        completed |= {(events[0].data["run_id"], name) for name in steps}
    followed = {events[0].data["run_id"] for events in streams}  # not one whose acceptance nobody heard of
    assert completed == {call for call in read_calls(ledger).of if call[0] in followed}


async def _keep_starting(urls: list[str], ledger: Path, readers: list[asyncio.Task[Any]]) -> None:
    """A run every so often, at whichever server takes it."""
    number = 0
    while True:
        number += 1
        body = {"input": {"ledger": str(ledger), "steps": 5, "seconds": 0.2}}
        try:
            async with Client(base_url=urls[number % len(urls)], timeout=5) as client:
                answer = await client.post("/workflows/steps/runs", json=body, headers={"Idempotency-Key": f"{number}"})
        except httpx.TransportError:
            await asyncio.sleep(0.05)
            continue
        assert answer.status_code in {202, 503}, answer.text
        if answer.status_code == 202:
            readers.append(asyncio.create_task(follow(urls, answer.json()["run_id"])))
        await asyncio.sleep(0.15)


async def test_a_second_process_on_one_sqlite_file_is_refused(sqlite_url: str) -> None:
    async with cluster(sqlite_url, Steps) as members:
        environment = {"MILLSTREAM_DATABASE_URL": sqlite_url, "MILLSTREAM_PORT": "0"}
        status, said = await run_command(environment, "serve")
        assert status != 0
        assert "another process has" in said
        assert "Traceback" not in said
        status, said = await run_command(environment, "worker")
        assert status != 0
        assert "Postgres" in said
        async with members.client() as client:
            assert (await client.get("/readyz")).status_code == 200


@pytest.mark.parametrize("workflow", ["asking", "sync-asking"])
async def test_an_answer_has_to_fit_and_to_be_asked_for(database_url: str, workflow: str) -> None:
    async with running(database_url, Asking, SyncAsking) as client:
        run_id = (await client.start(workflow))["run_id"]
        question = await event_of(client, run_id, "RunPaused")
        assert question["prompt"] == "how many?"
        assert question["schema"] == {"type": "integer", "minimum": 1}
        path, request_id = f"/runs/{run_id}/input", question["request_id"]
        for misfit in ("seven", 0, None, 1.5, [1], True):
            problem_of(await client.post(path, json={"request_id": request_id, "value": misfit}), 422)
        problem_of(await client.post(path, json={"request_id": "another", "value": 1}), 409, "not_waiting")
        problem_of(await client.post(path, json={"value": 1}), 422)
        assert (await client.get(f"/runs/{run_id}")).json()["status"] == "paused", "no misfit has moved it"
        answers = [client.post(path, json={"request_id": request_id, "value": number}) for number in (3, 4)]
        given = [answer.status_code for answer in await asyncio.gather(*answers)]
        assert sorted(given) == [202, 409], "one answer counts"
        run = await client.ended(run_id)
        assert (run["status"], run["content"]) == ("completed", "3" if given[0] == 202 else "4")
        problem_of(await client.post(path, json={"request_id": request_id, "value": 5}), 409, "not_waiting")
        names = [event.event for event in await client.events(run_id)]
        assert names.index("RunPaused") + 1 == names.index("RunContinued")
        assert "RunRecovered" not in names


@pytest.mark.parametrize("caught", [True, False])
async def test_nobody_answers_in_time(database_url: str, caught: bool) -> None:
    async with running(database_url, Impatient) as client:
        run = await client.finish("impatient", caught=caught)
        if caught:
            assert (run["status"], run["content"]) == ("completed", "nobody")
        else:
            assert (run["status"], run["error"]["type"]) == ("failed", "TimeoutError")
        continued = await event_of(client, run["run_id"], "RunContinued")
        assert continued["timed_out"] is True


async def test_an_ended_run_can_be_run_again_and_a_live_one_cannot(database_url: str) -> None:
    async with running(database_url, Fussy, Sleeper) as client:
        failed = await client.finish("fussy", {"session_id": "s", "metadata": {"a": 1}}, number=13)
        assert failed["status"] == "failed"
        path = f"/runs/{failed['run_id']}/retry"
        again = await client.post(path, json={})
        assert again.status_code == 202
        assert again.headers["Location"] == f"/runs/{again.json()['run_id']}/events"
        ended = await client.ended(again.json()["run_id"])
        assert (ended["status"], ended["input"], ended["attempt"]) == ("failed", {"number": 13}, 1)
        other = (await client.post(path, json={"input": {"number": 7}})).json()
        ended = await client.ended(other["run_id"])
        assert (ended["status"], ended["content"], ended["session_id"]) == ("completed", 7, "s")
        assert ended["metadata"] == {"a": 1}
        assert (await client.get(f"/runs/{failed['run_id']}")).json() == failed, "the old one stays as it is"
        problem_of(await client.post(path, json={"input": {"number": "seven"}}), 422)
        live = await client.start("sleeper")
        problem_of(await client.post(f"/runs/{live['run_id']}/retry", json={}), 409, "run_not_ended")
