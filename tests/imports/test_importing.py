"""The take-over of what Agno 1.x and phidata stored, by the function that `millstream import-agno` calls."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app import RunResponse, Workflow
from app.errors import ConfigurationError, Invalid, NotFound
from app.operations.imports import ImportReport
from app.script import import_agno
from app.settings import Settings
from tests.imports.seed_tables import CREATED_AT, TABLE, VERSIONS, contents, remembered, session, write
from tests.support.server import running


class BlogPostGenerator(Workflow):
    def run(self, topic: str, use_cache: bool = True) -> Iterator[RunResponse]:
        yield RunResponse(content=f"new post about {topic}")
        self.session_state.setdefault("blog_posts", []).append({"topic": topic})


def take(database_url: str, file: Path, table: str | None = None, **options: Any) -> ImportReport:
    settings = Settings(database_url=database_url, shipped_workflows=False, **options.pop("settings", {}))
    return import_agno(settings, file, table, **options)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_sessions_states_and_runs_come_over(database_url: str, version: str, tmp_path: Path) -> None:
    source = write(tmp_path / "seed.db", version, [session(version)])
    before, report = source.read_bytes(), await in_thread(database_url, source)
    assert (report.tables, report.sessions, report.runs, report.problems) == ([TABLE], 1, 2, [])
    assert source.read_bytes() == before
    async with running(database_url, BlogPostGenerator) as client:
        told = (await client.get("/sessions/one")).json()
        assert {name: told[name] for name in ("workflow", "user_id", "name", "revision", "created_at")} == {
            "workflow": "blog-post-generator",
            "user_id": "ada",
            "name": "Posts",
            "revision": 1,
            "created_at": "2025-02-19T21:20:00.000000Z",
        }
        assert told["metadata"]["agno"]["table"] == TABLE
        state = await client.get("/sessions/one/state")
        assert state.json() == {"blog_posts": [{"topic": "bread", "blog_post": "post about bread"}]}
        (revision,) = (await client.get("/sessions/one/state/revisions")).json()["items"]
        assert (revision["caller"], revision["run_id"]) == ("import", None)
        newest, oldest = (await client.get("/runs", params={"session_id": "one"})).json()["items"]
        assert [run["content"] for run in (oldest, newest)] == ["post about bread", "post about wine"]
        assert oldest["status"] == "completed"
        assert oldest["input"] == ({} if version == "agno 1.7.12" else {"topic": "bread"})
        assert oldest["metadata"]["agno"]["run_id"] == "run-about-bread"
        assert oldest["run_id"] < newest["run_id"]
        assert UUID(oldest["run_id"]).version == 7
        events = await client.events(oldest["run_id"])
        assert [(event.id, event.event) for event in events] == [
            ("1", "WorkflowStarted"),
            ("2", "RunResponse"),
            ("3", "RunFinished"),
        ]
        assert events[1].data["content"] == "post about bread"
        assert events[2].data["status"] == "completed"
        after = await client.finish("blog-post-generator", {"session_id": "one"}, topic="soup")
        assert after["status"] == "completed", after
        assert after["run_id"] > newest["run_id"]
        posts = (await client.get("/sessions/one/state")).json()["blog_posts"]
        assert [post["topic"] for post in posts] == ["bread", "soup"]


async def test_a_second_import_changes_nothing(sqlite_url: str, tmp_path: Path) -> None:
    source = write(tmp_path / "seed.db", "agno 1.1.17", [session("agno 1.1.17")])
    await in_thread(sqlite_url, source)
    async with running(sqlite_url, BlogPostGenerator) as client:
        await client.finish("blog-post-generator", {"session_id": "one"}, topic="soup")
        state = (await client.get("/sessions/one/state")).json()
    again = await in_thread(sqlite_url, source)
    assert (again.sessions, again.runs, again.present, again.problems) == (0, 0, 1, [])
    async with running(sqlite_url, BlogPostGenerator) as client:
        assert (await client.get("/sessions/one/state")).json() == state
        assert len((await client.get("/runs")).json()["items"]) == 3


def test_rows_of_agents_and_teams_are_left(sqlite_url: str, tmp_path: Path) -> None:
    agent = {"session_id": "agent", "agent_id": "a", "agent_data": {"name": "writer"}, "created_at": CREATED_AT}
    source = write(tmp_path / "seed.db", "agno 1.1.17", [agent, agent | {"session_id": "t", "team_id": "t"}])
    report = take(sqlite_url, source)
    assert (report.sessions, report.others, report.problems) == (0, 2, [])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"memory": '{"runs": ['}, "memory: "),
        ({"memory": {"runs": "none"}}, "memory: its runs are no list"),
        ({"memory": {"runs": [1]}}, "memory: a run is no object"),
        ({"session_data": "[]"}, "session_data: it is no JSON object"),
        ({"session_data": '{"session_state": {"score": NaN}}'}, "session_data: "),
        ({"session_data": {"session_state": {"number": 2**70}}}, "beyond 64 bits"),
        ({"session_data": {"session_state": [1]}}, "the state is a JSON object"),
        ({"session_data": {"session_state": {"text": "x" * 3000}}}, "a session may hold 2000"),
        ({"workflow_data": "{}"}, "it names no workflow"),
        ({"session_id": ""}, "the row has no session_id"),
    ],
)
def test_a_row_that_cannot_come_over_is_reported_and_the_others_come(
    sqlite_url: str, tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    rows = [session("agno 1.0.8", **({"session_id": "bad"} | columns)), session("agno 1.0.8", "good")]
    report = take(sqlite_url, write(tmp_path / "seed.db", "agno 1.0.8", rows), settings={"max_state_bytes": 2000})
    assert report.sessions == 1
    (problem,) = report.problems
    assert problem.table == TABLE
    assert problem.session_id == columns.get("session_id", "bad")
    assert message in problem.message
    assert message in str(problem)


def test_rows_without_a_name_are_of_the_workflow_given(sqlite_url: str, tmp_path: Path) -> None:
    source = write(tmp_path / "seed.db", "phidata 2.7.10", [session("phidata 2.7.10", workflow_data=None)])
    assert take(sqlite_url, source, workflow="blog-post-generator").sessions == 1


async def test_what_json_text_may_not_hold_is_replaced(sqlite_url: str, tmp_path: Path) -> None:
    told = json.dumps({"session_state": {"text": "nul \x00 and surrogate \ud800"}})
    row = session("agno 1.0.8", session_data=told, user_id=b"caf\xe9".decode(errors="replace"))
    await in_thread(sqlite_url, write(tmp_path / "seed.db", "agno 1.0.8", [row]))
    async with running(sqlite_url, BlogPostGenerator) as client:
        assert (await client.get("/sessions/one/state")).json() == {"text": "nul \ufffd and surrogate \ufffd"}


async def test_an_id_that_cannot_be_ours_is_changed_once_and_for_all(sqlite_url: str, tmp_path: Path) -> None:
    rows = [session("agno 1.0.8", "posts-on-ci/cd"), session("agno 1.0.8", "posts-on-ci-cd")]
    source = write(tmp_path / "seed.db", "agno 1.0.8", rows)
    report = await in_thread(sqlite_url, source)
    assert (report.sessions, list(report.renamed)) == (2, ["posts-on-ci/cd"])
    again = await in_thread(sqlite_url, source)
    assert (again.sessions, again.present) == (0, 2)
    async with running(sqlite_url, BlogPostGenerator) as client:
        told = (await client.get(f"/sessions/{report.renamed['posts-on-ci/cd']}")).json()
        assert told["metadata"]["agno"]["session_id"] == "posts-on-ci/cd"


async def test_structured_and_reserved_responses(sqlite_url: str, tmp_path: Path) -> None:
    first, second = remembered("agno 1.1.17", "a", ""), remembered("agno 1.1.17", "b", "")
    first["response"] |= {"content": {"title": "A"}, "event": "WorkflowCompleted", "content_type": "Article"}
    second["response"] |= {"content": "x" * 5000, "event": "WorkflowStarted", "created_at": None}
    third = {"input": None, "response": None}
    row = session("agno 1.1.17", memory={"runs": [first, second, third]})
    await in_thread(sqlite_url, write(tmp_path / "seed.db", "agno 1.1.17", [row]))
    async with running(sqlite_url, BlogPostGenerator, max_content_bytes=1000) as client:
        runs = (await client.get("/runs")).json()["items"][::-1]
        assert [run["content"] and run["content"] != "" for run in runs][:2] == [True, True]
        assert runs[0]["content"] == {"title": "A"}
        events = [await client.events(run["run_id"]) for run in runs]
        assert [log[1].event for log in events] == ["WorkflowCompleted", "RunResponse", "RunResponse"]
        assert events[0][1].data["content_type"] == "Article"
        assert events[1][1].data["content"] == "x" * 5000
        assert (runs[2]["content"], runs[2]["input"]) == (None, {})


async def test_ids_of_many_runs_keep_their_order(sqlite_url: str, tmp_path: Path) -> None:
    memory = {"runs": [remembered("agno 1.0.8", str(number), f"post {number}") for number in range(5000)]}
    source = write(tmp_path / "seed.db", "agno 1.0.8", [session("agno 1.0.8", memory=memory)])
    report = await in_thread(sqlite_url, source)
    assert (report.runs, report.problems) == (5000, [])
    async with running(sqlite_url, BlogPostGenerator) as client:
        seen: list[str] = []
        query = {"limit": "200"}
        while True:
            page = (await client.get("/runs", params=query)).json()
            seen += [run["content"] for run in page["items"]]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
    assert seen == [f"post {number}" for number in range(4999, -1, -1)]


def test_all_tables_of_a_file_or_the_one_named(sqlite_url: str, tmp_path: Path) -> None:
    file = tmp_path / "seed.db"
    write(file, "agno 1.0.8", [session("agno 1.0.8", "one")], "first")
    write(file, "agno 1.7.12", [session("agno 1.7.12", "two")], "second")
    write(file, "agno 1.8.4 workflow_v2", [], "third")
    write(file, "agents", [], "fourth")
    assert take(sqlite_url, file, "second").tables == ["second"]
    report = take(sqlite_url, file)
    assert (report.tables, report.sessions, report.present) == (["first", "second"], 1, 1)
    assert [(problem.table, "workflow_v2" in problem.message) for problem in report.problems] == [("third", True)]
    with pytest.raises(Invalid, match="workflow_v2"):
        take(sqlite_url, file, "third")
    with pytest.raises(Invalid, match="agents or teams"):
        take(sqlite_url, file, "fourth")
    with pytest.raises(NotFound, match="it has: first, fourth, second, third"):
        take(sqlite_url, file, "fifth")


def test_a_session_id_that_another_workflow_has_is_reported(sqlite_url: str, tmp_path: Path) -> None:
    file = write(tmp_path / "seed.db", "agno 1.0.8", [session("agno 1.0.8")], "first")
    write(file, "agno 1.0.8", [session("agno 1.0.8", workflow_data={"name": "Email Generator"})], "second")
    report = take(sqlite_url, file)
    assert report.sessions == 1
    assert "belongs to 'blog-post-generator', not 'email-generator'" in report.problems[0].message


def test_files_that_hold_nothing_to_take(sqlite_url: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no file"):
        take(sqlite_url, tmp_path / "none.db")
    junk = tmp_path / "junk.db"
    junk.write_bytes(b"no database " * 100)
    with pytest.raises(Invalid, match="cannot be read as a SQLite database"):
        take(sqlite_url, junk)
    own = Path(sqlite_url.removeprefix("sqlite:///"))
    with pytest.raises(NotFound, match="has no table of Agno or phidata"):
        take(sqlite_url, own)


async def test_a_served_database_is_refused(sqlite_url: str, tmp_path: Path) -> None:
    source = write(tmp_path / "seed.db", "agno 1.0.8", [session("agno 1.0.8")])
    async with running(sqlite_url, BlogPostGenerator):
        with pytest.raises(ConfigurationError, match="one process serves a SQLite file"):
            await in_thread(sqlite_url, source)


def test_a_table_of_the_databases_own_file(tmp_path: Path) -> None:
    file = write(tmp_path / "seed.db", "agno 1.0.8", [session("agno 1.0.8")])
    before = contents(file)
    report = take(f"sqlite:///{file}", file)
    assert (report.sessions, report.problems) == (1, [])
    assert contents(file) == before


async def in_thread(database_url: str, source: Path) -> ImportReport:
    return await asyncio.to_thread(take, database_url, source)
