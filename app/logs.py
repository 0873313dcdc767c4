"""Logging, configured once by whoever starts a process: one line for each event, on standard error."""

import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TextIO

from app.clock import rfc3339
from app.correlation import REQUEST_ID, RUN, trace_id

LARGEST_FIELD = 300
"""Characters of a field; a log names things, it does not carry bodies or states."""
CHATTY = (
    "alembic", "anyio", "asyncio", "httpcore", "httpcore2", "httpx", "httpx2", "openai", "opentelemetry", "primp",
    "procrastinate", "psycopg", "requests", "sqlalchemy", "sse_starlette", "trafilatura", "urllib3", "uvicorn",
)  # fmt: skip
"""Libraries that tell in their info lines what ours say better, or nothing that an operator needs; some tell of
bodies and headers when they are let."""
FIELDS = frozenset({
    "address", "attempt", "backup", "code", "deliveries", "delivery_id", "error", "events", "host", "issuer", "key_id",
    "method", "milliseconds", "model", "more_before", "path", "pid", "port", "reason", "request_id", "route", "rows",
    "run_id", "run_ids", "runs", "schedule_id", "seconds", "session_id", "sessions", "status", "tenant", "tick",
    "trace_id", "wait_seconds", "webhook_id", "worker_id", "workflow",
})  # fmt: skip
"""What a line may say besides its event. Whatever else is given as `extra` is left out: that a secret, a body or a
state is in no log does not depend on nobody ever handing one over."""


class LineFormatter(logging.Formatter):
    """`2026-11-22T10:20:30.123456Z info run_failed run_id=…`, then the traceback of an exception if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text; only a traceback makes it more than one line."""
        fields = [f"{name}={_quoted(value)}" for name, value in _fields(record)]
        if record.name.partition(".")[0] != "app":
            fields.append(f"logger={record.name}")
        line = " ".join([_moment(record), record.levelname.lower(), _one_line(record.getMessage()), *fields])
        if record.exc_info and record.exc_info[0] is not None:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line, the traceback of an exception in it."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a JSON object."""
        line: dict[str, Any] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _one_line(record.getMessage()),
        }
        line |= {name: _plain(value) for name, value in _fields(record)}
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


FORMATTERS = {"text": LineFormatter, "json": JsonFormatter}


def configure_logs(level: str, stream: TextIO | None = None, *, form: str = "text") -> None:
    """Write the log lines of this level and above, of libraries the warnings alone, to standard error by default."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(FORMATTERS[form]())
    wanted = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=wanted, handlers=[handler], force=True)
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(wanted, logging.WARNING))
    logging.captureWarnings(capture=True)


def _moment(record: logging.LogRecord) -> str:
    return rfc3339(datetime.fromtimestamp(record.created, UTC))


def _fields(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    """What was given as `extra`, and then what the code that wrote it was working on."""
    given = vars(record)
    own = {name: value for name, value in given.items() if name in FIELDS and value is not None}
    yield from own.items()
    for name, value in _around():
        if name not in own and value is not None:
            yield name, value


def _around() -> Iterator[tuple[str, object]]:
    yield "request_id", REQUEST_ID.get()
    if (run := RUN.get()) is not None:
        yield "run_id", run.run_id
        yield "session_id", run.session_id
        yield "workflow", run.workflow
        yield "attempt", run.attempt
    yield "trace_id", trace_id()


def _plain(value: object) -> object:
    """The value as JSON has it; what is neither number nor list, as text."""
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return _cut(str(value))


def _quoted(value: object) -> str:
    """The value, in quotes where it could be read as more than one."""
    text = _cut(str(value))
    plain = text.isprintable() and text and not any(character in ' "=' for character in text)
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())


def _cut(text: str) -> str:
    return text if len(text) <= LARGEST_FIELD else f"{text[:LARGEST_FIELD]}…"


def _one_line(text: str) -> str:
    return " ".join(text.split())
