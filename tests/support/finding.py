"""Waiting for something to be there."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

Found = TypeVar("Found")


async def find(look: Callable[[], Awaitable[Found | None]], seconds: float = 10) -> Found:
    """What `look` finds, once that is not None."""
    async with asyncio.timeout(seconds):
        while (found := await look()) is None:
            await asyncio.sleep(0.01)
    return found
