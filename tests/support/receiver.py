"""A receiver of webhooks on a real socket, which answers as a test wants it to."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.support.waiting import until


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        """The body, read."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def id(self) -> str:
        """The message's id."""
        return self.headers["webhook-id"]

    def is_signed_by(self, secret: str) -> bool:
        """As the specification of Standard Webhooks has it, written apart from what is tested."""
        key = base64.b64decode(secret.split("_", 1)[1])
        signed = b".".join([self.id.encode(), self.headers["webhook-timestamp"].encode(), self.body])
        wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return f"v1,{wanted}" in self.headers["webhook-signature"].split(" ")


Answering: TypeAlias = Callable[[Received], Response | float]
"""What is answered: a response, or after so many seconds 200."""


@dataclass
class Receiver:
    """What came, in its order."""

    answering: Answering = lambda _received: Response()
    url: str = ""
    received: list[Received] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    def to(self, path: str) -> list[Received]:
        """Those to one path."""
        return [one for one in self.received if one.path == path]

    async def gets(self, count: int, seconds: float = 10, path: str | None = None) -> list[Received]:
        """So many requests, once they have come."""

        async def enough() -> list[Received]:
            found = self.received if path is None else self.to(path)
            return found if len(found) >= count else []

        return list(await until(enough, seconds))

    async def _receive(self, request: Request) -> Response:
        received = Received(request.url.path, dict(request.headers), await request.body())
        self.received.append(received)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            answer = self.answering(received)
            if isinstance(answer, Response):
                return answer
            await asyncio.sleep(answer)
            return Response()
        finally:
            self.at_once -= 1


@asynccontextmanager
async def receiver(answering: Answering | None = None) -> AsyncIterator[Receiver]:
    """A receiver that is up."""
    found = Receiver() if answering is None else Receiver(answering)
    app = Starlette(routes=[Route("/{path:path}", found._receive, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        found.url = f"http://127.0.0.1:{port}"
        yield found
    finally:
        server.should_exit = True
        await serving
