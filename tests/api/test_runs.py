import asyncio
from collections.abc import AsyncIterator, Iterator

from app import RunResponse, Workflow
from tests.support.server import running


class Echo(Workflow):
    """Say the words."""

    def run(self, text: str, count: int = 3) -> Iterator[RunResponse]:
        for number in range(count):
            yield RunResponse(content=f"{text}{number} ")
        self.session_state.setdefault("texts", []).append(text)


class AsyncEcho(Workflow):
    async def run(self, text: str, count: int = 3) -> AsyncIterator[RunResponse]:
        answer = await self.step(lambda: 42, name="answer")
        for number in range(count):
            yield RunResponse(content=f"{text}{number} ")
            await asyncio.sleep(0)
        self.session_state["answer"] = answer


async def test_a_run_streams_its_events_to_the_end(database_url: str) -> None:
    async with running(database_url, Echo, AsyncEcho) as client:
        run = await client.finish("echo", {"session_id": "one"}, text="hi")
        events = await client.events(run["run_id"])
        assert [event.event for event in events] == [
            "WorkflowStarted",
            *["RunResponse"] * 3,
            "StateSaved",
            "RunFinished",
        ]
        assert [event.id for event in events] == ["1", "2", "3", "4", "5", "6"]
        assert run["content"] == "hi0 hi1 hi2 "
        assert (await client.get("/sessions/one/state")).json() == {"texts": ["hi"]}


async def test_async_code_runs_steps(database_url: str) -> None:
    async with running(database_url, Echo, AsyncEcho) as client:
        run = await client.finish("async-echo", {"session_id": "one"}, text="hi")
        assert run["status"] == "completed", run
        names = [event.event for event in await client.events(run["run_id"])]
        assert names[:3] == ["WorkflowStarted", "StepStarted", "StepCompleted"]
        assert (await client.get("/sessions/one/state")).json() == {"answer": 42}
