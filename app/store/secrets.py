"""What all processes share and nobody else may know."""

from sqlalchemy import bindparam, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from app.store.database import Transaction
from app.store.statements import Statement
from app.store.tables import SecretRow, SecretTable, table_of

_secrets = table_of(SecretTable)
_GET = Statement(select(_secrets.c.value).where(_secrets.c.name == bindparam("which")))
_INSERT = Statement(
    {
        "sqlite": sqlite_insert(_secrets).on_conflict_do_nothing(),
        "postgresql": postgresql_insert(_secrets).on_conflict_do_nothing(),
    }
)


def get_secret(transaction: Transaction, name: str) -> str | None:
    """The secret, or None."""
    row = transaction.one(_GET, {"which": name})
    return None if row is None else row["value"]


def insert_secret(transaction: Transaction, row: SecretRow) -> None:
    """Add the secret, unless another process was first."""
    transaction.run(_INSERT, row.values)
