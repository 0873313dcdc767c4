"""A Postgres server of a test's own, to be stopped and restarted."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.cluster import free_port

OWNER = "postgres"
"""Who runs it where the tests run as root, which Postgres refuses to run as."""
CONFIGURATION = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{folder}'
max_connections = 200
shared_buffers = 32MB
fsync = off  # what it has written survives it; only the machine may not go down
"""


@dataclass
class PostgresServer:
    """The server, its data in a folder of its own."""

    programs: Path
    folder: Path
    port: int

    @property
    def url(self) -> str:
        """Its one database."""
        return f"postgresql://{OWNER}@127.0.0.1:{self.port}/postgres"

    def create(self) -> None:
        """Make its files, and start it."""
        self._run("initdb", "--username", OWNER, "--auth", "trust", "--no-sync", "--encoding", "UTF8", "-D", self._data)
        with (self.folder / "data" / "postgresql.conf").open("a") as configuration:
            configuration.write(CONFIGURATION.format(port=self.port, folder=self.folder))
        self.start()

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-l", str(self.folder / "log"))

    def stop(self, mode: str = "fast") -> None:
        """End it: `fast` ends its connections, `immediate` is a crash."""
        self._run("pg_ctl", "stop", "-w", "-m", mode, "-D", self._data)

    def restart(self, mode: str = "fast") -> None:
        """End it, and start it again."""
        self._run("pg_ctl", "restart", "-w", "-m", mode, "-D", self._data, "-l", str(self.folder / "log"))

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _run(self, program: str, *arguments: str) -> None:
        with (self.folder / "said").open("ab") as said:  # a pipe would stay open as long as the server runs
            done = subprocess.run(
                [str(self.programs / program), *arguments],
                cwd=self.folder,
                user=_owner(),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                timeout=60,
                check=False,
            )
        assert done.returncode == 0, f"{program} {arguments}: {(self.folder / 'said').read_text()}"


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A running one, empty; skips, loudly, where there are no programs of it, or nobody to run them."""
    programs = _programs()
    if programs is None:
        pytest.skip("NO POSTGRES PROGRAMS: install the server (initdb, pg_ctl); its restart goes untested")
    folder = Path(tempfile.mkdtemp(prefix="millstream-postgres-"))
    try:
        if (owner := _owner()) is not None:
            shutil.chown(folder, owner)
        server = PostgresServer(programs, folder, free_port())
        server.create()
        try:
            yield server
        finally:
            subprocess.run(
                [programs / "pg_ctl", "stop", "-m", "immediate", "-D", folder / "data"],
                user=_owner(),
                cwd=folder,
                capture_output=True,
                check=False,  # it may be stopped already
            )
    finally:
        shutil.rmtree(folder)


def _programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`: that of the path, else the newest where Debian has them."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda place: int(place.parts[-3]))
    return places[-1].parent if places else None


def _owner() -> str | None:
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(OWNER)
    except KeyError:
        pytest.skip(f"NO USER {OWNER}: Postgres does not run as root; its restart goes untested")
    return OWNER
