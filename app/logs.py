"""Logging, configured once by whoever starts a process: one readable line for each event, on standard error."""

import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TextIO

from app.clock import rfc3339

LARGEST_FIELD = 300
"""Characters of a field; a log names things, it does not carry bodies or states."""
CHATTY = (
    "alembic", "asyncio", "httpcore", "httpx", "openai", "primp", "procrastinate", "sse_starlette", "trafilatura",
    "urllib3", "uvicorn",
)  # fmt: skip
"""Libraries that tell in their info lines what ours say better, or nothing that an operator needs."""

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


class LineFormatter(logging.Formatter):
    """`2026-11-22T10:20:30.123456Z info run_failed run_id=…`, then the traceback of an exception if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text; only a traceback makes it more than one line."""
        at = rfc3339(datetime.fromtimestamp(record.created, UTC))
        event = _one_line(record.getMessage())
        line = " ".join([at, record.levelname.lower(), event, *_fields(record)])
        if record.exc_info and record.exc_info[0] is not None:
            line += "\n" + self.formatException(record.exc_info)
        return line


def configure_logs(level: str, stream: TextIO | None = None) -> None:
    """Write the log lines of this level and above, of libraries the warnings alone, to standard error by default."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter())
    wanted = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=wanted, handlers=[handler], force=True)
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(wanted, logging.WARNING))
    logging.captureWarnings(capture=True)


def _fields(record: logging.LogRecord) -> Iterator[str]:
    """What was given as `extra`, and the logger where it is not ours."""
    for name, value in vars(record).items():
        if name not in _OWN and value is not None:
            yield f"{name}={_quoted(value)}"
    if record.name.partition(".")[0] != "app":
        yield f"logger={record.name}"


def _quoted(value: object) -> str:
    """The value, in quotes where it could be read as more than one."""
    text = str(value)
    text = text if len(text) <= LARGEST_FIELD else f"{text[:LARGEST_FIELD]}…"
    plain = text.isprintable() and text and not any(character in ' "=' for character in text)
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())


def _one_line(text: str) -> str:
    return " ".join(text.split())
