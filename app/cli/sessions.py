"""Commands about sessions and their state."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.arguments import read_json, read_object
from app.cli.configuration import Url, connect
from app.cli.output import (
    Json,
    Limit,
    compact,
    moment,
    note,
    print_document,
    print_json,
    print_members,
    print_table,
)
from app.errors import Invalid

if TYPE_CHECKING:
    from app.wire.sessions import Revision, Session

commands = typer.Typer(no_args_is_help=True, help="See and change sessions and their state.")

SHOWN_OPERATIONS = 5

SessionId = Annotated[str, typer.Argument(help="The session's id.")]
NewSessionId = Annotated[str | None, typer.Option(help="The new session's id; else one is made.")]
UserId = Annotated[str | None, typer.Option(help="Whose session it is.")]
Name = Annotated[str | None, typer.Option(help="A name for people.")]


@commands.command("list")
def list_sessions(
    workflow: Annotated[str | None, typer.Option(help="Those of this workflow.")] = None,
    user_id: Annotated[str | None, typer.Option(help="Those of this user.")] = None,
    name: Annotated[str | None, typer.Option(help="Those of this name.")] = None,
    limit: Limit = 20,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List sessions, the newest first."""
    with connect(url) as client:
        found = list(client.sessions(workflow=workflow, user_id=user_id, name=name, at_most=limit))
    if as_json:
        print_json(found)
        return
    rows = [(s.session_id, s.workflow, s.name, s.user_id, s.revision, moment(s.updated_at)) for s in found]
    columns = ("session", "workflow", "name", "user", "revision", "updated")
    print_table(columns, rows, none="there are no such sessions")


@commands.command("show")
def show_session(session_id: SessionId, url: Url = None, as_json: Json = False) -> None:
    """Show a session."""
    with connect(url) as client:
        _print_session(client.session(session_id), as_json=as_json)


@commands.command("create")
def create_session(
    workflow: Annotated[str, typer.Argument(help="The workflow that it belongs to.")],
    session_id: NewSessionId = None,
    state: Annotated[str | None, typer.Option(metavar="JSON", help="The state to begin with.")] = None,
    user_id: UserId = None,
    name: Name = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Make a session before its first run."""
    from app.wire.sessions import CreateSession

    document = None if state is None else read_object(state, "--state")
    options = {"session_id": session_id, "session_state": document, "user_id": user_id, "name": name}
    with connect(url) as client:
        _print_session(client.create_session(CreateSession(workflow=workflow, **_given(options))), as_json=as_json)


@commands.command("delete")
def delete_session(
    session_id: SessionId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
) -> None:
    """Delete a session with its runs, their events and its history; asks first at a terminal."""
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Delete session {session_id} with its runs and its history?", abort=True, err=True)
    with connect(url) as client:
        client.delete_session(session_id)
    note(f"deleted session {session_id}")


@commands.command("rename")
def rename_session(
    session_id: SessionId,
    name: Annotated[str, typer.Argument(help="Its new name; an empty one takes the name away.")],
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Give a session a name."""
    from app.wire.sessions import UpdateSession

    with connect(url) as client:
        _print_session(client.update_session(session_id, UpdateSession(name=name or None)), as_json=as_json)


@commands.command("fork")
def fork_session(
    session_id: SessionId,
    revision: Annotated[
        int | None, typer.Option(min=0, help="Copy the state of this revision; else the newest.")
    ] = None,
    new_session_id: NewSessionId = None,
    user_id: UserId = None,
    name: Name = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Copy a session's state, as it is or was, to a new session."""
    from app.wire.sessions import ForkSession

    options = {"revision": revision, "session_id": new_session_id, "user_id": user_id, "name": name}
    with connect(url) as client:
        _print_session(client.fork_session(session_id, ForkSession(**_given(options))), as_json=as_json)


@commands.command("state")
def show_state(
    session_id: SessionId,
    revision: Annotated[int | None, typer.Option(min=0, help="The state of this revision; else the newest.")] = None,
    url: Url = None,
) -> None:
    """Print a session's state as JSON."""
    with connect(url) as client:
        print_document(client.state(session_id, revision=revision).document)


@commands.command("patch")
def patch_state(
    session_id: SessionId,
    patch: Annotated[str, typer.Argument(help="An object is a merge patch, a list a JSON patch; - reads it.")],
    if_match: Annotated[int | None, typer.Option(min=0, help="Only if this is still the newest revision.")] = None,
    url: Url = None,
) -> None:
    """Change part of a session's state, and print all of it."""
    document = read_json(sys.stdin.read() if patch == "-" else patch, "the patch")
    if not isinstance(document, dict | list):
        raise Invalid(f"the patch is {patch[:60]!r}; an object is a merge patch, a list a JSON patch")
    with connect(url) as client:
        state = client.patch_state(session_id, document, expected=if_match)
    print_document(state.document)
    note(f"revision {state.revision}")


@commands.command("revisions")
def list_revisions(
    session_id: SessionId,
    limit: Annotated[int | None, typer.Option(min=1, help="How many at the most; else all.")] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List who changed a session's state when, the first change first."""
    with connect(url) as client:
        found = list(client.revisions(session_id, at_most=limit))
    if as_json:
        print_json(found)
        return
    rows = [(r.revision, moment(r.created_at), _author(r), _changes(r.patch)) for r in found]
    print_table(("revision", "created", "by", "changes"), rows, none="the state has never been changed")


@commands.command("restore")
def restore_state(
    session_id: SessionId,
    revision: Annotated[int, typer.Argument(min=0, help="The revision to go back to.")],
    url: Url = None,
) -> None:
    """Go back to an earlier state, as a new revision, and print it."""
    with connect(url) as client:
        state = client.restore_state(session_id, revision)
    print_document(state.document)
    note(f"revision {state.revision}")


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _author(revision: "Revision") -> str:
    return f"run {revision.run_id}" if revision.run_id else f"caller {revision.caller}"


def _changes(patch: list[dict[str, Any]]) -> str:
    said = [f"{operation['op']} {operation['path'] or '(all)'}" for operation in patch]
    more = f" and {len(said) - SHOWN_OPERATIONS} more" if len(said) > SHOWN_OPERATIONS else ""
    return ", ".join(said[:SHOWN_OPERATIONS]) + more


def _print_session(session: "Session", *, as_json: bool) -> None:
    if as_json:
        print_json([session])
        return
    print_members(
        [
            ("session", session.session_id),
            ("workflow", session.workflow),
            ("name", session.name),
            ("user", session.user_id),
            ("metadata", compact(session.metadata) if session.metadata else None),
            ("revision", session.revision),
            ("active run", session.active_run_id),
            ("created", moment(session.created_at)),
            ("updated", moment(session.updated_at)),
        ]
    )
