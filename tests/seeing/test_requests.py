"""The id of a request: taken or made, in the answer, in problems, in the log."""

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app import Workflow
from app.logs import configure_logs
from app.operations.health import Health
from tests.support.problems import problem_of
from tests.support.server import running

MADE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


class Broken(Workflow):
    """Logs, and breaks."""

    def run(self, word: str = "") -> None:
        logging.getLogger("authors.own").warning("about_to_break", extra={"word": word, "rows": 3})
        raise ValueError("kaput")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logs("debug", stream, form="json")
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def lines(log: io.StringIO, message: str) -> list[dict[str, Any]]:
    """The lines of an event; every line has to be an object."""
    found = [json.loads(line) for line in log.getvalue().splitlines()]
    assert all(list(line)[:4] == ["time", "level", "logger", "message"] for line in found)
    return [line for line in found if line["message"] == message]


async def test_an_answer_has_the_id_that_its_request_brought(sqlite_url: str) -> None:
    async with running(sqlite_url, Broken) as client:
        for given in ("a", "01a2-Bc.9_", "Root=1-67891233-abcdef0123", "x" * 128):
            answer = await client.get("/healthz", headers={"X-Request-Id": given})
            assert answer.headers.get_list("x-request-id") == [given]


@pytest.mark.parametrize("given", [None, "", "x" * 129, "two words", "a\tb", 'a"b', "<script>", b"\xff\xfe"])
async def test_another_is_made_where_it_brought_none_that_is_sane(sqlite_url: str, given: Any) -> None:
    async with running(sqlite_url, Broken) as client:
        answer = await client.get("/runs/none", headers={} if given is None else {"X-Request-Id": given})
        assert MADE.fullmatch(answer.headers["x-request-id"])
        assert problem_of(answer, 404)["request_id"] == answer.headers["x-request-id"]


async def test_every_kind_of_answer_has_one(sqlite_url: str) -> None:
    async with running(sqlite_url, Broken) as client:
        run = await client.finish("broken")
        answers: list[httpx.Response] = [
            await client.get("/nothing"),
            await client.delete("/workflows"),
            await client.get("/runs", params={"limit": "many"}),
            await client.get(f"/runs/{run['run_id']}/events"),
            await client.get("/docs"),
            await client.get("/openapi.json"),
        ]
        assert all(MADE.fullmatch(answer.headers["x-request-id"]) for answer in answers)
        assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


async def test_what_nobody_foresaw_has_one_too(
    sqlite_url: str, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Health, "version", None)  # a bug
    async with running(sqlite_url, Broken) as client:
        answer = await client.get("/version", headers={"X-Request-Id": "seen-7"})
        problem = problem_of(answer, 500, "internal_error")
        assert (problem["request_id"], answer.headers["x-request-id"]) == ("seen-7", "seen-7")
    (line,) = lines(log, "request_failed")
    assert line["request_id"] == "seen-7"
    assert "TypeError" in line["exception"]


async def test_lines_of_a_run_say_which_it_is(database_url: str, log: io.StringIO) -> None:
    async with running(database_url, Broken) as client:
        run = await client.finish("broken", {"session_id": "s"}, word="not a field of ours")
    ids = {"run_id": run["run_id"], "session_id": "s", "workflow": "broken", "attempt": 1}
    (own,) = lines(log, "about_to_break")
    (failed,) = lines(log, "run_failed")
    assert own.items() >= (ids | {"rows": 3, "logger": "authors.own"}).items()
    assert "word" not in own
    assert failed.items() >= ids.items()
    assert "ValueError: kaput" in failed["exception"]


async def test_the_access_log_has_the_route_and_never_the_query(sqlite_url: str, log: io.StringIO) -> None:
    async with running(sqlite_url, Broken, access_log=True) as client:
        run = await client.finish("broken")
        log.truncate(0)
        log.seek(0)
        headers = {"X-Request-Id": "seen-8"}
        await client.get(f"/runs/{run['run_id']}/events", params={"token": "hidden-1"}, headers=headers)
        await client.get("/nothing/hidden-2")
    first, second = lines(log, "request")
    assert first["milliseconds"] > 0
    assert (
        first.items()
        >= {
            "method": "GET",
            "route": "/runs/{run_id}/events",
            "status": 200,
            "request_id": "seen-8",
        }.items()
    )
    assert (second["route"], second["status"]) == ("(none)", 404)
    assert "hidden" not in log.getvalue()


async def test_without_it_a_request_is_no_line(sqlite_url: str, log: io.StringIO) -> None:
    async with running(sqlite_url, Broken) as client:
        await client.get("/healthz")
    assert lines(log, "request") == []
