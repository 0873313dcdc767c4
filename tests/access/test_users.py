"""A key that is bound to a user: what it makes is the user's, and in a session of another's it finds nothing."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

import httpx
import pytest

from app import RunResponse, Workflow
from tests.support.keys import as_caller, first_key, new_key, told
from tests.support.problems import problem_of
from tests.support.server import Client, SseEvent, read_sse, running


class Note(Workflow):
    async def run(self, text: str = "noted") -> AsyncIterator[RunResponse]:
        self.session_state["text"] = text
        yield RunResponse(content=text)


@dataclass
class Tenant:
    """One tenant: two users, and one who sees all of it."""

    ada: Client
    bob: Client
    all: Client


@pytest.fixture
async def tenant(database_url: str) -> AsyncIterator[Tenant]:
    async with running(database_url, Note) as client:
        admin = await first_key(client)
        keys = [await new_key(client, admin, tenant="acme", user_id=user) for user in ("ada", "bob", None)]
        yield Tenant(*(as_caller(client, key["key"]) for key in keys))


async def test_what_a_user_makes_is_the_users(tenant: Tenant) -> None:
    run = await tenant.ada.finish("note", {"session_id": "hers"})
    assert run["user_id"] == "ada"
    for made in (
        (await tenant.ada.get("/sessions/hers")).json(),
        (await tenant.ada.post("/sessions", json={"workflow": "note"})).json(),
        (await tenant.ada.post("/sessions/hers/fork", json={})).json(),
        (await tenant.ada.post(f"/runs/{run['run_id']}/retry")).json(),
        (await tenant.ada.post("/workflows/note/runs", json={"user_id": "ada"})).json(),
    ):
        assert made["user_id"] == "ada"
    (revision,) = (await tenant.ada.get("/sessions/hers/state/revisions?limit=1")).json()["items"]
    assert revision["run_id"] == run["run_id"]


async def test_another_user_is_not_to_be_named(tenant: Tenant) -> None:
    await tenant.ada.finish("note", {"session_id": "hers"})
    for answer in (
        await tenant.ada.post("/workflows/note/runs", json={"user_id": "bob"}),
        await tenant.ada.post("/sessions", json={"workflow": "note", "user_id": "bob"}),
        await tenant.ada.post("/sessions/hers/fork", json={"user_id": "bob"}),
        await tenant.ada.get("/runs?user_id=bob"),
        await tenant.ada.get("/sessions?user_id=bob"),
    ):
        assert "'ada'" in problem_of(answer, 403, "other_user")["detail"]
    assert (await tenant.bob.get("/runs")).json()["items"] == []
    assert (await tenant.bob.get("/sessions")).json()["items"] == []
    assert len((await tenant.ada.get("/runs?user_id=ada")).json()["items"]) == 1
    named = await tenant.all.post("/workflows/note/runs", json={"user_id": "bob"})
    assert named.json()["user_id"] == "bob"
    assert len((await tenant.bob.get("/runs")).json()["items"]) == 1


async def test_in_a_session_of_another_nothing_runs_and_nothing_changes(tenant: Tenant) -> None:
    await tenant.ada.finish("note", {"session_id": "hers"}, text="hers")
    await tenant.all.finish("note", {"session_id": "nobodys"}, text="nobody's")
    before = told(await tenant.all.get("/sessions/hers"))
    for session_id in ("hers", "nobodys"):
        for options in ({}, {"on_busy": "interrupt"}, {"session_state": {"text": "his"}}):
            body = {"session_id": session_id, "input": {"text": "his"}} | options
            for headers in ({}, {"Prefer": "wait=5"}, {"Accept": "text/event-stream"}, {"Idempotency-Key": "k"}):
                answer = await tenant.bob.post("/workflows/note/runs", json=body, headers=headers)
                assert problem_of(answer, 404, "unknown_session")["detail"] == f"there is no session {session_id!r}"
        refused = await tenant.bob.post("/sessions", json={"workflow": "note", "session_id": session_id})
        problem_of(refused, 409, "session_exists")
    assert told(await tenant.all.get("/sessions/hers")) == before
    assert (await tenant.all.get("/sessions/hers/state")).json() == {"text": "hers"}
    assert len((await tenant.all.get("/runs")).json()["items"]) == 2
    assert (await tenant.bob.post("/workflows/note/runs", json={}, headers={"Idempotency-Key": "k"})).status_code == 202


async def test_a_run_of_another_in_your_session_is_not_yours(tenant: Tenant) -> None:
    await tenant.ada.finish("note", {"session_id": "hers"})
    other = await tenant.all.finish("note", {"session_id": "hers", "user_id": "bob"})
    for path in (f"/runs/{other['run_id']}", f"/runs/{other['run_id']}/events", f"/events?run_id={other['run_id']}"):
        problem_of(await tenant.ada.get(path), 404, "unknown_run")
    listed = (await tenant.ada.get("/runs?session_id=hers")).json()["items"]
    assert other["run_id"] not in [run["run_id"] for run in listed]
    problem_of(await tenant.bob.get("/sessions/hers"), 404, "unknown_session")


async def to_an_end(stream: httpx.Response) -> list[SseEvent]:
    """The stream's events up to the first end of a run."""
    seen = []
    async with aclosing(read_sse(stream)) as events:
        async for event in events:
            seen.append(event)
            if event.event == "RunFinished":
                break
    return seen


async def test_the_stream_of_your_session_carries_your_runs_alone(tenant: Tenant) -> None:
    await tenant.ada.finish("note", {"session_id": "hers"})
    path = "/events?session_id=hers"
    async with tenant.ada.stream("GET", path) as stream:
        other = await tenant.all.finish("note", {"session_id": "hers", "user_id": "bob"}, text="his")
        own = await tenant.ada.finish("note", {"session_id": "hers"}, text="her own")
        seen = await to_an_end(stream)
    assert {event.data["run_id"] for event in seen} == {own["run_id"]}
    async with tenant.ada.stream("GET", path, headers={"Last-Event-ID": str(seen[0].id)}) as stream:
        rest = await to_an_end(stream)
    assert [event.data for event in rest] == [event.data for event in seen[1:]]
    assert other["run_id"] not in {event.data["run_id"] for event in rest}


async def test_a_place_in_a_stream_is_worth_nothing_to_another(tenant: Tenant, database_url: str) -> None:
    """The same run under another's cursor begins at its first event: the cursor says nothing of it."""
    run = await tenant.ada.finish("note", {"session_id": "hers"})
    path = f"/events?run_id={run['run_id']}"
    async with tenant.ada.stream("GET", path) as stream:
        whole = [event async for event in read_sse(stream)]
    header = {"Last-Event-ID": str(whole[1].id)}
    async with tenant.ada.stream("GET", path, headers=header) as stream:
        assert [event.data async for event in read_sse(stream)] == [event.data for event in whole[2:]]
    async with tenant.all.stream("GET", path, headers=header) as stream:
        assert [event.data async for event in read_sse(stream)] == [event.data for event in whole]
    problem_of(await tenant.bob.get(path, headers=header), 404, "unknown_run")
