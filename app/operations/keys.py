"""What callers may ask of API keys."""

from datetime import UTC, datetime, timedelta
from typing import Any

from app import clock
from app.clock import rfc3339
from app.errors import Forbidden, Invalid, NotFound
from app.operations.access import Access
from app.operations.caller import Caller
from app.operations.credentials import ApiKey
from app.operations.cursors import cut_page, read_moment, write_cursor
from app.store import keys, tenants
from app.store.database import Database, Transaction
from app.store.tables import KeyRow
from app.wire.keys import Scope


class Keys:
    """Making, seeing, revoking and replacing keys."""

    def __init__(self, database: Database, access: Access | None = None) -> None:
        """`access` is told of what changes; there is none where no service runs."""
        self._database, self._access = database, access

    async def create(
        self,
        caller: Caller,
        *,
        name: str,
        scopes: list[Scope],
        tenant: str | None = None,
        user_id: str | None = None,
        expires_at: datetime | None = None,
    ) -> dict[str, Any]:
        """A new key with its text, which nobody sees again; raises Forbidden for one beyond the caller's own rights."""
        if expires_at is not None and expires_at <= clock.now():
            raise Invalid(f"expires_at is {rfc3339(expires_at)}, which is past", code="invalid_body")
        owner = caller.tenant if tenant is None else tenant
        _check_tenant(caller, owner)
        if "admin" not in caller.scopes and (more := sorted(set(scopes) - caller.scopes)):
            raise Forbidden(f"whoever lacks the scopes {', '.join(more)} cannot grant them", code="insufficient_scope")
        row = KeyRow(
            tenant_id=owner,
            key_id="",
            digest="",
            name=name,
            scopes=" ".join(dict.fromkeys(scopes)),
            user_id=user_id,
            created_at=clock.now(),
            expires_at=None if expires_at is None else expires_at.astimezone(UTC),
        )
        return await self._database.write(lambda transaction: self._insert(transaction, row))

    async def page(
        self, caller: Caller, *, tenant: str | None, limit: int, cursor: str | None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Keys, newest first, and the cursor of the next page; of all tenants for who looks after all."""
        if tenant is not None:
            _check_tenant(caller, tenant)
        elif not caller.operates:
            tenant = caller.tenant
        before = None if cursor is None else read_moment(cursor)

        def work(transaction: Transaction) -> tuple[list[dict[str, Any]], str | None]:
            rows = keys.list_keys(transaction, tenant, before=before, limit=limit + 1)
            page, following = cut_page(rows, limit, lambda row: write_cursor(rfc3339(row.created_at), row.key_id))
            return [key_resource(row) for row in page], following

        return await self._database.read(work)

    async def revoke(self, caller: Caller, key_id: str) -> None:
        """Have a key open nothing any more; raises NotFound. Asking twice is fine."""

        def work(transaction: Transaction) -> None:
            row = _existing(transaction, caller, key_id)
            keys.revoke_key(transaction, row.key_id, at=clock.now())
            transaction.after_commit(lambda: self._changed(row))

        await self._database.write(work)

    async def rotate(self, caller: Caller, key_id: str, *, overlap_seconds: int) -> dict[str, Any]:
        """A new key like an old one, which ends after the overlap; raises NotFound, Invalid for one that has ended."""
        at = clock.now()

        def work(transaction: Transaction) -> dict[str, Any]:
            old = _existing(transaction, caller, key_id)
            if old.revoked_at is not None or (old.expires_at is not None and old.expires_at <= at):
                raise Invalid(f"the key {key_id} opens nothing any more; make a new one", code="key_ended")
            ends_at = at + timedelta(seconds=overlap_seconds)
            if old.expires_at is None or old.expires_at > ends_at:
                keys.expire_key(transaction, old.key_id, at=ends_at)
            transaction.after_commit(lambda: self._changed(old))
            return self._insert(transaction, KeyRow.of(old.values | {"created_at": at, "last_used_at": None}))

        return await self._database.write(work)

    def _insert(self, transaction: Transaction, row: KeyRow) -> dict[str, Any]:
        """Add the row under an id and a secret of its own."""
        key = ApiKey.new()
        row = KeyRow.of(row.values | {"key_id": key.key_id, "digest": key.digest})
        if not keys.insert_key(transaction, row):
            return self._insert(transaction, row)
        tenants.insert_tenant(transaction, row.tenant_id)
        transaction.after_commit(lambda: self._changed(row))
        return key_resource(row) | {"key": key.text}

    def _changed(self, row: KeyRow) -> None:
        if self._access is not None:
            self._access.on = True
            self._access.forget(row.key_id)


def key_resource(row: KeyRow) -> dict[str, Any]:
    """The key without its digest; see wire.keys.Key."""
    moments = {name: row.values[name] for name in ("created_at", "expires_at", "revoked_at", "last_used_at")}
    return {
        "key_id": row.key_id,
        "name": row.name,
        "scopes": row.scopes.split(),
        "tenant": row.tenant_id,
        "user_id": row.user_id,
    } | {name: None if moment is None else rfc3339(moment) for name, moment in moments.items()}


def _check_tenant(caller: Caller, tenant: str) -> None:
    if tenant != caller.tenant and not caller.operates:
        raise Forbidden(
            f"a caller of the tenant {caller.tenant!r} looks after its own keys alone; leave out {tenant!r}",
            code="other_tenant",
        )


def _existing(transaction: Transaction, caller: Caller, key_id: str) -> KeyRow:
    row = keys.get_key(transaction, key_id) if key_id.isalnum() else None
    if row is None or not (caller.operates or row.tenant_id == caller.tenant):
        raise NotFound(f"there is no key {key_id[:100]!r}", code="unknown_key")
    return row
