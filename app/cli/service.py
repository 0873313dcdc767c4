"""Commands that are the service, or prepare it: they need no server."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from app import __version__
from app.cli import exits
from app.cli.configuration import EVERYWHERE, address, load_settings
from app.cli.output import note

if TYPE_CHECKING:
    import socket

    from app.main import Millstream, Server


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; else MILLSTREAM_HOST.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on, 0 takes a free one; else MILLSTREAM_PORT.")
    ] = None,
    *,
    work: Annotated[
        bool, typer.Option("--worker/--no-worker", help="Whether this process executes runs too; on Postgres.")
    ] = True,
) -> None:
    """Serve workflows over HTTP, until Ctrl-C or SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    settings = load_settings(host=host, port=port)

    from app.logs import configure_logs

    configure_logs(settings.log_level, form=settings.log_format)

    from app.main import Millstream, listen

    millstream = Millstream(settings, work=work)
    listening = listen(settings)
    factory = millstream.server().config.get_loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(millstream, listening))


def worker() -> None:
    """Execute runs without serving HTTP, until Ctrl-C or SIGTERM; any number of workers share one Postgres."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    settings = load_settings()

    from app.logs import configure_logs

    configure_logs(settings.log_level, form=settings.log_format)

    from app.main import Millstream

    millstream = Millstream(settings)
    with asyncio.Runner(loop_factory=millstream.server().config.get_loop_factory()) as runner:
        runner.run(_work(millstream))


def migrate() -> None:
    """Bring the database to this version's tables; on SQLite `serve` does it by itself."""
    settings = load_settings()

    from app.logs import configure_logs

    configure_logs(settings.log_level, form=settings.log_format)

    from app.store.migrations import head_revision
    from app.store.migrations import migrate as bring_to_head

    bring_to_head(settings.database_url)
    typer.echo(f"the database is at migration {head_revision()}, which this version needs")


def openapi() -> None:
    """Print the OpenAPI document; it needs neither a server nor a database."""
    from app.api.application import make_application
    from app.cli.output import print_document

    print_document(make_application(_no_service).openapi())


async def _serve(millstream: "Millstream", listening: "socket.socket") -> None:
    """Serve until a signal. The application is opened here, not by Uvicorn: what its start refuses is raised."""
    server = millstream.server()
    server.config.lifespan = "off"
    server.capture_signals = _no_signals  # type: ignore[method-assign]  # it would raise them again at its end
    stop = _Stop(server)
    application = millstream.application
    async with application.router.lifespan_context(application):
        from app.main import settle

        settle()
        if not server.should_exit:
            _announce(millstream, listening)
            await server.serve(sockets=[listening])
        stop.drain()


async def _work(millstream: "Millstream") -> None:
    """Execute runs until a signal."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    from app.main import settle

    async with millstream.open_worker():
        settle()
        note(f"Millstream {__version__} executes runs; Ctrl-C stops it")
        await stop.wait()
        note("stopping: what runs may come to an end")


class _Stop:
    """What signals do: the first lets what runs come to an end, the second does not wait for it."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._draining = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.on_signal)

    @property
    def should_exit(self) -> bool:
        """Where sse-starlette, which finds this object by its signal handler, looks whether to end its streams."""
        return self._server.should_exit

    def on_signal(self, _number: int, _frame: object) -> None:
        """Ask the server to stop, or the second time end the process."""
        self._server.force_exit = self._server.should_exit
        self._server.should_exit = True
        self._leave_if_forced()

    def drain(self) -> None:
        """Called when the server has ended, and runs are given their time."""
        self._draining = True
        self._leave_if_forced()
        note("stopping: what runs may come to an end; Ctrl-C does not wait for it")

    def _leave_if_forced(self) -> None:
        """As a crash would: everything that counts is on disk, and the next start goes on from there."""
        if self._draining and self._server.force_exit:
            os._exit(exits.FAILED)


@contextmanager
def _no_signals() -> Iterator[None]:
    """What Uvicorn does about signals: nothing, they are ours."""
    yield


def _announce(millstream: "Millstream", listening: "socket.socket") -> None:
    host, port = listening.getsockname()[:2]
    url = address(host, port)
    everywhere = " (on all addresses of this machine)" if host in EVERYWHERE else ""
    count = sum(1 for _ in millstream.registry)
    said = f"{count} workflow{'' if count == 1 else 's'}"
    note(f"Millstream {__version__} serves {said} at {url}{everywhere}, documented at {url}/docs; Ctrl-C stops it")


def _leave(_number: int, _frame: object) -> NoReturn:
    """A signal before anything runs."""
    sys.exit(0)


def _no_service() -> NoReturn:
    raise AssertionError  # nobody starts an application whose routes alone are asked for
