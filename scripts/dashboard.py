"""A picture of the Grafana dashboard, from the figures of a real service under a short load: docs/dashboard.svg.

The panels are read from the dashboard's own file, and their queries are answered by a real Prometheus, which has to be
installed (`apt-get install prometheus`). SECONDS=60 in the environment makes the load last longer.
"""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
DASHBOARD = ROOT / "deploy" / "grafana" / "millstream.json"
PICTURE = ROOT / "docs" / "dashboard.svg"
RATE_INTERVAL = "10s"
READY_SECONDS = 40
DAWDLES_SECONDS = 8

WORKFLOWS = '''
import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator

from app import RunResponse, Workflow


class Bakery(Workflow):
    """Steps, in a thread."""

    def run(self, loaves: int = 3) -> Iterator[RunResponse]:
        for number in range(loaves):
            self.step(time.sleep, random.uniform(0.02, 0.2), name=f"bake {number}")
            yield RunResponse(content=f"loaf {number} ")
        if random.random() < 0.08:
            raise ValueError("burnt")
        self.session_state["loaves"] = self.session_state.get("loaves", 0) + loaves


class Story(Workflow):
    """Words as they come, on the event loop."""

    async def run(self, words: int = 150, letters: int = 8, pause: float = 0.01) -> AsyncIterator[RunResponse]:
        for _ in range(words):
            yield RunResponse(content="x" * letters)
            await asyncio.sleep(random.uniform(0, 2 * pause))


class Report(Workflow):
    """Long, and one after the other in its session."""

    async def run(self) -> AsyncIterator[RunResponse]:
        await asyncio.sleep(random.uniform(0.8, 2.5))
        yield RunResponse(content="done")
'''


@dataclass(frozen=True)
class Series:
    """One line of a panel."""

    name: str
    points: list[tuple[float, float]]


def main() -> int:
    """Serve, load, scrape, draw; the exit code."""
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        print("there is no Prometheus here: apt-get install prometheus")  # noqa: T201  a program for people
        return 1
    seconds = float(os.environ.get("SECONDS", "40"))
    with tempfile.TemporaryDirectory(prefix="millstream-dashboard-") as name:
        folder = Path(name)
        with serving(folder) as url, scraping(prometheus, folder, url) as prometheus_url:
            began = time.time()
            load(url, seconds)
            panels = json.loads(DASHBOARD.read_text())["panels"]
            drawn = [draw_panel(panel, ask(prometheus_url, panel, began, time.time())) for panel in panels]
    PICTURE.write_text(picture(drawn))
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size // 1024} KiB")  # noqa: T201
    return 0


@contextmanager
def process(command: list[str], folder: Path, ready: str, environment: dict[str, str]) -> Iterator[None]:
    """A program that is ready when an address answers."""
    with (folder / f"{Path(command[0]).name}.log").open("wb") as log:
        running = subprocess.Popen(  # noqa: S603  our own programs
            command, cwd=folder, env=os.environ | environment, stdout=log, stderr=log
        )
        try:
            for _ in range(READY_SECONDS * 10):
                try:
                    if httpx.get(ready).is_success:
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.1)
            else:
                raise RuntimeError(f"{command[0]} is not ready:\n{Path(log.name).read_text()}")
            yield
        finally:
            running.terminate()
            running.wait(30)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """A service of the workflows above, on SQLite."""
    (folder / "pictured.py").write_text(WORKFLOWS)
    port = free_port()
    settings = {
        "MILLSTREAM_PORT": str(port),
        "MILLSTREAM_WORKFLOWS": "pictured",
        "MILLSTREAM_SHIPPED_WORKFLOWS": "false",
        "MILLSTREAM_DATABASE_URL": "sqlite:///pictured.db",
        "MILLSTREAM_MAX_BODY_BYTES": "20000",
        "MILLSTREAM_DRAIN_SECONDS": "0",
    }
    command = [str(Path(sys.executable).with_name("millstream")), "serve"]
    with process(command, folder, f"http://127.0.0.1:{port}/readyz", settings | {"PYTHONPATH": str(ROOT)}):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def scraping(prometheus: str, folder: Path, url: str) -> Iterator[str]:
    """A Prometheus that asks the service every second."""
    port = free_port()
    target = url.removeprefix("http://")
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        f"scrape_configs: [{{job_name: millstream, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    command = [
        prometheus, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/series",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with process(command, folder, f"http://127.0.0.1:{port}/-/ready", {}):
        yield f"http://127.0.0.1:{port}"


def load(url: str, seconds: float) -> None:
    """Callers of several kinds, more of them in the middle."""
    end = time.monotonic() + seconds
    middle = [time.monotonic() + seconds * share for share in (0.35, 0.7)]
    callers = [(start_bakery, 0.0, end), (read_story, 0.0, end), (start_report, 0.0, end), (dawdle, *middle)]
    callers += [(start_bakery, *middle), (read_story, *middle), (read_story, *middle), (err, 0.0, end)]
    threads = [threading.Thread(target=keep_calling, args=(url, *caller), daemon=True) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def keep_calling(url: str, call: Any, begin: float, end: float) -> None:
    """Call again and again between two moments."""
    time.sleep(max(0.0, begin - time.monotonic()))
    with httpx.Client(base_url=url, timeout=60) as client:
        while time.monotonic() < end:
            call(client)


def start_bakery(client: httpx.Client) -> None:
    """A run that nobody waits for."""
    client.post("/workflows/bakery/runs", json={"input": {}}).raise_for_status()
    time.sleep(random.uniform(0.02, 0.2))


def read_story(client: httpx.Client) -> None:
    """A run, and its stream to the end."""
    headers = {"Accept": "text/event-stream"}
    with client.stream("POST", "/workflows/story/runs", json={"input": {}}, headers=headers) as stream:
        for _ in stream.iter_raw():
            pass


def start_report(client: httpx.Client) -> None:
    """Runs of one session, which wait for one another."""
    client.post("/workflows/report/runs", json={"input": {}, "session_id": "reports"}).raise_for_status()
    time.sleep(random.uniform(0.5, 1.6))


def dawdle(client: httpx.Client) -> None:
    """A reader that takes its time, for whom nothing is kept on its way."""
    small = httpx.HTTPTransport(socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)])
    headers = {"Accept": "text/event-stream"}
    body = {"input": {"words": 3000, "letters": 4000, "pause": 0.002}}
    leaves_at = time.monotonic() + DAWDLES_SECONDS
    with (
        httpx.Client(base_url=client.base_url, transport=small, timeout=60) as slow,
        slow.stream("POST", "/workflows/story/runs", json=body, headers=headers) as stream,
    ):
        for _ in stream.iter_raw(64 * 1024):
            time.sleep(0.5)
            if time.monotonic() > leaves_at:
                return


def err(client: httpx.Client) -> None:
    """Requests that are no good."""
    client.get("/runs/none")
    client.patch("/sessions/reports/state", content=b"x" * 30_000, headers={"Content-Type": "application/json"})
    time.sleep(random.uniform(0.2, 1))


def ask(prometheus_url: str, panel: dict[str, Any], began: float, ended: float) -> list[Series]:
    """What a panel shows."""
    found = []
    for target in panel["targets"]:
        query = target["expr"].replace("$__rate_interval", RATE_INTERVAL).replace("$job", ".*")
        span = {"start": began, "end": ended, "step": 1}
        answer = httpx.get(f"{prometheus_url}/api/v1/query_range", params={"query": query} | span)
        answer.raise_for_status()
        for line in answer.json()["data"]["result"]:
            name = target["legendFormat"]
            for label, value in line["metric"].items():
                name = name.replace(f"{{{{{label}}}}}", value)
            points = [(at - began, float(value)) for at, value in line["values"] if value not in {"NaN", "+Inf"}]
            found.append(Series(name, points))
    return found


COLUMNS, WIDTH, HEIGHT, GAP = 3, 420, 210, 14
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 36, 44
COLOURS = ("#3b78c2", "#d9822b", "#4a9d5b", "#c2453b", "#7d5ba6", "#8a6d3b", "#2f9c95")
UNITS = {"s": "s", "ops": "/s", "reqps": "/s", "bytes": "B", "short": ""}


def draw_panel(panel: dict[str, Any], series: list[Series]) -> str:
    """One panel, as SVG at its own origin."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    plotted = [line for line in series if line.points]
    parts = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#ffffff" stroke="#d8dce2"/>',
        f'<text x="14" y="22" class="title">{escape(panel["title"])}</text>',
    ]
    if not plotted:
        return "".join([*parts, f'<text x="{WIDTH / 2}" y="{HEIGHT / 2}" class="none">nothing yet</text>'])
    moments = [at for line in plotted for at, _ in line.points]
    earliest, latest = min(moments), max(moments)
    top = ceiling(max(value for line in plotted for _, value in line.points), 1024**2 if unit == "bytes" else 1)
    for part in range(5):
        y = place_y(top * part / 4, top)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" class="y">{shown(top * part / 4, unit)}</text>')
    for share in range(5):
        x = LEFT + (WIDTH - LEFT - RIGHT) * share / 4
        parts.append(
            f'<text x="{x}" y="{HEIGHT - BOTTOM + 14}" class="x">{(latest - earliest) * share / 4:.0f} s</text>'
        )
    x = float(LEFT)
    for number, line in enumerate(plotted):
        colour = COLOURS[number % len(COLOURS)]
        scale = (WIDTH - LEFT - RIGHT) / (latest - earliest)
        at = " ".join(
            f"{LEFT + (moment - earliest) * scale:.1f},{place_y(value, top)}" for moment, value in line.points
        )
        parts.append(f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        parts.append(f'<rect x="{x}" y="{HEIGHT - 19}" width="10" height="3" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14}" y="{HEIGHT - 14}" class="legend">{escape(line.name)}</text>')
        x += 30 + 6.1 * len(line.name)
    return "".join(parts)


def place_y(value: float, top: float) -> float:
    """Where a value is, from above."""
    return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top, 1)


def ceiling(value: float, of: int = 1) -> float:
    """A number that is no smaller, and round in units of so much."""
    value /= of
    if value <= 0:
        return 1.0
    power = 10.0 ** (len(f"{int(value)}") - 1) if value >= 1 else 10.0 ** -(len(f"{1 / value:.0f}") - 0)
    return of * next(power * step for step in (1, 2, 4, 5, 8, 10, 20, 40, 50, 80, 100) if power * step >= value)


def shown(value: float, unit: str) -> str:
    """A value of an axis, short."""
    if unit == "bytes":
        return f"{value / 1024**2:.0f} MiB"
    if unit == "s" and 0 < value < 1:
        return f"{value * 1000:.4g} ms"
    return f"{value:.4g}{' ' if unit == 's' else ''}{UNITS[unit]}" if value else "0"


def picture(panels: list[str]) -> str:
    """All panels, as one document."""
    rows = -(-len(panels) // COLUMNS)
    width, height = COLUMNS * (WIDTH + GAP) + GAP, rows * (HEIGHT + GAP) + GAP
    placed = ""
    for number, panel in enumerate(panels):
        row, column = divmod(number, COLUMNS)
        x, y = GAP + column * (WIDTH + GAP), GAP + row * (HEIGHT + GAP)
        placed += f'<g transform="translate({x},{y})">{panel}</g>\n'
    style = (
        "text{font-family:Helvetica,Arial,sans-serif;fill:#3c4350;font-size:11px}.title{font-size:13px;font-weight:600}"
        ".y{text-anchor:end}.x{text-anchor:middle;fill:#7b8494}.none{text-anchor:middle;fill:#9aa2b1}"
        ".grid{stroke:#eceff3}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">\n'
        f'<style>{style}</style>\n<rect width="100%" height="100%" fill="#f4f5f7"/>\n{placed}</svg>\n'
    )


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


if __name__ == "__main__":
    raise SystemExit(main())
