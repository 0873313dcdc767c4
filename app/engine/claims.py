"""Claiming a run: from now on this attempt, and no other, may write for it."""

from dataclasses import dataclass

from app import clock
from app.engine.endings import Outcome, failure_of
from app.engine.live import LiveLogs
from app.engine.states import States
from app.errors import MillstreamError
from app.store import events, runs, sessions
from app.store.database import Transaction
from app.store.events import NewEvent
from app.store.tables import RunRow
from app.wire.events import Envelope, server_event
from app.workflow.encoding import decode
from app.workflow.patches import merge_patch
from app.workflow.response import ServerEvent
from app.workflow.state import StateDocument


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that this worker has, and the frozen state that it starts from."""

    run: RunRow
    base: StateDocument
    last_sequence: int
    refusal: Outcome | None = None
    """Set when the run cannot begin: how it ends instead."""


def claim_run(
    transaction: Transaction, states: States, live: LiveLogs, *, tenant: str, run_id: str, worker: str
) -> Claim | None:
    """Take a queued run, apply the state that its request brought, and begin its log; None when it is not to be had."""
    at = clock.now()
    run = runs.claim_run(transaction, tenant, run_id, worker=worker, at=at)
    if run is None:
        return None
    session = sessions.lock_session(transaction, tenant, run.session_id)
    if session is None:
        return None
    document, refusal = states.newest(transaction, session), None
    if run.state_patch is not None:
        try:
            after = document.grafted(merge_patch(document.root, decode(run.state_patch)))
            states.revise(transaction, session, after, at=at, caller=run.user_id or "anonymous")
            document = after
        except MillstreamError as error:
            refusal = failure_of(error)
    runs.set_base_revision(transaction, tenant, run_id, session.revision)
    sequence = events.last_sequence(transaction, tenant, run_id) + 1
    head = server_event(ServerEvent.workflow_started, input=decode(run.input), attempt=run.attempt)
    payload = Envelope(run_id=run_id, session_id=run.session_id, workflow=run.workflow).seal(
        head, sequence=sequence, at=at
    )
    name = ServerEvent.workflow_started.value
    events.append_events(transaction, [NewEvent(tenant, run_id, sequence, name, payload.decode(), None)])
    transaction.after_commit(lambda: live.publish(run_id, sequence, [(name, payload)]))
    return Claim(run=run, base=document, last_sequence=sequence, refusal=refusal)
