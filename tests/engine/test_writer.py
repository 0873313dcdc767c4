"""The event writer: one commit for many, a bounded number of events in memory, and nothing of a run that was lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, ClassVar

import pytest

from app import RunResponse, Workflow
from tests.support.server import Client, running
from tests.support.slow_database import SlowDatabase, slow_databases
from tests.support.tables import execute, query
from tests.support.waiting import until

PENDING_AT_MOST = 1000 + 64 + 500
"""What waits for its commit, what async code says between two looks at that, and what is being written."""


class Speaker(Workflow):
    """Says a number of things, and counts them."""

    said: ClassVar[int] = 0

    async def run(self, count: int, seconds: float = 0) -> AsyncIterator[RunResponse]:
        for number in range(count):
            yield RunResponse(content=number)
            Speaker.said += 1
            if seconds:
                await asyncio.sleep(seconds)


class SyncSpeaker(Workflow):
    """The same in a thread."""

    def run(self, count: int, seconds: float = 0) -> Iterator[RunResponse]:
        for number in range(count):
            yield RunResponse(content=number)
            Speaker.said += 1
            if seconds:
                time.sleep(seconds)


class Stepping(Workflow):
    """Steps, saves and text."""

    async def run(self, steps: int) -> AsyncIterator[RunResponse]:
        for number in range(steps):
            self.session_state[f"{number}"] = await self.step(lambda given: given * given, number)
            await self.write_to_storage()
            yield RunResponse(content=f"{number} ")


class Deaf(Workflow):
    """Catches every error it can, and goes on."""

    calls: ClassVar[list[str]] = []

    async def run(self) -> AsyncIterator[RunResponse]:
        for number in range(200):
            try:
                yield RunResponse(content=number)
                await asyncio.sleep(0.01)
                await self.step(self.work, number)
            except Exception as error:
                Deaf.calls.append(f"caught {error!r}")

    def work(self, number: int) -> None:
        Deaf.calls.append(f"{number}")


class SyncDeaf(Workflow):
    """The same in a thread."""

    def run(self) -> Iterator[RunResponse]:
        for number in range(200):
            try:
                yield RunResponse(content=number)
                time.sleep(0.01)
                self.step(self.work, number)
            except Exception as error:
                Deaf.calls.append(f"caught {error!r}")

    def work(self, number: int) -> None:
        Deaf.calls.append(f"{number}")


def events_in(url: str, run_id: str) -> int:
    (row,) = query(url, "SELECT count(*) AS events FROM run_events WHERE run_id = :run", run=run_id)
    return int(row["events"])


async def test_the_events_of_many_runs_go_into_common_commits(database_url: str) -> None:
    with slow_databases() as opened:
        async with running(database_url, Speaker) as client:
            (database,) = opened
            database.seconds = 0.02
            before, runs = database.writes, 20
            ended = await asyncio.gather(*(client.finish("speaker", count=100, seconds=0.001) for _ in range(runs)))
            assert {run["status"] for run in ended} == {"completed"}
            # Each run has writes of its own to start, claim and end it; its 100 events share the others.
            assert database.writes - before < runs * 3 + runs * 100 / 10


@pytest.mark.parametrize("workflow", ["speaker", "sync-speaker"])
async def test_an_author_waits_when_the_database_is_slow(database_url: str, workflow: str) -> None:
    Speaker.said, count = 0, 6000
    most = 0
    with slow_databases() as opened:
        async with running(database_url, Speaker, SyncSpeaker) as client:
            run_id = (await client.start(workflow, count=count))["run_id"]
            opened[0].seconds = 0.1
            async with asyncio.timeout(30):
                while Speaker.said < count:
                    written = events_in(database_url, run_id)
                    most = max(most, Speaker.said - written)
                    await asyncio.sleep(0.01)
            opened[0].seconds = 0
            assert (await client.ended(run_id))["status"] == "completed"
            contents = [event.data["content"] for event in await client.events(run_id) if event.event == "RunResponse"]
    assert contents == list(range(count))
    assert 500 < most <= PENDING_AT_MOST


async def test_one_author_who_waits_holds_up_no_other(sqlite_url: str) -> None:
    with slow_databases() as opened:
        async with running(sqlite_url, Speaker, SyncSpeaker) as client:
            noisy = [await client.start(workflow, count=50_000) for workflow in ("speaker", "sync-speaker")]
            opened[0].seconds = 0.05
            began = time.monotonic()
            quiet = await client.finish("speaker", count=3)
            assert quiet["status"] == "completed"
            assert time.monotonic() - began < 3
            opened[0].seconds = 0
            for run in noisy:
                await client.post(f"/runs/{run['run_id']}/cancel")
                assert (await client.ended(run["run_id"]))["status"] == "cancelled"


@pytest.mark.parametrize("workflow", ["deaf", "sync-deaf"])
async def test_of_a_run_that_was_lost_nothing_more_is_written_or_done(database_url: str, workflow: str) -> None:
    Deaf.calls.clear()
    async with running(database_url, Deaf, SyncDeaf, Speaker) as client:
        run_id = (await client.start(workflow))["run_id"]
        other = await client.start("speaker", count=100, seconds=0.005)

        async def begun() -> bool:
            return len(Deaf.calls) > 3

        await until(begun)
        execute(  # alive, or this process would recover the run from it
            database_url,
            "INSERT INTO workers (worker_id, host, process_id, started_at, heartbeat_at)"
            " VALUES ('another', 'elsewhere', 0, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)",
        )
        execute(
            database_url, "UPDATE runs SET attempt = attempt + 1, worker_id = 'another' WHERE run_id = :run", run=run_id
        )
        events, calls = events_in(database_url, run_id), len(Deaf.calls)
        await asyncio.sleep(0.4)
        assert events_in(database_url, run_id) <= events + 1, "but what was being committed just then"
        assert len(Deaf.calls) <= calls + 1
        assert not [call for call in Deaf.calls if call.startswith("caught")], "author code cannot swallow the fence"
        (row,) = query(database_url, "SELECT status, worker_id FROM runs WHERE run_id = :run", run=run_id)
        assert row == {"status": "running", "worker_id": "another"}
        assert (await client.ended(other["run_id"]))["status"] == "completed", "the other run of that commit is whole"
        assert [event.id for event in await client.events(other["run_id"])] == [f"{n}" for n in range(1, 103)]


class Quiet(Workflow):
    """Says nothing, and then saves, or just ends."""

    gate: ClassVar[asyncio.Event]

    async def run(self, saves: bool) -> str:
        self.session_state["mine"] = True
        await Quiet.gate.wait()
        if saves:
            await self.write_to_storage()
        return "done"


@pytest.mark.parametrize("saves", [True, False])
async def test_a_run_that_was_lost_is_neither_saved_nor_ended_here(database_url: str, saves: bool) -> None:
    Quiet.gate = asyncio.Event()
    async with running(database_url, Quiet, lease_seconds=30) as client:
        run_id = (await client.start("quiet", {"session_id": "s"}, saves=saves))["run_id"]

        async def claimed() -> bool:
            return bool((await client.get(f"/runs/{run_id}")).json()["attempt"])

        await until(claimed)
        (before,) = query(database_url, "SELECT worker_id FROM runs WHERE run_id = :run", run=run_id)
        execute(database_url, "UPDATE runs SET attempt = attempt + 1 WHERE run_id = :run", run=run_id)
        Quiet.gate.set()
        await asyncio.sleep(0.3)
        (row,) = query(database_url, "SELECT status, worker_id FROM runs WHERE run_id = :run", run=run_id)
        assert row == {"status": "running", "worker_id": before["worker_id"]}
        assert events_in(database_url, run_id) == 1
        assert (await client.get("/sessions/s/state")).json() == {}


class Retrying(Workflow):
    """A step that fails at first, and is tried again some time later."""

    calls: ClassVar[list[float]] = []

    async def run(self) -> AsyncIterator[RunResponse]:
        yield RunResponse(content=await self.step(self.work, retries=3, backoff_seconds=0.3))

    def work(self) -> str:
        Retrying.calls.append(time.monotonic())
        raise ValueError("not yet")


class SyncRetrying(Workflow):
    """The same in a thread."""

    def run(self) -> Iterator[RunResponse]:
        yield RunResponse(content=self.step(self.work, retries=3, backoff_seconds=0.3))

    def work(self) -> str:
        Retrying.calls.append(time.monotonic())
        raise ValueError("not yet")


@pytest.mark.parametrize("workflow", ["retrying", "sync-retrying"])
async def test_a_step_is_not_tried_again_once_the_run_is_lost(sqlite_url: str, workflow: str) -> None:
    Retrying.calls.clear()
    async with running(sqlite_url, Retrying, SyncRetrying) as client:
        run_id = (await client.start(workflow))["run_id"]

        async def tried() -> bool:
            return bool(Retrying.calls)

        await until(tried)
        execute(
            sqlite_url, "UPDATE runs SET attempt = attempt + 1, worker_id = 'another' WHERE run_id = :run", run=run_id
        )
        await asyncio.sleep(0.6)
        assert len(Retrying.calls) == 1


class Saving(Workflow):
    """Saves, and says so, again and again."""

    async def run(self) -> AsyncIterator[RunResponse]:
        for number in range(1000):
            self.session_state["number"] = number
            yield RunResponse(content=number)
            await self.write_to_storage()


class SyncSaving(Workflow):
    """The same in a thread."""

    def run(self) -> Iterator[RunResponse]:
        for number in range(1000):
            self.session_state["number"] = number
            yield RunResponse(content=number)
            self.write_to_storage()


class Pausing(Workflow):
    """Asks at once, and nobody answers."""

    async def run(self) -> AsyncIterator[RunResponse]:
        yield RunResponse(content=await self.wait_for_input("well?"))


@pytest.mark.parametrize("workflow", ["saving", "sync-saving", "pausing"])
async def test_a_run_that_is_cancelled_while_it_writes_ends_once(database_url: str, workflow: str) -> None:
    async def cancelled_after(client: Client, seconds: float) -> None:
        run_id = (await client.start(workflow))["run_id"]
        await asyncio.sleep(seconds)
        assert (await client.post(f"/runs/{run_id}/cancel")).status_code == 202
        run, events = await client.ended(run_id), await client.events(run_id)
        assert (run["status"], run["attempt"]) == ("cancelled", 1)
        assert [event.data["sequence"] for event in events] == list(range(1, len(events) + 1))
        saved = [event.data["revision"] for event in events if event.event == "StateSaved"]
        assert saved == list(range(1, run["session_revision"] + 1))

    with slow_databases() as opened:
        async with running(database_url, Saving, SyncSaving, Pausing) as client:
            opened[0].seconds = 0.1
            await asyncio.gather(*(cancelled_after(client, moment / 50) for moment in range(5, 35)))
            opened[0].seconds = 0


def every_third(number: int) -> bool:
    return number % 3 == 0


def for_a_while(number: int) -> bool:
    return number % 40 > 33


@pytest.mark.parametrize("away", [every_third, for_a_while])
async def test_a_database_that_is_away_at_times_costs_time_and_nothing_else(
    database_url: str, away: Callable[[int], bool]
) -> None:
    with slow_databases() as opened:
        async with running(database_url, Stepping, Speaker, SyncSpeaker) as client:
            runs = [
                await client.start("stepping", {"session_id": "s"}, steps=3),
                await client.start("speaker", count=300, seconds=0.001),
                await client.start("sync-speaker", count=300, seconds=0.001),
            ]
            opened[0].away = away
            ended = [await client.ended(run["run_id"], seconds=30) for run in runs]
            opened[0].away = lambda _number: False
            assert [run["status"] for run in ended] == ["completed"] * 3, [run["error"] for run in ended]
            assert opened[0].refused
            for run in ended:
                events = await client.events(run["run_id"])
                assert [event.data["sequence"] for event in events] == list(range(1, len(events) + 1))
            for run in ended[1:]:
                said = [event.data["content"] for event in (await client.events(run["run_id"]))[1:-1]]
                assert said == list(range(300))
            assert (await client.get("/sessions/s/state")).json() == {"0": 0, "1": 1, "2": 4}
            await _is_well(client, opened[0])


async def test_a_claim_that_the_database_refuses_is_made_again(database_url: str) -> None:
    with slow_databases() as opened:
        async with running(database_url, Speaker) as client:
            database = opened[0]
            for refusals in range(1, 4):
                run = await _accepted_before(client, database, refusals)
                assert (await client.ended(run["run_id"]))["status"] == "completed"
            assert database.refused


async def _accepted_before(client: Client, database: SlowDatabase, refusals: int) -> dict[str, Any]:
    """A run that is accepted just before the database goes away for so many writes."""
    while True:
        first = database.writes + 1  # which is the acceptance, unless something else comes between
        database.away = range(first + 1, first + 1 + refusals).__contains__
        answer = await client.post("/workflows/speaker/runs", json={"input": {"count": 1}})
        if answer.status_code == 202:
            run: dict[str, Any] = answer.json()
            return run


async def _is_well(client: Client, database: SlowDatabase) -> None:
    """Afterwards it serves as before."""
    run: dict[str, Any] = await client.finish("speaker", count=3)
    assert run["status"] == "completed"
    assert (await client.get("/readyz")).status_code == 200
    assert database.writes
