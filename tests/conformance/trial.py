"""One trial: a cluster under load, faults for some time, peace until all has ended, and the verdict."""

import random
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance import workflows
from tests.conformance.calls import read_calls
from tests.conformance.checks import World, check, read_logs, read_runs, takeover_seconds
from tests.conformance.faults import Faults
from tests.conformance.load import Load
from tests.support.cluster import ROOT, Cluster, cluster
from tests.support.server import Client
from tests.support.tables import query

LEASE_SECONDS = 2.0
CALLERS = 6
PEACE_SECONDS = 60.0
"""Within this, everything has to end once the faults are over."""
_SWEPT = re.compile("never retrieved.*process job execute_run")
"""Procrastinate, of a job that was taken from a worker which slept: the run is somebody else's by then."""


@dataclass
class Verdict:
    """How a trial came out."""

    wrong: list[str]
    figures: dict[str, Any]

    def lines(self) -> Iterator[str]:
        """For people."""
        for name, figure in self.figures.items():
            yield f"  {name:<38} {figure}"
        for broken in self.wrong:
            yield f"  BROKEN: {broken}"


async def trial(database_url: str, folder: Path, *, seconds: float, seed: int) -> Verdict:
    """Run one; the seed decides what happens to whom, not how the machine takes it."""
    chance = random.Random(seed)
    ledger = folder / "ledger"
    async with cluster(
        database_url,
        workflows.__name__,
        lease_seconds=LEASE_SECONDS,
        cancel_grace_seconds=2,
        ping_seconds=2,
    ) as members:
        load = Load(members, ledger, random.Random(chance.random()))
        faults = Faults(members, LEASE_SECONDS, random.Random(chance.random()))
        wrong: list[str] = []
        try:
            await load.begin(CALLERS)
            await faults.rage(seconds)
            load.enough()
            await load.ended(PEACE_SECONDS)
        except TimeoutError:
            wrong.append(f"not everything has ended {PEACE_SECONDS:g} s after the faults")
        except AssertionError as error:
            wrong.append(f"a caller was told what nobody should be: {error}")
        finally:
            await load.close()
        world = await world_of(members, load, faults, ledger)
        wrong += check(world)
        wrong += leftovers(members)
        takeovers = takeover_seconds(world)
        prompt = [took for took, free in takeovers if free]
        late = [took for took in prompt if took > LEASE_SECONDS + 2]
        if late and not database_url.startswith("sqlite"):
            wrong.append(f"takeovers past lease + 2 s: {[f'{took:.2f}' for took in late]}")
    return Verdict(wrong, _figures(world, [took for took, _ in takeovers], prompt))


async def world_of(members: Cluster, load: Load, faults: Faults, ledger: Path) -> World:
    """All that can be known of it."""
    states, revisions = {}, {}
    sessions = {run.session_id for run in load.promised.runs} | load.promised.sessions.keys()
    async with members.client() as client:
        for session_id in sorted(sessions):
            states[session_id] = (await client.get(f"/sessions/{session_id}/state")).json()
            revisions[session_id] = await _revisions(client, session_id)
    url = members.database_url
    return World(read_runs(url), read_logs(url), states, revisions, read_calls(ledger), load.promised, faults)


async def _revisions(client: Client, session_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    parameters: dict[str, str] = {"limit": "200"}
    while True:
        page = (await client.get(f"/sessions/{session_id}/state/revisions", params=parameters)).json()
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        parameters["cursor"] = page["next_cursor"]


def leftovers(members: Cluster) -> Iterator[str]:
    """Nothing is left over, no session with a turn; and no process had an error to tell of."""
    taken = query(members.database_url, "SELECT session_id FROM sessions WHERE active_run_id IS NOT NULL")
    if taken:
        yield f"sessions whose turn is still taken: {taken[:5]}"
    for member in members.members:
        lines = member.said().splitlines()
        for place, line in enumerate(lines):
            if line.split(" ")[1:2] == ["error"] and not _SWEPT.search(line):
                yield f"{member.name} wrote: {_trouble(lines[place : place + 120])}"


def _trouble(lines: list[str]) -> str:
    """Of an error in a log, what it says and where in our code it comes from."""
    telling = [line for line in lines if f"{ROOT}/app/" in line or not line.startswith(" ")]
    return "\n      ".join(telling[:20])


def _figures(world: World, takeovers: list[float], prompt: list[float]) -> dict[str, Any]:
    events = sum(map(len, world.logs.values()))
    counts = world.faults.counts
    ends = statistics.multimode(row["status"] for row in world.runs.values())
    slowest = sorted(world.promised.slowest.items(), key=lambda pair: -pair[1])[:3]
    return {
        "kills": counts["kill"],
        "stops": counts["stop"],
        "runs": f"{len(world.runs)} (most often {ends[0]})" if ends else 0,
        "events": events,
        "attempts beyond the first": sum(max(0, row["attempt"] - 1) for row in world.runs.values()),
        "steps called": len(world.calls.of),
        "in-flight steps called again": world.calls.repeated,
        "calls of workers that just woke": world.late_calls,
        "crash loops": world.crash_loops,
        "patches answered 200": sum(map(len, world.promised.patched.values())),
        "increments answered 200": sum(world.promised.counted.values()),
        "revisions": sum(map(len, world.revisions.values())),
        "stream connections": world.promised.connections,
        "slowest answers": ", ".join(f"{kind} {took:.1f} s" for kind, took in slowest),
        "takeovers, all": _spread(takeovers),
        "takeovers, another worker free": _spread(prompt),
    }


def _spread(values: list[float]) -> str:
    if not values:
        return "none"
    return f"{len(values)}: {min(values):.2f} / {statistics.median(values):.2f} / {max(values):.2f} s (min/median/max)"
