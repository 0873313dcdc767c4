import ast
import io
import json
import logging
from collections.abc import Iterator

import pytest

from app.logs import FIELDS, configure_logs
from tests.support.cluster import ROOT


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
    extra = {"run_id": "r1", "reason": 'it said "no"\nand left', "host": "", "error": None, "events": 3}
    logging.getLogger("app.engine").warning("run_lost", extra=extra)
    (line,) = stream.getvalue().splitlines()
    at, rest = line.split(" ", 1)
    assert at.endswith("Z")
    assert rest == r'warning run_lost run_id=r1 reason="it said \"no\"\nand left" host="" events=3'


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
    logging.getLogger("app").info("odd", extra={"reason": "x" * 10_000})
    assert 300 < len(stream.getvalue()) < 400


def test_a_line_has_known_fields_alone(stream: io.StringIO) -> None:
    for form in ("text", "json"):
        configure_logs("info", stream, form=form)
        logging.getLogger("app").info("odd", extra={"token": "hidden", "body": {"a": "hidden"}, "code": "c"})
        logging.getLogger("authors.own").info("odd", extra={"password": "hidden", "name_of": "hidden"})
    assert "hidden" not in stream.getvalue()
    assert "code=c" in stream.getvalue()


def test_json_is_one_object_a_line(stream: io.StringIO) -> None:
    configure_logs("info", stream, form="json")
    try:
        raise ValueError('ka"put')
    except ValueError:
        logging.getLogger("app.x").exception("two\nlines", extra={"run_ids": ["a", "b"], "seconds": 0.5, "pid": 7})
    (line,) = [json.loads(text) for text in stream.getvalue().splitlines()]
    assert line.pop("time").endswith("Z")
    assert line.pop("exception").endswith('ValueError: ka"put')
    assert line == {
        "level": "error",
        "logger": "app.x",
        "message": "two lines",
        "run_ids": ["a", "b"],
        "seconds": 0.5,
        "pid": 7,
    }


def test_what_our_code_says_is_known() -> None:
    """Every name that `extra` is given in the package, so that none is left out of the log by mistake."""
    given = set()
    for file in (ROOT / "app").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "extra" and isinstance(node.value, ast.Dict):
                given |= {key.value for key in node.value.keys if isinstance(key, ast.Constant)}
    assert {"run_id", "code", "path"} <= given <= FIELDS
