"""Streams of events: the frames, the cursors, the answers before the first byte."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from app import RunResponse, Workflow
from tests.support.problems import problem_of
from tests.support.server import Client, read_sse, running
from tests.support.waiting import until

SSE = {"Accept": "text/event-stream"}


class Count(Workflow):
    def run(self, to: int = 3) -> Iterator[RunResponse]:
        for number in range(1, to + 1):
            yield RunResponse(content=number)


class Gate(Workflow):
    """Says one word, and another when the test opens the gate."""

    gate: asyncio.Event

    async def run(self) -> AsyncIterator[RunResponse]:
        yield RunResponse(content="before")
        await Gate.gate.wait()
        yield RunResponse(content="after")


class Odd(Workflow):
    def run(self) -> Iterator[RunResponse]:
        yield RunResponse(content="a\r\nb\rc\nd\u2028e\u2029f\x85g\x0bh\x00i: j\n\ndata: k")


async def raw(client: Client, path: str, headers: dict[str, str] | None = None) -> bytes:
    """The bytes of a stream that ends."""
    answer = await client.get(path, headers=SSE | (headers or {}))
    assert answer.status_code == 200, answer.text
    return answer.content


async def test_frames_are_what_the_design_says_byte_for_byte(database_url: str) -> None:
    async with running(database_url, Count) as client:
        run = await client.finish("count")
        stream = await raw(client, f"/runs/{run['run_id']}/events")
        assert b"\r" not in stream
        assert stream.endswith(b"\n\n")
        frames = stream[:-2].split(b"\n\n")
        assert len(frames) == 5
        opening, frames[0] = frames[0].split(b"\n", 1)
        assert re.fullmatch(rb"retry: [1-9][0-9]*", opening)
        for number, frame in enumerate(frames, 1):
            lines = frame.split(b"\n")
            assert len(lines) == 3
            assert lines[0] == b"id: %d" % number
            assert lines[1].startswith(b"event: ")
            assert re.match(rb'data: \{"event":"\w+",', lines[2])
            assert b'": ' not in lines[2]
            assert b', "' not in lines[2]


async def test_a_stream_is_not_kept_by_anything_in_between(sqlite_url: str) -> None:
    async with running(sqlite_url, Count) as client:
        run = await client.finish("count")
        for answer in (
            await client.get(f"/runs/{run['run_id']}/events"),
            await client.post("/workflows/count/runs", json={"input": {}}, headers=SSE),
        ):
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-accel-buffering"] == "no"
            assert "content-encoding" not in answer.headers


async def test_no_text_of_an_author_breaks_a_frame(database_url: str) -> None:
    async with running(database_url, Odd) as client:
        run = await client.finish("odd")
        stream = await raw(client, f"/runs/{run['run_id']}/events")
        assert b"\r" not in stream
        assert stream.count(b"\n\n") == 3
        events = await client.events(run["run_id"])
        assert events[1].data["content"] == "a\r\nb\rc\nd\u2028e\u2029f\x85g\x0bh\ufffdi: j\n\ndata: k"


async def test_a_silent_stream_sends_comments(sqlite_url: str) -> None:
    Gate.gate = asyncio.Event()
    async with running(sqlite_url, Gate, ping_seconds=0.05) as client:
        run = await client.start("gate")
        received = b""
        async with client.stream("GET", f"/runs/{run['run_id']}/events", headers=SSE) as stream:
            async for chunk in stream.aiter_raw():
                received += chunk
                if received.count(b"\n:") >= 3:
                    Gate.gate.set()
        comments = [frame for frame in received.split(b"\n\n") if frame.startswith(b":")]
        assert len(comments) >= 3
        assert all(re.fullmatch(rb":[^\r\n]*", comment) for comment in comments)
        assert b"RunFinished" in received.split(b"\n\n")[-2]


async def test_events_arrive_while_the_run_goes_on(database_url: str) -> None:
    Gate.gate = asyncio.Event()
    async with (
        running(database_url, Gate) as client,
        client.stream("POST", "/workflows/gate/runs", json={"input": {}}, headers=SSE) as stream,
    ):
        seen: list[Any] = []
        async for event in read_sse(stream):
            seen.append(event.data.get("content"))
            if event.data.get("content") == "before":
                assert not Gate.gate.is_set()
                Gate.gate.set()
        assert seen == [None, "before", "after", "beforeafter"]


CURSORS: list[tuple[str | None, str | None, int, list[str]]] = [
    # Last-Event-ID, ?after=, status, ids; the run has five events
    (None, None, 200, ["1", "2", "3", "4", "5"]),
    ("0", None, 200, ["1", "2", "3", "4", "5"]),
    (None, "0", 200, ["1", "2", "3", "4", "5"]),
    ("", None, 200, ["1", "2", "3", "4", "5"]),
    ("2", None, 200, ["3", "4", "5"]),
    (None, "2", 200, ["3", "4", "5"]),
    ("4", None, 200, ["5"]),
    ("3", "1", 200, ["4", "5"]),
    ("0", "4", 200, ["1", "2", "3", "4", "5"]),
    ("3", "nonsense", 200, ["4", "5"]),
    ("3", "99", 200, ["4", "5"]),
    ("", "2", 200, ["3", "4", "5"]),
    ("5", None, 204, []),
    (None, "5", 204, []),
    ("5", "1", 204, []),
    ("6", None, 400, []),
    (None, "6", 400, []),
    ("6", "1", 400, []),
    ("-1", None, 400, []),
    (None, "-1", 400, []),
    ("one", None, 400, []),
    ("1.0", None, 400, []),
    ("1e1", None, 400, []),
    ("0x1", None, 400, []),
    ("+1", None, 400, []),
    ("1 2", None, 400, []),
    ("1,2", None, 400, []),
    (None, "", 400, []),
    (None, "\u0661", 400, []),
    ("9" * 10, None, 400, []),
    ("9" * 30, None, 400, []),
    ("18446744073709551617", None, 400, []),
]


async def test_a_cursor_is_answered_by_the_table(database_url: str) -> None:
    async with running(database_url, Count) as client:
        run = await client.finish("count")
        for header, after, status, ids in CURSORS:
            headers = SSE | ({} if header is None else {"Last-Event-ID": header})
            params = {} if after is None else {"after": after}
            answer = await client.get(f"/runs/{run['run_id']}/events", headers=headers, params=params)
            case = (header, after)
            if status == 400:
                problem_of(answer, 400, "invalid_cursor")
            else:
                assert answer.status_code == status, case
                assert re.findall(r"^id: (\d+)$", answer.text, re.MULTILINE) == ids, case
            if status == 204:
                assert answer.content == b""


async def test_a_cursor_at_the_end_of_a_live_run_waits_for_more(database_url: str) -> None:
    Gate.gate = asyncio.Event()
    async with running(database_url, Gate) as client:
        run = await client.start("gate")
        path = f"/runs/{run['run_id']}/events"

        async def both_there() -> bool:
            return len((await client.get(path, headers={"Accept": "application/json"})).json()["items"]) == 2

        await until(both_there)
        problem_of(await client.get(path, headers=SSE | {"Last-Event-ID": "3"}), 400, "invalid_cursor")
        following = asyncio.create_task(client.events(run["run_id"], after=2))
        await asyncio.sleep(0.1)
        assert not following.done()
        Gate.gate.set()
        assert [event.id for event in await following] == ["3", "4"]


@pytest.mark.parametrize("run_id", ["none", "01927c3e-8f5a-7cc0-b1de-5d2f1a3b4c5d", "\u00fc", "%00", "a" * 3000])
async def test_an_unknown_run_is_not_found_before_any_byte_of_stream(database_url: str, run_id: str) -> None:
    async with running(database_url, Count) as client:
        problem_of(await client.get(f"/runs/{run_id}/events", headers=SSE), 404)
        problem_of(await client.get(f"/runs/{run_id}/events", headers={"Accept": "application/json"}), 404)
        problem_of(await client.get(f"/runs/{run_id}"), 404)
        problem_of(await client.post(f"/runs/{run_id}/cancel"), 404)


async def test_accept_decides_between_stream_and_page(sqlite_url: str) -> None:
    async with running(sqlite_url, Count) as client:
        run = await client.finish("count")
        path = f"/runs/{run['run_id']}/events"
        for accept, kind in [
            ("*/*", "text/event-stream"),
            ("text/event-stream", "text/event-stream"),
            ("text/event-stream, application/json;q=0.5", "text/event-stream"),
            ("application/json", "application/json"),
            ("APPLICATION/JSON; charset=utf-8", "application/json"),
            ("text/html", "text/event-stream"),
        ]:
            answer = await client.get(path, headers={"Accept": accept})
            assert answer.headers["content-type"].startswith(kind), accept


async def test_the_head_of_a_stream_opens_none(sqlite_url: str) -> None:
    async with running(sqlite_url, Count) as client:
        run = await client.finish("count")
        answer = await client.head(f"/runs/{run['run_id']}/events", headers=SSE)
        assert answer.status_code == 405
        assert "GET" in answer.headers["allow"]


async def test_there_are_no_more_streams_than_the_limit(sqlite_url: str) -> None:
    Gate.gate = asyncio.Event()
    async with running(sqlite_url, Gate, max_streams=2) as client:
        run = await client.start("gate")
        path = f"/runs/{run['run_id']}/events"
        following = [asyncio.create_task(client.events(run["run_id"])) for _ in range(2)]

        async def open_streams() -> bool:
            return "millstream_streams_open 2.0" in (await client.get("/metrics")).text

        await until(open_streams)
        answer = await client.get(path, headers=SSE)
        problem_of(answer, 503, "too_many_streams")
        assert int(answer.headers["retry-after"]) >= 1
        assert (await client.get(path, headers={"Accept": "application/json"})).status_code == 200
        Gate.gate.set()
        assert [len(events) for events in await asyncio.gather(*following)] == [4, 4]
        assert len(await client.events(run["run_id"])) == 4


async def test_a_stream_that_finds_no_place_starts_no_run(sqlite_url: str) -> None:
    Gate.gate = asyncio.Event()
    async with running(sqlite_url, Gate, max_streams=1) as client:
        run = await client.start("gate")
        following = asyncio.create_task(client.events(run["run_id"]))

        async def open_stream() -> bool:
            return "millstream_streams_open 1.0" in (await client.get("/metrics")).text

        await until(open_stream)
        problem_of(await client.post("/workflows/gate/runs", json={"input": {}}, headers=SSE), 503)
        assert len((await client.get("/runs")).json()["items"]) == 1
        Gate.gate.set()
        await following


async def test_readers_of_one_run_all_see_the_same(database_url: str) -> None:
    class Chatter(Workflow):
        async def run(self) -> AsyncIterator[RunResponse]:
            for number in range(300):
                yield RunResponse(content=f"{number}")
                if number % 10 == 0:
                    await asyncio.sleep(0.001)

    async with running(database_url, Chatter) as client:
        run = await client.start("chatter")
        readers = []
        for number in range(20):
            readers.append(asyncio.create_task(client.events(run["run_id"])))
            await asyncio.sleep(0.001 * number)
        streams = await asyncio.gather(*readers)
        assert [event.id for event in streams[0]] == [f"{number}" for number in range(1, 303)]
        assert all(stream == streams[0] for stream in streams)


async def test_a_client_that_is_cut_off_in_the_middle_loses_nothing(database_url: str) -> None:
    class Chatter(Workflow):
        async def run(self) -> AsyncIterator[RunResponse]:
            for number in range(60):
                yield RunResponse(content=f"{number}")
                await asyncio.sleep(0.002)

    async with running(database_url, Chatter) as client:
        run = await client.start("chatter")
        seen: list[int] = []
        while True:
            headers = SSE | ({"Last-Event-ID": f"{seen[-1]}"} if seen else {})
            async with client.stream("GET", f"/runs/{run['run_id']}/events", headers=headers) as stream:
                if stream.status_code == 204:
                    break
                count = 0
                async for event in read_sse_until_cut(stream):
                    seen.append(event)
                    count += 1
                    if count == 7:
                        break
        assert seen == list(range(1, 63))


async def read_sse_until_cut(stream: httpx.Response) -> AsyncIterator[int]:
    """The ids of a stream that its reader may leave at any frame."""
    events = read_sse(stream)
    try:
        async for event in events:
            yield int(event.id or 0)
    finally:
        await events.aclose()
