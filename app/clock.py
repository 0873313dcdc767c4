"""The only source of times and ids."""

import time
from datetime import UTC, datetime
from functools import lru_cache

import uuid_utils

MICROSECONDS = 1_000_000


def now() -> datetime:
    """The present instant, aware, in UTC, to the microsecond."""
    return datetime.now(UTC)


def rfc3339(instant: datetime) -> str:
    """The instant as `2026-11-22T10:20:30.123456Z`."""
    in_utc = instant if instant.tzinfo is UTC else instant.astimezone(UTC)
    return in_utc.isoformat(timespec="microseconds")[: -len("+00:00")] + "Z"


def microseconds() -> int:
    """The present instant for those who need it often: microseconds since 1970, in UTC."""
    return time.time_ns() // 1000


def rfc3339_of(microseconds: int) -> bytes:
    """Such an instant as `rfc3339` writes it."""
    second, fraction = divmod(microseconds, MICROSECONDS)
    return b"%b.%06dZ" % (_second(second), fraction)


@lru_cache(maxsize=16)
def _second(second: int) -> bytes:
    return datetime.fromtimestamp(second, UTC).isoformat()[: -len("+00:00")].encode()


def new_id() -> str:
    """A UUIDv7: later ids of one process sort after earlier ones."""
    return str(uuid_utils.uuid7())
