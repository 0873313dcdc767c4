"""What a busy server logs at its most talkative, and what must not be in it."""

import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from app import Agent, RunResponse, Workflow
from tests.support.cluster import cluster
from tests.support.server import Client

SECRETS = {
    name: f"planted-{name}-5e2f"
    for name in (
        "input", "state", "metadata", "patch", "broken", "unknown", "authorization", "cookie", "idempotency", "token",
        "cursor", "answer", "model", "session-name", "agent",
    )
}  # fmt: skip


class Discreet(Workflow):
    """Handles what is secret, and says nothing of it."""

    agent = Agent(instructions=[SECRETS["agent"]])

    async def run(self, word: str) -> AsyncIterator[RunResponse]:
        yield RunResponse(content=word)
        yield await self.agent.run(word)
        self.session_state["word"] = word
        answer = await self.wait_for_input("and now?", schema=str)
        yield RunResponse(content=answer)


class SyncDiscreet(Workflow):
    """The same in a thread, and it fails."""

    agent = Agent(instructions=[SECRETS["agent"]])

    def run(self, word: str) -> Iterator[RunResponse]:
        yield from self.agent.run(word, stream=True)
        self.step(len, word)
        raise KeyError("no such shelf")


@contextmanager
def model_server() -> Iterator[str]:
    """An OpenAI-compatible server that repeats what it is asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            message = {"role": "assistant", "content": asked["messages"][-1]["content"]}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            if asked.get("stream"):
                choice = {"index": 0, "delta": message, "finish_reason": "stop"}
            answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
            if asked.get("stream"):
                answer["object"] = "chat.completion.chunk"
                self._send(f"data: {json.dumps(answer)}\n\ndata: [DONE]\n\n".encode(), "text/event-stream")
            else:
                self._send(json.dumps(answer).encode(), "application/json")

        def _send(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


async def ask(client: Client) -> None:
    """Every way in which a secret can come, and some that fail."""
    client.headers.update({"Authorization": f"Bearer {SECRETS['authorization']}", "Cookie": f"c={SECRETS['cookie']}"})
    body: dict[str, Any] = {
        "input": {"word": SECRETS["input"]},
        "session_id": "s",
        "session_state": {"kept": SECRETS["state"]},
        "metadata": {"note": SECRETS["metadata"]},
    }
    key = {"Idempotency-Key": SECRETS["idempotency"]}
    run = (await client.post("/workflows/discreet/runs", json=body, headers=key)).json()
    await client.post("/workflows/discreet/runs", json=body | {"input": {"word": "other"}}, headers=key)
    events: list[dict[str, Any]] = []
    while not any(event["event"] == "RunPaused" for event in events):
        page = await client.get(f"/runs/{run['run_id']}/events", headers={"Accept": "application/json"})
        events = page.json()["items"]
    request_id = next(event["request_id"] for event in events if event["event"] == "RunPaused")
    answer = {"request_id": request_id, "value": SECRETS["answer"]}
    await client.post(f"/runs/{run['run_id']}/input", json=answer)
    ended = await client.ended(run["run_id"])
    assert (ended["status"], SECRETS["input"] in ended["content"]) == ("completed", True), ended
    failed = await client.finish("sync-discreet", {"session_id": "t"}, word=SECRETS["input"])
    assert failed["error"]["type"] == "KeyError", failed
    await client.get(f"/runs/{run['run_id']}/events", params={"token": SECRETS["token"]})
    await client.get("/runs", params={"cursor": SECRETS["cursor"], "user_id": SECRETS["token"]})
    await client.patch("/sessions/s/state", json={"patched": SECRETS["patch"]})
    await client.patch("/sessions/s", json={"name": SECRETS["session-name"]})
    content = f'{{"{SECRETS["broken"]}": '
    for path in ("/workflows/discreet/runs", "/sessions"):
        await client.post(path, content=content, headers={"Content-Type": "application/json"})
        await client.post(path, json={SECRETS["unknown"]: SECRETS["broken"]})
    await client.patch("/sessions/s/state", json=[{"op": "test", "path": "/x", "value": SECRETS["patch"]}])


@pytest.mark.parametrize("form", ["text", "json"])
async def test_no_secret_is_in_the_log(database_url: str, form: str) -> None:
    with model_server() as model_url:
        settings = {
            "log_level": "debug",
            "log_format": form,
            "access_log": True,
            "model": "m",
            "model_base_url": model_url,
            "model_api_key": SECRETS["model"],
        }
        members = cluster(database_url, Discreet, SyncDiscreet, servers=1, workers=1, **settings)
        async with members as found, found.client() as client:
            await ask(client)
            said = "".join(member.said() for member in found.members)
    assert "/runs/{run_id}/events" in said, "the log was not talkative"
    assert "no such shelf" in said
    assert [name for name, secret in SECRETS.items() if secret in said] == []
    if form == "json":
        assert all(
            line.startswith("{") for line in said.splitlines() if "Millstream" not in line and "stopping" not in line
        )
