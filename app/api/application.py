"""The ASGI application over a service."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from app.api import (
    deliveries,
    events,
    health,
    keys,
    problems,
    runs,
    schedules,
    sessions,
    states,
    users,
    webhooks,
    workflows,
)
from app.api.access import refuse_undeclared
from app.api.browsers import DOCS_POLICY, SecurityHeaders, across_origins
from app.api.documents import describe
from app.api.service import Service

NO_TELEMETRY: TelemetryConfig = {"auto_configure": False, "tracing": False, "metrics": False, "logs": False}
"""The framework's own spans would carry queries, and with them tokens of streams; ours are made in observed.py."""

DOCS = "/docs"
ASSETS = "/docs/assets"
PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Millstream</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{ASSETS}/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="{ASSETS}/swagger-ui-bundle.js"></script>
<script src="{DOCS}/start.js"></script>
</body>
</html>
"""
START = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
});
"""


MODULES = (runs, states, sessions, events, workflows, schedules, webhooks, deliveries, keys, users, health)
"""In the order in which a request looks for its route: first those that are asked most."""


class Application(FastAPI):
    """FastAPI, with what browsers are told around everything, errors included."""

    cors_origins: tuple[str, ...] = ()

    def build_middleware_stack(self) -> ASGIApp:
        """Called once, with the first request."""
        inner = super().build_middleware_stack()
        return SecurityHeaders(across_origins(inner, self.cors_origins) if self.cors_origins else inner)


def make_application(
    open_service: Callable[[], AbstractAsyncContextManager[Service]],
    *,
    docs: bool = True,
    cors_origins: tuple[str, ...] = (),
) -> FastAPI:
    """The application; the service is opened when it starts and closed when it ends.

    `docs` is whether it serves its own document; pages of `cors_origins` may use it from a browser.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_service() as service:
            app.state.service = service
            yield

    app = Application(
        title="Millstream",
        openapi_url="/openapi.json" if docs else None,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
    )
    app.cors_origins = cors_origins
    problems.install(app)
    if docs:
        _add_documentation(app)
    refuse_undeclared(app.routes)
    for module in MODULES:
        refuse_undeclared(module.router.routes)
        app.router.routes.extend(module.router.routes)  # included, they would be looked for twice
    app.openapi = lambda: describe(app, [route for module in MODULES for route in module.router.routes])  # type: ignore[method-assign]
    return app


def _add_documentation(app: FastAPI) -> None:
    """Swagger UI from files that are installed here: it works without a network, and without scripts in the page."""

    async def page() -> HTMLResponse:
        return HTMLResponse(PAGE, headers={"Content-Security-Policy": DOCS_POLICY})

    async def start() -> Response:
        return Response(START, media_type="text/javascript")

    async def index() -> RedirectResponse:
        return RedirectResponse("/docs")

    app.add_api_route("/docs", page, include_in_schema=False)
    app.add_api_route(f"{DOCS}/start.js", start, include_in_schema=False)
    app.add_api_route("/", index, include_in_schema=False)
    app.mount(ASSETS, StaticFiles(directory=_assets()), name="assets")


def _assets() -> Path:
    package: Any = find_spec("fastapi_offline")
    return Path(package.origin).parent / "static"
