"""`write_to_storage()` and the save at the end."""

import asyncio
from collections.abc import AsyncIterator, Iterator

from app import RunResponse, Workflow
from tests.support.server import running


async def test_a_save_is_on_disk_before_the_author_goes_on(database_url: str) -> None:
    class Saver(Workflow):
        async def run(self) -> AsyncIterator[RunResponse]:
            self.session_state["a"] = 1
            await self.write_to_storage()
            yield RunResponse(content=(await client.get("/sessions/s/state")).json())
            self.session_state["b"] = [2]

    async with running(database_url, Saver) as client:
        run = await client.finish("saver", {"session_id": "s"})
        assert run["content"] == {"a": 1}, run
        events = await client.events(run["run_id"])
        saved = [event.data for event in events if event.event == "StateSaved"]
        assert [(each["revision"], each["paths"], each["conflicts"]) for each in saved] == [
            (1, ["/a"], []),
            (2, ["/b"], []),
        ]
        assert [event.event for event in events][-2:] == ["StateSaved", "RunFinished"]
        assert run["session_revision"] == events[-1].data["session_revision"] == 2


async def test_a_save_in_sync_code_is_too(database_url: str) -> None:
    class Saver(Workflow):
        def run(self) -> Iterator[RunResponse]:
            for number in range(3):
                self.session_state.setdefault("numbers", []).append(number)
                self.write_to_storage()
                yield RunResponse(content=f"{number}")

    async with running(database_url, Saver) as client:
        run = await client.finish("saver", {"session_id": "s"})
        assert run["session_revision"] == 3
        events = [event.event for event in await client.events(run["run_id"])]
        assert events == ["WorkflowStarted", *["StateSaved", "RunResponse"] * 3, "RunFinished"]


async def test_a_save_that_changes_nothing_says_nothing(database_url: str) -> None:
    class Idle(Workflow):
        def run(self) -> None:
            self.write_to_storage()
            self.session_state["a"] = 1
            self.session_state.pop("a")

    async with running(database_url, Idle) as client:
        run = await client.finish("idle", {"session_id": "s"})
        assert run["session_revision"] == 0
        assert [event.event for event in await client.events(run["run_id"])] == ["WorkflowStarted", "RunFinished"]
        assert (await client.get("/sessions/s/state/revisions")).json()["items"] == []


async def test_a_save_takes_the_state_as_it_is_at_the_call(database_url: str) -> None:
    class Hasty(Workflow):
        async def run(self) -> None:
            self.session_state["a"] = 1
            saving = self.write_to_storage()
            self.session_state["a"] = 2
            await saving
            raise ValueError("the second value is not to be kept")

    async with running(database_url, Hasty) as client:
        await client.finish("hasty", {"session_id": "s"})
        assert (await client.get("/sessions/s/state")).json() == {"a": 1}


async def test_a_save_that_nobody_awaits_is_made_all_the_same(database_url: str) -> None:
    class Careless(Workflow):
        async def run(self) -> None:
            self.session_state["a"] = 1
            self.write_to_storage()
            await asyncio.sleep(0)
            raise ValueError

    async with running(database_url, Careless) as client:
        run = await client.finish("careless", {"session_id": "s"})
        assert run["status"] == "failed"
        assert (await client.get("/sessions/s/state")).json() == {"a": 1}


async def test_nested_changes_are_seen(database_url: str) -> None:
    class Nested(Workflow):
        def run(self) -> None:
            self.session_state.setdefault("posts", []).append({"tags": {"a"}})
            self.session_state["posts"][0]["n"] = len(self.session_state["posts"])

    async with running(database_url, Nested) as client:
        for _ in range(2):
            assert (await client.finish("nested", {"session_id": "s"}))["status"] == "completed"
        assert (await client.get("/sessions/s/state")).json() == {"posts": [{"tags": ["a"], "n": 2}, {"tags": ["a"]}]}


async def test_a_state_that_is_assigned_anew_replaces_the_old(database_url: str) -> None:
    class Resetter(Workflow):
        def run(self) -> None:
            self.session_state = {"new": True}

    async with running(database_url, Resetter) as client:
        await client.post("/sessions", json={"workflow": "resetter", "session_id": "s", "session_state": {"old": 1}})
        await client.finish("resetter", {"session_id": "s"})
        assert (await client.get("/sessions/s/state")).json() == {"new": True}
