"""Who a credential is: whether authentication is on, which keys are good, and whose streams have to end.

What a process has learnt of a key counts for a few seconds, so that a request costs no look into the database, and a
key that is revoked anywhere is refused everywhere soon after. One watch looks after all open streams.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, Protocol

from app import clock
from app.errors import Unauthenticated, Unavailable
from app.operations.caller import Caller
from app.operations.credentials import ApiKey
from app.store import keys, tenants
from app.store.database import Database
from app.store.tables import KeyRow
from app.wire.keys import SCOPES

if TYPE_CHECKING:
    from app.operations.issuer import Issuer  # it brings libraries that most services never need

logger = logging.getLogger(__name__)

KNOWN_SECONDS = 5.0
"""How long what was read of a key counts; so long a key may be good after it was revoked by another process."""
MAX_KNOWN = 10_000
LOOK_SECONDS = 2.0
"""How often the watch looks whether there is a first key, and whose streams have to end."""
NOTE_SECONDS = 60.0
"""How often the last use of keys is written."""
KEYS_PER_STATEMENT = 500


class Readers(Protocol):
    """Those who read streams in this process."""

    def callers(self) -> Collection[Caller]:
        """Who they are."""

    def dismiss(self, caller: Caller) -> None:
        """End the streams of a caller."""


class _Known(NamedTuple):
    """What was read of a key, and when."""

    row: KeyRow | None
    at: float


class Access:
    """Tells callers by their credentials; as long as there is neither a key nor an issuer, all are the open one."""

    def __init__(self, database: Database, issuer: "Issuer | None") -> None:
        self.on = issuer is not None
        """Whether authentication is on."""
        self._database, self._issuer = database, issuer
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._asking: dict[str, asyncio.Task[KeyRow | None]] = {}
        self._used: set[str] = set()
        self._tenants: set[str] = set()

    async def start(self) -> None:
        """Look whether there is a key."""
        self.on = self.on or await self._database.read(keys.any_key)

    async def caller(self, credential: str) -> Caller:
        """Whose credential it is; raises Unauthenticated, and Unavailable when that cannot be found out just now."""
        key = ApiKey.read(credential)
        if key is not None:
            row = await self._key(key.key_id)
            if row is None or not key.fits(row.digest):
                raise Unauthenticated
            self._used.add(row.key_id)
            return caller_of_key(row)
        if self._issuer is None:
            raise Unauthenticated
        caller = await self._issuer.caller(credential)
        await self._know_tenant(caller.tenant)
        return caller

    async def holder(self, key_id: str) -> Caller:
        """The caller of a key that was checked before, as long as the key is good; raises Unauthenticated."""
        row = await self._key(key_id)
        if row is None:
            raise Unauthenticated
        return caller_of_key(row)

    async def close(self) -> None:
        """Close connections."""
        if self._issuer is not None:
            await self._issuer.close()

    def forget(self, key_id: str) -> None:
        """A key has changed."""
        self._known.pop(key_id, None)

    async def watch(self, readers: Readers) -> None:
        """Look after authentication and open streams until cancelled."""
        noted_at = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if not self.on:
                    await self.start()
                for caller in await self._gone(readers.callers()):
                    if caller.key_id is not None:
                        self.forget(caller.key_id)  # else whoever is sent away could come back at once
                    readers.dismiss(caller)
                if time.monotonic() - noted_at > NOTE_SECONDS:
                    noted_at = time.monotonic()
                    await self._note_use()
            except Unavailable:
                continue
            except Exception:  # whatever it was, the next look may go better, and nobody else looks for this process
                logger.exception("access_watch_failed")

    async def _key(self, key_id: str) -> KeyRow | None:
        """The key, if it is good."""
        known = self._known.get(key_id)
        if known is None or time.monotonic() - known.at > KNOWN_SECONDS:
            asking = self._asking.get(key_id)
            if asking is None:
                asking = self._asking[key_id] = asyncio.get_running_loop().create_task(self._read(key_id))
                asking.add_done_callback(lambda _: self._asking.pop(key_id, None))
            row = await asyncio.shield(asking)
        else:
            row = known.row
        return row if row is not None and _is_good(row, clock.now()) else None

    async def _read(self, key_id: str) -> KeyRow | None:
        at = time.monotonic()  # before the look: what changes meanwhile is not taken for known
        row = await self._database.read(lambda transaction: keys.get_key(transaction, key_id))
        self._known[key_id] = _Known(row, at)
        self._known.move_to_end(key_id)
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return row

    async def _gone(self, callers: Collection[Caller]) -> list[Caller]:
        """Those of them whose credentials are no longer good."""
        if not self.on or not callers:
            return []
        at = clock.now()
        holders = sorted({caller.key_id for caller in callers if caller.key_id is not None})
        good: set[str] = set()
        for first in range(0, len(holders), KEYS_PER_STATEMENT):
            some = holders[first : first + KEYS_PER_STATEMENT]
            good |= await self._database.read(lambda transaction: keys.valid_keys(transaction, some, at=at))  # noqa: B023  awaited here
        return [caller for caller in callers if not _stays(caller, good, at)]

    async def _note_use(self) -> None:
        used, self._used = sorted(self._used), set()
        for first in range(0, len(used), KEYS_PER_STATEMENT):
            some = used[first : first + KEYS_PER_STATEMENT]
            await self._database.write(lambda transaction: keys.note_use(transaction, some, at=clock.now()))  # noqa: B023  awaited here

    async def _know_tenant(self, tenant: str) -> None:
        """A tenant of an issuer's is written down before its first run, so that its runs are looked after."""
        if tenant not in self._tenants:
            await self._database.write(lambda transaction: tenants.insert_tenant(transaction, tenant))
            self._tenants.add(tenant)


def caller_of_key(row: KeyRow) -> Caller:
    """Who holds the key."""
    return Caller(
        tenant=row.tenant_id,
        name=row.name,
        user_id=row.user_id,
        scopes=frozenset(scope for scope in SCOPES if scope in row.scopes.split()),
        source="key",
        key_id=row.key_id,
        expires_at=None if row.expires_at is None else row.expires_at.timestamp(),
    )


def _is_good(row: KeyRow, at: datetime) -> bool:
    return row.revoked_at is None and (row.expires_at is None or row.expires_at > at)


def _stays(caller: Caller, good: set[str], at: datetime) -> bool:
    if caller.source == "open" or (caller.expires_at is not None and caller.expires_at <= at.timestamp()):
        return False
    return caller.key_id is None or caller.key_id in good
