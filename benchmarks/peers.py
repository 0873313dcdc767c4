"""The servers that are compared, and how each is started on a database of its own."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from app.store.migrations import migrate
from benchmarks.servers import Server, started
from tests.support import databases
from tests.support.cluster import MILLSTREAM, free_port


@dataclass(frozen=True)
class Peer:
    """A kind of server, which may be started any number of times."""

    name: str
    database: str
    """`sqlite` or `postgres`."""
    command: Callable[[str, int], tuple[list[str], dict[str, str]]]
    """Command and environment for a database's URL and a port."""

    @contextmanager
    def started(self) -> Iterator[Server]:
        """One of it over a fresh database, until the block ends."""
        with fresh_database(self.database) as url, self.over(url) as server:
            yield server

    @contextmanager
    def over(self, url: str) -> Iterator[Server]:
        """One of it over a database that is there."""
        port = free_port()
        command, environment = self.command(url, port)
        with started(command, environment, port) as server:
            yield server


def bare(database: str) -> Peer:
    """The bare server."""
    return Peer("bare", database, _bare)


def ours(database: str, **settings: Any) -> Peer:
    """The service, as anybody starts it."""

    def command(url: str, port: int) -> tuple[list[str], dict[str, str]]:
        chosen = {"log_level": "warning", "workflows": "benchmarks.workflows", "drain_seconds": 0} | settings
        chosen |= {"database_url": url, "port": port}
        return [*MILLSTREAM, "serve"], {f"MILLSTREAM_{name.upper()}": str(value) for name, value in chosen.items()}

    return Peer("ours", database, command)


@contextmanager
def fresh_database(kind: str) -> Iterator[str]:
    """The URL of a migrated database that nobody has used."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="millstream-benchmark-") as folder:
            url = f"sqlite:///{folder}/millstream.db"
            migrate(url)
            yield url
    else:
        with databases.copy_of_postgres(None) as url:
            migrate(url)
            yield url


def _bare(url: str, port: int) -> tuple[list[str], dict[str, str]]:
    return [sys.executable, "-m", "benchmarks.bare", url, str(port)], {}
