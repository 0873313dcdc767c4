"""The routes of the bare server: as much of ours as the figures ask for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import Response
from sse_starlette import EventSourceResponse, ServerSentEvent

Frames = AsyncIterator[bytes | ServerSentEvent]


class Work(NamedTuple):
    """One run's input."""

    events: int
    size: int = 64
    hold_seconds: float = 0.0


class Server(Protocol):
    """What is behind the routes."""

    async def open(self) -> None:
        """Be ready."""

    def start(self, run_id: str, session_id: str, work: Work) -> Frames:
        """Begin a run; its frames."""

    def replay(self, run_id: str, after: int) -> Frames:
        """The frames of an ended run past a number."""

    async def change(self, session_id: str, patch: dict[str, Any]) -> bytes:
        """The state's new document, when the patch is on disk; with an empty one the document as it is."""


def make_application(server: Server) -> FastAPI:
    """The application; the hot routes take the request and return bytes, as ours do."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await server.open()
        yield

    application = FastAPI(lifespan=lifespan)

    @application.get("/readyz")
    async def ready() -> Response:
        return Response(b"{}", media_type="application/json")

    @application.post("/workflows/benchmark/runs")
    async def start_run(request: Request) -> Response:
        body, run_id = orjson.loads(await request.body()), uuid4().hex
        frames = server.start(run_id, body["session_id"], Work(**body["input"]))
        headers = {"Content-Location": f"/runs/{run_id}"}
        return EventSourceResponse(frames, headers=headers, sep="\n")

    @application.get("/runs/{run_id}/events")
    async def replay(run_id: str, request: Request) -> Response:
        after = int(request.headers.get("last-event-id", "0"))
        return EventSourceResponse(server.replay(run_id, after), sep="\n")

    @application.get("/sessions/{session_id}/state")
    async def get_state(session_id: str) -> Response:
        return Response(await server.change(session_id, {}), media_type="application/json")

    @application.patch("/sessions/{session_id}/state")
    async def patch_state(session_id: str, request: Request) -> Response:
        patch = orjson.loads(await request.body())
        return Response(await server.change(session_id, patch), media_type="application/json")

    return application
