"""Fixtures of all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import databases


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with databases.sqlite_template(tmp_path_factory.mktemp("template")) as template:
        yield template


@pytest.fixture(scope="session")
def postgres_template() -> Iterator[str]:
    databases.skip_without_postgres()
    with databases.postgres_template() as template:
        yield template


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh, migrated database; each test that takes it runs on both."""
    if request.param == "sqlite":
        yield databases.copy_of_sqlite(request.getfixturevalue("sqlite_template"), tmp_path)
    else:
        with databases.copy_of_postgres(request.getfixturevalue("postgres_template")) as url:
            yield url


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A fresh, migrated SQLite database, for what does not depend on the database."""
    return databases.copy_of_sqlite(sqlite_template, tmp_path)
