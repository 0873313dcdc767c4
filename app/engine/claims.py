"""Claiming a run: from now on this attempt, and no other, may write for it."""

from dataclasses import dataclass

from app import clock
from app.engine.endings import Outcome, failure_of
from app.engine.live import LiveLogs
from app.engine.states import States
from app.engine.writer import Appender
from app.errors import MillstreamError
from app.store import events, runs, sessions
from app.store.database import Transaction
from app.store.tables import RunRow, SessionRow
from app.wire.events import server_event
from app.workflow.encoding import decode
from app.workflow.patches import merge_patch
from app.workflow.response import ServerEvent
from app.workflow.state import StateDocument
from app.workflow.status import RunStatus

ANONYMOUS = "anonymous"
"""Who a state is from when its request names no user."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that this worker has, the frozen state that it starts from, and where its log stands."""

    run: RunRow
    base: StateDocument
    last_sequence: int
    known_sequence: int = 0
    """Up to where the log is that of earlier attempts; 0 in a first one."""
    refusal: Outcome | None = None
    """Set when the run cannot begin: how it ends instead."""


def claim_run(
    transaction: Transaction, states: States, live: LiveLogs, *, tenant: str, run_id: str, worker: str
) -> Claim | None:
    """Take a ready run as one more attempt; None when it is not to be had."""
    run = runs.claim_run(transaction, tenant, run_id, worker=worker, at=clock.now())
    if run is None:
        return None
    session = sessions.lock_session(transaction, tenant, run.session_id)
    if session is None:
        return None
    if run.attempt == 1:
        said = events.last_sequence(transaction, tenant, run_id)
        claim = _begin(transaction, states, live, run, session, said=said)
        if session.revision != run.base_revision:  # by the request's own state, or by a PATCH just before the lock
            runs.set_base_revision(transaction, run.tenant_id, run.run_id, session.revision)
        return claim
    base = states.at(transaction, session, run.base_revision or 0)
    last = events.last_sequence(transaction, run.tenant_id, run.run_id)
    return Claim(run=run, base=base, last_sequence=last, known_sequence=last)


def begin_run(
    transaction: Transaction, states: States, live: LiveLogs, run: RunRow, session: SessionRow, *, worker: str
) -> Claim:
    """Take a run in the transaction that accepts it; its row, which this changes, is yet to be written."""
    run.status, run.attempt, run.worker_id = RunStatus.running.value, 1, worker
    run.started_at = run.claimed_at = clock.now()
    claim = _begin(transaction, states, live, run, session, said=0)
    run.base_revision = session.revision
    return claim


def _begin(
    transaction: Transaction, states: States, live: LiveLogs, run: RunRow, session: SessionRow, *, said: int
) -> Claim:
    """Freeze the base, with the state that the request brought, and write the first event of the first attempt.

    `said` is the sequence of what the run said before: that it was queued, or nothing.
    """
    at, document, refusal = clock.now(), states.newest(transaction, session), None
    if run.state_patch is not None:
        try:
            after = document.grafted(merge_patch(document.root, decode(run.state_patch)))
            states.revise(transaction, session, after, at=at, caller=run.user_id or ANONYMOUS)
            document = after
        except MillstreamError as error:
            refusal = failure_of(error)
    appender = Appender.after(run, said)
    head = server_event(ServerEvent.workflow_started, input=decode(run.input), attempt=run.attempt)
    appender.append(ServerEvent.workflow_started, head, at=at)
    publish(transaction, live, run, appender)
    return Claim(run=run, base=document, last_sequence=appender.sequence, refusal=refusal)


def publish(transaction: Transaction, live: LiveLogs, run: RunRow, appender: Appender) -> None:
    """Write an appender's events, and show them once they are committed."""
    first = appender.sequence - len(appender.events) + 1
    events.append_events(transaction, appender.rows(run.tenant_id, run.run_id))
    appender.post(transaction, live, run.tenant_id, run.run_id)
    transaction.after_commit(lambda: live.publish(run.run_id, first, appender.events, ended=appender.ended))
