"""Bodies about API keys and stream tokens."""

from datetime import datetime
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema

from app.wire.bodies import Body, Instant, Resource, SessionId

Scope = Literal["runs:read", "runs:write", "sessions:read", "sessions:write", "admin"]
"""What a caller may do. None of them brings another; `admin` is for keys and metrics."""
SCOPES: tuple[Scope, ...] = get_args(Scope)

MAX_OVERLAP_SECONDS = 31_536_000
DAY_SECONDS = 86_400


def _read_moment(value: object) -> object:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    if moment is None or moment.tzinfo is None:
        raise ValueError("a moment is a text with a zone, as RFC 3339 writes it: 2027-01-31T00:00:00Z")
    return moment


def _check_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it has printable characters only")
    return text


Moment = Annotated[datetime, BeforeValidator(_read_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
Name = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_check_printable)]


class CreateKey(Body):
    """A request for an API key."""

    name: Name = Field(description="Stands in lists, and in the history of what its caller changes.")
    scopes: list[Scope] = Field(min_length=1, description="What it may do; none of them brings another.")
    tenant: Name | None = Field(None, description="Whose it is; by default the caller's tenant.")
    user_id: Name | None = Field(None, description="It sees this user's sessions and runs alone.")
    expires_at: Moment | None = Field(None, description="When it ends; by default never.")


class RotateKey(Body):
    """A request for the successor of a key."""

    overlap_seconds: int = Field(
        DAY_SECONDS, ge=0, le=MAX_OVERLAP_SECONDS, description="How long the old one is good beside the new one."
    )


class Key(Resource):
    """An API key, without its secret."""

    key_id: str = Field(description="The part of the key between its underscores.")
    name: str
    scopes: list[Scope]
    tenant: str
    user_id: str | None
    created_at: Instant
    expires_at: Instant | None
    revoked_at: Instant | None
    last_used_at: Instant | None = Field(description="To the minute.")


class NewKey(Key):
    """An API key that was just made."""

    key: str = Field(description="What its holder sends; shown this once.")


class OpenEvents(Body):
    """A request for a token that opens GET /events with these, and no others."""

    run_ids: list[str] = Field(default_factory=list, max_length=100)
    session_ids: list[SessionId] = Field(default_factory=list, max_length=100)


class StreamToken(Resource):
    """A token that opens a stream, and opens it again, until it ends."""

    token: str = Field(description="Goes into the stream's address: ?token=…")
    expires_at: Instant
