"""Opening the database of a URL."""

from app.errors import ConfigurationError
from app.store.database import Database, check_url
from app.store.sqlite import SqliteDatabase


def open_database(url: str, *, lease_seconds: float, pool_size: int = 10) -> Database:
    """The database of a URL: `sqlite:///file` or `postgresql://…`; raises ConfigurationError for another.

    On Postgres, a process that falls silent in a transaction loses it, and its locks, after the lease.
    """
    check_url(url)
    if url.startswith("sqlite:"):
        return SqliteDatabase(url)
    try:
        from app.store.postgres import PostgresDatabase  # noqa: PLC0415  a library of the extra `postgres`
    except ModuleNotFoundError:
        raise ConfigurationError("Postgres needs the extra: pip install 'millstream[postgres]'") from None
    return PostgresDatabase(url, pool_size=pool_size, silence_milliseconds=max(1, int(lease_seconds * 1000)))
