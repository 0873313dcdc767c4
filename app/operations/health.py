"""What operators ask of a process: whether it lives, whether it can serve, what it is."""

import asyncio
from collections.abc import Awaitable
from typing import Any

from app import __version__
from app.engine.seam import Engine
from app.errors import Unavailable
from app.store import workers
from app.store.database import Database
from app.store.migrations import current_revision, head_revision

PROOF_SECONDS = 1.0
"""How long a write proves that the next one would succeed too: asking often costs no more."""

OK = "ok"


class Health:
    """The state of this process."""

    def __init__(self, database: Database, engine: Engine, *, embedded: bool, lease_seconds: float) -> None:
        self._database, self._engine = database, engine
        self._embedded, self._lease_seconds = embedded, lease_seconds
        self._written_at: float | None = None

    async def checks(self) -> dict[str, str]:
        """What has to be well for this process to serve: each by its name, `ok` or why it is not."""
        checks = {"draining": "the process is stopping" if self._engine.draining else OK}
        if self._embedded:  # else its disk is another machine's, and only a write can tell
            checks["disk"] = await _refusal(self._database.check_room())
        checks["database"] = await _refusal(self._write())
        if checks["database"] == OK:
            checks["migrations"] = await _refusal(self._check_migrations())
        else:
            checks["migrations"] = "not known while the database cannot be used"
        return checks

    async def _check_migrations(self) -> None:
        revision, head = await self._database.read(current_revision), head_revision()
        if revision != head:
            raise Unavailable(f"the database is at {revision}, this version needs {head}; run millstream migrate")

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


async def _refusal(check: Awaitable[None]) -> str:
    """Why it cannot be, or `ok`."""
    try:
        await check
    except Unavailable as error:
        return error.message
    return OK
