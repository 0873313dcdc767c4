"""The rows of schedules, and of the ticks that runs were started for."""

from collections.abc import Collection
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Integer, bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from app.store.database import Transaction
from app.store.statements import Statement, among
from app.store.tables import ScheduleRow, ScheduleTable, TickRow, TickTable, table_of

_schedules = table_of(ScheduleTable)
_ticks = table_of(TickTable)
_KEY = (_schedules.c.tenant_id == bindparam("tenant")) & (_schedules.c.schedule_id == bindparam("schedule"))
_GET = Statement(select(_schedules).where(_KEY))
_LOCK = Statement(select(_schedules).where(_KEY).with_for_update())
_INSERT = Statement(
    {
        "sqlite": sqlite_insert(_schedules).on_conflict_do_nothing().returning(_schedules.c.schedule_id),
        "postgresql": postgresql_insert(_schedules).on_conflict_do_nothing().returning(_schedules.c.schedule_id),
    }
)
_DELETE = Statement(delete(_schedules).where(_KEY))
_DELETE_OF_USER = Statement(
    delete(_schedules).where(_schedules.c.tenant_id == bindparam("tenant"), _schedules.c.user_id == bindparam("owner"))
)
_NAMED = Statement(
    select(_schedules).where(_schedules.c.tenant_id == bindparam("tenant"), _schedules.c.name == bindparam("named"))
)
_COUNT = Statement(
    select(func.count().label("there")).select_from(_schedules).where(_schedules.c.tenant_id == bindparam("tenant"))
)
_ON = _schedules.c.paused_at.is_(None)
_SERVED = among(_schedules.c.workflow, "workflows")
# Several processes look; each takes what no other is just taking.
_DUE = Statement(
    {
        dialect: select(_schedules)
        .where(_ON, served, _schedules.c.next_run_at <= bindparam("now", type_=_schedules.c.next_run_at.type))
        .order_by(_schedules.c.next_run_at)
        .limit(1)
        .with_for_update(skip_locked=True)
        for dialect, served in _SERVED.items()
    }
)
_NEXT = Statement(
    {
        dialect: select(_schedules.c.next_run_at)
        .where(_ON, served, _schedules.c.next_run_at.is_not(None))
        .order_by(_schedules.c.next_run_at)
        .limit(1)
        for dialect, served in _SERVED.items()
    }
)
_CHANGEABLE = (
    "name", "cron", "timezone", "input", "session_id", "annotations", "timeout_seconds", "on_missed", "on_busy",
    "paused_at", "next_run_at", "last_run_id", "last_run_at", "error", "updated_at",
)  # fmt: skip
_UPDATE = Statement(update(_schedules).where(_KEY).values({name: bindparam(f"set_{name}") for name in _CHANGEABLE}))
_INSERT_TICK = Statement(
    {
        "sqlite": sqlite_insert(_ticks).on_conflict_do_nothing().returning(_ticks.c.run_id),
        "postgresql": postgresql_insert(_ticks).on_conflict_do_nothing().returning(_ticks.c.run_id),
    }
)
_FORGET_TICKS = Statement(
    delete(_ticks).where(
        _ticks.c.tenant_id == bindparam("tenant"),
        _ticks.c.schedule_id == bindparam("schedule"),
        _ticks.c.tick_at < bindparam("before", type_=_ticks.c.tick_at.type),
    )
)


def get_schedule(transaction: Transaction, tenant: str, schedule: str) -> ScheduleRow | None:
    """The schedule, or None."""
    row = transaction.one(_GET, {"tenant": tenant, "schedule": schedule})
    return None if row is None else ScheduleRow.of(row)


def lock_schedule(transaction: Transaction, tenant: str, schedule: str) -> ScheduleRow | None:
    """The schedule, locked until the transaction ends."""
    row = transaction.one(_LOCK, {"tenant": tenant, "schedule": schedule})
    return None if row is None else ScheduleRow.of(row)


def schedule_named(transaction: Transaction, tenant: str, name: str) -> ScheduleRow | None:
    """The schedule of that name, or None."""
    row = transaction.one(_NAMED, {"tenant": tenant, "named": name})
    return None if row is None else ScheduleRow.of(row)


def insert_schedule(transaction: Transaction, row: ScheduleRow) -> bool:
    """Add the schedule; False when there is one of that name."""
    return transaction.one(_INSERT, row.values) is not None


def update_schedule(transaction: Transaction, row: ScheduleRow, values: dict[str, Any]) -> ScheduleRow:
    """Set columns of the locked schedule; as it is then."""
    changed = ScheduleRow.of(row.values | values)
    parameters = {f"set_{name}": changed.values[name] for name in _CHANGEABLE}
    transaction.run(_UPDATE, parameters | {"tenant": row.tenant_id, "schedule": row.schedule_id})
    return changed


def delete_schedule(transaction: Transaction, tenant: str, schedule: str) -> None:
    """Remove the schedule, and what is known of its ticks."""
    transaction.run(_DELETE, {"tenant": tenant, "schedule": schedule})


def delete_schedules_of(transaction: Transaction, tenant: str, user: str) -> None:
    """Remove all schedules of a user."""
    transaction.run(_DELETE_OF_USER, {"tenant": tenant, "owner": user})


def count_schedules(transaction: Transaction, tenant: str) -> int:
    """How many the tenant has."""
    counted = transaction.one(_COUNT, {"tenant": tenant})
    assert counted is not None
    there: int = counted["there"]
    return there


def list_schedules(
    transaction: Transaction, tenant: str, *, filters: dict[str, Any], before: str | None, limit: int
) -> list[ScheduleRow]:
    """Schedules with the columns given, newest first, those made before the cursor's."""
    parameters = filters | {"tenant": tenant, "count": limit} | ({} if before is None else {"before": before})
    rows = transaction.all(_list_of(tuple(filters), paged=before is not None), parameters)
    return [ScheduleRow.of(row) for row in rows]


@cache
def _list_of(filters: tuple[str, ...], *, paged: bool) -> Statement:
    """Compiled once for each choice of filters."""
    statement = select(_schedules).where(_schedules.c.tenant_id == bindparam("tenant"))
    for name in filters:
        statement = statement.where(_schedules.c[name] == bindparam(name))
    if paged:
        statement = statement.where(_schedules.c.schedule_id < bindparam("before"))
    return Statement(statement.order_by(_schedules.c.schedule_id.desc()).limit(bindparam("count", type_=Integer)))


def take_due(transaction: Transaction, workflows: Collection[str], *, now: datetime) -> ScheduleRow | None:
    """The schedule of these workflows that is due for longest, locked; None when none is, or others have them."""
    row = transaction.one(_DUE, {"workflows": list(workflows), "now": now})
    return None if row is None else ScheduleRow.of(row)


def next_due(transaction: Transaction, workflows: Collection[str]) -> datetime | None:
    """When the next schedule of these workflows is due."""
    row = transaction.one(_NEXT, {"workflows": list(workflows)})
    return None if row is None else row["next_run_at"]


def insert_tick(transaction: Transaction, row: TickRow) -> bool:
    """Note that a run is started for a tick; False when one was."""
    return transaction.one(_INSERT_TICK, row.values) is not None


def forget_ticks(transaction: Transaction, row: ScheduleRow, *, before: datetime) -> None:
    """Remove what is known of older ticks."""
    parameters = {"tenant": row.tenant_id, "schedule": row.schedule_id, "before": before}
    transaction.run(_FORGET_TICKS, parameters)
