"""What a database's refusal means for whoever asked: wait, make room, or correct the value."""

import logging
import sqlite3
import time

from sqlalchemy.exc import DataError, DBAPIError, OperationalError

from app.errors import Invalid, Unavailable

logger = logging.getLogger(__name__)

SAY_SECONDS = 10.0
"""Between two log lines about refusals: runs try again by the thousand, and one line says it for all of them."""
ROOM_SECONDS = 5
"""Retry-After where somebody has to do something first."""

_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE, "53100"}
_READ_ONLY = {sqlite3.SQLITE_READONLY, "25006"}


class Refusals:
    """Turns the errors of one database into ours, and tells the log of those that last."""

    def __init__(self) -> None:
        self._said_at: float | None = None
        self._untold = 0

    def check(self, error: DBAPIError) -> None:
        """Raises Invalid or Unavailable; returns where the database has not refused but our statement is wrong."""
        if isinstance(error, DataError):
            raise Invalid(
                f"the database cannot hold a value of this request: {error.orig}", code="invalid_value"
            ) from error
        refusal = unavailable(error)
        if refusal is not None:
            self._tell(refusal, error)
            raise refusal from error

    def _tell(self, refusal: Unavailable, error: DBAPIError) -> None:
        now = time.monotonic()
        if self._said_at is not None and now < self._said_at + SAY_SECONDS:
            self._untold += 1
            return
        fields = {"code": refusal.problem_code, "reason": str(error.orig), "more_before": self._untold or None}
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


def unavailable(error: DBAPIError) -> Unavailable | None:
    """What the error says about the database; None where it is about the statement."""
    number = _number(error)
    if number in _FULL:
        return no_room(str(error.orig))
    if number in _READ_ONLY:
        return Unavailable(
            f"the database can only be read: {error.orig}; let MILLSTREAM_DATABASE_URL name one that can be written,"
            " or wait until this one can",
            code="database_read_only",
            retry_after_seconds=ROOM_SECONDS,
        )
    if isinstance(error, OperationalError) or error.connection_invalidated:
        return Unavailable(f"the database does not answer: {error.orig}; try again", code="database_unavailable")
    return None


def _number(error: DBAPIError) -> int | str | None:
    """What the driver calls it: SQLite's result code, of which the lower byte is the kind, or Postgres's SQLSTATE."""
    code: int | None = getattr(error.orig, "sqlite_errorcode", None)
    if code is None:
        state: str | None = getattr(error.orig, "sqlstate", None)
        return state
    return code if code in _FULL else code & 0xFF
