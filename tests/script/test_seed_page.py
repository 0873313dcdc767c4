"""The seed page's own script, and a service that goes on with what it left."""

from collections.abc import Iterator
from pathlib import Path

from app import RunResponse, SqliteWorkflowStorage, Workflow
from tests.script.scripts import SEED_PAGE, run
from tests.script.seed_page import BlogPostGenerator
from tests.support.server import running


async def test_the_page_runs_as_it_stands_and_a_service_goes_on(tmp_path: Path) -> None:
    fresh, cached = run(tmp_path, SEED_PAGE), run(tmp_path, SEED_PAGE)
    assert [line[:2] for line in fresh] == [
        ["RunResponse", "A post "],
        ["RunResponse", "about "],
        ["RunResponse", "bread"],
    ]
    assert [line[:2] for line in cached] == [["WorkflowCompleted", "A post about bread"]]
    assert {line[3] for line in fresh + cached} == {"my-session-id"}
    async with running(f"sqlite:///{tmp_path}/tmp/workflows.db", BlogPostGenerator) as client:
        state = (await client.get("/sessions/my-session-id/state")).json()
        assert state == {"blog_posts": [{"topic": "bread", "blog_post": "A post about bread"}]}
        second, first = (await client.get("/runs", params={"session_id": "my-session-id"})).json()["items"]
        assert [first["run_id"], second["run_id"]] == [fresh[0][2], cached[0][2]]
        assert (first["status"], first["content"]) == ("completed", "A post about bread")
        assert first["input"] == {"topic": "bread"}
        events = [event.event for event in await client.events(first["run_id"])]
        assert events == ["WorkflowStarted", *["RunResponse"] * 3, "StateSaved", "RunFinished"]
        (revision,) = (await client.get("/sessions/my-session-id/state/revisions")).json()["items"]
        assert revision["run_id"] == first["run_id"]
        hit = await client.finish("blog-post-generator", {"session_id": "my-session-id"}, topic="bread")
        assert hit["content"] == "A post about bread"
        await client.finish("blog-post-generator", {"session_id": "my-session-id"}, topic="wine")
    source = SEED_PAGE.replace('topic="bread"', 'topic="wine"')
    assert [line[:2] for line in run(tmp_path, source)] == [["WorkflowCompleted", "A post about wine"]]


class Counter(Workflow):
    def run(self) -> Iterator[RunResponse]:
        self.session_state["count"] = self.session_state.get("count", 0) + 1
        yield RunResponse(content=str(self.session_state["count"]))


def test_many_runs_share_the_state_and_leave_nothing_open(tmp_path: Path) -> None:
    counter = Counter(session_id="one", storage=SqliteWorkflowStorage("counters", db_file=tmp_path / "counters.db"))
    seen = [response.content for _ in range(12) for response in counter.run()]
    assert seen == [str(number) for number in range(1, 13)]
    assert counter.session_state == {"count": 12}
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "counters.db",
        "counters.db.lock",
        "counters.db.script-lock",
    ]


def test_a_session_id_is_made_once_and_kept(tmp_path: Path) -> None:
    counter = Counter(storage=SqliteWorkflowStorage("counters", db_url=f"sqlite:///{tmp_path}/counters.db"))
    list(counter.run())
    session, run = counter.session_id, counter.run_id
    list(counter.run())
    assert counter.session_state == {"count": 2}
    assert counter.session_id == session is not None
    assert counter.run_id != run
