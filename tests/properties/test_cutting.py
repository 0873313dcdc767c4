"""However a stream is cut and resumed, its pieces are the whole."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from hypothesis import HealthCheck, given, settings, strategies

from app import RunResponse, Workflow
from tests.support.server import Client, running

SSE = {"Accept": "text/event-stream"}
CUTS = strategies.lists(strategies.integers(0, 2500) | strategies.integers(0, 60), max_size=12)
"""Bytes that each connection carries before it breaks: inside a frame, inside a character, before the first byte."""


class Story(Workflow):
    async def run(self, words: list[str], pause: bool = False) -> AsyncIterator[RunResponse]:
        for word in words:
            yield RunResponse(content=word)
            if pause:
                await asyncio.sleep(0.001)


WORDS = strategies.lists(strategies.text("ab\u00fc\u2028\U0001f600\r\n:", max_size=8), min_size=1, max_size=12)


class Reader:
    """A reader as the specification has it: what is not a whole frame is forgotten when the connection breaks."""

    def __init__(self) -> None:
        self.frames: list[tuple[str, str]] = []
        self.last_id: str | None = None

    def take(self, received: bytes) -> None:
        whole, _, _ = received.rpartition(b"\n\n")
        for frame in whole.split(b"\n\n"):
            fields = dict(line.split(b": ", 1) for line in frame.split(b"\n") if line and not line.startswith(b":"))
            if b"data" in fields:
                self.last_id = fields[b"id"].decode()
                self.frames.append((self.last_id, fields[b"data"].decode()))


async def read(client: Client, run_id: str, cuts: list[int]) -> list[tuple[str, str]]:
    reader, left = Reader(), list(cuts)
    while True:
        headers = SSE | ({} if reader.last_id is None else {"Last-Event-ID": reader.last_id})
        async with client.stream("GET", f"/runs/{run_id}/events", headers=headers) as stream:
            if stream.status_code == 204:
                return reader.frames
            received, until = b"", left.pop(0) if left else None
            async for chunk in stream.aiter_raw():
                received += chunk
                if until is not None and len(received) >= until:
                    break
        reader.take(received if until is None else received[:until])


async def test_any_way_of_cutting_and_resuming_gives_the_whole(database_url: str) -> None:
    async with running(database_url, Story) as client:
        loop = asyncio.get_running_loop()

        async def check(words: list[str], cuts: list[list[int]], pause: bool) -> None:
            run = await client.start("story", words=words, pause=pause)
            cut = await asyncio.gather(*(read(client, run["run_id"], each) for each in cuts))
            whole = await read(client, run["run_id"], [])
            assert [number for number, _ in whole] == [f"{number}" for number in range(1, len(words) + 3)]
            for frames in cut:
                assert frames == whole

        @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(WORDS, strategies.lists(CUTS, min_size=1, max_size=4), strategies.booleans())
        def law(words: list[str], cuts: list[list[int]], pause: bool) -> None:
            asyncio.run_coroutine_threadsafe(check(words, cuts, pause), loop).result(30)

        call: Any = law
        await asyncio.to_thread(call)
