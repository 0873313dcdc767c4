"""The seed's blog post generator: search, scrape, write; what one run has found, the next ones use again."""

from collections.abc import Generator, Iterator, Sequence
from functools import partial
from typing import Any

from pydantic import ValidationError

from app import Agent, RunEvent, RunResponse, Workflow
from app.errors import Invalid
from app.workflow.runtime import StreamCall
from app.workflows.sources.articles import NewsArticle, ScrapedArticle, SearchResults
from app.workflows.sources.finding import read_each, search

MAX_URLS = 10
MAX_TOPICS = 20
"""Topics whose findings are kept; with them a session's state stays well below its limit. Posts are kept for ever."""
SEARCH_RETRIES = 2
NOTES_CHARACTERS = 400
"""What a small model gets of the articles: it follows short prompts only."""


class BlogPostGenerator(Workflow):
    """Write a blog post on a topic, from what a search finds or from the pages of given URLs.

    The session keeps the posts, and the findings of the latest topics. A post written before is the answer, in one
    WorkflowCompleted event; `use_cache=false` or `use_cached_report=false` writes it anew from the findings,
    `use_search_cache=false` and `use_scrape_cache=false` make those anew as well.
    """

    writer = Agent(
        instructions="Write an engaging blog post in markdown: a title and short paragraphs. Keep to the given facts.",
    )

    def run(
        self,
        topic: str,
        *,
        use_search_cache: bool = True,
        use_scrape_cache: bool = True,
        use_cached_report: bool = True,
        use_cache: bool = True,
        urls: list[str] | None = None,
    ) -> Iterator[RunResponse]:
        """`urls`, at most ten, are read in place of a search."""
        post = written_post(self.session_state, topic) if use_cache and use_cached_report else None
        if post is not None:
            yield RunResponse(run_id=self.run_id, event=RunEvent.workflow_completed, content=post)
            return
        small = self.writer.small  # also the earliest moment to fail, should there be no model
        found = yield from self._search(topic, urls=urls, use_cache=use_search_cache)
        articles = yield from self._scrape(topic, found, use_cache=use_scrape_cache)
        if not articles:
            yield RunResponse(event=RunEvent.workflow_completed, content=_nothing(topic, found))
            return
        yield from self._write(topic, _prompt(topic, articles, small=small))

    def _search(
        self, topic: str, *, urls: list[str] | None, use_cache: bool
    ) -> Generator[RunResponse, None, list[NewsArticle]]:
        if urls:
            found = _named(urls)
        else:
            found = self._found_before(topic) if use_cache else []
            if not found:
                yield RunResponse(event="Searching", content={"topic": topic})
                found = self.step(search, topic, retries=SEARCH_RETRIES).articles
            if found:
                self._keep("search_results", topic, SearchResults(articles=found).model_dump(mode="json"))
        yield RunResponse(event="Found", content={"topic": topic, "total": len(found)})
        return found

    def _scrape(
        self, topic: str, found: Sequence[NewsArticle], *, use_cache: bool
    ) -> Generator[RunResponse, None, list[ScrapedArticle]]:
        """The articles that can be read, in the order of the search; those that cannot be are skipped."""
        known = self._read_before(topic) if use_cache else {}
        missing = [article.url for article in found if article.url not in known]
        if missing:
            done = len(found) - len(missing)
            yield RunResponse(event="Reading", content={"done": done, "total": len(found)})
            # one step that says each article as soon as it is read, as an agent says its text
            for piece in self.runtime.stream(StreamCall(start=partial(read_each, missing), name="scrape")):
                done += 1
                if "article" in piece:
                    known[piece["url"]] = ScrapedArticle.model_validate(piece["article"])
                facts = {name: piece[name] for name in ("url", "error") if name in piece}
                yield RunResponse(event="Reading", content={"done": done, "total": len(found), **facts})
            if known:
                articles = {url: article.model_dump(mode="json") for url, article in known.items()}
                self._keep("scraped_articles", topic, articles)
        return [_summarised(known[article.url], article) for article in found if article.url in known]

    def _write(self, topic: str, prompt: Any) -> Iterator[RunResponse]:
        yield RunResponse(event="Writing", content={"topic": topic})
        yield from self.writer.run(prompt, stream=True)
        post = {"topic": topic, "blog_post": self.writer.run_response.content if self.writer.run_response else ""}
        self.session_state["blog_posts"] = [*_posts(self.session_state), post]

    def _found_before(self, topic: str) -> list[NewsArticle]:
        try:
            return SearchResults.model_validate(self._table("search_results").get(topic)).articles
        except ValidationError:  # none, or somebody has edited them
            return []

    def _read_before(self, topic: str) -> dict[str, ScrapedArticle]:
        stored = self._table("scraped_articles").get(topic)
        known: dict[str, ScrapedArticle] = {}
        for url, article in stored.items() if isinstance(stored, dict) else ():
            try:
                known[url] = ScrapedArticle.model_validate(article)
            except ValidationError:
                continue
        return known

    def _keep(self, table: str, topic: str, value: dict[str, Any]) -> None:
        """Made durable at once: a search and a page may have been paid for."""
        kept = self._table(table)
        kept.pop(topic, None)
        self.session_state[table] = dict([*kept.items(), (topic, value)][-MAX_TOPICS:])
        self.write_to_storage()

    def _table(self, name: str) -> dict[str, Any]:
        table = self.session_state.get(name)
        return dict(table) if isinstance(table, dict) else {}


def written_post(state: dict[str, Any], topic: str) -> str | None:
    """The latest post on the topic."""
    for post in reversed(_posts(state)):
        if isinstance(post, dict) and post.get("topic") == topic and isinstance(post.get("blog_post"), str):
            return str(post["blog_post"])
    return None


def _posts(state: dict[str, Any]) -> list[Any]:
    """The posts of either shape that such workflows have kept: a list of {topic, blog_post}, or topic to text."""
    stored = state.get("blog_posts")
    if isinstance(stored, dict):
        return [{"topic": topic, "blog_post": text} for topic, text in stored.items()]
    return stored if isinstance(stored, list) else []


def _named(urls: list[str]) -> list[NewsArticle]:
    distinct = list(dict.fromkeys(urls))
    if len(distinct) > MAX_URLS:
        raise Invalid(f"{len(distinct)} URLs are given; at most {MAX_URLS} are read")
    return [NewsArticle(title=url, url=url) for url in distinct]


def _summarised(article: ScrapedArticle, found: NewsArticle) -> ScrapedArticle:
    return article if article.summary else article.model_copy(update={"summary": found.summary})


def _prompt(topic: str, articles: Sequence[ScrapedArticle], *, small: bool) -> Any:
    if not small:
        return {"topic": topic, "articles": articles}
    notes = " ".join(article.summary or article.content or "" for article in articles[:2])
    return f"Write a short blog post about {topic}.\n\nNotes: {notes[:NOTES_CHARACTERS]}"


def _nothing(topic: str, found: Sequence[NewsArticle]) -> str:
    if found:
        return f"Sorry, none of the {len(found)} articles on {topic!r} could be read. Try again, or give other URLs."
    return f"Sorry, I could not find anything on {topic!r}. Try another topic, or give the URLs of some pages on it."
