"""A Postgres that is restarted, crashes and stays away under load: callers are told so, and no run is lost."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import RunResponse, Workflow
from app.store.migrations import migrate
from tests.conformance import workflows
from tests.conformance.checks import check
from tests.conformance.faults import Faults
from tests.conformance.load import Load
from tests.conformance.trial import leftovers, world_of
from tests.support import databases
from tests.support.cluster import Cluster, cluster, run_command
from tests.support.following import logged
from tests.support.postgres import PostgresServer, postgres_server
from tests.support.server import running
from tests.support.tables import query
from tests.support.waiting import until

JSON = {"Accept": "application/json"}
LEASE_SECONDS = 8.0
AWAY_SECONDS = 9.0
"""Longer than the lease: no heart has been heard for as long, and yet nobody has died."""
ANSWER_SECONDS = 20.0
PEACE_SECONDS = 60.0
RESTARTS = 5


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        migrate(server.url)
        yield server


@dataclass
class Asked:
    """What callers were answered who do not try again."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    async def ask(self, cluster: Cluster) -> None:
        """Ask each server for all sorts of things until cancelled: each has an answer, in time, and it is no 500."""
        requests: list[tuple[str, str, dict[str, Any]]] = [
            ("GET", "/runs?limit=5", {}),
            ("GET", "/sessions/talker-0/state", {}),
            ("POST", "/sessions", {"json": {"workflow": "talker"}}),
            ("PATCH", "/sessions/talker-1", {"json": {"name": "asked"}}),
            ("GET", "/readyz", {}),
        ]
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS) as client:
            while True:
                for server in cluster.servers:
                    for method, path, options in requests:
                        await self._ask(client, method, server.url + path, options)
                await asyncio.sleep(0.05)

    async def _ask(self, client: httpx.AsyncClient, method: str, url: str, options: dict[str, Any]) -> None:
        try:
            answer = await client.request(method, url, **options)
        except httpx.HTTPError as error:
            self.wrong.append(f"{method} {url}: {error!r}")
            return
        self.statuses[answer.status_code] += 1
        if answer.status_code == 503:
            if "Retry-After" not in answer.headers or not answer.json()["detail"]:
                self.wrong.append(f"{method} {url}: a 503 that does not say when: {answer.text}")
        elif answer.status_code not in {200, 201}:
            self.wrong.append(f"{method} {url}: {answer.status_code} {answer.text[:300]}")


async def readiness(members: Cluster) -> set[int]:
    async with httpx.AsyncClient(timeout=ANSWER_SECONDS) as client:
        return {(await client.get(f"{server.url}/readyz")).status_code for server in members.servers}


async def all_ready(members: Cluster) -> bool:
    return await readiness(members) == {200}


async def restart_all_the_time(server: PostgresServer, members: Cluster) -> None:
    for mode in ("fast", "immediate", "fast", "immediate"):
        await asyncio.sleep(1.5)
        await asyncio.to_thread(server.restart, mode)
        await until(lambda: all_ready(members), 15)
    await asyncio.to_thread(server.stop, "fast")
    back_at = time.monotonic() + AWAY_SECONDS
    while time.monotonic() < back_at:
        assert await readiness(members) == {503}
        await asyncio.sleep(0.2)
    await asyncio.to_thread(server.start)
    await until(lambda: all_ready(members), 15)
    await asyncio.sleep(2)


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_every_promise_holds_while_postgres_comes_and_goes(server: PostgresServer, tmp_path: Path) -> None:
    async with cluster(server.url, workflows.__name__, lease_seconds=LEASE_SECONDS, cancel_grace_seconds=2) as members:
        chance, asked = random.Random(7), Asked()
        load = Load(members, tmp_path / "ledger", chance)
        faults = Faults(members, LEASE_SECONDS, chance)
        try:
            await load.begin(6)
            asking = asyncio.create_task(asked.ask(members))
            await restart_all_the_time(server, members)
            load.enough()
            await load.ended(PEACE_SECONDS)
            asking.cancel()
        finally:
            await load.close()
        world = await world_of(members, load, faults, tmp_path / "ledger")
        wrong = check(world) + list(leftovers(members)) + asked.wrong
        recoveries = sum(row["recoveries"] for row in world.runs.values())
        lines = {member.name: len(member.said().splitlines()) for member in members.members}
        print(f"{len(world.runs)} runs, {recoveries} recoveries, {asked.statuses}, log lines {lines}")
        assert wrong == []
        assert asked.statuses[503] > 0
        assert recoveries <= RESTARTS, "nobody has died: only a commit whose answer is lost costs an attempt"
        assert max(lines.values()) < 150, "the log is flooded"
        assert all(member.process is not None and member.process.poll() is None for member in members.members)


class Lasting(Workflow):
    """Works until it is cancelled."""

    async def run(self) -> AsyncIterator[RunResponse]:
        for number in count():
            yield RunResponse(content=f"{number} ")
            await asyncio.sleep(0.2)


class Short(Workflow):
    def run(self) -> str:
        return "done"


@pytest.mark.slow
async def test_runs_that_last_go_on_and_keep_nobody_from_starting(server: PostgresServer) -> None:
    async with cluster(server.url, Lasting, Short, lease_seconds=LEASE_SECONDS) as members, members.client() as client:
        lasting = [(await client.start("lasting"))["run_id"] for _ in range(4)]
        await client.finish("short")
        for mode in ("fast", "immediate"):
            await asyncio.to_thread(server.restart, mode)
            await until(lambda: all_ready(members), 15)
            run = await client.ended((await client.start("short"))["run_id"], 15)
            assert run["content"] == "done"
        for run_id in lasting:
            last = (await logged(client, run_id))[-1]["sequence"]

            async def goes_on(run_id: str = run_id, last: int = last) -> bool:
                page = await client.get(f"/runs/{run_id}/events", params={"after": last}, headers=JSON)
                return bool(page.json()["items"])

            await until(goes_on, 15)
            assert (await client.post(f"/runs/{run_id}/cancel")).status_code == 202
            run = await client.ended(run_id)
            assert run["status"] == "cancelled"
            events = await client.events(run_id)
            assert [int(event.id or 0) for event in events] == list(range(1, len(events) + 1))


@pytest.mark.slow
@pytest.mark.parametrize("command", ["serve", "worker", "migrate"])
async def test_whoever_starts_while_it_is_away_says_so(server: PostgresServer, command: str) -> None:
    server.stop()
    code, said = await run_command({"MILLSTREAM_DATABASE_URL": server.url, "MILLSTREAM_PORT": "0"}, command)
    assert code == 2, said
    assert "the database does not answer" in said
    assert "Traceback" not in said


async def test_connections_that_died_in_the_pool_are_nobodys_loss(postgres_template: str) -> None:
    with databases.copy_of_postgres(postgres_template) as url:
        async with running(url, Short) as client:
            for _ in range(3):
                run = await client.finish("short")
                await asyncio.gather(*(client.get(f"/runs/{run['run_id']}") for _ in range(10)))
                cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                query(url, f"{cut} AND pid <> pg_backend_pid()")
                answers = await asyncio.gather(*(client.get(f"/runs/{run['run_id']}") for _ in range(5)))
                assert {answer.status_code for answer in answers} == {200}
