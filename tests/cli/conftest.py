import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support import databases

MILLSTREAM = str(Path(sys.executable).with_name("millstream"))
START = re.compile(r"serves \d+ workflows? at (http://\S+?),")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")

WORKFLOWS = '''
"""Workflows of the tests."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

from app import RunResponse, Workflow
from pydantic import BaseModel


class Point(BaseModel):
    x: int
    y: float = 0


class Everything(Workflow):
    """Take one of each."""

    def run(
        self,
        text: str,
        number: int = 1,
        ratio: float = 0.5,
        flag: bool = False,
        words: list[str] | None = None,
        point: Point | None = None,
        kind: Literal["a", "b"] = "a",
        either: int | str = 0,
        anything: Any = None,
        scores: dict[str, int] | None = None,
    ) -> Iterator[RunResponse]:
        yield RunResponse(event="WorkflowCompleted", content=dict(self.input))


class Slow(Workflow):
    """Count slowly."""

    async def run(self, count: int = 3, seconds: float = 0.02) -> AsyncIterator[RunResponse]:
        for number in range(count):
            yield RunResponse(content=f"word{number} ")
            yield RunResponse(event="Reading", content={"done": number + 1, "total": count})
            await asyncio.sleep(seconds)
        self.session_state["count"] = count


class Fails(Workflow):
    """Fail in a step."""

    def run(self) -> Iterator[RunResponse]:
        yield RunResponse(content="so far")
        self.step(self.boom, name="boom")

    def boom(self) -> None:
        raise ValueError("kaput")
'''


@dataclass
class Cli:
    """The command `millstream` in a folder, with settings."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    def __call__(self, *words: str, **settings: Any) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return subprocess.run(
            [MILLSTREAM, *words],
            cwd=self.folder,
            env=self.environment(**settings),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def json(self, *words: str) -> Any:
        """The one JSON document that a command prints."""
        done = self(*words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def environment(self, **settings: Any) -> dict[str, str]:
        """The process's environment: nothing of ours but these settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MILLSTREAM_")}
        named = {f"MILLSTREAM_{name.upper()}": str(value) for name, value in settings.items()}
        return kept | self.settings | named

    @contextmanager
    def serving(self, **settings: Any) -> Iterator["Serving"]:
        """A server; its address is in its environment, and the command's from then on."""
        log = (self.folder / "server.log").open("w+")
        process = subprocess.Popen(
            [MILLSTREAM, "serve"], cwd=self.folder, env=self.environment(**settings), stdout=log, stderr=log
        )
        try:
            serving = Serving(process, Path(log.name))
            self.settings["MILLSTREAM_URL"] = serving.url = serving.wait_for(START)[1]
            yield serving
        finally:
            process.kill()
            process.wait()
            log.close()


@dataclass
class Serving:
    """A server's process."""

    process: "subprocess.Popen[bytes]"
    log: Path
    url: str = ""

    def wait_for(self, pattern: re.Pattern[str], seconds: float = 30) -> re.Match[str]:
        """Wait until the log says it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (match := pattern.search(self.log.read_text())) is not None:
                return match
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        raise AssertionError(f"{pattern.pattern} is not in {self.log.read_text()}")

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *words: str, folder: Path, environment: dict[str, str]) -> None:
        self.shown = ""
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.chdir(folder)
            os.execvpe(words[0], words, environment)

    def wait_for(self, text: str, seconds: float = 30) -> None:
        """Read until the terminal has shown it."""
        deadline = time.monotonic() + seconds
        while text not in self.shown:
            assert time.monotonic() < deadline, self.shown
            assert self._read(), self.shown

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.write(self._terminal, b"\x03")

    def exit_code(self, seconds: float = 30) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < deadline, self.shown
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def _read(self) -> bool:
        """Whether the terminal is still open."""
        ready, _, _ = select.select([self._terminal], [], [], 0.1)
        if not ready:
            return True
        try:
            said = os.read(self._terminal, 65536)
        except OSError:  # how a terminal tells that nobody writes to it any more
            return False
        self.shown += CONTROL.sub("", said.decode(errors="replace"))
        return bool(said)


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """The command in a folder that has workflows."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "flows.py").write_text(WORKFLOWS)
    settings = {"WORKFLOWS": "flows", "SHIPPED_WORKFLOWS": "false", "PORT": "0", "DRAIN_SECONDS": "0.2"}
    return Cli(folder, {f"MILLSTREAM_{name}": value for name, value in settings.items()})


@pytest.fixture(scope="module")
def server(cli: Cli) -> Iterator[Cli]:
    """The command, with a server to talk to."""
    with cli.serving():
        yield cli


@pytest.fixture
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'new' / 'millstream.db'}"
    else:
        databases.skip_without_postgres()
        with databases.copy_of_postgres(None) as url:
            yield url
