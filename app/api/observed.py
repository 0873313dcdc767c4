"""Around every request: its id, its figures, its span, and if wanted its line in the log."""

import logging
import re
import time
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import clock
from app.correlation import REQUEST_ID, Tracer
from app.metrics import Metrics

logger = logging.getLogger(__name__)

HEADER = b"x-request-id"
NO_ROUTE = "(none)"
"""Where nothing is: the path itself is whatever a caller likes, and no label."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD = "(other)"
_SANE = re.compile(rb"[A-Za-z0-9._:=+/@-]{1,128}")


class Observed:
    """The application, observed from outside of it: also its answers to what nobody foresaw have an id."""

    def __init__(self, app: ASGIApp, metrics: Metrics, *, access_log: bool, tracer: Tracer | None) -> None:
        self._app, self._metrics = app, metrics
        self._access_log, self._tracer = access_log, tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0
        given = _header(scope["headers"], HEADER)
        request_id = given if given is not None and _SANE.fullmatch(given) else clock.new_id().encode()
        REQUEST_ID.set(request_id.decode())

        async def observe(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (HEADER, request_id)]
                self._metrics.answered(_method(scope), _route(scope), status, time.perf_counter() - began)
            await send(message)

        try:
            if self._tracer is None:
                await self._app(scope, receive, observe)
            else:
                await self._traced(self._tracer, scope, receive, observe)
        finally:
            if self._access_log:
                milliseconds = round((time.perf_counter() - began) * 1000, 3)
                facts = {"method": _method(scope), "route": _route(scope), "status": status}
                logger.info("request", extra=facts | {"milliseconds": milliseconds})

    async def _traced(self, tracer: Tracer, scope: Scope, receive: Receive, observe: Send) -> None:
        traceparent = _header(scope["headers"], b"traceparent")
        span = tracer.request(None if traceparent is None else traceparent.decode("latin-1"), _method(scope))

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.rename(f"{_method(scope)} {_route(scope)}")
                span.say({"http.route": _route(scope), "http.response.status_code": message["status"]})
            await observe(message)

        error: BaseException | None = None
        try:
            with span.within():
                await self._app(scope, receive, tell)
        except BaseException as raised:
            error = raised
            raise
        finally:
            span.end(error)


def _header(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> bytes | None:
    for name, value in headers:
        if name == wanted:
            return value
    return None


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in METHODS else OTHER_METHOD


def _route(scope: Scope) -> str:
    """The template of the route that took the request."""
    route = scope.get("route")
    return NO_ROUTE if route is None else getattr(route, "path_format", NO_ROUTE)
