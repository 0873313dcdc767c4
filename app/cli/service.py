"""Commands that are the service, or prepare it: they need no server."""

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from app import __version__
from app.cli.configuration import EVERYWHERE, address, load_settings
from app.cli.output import note

if TYPE_CHECKING:
    import socket

    from app.main import Millstream


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; else MILLSTREAM_HOST.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on, 0 takes a free one; else MILLSTREAM_PORT.")
    ] = None,
) -> None:
    """Serve workflows over HTTP, until Ctrl-C or SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    settings = load_settings(host=host, port=port)

    from app.logs import configure_logs

    configure_logs(settings.log_level)

    from app.main import Millstream, listen

    millstream = Millstream(settings)
    listening = listen(settings)
    factory = millstream.server().config.get_loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(millstream, listening))


def migrate() -> None:
    """Bring the database to this version's tables; on SQLite `serve` does it by itself."""
    settings = load_settings()

    from app.logs import configure_logs

    configure_logs(settings.log_level)

    from app.store.database import open_database
    from app.store.migrations import head_revision
    from app.store.migrations import migrate as bring_to_head

    open_database(settings.database_url)  # connects to nothing yet, but refuses a URL that is of no database of ours
    bring_to_head(settings.database_url)
    typer.echo(f"the database is at migration {head_revision()}, which this version needs")


def openapi() -> None:
    """Print the OpenAPI document; it needs neither a server nor a database."""
    from app.api.application import make_application
    from app.cli.output import print_document

    print_document(make_application(_no_service).openapi())


async def _serve(millstream: "Millstream", listening: "socket.socket") -> None:
    """Serve until a signal; what the start refuses is raised here, not in a task of the server's."""
    server = millstream.server()
    server.config.lifespan = "off"
    # Uvicorn sets these same handlers while it serves, and puts back ours: a signal only ever asks the server to stop.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, server.handle_exit)
    application = millstream.application
    async with application.router.lifespan_context(application):
        if not server.should_exit:
            _announce(millstream, listening)
            await server.serve(sockets=[listening])
            note("stopping: runs may end; Ctrl-C again does not wait for them")
        _cancel_on_signal()


def _announce(millstream: "Millstream", listening: "socket.socket") -> None:
    host, port = listening.getsockname()[:2]
    url = address(host, port)
    everywhere = " (on all addresses of this machine)" if host in EVERYWHERE else ""
    count = sum(1 for _ in millstream.registry)
    said = f"{count} workflow{'' if count == 1 else 's'}"
    note(f"Millstream {__version__} serves {said} at {url}{everywhere}, documented at {url}/docs; Ctrl-C stops it")


def _cancel_on_signal() -> None:
    """While runs are given their time to end, another signal ends the process."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


def _leave(_number: int, _frame: object) -> NoReturn:
    """A signal before anything runs."""
    sys.exit(0)


def _no_service() -> NoReturn:
    raise AssertionError  # nobody starts an application whose routes alone are asked for
