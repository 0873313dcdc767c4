"""The load: callers that start runs, patch, cancel, answer and read along while processes come and go.

A caller knows what it was told, and nothing else: what an answer promised is written down here, and checked at the end.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from tests.support.cluster import Cluster

SESSIONS_PER_WORKFLOW = 2
TRY_SECONDS = 4.0
"""How long a caller waits for an answer before it asks another server."""
ENDED = {"completed", "failed", "cancelled"}

Input = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A sort of run, and how it has to end."""

    workflow: str
    input: Callable[[random.Random], Input]
    ends: frozenset[str]
    content: Callable[[Input], str] | None = None
    cancelled_after: tuple[float, float] | None = None
    answered: bool = False
    error: str | None = None


def _steps(input: Input) -> str:
    return "".join(f"{number} " for number in range(input["steps"]))


def _async_steps(input: Input) -> str:
    return f"begin {3 * input['steps']} [inner-1][inner-2]"


COMPLETED, FAILED, CANCELLED = frozenset({"completed"}), frozenset({"failed"}), frozenset({"cancelled"})
KINDS = [
    Kind("sync-steps", lambda chance: _sized(chance, 2, 8), COMPLETED, _steps),
    Kind("async-steps", lambda chance: _sized(chance, 1, 4), COMPLETED, _async_steps),
    Kind(
        "talker",
        lambda chance: {"pieces": chance.randint(20, 200), "seconds": chance.choice([0.0, 0.005, 0.02])},
        COMPLETED,
        lambda input: "".join(f"{number} " for number in range(input["pieces"])),
    ),
    Kind("failing", lambda chance: {"seconds": 0.05}, FAILED, error="author_error"),
    Kind("endless", lambda chance: {}, CANCELLED, cancelled_after=(0.0, 4.0)),
    Kind("sync-endless", lambda chance: {}, CANCELLED, cancelled_after=(0.0, 4.0)),
    Kind("sync-steps", lambda chance: _sized(chance, 2, 8), CANCELLED | COMPLETED, cancelled_after=(0.0, 1.0)),
    Kind("asking", lambda chance: {"seconds": 0.05}, COMPLETED, lambda input: "7 [after]", answered=True),
    Kind("sync-asking", lambda chance: {"seconds": 0.05}, COMPLETED, lambda input: "7 [after]", answered=True),
    Kind("asking", lambda chance: {"seconds": 0.05, "patience": 0.7}, COMPLETED, lambda input: "None [after]"),
    Kind("sync-asking", lambda chance: {"seconds": 0.05, "patience": 0.7}, COMPLETED, lambda input: "None [after]"),
]


def _sized(chance: random.Random, least: int, most: int) -> Input:
    return {"steps": chance.randint(least, most), "seconds": chance.choice([0.01, 0.05, 0.2])}


@dataclass
class Accepted:
    """A run that a caller was told of."""

    run_id: str
    kind: Kind
    input: Input
    session_id: str
    cancelled: bool = False
    followed: list[tuple[str, str]] | None = None
    """What a reader collected of it, `(id, data)`, over all its connections; None where nobody read to the end."""


@dataclass
class Promised:
    """What callers were told, and must find true."""

    sessions: dict[str, str] = field(default_factory=dict)
    """Session and its workflow."""
    runs: list[Accepted] = field(default_factory=list)
    patched: dict[str, list[str]] = field(default_factory=dict)
    """Keys whose PATCH was answered 200, by session."""
    counted: dict[str, int] = field(default_factory=dict)
    """Increments under If-Match that were answered 200, by session."""
    uncertain: dict[str, int] = field(default_factory=dict)
    """Increments that were sent and not answered."""
    keys: set[str] = field(default_factory=set)
    slowest: dict[str, float] = field(default_factory=dict)
    connections: int = 0


class Load:
    """Callers of one cluster, and what they were promised."""

    def __init__(self, cluster: Cluster, ledger: Path, chance: random.Random) -> None:
        self.promised = Promised()
        self._cluster, self._ledger, self._chance = cluster, ledger, chance
        self._running = True
        self._tasks: set[asyncio.Task[None]] = set()
        self._http = httpx.AsyncClient(
            timeout=TRY_SECONDS, limits=httpx.Limits(max_connections=None, max_keepalive_connections=20)
        )

    async def begin(self, callers: int) -> None:
        """Make the sessions, and let so many callers loose."""
        for workflow in sorted({kind.workflow for kind in KINDS}):
            for number in range(SESSIONS_PER_WORKFLOW):
                session_id = f"{workflow}-{number}"
                state = {"runs": {}, "patches": {}, "count": 0}
                body = {"workflow": workflow, "session_id": session_id, "session_state": state}
                await self._certainly("POST", "/sessions", {201, 409}, json=body)
                self.promised.sessions[session_id] = workflow
        for number in range(callers):
            self._do(self._call(random.Random(self._chance.random())))
            if number % 3 == 0:
                self._do(self._patch(random.Random(self._chance.random())))
        self._do(self._increment(random.Random(self._chance.random())))

    def enough(self) -> None:
        """Start and patch nothing more."""
        self._running = False

    async def ended(self, seconds: float) -> None:
        """Wait until every run that was accepted has ended and every reader has seen it; raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while self._tasks:
                await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Leave."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.aclose()

    def _do(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            self._tasks.discard(task)  # one that failed stays, and is raised by ended()

    async def _call(self, chance: random.Random) -> None:
        """A caller: one run after the other, some to their end, some left alone."""
        while self._running:
            run = await self._start(chance)
            if run.kind.cancelled_after is not None:
                self._do(self._cancel(run, chance.uniform(*run.kind.cancelled_after)))
            following = self._follow(run, random.Random(chance.random()))
            if chance.random() < 0.5:
                self._do(following)
                await asyncio.sleep(chance.uniform(0, 0.4))
            else:
                await following

    async def _start(self, chance: random.Random) -> Accepted:
        kind = chance.choice(KINDS)
        input = kind.input(chance)
        if kind.workflow != "talker":
            input = input | {"ledger": str(self._ledger)}
        session_id = f"{kind.workflow}-{chance.randrange(SESSIONS_PER_WORKFLOW)}" if chance.random() < 0.4 else None
        key = str(uuid4())
        body = {"input": input, "session_id": session_id}
        if session_id is None:
            body["session_state"] = {"runs": {}}
        self.promised.keys.add(key)
        path = f"/workflows/{kind.workflow}/runs"
        answer = await self._certainly("POST", path, {202}, json=body, headers={"Idempotency-Key": key})
        resource = answer.json()
        run = Accepted(resource["run_id"], kind, input, resource["session_id"])
        self.promised.runs.append(run)
        return run

    async def _cancel(self, run: Accepted, seconds: float) -> None:
        await asyncio.sleep(seconds)
        answer = await self._certainly("POST", f"/runs/{run.run_id}/cancel", {200, 202})
        run.cancelled = answer.status_code == 202 or answer.json()["status"] == "cancelled"

    async def _follow(self, run: Accepted, chance: random.Random) -> None:
        """Read the run's stream to its end, over many connections to changing servers; answer what it asks."""
        seen: list[tuple[str, str]] = []
        finished = False
        while not finished:
            left = chance.choice([1, 3, 10, 50, 10_000])
            try:
                async with self._stream(run.run_id, seen[-1][0] if seen else None) as frames:
                    async for frame in frames:
                        seen.append((frame["id"], frame["data"]))
                        finished = frame["event"] == "RunFinished"
                        if frame["event"] == "RunPaused" and run.kind.answered:
                            self._do(self._answer(run, json.loads(frame["data"])["request_id"]))
                        left -= 1
                        if left == 0 or finished:
                            break
            except (httpx.HTTPError, TryElsewhere):
                await asyncio.sleep(0.05)
        run.followed = seen

    async def _answer(self, run: Accepted, request_id: str) -> None:
        """Some time later; 409 when an earlier try of ours has come through."""
        await asyncio.sleep(0.2)
        body = {"request_id": request_id, "value": 7}
        await self._certainly("POST", f"/runs/{run.run_id}/input", {202, 409}, json=body)

    async def _patch(self, chance: random.Random) -> None:
        """Write keys of its own beside what runs write."""
        while self._running:
            session_id = chance.choice(sorted(self.promised.sessions))
            key = str(uuid4())
            if chance.random() < 0.5:
                body, kind = json.dumps({"patches": {key: 1}}), "application/merge-patch+json"
            else:
                operations = [{"op": "add", "path": f"/patches/{key}", "value": 1}]
                body, kind = json.dumps(operations), "application/json-patch+json"
            path, headers = f"/sessions/{session_id}/state", {"Content-Type": kind}
            await self._certainly("PATCH", path, {200}, content=body, headers=headers)
            self.promised.patched.setdefault(session_id, []).append(key)
            await asyncio.sleep(chance.uniform(0, 0.2))

    async def _increment(self, chance: random.Random) -> None:
        """Count under If-Match: no two may count from the same number."""
        session_id = "async-steps-0"
        path, promised = f"/sessions/{session_id}/state", self.promised
        while self._running:
            state = await self._certainly("GET", path, {200})
            body = {"count": state.json()["count"] + 1}
            headers = {"Content-Type": "application/merge-patch+json", "If-Match": state.headers["ETag"]}
            try:
                answer = await self._ask("PATCH", path, json=body, headers=headers)
            except httpx.TransportError:
                promised.uncertain[session_id] = promised.uncertain.get(session_id, 0) + 1
                continue
            if answer.status_code == 200:
                promised.counted[session_id] = promised.counted.get(session_id, 0) + 1
            elif answer.status_code == 503:
                promised.uncertain[session_id] = promised.uncertain.get(session_id, 0) + 1
            elif answer.status_code != 412:
                raise AssertionError(f"PATCH was answered {answer.status_code}: {answer.text[:300]}")
            await asyncio.sleep(chance.uniform(0, 0.1))

    async def _certainly(self, method: str, path: str, wanted: set[int], **options: Any) -> httpx.Response:
        """Ask until some server answers; 503 and a broken connection are to be tried again, all else is final."""
        began = time.monotonic()
        while True:
            try:
                answer = await self._ask(method, path, **options)
            except httpx.TransportError:
                await asyncio.sleep(0.05)
                continue
            if answer.status_code in wanted:
                kind = f"{method} {path.rstrip('/').rpartition('/')[2]}"
                took = time.monotonic() - began
                self.promised.slowest[kind] = max(took, self.promised.slowest.get(kind, 0))
                return answer
            if answer.status_code != 503:
                raise AssertionError(f"{method} {path} was answered {answer.status_code}: {answer.text[:300]}")
            await asyncio.sleep(0.1)

    async def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return await self._http.request(method, self._server() + path, **options)

    def _server(self) -> str:
        return self._chance.choice(self._cluster.servers).url

    @asynccontextmanager
    async def _stream(self, run_id: str, after: str | None) -> AsyncIterator[AsyncIterator[dict[str, str]]]:
        headers = {"Accept": "text/event-stream"} | ({} if after is None else {"Last-Event-ID": after})
        url = f"{self._server()}/runs/{run_id}/events"
        self.promised.connections += 1
        async with self._http.stream("GET", url, headers=headers, timeout=TRY_SECONDS) as stream:
            if stream.status_code == 503:
                raise TryElsewhere
            assert stream.status_code == 200, f"a stream after {after} was answered {stream.status_code}"
            yield _frames(stream)


class TryElsewhere(Exception):
    """The server says that it cannot now."""


async def _frames(stream: httpx.Response) -> AsyncIterator[dict[str, str]]:
    """The whole frames of a stream that may break anywhere."""
    rest = b""
    async for chunk in stream.aiter_raw():
        *frames, rest = (rest + chunk).split(b"\n\n")
        for frame in frames:
            lines = frame.decode().split("\n")
            fields = dict(line.split(": ", 1) for line in lines if line and not line.startswith(":"))
            if "data" in fields:
                yield fields
