"""Who may call which route. A route that says nothing of it, and is not on the list of open ones, cannot be built.

What a route needs is declared at its function:

    @router.get("/runs/{run_id}")
    @needs("runs:read")
    async def get_run(…)
"""

import re
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette import types
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from app.api.service import Service, service_of
from app.errors import ConfigurationError, Forbidden, Unauthenticated
from app.operations.caller import OPEN, Caller
from app.operations.stream_tokens import target
from app.wire.keys import Scope

OPEN_ROUTES = frozenset(
    {"/healthz", "/readyz", "/version", "/", "/docs", "/docs/start.js", "/docs/assets", "/openapi.json"}
)
"""All that answers without a credential, by the paths of routes; of the mounted ones, with what is below them."""

_LOOPBACK = re.compile(rb"https?://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?")

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Need:
    """What a route needs."""

    scope: Scope
    operator: bool = False
    """Whether the caller has to be one of the tenant `default`, since the answer is about all tenants."""
    stream_token: bool = False
    """Whether a stream token in the address will do."""


def needs(scope: Scope, *, operator: bool = False, stream_token: bool = False) -> Callable[[Endpoint], Endpoint]:
    """Declare what a route needs; see Need."""

    def declare(endpoint: Endpoint) -> Endpoint:
        endpoint.__dict__["need"] = Need(scope, operator, stream_token)
        return endpoint

    return declare


def need_of(route: BaseRoute) -> Need | None:
    """What a route has declared."""
    need: Need | None = getattr(getattr(route, "endpoint", None), "need", None)
    return need


class GuardedRoute(APIRoute):
    """A route that knows its caller before it does anything else.

    A request that leaves the framework nothing to read, which most are, goes straight to the function: what the
    framework prepares for others would cost as much as the function itself.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        taken = self.dependant
        elsewhere = (taken.header_params, taken.cookie_params, taken.body_params, taken.dependencies)
        must = any(field.field_info.is_required() for field in taken.query_params)
        self._only_query = taken.request_param_name is not None and not any(elsewhere) and not must

    def get_route_handler(self) -> Handler:
        """The route's own handler, behind the look at the caller."""
        handler = super().get_route_handler()
        if need_of(self) is None:
            refuse_undeclared([self])

        async def guarded(request: Request) -> Response:
            await self._admit(request)
            return await handler(request)

        return guarded

    async def handle(self, scope: types.Scope, receive: types.Receive, send: types.Send) -> None:
        """Answer one request."""
        if not self._only_query or scope["query_string"] or scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        request = Request(scope, receive, send)
        await self._admit(request)
        response: Response = await self.endpoint(request, **scope["path_params"])
        await response(scope, receive, send)

    async def _admit(self, request: Request) -> None:
        need = need_of(self)
        if need is not None:  # an open route has none
            service = service_of(request)
            access = service.access
            if not access.on and any(name == b"authorization" for name, _ in request.scope["headers"]):
                await access.start()  # whoever has a key knows better than this process whether there is one
            caller = await _known(request, need) if access.on else _whoever(request)
            if (rates := service.rates) is not None:
                await rates.admit(caller)
            _require(caller, need)
            request.scope["caller"] = caller


def routes_about(noun: str) -> APIRouter:
    """A router for one noun, whose routes declare what they need."""
    return APIRouter(tags=[noun], redirect_slashes=False, default_response_class=Response, route_class=GuardedRoute)


def refuse_undeclared(routes: Iterable[BaseRoute]) -> None:
    """Raises ConfigurationError for a route that neither declares what it needs nor is an open one."""
    for route in routes:
        path = getattr(route, "path", "")
        guarded = isinstance(route, GuardedRoute) and need_of(route) is not None
        if not guarded and path not in OPEN_ROUTES:
            raise ConfigurationError(f"the route {path!r} does not say what its callers need; see app/api/access.py")


def caller_of(request: Request) -> Caller:
    """Who asks."""
    caller: Caller = request.scope["caller"]
    return caller


async def require_caller(request: Request) -> None:
    """Raises Unauthenticated for somebody unknown: even what is not there, they are not told."""
    service = service_of(request)
    if service.access.on:
        await service.access.caller(_bearer(request))


async def _known(request: Request, need: Need) -> Caller:
    """The caller; raises Unauthenticated."""
    service = service_of(request)
    if need.stream_token and "authorization" not in request.headers and "token" in request.query_params:
        return await _by_stream_token(service, request)
    return await service.access.caller(_bearer(request))


def _whoever(request: Request) -> Caller:
    """The caller of an open service; raises Forbidden for a page that is not of this machine.

    A browser here opens any page, and lets it send what it likes to loopback, also where it shows it no answer.
    """
    for name, value in request.scope["headers"]:
        if name == b"origin" and not _LOOPBACK.fullmatch(value) and value.decode("latin-1") not in _origins(request):
            raise Forbidden(
                f"pages of {value.decode('latin-1')[:100]!r} may not use a service that asks nobody who they are; name"
                " the origin in MILLSTREAM_CORS_ORIGINS, or make a key",
                code="other_origin",
            )
    return OPEN


def _origins(request: Request) -> tuple[str, ...]:
    origins: tuple[str, ...] = request.app.cors_origins
    return origins


def _require(caller: Caller, need: Need) -> None:
    """Raises Forbidden for a caller who lacks what the route needs."""
    if need.scope not in caller.scopes:
        raise Forbidden(f"this needs the scope {need.scope}, which this credential lacks", code="insufficient_scope")
    if need.operator and not caller.operates:
        raise Forbidden("this is about all tenants, and for callers of the tenant 'default' alone", code="other_tenant")


async def _by_stream_token(service: Service, request: Request) -> Caller:
    """The caller of a token that is for what the address names."""
    run_id = request.path_params.get("run_id")
    query = request.query_params
    wanted = target(query.getlist("run_id"), query.getlist("session_id")) if run_id is None else target([run_id], ())
    return await service.stream_tokens.caller(query["token"], wanted)


def _bearer(request: Request) -> str:
    scheme, _, credential = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not credential:
        raise Unauthenticated
    return credential.strip()
