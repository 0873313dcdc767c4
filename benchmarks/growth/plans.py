"""The plans of everything that can be asked, at the database's full size, and what they cost there."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import psycopg

from app.store.database import driver_url
from tests.plans.asking import Asked, ask_everything
from tests.plans.filling import Filled
from tests.plans.judging import explaining, troubles
from tests.plans.statements import Statements, recorded
from tests.support.server import running

SLOW_MILLISECONDS = 10.0


async def findings(database_url: str, filled: Filled) -> list[str]:
    """Lines of the report: scans, and whatever is slow by itself."""
    served = type("Everything", (Asked,), {"name": filled.workflow, "__doc__": Asked.__doc__})
    with recorded() as statements:
        async with running(database_url, served) as client:
            await ask_everything(client, filled)
    lines = [f"- SCAN {trouble}" for trouble in troubles(database_url, statements, small=False)]
    measure = _on_sqlite if database_url.startswith("sqlite:") else _on_postgres
    slow = sorted(found for found in measure(database_url, statements) if found[0] > SLOW_MILLISECONDS)
    lines += [f"- SLOW {milliseconds:.0f} ms: {' '.join(shape.split())}" for milliseconds, shape in reversed(slow)]
    return [f"- {len(statements.of)} different statements were explained", *lines]


def _on_sqlite(database_url: str, statements: Statements) -> Iterator[tuple[float, str]]:
    with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as connection:
        for shape, (sql, parameters) in statements.of.items():
            if _reads(sql):
                begun = time.perf_counter()
                connection.execute(sql, parameters or ()).fetchall()
                yield (time.perf_counter() - begun) * 1000, shape


def _on_postgres(database_url: str, statements: Statements) -> Iterator[tuple[float, str]]:
    with psycopg.connect(driver_url(database_url), cursor_factory=psycopg.ClientCursor) as connection:
        for shape, (sql, parameters) in statements.of.items():
            if _reads(sql):
                explained = connection.execute(
                    *explaining("EXPLAIN (ANALYZE, FORMAT JSON)", sql, parameters)
                ).fetchone()
                assert explained is not None
                yield float(explained[0][0]["Execution Time"]), shape
                connection.rollback()


def _reads(sql: str) -> bool:
    return sql.lstrip().upper().startswith("SELECT") and "procrastinate_defer" not in sql
