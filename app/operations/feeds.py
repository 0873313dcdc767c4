"""One stream over many runs: those named, and the live and future ones of named sessions.

A place in it is a place in each run: `{run: sequence}` for the runs that are named, and for a session
`[newest ordinal, {ordinal: sequence}]`, where runs up to the newest that are not listed have been seen to their end.
It travels as the id of each event.
"""

import asyncio
import base64
import hashlib
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from app.engine.live import LiveLog, LiveLogs, session_key
from app.errors import Invalid, Malformed
from app.operations.caller import Caller
from app.operations.events import FRAMES_PER_SEND, TableReader
from app.operations.kept import events_gone, last_event, runs_gone
from app.operations.runs import existing_run
from app.operations.sessions import existing_session
from app.store import retention, runs
from app.store.database import Database, Transaction
from app.store.tables import DEFAULT_TENANT, RunRow
from app.wire.frames import with_id
from app.workflow.encoding import decode, encode
from app.workflow.status import ENDED

MAX_NAMED = 100
"""Runs and sessions of one stream: their places have to fit into a header."""


@dataclass(slots=True)
class _Followed:
    """One run that the stream carries."""

    run_id: str
    cursor: int
    session: str | None = None
    """The session that brought it; None when it was named itself."""
    ordinal: int = 0
    log: LiveLog | None = None
    table: TableReader | None = None


@dataclass(slots=True)
class Feed:
    """Where a reader stands."""

    runs: dict[str, _Followed] = field(default_factory=dict)
    """Those that have not been seen to their end, by id."""
    finished: dict[str, int] = field(default_factory=dict)
    """Named runs that have, and the sequence of their last event."""
    sessions: dict[str, int] = field(default_factory=dict)
    """The ordinal of the newest run that was taken in, by session."""
    salt: str = ""
    """Whose place it is: to anybody else its cursors say nothing."""

    @property
    def at_end(self) -> bool:
        """Whether nothing more can come."""
        return not self.runs and not self.sessions

    def cursor(self) -> str:
        """This place, as an opaque text."""
        places = {self.short(run.run_id): run.cursor for run in self.runs.values() if run.session is None}
        places |= {self.short(run_id): last for run_id, last in self.finished.items()}
        of_sessions: dict[str, Any] = {}
        for session, newest in self.sessions.items():
            live = {str(run.ordinal): run.cursor for run in self.runs.values() if run.session == session}
            of_sessions[self.short(session)] = [newest, live]
        return base64.urlsafe_b64encode(encode([places, of_sessions])).decode().rstrip("=")

    def short(self, name: str) -> str:
        """A few characters that tell the named ones apart."""
        return hashlib.sha256((self.salt + name).encode(errors="replace")).hexdigest()[:10]


class Feeds:
    """Following many runs at once."""

    def __init__(self, database: Database, live: LiveLogs, *, poll_seconds: float | None) -> None:
        """`poll_seconds` as for the events of one run."""
        self._database, self._live, self._poll_seconds = database, live, poll_seconds

    async def open(self, caller: Caller, *, run_ids: list[str], session_ids: list[str], cursor: str) -> Feed:
        """A place in the stream over these.

        Raises NotFound for an unknown one, Malformed for a bad cursor, Gone for one into what retention has removed.
        """
        _check_number(run_ids, session_ids)
        seen_runs, seen_sessions = _read_cursor(cursor)

        def work(transaction: Transaction) -> Feed:
            feed = Feed(salt=_salt(caller))
            for run_id in run_ids:
                self._name_run(transaction, caller, feed, run_id, seen_runs.get(feed.short(run_id), 0))
            for session_id in session_ids:
                self._name_session(transaction, caller, feed, session_id, seen_sessions.get(feed.short(session_id)))
            return feed

        return await self._database.read(work)

    async def check(self, caller: Caller, *, run_ids: list[str], session_ids: list[str]) -> None:
        """Raises NotFound for an unknown one, Invalid for none at all or too many."""
        _check_number(run_ids, session_ids)

        def work(transaction: Transaction) -> None:
            for run_id in run_ids:
                existing_run(transaction, caller, run_id)
            for session_id in session_ids:
                existing_session(transaction, caller, session_id)

        await self._database.read(work)

    async def follow(self, caller: Caller, feed: Feed) -> AsyncGenerator[bytes, None]:
        """Frames of all its runs, each run's in order, until nothing more can come."""
        with ExitStack() as held:
            bells = [
                held.enter_context(self._live.reading(session_key(caller.tenant, session))) for session in feed.sessions
            ]
            trusted = True
            while True:
                changes = {bell.change() for bell in bells}
                await self._take_in(caller, feed)
                for run in list(feed.runs.values()):
                    run.log = run.log or held.enter_context(self._live.reading(run.run_id))
                    changes.add(run.log.change())
                said = False
                for run in list(feed.runs.values()):
                    while chunk := await self._next(caller, feed, run, trusted=trusted):
                        said = True
                        yield chunk
                        await asyncio.sleep(0)
                if feed.at_end or self._live.closed:
                    return
                if not said:
                    woken, _ = await asyncio.wait(
                        changes, timeout=self._poll_seconds, return_when=asyncio.FIRST_COMPLETED
                    )
                    trusted = bool(woken)

    async def _next(self, caller: Caller, feed: Feed, run: _Followed, *, trusted: bool) -> bytes:
        """The run's next frames, with the whole stream's place as their id; nothing when there are none."""
        if run.run_id not in feed.runs:
            return b""
        frames: list[bytes] | None = None
        ended = False
        if trusted and run.log is not None and (frames := run.log.after(run.cursor, limit=FRAMES_PER_SEND)) is not None:
            ended = run.log.ended and run.cursor + len(frames) >= run.log.last
        if frames is None:
            run.table = run.table or TableReader(self._database, caller.tenant, run.run_id)
            frames, ended = await run.table.read(run.cursor)
        placed = []
        for number, one in enumerate(frames, 1):
            run.cursor += 1
            if ended and number == len(frames):
                self._finish(feed, run)
            placed.append(with_id(one, feed.cursor()))
        return b"".join(placed)

    def _finish(self, feed: Feed, run: _Followed) -> None:
        del feed.runs[run.run_id]
        if run.session is None:
            feed.finished[run.run_id] = run.cursor

    async def _take_in(self, caller: Caller, feed: Feed) -> None:
        """Runs that have come to the sessions since."""

        def work(transaction: Transaction) -> list[RunRow]:
            return [
                run
                for session, newest in feed.sessions.items()
                for run in runs.runs_since(transaction, caller.tenant, session, ordinal=newest)
            ]

        if feed.sessions:
            for run in await self._database.read(work):
                feed.sessions[run.session_id] = run.ordinal
                if run.run_id not in feed.runs and caller.sees(run.user_id):
                    feed.runs[run.run_id] = _Followed(run.run_id, 0, run.session_id, run.ordinal)

    def _name_run(self, transaction: Transaction, caller: Caller, feed: Feed, run_id: str, cursor: int) -> None:
        run = existing_run(transaction, caller, run_id)
        last = last_event(transaction, run, cursor, remedy="; leave it out")
        if cursor > last:
            raise Malformed(f"the cursor is beyond the end of run {run_id}", code="invalid_cursor")
        if run.status in ENDED and cursor == last:
            feed.finished[run_id] = last
        else:
            feed.runs[run_id] = _Followed(run_id, cursor)

    def _name_session(
        self,
        transaction: Transaction,
        caller: Caller,
        feed: Feed,
        session_id: str,
        seen: "tuple[int, dict[int, int]] | None",
    ) -> None:
        """Without a cursor, from the runs that live now; with one, from where it stands."""
        session = existing_session(transaction, caller, session_id)
        if seen is None:
            feed.sessions[session_id] = session.run_count
            for run in runs.live_runs(transaction, caller.tenant, session_id):
                if not caller.sees(run.user_id):
                    continue
                feed.runs.setdefault(run.run_id, _Followed(run.run_id, 0, session_id, run.ordinal))
            return
        newest, live = seen
        feed.sessions[session_id] = newest
        missed = _first_gone(transaction, caller, session_id, newest)
        left = retention.count_runs_after(transaction, caller.tenant, session_id, newest)
        if left < session.run_count - newest:
            raise runs_gone(session_id)
        for run in runs.runs_with_ordinals(transaction, caller.tenant, session_id, list(live)):
            if not caller.sees(run.user_id):
                continue
            if run.events_gone_upto is not None:
                missed = missed or run.run_id
            feed.runs.setdefault(run.run_id, _Followed(run.run_id, live[run.ordinal], session_id, run.ordinal))
        if missed is not None:
            raise events_gone(missed, remedy=f"; follow session {session_id!r} anew, without a cursor")


def _first_gone(transaction: Transaction, caller: Caller, session_id: str, ordinal: int) -> str | None:
    """The first run of the session after one that the caller sees, and whose events can no longer be read."""
    while (gone := retention.first_gone_run(transaction, caller.tenant, session_id, ordinal=ordinal)) is not None:
        run = runs.get_run(transaction, caller.tenant, gone) if caller.user_id is not None else None
        if run is None or caller.sees(run.user_id):
            return gone
        ordinal = run.ordinal
    return None


def _salt(caller: Caller) -> str:
    """What tells the caller's names from those of others."""
    if caller.tenant == DEFAULT_TENANT and caller.user_id is None:
        return ""
    return f"{caller.tenant}\0{caller.user_id or ''}\0"


def _check_number(run_ids: list[str], session_ids: list[str]) -> None:
    if not run_ids and not session_ids:
        raise Invalid("name at least one run_id or session_id", code="invalid_parameter")
    if len(run_ids) + len(session_ids) > MAX_NAMED:
        raise Invalid(f"one stream carries {MAX_NAMED} runs and sessions at the most", code="invalid_parameter")


def _read_cursor(cursor: str) -> tuple[dict[str, int], dict[str, tuple[int, dict[int, int]]]]:
    if not cursor:
        return {}, {}
    try:
        places, of_sessions = decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return (
            {str(name): int(place) for name, place in places.items()},
            {
                str(name): (int(newest), {int(ordinal): int(place) for ordinal, place in live.items()})
                for name, (newest, live) in of_sessions.items()
            },
        )
    except (ValueError, TypeError, AttributeError):
        raise Malformed(f"{cursor[:50]!r} is no cursor of this stream", code="invalid_cursor") from None
