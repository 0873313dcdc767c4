"""A reader that follows a run to its end, whatever becomes of the servers that it reads from."""

import asyncio
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import httpx

from tests.support.server import Client, SseEvent, read_sse


async def follow(urls: Sequence[str], run_id: str) -> list[SseEvent]:
    """The run's events by their stream; when one ends too early, on from the last that was seen, at the next server."""
    seen: list[SseEvent] = []
    for url in cycle(urls):
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": seen[-1].id or ""} if seen else {})
        try:
            async with (
                Client(base_url=url, timeout=5) as client,
                client.stream("GET", f"/runs/{run_id}/events", headers=headers) as stream,
            ):
                if stream.status_code != 503:
                    async for event in read_sse(stream):
                        seen.append(event)
        except httpx.TransportError:
            pass
        if seen and seen[-1].event == "RunFinished":
            break
        await asyncio.sleep(0.05)
    return seen


async def logged(client: Client, run_id: str) -> list[dict[str, Any]]:
    """The run's first events, up to 200, as they are now."""
    page = await client.get(f"/runs/{run_id}/events", params={"limit": 200}, headers={"Accept": "application/json"})
    events: list[dict[str, Any]] = page.json()["items"]
    return events
