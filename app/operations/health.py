"""What operators ask of a process: whether it lives, whether it can serve, what it is."""

import asyncio
from typing import Any

from app import __version__
from app.engine.seam import Engine
from app.errors import Unavailable
from app.store import workers
from app.store.database import Database
from app.store.migrations import current_revision, head_revision

PROOF_SECONDS = 1.0
"""How long a write proves that the next one would succeed too: asking often costs no more."""


class Health:
    """The state of this process."""

    def __init__(self, database: Database, engine: Engine, *, embedded: bool, lease_seconds: float) -> None:
        self._database, self._engine = database, engine
        self._embedded, self._lease_seconds = embedded, lease_seconds
        self._written_at: float | None = None

    async def reasons(self) -> list[str]:
        """Why this process cannot serve now; empty when it can."""
        reasons = ["draining: the process is stopping"] if self._engine.draining else []
        try:
            await self._database.check_room()
            await self._write()
            revision = await self._database.read(current_revision)
        except Unavailable as error:
            return [*reasons, f"database: {error.message}"]
        if revision != (head := head_revision()):
            reasons.append(
                f"migrations: the database is at {revision}, this version needs {head}; run millstream migrate"
            )
        return reasons

    async def _write(self) -> None:
        """Write a heartbeat: a disk may be full, and a database a standby, that answers every read."""
        now = asyncio.get_running_loop().time()
        if self._written_at is None or now >= self._written_at + PROOF_SECONDS:
            await self._database.write(lambda transaction: workers.beat(transaction, self._engine.worker_id))
            self._written_at = now

    def version(self) -> dict[str, Any]:
        """Version, mode and lease."""
        mode = "embedded" if self._embedded else "distributed"
        return {"version": __version__, "mode": mode, "lease_seconds": self._lease_seconds}
