"""Routes about deliveries."""

from typing import Annotated, Literal

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from app.api.access import caller_of, needs, routes_about
from app.api.answers import resource
from app.api.documents import answer, problems
from app.api.lists import DEFAULT_LIMIT, Cursor, Limit, page
from app.api.service import service_of
from app.wire.bodies import Page
from app.wire.webhooks import Delivery

router = routes_about("webhooks")

Status = Annotated[Literal["pending", "delivered", "failed"] | None, Query(description="Those of this status.")]
LISTED = {200: answer(Page[Delivery], "Newest first.", "Link"), **problems(404, 422)}


@router.get("/webhooks/{webhook_id}/deliveries", responses=LISTED)
@needs("runs:read")
async def list_deliveries_to_webhook(
    request: Request, webhook_id: str, status: Status = None, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Response:
    """What was sent to a webhook, or is on its way."""
    items, following = await service_of(request).deliveries.to_webhook(
        caller_of(request), webhook_id, status=status, limit=limit, cursor=cursor
    )
    return page(request, items, following)


@router.get("/runs/{run_id}/deliveries", responses=LISTED)
@needs("runs:read")
async def list_deliveries_of_run(
    request: Request, run_id: str, status: Status = None, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Response:
    """What of a run was sent to webhooks, or is on its way."""
    items, following = await service_of(request).deliveries.of_run(
        caller_of(request), run_id, status=status, limit=limit, cursor=cursor
    )
    return page(request, items, following)


@router.post(
    "/deliveries/{delivery_id}/redeliver",
    status_code=202,
    responses={202: answer(Delivery, "It is on its way again."), **problems(404)},
)
@needs("runs:write")
async def redeliver(request: Request, delivery_id: str) -> Response:
    """Send it once more, under the same id, whatever came of it before."""
    delivery = await service_of(request).deliveries.send_again(caller_of(request), delivery_id)
    return resource(delivery, 202)
