"""The registered webhooks in memory: what applies to a run costs its acceptance no look at a table."""

import asyncio
import logging

from app.engine.outbox import Hook
from app.errors import MillstreamError, Unavailable
from app.network.targets import TargetRules
from app.store import webhooks
from app.store.database import Database, Transaction
from app.store.tables import WebhookRow
from app.workflow.encoding import decode

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.8
"""How often a process looks whether another has changed them: a webhook gets the runs accepted a second later."""


class Hooks:
    """Those of all tenants, as they were less than a second ago."""

    def __init__(self, database: Database, rules: TargetRules) -> None:
        self._database, self._rules = database, rules
        self._number = -1
        self._of: dict[tuple[str, str | None], list[Hook]] = {}

    def applying(self, tenant: str, user: str | None) -> list[Hook]:
        """What a run of this user gets posted to: the tenant's webhooks, and the user's own."""
        if not self._of:
            return []
        found = list(self._of.get((tenant, None), ()))
        return found if user is None else found + self._of.get((tenant, user), [])

    async def refresh(self) -> None:
        """Take them in anew, if they have changed."""
        await self._database.read(self._take_in)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.refresh()
            except Unavailable:
                continue
            except Exception:  # the next look may go better, and nobody else looks for this process
                logger.exception("webhooks_not_read")

    def check(self, url: str) -> None:
        """Raises Invalid for a URL that is none, or not allowed here; nothing is resolved."""
        self._rules.read(url)

    def hook(self, row: WebhookRow) -> Hook:
        """As runs are accepted with it; raises Invalid for a URL that is not allowed (any more)."""
        target = self._rules.read(row.url)
        return Hook(row.webhook_id, row.user_id, target.authority, frozenset(decode(row.events)))

    def _take_in(self, transaction: Transaction) -> None:
        number = webhooks.count_changes(transaction)  # first: what changes meanwhile is seen the next time
        if number == self._number:
            return
        of: dict[tuple[str, str | None], list[Hook]] = {}
        for row in webhooks.registered_webhooks(transaction):
            if row.active:
                try:
                    of.setdefault((row.tenant_id, row.user_id), []).append(self.hook(row))
                except MillstreamError as error:
                    logger.warning("webhook_not_used", extra={"webhook_id": row.webhook_id, "reason": error.message})
        self._number, self._of = number, of
