"""What retention has left of a log: readers get all of what they ask for, or are told that it is gone."""

from collections.abc import Sequence

from app.errors import Gone
from app.store import events, retention
from app.store.database import Transaction
from app.store.events import LoggedEvent
from app.store.tables import RunRow
from app.workflow.status import ENDED


def events_gone(run_id: str, *, remedy: str = "") -> Gone:
    """The error for a cursor into events that retention has removed, or is just removing."""
    message = f"the events of run {run_id} are no longer kept{remedy}"
    message += f"; GET /runs/{run_id} still has its status, content and error"
    return Gone(message, code="events_gone", run_id=run_id)


def runs_gone(session_id: str) -> Gone:
    """The error for a cursor into a session some of whose later runs are gone altogether."""
    return Gone(
        f"runs of session {session_id!r} are no longer kept; follow it anew, without a cursor", code="events_gone"
    )


def last_event(transaction: Transaction, run: RunRow, cursor: int, *, remedy: str = "") -> int:
    """The number of the run's last event, which may be gone; raises Gone when the cursor is before such a one.

    Called after events have been read, where any are: what is not gone yet then, was whole before.
    """
    last = events.last_sequence(transaction, run.tenant_id, run.run_id)
    if run.status not in ENDED:
        return last
    gone_upto = retention.gone_upto(transaction, run.tenant_id, run.run_id)
    if gone_upto is None and last:
        return last
    if not gone_upto or cursor < gone_upto:
        raise events_gone(run.run_id, remedy=remedy)
    return gone_upto


def check_rows(rows: Sequence[LoggedEvent], run_id: str, cursor: int) -> None:
    """Raises Gone when the events are not those right after the cursor: only removal makes gaps."""
    if rows and rows[-1].sequence != cursor + len(rows):
        raise events_gone(run_id)
