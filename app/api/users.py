"""Routes about users."""

from typing import Annotated

from fastapi import Path
from starlette.requests import Request
from starlette.responses import Response

from app.api.access import caller_of, needs, routes_about
from app.api.documents import answer, problems
from app.api.service import service_of

router = routes_about("users")


@router.delete(
    "/users/{user_id}", status_code=204, responses={204: answer(None, "Nothing of it is left."), **problems(409, 422)}
)
@needs("admin")
async def delete_user(request: Request, user_id: Annotated[str, Path(min_length=1, max_length=255)]) -> Response:
    """Delete all that belongs to a user of the caller's tenant, for good; while a run of the user's is live, 409."""
    await service_of(request).users.delete(caller_of(request), user_id)
    return Response(status_code=204)
