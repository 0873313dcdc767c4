"""The tables as they are, read and damaged with plain SQL: what no caller of the service can see or do."""

from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from app.store.database import sync_url


def query(database_url: str, sql: str, **parameters: Any) -> list[dict[str, Any]]:
    """The rows of a query."""
    engine = create_engine(sync_url(database_url), poolclass=NullPool)
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(sql), parameters).mappings()]


def execute(database_url: str, sql: str, **parameters: Any) -> int:
    """Do it in a transaction of its own; how many rows it met."""
    engine = create_engine(sync_url(database_url), poolclass=NullPool)
    with engine.begin() as connection:
        return connection.execute(text(sql), parameters).rowcount
