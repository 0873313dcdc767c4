"""Whatever a user can meet is in the documents: settings, routes, answers, codes, events, metrics, commands."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.main import get_command

from app.api.application import make_application
from app.cli import exits
from app.cli.program import cli
from app.metrics import Metrics
from app.settings import Settings
from app.wire.events import SERVER_EVENTS, Event
from app.workflow.response import RunEvent, ServerEvent
from tests.docs.documents import DOCUMENTS, ROOT

AUTHORS, CLIENTS, OPERATORS = ((ROOT / "docs" / f"{name}.md").read_text() for name in ("authors", "clients", "operators"))
ALL = "\n".join(document.read_text() for document in DOCUMENTS)
FRAMEWORK = "Validation Error"
"""What FastAPI adds to routes with parameters, also where none can be wrong."""
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))


def rows(text: str) -> Iterator[list[str]]:
    """The rows of its tables, as cells."""
    for line in text.splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def row(text: str, first: str) -> list[str]:
    """The row whose first cell has this in code."""
    found = [cells for cells in rows(text) if f"`{first}`" in cells[0]]
    assert len(found) == 1, f"{first}: {len(found)} rows"
    return found[0]


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_settings_have_a_row_with_their_default(name: str) -> None:
    default = Settings.model_fields[name].default
    if default is None or default == ():
        shown = "none"
    elif isinstance(default, bool):
        shown = str(default).lower()
    elif isinstance(default, int | float):
        shown = f"{default:g}" if default < 100_000 else str(default)
    else:
        assert not isinstance(default, SecretStr)
        shown = str(default)
    cells = row(OPERATORS, f"MILLSTREAM_{name.upper()}")
    assert cells[1].strip("`") == shown


def test_no_setting_is_made_up() -> None:
    named = {name.lower() for name in re.findall(r"MILLSTREAM_([A-Z][A-Z_]*[A-Z])(?![A-Z_…])", ALL)}
    assert named - {"test_postgres"} <= set(Settings.model_fields)


def operations() -> dict[str, set[str]]:
    """Each route, and the statuses that it answers with."""
    paths: dict[str, Any] = make_application(no_service).openapi()["paths"]
    return {
        f"{method.upper()} {path}": {
            status for status, answer in operation["responses"].items() if answer["description"] != FRAMEWORK
        }
        for path, methods in paths.items()
        for method, operation in methods.items()
    }


def no_service() -> Any:
    raise AssertionError


@pytest.mark.parametrize("route", list(operations()))
def test_routes_have_a_row_with_their_statuses(route: str) -> None:
    cells = row(CLIENTS, route)
    assert set(re.findall(r"\b[1-5]\d\d\b", cells[1])) == operations()[route]


def test_no_route_is_made_up() -> None:
    named = set(re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) /[^`?\s]*)", CLIENTS))
    assert named - {"GET /docs", "GET /openapi.json"} <= set(operations())


def codes() -> set[str]:
    """Every code that an error is raised with, or a class of errors has."""
    found: set[str] = set()
    for file in (ROOT / "app").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "code":
                found |= strings(node.value)
            elif isinstance(node, ast.AnnAssign | ast.Assign) and names(node) == {"code"} and node.value is not None:
                found |= strings(node.value)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"failed", "problem"}:
                found |= set().union(*(strings(argument) for argument in node.args[:2]))
    return {code for code in found if re.fullmatch(r"[a-z]+(_[a-z]+)*", code)} - {"configuration"}


def names(node: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def strings(node: ast.expr) -> set[str]:
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def test_the_codes_are_found() -> None:
    assert {"unknown_run", "author_error", "not_ready", "invalid_parameter", "conflict", "model_failed"} <= codes()


@pytest.mark.parametrize("code", sorted(codes()))
def test_codes_are_explained(code: str) -> None:
    assert any(f"`{code}`" in cells[0] for text in (CLIENTS, AUTHORS) for cells in rows(text))


@pytest.mark.parametrize("name", list(RunEvent) + list(ServerEvent))
def test_events_are_explained(name: str) -> None:
    assert f"`{name}`" in CLIENTS


@pytest.mark.parametrize("model", SERVER_EVENTS, ids=lambda model: model.__name__)
def test_events_of_the_server_have_a_row_with_their_members(model: type[Event]) -> None:
    cells = row(CLIENTS, model.__name__)
    own = {field.alias or name for name, field in model.model_fields.items() if name not in Event.model_fields}
    assert own <= set(re.findall(r"`(\w+)`", " ".join(cells[1:])))


def metrics() -> set[str]:
    """The names of the metrics, as Prometheus reads them."""
    text, _ = Metrics().render()
    found = re.findall(r"^# TYPE (\S+)", text.decode(), re.MULTILINE)
    return {name for name in found if not name.endswith("_created")}


@pytest.mark.parametrize("name", sorted(metrics()))
def test_metrics_have_a_row(name: str) -> None:
    assert row(OPERATORS, name)


def commands(command: Any, path: str = "millstream") -> Iterator[str]:
    """Every command of the command line that does something."""
    if not hasattr(command, "commands"):
        yield path
        return
    for name, below in command.commands.items():
        yield from commands(below, f"{path} {name}")


@pytest.mark.parametrize("command", list(commands(get_command(cli))))
def test_commands_are_in_the_reference(command: str) -> None:
    assert re.search(rf"`{command}[ `]", OPERATORS)


def test_exit_codes_are_in_the_reference() -> None:
    table = {int(cells[0]) for cells in rows(OPERATORS) if cells[0].isdigit()}
    assert table == {value for value in vars(exits).values() if isinstance(value, int)}


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)`", ALL) + re.findall(r"^make ([a-z]+)", ALL, re.MULTILINE)) <= targets


@pytest.mark.parametrize("record", DECISIONS, ids=lambda record: record.stem)
def test_decisions_are_short_and_whole(record: Path) -> None:
    lines = record.read_text().splitlines()
    assert len(lines) <= 60
    assert re.fullmatch(rf"# {record.stem[:4]} .+", lines[0])
    assert [line for line in lines if line.startswith("## ")] == [
        "## Context",
        "## Decision",
        "## Consequences",
        "## Alternatives",
    ]
