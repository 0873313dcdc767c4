"""The rows of deliveries: events on their way to webhooks."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Integer,
    bindparam,
    column,
    delete,
    insert,
    literal_column,
    select,
    text,
    update,
)

from app.store.database import Transaction
from app.store.statements import Statement, among
from app.store.tables import DeliveryRow, DeliveryTable, table_of

_deliveries = table_of(DeliveryTable)
_KEY = (_deliveries.c.tenant_id == bindparam("tenant")) & (_deliveries.c.delivery_id == bindparam("delivery"))
# A literal: what is a parameter could be any status, so that the index of pending ones would not serve it.
_PENDING: ColumnElement[str] = literal_column("'pending'")
_INSERT = Statement(insert(_deliveries))
_LOCK = Statement(select(_deliveries).where(_KEY).with_for_update())
# From host to host in the order of the index: it costs a look for each host, however much there is for one of them.
_NEXT_HOST = "(SELECT min(host) FROM webhook_deliveries WHERE status = 'pending' AND host > hosts.host)"
_FIRST_HOST = "SELECT min(host) FROM webhook_deliveries WHERE status = 'pending'"
_NEXT_OF_HOST = (
    "(SELECT min(next_attempt_at) FROM webhook_deliveries"
    " WHERE status = 'pending' AND webhook_deliveries.host = hosts.host)"
)
_HOSTS = Statement(
    text(
        f"WITH RECURSIVE hosts (host) AS ({_FIRST_HOST} UNION ALL SELECT {_NEXT_HOST} FROM hosts"  # noqa: S608  constants
        f" WHERE hosts.host IS NOT NULL) SELECT host, {_NEXT_OF_HOST} AS due_at FROM hosts WHERE host IS NOT NULL"
    ).columns(column("host"), column("due_at", _deliveries.c.next_attempt_at.type))
)
_DUE = Statement(
    select(_deliveries)
    .where(
        _deliveries.c.status == _PENDING,
        _deliveries.c.host == bindparam("at_host"),
        _deliveries.c.next_attempt_at <= bindparam("now", type_=_deliveries.c.next_attempt_at.type),
    )
    .order_by(_deliveries.c.next_attempt_at)
    .limit(bindparam("count", type_=Integer))
    .with_for_update(skip_locked=True)
)
_TAKE = Statement(
    update(_deliveries)
    .where(_KEY)
    .values(
        attempts=_deliveries.c.attempts + 1,
        last_attempt_at=bindparam("now", type_=_deliveries.c.last_attempt_at.type),
        next_attempt_at=bindparam("until", type_=_deliveries.c.next_attempt_at.type),
    )
)
_SETTLE = Statement(
    update(_deliveries)
    .where(_KEY, _deliveries.c.status == _PENDING, _deliveries.c.attempts == bindparam("mine"))
    .values(
        status=bindparam("to"),
        failures=bindparam("failed_times"),
        next_attempt_at=bindparam("again_at", type_=_deliveries.c.next_attempt_at.type),
        response_status=bindparam("answer"),
        error=bindparam("said"),
        delivered_at=bindparam("at", type_=_deliveries.c.delivered_at.type),
    )
    .returning(_deliveries.c.delivery_id)
)
_AGAIN = Statement(
    update(_deliveries)
    .where(_KEY)
    .values(status="pending", failures=0, next_attempt_at=bindparam("now", type_=_deliveries.c.next_attempt_at.type))
)
_DELETE = Statement(delete(_deliveries).where(_KEY))
_DELETE_OF_WEBHOOK = Statement(
    delete(_deliveries).where(
        _deliveries.c.tenant_id == bindparam("tenant"), _deliveries.c.webhook_id == bindparam("webhook")
    )
)


_OLD = Statement(
    select(_deliveries.c.tenant_id, _deliveries.c.delivery_id)
    .where(
        _deliveries.c.created_at < bindparam("before", type_=_deliveries.c.created_at.type),
        _deliveries.c.status != _PENDING,
    )
    .order_by(_deliveries.c.created_at)
    .limit(bindparam("count", type_=Integer))
    .with_for_update(skip_locked=True)
)
_REMOVE = Statement(
    {
        dialect: delete(_deliveries).where(_deliveries.c.tenant_id == bindparam("tenant"), these)
        for dialect, these in among(_deliveries.c.delivery_id, "deliveries").items()
    }
)


class HostDue(NamedTuple):
    """A host that something is pending for, and when the next of it is due."""

    host: str
    due_at: datetime


def insert_deliveries(transaction: Transaction, rows: Sequence[DeliveryRow]) -> None:
    """Add deliveries, in the transaction that writes their events."""
    for row in rows:
        transaction.run(_INSERT, row.values)


def hosts_due(transaction: Transaction) -> list[HostDue]:
    """Every host that something is pending for."""
    return [HostDue(**row) for row in transaction.all(_HOSTS, {})]


def take_due(transaction: Transaction, host: str, *, now: datetime, until: datetime, count: int) -> list[DeliveryRow]:
    """Some of what is due at a host, each as one more attempt; nobody else takes it up before `until`."""
    taken = []
    for row in transaction.all(_DUE, {"at_host": host, "now": now, "count": count}):
        delivery = DeliveryRow.of(row)
        key = {"tenant": delivery.tenant_id, "delivery": delivery.delivery_id}
        transaction.run(_TAKE, key | {"now": now, "until": until})
        delivery.attempts += 1
        taken.append(delivery)
    return taken


def settle(
    transaction: Transaction,
    row: DeliveryRow,
    *,
    status: str,
    failures: int,
    next_attempt_at: datetime | None,
    response_status: int | None,
    error: str | None,
    delivered_at: datetime | None,
) -> bool:
    """Write what came of an attempt; False when another has begun since."""
    parameters = {
        "tenant": row.tenant_id,
        "delivery": row.delivery_id,
        "mine": row.attempts,
        "to": status,
        "failed_times": failures,
        "again_at": next_attempt_at,
        "answer": response_status,
        "said": error,
        "at": delivered_at,
    }
    return transaction.one(_SETTLE, parameters) is not None


def lock_delivery(transaction: Transaction, tenant: str, delivery: str) -> DeliveryRow | None:
    """The delivery, locked until the transaction ends, or None."""
    row = transaction.one(_LOCK, {"tenant": tenant, "delivery": delivery})
    return None if row is None else DeliveryRow.of(row)


def send_again(transaction: Transaction, row: DeliveryRow, *, now: datetime) -> None:
    """Have it sent as if it had never been tried; the count of attempts goes on."""
    transaction.run(_AGAIN, {"tenant": row.tenant_id, "delivery": row.delivery_id, "now": now})


def delete_delivery(transaction: Transaction, row: DeliveryRow) -> None:
    """Remove one."""
    transaction.run(_DELETE, {"tenant": row.tenant_id, "delivery": row.delivery_id})


def delete_deliveries_to(transaction: Transaction, tenant: str, webhook: str) -> None:
    """Remove all to one webhook."""
    transaction.run(_DELETE_OF_WEBHOOK, {"tenant": tenant, "webhook": webhook})


def remove_old_deliveries(transaction: Transaction, *, before: datetime, count: int) -> int:
    """Remove some that were made before and are no longer on their way, oldest first; how many."""
    of_tenants: dict[str, list[str]] = {}
    for row in transaction.all(_OLD, {"before": before, "count": count}):
        of_tenants.setdefault(row["tenant_id"], []).append(row["delivery_id"])
    return sum(
        transaction.count(_REMOVE, {"tenant": tenant, "deliveries": found}) for tenant, found in of_tenants.items()
    )


def list_deliveries(
    transaction: Transaction, tenant: str, *, filters: dict[str, Any], before: str | None, limit: int
) -> list[DeliveryRow]:
    """Deliveries with the columns given, newest first, those made before the cursor's."""
    parameters = filters | {"tenant": tenant, "count": limit} | ({} if before is None else {"before": before})
    rows = transaction.all(_list_of(tuple(filters), paged=before is not None), parameters)
    return [DeliveryRow.of(row) for row in rows]


@cache
def _list_of(filters: tuple[str, ...], *, paged: bool) -> Statement:
    """Compiled once for each choice of filters."""
    statement = select(_deliveries).where(_deliveries.c.tenant_id == bindparam("tenant"))
    for name in filters:
        statement = statement.where(_deliveries.c[name] == bindparam(name))
    if paged:
        statement = statement.where(_deliveries.c.delivery_id < bindparam("before"))
    return Statement(statement.order_by(_deliveries.c.delivery_id.desc()).limit(bindparam("count", type_=Integer)))
