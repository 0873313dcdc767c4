"""Routes about sessions."""

import hashlib
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from app.api.access import caller_of, needs, routes_about
from app.api.documents import answer, body, header, problems
from app.api.lists import DEFAULT_LIMIT, Cursor, Filter, Limit, chosen, page
from app.api.requests import JSON, if_none_match, read_body
from app.api.service import service_of
from app.errors import PreconditionFailed
from app.wire.bodies import Page
from app.wire.sessions import CreateSession, ForkSession, Session, UpdateSession
from app.workflow.encoding import encode

router = routes_about("sessions")

IF_MATCH = header("If-Match", "The ETag that you read; another one there is 412.")


@router.post(
    "/sessions",
    status_code=201,
    responses={201: answer(Session, "Made.", "Location", "ETag"), **problems(400, 404, 409, 413, 415, 422, 503)},
    openapi_extra=body(CreateSession, {"workflow": "hello", "session_state": {"greetings": []}}),
)
@needs("sessions:write")
async def create_session(request: Request) -> Response:
    """Make a session before its first run, with a state to begin with."""
    new = await read_body(request, CreateSession)
    return _answer(await service_of(request).sessions.create(caller_of(request), **dict(new)), 201)


@router.get("/sessions", responses={200: answer(Page[Session], "Newest first.", "Link"), **problems(422)})
@needs("sessions:read")
async def list_sessions(
    request: Request,
    workflow: Filter = None,
    user_id: Filter = None,
    name: Filter = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Response:
    """Sessions, those that match every filter."""
    filters = chosen(workflow=workflow, user_id=user_id, name=name)
    items, following = await service_of(request).sessions.page(
        caller_of(request), filters=filters, limit=limit, cursor=cursor
    )
    return page(request, items, following)


@router.get(
    "/sessions/{session_id}",
    responses={
        200: answer(Session, "The session.", "ETag"),
        304: answer(None, "As you have it.", "ETag"),
        **problems(404),
    },
    openapi_extra={"parameters": [header("If-None-Match", "An ETag that you have.")]},
)
@needs("sessions:read")
async def get_session(request: Request, session_id: str) -> Response:
    """One session."""
    session = await service_of(request).sessions.get(caller_of(request), session_id)
    if if_none_match(request, etag_of(session)):
        return Response(status_code=304, headers={"ETag": etag_of(session)})
    return _answer(session, 200)


@router.patch(
    "/sessions/{session_id}",
    responses={200: answer(Session, "As it is now.", "ETag"), **problems(400, 404, 412, 413, 415, 422)},
    openapi_extra={"parameters": [IF_MATCH]} | body(UpdateSession, {"name": "My first session"}),
)
@needs("sessions:write")
async def update_session(request: Request, session_id: str) -> Response:
    """Change a session's name or metadata."""
    changes = await read_body(request, UpdateSession)
    values = {name: getattr(changes, name) for name in changes.model_fields_set}
    wanted = request.headers.get("if-match")

    def check(session: dict[str, Any]) -> None:
        if (
            wanted is not None
            and wanted.strip() != "*"
            and etag_of(session) not in [t.strip() for t in wanted.split(",")]
        ):
            raise PreconditionFailed(
                f"the session {session_id!r} has changed; read it again and repeat the change", etag=etag_of(session)
            )

    return _answer(await service_of(request).sessions.update(caller_of(request), session_id, values, check=check), 200)


@router.delete(
    "/sessions/{session_id}", status_code=204, responses={204: answer(None, "Deleted."), **problems(404, 409)}
)
@needs("sessions:write")
async def delete_session(request: Request, session_id: str) -> Response:
    """Delete a session with its runs, their events and its history."""
    await service_of(request).sessions.delete(caller_of(request), session_id)
    return Response(status_code=204)


@router.post(
    "/sessions/{session_id}/fork",
    status_code=201,
    responses={201: answer(Session, "The copy.", "Location", "ETag"), **problems(400, 404, 409, 413, 415, 422)},
    openapi_extra=body(ForkSession, {"revision": 0}),
)
@needs("sessions:write")
async def fork_session(request: Request, session_id: str) -> Response:
    """Copy a session's state, as it is or was, to a new session of the same workflow."""
    fork = await read_body(request, ForkSession)
    session = await service_of(request).sessions.fork(
        caller_of(request),
        session_id,
        revision=fork.revision,
        new_session_id=fork.session_id,
        user_id=fork.user_id,
        name=fork.name,
        metadata=fork.metadata,
    )
    return _answer(session, 201)


def etag_of(session: dict[str, Any]) -> str:
    """The entity tag of a session resource; its state has one of its own."""
    return f'"{hashlib.sha256(encode(session)).hexdigest()[:20]}"'


def _answer(session: dict[str, Any], status: int) -> Response:
    headers = {"ETag": etag_of(session)}
    if status == HTTPStatus.CREATED:
        headers["Location"] = f"/sessions/{quote(session['session_id'], safe='')}"
    return Response(encode(session), status_code=status, media_type=JSON, headers=headers)
