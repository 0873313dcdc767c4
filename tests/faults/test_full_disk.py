"""A disk that is full: requests that write are refused, all else goes on, and so does everything when there is room."""

import asyncio
import os
import re
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from app import RunResponse, Workflow
from app.store.sqlite import WAL_BYTES
from tests.support.cluster import Member, cluster, run_command
from tests.support.disks import Disk, small_disk
from tests.support.following import follow, logged
from tests.support.ledger import Ledger
from tests.support.problems import problem_of
from tests.support.server import Client
from tests.support.tables import query
from tests.support.waiting import until

Resource = dict[str, Any]
MERGE = {"Content-Type": "application/merge-patch+json"}
FULL_SECONDS = 4.0
STEPS = 30


class Steady(Workflow):
    """Steps, text and saves, one after the other."""

    async def run(self, ledger: str, seconds: float = 0.05) -> AsyncIterator[RunResponse]:
        for number in range(STEPS):
            await self.step(self.work, ledger, number, seconds, name=f"{number}")
            self.session_state[f"{number}"] = "x" * 500
            await self.write_to_storage()
            yield RunResponse(content=f"{number} ")

    async def work(self, ledger: str, number: int, seconds: float) -> None:
        with Ledger(ledger).call(f"{self.run_id}/{number}"):
            await asyncio.sleep(seconds)


class SyncSteady(Workflow):
    """The same in a thread."""

    def run(self, ledger: str, seconds: float = 0.05) -> Iterator[RunResponse]:
        for number in range(STEPS):
            self.step(self.work, ledger, number, name=f"{number}")
            self.session_state[f"{number}"] = "x" * 500
            self.write_to_storage()
            yield RunResponse(content=f"{number} ")

    def work(self, ledger: str, number: int) -> None:
        with Ledger(ledger).call(f"{self.run_id}/{number}"):
            pass


class Loud(Workflow):
    """Says very much."""

    async def run(self, kilobytes: int) -> AsyncIterator[RunResponse]:
        for _ in range(kilobytes // 10):
            yield RunResponse(content="x" * 10_240)
            await asyncio.sleep(0)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", megabytes=64) as disk:
        yield disk


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return str(tmp_path / "ledger")


def url_on(disk: Disk) -> str:
    return f"sqlite:///{disk.folder}/millstream.db"


async def refused(client: Client, ledger: str) -> bool:
    """Whether a run is refused now because the disk is full."""
    answer = await client.post("/workflows/steady/runs", json={"input": {"ledger": ledger}})
    if answer.status_code == 202:  # what was free inside the database's own files
        return False
    problem = problem_of(answer, 503, "database_full")
    assert "make some" in problem["detail"]
    assert int(answer.headers["Retry-After"]) >= 1
    return True


async def until_full(client: Client) -> None:
    """Until what is free inside the database's own files does not even take a session's name."""

    async def full() -> bool:
        renamings = [await client.patch("/sessions/known", json={"name": f"{number}"}) for number in range(3)]
        return {answer.status_code for answer in renamings} == {503}

    await until(full, 30)


async def ready(client: Client) -> bool:
    return (await client.get("/readyz")).status_code == 200


def cpu_seconds(member: Member) -> float:
    fields = Path(f"/proc/{member.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def check_ended_well(client: Client, run_id: str, ledger: str, seconds: float = 60) -> None:
    """The run has completed as if nothing had happened: each step once, each event once, and its state."""
    run = await client.ended(run_id, seconds)
    assert (run["status"], run["error"], run["attempt"]) == ("completed", None, 1)
    assert run["content"] == "".join(f"{number} " for number in range(STEPS))
    events = await logged(client, run_id)
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    names = Counter(event["event"] for event in events)
    assert (names["RunFinished"], names["StepCompleted"], names["RunResponse"]) == (1, STEPS, STEPS)
    calls, ends = Ledger(ledger).calls(), Ledger(ledger).ends()
    assert {calls[f"{run_id}/{number}"] for number in range(STEPS)} == {1}
    assert {ends[f"{run_id}/{number}"] for number in range(STEPS)} == {1}
    state = (await client.get(f"/sessions/{run['session_id']}/state")).json()
    assert [f"{number}" for number in range(STEPS) if f"{number}" not in state] == []


async def ask_everything(client: Client, ledger: str, before: Resource, live: list[str]) -> None:
    """What writes is refused, all else is answered."""
    assert await refused(client, ledger)
    patch = await client.patch("/sessions/known/state", headers=MERGE, json={"more": 1})
    problem_of(patch, 503, "database_full")
    problem_of(await client.post("/sessions", json={"workflow": "steady"}), 503, "database_full")
    reasons = problem_of(await client.get("/readyz"), 503, "not_ready")["reasons"]
    assert any("full" in reason for reason in reasons), reasons
    assert (await client.get("/healthz")).status_code == 200
    assert (await client.get(f"/runs/{before['run_id']}")).json() == before
    assert (await client.get("/sessions/known/state")).headers["ETag"] == f'"{before["session_revision"]}"'
    assert (await client.events(before["run_id"]))[-1].event == "RunFinished"
    listed = (await client.get("/runs", params={"limit": 200})).json()["items"]
    assert {run["run_id"] for run in listed} >= set(live)


@pytest.mark.slow
async def test_what_runs_goes_on_when_there_is_room_again(disk: Disk, ledger: str) -> None:
    async with cluster(url_on(disk), Steady, SyncSteady, log_level="info") as members, members.client() as client:
        (server,) = members.servers
        before = await client.finish("steady", {"session_id": "known"}, ledger=ledger, seconds=0)
        live = [
            (await client.start(workflow, ledger=ledger, seconds=0.1))["run_id"]
            for workflow in ("steady", "sync-steady") * 20
        ]
        victim = (await client.start("steady", ledger=ledger, seconds=1))["run_id"]
        reader = asyncio.create_task(follow([server.url], live[0]))
        disk.fill()
        await until_full(client)
        said, used = server.said(), cpu_seconds(server)
        for _ in range(20):
            await ask_everything(client, ledger, before, live)
            assert (await client.post(f"/runs/{victim}/cancel")).status_code in {202, 503}  # it needs almost nothing
            await asyncio.sleep(FULL_SECONDS / 20)
        assert cpu_seconds(server) - used < FULL_SECONDS, "it spins"
        assert len(server.said().removeprefix(said).splitlines()) < 10
        assert "Traceback" not in server.said()
        assert "database_refuses code=database_full" in server.said()
        disk.free()
        await until(lambda: ready(client), 10)
        for run in live:
            await check_ended_well(client, run, ledger)
        events = await asyncio.wait_for(reader, 10)
        assert [event.data for event in events] == await logged(client, live[0])
        patched = await client.patch("/sessions/known/state", headers=MERGE, json={"more": 1})
        assert patched.json()["more"] == 1
        assert (await client.ended(victim, 60))["status"] in {"completed", "cancelled"}
        await check_all_completed(client, {victim})


async def check_all_completed(client: Client, but: set[str]) -> None:
    """Whatever was accepted, while there was still some room too."""
    for run in (await client.get("/runs", params={"limit": 200})).json()["items"]:
        if run["run_id"] not in but:
            assert (await client.ended(run["run_id"], 60))["status"] == "completed"


@pytest.mark.slow
async def test_a_log_that_fills_the_disk_itself_goes_on_too(disk: Disk) -> None:
    """The write-ahead log cannot be folded into the file, nor grow: no error is at a moment of its own choosing."""
    kilobytes = 16 * 1024
    async with cluster(url_on(disk), Steady, Loud) as members, members.client() as client:
        await client.post("/sessions", json={"workflow": "steady", "session_id": "known"})
        disk.fill(leaving=10 * 1024 * 1024)
        run = await client.start("loud", kilobytes=kilobytes)

        await until_full(client)
        assert not await ready(client)
        assert (await client.get(f"/runs/{run['run_id']}")).json()["status"] == "running"
        disk.free()
        ended = await client.ended(run["run_id"], 60)
        assert (ended["status"], ended["attempt"]) == ("completed", 1)
        events = await client.events(run["run_id"])
        assert [int(event.id or 0) for event in events] == list(range(1, len(events) + 1))
        assert [event.event for event in events].count("RunResponse") == kilobytes // 10
    assert query(url_on(disk), "PRAGMA integrity_check") == [{"integrity_check": "ok"}]


@pytest.mark.slow
async def test_a_process_that_dies_on_a_full_disk_has_lost_nothing(disk: Disk, ledger: str) -> None:
    async with cluster(url_on(disk), Steady, SyncSteady, Loud) as members, members.client() as client:
        (server,) = members.servers
        await client.post("/sessions", json={"workflow": "steady", "session_id": "known"})
        live = [
            (await client.start(workflow, ledger=ledger, seconds=0.1))["run_id"]
            for workflow in ("steady", "sync-steady") * 3
        ]
        disk.fill()

        await until_full(client)
        server.kill()
        disk.fill()  # what the dead process had kept room for
        code, said = await run_command(server.environment, "serve")
        assert code == 2, said
        assert "Traceback" not in said
        assert re.search("full|No space left", said), said
        disk.free()
        await server.start()
        for run in live:
            assert (await client.ended(run, 60))["status"] == "completed"
            events = await logged(client, run)
            assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
            names = Counter(event["event"] for event in events)
            assert (names["RunFinished"], names["StepCompleted"]) == (1, STEPS)
    assert query(url_on(disk), "PRAGMA integrity_check") == [{"integrity_check": "ok"}]


@pytest.mark.slow
async def test_the_write_ahead_log_does_not_keep_what_it_has_grown_to(sqlite_url: str) -> None:
    """It stays short by itself; a copy that is being made lets it grow, and it gives that back."""
    file = make_url(sqlite_url).database or ""

    def log_bytes() -> int:
        return Path(f"{file}-wal").stat().st_size

    async with cluster(sqlite_url, Loud) as members, members.client() as client:
        await client.finish("loud", kilobytes=30_000)
        assert log_bytes() < WAL_BYTES / 2, "each checkpoint lets it begin anew"
        with closing(sqlite3.connect(file, isolation_level=None)) as copying:
            copying.execute("BEGIN")
            copying.execute("SELECT count(*) FROM runs").fetchall()
            await client.finish("loud", kilobytes=30_000)
            assert log_bytes() > WAL_BYTES
            copying.execute("ROLLBACK")
        await client.finish("loud", kilobytes=1_000)
        await client.finish("loud", kilobytes=10)
        assert log_bytes() <= WAL_BYTES
