"""How many runs may wait, and how long one may take."""

import asyncio
from typing import Any

import pytest

from app import Workflow
from tests.plans.statements import recorded
from tests.support.keys import as_caller, first_key, new_key
from tests.support.server import Client, running
from tests.support.waiting import until


class Sleeper(Workflow):
    async def run(self, seconds: float = 0) -> str:
        await asyncio.sleep(seconds)
        return "slept"


async def asked(client: Client, session_id: str, seconds: float = 0, **members: Any) -> tuple[int, Any]:
    """The status and the body of a start."""
    body = {"input": {"seconds": seconds}, "session_id": session_id} | members
    answer = await client.post("/workflows/sleeper/runs", json=body)
    assert ("Retry-After" in answer.headers) == (answer.status_code in {409, 429})
    return answer.status_code, answer.json()


async def test_a_tenants_queue_has_an_end(database_url: str) -> None:
    async with running(database_url, Sleeper, max_queued_runs_per_tenant=3) as client:
        admin = await first_key(client)
        north, south = [
            as_caller(client, (await new_key(client, admin, tenant=name))["key"]) for name in ("north", "south")
        ]
        live = [(await asked(north, f"s{number}", 60))[1] for number in range(2)]
        queued = [(await asked(north, f"s{number % 2}"))[1] for number in range(3)]
        assert [run["status"] for run in queued] == ["queued"] * 3
        status, problem = await asked(north, "s0")
        assert (status, problem["code"]) == (429, "tenant_queue_full")
        assert "MILLSTREAM_MAX_QUEUED_RUNS_PER_TENANT" in problem["detail"]
        assert (await north.get("/sessions/s0")).json()["active_run_id"] == live[0]["run_id"]
        assert (await asked(north, "s9"))[0] == 202, "what begins at once does not wait"
        assert [(await asked(south, "s0", 60))[0] for _ in range(3)] == [202] * 3
        await north.post(f"/runs/{queued[0]['run_id']}/cancel")
        assert (await asked(north, "s0"))[0] == 202
        figures = (await as_caller(client, admin).get("/metrics")).text
        assert 'millstream_requests_refused_total{code="tenant_queue_full"} 1.0' in figures


async def test_a_refused_run_leaves_its_idempotency_key_free(database_url: str) -> None:
    async with running(database_url, Sleeper, max_queued_runs_per_tenant=1) as client:
        live = (await asked(client, "s", 60))[1]
        await asked(client, "s")
        body = {"input": {}, "session_id": "s"}
        refused = await client.post("/workflows/sleeper/runs", json=body, headers={"Idempotency-Key": "once"})
        assert refused.status_code == 429
        await client.post(f"/runs/{live['run_id']}/cancel")

        async def accepted() -> bool:
            answer = await client.post("/workflows/sleeper/runs", json=body, headers={"Idempotency-Key": "once"})
            return answer.status_code == 202

        await until(accepted)
        runs = (await client.get("/runs")).json()["items"]
        assert len(runs) == 3
        assert (await client.get("/sessions/s")).json()["active_run_id"] in {None, *(run["run_id"] for run in runs)}


async def test_a_sessions_queue_has_an_end(database_url: str) -> None:
    async with running(database_url, Sleeper, max_queued_runs_per_session=2) as client:
        await asked(client, "s", 60)
        answers = await asyncio.gather(*(asked(client, "s") for _ in range(8)))
        assert sorted(status for status, _ in answers) == [202] * 2 + [429] * 6
        assert {body["code"] for status, body in answers if status == 429} == {"session_queue_full"}
        assert (await asked(client, "other"))[0] == 202
        assert (await asked(client, "s", on_busy="reject"))[1]["code"] == "session_busy"


async def test_without_room_for_it_a_run_waits_and_counts(sqlite_url: str) -> None:
    async with running(sqlite_url, Sleeper, max_queued_runs_per_tenant=2, max_live_runs=1) as client:
        found = [(await asked(client, f"s{number}", 60))[0] for number in range(5)]
        assert found == [202, 202, 202, 429, 429]


async def test_a_schedule_passes_over_what_finds_the_queue_full(sqlite_url: str) -> None:
    async with running(sqlite_url, Sleeper, max_queued_runs_per_session=1) as client:
        await asked(client, "s", 60)
        await asked(client, "s")
        body = {"name": "n", "workflow": "sleeper", "cron": "* * * * * *", "session_id": "s"}
        schedule = (await client.post("/schedules", json=body)).json()

        async def told() -> bool:
            error = (await client.get(f"/schedules/{schedule['schedule_id']}")).json()["error"]
            return error is not None and "MILLSTREAM_MAX_QUEUED_RUNS_PER_SESSION" in error

        await until(told)
        answer = await client.post(f"/schedules/{schedule['schedule_id']}/run")
        assert (answer.status_code, answer.json()["code"]) == (429, "session_queue_full")


async def test_a_run_that_begins_at_once_has_nothing_counted(database_url: str) -> None:
    with recorded() as statements:
        async with running(database_url, Sleeper, max_queued_runs_per_tenant=5) as client:
            await asked(client, "s", 60)
            assert not any("count(*)" in shape for shape in statements.about("runs")), "nothing is counted for it"
            await asked(client, "s")
    counted = [shape for shape in statements.about("runs") if "count(*)" in shape and "LIMIT" in shape]
    assert counted


async def test_runs_get_the_most_time_there_is(database_url: str) -> None:
    async with running(database_url, Sleeper, max_run_seconds=0.3) as client:
        run = await client.finish("sleeper", seconds=60)
        assert (run["status"], run["error"]["code"]) == ("failed", "timeout")
        assert "0.3 seconds" in run["error"]["message"]
        assert (await client.finish("sleeper", {"timeout_seconds": 0.2}))["status"] == "completed"
        status, problem = await asked(client, "s", timeout_seconds=0.5)
        assert (status, problem["code"], problem["max_run_seconds"]) == (422, "timeout_too_long", 0.3)
        assert "0.5" in problem["detail"]
        assert "MILLSTREAM_MAX_RUN_SECONDS" in problem["detail"]


async def test_the_same_request_without_a_time_is_the_same(sqlite_url: str) -> None:
    headers = {"Idempotency-Key": "once"}
    found = []
    for limit in (30, None, 20):
        async with running(sqlite_url, Sleeper, max_run_seconds=limit) as client:
            found.append((await client.post("/workflows/sleeper/runs", json={"input": {}}, headers=headers)).json())
    assert len({run["run_id"] for run in found}) == 1


async def test_a_retry_of_a_run_that_had_more_time_gets_the_most(sqlite_url: str) -> None:
    async with running(sqlite_url, Sleeper) as client:
        run = await client.finish("sleeper", {"timeout_seconds": 50})
    async with running(sqlite_url, Sleeper, max_run_seconds=0.3) as client:
        again = await client.post(f"/runs/{run['run_id']}/retry", json={"input": {"seconds": 60}})
        assert (await client.ended(again.json()["run_id"]))["error"]["code"] == "timeout"


@pytest.mark.parametrize("change", [False, True])
async def test_a_schedule_may_not_want_more_time(sqlite_url: str, change: bool) -> None:
    async with running(sqlite_url, Sleeper, max_run_seconds=60) as client:
        body = {"name": "n", "workflow": "sleeper", "cron": "0 0 1 1 *"}
        if change:
            path = f"/schedules/{(await client.post('/schedules', json=body)).json()['schedule_id']}"
            answer = await client.patch(path, json={"timeout_seconds": 61})
        else:
            answer = await client.post("/schedules", json=body | {"timeout_seconds": 61})
        assert (answer.status_code, answer.json()["code"]) == (422, "timeout_too_long")
