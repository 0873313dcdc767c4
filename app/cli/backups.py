"""Commands that keep the database: they need no server, and one of them tolerates none."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.configuration import load_settings
from app.cli.output import note

MEBIBYTE = 1024 * 1024


def backup(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The file to write; it may not be there yet.")],
) -> None:
    """Copy the whole database to a file, while the service goes on; on Postgres by pg_dump."""
    settings = load_settings()

    from app.store.backups import back_up

    made = back_up(settings.database_url, target)
    note(f"backed up to {target}: {made.size_bytes / MEBIBYTE:.1f} MiB, at migration {made.revision}")


def restore(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A file that `millstream backup` has written.")],
    *,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of the database that is there; else there may be none.")
    ] = False,
) -> None:
    """Make the database what it was at a backup; every process that uses it has to be stopped first."""
    settings = load_settings()

    from app.main import hold_database
    from app.store.backups import restore as bring_back
    from app.store.migrations import head_revision

    with hold_database(settings):
        made = bring_back(settings.database_url, source, replace=replace)
    note(f"restored from {source}, at migration {made.revision}")
    if made.revision != head_revision() and not settings.embedded:
        note(f"this version needs {head_revision()}: run `millstream migrate`")
