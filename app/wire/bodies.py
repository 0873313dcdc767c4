"""The base of all bodies."""

import re
from datetime import datetime
from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainSerializer, StringConstraints, WithJsonSchema

from app.clock import rfc3339

_FORBIDDEN = re.compile(r"[/\x00-\x1f\x7f-\x9f]")


def _check_session_id(session_id: str) -> str:
    if session_id in {".", ".."} or _FORBIDDEN.search(session_id):
        raise ValueError("a session id has no control characters and no '/', and is neither '.' nor '..'")
    return session_id


SessionId = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_check_session_id)]
"""An id that clients choose: 1 to 255 characters, no control characters, no '/', neither '.' nor '..'."""

Instant = Annotated[datetime, PlainSerializer(rfc3339), WithJsonSchema({"type": "string", "format": "date-time"})]
"""A moment, as RFC 3339 in UTC."""

Item = TypeVar("Item")


class Body(BaseModel):
    """A body that a client sends: unknown members are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Resource(BaseModel):
    """A body that the server sends: every member is there, null where it has no value."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)


class Page(Resource, Generic[Item]):
    """One page of a list; `next_cursor` gets the next one, null at the end."""

    items: list[Item]
    next_cursor: str | None = None
