"""What a database says of itself and of the work in it, to somebody who only looks.

The service may be running or not; nothing is written, and no lock of the service's is taken.
"""

import os
import shutil
import socket
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from app.clock import MICROSECONDS, microseconds
from app.errors import ConfigurationError
from app.store.database import driver_url

CONNECT_SECONDS = 5
DELIVERY_SECONDS = 3.0
"""How long a notification may take."""
STUCK_SECONDS = 60
"""A run that has its turn for so long without a worker is waiting for one that is not there."""

LATE_SECONDS = 2
"""How long beyond its lease a worker's runs may take to go on elsewhere."""

Ask = Callable[[str], list[tuple[Any, ...]]]
"""Runs a query, and gives its rows."""


class Unreachable(Exception):
    """The database cannot be looked at."""


@dataclass(frozen=True, slots=True)
class Work:
    """The work in a database that has tables."""

    revision: str | None
    workers: int = 0
    """Processes that are alive."""
    silent: int = 0
    """Processes that are not, and never said so."""
    left: int = 0
    """Runs that execute in none that is alive."""
    stuck: int = 0
    """Runs that have their turn, and that nobody has taken for a minute."""
    waiting: int = 0
    """All runs that wait."""


@dataclass(frozen=True, slots=True)
class SqliteFacts:
    """Of a file; None for what is not known while there is none."""

    file: Path
    exists: bool
    library: tuple[int, int, int]
    filesystem: str
    free_bytes: int
    size_bytes: int
    journal_mode: str | None = None
    work: Work | None = None


@dataclass(frozen=True, slots=True)
class PostgresFacts:
    """Of a server."""

    version: int
    """As the server numbers it: 150004 is 15.4."""
    settings: dict[str, str]
    connections: int
    skew_seconds: float
    """How far our clock is ahead of the server's."""
    pooled: bool
    """Whether something is between us and the server that shares connections."""
    hears: bool
    """Whether a notification came through."""
    work: Work


def inspect_sqlite(url: str) -> SqliteFacts:
    """Look at a file; raises Unreachable when it cannot be read."""
    file = Path(make_url(url).database or "").absolute()
    folder = next(parent for parent in [file.parent, *file.parents] if parent.exists())
    facts: dict[str, Any] = {
        "file": file,
        "exists": file.exists(),
        "library": sqlite3.sqlite_version_info,
        "filesystem": filesystem_of(folder, Path("/proc/self/mountinfo")),
        "free_bytes": shutil.disk_usage(folder).free,
        "size_bytes": file.stat().st_size if file.exists() else 0,
    }
    if not file.exists():
        return SqliteFacts(**facts)
    try:
        with closing(sqlite3.connect(_read_only(file), uri=True, timeout=CONNECT_SECONDS)) as connection:
            ask: Ask = lambda query: connection.execute(query, {"stuck": STUCK_SECONDS}).fetchall()  # noqa: E731
            return SqliteFacts(**facts, journal_mode=_journal_mode(file), work=_work_on_sqlite(ask))
    except sqlite3.Error as error:
        raise Unreachable(f"{file} cannot be read: {error}") from None


def _read_only(file: Path) -> str:
    """Without its log nobody has the file open, and looking is not to leave one behind."""
    logged = file.with_name(f"{file.name}-wal").exists()
    return f"{file.as_uri()}?mode=ro" if logged else f"{file.as_uri()}?mode=ro&immutable=1"


def _journal_mode(file: Path) -> str:
    """From the file's own header: a connection that takes the file for one that never changes would not say."""
    with file.open("rb") as opened:
        versions = opened.read(20)[18:]
    return "wal" if versions == b"\x02\x02" else "rollback"


def filesystem_of(folder: Path, mounts: Path) -> str:
    """The kind of file system that a folder is on, from a mountinfo of the kernel's; empty where there is none."""
    if not mounts.exists():
        return ""
    best, kind = "", ""
    for line in mounts.read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = left.split(" ")[4].replace("\\040", " ")
        if (folder == Path(point) or Path(point) in folder.parents) and len(point) >= len(best):
            best, kind = point, right.split(" ")[0]
    return kind


_WAITING = "SELECT count(*) FROM runs WHERE status = 'queued'"
_STUCK = (
    "SELECT count(*) FROM runs JOIN sessions"
    " ON sessions.tenant_id = runs.tenant_id AND sessions.session_id = runs.session_id"
    " WHERE runs.status = 'queued' AND sessions.active_run_id = runs.run_id AND "
)
_STUCK_ON_SQLITE = _STUCK + "(julianday('now') - julianday(runs.created_at)) * 86400 > :stuck"
_STUCK_ON_POSTGRES = _STUCK + "runs.created_at < now() - make_interval(secs => %(stuck)s)"
_LIVE_WORKERS = "SELECT count(*) FROM workers WHERE heartbeat_at > now() - make_interval(secs => %(silence)s)"
_SILENT_WORKERS = "SELECT count(*) FROM workers WHERE heartbeat_at <= now() - make_interval(secs => %(silence)s)"
_LEFT_RUNS = (
    "SELECT count(*) FROM runs WHERE status = 'running' AND NOT EXISTS (SELECT 1 FROM workers"
    " WHERE workers.worker_id = runs.worker_id AND heartbeat_at > now() - make_interval(secs => %(silence)s))"
)


def _work_on_sqlite(ask: Ask) -> Work:
    if not ask("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"):
        return Work(None)
    ((revision,),) = ask("SELECT version_num FROM alembic_version")
    workers = ask("SELECT worker_id, host, process_id FROM workers")
    alive = {worker for worker, host, process in workers if host == socket.gethostname() and _lives(process)}
    running = ask("SELECT worker_id FROM runs WHERE status = 'running'")
    return Work(
        revision,
        workers=len(alive),
        silent=len(workers) - len(alive),
        left=sum(worker not in alive for (worker,) in running),
        stuck=_count(ask, _STUCK_ON_SQLITE),
        waiting=_count(ask, _WAITING),
    )


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _count(ask: Ask, query: str) -> int:
    ((count,),) = ask(query)
    return int(count)


def inspect_postgres(url: str, *, lease_seconds: float) -> PostgresFacts:
    """Look at a server; raises Unreachable when it does not let us, ConfigurationError without the extra."""
    try:
        import psycopg  # noqa: PLC0415  a library of the extra `postgres`
    except ModuleNotFoundError:
        raise ConfigurationError("Postgres needs the extra: pip install 'millstream[postgres]'") from None

    try:
        with psycopg.connect(driver_url(url), autocommit=True, connect_timeout=CONNECT_SECONDS) as connection:
            given = {"stuck": STUCK_SECONDS, "silence": lease_seconds + LATE_SECONDS}
            ask: Ask = lambda query: connection.execute(query.encode(), given).fetchall()  # noqa: E731
            settings: dict[str, str] = dict(ask("SELECT name, setting FROM pg_settings"))
            ((backend,),) = ask("SELECT pg_backend_pid()")
            return PostgresFacts(
                version=int(settings["server_version_num"]),
                settings=settings,
                connections=_count(ask, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"),
                skew_seconds=_skew(ask),
                pooled=connection.info.backend_pid != backend,
                hears=_hears(connection, url),
                work=_work_on_postgres(ask),
            )
    except psycopg.Error as error:
        raise Unreachable(" ".join(str(error).split())) from None


def _skew(ask: Ask) -> float:
    """Against the middle of the question, so that its journey counts for nothing."""
    before = microseconds()
    ((theirs,),) = ask("SELECT extract(epoch FROM clock_timestamp()) * 1000000")
    return ((before + microseconds()) / 2 - float(theirs)) / MICROSECONDS


def _hears(connection: Any, url: str) -> bool:
    """Whether what is notified over another connection comes to this one, which listens."""
    import psycopg  # noqa: PLC0415

    channel = f"millstream_doctor_{os.getpid()}_{time.monotonic_ns()}"
    connection.execute(f"LISTEN {channel}".encode())
    with psycopg.connect(driver_url(url), autocommit=True, connect_timeout=CONNECT_SECONDS) as other:
        other.execute("SELECT 1")  # so that a pooler gives it a connection to the server of its own
        other.execute("SELECT pg_notify(%s, '')", (channel,))
        heard = any(True for _ in connection.notifies(timeout=DELIVERY_SECONDS, stop_after=1))
    connection.execute(f"UNLISTEN {channel}".encode())
    return heard


def _work_on_postgres(ask: Ask) -> Work:
    if not ask("SELECT 1 FROM pg_tables WHERE tablename = 'alembic_version' AND schemaname = current_schema()"):
        return Work(None)
    ((revision,),) = ask("SELECT version_num FROM alembic_version")
    return Work(
        revision,
        workers=_count(ask, _LIVE_WORKERS),
        silent=_count(ask, _SILENT_WORKERS),
        left=_count(ask, _LEFT_RUNS),
        stuck=_count(ask, _STUCK_ON_POSTGRES),
        waiting=_count(ask, _WAITING),
    )
