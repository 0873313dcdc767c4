"""Two tenants, two users in each, and one who sees a whole tenant: everything is asked of everybody about everybody's.

The questions are made from the routes of the application: wherever a route takes an id, it gets those of the others.
What is not the caller's has to be answered like what does not exist.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app import RunResponse, Workflow
from tests.access.routes import GUARDED, PATHS, VERBS, Operation
from tests.support.keys import as_caller, first_key, new_key, told
from tests.support.problems import problem_of
from tests.support.server import Client, running
from tests.support.waiting import until

EVENTS = {"Accept": "text/event-stream"}
IDS = {
    "run_id": "run",
    "session_id": "session",
    "key_id": "key",
    "run_ids": "run",
    "session_ids": "session",
    "schedule_id": "schedule",
    "webhook_id": "webhook",
    "delivery_id": "delivery",
}
"""Names that stand for ids, in addresses and in bodies, and what they are ids of."""
MAKES_WHAT_IS_NOT_THERE = {
    ("POST", "/sessions"),
    ("POST", "/workflows/{name}/runs"),
    ("POST", "/sessions/{session_id}/fork"),
}
"""The ids in the bodies of these are chosen by the caller; other tests are about them."""


LAST = {
    ("POST", "/runs/{run_id}/input"): 1,
    ("POST", "/runs/{run_id}/retry"): 2,
    ("DELETE", "/sessions/{session_id}"): 3,
    ("DELETE", "/schedules/{schedule_id}"): 4,
    ("DELETE", "/webhooks/{webhook_id}"): 4,
    ("DELETE", "/keys/{key_id}"): 5,
}
"""What ends, repeats and removes, in an order in which all of it is possible."""


class Diary(Workflow):
    """Keeps what it is told to itself."""

    async def run(self, secret: str = "nothing", ask: bool = False) -> AsyncIterator[RunResponse]:
        yield RunResponse(content=secret)
        self.session_state["secret"] = secret
        if ask:
            await self.wait_for_input("and then?")


@dataclass
class Person:
    """A caller, and what belongs to it."""

    client: Client
    tenant: str
    user: str | None
    ids: dict[str, str]
    """Of one of its things of each kind."""
    request_id: str
    marks: list[str]
    """What nobody else may read anywhere."""

    def sees(self, other: "Person", kind: str) -> bool:
        """Whether it sees the other's things of a kind."""
        same = self.tenant == other.tenant
        return same if kind == "key" or self.user is None else same and self.user == other.user

    def __str__(self) -> str:
        return f"{self.tenant}/{self.user}"


async def settled(client: Client, admin: str, tenant: str, user: str | None) -> Person:
    """A caller who has a session, a run that waits, one that has ended, and secrets in all of them."""
    key = await new_key(client, admin, tenant=tenant, user_id=user, name=f"key of {tenant} {user}")
    own = as_caller(client, key["key"])
    secret = f"secret-{uuid4().hex}"
    session = f"session-{uuid4().hex}"
    webhook = (await own.post("/webhooks", json={"url": f"https://{uuid4().hex}.invalid/"})).json()
    schedule = (await own.post("/schedules", json={"name": secret, "workflow": "diary", "cron": "0 0 1 1 *"})).json()
    made = await own.post("/sessions", json={"workflow": "diary", "session_id": session, "name": secret})
    assert made.status_code == 201, made.text
    ended = await own.finish("diary", {"session_id": session, "metadata": {"secret": secret}}, secret=secret)
    assert ended["status"] == "completed"
    waiting = await own.start("diary", {"session_id": session}, secret=secret, ask=True)

    async def paused() -> bool:
        return bool((await own.get(f"/runs/{waiting['run_id']}")).json()["status"] == "paused")

    await until(paused)
    log = (await own.get(f"/runs/{waiting['run_id']}/events", headers={"Accept": "application/json"})).json()
    (request_id,) = [event["request_id"] for event in log["items"] if event["event"] == "RunPaused"]
    sent = (await own.get(f"/webhooks/{webhook['webhook_id']}/deliveries")).json()["items"]
    ids = {"run": waiting["run_id"], "session": session, "key": key["key_id"], "schedule": schedule["schedule_id"]}
    ids |= {"webhook": webhook["webhook_id"], "delivery": sent[0]["delivery_id"]}
    marks = [secret, session, ended["run_id"], waiting["run_id"], webhook["url"], webhook["secret"]]
    return Person(own, tenant, user, ids, request_id, [*marks, sent[0]["delivery_id"]])


@pytest.fixture
async def people(database_url: str) -> AsyncIterator[list[Person]]:
    async with running(database_url, Diary) as client:
        admin = await first_key(client)
        everybody = [
            await settled(client, admin, tenant, user) for tenant in ("acme", "globex") for user in ("ada", "bob", None)
        ]
        yield everybody


def nothing_of(kind: str) -> str:
    """An id of the kind that nothing has."""
    return {"session": f"none-{uuid4().hex}", "key": "00000000"}.get(kind, str(uuid4()))


def swapped(operation: Operation) -> list[tuple[str, str, str]]:
    """Each place of the route where an id stands: in the path, the query or the body; its name; of what."""
    places = [(where, name, IDS[name]) for name, where in operation.parameters.items() if name in IDS]
    if (operation.verb, operation.path) not in MAKES_WHAT_IS_NOT_THERE:
        places += [("body", name, IDS[name]) for name in sorted(operation.members) if name in IDS]
    return places


def request_of(operation: Operation, owner: Person, place: tuple[str, str, str], id: str) -> dict[str, Any]:
    """What the route takes, all of it the owner's, but for the id in one place."""
    where, changed, _ = place
    path, query = operation.path.replace("{name}", "diary"), {}
    for name, stands in operation.parameters.items():
        value = id if (stands, name) == (where, changed) else owner.ids[IDS[name]] if name in IDS else None
        if stands == "path" and value is not None:
            path = path.replace(f"{{{name}}}", value)
        elif (stands, name) == (where, changed):
            query[name] = value
    options: dict[str, Any] = {"params": query, "headers": {}}
    if operation.example is not None:
        options["json"] = body_of(operation, owner) | ({changed: [id]} if where == "body" else {})
        options["headers"]["Content-Type"] = operation.kind
    if operation.verb == "PUT":
        options["headers"]["If-Match"] = "*"
    return {"method": operation.verb, "url": path} | options


def body_of(operation: Operation, owner: Person) -> Any:
    """The body that the document shows, where it fits what is there."""
    if operation.path.endswith("/input"):
        return {"request_id": owner.request_id, "value": "enough"}
    return dict(operation.example)


def anonymous(answer: httpx.Response, id: str) -> str:
    """What an answer tells, but for the id that was asked for."""
    return repr(told(answer)).replace(id, "…")


def questions() -> Iterator[tuple[Operation, tuple[str, str, str]]]:
    """Every place for an id, in every route."""
    for operation in GUARDED:
        for place in swapped(operation):
            yield operation, place


def test_the_questions_are_about_every_route_with_an_id() -> None:
    asked = {operation.path for operation, _ in questions()}
    of_no_thing = {
        "/workflows/{name}",
        "/workflows/{name}/runs",
        "/users/{user_id}",
    }  # users: tests/keeping/test_users.py
    assert {path for path in PATHS if "{" in path} - of_no_thing <= asked
    assert {"/events", "/events/stream-token", "/runs"} <= asked


async def test_what_is_not_yours_is_answered_like_what_is_not_there(people: list[Person]) -> None:
    asked = 0
    for operation, place in questions():
        for person in people:
            nothing = nothing_of(place[2])
            unknown = await ask(person, request_of(operation, person, place, nothing))
            for owner in people:
                if person.sees(owner, place[2]):
                    continue
                id = owner.ids[place[2]]
                answer = await ask(person, request_of(operation, person, place, id))
                assert anonymous(answer, id) == anonymous(unknown, nothing), f"{person} at {operation} of {owner}"
                if place[0] != "query" or operation.path == "/events":
                    assert answer.status_code == 404, f"{person} at {operation} of {owner}: {answer.text}"
                asked += 1
    assert asked > 300
    for owner in people:  # and nobody has changed anything
        run = (await owner.client.get(f"/runs/{owner.ids['run']}")).json()
        session = (await owner.client.get(f"/sessions/{owner.ids['session']}")).json()
        assert (run["status"], session["revision"], session["name"]) == ("paused", 1, owner.marks[0])


async def test_what_is_yours_is_there(people: list[Person]) -> None:
    """The same questions of the owner succeed: else the test above would compare one refusal with another."""
    found = sorted(questions(), key=lambda question: LAST.get((question[0].verb, question[0].path), 0))
    for owner in people:
        for operation, place in found:
            if operation.path.endswith("/cancel"):
                continue  # the answer to its question has ended the run
            answer = await ask(owner, request_of(operation, owner, place, owner.ids[place[2]]))
            assert answer.status_code < 300, f"{owner} at {operation}: {answer.status_code} {answer.text}"
            if operation.path.endswith("/input"):
                await owner.client.ended(owner.ids["run"])
            if operation.path.endswith("/retry"):
                assert (await owner.client.post(f"/runs/{answer.json()['run_id']}/cancel")).is_success
                await owner.client.ended(answer.json()["run_id"])


async def ask(person: Person, request: dict[str, Any]) -> httpx.Response:
    """Ask; of a stream that goes on, the beginning is enough."""
    async with person.client.stream(**request) as answer:
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            async for chunk in answer.aiter_bytes():
                return httpx.Response(answer.status_code, headers=answer.headers, content=chunk)
        await answer.aread()
        return answer


async def test_no_answer_of_any_verb_of_any_route_tells_a_secret_of_others(people: list[Person]) -> None:
    for person in people:
        hidden = [mark for owner in people if not person.sees(owner, "run") for mark in owner.marks]
        for path in PATHS:
            for owner in people if "_id}" in path else people[:1]:
                url = path.replace("{name}", "diary")
                for name, kind in IDS.items():
                    url = url.replace(f"{{{name}}}", owner.ids[kind])
                for verb in VERBS:
                    if verb in {"POST", "PUT", "PATCH", "DELETE"} and person.sees(owner, "run"):
                        continue  # it may do that
                    answer = await ask(person, {"method": verb, "url": url})
                    text = told(answer)[2].replace(url, "…")
                    asked = [mark for mark in hidden if mark not in url]
                    assert not [mark for mark in asked if mark in text or mark in repr(answer.headers)], f"{verb} {url}"


async def test_lists_have_what_is_yours_and_all_of_it(people: list[Person]) -> None:
    for person in people:
        for path, member, kind in (
            ("/runs", "run_id", "run"),
            ("/sessions", "session_id", "session"),
            ("/schedules", "schedule_id", "schedule"),
            ("/webhooks", "webhook_id", "webhook"),
            ("/keys", "key_id", "key"),
        ):
            listed: set[str] = set()
            cursor: dict[str, str] = {}
            while True:
                page = (await person.client.get(path, params={"limit": "1"} | cursor)).json()
                listed |= {item[member] for item in page["items"]}
                if page["next_cursor"] is None:
                    break
                cursor = {"cursor": page["next_cursor"]}
            for owner in people:
                assert (owner.ids[kind] in listed) == person.sees(owner, kind), f"{person}: {path} of {owner}"


async def test_equal_session_ids_in_two_tenants_are_two_sessions(database_url: str) -> None:
    async with running(database_url, Diary) as client:
        admin = await first_key(client)
        tenants = ("acme", "globex", "default")
        callers = [as_caller(client, (await new_key(client, admin, tenant=tenant))["key"]) for tenant in tenants]
        runs = [
            await caller.finish("diary", {"session_id": "my-session"}, secret=tenant)
            for caller, tenant in zip(callers, tenants, strict=True)
        ]
        for caller, tenant, run in zip(callers, tenants, runs, strict=True):
            assert (await caller.get("/sessions/my-session/state")).json() == {"secret": tenant}
            assert [one["run_id"] for one in (await caller.get("/runs?session_id=my-session")).json()["items"]] == [
                run["run_id"]
            ]
        assert (await callers[0].delete("/sessions/my-session")).status_code == 204
        problem_of(await callers[0].get(f"/runs/{runs[0]['run_id']}"), 404, "unknown_run")
        assert (await callers[1].get("/sessions/my-session/state")).json() == {"secret": "globex"}


async def test_an_idempotency_key_is_its_tenants_and_its_users(database_url: str) -> None:
    async with running(database_url, Diary) as client:
        admin = await first_key(client)
        owners: list[dict[str, Any]] = [
            {"tenant": "acme", "user_id": "ada"},
            {"tenant": "acme", "user_id": "bob"},
            {"tenant": "acme"},
            {"tenant": "globex", "user_id": "ada"},
            {"tenant": "default"},
        ]
        header, seen = {"Idempotency-Key": "the-same"}, []
        for owner in owners:
            caller = as_caller(client, (await new_key(client, admin, **owner))["key"])
            twice = [
                (await caller.post("/workflows/diary/runs", json={"input": {}}, headers=header)).json() for _ in "12"
            ]
            assert twice[0]["run_id"] == twice[1]["run_id"]
            seen.append(twice[0]["run_id"])
            again = await caller.post("/workflows/diary/runs", json={"input": {"secret": "x"}}, headers=header)
            assert "'the-same'" in problem_of(again, 422, "idempotency_key_reused")["detail"]
        assert len(set(seen)) == len(owners)


async def test_runs_of_every_tenant_are_looked_after(database_url: str) -> None:
    """Those that a process leaves go on in the next one, and those that wait too long are woken."""
    options = {"lease_seconds": 1}
    async with running(database_url, Diary, Patient, **options) as client:
        admin = await first_key(client)
        caller = as_caller(client, (await new_key(client, admin, tenant="acme"))["key"])
        overdue = await caller.finish("patient", {}, seconds=0.2)
        assert overdue["content"] == "nobody"
        left = await caller.start("patient", {}, sleeps=3.0)
        cancelled = await caller.start("patient", {}, sleeps=60.0)
        assert (await caller.post(f"/runs/{cancelled['run_id']}/cancel")).status_code == 202
        assert (await caller.ended(cancelled["run_id"]))["status"] == "cancelled"
    async with running(database_url, Diary, Patient, **options) as client:
        caller = as_caller(client, caller.headers["authorization"].removeprefix("Bearer "))
        assert (await caller.ended(left["run_id"]))["content"] == "slept"


class Patient(Workflow):
    """Waits for what does not come, or sleeps."""

    async def run(self, seconds: float = 0, sleeps: float = 0) -> str:
        if seconds:
            try:
                await self.wait_for_input("well?", timeout_seconds=seconds)
            except TimeoutError:
                return "nobody"
        await asyncio.sleep(sleeps)
        return "slept"
