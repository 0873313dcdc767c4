"""The shipped blog post generator, run as a plain script runs it."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from app import RunResponse
from app.agents.models import local_model_file
from app.errors import Invalid
from app.workflow.registry import WorkflowDefinition
from app.workflows.blog_post_generator import MAX_TOPICS, BlogPostGenerator
from app.workflows.sources.articles import NewsArticle, SearchResults, SourceFailed
from app.workflows.sources.finding import search

from .conftest import Web

TOPIC = "sourdough yeast"


def _run(state: dict[str, Any], **arguments: Any) -> list[RunResponse]:
    return list(BlogPostGenerator(session_state=state).run(**({"topic": TOPIC} | arguments)))


def _text(responses: list[RunResponse]) -> str:
    return "".join(response.content for response in responses if response.event == "RunResponse")


def _names(responses: list[RunResponse]) -> list[str]:
    return list(dict.fromkeys(response.event for response in responses))


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch, documents: Path) -> Counter[str]:
    """How often each topic is searched for."""
    counted: Counter[str] = Counter()

    def counting(topic: str) -> SearchResults:
        counted[topic] += 1
        return search(topic)

    monkeypatch.setattr("app.workflows.blog_post_generator.search", counting)
    return counted


@pytest.mark.usefixtures("documents")
def test_search_scrape_write_with_progress() -> None:
    state: dict[str, Any] = {}
    responses = _run(state)
    assert _names(responses) == ["Searching", "Found", "Reading", "Writing", "RunResponse"]
    assert [response.content for response in responses if response.event == "Reading"] == [
        {"done": 0, "total": 1},
        {"done": 1, "total": 1, "url": "documents:bread.md#3"},
    ]
    assert state["blog_posts"] == [{"topic": TOPIC, "blog_post": _text(responses)}]
    assert '"title":"Bread: Sourdough"' in _text(responses)
    assert state["search_results"][TOPIC]["articles"][0]["url"] == "documents:bread.md#3"
    assert state["scraped_articles"][TOPIC]["documents:bread.md#3"]["title"] == "Bread: Sourdough"


@pytest.mark.usefixtures("documents")
def test_a_post_written_before_is_one_event() -> None:
    state: dict[str, Any] = {}
    first = _text(_run(state))
    again = _run(state)
    assert [(response.event, response.content) for response in again] == [("WorkflowCompleted", first)]
    assert len(state["blog_posts"]) == 1


def test_either_shape_of_stored_posts_is_read_and_the_seeds_is_written(searches: Counter[str]) -> None:
    state: dict[str, Any] = {"blog_posts": {TOPIC: "an old post", "rye": "another"}}
    assert [response.content for response in _run(state)] == ["an old post"]
    new = _text(_run(state, use_cached_report=False))
    assert state["blog_posts"] == [
        {"topic": TOPIC, "blog_post": "an old post"},
        {"topic": "rye", "blog_post": "another"},
        {"topic": TOPIC, "blog_post": new},
    ]
    assert [response.content for response in _run(state)] == [new]


def test_what_was_found_is_used_again_unless_told_otherwise(searches: Counter[str]) -> None:
    state: dict[str, Any] = {}
    _run(state)
    written_anew = _run(state, use_cache=False)
    assert _names(written_anew) == ["Found", "Writing", "RunResponse"]
    assert searches[TOPIC] == 1
    all_anew = _run(state, use_cache=False, use_search_cache=False, use_scrape_cache=False)
    assert _names(all_anew) == ["Searching", "Found", "Reading", "Writing", "RunResponse"]
    assert searches[TOPIC] == 2
    assert len(state["blog_posts"]) == 3


@pytest.mark.parametrize("damaged", [None, "text", [], {TOPIC: None}, {TOPIC: {"articles": "none"}}, {TOPIC: {"u": 1}}])
def test_state_that_somebody_has_damaged_is_made_anew(searches: Counter[str], damaged: Any) -> None:
    state = {"search_results": damaged, "scraped_articles": damaged, "blog_posts": damaged}
    assert _text(_run(state))
    assert state["blog_posts"][-1]["topic"] == TOPIC


@pytest.mark.usefixtures("documents")
def test_nothing_found_is_a_friendly_end_that_keeps_nothing() -> None:
    state: dict[str, Any] = {}
    responses = _run(state, topic="xyzzy")
    assert responses[-1].event == "WorkflowCompleted"
    assert "'xyzzy'" in responses[-1].content
    assert state == {}


def test_a_search_that_fails_is_tried_three_times(monkeypatch: pytest.MonkeyPatch, documents: Path) -> None:
    tries = 0

    def failing(_: str) -> SearchResults:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise SourceFailed("the network is down")
        return SearchResults(articles=[NewsArticle(title="Rye", url="documents:bread.md#4")])

    monkeypatch.setattr("app.workflows.blog_post_generator.search", failing)
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert _text(_run({}))
    tries = -9
    with pytest.raises(SourceFailed, match="network"):
        _run({})


@pytest.mark.usefixtures("allow_private")
def test_given_urls_are_read_in_place_of_a_search(searches: Counter[str], web: Web) -> None:
    state: dict[str, Any] = {}
    urls = [f"{web.url}/bread", f"{web.url}/gone", f"{web.url}/text", f"{web.url}/bread"]
    responses = _run(state, urls=urls)
    reading = [response.content for response in responses if response.event == "Reading"]
    assert [event["done"] for event in reading] == [0, 1, 2, 3]
    assert [event["error"] for event in reading if "error" in event] == [f"{web.url}/gone answered 404"]
    assert list(state["scraped_articles"][TOPIC]) != []
    assert state["scraped_articles"][TOPIC].keys() == {urls[0], urls[2]}
    assert searches == {}
    _run(state, urls=urls, use_cache=False)
    assert (web.asked["bread"], web.asked["gone"]) == (1, 2)


def test_pages_inside_are_skipped_by_default(web: Web) -> None:
    state: dict[str, Any] = {}
    responses = _run(state, urls=[f"{web.url}/bread"])
    assert responses[-1].event == "WorkflowCompleted"
    assert "could be read" in responses[-1].content
    assert (state, web.asked) == ({}, {})


def test_too_many_urls_are_refused() -> None:
    with pytest.raises(Invalid, match="at most 10"):
        _run({}, urls=[f"http://1.1.1.1/{number}" for number in range(11)])


def test_the_folder_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLSTREAM_DOCUMENTS", "/no/such/folder")
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(SourceFailed, match="/no/such/folder"):
        _run({})


@pytest.mark.usefixtures("documents")
def test_paid_work_is_saved_before_the_post_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[set[str]] = []
    monkeypatch.setattr(BlogPostGenerator, "write_to_storage", lambda self: saved.append(set(self.session_state)))
    _run({})
    assert saved == [{"search_results"}, {"search_results", "scraped_articles"}]


@pytest.mark.usefixtures("documents")
def test_findings_of_the_latest_topics_are_kept() -> None:
    state: dict[str, Any] = {}
    topics = [f"{TOPIC} {number}" for number in range(MAX_TOPICS + 3)]
    for topic in topics:
        _run(state, topic=topic)
    assert list(state["search_results"]) == list(state["scraped_articles"]) == topics[3:]
    assert len(state["blog_posts"]) == len(topics)


def test_it_is_a_workflow_of_the_service() -> None:
    definition = WorkflowDefinition(BlogPostGenerator)
    assert (definition.name, definition.asynchronous) == ("blog-post-generator", False)
    assert [parameter.name for parameter in definition.input.parameters if parameter.required] == ["topic"]
    assert definition.input.validate({"topic": "x", "use_cache": False, "urls": ["http://x/"]})["urls"] == ["http://x/"]


@pytest.mark.local_model
@pytest.mark.skipif(local_model_file() is None, reason="the extra local-llm is not installed")
@pytest.mark.usefixtures("documents")
def test_the_local_model_writes_a_post(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MILLSTREAM_MODEL")
    state: dict[str, Any] = {}
    responses = _run(state)
    chunks = [response for response in responses if response.event == "RunResponse"]
    assert len(chunks) > 1
    assert state["blog_posts"] == [{"topic": TOPIC, "blog_post": _text(responses)}]
