"""A real OpenAI-compatible server, and a runtime that remembers, for the tests of agents."""

import json
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from app.workflow.direct import DirectRuntime
from app.workflow.encoding import decode, encode
from app.workflow.results import from_log
from app.workflow.runtime import StepCall, StreamCall

KEY = "the-key-of-the-tests"


@dataclass
class Answer:
    """How the server answers one request; a `broken` stream ends in the middle."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delay_seconds: float = 0
    broken: bool = False


class ModelServer:
    """An OpenAI-compatible server that answers from a script, and well when that has ended."""

    words = ("Bread ", "is ", "good.")

    def __init__(self) -> None:
        self.answers: deque[Answer] = deque()
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.models = ["baker-1", "baker-2"]
        self.base_url = ""

    def app(self) -> Starlette:
        """The server's two routes."""
        routes = [
            Route("/v1/chat/completions", self._complete, methods=["POST"]),
            Route("/v1/models", self._list),
        ]
        return Starlette(routes=routes)

    async def _list(self, request: Request) -> Response:
        self.keys.append(request.headers.get("authorization"))
        return JSONResponse({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        self.keys.append(request.headers.get("authorization"))
        answer = self.answers.popleft() if self.answers else Answer()
        await anyio.sleep(answer.delay_seconds)
        if answer.status != 200:
            return JSONResponse(answer.body, status_code=answer.status, headers=answer.headers)
        if body.get("stream"):
            return StreamingResponse(self._chunks(body["model"], answer), media_type="text/event-stream")
        return JSONResponse(_completion(body["model"], "".join(self.words)))

    async def _chunks(self, model: str, answer: Answer) -> AsyncIterator[str]:
        for word in self.words:
            yield _frame(_chunk(model, {"role": "assistant", "content": word}))
            if answer.broken:
                raise ConnectionResetError("the test breaks this stream")
        yield _frame(_chunk(model, {}, finish_reason="stop"))
        yield "data: [DONE]\n\n"


def _frame(chunk: dict[str, Any]) -> str:
    return f"data: {json.dumps(chunk)}\n\n"


def _chunk(model: str, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]}


def _completion(model: str, text: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": model, "choices": [choice]}


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model and no key of whoever runs the tests."""
    for name in ("MODEL", "MODEL_BASE_URL", "MODEL_API_KEY"):
        monkeypatch.delenv(f"MILLSTREAM_{name}", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without their pauses."""
    monkeypatch.setattr("app.agents.connection.FIRST_WAIT_SECONDS", 0.01)


@pytest.fixture
def model_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """A running server, configured as the default model with its key."""
    model = ModelServer()
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(model.app(), log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    model.base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    monkeypatch.setenv("MILLSTREAM_MODEL_BASE_URL", model.base_url)
    monkeypatch.setenv("MILLSTREAM_MODEL_API_KEY", KEY)
    yield model
    server.should_exit = True
    thread.join(10)
    listener.close()


class Journal(DirectRuntime):
    """Calls steps as a script does, and keeps their JSON; `replay()` is a runtime that calls nothing any more."""

    def __init__(self) -> None:
        self.log: list[tuple[str, Any]] = []

    def step(self, call: StepCall) -> Any:
        """The function's result, logged."""
        result = super().step(call)
        self.log.append((call.name, encode(result)))
        return result

    def stream(self, call: StreamCall) -> Iterator[Any]:
        """The pieces, logged when they have ended."""
        pieces: list[bytes] = []
        for piece in super().stream(call):
            pieces.append(encode(piece))
            yield piece
        self.log.append((call.name, pieces))

    def replay(self) -> "Replay":
        """A later attempt's runtime."""
        return Replay(deque(self.log))


class Replay(DirectRuntime):
    """Returns what the log says."""

    def __init__(self, log: deque[tuple[str, Any]]) -> None:
        self._log = log

    def step(self, call: StepCall) -> Any:
        """The logged result."""
        name, encoded = self._log.popleft()
        assert name == call.name
        return from_log(call.function, encoded)

    def stream(self, call: StreamCall) -> Iterator[Any]:
        """The logged pieces."""
        name, pieces = self._log.popleft()
        assert name == call.name
        yield from map(decode, pieces)


@pytest.fixture
def journal() -> Journal:
    """A runtime that remembers."""
    return Journal()


@pytest.fixture
def anyio_backend() -> str:
    """The service's own."""
    return "asyncio"
