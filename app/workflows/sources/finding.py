"""The two things that a workflow asks of its sources, by the operator's settings: to search, and to read."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from importlib import import_module
from typing import Any

from app.settings import Settings
from app.workflows.sources.articles import NewsArticle, ScrapedArticle, SearchResults, SourceFailed
from app.workflows.sources.documents import SCHEME, DocumentFolder, own_documents

MAX_FOUND = 5


def search(topic: str) -> SearchResults:
    """What there is on the topic: on the web where MILLSTREAM_SEARCH is web, else in documents. Raises SourceFailed."""
    settings = Settings()
    if settings.search == "web":
        found: list[NewsArticle] = import_module("app.workflows.sources.web").search_web(topic, limit=MAX_FOUND)
    else:
        found = _folder(settings).search(topic, limit=MAX_FOUND)
    return SearchResults(articles=found)


async def read(url: str) -> ScrapedArticle:
    """What the document or page says. Raises SourceFailed."""
    settings = Settings()
    if url.startswith(SCHEME):
        return await asyncio.to_thread(_folder(settings).read, url)
    # loaded when the first page is read: most services read none
    pages: Any = await asyncio.to_thread(import_module, "app.workflows.sources.pages")
    article: ScrapedArticle = await pages.read_page(url, allow_private=settings.allow_private_addresses)
    return article


async def read_each(urls: Sequence[str]) -> AsyncGenerator[dict[str, Any], None]:
    """Reads all at once; one piece for each as it is done: its URL and its article, or the error in its place."""
    tasks = {asyncio.create_task(_tried(url)) for url in urls}
    try:
        while tasks:
            done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _tried(url: str) -> dict[str, Any]:
    try:
        article = await read(url)
    except SourceFailed as error:
        return {"url": url, "error": error.message}
    return {"url": url, "article": article.model_dump(mode="json")}


def _folder(settings: Settings) -> DocumentFolder:
    if settings.documents is None:
        return own_documents()
    if not settings.documents.is_dir():
        raise SourceFailed(f"MILLSTREAM_DOCUMENTS is {str(settings.documents)!r}, which is no folder")
    return DocumentFolder(settings.documents)
