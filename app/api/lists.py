"""Pages of lists: their parameters, and their answer."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Query
from starlette.datastructures import URL
from starlette.requests import Request
from starlette.responses import Response

from app.api.requests import JSON
from app.workflow.encoding import encode

Limit = Annotated[int, Query(ge=1, le=200, description="How many at the most.")]
Cursor = Annotated[str | None, Query(min_length=1, max_length=1000, description="next_cursor of the page before.")]
Filter = Annotated[str | None, Query(min_length=1, max_length=255, pattern="^[^\\x00]+$")]

DEFAULT_LIMIT = 50


def chosen(**filters: str | None) -> dict[str, str]:
    """The filters that a request names, by column."""
    return {column: value for column, value in filters.items() if value is not None}


def page(request: Request, items: list[Any], next_cursor: str | None) -> Response:
    """One page, with a link to the next."""
    headers = {}
    if next_cursor is not None:
        query = (
            URL(f"?{request.scope['query_string'].decode('latin-1')}").include_query_params(cursor=next_cursor).query
        )
        headers["Link"] = f'<{quote(request.scope["path"])}?{query}>; rel="next"'
    return Response(encode({"items": items, "next_cursor": next_cursor}), media_type=JSON, headers=headers)
