"""Fetching and reading pages from a real web server."""

import socket
from typing import Any

import pytest

from app.workflows.sources.articles import MAX_ARTICLE_CHARACTERS, SourceFailed
from app.workflows.sources.pages import fetch, read_page

from .conftest import Web

pytestmark = pytest.mark.anyio


async def test_the_text_of_a_page(web: Web) -> None:
    article = await read_page(f"{web.url}/bread", allow_private=True)
    assert article.title == "On bread"
    assert article.content is not None
    assert article.content.startswith("Bread is baked from flour")
    assert len(article.content) <= MAX_ARTICLE_CHARACTERS


async def test_plain_and_packed_text(web: Web) -> None:
    plain = await read_page(f"{web.url}/text", allow_private=True)
    assert (plain.title, plain.content) == ("Rye", "# Rye\n\nRye keeps for a week.")
    assert (await read_page(f"{web.url}/packed", allow_private=True)).content == "packed rye"


async def test_a_redirect_is_followed(web: Web) -> None:
    page = await fetch(f"{web.url}/moved", allow_private=True)
    assert page.url == f"{web.url}/bread"


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ("round", "redirects more than 5 times"),
        ("file", "no http or https URL"),
        ("large", "longer than"),
        ("bomb", "longer than"),
        ("odd", "compressed as br"),
        ("image", "image/png"),
        ("gone", "answered 404"),
        ("empty", "no text"),
    ],
)
async def test_a_page_that_cannot_be_read(web: Web, page: str, says: str) -> None:
    with pytest.raises(SourceFailed, match=says):
        await read_page(f"{web.url}/{page}", allow_private=True)


async def test_a_redirect_inside_is_refused(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    # only the first host is allowed, so that what is refused is the redirect
    monkeypatch.setattr("app.network.resolving.is_public", lambda address: address == "127.0.0.1")
    with pytest.raises(SourceFailed, match=r"169\.254\.169\.254.*not on the public internet"):
        await fetch(f"{web.url}/inside", allow_private=False)


async def test_nobody_there() -> None:
    with pytest.raises(SourceFailed, match="cannot be fetched"):
        await fetch("http://127.0.0.1:9/", allow_private=True)
    with pytest.raises(SourceFailed, match="cannot be found"):
        await fetch("http://no-such-host.invalid/", allow_private=True)


async def test_the_checked_address_is_connected_to_under_the_hosts_name(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def found(host: Any, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    port = web.url.rpartition(":")[2]
    await fetch(f"http://bakery.example:{port}/bread", allow_private=True)
    assert asked == ["bakery.example"]
    assert web.hosts == {f"bakery.example:{port}"}


async def test_without_the_extra_the_error_says_how_to_get_it(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("app.workflows.sources.pages.import_module", missing)
    with pytest.raises(SourceFailed, match=r"millstream\[search\]"):
        await read_page(f"{web.url}/bread", allow_private=True)
