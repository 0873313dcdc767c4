"""Several real processes of the service over one database, to be killed, put to sleep and started again."""

import asyncio
import inspect
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from app.workflow.workflow import Workflow
from tests.support.server import Client

ROOT = Path(__file__).resolve().parent.parent.parent
MILLSTREAM = [sys.executable, "-c", "from app.cli import main; main()"]
STARTED = b"executes runs;"
"""What a worker says when it is up."""


@dataclass
class Member:
    """One process, which may be started again under the same name and, if it serves, at the same address."""

    name: str
    command: list[str]
    environment: dict[str, str]
    port: int | None
    process: subprocess.Popen[bytes] | None = None
    output: Path = field(default_factory=lambda: Path(tempfile.mkstemp(prefix="millstream-", suffix=".log")[1]))
    up: bool = False
    """Whether it was ready, and has not been killed or put to sleep since."""
    _said_before: int = 0

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The number of its process."""
        assert self.process is not None
        return self.process.pid

    def begin(self) -> None:
        """Start it, without waiting until it is up."""
        self._said_before = self.output.stat().st_size
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [*MILLSTREAM, *self.command],
                cwd=ROOT,
                env=os.environ | self.environment,
                stdout=output,
                stderr=output,
            )

    async def start(self, seconds: float = 40) -> None:
        """Start it, and wait until it is up."""
        self.begin()
        await self.ready(seconds)

    async def ready(self, seconds: float = 40) -> None:
        """Wait until it is up; raises RuntimeError with what it said when it ended instead."""
        async with asyncio.timeout(seconds), httpx.AsyncClient() as client:
            while not await self._answers(client):
                assert self.process is not None
                if self.process.poll() is not None:
                    raise RuntimeError(f"{self.name} did not start:\n{self.said()}")
                await asyncio.sleep(0.03)
        self.up = True

    def kill(self) -> None:
        """End it as a power cut would: nothing of it runs any more."""
        self.up = False
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def freeze(self) -> None:
        """Put it to sleep where it stands."""
        self.up = False
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)
        self.up = True

    def terminate(self) -> None:
        """Ask it to stop."""
        self.up = False
        self._signal(signal.SIGTERM)

    async def exited(self, seconds: float = 30) -> int:
        """Its exit code, once it has ended by itself."""
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, seconds)

    def said(self) -> str:
        """What it wrote, over all its lives."""
        return self.output.read_text(errors="replace")

    def remove(self) -> None:
        """End it for good."""
        self.kill()
        self.output.unlink(missing_ok=True)

    def _signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def _answers(self, client: httpx.AsyncClient) -> bool:
        if self.port is None:
            return STARTED in self.output.read_bytes()[self._said_before :]
        try:
            return (await client.get(f"{self.url}/readyz", timeout=2)).status_code == 200
        except httpx.TransportError:
            return False


@dataclass
class Cluster:
    """All processes over one database."""

    database_url: str
    servers: list[Member]
    workers: list[Member]

    @property
    def members(self) -> list[Member]:
        """All of them."""
        return [*self.servers, *self.workers]

    @property
    def executors(self) -> list[Member]:
        """Those that execute runs: the workers, or the one server where there are none."""
        return self.workers or self.servers

    async def whole(self) -> None:
        """Start whatever does not run."""
        fallen = [member for member in self.members if member.process is None or member.process.poll() is not None]
        for member in fallen:
            member.begin()
        for member in self.members:
            if not member.up:
                member.thaw()
        await asyncio.gather(*(member.ready() for member in fallen))

    def client(self, server: int = 0) -> Client:
        """A client of one of the servers."""
        return Client(base_url=self.servers[server].url, timeout=30)


@asynccontextmanager
async def cluster(
    database_url: str, *workflows: type[Workflow] | str, servers: int = 2, workers: int = 2, **settings: Any
) -> AsyncIterator[Cluster]:
    """On Postgres so many `serve --no-worker` and `worker`; on SQLite the one `serve` that there can be.

    Without workers, the servers execute runs too. Workflows are classes at the top level of test modules, or names of
    modules.
    """
    chosen = {"drain_seconds": 0, "cancel_grace_seconds": 1, "shipped_workflows": False, "log_level": "warning"}
    chosen |= {"database_url": database_url, "workflows": ",".join(map(_target, workflows))}
    environment = {f"MILLSTREAM_{name.upper()}": str(value) for name, value in (chosen | settings).items()}
    if database_url.startswith("sqlite"):
        members = Cluster(database_url, [_server("serve", [], environment)], [])
    else:
        options = ["--no-worker"] if workers else []
        serving = [_server(f"serve {number}", options, environment) for number in range(servers)]
        working = [Member(f"worker {number}", ["worker"], environment, None) for number in range(workers)]
        members = Cluster(database_url, serving, working)
    try:
        for member in members.members:
            member.begin()
        await asyncio.gather(*(member.ready() for member in members.members))
        yield members
    finally:
        for member in members.members:
            member.remove()


async def run_command(environment: dict[str, str], *arguments: str, seconds: float = 60) -> tuple[int, str]:
    """One call of the command line: its exit code, and all that it said."""
    process = await asyncio.create_subprocess_exec(
        *MILLSTREAM,
        *arguments,
        cwd=ROOT,
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), seconds)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, said.decode()


def free_port() -> int:
    """A port that nobody uses just now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def _server(name: str, options: list[str], environment: dict[str, str]) -> Member:
    port = free_port()
    return Member(name, ["serve", *options], environment | {"MILLSTREAM_PORT": str(port)}, port)


def _target(workflow: type[Workflow] | str) -> str:
    """`module:Class`, the module by its file: what the test runner calls it does not matter to another process."""
    if isinstance(workflow, str):
        return workflow
    file = Path(inspect.getfile(workflow)).resolve().relative_to(ROOT).with_suffix("")
    return f"{'.'.join(file.parts)}:{workflow.__name__}"
