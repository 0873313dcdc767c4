"""Old runs, revisions and deliveries go, in small batches, and nobody takes what is left for the whole."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app import RunResponse, Workflow
from app.errors import Gone
from tests.keeping.consistency import check_whole
from tests.support.ages import SECOND_IN_DAYS
from tests.support.problems import problem_of
from tests.support.processes import server_process
from tests.support.server import Client, running
from tests.support.tables import execute, query
from tests.support.waiting import until

OLD = "2020-01-01 00:00:00.000000"
SOON = SECOND_IN_DAYS / 10


class Talk(Workflow):
    async def run(self, count: int = 2, ask: bool = False) -> AsyncIterator[RunResponse]:
        for number in range(count):
            yield RunResponse(content=number)
        if ask:
            answer = await self.wait_for_input("go on?")
            yield RunResponse(content=f"{answer} after {len(self.session_state)}")


def count(database_url: str, table: str, where: str = "1 = 1") -> int:
    return int(query(database_url, f"SELECT count(*) AS rows FROM {table} WHERE {where}")[0]["rows"])


async def gone(database_url: str, table: str, where: str = "1 = 1", left: int = 0) -> None:
    async def so_it_is() -> bool:
        return count(database_url, table, where) <= left

    await until(so_it_is, seconds=60)


async def test_old_runs_go_with_all_that_is_about_them(database_url: str) -> None:
    async with running(database_url, Talk) as client:
        old = [await client.finish("talk", {"session_id": "s"}, count=30) for _ in range(3)]
        body = {"input": {}, "session_id": "s"}
        await client.post("/workflows/talk/runs", json=body, headers={"Idempotency-Key": "k", "Prefer": "wait=10"})
        state = {"kept": True}
        assert (await client.patch("/sessions/s/state", json=state)).status_code == 200
        live = await client.start("talk", {"session_id": "t"}, ask=True)
        cursor = await first_cursor(client, "s")
    execute(database_url, "UPDATE runs SET finished_at = :old WHERE finished_at IS NOT NULL", old=moment(database_url))
    async with running(database_url, Talk, run_retention_days=1) as client:
        await gone(database_url, "runs", left=1)
        for run in old:
            problem_of(await client.get(f"/runs/{run['run_id']}"), 404, "unknown_run")
            problem_of(await client.get(f"/runs/{run['run_id']}/events"), 404, "unknown_run")
        assert (await client.get("/runs?session_id=s")).json()["items"] == []
        assert (await client.get("/sessions/s/state")).json() == state
        assert count(database_url, "run_events", f"run_id <> '{live['run_id']}'") == 0
        assert count(database_url, "idempotency_keys") == 0
        again = await client.post("/workflows/talk/runs", json=body, headers={"Idempotency-Key": "k"})
        assert again.json()["run_id"] not in [run["run_id"] for run in old]
        missed = await client.get(f"/events?session_id=s&after={cursor}")
        problem_of(missed, 410, "events_gone")
        assert (await client.get(f"/runs/{live['run_id']}")).json()["status"] == "paused"
    check_whole(database_url)


def moment(database_url: str) -> str:
    return OLD if database_url.startswith("sqlite") else f"{OLD}+00"


async def first_cursor(client: Client, session_id: str) -> str:
    """One that a reader of the session had before its runs."""
    async with asyncio.timeout(20), client.stream("GET", f"/events?session_id={session_id}") as stream:
        await asyncio.sleep(0.2)
        run = asyncio.create_task(client.finish("talk", {"session_id": session_id}, count=1))
        async for line in stream.aiter_lines():
            if line.startswith("id: "):
                await client.finish("talk", {"session_id": session_id}, count=1)
                await run
                return line.removeprefix("id: ")
    raise AssertionError


async def test_a_kill_in_the_middle_loses_nothing_that_is_kept(database_url: str) -> None:
    async with running(database_url, Talk) as client:
        for number in range(12):
            await client.start("talk", {"session_id": f"s{number}"}, count=700)

        async def all_ended() -> bool:
            return count(database_url, "runs", "finished_at IS NULL") == 0

        await until(all_ended, seconds=60)
    execute(database_url, "UPDATE runs SET finished_at = :old", old=moment(database_url))
    before = count(database_url, "run_events")
    async with server_process(database_url, Talk, run_retention_days=1) as server:
        await gone(database_url, "run_events", left=before - 2000)
        server.kill()
    for row in query(database_url, "SELECT run_id, events_gone_upto FROM runs"):
        sequences = query(database_url, "SELECT sequence FROM run_events WHERE run_id = :r", r=row["run_id"])
        assert row["events_gone_upto"] is not None or len(sequences) == 702
    async with server_process(database_url, Talk, run_retention_days=1) as server:
        await gone(database_url, "runs")
        assert count(database_url, "run_events") == 0
        assert count(database_url, "sessions") == 12
        assert (await server.client.finish("talk", {"session_id": "s0"}))["status"] == "completed"


async def long_history(client: Client, session_id: str, revisions: int = 60) -> None:
    """Each revision is a large change, so that whole documents are written now and then."""
    await client.post("/sessions", json={"workflow": "talk", "session_id": session_id})
    for number in range(1, revisions + 1):
        answer = await client.patch(f"/sessions/{session_id}/state", json={"n": number, "text": f"{number} " * 1000})
        assert answer.headers["etag"] == f'"{number}"'


def snapshots(database_url: str, session_id: str) -> list[int]:
    where = f"session_id = '{session_id}' AND snapshot IS NOT NULL"
    rows = query(database_url, f"SELECT revision FROM session_revisions WHERE {where} ORDER BY revision")
    return [row["revision"] for row in rows]


async def test_old_revisions_go_up_to_a_whole_document(database_url: str) -> None:
    async with running(database_url, Talk) as client:
        await long_history(client, "s")
        await client.post("/sessions", json={"workflow": "talk", "session_id": "small", "session_state": {"a": 1}})
    whole = snapshots(database_url, "s")
    assert len(whole) > 2
    kept = whole[-2]
    execute(
        database_url,
        "UPDATE session_revisions SET created_at = :old WHERE revision <= :kept",
        old=moment(database_url),
        kept=kept,
    )
    async with running(database_url, Talk, revision_retention_days=1) as client:
        await gone(database_url, "session_revisions", f"session_id = 's' AND revision < {kept}")
        for revision in range(61):
            answer = await client.get(f"/sessions/s/state?revision={revision}")
            if 0 < revision < kept:
                problem_of(answer, 410, "revision_gone")
            else:
                assert answer.json().get("n", 0) == revision
        assert (await client.get("/sessions/s/state")).json()["n"] == 60
        listed = (await client.get("/sessions/s/state/revisions?limit=200")).json()["items"]
        assert [revision["revision"] for revision in listed] == list(range(kept, 61))
        restored = await client.post("/sessions/s/state/restore", json={"revision": kept})
        assert restored.json()["n"] == kept
        problem_of(await client.post("/sessions/s/state/restore", json={"revision": 1}), 410, "revision_gone")
        problem_of(await client.post("/sessions/s/fork", json={"revision": 1}), 410, "revision_gone")
        assert (await client.get("/sessions/small/state?revision=1")).json() == {"a": 1}
        assert (await client.finish("talk", {"session_id": "s"}))["status"] == "completed"


async def test_a_session_with_a_live_run_keeps_what_the_run_began_with(database_url: str) -> None:
    async with running(database_url, Talk) as client:
        await long_history(client, "s", 20)
        run = await client.start("talk", {"session_id": "s"}, ask=True)

        async def paused() -> bool:
            return bool((await client.get(f"/runs/{run['run_id']}")).json()["status"] == "paused")

        await until(paused)
        for number in range(20, 50):
            await client.patch("/sessions/s/state", json={"n": number, "text": f"{number} " * 1000})
    execute(database_url, "UPDATE session_revisions SET created_at = :old", old=moment(database_url))
    before = count(database_url, "session_revisions")
    async with running(database_url, Talk, revision_retention_days=SOON) as client:
        await asyncio.sleep(1.5)
        assert count(database_url, "session_revisions") == before
        log = await client.get(f"/runs/{run['run_id']}/events", headers={"Accept": "application/json"})
        answer = {"request_id": log.json()["items"][-1]["request_id"], "value": "yes"}
        assert (await client.post(f"/runs/{run['run_id']}/input", json=answer)).status_code == 202
        assert (await client.ended(run["run_id"]))["content"].endswith("yes after 2")
        await gone(database_url, "session_revisions", left=before // 2)
        assert (await client.get("/sessions/s/state")).json()["n"] == 49


async def test_a_process_that_remembers_an_old_state_is_not_led_astray(database_url: str) -> None:
    """What it remembers is so old that what came next is no longer there."""
    if database_url.startswith("sqlite"):
        pytest.skip("a file has one process")
    async with running(database_url, Talk) as one, running(database_url, Talk) as other:
        await long_history(one, "s", 3)
        assert (await other.get("/sessions/s/state")).json()["n"] == 3
        for number in range(4, 40):
            await one.patch("/sessions/s/state", json={"n": number, "text": f"{number} " * 1000})
        newest = snapshots(database_url, "s")[-1]
        assert newest > 4
        execute(database_url, "DELETE FROM session_revisions WHERE revision < :newest", newest=newest)
        assert (await other.get("/sessions/s/state")).json()["n"] == 39
        changed = await other.patch("/sessions/s/state", json={"more": 1})
        assert (changed.json()["n"], changed.json()["more"]) == (39, 1)


async def test_deliveries_that_are_over_go(database_url: str) -> None:
    async with running(database_url, Talk, webhook_retry_seconds="60") as client:
        hook = {"webhook": {"url": "https://hooks.invalid/"}}
        run = await client.finish("talk", hook)
        assert count(database_url, "webhook_deliveries") > 0
    execute(database_url, "UPDATE webhook_deliveries SET created_at = :old", old=moment(database_url))
    execute(database_url, "UPDATE webhook_deliveries SET status = 'failed', next_attempt_at = NULL")
    async with running(database_url, Talk, delivery_retention_days=1) as client:
        await gone(database_url, "webhook_deliveries")
        assert (await client.get(f"/runs/{run['run_id']}")).json()["status"] == "completed"


async def test_without_the_settings_runs_and_revisions_are_kept(database_url: str) -> None:
    async with running(database_url, Talk) as client:
        await client.finish("talk", {"session_id": "s"})
        await long_history(client, "t", 30)
    execute(database_url, "UPDATE runs SET finished_at = :old", old=moment(database_url))
    execute(database_url, "UPDATE session_revisions SET created_at = :old", old=moment(database_url))
    async with running(database_url, Talk) as client:
        await asyncio.sleep(1.2)
        assert (await client.get("/sessions/t/state?revision=1")).json()["n"] == 1
        assert len((await client.get("/runs")).json()["items"]) == 1


def test_what_is_gone_says_so() -> None:
    error: Any = Gone("…", code="revision_gone", revision=1)
    assert json.dumps(error.extra) == '{"revision": 1}'
