"""Promise 1: once a client has a 202, or the first frame of a stream, the run is on disk."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from app import RunResponse, Workflow
from tests.support.processes import server_process
from tests.support.server import read_sse

SSE = {"Accept": "text/event-stream"}


class Talker(Workflow):
    async def run(self, text: str) -> AsyncIterator[RunResponse]:
        for number in range(1000):
            yield RunResponse(content=f"{text} {number}")
            await asyncio.sleep(0.001)


async def test_a_run_that_was_answered_202_survives_a_kill_right_after(database_url: str) -> None:
    answers: list[httpx.Response] = []
    async with server_process(database_url, Talker) as server:

        async def keep_starting(number: int) -> None:
            while True:
                body = {"input": {"text": f"{number}"}, "session_id": f"{number % 3}", "metadata": {"number": number}}
                try:
                    answer = await server.client.post("/workflows/talker/runs", json=body)
                except httpx.TransportError:
                    return
                answers.append(answer)
                if len(answers) == 40:
                    server.kill()

        await asyncio.gather(*(keep_starting(number) for number in range(8)))
    assert len(answers) >= 40
    async with server_process(database_url, Talker, lease_seconds=1) as server:
        for answer in answers:
            assert answer.status_code == 202
            run = (await server.client.get(f"/runs/{answer.json()['run_id']}")).json()
            for member in ("run_id", "workflow", "session_id", "input", "metadata", "created_at"):
                assert run[member] == answer.json()[member]


@pytest.mark.parametrize("frames", [1, 40])
async def test_every_frame_that_was_seen_survives_a_kill_right_after(database_url: str, frames: int) -> None:
    seen = []
    async with server_process(database_url, Talker) as server:
        body = {"input": {"text": "a"}}
        async with server.client.stream("POST", "/workflows/talker/runs", json=body, headers=SSE) as stream:
            try:
                async for event in read_sse(stream):
                    seen.append(event)
                    if len(seen) == frames:
                        server.kill()
            except (httpx.TransportError, AssertionError):
                pass  # the connection was cut, maybe inside a frame
    async with server_process(database_url, Talker, lease_seconds=1) as server:
        run_id = seen[0].data["run_id"]
        await server.client.post(f"/runs/{run_id}/cancel")
        await server.client.ended(run_id)
        events = await server.client.events(run_id)
        assert len(seen) >= frames
        assert events[: len(seen)] == seen


async def test_a_state_that_was_answered_200_survives_a_kill_right_after(database_url: str) -> None:
    written: list[int] = []
    async with server_process(database_url, Talker) as server:
        await server.client.post("/sessions", json={"workflow": "talker", "session_id": "s"})
        for number in range(30):
            answer = await server.client.patch("/sessions/s/state", json={f"k{number}": number})
            assert answer.status_code == 200
            written.append(number)
        server.kill()
    async with server_process(database_url, Talker) as server:
        state = (await server.client.get("/sessions/s/state")).json()
        assert state == {f"k{number}": number for number in written}
        assert (await server.client.get("/sessions/s")).json()["revision"] == len(written)
