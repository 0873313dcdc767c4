"""What callers may ask of schedules."""

import re
from datetime import datetime
from typing import Any

from app import clock
from app.clock import rfc3339
from app.engine.live import LiveLogs
from app.errors import Conflict, NotFound
from app.operations.caller import Caller
from app.operations.cursors import cut_page, read_cursor, write_cursor
from app.operations.runs import RunRequest, Runs
from app.store import schedules
from app.store.database import Database, Transaction
from app.store.tables import ScheduleRow
from app.workflow.cron import read_cron
from app.workflow.encoding import decode, encode
from app.workflow.registry import Registry

MAX_SCHEDULES = 1000
"""Of a tenant."""
SCHEDULES = "schedules"
"""What is rung when a schedule is due at another time than before; no run has such an id."""
_SCHEDULE_ID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_OPTIONAL = frozenset({"session_id", "timeout_seconds"})
"""Members that may be taken away."""


class Schedules:
    """Schedules: made, seen, changed, paused, removed; run now."""

    def __init__(self, database: Database, registry: Registry, runs: Runs, live: LiveLogs) -> None:
        self._database, self._registry, self._runs, self._live = database, registry, runs, live

    async def create(
        self,
        caller: Caller,
        *,
        name: str,
        workflow: str,
        cron: str,
        timezone: str,
        input: dict[str, Any],
        session_id: str | None,
        user_id: str | None,
        metadata: dict[str, Any],
        timeout_seconds: float | None,
        on_missed: str,
        on_busy: str,
        paused: bool,
    ) -> dict[str, Any]:
        """A new schedule.

        Raises NotFound for an unknown workflow, Invalid for an input, an expression or a time zone that is not right,
        Conflict for a name that is taken.
        """
        at = clock.now()
        self._registry.get(workflow).input.validate(input)
        self._runs.check_seconds(timeout_seconds)
        row = ScheduleRow(
            tenant_id=caller.tenant,
            schedule_id=clock.new_id(),
            name=name,
            workflow=workflow,
            cron=cron,
            timezone=timezone,
            input=encode(input).decode(),
            session_id=session_id,
            user_id=caller.owner(user_id),
            annotations=encode(metadata).decode(),
            timeout_seconds=timeout_seconds,
            on_missed=on_missed,
            on_busy=on_busy,
            paused_at=at if paused else None,
            next_run_at=read_cron(cron, timezone).after(at),
            created_at=at,
            updated_at=at,
        )

        def work(transaction: Transaction) -> None:
            if schedules.count_schedules(transaction, caller.tenant) >= MAX_SCHEDULES:
                raise Conflict(
                    f"the tenant has {MAX_SCHEDULES} schedules, which is the most; delete one",
                    code="too_many_schedules",
                )
            if not schedules.insert_schedule(transaction, row):
                raise _taken(name)
            self._ring(transaction)

        await self._database.write(work)
        return self._resource(row)

    async def get(self, caller: Caller, schedule_id: str) -> dict[str, Any]:
        """The schedule; raises NotFound."""

        def work(transaction: Transaction) -> ScheduleRow:
            known = _SCHEDULE_ID.fullmatch(schedule_id)
            row = schedules.get_schedule(transaction, caller.tenant, schedule_id) if known else None
            return _seen(row, caller, schedule_id)

        return self._resource(await self._database.read(work))

    async def page(
        self, caller: Caller, *, filters: dict[str, Any], limit: int, cursor: str | None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Schedules, newest first, and the cursor of the next page."""
        before = None if cursor is None else read_cursor(cursor, str)[0]
        user = caller.owner(filters.get("user_id"))
        filters = filters | ({} if user is None else {"user_id": user})

        def work(transaction: Transaction) -> list[ScheduleRow]:
            return schedules.list_schedules(transaction, caller.tenant, filters=filters, before=before, limit=limit + 1)

        rows = await self._database.read(work)
        page, following = cut_page(rows, limit, lambda row: write_cursor(row.schedule_id))
        return [self._resource(row) for row in page], following

    async def update(self, caller: Caller, schedule_id: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Change it; raises NotFound, Invalid, and Conflict for a name that is taken."""
        values = {name: value for name, value in changes.items() if value is not None or name in _OPTIONAL}
        self._runs.check_seconds(values.get("timeout_seconds"))
        if "metadata" in values:
            values["annotations"] = encode(values.pop("metadata")).decode()

        def work(transaction: Transaction) -> ScheduleRow:
            row, at = self._locked(transaction, caller, schedule_id), clock.now()
            if "input" in changes and changes["input"] is not None:
                self._registry.get(row.workflow).input.validate(changes["input"])
                values["input"] = encode(changes["input"]).decode()
            other = schedules.schedule_named(transaction, caller.tenant, values.get("name", row.name))
            if other is not None and other.schedule_id != row.schedule_id:
                raise _taken(values["name"])
            if {"cron", "timezone"} & values.keys():
                cron = read_cron(values.get("cron", row.cron), values.get("timezone", row.timezone))
                values["next_run_at"] = cron.after(at)
            self._ring(transaction)
            return schedules.update_schedule(transaction, row, values | {"error": None, "updated_at": at})

        return self._resource(await self._database.write(work))

    async def pause(self, caller: Caller, schedule_id: str) -> dict[str, Any]:
        """Start nothing until it is resumed; raises NotFound. Asking twice is fine."""

        def work(transaction: Transaction) -> ScheduleRow:
            row, at = self._locked(transaction, caller, schedule_id), clock.now()
            if row.paused_at is not None:
                return row
            return schedules.update_schedule(transaction, row, {"paused_at": at, "updated_at": at})

        return self._resource(await self._database.write(work))

    async def resume(self, caller: Caller, schedule_id: str) -> dict[str, Any]:
        """Go on: what it has missed is skipped or made up for by one run, as it says; raises NotFound."""

        def work(transaction: Transaction) -> ScheduleRow:
            row, at = self._locked(transaction, caller, schedule_id), clock.now()
            if row.paused_at is None:
                return row
            values: dict[str, Any] = {"paused_at": None, "updated_at": at}
            if row.on_missed == "skip":
                values["next_run_at"] = read_cron(row.cron, row.timezone).after(at)
            self._ring(transaction)
            return schedules.update_schedule(transaction, row, values)

        return self._resource(await self._database.write(work))

    async def run(self, caller: Caller, schedule_id: str) -> dict[str, Any]:
        """Start a run of it now, beside its ticks; raises NotFound, and whatever starting a run does."""

        def work(transaction: Transaction) -> tuple[dict[str, Any], str | None]:
            row = self._locked(transaction, caller, schedule_id)
            request = request_of(row, tick=None)
            self._runs.check(request)
            run, interrupted = self._runs.accept(transaction, caller, request)
            schedules.update_schedule(transaction, row, {"last_run_id": run["run_id"], "last_run_at": clock.now()})
            return run, interrupted

        run, interrupted = await self._database.write(work)
        await self._runs.interrupt(caller, interrupted)
        return run

    async def delete(self, caller: Caller, schedule_id: str) -> None:
        """Remove it; its runs stay. Raises NotFound."""

        def work(transaction: Transaction) -> None:
            row = self._locked(transaction, caller, schedule_id)
            schedules.delete_schedule(transaction, row.tenant_id, row.schedule_id)

        await self._database.write(work)

    def _locked(self, transaction: Transaction, caller: Caller, schedule_id: str) -> ScheduleRow:
        known = _SCHEDULE_ID.fullmatch(schedule_id)
        row = schedules.lock_schedule(transaction, caller.tenant, schedule_id) if known else None
        return _seen(row, caller, schedule_id)

    def _ring(self, transaction: Transaction) -> None:
        transaction.after_commit(lambda: self._live.ring(SCHEDULES))

    def _resource(self, row: ScheduleRow) -> dict[str, Any]:
        """The schedule; see wire.schedules.Schedule."""
        error = row.error
        if row.workflow not in self._registry:
            error = f"there is no workflow {row.workflow!r} here any more"
        return {
            "schedule_id": row.schedule_id,
            "name": row.name,
            "workflow": row.workflow,
            "cron": row.cron,
            "timezone": row.timezone,
            "input": decode(row.input),
            "session_id": row.session_id,
            "user_id": row.user_id,
            "metadata": decode(row.annotations),
            "timeout_seconds": row.timeout_seconds,
            "on_missed": row.on_missed,
            "on_busy": row.on_busy,
            "paused": row.paused_at is not None,
            "next_run_at": None if row.next_run_at is None or row.paused_at else rfc3339(row.next_run_at),
            "last_run_id": row.last_run_id,
            "last_run_at": None if row.last_run_at is None else rfc3339(row.last_run_at),
            "error": error,
            "created_at": rfc3339(row.created_at),
            "updated_at": rfc3339(row.updated_at),
        }


def request_of(row: ScheduleRow, *, tick: datetime | None) -> RunRequest:
    """The run that a schedule starts: for a tick, or because somebody wants it now."""
    named = {"schedule_id": row.schedule_id, "name": row.name, "tick_at": None if tick is None else rfc3339(tick)}
    return RunRequest(
        workflow=row.workflow,
        input=decode(row.input),
        session_id=row.session_id,
        user_id=row.user_id,
        metadata=decode(row.annotations) | {"schedule": named},
        on_busy=row.on_busy,
        timeout_seconds=row.timeout_seconds,
    )


def _seen(row: ScheduleRow | None, caller: Caller, schedule_id: str) -> ScheduleRow:
    if row is None or not caller.sees(row.user_id):
        raise NotFound(f"there is no schedule {schedule_id[:100]!r}", code="unknown_schedule")
    return row


def _taken(name: str) -> Conflict:
    return Conflict(f"there is a schedule {name!r}; choose another name, or change that one", code="schedule_exists")
