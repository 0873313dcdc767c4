"""Routes about webhooks."""

from starlette.requests import Request
from starlette.responses import Response

from app.api.access import caller_of, needs, routes_about
from app.api.answers import resource
from app.api.documents import answer, body, problems
from app.api.lists import DEFAULT_LIMIT, Cursor, Filter, Limit, page
from app.api.requests import read_body
from app.api.service import service_of
from app.wire.bodies import Page
from app.wire.webhooks import (
    EXAMPLE_URL,
    CreateWebhook,
    RotateSecret,
    UpdateWebhook,
    Webhook,
    WebhookSecret,
    WebhookWithSecret,
)

router = routes_about("webhooks")


@router.post(
    "/webhooks",
    status_code=201,
    responses={
        201: answer(WebhookWithSecret, "Made; its secret is shown this once.", "Location"),
        **problems(400, 409, 413, 415, 422),
    },
    openapi_extra=body(CreateWebhook, {"url": EXAMPLE_URL, "events": ["RunFinished"], "user_id": "ada"}),
)
@needs("runs:write")
async def create_webhook(request: Request) -> Response:
    """Have the events of runs posted to an address, from runs on that are accepted a second later.

    One that gets the runs of all users needs the scope `admin` beside.
    """
    new = await read_body(request, CreateWebhook)
    webhook = await service_of(request).webhooks.create(caller_of(request), **dict(new))
    return resource(webhook, 201, {"Location": f"/webhooks/{webhook['webhook_id']}"})


@router.get("/webhooks", responses={200: answer(Page[Webhook], "Newest first.", "Link"), **problems(422)})
@needs("runs:read")
async def list_webhooks(
    request: Request, user_id: Filter = None, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Response:
    """Webhooks, without those of single runs."""
    items, following = await service_of(request).webhooks.page(
        caller_of(request), user_id=user_id, limit=limit, cursor=cursor
    )
    return page(request, items, following)


@router.get("/webhooks/secret", responses={200: answer(WebhookSecret, "The secret.")})
@needs("runs:write")
async def get_secret(request: Request) -> Response:
    """What the webhooks of runs are signed by that bring no secret of their own; made when it is first asked for."""
    return resource(await service_of(request).webhooks.secret(caller_of(request)), 200)


@router.post(
    "/webhooks/secret/rotate",
    responses={200: answer(WebhookSecret, "The new one."), **problems(400, 413, 415, 422)},
    openapi_extra=body(RotateSecret, {"overlap_seconds": 86_400}),
)
@needs("runs:write")
async def rotate_own_secret(request: Request) -> Response:
    """Put another secret in its place; for the overlap, messages are signed by both."""
    wanted = await read_body(request, RotateSecret, empty=True)
    secret = await service_of(request).webhooks.rotate_own(caller_of(request), overlap_seconds=wanted.overlap_seconds)
    return resource(secret, 200)


@router.get("/webhooks/{webhook_id}", responses={200: answer(Webhook, "The webhook."), **problems(404)})
@needs("runs:read")
async def get_webhook(request: Request, webhook_id: str) -> Response:
    """One webhook, without its secret."""
    return resource(await service_of(request).webhooks.get(caller_of(request), webhook_id), 200)


@router.patch(
    "/webhooks/{webhook_id}",
    responses={200: answer(Webhook, "As it is now."), **problems(400, 404, 413, 415, 422)},
    openapi_extra=body(UpdateWebhook, {"events": ["RunFinished", "RunPaused"]}),
)
@needs("runs:write")
async def update_webhook(request: Request, webhook_id: str) -> Response:
    """Change its address or its events, turn it off, or on again."""
    changes = await read_body(request, UpdateWebhook)
    values = {name: getattr(changes, name) for name in changes.model_fields_set}
    return resource(await service_of(request).webhooks.update(caller_of(request), webhook_id, values), 200)


@router.delete("/webhooks/{webhook_id}", status_code=204, responses={204: answer(None, "Deleted."), **problems(404)})
@needs("runs:write")
async def delete_webhook(request: Request, webhook_id: str) -> Response:
    """Remove a webhook with its log, and with what is on its way to it."""
    await service_of(request).webhooks.delete(caller_of(request), webhook_id)
    return Response(status_code=204)


@router.post(
    "/webhooks/{webhook_id}/rotate",
    responses={
        200: answer(WebhookWithSecret, "The webhook with its new secret, which is shown this once."),
        **problems(400, 404, 413, 415, 422),
    },
    openapi_extra=body(RotateSecret, {"overlap_seconds": 86_400}),
)
@needs("runs:write")
async def rotate_secret(request: Request, webhook_id: str) -> Response:
    """Give it another secret; for the overlap, messages are signed by both."""
    wanted = await read_body(request, RotateSecret, empty=True)
    webhook = await service_of(request).webhooks.rotate(
        caller_of(request), webhook_id, overlap_seconds=wanted.overlap_seconds
    )
    return resource(webhook, 200)
