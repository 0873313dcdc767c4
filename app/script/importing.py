"""Taking over what the seed stored, at the roof: from a file into the database of the settings."""

import asyncio
from pathlib import Path

from app.discovery import load_registry
from app.engine.states import States
from app.main import bring_to_head, hold_database, refuse_unless_at_head
from app.operations.caller import Caller
from app.operations.imports import IMPORTER, ImportReport, Imports
from app.settings import Settings
from app.store.opening import open_database


def import_agno(
    settings: Settings, file: Path, table: str | None = None, *, workflow: str | None = None
) -> ImportReport:
    """Take over one table that Agno 1.x or phidata wrote, or all of the file's, which is only read.

    `workflow` is our name of the workflow whose the rows are that name none. Raises ConfigurationError while a service
    has the embedded database, NotFound and Invalid as `Imports.from_file` does.
    """
    return asyncio.run(_import(settings, file, table, workflow))


async def _import(settings: Settings, file: Path, table: str | None, workflow: str | None) -> ImportReport:
    registry = load_registry(settings)
    with hold_database(settings):
        if settings.embedded:
            await asyncio.to_thread(bring_to_head, settings.database_url)
        database = open_database(settings.database_url, lease_seconds=settings.lease_seconds)
        try:
            await refuse_unless_at_head(database)
            imports = Imports(
                database,
                States(max_state_bytes=settings.max_state_bytes, cache_bytes=settings.state_cache_bytes),
                max_content_bytes=settings.max_content_bytes,
                names={definition.workflow.__name__: definition.name for definition in registry}
                | {definition.name: definition.name for definition in registry},
            )
            return await imports.from_file(Caller(name=IMPORTER), file, table, workflow=workflow)
        finally:
            await database.close()
