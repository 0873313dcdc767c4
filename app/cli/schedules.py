"""Commands about schedules."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.arguments import read_input
from app.cli.configuration import Url, connect
from app.cli.output import Json, Limit, compact, moment, note, print_json, print_members, print_table
from app.errors import NotFound

if TYPE_CHECKING:
    from app.client.client import Client
    from app.wire.schedules import Schedule

commands = typer.Typer(no_args_is_help=True, help="Have workflows started at certain times.")

Named = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]


@commands.command("list")
def list_schedules(
    workflow: Annotated[str | None, typer.Option(help="Those of this workflow.")] = None,
    user_id: Annotated[str | None, typer.Option(help="Those of this user.")] = None,
    limit: Limit = 20,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List schedules, the newest first."""
    with connect(url) as client:
        found = list(client.schedules(workflow=workflow, user_id=user_id, at_most=limit))
    if as_json:
        print_json(found)
        return
    rows = [(s.name, s.workflow, s.cron, s.timezone, _next(s), s.last_run_id) for s in found]
    columns = ("schedule", "workflow", "cron", "time zone", "next", "last run")
    print_table(columns, rows, none="there are no schedules")


@commands.command("create")
def create_schedule(
    name: Named,
    workflow: Annotated[str, typer.Argument(help="The workflow to start.")],
    cron: Annotated[str, typer.Argument(help="Minute, hour, day of month, month, day of week.")],
    timezone: Annotated[str, typer.Option(help="The time zone that they are meant in, such as Europe/Berlin.")] = "UTC",
    input: Annotated[str | None, typer.Option(metavar="JSON", help="The arguments of the workflow.")] = None,
    session_id: Annotated[str | None, typer.Option(help="The session of all its runs; else a new one each.")] = None,
    user_id: Annotated[str | None, typer.Option(help="Whose runs they are.")] = None,
    on_missed: Annotated[
        str | None, typer.Option(metavar="skip|run_once", help="What becomes of ticks that nobody was there for.")
    ] = None,
    on_busy: Annotated[
        str | None, typer.Option(metavar="enqueue|reject|interrupt", help="What to do when the session has a live run.")
    ] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Start nothing until it is resumed.")] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Have a workflow started at certain times."""
    from app.wire.schedules import CreateSchedule

    given: dict[str, Any] = {
        "session_id": session_id,
        "user_id": user_id,
        "on_missed": on_missed,
        "on_busy": on_busy,
    }
    body = CreateSchedule.model_validate(
        {"name": name, "workflow": workflow, "cron": cron, "timezone": timezone, "paused": paused}
        | {"input": read_input(input)}
        | {member: value for member, value in given.items() if value is not None}
    )
    with connect(url) as client:
        _print_schedule(client.create_schedule(body), as_json=as_json)


@commands.command("show")
def show_schedule(name: Named, url: Url = None, as_json: Json = False) -> None:
    """Show a schedule."""
    with connect(url) as client:
        _print_schedule(_named(client, name), as_json=as_json)


@commands.command("pause")
def pause_schedule(name: Named, url: Url = None, as_json: Json = False) -> None:
    """Start nothing until it is resumed."""
    with connect(url) as client:
        _print_schedule(client.pause_schedule(_named(client, name).schedule_id), as_json=as_json)


@commands.command("resume")
def resume_schedule(name: Named, url: Url = None, as_json: Json = False) -> None:
    """Go on; with run_once, one run makes up for what was missed."""
    with connect(url) as client:
        _print_schedule(client.resume_schedule(_named(client, name).schedule_id), as_json=as_json)


@commands.command("run")
def run_schedule(name: Named, url: Url = None, as_json: Json = False) -> None:
    """Start a run of it now."""
    with connect(url) as client:
        run = client.run_schedule(_named(client, name).schedule_id)
    if as_json:
        print_json([run])
        return
    typer.echo(run.run_id)
    note(f"follow it with: millstream runs follow {run.run_id}")


@commands.command("delete")
def delete_schedule(
    name: Named,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
) -> None:
    """Delete a schedule; its runs stay. Asks first at a terminal."""
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Delete schedule {name}?", abort=True, err=True)
    with connect(url) as client:
        client.delete_schedule(_named(client, name).schedule_id)
    note(f"deleted schedule {name}")


def _named(client: "Client", name: str) -> "Schedule":
    """The schedule of that name; raises NotFound."""
    found = next(client.schedules(name=name, at_most=1), None)
    if found is None:
        raise NotFound(f"there is no schedule {name!r}; `millstream schedules list` shows them")
    return found


def _next(schedule: "Schedule") -> str | None:
    return "paused" if schedule.paused else moment(schedule.next_run_at)


def _print_schedule(schedule: "Schedule", *, as_json: bool) -> None:
    if as_json:
        print_json([schedule])
        return
    print_members(
        [
            ("schedule", schedule.name),
            ("workflow", schedule.workflow),
            ("cron", f"{schedule.cron} ({schedule.timezone})"),
            ("input", compact(schedule.input) if schedule.input else None),
            ("session", schedule.session_id),
            ("user", schedule.user_id),
            ("missed ticks", schedule.on_missed),
            ("next", _next(schedule)),
            ("last run", schedule.last_run_id),
            ("started", moment(schedule.last_run_at)),
            ("error", schedule.error),
        ]
    )
