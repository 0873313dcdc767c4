"""Servers in processes of their own: started, held, measured by what the kernel knows of them (Linux)."""

import asyncio
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.connection import Connection
from tests.support.cluster import ROOT

START_SECONDS = 60.0
STOP_SECONDS = 10.0
LOOK_SECONDS = 0.01

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = resource.getpagesize()


@dataclass
class Server:
    """One server: its process and all that this has started."""

    process: subprocess.Popen[bytes]
    port: int
    begun: float = field(default_factory=time.perf_counter)

    async def ready(self) -> float:
        """Wait until it serves; how long that took since it was begun, in seconds."""
        async with asyncio.timeout(START_SECONDS):
            while self.process.poll() is None:
                with suppress(OSError):
                    connection = await Connection.open(self.port)
                    answer = await connection.ask("GET", "/readyz")
                    connection.close()
                    if answer.status == 200:
                        return time.perf_counter() - self.begun
                await asyncio.sleep(LOOK_SECONDS)
        raise RuntimeError(f"a server did not start: exit code {self.process.returncode}")

    def hold(self) -> None:
        """Take it off the machine."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def release(self) -> None:
        """Let it go on."""
        os.killpg(self.process.pid, signal.SIGCONT)

    def cpu_seconds(self) -> float:
        """What it has used so far, in user and system; of children that have ended too."""
        return sum(sum(map(int, fields[11:15])) for fields in self._statistics()) / _TICKS

    def resident_bytes(self) -> int:
        """Its memory now."""
        return sum(int(fields[21]) for fields in self._statistics()) * _PAGE_BYTES

    def _statistics(self) -> Iterator[list[str]]:
        """Of each process of its session, the fields of /proc/<id>/stat after its name."""
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if os.getsid(int(folder.name)) == self.process.pid:
                    yield (folder / "stat").read_text().rpartition(") ")[2].split()


@contextmanager
def started(command: list[str], environment: dict[str, str], port: int) -> Iterator[Server]:
    """A server until the block ends; what it said is told if it fell."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | environment,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a session is what is held, and measured, as a whole
        )
        server = Server(process, port)
        try:
            yield server
        finally:
            fallen = process.poll() is not None
            _stop(server)
            output.seek(0)
            if fallen:
                print(f"a server ended by itself, with {process.returncode}:\n{output.read().decode()}", flush=True)


def _stop(server: Server) -> None:
    with suppress(ProcessLookupError):
        server.release()
        server.process.terminate()
    try:
        server.process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()
