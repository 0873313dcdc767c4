"""How much the database writes for a small change, by its write-ahead log."""

import statistics
from pathlib import Path

import psycopg

from app.store.database import driver_url
from benchmarks import calls
from benchmarks.growth.aged import LARGE, SMALL, VALUE_CHARACTERS
from benchmarks.servers import Server

CHANGES = 15
"""Few enough that SQLite does not begin its log anew meanwhile."""


async def bytes_written(database_url: str, server: Server) -> dict[str, float]:
    """Kilobytes for a change of 1 KB, by the session whose state is changed."""
    found = {}
    async with calls.connections(server.port, 1) as (connection,):
        for session_id in (SMALL, LARGE):
            differences: list[int] = []
            for number in range(CHANGES):
                before = _position(database_url)
                await calls.patch_state(connection, session_id, {"key-0": f"{number:0{VALUE_CHARACTERS}d}"})
                differences.append(_position(database_url) - before)
            found[session_id] = _typical(database_url, differences) / 1000
    return found


def _typical(database_url: str, differences: list[int]) -> float:
    """On Postgres the log is that of all databases of the server, so that the least is the most honest."""
    grown = [difference for difference in differences if difference > 0]
    if not grown:
        return 0.0
    return statistics.median(grown) if database_url.startswith("sqlite:") else min(grown)


def _position(database_url: str) -> int:
    """How far the log has been written."""
    if database_url.startswith("sqlite:"):
        return Path(database_url.removeprefix("sqlite:///") + "-wal").stat().st_size
    with psycopg.connect(driver_url(database_url)) as connection:
        row = connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").fetchone()
    assert row is not None
    return int(row[0])
