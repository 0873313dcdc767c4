"""POST /workflows/{name}/runs: what is accepted, what is refused, and what the answer says."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from app import RunResponse, Workflow
from tests.support.problems import problem_of
from tests.support.server import Client, read_sse, running
from tests.support.waiting import until


class Echo(Workflow):
    """Say the words."""

    def run(self, text: str = "hi", count: int = 1) -> Iterator[RunResponse]:
        for _ in range(count):
            yield RunResponse(content=text)


class Asker(Workflow):
    async def run(self) -> AsyncIterator[RunResponse]:
        yield RunResponse(content=f"{self.session_id} {self.user_id} {self.input}")


class Sleeper(Workflow):
    async def run(self, seconds: float = 60) -> str:
        await asyncio.sleep(seconds)
        return "slept"


class Order(BaseModel):
    product: str
    amount: int


class Shop(Workflow):
    def run(self, order: Order, tags: list[str] | None = None, price: float = 1) -> str:
        assert isinstance(order, Order)
        return f"{order.amount} {order.product} {tags}"


class Anything(Workflow):
    def run(self, first: int, **rest: Any) -> dict[str, Any]:
        return {"first": first, "rest": rest}


class Nothing(Workflow):
    def run(self) -> None:
        return None


async def listed(client: Client) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = (await client.get("/runs")).json()["items"]
    return runs


async def test_an_accepted_run_is_a_resource_with_all_its_members(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        body = {"input": {"text": "a"}, "user_id": "ada", "metadata": {"k": [1, None]}}
        answer = await client.post("/workflows/echo/runs", json=body)
        run = answer.json()
        assert answer.status_code == 202
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["location"] == f"/runs/{run['run_id']}/events"
        assert set(run) == {
            *("run_id", "workflow", "session_id", "user_id", "status", "input", "content", "content_truncated"),
            *("error", "attempt", "position", "metadata", "created_at", "started_at", "finished_at"),
            "session_revision",
        }
        assert UUID(run["run_id"]).version == 7
        assert run["session_id"]
        assert (run["workflow"], run["user_id"], run["input"]) == ("echo", "ada", {"text": "a"})
        ended = await client.ended(run["run_id"])
        assert (ended["status"], ended["content"], ended["attempt"], ended["error"]) == ("completed", "a", 1, None)
        assert ended["metadata"] == {"k": [1, None]}
        assert ended["created_at"] <= ended["started_at"] <= ended["finished_at"]
        assert ended["created_at"].endswith("Z")
        assert ended["position"] is None
        assert set(ended) == set(run)


async def test_without_a_session_each_run_gets_one_of_its_own(sqlite_url: str) -> None:
    async with running(sqlite_url, Nothing) as client:
        one, other = await client.finish("nothing"), await client.finish("nothing")
        assert one["session_id"] != other["session_id"]
        assert one["content"] is None


async def test_a_session_can_be_read_while_its_first_run_is_at_work(database_url: str) -> None:
    async with running(database_url, Sleeper) as client:
        run = await client.start("sleeper", {"session_id": "new", "user_id": "ada"})
        session = (await client.get("/sessions/new")).json()
        assert (session["workflow"], session["user_id"], session["revision"]) == ("sleeper", "ada", 0)
        assert session["active_run_id"] == run["run_id"]
        assert (await client.get("/sessions/new/state")).json() == {}


async def test_a_session_belongs_to_the_workflow_that_first_used_it(database_url: str) -> None:
    async with running(database_url, Echo, Nothing) as client:
        await client.finish("echo", {"session_id": "mine"})
        answer = await client.post("/workflows/nothing/runs", json={"input": {}, "session_id": "mine"})
        problem_of(answer, 409)
        assert len((await client.get("/runs")).json()["items"]) == 1


async def test_author_code_sees_who_asked_and_what_for(sqlite_url: str) -> None:
    async with running(sqlite_url, Asker) as client:
        run = await client.finish("asker", {"session_id": "s", "user_id": "ada"})
        assert run["content"] == "s ada {}"


@pytest.mark.parametrize(
    ("workflow", "given", "named"),
    [
        ("echo", {"text": 5}, "text"),
        ("echo", {"count": "5"}, "count"),
        ("echo", {"count": True}, "count"),
        ("echo", {"count": 1.5}, "count"),
        ("echo", {"text": None}, "text"),
        ("echo", {"texts": "a"}, "texts"),
        ("echo", {"self": "a"}, "self"),
        ("echo", {"argument_0": "a"}, "argument_0"),
        ("shop", {}, "order"),
        ("shop", {"order": {"product": "bread"}}, "amount"),
        ("shop", {"order": {"product": "bread", "amount": "two"}}, "amount"),
        ("shop", {"order": {"product": "bread", "amount": 1}, "tags": ["a", 1]}, "tags"),
        ("anything", {"rest": 1}, "first"),
    ],
)
async def test_an_input_that_does_not_fit_is_refused_by_name(
    sqlite_url: str, workflow: str, given: dict[str, Any], named: str
) -> None:
    async with running(sqlite_url, Echo, Shop, Anything) as client:
        problem = problem_of(await client.post(f"/workflows/{workflow}/runs", json={"input": given}), 422)
        assert named in problem["detail"]
        assert any(named in error["pointer"] for error in problem["errors"])
        assert (await client.get("/runs")).json()["items"] == []
        assert (await client.get("/sessions")).json()["items"] == []


async def test_arguments_arrive_as_their_annotations_want_them(sqlite_url: str) -> None:
    async with running(sqlite_url, Shop, Anything, Echo) as client:
        bread = {"product": "bread", "amount": 2}
        assert (await client.finish("shop", order=bread, price=3))["content"] == "2 bread None"
        assert (await client.finish("shop", order=bread, tags=["a"]))["content"] == "2 bread ['a']"
        assert (await client.finish("anything", first=1, second=None))["content"] == {
            "first": 1,
            "rest": {"second": None},
        }
        assert (await client.finish("echo"))["input"] == {}


@pytest.mark.parametrize(
    "body",
    [
        {"input": {}, "colour": "red"},
        {"input": [1]},
        {"input": None},
        {"input": {}, "session_id": ""},
        {"input": {}, "session_id": "a" * 256},
        {"input": {}, "session_id": "a/b"},
        {"input": {}, "session_id": "."},
        {"input": {}, "session_id": ".."},
        {"input": {}, "session_id": "a\nb"},
        {"input": {}, "session_id": "a\x7fb"},
        {"input": {}, "session_id": "a\x85b"},
        {"input": {}, "session_id": 7},
        {"input": {}, "user_id": ""},
        {"input": {}, "session_state": [1]},
        {"input": {}, "metadata": "x"},
        {"input": {}, "on_busy": "wait"},
        {"input": {}, "on_disconnect": "stop"},
        {"input": {}, "timeout_seconds": 0},
        {"input": {}, "timeout_seconds": -1},
        {"input": {}, "timeout_seconds": "5"},
        {"input": {}, "timeout_seconds": True},
        [],
        "text",
        None,
        7,
    ],
)
async def test_a_body_that_is_not_right_starts_nothing(sqlite_url: str, body: Any) -> None:
    async with running(sqlite_url, Echo) as client:
        headers = {"Content-Type": "application/json"}
        answer = await client.post("/workflows/echo/runs", content=json.dumps(body), headers=headers)
        problem = problem_of(answer, 422)
        assert problem["errors"]
        assert (await client.get("/runs")).json()["items"] == []


@pytest.mark.parametrize(
    "session_id", ["a", "a" * 255, "ü日本", "a b?c#d%e&f", "...", "a\u2028b", "\U0001f600", "%2F", "+"]
)
async def test_any_other_id_makes_a_session(database_url: str, session_id: str) -> None:
    async with running(database_url, Echo) as client:
        run = await client.finish("echo", {"session_id": session_id})
        assert run["session_id"] == session_id
        listed = await client.get("/runs", params={"session_id": session_id})
        assert [each["run_id"] for each in listed.json()["items"]] == [run["run_id"]]


async def test_an_unknown_workflow_is_not_found(sqlite_url: str) -> None:
    async with running(sqlite_url, Echo) as client:
        problem_of(await client.post("/workflows/nobody/runs", json={"input": {}}), 404, "unknown_workflow")
        problem_of(await client.get("/workflows/nobody"), 404, "unknown_workflow")


async def test_accept_decides_whether_the_answer_is_the_stream(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        headers = {"Accept": "text/event-stream"}
        async with client.stream(
            "POST", "/workflows/echo/runs", json={"input": {"count": 2}}, headers=headers
        ) as stream:
            events = [event async for event in read_sse(stream)]
        assert [event.event for event in events] == ["WorkflowStarted", "RunResponse", "RunResponse", "RunFinished"]
        run_id = events[0].data["run_id"]
        assert stream.headers["location"] == f"/runs/{run_id}/events"
        assert stream.headers["content-location"] == f"/runs/{run_id}"
        assert await client.events(run_id) == events


async def test_prefer_wait_answers_with_the_ended_run(database_url: str) -> None:
    async with running(database_url, Echo, Sleeper) as client:
        answer = await client.post("/workflows/echo/runs", json={"input": {}}, headers={"Prefer": "wait=20"})
        assert (answer.status_code, answer.json()["status"]) == (200, "completed")
        assert answer.headers["preference-applied"] == "wait=20"
        assert answer.headers["location"] == f"/runs/{answer.json()['run_id']}/events"
        for prefer in ("wait=0", 'respond-async, wait="0"'):
            answer = await client.post("/workflows/sleeper/runs", json={"input": {}}, headers={"Prefer": prefer})
            assert answer.status_code == 202
            assert answer.json()["finished_at"] is None


async def test_prefer_wait_ends_with_a_run_that_fails_or_is_cancelled(database_url: str) -> None:
    async with running(database_url, Sleeper) as client:
        waiting = asyncio.create_task(
            client.post("/workflows/sleeper/runs", json={"input": {}, "session_id": "s"}, headers={"Prefer": "wait=50"})
        )
        (run,) = await until(lambda: listed(client))
        await client.post(f"/runs/{run['run_id']}/cancel")
        async with asyncio.timeout(10):
            answer = await waiting
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")


@pytest.mark.parametrize("prefer", ["wait=soon", "wait=-1", "wait=", "wait=1.5.1"])
async def test_a_wait_that_is_no_number_is_refused_before_anything_starts(sqlite_url: str, prefer: str) -> None:
    async with running(sqlite_url, Echo) as client:
        problem_of(await client.post("/workflows/echo/runs", json={"input": {}}, headers={"Prefer": prefer}), 400)
        assert (await client.get("/runs")).json()["items"] == []


async def test_other_preferences_are_left_alone(sqlite_url: str) -> None:
    async with running(sqlite_url, Echo) as client:
        headers = {"Prefer": "respond-async, handling=lenient"}
        answer = await client.post("/workflows/echo/runs", json={"input": {}}, headers=headers)
        assert answer.status_code == 202
        assert "preference-applied" not in answer.headers


async def test_the_state_of_a_request_is_a_revision_of_its_callers(database_url: str) -> None:
    async with running(database_url, Echo, Asker) as client:
        await client.post("/sessions", json={"workflow": "echo", "session_id": "s", "session_state": {"a": 1, "b": 2}})
        run = await client.finish("echo", {"session_id": "s", "session_state": {"a": None, "c": {"d": 3}}})
        assert run["status"] == "completed"
        assert (await client.get("/sessions/s/state")).json() == {"b": 2, "c": {"d": 3}}
        revisions = (await client.get("/sessions/s/state/revisions")).json()["items"]
        assert [(each["revision"], each["run_id"]) for each in revisions] == [(1, None), (2, None)]
        assert revisions[1]["caller"]
        same = await client.finish("echo", {"session_id": "s", "session_state": {"b": 2}})
        assert same["session_revision"] == 2


async def test_the_state_of_a_request_that_must_wait_is_applied_when_it_starts(database_url: str) -> None:
    async with running(database_url, Sleeper) as client:
        first = await client.start("sleeper", {"session_id": "s"})
        queued = await client.start("sleeper", {"session_id": "s", "session_state": {"a": 1}}, seconds=0)
        assert (await client.get("/sessions/s/state")).json() == {}
        await client.patch("/sessions/s/state", json={"a": 0, "b": 0})
        await client.post(f"/runs/{first['run_id']}/cancel")
        await client.ended(queued["run_id"])
        assert (await client.get("/sessions/s/state")).json() == {"a": 1, "b": 0}


async def test_numbers_and_texts_arrive_as_they_were_sent(database_url: str) -> None:
    given: dict[str, Any] = {
        "first": 1,
        "big": 2**64 - 1,
        "small": -(2**63),
        "half": 0.5,
        "text": "\u2028 \U0001f600 \x7f",
        "no": None,
    }
    async with running(database_url, Anything) as client:
        run = await client.finish("anything", **given)
        assert run["input"] == given
        assert json.dumps(run["content"]["rest"]["big"]) == str(2**64 - 1)
