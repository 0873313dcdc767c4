"""How often callers may ask: a bucket for each account and each tenant, which fills at a rate, up to a burst.

Where one process has the database, its memory holds the buckets. On Postgres they are rows that all processes share,
and a request is not worth a journey there: a process takes out of the row what a quarter of a second brings, and gives
it away by itself. So no more than the rate is given out, and a process holds a quarter of a second's worth at most.

    request ── caller known ──▸ its own bucket ──▸ its tenant's ──▸ the route
                                   └─ empty: 429, and when the next request is there
"""

import asyncio
import hashlib
import logging
import math
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

from app.errors import TooMany, Unavailable
from app.operations.caller import Caller
from app.settings import Settings
from app.store import rates
from app.store.database import Database

logger = logging.getLogger(__name__)

SHARE_SECONDS = 0.25
"""What a process takes out of a shared bucket at a time: that of so long, and at least one request."""
AWAY_SECONDS = 5.0
"""How long a process counts by itself once a shared bucket could not be had."""
MAX_KNOWN = 10_000
"""Buckets that a process keeps in mind, if it can do without the others."""
SWEEP_SECONDS = 600.0
"""How often rows of buckets that are full are removed."""

Bucket = tuple[str, str]
"""A tenant, and whose in it: an account, or "" for the tenant's own."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests a second, and how many of them may come at once."""

    per_second: float
    burst: int
    setting: str
    """Where it was set."""
    whose: str

    @property
    def interval(self) -> float:
        """Seconds between two requests."""
        return 1 / self.per_second

    def wait(self, full_in_seconds: float) -> float:
        """Seconds until a bucket holds a request, by when it is full again; 0 when it holds one."""
        return max(0.0, full_in_seconds - (self.burst - 1) * self.interval)


class Source(Protocol):
    """The buckets of one rate."""

    async def take(self, bucket: Bucket) -> float:
        """Take a request out; 0 when there was one, else the seconds until there will be."""


class OwnBuckets:
    """Buckets in memory, each as the moment when it is full again."""

    def __init__(self, rate: Rate) -> None:
        self._rate, self._interval = rate, rate.interval
        self._full_at: dict[Bucket, float] = {}

    async def take(self, bucket: Bucket) -> float:
        """Take a request out; 0 when there was one, else the seconds until there will be."""
        now = time.monotonic()
        full_at = max(self._full_at.get(bucket, now), now)
        wait = self._rate.wait(full_at - now)
        if wait == 0:
            if len(self._full_at) >= MAX_KNOWN and bucket not in self._full_at:
                self._full_at = {known: at for known, at in self._full_at.items() if at > now}
            self._full_at[bucket] = full_at + self._interval
        return wait


class _Share:
    """What this process has taken out of a shared bucket and not given away."""

    def __init__(self) -> None:
        self.left = 0
        self.empty_until = 0.0
        """Until then nothing has to be asked: there is nothing."""
        self.away_until = 0.0
        """Until then the row is not asked either: it could not be had."""
        self.waiting = 0
        self.asking: asyncio.Task[None] | None = None


class SharedBuckets:
    """Buckets that are rows of a Postgres.

    While it cannot be written, what only reads goes on, and each process counts by itself.
    """

    def __init__(self, database: Database, rate: Rate) -> None:
        self._own = OwnBuckets(rate)
        self._database, self._rate = database, rate
        self._at_a_time = min(rate.burst, max(1, int(rate.per_second * SHARE_SECONDS)))
        self._shares: OrderedDict[Bucket, _Share] = OrderedDict()

    async def take(self, bucket: Bucket) -> float:
        """Take a request out; 0 when there was one, else the seconds until there will be."""
        share = self._share(bucket)
        while not share.left:
            now = time.monotonic()
            if now < share.empty_until:
                return share.empty_until - now
            if now < share.away_until:
                return await self._own.take(bucket)
            share.waiting += 1
            try:
                if share.asking is None:
                    share.asking = asyncio.get_running_loop().create_task(self._fetch(bucket, share))
                await asyncio.shield(share.asking)
            finally:
                share.waiting -= 1
        share.left -= 1
        return 0

    def _share(self, bucket: Bucket) -> _Share:
        share = self._shares.get(bucket)
        if share is None:
            share = self._shares[bucket] = _Share()
            if len(self._shares) > MAX_KNOWN:
                self._shares.popitem(last=False)  # what it held is lost to its callers, which is little
        self._shares.move_to_end(bucket)
        return share

    async def _fetch(self, bucket: Bucket, share: _Share) -> None:
        """Take out what those who wait need, or as much as is taken at a time."""
        await asyncio.sleep(0)  # who comes in the same moment is served by the same journey
        rate, (tenant, whose) = self._rate, bucket
        wanted = min(rate.burst, max(self._at_a_time, share.waiting))
        name = hashlib.sha256(whose.encode()).hexdigest()[:32] if whose else ""
        try:
            taken = await self._database.write_one(
                lambda transaction: rates.take(
                    transaction, tenant, name, wanted=wanted, interval=rate.interval, burst=rate.burst
                )
            )
        except Exception as error:
            if not isinstance(error, Unavailable):  # which the database has told of itself
                logger.exception("rate_not_shared")
            share.away_until = time.monotonic() + AWAY_SECONDS
            return
        finally:
            share.asking = None
        share.left += taken.requests
        if taken.requests < wanted:
            share.empty_until = time.monotonic() + rate.wait(taken.full_in_seconds)


class Rates:
    """Holds callers to their rates: each account to its own, and all of a tenant to the tenant's."""

    def __init__(self, of_account: tuple[Rate, Source] | None, of_tenant: tuple[Rate, Source] | None) -> None:
        self._of_account, self._of_tenant = of_account, of_tenant

    async def admit(self, caller: Caller) -> None:
        """Raises TooMany for a caller who asks too often.

        The account comes first: one that asks too often takes nothing from its tenant's others.
        """
        if self._of_account is not None:
            await _admit(*self._of_account, (caller.tenant, caller.account))
        if self._of_tenant is not None:
            await _admit(*self._of_tenant, (caller.tenant, ""))


async def _admit(rate: Rate, source: Source, bucket: Bucket) -> None:
    wait = await source.take(bucket)
    if wait > 0:
        raise TooMany(
            f"{rate.whose} may send {rate.per_second:g} requests a second, {rate.burst} of them at once"
            f" ({rate.setting}); wait as long as Retry-After says",
            code="rate_limited",
            retry_after_seconds=math.ceil(wait),
        )


def rates_of(settings: Settings, database: Database) -> Rates | None:
    """The rates that are set; None where none is, so that a request costs nothing."""
    of_account = _chosen(
        database,
        settings,
        settings.limit_requests_per_second,
        settings.limit_requests_burst,
        "MILLSTREAM_LIMIT_REQUESTS_PER_SECOND",
        "this credential",
    )
    of_tenant = _chosen(
        database,
        settings,
        settings.limit_tenant_requests_per_second,
        settings.limit_tenant_requests_burst,
        "MILLSTREAM_LIMIT_TENANT_REQUESTS_PER_SECOND",
        "this tenant",
    )
    return None if of_account is None and of_tenant is None else Rates(of_account, of_tenant)


def _chosen(
    database: Database, settings: Settings, per_second: float | None, burst: int, setting: str, whose: str
) -> tuple[Rate, Source] | None:
    if per_second is None:
        return None
    rate = Rate(per_second, burst, setting, whose)
    return rate, OwnBuckets(rate) if settings.embedded else SharedBuckets(database, rate)


async def sweep(database: Database) -> None:
    """Remove rows of buckets that are full, until cancelled."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        try:
            await database.write_one(rates.forget_full)
        except Unavailable:
            continue
        except Exception:  # the next time may go better
            logger.exception("rates_not_swept")
