"""Commands about API keys: on the database itself, or through the service that has it."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import typer

from app import clock
from app.cli.configuration import connect, load_settings
from app.cli.output import Json, Limit, console, moment, note, print_json, print_table
from app.errors import DatabaseHeld, Invalid

if TYPE_CHECKING:
    from app.operations.keys import Keys
    from app.settings import Settings
    from app.wire.keys import CreateKey, Key, NewKey, Scope

commands = typer.Typer(no_args_is_help=True, help="Make, see, revoke and replace API keys.")

KeyId = Annotated[str, typer.Argument(help="The key's id: the part between its underscores.")]
Tenant = Annotated[str | None, typer.Option(help="The tenant whose key it is; else `default`.")]
Url = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Ask the server at this address, with MILLSTREAM_API_KEY; else the database of the settings is written,"
        " or the server asked that has it.",
    ),
]
_SPAN = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
Result = TypeVar("Result")


class KeyHolder(Protocol):
    """Whoever does what is asked: a server behind its client, or this process."""

    def create_key(self, body: "CreateKey") -> "NewKey":
        """Make a key."""

    def keys(self, *, at_most: int | None = None, tenant: str | None = None) -> "Iterable[Key]":
        """Keys, newest first."""

    def revoke_key(self, key_id: str) -> None:
        """Have a key open nothing any more."""

    def rotate_key(self, key_id: str, *, overlap_seconds: int) -> "NewKey":
        """Make the successor of a key."""


@commands.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="Stands in lists, and in the history of what its holder changes.")],
    scope: Annotated[
        list[str],
        typer.Option(help="What it may do: runs:read, runs:write, sessions:read, sessions:write, admin. Repeatable."),
    ],
    tenant: Tenant = None,
    user: Annotated[str | None, typer.Option(help="It sees this user's sessions and runs alone.")] = None,
    expires: Annotated[
        str | None, typer.Option(metavar="WHEN", help="When it ends: 12h, 30d, a date, or a time; else never.")
    ] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Make a key, and print it: it is shown this once, and kept nowhere."""
    from app.wire.keys import CreateKey

    scopes: list[Scope] = [part for words in scope for part in words.split(",")]  # type: ignore[misc]  # checked next
    ends_at = None if expires is None else read_end(expires)
    body = CreateKey(name=name, scopes=scopes, tenant=tenant, user_id=user, expires_at=ends_at and ends_at.isoformat())  # type: ignore[arg-type]
    _print_new(_ask(url, lambda holder: holder.create_key(body)), as_json=as_json)


@commands.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Those of this tenant; else of all that you look after.")] = None,
    limit: Limit = 50,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List keys, the newest first, without their secrets."""
    found = _ask(url, lambda holder: list(holder.keys(at_most=limit, tenant=tenant)))
    if as_json:
        print_json(found)
        return
    rows = [
        (k.key_id, k.name, k.tenant, k.user_id, " ".join(k.scopes), _state(k), moment(k.last_used_at)) for k in found
    ]
    print_table(("key", "name", "tenant", "user", "scopes", "state", "used"), rows, none="there are no keys")


@commands.command("revoke")
def revoke_key(key_id: KeyId, url: Url = None) -> None:
    """Have a key open nothing any more; its open streams end within 30 seconds."""
    _ask(url, lambda holder: holder.revoke_key(key_id))
    console().print(f"key {key_id} is revoked")


@commands.command("rotate")
def rotate_key(
    key_id: KeyId,
    overlap: Annotated[str, typer.Option(metavar="SPAN", help="How long the old one is good: 0s, 12h, 1d.")] = "1d",
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Make a new key like an old one, and print it; the old one ends after the overlap."""
    seconds = int(read_span(overlap, "--overlap").total_seconds())
    _print_new(_ask(url, lambda holder: holder.rotate_key(key_id, overlap_seconds=seconds)), as_json=as_json)


def read_span(text: str, source: str) -> timedelta:
    """A length of time, such as 30d; raises Invalid."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise Invalid(f"{source} is {text[:40]!r}; write a number and s, m, h, d or w, as in 30d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def read_end(text: str) -> datetime:
    """The moment that a span from now, a date or a time is, in UTC where no zone is named; raises Invalid."""
    if _SPAN.fullmatch(text):
        return clock.now() + read_span(text, "--expires")
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(f"--expires is {text[:40]!r}; write a span such as 30d, or a date such as 2027-01-31") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _ask(url: str | None, work: Callable[[KeyHolder], Result]) -> Result:
    """Do it on the database, or through the server that is named, or that has the SQLite file open."""
    if url is None:
        try:
            return work(_Here(load_settings()))
        except DatabaseHeld:
            pass
    with connect(url) as client:
        return work(client)


class _Here:
    """The operations on the database of the settings, in this process."""

    def __init__(self, settings: "Settings") -> None:
        self._settings = settings

    def create_key(self, body: "CreateKey") -> "NewKey":
        from app.operations.caller import OPEN
        from app.wire.keys import NewKey

        return NewKey.model_validate(self._run(lambda keys: keys.create(OPEN, **dict(body))))

    def keys(self, *, at_most: int | None = None, tenant: str | None = None) -> "Iterable[Key]":
        from app.operations.caller import OPEN
        from app.wire.keys import Key

        page, _ = self._run(lambda keys: keys.page(OPEN, tenant=tenant, limit=at_most or 0, cursor=None))
        return [Key.model_validate(key) for key in page]

    def revoke_key(self, key_id: str) -> None:
        from app.operations.caller import OPEN

        self._run(lambda keys: keys.revoke(OPEN, key_id))

    def rotate_key(self, key_id: str, *, overlap_seconds: int) -> "NewKey":
        from app.operations.caller import OPEN
        from app.wire.keys import NewKey

        return NewKey.model_validate(self._run(lambda keys: keys.rotate(OPEN, key_id, overlap_seconds=overlap_seconds)))

    def _run(self, work: "Callable[[Keys], Awaitable[Any]]") -> Any:
        return asyncio.run(self._on_database(work))

    async def _on_database(self, work: "Callable[[Keys], Awaitable[Any]]") -> Any:
        from app.main import bring_to_head, hold_database, refuse_unless_at_head
        from app.operations.keys import Keys
        from app.store.opening import open_database

        settings = self._settings
        with hold_database(settings):
            if settings.embedded:
                await asyncio.to_thread(bring_to_head, settings.database_url)
            database = open_database(settings.database_url, lease_seconds=settings.lease_seconds)
            try:
                await refuse_unless_at_head(database)
                return await work(Keys(database))
            finally:
                await database.close()


def _print_new(key: "NewKey", *, as_json: bool) -> None:
    """The key alone where a program reads it; what it is, for people."""
    if as_json:
        print_json([key])
        return
    user = "" if key.user_id is None else f", user {key.user_id}"
    ends = "never ends" if key.expires_at is None else f"ends {moment(key.expires_at)}"
    note(f"key {key.key_id} ({key.name}) of the tenant {key.tenant}{user} may {', '.join(key.scopes)}, and {ends};")
    note("it is shown this once:")
    typer.echo(key.key)


def _state(key: "Key") -> str:
    if key.revoked_at is not None:
        return f"revoked {moment(key.revoked_at)}"
    if key.expires_at is None:
        return "good"
    return f"{'ended' if key.expires_at <= clock.now() else 'ends'} {moment(key.expires_at)}"
