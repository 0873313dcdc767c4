"""Stream tokens: for readers that can send no header; bound to caller and stream, short, and not told to anybody."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

from app import RunResponse, Workflow
from tests.support import databases
from tests.support.keys import as_caller, bearer, first_key, new_key
from tests.support.problems import problem_of
from tests.support.server import Client, read_sse, running
from tests.support.tables import query


class Tell(Workflow):
    async def run(self, words: int = 3) -> AsyncIterator[RunResponse]:
        for number in range(words):
            yield RunResponse(content=f"{number} ")


async def token_for(caller: Client, path: str, **options: Any) -> str:
    """A token that a caller gets."""
    answer = await caller.post(path, **options)
    assert answer.status_code == 201, answer.text
    token: str = answer.json()["token"]
    return token


async def names(client: Client, path: str, headers: dict[str, str] | None = None) -> list[str]:
    """The events of a stream."""
    async with client.stream("GET", path, headers={"Accept": "text/event-stream"} | (headers or {})) as stream:
        return [event.event async for event in read_sse(stream)]


WHOLE = ["WorkflowStarted", "RunResponse", "RunResponse", "RunResponse", "RunFinished"]


async def test_a_token_opens_its_runs_stream_as_often_as_it_lives(database_url: str) -> None:
    async with running(database_url, Tell, stream_token_seconds=5) as client:
        admin = await first_key(client)
        caller = as_caller(
            client,
            (await new_key(client, admin, tenant="acme", user_id="ada", scopes=["runs:read", "runs:write"]))["key"],
        )
        run_id = (await caller.finish("tell"))["run_id"]
        token = await token_for(caller, f"/runs/{run_id}/stream-token")
        path = f"/runs/{run_id}/events?token={token}"
        assert await names(client, path) == WHOLE
        assert await names(client, path, {"Last-Event-ID": "3"}) == WHOLE[3:]
        assert (await client.get(path, headers={"Last-Event-ID": "5"})).status_code == 204
        await asyncio.sleep(5.1)
        problem_of(await client.get(path), 401, "unauthenticated")


async def test_a_token_opens_nothing_else(database_url: str) -> None:
    async with running(database_url, Tell) as client:
        admin = await first_key(client)
        caller = as_caller(client, (await new_key(client, admin, tenant="acme"))["key"])
        one, other = [(await caller.finish("tell", {"session_id": "s"}))["run_id"] for _ in range(2)]
        token = await token_for(caller, f"/runs/{one}/stream-token")
        for path in (
            f"/runs/{other}/events?token={token}",
            f"/runs/{one}?token={token}",
            f"/runs?token={token}",
            f"/events?run_id={one}&run_id={other}&token={token}",
            f"/events?session_id=s&token={token}",
            "/sessions/s/state?token=" + token,
        ):
            problem_of(await client.get(path), 401, "unauthenticated")
        for headers in (bearer(token), {"Cookie": f"token={token}"}):
            problem_of(await client.get(f"/runs/{one}/events", headers=headers), 401, "unauthenticated")
        problem_of(await client.post(f"/runs/{one}/cancel?token={token}"), 401, "unauthenticated")
        problem_of(await client.post(f"/runs/{one}/stream-token?token={token}"), 401, "unauthenticated")


async def test_a_token_for_many_is_for_just_these_in_any_order(database_url: str) -> None:
    async with running(database_url, Tell) as client:
        admin = await first_key(client)
        caller = as_caller(client, (await new_key(client, admin, tenant="acme"))["key"])
        one, other = [(await caller.finish("tell", {"session_id": "s"}))["run_id"] for _ in range(2)]
        token = await token_for(caller, "/events/stream-token", json={"run_ids": [one, other]})
        for path in (f"/events?run_id={other}&run_id={one}", f"/events?run_id={one}&run_id={one}&run_id={other}"):
            assert sorted(await names(client, f"{path}&token={token}")) == sorted(WHOLE * 2)
        for path in (
            f"/events?run_id={one}",
            f"/events?run_id={one}&run_id={other}&session_id=s",
            "/events?session_id=s",
        ):
            problem_of(await client.get(f"{path}&token={token}"), 401, "unauthenticated")
        problem_of(await client.get(f"/runs/{one}/events?token={token}"), 401, "unauthenticated")
        for_session = await token_for(caller, "/events/stream-token", json={"session_ids": ["s"]})
        async with client.stream("GET", f"/events?session_id=s&token={for_session}") as stream:
            assert stream.status_code == 200
        empty: list[dict[str, Any]] = [{}, {"run_ids": []}]
        for body in empty:
            problem_of(await caller.post("/events/stream-token", json=body), 422, "invalid_parameter")
        problem_of(await caller.post("/events/stream-token", json={"session_ids": ["none"]}), 404, "unknown_session")
        problem_of(await caller.post("/events/stream-token", json={"run_ids": ["none"]}), 404, "unknown_run")


async def test_a_forged_token_opens_nothing(sqlite_url: str) -> None:
    async with running(sqlite_url, Tell) as client:
        admin = await first_key(client)
        caller = as_caller(client, admin)
        run_id = (await caller.finish("tell"))["run_id"]
        token = await token_for(caller, f"/runs/{run_id}/stream-token")
        written, _, signature = token.removeprefix("mst_").partition(".")
        payload = json.loads(base64.urlsafe_b64decode(written + "=="))
        longer = base64.urlsafe_b64encode(json.dumps(payload | {"until": 9e9}).encode()).decode().rstrip("=")
        (secret,) = query(sqlite_url, "SELECT value FROM secrets")
        assert secret["value"] not in token
        for forged in (
            f"mst_{longer}.{signature}",
            f"mst_{written}.",
            f"mst_{written}",
            f"mst_{written}.{signature}x",
            f"mst_.{signature}",
            f"{written}.{signature}",
            "mst_ü.ü",
            "",
            "x" * 10_000,
        ):
            problem_of(await client.get(f"/runs/{run_id}/events", params={"token": forged}), 401, "unauthenticated")


async def test_a_token_ends_with_its_key(database_url: str) -> None:
    async with running(database_url, Tell) as client:
        admin = await first_key(client)
        key = await new_key(client, admin)
        run_id = (await as_caller(client, key["key"]).finish("tell"))["run_id"]
        token = await token_for(as_caller(client, key["key"]), f"/runs/{run_id}/stream-token")
        path = f"/runs/{run_id}/events?token={token}"
        assert await names(client, path) == WHOLE
        assert (await client.delete(f"/keys/{key['key_id']}", headers=bearer(admin))).status_code == 204
        problem_of(await client.get(path), 401, "unauthenticated")


async def test_a_header_counts_more_than_a_token(sqlite_url: str) -> None:
    async with running(sqlite_url, Tell) as client:
        admin = await first_key(client)
        run_id = (await as_caller(client, admin).finish("tell"))["run_id"]
        token = await token_for(as_caller(client, admin), f"/runs/{run_id}/stream-token")
        path = f"/runs/{run_id}/events?token={token}"
        problem_of(await client.get(path, headers=bearer("nonsense")), 401, "unauthenticated")
        other = await new_key(client, admin, tenant="acme")
        problem_of(await client.get(path, headers=bearer(other["key"])), 404, "unknown_run")


async def test_processes_know_each_others_tokens(postgres_template: str) -> None:
    with databases.copy_of_postgres(postgres_template) as url:
        async with running(url, Tell) as client, running(url, Tell) as neighbour:
            admin = await first_key(client)
            caller = as_caller(client, admin)
            run_id = (await caller.finish("tell"))["run_id"]
            tokens = await asyncio.gather(
                *(token_for(as_caller(one, admin), f"/runs/{run_id}/stream-token") for one in (client, neighbour) * 3)
            )
            for token in tokens:
                for one in (client, neighbour):
                    assert await names(one, f"/runs/{run_id}/events?token={token}") == WHOLE


async def test_without_authentication_a_page_may_use_tokens_that_end_with_the_first_key(sqlite_url: str) -> None:
    async with running(sqlite_url, Tell) as client:
        run_id = (await client.finish("tell"))["run_id"]
        path = f"/runs/{run_id}/events?token={await token_for(client, f'/runs/{run_id}/stream-token')}"
        assert await names(client, path) == WHOLE
        await first_key(client)
        problem_of(await client.get(path), 401, "unauthenticated")
