"""The bare server on Postgres, plainly made: a row and a send for each event, one group commit, no cache.

It promises less than ours: an event may be seen before it is on disk; only a run's last frame waits for its commit.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool
from sse_starlette import ServerSentEvent

from benchmarks.bare.application import Frames, Work
from benchmarks.work import change, text_of

COPY_FROM = 8
"""From so many rows on, COPY is cheaper than INSERTs."""
ROWS_PER_READ = 500

_TABLES = """
CREATE TABLE bare_events (run_id text, sequence integer, payload text, PRIMARY KEY (run_id, sequence));
CREATE TABLE bare_runs (run_id text PRIMARY KEY, session_id text, status text);
CREATE TABLE bare_states (session_id text PRIMARY KEY, document text);
"""
_COPY = "COPY bare_events FROM STDIN"
_ADD_EVENT = "INSERT INTO bare_events VALUES (%s, %s, %s)"
_SET_STATUS = "INSERT INTO bare_runs VALUES (%s, %s, %s) ON CONFLICT (run_id) DO UPDATE SET status = excluded.status"
_SET_STATE = (
    "INSERT INTO bare_states VALUES (%s, %s) ON CONFLICT (session_id) DO UPDATE SET document = excluded.document"
)
_GET_STATE = "SELECT document FROM bare_states WHERE session_id = %s"
_GET_EVENTS = "SELECT sequence, payload FROM bare_events WHERE run_id = %s AND sequence > %s ORDER BY sequence LIMIT %s"


class HeldState:
    """A state that somebody is changing: whoever comes meanwhile changes the same one, so no change is lost."""

    def __init__(self) -> None:
        self.holders = 0
        self.document: dict[str, Any] | None = None


class PostgresServer:
    """All of it."""

    def __init__(self, url: str) -> None:
        self._pool = AsyncConnectionPool[AsyncConnection](
            url, min_size=2, max_size=8, open=False, kwargs={"autocommit": True}
        )
        self._events: list[tuple[str, int, str]] = []
        self._runs: dict[str, tuple[str, str, str]] = {}
        self._states: dict[str, tuple[str, str]] = {}
        self._held: dict[str, HeldState] = {}
        self._committed: list[asyncio.Future[None]] = []
        self._work = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Make the tables, begin to write."""
        await self._pool.open(wait=True)
        async with self._pool.connection() as connection:
            await connection.execute(_TABLES)
        self._writer = asyncio.create_task(self._write())

    async def start(self, run_id: str, session_id: str, work: Work) -> Frames:
        """The run happens in its reader's task."""
        self._set_status(run_id, session_id, "running")
        for number in range(work.events):
            payload = {"event": "RunResponse", "content": text_of(number, work.size), "run_id": run_id}
            data = orjson.dumps(payload).decode()
            self._add(run_id, number + 1, data)
            yield ServerSentEvent(data, event="RunResponse", id=str(number + 1), sep="\n")
            if number == 0 and work.hold_seconds:
                await asyncio.sleep(work.hold_seconds)
        last = '{"event":"RunFinished","status":"completed"}'
        async with self._changing(session_id) as state:
            change(state)
            self._add(run_id, work.events + 1, last)
            self._set_status(run_id, session_id, "completed")
            await self._set_state(session_id, state)
        yield ServerSentEvent(last, event="RunFinished", id=str(work.events + 1), sep="\n")

    async def replay(self, run_id: str, after: int) -> Frames:
        """Rows, page by page."""
        cursor = after
        while rows := await self._read(run_id, cursor):
            for sequence, payload in rows:
                event = "RunFinished" if payload.startswith('{"event":"RunFinished"') else "RunResponse"
                yield ServerSentEvent(payload, event=event, id=str(sequence), sep="\n")
            cursor = rows[-1][0]

    async def change(self, session_id: str, patch: dict[str, Any]) -> bytes:
        """Answered when it is on disk."""
        if not patch:
            return (await self._read_state(session_id)).encode()
        async with self._changing(session_id) as state:
            state.update(patch)
            await self._set_state(session_id, state)
            return orjson.dumps(state)

    @asynccontextmanager
    async def _changing(self, session_id: str) -> AsyncIterator[dict[str, Any]]:
        held = self._held.setdefault(session_id, HeldState())
        held.holders += 1
        document = orjson.loads(await self._read_state(session_id)) if held.document is None else {}
        if held.document is None:
            held.document = document
        yield held.document
        held.holders -= 1
        if not held.holders:
            del self._held[session_id]

    async def _read_state(self, session_id: str) -> str:
        async with self._pool.connection() as connection:
            row = await (await connection.execute(_GET_STATE, (session_id,))).fetchone()
        return "{}" if row is None else str(row[0])

    async def _read(self, run_id: str, after: int) -> list[tuple[Any, ...]]:
        async with self._pool.connection() as connection:
            return await (await connection.execute(_GET_EVENTS, (run_id, after, ROWS_PER_READ))).fetchall()

    def _add(self, run_id: str, sequence: int, payload: str) -> None:
        self._events.append((run_id, sequence, payload))
        self._work.set()

    def _set_status(self, run_id: str, session_id: str, status: str) -> None:
        self._runs[run_id] = (run_id, session_id, status)
        self._work.set()

    async def _set_state(self, session_id: str, state: dict[str, Any]) -> None:
        self._states[session_id] = (session_id, orjson.dumps(state).decode())
        committed = asyncio.get_running_loop().create_future()
        self._committed.append(committed)
        self._work.set()
        await committed

    async def _write(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            events, self._events = self._events, []
            runs, self._runs = self._runs, {}
            states, self._states = self._states, {}
            committed, self._committed = self._committed, []
            async with self._pool.connection() as connection, connection.transaction(), connection.cursor() as cursor:
                if len(events) > COPY_FROM:
                    async with cursor.copy(_COPY) as copy:
                        for event in events:
                            await copy.write_row(event)
                elif events:
                    await cursor.executemany(_ADD_EVENT, events)
                for statement, rows in ((_SET_STATUS, runs), (_SET_STATE, states)):
                    if rows:
                        await cursor.executemany(statement, list(rows.values()))
            for future in committed:
                future.set_result(None)
