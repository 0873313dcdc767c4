"""What a source finds, and what is read of it."""

from pydantic import BaseModel

from app.errors import MillstreamError

MAX_ARTICLE_CHARACTERS = 6_000
"""Of one article; five of them are prompt enough for a large model and small change for a session's state."""


class SourceFailed(MillstreamError):
    """A search or a page could not be had; the message says which, why and what to do."""

    code = "source_failed"


class NewsArticle(BaseModel):
    """One thing found."""

    title: str
    url: str
    summary: str | None = None


class SearchResults(BaseModel):
    """All that was found on a topic, best first."""

    articles: list[NewsArticle]


class ScrapedArticle(BaseModel):
    """One thing read; `content` is text or markdown, cut to a bounded length."""

    title: str
    url: str
    summary: str | None = None
    content: str | None = None
