"""Waiting for something to be there."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

Found = TypeVar("Found")


async def find(look: Callable[[], Awaitable[Found | None]], seconds: float = 10) -> Found:
    """What `look` finds, once that is not None."""
    async with asyncio.timeout(seconds):
        while True:
            if (found := await look()) is not None:
                return found
            await asyncio.sleep(0.01)
