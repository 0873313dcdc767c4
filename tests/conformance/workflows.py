"""The workflows of the suite. Each step has a name of its own in its run, by which ledger and log are compared.

A run's last word in the session's state is `runs/<run_id>`; callers write beside it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

from app import RunResponse
from tests.conformance.calls import recorded
from tests.conformance.recording import Recording


class SyncSteps(Recording):
    """Steps in a loop, with text and a save after each."""

    def run(self, ledger: str, steps: int, seconds: float) -> Iterator[RunResponse]:
        done: list[str] = []
        for number in range(steps):
            name = f"sync-{number}"
            done.append(self.step(self.work, ledger, name, seconds, name=name))
            self.session_state["runs"][str(self.run_id)] = done
            self.write_to_storage()
            yield RunResponse(content=f"{number} ")
        self.leave("done")


class AsyncSteps(Recording):
    """Branches that run together, sync functions among their steps, and a step with steps inside."""

    async def run(self, ledger: str, steps: int, seconds: float) -> AsyncIterator[RunResponse]:
        yield RunResponse(content="begin ")
        sums = await asyncio.gather(*(self.branch(ledger, branch, steps, seconds) for branch in "abc"))
        yield RunResponse(content=f"{sum(sums)} ")
        await self.write_to_storage()
        yield RunResponse(content=await self.step(self.outer, ledger, seconds, name="outer"))
        self.leave("done")

    async def branch(self, ledger: str, branch: str, steps: int, seconds: float) -> int:
        for number in range(steps):
            name = f"{branch}-{number}"
            await self.step(self.work if number % 2 else self.work_async, ledger, name, seconds, name=name)
        return steps

    async def outer(self, ledger: str, seconds: float) -> str:
        with recorded(ledger, self.run_id, "outer"):
            first: str = await self.step(self.work_async, ledger, "inner-1", seconds, name="inner-1")
            second: str = await self.step(self.work_async, ledger, "inner-2", seconds, name="inner-2")
        return first + second


class Talker(Recording):
    """A stream of text in pieces, without any step."""

    async def run(self, pieces: int, seconds: float) -> AsyncIterator[RunResponse]:
        for number in range(pieces):
            yield RunResponse(content=f"{number} ")
            await asyncio.sleep(seconds)
        self.leave("done")


class Failing(Recording):
    """Saves, and then fails in a step."""

    def run(self, ledger: str, seconds: float) -> Iterator[RunResponse]:
        yield RunResponse(content="so far ")
        self.step(self.work, ledger, "good", seconds, name="good")
        self.step(self.fail, ledger, name="bad")
        self.leave("done")

    def fail(self, ledger: str) -> None:
        with recorded(ledger, self.run_id, "bad"):
            pass
        raise ValueError("as it should")


class Endless(Recording):
    """Async code that ends when it is cancelled, and never else."""

    async def run(self, ledger: str) -> AsyncIterator[RunResponse]:
        await self.step(self.work_async, ledger, "first", 0.01, name="first")
        while True:
            yield RunResponse(content=".")
            await asyncio.sleep(0.1)


class SyncEndless(Recording):
    """The same in a thread."""

    def run(self, ledger: str) -> Iterator[RunResponse]:
        self.step(self.work, ledger, "first", 0.01, name="first")
        while True:
            yield RunResponse(content=".")
            time.sleep(0.1)


class Asking(Recording):
    """Works, asks, and works with the answer; or with none, when nobody answers in time."""

    async def run(self, ledger: str, seconds: float, patience: float | None = None) -> AsyncIterator[RunResponse]:
        await self.step(self.work_async, ledger, "before", seconds, name="before")
        try:
            answer = await self.wait_for_input("how many?", schema={"type": "integer"}, timeout_seconds=patience)
        except TimeoutError:
            answer = None
        yield RunResponse(content=f"{answer} ")
        yield RunResponse(content=await self.step(self.work_async, ledger, "after", seconds, name="after"))
        self.leave("done")


class SyncAsking(Recording):
    """The same in a thread."""

    def run(self, ledger: str, seconds: float, patience: float | None = None) -> Iterator[RunResponse]:
        self.step(self.work, ledger, "before", seconds, name="before")
        try:
            answer = self.wait_for_input("how many?", schema={"type": "integer"}, timeout_seconds=patience)
        except TimeoutError:
            answer = None
        yield RunResponse(content=f"{answer} ")
        yield RunResponse(content=self.step(self.work, ledger, "after", seconds, name="after"))
        self.leave("done")
