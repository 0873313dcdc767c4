"""The command that takes over what Agno 1.x and phidata stored."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import exits
from app.cli.configuration import load_settings
from app.cli.output import note

if TYPE_CHECKING:
    from app.operations.imports import ImportReport


def import_agno(
    file: Annotated[
        Path, typer.Argument(help="The SQLite file; it is only read.", exists=True, dir_okay=False, readable=True)
    ],
    table: Annotated[str | None, typer.Option(help="One table of the file; else all that Agno wrote.")] = None,
    workflow: Annotated[str | None, typer.Option(help="Whose the sessions are that name no workflow.")] = None,
) -> None:
    """Take over the sessions, states and past runs of Agno 1.x or phidata into the database of the settings.

    Sessions that are there already stay as they are, so it can be repeated. No service may have an embedded database.
    """
    settings = load_settings()

    from app.logs import configure_logs

    configure_logs(settings.log_level)

    from app.script import import_agno as take_over

    report = take_over(settings, file, table, workflow=workflow)
    _print(report)
    if report.problems:
        raise typer.Exit(exits.FAILED)


def _print(report: "ImportReport") -> None:
    typer.echo(
        f"{_counted(report.sessions, 'session')} and {_counted(report.runs, 'run')} taken over"
        f" from {', '.join(report.tables) or 'no table'}"
    )
    if report.present:
        typer.echo(f"{_counted(report.present, 'session')} left as they are: they were here before")
    if report.others:
        typer.echo(f"{_counted(report.others, 'row')} left out: of agents or teams, not of workflows")
    for old, new in report.renamed.items():
        typer.echo(f"session {old!r} is {new!r} here")
    for problem in report.problems:
        note(f"millstream: not taken over: {problem}")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
