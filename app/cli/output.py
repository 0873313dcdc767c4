"""What commands print: tables and documents for people, JSON for programs."""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console
    from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print JSON, one resource a line.")]
Limit = Annotated[int, typer.Option(min=1, help="How many at the most.")]

PLAIN_WIDTH = 10_000
"""Columns of what goes to a file or another program: nothing is to be cut there."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def console(*, stderr: bool = False) -> "Console":
    """A console that styles for terminals alone, and cuts nothing elsewhere."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PLAIN_WIDTH
    return Console(file=stream, width=width, soft_wrap=width is not None, markup=False, highlight=False, emoji=False)


def note(message: str) -> None:
    """Tell the user something that is no output."""
    typer.echo(message, err=True)


def print_json(resources: Iterable["BaseModel"]) -> None:
    """One resource a line."""
    for resource in resources:
        typer.echo(resource.model_dump_json())


def print_document(document: Any, out: "Console | None" = None) -> None:
    """A JSON document, to be read; for a program it is the same document."""
    out = out or console()
    text = json.dumps(document, indent=2, ensure_ascii=False)
    if not out.is_terminal:
        typer.echo(text)
        return
    from rich.json import JSON

    out.print(JSON(printable(text)), soft_wrap=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, none: str) -> None:
    """Rows under headings, or the sentence `none`; the first column is never cut."""
    lines = [[_cell(cell) for cell in row] for row in rows]
    if not lines:
        note(none)
        return
    table = _grid()
    table.show_header = True
    for number, column in enumerate(columns):
        table.add_column(column.upper(), header_style="bold", no_wrap=number == 0)
    for line in lines:
        table.add_row(*line)
    _print(table)


def print_members(members: Iterable[tuple[str, object]]) -> None:
    """Names and values, those that have one."""
    table = _grid()
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in members:
        if value is not None:
            table.add_row(name, _cell(value))
    _print(table)


def moment(instant: datetime | None) -> str | None:
    """A time, to the second, in UTC."""
    return None if instant is None else instant.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def duration(seconds: float) -> str:
    """A length of time, to be read."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:  # noqa: PLR2004  a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def compact(value: object) -> str:
    """A JSON value on one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def printable(text: str) -> str:
    """The text without what would steer a terminal."""
    return _CONTROL.sub("\ufffd", text.replace("\r\n", "\n"))


def _print(table: "Table") -> None:
    """Print a table, without the blanks that fill its last column."""
    out = console()
    with out.capture() as captured:
        out.print(table)
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _cell(value: object) -> str:
    return "-" if value is None else printable(value if isinstance(value, str) else compact(value))


def _grid() -> "Table":
    from rich.table import Table

    return Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
