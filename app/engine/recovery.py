"""Runs that their worker has left: made ready again, or ended when they cannot be helped."""

from app import clock
from app.engine.claims import publish
from app.engine.endings import Outcome, end_run, failed, seconds_since
from app.engine.live import LiveLogs
from app.engine.seam import Engine
from app.engine.states import States
from app.engine.writer import Appender
from app.store import events, runs, sessions
from app.store.database import Transaction
from app.store.tables import RunRow
from app.wire.events import server_event
from app.workflow.response import ServerEvent
from app.workflow.status import RunStatus

MAX_RECOVERIES = 5
"""Deaths of its worker after which a run is taken for their cause."""


def recover_run(transaction: Transaction, engine: Engine, states: States, live: LiveLogs, run: RunRow) -> None:
    """Go on elsewhere with a run whose worker is dead. The run is locked by the transaction."""
    transaction.after_commit(live.metrics.recoveries.inc)
    if run.cancel_requested_at is not None:
        end_idle_run(transaction, engine, states, live, run, Outcome(RunStatus.cancelled))
    elif run.recoveries >= MAX_RECOVERIES:
        message = f"its worker has died {run.recoveries + 1} times; the run is taken for the cause"
        end_idle_run(transaction, engine, states, live, run, failed("crash_loop", message))
    else:
        make_ready(transaction, engine, run, recoveries=run.recoveries + 1)


def make_ready(transaction: Transaction, engine: Engine, run: RunRow, *, recoveries: int) -> None:
    """Have a run that was running or paused claimed again. What it said last tells how long it was seen to work."""
    used = run.used_seconds
    if run.status == RunStatus.running and run.claimed_at is not None and run.timeout_seconds is not None:
        said_at = events.last_moment(transaction, run.tenant_id, run.run_id)
        used += max(0.0, (said_at - run.claimed_at).total_seconds()) if said_at is not None else 0.0
    runs.requeue_run(transaction, run.tenant_id, run.run_id, recoveries=recoveries, used_seconds=used)
    engine.submit(transaction, run)


def continue_run(
    transaction: Transaction, engine: Engine, live: LiveLogs, run: RunRow, *, request_id: str, value: str | None
) -> None:
    """Go on with a paused run: with the JSON of the answer, or None when nobody gave one in time."""
    appender = Appender.after(run, events.last_sequence(transaction, run.tenant_id, run.run_id))
    head = server_event(ServerEvent.run_continued, request_id=request_id, timed_out=True if value is None else None)
    appender.append(ServerEvent.run_continued, head, at=clock.now(), result=value)
    publish(transaction, live, run, appender)
    make_ready(transaction, engine, run, recoveries=run.recoveries)


def end_idle_run(
    transaction: Transaction, engine: Engine, states: States, live: LiveLogs, run: RunRow, outcome: Outcome
) -> None:
    """End a run that nobody executes. The run is locked by the transaction."""
    appender = Appender.after(run, events.last_sequence(transaction, run.tenant_id, run.run_id))
    session = sessions.lock_session(transaction, run.tenant_id, run.session_id)
    assert session is not None  # none is removed while it has a live run
    at = clock.now()
    status = end_run(transaction, appender, states, engine, run, session, outcome, at)
    transaction.after_commit(lambda: live.metrics.run_finished(run.workflow, status, seconds_since(run.started_at, at)))
    publish(transaction, live, run, appender)
