"""Tokens for streams whose readers can send no header: bound to a caller and to what is read, good for a short time.

    mst_ payload . signature            both in base64url; the payload is JSON

They are not kept anywhere: whoever has the secret that all processes share can check one. The token of a key's holder
is good for as long as the key is.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from app import clock
from app.clock import rfc3339
from app.errors import Unauthenticated
from app.operations.access import Access
from app.operations.caller import OPEN, Caller
from app.operations.feeds import Feeds
from app.operations.runs import Runs
from app.store.database import Database
from app.store.secrets import get_secret, insert_secret
from app.store.tables import SecretRow
from app.workflow.encoding import decode, encode

PREFIX = "mst_"
SECRET = "stream_tokens"
"""The name of the secret among those that processes share."""
SECRET_BYTES = 32
MAX_TOKEN_CHARACTERS = 4096


class StreamTokens:
    """Making tokens, and knowing callers by them."""

    def __init__(
        self, database: Database, access: Access, runs: Runs, feeds: Feeds, *, lifetime_seconds: float
    ) -> None:
        self._database, self._access, self._runs, self._feeds = database, access, runs, feeds
        self._lifetime_seconds = lifetime_seconds
        self._secret: bytes | None = None

    async def for_run(self, caller: Caller, run_id: str) -> dict[str, Any]:
        """A token for the stream of a run; raises NotFound."""
        await self._runs.get(caller, run_id)
        return await self._token(caller, target([run_id], ()))

    async def for_events(self, caller: Caller, *, run_ids: list[str], session_ids: list[str]) -> dict[str, Any]:
        """A token for the stream over these runs and sessions, and no others; raises NotFound for an unknown one."""
        await self._feeds.check(caller, run_ids=run_ids, session_ids=session_ids)
        return await self._token(caller, target(run_ids, session_ids))

    async def caller(self, token: str, wanted: str) -> Caller:
        """Whose token it is, if it is for this target; raises Unauthenticated."""
        payload = await self._payload(token)
        if payload["for"] != wanted or payload["until"] <= clock.now().timestamp():
            raise Unauthenticated
        if payload["key"] is not None:
            return await self._access.holder(payload["key"])
        return Caller(
            tenant=payload["tenant"],
            name=payload["name"],
            user_id=payload["user"],
            scopes=frozenset({"runs:read"}),
            source="token",
            expires_at=payload["ends"],
        )

    async def _token(self, caller: Caller, wanted: str) -> dict[str, Any]:
        until = clock.now().timestamp() + self._lifetime_seconds
        if caller.expires_at is not None:
            until = min(until, caller.expires_at)
        payload = {
            "for": wanted,
            "until": until,
            "source": caller.source,
            "key": caller.key_id,
            "tenant": caller.tenant,
            "name": caller.name,
            "user": caller.user_id,
            "ends": caller.expires_at,
        }
        written = _written(encode(payload))
        token = f"{PREFIX}{written}.{_written(await self._sign(written))}"
        return {"token": token, "expires_at": rfc3339(datetime.fromtimestamp(until, UTC))}

    async def _payload(self, token: str) -> dict[str, Any]:
        """What a token says that is ours, and of a caller who was known by more than reaching the service."""
        written, dot, signature = token.removeprefix(PREFIX).partition(".")
        if not (token.startswith(PREFIX) and dot and token.isascii() and len(token) <= MAX_TOKEN_CHARACTERS):
            raise Unauthenticated
        if not hmac.compare_digest(signature, _written(await self._sign(written))):
            raise Unauthenticated
        payload: dict[str, Any] = decode(base64.urlsafe_b64decode(written + "=" * (-len(written) % 4)))
        if payload["source"] == OPEN.source:
            raise Unauthenticated
        return payload

    async def _sign(self, written: str) -> bytes:
        return hmac.digest(await self._shared_secret(), written.encode(), hashlib.sha256)

    async def _shared_secret(self) -> bytes:
        """That of all processes, made by whichever needs it first."""
        if self._secret is None:
            known = await self._database.read(lambda transaction: get_secret(transaction, SECRET))
            if known is None:
                row = SecretRow(name=SECRET, value=secrets.token_hex(SECRET_BYTES), created_at=clock.now())
                await self._database.write(lambda transaction: insert_secret(transaction, row))
                known = await self._database.read(lambda transaction: get_secret(transaction, SECRET))
            assert known is not None
            self._secret = bytes.fromhex(known)
        return self._secret


def target(run_ids: Collection[str], session_ids: Collection[str]) -> str:
    """What a stream carries, in whatever order it is named, as a short text."""
    named = encode([sorted(set(run_ids)), sorted(set(session_ids))])
    return hashlib.sha256(named).hexdigest()[:32]


def _written(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")
