"""What callers may ask of deliveries."""

from typing import Any

from app import clock
from app.clock import rfc3339
from app.engine.live import LiveLogs
from app.engine.outbox import DELIVERIES
from app.errors import NotFound
from app.operations.caller import Caller
from app.operations.cursors import cut_page, read_cursor, write_cursor
from app.operations.runs import existing_run
from app.operations.webhooks import WEBHOOK_ID, existing_webhook
from app.store import deliveries
from app.store.database import Database, Transaction
from app.store.tables import DeliveryRow

Page = tuple[list[dict[str, Any]], str | None]


class Deliveries:
    """The log of what was sent to webhooks; sending again."""

    def __init__(self, database: Database, live: LiveLogs) -> None:
        self._database, self._live = database, live

    async def to_webhook(
        self, caller: Caller, webhook_id: str, *, status: str | None, limit: int, cursor: str | None
    ) -> Page:
        """What went to a webhook, newest first; raises NotFound."""

        def work(transaction: Transaction) -> Page:
            row = existing_webhook(transaction, caller, webhook_id)
            return _page(transaction, caller, {"webhook_id": row.webhook_id}, status, limit, cursor)

        return await self._database.read(work)

    async def of_run(self, caller: Caller, run_id: str, *, status: str | None, limit: int, cursor: str | None) -> Page:
        """What was sent of a run, newest first; raises NotFound."""

        def work(transaction: Transaction) -> Page:
            row = existing_run(transaction, caller, run_id)
            return _page(transaction, caller, {"run_id": row.run_id}, status, limit, cursor)

        return await self._database.read(work)

    async def send_again(self, caller: Caller, delivery_id: str) -> dict[str, Any]:
        """Have it sent once more, whatever came of it before; raises NotFound."""

        def work(transaction: Transaction) -> dict[str, Any]:
            known = WEBHOOK_ID.fullmatch(delivery_id)
            row = deliveries.lock_delivery(transaction, caller.tenant, delivery_id) if known else None
            if row is None or not caller.sees(row.user_id):
                raise NotFound(f"there is no delivery {delivery_id[:100]!r}", code="unknown_delivery")
            deliveries.send_again(transaction, row, now=clock.now())
            transaction.after_commit(lambda: self._live.ring(DELIVERIES))
            again = deliveries.lock_delivery(transaction, caller.tenant, delivery_id)
            assert again is not None
            return delivery_resource(again)

        return await self._database.write(work)


def _page(
    transaction: Transaction,
    caller: Caller,
    filters: dict[str, Any],
    status: str | None,
    limit: int,
    cursor: str | None,
) -> Page:
    before = None if cursor is None else read_cursor(cursor, str)[0]
    if status is not None:
        filters = filters | {"status": status}
    if caller.user_id is not None:
        filters = filters | {"user_id": caller.user_id}  # of its runs it sees what went to webhooks of its own
    rows = deliveries.list_deliveries(transaction, caller.tenant, filters=filters, before=before, limit=limit + 1)
    page, following = cut_page(rows, limit, lambda row: write_cursor(row.delivery_id))
    return [delivery_resource(row) for row in page], following


def delivery_resource(row: DeliveryRow) -> dict[str, Any]:
    """The delivery; see wire.webhooks.Delivery."""
    moments = {
        name: None if (moment := getattr(row, name)) is None else rfc3339(moment)
        for name in ("last_attempt_at", "next_attempt_at", "delivered_at")
    }
    return {
        "delivery_id": row.delivery_id,
        "webhook_id": row.webhook_id,
        "run_id": row.run_id,
        "sequence": row.sequence,
        "event": row.event,
        "status": row.status,
        "attempts": row.attempts,
        "response_status": row.response_status,
        "error": row.error,
        "created_at": rfc3339(row.created_at),
    } | moments
