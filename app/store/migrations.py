"""Migrations: where they are, which one the database is at, and bringing it to the newest."""

import re
from functools import cache
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.exc import DatabaseError

from app.errors import ConfigurationError
from app.store.database import Transaction, check_url, sync_url
from app.store.refusals import DriverErrors, unavailable
from app.store.sqlite import sqlite_engine

_REVISION = re.compile(r'^revision(?:: str)? = "(\w+)"', re.MULTILINE)
_DOWN = re.compile(r'^down_revision(?:: [^=]+)? = "(\w+)"', re.MULTILINE)
_CURRENT = "SELECT version_num FROM alembic_version"


def migrations_folder() -> Path:
    """Where the migrations are: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "alembic"
    return inside if inside.is_dir() else package.parent / "alembic"


@cache
def head_revision() -> str:
    """The newest migration, read from the files alone: a start need not load Alembic to see that nothing is to do."""
    followed = {match[1] for source in _sources() if (match := _DOWN.search(source))}
    (head,) = known_revisions() - followed
    return head


@cache
def known_revisions() -> frozenset[str]:
    """All migrations that this version has."""
    return frozenset(match[1] for source in _sources() if (match := _REVISION.search(source)))


def _sources() -> list[str]:
    return [file.read_text() for file in (migrations_folder() / "versions").glob("*.py")]


def current_revision(transaction: Transaction) -> str | None:
    """The migration that the database is at; None when there is none."""
    exists = {
        "sqlite": "SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'",
        "postgresql": (
            "SELECT count(*) FROM pg_tables WHERE tablename = 'alembic_version' AND schemaname = current_schema()"
        ),
    }
    ((count,),) = transaction.driver(exists, ())
    if not count:
        return None
    return next((revision for (revision,) in transaction.driver(dict.fromkeys(exists, _CURRENT), ())), None)


def migrate(url: str, revision: str = "head") -> None:
    """Bring the database to a migration, by default the newest; safe to run from several processes at once."""
    from alembic import command  # noqa: PLC0415  loads templates and script machinery that serving never needs
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    check_url(url)
    engine = sqlite_engine(url) if url.startswith("sqlite:") else create_engine(sync_url(url))
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()))
    try:
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    except CommandError as error:  # Alembic's own words name the migration that it does not have
        raise ConfigurationError(
            f"the database is not this version's (head {head_revision()}): {error}; a newer Millstream made it"
        ) from None
    except DatabaseError as error:
        driver = engine.dialect.loaded_dbapi
        kinds = DriverErrors(value=(driver.DataError,), absence=(driver.OperationalError, driver.InterfaceError))
        refusal = unavailable(error.orig, kinds)
        reason = error.orig if refusal is None else refusal.message
        raise ConfigurationError(f"the database could not be migrated: {reason}") from error
    finally:
        engine.dispose()
