"""A script whose storage names a table that Agno 1.x or phidata wrote goes on with what is there."""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from app import SqliteWorkflowStorage
from app.errors import Invalid
from tests.imports.seed_tables import TABLE, VERSIONS, contents, session, write
from tests.script.scripts import SEED_PAGE, run
from tests.script.seed_page import BlogPostGenerator
from tests.support.server import running


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_the_page_goes_on_with_its_own_table(tmp_path: Path, version: str) -> None:
    (tmp_path / "tmp").mkdir()
    file = write(tmp_path / "tmp" / "workflows.db", version, [session(version, "my-session-id")])
    before = contents(file)
    assert [line[:2] for line in run(tmp_path, SEED_PAGE)] == [["WorkflowCompleted", "post about bread"]]
    assert contents(file) == before
    async with running(f"sqlite:///{file}", BlogPostGenerator) as client:
        runs = (await client.get("/runs", params={"session_id": "my-session-id"})).json()["items"]
        assert [told["content"] for told in runs] == ["post about bread", "post about wine", "post about bread"]
        assert (await client.get("/sessions/my-session-id")).json()["revision"] == 1


def test_a_table_is_taken_over_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = session("agno 1.0.8", "broken", memory="{")
    file = write(tmp_path / "workflows.db", "agno 1.0.8", [session("agno 1.0.8", "a/b"), broken])
    workflow = BlogPostGenerator(session_id="one", storage=SqliteWorkflowStorage(TABLE, db_file=file))
    with caplog.at_level(logging.WARNING):
        list(workflow.run(topic="bread"))
    told = [record.getMessage() for record in caplog.records]
    assert any("agno_row_not_imported" in line and "'broken': memory: " in line for line in told)
    assert any("agno_session_renamed: 'a/b'" in line for line in told)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(f"UPDATE {TABLE} SET session_id = 'new' WHERE session_id = 'broken'")
    caplog.clear()
    list(workflow.run(topic="bread"))
    assert not caplog.records
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT source FROM imports").fetchall() == [(TABLE,)]
        assert database.execute("SELECT count(*) FROM sessions").fetchall() == [(2,)]


def test_rows_without_a_name_are_the_scripts_workflows(tmp_path: Path) -> None:
    rows = [session("phidata 2.7.10", workflow_data=None)]
    file = write(tmp_path / "workflows.db", "phidata 2.7.10", rows)
    workflow = BlogPostGenerator(session_id="one", storage=SqliteWorkflowStorage(TABLE, db_file=file))
    assert [response.content for response in workflow.run(topic="bread")] == ["post about bread"]


def test_a_class_with_a_name_of_its_own_is_found_by_that_of_the_class(tmp_path: Path) -> None:
    named = type("BlogPostGenerator", (BlogPostGenerator,), {"name": "posts"})
    file = write(tmp_path / "workflows.db", "agno 1.0.8", [session("agno 1.0.8")])
    workflow = named(session_id="one", storage=SqliteWorkflowStorage(TABLE, db_file=file))
    assert [response.content for response in workflow.run(topic="bread")] == ["post about bread"]


def test_step_workflows_are_refused_and_other_tables_ignored(tmp_path: Path) -> None:
    file = write(tmp_path / "workflows.db", "agno 1.8.4 workflow_v2", [], "steps")
    write(file, "agents", [], "agents")
    with pytest.raises(Invalid, match="workflow_v2"):
        list(BlogPostGenerator(storage=SqliteWorkflowStorage("steps", db_file=file)).run(topic="bread"))
    assert len(list(BlogPostGenerator(storage=SqliteWorkflowStorage("agents", db_file=file)).run(topic="bread"))) == 3
