"""Sessions: made, seen, renamed, deleted, forked."""

import asyncio
from typing import Any
from urllib.parse import unquote

import pytest

from app import Workflow
from tests.support.problems import problem_of
from tests.support.server import Client, running


class Echo(Workflow):
    def run(self, key: str = "a") -> str:
        self.session_state[key] = self.session_state.get(key, 0) + 1
        return key


class Sleeper(Workflow):
    async def run(self) -> None:
        await asyncio.sleep(60)


async def create(client: Client, session_id: str = "s", **members: Any) -> dict[str, Any]:
    answer = await client.post("/sessions", json={"workflow": "echo", "session_id": session_id} | members)
    assert answer.status_code == 201, answer.text
    session: dict[str, Any] = answer.json()
    return session


MEMBERS = {
    *("session_id", "workflow", "user_id", "name", "metadata", "revision", "active_run_id", "created_at", "updated_at"),
}


async def test_a_new_session_has_what_it_was_given(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        body = {
            "workflow": "echo",
            "session_id": "s",
            "session_state": {"a": None, "b": [1]},
            "user_id": "ada",
            "name": "First",
            "metadata": {"k": 1},
        }
        answer = await client.post("/sessions", json=body)
        session = answer.json()
        assert answer.status_code == 201
        assert answer.headers["location"] == "/sessions/s"
        assert set(session) == MEMBERS
        assert (session["user_id"], session["name"], session["metadata"]) == ("ada", "First", {"k": 1})
        assert (session["revision"], session["active_run_id"]) == (1, None)
        read = await client.get("/sessions/s")
        assert read.json() == session
        assert read.headers["etag"] == answer.headers["etag"]
        assert (await client.get("/sessions/s/state")).json() == {"a": None, "b": [1]}


async def test_an_empty_session_is_at_revision_0(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        answer = await client.post("/sessions", json={"workflow": "echo"})
        session = answer.json()
        assert answer.headers["location"] == f"/sessions/{session['session_id']}"
        assert (session["revision"], session["name"], session["metadata"]) == (0, None, {})
        state = await client.get(f"/sessions/{session['session_id']}/state")
        assert (state.json(), state.headers["etag"]) == ({}, '"0"')


@pytest.mark.parametrize(
    "session_id", ["\u00fc", "\u65e5\u672c", "a b?c#d%e&f+g", "...", "\U0001f600\u2028", "a\\b", '"', "%2F"]
)
async def test_any_id_can_be_used_on_every_route(database_url: str, session_id: str) -> None:
    async with running(database_url, Echo) as client:
        answer = await client.post(
            "/sessions", json={"workflow": "echo", "session_id": session_id, "session_state": {"a": 1}}
        )
        assert answer.status_code == 201, answer.text
        path = answer.headers["location"]
        assert path.isascii()
        assert unquote(path) == f"/sessions/{session_id}"
        assert (await client.get(path)).json()["session_id"] == session_id
        assert (await client.get(f"{path}/state")).json() == {"a": 1}
        assert (await client.patch(f"{path}/state", json={"b": 2})).status_code == 200
        assert (await client.finish("echo", {"session_id": session_id}))["session_revision"] == 3
        assert (await client.post(f"{path}/state/restore", json={"revision": 1})).json() == {"a": 1}
        assert len((await client.get(f"{path}/state/revisions")).json()["items"]) == 4
        assert (await client.patch(path, json={"name": "n"})).json()["name"] == "n"
        assert (await client.post(f"{path}/fork", json={"session_id": session_id + "2"})).status_code == 201
        assert (await client.delete(path)).status_code == 204


async def test_a_session_that_exists_is_not_made_again(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        await create(client, session_state={"a": 1})
        body = {"workflow": "echo", "session_id": "s", "session_state": {"b": 2}}
        problem_of(await client.post("/sessions", json=body), 409)
        assert (await client.get("/sessions/s/state")).json() == {"a": 1}


async def test_of_many_that_make_one_session_one_succeeds(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        bodies = [{"workflow": "echo", "session_id": "s", "session_state": {"n": number}} for number in range(10)]
        answers = await asyncio.gather(*(client.post("/sessions", json=body) for body in bodies))
        assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9
        (winner,) = [number for number, answer in enumerate(answers) if answer.status_code == 201]
        assert (await client.get("/sessions/s/state")).json() == {"n": winner}


async def test_a_session_of_no_workflow_is_not_found(sqlite_url: str) -> None:
    async with running(sqlite_url, Echo) as client:
        problem_of(await client.post("/sessions", json={"workflow": "nobody"}), 404)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"workflow": 7},
        {"workflow": "echo", "state": {}},
        {"workflow": "echo", "revision": 7},
        {"workflow": "echo", "session_id": "a/b"},
        {"workflow": "echo", "session_id": ""},
        {"workflow": "echo", "session_state": []},
        {"workflow": "echo", "session_state": None},
        {"workflow": "echo", "metadata": []},
        {"workflow": "echo", "name": ""},
        {"workflow": "echo", "name": "a" * 256},
    ],
)
async def test_a_session_that_is_not_right_is_not_made(sqlite_url: str, body: dict[str, Any]) -> None:
    async with running(sqlite_url, Echo) as client:
        problem_of(await client.post("/sessions", json=body), 422)
        assert (await client.get("/sessions")).json()["items"] == []


async def test_name_and_metadata_can_be_changed_and_nothing_else(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        before = await create(client, name="old", metadata={"a": 1})
        answer = await client.patch("/sessions/s", json={"name": "new"})
        assert answer.status_code == 200
        assert (answer.json()["name"], answer.json()["metadata"]) == ("new", {"a": 1})
        assert answer.json()["updated_at"] >= before["updated_at"]
        assert (await client.patch("/sessions/s", json={"metadata": {"b": 2}})).json()["metadata"] == {"b": 2}
        assert (await client.patch("/sessions/s", json={"name": None})).json()["name"] is None
        unchanged = await client.patch("/sessions/s", json={})
        assert (unchanged.status_code, unchanged.json()["metadata"]) == (200, {"b": 2})
        for member in ("session_id", "workflow", "user_id", "revision", "active_run_id", "created_at", "tenant_id"):
            problem_of(await client.patch("/sessions/s", json={member: "x"}), 422)
        assert (await client.get("/sessions/s")).json()["workflow"] == "echo"


async def test_the_session_has_an_etag_of_its_own(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        await create(client)
        etag = (await client.get("/sessions/s")).headers["etag"]
        assert etag.startswith('"')
        same = await client.get("/sessions/s", headers={"If-None-Match": etag})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
        changed = await client.patch("/sessions/s", json={"name": "n"}, headers={"If-Match": etag})
        assert changed.status_code == 200
        assert changed.headers["etag"] != etag
        stale = await client.patch("/sessions/s", json={"name": "m"}, headers={"If-Match": etag})
        problem_of(stale, 412)
        assert stale.headers["etag"] == changed.headers["etag"]
        assert (await client.get("/sessions/s")).json()["name"] == "n"
        assert (await client.get("/sessions/s", headers={"If-None-Match": etag})).status_code == 200
        assert (await client.patch("/sessions/s", json={"name": "o"}, headers={"If-Match": "*"})).status_code == 200


async def test_a_deleted_session_takes_everything_along(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        run = await client.finish("echo", {"session_id": "s"})
        kept = await client.finish("echo", {"session_id": "t"})
        answer = await client.delete("/sessions/s")
        assert (answer.status_code, answer.content) == (204, b"")
        for path in ("/sessions/s", "/sessions/s/state", "/sessions/s/state/revisions"):
            problem_of(await client.get(path), 404, "unknown_session")
        for path in (f"/runs/{run['run_id']}", f"/runs/{run['run_id']}/events"):
            problem_of(await client.get(path), 404, "unknown_run")
        assert [each["run_id"] for each in (await client.get("/runs")).json()["items"]] == [kept["run_id"]]
        problem_of(await client.delete("/sessions/s"), 404, "unknown_session")


async def test_a_session_made_anew_remembers_nothing(database_url: str) -> None:
    async with running(database_url, Echo, Sleeper) as client:
        await client.finish("echo", {"session_id": "s"})
        await client.delete("/sessions/s")
        answer = await client.post(
            "/sessions", json={"workflow": "sleeper", "session_id": "s", "session_state": {"new": 1}}
        )
        assert answer.json()["revision"] == 1
        assert (await client.get("/sessions/s/state")).json() == {"new": 1}
        assert (await client.get("/sessions/s/state?revision=0")).json() == {}


async def test_a_session_with_a_live_run_is_not_deleted(database_url: str) -> None:
    async with running(database_url, Sleeper) as client:
        run = await client.start("sleeper", {"session_id": "s"})
        assert problem_of(await client.delete("/sessions/s"), 409)["run_id"] == run["run_id"]
        await client.post(f"/runs/{run['run_id']}/cancel")
        await client.ended(run["run_id"])
        assert (await client.delete("/sessions/s")).status_code == 204


async def test_a_fork_is_a_copy_of_its_own(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        await create(client, session_state={"a": 1}, user_id="ada", name="First", metadata={"k": 1})
        await client.patch("/sessions/s/state", json={"b": 2})
        answer = await client.post("/sessions/s/fork", json={})
        fork = answer.json()
        assert answer.status_code == 201
        assert answer.headers["location"] == f"/sessions/{fork['session_id']}"
        assert fork["session_id"] != "s"
        assert (fork["workflow"], fork["user_id"], fork["active_run_id"]) == ("echo", "ada", None)
        path = f"/sessions/{fork['session_id']}/state"
        assert (await client.get(path)).json() == {"a": 1, "b": 2}
        await client.patch(path, json={"c": 3})
        assert (await client.get("/sessions/s/state")).json() == {"a": 1, "b": 2}
        await client.patch("/sessions/s/state", json={"d": 4})
        assert (await client.get(path)).json() == {"a": 1, "b": 2, "c": 3}


async def test_a_fork_may_begin_at_an_earlier_revision(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        await create(client, session_state={"a": 1})
        await client.patch("/sessions/s/state", json={"b": 2})
        for revision, state in [(0, {}), (1, {"a": 1}), (2, {"a": 1, "b": 2})]:
            body = {"revision": revision, "session_id": f"fork {revision}", "name": "Fork", "metadata": {"x": 1}}
            fork = (await client.post("/sessions/s/fork", json=body)).json()
            assert (fork["session_id"], fork["name"], fork["metadata"]) == (f"fork {revision}", "Fork", {"x": 1})
            assert (await client.get(f"/sessions/fork%20{revision}/state")).json() == state
        problem_of(await client.post("/sessions/s/fork", json={"revision": 3}), 404)
        problem_of(await client.post("/sessions/s/fork", json={"revision": -1}), 422)
        problem_of(await client.post("/sessions/s/fork", json={"session_id": "fork 0"}), 409)
        problem_of(await client.post("/sessions/none/fork", json={}), 404)
        problem_of(await client.post("/sessions/s/fork", json={"workflow": "other"}), 422)


async def test_a_fork_during_a_run_has_the_saved_state(database_url: str) -> None:
    class Saver(Workflow):
        async def run(self) -> None:
            self.session_state["saved"] = True
            await self.write_to_storage()
            self.session_state["later"] = True
            saved.set()
            await asyncio.sleep(60)

    saved = asyncio.Event()
    async with running(database_url, Saver) as client:
        await client.start("saver", {"session_id": "s"})
        await saved.wait()
        await client.post("/sessions/s/fork", json={"session_id": "t"})
        assert (await client.get("/sessions/t/state")).json() == {"saved": True}
        assert (await client.delete("/sessions/t")).status_code == 204
