"""Fetching a web page that somebody named, without letting the name lead into the operator's own network."""

import asyncio
import ssl
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import httpx

from app.network import resolving
from app.network.resolving import ForbiddenHost, UnknownHost, is_literal
from app.workflows.sources.articles import MAX_ARTICLE_CHARACTERS, ScrapedArticle, SourceFailed

MAX_PAGE_BYTES = 2 * 1024 * 1024
MAX_REDIRECTS = 5
STEP_SECONDS = 10.0
"""For connecting, and for each piece of the answer."""
WHOLE_SECONDS = 30.0
"""For all of it, redirects included: a server that sends a byte now and then holds nothing for long."""

_TEXT_TYPES = frozenset({"text/html", "application/xhtml+xml", "text/plain", "text/markdown"})
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = {"User-Agent": "millstream", "Accept": "text/html, text/plain;q=0.9, */*;q=0.1", "Accept-Encoding": "gzip"}


@dataclass(frozen=True, slots=True)
class Page:
    """What a server answered; `url` is the last one of the redirects."""

    url: str
    content_type: str
    body: bytes


async def read_page(url: str, *, allow_private: bool) -> ScrapedArticle:
    """The text of the page. Raises SourceFailed."""
    page = await fetch(url, allow_private=allow_private)
    # extracting is pure computation of up to a second
    return await asyncio.to_thread(_extract, url, page)


async def fetch(url: str, *, allow_private: bool) -> Page:
    """The page, redirects followed, each checked anew. Raises SourceFailed."""
    try:
        async with asyncio.timeout(WHOLE_SECONDS):
            for _ in range(MAX_REDIRECTS + 1):
                answer = await _fetch_once(_checked(url), allow_private=allow_private)
                if isinstance(answer, Page):
                    return answer
                url = answer
    except TimeoutError:
        raise SourceFailed(f"{url} was not read within {WHOLE_SECONDS:g} seconds") from None
    except httpx.HTTPError as error:
        raise SourceFailed(f"{url} cannot be fetched: {error or type(error).__name__}") from None
    raise SourceFailed(f"{url} redirects more than {MAX_REDIRECTS} times")


def _checked(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise SourceFailed(f"{url!r} is no URL: {error}") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise SourceFailed(f"{url!r} is no http or https URL")
    return parsed


async def _fetch_once(url: httpx.URL, *, allow_private: bool) -> Page | str:
    """The page, or the URL to go on with."""
    host = url.raw_host.decode("ascii")
    addresses = await resolve(host, url.port or _PORTS[url.scheme], allow_private=allow_private)
    # no proxy from the environment: it would resolve the name itself, and reach what this process may not
    async with httpx.AsyncClient(timeout=STEP_SECONDS, verify=await _certificates(), trust_env=False) as client:
        response = await _connected(client, url, host, addresses)
        try:
            return await _answer(url, response)
        finally:
            await response.aclose()


async def _connected(client: httpx.AsyncClient, url: httpx.URL, host: str, addresses: list[str]) -> httpx.Response:
    """The answer of the first address that can be connected to.

    What is connected to is the address that was checked, not the name, which may mean another one the next time.
    """
    headers = _HEADERS | {"Host": url.netloc.decode("ascii").rpartition("@")[2]}
    extensions = {} if is_literal(host) else {"sni_hostname": host}
    for address in addresses:
        there = url.copy_with(host=address, username=None, password=None, fragment=None)
        request = client.build_request("GET", there, headers=headers, extensions=extensions)
        try:
            return await client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            if address == addresses[-1]:
                raise
    raise SourceFailed(f"the host {host!r} has no address")


async def _certificates() -> ssl.SSLContext:
    """Read beside the event loop: they take 20 ms."""
    return await asyncio.to_thread(ssl.create_default_context)


async def resolve(host: str, port: int, *, allow_private: bool) -> list[str]:
    """The addresses to connect to. Raises SourceFailed when one of the host's may not be reached."""
    try:
        return await resolving.resolve(host, port, allow_private=allow_private)
    except UnknownHost as error:
        raise SourceFailed(str(error)) from None
    except ForbiddenHost as error:
        raise SourceFailed(f"{error}; MILLSTREAM_ALLOW_PRIVATE_ADDRESSES=true allows it") from None


async def _answer(url: httpx.URL, response: httpx.Response) -> Page | str:
    if response.status_code in _REDIRECTS and "location" in response.headers:
        try:
            return str(url.join(response.headers["location"]))
        except httpx.InvalidURL as error:
            raise SourceFailed(f"{url} redirects to no URL: {error}") from None
    if response.status_code != httpx.codes.OK:
        raise SourceFailed(f"{url} answered {response.status_code}")
    content_type = response.headers.get("content-type", "text/html").partition(";")[0].strip().lower()
    if content_type not in _TEXT_TYPES:
        raise SourceFailed(f"{url} is {content_type}, not text")
    return Page(str(url), content_type, await _bounded(url, response))


async def _bounded(url: httpx.URL, response: httpx.Response) -> bytes:
    """The body, decompressed by hand: a small answer can unpack to any size."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip"}:
        raise SourceFailed(f"{url} is compressed as {encoding}, which was not asked for")
    body = bytearray()
    async for piece in _unpacked(response.aiter_raw(), gzipped=encoding == "gzip"):
        body += piece
        if len(body) > MAX_PAGE_BYTES:
            raise SourceFailed(f"{url} is longer than {MAX_PAGE_BYTES} bytes")
    return bytes(body)


async def _unpacked(pieces: AsyncIterator[bytes], *, gzipped: bool) -> AsyncIterator[bytes]:
    unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    async for piece in pieces:
        if gzipped:
            try:
                yield unpack.decompress(piece, MAX_PAGE_BYTES + 1)
            except zlib.error as error:
                raise SourceFailed(f"the answer is no gzip: {error}") from None
        else:
            yield piece


def _extract(url: str, page: Page) -> ScrapedArticle:
    if page.content_type in {"text/plain", "text/markdown"}:
        text = page.body.decode("utf-8", errors="replace").strip()
        title = text.partition("\n")[0].strip("# ")[:200] or url
    else:
        title, text = _main_text(url, page.body)
    if not text:
        raise SourceFailed(f"{url} has no text to read")
    return ScrapedArticle(title=title, url=url, content=text[:MAX_ARTICLE_CHARACTERS])


def _main_text(url: str, body: bytes) -> tuple[str, str]:
    try:
        trafilatura: Any = import_module("trafilatura")
    except ImportError:
        raise SourceFailed("reading web pages needs the extra search: pip install 'millstream[search]'") from None
    found = trafilatura.bare_extraction(body, url=url, include_comments=False, with_metadata=True)
    return (found.title or url, (found.text or "").strip()) if found is not None else (url, "")
