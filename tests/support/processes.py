"""A real server in a process of its own, to be killed, stopped and started again."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx

from app.workflow.workflow import Workflow
from tests.support.server import Client

ROOT = Path(__file__).resolve().parent.parent.parent
SERVE = "from app.cli import main; main()"


@dataclass
class ServerProcess:
    """The process, and a client of it."""

    process: subprocess.Popen[bytes]
    client: Client

    @property
    def pid(self) -> int:
        """The process's number."""
        return self.process.pid

    def kill(self) -> None:
        """End it as a power cut would: nothing of it runs any more."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def terminate(self) -> None:
        """Ask it to stop."""
        self.process.send_signal(signal.SIGTERM)

    async def exited(self, seconds: float) -> int:
        """Its exit code, once it has ended by itself."""
        return await asyncio.to_thread(self.process.wait, seconds)


@asynccontextmanager
async def server_process(
    database_url: str, *workflows: type[Workflow], **settings: Any
) -> AsyncIterator[ServerProcess]:
    """A server of workflows that test modules define at their top level."""
    port = _free_port()
    chosen = {"drain_seconds": 0, "cancel_grace_seconds": 1, "shipped_workflows": False} | settings
    chosen |= {"database_url": database_url, "port": port, "workflows": ",".join(map(_target, workflows))}
    named = {f"MILLSTREAM_{name.upper()}": str(value) for name, value in chosen.items()}
    with tempfile.TemporaryFile() as output:
        process = _serve(named, output)
        try:
            async with Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                await _ready(client, process, output)
                yield ServerProcess(process, client)
        finally:
            process.kill()
            process.wait()


def _serve(environment: dict[str, str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", SERVE, "serve"]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stdout=output, stderr=output)


async def _ready(client: Client, process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
    async with asyncio.timeout(30):
        while True:
            if process.poll() is not None:
                output.seek(0)
                raise RuntimeError(f"the server did not start:\n{output.read().decode()}")
            try:
                if (await client.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.02)


def _target(workflow: type[Workflow]) -> str:
    """`module:Class`, the module by its file: what the test runner calls it does not matter to another process."""
    file = Path(inspect.getfile(workflow)).resolve().relative_to(ROOT).with_suffix("")
    return f"{'.'.join(file.parts)}:{workflow.__name__}"


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
