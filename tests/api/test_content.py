"""The content of a run, gathered from what its author said."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from app import RunEvent, RunResponse, Workflow
from tests.support.server import running


def say(content: Any = None, event: str | None = None) -> RunResponse:
    return RunResponse(content=content) if event is None else RunResponse(content=content, event=event)


class Sayer(Workflow):
    """Says what it is told: `[content, event]` pairs; returns what it is told, when nothing is to be said."""

    def run(self, words: list[Any]) -> Iterator[RunResponse]:
        for content, event in words:
            yield say(content, event)


class Returner(Workflow):
    def run(self, value: Any = None) -> Any:
        return value


class AsyncReturner(Workflow):
    async def run(self, value: Any = None) -> Any:
        return value


class ResponseReturner(Workflow):
    async def run(self) -> RunResponse:
        return RunResponse(content={"a": 1}, event=RunEvent.workflow_completed)


DONE = "WorkflowCompleted"


async def test_the_content_is_what_the_author_concluded(database_url: str) -> None:
    table: list[tuple[list[list[Any]], Any]] = [
        ([["a", None], ["b", None]], "ab"),
        ([["a", None], ["done", DONE], ["b", None]], "done"),
        ([["first", DONE], ["last", DONE]], "last"),
        ([[{"a": [1]}, DONE], ["b", None]], {"a": [1]}),
        ([["a", None], [{"b": 1}, None], ["c", None]], "ac"),
        ([["a", None], ["other", "MyEvent"]], "a"),
        ([["one", "MyEvent"], [{"b": 1}, "MyEvent"]], {"b": 1}),
        ([[{"b": 1}, None], [None, None]], {"b": 1}),
        ([[1, "MyEvent"], [False, "MyEvent"]], False),
        ([["", None]], ""),
        ([[None, None]], None),
        ([], None),
        ([["\u2028\x00\u00fc", None]], "\u2028\ufffd\u00fc"),
    ]
    async with running(database_url, Sayer) as client:
        for words, content in table:
            run = await client.finish("sayer", words=words)
            assert (run["status"], run["content"]) == ("completed", content), words
            assert run["content_truncated"] is False
            finished = (await client.events(run["run_id"]))[-1].data
            assert finished.get("content") == content
            assert "content_truncated" not in finished


async def test_what_run_returns_is_the_content(database_url: str) -> None:
    async with running(database_url, Returner, AsyncReturner, ResponseReturner) as client:
        for name in ("returner", "async-returner"):
            for value in ["text", 7, 0, False, [], {"a": None}, None]:
                assert (await client.finish(name, value=value))["content"] == value
        assert (await client.finish("response-returner"))["content"] == {"a": 1}


async def test_a_long_content_is_cut_at_a_character(database_url: str) -> None:
    async with running(database_url, Sayer, max_content_bytes=100) as client:
        for text in ("a" * 101, "\u00fc" * 80, "a" + "\U0001f600" * 40):
            run = await client.finish("sayer", words=[[text[:30], None], [text[30:], None]])
            assert run["content_truncated"] is True
            assert text.startswith(run["content"])
            assert 96 <= len(run["content"].encode()) <= 100
            events = await client.events(run["run_id"])
            assert "".join(event.data["content"] for event in events if event.event == "RunResponse") == text
            assert events[-1].data["content_truncated"] is True
            assert events[-1].data["content"] == run["content"]


async def test_a_content_of_just_the_limit_is_whole(sqlite_url: str) -> None:
    async with running(sqlite_url, Sayer, max_content_bytes=100) as client:
        for text in ("a" * 100, '"' * 100, "\u00fc" * 50):
            run = await client.finish("sayer", words=[[text, None]])
            assert (run["content"], run["content_truncated"]) == (text, False)


async def test_a_long_object_is_cut_as_text(sqlite_url: str) -> None:
    async with running(sqlite_url, Sayer, max_content_bytes=100) as client:
        value = {"words": ["word"] * 40}
        run = await client.finish("sayer", words=[[value, DONE]])
        assert run["content_truncated"] is True
        assert json.dumps(value, separators=(",", ":")).startswith(run["content"])


async def test_the_default_limit_is_256_kib(sqlite_url: str) -> None:
    class Long(Workflow):
        async def run(self, length: int) -> AsyncIterator[RunResponse]:
            yield RunResponse(content="a" * length)

    async with running(sqlite_url, Long) as client:
        assert (await client.finish("long", length=256 * 1024))["content_truncated"] is False
        run = await client.finish("long", length=256 * 1024 + 1)
        assert (run["content_truncated"], len(run["content"])) == (True, 256 * 1024)
