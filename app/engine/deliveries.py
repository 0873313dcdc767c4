"""Deliveries: sends what is due to webhooks, in every process, until it has arrived or there is no hope.

A delivery is taken in a transaction that counts the attempt and says until when nobody else need look at it. Whoever
dies meanwhile has it taken over at that time, so it may arrive twice, and is never forgotten. Hosts get their turns one
after the other, each a few connections at a time, and those that just failed one: a slow receiver waits for itself.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from app import clock
from app.engine.hooks import Hooks
from app.engine.live import LiveLogs
from app.engine.outbox import DELIVERIES
from app.errors import MillstreamError, Unavailable
from app.metrics import Metrics
from app.network.sending import Answer, GuardedClient, SendingFailed
from app.network.signing import new_secret, signatures
from app.network.targets import Target, TargetRules
from app.store import deliveries, webhooks
from app.store.database import Database, Transaction
from app.store.tables import DeliveryRow, WebhookRow, WebhookSecretRow
from app.wire.events import said_at
from app.workflow.encoding import encode

logger = logging.getLogger(__name__)

MAX_SENDING = 64
"""Requests of one process at a time."""
MAX_OF_HOST = 8
"""Of them, those to one host."""
MAX_TO_FAILING = MAX_SENDING // 2
"""Of them, those to hosts whose last answer was none: the others are for hosts that answer."""
LOOK_SECONDS = 5.0
"""How often it is looked for what other processes have left; its own this one is told of."""
GATHERING_SECONDS = 0.01
"""What comes in this time is taken up together."""
RETRY_SECONDS = 1.0
SPARE_SECONDS = 5.0
"""How much longer than its request a delivery is left to whoever has taken it."""
LONGEST_PAUSE = timedelta(days=1)
"""What a receiver may ask for by Retry-After."""
JITTER = 0.2
GOODBYE_SECONDS = 2.0
"""How long a process that stops waits for the answers that it has asked for."""
OK, FIRST_OTHER = 200, 300
DELIVERED, RETRIED, FAILED = "delivered", "retried", "failed"
"""What comes of an attempt."""


@dataclass(frozen=True, slots=True)
class DeliveryRules:
    """How messages are sent."""

    targets: TargetRules
    timeout_seconds: float
    pauses_seconds: tuple[float, ...]
    """After the first failure, the second …; after as many failures as there are and one more, it is given up."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A delivery that this process has taken, with its webhook and the secrets to sign it by."""

    delivery: DeliveryRow
    webhook: WebhookRow
    secrets: Sequence[str]


class Deliveries:
    """Sends for one process."""

    def __init__(
        self,
        database: Database,
        live: LiveLogs,
        metrics: Metrics,
        hooks: Hooks,
        client: GuardedClient,
        rules: DeliveryRules,
    ) -> None:
        self._database, self._live, self._hooks = database, live, hooks
        self._client, self._rules = client, rules
        self._count = metrics.webhook_deliveries
        self._lease = timedelta(seconds=rules.timeout_seconds + SPARE_SECONDS)
        self._chance = random.Random()
        self._sending: set[asyncio.Task[None]] = set()
        self._at_host: Counter[str] = Counter()
        self._failing: set[str] = set()
        """Hosts whose last request failed; one leaves with its first success, or when nothing is pending for it."""

    async def run(self) -> None:
        """Send until cancelled; then wait a moment for what is under way."""
        with self._live.holding(DELIVERIES) as bell:
            try:
                while True:
                    news = bell.change()
                    seconds = await self._look()
                    await asyncio.wait({news}, timeout=seconds)
                    await asyncio.sleep(GATHERING_SECONDS)
            finally:
                await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        if self._sending:
            _, late = await asyncio.wait(self._sending, timeout=GOODBYE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _look(self) -> float:
        """Take up what is due; how long there will be nothing to do."""
        try:
            hosts = await self._database.read(deliveries.hosts_due)
            now = clock.now()
            self._failing &= {host for host, _ in hosts}
            places = self._places([host for host, due_at in hosts if due_at <= now])
            if places:
                parcels = await self._database.write(lambda transaction: self._take(transaction, places))
                for parcel in parcels:
                    self._send(parcel)
                if len(parcels) == sum(places.values()):
                    return 0.0  # there may be more for those that have room
        except Unavailable:
            return RETRY_SECONDS
        except Exception:  # the next look may go better, and nobody else looks for this process
            logger.exception("deliveries_not_looked_for")
            return LOOK_SECONDS
        waits = [(due_at - now).total_seconds() for _, due_at in hosts if due_at > now]
        return min([LOOK_SECONDS, *waits])

    def _places(self, hosts: list[str]) -> dict[str, int]:
        """How many requests each host may get now, one after the other in an order of chance."""
        self._chance.shuffle(hosts)
        left = MAX_SENDING - len(self._sending)
        left_for_failing = MAX_TO_FAILING - sum(self._at_host[host] for host in self._failing)
        places: dict[str, int] = {}
        for host in hosts:
            failing = host in self._failing
            room = (1 if failing else MAX_OF_HOST) - self._at_host[host]
            room = min(room, left, left_for_failing if failing else left)
            if room > 0:
                places[host] = room
                left -= room
                left_for_failing -= room if failing else 0
        return places

    def _take(self, transaction: Transaction, places: dict[str, int]) -> list[Parcel]:
        now = clock.now()
        parcels = []
        for host, count in places.items():
            for row in deliveries.take_due(transaction, host, now=now, until=now + self._lease, count=count):
                webhook = webhooks.get_webhook(transaction, row.tenant_id, row.webhook_id)
                if webhook is None:  # deleted while the run went on
                    deliveries.delete_delivery(transaction, row)
                elif not webhook.active:
                    self._settle(transaction, row, "failed", error=webhook.disabled_reason or "the webhook is off")
                else:
                    parcels.append(Parcel(row, webhook, secrets_of(transaction, webhook, now)))
        return parcels

    def _send(self, parcel: Parcel) -> None:
        host = parcel.delivery.host
        self._at_host[host] += 1
        task = asyncio.get_running_loop().create_task(self._deliver(parcel))
        self._sending.add(task)

        def sent(done: asyncio.Task[None]) -> None:
            self._sending.discard(done)
            self._at_host[host] -= 1
            if not self._at_host[host]:
                del self._at_host[host]
            if not done.cancelled() and (error := done.exception()) is not None:
                logger.error("delivery_broken", extra={"delivery_id": parcel.delivery.delivery_id}, exc_info=error)
            self._live.ring(DELIVERIES)

        task.add_done_callback(sent)

    async def _deliver(self, parcel: Parcel) -> None:
        row = parcel.delivery
        answer: Answer | None = None
        error: str | None = None
        try:
            answer = await self._ask(parcel, self._rules.targets.read(parcel.webhook.url))
        except SendingFailed as failure:
            error = str(failure)
        except MillstreamError as refusal:  # the operator allows it no longer
            error = refusal.message
        if answer is not None and not OK <= answer.status < FIRST_OTHER:
            error = f"it answered {answer.status}"
        if error is None:
            self._failing.discard(row.host)
        else:
            self._failing.add(row.host)
        try:
            outcome = await self._database.write(lambda transaction: self._conclude(transaction, row, answer, error))
            if outcome == FAILED:
                await self._hooks.refresh()  # the webhook may have been turned off
        except Unavailable:
            return  # it is sent again when its time is up
        if outcome is not None:
            self._count.labels(outcome).inc()
            extra = {"delivery_id": row.delivery_id, "webhook_id": row.webhook_id, "run_id": row.run_id}
            level = logging.WARNING if outcome == FAILED else logging.DEBUG
            logger.log(level, "webhook_%s", outcome, extra=extra | {"attempt": row.attempts, "reason": error})

    async def _ask(self, parcel: Parcel, target: Target) -> Answer:
        row, second = parcel.delivery, int(clock.now().timestamp())
        event = row.payload.encode()
        body = b'{"type":%b,"timestamp":"%b","data":%b}' % (encode(row.event), said_at(event), event)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "millstream",
            "webhook-id": row.delivery_id,
            "webhook-timestamp": str(second),
            "webhook-signature": signatures(parcel.secrets, row.delivery_id, second, body),
        }
        return await self._client.post(target, headers, body)

    def _conclude(
        self, transaction: Transaction, row: DeliveryRow, answer: Answer | None, error: str | None
    ) -> str | None:
        """Write what came of it: delivered, retried or failed; None when another attempt has begun."""
        status = None if answer is None else answer.status
        if error is None:
            done = self._settle(transaction, row, "delivered", response_status=status, delivered_at=clock.now())
            return DELIVERED if done else None
        if status == HTTPStatus.GONE:
            turn_off(transaction, row.tenant_id, row.webhook_id, "the receiver answered 410: it is gone")
        elif row.failures < len(self._rules.pauses_seconds):
            pause = self._pause(row.failures, answer)
            done = self._settle(
                transaction, row, "pending", error=error, response_status=status, next_attempt_at=clock.now() + pause
            )
            return RETRIED if done else None
        return FAILED if self._settle(transaction, row, "failed", error=error, response_status=status) else None

    def _settle(
        self,
        transaction: Transaction,
        row: DeliveryRow,
        status: str,
        *,
        error: str | None = None,
        response_status: int | None = None,
        next_attempt_at: datetime | None = None,
        delivered_at: datetime | None = None,
    ) -> bool:
        return deliveries.settle(
            transaction,
            row,
            status=status,
            failures=row.failures + (error is not None),
            next_attempt_at=next_attempt_at,
            response_status=response_status,
            error=error,
            delivered_at=delivered_at,
        )

    def _pause(self, failures: int, answer: Answer | None) -> timedelta:
        pause = timedelta(seconds=self._rules.pauses_seconds[failures] * self._chance.uniform(1 - JITTER, 1 + JITTER))
        asked = None if answer is None or answer.retry_after is None else retry_after(answer.retry_after, clock.now())
        return pause if asked is None else min(max(pause, asked), LONGEST_PAUSE)


def retry_after(header: str, now: datetime) -> timedelta | None:
    """How long a Retry-After asks to wait: seconds, or a date. None for what is neither."""
    header = header.strip()
    if header.isascii() and header.isdigit():
        return timedelta(seconds=min(int(header[:9]), LONGEST_PAUSE.total_seconds()))
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(timedelta(0), (until if until.tzinfo else until.replace(tzinfo=UTC)) - now)


def secrets_of(transaction: Transaction, webhook: WebhookRow, now: datetime) -> Sequence[str]:
    """What a webhook's messages are signed by now: its own secret or its owner's, and the one before for a while."""
    row = webhook if webhook.secret is not None else owner_secret(transaction, webhook.tenant_id, webhook.user_id)
    assert row.secret is not None
    if row.previous_secret is not None and row.previous_until is not None and row.previous_until > now:
        return row.secret, row.previous_secret
    return (row.secret,)


def owner_secret(transaction: Transaction, tenant: str, user: str | None) -> WebhookSecretRow:
    """The secret of a tenant, or of one of its users, made if there is none."""
    found = webhooks.get_secret(transaction, tenant, user)
    if found is not None:
        return found
    row = WebhookSecretRow(tenant_id=tenant, user_id=user or "", secret=new_secret(), created_at=clock.now())
    return webhooks.insert_secret(transaction, row)


def turn_off(transaction: Transaction, tenant: str, webhook: str, reason: str) -> None:
    """Send nothing more to a webhook, until somebody turns it on again."""
    row = webhooks.lock_webhook(transaction, tenant, webhook)
    if row is not None and row.active:
        webhooks.update_webhook(
            transaction, row, {"active": False, "disabled_reason": reason, "updated_at": clock.now()}
        )
        if row.run_id is None:
            webhooks.note_change(transaction, tenant)
