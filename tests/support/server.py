"""A real server on a free port, in the test's own event loop, and a client of it."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from app.main import Millstream, listen
from app.settings import Settings
from app.workflow.registry import Registry, WorkflowDefinition
from app.workflow.workflow import Workflow


@dataclass(frozen=True)
class SseEvent:
    """One frame as a client sees it."""

    id: str | None
    event: str
    data: Any


class Client(httpx.AsyncClient):
    """HTTP with the few phrases that tests repeat."""

    async def start(self, workflow: str, _options: dict[str, Any] | None = None, **input: Any) -> dict[str, Any]:
        """Start a run; its resource. `_options` are members of the body beside `input`."""
        answer = await self.post(f"/workflows/{workflow}/runs", json={"input": input} | (_options or {}))
        assert answer.status_code == 202, answer.text
        run: dict[str, Any] = answer.json()
        return run

    async def finish(self, workflow: str, _options: dict[str, Any] | None = None, **input: Any) -> dict[str, Any]:
        """Start a run and wait for its end; its resource."""
        run = await self.start(workflow, _options, **input)
        return await self.ended(run["run_id"])

    async def ended(self, run_id: str, seconds: float = 20) -> dict[str, Any]:
        """The run, once it has ended."""
        async with asyncio.timeout(seconds):
            while True:
                run: dict[str, Any] = (await self.get(f"/runs/{run_id}")).json()
                if run["finished_at"] is not None:
                    return run
                await asyncio.sleep(0.01)

    async def events(self, run_id: str, after: int | None = None) -> list[SseEvent]:
        """The run's events, by its stream, to the end."""
        headers = {"Accept": "text/event-stream"} | ({} if after is None else {"Last-Event-ID": str(after)})
        async with self.stream("GET", f"/runs/{run_id}/events", headers=headers) as stream:
            return [event async for event in read_sse(stream)]


async def read_sse(stream: httpx.Response) -> AsyncGenerator[SseEvent, None]:
    """The frames of a stream; a small reader of our own that accepts nothing but what we promise."""
    assert stream.status_code == 200, await stream.aread()
    assert stream.headers["content-type"].startswith("text/event-stream")
    rest = b""
    async for chunk in stream.aiter_raw():
        *frames, rest = (rest + chunk).split(b"\n\n")
        for frame in frames:
            fields = dict(line.split(b": ", 1) for line in frame.split(b"\n") if not line.startswith(b":"))
            if b"data" in fields:
                yield SseEvent(fields[b"id"].decode(), fields[b"event"].decode(), json.loads(fields[b"data"]))
    assert rest == b"", "the stream was cut inside a frame"


@asynccontextmanager
async def running(database_url: str, *workflows: type[Workflow], **settings: Any) -> AsyncIterator[Client]:
    """A server of these workflows, and a client of it."""
    options: dict[str, Any] = {"database_url": database_url, "port": 0, "drain_seconds": 0.2, "cancel_grace_seconds": 1}
    chosen = Settings(**options | settings)
    millstream = Millstream(chosen, Registry(WorkflowDefinition(workflow) for workflow in workflows))
    server = millstream.server()
    listening = listen(chosen)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        while not server.started:
            if serving.done():
                await serving
                raise RuntimeError("the server did not start")
            await asyncio.sleep(0.01)
        host, port = listening.getsockname()[:2]
        async with Client(base_url=f"http://{host}:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        await serving
