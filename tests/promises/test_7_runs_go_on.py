"""Promise 7: when a worker dies, its runs go on elsewhere within the lease plus two seconds; in one process, at the
next start. A worker that was only asleep can write nothing once its run has moved on.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app import RunResponse, Workflow
from tests.conformance.calls import read_calls, recorded
from tests.support import databases
from tests.support.cluster import Cluster, Member, cluster
from tests.support.finding import find
from tests.support.following import logged
from tests.support.server import Client, SseEvent
from tests.support.tables import execute, query
from tests.support.waiting import until

LEASE_SECONDS = 1.0
WITHIN = LEASE_SECONDS + 2


class Steady(Workflow):
    """Steps in a loop, in a thread."""

    def run(self, ledger: str, steps: int = 6, seconds: float = 0.25) -> Iterator[RunResponse]:
        for number in range(steps):
            self.step(self.work, ledger, f"{number}", seconds, name=f"{number}")
            yield RunResponse(content=f"{number} ")
        self.session_state["done"] = True

    def work(self, ledger: str, step: str, seconds: float) -> None:
        with recorded(ledger, self.run_id, step):
            time.sleep(seconds)


class AsyncSteady(Workflow):
    """The same on the event loop."""

    async def run(self, ledger: str, steps: int = 6, seconds: float = 0.25) -> AsyncIterator[RunResponse]:
        for number in range(steps):
            await self.step(self.work, ledger, f"{number}", seconds, name=f"{number}")
            yield RunResponse(content=f"{number} ")
        self.session_state["done"] = True

    async def work(self, ledger: str, step: str, seconds: float) -> None:
        with recorded(ledger, self.run_id, step):
            await asyncio.sleep(seconds)


class Talking(Workflow):
    """Says something all the time, without any step: what a fence has most to do with."""

    async def run(self, ledger: str, pieces: int = 160) -> AsyncIterator[RunResponse]:
        with recorded(ledger, self.run_id, "begun"):
            for number in range(pieces):
                yield RunResponse(content=f"{number} ")
                await asyncio.sleep(0.02)
        self.session_state["done"] = True


class SyncTalking(Workflow):
    """The same in a thread."""

    def run(self, ledger: str, pieces: int = 160) -> Iterator[RunResponse]:
        with recorded(ledger, self.run_id, "begun"):
            for number in range(pieces):
                yield RunResponse(content=f"{number} ")
                time.sleep(0.02)
        self.session_state["done"] = True


class Saving(Workflow):
    """Writes the state, again and again."""

    async def run(self, ledger: str) -> AsyncIterator[RunResponse]:
        with recorded(ledger, self.run_id, "begun"):
            for number in range(40):
                self.session_state["number"] = number
                await self.write_to_storage()
                yield RunResponse(content=f"{number} ")
                await asyncio.sleep(0.05)


class Asking(Workflow):
    """Waits for an answer; says None when nobody gives one in time."""

    async def run(self, ledger: str, patience: float | None = None) -> AsyncIterator[RunResponse]:
        await self.step(self.work, ledger, name="before")
        try:
            answer = await self.wait_for_input("how many?", schema={"type": "integer"}, timeout_seconds=patience)
        except TimeoutError:
            answer = None
        yield RunResponse(content=f"{answer}")

    async def work(self, ledger: str) -> None:
        with recorded(ledger, self.run_id, "before"):
            pass


WORKFLOWS = (Steady, AsyncSteady, Talking, SyncTalking, Saving, Asking)


@pytest.fixture(scope="module")
async def postgres(postgres_template: str) -> AsyncIterator[Cluster]:
    """Two servers and two workers, for all tests of the module: each of them leaves some of these dead or asleep."""
    with databases.copy_of_postgres(postgres_template) as url:
        async with cluster(url, *WORKFLOWS, lease_seconds=LEASE_SECONDS) as members:
            yield members


@pytest.fixture
async def members(postgres: Cluster) -> Cluster:
    """The same, whole again."""
    await postgres.whole()
    return postgres


async def owner_of(members: Cluster, run_id: str) -> Member:
    """The worker that executes the run, once one does."""
    sql = "SELECT process_id FROM runs JOIN workers USING (worker_id) WHERE run_id = :run AND status = 'running'"

    async def look() -> Member | None:
        rows = await asyncio.to_thread(query, members.database_url, sql, run=run_id)
        return next((member for member in members.executors if rows and member.pid == rows[0]["process_id"]), None)

    return await find(look)


async def called(ledger: Path, run_id: str, step: str) -> None:
    """Wait until the step has been called."""

    async def look() -> bool:
        return (run_id, step) in read_calls(ledger).of

    await until(look)


async def status_is(client: Client, run_id: str, status: str) -> dict[str, Any]:
    """The run, once it has the status."""

    async def look() -> dict[str, Any] | None:
        run: dict[str, Any] = (await client.get(f"/runs/{run_id}")).json()
        return run if run["status"] == status else None

    return await find(look)


def at(event: SseEvent) -> float:
    """When it was said, on the wall clock."""
    return datetime.fromisoformat(event.data["created_at"]).timestamp()


def is_whole(events: list[SseEvent]) -> None:
    """1..n, with one end, which is the last."""
    assert [event.data["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert [event.event for event in events].index("RunFinished") == len(events) - 1


def effective_text(events: list[SseEvent]) -> str:
    """What counts, after what each RunRecovered supersedes."""
    kept: list[SseEvent] = []
    for event in events:
        if event.event == "RunRecovered":
            kept = [one for one in kept if one.data["sequence"] <= event.data["superseded_after"]]
        if event.event == "RunResponse":
            kept.append(event)
    return "".join(event.data["content"] for event in kept)


@pytest.mark.parametrize("workflow", ["steady", "async-steady"])
async def test_what_a_killed_worker_ran_goes_on_at_another(members: Cluster, tmp_path: Path, workflow: str) -> None:
    ledger = tmp_path / "ledger"
    async with members.client() as client:
        run_id = (await client.start(workflow, ledger=str(ledger)))["run_id"]
        await called(ledger, run_id, "2")
        victim = await owner_of(members, run_id)
        killed_at = time.time()
        victim.kill()
        run = await client.ended(run_id)
        events = await client.events(run_id)
    assert (run["status"], run["attempt"], run["content"]) == ("completed", 2, "0 1 2 3 4 5 ")
    is_whole(events)
    recovered = next(event for event in events if event.event == "RunRecovered")
    assert at(recovered) - killed_at < WITHIN
    calls = read_calls(ledger)
    assert calls.repeated <= 1, "only what was under way is done again"
    assert {call.process_id for call in calls.of[run_id, "5"]}.isdisjoint({victim.pid})
    assert await _revisions_by(members, run["session_id"], run_id) == 1


async def test_what_the_one_process_ran_goes_on_at_its_next_start(sqlite_url: str, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    async with cluster(sqlite_url, *WORKFLOWS) as members, members.client() as client:
        runs = [await client.start(workflow, ledger=str(ledger)) for workflow in ("steady", "async-steady", "talking")]
        paused = await client.start("asking", ledger=str(ledger))
        await called(ledger, runs[0]["run_id"], "1")
        await status_is(client, paused["run_id"], "paused")
        members.servers[0].kill()
        await members.servers[0].start()
        for run in runs:
            ended = await client.ended(run["run_id"])
            assert (ended["status"], ended["attempt"]) == ("completed", 2)
            is_whole(await client.events(run["run_id"]))
        assert (await client.get(f"/runs/{paused['run_id']}")).json()["status"] == "paused"


@pytest.mark.parametrize("workflow", ["talking", "sync-talking", "steady"])
async def test_a_worker_that_slept_through_its_lease_writes_nothing_more(
    members: Cluster, tmp_path: Path, workflow: str
) -> None:
    ledger = tmp_path / "ledger"
    async with members.client() as client:
        run_id = (await client.start(workflow, ledger=str(ledger)))["run_id"]
        await called(ledger, run_id, "1" if workflow == "steady" else "begun")
        sleeper = await owner_of(members, run_id)
        await asyncio.sleep(0.2)
        sleeper.freeze()
        frozen_at = time.time()

        async def moved_on() -> bool:
            return await owner_of(members, run_id) is not sleeper

        assert await until(moved_on)
        assert time.time() - frozen_at < WITHIN + 0.2  # which is how exactly this looks
        await asyncio.sleep(0.3)
        sleeper.thaw()  # while the other is at work
        run = await client.ended(run_id)
        events = await client.events(run_id)
        await asyncio.sleep(0.5)
        assert await client.events(run_id) == events, "the log has grown after its end"
    assert run["status"] == "completed", run["error"]
    is_whole(events)
    assert effective_text(events) == run["content"]
    assert [event.event for event in events].count("RunRecovered") == run["attempt"] - 1
    assert await _revisions_by(members, run["session_id"], run_id) == 1
    assert not troubles(sleeper)
    calls = read_calls(ledger)
    completed = {event.data["name"]: at(event) for event in events if event.event == "StepCompleted"}
    assert not [
        step for (_, step), made in calls.of.items() for call in made if call.begun_at > completed.get(step, 9e9)
    ]


async def test_a_worker_that_wakes_after_the_end_changes_nothing(members: Cluster, tmp_path: Path) -> None:
    async with members.client() as client:
        run_id = (await client.start("talking", ledger=str(tmp_path / "ledger"), pieces=40))["run_id"]
        sleeper = await owner_of(members, run_id)
        await asyncio.sleep(0.2)
        sleeper.freeze()
        run, events = await client.ended(run_id), await client.events(run_id)
        state = (await client.get(f"/sessions/{run['session_id']}/state")).json()
        sleeper.thaw()
        await asyncio.sleep(1)
        assert (run["status"], run["attempt"]) == ("completed", 2)
        assert await client.events(run_id) == events
        assert (await client.get(f"/runs/{run_id}")).json() == run
        assert (await client.get(f"/sessions/{run['session_id']}/state")).json() == state


async def test_a_worker_that_falls_asleep_inside_a_transaction_keeps_nobody_out(
    members: Cluster, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    async with members.client() as client, members.client(1) as other:
        run_id = (await client.start("saving", {"session_id": "locked"}, ledger=str(ledger)))["run_id"]
        await called(ledger, run_id, "begun")
        sleeper = await owner_of(members, run_id)
        with psycopg.connect(members.database_url) as connection:
            connection.execute("SELECT * FROM sessions WHERE session_id = 'locked' FOR UPDATE")
            await asyncio.sleep(0.3)  # by now its save has locked the run, and waits for the session
            sleeper.freeze()
            frozen_at = time.time()
        patched = await other.patch("/sessions/locked/state", json={"patched": True})
        assert patched.status_code == 200
        assert time.time() - frozen_at < WITHIN, "the sleeper's lock on the session is taken from it"

        async def recovered() -> bool:
            return any(event["event"] == "RunRecovered" for event in await logged(client, run_id))

        assert await until(recovered)
        assert time.time() - frozen_at < WITHIN
        sleeper.thaw()
        run, events = await client.ended(run_id), await client.events(run_id)
        state = (await client.get("/sessions/locked/state")).json()
    assert (run["status"], run["attempt"]) == ("completed", 2), run["error"]
    assert state == {"number": 39, "patched": True}
    is_whole(events)
    assert effective_text(events) == "".join(f"{number} " for number in range(40))


async def test_an_accepted_run_whose_job_was_lost_is_found(members: Cluster, tmp_path: Path) -> None:
    url = members.database_url
    for worker in members.workers:
        worker.freeze()
    async with members.client() as client:
        run = await client.start("steady", ledger=str(tmp_path / "ledger"), steps=1, seconds=0)
        jobs = "SELECT id FROM procrastinate_jobs WHERE args->>'run_id' = :run AND status = 'todo'"

        async def deferred_again() -> bool:
            return bool(await asyncio.to_thread(query, url, jobs, run=run["run_id"]))

        assert execute(url, "DELETE FROM procrastinate_jobs WHERE args->>'run_id' = :run", run=run["run_id"]) == 1
        assert await until(deferred_again), "a server without workers finds it"
        assert len(query(url, jobs, run=run["run_id"])) == 1
        for worker in members.workers:
            worker.thaw()
        ended = await client.ended(run["run_id"])
    assert (ended["status"], ended["attempt"]) == ("completed", 1)


async def test_a_job_that_is_there_more_than_once_executes_the_run_once(members: Cluster, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    arguments = "jsonb_build_object('tenant', 'default', 'run_id', CAST(:run AS text))"
    again = (
        f"SELECT procrastinate_defer_jobs_v1(ARRAY[ROW('runs', 'execute_run', 0, NULL, NULL, {arguments}, NULL)"
        "::procrastinate_job_to_defer_v1])"
    )
    async with members.client() as client:
        run_id = (await client.start("steady", ledger=str(ledger), steps=3))["run_id"]
        for _ in range(4):
            execute(members.database_url, again, run=run_id)
        await called(ledger, run_id, "1")
        for _ in range(4):
            execute(members.database_url, again, run=run_id)
        run = await client.ended(run_id)
        assert (run["status"], run["attempt"]) == ("completed", 1)
        execute(members.database_url, again, run=run_id)
        jobs = "SELECT id FROM procrastinate_jobs WHERE args->>'run_id' = :run"

        async def gone() -> bool:
            return not await asyncio.to_thread(query, members.database_url, jobs, run=run_id)

        assert await until(gone)
        assert (await client.get(f"/runs/{run_id}")).json() == run
        is_whole(await client.events(run_id))
    assert read_calls(ledger).repeated == 0


async def test_a_paused_run_outlives_every_process_and_is_answered_anywhere(members: Cluster, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    async with members.client() as client, members.client(1) as other:
        run = await client.start("asking", {"session_id": "asked"}, ledger=str(ledger))
        run_id = run["run_id"]
        paused = await status_is(client, run_id, "paused")
        following = await client.start("steady", ledger=str(ledger), steps=1)
        assert (await client.ended(following["run_id"]))["status"] == "completed", "it holds no worker"
        waits = await other.start("asking", {"session_id": "asked"}, ledger=str(ledger))
        assert (waits["status"], waits["position"]) == ("queued", 1), "it is its session's live run"
        for member in members.members:
            member.kill()
        await members.whole()
        assert (await other.get(f"/runs/{run_id}")).json() == paused
        assert (await other.get(f"/runs/{waits['run_id']}")).json()["status"] == "queued"
        events = await logged(other, run_id)
        assert events[-1]["event"] == "RunPaused"
        body = {"request_id": events[-1]["request_id"], "value": 41}
        assert (await other.post(f"/runs/{run_id}/input", json=body)).status_code == 202
        ended = await client.ended(run_id)
        assert (ended["status"], ended["content"], ended["attempt"]) == ("completed", "41", 2)
        names = [event.event for event in await client.events(run_id)]
        assert names.count("RunContinued") == 1
        assert "RunRecovered" not in names, "an answer is no death"
        assert len(read_calls(ledger).of[run_id, "before"]) == 1
        await status_is(client, waits["run_id"], "paused")
        assert (await client.post(f"/runs/{waits['run_id']}/cancel")).status_code == 202
        assert (await client.get(f"/runs/{waits['run_id']}")).json()["status"] == "cancelled"


async def test_questions_that_nobody_answers_time_out_once_each(members: Cluster, tmp_path: Path) -> None:
    ledger = str(tmp_path / "ledger")
    async with members.client() as client:
        runs = await asyncio.gather(*(client.start("asking", ledger=ledger, patience=0.8) for _ in range(30)))
        ended = await asyncio.gather(*(client.ended(run["run_id"]) for run in runs))
        assert {(run["status"], run["content"]) for run in ended} == {("completed", "None")}
        for run in runs:
            events = await client.events(run["run_id"])
            is_whole(events)
            assert [event.event for event in events].count("RunContinued") == 1
    assert not [trouble for member in members.members for trouble in troubles(member)]


async def test_a_question_whose_time_runs_out_as_it_is_answered_has_one_answer(
    members: Cluster, tmp_path: Path
) -> None:
    ledger = str(tmp_path / "ledger")

    async def answer(client: Client, run_id: str, delay: float) -> int:
        paused = await status_is(client, run_id, "paused")
        events = await logged(client, run_id)
        assert paused["run_id"] == run_id
        await asyncio.sleep(delay)
        body = {"request_id": events[-1]["request_id"], "value": 5}
        return (await client.post(f"/runs/{run_id}/input", json=body)).status_code

    async with members.client() as client:
        runs = await asyncio.gather(*(client.start("asking", ledger=ledger, patience=1.0) for _ in range(16)))
        answers = await asyncio.gather(*(answer(client, run["run_id"], 0.8 + n / 16) for n, run in enumerate(runs)))
        for run, status in zip(runs, answers, strict=True):
            ended = await client.ended(run["run_id"])
            assert (status, ended["content"]) in {(202, "5"), (409, "None")}
            names = [event.event for event in await client.events(run["run_id"])]
            assert names.count("RunContinued") == 1
    assert not [trouble for member in members.members for trouble in troubles(member)]


def troubles(member: Member) -> list[str]:
    """Lines of level error, but for what Procrastinate says of jobs that were taken from a worker which slept."""
    lines = [line for line in member.said().splitlines() if line.split(" ")[1:2] == ["error"]]
    return [line for line in lines if "process job execute_run" not in line]


async def _revisions_by(members: Cluster, session_id: str, run_id: str) -> int:
    async with members.client() as client:
        page = (await client.get(f"/sessions/{session_id}/state/revisions")).json()
    return sum(revision["run_id"] == run_id for revision in page["items"])
