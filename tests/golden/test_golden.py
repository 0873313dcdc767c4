"""Streams and problem documents, compared with the files beside this one; MILLSTREAM_UPDATE_GOLDEN=1 writes them anew.

Ids, times and the retry field are the only parts that differ from run to run; each is replaced by a word.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from app import RunEvent, RunResponse, Workflow
from tests.support.server import Client, running

FOLDER = Path(__file__).parent
UPDATE = bool(os.environ.get("MILLSTREAM_UPDATE_GOLDEN"))


def compare(name: str, found: str) -> None:
    """The text with the file's; or the file made from it."""
    file = FOLDER / name
    if UPDATE:
        file.write_bytes(found.encode())
    assert found == file.read_bytes().decode(), f"{name} differs; MILLSTREAM_UPDATE_GOLDEN=1 accepts the new text"


def normalised(text: str) -> str:
    """Without what differs from run to run."""
    text = re.sub(r'"request_id":"[0-9a-f-]{36}"', '"request_id":"<request>"', text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "<run>", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", "<time>", text)
    text = re.sub(r'"seconds":[0-9.e-]+', '"seconds":<seconds>', text)
    return re.sub(r"^retry: \d+$", "retry: <milliseconds>", text, flags=re.MULTILINE)


class Post(BaseModel):
    title: str
    on: date


class Baker(Workflow):
    """One of everything."""

    def run(self, topic: str, fail: bool = False) -> Iterator[RunResponse]:
        recipe = self.step(lambda: {"flour": 500, "of": topic}, name="find recipe")
        yield RunResponse(content=f"Take {recipe['flour']} g.\nStir.\u2028 ")
        self.session_state.setdefault("recipes", []).append(recipe)
        self.write_to_storage()
        yield RunResponse(content=Post(title="Bread", on=date(2026, 1, 2)), event="PostWritten", metrics={"words": 2})
        self.session_state["last/one"] = topic
        if fail:
            self.step(self.burn)
        yield RunResponse(content="done \U0001f35e", event=RunEvent.workflow_completed)

    def burn(self) -> None:
        raise ValueError("the oven is too hot")


class Waiter(Workflow):
    async def run(self, seconds: float) -> AsyncIterator[RunResponse]:
        await asyncio.sleep(seconds)
        yield RunResponse(content="waited")


async def test_the_stream_of_a_run_that_completes(database_url: str) -> None:
    async with running(database_url, Baker) as client:
        run = await client.finish("baker", {"session_id": "kitchen"}, topic="rye")
        compare("completed.sse", normalised((await client.get(f"/runs/{run['run_id']}/events")).text))


async def test_the_stream_of_a_run_that_fails(database_url: str) -> None:
    async with running(database_url, Baker) as client:
        run = await client.finish("baker", {"session_id": "kitchen"}, topic="rye", fail=True)
        compare("failed.sse", normalised((await client.get(f"/runs/{run['run_id']}/events")).text))


async def test_the_stream_of_a_run_that_waits_and_is_cancelled(database_url: str) -> None:
    async with running(database_url, Waiter) as client:
        await client.start("waiter", {"session_id": "door"}, seconds=60)
        run = await client.start("waiter", {"session_id": "door"}, seconds=0)
        await client.post(f"/runs/{run['run_id']}/cancel")
        compare("cancelled.sse", normalised((await client.get(f"/runs/{run['run_id']}/events")).text))


async def test_the_rest_of_a_stream(sqlite_url: str) -> None:
    async with running(sqlite_url, Baker) as client:
        run = await client.finish("baker", {"session_id": "kitchen"}, topic="rye")
        headers = {"Last-Event-ID": "6"}
        compare("resumed.sse", normalised((await client.get(f"/runs/{run['run_id']}/events", headers=headers)).text))


async def test_the_resources(database_url: str) -> None:
    async with running(database_url, Baker) as client:
        run = await client.finish("baker", {"session_id": "kitchen", "user_id": "ada"}, topic="rye")
        for name, path in [
            ("run", f"/runs/{run['run_id']}"),
            ("session", "/sessions/kitchen"),
            ("state", "/sessions/kitchen/state"),
            ("revisions", "/sessions/kitchen/state/revisions"),
            ("workflow", "/workflows/baker"),
        ]:
            document = json.loads(normalised((await client.get(path)).text))
            compare(f"{name}.json", json.dumps(document, indent=2, ensure_ascii=False) + "\n")


Request = Callable[[Client], Any]
JSON_PATCH = {"Content-Type": "application/json-patch+json"}
PROBLEMS: dict[str, Request] = {
    "unknown_route": lambda client: client.get("/nothing"),
    "method_not_allowed": lambda client: client.delete("/workflows"),
    "unknown_run": lambda client: client.get("/runs/none"),
    "unknown_session": lambda client: client.get("/sessions/none"),
    "unknown_workflow": lambda client: client.get("/workflows/none"),
    "unknown_revision": lambda client: client.get("/sessions/s/state?revision=9"),
    "malformed_json": lambda client: client.patch("/sessions/s/state", content=b"{"),
    "invalid_body": lambda client: client.post("/workflows/baker/runs", json={"input": {}, "colour": "red"}),
    "invalid_input": lambda client: client.post("/workflows/baker/runs", json={"input": {"topic": 5, "colour": 1}}),
    "invalid_parameter": lambda client: client.get("/runs?limit=0&status=done"),
    "invalid_cursor": lambda client: client.get("/runs?cursor=x"),
    "stream_cursor": lambda client: client.get("/runs/none/events", headers={"Last-Event-ID": "x"}),
    "unencodable": lambda client: client.patch("/sessions/s/state", content=b'{"a":{"b":18446744073709551616}}'),
    "not_an_object": lambda client: client.patch("/sessions/s/state", json=[]),
    "media_type": lambda client: client.patch("/sessions/s/state", content="x", headers={"Content-Type": "text/plain"}),
    "failed_test": lambda client: client.request(
        "PATCH", "/sessions/s/state", json=[{"op": "test", "path": "/a", "value": 2}], headers=JSON_PATCH
    ),
    "invalid_patch": lambda client: client.request(
        "PATCH", "/sessions/s/state", json=[{"op": "add", "path": "a", "value": 2}], headers=JSON_PATCH
    ),
    "stale": lambda client: client.patch("/sessions/s/state", json={}, headers={"If-Match": '"0"'}),
    "precondition_required": lambda client: client.put("/sessions/s/state", json={}),
    "state_too_large": lambda client: client.patch("/sessions/s/state", json={"a": "x" * 1000}),
    "body_too_large": lambda client: client.patch("/sessions/s/state", json={"a": "x" * 3000}),
    "session_exists": lambda client: client.post("/sessions", json={"workflow": "baker", "session_id": "s"}),
    "other_workflow": lambda client: client.post(
        "/workflows/waiter/runs", json={"input": {"seconds": 0}, "session_id": "s"}
    ),
}
HEADERS = ("etag", "allow", "accept-patch", "retry-after")


@pytest.mark.parametrize("name", PROBLEMS)
async def test_the_problem_documents(sqlite_url: str, name: str) -> None:
    async with running(sqlite_url, Baker, Waiter, max_state_bytes=1000, max_body_bytes=2000) as client:
        await client.post("/sessions", json={"workflow": "baker", "session_id": "s", "session_state": {"a": 1}})
        answer: httpx.Response = await PROBLEMS[name](client)
        headers = {header: answer.headers[header] for header in HEADERS if header in answer.headers}
        found = {"headers": headers, "body": json.loads(normalised(answer.text))}
        compare(f"problem_{name}.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
