"""Routes about schedules."""

from starlette.requests import Request
from starlette.responses import Response

from app.api.access import caller_of, needs, routes_about
from app.api.answers import resource
from app.api.documents import answer, body, problems
from app.api.lists import DEFAULT_LIMIT, Cursor, Filter, Limit, chosen, page
from app.api.requests import read_body
from app.api.service import service_of
from app.wire.bodies import Page
from app.wire.runs import Run
from app.wire.schedules import CreateSchedule, Schedule, UpdateSchedule

router = routes_about("schedules")


@router.post(
    "/schedules",
    status_code=201,
    responses={201: answer(Schedule, "Made.", "Location"), **problems(400, 404, 409, 413, 415, 422)},
    openapi_extra=body(
        CreateSchedule,
        {"name": "morning", "workflow": "hello", "cron": "30 7 * * MON-FRI", "timezone": "Europe/Berlin"},
    ),
)
@needs("runs:write")
async def create_schedule(request: Request) -> Response:
    """Have a workflow started at certain times."""
    new = await read_body(request, CreateSchedule)
    schedule = await service_of(request).schedules.create(caller_of(request), **dict(new))
    return resource(schedule, 201, {"Location": f"/schedules/{schedule['schedule_id']}"})


@router.get("/schedules", responses={200: answer(Page[Schedule], "Newest first.", "Link"), **problems(422)})
@needs("runs:read")
async def list_schedules(
    request: Request,
    workflow: Filter = None,
    user_id: Filter = None,
    name: Filter = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Response:
    """Schedules, those that match every filter."""
    filters = chosen(workflow=workflow, user_id=user_id, name=name)
    items, following = await service_of(request).schedules.page(
        caller_of(request), filters=filters, limit=limit, cursor=cursor
    )
    return page(request, items, following)


@router.get("/schedules/{schedule_id}", responses={200: answer(Schedule, "The schedule."), **problems(404)})
@needs("runs:read")
async def get_schedule(request: Request, schedule_id: str) -> Response:
    """One schedule: when it is due next, and its last run."""
    return resource(await service_of(request).schedules.get(caller_of(request), schedule_id), 200)


@router.patch(
    "/schedules/{schedule_id}",
    responses={200: answer(Schedule, "As it is now."), **problems(400, 404, 409, 413, 415, 422)},
    openapi_extra=body(UpdateSchedule, {"cron": "0 8 * * MON-FRI"}),
)
@needs("runs:write")
async def update_schedule(request: Request, schedule_id: str) -> Response:
    """Change a schedule; another time counts from now on."""
    changes = await read_body(request, UpdateSchedule)
    values = {name: getattr(changes, name) for name in changes.model_fields_set}
    return resource(await service_of(request).schedules.update(caller_of(request), schedule_id, values), 200)


@router.delete("/schedules/{schedule_id}", status_code=204, responses={204: answer(None, "Deleted."), **problems(404)})
@needs("runs:write")
async def delete_schedule(request: Request, schedule_id: str) -> Response:
    """Remove a schedule; its runs stay."""
    await service_of(request).schedules.delete(caller_of(request), schedule_id)
    return Response(status_code=204)


@router.post("/schedules/{schedule_id}/pause", responses={200: answer(Schedule, "It starts nothing."), **problems(404)})
@needs("runs:write")
async def pause_schedule(request: Request, schedule_id: str) -> Response:
    """Start nothing until it is resumed. Asking twice is fine."""
    return resource(await service_of(request).schedules.pause(caller_of(request), schedule_id), 200)


@router.post("/schedules/{schedule_id}/resume", responses={200: answer(Schedule, "It goes on."), **problems(404)})
@needs("runs:write")
async def resume_schedule(request: Request, schedule_id: str) -> Response:
    """Go on; with `run_once`, one run makes up for what was missed."""
    return resource(await service_of(request).schedules.resume(caller_of(request), schedule_id), 200)


@router.post(
    "/schedules/{schedule_id}/run",
    status_code=202,
    responses={
        202: answer(Run, "The run.", "Location", "Content-Location"),
        **problems(404, 409, 422, 503),
    },
)
@needs("runs:write")
async def run_schedule(request: Request, schedule_id: str) -> Response:
    """Start a run of it now, whether it is paused or not; its ticks stay as they are."""
    run = await service_of(request).schedules.run(caller_of(request), schedule_id)
    headers = {"Location": f"/runs/{run['run_id']}/events", "Content-Location": f"/runs/{run['run_id']}"}
    return resource(run, 202, headers)
