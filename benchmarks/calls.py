"""The calls that figures are made of; each checks what it was told: every event once and in order."""

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from uuid import uuid4

from benchmarks.connection import Answer, Connection

START = "/workflows/benchmark/runs"
FIRST_EVENT = b"#0000000 "
"""What only the first event of the work has in it."""
STREAM = "text/event-stream"

_IDS = re.compile(rb"^id: (\d+)$", re.MULTILINE)
_NUMBERS = re.compile(rb"^event: RunResponse\ndata: [^\n]*?#(\d{7}) ", re.MULTILINE)
_LAST = re.compile(rb'event: RunFinished\ndata: [^\n]*"status":"completed"[^\n]*\n\n\Z')
_sessions = (f"benchmark-{uuid4().hex[:8]}-{number}" for number in count())


class Wrong(Exception):
    """A server said what it should not."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that was followed to its end; times in seconds from the request."""

    run_id: str
    first_seconds: float
    seconds: float
    last_sequence: int


def new_session() -> str:
    """An id that no session has."""
    return next(_sessions)


async def run(
    connection: Connection, *, events: int, size: int = 64, session_id: str | None = None, saves: int = 0
) -> Run:
    """Start a run with its stream, and follow it; raises Wrong."""
    begun = time.perf_counter()
    answer = start(connection, events=events, size=size, session_id=session_id, saves=saves)
    ended = await answer.ended
    if answer.status != 200:
        raise Wrong(f"a run was answered {answer.status}: {answer.body[:200]!r}")
    last = check(answer.body, after=0, first=0, events=events)
    run_id = answer.header("content-location").removeprefix("/runs/")
    return Run(run_id, (await answer.marked) - begun, ended - begun, last)


def start(
    connection: Connection,
    *,
    events: int,
    size: int = 64,
    hold_seconds: float = 0.0,
    session_id: str | None = None,
    saves: int = 0,
    on_disconnect: str | None = None,
) -> Answer:
    """Start a run with its stream; the answer's `marked` is the moment of its first event.

    The bare server knows neither saves nor what to do when a client leaves.
    """
    work = {"events": events, "size": size, "hold_seconds": hold_seconds} | ({"saves": saves} if saves else {})
    body = {"session_id": session_id or new_session(), "input": work}
    body |= {"on_disconnect": on_disconnect} if on_disconnect else {}
    return connection.send("POST", START, body, mark=FIRST_EVENT, accept=STREAM)


async def replay(connection: Connection, run: Run, *, events: int, last: int | None = None) -> float:
    """Read an ended run's events again, all or the last ones; seconds. Raises Wrong."""
    after = 0 if last is None else run.last_sequence - last
    begun = time.perf_counter()
    answer = connection.send("GET", f"/runs/{run.run_id}/events", accept=STREAM, last_event_id=str(after))
    ended = await answer.ended
    if answer.status != 200:
        raise Wrong(f"a replay was answered {answer.status}: {answer.body[:200]!r}")
    if check(answer.body, after=after, first=None if after else 0, events=events) != run.last_sequence:
        raise Wrong("a replay ended elsewhere than the run")
    return ended - begun


async def get(connection: Connection, path: str) -> Answer:
    """Read whatever there is; raises Wrong."""
    return _checked(await connection.ask("GET", path))


async def get_state(connection: Connection, session_id: str) -> Answer:
    """Read a session's state; raises Wrong."""
    return _checked(await connection.ask("GET", f"/sessions/{session_id}/state"))


async def patch_state(connection: Connection, session_id: str, patch: dict[str, object]) -> Answer:
    """Change a session's state; raises Wrong."""
    return _checked(await connection.ask("PATCH", f"/sessions/{session_id}/state", patch))


@asynccontextmanager
async def connections(port: int, number: int) -> AsyncIterator[list[Connection]]:
    """So many of them, hung up at the end. New ones for each slice: a server that is held answers none."""
    opened = [await Connection.open(port) for _ in range(number)]
    try:
        yield opened
    finally:
        for connection in opened:
            connection.close()


def check(body: bytes, *, after: int, first: int | None, events: int) -> int:
    """The last number of a stream, in which each event is once and in order to the run's completion; raises Wrong."""
    ids = [int(found) for found in _IDS.findall(body)]
    if ids != list(range(after + 1, after + 1 + len(ids))):
        raise Wrong(f"a stream after {after} has {len(ids)} events from {ids[:1]} to {ids[-1:]}, not in order")
    if not _LAST.search(body, max(0, body.rfind(b"\nevent: RunFinished"))):
        raise Wrong(f"a stream does not end with a completed run: {body[-200:]!r}")
    numbers = [int(found) for found in _NUMBERS.findall(body)]
    if first is not None and numbers != list(range(first, events)):
        raise Wrong(f"a run of {events} events has {len(numbers)}: {numbers[:1]} to {numbers[-1:]}")
    if numbers and numbers != list(range(events - len(numbers), events)):
        raise Wrong(f"the last {len(numbers)} of {events} events are {numbers[:1]} to {numbers[-1:]}")
    return ids[-1]


def _checked(answer: Answer) -> Answer:
    if answer.status != 200:
        raise Wrong(f"a request was answered {answer.status}: {answer.body[:200]!r}")
    return answer
