"""Tables that Agno 1.x and phidata wrote: known by their columns, read row by row, never written."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import bindparam, insert, select

from app.errors import Invalid, NotFound
from app.store.database import Transaction
from app.store.statements import Statement
from app.store.tables import ImportTable, metadata, table_of

_imports = table_of(ImportTable)
_GET = Statement(
    select(_imports).where(_imports.c.tenant_id == bindparam("tenant"), _imports.c.source == bindparam("table"))
)
_INSERT = Statement(insert(_imports))
_TABLES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
    "postgresql": "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()",
}


class TableKind(StrEnum):
    """What a table holds, by its columns."""

    workflows = "workflows"
    """Sessions of workflows, in 1.1.11 and later among those of agents."""
    agents = "agents"
    """Sessions of agents or teams alone."""
    workflows_v2 = "workflows_v2"
    """Sessions of the other kind of workflow that came with Agno 1.8."""


class AgnoRow(NamedTuple):
    """One row; what its table has no column for is None, JSON is as it was found."""

    session_id: str
    workflow_id: str | None
    user_id: str | None
    agent_id: str | None
    team_id: str | None
    memory: bytes | None
    workflow_data: bytes | None
    session_data: bytes | None
    extra_data: bytes | None
    user_data: bytes | None
    created_at: Any
    updated_at: Any


_TEXTS = 5
"""The first members of a row are text, no JSON."""


@contextmanager
def open_source(file: Path) -> Iterator[sqlite3.Connection]:
    """A SQLite file, read-only; raises NotFound where there is none, Invalid when it is no such file."""
    if not file.is_file():
        raise NotFound(f"there is no file {file}", code="unknown_file")
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as source:
            source.text_factory = bytes  # what is no UTF-8 must not keep the other rows from being read
            yield source
    except sqlite3.DatabaseError as error:
        raise Invalid(f"{file} cannot be read as a SQLite database: {error}", code="unreadable_file") from error


def table_kinds(source: sqlite3.Connection) -> dict[str, TableKind]:
    """The tables that Agno or phidata wrote, by name."""
    kinds = {name: _kind(_columns(source, name)) for name in _names(source)}
    return {name: kind for name, kind in kinds.items() if kind is not None}


def read_rows(source: sqlite3.Connection, table: str) -> Iterator[AgnoRow]:
    """All rows of one of these tables, oldest first."""
    present = _columns(source, table)
    wanted = [_quoted(column) if column in present else "NULL" for column in AgnoRow._fields]
    order = " ORDER BY created_at" if "created_at" in present else ""
    for row in source.execute(f"SELECT {', '.join(wanted)} FROM {_quoted(table)}{order}"):  # noqa: S608  names, quoted
        texts = [_text(value) for value in row[:_TEXTS]]
        documents = [value if value is None or isinstance(value, bytes) else str(value).encode() for value in row[5:10]]
        yield AgnoRow._make([texts[0] or "", *texts[1:], *documents, *row[10:]])


def imported(transaction: Transaction, tenant: str, table: str) -> bool:
    """Whether a table of this database has been taken over."""
    return transaction.one(_GET, {"tenant": tenant, "table": table}) is not None


def mark_imported(transaction: Transaction, tenant: str, table: str, *, at: datetime) -> None:
    """Remember that a table of this database has been taken over."""
    transaction.run(_INSERT, {"tenant_id": tenant, "source": table, "imported_at": at})


def foreign_tables(transaction: Transaction) -> set[str]:
    """Tables that have the names of ours; none of them can be ours before the first migration."""
    return {name for (name,) in transaction.driver(_TABLES, ())} & set(metadata.tables)


def _names(source: sqlite3.Connection) -> list[str]:
    rows = source.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY 1")
    return [_text(name) or "" for (name,) in rows]


def _columns(source: sqlite3.Connection, table: str) -> set[str]:
    rows = source.execute("SELECT name FROM pragma_table_info(?)", (table,))
    return {_text(name) or "" for (name,) in rows}


def _kind(columns: set[str]) -> TableKind | None:
    if {"session_id", "workflow_name", "runs"} <= columns:
        return TableKind.workflows_v2
    if {"session_id", "memory", "session_data", "workflow_data"} <= columns:
        return TableKind.workflows
    if {"session_id", "memory", "session_data"} <= columns:
        return TableKind.agents
    return None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return None if value is None else str(value)
