"""How migrations run: on the connection that is given, or on the database of the settings; one process at a time."""

from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection, create_engine, text
from sqlmodel import AutoString

from app.settings import Settings
from app.store.database import sync_url
from app.store.sqlite import sqlite_engine
from app.store.tables import Instant, metadata

LOCK = 7_235_011_469
"""The advisory lock that lets one process migrate at a time; any number that nobody else uses."""


def render_item(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Write column types of ours and SQLModel's as what they are in the database."""
    if kind == "type" and isinstance(item, Instant):
        return "sa.DateTime(timezone=True)"
    return "sa.String()" if kind == "type" and isinstance(item, AutoString) else False


def run(connection: Connection) -> None:
    """Migrate in one transaction, under a lock that ends with it."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=True,
        render_item=render_item,
        compare_type=True,
        transactional_ddl=True,  # on SQLite too, where Alembic would give the lock away after each migration
    )
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        context.run_migrations()
    connection.commit()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    url = Settings().database_url
    engine = sqlite_engine(url) if url.startswith("sqlite:") else create_engine(sync_url(url))
    with engine.connect() as connection:
        run(connection)
