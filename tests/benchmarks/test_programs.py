"""The programs run, and lose nothing; what they say of speed is no test's business."""

import os
import subprocess
import sys

import pytest

from tests.support import databases
from tests.support.cluster import ROOT

SHORT = {"ROUNDS": "1", "SECONDS": "0.2"}


def measure(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A program, at its end."""
    command = [sys.executable, "-m", *arguments]
    environment = os.environ | SHORT
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_ours_is_measured_beside_the_bare_server(database: str) -> None:
    if database == "postgres":
        databases.skip_without_postgres()
    ended = measure("benchmarks", database, "latency", "throughput", "replay", "states")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for title in ("first event, p50", "runs/s, 64 clients", "replay of 10,000 events", "PATCH of a state, 8 clients"):
        assert f"| {title} |" in ended.stdout
    assert "| errors: lost, doubled, out of order, refused | | 0 | 0 |" in ended.stdout


def test_what_is_not_there_cannot_be_measured() -> None:
    ended = measure("benchmarks", "mysql")
    assert ended.returncode == 2
    assert "there is no mysql" in ended.stdout
