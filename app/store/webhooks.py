"""The rows of webhooks, of the secrets of their owners, and the count of their changes."""

from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Integer, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from app.store.database import Transaction
from app.store.statements import Statement
from app.store.tables import (
    WebhookChangeTable,
    WebhookRow,
    WebhookSecretRow,
    WebhookSecretTable,
    WebhookTable,
    table_of,
)

_webhooks = table_of(WebhookTable)
_secrets = table_of(WebhookSecretTable)
_changes = table_of(WebhookChangeTable)
_KEY = (_webhooks.c.tenant_id == bindparam("tenant")) & (_webhooks.c.webhook_id == bindparam("webhook"))
_GET = Statement(select(_webhooks).where(_KEY))
_LOCK = Statement(select(_webhooks).where(_KEY).with_for_update())
_INSERT = Statement(insert(_webhooks))
_CHANGEABLE = (
    "url", "events", "secret", "previous_secret", "previous_until", "active", "disabled_reason", "updated_at",
)  # fmt: skip
_UPDATE = Statement(update(_webhooks).where(_KEY).values({name: bindparam(f"set_{name}") for name in _CHANGEABLE}))
_DELETE = Statement(delete(_webhooks).where(_KEY))
_OF_USER = (
    (_webhooks.c.tenant_id == bindparam("tenant"))
    & _webhooks.c.run_id.is_(None)
    & (_webhooks.c.user_id == bindparam("owner"))
)
_IDS_OF_USER = Statement(select(_webhooks.c.webhook_id).where(_OF_USER))
_DELETE_OF_USER = Statement(delete(_webhooks).where(_OF_USER))
_OF_RUN = Statement(
    select(_webhooks).where(_webhooks.c.tenant_id == bindparam("tenant"), _webhooks.c.run_id == bindparam("run"))
)
_REGISTERED_OF_TENANT = (_webhooks.c.tenant_id == bindparam("tenant")) & _webhooks.c.run_id.is_(None)
_THERE = select(func.count().label("there")).select_from(_webhooks).where(_REGISTERED_OF_TENANT)
_COUNT = Statement(_THERE.where(_webhooks.c.user_id.is_(None)))
_COUNT_OF_USER = Statement(_THERE.where(_webhooks.c.user_id == bindparam("owner")))
_REGISTERED = Statement(select(_webhooks).where(_webhooks.c.run_id.is_(None)))
_OF_OWNER = (_secrets.c.tenant_id == bindparam("tenant")) & (_secrets.c.user_id == bindparam("owner"))
_DELETE_SECRET = Statement(delete(_secrets).where(_OF_OWNER))
_SECRET = Statement(select(_secrets).where(_OF_OWNER))
_INSERT_SECRET = Statement(
    {
        "sqlite": sqlite_insert(_secrets).on_conflict_do_nothing(),
        "postgresql": postgresql_insert(_secrets).on_conflict_do_nothing(),
    }
)
_REPLACE_SECRET = Statement(
    update(_secrets)
    .where(_OF_OWNER)
    .values(secret=bindparam("to"), previous_secret=bindparam("before"), previous_until=bindparam("until"))
)
_NEW_CHANGE: dict[str, Any] = {"sqlite": sqlite_insert(_changes), "postgresql": postgresql_insert(_changes)}
_CHANGE = Statement(
    {
        dialect: new.on_conflict_do_update(index_elements=["tenant_id"], set_={"number": _changes.c.number + 1})
        for dialect, new in _NEW_CHANGE.items()
    }
)
_CHANGES = Statement(select(func.coalesce(func.sum(_changes.c.number), 0).label("number")))


def get_webhook(transaction: Transaction, tenant: str, webhook: str) -> WebhookRow | None:
    """The webhook, or None."""
    row = transaction.one(_GET, {"tenant": tenant, "webhook": webhook})
    return None if row is None else WebhookRow.of(row)


def lock_webhook(transaction: Transaction, tenant: str, webhook: str) -> WebhookRow | None:
    """The webhook, locked until the transaction ends."""
    row = transaction.one(_LOCK, {"tenant": tenant, "webhook": webhook})
    return None if row is None else WebhookRow.of(row)


def webhook_of_run(transaction: Transaction, tenant: str, run: str) -> WebhookRow | None:
    """The webhook that a run was started with, or None."""
    row = transaction.one(_OF_RUN, {"tenant": tenant, "run": run})
    return None if row is None else WebhookRow.of(row)


def insert_webhook(transaction: Transaction, row: WebhookRow) -> None:
    """Add the webhook."""
    transaction.run(_INSERT, row.values)


def update_webhook(transaction: Transaction, row: WebhookRow, values: dict[str, Any]) -> WebhookRow:
    """Set columns of the webhook; as it is then."""
    changed = WebhookRow.of(row.values | values)
    parameters = {f"set_{name}": changed.values[name] for name in _CHANGEABLE}
    transaction.run(_UPDATE, parameters | {"tenant": row.tenant_id, "webhook": row.webhook_id})
    return changed


def delete_webhook(transaction: Transaction, tenant: str, webhook: str) -> None:
    """Remove the webhook."""
    transaction.run(_DELETE, {"tenant": tenant, "webhook": webhook})


def webhooks_of(transaction: Transaction, tenant: str, user: str) -> list[str]:
    """The ids of a user's webhooks, those of single runs left out."""
    return [row["webhook_id"] for row in transaction.all(_IDS_OF_USER, {"tenant": tenant, "owner": user})]


def delete_webhooks_of(transaction: Transaction, tenant: str, user: str) -> None:
    """Remove a user's webhooks, those of single runs left out, and the secret of the user's own."""
    given = {"tenant": tenant, "owner": user}
    transaction.run(_DELETE_OF_USER, given)
    transaction.run(_DELETE_SECRET, given)


def count_webhooks(transaction: Transaction, tenant: str, user: str | None) -> int:
    """How many are registered for the tenant as a whole, or for one of its users."""
    statement = _COUNT if user is None else _COUNT_OF_USER
    counted = transaction.one(statement, {"tenant": tenant, "owner": user})
    assert counted is not None
    there: int = counted["there"]
    return there


def list_webhooks(
    transaction: Transaction, tenant: str, *, user: str | None, before: str | None, limit: int
) -> list[WebhookRow]:
    """Registered webhooks, of one user where it is named, newest first, those made before the cursor's."""
    given = {"owner": user, "before": before}
    parameters = {name: value for name, value in given.items() if value is not None}
    statement = _list_of(of_user=user is not None, paged=before is not None)
    rows = transaction.all(statement, parameters | {"tenant": tenant, "count": limit})
    return [WebhookRow.of(row) for row in rows]


@cache
def _list_of(*, of_user: bool, paged: bool) -> Statement:
    """Compiled once for each way to ask."""
    statement = select(_webhooks).where(_REGISTERED_OF_TENANT)
    if of_user:
        statement = statement.where(_webhooks.c.user_id == bindparam("owner"))
    if paged:
        statement = statement.where(_webhooks.c.webhook_id < bindparam("before"))
    return Statement(statement.order_by(_webhooks.c.webhook_id.desc()).limit(bindparam("count", type_=Integer)))


def registered_webhooks(transaction: Transaction) -> list[WebhookRow]:
    """The webhooks of all tenants that are not those of one run."""
    return [WebhookRow.of(row) for row in transaction.all(_REGISTERED, {})]


def note_change(transaction: Transaction, tenant: str) -> None:
    """Count a change of the tenant's registered webhooks."""
    transaction.run(_CHANGE, {"tenant_id": tenant, "number": 1})


def count_changes(transaction: Transaction) -> int:
    """How many changes there ever were: it is another number after each."""
    counted = transaction.one(_CHANGES, {})
    assert counted is not None
    return int(counted["number"])


def get_secret(transaction: Transaction, tenant: str, user: str | None) -> WebhookSecretRow | None:
    """The secret of the tenant, or of one of its users, if there is one."""
    row = transaction.one(_SECRET, {"tenant": tenant, "owner": user or ""})
    return None if row is None else WebhookSecretRow.of(row)


def insert_secret(transaction: Transaction, row: WebhookSecretRow) -> WebhookSecretRow:
    """Add the secret; the one that is there, should somebody have been faster."""
    transaction.run(_INSERT_SECRET, row.values)
    found = get_secret(transaction, row.tenant_id, row.user_id)
    assert found is not None
    return found


def replace_secret(
    transaction: Transaction, row: WebhookSecretRow, *, secret: str, previous_until: datetime
) -> WebhookSecretRow:
    """Put another secret in the place of this one, which counts until then."""
    parameters = {"tenant": row.tenant_id, "owner": row.user_id, "to": secret, "before": row.secret}
    transaction.run(_REPLACE_SECRET, parameters | {"until": previous_until})
    values = {"secret": secret, "previous_secret": row.secret, "previous_until": previous_until}
    return WebhookSecretRow.of(row.values | values)
