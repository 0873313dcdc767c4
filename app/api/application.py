"""The ASGI application over a service."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.telemetry import TelemetryConfig
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

from app.api import events, health, problems, runs, sessions, states, workflows
from app.api.documents import describe
from app.api.service import Service

NO_TELEMETRY: TelemetryConfig = {"auto_configure": False, "tracing": False, "metrics": False, "logs": False}
"""The framework's own spans would carry queries, and with them tokens of streams; ours are made in observed.py."""
ASSETS = "/docs/assets"


def make_application(open_service: Callable[[], AbstractAsyncContextManager[Service]]) -> FastAPI:
    """The application; the service is opened when it starts and closed when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_service() as service:
            app.state.service = service
            yield

    app = FastAPI(
        title="Millstream",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
    )
    problems.install(app)
    for module in (workflows, runs, events, sessions, states, health):
        app.include_router(module.router)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    _add_documentation(app)
    return app


def _add_documentation(app: FastAPI) -> None:
    """Swagger UI from files that are installed here: it works without a network."""

    async def page() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="Millstream",
            swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS}/swagger-ui.css",
            swagger_favicon_url="data:,",
        )

    async def index() -> RedirectResponse:
        return RedirectResponse("/docs")

    app.add_api_route("/docs", page, include_in_schema=False)
    app.add_api_route("/", index, include_in_schema=False)
    app.mount(ASSETS, StaticFiles(directory=_assets()), name="assets")


def _assets() -> Path:
    package: Any = find_spec("fastapi_offline")
    return Path(package.origin).parent / "static"
