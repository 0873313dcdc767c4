"""What a script's instance brings into its run, and what it has afterwards."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from app import RunResponse, SqliteWorkflowStorage, Workflow
from app.agents.agent import Agent
from app.errors import ConfigurationError, Invalid
from tests.script.scripts import run
from tests.support.server import running
from tests.support.waiting import until


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "workflows.db"


@pytest.fixture
def storage(file: Path) -> SqliteWorkflowStorage:
    return SqliteWorkflowStorage("workflows", db_file=file)


class Keeper(Workflow):
    """Changes the state as it is told, and says what it found."""

    def run(self, set: dict[str, Any] | None = None, drop: str | None = None) -> Iterator[RunResponse]:
        yield RunResponse(content=dict(self.session_state))
        self.session_state |= set or {}
        if drop is not None:
            del self.session_state[drop]


def found(workflow: Keeper, **arguments: Any) -> Any:
    (response,) = workflow.run(**arguments)
    return response.content


def test_the_constructors_state_gives_defaults_and_the_stored_one_wins(storage: SqliteWorkflowStorage) -> None:
    first = Keeper(session_id="one", session_state={"a": 1, "deep": {"x": 1}, "none": None}, storage=storage)
    assert found(first, set={"a": 2}) == {"a": 1, "deep": {"x": 1}, "none": None}
    second = Keeper(session_id="one", session_state={"a": 9, "b": 9, "deep": {"x": 9, "y": 9}}, storage=storage)
    assert found(second) == {"a": 2, "deep": {"x": 1, "y": 9}, "none": None, "b": 9}
    assert second.session_state == {"a": 2, "deep": {"x": 1, "y": 9}, "none": None, "b": 9}


def test_a_long_lived_instance_brings_nothing_back(storage: SqliteWorkflowStorage) -> None:
    instance = Keeper(session_id="one", session_state={"a": 1, "b": 1}, storage=storage)
    found(instance)
    found(Keeper(session_id="one", storage=storage), set={"a": 2}, drop="b")
    assert found(instance) == {"a": 2}


def test_what_the_author_changes_between_runs_goes_in(storage: SqliteWorkflowStorage) -> None:
    instance = Keeper(session_id="one", storage=storage)
    found(instance, set={"a": 1, "b": 1, "c": 1})
    found(Keeper(session_id="one", storage=storage), set={"c": 2})
    instance.session_state["a"] = 5
    del instance.session_state["b"]
    assert found(instance) == {"a": 5, "c": 2}


def test_a_state_is_not_carried_into_another_session(storage: SqliteWorkflowStorage) -> None:
    instance = Keeper(session_id="one", storage=storage)
    found(instance, set={"a": 1})
    instance.session_id = "two"
    assert found(instance) == {}


async def test_user_and_name_reach_the_service(storage: SqliteWorkflowStorage, file: Path) -> None:
    workflow = Keeper(session_id="one", user_id="ada", session_name="First", storage=storage)
    await asyncio.to_thread(found, workflow)
    async with running(f"sqlite:///{file}", Keeper) as client:
        session = (await client.get("/sessions/one")).json()
        assert (session["user_id"], session["name"]) == ("ada", "First")
        (told,) = (await client.get("/runs", params={"user_id": "ada"})).json()["items"]
        assert told["run_id"] == workflow.run_id
    workflow.session_name = "Second"
    await asyncio.to_thread(found, workflow, set={"a": 1})
    async with running(f"sqlite:///{file}", Keeper) as client:
        assert (await client.get("/sessions/one")).json()["name"] == "Second"
        (revision,) = (await client.get("/sessions/one/state/revisions")).json()["items"]
        assert revision["run_id"] == workflow.run_id


class Configured(Workflow):
    writer = Agent(model="test")

    def __init__(self, style: str, **options: Any) -> None:
        super().__init__(**options)
        self.style = style
        self.seen: list[str] = []

    def run(self) -> Iterator[RunResponse]:
        self.seen.append(self.style)
        self.pages = 3
        yield RunResponse(content=f"{self.style} {self.writer.run('Hi').content}")


def test_the_run_has_what_the_author_set_and_he_has_what_it_set(storage: SqliteWorkflowStorage) -> None:
    workflow = Configured("plain", session_id="one", storage=storage)
    own = workflow.writer
    (response,) = workflow.run()
    assert str(response.content).startswith("plain ")
    assert (workflow.seen, workflow.pages) == (["plain"], 3)
    assert workflow.writer is own
    assert Configured.writer.run_response is None


async def test_what_other_sessions_have_waits_for_a_service(storage: SqliteWorkflowStorage, file: Path) -> None:
    list(Keeper(session_id="one", storage=storage).run())
    leave_running(file, "one")
    for session, status in (("two", "queued"), ("three", "running")):
        list(Keeper(session_id=session, storage=storage).run())
        leave_running(file, session, status)
    list(Keeper(session_id="four", storage=storage).run())
    before = {session: status for session, status in statuses(file) if session != "four"}
    assert before == {"one": "running", "two": "queued", "three": "running"}
    list(Keeper(session_id="one", storage=storage).run(set={"after": True}))  # what its own session has goes first
    assert [status for session, status in statuses(file) if session == "one"] == ["completed", "completed"]
    assert {status for session, status in statuses(file) if session in {"two", "three"}} == {"queued", "running"}
    async with running(f"sqlite:///{file}", Keeper):
        await until(lambda: all_completed(file))


def leave_running(file: Path, session: str, status: str = "running") -> None:
    """What a process that was killed leaves of the session's last run."""
    with closing(sqlite3.connect(file)) as database, database:
        (run_id,) = database.execute("SELECT max(run_id) FROM runs WHERE session_id = ?", [session]).fetchone()
        database.execute("DELETE FROM run_events WHERE run_id = ? AND event = 'RunFinished'", [run_id])
        values = [status, run_id]
        database.execute("UPDATE runs SET status = ?, finished_at = NULL, worker_id = 'gone' WHERE run_id = ?", values)
        database.execute("UPDATE sessions SET active_run_id = ? WHERE session_id = ?", [run_id, session])


def statuses(file: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(file)) as database:
        return database.execute("SELECT session_id, status FROM runs ORDER BY run_id").fetchall()


async def all_completed(file: Path) -> bool:
    return {status for _, status in statuses(file)} == {"completed"}


@pytest.mark.parametrize(
    ("options", "message"),
    [({}, "needs a file"), ({"db_url": "sqlite://"}, "in a file"), ({"db_url": "postgresql://h/d"}, "in a file")],
)
def test_storages_without_a_file_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SqliteWorkflowStorage("workflows", **options)


def test_the_seeds_other_options_are_taken(file: Path) -> None:
    SqliteWorkflowStorage(table_name="t", db_file=file, schema_version=1, auto_upgrade_schema=True, mode="workflow")
    with pytest.raises(TypeError, match="colour"):
        SqliteWorkflowStorage(table_name="t", db_file=file, colour="red")


def test_a_file_whose_tables_have_the_names_of_ours_is_refused(storage: SqliteWorkflowStorage, file: Path) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE sessions (session_id VARCHAR PRIMARY KEY)")
    with pytest.raises(ConfigurationError, match="tables of the names that Millstream's need: sessions"):
        list(Keeper(storage=storage).run())


def test_a_state_past_the_cap_fails_before_or_after(tmp_path: Path) -> None:
    source = """
        import os
        os.environ["MILLSTREAM_MAX_STATE_BYTES"] = "100"
        from app import RunResponse, SqliteWorkflowStorage, Workflow
        from app.errors import TooLarge
        from app.script import RunFailed

        class Growing(Workflow):
            def run(self):
                self.session_state["text"] = "x" * 200
                yield RunResponse()

        storage = SqliteWorkflowStorage("workflows", db_file="workflows.db")
        try:
            list(Growing(session_id="one", storage=storage).run())
        except RunFailed as error:
            assert error.problem_code == "state_too_large", error.problem_code
            print(1)
        try:
            list(Growing(session_id="two", session_state={"text": "x" * 200}, storage=storage).run())
        except TooLarge:
            print(2)
    """
    assert run(tmp_path, source) == [1, 2]


def test_a_state_that_is_no_object_is_refused(storage: SqliteWorkflowStorage) -> None:
    workflow = Keeper(session_id="one", storage=storage)
    workflow.session_state = [1]  # type: ignore[assignment]
    with pytest.raises(Invalid, match="the state is a JSON object"):
        list(workflow.run())
