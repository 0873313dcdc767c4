"""The names that authors may give to their events, and what the server adds."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from app import RunEvent, RunResponse, Workflow
from tests.support.server import running


class Namer(Workflow):
    def run(self, name: Any) -> Iterator[RunResponse]:
        yield RunResponse(content="x", event=name)


class Misnamer(Workflow):
    def run(self, number: int) -> Iterator[RunResponse]:
        yield RunResponse(content="x", event=REFUSED[number])


RESERVED = [
    *("RunQueued", "WorkflowStarted", "StepStarted", "StepCompleted", "StateSaved"),
    *("RunPaused", "RunContinued", "RunRecovered", "RunFinished"),
]
REFUSED: list[Any] = [
    *RESERVED,
    *(
        "",
        "a" * 101,
        "a\nb",
        "a\rb",
        "a\r\nb",
        "\x00",
        "a\x1b",
        "a\x7f",
        "a\x85",
        "a\u2028b",
        "a\u2029b",
        "\t",
        "a\ud800",
    ),
    *(None, 7, ["a"], {"a": 1}, True),
]


async def test_names_that_no_author_may_use_fail_the_run(sqlite_url: str) -> None:
    async with running(sqlite_url, Misnamer) as client:
        for number, name in enumerate(REFUSED):
            run = await client.finish("misnamer", number=number)
            assert run["status"] == "failed", ascii(name)
            assert run["error"]["code"] == "invalid_event", ascii(name)
            events = await client.events(run["run_id"])
            assert [event.event for event in events] == ["WorkflowStarted", "RunFinished"], ascii(name)


async def test_any_other_name_goes_over_the_wire_as_it_is(database_url: str) -> None:
    names = [
        "RunResponse",
        "WorkflowCompleted",
        "MyEvent",
        "a" * 100,
        "message",
        "\u00fc\u65e5",
        "a b",
        " a ",
        "a:b",
        "id: 1",
        "\U0001f600",
    ]
    async with running(database_url, Namer) as client:
        for name in names:
            run = await client.finish("namer", name=name)
            assert run["status"] == "completed", name
            event = (await client.events(run["run_id"]))[1]
            assert (event.event, event.data["event"], event.id) == (name, name, "2")


@pytest.mark.parametrize("event", [event for event in RunEvent if event.value not in RESERVED])
def test_the_names_of_the_seed_are_free(event: RunEvent) -> None:
    assert event.value not in RESERVED


async def test_what_is_no_event_fails_the_run(sqlite_url: str) -> None:
    class Yielder(Workflow):
        def run(self, value: Any) -> Iterator[Any]:
            yield value

    class AsyncYielder(Workflow):
        async def run(self, value: Any) -> Any:
            yield value

    async with running(sqlite_url, Yielder, AsyncYielder) as client:
        for workflow in ("yielder", "async-yielder"):
            for value in ["text", None, {"content": "x"}, 7]:
                run = await client.finish(workflow, value=value)
                assert (run["status"], run["error"]["code"]) == ("failed", "invalid_event"), value


async def test_ids_are_the_servers_whatever_the_author_puts_there(database_url: str) -> None:
    class Forger(Workflow):
        def run(self) -> Iterator[RunResponse]:
            yield RunResponse(
                content="x", run_id="fake", session_id="fake", workflow_id="fake", created_at=1, agent_id="a", model="m"
            )

    async with running(database_url, Forger) as client:
        run = await client.finish("forger", {"session_id": "s"})
        event = (await client.events(run["run_id"]))[1].data
        assert (event["run_id"], event["session_id"], event["workflow"]) == (run["run_id"], "s", "forger")
        assert event["sequence"] == 2
        assert run["created_at"] <= event["created_at"] <= run["finished_at"]
        assert (event["agent_id"], event["model"]) == ("a", "m")
        assert "fake" not in str(event)
        assert list(event.items())[:2] == [("event", "RunResponse"), ("content", "x")]


async def test_every_event_names_its_run_and_leaves_null_out(database_url: str) -> None:
    class Null(Workflow):
        def run(self) -> Iterator[RunResponse]:
            yield RunResponse()
            yield RunResponse(content={"a": None})
            self.session_state["a"] = 1

    async with running(database_url, Null) as client:
        run = await client.finish("null", {"session_id": "s"})
        events = await client.events(run["run_id"])
        for number, event in enumerate(events, 1):
            assert event.data["run_id"] == run["run_id"]
            assert event.data["session_id"] == "s"
            assert event.data["workflow"] == "null"
            assert event.data["sequence"] == number == int(event.id or 0)
            assert event.data["created_at"].endswith("Z")
            assert None not in event.data.values()
        assert "content" not in events[1].data
        assert events[2].data["content"] == {"a": None}


class Colour(Enum):
    red = "r"


class Post(BaseModel):
    title: str
    on: date


async def test_rich_values_are_one_json_everywhere(database_url: str) -> None:
    class Rich(Workflow):
        def run(self) -> RunResponse:
            value = {
                "model": Post(title="t", on=date(2026, 1, 2)),
                "decimal": Decimal("1.10"),
                "uuid": UUID(int=1),
                "set": {2, 1},
                "tuple": (1, "a"),
                "enum": Colour.red,
                "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
                "nul": "a\x00b\ud800c",
                1: "one",
            }
            self.session_state["value"] = value
            return RunResponse(content=value)

    expected = {
        "model": {"title": "t", "on": "2026-01-02"},
        "decimal": "1.10",
        "uuid": "00000000-0000-0000-0000-000000000001",
        "set": [1, 2],
        "tuple": [1, "a"],
        "enum": "r",
        "at": "2026-01-02T03:04:05+00:00",
        "nul": "a\ufffdb\ufffdc",
        "1": "one",
    }
    async with running(database_url, Rich) as client:
        run = await client.finish("rich", {"session_id": "s"})
        assert run["content"] == expected
        assert (await client.get("/sessions/s/state")).json() == {"value": expected}
        assert (await client.events(run["run_id"]))[1].data["content"] == expected
