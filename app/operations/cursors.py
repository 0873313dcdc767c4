"""Cursors of lists: opaque to clients, keyset positions to us."""

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from app.errors import Invalid, Malformed
from app.workflow.encoding import decode, encode

Row = TypeVar("Row")

LARGEST_NUMBER = 2**31 - 1


def write_cursor(*position: str | int) -> str:
    """The cursor of a place in a list."""
    return base64.urlsafe_b64encode(encode(list(position))).decode().rstrip("=")


def read_cursor(cursor: str, *kinds: type) -> list[Any]:
    """The place that a cursor stands for; raises Invalid for a string that is none of this list's."""
    try:
        position = decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, Malformed):
        position = None
    if (
        not isinstance(position, list)
        or [type(part) for part in position] != list(kinds)
        or not all(map(_fits, position))
    ):
        raise Invalid(
            f"{cursor[:100]!r} is no cursor of this list; take next_cursor from the page before", code="invalid_cursor"
        )
    return position


def read_moment(cursor: str) -> tuple[datetime, str]:
    """The place in a list by moments: when, and which of that moment; raises Invalid."""
    text, name = read_cursor(cursor, str, str)
    try:
        return datetime.fromisoformat(text).astimezone(UTC), name
    except (ValueError, OverflowError):
        raise Invalid(f"{cursor[:100]!r} is no cursor of this list", code="invalid_cursor") from None


def _fits(part: Any) -> bool:
    """Whether it can be compared with what is in the tables."""
    return "\x00" not in part if isinstance(part, str) else 0 <= part <= LARGEST_NUMBER


def cut_page(rows: Sequence[Row], limit: int, cursor_of: Callable[[Row], str]) -> tuple[list[Row], str | None]:
    """The first `limit` of rows of which one more was asked for, and the cursor of the next page if there is one."""
    page = list(rows[:limit])
    return page, cursor_of(page[-1]) if len(rows) > limit else None
