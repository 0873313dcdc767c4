"""EventSource, as browsers have it: comes back after a cut with Last-Event-ID, misses nothing, stops at the end."""

import asyncio
import fcntl
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app import RunResponse, Workflow
from tests.support.proxy import cutting_proxy
from tests.support.server import running

FOLDER = Path(__file__).parent
PAGE = (FOLDER / "page.html").read_text()
NAMES = ["WorkflowStarted", "RunResponse", "RunFinished"]
CUTS = [700, 900, 2000]
"""Inside the third frame, a few frames later, and many frames later."""
NO_ANSWER = 40
"""A cut inside the head of the answer, which Chromium takes for the end of it; EventSource is to come back."""


class Counting(Workflow):
    async def run(self, pause: float = 0.05) -> AsyncIterator[RunResponse]:
        for number in range(40):
            yield RunResponse(content=f"\u00fc{number}")
            await asyncio.sleep(pause)


@pytest.fixture(scope="session")
def node() -> str:
    """Node, with the packages of the lock file installed beside this file."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("NO NODE: install node and npm; nobody has tried an EventSource on the streams")
    with (FOLDER / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (FOLDER / "node_modules" / ".package-lock.json").exists():
            command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            installed = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
            if installed.returncode:
                pytest.skip(f"NO PACKAGES: npm ci failed; nobody has tried an EventSource: {installed.stderr[-500:]}")
    return node


@pytest.fixture
def chromium() -> str:
    """A browser."""
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if (found := shutil.which(name)) is not None:
            return found
    pytest.skip("NO CHROMIUM: install it; no real browser has tried the streams")


def check(report: dict[str, Any], connections: int) -> None:
    """Every event once, in order, over several connections, and then peace."""
    assert [number for _, _, number in report["seen"]] == list(range(1, 43))
    assert [last for last, _, _ in report["seen"]] == [f"{number}" for number in range(1, 43)]
    assert report["seen"][-1][1] == "RunFinished"
    assert report["errors"] >= 3
    assert connections >= 4


@pytest.mark.node
async def test_the_event_source_of_npm_resumes_and_stops(sqlite_url: str, node: str) -> None:
    async with running(sqlite_url, Counting) as client, cutting_proxy(client.base_url, [*CUTS, NO_ANSWER]) as proxy:
        run = await client.start("counting")
        command = [node, "follow.mjs", f"{proxy.url}/runs/{run['run_id']}/events", *NAMES]
        process = await asyncio.create_subprocess_exec(*command, cwd=FOLDER, stdout=asyncio.subprocess.PIPE)
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        report = json.loads(output)
        check(report, proxy.connections)
        assert report["code"] == 204


@pytest.mark.node
async def test_the_event_source_of_npm_stops_at_an_unknown_run(sqlite_url: str, node: str) -> None:
    async with running(sqlite_url, Counting) as client:
        command = [node, "follow.mjs", f"{client.base_url}/runs/none/events", *NAMES]
        process = await asyncio.create_subprocess_exec(*command, cwd=FOLDER, stdout=asyncio.subprocess.PIPE)
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        assert json.loads(output) == {"seen": [], "errors": 1, "code": 404}


async def test_a_browser_resumes_and_stops(sqlite_url: str, chromium: str, tmp_path: Path) -> None:
    async with running(sqlite_url, Counting) as client:
        run = await client.start("counting")
        page = PAGE.replace("EVENTS", f"/runs/{run['run_id']}/events").replace("NAMES", json.dumps(NAMES))
        async with cutting_proxy(client.base_url, CUTS, page) as proxy:
            flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
            command = [chromium, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--remote-debugging-port=0"]
            process = await asyncio.create_subprocess_exec(
                *command, f"{proxy.url}/page", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
            )
            try:
                report = json.loads(await asyncio.wait_for(proxy.report, 60))
            finally:
                process.kill()
                await process.wait()
            check(report, proxy.connections)
            await asyncio.sleep(1)
            assert proxy.connections <= 6, "the browser comes back again and again"
