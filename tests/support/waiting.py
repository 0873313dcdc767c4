"""Waiting for what will be so."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

Found = TypeVar("Found")


async def until(look: Callable[[], Awaitable[Found]], seconds: float = 10) -> Found:
    """What `look` finds, once it finds something true."""
    async with asyncio.timeout(seconds):
        while True:
            if found := await look():
                return found
            await asyncio.sleep(0.01)
