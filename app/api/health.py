"""Routes about the process itself."""

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from app.api.access import needs, routes_about
from app.api.documents import answer, problems
from app.api.problems import problem
from app.api.requests import JSON
from app.api.service import service_of
from app.operations.health import OK
from app.wire.workflows import Liveness, Readiness, Version
from app.workflow.encoding import encode

router = routes_about("service")


@router.get("/healthz", responses={200: answer(Liveness, "It lives.")})
async def healthz() -> Response:
    """Whether the process lives; touches nothing else."""
    return Response(b'{"status":"alive"}', media_type=JSON)


@router.get("/readyz", responses={200: answer(Readiness, "It can serve."), **problems(503)})
async def readyz(request: Request) -> Response:
    """Whether the process can serve: not draining, room on the disk, the database writable and at head."""
    checks = await service_of(request).health.checks()
    reasons = [f"{name}: {said}" for name, said in checks.items() if said != OK]
    if reasons:
        members = {"reasons": reasons, "checks": checks}
        return problem(503, "not_ready", "; ".join(reasons), headers={"Retry-After": "1"}, **members)
    return Response(encode({"status": "ready", "checks": checks}), media_type=JSON)


@router.get("/version", responses={200: answer(Version, "What answers here.")})
async def version(request: Request) -> Response:
    """Version and mode of the service."""
    return Response(encode(service_of(request).health.version()), media_type=JSON)


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={200: {"description": "For Prometheus.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
@needs("admin", operator=True)
async def metrics(request: Request) -> Response:
    """Figures of this process, and of the queue, in Prometheus's format."""
    body, media_type = await service_of(request).figures.scrape()
    return Response(body, media_type=media_type)
