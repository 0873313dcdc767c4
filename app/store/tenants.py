"""The rows of tenants."""

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from app.store.database import Transaction
from app.store.statements import Statement
from app.store.tables import TenantTable, table_of

_tenants = table_of(TenantTable)
_ALL = Statement(select(_tenants.c.tenant_id).order_by(_tenants.c.tenant_id))
_INSERT = Statement(
    {
        "sqlite": sqlite_insert(_tenants).on_conflict_do_nothing(),
        "postgresql": postgresql_insert(_tenants).on_conflict_do_nothing(),
    }
)


def all_tenants(transaction: Transaction) -> list[str]:
    """Every tenant that there is."""
    return [row["tenant_id"] for row in transaction.all(_ALL, {})]


def insert_tenant(transaction: Transaction, tenant: str) -> None:
    """Add a tenant, unless it is there."""
    transaction.run(_INSERT, {"tenant_id": tenant})
