"""A run that goes on after its log ended somewhere: what is done again, what is said again, and what is refused."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app import RunResponse, Workflow
from app.workflow.runtime import StreamCall
from tests.engine.crashes import CrashPoint, recovered
from tests.support.server import Client


def said(events: list[dict[str, Any]]) -> list[Any]:
    return [event["content"] for event in events]


async def test_of_nested_steps_the_finished_inner_one_is_not_called_again(sqlite_url: str) -> None:
    calls: list[str] = []
    point = CrashPoint()

    class Nested(Workflow):
        async def run(self) -> AsyncIterator[RunResponse]:
            yield RunResponse(content=await self.step(self.outer))

        async def outer(self) -> str:
            calls.append("outer")
            return str(await self.step(self.inner, 1)) + str(await self.step(self.inner, 2))

        async def inner(self, number: int) -> int:
            calls.append(f"inner {number}")
            if number == 2:
                await point.here_async()
            return number

    async with recovered(sqlite_url, Nested, point) as after:
        assert calls == ["outer", "inner 1", "inner 2", "outer", "inner 2"]
        assert after.run["content"] == "12"
        assert [step["name"] for step in after.of("StepCompleted")] == ["inner", "inner", "outer"]


async def test_sync_nested_steps_are_the_same(sqlite_url: str) -> None:
    calls: list[str] = []
    point = CrashPoint()

    class SyncNested(Workflow):
        def run(self) -> Iterator[RunResponse]:
            yield RunResponse(content=self.step(self.outer))

        def outer(self) -> str:
            calls.append("outer")
            return str(self.step(self.inner, 1)) + str(self.step(self.inner, 2))

        def inner(self, number: int) -> int:
            calls.append(f"inner {number}")
            if number == 2:
                point.here()
            return number

    async with recovered(sqlite_url, SyncNested, point) as after:
        assert calls == ["outer", "inner 1", "inner 2", "outer", "inner 2"]
        assert after.run["content"] == "12"


async def test_two_calls_of_one_step_with_one_argument_are_two_steps(sqlite_url: str) -> None:
    calls: list[int] = []
    point = CrashPoint()

    class Dice(Workflow):
        def run(self) -> Iterator[RunResponse]:
            thrown = [self.step(self.throw, 6) for _ in range(3)]
            point.here()
            yield RunResponse(content=thrown)

        def throw(self, sides: int) -> int:
            calls.append(sides)
            return len(calls)

    async with recovered(sqlite_url, Dice, point) as after:
        assert after.run["content"] == [1, 2, 3]
        assert calls == [6, 6, 6]
        assert len({step["step"] for step in after.of("StepCompleted")}) == 3


class Pieces:
    """A stream of five pieces, which counts how often it is begun; the crash comes after so many of them."""

    def __init__(self, crash_after: int) -> None:
        self.crash_after = crash_after
        self.point = CrashPoint()
        self.begun = 0

    @property
    def call(self) -> StreamCall:
        return StreamCall(start=self._begin, name="talk")

    async def _begin(self) -> AsyncIterator[str]:
        self.begun += 1
        for number in range(5):
            yield f"{self.begun}.{number} "


@pytest.mark.parametrize("crash_after", [2, 5])
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_stream_that_ended_is_played_again_one_that_did_not_begins_anew(
    sqlite_url: str, asynchronous: bool, crash_after: int
) -> None:
    pieces = Pieces(crash_after)

    class AsyncStream(Workflow):
        name = "stream"

        async def run(self) -> AsyncIterator[RunResponse]:
            async for piece in self.runtime.stream(pieces.call):
                yield RunResponse(content=piece)
                if piece.endswith(f".{crash_after - 1} ") and crash_after < 5:
                    await pieces.point.here_async()
            await pieces.point.here_async()
            yield RunResponse(content="end")

    class SyncStream(Workflow):
        name = "stream"

        def run(self) -> Iterator[RunResponse]:
            for piece in self.runtime.stream(pieces.call):
                yield RunResponse(content=piece)
                if piece.endswith(f".{crash_after - 1} ") and crash_after < 5:
                    pieces.point.here()
            pieces.point.here()
            yield RunResponse(content="end")

    async with recovered(sqlite_url, AsyncStream if asynchronous else SyncStream, pieces.point) as after:
        begun = 1 if crash_after == 5 else 2
        assert pieces.begun == begun
        assert after.run["content"] == "".join(f"{begun}.{number} " for number in range(5)) + "end"
        (again,) = after.of("RunRecovered")
        if crash_after == 5:
            assert said(after.of("RunResponse")) == [*(f"1.{number} " for number in range(5)), "end"]
            assert again["superseded_after"] == again["sequence"] - 1
        else:
            assert again["superseded_after"] == 1, "the interrupted step began at 2"
        assert after.names.count("StepCompleted") == 1


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_save_is_not_made_again_and_what_others_wrote_stays(sqlite_url: str, asynchronous: bool) -> None:
    point = CrashPoint()

    class AsyncSaving(Workflow):
        name = "saving"

        async def run(self) -> AsyncIterator[RunResponse]:
            for number in range(3):
                self.session_state[f"{number}"] = number
                await self.write_to_storage()
                yield RunResponse(content=f"{number}")
            await point.here_async()
            self.session_state["last"] = True

    class SyncSaving(Workflow):
        name = "saving"

        def run(self) -> Iterator[RunResponse]:
            for number in range(3):
                self.session_state[f"{number}"] = number
                self.write_to_storage()
                yield RunResponse(content=f"{number}")
            point.here()
            self.session_state["last"] = True

    async with recovered(sqlite_url, AsyncSaving if asynchronous else SyncSaving, point) as after:
        assert [saved["revision"] for saved in after.of("StateSaved")] == [1, 2, 3, 4]
        assert [saved["paths"] for saved in after.of("StateSaved")] == [["/0"], ["/1"], ["/2"], ["/last"]]
        assert (await after.client.get("/sessions/s/state")).json() == {"0": 0, "1": 1, "2": 2, "last": True}
        (again,) = after.of("RunRecovered")
        assert again["superseded_after"] == again["sequence"] - 1, "nothing is said twice"


async def test_a_save_that_nobody_awaits_is_known_again_by_its_number(sqlite_url: str) -> None:
    point = CrashPoint()

    class Loose(Workflow):
        async def run(self) -> AsyncIterator[RunResponse]:
            self.session_state["a"] = 1
            self.write_to_storage()
            self.session_state["b"] = 2
            self.write_to_storage()
            self.session_state["c"] = 3
            yield RunResponse(content="said")
            await asyncio.sleep(0.05)
            await point.here_async()
            self.write_to_storage()
            self.session_state["d"] = 4

    async with recovered(sqlite_url, Loose, point) as after:
        assert after.run["status"] == "completed", after.run["error"]
        assert [saved["paths"] for saved in after.of("StateSaved")] == [["/a"], ["/b"], ["/c"], ["/d"]]
        assert (await after.client.get("/sessions/s/state")).json() == {"a": 1, "b": 2, "c": 3, "d": 4}


async def test_where_the_log_simply_ended_nothing_is_superseded(sqlite_url: str) -> None:
    point = CrashPoint()

    class Two(Workflow):
        def run(self) -> Iterator[RunResponse]:
            yield RunResponse(content="one ")
            point.here()
            yield RunResponse(content="two")

    async with recovered(sqlite_url, Two, point) as after:
        assert after.names == ["WorkflowStarted", "RunResponse", "RunRecovered", "RunResponse", "RunFinished"]
        assert after.of("RunRecovered")[0]["superseded_after"] == 2
        assert after.of("RunRecovered")[0]["attempt"] == 2
        assert after.run["content"] == "one two"


async def test_a_run_that_crashes_again_and_again_goes_on_from_what_counts(sqlite_url: str) -> None:
    calls: list[str] = []
    point = CrashPoint(crashes=3)
    words = iter("abcdefgh")

    class Unlucky(Workflow):
        def run(self) -> Iterator[RunResponse]:
            yield RunResponse(content="begin ")
            self.step(self.work, "first")
            yield RunResponse(content=f"{next(words)} ")
            self.step(self.work, "second")
            yield RunResponse(content="end")

        def work(self, name: str) -> None:
            calls.append(name)
            if name == "second":
                point.here()

    async with recovered(sqlite_url, Unlucky, point, crashes=3) as after:
        assert calls == ["first", "second", "second", "second", "second"]
        assert after.run["content"] == "begin d end", "what superseded words are is not said"
        assert [event["attempt"] for event in after.of("RunRecovered")] == [2, 3, 4]
        assert [event["superseded_after"] for event in after.of("RunRecovered")] == [4, 7, 10]
        assert len(after.of("StepCompleted")) == 2


@pytest.mark.parametrize("second", ["another step", "no step", "other arguments"])
async def test_another_way_past_a_finished_step_is_refused(sqlite_url: str, second: str) -> None:
    attempts: list[int] = []
    calls: list[str] = []
    point = CrashPoint()

    class Wayward(Workflow):
        def run(self) -> Iterator[RunResponse]:
            attempts.append(1)
            what = second if len(attempts) > 1 else ""
            if what != "no step":
                self.step(self.work, "x" if what == "other arguments" else "y", name=what or "done")
            point.here()
            yield RunResponse(content="end")

        def work(self, argument: str) -> None:
            calls.append(argument)

    async with recovered(sqlite_url, Wayward, point) as after:
        assert (after.run["status"], after.run["error"]["code"]) == ("failed", "replay_diverged")
        assert after.run["error"]["event"] == "StepCompleted 3"
        assert "'done'" in after.run["error"]["message"]
        assert calls == ["y"], "the other step is not executed"


@pytest.mark.parametrize("crash_in", ["pool", "after"])
async def test_steps_from_threads_of_the_author_are_known_again(sqlite_url: str, crash_in: str) -> None:
    calls: list[int] = []
    point = CrashPoint()

    class Pooled(Workflow):
        def run(self) -> Iterator[RunResponse]:
            with ThreadPoolExecutor(4) as pool:
                results = list(pool.map(lambda number: self.step(self.work, number), range(4)))
            if crash_in == "after":
                point.here()
            yield RunResponse(content=results)

        def work(self, number: int) -> int:
            calls.append(number)
            time.sleep(0.02)
            if crash_in == "pool" and number == 3:
                time.sleep(0.1)
                point.here()
            return number * number

    async with recovered(sqlite_url, Pooled, point) as after:
        assert after.run["status"] == "completed", after.run["error"]
        assert after.run["content"] == [0, 1, 4, 9]
        assert sorted(calls) == ([0, 1, 2, 3] if crash_in == "after" else [0, 1, 2, 3, 3])


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_step_whose_time_ran_out_is_tried_again_and_what_followed_is_not(
    sqlite_url: str, asynchronous: bool
) -> None:
    calls: list[str] = []
    point = CrashPoint(crashes=2)

    class AsyncTimed(Workflow):
        name = "timed"

        async def run(self) -> AsyncIterator[RunResponse]:
            try:
                await self.step(self.slow, timeout_seconds=0.05)
            except TimeoutError:
                yield RunResponse(content="late ")
            yield RunResponse(content=await self.step(self.quick))
            await point.here_async()

        async def slow(self) -> None:
            calls.append("slow")
            await asyncio.sleep(5)

        async def quick(self) -> str:
            calls.append("quick")
            return "quick"

    class SyncTimed(Workflow):
        name = "timed"

        def run(self) -> Iterator[RunResponse]:
            try:
                self.step(self.slow, timeout_seconds=0.05)
            except TimeoutError:
                yield RunResponse(content="late ")
            yield RunResponse(content=self.step(self.quick))
            point.here()

        def slow(self) -> None:
            calls.append("slow")
            time.sleep(0.3)

        def quick(self) -> str:
            calls.append("quick")
            return "quick"

    async with recovered(sqlite_url, AsyncTimed if asynchronous else SyncTimed, point, crashes=2) as after:
        assert (after.run["status"], after.run["content"]) == ("completed", "late quick"), after.run["error"]
        assert calls.count("quick") == 1, "it was finished"
        assert calls.count("slow") == 3, "a step without a result is not"
        assert [step["name"] for step in after.of("StepCompleted")] == ["quick"]


async def test_a_step_that_failed_and_was_let_pass_is_tried_again_after_a_crash(sqlite_url: str) -> None:
    calls: list[str] = []
    point = CrashPoint()

    class Forgiving(Workflow):
        def run(self) -> Iterator[RunResponse]:
            for name in ("bad", "good"):
                try:
                    self.step(self.work, name, name=name, retries=1, backoff_seconds=0.01)
                except ValueError:
                    yield RunResponse(content="failed ")
            point.here()
            yield RunResponse(content="end")

        def work(self, name: str) -> None:
            calls.append(name)
            if name == "bad":
                raise ValueError(name)

    async with recovered(sqlite_url, Forgiving, point) as after:
        assert after.run["status"] == "completed"
        assert calls == ["bad", "bad", "good", "bad", "bad"]


async def test_concurrent_branches_whose_other_half_is_finished(sqlite_url: str) -> None:
    calls: list[str] = []
    point = CrashPoint()

    class Halves(Workflow):
        async def run(self) -> AsyncIterator[RunResponse]:
            yield RunResponse(content=await asyncio.gather(self.branch("a", 0.0), self.branch("b", 0.1)))

        async def branch(self, name: str, seconds: float) -> str:
            first = await self.step(self.work, f"{name}1", seconds)
            second = await self.step(self.work, f"{name}2", seconds)
            return f"{first}{second}"

        async def work(self, name: str, seconds: float) -> str:
            calls.append(name)
            await asyncio.sleep(seconds)
            if name == "b2":
                await point.here_async()
            return name

    async with recovered(sqlite_url, Halves, point) as after:
        assert after.run["content"] == ["a1a2", "b1b2"]
        assert sorted(calls) == ["a1", "a2", "b1", "b2", "b2"]


async def test_a_cancelled_run_whose_process_died_does_nothing_more(sqlite_url: str) -> None:
    calls: list[str] = []
    point = CrashPoint()

    class Stubborn(Workflow):
        def run(self) -> Iterator[RunResponse]:
            calls.append("run")
            yield RunResponse(content="begun")
            point.here()

    async def cancel(client: Client, run_id: str) -> None:
        assert (await client.post(f"/runs/{run_id}/cancel")).status_code == 202

    async with recovered(sqlite_url, Stubborn, point, before=cancel) as after:
        assert after.run["status"] == "cancelled"
        assert calls == ["run"]
        assert after.names == ["WorkflowStarted", "RunResponse", "RunFinished"]


async def test_what_was_patched_between_crash_and_recovery_is_not_in_the_base_and_not_lost(sqlite_url: str) -> None:
    seen: list[dict[str, Any]] = []
    point = CrashPoint()

    class Looking(Workflow):
        def run(self) -> Iterator[RunResponse]:
            seen.append(dict(self.session_state))
            yield RunResponse(content="begun")
            point.here()
            self.session_state["mine"] = 1

    async def patch(client: Client, _run_id: str) -> None:
        assert (await client.patch("/sessions/s/state", json={"theirs": 2})).status_code == 200

    async with recovered(sqlite_url, Looking, point, before=patch) as after:
        assert seen == [{}, {}], "each attempt starts from the frozen base"
        assert after.run["status"] == "completed"
        assert (await after.client.get("/sessions/s/state")).json() == {"mine": 1, "theirs": 2}
