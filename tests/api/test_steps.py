"""Steps: results remembered durably, retries, timeouts, and the events about them."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel

from app import RunResponse, Workflow
from tests.support.server import running


class Page(BaseModel):
    title: str
    on: date


def load(title: str) -> Page:
    return Page(title=title, on=date(2026, 1, 2))


async def load_later(title: str) -> Page:
    await asyncio.sleep(0)
    return load(title)


class Loader(Workflow):
    def run(self) -> Iterator[RunResponse]:
        for function in (load, load_later):
            page = self.step(function, "bread")
            assert isinstance(page, Page)
            yield RunResponse(content=page.title)
        assert self.step(lambda: (1, {2})) == [1, [2]]
        assert self.step(lambda: None, name="nothing") is None


class AsyncLoader(Workflow):
    async def run(self) -> AsyncIterator[RunResponse]:
        for function in (load, load_later):
            page = await self.step(function, "bread")
            assert isinstance(page, Page)
            yield RunResponse(content=page.title)
        assert await self.step(lambda: (1, {2})) == [1, [2]]
        assert await self.step(lambda: None, name="nothing") is None


@pytest.mark.parametrize("workflow", ["loader", "async-loader"])
async def test_a_step_gives_what_its_function_returned(database_url: str, workflow: str) -> None:
    async with running(database_url, Loader, AsyncLoader) as client:
        run = await client.finish(workflow)
        assert (run["status"], run["content"]) == ("completed", "breadbread"), run["error"]
        events = await client.events(run["run_id"])
        steps = [(event.event, event.data["name"]) for event in events if event.event.startswith("Step")]
        assert steps == [
            (kind, name)
            for name in ("load", "load_later", "<lambda>", "nothing")
            for kind in ("StepStarted", "StepCompleted")
        ]
        assert all(event.data["seconds"] >= 0 for event in events if event.event == "StepCompleted")


class Flaky(Workflow):
    calls: int = 0

    def run(self, failures: int, retries: int) -> int:
        return int(self.step(self.attempt, failures, retries=retries, backoff_seconds=0.01, name="flaky"))

    def attempt(self, failures: int) -> int:
        self.calls += 1
        if self.calls <= failures:
            raise ValueError(f"try {self.calls}")
        return self.calls


class AsyncFlaky(Flaky):
    async def run(self, failures: int, retries: int) -> int:  # type: ignore[override]
        return int(await self.step(self.attempt, failures, retries=retries, backoff_seconds=0.01, name="flaky"))


@pytest.mark.parametrize("workflow", ["flaky", "async-flaky"])
async def test_a_step_is_tried_again_as_often_as_it_says(sqlite_url: str, workflow: str) -> None:
    async with running(sqlite_url, Flaky, AsyncFlaky) as client:
        assert (await client.finish(workflow, failures=2, retries=2))["content"] == 3
        run = await client.finish(workflow, failures=3, retries=2)
        assert run["error"] == {
            "code": "author_error",
            "type": "ValueError",
            "message": "try 3",
            "step": "flaky",
            "event": None,
        }
        names = [event.event for event in await client.events(run["run_id"])]
        assert names == ["WorkflowStarted", "StepStarted", "RunFinished"]


class Slow(Workflow):
    def run(self, catch: bool = False, retries: int = 0) -> Any:
        try:
            return self.step(time.sleep, 1, timeout_seconds=0.05, name="slow", retries=retries, backoff_seconds=0)
        except TimeoutError:
            if catch:
                return "caught"
            raise


class AsyncSlow(Workflow):
    async def run(self, catch: bool = False, retries: int = 0) -> Any:
        try:
            return await self.step(
                asyncio.sleep, 60, timeout_seconds=0.05, name="slow", retries=retries, backoff_seconds=0
            )
        except TimeoutError:
            if catch:
                return "caught"
            raise


@pytest.mark.parametrize("workflow", ["slow", "async-slow"])
async def test_a_step_past_its_time_raises_in_the_authors_code(sqlite_url: str, workflow: str) -> None:
    async with running(sqlite_url, Slow, AsyncSlow) as client:
        run = await client.finish(workflow)
        assert (run["status"], run["error"]["code"], run["error"]["step"]) == ("failed", "timeout", "slow")
        assert (await client.finish(workflow, catch=True))["content"] == "caught"
        assert (await client.finish(workflow, retries=1))["error"]["code"] == "timeout"


async def test_a_timeout_that_is_not_the_steps_is_an_error_of_the_authors(sqlite_url: str) -> None:
    class Socket(Workflow):
        def run(self) -> None:
            self.step(self.read)

        def read(self) -> None:
            raise TimeoutError("the other end said nothing")

    async with running(sqlite_url, Socket) as client:
        run = await client.finish("socket")
        assert (run["error"]["code"], run["error"]["step"]) == ("author_error", "read")


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_step_that_runs_out_of_an_iterator_fails_like_any_other(sqlite_url: str, asynchronous: bool) -> None:
    def first_of_nothing() -> Any:
        return next(iter(()))

    class Sync(Workflow):
        name = "workflow"

        def run(self) -> Any:
            return self.step(first_of_nothing)

    class Async(Workflow):
        name = "workflow"

        async def run(self) -> Any:
            return await self.step(first_of_nothing)

    async with running(sqlite_url, Async if asynchronous else Sync) as client:
        run = await client.start("workflow")
        ended = await client.ended(run["run_id"], seconds=5)
        assert (ended["status"], ended["error"]["code"]) == ("failed", "author_error")


async def test_an_error_that_the_author_catches_costs_only_the_step(sqlite_url: str) -> None:
    class Catcher(Workflow):
        def run(self) -> str:
            try:
                self.step(self.fail, name="bad")
            except ValueError as error:
                return str(error)
            return "no error"

        def fail(self) -> None:
            raise ValueError("bad luck")

    async with running(sqlite_url, Catcher) as client:
        run = await client.finish("catcher")
        assert (run["status"], run["content"]) == ("completed", "bad luck")


async def test_a_step_begins_only_when_its_start_is_on_disk(database_url: str) -> None:
    class Looker(Workflow):
        async def run(self) -> Any:
            return await self.step(self.look)

        async def look(self) -> list[str]:
            return [event.event for event in await events_of(self.run_id or "")]

    async with running(database_url, Looker) as client:

        async def events_of(run_id: str) -> list[Any]:
            page = (await client.get(f"/runs/{run_id}/events", headers={"Accept": "application/json"})).json()["items"]
            return [type("Event", (), {"event": event["event"]}) for event in page]

        run = await client.finish("looker")
        assert run["content"] == ["WorkflowStarted", "StepStarted"], run


async def test_steps_of_async_code_may_run_side_by_side(database_url: str) -> None:
    class Parallel(Workflow):
        async def run(self) -> list[int]:
            return list(
                await asyncio.gather(*(self.step(self.double, number, name=f"{number}") for number in range(20)))
            )

        async def double(self, number: int) -> int:
            await asyncio.sleep(0.01)
            return 2 * number

    async with running(database_url, Parallel) as client:
        run = await client.finish("parallel")
        assert run["content"] == [2 * number for number in range(20)]
        events = await client.events(run["run_id"])
        assert [int(event.id or 0) for event in events] == list(range(1, 43))
