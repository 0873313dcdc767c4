"""How a script's run ends other than well, and what is on disk then."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app import RunResponse, SqliteWorkflowStorage, Workflow
from app.errors import Conflict
from app.script import RunFailed
from tests.script.scripts import run
from tests.support.server import running
from tests.support.waiting import until


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "workflows.db"


@pytest.fixture
def storage(file: Path) -> SqliteWorkflowStorage:
    return SqliteWorkflowStorage("workflows", db_file=file)


class OutOfBread(Exception):
    pass


class Failing(Workflow):
    def run(self, save: bool = False) -> Iterator[RunResponse]:
        self.session_state["begun"] = True
        if save:
            self.write_to_storage()
        self.session_state["lost"] = True
        yield RunResponse(content="so far")
        raise OutOfBread("there is no bread")


class Unencodable(Workflow):
    def run(self) -> Iterator[RunResponse]:
        yield RunResponse(content="fine")
        self.session_state["lock"] = object()


class Wrong(Workflow):
    def run(self) -> Iterator[Any]:
        yield "no response"


class Function(Workflow):
    def run(self, kind: str) -> None:
        raise {"stop": StopIteration("over"), "exit": SystemExit(3), "bread": OutOfBread("there is no bread")}[kind]


class Counting(Workflow):
    closed: list[str]

    def run(self) -> Iterator[RunResponse]:
        try:
            for number in range(100):
                self.session_state["count"] = number
                yield RunResponse(content=str(number))
        finally:
            self.closed.append(self.run_id or "")


class AsyncCounting(Workflow):
    closed: list[str]

    async def run(self) -> AsyncIterator[RunResponse]:
        try:
            for number in range(100):
                self.session_state["count"] = number
                yield RunResponse(content=str(number))
        finally:
            self.closed.append(self.run_id or "")


class AsyncFailing(Workflow):
    async def run(self) -> AsyncIterator[RunResponse]:
        yield RunResponse(content="so far")
        raise OutOfBread("there is no bread")


class Asking(Workflow):
    def run(self) -> Iterator[RunResponse]:
        yield RunResponse(content="asking")
        yield RunResponse(content=self.wait_for_input("Which?"))


def rows(file: Path) -> list[tuple[str, str | None]]:
    """Status and error of each run on disk."""
    with closing(sqlite3.connect(file)) as database:
        return database.execute("SELECT status, json_extract(error, '$.message') FROM runs ORDER BY run_id").fetchall()


async def statuses(file: Path, wanted: list[str]) -> bool:
    return [status for status, _ in rows(file)] == wanted


@pytest.mark.parametrize("save", [False, True])
def test_a_failure_reaches_the_caller_as_it_was_raised(storage: SqliteWorkflowStorage, file: Path, save: bool) -> None:
    workflow = Failing(session_id="one", storage=storage)
    responses = workflow.run(save=save)
    assert next(responses).content == "so far"
    with pytest.raises(OutOfBread, match="there is no bread") as raised:
        next(responses)
    assert workflow.run_id is not None
    assert workflow.run_id in raised.value.__notes__[0]
    with pytest.raises(StopIteration):
        next(responses)
    assert rows(file) == [("failed", "there is no bread")]
    assert workflow.session_state == ({"begun": True} if save else {})


@pytest.mark.parametrize(
    ("workflow", "code", "message"),
    [(Unencodable, "unencodable", "/lock"), (Wrong, "invalid_event", "run\\(\\) yielded str")],
)
def test_what_the_service_refuses_fails_the_run(
    storage: SqliteWorkflowStorage, file: Path, workflow: type[Workflow], code: str, message: str
) -> None:
    with pytest.raises(RunFailed, match=message) as raised:
        list(workflow(session_id="one", storage=storage).run())
    assert raised.value.problem_code == code
    assert [status for status, _ in rows(file)] == ["failed"]


@pytest.mark.parametrize(("kind", "error"), [("stop", StopIteration), ("exit", SystemExit), ("bread", OutOfBread)])
def test_functions_raise_what_they_raised(
    storage: SqliteWorkflowStorage, file: Path, kind: str, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        Function(session_id="one", storage=storage).run(kind=kind)
    assert [status for status, _ in rows(file)] == ["failed"]


async def test_async_code_raises_likewise(storage: SqliteWorkflowStorage, file: Path) -> None:
    with pytest.raises(OutOfBread):
        [response async for response in AsyncFailing(storage=storage).run()]
    assert rows(file) == [("failed", "there is no bread")]


def test_an_iterator_closed_early_cancels_its_run_where_it_stands(storage: SqliteWorkflowStorage, file: Path) -> None:
    Counting.closed = []
    workflow = Counting(session_id="one", storage=storage)
    for response in workflow.run():
        if response.content == "4":
            break
    assert rows(file) == [("cancelled", None)]
    assert Counting.closed == [workflow.run_id]
    assert workflow.session_state == {}
    responses: Any = workflow.run()
    next(responses)
    responses.close()
    assert [status for status, _ in rows(file)] == ["cancelled", "cancelled"]
    with closing(sqlite3.connect(file)) as database:
        said = database.execute("SELECT count(*) FROM run_events WHERE event = 'RunResponse'").fetchone()
    assert said == (5 + 1,)


async def test_an_async_iterator_likewise(storage: SqliteWorkflowStorage, file: Path) -> None:
    AsyncCounting.closed = []
    workflow = AsyncCounting(session_id="one", storage=storage)
    responses: Any = workflow.run()
    assert (await anext(responses)).content == "0"
    await responses.aclose()
    assert rows(file) == [("cancelled", None)]
    assert AsyncCounting.closed == [workflow.run_id]

    async def read_on() -> None:
        async for _ in workflow.run():
            await asyncio.sleep(10)

    task = asyncio.create_task(read_on())
    await until(lambda: statuses(file, ["cancelled", "running"]))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # An async iterator that is dropped is closed by a task of the loop's.
    await until(lambda: statuses(file, ["cancelled", "cancelled"]))


def test_an_iterator_never_asked_has_no_run(storage: SqliteWorkflowStorage, file: Path) -> None:
    responses: Any = Counting(storage=storage).run()
    responses.close()
    del responses
    Counting(storage=storage).run()
    assert not file.exists()


async def test_a_question_leaves_the_run_to_a_service(storage: SqliteWorkflowStorage, file: Path) -> None:
    workflow = Asking(session_id="one", storage=storage)
    responses = workflow.run()
    assert next(responses).content == "asking"
    with pytest.raises(RunFailed, match="waits for an answer to 'Which\\?'") as raised:
        next(responses)
    with pytest.raises(Conflict, match="waits for an answer"):
        next(workflow.run())
    async with running(f"sqlite:///{file}", Asking) as client:
        body = {"request_id": raised.value.extra["request_id"], "value": "this"}
        answer = await client.post(f"/runs/{workflow.run_id}/input", json=body)
        assert answer.status_code == 202, answer.text
        assert (await client.ended(str(workflow.run_id)))["content"] == "askingthis"


LIVE = """
    import time
    from app import RunResponse, SqliteWorkflowStorage, Workflow

    class Endless(Workflow):
        def run(self):
            number = 0
            while True:
                yield RunResponse(content=str(number))
                number += 1

    class Deaf(Workflow):
        def run(self):
            yield RunResponse(content="0")
            time.sleep(1000)
            yield RunResponse(content="1")

    workflow = {kind}(session_id="one", storage=SqliteWorkflowStorage("workflows", db_file="workflows.db"))
    responses = workflow.run()
    print(next(responses).content, flush=True)
"""


@pytest.mark.parametrize("ending", ["", "raise SystemExit(0)", "other = responses; del responses"])
def test_a_process_that_ends_ends_its_run(tmp_path: Path, file: Path, ending: str) -> None:
    assert run(tmp_path, LIVE.replace("{kind}", "Endless") + f"    {ending}\n") == [0]
    assert rows(file) == [("cancelled", None)]


def test_code_that_does_not_listen_cannot_keep_a_process(tmp_path: Path, file: Path) -> None:
    source = (
        LIVE.replace("{kind}", "Deaf")
        + """
    import threading
    threading.Thread(target=next, args=[responses], daemon=True).start()
    time.sleep(0.5)
"""
    )
    source = "    import os; os.environ['MILLSTREAM_CANCEL_GRACE_SECONDS'] = '0.5'\n" + source
    begun = time.monotonic()
    assert run(tmp_path, source) == [0]
    assert time.monotonic() - begun < 10
    assert rows(file) == [("cancelled", None)]


async def test_a_process_that_is_killed_leaves_its_run_to_a_service(tmp_path: Path, file: Path) -> None:
    source = (
        LIVE.replace("{kind}", "Counting")
        .replace("class Endless", "class Counting")
        .replace("while True", "while number < 3")
    )
    assert run(tmp_path, source + "    import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n", code=-9) == [0]
    assert rows(file) == [("running", None)]
    Counting.closed = []
    async with running(f"sqlite:///{file}", Counting) as client:
        (told,) = (await client.get("/runs")).json()["items"]
        ended = await client.ended(told["run_id"])
        assert ended["status"] == "completed"
        assert ended["attempt"] == 2
