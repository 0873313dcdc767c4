"""Plain scripts as users write them, run in processes of their own."""

import asyncio
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = 60
"""Longer than any of these takes: one that does not end by itself fails its test."""

SEED_PAGE = Path(__file__).with_name("seed_page.py").read_text()


def begin(folder: Path, source: str) -> "subprocess.Popen[str]":
    """Run the source as a script in the folder."""
    file = folder / "script.py"
    file.write_text(textwrap.dedent(source))
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(file)],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: "subprocess.Popen[str]", *, code: int = 0) -> list[Any]:
    """The JSON lines that it printed, once it has ended by itself with that exit code."""
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == code, errors
    return [json.loads(line) for line in output.splitlines()]


def run(folder: Path, source: str, *, code: int = 0) -> list[Any]:
    """The JSON lines that the script prints."""
    return end(begin(folder, source), code=code)


async def run_aside(folder: Path, source: str, *, code: int = 0) -> list[Any]:
    """The same while an event loop goes on."""
    return await asyncio.to_thread(run, folder, source, code=code)
