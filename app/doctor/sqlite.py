"""Checks of a SQLite file, its library and its disk."""

from app.doctor.finding import Finding, ok, warning, wrong
from app.store.inspection import SqliteFacts

FIXED = (3, 51, 3)
"""The first SQLite without the bug that resets a write-ahead log under two connections that write."""
NETWORK = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "glusterfs", "lustre", "nfs",
    "nfs4", "smb3", "smbfs",
})  # fmt: skip
ROOM_BYTES = 1024**3
LEAST_BYTES = 4 * 1024**2
"""Below this the service writes nothing; see store/sqlite.py."""


def check_file(facts: SqliteFacts) -> Finding:
    """Whether the file is there."""
    if not facts.exists:
        return ok("database", f"{facts.file} is not there yet; `millstream serve` makes it")
    return ok("database", f"{facts.file} can be read, {_mebibytes(facts.size_bytes)}")


def check_library(facts: SqliteFacts) -> Finding:
    """Whether the library has a bug that matters here."""
    version = ".".join(map(str, facts.library))
    if facts.library < FIXED:
        fixed = ".".join(map(str, FIXED))
        return warning(
            "sqlite version",
            f"SQLite {version} can corrupt a file that several processes write, which {fixed} does not",
            "let nothing but the one service write the file, or install a newer SQLite",
        )
    return ok("sqlite version", version)


def check_filesystem(facts: SqliteFacts) -> Finding:
    """Whether locks can be trusted."""
    if facts.filesystem in NETWORK:
        return wrong(
            "file system",
            f"{facts.file.parent} is on {facts.filesystem}, where SQLite's locks are not to be trusted",
            "put the file on a local disk, or MILLSTREAM_DATABASE_URL on Postgres",
        )
    return ok("file system", facts.filesystem or "not known here")


def check_journal(facts: SqliteFacts) -> Finding:
    """Whether readers and the writer are out of each other's way, and every commit is flushed."""
    if facts.journal_mode not in {None, "wal"}:
        return warning(
            "journal mode",
            f"the file is in the mode {facts.journal_mode!r}; something else has opened it",
            "start `millstream serve`, which puts it into WAL, and let nothing else change it",
        )
    return ok("journal mode", "WAL, and the service flushes every commit (synchronous=FULL)")


def check_room(facts: SqliteFacts) -> Finding:
    """Whether there is room to write."""
    left = f"{_mebibytes(facts.free_bytes)} are left for {facts.file.parent}"
    if facts.free_bytes < LEAST_BYTES:
        return wrong("disk", left, "make room: the service refuses to write")
    if facts.free_bytes < max(ROOM_BYTES, facts.size_bytes // 2):
        return warning("disk", left, "make room, or set MILLSTREAM_EVENT_RETENTION_DAYS")
    return ok("disk", left)


def _mebibytes(count: int) -> str:
    return f"{count / 1024**2:,.0f} MiB"


CHECKS = (check_file, check_library, check_filesystem, check_journal, check_room)
