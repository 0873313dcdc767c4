"""The search of the web, with a stand-in for the library that needs a network."""

from types import SimpleNamespace
from typing import Any

import pytest

from app.workflows.sources.articles import SourceFailed
from app.workflows.sources.finding import search
from app.workflows.sources.web import search_web


class LibraryError(Exception):
    """What the library raises."""


def _library(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    class Search:
        def __init__(self, **_: Any) -> None:
            pass

        def text(self, topic: str, **_: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return [page | {"title": f"{page['title']} on {topic}"} for page in answer]

    library = SimpleNamespace(DDGS=Search, exceptions=SimpleNamespace(DDGSException=LibraryError))
    monkeypatch.setattr("app.workflows.sources.web.import_module", lambda _: library)


def test_what_is_found_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    page = {"title": "A", "href": "https://a.example/", "body": "about"}
    _library(monkeypatch, [page, page])
    monkeypatch.setenv("MILLSTREAM_SEARCH", "web")
    assert [article.model_dump() for article in search("bread").articles] == [
        {"title": "A on bread", "url": "https://a.example/", "summary": "about"}
    ]


def test_no_results_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    _library(monkeypatch, LibraryError("No results found."))
    assert search_web("bread") == []


def test_a_failure_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    _library(monkeypatch, LibraryError("DNS"))
    with pytest.raises(SourceFailed, match=r"\(DNS\).*MILLSTREAM_SEARCH"):
        search_web("bread")


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("app.workflows.sources.web.import_module", missing)
    with pytest.raises(SourceFailed, match=r"millstream\[search\]"):
        search_web("bread")
