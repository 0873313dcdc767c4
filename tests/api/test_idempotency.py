"""Idempotency-Key: however often a request is sent, there is one run."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from app import RunResponse, Workflow
from tests.support.problems import problem_of
from tests.support.server import Client, read_sse, running

KEY = {"Idempotency-Key": "one"}


class Echo(Workflow):
    def run(self, text: str = "hi") -> Iterator[RunResponse]:
        yield RunResponse(content=text)


class Sleeper(Workflow):
    async def run(self) -> None:
        await asyncio.sleep(60)


async def run_count(client: Client) -> int:
    return len((await client.get("/runs")).json()["items"])


async def test_the_same_key_and_body_are_the_same_run(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        first = await client.post("/workflows/echo/runs", json={"input": {"text": "a"}}, headers=KEY)
        await client.ended(first.json()["run_id"])
        again = await client.post("/workflows/echo/runs", json={"input": {"text": "a"}}, headers=KEY)
        assert again.status_code == first.status_code == 202
        assert again.json()["run_id"] == first.json()["run_id"]
        assert again.headers["location"] == first.headers["location"]
        assert await run_count(client) == 1


async def test_the_same_key_with_another_body_is_refused(database_url: str) -> None:
    async with running(database_url, Echo, Sleeper) as client:
        await client.post("/workflows/echo/runs", json={"input": {"text": "a"}}, headers=KEY)
        for workflow, body in [
            ("echo", {"input": {"text": "b"}}),
            ("echo", {"input": {"text": "a"}, "session_id": "s"}),
            ("echo", {"input": {"text": "a"}, "metadata": {"a": 1}}),
            ("sleeper", {"input": {}}),
        ]:
            problem_of(await client.post(f"/workflows/{workflow}/runs", json=body, headers=KEY), 422)
        assert await run_count(client) == 1


async def test_the_same_key_gives_the_same_stream(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        seen = []
        for _ in range(2):
            headers = KEY | {"Accept": "text/event-stream"}
            async with client.stream("POST", "/workflows/echo/runs", json={"input": {}}, headers=headers) as stream:
                seen.append([event async for event in read_sse(stream)])
        assert seen[0] == seen[1]
        assert seen[0][-1].event == "RunFinished"
        assert await run_count(client) == 1


@pytest.mark.parametrize("session_id", [None, "s"])
async def test_requests_with_one_key_at_the_same_time_are_one_run(database_url: str, session_id: str | None) -> None:
    async with running(database_url, Echo) as client:
        body: dict[str, Any] = {"input": {}} | ({} if session_id is None else {"session_id": session_id})
        answers = await asyncio.gather(
            *(client.post("/workflows/echo/runs", json=body, headers=KEY) for _ in range(20))
        )
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.json()["run_id"] for answer in answers}) == 1
        assert await run_count(client) == 1
        assert len((await client.get("/sessions")).json()["items"]) == 1


async def test_a_refused_request_leaves_the_key_free(database_url: str) -> None:
    async with running(database_url, Echo, Sleeper) as client:
        problem_of(await client.post("/workflows/echo/runs", json={"input": {"text": 1}}, headers=KEY), 422)
        busy = await client.start("sleeper", {"session_id": "s"})
        body = {"input": {}, "session_id": "s", "on_busy": "reject"}
        problem_of(await client.post("/workflows/sleeper/runs", json=body, headers=KEY), 409)
        await client.post(f"/runs/{busy['run_id']}/cancel")
        await client.ended(busy["run_id"])
        assert (await client.post("/workflows/sleeper/runs", json=body, headers=KEY)).status_code == 202


async def test_a_key_outlives_the_deletion_of_its_run_without_breaking(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        first = await client.post("/workflows/echo/runs", json={"input": {}, "session_id": "s"}, headers=KEY)
        await client.ended(first.json()["run_id"])
        assert (await client.delete("/sessions/s")).status_code == 204
        again = await client.post("/workflows/echo/runs", json={"input": {}, "session_id": "s"}, headers=KEY)
        assert again.status_code in {202, 404, 409, 410, 422}, again.text


@pytest.mark.parametrize("key", ["", "a" * 256])
async def test_a_key_has_1_to_255_characters(sqlite_url: str, key: str) -> None:
    async with running(sqlite_url, Echo) as client:
        headers = {"Idempotency-Key": key}
        problem_of(await client.post("/workflows/echo/runs", json={"input": {}}, headers=headers), 400)
        headers = {"Idempotency-Key": "a" * 255}
        assert (await client.post("/workflows/echo/runs", json={"input": {}}, headers=headers)).status_code == 202


async def test_runs_of_different_keys_are_different(sqlite_url: str) -> None:
    async with running(sqlite_url, Echo) as client:
        for key in ("one", "two"):
            await client.post("/workflows/echo/runs", json={"input": {}}, headers={"Idempotency-Key": key})
        assert await run_count(client) == 2
