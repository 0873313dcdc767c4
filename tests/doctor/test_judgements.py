"""What the doctor makes of facts that a test cannot bring about."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.doctor import configuration, postgres, sqlite
from app.doctor.finding import Verdict
from app.settings import Settings
from app.store.inspection import PostgresFacts, SqliteFacts, Work, filesystem_of

SERVER = PostgresFacts(
    version=150004,
    settings={
        "fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "autovacuum": "on", "track_counts": "on",
        "max_connections": "200", "superuser_reserved_connections": "3",
    },
    connections=5,
    skew_seconds=0.01,
    pooled=False,
    hears=True,
    work=Work("0001", workers=2),
)  # fmt: skip


def changed(**settings: str) -> dict[str, Any]:
    """What is changed of the server when some of its settings are."""
    return {"settings": SERVER.settings | settings}


CONFIGURED = Settings(database_url="postgresql://x/y")


@pytest.mark.parametrize(
    ("check", "change", "verdict", "said"),
    [
        (postgres.check_version, {"version": 120003}, "warning", "Postgres 12.3"),
        (postgres.check_durability, changed(fsync="off"), "wrong", "fsync is off"),
        (
            postgres.check_durability,
            changed(full_page_writes="off"),
            "wrong",
            "writes is off",
        ),
        (postgres.check_autovacuum, changed(autovacuum="off"), "warning", "it is off"),
        (postgres.check_connections, changed(max_connections="40"), "warning", "5 of 37"),
        (postgres.check_connections, {"work": Work("0001", workers=9)}, "warning", "9 processes may want 270"),
        (postgres.check_clock, {"skew_seconds": 2.5}, "warning", "2.5 s ahead of the database"),
        (postgres.check_clock, {"skew_seconds": -120.0}, "wrong", "120.0 s behind the database"),
        (postgres.check_pooler, {"hears": False}, "wrong", "to the server itself"),
    ],
)
def test_what_a_server_of_the_tests_cannot_be(check: Any, change: dict[str, Any], verdict: str, said: str) -> None:
    assert check(SERVER, CONFIGURED).verdict == "ok"
    found = check(replace(SERVER, **change), CONFIGURED)
    assert found.verdict == verdict
    assert said in found.detail
    assert found.remedy


FILE = SqliteFacts(
    file=Path("/data/x.db"),
    exists=True,
    library=(3, 52, 0),
    filesystem="ext4",
    free_bytes=50 * 1024**3,
    size_bytes=1024**2,
    journal_mode="wal",
)


@pytest.mark.parametrize(
    ("check", "change", "verdict", "said"),
    [
        (sqlite.check_library, {"library": (3, 40, 1)}, "warning", "SQLite 3.40.1 can corrupt a file"),
        (sqlite.check_library, {"library": (3, 51, 2)}, "warning", "which 3.51.3 does not"),
        (sqlite.check_filesystem, {"filesystem": "nfs4"}, "wrong", "/data is on nfs4"),
        (sqlite.check_journal, {"journal_mode": "delete"}, "warning", "mode 'delete'"),
        (sqlite.check_room, {"free_bytes": 1024**2}, "wrong", "1 MiB are left"),
        (sqlite.check_room, {"free_bytes": 100 * 1024**2}, "warning", "100 MiB are left"),
        (sqlite.check_room, {"size_bytes": 200 * 1024**3}, "warning", "left for /data"),
    ],
)
def test_what_a_file_of_the_tests_cannot_be(check: Any, change: dict[str, Any], verdict: str, said: str) -> None:
    assert check(FILE).verdict == "ok"
    found = check(replace(FILE, **change))
    assert found.verdict == verdict
    assert said in found.detail
    assert found.remedy


def test_limits_of_a_process() -> None:
    assert configuration.check_descriptors(Settings(max_streams=100), 1024).verdict == Verdict.ok
    assert configuration.check_descriptors(Settings(max_streams=10_000), 1024).verdict == Verdict.warning
    assert (
        configuration.check_lease(Settings(database_url="postgresql://x", lease_seconds=1)).verdict == Verdict.warning
    )
    assert configuration.check_lease(Settings(lease_seconds=1)).verdict == Verdict.ok


def test_the_file_system_of_a_folder(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 22 0:40 / /srv/shared\\040files rw shared:1 - nfs4 host:/x rw\n"
        "31 30 8:2 / /srv/shared\\040files/local rw - xfs /dev/sdb rw\n"
    )
    assert filesystem_of(Path("/srv"), mounts) == "ext4"
    assert filesystem_of(Path("/srv/shared files/a/b"), mounts) == "nfs4"
    assert filesystem_of(Path("/srv/shared files/local"), mounts) == "xfs"
    assert filesystem_of(Path("/srv"), tmp_path / "none") == ""
