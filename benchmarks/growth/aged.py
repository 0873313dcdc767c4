"""The slices of the comparison: what is asked of a server over an old database, and of one over a fresh one."""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import urlencode

from app.clock import rfc3339
from app.operations.cursors import write_cursor
from benchmarks import calls
from benchmarks.calls import Run
from benchmarks.connection import Connection
from benchmarks.samples import Samples
from benchmarks.servers import Server
from benchmarks.slices import SHORT_RUN, TAIL
from tests.plans.asking import FILTERS_OF_RUNS, FILTERS_OF_SESSIONS
from tests.plans.filling import OLD_SESSION, Amounts, Filled

SAVES = 25
PAGES = 40
"""How often each list is asked for."""
LARGE_STATE_KEYS = 1_000
VALUE_CHARACTERS = 1_000
Slice = Callable[[], Awaitable[object]]
SMALL, LARGE = "small", "large"
"""Sessions with a state of 1 KB, and of 1 MB."""

RUN, CPU = "run of 10 events in the session, ms", "server CPU per 1,000 of them, s"
SAVE, PATCH = "write_to_storage, ms", "PATCH of the state, ms"
RESUME = "the last 100 events of a log, ms"
OF_SMALL, OF_LARGE = "run with a state of 1 KB, ms", "run with a state of 1 MB, ms"


class Aged:
    """One server's; its samples are left behind under the titles of their lines."""

    def __init__(self, server: Server, samples: Samples, filled: Filled, amounts: Amounts, *, seconds: float) -> None:
        self.server = server
        self._samples, self._filled, self._amounts, self._seconds = samples, filled, amounts, seconds

    async def prepare(self) -> None:
        """The sessions with states of a size."""
        async with calls.connections(self.server.port, 1) as (connection,):
            for session_id, keys in ((SMALL, 1), (LARGE, LARGE_STATE_KEYS)):
                state = {f"key-{number}": "x" * VALUE_CHARACTERS for number in range(keys)}
                body = {"workflow": self._filled.workflow, "session_id": session_id, "session_state": state}
                await connection.ask("POST", "/sessions", body)
                await calls.run(connection, events=1, session_id=session_id)

    def slices(self) -> dict[str, Slice]:
        """What is measured, by its title, in turn with the same of the other server."""
        counter = iter(range(10**9))
        slices: dict[str, Slice] = {
            RUN: self._runs,
            SAVE: lambda: self._timed(SAVE, _saving_run, parts=SAVES),
            PATCH: lambda: self._timed(PATCH, lambda one: calls.patch_state(one, OLD_SESSION, {"a": next(counter)})),
            RESUME: lambda: self._timed(RESUME, self._resume),
            OF_SMALL: lambda: self._timed(OF_SMALL, partial(_short_run, SMALL)),
            OF_LARGE: lambda: self._timed(OF_LARGE, partial(_short_run, LARGE)),
        }
        for path in self.lists():
            title = f"GET {_shown(path)}, ms"
            slices[title] = partial(self._timed, title, partial(_get, path), times=PAGES)
        return slices

    def lists(self) -> list[str]:
        """First and deep pages of both lists, with each filter."""
        moment, session_id = self._filled.deep_session
        deep = {"/runs": write_cursor(self._filled.deep_run), "/sessions": write_cursor(rfc3339(moment), session_id)}
        return [
            f"{path}?{urlencode(chosen | place)}"
            for path, filters in (("/runs", FILTERS_OF_RUNS), ("/sessions", FILTERS_OF_SESSIONS))
            for chosen in filters
            for place in ({}, {"cursor": deep[path]})
        ]

    async def _runs(self) -> int:
        cpu = self.server.cpu_seconds()
        runs = await self._timed(RUN, partial(_short_run, OLD_SESSION))
        self._samples.add(CPU, (self.server.cpu_seconds() - cpu) * 1000 / runs)
        return runs

    async def _resume(self, connection: Connection) -> None:
        events = self._amounts.long_events
        run = Run(self._filled.long_run, 0, 0, last_sequence=events)
        await calls.replay(connection, run, events=events, last=TAIL)

    async def _timed(
        self, title: str, call: Callable[[Connection], Awaitable[object]], *, times: int | None = None, parts: int = 1
    ) -> int:
        """The call again and again; how often. A sample is milliseconds of a call's part."""
        samples: list[float] = []
        async with calls.connections(self.server.port, 1) as (connection,):
            await call(connection)
            end = time.perf_counter() + self._seconds
            while len(samples) < times if times else time.perf_counter() < end:
                begun = time.perf_counter()
                await call(connection)
                samples.append((time.perf_counter() - begun) * 1000 / parts)
        self._samples.add(title, *samples)
        return len(samples)


async def _short_run(session_id: str, connection: Connection) -> None:
    await calls.run(connection, events=SHORT_RUN, session_id=session_id)


async def _saving_run(connection: Connection) -> None:
    await calls.run(connection, events=1, saves=SAVES, session_id=OLD_SESSION)


async def _get(path: str, connection: Connection) -> None:
    await calls.get(connection, path)


def _shown(path: str) -> str:
    """The list's address without the cursor's letters."""
    head, cursor, _ = path.partition("cursor=")
    return f"{head.rstrip('?&')}, deep" if cursor else head.rstrip("?")
