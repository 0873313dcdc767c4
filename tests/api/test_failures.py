"""Runs that fail: each failure has its code, says what was wrong, and harms nobody else."""

import asyncio
import dataclasses
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from app import RunResponse, Workflow
from tests.support.server import Client, running


async def failure(client: Client, workflow: str, **input: Any) -> dict[str, Any]:
    """The error of a run that must fail; its last event must say the same."""
    run = await client.finish(workflow, **input)
    assert run["status"] == "failed", run
    assert set(run["error"]) == {"code", "type", "message", "step", "event"}
    last = (await client.events(run["run_id"]))[-1]
    assert (last.event, last.data["status"]) == ("RunFinished", "failed")
    assert last.data["error"].items() <= run["error"].items()
    assert run["error"]["message"]
    assert "Traceback" not in run["error"]["message"]
    error: dict[str, Any] = run["error"]
    return error


class Oops(Exception):
    pass


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


class Raising(Workflow):
    def run(self, kind: str) -> Iterator[RunResponse]:
        yield RunResponse(content="so far ")
        self.session_state["written"] = True
        raise ERRORS[kind]


class AsyncRaising(Workflow):
    async def run(self, kind: str) -> AsyncIterator[RunResponse]:
        yield RunResponse(content="so far ")
        self.session_state["written"] = True
        raise ERRORS[kind]


class Function(Workflow):
    def run(self, kind: str) -> None:
        raise ERRORS[kind]


class Coroutine(Workflow):
    async def run(self, kind: str) -> None:
        raise ERRORS[kind]


ERRORS: dict[str, BaseException] = {
    "plain": Oops("it broke"),
    "silent": Oops(),
    "unspeakable": Unspeakable(),
    "odd": Oops("\x00\ud800 \u2028"),
    "long": Oops("x" * 1_000_000),
    "key": KeyError("a"),
    "group": ExceptionGroup("several", [Oops("one"), Oops("two")]),
    "stop": StopIteration("empty"),
    "stop-async": StopAsyncIteration("empty"),
    "timeout": TimeoutError("my own"),
    "generator-exit": GeneratorExit(),
    "assertion": AssertionError("no"),
    "os": ConnectionResetError(104, "reset"),
}


@pytest.mark.parametrize("workflow", ["raising", "async-raising", "function", "coroutine"])
async def test_whatever_author_code_raises_fails_its_run_and_saves_nothing(database_url: str, workflow: str) -> None:
    async with running(database_url, Raising, AsyncRaising, Function, Coroutine) as client:

        async def outcome(kind: str) -> tuple[str, str]:
            run = await client.start(workflow, {"session_id": kind}, kind=kind)
            try:
                ended = await client.ended(run["run_id"], seconds=5)
            except TimeoutError:
                return "still running", ""
            assert 0 < len(ended["error"]["message"]) < 10_000
            assert ended["session_revision"] == 0
            assert (await client.get(f"/sessions/{kind}/state")).json() == {}
            assert (await client.events(run["run_id"]))[-1].event == "RunFinished"
            return ended["status"], ended["error"]["code"]

        outcomes = dict(zip(ERRORS, await asyncio.gather(*map(outcome, ERRORS)), strict=True))
        assert outcomes == dict.fromkeys(ERRORS, ("failed", "author_error"))


async def test_an_error_names_its_type_and_message(sqlite_url: str) -> None:
    async with running(sqlite_url, Raising) as client:
        error = await failure(client, "raising", kind="plain")
        assert error == {"code": "author_error", "type": "Oops", "message": "it broke", "step": None, "event": None}
        assert (await failure(client, "raising", kind="silent"))["message"]


async def test_an_error_of_the_constructor_fails_the_run(sqlite_url: str) -> None:
    class Unmakable(Workflow):
        def __init__(self) -> None:
            raise Oops("cannot be made")

        def run(self) -> None:
            pass

    async with running(sqlite_url, Unmakable) as client:
        assert (await failure(client, "unmakable"))["message"] == "cannot be made"


async def test_a_coroutine_that_cancels_itself_has_not_been_cancelled(sqlite_url: str) -> None:
    class Selfish(Workflow):
        async def run(self) -> None:
            raise asyncio.CancelledError

    async with running(sqlite_url, Selfish) as client:
        assert (await failure(client, "selfish"))["code"] == "author_error"


class Measurement(BaseModel):
    value: float = math.nan


@dataclasses.dataclass
class Sample:
    value: Any


def a_circle() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


UNENCODABLE: dict[str, tuple[Any, str]] = {
    "object": ({"a": [1, object()]}, "/a/1"),
    "nan": ({"a": {"b": math.nan}}, "/a/b"),
    "infinity": ([math.inf], "/0"),
    "bytes": ({"b": b"x"}, "/b"),
    "integer": ({"n": 2**64}, "/n"),
    "negative": ({"n": -(2**63) - 1}, "/n"),
    "nan in a model": ({"m": Measurement()}, "/m/value"),
    "nan in a dataclass": ({"m": Sample(math.nan)}, "/m/value"),
    "nan in a set": ({"s": {math.nan}}, "/s"),
    "function in a model": ({"m": [Sample(print)]}, "/m/0/value"),
    "key": ({"k": {(1, 2): 3}}, "/k"),
    "colliding keys": ({"k": {1: "a", "1": "b"}}, "/k"),
    "replaced keys": ({"k": {"\x00": "a", "\ufffd": "b"}}, "/k"),
    "circle": ({"c": a_circle()}, "/c"),
    "escaped": ({"a/b~c": object()}, "/a~1b~0c"),
}


class Unwritable(Workflow):
    """Puts a value that is no JSON into an event, the state, a result or a step."""

    def run(self, kind: str, where: str) -> Any:
        value = UNENCODABLE[kind][0]
        if where == "state":
            self.session_state["x"] = value
        elif where == "save":
            self.session_state["x"] = value
            self.write_to_storage()
        elif where == "step":
            self.step(lambda: value, name="the step")
        elif where == "event":
            return RunResponse(content=value)
        elif where == "extra":
            return RunResponse(content="x", extra_data=value)
        else:
            return value
        return None


@pytest.mark.parametrize("where", ["state", "save", "step", "event", "extra", "result"])
async def test_what_json_cannot_hold_fails_the_run_and_is_named_by_its_path(sqlite_url: str, where: str) -> None:
    errors: dict[str, str] = {}
    async with running(sqlite_url, Unwritable) as client:
        for kind, (_, path) in UNENCODABLE.items():
            run = await client.finish("unwritable", kind=kind, where=where)
            errors[kind] = (run["error"] or {"code": run["status"]})["code"]
            if errors[kind] == "unencodable" and path not in run["error"]["message"]:
                errors[kind] = run["error"]["message"]
    assert errors == dict.fromkeys(UNENCODABLE, "unencodable")


async def test_a_state_that_is_no_object_fails_the_run(sqlite_url: str) -> None:
    class Lister(Workflow):
        def run(self) -> None:
            self.session_state = [1]  # type: ignore[assignment]

    async with running(sqlite_url, Lister) as client:
        await failure(client, "lister")


async def test_a_state_past_the_cap_fails_the_run(database_url: str) -> None:
    class Hoarder(Workflow):
        def run(self, size: int, save: bool = False) -> None:
            self.session_state["kept"] = "a" * size
            if save:
                self.write_to_storage()

    async with running(database_url, Hoarder, max_state_bytes=100) as client:
        assert (await failure(client, "hoarder", size=90))["code"] == "state_too_large"  # {"kept":""} has 11 more
        assert (await failure(client, "hoarder", size=90, save=True))["code"] == "state_too_large"
        assert (await client.finish("hoarder", {"session_id": "s"}, size=89))["status"] == "completed"
        assert len((await client.get("/sessions/s/state")).content) == 100


async def test_a_state_that_only_the_merge_makes_too_large_fails_the_run(database_url: str) -> None:
    class Adder(Workflow):
        async def run(self) -> None:
            self.session_state["mine"] = "a" * 60
            await released.wait()

    released = asyncio.Event()
    async with running(database_url, Adder, max_state_bytes=100) as client:
        run = await client.start("adder", {"session_id": "s"})
        assert (await client.patch("/sessions/s/state", json={"theirs": "b" * 60})).status_code == 200
        released.set()
        ended = await client.ended(run["run_id"])
        assert (ended["status"], ended["error"]["code"]) == ("failed", "state_too_large")
        assert set((await client.get("/sessions/s/state")).json()) == {"theirs"}


async def test_a_request_whose_state_is_too_large_is_refused_or_fails(database_url: str) -> None:
    async with running(database_url, Function, Returning, max_state_bytes=100) as client:
        body = {"input": {}, "session_id": "s", "session_state": {"a": "a" * 100}}
        assert (await client.post("/workflows/returning/runs", json=body)).status_code == 413
        assert (await client.get("/runs")).json()["items"] == []
        await client.finish("returning", {"session_id": "s", "session_state": {"a": "a" * 60}})
        run = await client.finish("returning", {"session_id": "s", "session_state": {"b": "b" * 60}})
        assert (run["status"], run["error"]["code"]) == ("failed", "state_too_large")
        assert list((await client.get("/sessions/s/state")).json()) == ["a"]


class Returning(Workflow):
    def run(self) -> str:
        return "fine"


async def test_what_a_run_saved_before_it_failed_stays(database_url: str) -> None:
    class Saver(Workflow):
        def run(self) -> Iterator[RunResponse]:
            self.session_state["kept"] = 1
            self.write_to_storage()
            yield RunResponse(content="saved")
            self.session_state["lost"] = 2
            raise Oops("now")

    async with running(database_url, Saver) as client:
        run = await client.finish("saver", {"session_id": "s"})
        assert (run["status"], run["session_revision"]) == ("failed", 1)
        assert (await client.get("/sessions/s/state")).json() == {"kept": 1}
        events = [event.event for event in await client.events(run["run_id"])]
        assert events == ["WorkflowStarted", "StateSaved", "RunResponse", "RunFinished"]


async def test_a_run_that_failed_does_not_leak_into_the_next(sqlite_url: str) -> None:
    class Counter(Workflow):
        seen: int = 0

        def run(self, fail: bool) -> int:
            self.seen += 1
            self.session_state["seen"] = self.seen
            if fail:
                raise Oops("once")
            return self.seen

    async with running(sqlite_url, Counter) as client:
        await failure(client, "counter", fail=True)
        assert (await client.finish("counter", fail=False))["content"] == 1
