"""Routes about the events of runs."""

from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from app.api.access import caller_of, needs, routes_about
from app.api.answers import resource
from app.api.documents import answer, body, header, problems, query, stream, stream_or
from app.api.lists import DEFAULT_LIMIT, Limit
from app.api.requests import EVENT_STREAM, JSON, accepts, read_body
from app.api.service import Service, service_of
from app.errors import Invalid, Malformed
from app.operations.caller import Caller
from app.wire.bodies import Page
from app.wire.events import Event
from app.wire.keys import OpenEvents, StreamToken
from app.workflow.encoding import encode

router = routes_about("events")

LARGEST_CURSOR = 2**31 - 1
CURSOR_DIGITS = 10
TOKEN = query("token", {"type": "string"}, "A stream token, in place of a header.")
PARAMETERS = [
    header("Accept", "text/event-stream (the default) streams; application/json gets a page."),
    header("Last-Event-ID", "The sequence of the last event seen; wins over `after`."),
    query("after", {"type": "integer", "minimum": 0}, "The sequence of the last event seen."),
    TOKEN,
]


@router.get(
    "/runs/{run_id}/events",
    responses={
        200: stream_or(Page[Event], "The events past the cursor, live until RunFinished; or a page of them.", "Link"),
        204: answer(None, "The run has ended, and the cursor is at its end."),
        **problems(400, 404, 410, 422, 503),
    },
    openapi_extra={"parameters": PARAMETERS},
)
@needs("runs:read", stream_token=True)
async def get_events(
    request: Request,
    run_id: str,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Annotated[str | None, Query(description="next_cursor of the page before; for pages.")] = None,
) -> Response:
    """Follow a run from any point, during it or long after; or read its events page by page."""
    service, caller = service_of(request), caller_of(request)
    if accepts(request, JSON) and not accepts(request, EVENT_STREAM):
        return await _page(service, caller, request, run_id, limit, cursor)
    place = await service.events.place(caller, run_id, _stream_cursor(request))
    if place.at_end:
        return Response(status_code=204)
    return service.streams.response(service.events.follow(caller, run_id, place.cursor, place.first), caller=caller)


@router.get(
    "/events",
    responses={
        200: stream("The events of all these runs; the id of each is an opaque cursor over them all."),
        204: answer(None, "Only runs are named, all have ended, and the cursor is at their end."),
        **problems(400, 404, 410, 422, 503),
    },
    openapi_extra={
        "parameters": [
            header("Last-Event-ID", "The id of the last event seen; wins over `after`."),
            query("after", {"type": "string"}, "The id of the last event seen."),
            TOKEN,
        ]
    },
)
@needs("runs:read", stream_token=True)
async def get_many_events(
    request: Request,
    run_id: Annotated[list[str] | None, Query(description="A run; may be given several times.")] = None,
    session_id: Annotated[
        list[str] | None, Query(description="A session, for its live and future runs; may be given several times.")
    ] = None,
) -> Response:
    """Follow many runs and sessions over one connection."""
    service, caller = service_of(request), caller_of(request)
    cursor = request.headers.get("last-event-id") or request.query_params.get("after", "")
    feed = await service.feeds.open(
        caller,
        run_ids=list(dict.fromkeys(run_id or [])),
        session_ids=list(dict.fromkeys(session_id or [])),
        cursor=cursor,
    )
    if feed.at_end:
        return Response(status_code=204)
    return service.streams.response(service.feeds.follow(caller, feed), caller=caller)


@router.post(
    "/events/stream-token",
    status_code=201,
    responses={201: answer(StreamToken, "The token."), **problems(400, 404, 413, 415, 422)},
    openapi_extra=body(OpenEvents, {"session_ids": ["my-session"]}),
)
@needs("runs:read")
async def create_events_token(request: Request) -> Response:
    """A short-lived token that opens GET /events with just these runs and sessions, in place of a header."""
    wanted = await read_body(request, OpenEvents)
    token = await service_of(request).stream_tokens.for_events(caller_of(request), **dict(wanted))
    return resource(token, 201)


async def _page(
    service: Service, caller: Caller, request: Request, run_id: str, limit: int, cursor: str | None
) -> Response:
    """The payloads as they were written; only the page around them is made here."""
    after = request.query_params.get("after", "0") if cursor is None else cursor
    number = _number(after)
    if number is None:
        raise Invalid(f"the cursor {after[:50]!r} is no event's number", code="invalid_cursor")
    rows, following = await service.events.page(caller, run_id, after=number, limit=limit)
    payloads = b",".join(row.payload.encode() for row in rows)
    next_cursor = encode(None if following is None else str(following))
    headers = (
        {} if following is None else {"Link": f'</runs/{run_id}/events?cursor={following}&limit={limit}>; rel="next"'}
    )
    return Response(b'{"items":[%b],"next_cursor":%b}' % (payloads, next_cursor), media_type=JSON, headers=headers)


def _stream_cursor(request: Request) -> int:
    """Last-Event-ID, else `after`, else the beginning: a browser keeps its old query when it comes back."""
    named = request.headers.get("last-event-id") or request.query_params.get("after", "0")
    number = _number(named)
    if number is None:
        raise Malformed(f"the cursor {named[:50]!r} is no event's number: 0, 1, 2 …", code="invalid_cursor")
    return number


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= CURSOR_DIGITS):
        return None
    return min(int(text), LARGEST_CURSOR)
