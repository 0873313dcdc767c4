"""The layout of docker-compose.yml as a whole: its commands and its environment, as processes of this machine."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest

from app import RunResponse, Workflow
from tests.deploy.composition import SERVICES, environment_of
from tests.support.cluster import Member, free_port, run_command
from tests.support.following import follow, logged
from tests.support.nginx import nginx_program, nginx_proxy
from tests.support.postgres import PostgresServer, postgres_server
from tests.support.server import Client, SseEvent, read_sse
from tests.support.waiting import until

SSE = {"Accept": "text/event-stream"}
Followed = tuple[str, list[SseEvent]]
"""A run, and what a reader saw of it."""
CALLERS = 3
BURST = 6
"""Runs that begin together just before a process is stopped: no worker is idle then."""
START_SECONDS = 90.0
"""Four processes that start at once have little of a small machine each."""
PIECES = 40
NGINX_FORGETS_SECONDS = 2.5
"""`fail_timeout` of deploy/nginx.conf and a little: whoever restarts the servers in turn waits as long between them."""
OURS = {
    "MILLSTREAM_WORKFLOWS": "tests.deploy.test_layout:Telling",
    "MILLSTREAM_SHIPPED_WORKFLOWS": "false",
    "MILLSTREAM_DRAIN_SECONDS": "1",  # shorter than most runs, so that they are handed over, and the test is short
    "MILLSTREAM_CANCEL_GRACE_SECONDS": "1",
    "MILLSTREAM_LOG_LEVEL": "warning",
}
"""What is not the compose file's."""


class Telling(Workflow):
    """Text in pieces, with a step before each tenth."""

    async def run(self, seconds: float = 0.1) -> AsyncIterator[RunResponse]:
        for number in range(PIECES):
            if number % 10 == 0:
                await self.step(self.work, number)
            yield RunResponse(content=f"{number} ")
            await asyncio.sleep(seconds)
        self.session_state["told"] = self.session_state.get("told", 0) + 1

    async def work(self, number: int) -> int:
        await asyncio.sleep(0.05)
        return number


CONTENT = "".join(f"{number} " for number in range(PIECES))


@dataclass
class Layout:
    """The services that have processes, and where nginx listens."""

    servers: list[Member]
    workers: list[Member]
    url: str

    def client(self) -> Client:
        """A client whose requests pass through nginx."""
        return Client(base_url=self.url, timeout=20)


@pytest.fixture
def nginx() -> str:
    return nginx_program()


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """With the user and the database of the service `postgres`."""
    with postgres_server() as server:
        named = environment_of("postgres")
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {named['POSTGRES_USER']} LOGIN".encode())
            owned = f"CREATE DATABASE {named['POSTGRES_DB']} OWNER {named['POSTGRES_USER']}"
            connection.execute(owned.encode())
        yield server


def environment(service: str, postgres: PostgresServer) -> dict[str, str]:
    """That of the service, the address of Postgres apart."""
    variables = environment_of(service)
    url = variables["MILLSTREAM_DATABASE_URL"]
    assert "@postgres:5432/" in url
    return (
        OURS | variables | {"MILLSTREAM_DATABASE_URL": url.replace("@postgres:5432/", f"@127.0.0.1:{postgres.port}/")}
    )


@asynccontextmanager
async def layout(nginx: str, postgres: PostgresServer, folder: Path) -> AsyncIterator[Layout]:
    """All of it: migrated, the servers and workers up, nginx before them."""
    code, said = await run_command(environment("migrate", postgres), *SERVICES["migrate"]["command"])
    assert code == 0, said
    members = {
        name: [
            Member(f"{name} {number}", SERVICES[name]["command"], environment(name, postgres), None)
            for number in range(SERVICES[name]["deploy"]["replicas"])
        ]
        for name in ("serve", "worker")
    }
    for server in members["serve"]:
        server.port = free_port()
        server.environment["MILLSTREAM_PORT"] = str(server.port)
    async with AsyncExitStack() as stack:
        for member in (*members["serve"], *members["worker"]):
            stack.callback(member.remove)
            member.begin()
        await asyncio.gather(*(member.ready(START_SECONDS) for member in (*members["serve"], *members["worker"])))
        addresses = [httpx.URL(server.url) for server in members["serve"]]
        url = stack.enter_context(nginx_proxy(nginx, folder, *addresses))
        whole = Layout(members["serve"], members["worker"], url)
        async with whole.client() as client:
            await until(lambda: _answers(client))
        yield whole


async def _answers(client: Client) -> bool:
    try:
        return (await client.get("/healthz")).status_code == 200
    except httpx.TransportError:
        return False


async def part(server: Member, run_id: str, *, after: int, most: int) -> list[SseEvent]:
    """So many events past a number, as one server streams them; then the connection is cut."""
    seen: list[SseEvent] = []
    headers = SSE | ({"Last-Event-ID": str(after)} if after else {})
    async with (
        Client(base_url=server.url, timeout=20) as client,
        client.stream("GET", f"/runs/{run_id}/events", headers=headers) as stream,
    ):
        async for event in read_sse(stream):
            seen.append(event)
            if len(seen) == most:
                break
    return seen


async def in_turns(servers: list[Member], run_id: str, chance: random.Random) -> list[SseEvent]:
    """The whole stream, from one server after the other, with a cut after every few events."""
    seen: list[SseEvent] = []
    for server in cycle(servers):
        seen += await part(server, run_id, after=len(seen), most=chance.randint(1, 12))
        if seen[-1].event == "RunFinished":
            break
    return seen


@pytest.mark.slow
async def test_a_stream_is_the_same_whichever_server_it_is_read_from(
    nginx: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    async with layout(nginx, postgres, tmp_path) as whole, whole.client() as client:
        run_id = (await client.start("telling"))["run_id"]
        live = await asyncio.gather(*(in_turns(whole.servers, run_id, random.Random(seed)) for seed in range(4)))
        past = await in_turns(whole.servers, run_id, random.Random(4))
        log = await logged(client, run_id)
        assert (await client.ended(run_id))["content"] == CONTENT
        for stream in (*live, past, await client.events(run_id)):
            assert [event.data for event in stream] == log
            assert [event.id for event in stream] == [str(number) for number in range(1, len(log) + 1)]
        many = await client.get(f"/events?run_id={run_id}", headers=SSE)
        assert many.text.count("event: RunFinished") == 1


async def start(client: Client) -> str:
    """A run, by a caller who repeats what a stopping server refuses."""
    key = {"Idempotency-Key": str(uuid4())}
    while True:
        try:
            answer = await client.post("/workflows/telling/runs", json={"input": {}}, headers=key)
        except httpx.TransportError:
            continue
        if answer.status_code == 202:
            return str(answer.json()["run_id"])
        assert answer.status_code in {502, 503}, answer.text  # 502: it was sent, and nginx may not send it twice
        await asyncio.sleep(0.1)


@dataclass
class Callers:
    """Those who start runs and follow them through nginx, for as long as it goes on."""

    whole: Layout
    going_on: bool = True

    async def call(self) -> list[Followed]:
        """One after the other; what was seen of each."""
        seen: list[Followed] = []
        async with self.whole.client() as client:
            while self.going_on:
                seen.append(await self.one(client))
        return seen

    async def one(self, client: Client) -> Followed:
        """A run to its end."""
        run_id = await start(client)
        return run_id, await asyncio.wait_for(follow([self.whole.url], run_id), 200)

    async def look(self) -> set[int]:
        """Reads, which nginx asks again elsewhere: how they were answered."""
        statuses: set[int] = set()
        async with self.whole.client() as client:
            while self.going_on:
                statuses.add((await client.get("/runs", params={"limit": 3})).status_code)
                await asyncio.sleep(0.3)
        return statuses


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_rolling_restart_costs_nobody_anything(nginx: str, postgres: PostgresServer, tmp_path: Path) -> None:
    async with layout(nginx, postgres, tmp_path) as whole, whole.client() as client:
        callers = Callers(whole)
        calling = [asyncio.create_task(callers.call()) for _ in range(CALLERS)]
        looking = asyncio.create_task(callers.look())
        burst: list[asyncio.Task[Followed]] = []
        for member in (*whole.servers, *whole.workers):
            burst += [asyncio.create_task(callers.one(client)) for _ in range(BURST)]
            await asyncio.sleep(NGINX_FORGETS_SECONDS if member.port else 0.5)
            member.terminate()
            assert await member.exited(START_SECONDS) == 0, member.said()
            await member.start(START_SECONDS)
        callers.going_on = False
        followed = [run for runs in await asyncio.gather(*calling) for run in runs] + await asyncio.gather(*burst)
        assert await looking == {200}
        attempts = 0
        for run_id, events in followed:
            run = await client.ended(run_id)
            assert (run["status"], run["content"]) == ("completed", CONTENT), run
            log = await logged(client, run_id)
            assert [event.data for event in events] == log
            assert [event["sequence"] for event in log] == list(range(1, len(log) + 1))
            steps = [event["name"] for event in log if event["event"] == "StepCompleted"]
            assert len(steps) == PIECES // 10
            attempts += run["attempt"]
        assert attempts > len(followed), "some were handed over"
        assert all(" error " not in member.said() for member in (*whole.servers, *whole.workers))
