"""One file, several users of it: runs of one script, other scripts, a service."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app import RunResponse, SqliteWorkflowStorage, Workflow
from app.errors import ConfigurationError, Conflict, Invalid
from tests.script.scripts import begin, end
from tests.support.processes import server_process
from tests.support.server import running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "workflows.db"


@pytest.fixture
def storage(file: Path) -> SqliteWorkflowStorage:
    return SqliteWorkflowStorage("workflows", db_file=file)


class Counter(Workflow):
    def run(self, name: str = "x", count: int = 3) -> Iterator[RunResponse]:
        for _ in range(count):
            yield RunResponse(content=name)
        self.session_state["count"] = self.session_state.get("count", 0) + 1
        self.session_state.setdefault("names", []).append(name)


class Outer(Workflow):
    file: str

    def run(self, session: str) -> Iterator[RunResponse]:
        inner = Counter(session_id=session, storage=SqliteWorkflowStorage("inner", db_file=self.file))
        for response in inner.run(name="inner", count=2):
            yield RunResponse(content=f"outer {response.content}")
        self.session_state["inner"] = inner.session_state


class SameSession(Workflow):
    file: str

    def run(self, depth: int) -> Iterator[RunResponse]:
        if depth:
            again = SameSession(session_id="one", storage=SqliteWorkflowStorage("inner", db_file=self.file))
            yield from again.run(depth=depth - 1)
        yield RunResponse(content=str(depth))


class AsyncOuter(Workflow):
    file: str

    async def run(self, blocking: bool) -> AsyncIterator[RunResponse]:
        inner = Counter(session_id="inner", storage=SqliteWorkflowStorage("inner", db_file=self.file))
        responses = list(inner.run()) if blocking else await asyncio.to_thread(lambda: list(inner.run()))
        yield RunResponse(content=len(responses))


def test_iterators_of_one_session_take_turns(storage: SqliteWorkflowStorage) -> None:
    workflow = Counter(session_id="one", storage=storage)
    pairs = list(zip(workflow.run(name="a"), workflow.run(name="b"), strict=True))
    assert [(one.content, other.content) for one, other in pairs] == [("a", "b")] * 3
    assert workflow.session_state == {"count": 2, "names": ["a", "b"]}


def test_iterators_of_one_instance_in_two_sessions_do_not_mix(storage: SqliteWorkflowStorage) -> None:
    workflow = Counter(session_id="one", storage=storage)
    first = workflow.run(name="a")
    next(first)
    workflow.session_id = "two"
    second = workflow.run(name="b")
    next(second)
    assert [response.session_id for response in [*first, *second]] == ["one"] * 2 + ["two"] * 2
    for session in ("one", "two"):
        again = Counter(session_id=session, storage=storage)
        list(again.run(name="c"))
        assert again.session_state["count"] == 2


def test_threads_of_one_process_share_the_file(storage: SqliteWorkflowStorage) -> None:
    def work(number: int) -> None:
        for _ in range(3):
            list(Counter(session_id=f"session-{number % 2}", storage=storage).run(count=1))

    threads = [threading.Thread(target=work, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number in range(2):
        workflow = Counter(session_id=f"session-{number}", storage=storage)
        list(workflow.run())
        assert workflow.session_state["count"] == 10


def test_a_run_may_run_others_in_the_same_file(storage: SqliteWorkflowStorage, file: Path) -> None:
    Outer.file = str(file)
    workflow = Outer(session_id="one", storage=storage)
    assert [response.content for response in workflow.run(session="two")] == ["outer inner", "outer inner"]
    assert workflow.session_state == {"inner": {"count": 1, "names": ["inner"]}}


def test_a_run_that_would_wait_for_itself_is_refused(storage: SqliteWorkflowStorage, file: Path) -> None:
    SameSession.file = str(file)
    with pytest.raises(Conflict, match="cannot start another in its own session"):
        list(SameSession(session_id="one", storage=storage).run(depth=1))


async def test_async_code_runs_sync_ones_in_threads(storage: SqliteWorkflowStorage, file: Path) -> None:
    AsyncOuter.file = str(file)
    workflow = AsyncOuter(session_id="one", storage=storage)
    assert [response.content async for response in workflow.run(blocking=False)] == [3]
    with pytest.raises(Invalid, match=r"asyncio\.to_thread"):
        [response async for response in workflow.run(blocking=True)]


def test_a_session_of_another_workflow_is_refused(storage: SqliteWorkflowStorage, file: Path) -> None:
    list(Counter(session_id="one", storage=storage).run())
    Outer.file = str(file)
    with pytest.raises(Conflict, match="belongs to the workflow 'counter'"):
        list(Outer(session_id="one", session_state={"a": 1}, storage=storage).run(session="x"))
    again = Counter(session_id="one", storage=storage)
    list(again.run())
    assert again.session_state == {"count": 2, "names": ["x", "x"]}


async def test_a_file_that_a_service_has_is_refused_until_it_has_gone(
    storage: SqliteWorkflowStorage, file: Path
) -> None:
    workflow = Counter(session_id="one", storage=storage)
    async with running(f"sqlite:///{file}", Counter) as client:
        with pytest.raises(ConfigurationError, match=r"another process has .* open; one process serves a SQLite file"):
            await asyncio.to_thread(lambda: list(workflow.run()))
        await client.finish("counter", {"session_id": "one"})
    list(workflow.run())
    assert workflow.session_state["count"] == 2


async def test_a_service_is_refused_while_a_script_has_a_run(storage: SqliteWorkflowStorage, file: Path) -> None:
    responses = Counter(session_id="one", storage=storage).run()
    next(responses)
    with pytest.raises(RuntimeError, match="one process serves a SQLite file"):
        async with server_process(f"sqlite:///{file}", Counter):
            pass
    assert len(list(responses)) == 2
    async with running(f"sqlite:///{file}", Counter) as client:
        assert (await client.get("/sessions/one/state")).json()["count"] == 1


COUNT = """
    import json
    from app import RunResponse, SqliteWorkflowStorage, Workflow

    class Counter(Workflow):
        def run(self):
            yield RunResponse(content="working")
            self.session_state["count"] = self.session_state.get("count", 0) + 1

    workflow = Counter(session_id="one", storage=SqliteWorkflowStorage("workflows", db_file="workflows.db"))
    for _ in range(10):
        for response in workflow.run():
            print(json.dumps(response.content))
"""


def test_two_scripts_wait_for_each_other(tmp_path: Path, storage: SqliteWorkflowStorage) -> None:
    processes = [begin(tmp_path, COUNT) for _ in range(2)]
    assert [end(process) for process in processes] == [["working"] * 10] * 2
    workflow = Counter(session_id="one", storage=storage)
    list(workflow.run())
    assert workflow.session_state["count"] == 21
