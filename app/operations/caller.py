"""Who asks, and what they may."""

from dataclasses import dataclass
from typing import Literal

from app.errors import Forbidden
from app.store.tables import DEFAULT_TENANT
from app.wire.keys import SCOPES, Scope


@dataclass(frozen=True, slots=True)
class Caller:
    """One tenant's caller; `name` stands in the history of what it changes."""

    tenant: str = DEFAULT_TENANT
    name: str = "anonymous"
    user_id: str | None = None
    """Whose alone the sessions and runs are that it sees; None for all of the tenant's."""
    scopes: frozenset[Scope] = frozenset(SCOPES)
    source: Literal["open", "key", "token"] = "open"
    """By what it is known: nothing, as long as there is no authentication, an API key, or an issuer's token."""
    key_id: str | None = None
    expires_at: float | None = None
    """When it is no longer known, in seconds since 1970; None for never."""

    @property
    def operates(self) -> bool:
        """Whether its tenant is that of the operator, who looks after all tenants."""
        return self.tenant == DEFAULT_TENANT

    @property
    def account(self) -> str:
        """By what its limits are counted within the tenant: its key, or its user where it is known by a token."""
        return f"key {self.key_id}" if self.key_id is not None else f"{self.source} {self.user_id or self.name}"

    def sees(self, user_id: str | None) -> bool:
        """Whether what belongs to this user of the tenant is there for the caller."""
        return self.user_id is None or self.user_id == user_id

    def owner(self, named: str | None) -> str | None:
        """Whose a thing is that the caller makes or looks for; raises Forbidden when a bound caller names another."""
        if self.user_id is None or named is None or named == self.user_id:
            return named if self.user_id is None else self.user_id
        raise Forbidden(
            f"this credential is that of the user {self.user_id!r}; leave out user_id {named[:100]!r}",
            code="other_user",
        )


OPEN = Caller()
"""Whoever reaches a service without authentication: by loopback alone."""
