"""deploy/nginx.conf: what it says, and what becomes of requests and streams that pass through a real nginx with it."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from app import RunResponse, Workflow
from app.settings import Settings
from tests.support import databases
from tests.support.following import follow
from tests.support.nginx import CONFIGURATION, nginx_program, nginx_proxy
from tests.support.problems import problem_of
from tests.support.server import Client, read_sse, running
from tests.support.waiting import until

SSE = {"Accept": "text/event-stream"}
PATIENCE_SECONDS = 20


class Gate(Workflow):
    """Says one word, and another when the test opens the gate."""

    gate: asyncio.Event

    async def run(self) -> AsyncIterator[RunResponse]:
        yield RunResponse(content="before")
        await Gate.gate.wait()
        yield RunResponse(content="after")


class Long(Workflow):
    """A log of some length."""

    def run(self, count: int = 50) -> Iterator[RunResponse]:
        for number in range(count):
            yield RunResponse(content="x" * number)


@pytest.fixture
def nginx() -> str:
    """The program."""
    return nginx_program()


@asynccontextmanager
async def through(nginx: str, folder: Path, *servers: Client) -> AsyncIterator[Client]:
    """A client whose requests pass through nginx."""
    with nginx_proxy(nginx, folder, *(server.base_url for server in servers)) as url:
        async with Client(base_url=url, timeout=PATIENCE_SECONDS) as client:

            async def up() -> bool:
                try:
                    return (await client.get("/healthz")).status_code == 200
                except httpx.TransportError:
                    return False

            await until(up)
            yield client


def seconds_of(directive: str) -> int:
    (found,) = re.findall(rf"(?m)^\s*{directive} (\d+)s;", CONFIGURATION)
    return int(found)


def test_silence_is_borne_for_longer_than_it_lasts() -> None:
    fields = Settings.model_fields
    assert seconds_of("proxy_read_timeout") > max(fields["ping_seconds"].default, 60), "pings, and Prefer: wait"
    assert "proxy_send_timeout" not in CONFIGURATION


def test_streams_are_not_buffered_and_the_service_may_say_so_itself() -> None:
    (streams,) = re.findall(r"location ~ (\S+) \{([^}]*)\}", CONFIGURATION)
    for path in ("/events", "/runs/01927c3e-8f5a-7cc0-b1de-5d2f1a3b4c5d/events"):
        assert re.search(streams[0], path)
    for path in ("/runs", "/runs/a", "/eventsx", "/sessions/events/state"):
        assert not re.search(streams[0], path)
    assert "proxy_buffering off;" in streams[1]
    assert "proxy_ignore_headers" not in CONFIGURATION


def test_connections_to_the_servers_are_kept() -> None:
    assert "proxy_http_version 1.1;" in CONFIGURATION
    assert 'proxy_set_header Connection "";' in CONFIGURATION
    assert re.search(r"(?s)upstream millstream \{.*keepalive \d+;.*\}", CONFIGURATION)


def test_bodies_reach_the_limit_of_the_service() -> None:
    (megabytes,) = re.findall(r"client_max_body_size (\d+)m;", CONFIGURATION)
    assert int(megabytes) * 1024 * 1024 > Settings.model_fields["max_body_bytes"].default


@pytest.mark.parametrize("way", ["get", "post", "many"])
async def test_frames_pass_as_they_come(nginx: str, sqlite_url: str, tmp_path: Path, way: str) -> None:
    Gate.gate = asyncio.Event()
    async with running(sqlite_url, Gate) as server, through(nginx, tmp_path, server) as client:
        if way == "post":
            request = client.stream("POST", "/workflows/gate/runs", json={"input": {}}, headers=SSE)
        else:
            run_id = (await client.start("gate"))["run_id"]
            path = f"/runs/{run_id}/events" if way == "get" else f"/events?run_id={run_id}"
            request = client.stream("GET", path, headers=SSE)
        async with asyncio.timeout(PATIENCE_SECONDS), request as stream:
            seen = []
            async for event in read_sse(stream):
                seen.append(event.data.get("content", event.event))
                if seen[-1] == "before":
                    Gate.gate.set()
    assert seen[:3] == ["WorkflowStarted", "before", "after"]


async def test_comments_pass_while_nothing_happens(nginx: str, sqlite_url: str, tmp_path: Path) -> None:
    Gate.gate = asyncio.Event()
    async with (
        running(sqlite_url, Gate, ping_seconds=0.1) as server,
        through(nginx, tmp_path, server) as client,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        run_id = (await client.start("gate"))["run_id"]
        async with client.stream("GET", f"/runs/{run_id}/events", headers=SSE) as stream:
            comments = 0
            async for line in stream.aiter_lines():
                comments += line.startswith(":")
                if comments == 3:
                    break
        Gate.gate.set()


async def test_a_client_that_leaves_is_missed_behind_the_proxy(nginx: str, sqlite_url: str, tmp_path: Path) -> None:
    Gate.gate = asyncio.Event()
    async with running(sqlite_url, Gate) as server, through(nginx, tmp_path, server) as client:
        body = {"input": {}, "on_disconnect": "cancel"}
        async with client.stream("POST", "/workflows/gate/runs", json=body, headers=SSE) as stream:
            location = stream.headers["Content-Location"]
        assert (await server.ended(location.removeprefix("/runs/")))["status"] == "cancelled"


async def test_cursors_sizes_and_errors_are_the_services(nginx: str, sqlite_url: str, tmp_path: Path) -> None:
    async with running(sqlite_url, Long) as server, through(nginx, tmp_path, server) as client:
        runs = [await client.finish("long") for _ in range(2)]
        run_id = runs[0]["run_id"]
        whole = await client.events(run_id)
        assert await client.events(run_id, after=17) == whole[17:]
        ended = await client.get(f"/runs/{run_id}/events", headers=SSE | {"Last-Event-ID": whole[-1].id or ""})
        assert ended.status_code == 204
        problem_of(await client.get("/runs/unknown"), 404)
        large = {"input": {"count": 1, "more": "x" * 1_500_000}}
        problem_of(await client.post("/workflows/long/runs", json=large), 413)
        many = "&".join(f"run_id={run['run_id']}" for run in runs for _ in range(150))
        assert (await client.get(f"/events?{many}", headers=SSE)).status_code in {200, 422}, "no 414"
        unknown = await client.get("/sessions/%C3%BC%20%2525/state")
        assert "ü %25" in problem_of(unknown, 404)["detail"], "an id is decoded once"
        assert (await client.get("/metrics")).status_code == 404


async def test_when_one_server_stops_the_other_answers(nginx: str, postgres_template: str, tmp_path: Path) -> None:
    Gate.gate = asyncio.Event()
    with databases.copy_of_postgres(postgres_template) as url:
        async with running(url, Gate, Long) as staying, AsyncExitStack() as stack:
            leaving = await stack.enter_async_context(running(url, Gate, Long))
            async with through(nginx, tmp_path, staying, leaving) as client:
                run_id = (await client.start("gate"))["run_id"]
                readers = [asyncio.create_task(follow([str(client.base_url)], run_id)) for _ in range(4)]
                await asyncio.sleep(0.3)
                await stack.aclose()
                answers = [await client.get(f"/runs/{run_id}") for _ in range(8)]
                assert {answer.status_code for answer in answers} == {200}
                Gate.gate.set()
                logs = await asyncio.gather(*readers)
                assert logs == [await client.events(run_id)] * 4
                assert (await client.finish("long"))["status"] == "completed"
