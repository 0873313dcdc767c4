"""The command `millstream`: all its commands, and what it says when one cannot do its work."""

import signal
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError

from app import __version__
from app.cli import (
    backups,
    doctor,
    exits,
    imports,
    keys,
    runs,
    schedules,
    service,
    sessions,
    users,
    webhooks,
    workflows,
)
from app.client.errors import ClientError, ServerProblem, ServerUnreachable
from app.errors import MillstreamError

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Serve Python workflows over HTTP, and work with a server from the terminal.",
    epilog="Settings are MILLSTREAM_ variables.",
)
cli.command()(service.serve)
cli.command()(service.worker)
cli.command()(service.migrate)
cli.command()(service.openapi)
cli.command()(backups.backup)
cli.command()(backups.restore)
cli.command()(doctor.doctor)
cli.command(
    name="run",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog=exits.HELP,
)(runs.run)
cli.add_typer(workflows.commands, name="workflows")
cli.add_typer(runs.commands, name="runs")
cli.add_typer(sessions.commands, name="sessions")
cli.add_typer(users.commands, name="users")
cli.add_typer(schedules.commands, name="schedules")
cli.add_typer(webhooks.commands, name="webhooks")
cli.add_typer(keys.commands, name="keys")
cli.command()(imports.import_agno)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"millstream {__version__}")
        raise typer.Exit


@cli.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What belongs to no command."""


def main() -> NoReturn:
    """Run a command, and end the process with its exit code."""
    try:
        cli()
    except MillstreamError as error:
        _end(error.message, exits.USAGE)
    except ValidationError as error:
        _end(_refused(error), exits.USAGE)
    except ClientError as error:
        _end(f"{error.message}{_remedy(error)}", exits.SERVER)
    except KeyboardInterrupt:
        raise SystemExit(exits.DETACHED) from None
    raise SystemExit(exits.COMPLETED)


def _end(message: str, code: int) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # there is nothing left to interrupt
    typer.echo(f"millstream: {' '.join(message.split())}", err=True)
    raise SystemExit(code) from None


def _refused(error: ValidationError) -> str:
    """What a body of ours does not take, under the names of the options."""
    return "; ".join(
        f"--{'.'.join(map(str, entry['loc'])).replace('_', '-')}: {entry['msg'].removeprefix('Value error, ')}"
        for entry in error.errors(include_url=False, include_context=False, include_input=False)
    )


def _remedy(error: ClientError) -> str:
    if isinstance(error, ServerUnreachable) and not error.contacted:
        return "; start one with `millstream serve`, or name another with --url or MILLSTREAM_URL"
    if isinstance(error, ServerProblem) and error.code == "unauthenticated":
        return "; MILLSTREAM_API_KEY names the one that the command line sends"
    if isinstance(error, ServerProblem) and (known := error.members.get("known")):
        return f": {', '.join(known)}"
    return ""
