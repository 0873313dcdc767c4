"""Rows as the resources that callers see."""

from typing import Any

from app.clock import rfc3339
from app.errors import NotFound
from app.store import runs
from app.store.database import Transaction
from app.store.tables import RevisionRow, RunRow, SessionRow
from app.workflow.encoding import decode
from app.workflow.status import RunStatus


def unknown_session(session_id: str) -> NotFound:
    """The error for an id that no session has, or none that the caller sees."""
    return NotFound(f"there is no session {session_id[:255]!r}", code="unknown_session")


def run_resource(transaction: Transaction, row: RunRow) -> dict[str, Any]:
    """The run; see wire.runs.Run."""
    return run_at(row, runs.queue_position(transaction, row) if row.status == RunStatus.queued else None)


def run_at(row: RunRow, position: int | None) -> dict[str, Any]:
    """The run, whose place in the queue is known."""
    return {
        "run_id": row.run_id,
        "workflow": row.workflow,
        "session_id": row.session_id,
        "user_id": row.user_id,
        "status": row.status,
        "input": decode(row.input),
        "content": None if row.content is None else decode(row.content),
        "content_truncated": bool(row.content_truncated),
        "error": None if row.error is None else {"step": None, "event": None} | decode(row.error),
        "attempt": row.attempt,
        "position": position,
        "metadata": decode(row.annotations),
        "created_at": rfc3339(row.created_at),
        "started_at": None if row.started_at is None else rfc3339(row.started_at),
        "finished_at": None if row.finished_at is None else rfc3339(row.finished_at),
        "session_revision": row.session_revision,
    }


def session_resource(row: SessionRow) -> dict[str, Any]:
    """The session; see wire.sessions.Session."""
    return {
        "session_id": row.session_id,
        "workflow": row.workflow,
        "user_id": row.user_id,
        "name": row.name,
        "metadata": decode(row.annotations),
        "revision": row.revision,
        "active_run_id": row.active_run_id,
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
    }


def revision_resource(row: RevisionRow) -> dict[str, Any]:
    """The revision; see wire.sessions.Revision."""
    return {
        "revision": row.revision,
        "created_at": rfc3339(row.created_at),
        "run_id": row.run_id,
        "caller": row.caller,
        "patch": decode(row.patch),
    }
