"""The only source of times and ids."""

from datetime import UTC, datetime

import uuid_utils


def now() -> datetime:
    """The present instant, aware, in UTC, to the microsecond."""
    return datetime.now(UTC)


def rfc3339(instant: datetime) -> str:
    """The instant as `2026-11-22T10:20:30.123456Z`."""
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def new_id() -> str:
    """A UUIDv7: later ids of one process sort after earlier ones."""
    return str(uuid_utils.uuid7())
