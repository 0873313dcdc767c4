"""A user's data goes for good: nothing of it is found in any table, or in the bytes of the file."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from app import RunResponse, Workflow
from tests.keeping.consistency import check_whole
from tests.support.keys import as_caller, first_key, new_key
from tests.support.problems import problem_of
from tests.support.server import Client, running
from tests.support.tables import query


class Diary(Workflow):
    async def run(self, secret: str, ask: bool = False) -> AsyncIterator[RunResponse]:
        yield RunResponse(content=f"said {secret}")
        kept = await self.step(str.upper, secret, name=f"step of {secret}")
        self.session_state["kept"] = [kept.lower(), secret]
        await self.write_to_storage()
        if ask:
            await self.wait_for_input(f"prompt {secret}")
        yield RunResponse(content=f"{secret} again", event="WorkflowCompleted")


async def plant(client: Client, user: str, mark: str) -> None:
    """Leave the mark wherever a user can."""
    owned = {"user_id": user}
    for number in range(3):
        session = {"workflow": "diary", "session_id": f"{mark}-{number}", "name": mark, "metadata": {"m": mark}}
        state = {"session_state": {"s": mark, mark: "k"}}
        assert (await client.post("/sessions", json=session | state | owned)).status_code == 201
        for _ in range(3):
            options = {"session_id": f"{mark}-{number}", "metadata": {"m": mark}, "session_state": {"more": mark}}
            body = {"input": {"secret": mark * 20}} | options | owned
            headers = {"Idempotency-Key": f"{mark}-{uuid4()}", "Prefer": "wait=20"}
            run = await client.post("/workflows/diary/runs", json=body, headers=headers)
            assert run.json()["status"] == "completed", run.text
        patch = [{"op": "add", "path": "/patched", "value": [mark] * 500}]
        headers = {"Content-Type": "application/json-patch+json"}
        answer = await client.request("PATCH", f"/sessions/{mark}-{number}/state", json=patch, headers=headers)
        assert answer.status_code == 200, answer.text
    failed = await client.post("/workflows/diary/runs", json={"input": {"secret": mark, "ask": True}} | owned)
    await client.post(f"/runs/{failed.json()['run_id']}/cancel")
    await client.ended(failed.json()["run_id"])
    hook = {"url": f"https://{mark}.invalid/", "events": ["*"]} | owned
    assert (await client.post("/webhooks", json=hook)).status_code == 201
    schedule = {"name": mark, "workflow": "diary", "cron": "0 0 1 1 *", "input": {"secret": mark}} | owned
    assert (await client.post("/schedules", json=schedule)).status_code == 201
    once = {"webhook": {"url": f"https://hooks.invalid/{mark}"}, "input": {"secret": mark}} | owned
    assert (await client.post("/workflows/diary/runs", json=once, headers={"Prefer": "wait=20"})).status_code == 200


def found_in_tables(database_url: str, mark: str) -> set[str]:
    """The tables that have it anywhere, Procrastinate's own included."""
    names = (
        "SELECT name FROM sqlite_master WHERE type = 'table'"
        if database_url.startswith("sqlite")
        else "SELECT tablename AS name FROM pg_tables WHERE schemaname = current_schema()"
    )
    tables = [row["name"] for row in query(database_url, names)]
    assert len(tables) > 12
    return {table for table in tables if mark in str(query(database_url, f'SELECT * FROM "{table}"'))}


def found_in_files(database_url: str, mark: str) -> set[str]:
    """The files that have its bytes; all that SQLite may have beside its file are looked at."""
    file = Path(database_url.removeprefix("sqlite:///"))
    encoded = [mark.encode(), base64.b64encode(mark.encode())[:-4], mark.upper().encode()]
    return {path.name for path in file.parent.glob(f"{file.name}*") if any(e in path.read_bytes() for e in encoded)}


async def test_nothing_is_left_of_a_user(database_url: str) -> None:
    mark, other, user = f"plant{uuid4().hex}", f"other{uuid4().hex}", f"user{uuid4().hex}"
    async with running(database_url, Diary) as client:
        await plant(client, "somebody-else", other)
        await plant(client, user, mark)
        # In another's session, a run of the user's; the session stays, and the run goes.
        shared = {"input": {"secret": mark}, "session_id": f"{other}-0", "user_id": user}
        again = await client.post("/workflows/diary/runs", json=shared, headers={"Prefer": "wait=20"})
        assert again.status_code in {200, 403, 404, 409}, again.text
        await client.put(f"/sessions/{other}-0/state", json={"ours": other}, headers={"If-Match": "*"})
        places = found_in_tables(database_url, mark)
        assert {"sessions", "session_revisions", "runs", "run_events", "webhooks", "schedules"} <= places
        assert (await client.delete(f"/users/{user}")).status_code == 204
        left = found_in_tables(database_url, mark) | found_in_tables(database_url, user)
        assert left <= ({"session_revisions"} if again.status_code == 200 else set()), left
        for row in query(database_url, "SELECT session_id, patch FROM session_revisions"):
            assert mark not in row["patch"] or row["session_id"] == f"{other}-0", "the history of somebody else's"
        assert (await client.delete(f"/users/{user}")).status_code == 204, "asking again is fine"
        assert {"sessions", "runs", "run_events", "webhooks"} <= found_in_tables(database_url, other)
        assert (await client.get(f"/sessions/{other}-0/state")).json() == {"ours": other}
    check_whole(database_url)


async def test_nothing_is_left_in_the_bytes_of_the_file(sqlite_url: str) -> None:
    mark, other, user = f"plant{uuid4().hex}", f"other{uuid4().hex}", f"user{uuid4().hex}"
    async with running(sqlite_url, Diary) as client:
        await plant(client, user, mark)
        await plant(client, "somebody-else", other)
        assert found_in_files(sqlite_url, mark)
        assert (await client.delete(f"/users/{user}")).status_code == 204
        assert found_in_files(sqlite_url, mark) == set()
        assert found_in_files(sqlite_url, user) == set()
        assert found_in_files(sqlite_url, other)
    assert found_in_files(sqlite_url, mark) == set()


async def test_a_deleted_session_is_not_in_the_file_either(sqlite_url: str) -> None:
    mark = f"plant{uuid4().hex}"
    async with running(sqlite_url, Diary) as client:
        await plant(client, "ada", mark)
        for number in range(3):
            assert (await client.delete(f"/sessions/{mark}-{number}")).status_code == 204
        await client.delete("/users/ada")
    assert found_in_files(sqlite_url, mark) == set()


async def test_a_live_run_is_cancelled_first(database_url: str) -> None:
    async with running(database_url, Diary) as client:
        run = await client.start("diary", {"user_id": "ada"}, secret="a", ask=True)
        refused = problem_of(await client.delete("/users/ada"), 409, "user_busy")
        assert refused["run_id"] == run["run_id"]
        assert (await client.get(f"/runs/{run['run_id']}")).status_code == 200
        await client.post(f"/runs/{run['run_id']}/cancel")
        await client.ended(run["run_id"])
        assert (await client.delete("/users/ada")).status_code == 204
        problem_of(await client.get(f"/runs/{run['run_id']}"), 404)


async def sessions_of(client: Client) -> set[Any]:
    return {session["user_id"] for session in (await client.get("/sessions")).json()["items"]}


async def test_the_user_is_one_of_the_callers_tenant(database_url: str) -> None:
    async with running(database_url, Diary) as client:
        admin = await first_key(client)
        tenants = {}
        for tenant in ("acme", "globex"):
            scopes = ["runs:read", "runs:write", "sessions:read", "sessions:write", "admin"]
            key = await new_key(client, admin, tenant=tenant, name=tenant, scopes=scopes)
            tenants[tenant] = as_caller(client, key["key"])
            for user in ("ada", "bob"):
                await tenants[tenant].finish("diary", {"user_id": user}, secret="s")
        bound = await new_key(client, admin, tenant="acme", user_id="ada", name="ada's")
        ada = as_caller(client, bound["key"])
        assert (await ada.get("/sessions")).status_code == 200
        assert (await tenants["acme"].delete("/users/ada")).status_code == 204
        assert await sessions_of(tenants["acme"]) == {"bob"}
        assert await sessions_of(tenants["globex"]) == {"ada", "bob"}
        problem_of(await ada.get("/sessions"), 401)
        (left,) = query(database_url, "SELECT * FROM api_keys WHERE key_id = :key", key=bound["key_id"])
        assert (left["digest"], left["user_id"], left["name"]) == ("", None, "erased")
        for caller in (*tenants.values(), ada):
            await caller.aclose()
