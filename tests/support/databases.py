"""Databases of the tests' own, migrated once and copied for each test."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from app.store.migrations import migrate

POSTGRES = os.environ.get("MILLSTREAM_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/test")


def postgres_answers() -> bool:
    """Whether there is a Postgres to test on."""
    try:
        with psycopg.connect(POSTGRES, connect_timeout=3):
            return True
    except psycopg.OperationalError:
        return False


def copy_of_sqlite(template: Path, folder: Path) -> str:
    """The URL of a fresh SQLite database."""
    file = folder / "millstream.db"
    shutil.copy(template, file)
    return f"sqlite:///{file}"


@contextmanager
def sqlite_template(folder: Path) -> Iterator[Path]:
    """A migrated file to copy from."""
    file = folder / "template.db"
    migrate(f"sqlite:///{file}")
    yield file


@contextmanager
def postgres_template() -> Iterator[str]:
    """The name of a migrated database to copy from."""
    with _database() as name:
        migrate(_url(name))
        yield name


@contextmanager
def copy_of_postgres(template: str | None) -> Iterator[str]:
    """The URL of a fresh Postgres database; an empty one without a template."""
    with _database(template) as name:
        yield _url(name)


@contextmanager
def _database(template: str | None = None) -> Iterator[str]:
    name = f"millstream_{uuid4().hex}"
    copied = f" TEMPLATE {template}" if template else ""
    with psycopg.connect(POSTGRES, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}{copied}".encode())
        try:
            yield name
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _url(name: str) -> str:
    return POSTGRES.rpartition("/")[0] + "/" + name


def skip_without_postgres() -> None:
    """Skip, loudly, where there is no Postgres."""
    if not postgres_answers():
        pytest.skip(f"NO POSTGRES at {POSTGRES}: set MILLSTREAM_TEST_POSTGRES; half of the promises go untested")
