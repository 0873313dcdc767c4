"""Routes about the state of sessions."""

from typing import Annotated, Any

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from app.api.access import caller_of, needs, routes_about
from app.api.documents import answer, body, header, problems
from app.api.lists import DEFAULT_LIMIT, Cursor, Limit, page
from app.api.requests import JSON, JSON_PATCH, MERGE_PATCH, if_match, if_none_match, media_type, read_body, read_json
from app.api.service import service_of
from app.errors import Invalid
from app.operations.sessions import Change
from app.wire.bodies import Page
from app.wire.sessions import RestoreState, Revision
from app.workflow.patches import apply_patch, merge_patch, read_patch
from app.workflow.state import StateDocument

router = routes_about("state")

OBJECT = {"type": "object", "additionalProperties": True}
DOCUMENT = {
    "description": "The state.",
    "content": {JSON: {"schema": OBJECT}},
    "headers": {"ETag": {"schema": {"type": "string"}}},
}
IF_MATCH = header("If-Match", "The ETag that you read, or *; another one there is 412.")
OPERATIONS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["op", "path"],
        "properties": {
            "op": {"enum": ["add", "remove", "replace", "move", "copy", "test"]},
            "path": {"type": "string"},
            "from": {"type": "string"},
            "value": True,
        },
    },
}
PATCH_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            MERGE_PATCH: {"schema": OBJECT, "example": {"greetings": None}},
            JSON_PATCH: {"schema": OPERATIONS, "example": [{"op": "add", "path": "/note", "value": "hello"}]},
            JSON: {"schema": OBJECT, "example": {"note": "hello"}},
        },
    }
}
PUT_BODY = {"requestBody": {"required": True, "content": {JSON: {"schema": OBJECT, "example": {"note": "hello"}}}}}


@router.get(
    "/sessions/{session_id}/state",
    responses={200: DOCUMENT, 304: answer(None, "As you have it.", "ETag"), **problems(404, 422)},
    openapi_extra={"parameters": [header("If-None-Match", "An ETag that you have.")]},
)
@needs("sessions:read")
async def get_state(
    request: Request, session_id: str, revision: Annotated[int | None, Query(ge=0, lt=2**31)] = None
) -> Response:
    """The state document itself, the newest or that of an earlier revision; its ETag is the revision."""
    number, document = await service_of(request).sessions.state(caller_of(request), session_id, revision)
    if if_none_match(request, f'"{number}"'):
        return Response(status_code=304, headers={"ETag": f'"{number}"'})
    return _answer(number, document)


@router.patch(
    "/sessions/{session_id}/state",
    responses={200: DOCUMENT, **problems(400, 404, 409, 412, 413, 415, 422)},
    openapi_extra={"parameters": [IF_MATCH]} | PATCH_BODY,
)
@needs("sessions:write")
async def patch_state(request: Request, session_id: str) -> Response:
    """Change part of the state, in one piece, whatever runs are doing meanwhile."""
    kind = media_type(request, MERGE_PATCH, JSON_PATCH, JSON)
    patch = await read_json(request, MERGE_PATCH, JSON_PATCH, JSON)
    limit = service_of(request).max_state_bytes
    change = _json_patch(patch, limit) if kind == JSON_PATCH else _merge_patch(patch)
    return await _change(request, session_id, change, if_match(request))


@router.put(
    "/sessions/{session_id}/state",
    responses={200: DOCUMENT, **problems(400, 404, 412, 413, 415, 422, 428)},
    openapi_extra={"parameters": [IF_MATCH]} | PUT_BODY,
)
@needs("sessions:write")
async def put_state(request: Request, session_id: str) -> Response:
    """Replace the whole state."""
    expected = if_match(request, required=True)
    value = await read_json(request)
    return await _change(request, session_id, lambda document: document.changed_to(value), expected)


@router.post(
    "/sessions/{session_id}/state/restore",
    responses={200: DOCUMENT, **problems(400, 404, 412, 413, 415, 422)},
    openapi_extra={"parameters": [IF_MATCH]} | body(RestoreState, {"revision": 0}),
)
@needs("sessions:write")
async def restore_state(request: Request, session_id: str) -> Response:
    """Go back to what the state was, as a new revision."""
    wanted = await read_body(request, RestoreState)
    number, document = await service_of(request).sessions.restore(
        caller_of(request), session_id, wanted.revision, expected=if_match(request)
    )
    return _answer(number, document)


@router.get(
    "/sessions/{session_id}/state/revisions",
    responses={200: answer(Page[Revision], "By number.", "Link"), **problems(404, 422)},
)
@needs("sessions:read")
async def list_revisions(
    request: Request, session_id: str, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Response:
    """Who changed what when."""
    items, following = await service_of(request).sessions.revisions(
        caller_of(request), session_id, limit=limit, cursor=cursor
    )
    return page(request, items, following)


async def _change(request: Request, session_id: str, change: Change, expected: frozenset[int] | None) -> Response:
    sessions = service_of(request).sessions
    number, document = await sessions.change_state(caller_of(request), session_id, change, expected=expected)
    return _answer(number, document)


def _merge_patch(patch: Any) -> Change:
    if not isinstance(patch, dict):
        raise Invalid("a merge patch of a state is a JSON object; the state is one", code="state_not_an_object")
    return lambda document: document.grafted(merge_patch(document.root, patch))


def _json_patch(patch: Any, max_copied_bytes: int) -> Change:
    operations = read_patch(patch)

    def change(document: StateDocument) -> StateDocument:
        root = apply_patch(document.root, operations, max_copied_bytes=max_copied_bytes)
        if not isinstance(root, dict):
            raise Invalid("the patch leaves no JSON object; the state is always one", code="state_not_an_object")
        return document.grafted(root)

    return change


def _answer(revision: int, document: bytes) -> Response:
    return Response(document, media_type=JSON, headers={"ETag": f'"{revision}"'})
