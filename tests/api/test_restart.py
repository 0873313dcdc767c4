"""After a crash: what was running is not said to run for ever, and everything else is as it was."""

import asyncio
from collections.abc import AsyncIterator

from app import RunResponse, Workflow
from tests.support.processes import server_process
from tests.support.waiting import until


class Worker(Workflow):
    """Runs for ever when it begins as the first of its session, and ends at once later."""

    async def run(self, name: str) -> AsyncIterator[RunResponse]:
        self.session_state[name] = True
        await self.write_to_storage()
        yield RunResponse(content=name)
        if name == "endless":
            await asyncio.sleep(600)


async def test_a_killed_server_leaves_no_run_running_for_ever(database_url: str) -> None:
    async with server_process(database_url, Worker) as server:
        endless = await server.client.start("worker", {"session_id": "s"}, name="endless")
        queued = await server.client.start("worker", {"session_id": "s"}, name="queued")
        done = await server.client.finish("worker", {"session_id": "t"}, name="done")

        async def at_work() -> bool:
            return len(await page(endless["run_id"])) == 3

        async def page(run_id: str) -> list[object]:
            answer = await server.client.get(f"/runs/{run_id}/events", headers={"Accept": "application/json"})
            items: list[object] = answer.json()["items"]
            return items

        await until(at_work)
        seen = await page(endless["run_id"])
        server.kill()
    async with server_process(database_url, Worker, lease_seconds=1) as server:
        client = server.client

        async def not_stuck() -> bool:
            run = (await client.get(f"/runs/{endless['run_id']}")).json()
            return bool(run["status"] == "failed" or run["attempt"] > 1)

        await until(not_stuck, seconds=15)
        assert (await page(endless["run_id"]))[: len(seen)] == seen
        await client.post(f"/runs/{endless['run_id']}/cancel")
        assert (await client.ended(endless["run_id"]))["status"] in {"failed", "cancelled"}
        events = await client.events(endless["run_id"])
        assert [int(event.id or 0) for event in events] == list(range(1, len(events) + 1))
        assert [event.event for event in events].count("RunFinished") == 1
        assert (await client.ended(queued["run_id"]))["status"] == "completed"
        assert (await client.get("/sessions/s/state")).json() == {"endless": True, "queued": True}
        assert (await client.get("/sessions/s")).json()["active_run_id"] is None
        assert (await client.get(f"/runs/{done['run_id']}")).json() == done
        assert (await client.finish("worker", {"session_id": "s"}, name="new"))["status"] == "completed"
