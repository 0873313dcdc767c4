"""Promise 2: a run ends in exactly one of three ways, and its end is written in one piece."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

from app import RunResponse, Workflow
from tests.support.server import Client, running

JSON = {"Accept": "application/json"}


class Racer(Workflow):
    async def run(self, number: int) -> AsyncIterator[RunResponse]:
        yield RunResponse(content=f"{number}")
        self.session_state["number"] = number
        await asyncio.sleep(number % 7 / 5)
        if number % 3 == 0:
            raise ValueError(f"{number}")


class SyncRacer(Workflow):
    def run(self, number: int) -> Iterator[RunResponse]:
        for part in range(3):
            yield RunResponse(content=f"{number}")
            self.session_state[f"part{part}"] = number
            time.sleep(number % 7 / 15)
        if number % 3 == 0:
            raise ValueError(f"{number}")


async def check_end(client: Client, run_id: str) -> str:
    """One RunFinished, the last event, which says what the run and its session say; the status."""
    events = await client.events(run_id)
    run = (await client.get(f"/runs/{run_id}")).json()
    assert [event.event for event in events].count("RunFinished") == 1
    last = events[-1].data
    assert last["event"] == "RunFinished"
    assert last["status"] == run["status"] in {"completed", "failed", "cancelled"}
    assert last["session_revision"] == run["session_revision"]
    assert last.get("content") == run["content"]
    assert last["sequence"] == len(events)
    assert (run["error"] is None) == (run["status"] != "failed")
    status: str = run["status"]
    return status


async def test_whatever_races_at_the_end_there_is_one(database_url: str) -> None:
    """Runs that complete, fail, time out and are cancelled by several at the same moment."""
    async with running(database_url, Racer, SyncRacer, cancel_grace_seconds=5) as client:

        async def race(number: int) -> str:
            options: dict[str, Any] = {"session_id": f"{number}"} | (
                {"timeout_seconds": 0.1} if number % 5 == 0 else {}
            )
            run = await client.start(("racer", "sync-racer")[number % 2], options, number=number)
            for _ in range(number % 4):
                await asyncio.sleep(number % 11 / 100)
                await client.post(f"/runs/{run['run_id']}/cancel")
            status = await check_end(client, run["run_id"])
            saved = (await client.get(f"/sessions/{number}/state")).json()
            assert bool(saved) == (status == "completed")
            return status

        statuses = Counter(await asyncio.gather(*(race(number) for number in range(80))))
        assert set(statuses) == {"completed", "failed", "cancelled"}, statuses


async def test_status_last_event_and_state_are_seen_together_or_not_at_all(database_url: str) -> None:
    """Whoever looks while runs end never sees one of the three without the others."""
    async with running(database_url, Racer) as client:
        run_ids: list[str] = []
        looks = Counter[bool]()

        async def look(run_id: str, session_id: str) -> None:
            while True:
                run = (await client.get(f"/runs/{run_id}")).json()
                events = (await client.get(f"/runs/{run_id}/events", headers=JSON)).json()["items"]
                revision = (await client.get(f"/sessions/{session_id}")).json()["revision"]
                finished = bool(events) and events[-1]["event"] == "RunFinished"
                looks[finished] += 1
                if run["finished_at"] is not None:
                    assert finished
                    assert revision == run["session_revision"] == 1
                    return
                if finished:
                    assert revision == 1
                    assert (await client.get(f"/runs/{run_id}")).json()["status"] == "completed"

        for number in (1, 2, 4, 5, 8, 10, 11, 13):
            run = await client.start("racer", {"session_id": f"{number}"}, number=number)
            run_ids.append(run["run_id"])
            await look(run["run_id"], f"{number}")
        assert looks[False]


async def test_after_the_end_nothing_more_is_written(database_url: str) -> None:
    class Ghost(Workflow):
        """Goes on after it was told to stop."""

        async def run(self) -> AsyncIterator[RunResponse]:
            yield RunResponse(content="before")
            for _ in range(50):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.01)
                self.session_state["ghost"] = True
                yield RunResponse(content="boo")
                self.write_to_storage()

    async with running(database_url, Ghost, cancel_grace_seconds=0.05) as client:
        run = await client.start("ghost", {"session_id": "s"})
        await asyncio.sleep(0.1)
        await client.post(f"/runs/{run['run_id']}/cancel")
        ended = await client.ended(run["run_id"])
        events = await client.events(run["run_id"])
        revision = (await client.get("/sessions/s")).json()["revision"]
        await asyncio.sleep(0.6)
        assert await client.events(run["run_id"]) == events
        assert (await client.get(f"/runs/{run['run_id']}")).json() == ended
        assert (await client.get("/sessions/s")).json()["revision"] == revision
