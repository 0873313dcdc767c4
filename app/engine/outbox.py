"""The outbox: an event that a webhook wants is on its way from the transaction that writes the event.

A run's row says from its acceptance on what its events are posted to. Where it says nothing, as nearly always, all of
this costs the look at an empty tuple.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from app import clock
from app.engine.live import LiveLogs
from app.store import deliveries
from app.store.database import Transaction
from app.store.tables import DeliveryRow
from app.workflow.encoding import decode, encode

ALL_EVENTS = "*"
DELIVERIES = "deliveries"
"""What is rung when there is something to send; no run has such an id."""


class Hook(NamedTuple):
    """A webhook as a run was accepted with it."""

    webhook_id: str
    user_id: str | None
    host: str
    events: frozenset[str]

    def wants(self, event: str) -> bool:
        """Whether it gets events of this name."""
        return event in self.events or ALL_EVENTS in self.events


def write_hooks(hooks: Iterable[Hook]) -> str | None:
    """As a run's row keeps them."""
    kept = [[hook.webhook_id, hook.user_id, hook.host, sorted(hook.events)] for hook in hooks]
    return encode(kept).decode() if kept else None


def read_hooks(kept: str | None) -> tuple[Hook, ...]:
    """Those of a run's row."""
    if kept is None:
        return ()
    return tuple(Hook(webhook, user, host, frozenset(events)) for webhook, user, host, events in decode(kept))


def wanted(hooks: Sequence[Hook], events: Sequence[tuple[str, bytes]]) -> bool:
    """Whether any of the events, `(name, payload)`, is to be posted."""
    return any(hook.wants(name) for hook in hooks for name, _ in events)


def post(
    transaction: Transaction,
    live: LiveLogs,
    tenant: str,
    run_id: str,
    hooks: Sequence[Hook],
    events: Sequence[tuple[str, bytes]],
    *,
    first: int,
) -> None:
    """Put those of the events that somebody wants on their way, in the transaction that writes them.

    `first` is the number of the first of the events, `(name, payload)`.
    """
    at = clock.now()
    rows = [
        DeliveryRow(
            tenant_id=tenant,
            delivery_id=clock.new_id(),
            webhook_id=hook.webhook_id,
            user_id=hook.user_id,
            run_id=run_id,
            sequence=sequence,
            event=name,
            payload=payload.decode(),
            host=hook.host,
            next_attempt_at=at,
            created_at=at,
        )
        for sequence, (name, payload) in enumerate(events, first)
        for hook in hooks
        if hook.wants(name)
    ]
    if rows:
        deliveries.insert_deliveries(transaction, rows)
        transaction.after_commit(lambda: live.ring(DELIVERIES))
