"""The bare server on SQLite, as fast as we know how while it keeps the promises.

A run is a task of its own. Its frames are encoded once; one writer on the loop's thread commits what has gathered, with
fsync, a row for all that a run has added; then readers get the same bytes, joined.
"""

import asyncio
import sqlite3
from typing import Any

import orjson

from benchmarks.bare.application import Frames, Work
from benchmarks.work import change, text_of

EVENTS_PER_TURN = 64
"""After so many events a run lets others have the loop."""
CACHED_STATES = 10_000

_TABLES = """
PRAGMA journal_mode=WAL;
PRAGMA synchronous=FULL;
CREATE TABLE bare_frames (run_id TEXT, last INTEGER, bytes BLOB, PRIMARY KEY (run_id, last)) WITHOUT ROWID;
CREATE TABLE bare_runs (run_id TEXT PRIMARY KEY, session_id TEXT, status TEXT) WITHOUT ROWID;
CREATE TABLE bare_states (session_id TEXT PRIMARY KEY, document BLOB) WITHOUT ROWID;
"""
_ADD_FRAMES = "INSERT INTO bare_frames VALUES (?, ?, ?)"
_SET_STATUS = "INSERT INTO bare_runs VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET status = excluded.status"
_SET_STATE = "INSERT INTO bare_states VALUES (?, ?) ON CONFLICT DO UPDATE SET document = excluded.document"
_GET_STATE = "SELECT document FROM bare_states WHERE session_id = ?"
_GET_FRAMES = "SELECT last, bytes FROM bare_frames WHERE run_id = ? AND last > ? ORDER BY last LIMIT 64"


class LiveRun:
    """The frames of a run that are on disk, and those on their way there."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.frames: list[bytes] = []
        self.fresh: list[bytes] = []
        self.ended = False
        self._waiting: list[asyncio.Future[None]] = []

    async def news(self, seen: int) -> None:
        """Return when there are more frames than were seen."""
        while len(self.frames) <= seen:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future

    def wake(self) -> None:
        """Tell readers of news."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()


class SqliteServer:
    """All of it."""

    def __init__(self, file: str) -> None:
        self._connection = sqlite3.connect(file, isolation_level=None)
        self._states: dict[str, dict[str, Any]] = {}
        self._dirty: list[LiveRun] = []
        self._statements: list[tuple[str, tuple[Any, ...]]] = []
        self._committed: list[asyncio.Future[None]] = []
        self._work = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Make the tables, begin to write."""
        self._connection.executescript(_TABLES)
        self._keep(asyncio.create_task(self._write()))

    def start(self, run_id: str, session_id: str, work: Work) -> Frames:
        """Begin the run's task, and follow it."""
        run = LiveRun(run_id)
        self._keep(asyncio.create_task(self._execute(run, session_id, work)))
        return self._follow(run)

    async def replay(self, run_id: str, after: int) -> Frames:
        """Rows as they are; the first may begin before the cursor."""
        cursor, cut = after, after > 0
        while rows := self._connection.execute(_GET_FRAMES, (run_id, cursor)).fetchall():
            joined = b"".join(row[1] for row in rows)
            if cut:
                joined = joined[max(0, joined.find(b"id: %d\n" % (after + 1))) :]
                cut = False
            cursor = rows[-1][0]
            yield joined
            await asyncio.sleep(0)

    async def change(self, session_id: str, patch: dict[str, Any]) -> bytes:
        """Answered when it is on disk."""
        state = self._state(session_id)
        if patch:
            state.update(patch)
            committed = asyncio.get_running_loop().create_future()
            self._committed.append(committed)
            self._execute_soon(_SET_STATE, session_id, orjson.dumps(state))
            await committed
        return orjson.dumps(state)

    async def _execute(self, run: LiveRun, session_id: str, work: Work) -> None:
        state = self._state(session_id)
        self._execute_soon(_SET_STATUS, run.run_id, session_id, "running")
        for number in range(work.events):
            payload = {"event": "RunResponse", "content": text_of(number, work.size), "run_id": run.run_id}
            self._add(run, number + 1, b"RunResponse", orjson.dumps(payload))
            if number % EVENTS_PER_TURN == 0:
                await asyncio.sleep(0)
            if number == 0 and work.hold_seconds:
                await asyncio.sleep(work.hold_seconds)
        change(state)
        self._execute_soon(_SET_STATE, session_id, orjson.dumps(state))
        self._execute_soon(_SET_STATUS, run.run_id, session_id, "completed")
        run.ended = True
        self._add(run, work.events + 1, b"RunFinished", b'{"event":"RunFinished","status":"completed"}')

    async def _follow(self, run: LiveRun) -> Frames:
        seen = 0
        while True:
            await run.news(seen)
            frames = run.frames[seen:]
            seen += len(frames)
            yield b"".join(frames)
            if run.ended and not run.fresh and seen == len(run.frames):
                return

    async def _write(self) -> None:
        while True:
            await self._work.wait()
            await asyncio.sleep(0)  # every run that is ready adds its part to this commit
            self._work.clear()
            dirty, self._dirty = self._dirty, []
            statements, self._statements = self._statements, []
            committed, self._committed = self._committed, []
            self._connection.execute("BEGIN IMMEDIATE")
            for run in dirty:
                run.frames += run.fresh
                self._connection.execute(_ADD_FRAMES, (run.run_id, len(run.frames), b"".join(run.fresh)))
                run.fresh = []
            for statement, parameters in statements:
                self._connection.execute(statement, parameters)
            self._connection.execute("COMMIT")
            for run in dirty:
                run.wake()
            for future in committed:
                future.set_result(None)

    def _add(self, run: LiveRun, sequence: int, event: bytes, payload: bytes) -> None:
        if not run.fresh:
            self._dirty.append(run)
            self._work.set()
        run.fresh.append(b"id: %d\nevent: %b\ndata: %b\n\n" % (sequence, event, payload))

    def _execute_soon(self, statement: str, *parameters: Any) -> None:
        self._statements.append((statement, parameters))
        self._work.set()

    def _state(self, session_id: str) -> dict[str, Any]:
        state = self._states.pop(session_id, None)
        if state is None:
            row = self._connection.execute(_GET_STATE, (session_id,)).fetchone()
            state = {} if row is None else orjson.loads(row[0])
        self._states[session_id] = state
        if len(self._states) > CACHED_STATES:
            self._states.pop(next(iter(self._states)))
        return state

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error  # the event loop tells of it
