"""API keys: made, listed, replaced, revoked; what is kept of them; how soon it counts, here and in other processes."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from app import RunResponse, Workflow, clock
from app.operations.access import Access
from app.operations.caller import OPEN
from app.operations.credentials import ApiKey
from app.operations.keys import Keys
from app.store.opening import open_database
from app.wire.keys import SCOPES
from tests.support.keys import as_caller, bearer, first_key, new_key
from tests.support.problems import problem_of
from tests.support.server import Client, running
from tests.support.tables import execute, query
from tests.support.waiting import until

REVOKED_SECONDS = 10
"""How soon a revoked key is refused everywhere."""
ENDED_SECONDS = 30
"""How soon its streams have ended."""


class Endless(Workflow):
    async def run(self) -> AsyncIterator[RunResponse]:
        while True:
            yield RunResponse(content="on ")
            await asyncio.sleep(0.05)


class Silent(Workflow):
    async def run(self) -> AsyncIterator[RunResponse]:
        yield RunResponse(content="waiting")
        await asyncio.sleep(600)


def sql(database_url: str, key: Any, **columns: Any) -> None:
    """Change a key as another process would."""
    named = ", ".join(f"{column} = '{value}'" for column, value in columns.items())
    assert execute(database_url, f"UPDATE api_keys SET {named} WHERE key_id = '{key['key_id']}'") == 1


PAST = "2020-01-01 00:00:00.000000"


def test_a_key_is_a_name_a_secret_and_a_checksum() -> None:
    keys = [ApiKey.new() for _ in range(200)]
    assert len({key.key_id for key in keys}) == len({key.secret for key in keys}) == 200
    for key in keys:
        assert re.fullmatch(r"ms_[0-9A-Za-z]{8}_[0-9A-Za-z]{49}", key.text)
        assert ApiKey.read(key.text) == key
        assert key.fits(key.digest)
        for place in range(3, len(key.text)):
            wrong = key.text[:place] + ("x" if key.text[place] != "x" else "y") + key.text[place + 1 :]
            assert ApiKey.read(wrong) is None
    for text in ("", "ms_", keys[0].text + "x", keys[0].text[:-1], " " + keys[0].text, "ms_12345678_" + "ü" * 49):
        assert ApiKey.read(text) is None


async def test_a_key_is_shown_once_and_kept_as_a_digest(database_url: str) -> None:
    async with running(database_url, Silent) as client:
        admin = await first_key(client)
        made = await new_key(client, admin, name="web", scopes=["runs:read"], user_id="ada", tenant="acme")
        assert {name: made[name] for name in ("name", "scopes", "tenant", "user_id", "expires_at", "revoked_at")} == {
            "name": "web",
            "scopes": ["runs:read"],
            "tenant": "acme",
            "user_id": "ada",
            "expires_at": None,
            "revoked_at": None,
        }
        listed = await client.get("/keys", headers=bearer(admin))
        for text in (made["key"], admin):
            key = ApiKey.read(text)
            assert key is not None
            assert key.secret not in listed.text + repr(query(database_url, "SELECT * FROM api_keys"))
        (shown,) = [key for key in listed.json()["items"] if key["key_id"] == made["key_id"]]
        assert shown == {name: value for name, value in made.items() if name != "key"}
        assert "digest" not in listed.text


async def test_a_key_makes_keys_of_its_own_tenant_and_the_operators_of_all(database_url: str) -> None:
    async with running(database_url, Silent) as client:
        operator = await first_key(client)
        acme = await new_key(client, operator, tenant="acme", scopes=["admin"])
        globex = await new_key(client, operator, tenant="globex", scopes=["admin"])
        assert (await new_key(client, acme["key"]))["tenant"] == "acme"
        assert (await new_key(client, acme["key"], tenant="acme"))["tenant"] == "acme"
        for tenant in ("globex", "default", "new"):
            body = {"name": "x", "scopes": ["runs:read"], "tenant": tenant}
            problem_of(await client.post("/keys", json=body, headers=bearer(acme["key"])), 403, "other_tenant")
            refused = await client.get("/keys", params={"tenant": tenant}, headers=bearer(acme["key"]))
            problem_of(refused, 403, "other_tenant")
        seen = (await client.get("/keys", headers=bearer(acme["key"]))).json()["items"]
        assert {key["tenant"] for key in seen} == {"acme"}
        everything = (await client.get("/keys", headers=bearer(operator))).json()["items"]
        assert {key["tenant"] for key in everything} == {"default", "acme", "globex"}
        for path in (f"/keys/{globex['key_id']}", "/keys/00000000", "/keys/%00", "/keys/x'--"):
            problem_of(await client.delete(path, headers=bearer(acme["key"])), 404, "unknown_key")
            problem_of(await client.post(f"{path}/rotate", json={}, headers=bearer(acme["key"])), 404, "unknown_key")
        assert (await client.delete(f"/keys/{globex['key_id']}", headers=bearer(operator))).status_code == 204
        problem_of(await client.get("/metrics", headers=bearer(acme["key"])), 403, "other_tenant")
        assert (await client.get("/metrics", headers=bearer(operator))).status_code == 200


async def test_what_is_wrong_with_a_request_for_a_key_is_said(sqlite_url: str) -> None:
    async with running(sqlite_url, Silent) as client:
        admin = bearer(await first_key(client))
        good: dict[str, Any] = {"name": "x", "scopes": ["runs:read"]}
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"scopes": []}, "/scopes"),
            ({"scopes": ["runs:delete"]}, "/scopes/0"),
            ({"name": ""}, "/name"),
            ({"name": "a\nb"}, "/name"),
            ({"tenant": ""}, "/tenant"),
            ({"user_id": "x" * 256}, "/user_id"),
            ({"expires_at": "tomorrow"}, "/expires_at"),
            ({"expires_at": "2030-01-01T00:00:00"}, "/expires_at"),
            ({"expires_at": 2_000_000_000}, "/expires_at"),
            ({"secret": "mine"}, "/secret"),
        ]
        for members, pointer in wrong:
            problem = problem_of(await client.post("/keys", json=good | members, headers=admin), 422, "invalid_body")
            assert [error["pointer"] for error in problem["errors"]] == [pointer]
        past = await client.post("/keys", json=good | {"expires_at": "2020-01-01T00:00:00Z"}, headers=admin)
        problem_of(past, 422, "invalid_body")
        untyped = await client.post("/keys", content=b'{"name":"x","scopes":["admin"]}', headers=admin)
        problem_of(untyped, 415, "unsupported_media_type")


async def test_a_key_is_replaced_with_an_overlap(database_url: str) -> None:
    async with running(database_url, Silent) as client:
        admin = await first_key(client)
        old = await new_key(client, admin, tenant="acme", user_id="ada", scopes=["runs:read"])
        path = f"/keys/{old['key_id']}/rotate"
        new = (await client.post(path, json={"overlap_seconds": 2}, headers=bearer(admin))).json()
        assert new["key"] != old["key"]
        assert {**new, "key": 0, "key_id": 0, "created_at": 0} == {**old, "key": 0, "key_id": 0, "created_at": 0}
        for key in (old, new):
            assert (await client.get("/runs", headers=bearer(key["key"]))).status_code == 200
        await asyncio.sleep(2.1)
        problem_of(await client.get("/runs", headers=bearer(old["key"])), 401, "unauthenticated")
        assert (await client.get("/runs", headers=bearer(new["key"]))).status_code == 200
        problem_of(await client.post(path, json={}, headers=bearer(admin)), 422, "key_ended")
        soon = await new_key(client, admin, expires_at=(clock.now() + timedelta(hours=1)).isoformat())
        await client.post(
            f"/keys/{soon['key_id']}/rotate", headers=bearer(admin) | {"Content-Type": "application/json"}
        )
        listed = (await client.get("/keys", headers=bearer(admin))).json()["items"]
        (kept,) = [key for key in listed if key["key_id"] == soon["key_id"]]
        assert kept["expires_at"] == soon["expires_at"], "an overlap makes no key live longer"


async def refused(client: Client, key: Any) -> float:
    """How long the key is still good."""
    began = time.monotonic()
    while (await client.get("/runs", headers=bearer(key["key"]))).status_code == 200:
        assert time.monotonic() < began + REVOKED_SECONDS
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def test_a_revoked_key_is_refused_here_at_once_and_elsewhere_soon(database_url: str) -> None:
    async with running(database_url, Silent) as client:
        admin = await first_key(client)
        here, elsewhere = await new_key(client, admin), await new_key(client, admin)
        for key in (here, elsewhere):
            assert (await client.get("/runs", headers=bearer(key["key"]))).status_code == 200
        assert (await client.delete(f"/keys/{here['key_id']}", headers=bearer(admin))).status_code == 204
        assert await refused(client, here) < 1
        assert (await client.delete(f"/keys/{here['key_id']}", headers=bearer(admin))).status_code == 204
        sql(database_url, elsewhere, revoked_at=PAST)
        await refused(client, elsewhere)


async def test_streams_end_when_their_key_does_and_others_go_on(database_url: str) -> None:
    async with running(database_url, Endless, Silent) as client:
        admin = await first_key(client)
        revoked, expiring, stays = [await new_key(client, admin) for _ in range(3)]
        talking, silent = [(await as_caller(client, admin).start(name))["run_id"] for name in ("endless", "silent")]
        both = f"/events?run_id={talking}&run_id={silent}"
        paths = [f"/runs/{talking}/events", f"/runs/{silent}/events", both]
        sessions = (
            "/events?session_id=" + (await client.get(f"/runs/{silent}", headers=bearer(admin))).json()["session_id"]
        )

        async def read(key: Any, path: str) -> float:
            async with client.stream("GET", path, headers=bearer(key["key"]), timeout=60) as stream:
                assert stream.status_code == 200
                async for _ in stream.aiter_bytes():  # a connection that is cut would raise
                    pass
            return time.monotonic()

        reading = [asyncio.create_task(read(key, path)) for key in (revoked, expiring) for path in [*paths, sessions]]
        going_on = [asyncio.create_task(read(stays, path)) for path in paths]
        await asyncio.sleep(1)
        assert not any(task.done() for task in reading + going_on)
        began = time.monotonic()
        sql(database_url, revoked, revoked_at=PAST)
        sql(database_url, expiring, expires_at=PAST)
        ended = await asyncio.wait_for(asyncio.gather(*reading), ENDED_SECONDS)
        assert max(ended) - began < ENDED_SECONDS
        await asyncio.sleep(2.5)
        assert not any(task.done() for task in going_on)
        problem_of(await client.get(paths[0], headers=bearer(revoked["key"])), 401, "unauthenticated")
        for task in going_on:
            task.cancel()
        await asyncio.gather(*going_on, return_exceptions=True)
        figures = await client.get("/metrics", headers=bearer(admin))
        assert "millstream_streams_open " in figures.text


async def test_a_first_key_that_another_process_makes_is_noticed_and_sends_the_nameless_away(database_url: str) -> None:
    async with running(database_url, Silent) as client:
        run = await client.start("silent")
        async with client.stream("GET", f"/runs/{run['run_id']}/events", timeout=60) as stream:
            assert stream.status_code == 200
            database = open_database(database_url, lease_seconds=10)
            try:
                made = await Keys(database).create(OPEN, name="first", scopes=list(SCOPES))
            finally:
                await database.close()

            async def closed() -> bool:
                return (await client.get("/runs")).status_code == 401

            await until(closed, 5)
            async with asyncio.timeout(ENDED_SECONDS):
                async for _ in stream.aiter_bytes():
                    pass
        assert (await client.get(f"/runs/{run['run_id']}", headers=bearer(made["key"]))).status_code == 200


async def test_authentication_stays_on_when_the_only_key_is_revoked(database_url: str) -> None:
    async with running(database_url, Silent) as client:
        admin = await first_key(client)
        (key,) = (await client.get("/keys", headers=bearer(admin))).json()["items"]
        assert (await client.delete(f"/keys/{key['key_id']}", headers=bearer(admin))).status_code == 204
        problem_of(await client.get("/runs", headers=bearer(admin)), 401, "unauthenticated")
    async with running(database_url, Silent) as client:
        problem_of(await client.get("/runs"), 401, "unauthenticated")


async def test_the_last_use_is_noted_by_the_watch(database_url: str) -> None:
    database = open_database(database_url, lease_seconds=10)
    try:
        access = Access(database, None)
        made = await Keys(database, access).create(OPEN, name="x", scopes=["runs:read"])
        assert access.on
        assert (await access.caller(made["key"])).name == "x"
        assert query(database_url, "SELECT last_used_at FROM api_keys") == [{"last_used_at": None}]
        await access._note_use()
        (row,) = (await Keys(database).page(OPEN, tenant=None, limit=5, cursor=None))[0]
        assert abs(datetime.fromisoformat(row["last_used_at"]) - clock.now()) < timedelta(seconds=5)
    finally:
        await database.close()


async def test_the_history_of_a_state_names_the_key(sqlite_url: str) -> None:
    async with running(sqlite_url, Silent) as client:
        admin = await first_key(client)
        caller = as_caller(client, (await new_key(client, admin, name="the web page"))["key"])
        await caller.post("/sessions", json={"workflow": "silent", "session_id": "s"})
        await caller.patch("/sessions/s/state", json={"a": 1})
        (revision,) = (await caller.get("/sessions/s/state/revisions")).json()["items"]
        assert revision["caller"] == "the web page"


@pytest.mark.parametrize("header", ["bearer", "BEARER", "Bearer"])
async def test_the_scheme_is_read_in_any_case(sqlite_url: str, header: str) -> None:
    async with running(sqlite_url, Silent) as client:
        admin = await first_key(client)
        answer: httpx.Response = await client.get("/runs", headers={"Authorization": f"{header} {admin}"})
        assert answer.status_code == 200
