"""Routes about API keys."""

from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from app.api.access import caller_of, needs, routes_about
from app.api.answers import resource
from app.api.documents import answer, body, problems
from app.api.lists import DEFAULT_LIMIT, Cursor, Filter, Limit, page
from app.api.requests import JSON, read_body
from app.api.service import service_of
from app.wire.bodies import Page
from app.wire.keys import CreateKey, Key, NewKey, RotateKey
from app.workflow.encoding import encode

router = routes_about("keys")


@router.post(
    "/keys",
    status_code=201,
    responses={201: answer(NewKey, "Made; the key is shown this once."), **problems(400, 413, 415, 422)},
    openapi_extra=body(CreateKey, {"name": "web", "scopes": ["runs:read", "runs:write"]}),
)
@needs("admin")
async def create_key(request: Request) -> Response:
    """Make an API key, of the caller's tenant; a caller of the tenant `default` makes them for others too."""
    new = await read_body(request, CreateKey, named=True)
    return Response(
        encode(await service_of(request).keys.create(caller_of(request), **dict(new))), status_code=201, media_type=JSON
    )


@router.get("/keys", responses={200: answer(Page[Key], "Newest first.", "Link"), **problems(422)})
@needs("admin")
async def list_keys(
    request: Request,
    tenant: Annotated[Filter, Query(description="Keys of this tenant; callers of `default` see all of them.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Response:
    """API keys, without their secrets."""
    items, following = await service_of(request).keys.page(
        caller_of(request), tenant=tenant, limit=limit, cursor=cursor
    )
    return page(request, items, following)


@router.delete("/keys/{key_id}", status_code=204, responses={204: answer(None, "Revoked."), **problems(404)})
@needs("admin")
async def revoke_key(request: Request, key_id: str) -> Response:
    """Have a key open nothing any more: within 10 seconds in every process, and open streams end within 30."""
    await service_of(request).keys.revoke(caller_of(request), key_id)
    return Response(status_code=204)


@router.post(
    "/keys/{key_id}/rotate",
    status_code=201,
    responses={201: answer(NewKey, "The new key, shown this once."), **problems(400, 404, 413, 415, 422)},
    openapi_extra=body(RotateKey, {"overlap_seconds": 86400}),
)
@needs("admin")
async def rotate_key(request: Request, key_id: str) -> Response:
    """Make a new key like this one, which ends after an overlap."""
    wanted = await read_body(request, RotateKey, empty=True, named=True)
    key = await service_of(request).keys.rotate(caller_of(request), key_id, overlap_seconds=wanted.overlap_seconds)
    return resource(key, 201)
