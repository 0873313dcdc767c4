"""Routes about runs."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Literal

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from app.api.access import caller_of, needs, routes_about
from app.api.answers import resource
from app.api.documents import answer, body, header, problems, stream_or
from app.api.lists import DEFAULT_LIMIT, Cursor, Filter, Limit, chosen, page
from app.api.requests import EVENT_STREAM, accepts, preferred_wait, read_body
from app.api.service import Service, service_of
from app.errors import Malformed
from app.operations.caller import Caller
from app.operations.runs import RunRequest
from app.wire.bodies import Page
from app.wire.keys import StreamToken
from app.wire.runs import AnswerRun, RetryRun, Run, StartRun
from app.workflow.status import ENDED

router = routes_about("runs")

MAX_KEY_CHARACTERS = 255
MAX_WAIT_SECONDS = 60.0
"""Of `Prefer: wait`: proxies cut what is silent for longer."""

Status = Literal["queued", "running", "paused", "completed", "failed", "cancelled"]

START_ANSWERS = ("Location", "Content-Location", "Preference-Applied")
START_HEADERS = [
    header("Accept", "text/event-stream gets the stream of the new run."),
    header("Prefer", f"wait=N blocks up to N seconds ({MAX_WAIT_SECONDS:g} at most) for the end."),
    header("Idempotency-Key", "1 to 255 characters; the same key and body give the same run."),
]


@router.post(
    "/workflows/{name}/runs",
    status_code=202,
    responses={
        200: stream_or(Run, "The events of the run, or with Prefer: wait the run, which has ended.", *START_ANSWERS),
        202: answer(Run, "Accepted: the run is on disk.", *START_ANSWERS),
        **problems(400, 404, 409, 410, 413, 415, 422, 503),
    },
    openapi_extra={"parameters": START_HEADERS}
    | body(StartRun, {"input": {"name": "Ada"}, "session_id": "my-session"}),
)
@needs("runs:write")
async def start_run(request: Request, name: str) -> Response:
    """Start a run: answer at once, wait for its end, or stream its events."""
    service, caller = service_of(request), caller_of(request)
    start = await read_body(request, StartRun)
    seconds = preferred_wait(request, at_most=MAX_WAIT_SECONDS)
    streaming = accepts(request, EVENT_STREAM)
    if streaming:
        service.streams.require_place(caller)  # before the run is accepted: who is refused starts nothing
    run = await service.runs.start(
        caller, RunRequest(workflow=name, **dict(start)), idempotency_key=_idempotency_key(request)
    )
    headers = {"Location": f"/runs/{run['run_id']}/events", "Content-Location": f"/runs/{run['run_id']}"}
    if streaming:
        ended = run["status"] in ENDED  # the run of an Idempotency-Key that was used before
        first = (await service.events.place(caller, run["run_id"], 0)).first if ended else None
        frames = service.events.follow(caller, run["run_id"], 0, first)
        if start.on_disconnect == "cancel":
            frames = _cancelling(service, caller, run["run_id"], frames)
        return service.streams.response(frames, headers, caller=caller)
    if seconds is not None:
        run = await service.runs.wait(caller, run["run_id"], seconds)
        headers["Preference-Applied"] = f"wait={seconds:g}"
    return resource(run, 200 if run["status"] in ENDED and seconds is not None else 202, headers)


@router.get("/runs", responses={200: answer(Page[Run], "Newest first.", "Link"), **problems(422)})
@needs("runs:read")
async def list_runs(
    request: Request,
    workflow: Filter = None,
    session_id: Filter = None,
    user_id: Filter = None,
    status: Annotated[Status | None, Query()] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Response:
    """Runs, those that match every filter."""
    filters = chosen(workflow=workflow, session_id=session_id, user_id=user_id, status=status)
    items, following = await service_of(request).runs.page(
        caller_of(request), filters=filters, limit=limit, cursor=cursor
    )
    return page(request, items, following)


@router.get("/runs/{run_id}", responses={200: answer(Run, "The run."), **problems(404)})
@needs("runs:read")
async def get_run(request: Request, run_id: str) -> Response:
    """One run: its status, input, content, error, place in the queue and times."""
    return resource(await service_of(request).runs.get(caller_of(request), run_id), 200)


@router.post(
    "/runs/{run_id}/cancel",
    status_code=202,
    responses={
        200: answer(Run, "It had ended already; unchanged."),
        202: answer(Run, "It ends, or has just ended."),
        **problems(404),
    },
)
@needs("runs:write")
async def cancel_run(request: Request, run_id: str) -> Response:
    """Stop a run: async code at once, sync code at its next yield or step. Asking twice is fine."""
    run, stopped = await service_of(request).runs.cancel(caller_of(request), run_id)
    return resource(run, 202 if stopped else 200)


@router.post(
    "/runs/{run_id}/input",
    status_code=202,
    responses={202: answer(Run, "It goes on."), **problems(400, 404, 409, 413, 415, 422, 503)},
    openapi_extra=body(AnswerRun, {"request_id": "input:0b1f…:1", "value": "yes"}),
)
@needs("runs:write")
async def answer_run(request: Request, run_id: str) -> Response:
    """Answer a paused run, with a value that fits the schema of its RunPaused event."""
    given = await read_body(request, AnswerRun)
    run = await service_of(request).runs.answer(
        caller_of(request), run_id, request_id=given.request_id, value=given.value
    )
    return resource(run, 202)


@router.post(
    "/runs/{run_id}/retry",
    status_code=202,
    responses={
        202: answer(Run, "The new run.", "Location", "Content-Location"),
        **problems(400, 404, 409, 413, 415, 422, 503),
    },
    openapi_extra=body(RetryRun, {}),
)
@needs("runs:write")
async def retry_run(request: Request, run_id: str) -> Response:
    """Run an ended run again in its session, with the same input or another, as a new run."""
    again = await read_body(request, RetryRun, empty=True)
    run = await service_of(request).runs.retry(caller_of(request), run_id, input=again.input)
    headers = {"Location": f"/runs/{run['run_id']}/events", "Content-Location": f"/runs/{run['run_id']}"}
    return resource(run, 202, headers)


@router.post(
    "/runs/{run_id}/stream-token",
    status_code=201,
    responses={201: answer(StreamToken, "The token."), **problems(404)},
)
@needs("runs:read")
async def create_stream_token(request: Request, run_id: str) -> Response:
    """A short-lived token that opens the run's stream as ?token=…, for readers that can send no header."""
    token = await service_of(request).stream_tokens.for_run(caller_of(request), run_id)
    return resource(token, 201)


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not (1 <= len(key) <= MAX_KEY_CHARACTERS and key.isprintable()):
        raise Malformed("an Idempotency-Key has 1 to 255 printable characters", code="invalid_idempotency_key")
    return key


async def _cancelling(
    service: Service, caller: Caller, run_id: str, frames: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """The frames; the run is cancelled when its client leaves before the end."""
    left = True
    try:
        async with aclosing(frames):
            async for chunk in frames:
                yield chunk
        left = False  # it has all there was, or this process sends its readers away
    finally:
        if left:
            # In a task of its own: this one is being cancelled.
            await asyncio.shield(asyncio.ensure_future(service.runs.cancel(caller, run_id)))
