"""Schedules over HTTP: made, seen, changed, paused, due."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app import RunResponse, Workflow
from tests.support.keys import as_caller, first_key, new_key
from tests.support.server import Client, running
from tests.support.tables import execute, query
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

OFTEN = "* * * * * *"
NEVER = "0 0 1 1 *"


class Report(Workflow):
    async def run(self, title: str = "daily", seconds: float = 0.0) -> AsyncIterator[RunResponse]:
        await asyncio.sleep(seconds)
        yield RunResponse(content=title)


class Other(Workflow):
    def run(self) -> str:
        return "other"


async def create(client: Client, cron: str = NEVER, **members: Any) -> dict[str, Any]:
    """A new schedule."""
    answer = await client.post("/schedules", json={"name": "s", "workflow": "report", "cron": cron} | members)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"/schedules/{made['schedule_id']}"
    return made


async def runs(client: Client, count: int, seconds: float = 10) -> list[dict[str, Any]]:
    """All runs there are, oldest first, once there are so many."""

    async def look() -> list[dict[str, Any]]:
        found = (await client.get("/runs")).json()["items"]
        return found if len(found) >= count else []

    return list(reversed(await until(look, seconds)))


def put_back(database_url: str, **by: float) -> None:
    """As if nobody had looked at the schedules for so long."""
    moment = datetime.now(UTC).replace(microsecond=0) - timedelta(**by)
    sqlite = database_url.startswith("sqlite:")
    value = moment.replace(tzinfo=None).isoformat(" ", "microseconds") if sqlite else moment
    assert execute(database_url, "UPDATE schedules SET next_run_at = :moment", moment=value)


async def test_a_schedule_starts_a_run_at_each_tick(database_url: str) -> None:
    async with running(database_url, Report) as client:
        made = await create(
            client, OFTEN, input={"title": "now"}, user_id="ada", metadata={"mine": 1}, timeout_seconds=5
        )
        assert (made["paused"], made["last_run_id"], made["error"]) == (False, None, None)
        started = await runs(client, 3)
        ticks = [run["metadata"]["schedule"]["tick_at"] for run in started]
        moments = [datetime.fromisoformat(tick) for tick in ticks]
        assert [later - earlier for earlier, later in itertools.pairwise(moments)] == [timedelta(seconds=1)] * (
            len(moments) - 1
        )
        for run, moment in zip(started, moments, strict=True):
            assert (run["workflow"], run["input"], run["user_id"]) == ("report", {"title": "now"}, "ada")
            assert run["metadata"]["mine"] == 1
            assert run["metadata"]["schedule"]["schedule_id"] == made["schedule_id"]
            assert timedelta(0) <= datetime.fromisoformat(run["created_at"]) - moment < timedelta(seconds=3)
        assert len({run["session_id"] for run in started}) == len(started)
        shown = (await client.get(f"/schedules/{made['schedule_id']}")).json()
        assert shown["last_run_id"] in {run["run_id"] for run in await runs(client, 3)}
        assert shown["last_run_at"] is not None
        assert (await client.ended(started[0]["run_id"]))["status"] == "completed"


async def test_all_runs_of_a_session_share_its_state(database_url: str) -> None:
    async with running(database_url, Report) as client:
        await create(client, OFTEN, session_id="reports")
        assert {run["session_id"] for run in await runs(client, 2)} == {"reports"}


async def test_what_is_shown_and_changed(database_url: str) -> None:
    async with running(database_url, Report) as client:
        made = await create(client, "30 7 * * MON-FRI", timezone="Europe/Berlin", session_id="x")
        path = f"/schedules/{made['schedule_id']}"
        assert (await client.get(path)).json() == made
        assert (await client.get("/schedules")).json() == {"items": [made], "next_cursor": None}
        for query_, count in [
            ({"name": "s"}, 1),
            ({"name": "t"}, 0),
            ({"workflow": "report"}, 1),
            ({"user_id": "a"}, 0),
        ]:
            assert len((await client.get("/schedules", params=query_)).json()["items"]) == count
        due = datetime.fromisoformat(made["next_run_at"])
        changed = (await client.patch(path, json={"timezone": "UTC", "session_id": None})).json()
        assert changed["session_id"] is None
        moved = datetime.fromisoformat(changed["next_run_at"])
        assert (moved.hour, moved.minute) == (7, 30)
        assert moved != due
        paused = (await client.post(f"{path}/pause")).json()
        assert (paused["paused"], paused["next_run_at"]) == (True, None)
        assert (await client.post(f"{path}/pause")).json() == paused
        on = (await client.post(f"{path}/resume")).json()
        assert (on["paused"], on["next_run_at"]) == (False, changed["next_run_at"])
        assert (await client.delete(path)).status_code == 204
        for method in ("GET", "PATCH", "DELETE"):
            gone = await client.request(method, path, json={} if method == "PATCH" else None)
            assert (gone.status_code, gone.json()["code"]) == (404, "unknown_schedule")


@pytest.mark.parametrize(
    ("members", "status", "code"),
    [
        ({"workflow": "none"}, 404, "unknown_workflow"),
        ({"cron": "61 * * * *"}, 422, "invalid_cron"),
        ({"timezone": "Mars/Base"}, 422, "invalid_time_zone"),
        ({"input": {"titel": 1}}, 422, "invalid_input"),
        ({"on_missed": "always"}, 422, "invalid_body"),
        ({"name": ""}, 422, "invalid_body"),
        ({"name": "taken"}, 409, "schedule_exists"),
    ],
)
async def test_what_is_not_right_is_refused(sqlite_url: str, members: Any, status: int, code: str) -> None:
    async with running(sqlite_url, Report) as client:
        await create(client, name="taken")
        other = await create(client, name="other")
        body = {"name": "s", "workflow": "report", "cron": NEVER} | members
        answer = await client.post("/schedules", json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        if "workflow" not in members:
            changed = await client.patch(f"/schedules/{other['schedule_id']}", json=members)
            assert (changed.status_code, changed.json()["code"]) == (status, code)


async def test_run_now(database_url: str) -> None:
    async with running(database_url, Report) as client:
        made = await create(client, session_id="s", on_busy="reject", paused=True, input={"seconds": 30})
        path = f"/schedules/{made['schedule_id']}"
        answer = await client.post(f"{path}/run")
        assert answer.status_code == 202
        run = answer.json()
        assert answer.headers["Location"] == f"/runs/{run['run_id']}/events"
        assert run["metadata"]["schedule"]["tick_at"] is None
        assert (await client.get(path)).json()["last_run_id"] == run["run_id"]
        busy = await client.post(f"{path}/run")
        assert (busy.status_code, busy.json()["code"]) == (409, "session_busy")
        await client.patch(path, json={"on_busy": "interrupt"})
        again = (await client.post(f"{path}/run")).json()
        assert (await client.ended(run["run_id"]))["status"] == "cancelled"
        await client.post(f"/runs/{again['run_id']}/cancel")


@pytest.mark.parametrize("on_missed", ["skip", "run_once"])
async def test_ticks_that_nobody_was_there_for(database_url: str, on_missed: str) -> None:
    async with running(database_url, Report) as client:
        made = await create(client, "0 0 * * *", on_missed=on_missed)
    put_back(database_url, days=40)
    async with running(database_url, Report) as client:
        path = f"/schedules/{made['schedule_id']}"

        async def moved_on() -> bool:
            return bool((await client.get(path)).json()["next_run_at"] == made["next_run_at"])

        await until(moved_on)
        found = (await client.get("/runs")).json()["items"]
        if on_missed == "skip":
            assert found == []
        else:
            (run,) = found
            midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            assert datetime.fromisoformat(run["metadata"]["schedule"]["tick_at"]) == midnight


async def test_a_pause_is_made_up_for_by_one_run(database_url: str) -> None:
    async with running(database_url, Report) as client:
        made = await create(client, "0 * * * *", on_missed="run_once")
        path = f"/schedules/{made['schedule_id']}"
        await client.post(f"{path}/pause")
        put_back(database_url, hours=5)
        await asyncio.sleep(0.3)
        assert (await client.get("/runs")).json()["items"] == []
        await client.post(f"{path}/resume")
        await runs(client, 1)
        await asyncio.sleep(0.3)
        assert len(await runs(client, 1)) == 1


async def test_a_tick_has_one_run_whatever_becomes_of_the_schedule(database_url: str) -> None:
    async with running(database_url, Report) as client:
        made = await create(client, "0 0 * * *", on_missed="run_once")
        for _ in range(3):
            put_back(database_url, hours=1)
            # as a clock that was put back, or somebody's hands, would do it: due again, for the same tick
            await client.patch(f"/schedules/{made['schedule_id']}", json={"on_missed": "run_once"})
            await asyncio.sleep(0.4)
        found = await runs(client, 1)
        ticks = [run["metadata"]["schedule"]["tick_at"] for run in found]
        assert len(ticks) == len(set(ticks))
        noted = query(database_url, "SELECT run_id FROM schedule_ticks")
        assert {row["run_id"] for row in noted} == {run["run_id"] for run in found}


async def test_a_tick_that_can_start_nothing_says_why_and_the_next_one_goes_on(database_url: str) -> None:
    async with running(database_url, Report, Other) as client:
        await client.finish("other", {"session_id": "taken"})
        made = await create(client, OFTEN, session_id="taken")
        path = f"/schedules/{made['schedule_id']}"

        async def refused() -> bool:
            return (await client.get(path)).json()["error"] is not None

        await until(refused)
        shown = (await client.get(path)).json()
        assert "belongs to the workflow 'other'" in shown["error"]
        assert shown["last_run_id"] is None
        await client.patch(path, json={"session_id": None})
        started = [run for run in await runs(client, 2) if run["workflow"] == "report"]
        assert started
        assert (await client.get(path)).json()["error"] is None


async def test_a_workflow_that_is_gone(database_url: str) -> None:
    async with running(database_url, Report, Other) as client:
        made = await create(client, OFTEN, workflow="other")
        path = f"/schedules/{made['schedule_id']}"
    async with running(database_url, Report) as client:
        known = len((await client.get("/runs")).json()["items"])
        await asyncio.sleep(1.5)
        shown = (await client.get(path)).json()
        assert "no workflow 'other'" in shown["error"]
        assert len((await client.get("/runs")).json()["items"]) == known
        assert (await client.post(f"{path}/run")).json()["code"] == "unknown_workflow"
        assert (await client.delete(path)).status_code == 204


@pytest.mark.parametrize("by_tick", [False, True], ids=["now", "tick"])
async def test_a_users_schedule_interrupts_whosever_run_has_the_session(database_url: str, by_tick: bool) -> None:
    async with running(database_url, Report) as client:
        everybody = as_caller(client, await first_key(client))
        ada = as_caller(client, (await new_key(everybody, None, user_id="ada"))["key"])
        await ada.post("/sessions", json={"workflow": "report", "session_id": "hers"})
        live = await everybody.start("report", {"session_id": "hers", "user_id": "bob"}, seconds=60)
        cron = OFTEN if by_tick else NEVER
        made = await create(ada, cron, session_id="hers", on_busy="interrupt", input={"seconds": 60 if by_tick else 0})
        if not by_tick:
            answer = await ada.post(f"/schedules/{made['schedule_id']}/run")
            assert answer.status_code == 202, answer.text
        assert (await everybody.ended(live["run_id"], 10))["status"] == "cancelled"
        if by_tick:
            await ada.delete(f"/schedules/{made['schedule_id']}")
