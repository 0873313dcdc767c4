"""The ticker: starts the runs of schedules that are due, in every process, each tick once over all of them.

A due schedule is locked, its run accepted and its next tick written in one transaction; others pass over what is
locked. So a process that dies has either done all of it or nothing. That a tick has had its run is noted under a key of
its own: should clocks or somebody's hands put a schedule back, it stays at one.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from app import clock
from app.engine.live import LiveLogs
from app.engine.seam import Engine
from app.errors import MillstreamError, Unavailable
from app.operations.caller import Caller
from app.operations.runs import Runs
from app.operations.schedules import SCHEDULES, request_of
from app.store import schedules
from app.store.database import Database, Transaction
from app.store.tables import ScheduleRow, TickRow
from app.workflow.cron import Due, due_tick, read_cron
from app.workflow.registry import Registry

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""How often it is looked for schedules that other processes have made or changed."""
LOOK_ALONE_SECONDS = 30.0
"""The same where there are no others: the wall clock may have been set."""
RETRY_SECONDS = 1.0
TICKS_KEPT = timedelta(days=7)


class Ticker:
    """Starts what is due."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        engine: Engine,
        runs: Runs,
        live: LiveLogs,
        *,
        grace_seconds: float,
        alone: bool,
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        """`grace_seconds` is how late a tick may be and not count as missed; `now` is the wall clock."""
        self._database, self._engine, self._runs, self._live = database, engine, runs, live
        self._workflows = [definition.name for definition in registry]
        self._grace = timedelta(seconds=grace_seconds)
        self._look_seconds = LOOK_ALONE_SECONDS if alone else LOOK_SECONDS
        self._now = now

    async def run(self) -> None:
        """Start what is due, sleep until the next is, until cancelled or the process drains."""
        with self._live.holding(SCHEDULES) as bell:
            while not self._engine.draining:
                news = bell.change()
                try:
                    while await self.tick():
                        pass
                    seconds = await self._seconds_left()
                except Unavailable:
                    seconds = RETRY_SECONDS
                except Exception:  # the next look may go better, and nobody else looks for this process
                    logger.exception("schedules_not_looked_for")
                    seconds = self._look_seconds
                await asyncio.wait({news}, timeout=seconds)

    async def tick(self) -> bool:
        """Do one thing that is due; whether there was one."""
        taken: list[tuple[ScheduleRow, Due]] = []

        def work(transaction: Transaction) -> tuple[Caller, str | None] | None:
            row = schedules.take_due(transaction, self._workflows, now=self._now())
            if row is None or self._engine.draining:
                return None
            due = self._due(row)
            taken.append((row, due))
            return self._start(transaction, row, due)

        try:
            started = await self._database.write(work)
        except Unavailable:
            raise
        except MillstreamError as refusal:
            row, due = taken[-1]
            await self._database.write(partial(self._pass_over, row=row, due=due, error=refusal))
            return True
        if started is not None:
            await self._runs.interrupt(*started)
        return bool(taken)

    def _due(self, row: ScheduleRow) -> Due:
        assert row.next_run_at is not None
        cron = read_cron(row.cron, row.timezone)
        return due_tick(cron, row.next_run_at, self._now(), grace=self._grace, catch_up=row.on_missed == "run_once")

    def _start(self, transaction: Transaction, row: ScheduleRow, due: Due) -> tuple[Caller, str | None] | None:
        """Accept the run of a tick and go on to the next; with whom to cancel the one that it interrupts."""
        caller = Caller(tenant=row.tenant_id, name=f"schedule {row.name}", user_id=row.user_id)
        extra = {"schedule_id": row.schedule_id, "tick_at": None if due.tick is None else due.tick.isoformat()}
        if due.tick is None:
            schedules.update_schedule(transaction, row, {"next_run_at": due.following})
            logger.info("ticks_missed", extra=extra)
            return None
        request = request_of(row, tick=due.tick)
        self._runs.check(request)
        run, interrupted = self._runs.accept(transaction, caller, request)
        tick = TickRow(tenant_id=row.tenant_id, schedule_id=row.schedule_id, tick_at=due.tick, run_id=run["run_id"])
        if not schedules.insert_tick(transaction, tick):
            raise _HadItsRun
        values = {"next_run_at": due.following, "last_run_id": run["run_id"], "last_run_at": self._now(), "error": None}
        schedules.update_schedule(transaction, row, values)
        schedules.forget_ticks(transaction, row, before=due.tick - TICKS_KEPT)
        return caller, interrupted

    def _pass_over(self, transaction: Transaction, row: ScheduleRow, due: Due, error: MillstreamError) -> None:
        """Go on to the next tick: for this one no run can be started, or one was."""
        there = schedules.lock_schedule(transaction, row.tenant_id, row.schedule_id)
        if there is None or there.next_run_at != row.next_run_at:
            return
        reason = None if isinstance(error, _HadItsRun) else error.message
        schedules.update_schedule(transaction, there, {"next_run_at": due.following, "error": reason})
        logger.warning("tick_passed_over", extra={"schedule_id": row.schedule_id, "code": error.problem_code})

    async def _seconds_left(self) -> float:
        """Until the next is due, or somebody else may have made one."""
        due_at = await self._database.read(lambda transaction: schedules.next_due(transaction, self._workflows))
        left = self._look_seconds if due_at is None else (due_at - self._now()).total_seconds()
        return min(max(left, 0.0), self._look_seconds)


class _HadItsRun(MillstreamError):
    """The tick has had its run before; what was begun for it is taken back."""

    def __init__(self) -> None:
        super().__init__("the tick has had its run", code="conflict")
