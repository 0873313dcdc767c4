"""A search of the web, where the machine has a network and the operator wants it."""

from importlib import import_module
from typing import Any

from app.workflows.sources.articles import NewsArticle, SourceFailed

TIMEOUT_SECONDS = 15


def search_web(topic: str, *, limit: int = 5) -> list[NewsArticle]:
    """What is found on the topic, best first. Raises SourceFailed."""
    try:
        library: Any = import_module("ddgs")
    except ImportError:
        raise SourceFailed("searching the web needs the extra search: pip install 'millstream[search]'") from None
    try:
        found = library.DDGS(timeout=TIMEOUT_SECONDS).text(topic, max_results=limit)
    except library.exceptions.DDGSException as error:
        if "no results" in str(error).lower():
            return []
        said = " ".join(str(error).split())[:200]
        remedy = "where there is no network, unset MILLSTREAM_SEARCH to search documents"
        raise SourceFailed(f"the web cannot be searched ({said}); {remedy}") from None
    articles = [NewsArticle(title=page["title"], url=page["href"], summary=page.get("body")) for page in found]
    return list({article.url: article for article in articles}.values())[:limit]
