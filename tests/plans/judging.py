"""Judging plans: does a statement read more of a growing table than what it asks for?

All rows have the same tenant, and all jobs the same queue, so a search by these alone is a scan under another name. It
may be one where the statement takes the first few rows of an index in its order, and asks for nothing that the index
does not know.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psycopg

from app.store.database import driver_url
from tests.plans.statements import Statements

GROWING = (
    "sessions",
    "session_revisions",
    "runs",
    "run_events",
    "idempotency_keys",
    "webhooks",
    "webhook_deliveries",
    "schedule_ticks",
    "procrastinate_jobs",
)
IN_HAND = {"procrastinate_jobs"}
"""Tables whose rows go when the work is done. They may be walked by an index, and Procrastinate scans its own whenever
a worker leaves."""
SHARED = {"tenant_id", "queue_name"}
"""Columns in which all rows are the same."""

GROUP = {"session_id"}
"""What a session has grows with its age: finding it by the session alone is a scan where more is asked."""

_STEP = re.compile(r"(?P<how>SCAN|SEARCH) (?P<table>\w+)(?:.*?INDEX (?P<index>\w+))?.*?(?:\((?P<bound>.*)\))?$")
_BOUND = re.compile(r"(\w+)(=|<|>)\?")
_WHERE = re.compile(r"\bWHERE\b(.*?)(?:\bORDER BY\b|\bLIMIT\b|\bRETURNING\b|\bUNION\b|$)", re.DOTALL | re.IGNORECASE)
_INNER = re.compile(r"\(SELECT .*?\)", re.DOTALL)
_ASKED = re.compile(r"(?:\b(\w+)\.)?\b(\w+) (?:= |IN )")
_CONDITION = re.compile(r"(\w+)\)?(?:::[\w ]+)? (=|<=?|>=?) ")


@dataclass(frozen=True)
class Access:
    """How a plan gets at a table."""

    table: str
    index: str | None
    partial: bool
    """An index of a few rows only: all of it is little."""
    led: bool
    """Whether the index is entered by its first column."""
    equal: frozenset[str]
    """Columns that the index finds by a value."""
    ranged: frozenset[str]
    asked: frozenset[str]
    """Columns that have to have a value, whether the index finds it or not."""
    few: bool
    """Whether the first rows in the index's order are enough."""
    sorted: bool = False
    """Whether all rows that match are sorted to find the first few."""

    def trouble(self) -> str | None:
        """Why this reads more than it should, if it does."""
        if self.partial or (self.table in IN_HAND and self.index is not None):
            return None
        if self.index is None or not self.led:
            return f"reads all of {self.table}"
        if self.sorted:
            return f"sorts what it finds of {self.table} by {self.index}"
        if self.table != "sessions" and self.equal - SHARED == GROUP and (more := self.asked - SHARED - GROUP):
            return f"walks the session's {self.table} by {self.index} for {', '.join(sorted(more))}"
        if self.equal - SHARED:
            return None
        if self.asked - SHARED:
            return f"walks {self.index} of {self.table} for {', '.join(sorted(self.asked - SHARED))}"
        if self.ranged - SHARED or self.few:
            return None
        return f"reads all of {self.table} by {self.index}"


def troubles(database_url: str, statements: Statements, *, small: bool = True) -> list[str]:
    """What is wrong with the plans of these statements, each with its statement.

    A small table Postgres may well scan: there it is asked what it would do if it could help it.
    """
    if database_url.startswith("sqlite:"):
        plans = _on_sqlite(database_url, statements)
    else:
        plans = _on_postgres(database_url, statements, small=small)
    judged = set(GROWING) if small else set(GROWING) - IN_HAND
    found = []
    for shape, accesses in plans:
        for access in accesses:
            if access.table in judged and (trouble := access.trouble()) is not None:
                found.append(f"{trouble}: {' '.join(shape.split())}")
    return found


def scans(database_url: str) -> dict[str, int]:
    """On Postgres, how often each table that grows with age has been read from end to end, by whomever."""
    with psycopg.connect(driver_url(database_url)) as connection:
        rows = connection.execute("SELECT relname, seq_scan FROM pg_stat_user_tables").fetchall()
    return {name: scanned for name, scanned in rows if name in set(GROWING) - IN_HAND}


def without_scans(database_url: str) -> None:
    """Have Postgres scan a table only where nothing else is possible: small ones it would scan in any case."""
    name = driver_url(database_url).rpartition("/")[2]
    with psycopg.connect(driver_url(database_url), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET enable_seqscan = off".encode())


def _on_sqlite(database_url: str, statements: Statements) -> Iterator[tuple[str, list[Access]]]:
    with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as connection:
        indexes = connection.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND sql LIKE '% WHERE %'")
        partial = {name for (name,) in indexes}
        for shape, (sql, parameters) in statements.of.items():
            plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters or ())
            steps = [detail for _, _, _, detail in plan]
            limited = bool(re.search(r"\bLIMIT\b", sql))
            ordered = not any("TEMP B-TREE FOR ORDER BY" in step for step in steps)
            found = [match for step in steps if (match := _STEP.match(step)) is not None]
            yield (
                shape,
                [_sqlite_access(step, sql, partial=partial, limited=limited, ordered=ordered) for step in found],
            )


def _sqlite_access(step: re.Match[str], sql: str, *, partial: set[str], limited: bool, ordered: bool) -> Access:
    table, index = step["table"], step["index"] or ("its key" if step["how"] == "SEARCH" else None)
    bound = _BOUND.findall(step["bound"] or "")
    inner = next((part for part in _INNER.findall(sql) if re.search(rf"FROM {table}\b", part)), None)
    asked = (pair for clause in _WHERE.findall(inner or _INNER.sub("", sql)) for pair in _ASKED.findall(clause))
    return Access(
        table=table,
        index=index,
        partial=index in partial,
        led=step["how"] == "SEARCH",
        equal=frozenset(column for column, sign in bound if sign == "="),
        ranged=frozenset(column for column, sign in bound if sign != "="),
        asked=frozenset(column for owner, column in asked if owner in {"", table}),
        few=limited and ordered,
        sorted=limited and not ordered,
    )


def _on_postgres(database_url: str, statements: Statements, *, small: bool) -> Iterator[tuple[str, list[Access]]]:
    with psycopg.connect(driver_url(database_url), cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute(f"SET enable_seqscan = {'off' if small else 'on'}".encode())
        indexes = {
            name: (table, first, partial)
            for name, table, first, partial in connection.execute(
                "SELECT i.indexrelid::regclass::text, i.indrelid::regclass::text,"
                " pg_get_indexdef(i.indexrelid, 1, true), i.indpred IS NOT NULL FROM pg_index i"
            )
        }
        for shape, (sql, parameters) in statements.of.items():
            row = connection.execute(*explaining("EXPLAIN (FORMAT JSON)", sql, parameters)).fetchone()
            assert row is not None
            yield shape, list(_postgres_accesses(row[0][0]["Plan"], indexes, few=False, filtered=""))


def explaining(command: str, sql: str, parameters: Any) -> tuple[bytes, dict[str, Any]]:
    """The statement after a command, as psycopg wants it: asyncpg's have their parameters as $1, $2 …"""
    named = re.sub(r"\$(\d+)", r"%(p\1)s", sql.replace("%", "%%"))
    values = [list(map(_plain, value)) if isinstance(value, tuple) else value for value in parameters or ()]
    return f"{command} {named}".encode(), {f"p{number}": value for number, value in enumerate(values, 1)}


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, str) else value


def _postgres_accesses(
    node: dict[str, Any], indexes: dict[str, tuple[str, str, bool]], *, few: bool, filtered: str
) -> Iterator[Access]:
    kind, condition = node["Node Type"], node.get("Index Cond", "")
    filtered = node.get("Filter", "") if kind != "Bitmap Index Scan" else filtered
    if "Index Name" in node:
        table, first, partial = indexes[node["Index Name"]]
        bound = _CONDITION.findall(condition)
        yield Access(
            table=table,
            index=node["Index Name"],
            partial=partial,
            led=first in {column for column, _ in bound} or (few and not condition and not filtered),
            equal=frozenset(column for column, sign in bound if sign == "="),
            ranged=frozenset(column for column, sign in bound if sign != "="),
            asked=frozenset(column for column, sign in _CONDITION.findall(filtered) if sign == "="),
            few=few,
        )
    elif kind in {"Seq Scan", "Sample Scan"}:
        yield Access(node["Relation Name"], None, False, False, frozenset(), frozenset(), frozenset(), few)
    passes = few if kind in {"LockRows", "Result", "ModifyTable", "Subquery Scan"} else kind == "Limit"
    for below in node.get("Plans", []):
        yield from _postgres_accesses(below, indexes, few=passes, filtered=filtered)
