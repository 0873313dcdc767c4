"""Who asks."""

from dataclasses import dataclass

from app.store.tables import DEFAULT_TENANT


@dataclass(frozen=True, slots=True)
class Caller:
    """One tenant's caller; `name` stands in the history of what it changes."""

    tenant: str = DEFAULT_TENANT
    name: str = "anonymous"
