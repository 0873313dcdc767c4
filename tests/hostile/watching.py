"""How long the event loop's thread computes without letting anybody else have a turn."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.main import YOUNG_OBJECTS

GOAL_SECONDS = 0.1
SLACK = 2.5
"""Other processes share the caches of the machine that tests run on."""


@dataclass
class Turns:
    """What has been seen of the loop."""

    worst_seconds: float = 0.0

    def check(self) -> None:
        """Fail when somebody had to wait for longer than we promise."""
        assert self.worst_seconds < GOAL_SECONDS * SLACK, f"the loop computed for {self.worst_seconds:.3f} s at a time"


@asynccontextmanager
async def watched() -> AsyncIterator[Turns]:
    """Watch this thread's loop: its own time between two turns, without what it waits for others.

    The garbage collector is set as `millstream serve` does.
    """
    turns, threshold = Turns(), gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)

    async def watch() -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0.001)
            now = time.thread_time()
            turns.worst_seconds = max(turns.worst_seconds, now - last)
            last = now

    watching = asyncio.create_task(watch())
    try:
        yield turns
    finally:
        watching.cancel()
        gc.set_threshold(*threshold)
        gc.unfreeze()
    turns.check()
