"""Routes about workflows."""

from starlette.requests import Request
from starlette.responses import Response

from app.api.access import needs, routes_about
from app.api.documents import answer, problems
from app.api.lists import DEFAULT_LIMIT, Cursor, Limit, page
from app.api.requests import JSON
from app.api.service import service_of
from app.operations.cursors import read_cursor, write_cursor
from app.wire.bodies import Page
from app.wire.workflows import Workflow
from app.workflow.encoding import encode

router = routes_about("workflows")


@router.get("/workflows", responses={200: answer(Page[Workflow], "By name."), **problems(422)})
@needs("runs:read")
async def list_workflows(request: Request, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Response:
    """The workflows that are served here."""
    after = None if cursor is None else read_cursor(cursor, str)[0]
    items, following = service_of(request).workflows.page(limit=limit, after=after)
    return page(request, items, None if following is None else write_cursor(following))


@router.get("/workflows/{name}", responses={200: answer(Workflow, "The workflow."), **problems(404)})
@needs("runs:read")
async def get_workflow(request: Request, name: str) -> Response:
    """One workflow: its description, the JSON Schema of its input, its parameters."""
    return Response(encode(service_of(request).workflows.get(name)), media_type=JSON)
