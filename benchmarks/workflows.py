"""The piece of work as a workflow of ours."""

import asyncio
from collections.abc import AsyncIterator

from app import RunResponse, Workflow
from benchmarks.work import change, text_of


class Benchmark(Workflow):
    """The work of the figures."""

    async def run(
        self, events: int, size: int = 64, hold_seconds: float = 0.0, saves: int = 0
    ) -> AsyncIterator[RunResponse]:
        """Yield so many events of so many characters, wait after the first, save so often, change the state."""
        for number in range(events):
            yield RunResponse(content=text_of(number, size))
            if number == 0 and hold_seconds:
                await asyncio.sleep(hold_seconds)
        for number in range(saves):
            self.session_state["saved"] = number
            await self.write_to_storage()
        change(self.session_state)
