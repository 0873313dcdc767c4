"""The report: a table for each database, and what has to be known to read it."""

import os
import platform
import statistics
from collections.abc import Iterator
from datetime import UTC, datetime

from benchmarks.goals import FIGURES
from benchmarks.samples import Samples
from tests.support.cluster import ROOT

NOTHING = "-"
BUSY_PERCENT = 90.0
"""From here on a figure is rather the client's than the server's."""


def heading(commit: str) -> str:
    """When, where and what."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    python, load = platform.python_version(), os.getloadavg()[0]
    return (
        f"{now}, commit {commit}, {os.cpu_count()} cores, Python {python}; load of the machine at the end {load:.1f}."
    )


def table(database: str, samples: dict[str, Samples]) -> Iterator[str]:
    """Lines of Markdown."""
    ours, bare = samples["ours"], samples["bare"]
    yield f"| {database} | unit | ours | bare | ratio | goal | |"
    yield "|---|---|---:|---:|---:|---:|---|"
    for key, figure in FIGURES.items():
        value, base, goal = ours.value(key), bare.value(key), figure.goal(database)
        if value is None and base is None:
            continue
        ratio = ours.ratio(key, bare)
        met = None if goal is None or value is None else goal.met(value, ratio)
        verdict = {None: "", True: "held", False: "MISSED"}[met]
        cells = [figure.title, figure.unit, number(value), number(base), times(ratio), str(goal or ""), verdict]
        yield f"| {' | '.join(cells)} |"
    errors = " | ".join(str(peer.errors.total()) for peer in (ours, bare))
    yield f"| errors: lost, doubled, out of order, refused | | {errors} | | | |"


def notes(samples: dict[str, Samples]) -> Iterator[str]:
    """What went wrong, and where the client was the limit."""
    for name, peer in samples.items():
        for error, times in peer.errors.most_common(5):
            yield f"- {name}, {times} times: {error[:300]}"
        shares = {key: statistics.median(found) for key, found in peer.client_cpu.items()}
        if shares:
            shown = (f"{key} {share:.0f} %{' (its limit)' * (share > BUSY_PERCENT)}" for key, share in shares.items())
            yield f"- {name}, CPU of the client: {', '.join(shown)}"


def commit() -> str:
    """What is checked out, in short."""
    head = (ROOT / ".git" / "HEAD").read_text().strip() if (ROOT / ".git").is_dir() else "unknown"
    if head.startswith("ref: "):
        file = ROOT / ".git" / head.removeprefix("ref: ")
        head = file.read_text().strip() if file.is_file() else "unknown"
    return head[:9]


def times(value: float | None) -> str:
    """A ratio, as it is shown."""
    return NOTHING if value is None else f"{value:.2f}x"


def number(value: float | None) -> str:
    """A figure, as it is shown."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
