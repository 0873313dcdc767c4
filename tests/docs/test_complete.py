"""Whatever a user can meet is in the documents: settings, routes, answers, codes, events, metrics, commands."""

import ast
import re
import tomllib
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
from app.store.tables import metadata
from app.wire.events import SERVER_EVENTS, Event
from app.workflow.response import RunEvent, ServerEvent
from tests.docs.documents import DOCUMENTS, ROOT

AUTHORS, CLIENTS, OPERATORS, ARCHITECTURE = (
    (ROOT / "docs" / f"{name}.md").read_text() for name in ("authors", "clients", "operators", "ARCHITECTURE")
)
ALL = "\n".join(document.read_text() for document in DOCUMENTS)
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))


def is_module(path: Path) -> bool:
    """Whether it is a module of the package, or a package in it."""
    return (path / "__init__.py").is_file() or (path.suffix == ".py" and path.stem != "__init__")


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
    elif isinstance(default, tuple):
        shown = ",".join(part if isinstance(part, str) else f"{part:g}" for part in default)
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
    # The latter of the two is how the doctor's example misspells one.
    named = {name.lower() for name in re.findall(r"MILLSTREAM_([A-Z][A-Z_]*[A-Z])(?![A-Z_…])", ALL)}
    assert named - {"test_postgres", "database_ulr"} <= set(Settings.model_fields)


def operations() -> dict[str, set[str]]:
    """Each route, and the statuses that it answers with."""
    paths: dict[str, Any] = make_application(no_service).openapi()["paths"]
    return {
        f"{method.upper()} {path}": set(operation["responses"])
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
    nodes = (node for file in (ROOT / "app").rglob("*.py") for node in ast.walk(ast.parse(file.read_text())))
    found = {code for node in nodes for code in codes_in(node)}
    return {code for code in found if re.fullmatch(r"[a-z]+(_[a-z]+)*", code)} - {"configuration"}


def codes_in(node: ast.AST) -> set[str]:
    match node:
        case ast.keyword(arg="code", value=value):
            return strings(value)
        case ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value) if names(node) == {"code"}:
            return strings(value)
        case ast.Call(func=ast.Name(id="failed" | "problem"), args=arguments):
            return set().union(*map(strings, arguments[:2]))
        case ast.Dict(keys=keys, values=values):
            return {
                c
                for key, value in zip(keys, values, strict=True)
                if key and strings(key) == {"code"}
                for c in strings(value)
            }
    return set()


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


def test_files_that_are_named_exist() -> None:
    named = set(re.findall(r"`(app/[\w/]+\.py)`", ALL))
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_the_walk_names_functions_that_exist() -> None:
    walk = [cells for cells in rows(ARCHITECTURE) if cells[0].startswith("`app/")]
    assert len(walk) == 6
    for file, functions, _ in walk:
        source = (ROOT / file.strip("`")).read_text()
        for function in re.findall(r"`(\w+)`", functions):
            assert f"def {function}(" in source, f"{file} has no {function}"


@pytest.mark.parametrize("table", sorted(metadata.tables))
def test_tables_have_a_row(table: str) -> None:
    assert row(ARCHITECTURE, table)


@pytest.mark.parametrize("floor", sorted(path.stem for path in (ROOT / "app").iterdir() if is_module(path)))
def test_the_map_shows_every_floor(floor: str) -> None:
    assert re.search(rf"\b{floor}\b", ARCHITECTURE)


def test_extras_and_dependencies_are_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert all(row(OPERATORS, extra) for extra in extras)
    for requirement in [*project["dependencies"], *(name for names in extras.values() for name in names)]:
        assert f"`{re.match('[a-z0-9-]+', requirement)[0]}" in DECISIONS[0].read_text(), requirement  # type: ignore[index]
