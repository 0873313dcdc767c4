import io
import logging
from collections.abc import Iterator

import pytest

from app.logs import configure_logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def test_an_event_is_one_line_with_its_fields(stream: io.StringIO) -> None:
    configure_logs("info", stream)
    extra = {"run_id": "r1", "message_of": 'it said "no"\nand left', "empty": "", "none": None, "count": 3}
    logging.getLogger("app.engine").warning("run_lost", extra=extra)
    (line,) = stream.getvalue().splitlines()
    at, rest = line.split(" ", 1)
    assert at.endswith("Z")
    assert rest == r'warning run_lost run_id=r1 message_of="it said \"no\"\nand left" empty="" count=3'


def test_an_error_brings_its_traceback(stream: io.StringIO) -> None:
    configure_logs("info", stream)
    try:
        raise ValueError("kaput")
    except ValueError as error:
        logging.getLogger("app").error("task_died", exc_info=error)
    assert "error task_died\nTraceback" in stream.getvalue()
    assert stream.getvalue().endswith("ValueError: kaput\n")


def test_libraries_speak_up_only_when_something_is_wrong(stream: io.StringIO) -> None:
    configure_logs("info", stream)
    logging.getLogger("httpx").info("GET /secret")
    logging.getLogger("uvicorn.error").warning("odd")
    logging.getLogger("authors.own").info("hello")
    logging.getLogger("app").debug("quiet")
    assert [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()] == [
        "warning odd logger=uvicorn.error",
        "info hello logger=authors.own",
    ]


def test_a_long_field_is_cut(stream: io.StringIO) -> None:
    configure_logs("info", stream)
    logging.getLogger("app").info("odd", extra={"value": "x" * 10_000})
    assert len(stream.getvalue()) < 400
