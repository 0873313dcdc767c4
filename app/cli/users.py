"""Commands about users."""

import sys
from typing import Annotated

import typer

from app.cli.configuration import Url, connect
from app.cli.output import note

commands = typer.Typer(no_args_is_help=True, help="Delete what belongs to a user.")


@commands.command("delete")
def delete_user(
    user_id: Annotated[str, typer.Argument(metavar="USER", help="The user's id.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
) -> None:
    """Delete all that belongs to a user, for good; asks first at a terminal."""
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Delete all sessions, runs, webhooks, schedules and keys of {user_id}?", abort=True, err=True)
    with connect(url) as client:
        client.delete_user(user_id)
    note(f"nothing of user {user_id} is left")
