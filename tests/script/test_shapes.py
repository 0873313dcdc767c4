"""The shapes of `run()`: what a script gets back from each."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from app import RunResponse, SqliteWorkflowStorage, Workflow
from app.errors import Invalid


@pytest.fixture
def storage(tmp_path: Path) -> SqliteWorkflowStorage:
    return SqliteWorkflowStorage("workflows", db_file=str(tmp_path / "workflows.db"))


class Post(BaseModel):
    title: str


class Generator(Workflow):
    def run(self, topic: str, count: int = 2) -> Iterator[RunResponse]:
        for number in range(count):
            yield RunResponse(content=Post(title=f"{topic} {number}"), run_id="mine", session_id="mine")
        self.session_state["topic"] = topic


class Function(Workflow):
    def run(self, topic: str) -> RunResponse:
        self.session_state["topic"] = self.step(topic.upper, name="upper")
        return RunResponse(content=topic)


class Plain(Workflow):
    def run(self, topic: str) -> dict[str, Any]:
        self.session_state["topic"] = topic
        return {"length": len(topic)}


class Nothing(Workflow):
    def run(self) -> None:
        self.session_state["ran"] = True


class Delegating(Workflow):
    def run(self, topic: str) -> Iterator[RunResponse]:
        self.session_state["topic"] = topic
        return self._pieces(topic)

    def _pieces(self, topic: str) -> Iterator[RunResponse]:
        for piece in topic.split():
            yield RunResponse(content=piece)


class AsyncGenerator(Workflow):
    async def run(self, topic: str) -> AsyncIterator[RunResponse]:
        for piece in topic.split():
            await asyncio.sleep(0)
            yield RunResponse(content=piece)
        self.session_state["topic"] = await self.step(lambda: topic, name="topic")


class Coroutine(Workflow):
    async def run(self, topic: str) -> RunResponse:
        await asyncio.sleep(0)
        self.session_state["topic"] = topic
        return RunResponse(content=topic)


def test_a_generator_gives_its_own_responses(storage: SqliteWorkflowStorage) -> None:
    workflow = Generator(session_id="one", user_id="ada", session_name="Posts", storage=storage)
    responses = list(workflow.run(topic="bread"))
    assert [response.content for response in responses] == [Post(title="bread 0"), Post(title="bread 1")]
    for response in responses:
        assert (response.run_id, response.session_id) == (workflow.run_id, "one")
        assert response.workflow_id == "generator"
        assert type(response.created_at) is int
        assert response.content_type == "Post"


def test_a_function_gives_what_it_returns(storage: SqliteWorkflowStorage) -> None:
    workflow = Function(session_id="one", storage=storage)
    response = workflow.run(topic="bread")
    assert (response.content, response.session_id, response.run_id) == ("bread", "one", workflow.run_id)
    assert workflow.session_state == {"topic": "BREAD"}
    plain = Plain(session_id="two", storage=storage)
    assert plain.run(topic="bread") == {"length": 5}
    assert plain.session_state == {"topic": "bread"}
    nothing = Nothing(session_id="three", storage=storage)
    nothing.run()
    assert nothing.session_state == {"ran": True}


def test_a_function_that_returns_an_iterator_gives_one(storage: SqliteWorkflowStorage) -> None:
    workflow = Delegating(session_id="one", storage=storage)
    assert [response.content for response in workflow.run(topic="bread and wine")] == ["bread", "and", "wine"]
    assert workflow.session_state == {"topic": "bread and wine"}


async def test_async_shapes(storage: SqliteWorkflowStorage) -> None:
    streaming = AsyncGenerator(session_id="one", storage=storage)
    assert [response.content async for response in streaming.run(topic="bread and wine")] == ["bread", "and", "wine"]
    assert streaming.session_state == {"topic": "bread and wine"}
    coroutine = Coroutine(session_id="two", storage=storage)
    response = await coroutine.run(topic="bread")
    assert (response.content, response.run_id) == ("bread", coroutine.run_id)


def test_async_shapes_in_a_loop_of_the_callers(storage: SqliteWorkflowStorage) -> None:
    async def collect() -> list[Any]:
        return [response.content async for response in AsyncGenerator(storage=storage).run(topic="bread and wine")]

    assert asyncio.run(collect()) == ["bread", "and", "wine"]
    assert asyncio.run(Coroutine(storage=storage).run(topic="bread")).content == "bread"


async def test_sync_shapes_where_the_caller_has_a_loop(storage: SqliteWorkflowStorage) -> None:
    assert len(list(Generator(storage=storage).run(topic="bread", count=3))) == 3
    assert Plain(storage=storage).run(topic="bread") == {"length": 5}


@pytest.mark.parametrize("arguments", [{}, {"topic": "a", "colour": "red"}])
def test_missing_and_unknown_arguments_are_refused_at_the_call(
    storage: SqliteWorkflowStorage, arguments: dict[str, Any]
) -> None:
    for workflow in (Generator, Plain, AsyncGenerator, Coroutine):
        with pytest.raises(TypeError):
            workflow(storage=storage).run(**arguments)


def test_arguments_by_position_and_of_other_types_are_refused(storage: SqliteWorkflowStorage) -> None:
    with pytest.raises(TypeError):
        Generator(storage=storage).run("bread")
    with pytest.raises(Invalid, match="topic"):
        Generator(storage=storage).run(topic=3)  # type: ignore[arg-type]
    with pytest.raises(Invalid, match="topic"):
        Generator(storage=storage).run(topic=object())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a/b", "", "x" * 256, "."])
def test_session_ids_that_no_address_can_hold_are_refused(storage: SqliteWorkflowStorage, name: str) -> None:
    with pytest.raises(Invalid, match="session_id"):
        Plain(session_id=name, storage=storage).run(topic="bread")


def test_no_thread_stays(storage: SqliteWorkflowStorage) -> None:
    before = threading.active_count()
    for _ in range(5):
        list(Generator(storage=storage).run(topic="bread"))
        Plain(storage=storage).run(topic="bread")
    assert threading.active_count() == before
