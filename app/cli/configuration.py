"""Settings, and the server's address in them, for commands; what is wrong with them in one sentence."""

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic import ValidationError

    from app.client.client import Client
    from app.settings import Settings

Url = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The server's address; else MILLSTREAM_URL, else that of MILLSTREAM_HOST and MILLSTREAM_PORT.",
    ),
]

PREFIX = "MILLSTREAM_"
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  where one asks who listens everywhere


def load_settings(**overrides: Any) -> "Settings":
    """The settings, some of them from options; raises ConfigurationError that names what is wrong."""
    from pydantic import ValidationError

    from app.settings import Settings

    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        raise ConfigurationError(_explain(error)) from None


def connect(url: str | None) -> "Client":
    """A client of the server that the command line or the settings name."""
    from app.client.client import Client

    settings = load_settings()
    key = None if settings.api_key is None else settings.api_key.get_secret_value()
    return Client(url or _configured_url(settings), api_key=key)


def address(host: str, port: int) -> str:
    """The URL at which one asks a server that listens there."""
    host = EVERYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _configured_url(settings: "Settings") -> str:
    if settings.url is not None:
        return settings.url
    if settings.port == 0:
        raise ConfigurationError(
            "MILLSTREAM_PORT is 0, so nobody knows where the server is; name its address with --url or MILLSTREAM_URL"
        )
    return address(settings.host, settings.port)


def _explain(error: "ValidationError") -> str:
    from app.settings import Settings

    found = []
    for entry in error.errors(include_url=False, include_context=False):
        if not entry["loc"]:  # of several settings together, which the message names
            found.append(entry["msg"].removeprefix("Value error, "))
            continue
        name = str(entry["loc"][0])
        field = Settings.model_fields[name]
        default = "" if field.default is None else f" for the default, {_shown(field.default)}"
        variable = PREFIX + name.upper()
        value = os.environ.get(variable, entry["input"])
        reason = entry["msg"][:1].lower() + entry["msg"][1:]
        found.append(f"{variable} is {value!r}: {reason}; correct it, or unset it{default}")
    return ". ".join(found)


def _shown(default: Any) -> str:
    return ",".join(default) or "none" if isinstance(default, tuple) else str(default)
