"""Processes that send webhooks are killed: every event that was wanted arrives, whoever died when."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.responses import Response

from app import RunResponse, Workflow
from tests.support.cluster import cluster
from tests.support.receiver import Received, receiver
from tests.support.tables import query

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(240)]

ROUNDS = 3
RUNS = 8
SETTINGS: dict[str, Any] = {
    "webhook_allow_http": True,
    "webhook_allow_private": True,
    "webhook_retry_seconds": ",".join(["0.2"] * 60),
    "webhook_timeout_seconds": 1,
    "lease_seconds": 2,
}


class Short(Workflow):
    async def run(self) -> AsyncIterator[RunResponse]:
        for number in range(3):
            await asyncio.sleep(random.uniform(0, 0.2))
            yield RunResponse(content=f"word {number}")


async def test_every_event_arrives_whoever_is_killed(database_url: str) -> None:
    chance = random.Random(7)

    def answering(_received: Received) -> Response | float:
        return Response(status_code=503) if chance.random() < 0.3 else chance.uniform(0, 0.3)

    async with receiver(answering) as there, cluster(database_url, Short, servers=1, workers=2, **SETTINGS) as members:
        body = {"webhook": {"url": there.url, "events": ["RunResponse", "RunFinished"]}}
        accepted = []
        for _ in range(ROUNDS):
            async with members.client() as client:
                accepted += [(await client.start("short", body))["run_id"] for _ in range(RUNS)]
            await asyncio.sleep(chance.uniform(0.05, 0.6))
            chance.choice(members.members).kill()
            await members.whole()
        async with members.client() as client:
            for run_id in accepted:
                assert (await client.ended(run_id, seconds=40))["status"] == "completed"
        await all_settled(database_url)
    logged = {
        (row["run_id"], row["sequence"])
        for row in query(
            database_url, "SELECT run_id, sequence FROM run_events WHERE event IN ('RunResponse', 'RunFinished')"
        )
    }
    arrived = {(one.message["data"]["run_id"], one.message["data"]["sequence"]) for one in there.received}
    assert {run_id for run_id, _ in logged} == set(accepted)
    assert arrived == logged
    ids = {one.id: (one.message["data"]["run_id"], one.message["data"]["sequence"]) for one in there.received}
    assert len(ids) == len(logged), "an event has one id, however often it is sent"


async def all_settled(database_url: str) -> None:
    """Until nothing is on its way: a dead sender's part is left to it for 6 seconds."""
    async with asyncio.timeout(60):
        while left := query(
            database_url, "SELECT delivery_id, status FROM webhook_deliveries WHERE status != 'delivered'"
        ):
            assert all(row["status"] == "pending" for row in left)
            await asyncio.sleep(0.2)


async def test_a_process_that_stops_has_its_answers_first(sqlite_url: str) -> None:
    async with receiver(lambda _received: 0.5) as there, cluster(sqlite_url, Short, **SETTINGS) as members:
        async with members.client() as client:
            await client.finish("short", {"webhook": {"url": there.url}})
            await there.gets(1)
        (server,) = members.servers
        server.terminate()
        assert await server.exited() == 0
    (sent,) = query(sqlite_url, "SELECT status, attempts FROM webhook_deliveries")
    assert (sent["status"], sent["attempts"]) == ("delivered", 1)
    assert len(there.received) == 1
