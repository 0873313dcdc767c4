"""The command line."""

import asyncio
from typing import Annotated

import typer

from app.errors import ConfigurationError
from app.settings import Settings

cli = typer.Typer(no_args_is_help=True, add_completion=False, help="Serve Python workflows over HTTP.")


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
) -> None:
    """Serve workflows over HTTP."""
    from app.main import Millstream, listen

    settings = Settings()
    settings = settings.model_copy(update={k: v for k, v in {"host": host, "port": port}.items() if v is not None})
    millstream = Millstream(settings)
    listening = listen(settings)
    server = millstream.server()
    asyncio.run(server.serve(sockets=[listening]))


@cli.command()
def migrate() -> None:
    """Bring the database to this version's tables."""
    from app.store.migrations import migrate as bring_to_head

    bring_to_head(Settings().database_url)


def main() -> None:
    """Run a command."""
    try:
        cli()
    except ConfigurationError as error:
        raise SystemExit(f"millstream: {error.message}") from None
