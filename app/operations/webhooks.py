"""What callers may ask of webhooks."""

import re
from datetime import timedelta
from typing import Any

from app import clock
from app.clock import rfc3339
from app.engine.deliveries import owner_secret
from app.engine.hooks import Hooks
from app.errors import Conflict, Forbidden, NotFound
from app.network.signing import new_secret
from app.operations.caller import Caller
from app.operations.cursors import cut_page, read_cursor, write_cursor
from app.store import deliveries, webhooks
from app.store.database import Database, Transaction
from app.store.tables import WebhookRow, WebhookSecretRow
from app.workflow.encoding import decode, encode

MAX_WEBHOOKS = 50
"""Of a tenant as a whole, and of each of its users; each of them gets every event that it wants."""
WEBHOOK_ID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Webhooks:
    """Webhooks: made, seen, changed, removed; their secrets."""

    def __init__(self, database: Database, hooks: Hooks) -> None:
        self._database, self._hooks = database, hooks

    async def create(
        self, caller: Caller, *, url: str, events: list[str], user_id: str | None = None
    ) -> dict[str, Any]:
        """A new webhook, with its secret, which is shown this once.

        Raises Invalid for a URL that cannot be sent to, Conflict when there are too many.
        """
        self._hooks.check(url)
        at = clock.now()
        row = WebhookRow(
            tenant_id=caller.tenant,
            webhook_id=clock.new_id(),
            user_id=_changeable(caller, caller.owner(user_id)),
            url=url,
            events=encode(events).decode(),
            secret=new_secret(),
            created_at=at,
            updated_at=at,
        )

        def work(transaction: Transaction) -> None:
            webhooks.note_change(transaction, caller.tenant)  # first: it lets no other be counted meanwhile
            if webhooks.count_webhooks(transaction, row.tenant_id, row.user_id) >= MAX_WEBHOOKS:
                whose = "the tenant" if row.user_id is None else f"the user {row.user_id!r}"
                raise Conflict(
                    f"{whose} has {MAX_WEBHOOKS} webhooks, which is the most; delete one", code="too_many_webhooks"
                )
            webhooks.insert_webhook(transaction, row)

        await self._database.write(work)
        await self._hooks.refresh()
        return webhook_resource(row) | {"secret": row.secret}

    async def get(self, caller: Caller, webhook_id: str) -> dict[str, Any]:
        """The webhook; raises NotFound."""
        return await self._database.read(
            lambda transaction: webhook_resource(existing_webhook(transaction, caller, webhook_id))
        )

    async def page(
        self, caller: Caller, *, user_id: str | None, limit: int, cursor: str | None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Webhooks, newest first, and the cursor of the next page."""
        before = None if cursor is None else read_cursor(cursor, str)[0]
        user = caller.owner(user_id)

        def work(transaction: Transaction) -> tuple[list[dict[str, Any]], str | None]:
            rows = webhooks.list_webhooks(transaction, caller.tenant, user=user, before=before, limit=limit + 1)
            page, following = cut_page(rows, limit, lambda row: write_cursor(row.webhook_id))
            return [webhook_resource(row) for row in page], following

        return await self._database.read(work)

    async def update(self, caller: Caller, webhook_id: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Change its URL, its events, or whether anything is sent to it; raises NotFound, Invalid."""
        if changes.get("url") is not None:
            self._hooks.check(changes["url"])
        values = {name: value for name, value in changes.items() if value is not None}
        if "events" in values:
            values["events"] = encode(values["events"]).decode()
        if values.get("active"):
            values["disabled_reason"] = None

        def work(transaction: Transaction) -> WebhookRow:
            row = locked_webhook(transaction, caller, webhook_id)
            webhooks.note_change(transaction, caller.tenant)
            return webhooks.update_webhook(transaction, row, values | {"updated_at": clock.now()})

        row = await self._database.write(work)
        await self._hooks.refresh()
        return webhook_resource(row)

    async def delete(self, caller: Caller, webhook_id: str) -> None:
        """Remove it, with all that is on its way to it; raises NotFound."""

        def work(transaction: Transaction) -> None:
            row = locked_webhook(transaction, caller, webhook_id)
            webhooks.note_change(transaction, caller.tenant)
            webhooks.delete_webhook(transaction, row.tenant_id, row.webhook_id)
            deliveries.delete_deliveries_to(transaction, row.tenant_id, row.webhook_id)

        await self._database.write(work)
        await self._hooks.refresh()

    async def rotate(self, caller: Caller, webhook_id: str, *, overlap_seconds: int) -> dict[str, Any]:
        """Give it another secret, shown this once; messages are signed by the old one too for so long."""

        def work(transaction: Transaction) -> WebhookRow:
            row, at = locked_webhook(transaction, caller, webhook_id), clock.now()
            values = {
                "secret": new_secret(),
                "previous_secret": row.secret,
                "previous_until": at + timedelta(seconds=overlap_seconds),
                "updated_at": at,
            }
            return webhooks.update_webhook(transaction, row, values)

        row = await self._database.write(work)
        return webhook_resource(row) | {"secret": row.secret}

    async def secret(self, caller: Caller) -> dict[str, Any]:
        """What the webhooks of the caller's runs are signed by that bring no secret; made when first asked for."""
        row = await self._database.write(lambda transaction: owner_secret(transaction, caller.tenant, caller.user_id))
        return secret_resource(row)

    async def rotate_own(self, caller: Caller, *, overlap_seconds: int) -> dict[str, Any]:
        """Put another in its place; messages are signed by the old one too for so long."""

        def work(transaction: Transaction) -> WebhookSecretRow:
            row = owner_secret(transaction, caller.tenant, caller.user_id)
            until = clock.now() + timedelta(seconds=overlap_seconds)
            return webhooks.replace_secret(transaction, row, secret=new_secret(), previous_until=until)

        return secret_resource(await self._database.write(work))


def existing_webhook(transaction: Transaction, caller: Caller, webhook_id: str) -> WebhookRow:
    """The registered webhook; raises NotFound, also when it is somebody else's."""
    known = WEBHOOK_ID.fullmatch(webhook_id)
    return _seen(webhooks.get_webhook(transaction, caller.tenant, webhook_id) if known else None, caller, webhook_id)


def locked_webhook(transaction: Transaction, caller: Caller, webhook_id: str) -> WebhookRow:
    """The same, locked until the transaction ends, to be changed; raises Forbidden too."""
    known = WEBHOOK_ID.fullmatch(webhook_id)
    row = _seen(webhooks.lock_webhook(transaction, caller.tenant, webhook_id) if known else None, caller, webhook_id)
    _changeable(caller, row.user_id)
    return row


def _seen(row: WebhookRow | None, caller: Caller, webhook_id: str) -> WebhookRow:
    if row is None or row.run_id is not None or not caller.sees(row.user_id):
        raise NotFound(f"there is no webhook {webhook_id[:100]!r}", code="unknown_webhook")
    return row


def _changeable(caller: Caller, user_id: str | None) -> str | None:
    """Whose webhook it is; raises Forbidden where it gets the runs of all users, and the caller is no administrator."""
    if user_id is None and "admin" not in caller.scopes:
        raise Forbidden(
            "a webhook that gets the runs of all users needs the scope admin, which this credential lacks;"
            " name a user_id",
            code="insufficient_scope",
        )
    return user_id


def webhook_resource(row: WebhookRow) -> dict[str, Any]:
    """The webhook; see wire.webhooks.Webhook."""
    return {
        "webhook_id": row.webhook_id,
        "url": row.url,
        "events": decode(row.events),
        "user_id": row.user_id,
        "active": bool(row.active),
        "disabled_reason": row.disabled_reason,
        "previous_secret_until": None if row.previous_until is None else rfc3339(row.previous_until),
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
    }


def secret_resource(row: WebhookSecretRow) -> dict[str, Any]:
    """The secret; see wire.webhooks.WebhookSecret."""
    until = row.previous_until
    return {"secret": row.secret, "previous_secret_until": None if until is None else rfc3339(until)}
