"""Where the examples of one document run: a folder of their own, and a server when they start one."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.docs.documents import Block
from tests.docs.transcripts import Bindings, Command, commands_of

ADDRESSES = ("localhost:8000", "127.0.0.1:8000")
"""Where the documents have the server."""
SERVE = re.compile(r"(?:[A-Z_]+=\S+ )*millstream serve\b")
START_SECONDS = 30
COMMAND_SECONDS = 60


class Stage:
    """Runs blocks one after another."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._address = f"127.0.0.1:{free_port()}"
        self._bindings = Bindings()
        self._server: subprocess.Popen[bytes] | None = None
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("MILLSTREAM_")}
        self._environment |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "MILLSTREAM_PORT": self._address.rpartition(":")[2],
            "MILLSTREAM_DRAIN_SECONDS": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "TERM": "dumb",
        }

    def put(self, block: Block) -> None:
        """Write the file that a block is."""
        file = block.option("file")
        if file is not None:
            (self._folder / file).write_text(self._here(block.text))

    def perform(self, block: Block) -> None:
        """Run one block; raises AssertionError when it does not do what the document says."""
        if block.option("file") is not None:
            return
        if block.language == "python":
            self._succeed(["python", "-c", self._here(block.text)], block)
        elif block.language == "sh":
            self._succeed(["bash", "-euo", "pipefail", "-c", self._bindings.fill(self._here(block.text))], block)
        else:
            for command in commands_of(block.text):
                self._type(command, block)

    def close(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._server.send_signal(signal.SIGTERM)
            try:
                self._server.wait(10)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
            self._server = None

    def _type(self, command: Command, block: Block) -> None:
        line = self._bindings.fill(self._here(command.line))
        if (serving := SERVE.match(line)) and not command.expected:
            self._serve(line)
            return
        actual = self._serve(line) if serving else self._run(["bash", "-c", line])[1]
        shown = actual.replace(self._address, ADDRESSES[1]).replace("\r\n", "\n")
        assert self._bindings.match(command.expected, shown), (
            f"line {block.line}: `{command.line}` prints\n\n{shown}\n\nbut the document says\n\n{command.expected}\n"
        )

    def _serve(self, line: str) -> str:
        self.close()
        output = self._folder / "server.log"
        with output.open("wb") as stream:
            self._server = subprocess.Popen(
                ["bash", "-c", f"exec env {line}"],
                cwd=self._folder,
                env=self._environment,
                stdout=stream,
                stderr=stream,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            assert self._server.poll() is None, f"the server did not start:\n{output.read_text()}"
            assert time.monotonic() < deadline, f"the server is not ready:\n{output.read_text()}"
            time.sleep(0.02)
        return output.read_text()

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self._address}/readyz", timeout=5):
                return True
        except (urllib.error.URLError, ConnectionError):
            return False

    def _succeed(self, command: list[str], block: Block) -> None:
        code, output = self._run(command)
        assert code == 0, f"line {block.line}: exit code {code}\n\n{output}"

    def _run(self, command: list[str]) -> tuple[int, str]:
        done = subprocess.run(
            command,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        return done.returncode, done.stdout.decode()

    def _here(self, text: str) -> str:
        for address in ADDRESSES:
            text = text.replace(address, self._address)
        return text


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """A stage that is cleared in the end."""
    opened = Stage(folder)
    try:
        yield opened
    finally:
        opened.close()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
