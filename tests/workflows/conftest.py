"""Documents, a web server and a model for the tests of the shipped workflows."""

import gzip
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

BREAD = """# Bread

Bread is baked from flour and water.

## Sourdough

Sourdough rises by wild yeast. A starter is fed each day.

```
# no heading: a baker's comment
```

## Rye

Rye bread keeps for a week.
"""


class Web:
    """A web server of a few pages; counts what is asked of it."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.hosts: set[str] = set()
        self.url = ""

    def app(self) -> Starlette:
        """One route for all."""
        return Starlette(routes=[Route("/{page:path}", self._page)])

    async def _page(self, request: Request) -> Response:
        page = request.path_params["page"]
        self.asked[page] += 1
        self.hosts.add(request.headers["host"])
        html = HTMLResponse(
            f"<html><head><title>On {page}</title></head><body><article><p>{TEXT}</p></article></body></html>"
        )
        answers: dict[str, Response] = {
            "text": PlainTextResponse("# Rye\n\nRye keeps for a week."),
            "moved": RedirectResponse("/bread", 302),
            "round": RedirectResponse("/round", 307),
            "inside": RedirectResponse("http://169.254.169.254/latest/meta-data", 302),
            "file": RedirectResponse("file:///etc/passwd", 302),
            "large": PlainTextResponse("x" * (3 * 1024 * 1024)),
            "bomb": Response(
                gzip.compress(b"x" * (64 * 1024 * 1024)), media_type="text/plain", headers={"Content-Encoding": "gzip"}
            ),
            "packed": Response(
                gzip.compress(b"packed rye"), media_type="text/plain", headers={"Content-Encoding": "gzip"}
            ),
            "odd": Response(b"?", media_type="text/plain", headers={"Content-Encoding": "br"}),
            "image": Response(b"\x89PNG", media_type="image/png"),
            "gone": PlainTextResponse("no", 404),
            "empty": HTMLResponse("<html><body></body></html>"),
        }
        return answers.get(page, html)


TEXT = "Bread is baked from flour, water and salt; it rises by yeast, and the crust is what people come for. " * 5


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of whoever runs the tests; the model that needs none."""
    for name in ("MODEL_BASE_URL", "MODEL_API_KEY", "SEARCH", "DOCUMENTS", "ALLOW_PRIVATE_ADDRESSES"):
        monkeypatch.delenv(f"MILLSTREAM_{name}", raising=False)
    monkeypatch.setenv("MILLSTREAM_MODEL", "test")


@pytest.fixture
def documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one document on bread, which is searched."""
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "bread.md").write_text(BREAD, encoding="utf-8")
    monkeypatch.setenv("MILLSTREAM_DOCUMENTS", str(folder))
    return folder


@pytest.fixture
def web() -> Iterator[Web]:
    """The running web server; fetching from it must be allowed by `allow_private`."""
    web = Web()
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(web.app(), log_config=None, lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    web.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    yield web
    server.should_exit = True
    thread.join(10)
    listener.close()


@pytest.fixture
def allow_private(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's word that private addresses may be fetched from."""
    monkeypatch.setenv("MILLSTREAM_ALLOW_PRIVATE_ADDRESSES", "true")


@pytest.fixture
def anyio_backend() -> str:
    """The service's own."""
    return "asyncio"
