"""What a database's refusal means for whoever asked: wait, make room, or correct the value."""

import logging
import sqlite3
import time
from typing import NamedTuple

from app.errors import Invalid, MillstreamError, Unavailable

logger = logging.getLogger(__name__)

SAY_SECONDS = 10.0
"""Between two log lines about refusals: runs try again by the thousand, and one line says it for all of them."""
ROOM_SECONDS = 5
"""Retry-After where somebody has to do something first."""

_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE, "53100"}
_READ_ONLY = {sqlite3.SQLITE_READONLY, "25006"}


class DriverErrors(NamedTuple):
    """What a driver raises, by what it means."""

    value: tuple[type[BaseException], ...]
    """The database cannot hold a value."""
    absence: tuple[type[BaseException], ...]
    """The database does not answer, or not now."""


class Refusals:
    """Turns the errors of one database into ours, and tells the log of those that last."""

    def __init__(self) -> None:
        self.answered = False
        """Whether it ever did what it was asked; if not, whoever starts says why it does not start."""
        self._said_at: float | None = None
        self._untold = 0

    def of(self, error: BaseException, kinds: DriverErrors) -> MillstreamError | None:
        """Our error for one of a driver's; None where the database has not refused."""
        if isinstance(error, kinds.value):
            return Invalid(f"the database cannot hold a value of this request: {error}", code="invalid_value")
        refusal = unavailable(error, kinds)
        if refusal is not None:
            self._tell(refusal, error)
        return refusal

    def _tell(self, refusal: Unavailable, error: BaseException | None) -> None:
        now = time.monotonic()
        if not self.answered or (self._said_at is not None and now < self._said_at + SAY_SECONDS):
            self._untold += 1
            return
        fields = {"code": refusal.problem_code, "reason": str(error), "more_before": self._untold or None}
        logger.warning("database_refuses", extra=fields)
        self._said_at, self._untold = now, 0


def no_room(reason: str) -> Unavailable:
    """The error for a full disk."""
    return Unavailable(
        f"the disk of the database is full: {reason}; nothing that was accepted is lost, and runs go on when there is"
        " room: make some, and try again",
        code="database_full",
        retry_after_seconds=ROOM_SECONDS,
    )


def unavailable(error: BaseException | None, kinds: DriverErrors) -> Unavailable | None:
    """What an error of the driver's says about the database; None where it is about the statement."""
    number = _number(error)
    if number in _FULL:
        return no_room(str(error))
    if number in _READ_ONLY:
        return Unavailable(
            f"the database can only be read: {error}; let MILLSTREAM_DATABASE_URL name one that can be written,"
            " or wait until this one can",
            code="database_read_only",
            retry_after_seconds=ROOM_SECONDS,
        )
    if isinstance(error, kinds.absence):
        return Unavailable(f"the database does not answer: {error}; try again", code="database_unavailable")
    return None


def _number(error: BaseException | None) -> int | str | None:
    """What the driver calls it: SQLite's result code, of which the lower byte is the kind, or Postgres's SQLSTATE."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is None:
        state: str | None = getattr(error, "sqlstate", None)
        return state
    return code if code in _FULL else code & 0xFF
