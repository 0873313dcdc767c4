"""Reading requests: bodies within their limit, media types, conditional headers, accept headers."""

import asyncio
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from app.api.service import service_of
from app.errors import Invalid, Malformed, PreconditionRequired, TooLarge, UnsupportedMediaType
from app.workflow.encoding import count_containers, parse

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
EVENT_STREAM = "text/event-stream"

_TAG = re.compile(r'(?:W/)?"[^"]*"')
_REVISION_TAG = re.compile(r'"(?:0|[1-9][0-9]{0,17})"')

QUICK_BYTES = 64 * 1024
"""A body up to this size is parsed at once; for a longer one the event loop would wait."""
MAX_CONTAINERS = 25_000
"""Lists and objects of a body: what it costs depends on them far more than on its bytes."""
MAX_MEMBERS = 100
"""Members of a body of ours; whoever sends more has mistaken something, and each would be a sentence of the answer."""

Model = TypeVar("Model", bound=BaseModel)


async def read_json(request: Request, *accepted: str) -> Any:
    """The body as a JSON value of ours; `accepted` are the media types it may have, by default application/json.

    Raises UnsupportedMediaType, TooLarge past MILLSTREAM_MAX_BODY_BYTES, Malformed for what is no JSON.
    """
    media_type(request, *(accepted or (JSON,)))
    body = await _body(request)
    return parse(body) if len(body) <= QUICK_BYTES else await asyncio.to_thread(_parse_large, body)


def media_type(request: Request, *accepted: str) -> str:
    """The request's media type, the first accepted one where it names none; raises UnsupportedMediaType."""
    named = request.headers.get("content-type", accepted[0]).partition(";")[0].strip().lower()
    if named not in accepted:
        allowed = ", ".join(accepted)
        patching = {"accept_patch": allowed} if request.method == "PATCH" else {}
        raise UnsupportedMediaType(f"a body of type {named!r} is not read here; send {allowed}", **patching)
    return named


async def read_body(request: Request, model: type[Model], *, empty: bool = False, named: bool = False) -> Model:
    """The body as one of our models; raises Invalid with every member that is wrong. `empty` allows none at all.

    With `named`, its media type has to be named, which a page of somebody else's cannot do unasked.
    """
    if named and "content-type" not in request.headers:
        raise UnsupportedMediaType(f"a body of no type is not read here; send {JSON}")
    if empty and not await request.body():
        return model()
    value = await read_json(request)
    if isinstance(value, dict) and len(value) > MAX_MEMBERS:
        raise Invalid(f"the body has {len(value)} members; none of ours has more than a few", code="invalid_body")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _explain(error) from None


def _parse_large(body: bytes) -> Any:
    if (count := count_containers(body, more_than=MAX_CONTAINERS)) > MAX_CONTAINERS:
        raise TooLarge(f"the body has {count} lists and objects; {MAX_CONTAINERS} are read", code="body_too_large")
    return parse(body)


async def _body(request: Request) -> bytes:
    limit = service_of(request).max_body_bytes
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is larger than {limit} bytes (MILLSTREAM_MAX_BODY_BYTES)", code="body_too_large")


def _explain(error: ValidationError) -> Invalid:
    found = [
        {"pointer": "".join(f"/{part}" for part in entry["loc"]), "message": _message(entry)}
        for entry in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    first = f"{found[0]['pointer'] or 'the body'}: {found[0]['message']}"
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return Invalid(f"the body is not right: {first}{more}", code="invalid_body", errors=found)


def _message(entry: Any) -> str:
    return "there is no such member" if entry["type"] == "extra_forbidden" else str(entry["msg"])


def if_match(request: Request, *, required: bool = False) -> frozenset[int] | None:
    """The revisions that If-Match allows: None when it allows any, and an empty set when it allows none that exists.

    Raises PreconditionRequired when there is none and one is required, Malformed when it is no list of entity tags.
    """
    header = request.headers.get("if-match")
    if header is None:
        if required:
            raise PreconditionRequired(
                "this replaces the whole state; send If-Match with the ETag that you read, or * for whatever is there"
            )
        return None
    if header.strip() == "*":
        return None
    tags = [tag.strip() for tag in header.split(",") if tag.strip()]
    if not tags or not all(_TAG.fullmatch(tag) for tag in tags):
        raise Malformed(
            f"If-Match is {header[:100]!r}; send an ETag as it was given, quotes included", code="invalid_if_match"
        )
    # A weak tag never matches in If-Match (RFC 9110); neither does one that names no revision.
    return frozenset(int(tag[1:-1]) for tag in tags if _REVISION_TAG.fullmatch(tag))


def if_none_match(request: Request, etag: str) -> bool:
    """Whether the client already has what it would get."""
    header = request.headers.get("if-none-match")
    if header is None:
        return False
    return header.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in header.split(",")]


def accepts(request: Request, wanted: str) -> bool:
    """Whether Accept names a media type, and does not refuse it."""
    for part in request.headers.get("accept", "").split(","):
        name, *parameters = [piece.strip().lower() for piece in part.split(";")]
        if name == wanted and "q=0" not in parameters:
            return True
    return False


def preferred_wait(request: Request, *, at_most: float) -> float | None:
    """The seconds of `Prefer: wait=N`, no more than `at_most`; None when there is none."""
    for header in request.headers.getlist("prefer"):
        for preference in header.split(","):
            name, _, value = preference.partition("=")
            if name.strip().lower() == "wait":
                value = value.strip().strip('"')
                if not value.isascii() or not value.isdigit():
                    raise Malformed(f"Prefer: wait={value[:20]} is no number of seconds", code="invalid_prefer")
                return min(float(value), at_most)
    return None
