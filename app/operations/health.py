"""What operators ask of a process: whether it lives, whether it can serve, what it is."""

from typing import Any

from app import __version__
from app.engine.seam import Engine
from app.errors import Unavailable
from app.store.database import Database
from app.store.migrations import current_revision, head_revision


class Health:
    """The state of this process."""

    def __init__(self, database: Database, engine: Engine, *, embedded: bool, lease_seconds: float) -> None:
        self._database, self._engine = database, engine
        self._embedded, self._lease_seconds = embedded, lease_seconds

    async def reasons(self) -> list[str]:
        """Why this process cannot serve now; empty when it can."""
        reasons = ["draining: the process is stopping"] if self._engine.draining else []
        try:
            revision = await self._database.read(current_revision)
        except Unavailable as error:
            return [*reasons, f"database: {error.message}"]
        if revision != (head := head_revision()):
            reasons.append(
                f"migrations: the database is at {revision}, this version needs {head}; run millstream migrate"
            )
        return reasons

    def version(self) -> dict[str, Any]:
        """Version, mode and lease."""
        mode = "embedded" if self._embedded else "distributed"
        return {"version": __version__, "mode": mode, "lease_seconds": self._lease_seconds}
