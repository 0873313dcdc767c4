"""How a run ends: state, last event, status and the session's next turn, in one transaction."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.engine.content import RunContent
from app.engine.seam import Engine
from app.engine.states import States
from app.engine.threads import AuthorExit
from app.engine.writer import Appender
from app.errors import MillstreamError, Overdue, TooLarge
from app.store import runs, sessions
from app.store.database import Transaction
from app.store.tables import RunRow, SessionRow
from app.wire.events import server_event
from app.workflow.encoding import decode, encode
from app.workflow.patches import merge_changes, same
from app.workflow.response import ServerEvent
from app.workflow.state import StateDocument
from app.workflow.status import RunStatus

MAX_MESSAGE_CHARACTERS = 4000
"""Of an error's message: what a person reads, not a dump."""


@dataclass(frozen=True, slots=True)
class StateChange:
    """What a run did to the state: from the document that it last shared with the session to its own."""

    base: StateDocument
    mine: StateDocument

    @property
    def changes(self) -> bool:
        """Whether there is anything to write."""
        return not same(self.base.root, self.mine.root)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, before it is written."""

    status: RunStatus
    content: RunContent = field(default_factory=lambda: RunContent(None, False))
    error: dict[str, Any] | None = None
    change: StateChange | None = None


def failed(code: str, message: str, *, kind: str = "MillstreamError", step: str | None = None, **more: Any) -> Outcome:
    """A failure with its `error`: `{code, type, message, step?, event?}`."""
    error = {"code": code, "type": kind, "message": message[:MAX_MESSAGE_CHARACTERS]}
    error |= {name: value for name, value in {"step": step, **more}.items() if value is not None}
    return Outcome(RunStatus.failed, error=error)


def failure_of(error: BaseException, *, step: str | None = None) -> Outcome:
    """The failure that an exception of an author's code is."""
    if isinstance(error, AuthorExit):
        error = error.error
    kind = type(error).__name__
    if isinstance(error, MillstreamError):
        event = error.extra.get("event")
        return failed(error.problem_code, error.message, kind=kind, step=step, event=event)
    if isinstance(error, Overdue):
        return failed("timeout", str(error), kind="TimeoutError", step=step)
    return failed("author_error", _said(error) or kind, kind=kind, step=step)


def _said(error: BaseException) -> str:
    """The error's message; an author's exception may fail at that too."""
    try:
        return str(error)
    except Exception:
        return ""


def save_state(
    transaction: Transaction,
    appender: Appender,
    states: States,
    session: SessionRow,
    run_id: str,
    change: StateChange,
    at: datetime,
    *,
    number: int = 0,
) -> None:
    """Apply a run's changes to the newest revision, as one of its own, and say so in its log. Raises TooLarge.

    `number` is that of the save in its run, by which a later attempt knows it again; 0 is the one at the end.
    """
    newest = states.newest(transaction, session)
    merged, conflicts = merge_changes(change.base.root, change.mine.root, newest.root)
    after = change.mine if merged is change.mine.root else newest.grafted(merged)
    operations = states.revise(transaction, session, after, at=at, run_id=run_id)
    if operations:
        paths = list(dict.fromkeys(operation["path"] for operation in operations))
        head = server_event(ServerEvent.state_saved, revision=session.revision, paths=paths, conflicts=conflicts)
        appender.append(ServerEvent.state_saved, head, at=at, result=str(number))


def end_run(
    transaction: Transaction,
    appender: Appender,
    states: States,
    engine: Engine,
    run: RunRow,
    session: SessionRow,
    outcome: Outcome,
    at: datetime,
) -> RunStatus:
    """Write a run's end, give the session's turn to the next; how it ended. The transaction has locked both."""
    revision = session.revision
    moves_on = session.active_run_id == run.run_id
    if moves_on:
        next_turn(transaction, engine, session, after=run)
    if outcome.change is not None:
        try:
            save_state(transaction, appender, states, session, run.run_id, outcome.change, at)
        except TooLarge as error:
            outcome = failure_of(error)
    if moves_on and session.revision == revision:  # else the turn was written with the revision
        sessions.save_session(transaction, session)
    _append_finished(appender, outcome, session.revision, at)
    content = outcome.content.encoded
    runs.finish_run(
        transaction,
        run.tenant_id,
        run.run_id,
        status=outcome.status,
        content=None if content is None else content.decode(),
        content_truncated=outcome.content.truncated,
        error=None if outcome.error is None else encode(outcome.error).decode(),
        session_revision=session.revision,
        at=at,
    )
    return outcome.status


def _append_finished(appender: Appender, outcome: Outcome, revision: int, at: datetime) -> None:
    content = outcome.content
    head = server_event(
        ServerEvent.run_finished,
        status=outcome.status.value,
        content=None if content.encoded is None else decode(content.encoded),
        content_truncated=content.truncated or None,
        error=outcome.error,
        session_revision=revision,
    )
    appender.append(ServerEvent.run_finished, head, at=at)
    appender.ended = True


def seconds_since(started_at: datetime | None, at: datetime) -> float | None:
    """How long a run took from its first start; None where it had none."""
    return None if started_at is None else (at - started_at).total_seconds()


def next_turn(transaction: Transaction, engine: Engine, session: SessionRow, *, after: RunRow) -> None:
    """Give the session's turn to the run that waits longest, if one waits: they all came after the one that had it."""
    following = None
    if session.run_count > after.ordinal:
        following = runs.next_queued_run(transaction, session.tenant_id, session.session_id, after=after.ordinal)
    session.active_run_id = None if following is None else following.run_id
    if following is not None:
        engine.submit(transaction, following)
