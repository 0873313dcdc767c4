"""The answer that is one resource."""

from typing import Any

from starlette.responses import Response

from app.api.requests import JSON
from app.workflow.encoding import encode


def resource(members: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A resource as JSON."""
    return Response(encode(members), status_code=status, media_type=JSON, headers=headers)
