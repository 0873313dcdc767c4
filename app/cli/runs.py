"""Commands about runs."""

import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from app.cli import exits
from app.cli.arguments import check_required, read_arguments, read_input
from app.cli.configuration import Url, connect
from app.cli.output import Json, Limit, compact, console, duration, moment, print_json, print_members, print_table

if TYPE_CHECKING:
    from app.client.client import Client
    from app.wire.runs import Run

commands = typer.Typer(no_args_is_help=True, help="See, follow and cancel runs.")

RunId = Annotated[str, typer.Argument(help="The run's id.")]
Seconds = Annotated[float | None, typer.Option(min=0, help="Fail the run when it takes longer.")]


def run(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The workflow's name; its arguments follow as --name=value.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show the run's events to its end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the run as JSON, or its events, one a line.")] = False,
    input: Annotated[str | None, typer.Option(metavar="JSON", help="Arguments as a JSON object.")] = None,
    session_id: Annotated[str | None, typer.Option(help="The session to run in; else a new one.")] = None,
    user_id: Annotated[str | None, typer.Option(help="Whose run it is.")] = None,
    timeout_seconds: Seconds = None,
    on_busy: Annotated[
        Literal["enqueue", "reject", "interrupt"] | None, typer.Option(help="If the session has a live run.")
    ] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="The same key starts the same run once.")] = None,
    url: Url = None,
) -> None:
    """Start a run of a workflow; its arguments are --name=value after its name."""
    from app.wire.runs import StartRun

    options = {
        "session_id": session_id,
        "user_id": user_id,
        "timeout_seconds": timeout_seconds,
        "on_busy": on_busy,
    }
    with connect(url) as client:
        arguments = _input(client, name, context.args, input)
        body = StartRun(input=arguments, **{key: value for key, value in options.items() if value is not None})  # type: ignore[arg-type]
        started = client.start_run(name, body, idempotency_key=idempotency_key)
        if follow:
            raise typer.Exit(_follow(client, started.run_id, as_json=as_json, after=0, url=url))
    if as_json:
        print_json([started])
        return
    _print_run(started)
    console(stderr=True).print(f"follow it with `{_command('follow', started.run_id, url)}`")


@commands.command("list")
def list_runs(
    workflow: Annotated[str | None, typer.Option(help="Those of this workflow.")] = None,
    session_id: Annotated[str | None, typer.Option(help="Those of this session.")] = None,
    user_id: Annotated[str | None, typer.Option(help="Those of this user.")] = None,
    status: Annotated[exits.Status | None, typer.Option(help="Those with this status.")] = None,
    limit: Limit = 20,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List runs, the newest first."""
    with connect(url) as client:
        found = list(
            client.runs(workflow=workflow, session_id=session_id, user_id=user_id, status=status, at_most=limit)
        )
    if as_json:
        print_json(found)
        return
    rows = [(r.run_id, r.workflow, r.session_id, r.status, moment(r.created_at), _took(r)) for r in found]
    print_table(("run", "workflow", "session", "status", "created", "took"), rows, none="there are no such runs")


@commands.command("show")
def show_run(run_id: RunId, url: Url = None, as_json: Json = False) -> None:
    """Show a run: its status, input, content, error and times."""
    with connect(url) as client:
        shown = client.run(run_id)
    if as_json:
        print_json([shown])
    else:
        _print_run(shown)


@commands.command("follow", epilog=exits.HELP)
def follow_run(
    run_id: RunId,
    after: Annotated[int, typer.Option(min=0, help="The number of the last event that you have seen.")] = 0,
    url: Url = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the events as JSON, one a line.")] = False,
) -> None:
    """Show a run's events, those to come as well, until it ends."""
    with connect(url) as client:
        raise typer.Exit(_follow(client, run_id, as_json=as_json, after=after, url=url))


@commands.command("cancel")
def cancel_run(run_id: RunId, url: Url = None, as_json: Json = False) -> None:
    """Ask a run to stop; one that has ended stays as it is."""
    with connect(url) as client:
        cancelled = client.cancel_run(run_id)
    if as_json:
        print_json([cancelled])
        return
    said = f"has ended already: {cancelled.status}" if cancelled.finished_at else "is being cancelled"
    if cancelled.status == "cancelled":
        said = "is cancelled"
    console().print(f"run {run_id} {said}")


@commands.command("answer")
def answer_run(
    run_id: RunId,
    value: Annotated[str, typer.Argument(help="The answer as JSON; what is no JSON is taken as text.")],
    request_id: Annotated[
        str | None, typer.Option("--request-id", help="What is answered; by default what the run waits for.")
    ] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Answer a paused run, which then goes on."""
    with connect(url) as client:
        asked = request_id or _pending_request(client, run_id)
        continued = client.answer_run(run_id, asked, _value(value))
    if as_json:
        print_json([continued])
        return
    console().print(f"run {run_id} goes on")


@commands.command("retry")
def retry_run(run_id: RunId, url: Url = None, as_json: Json = False) -> None:
    """Run an ended run again with the same input, as a new run."""
    with connect(url) as client:
        again = client.retry_run(run_id)
    if as_json:
        print_json([again])
        return
    console().print(f"run {again.run_id} is {again.status}; follow it with `{_command('follow', again.run_id, url)}`")


def _pending_request(client: "Client", run_id: str) -> str:
    """What the run waits for: the last question in its log, which the server refuses if it was answered."""
    asked = [event for event in client.events(run_id) if event.event == "RunPaused"]
    return str((asked[-1].model_extra or {})["request_id"]) if asked else ""


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _input(client: "Client", workflow: str, words: list[str], text: str | None) -> dict[str, object]:
    schema = client.workflow(workflow).input_schema
    merged = read_input(text) | read_arguments(words, schema, workflow)
    check_required(merged, schema, workflow)
    return merged


def _follow(client: "Client", run_id: str, *, as_json: bool, after: int, url: str | None) -> int:
    from app.cli.following import Following
    from app.cli.views import JsonView, TerminalView

    view = JsonView() if as_json else TerminalView()
    return Following(client, run_id, view, after=after, comeback=_command("follow", run_id, url)).to_the_end()


def _command(verb: str, run_id: str, url: str | None) -> str:
    """What to type, on the same server."""
    return f"millstream runs {verb} {run_id}" + (f" --url={url}" if url else "")


def _print_run(shown: "Run") -> None:
    error = shown.error
    print_members(
        [
            ("run", shown.run_id),
            ("workflow", shown.workflow),
            ("session", shown.session_id),
            ("user", shown.user_id),
            ("status", shown.status),
            ("position", shown.position),
            ("attempt", shown.attempt or None),
            ("input", compact(shown.input)),
            ("metadata", compact(shown.metadata) if shown.metadata else None),
            ("error", error and f"{error.code}: {error.type}: {error.message}"),
            ("step", error and error.step),
            ("created", moment(shown.created_at)),
            ("started", moment(shown.started_at)),
            ("finished", moment(shown.finished_at)),
            ("took", _took(shown)),
            ("revision", shown.session_revision),
            ("content", shown.content),
        ]
    )


def _took(shown: "Run") -> str | None:
    if shown.started_at is None or shown.finished_at is None:
        return None
    return duration((shown.finished_at - shown.started_at).total_seconds())
