"""When a schedule is due: cron expressions in a time zone, read by cronsim.

Where clocks change, it is as in Debian's cron. A job at a certain time that a change skips runs just after the gap; one
whose time comes twice runs once. A job every so many minutes or hours goes by the time that passes.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from app.errors import Invalid

FIVE_FIELDS, SIX_FIELDS = 5, 6
LONGEST_EXPRESSION = 200


class Cron(NamedTuple):
    """A cron expression and the time zone in which it is meant; see read_cron."""

    expression: str
    zone: ZoneInfo

    def after(self, moment: datetime) -> datetime | None:
        """The first tick after the moment, in UTC; None when there will be none in fifty years."""
        ticks = CronSim(self.expression, moment.astimezone(self.zone))
        return next((tick for tick in _in_utc(ticks) if tick > moment), None)

    def until(self, moment: datetime) -> datetime | None:
        """The last tick up to the moment, which it may be itself, in UTC."""
        ticks = CronSim(self.expression, (moment + timedelta(hours=2)).astimezone(self.zone), reverse=True)
        return next((tick for tick in _in_utc(ticks) if tick <= moment), None)


class Due(NamedTuple):
    """What becomes of a schedule that is due."""

    tick: datetime | None
    """The tick to start a run for; None when all that are due have been missed, and are to be skipped."""
    following: datetime | None
    """When it is due next."""


def due_tick(cron: Cron, due_at: datetime, now: datetime, *, grace: timedelta, catch_up: bool) -> Due:
    """What to do at a moment about a schedule that was due before.

    A tick is missed when it is older than the grace. With `catch_up` one run is started for all that were; without,
    they are skipped, but not the last one where that is within the grace.
    """
    if now - due_at <= grace:
        return Due(due_at, cron.after(due_at))
    last = max(due_at, cron.until(now) or due_at)
    if catch_up:
        return Due(last, cron.after(now))
    if now - last <= grace:
        return Due(last, cron.after(last))
    return Due(None, cron.after(now))


def read_cron(expression: str, zone: str) -> Cron:
    """The expression, of five fields, or six with the seconds first; raises Invalid with what is wrong."""
    if len(expression) > LONGEST_EXPRESSION or len(expression.split()) not in {FIVE_FIELDS, SIX_FIELDS}:
        raise _invalid(expression, "it has five fields: minute, hour, day of month, month, day of week")
    cron = Cron(expression, _zone(zone))
    try:
        tick = cron.after(datetime(2024, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise _invalid(expression, str(error).lower()) from None
    if tick is None:
        raise _invalid(expression, "there is no such day")
    return cron


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        message = f"{name[:100]!r} is no time zone; take a name like Europe/Berlin from the IANA database, or UTC"
        raise Invalid(message, code="invalid_time_zone") from None


def _invalid(expression: str, why: str) -> Invalid:
    return Invalid(f"{expression[:100]!r} is no cron expression: {why}", code="invalid_cron")


def _in_utc(ticks: CronSim) -> Iterator[datetime]:
    return (tick.astimezone(UTC) for tick in ticks)
