"""Errors as problem documents (RFC 9457): the one place where they become HTTP."""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import compile_path

from app import errors
from app.api.access import require_caller
from app.api.service import service_of
from app.correlation import REQUEST_ID
from app.errors import MillstreamError
from app.workflow.encoding import encode

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

STATUS: dict[type[MillstreamError], HTTPStatus] = {
    errors.Malformed: HTTPStatus.BAD_REQUEST,
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.Gone: HTTPStatus.GONE,
    errors.PreconditionFailed: HTTPStatus.PRECONDITION_FAILED,
    errors.TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.PreconditionRequired: HTTPStatus.PRECONDITION_REQUIRED,
    errors.TooMany: HTTPStatus.TOO_MANY_REQUESTS,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}

REFUSALS = {
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
}
"""What is refused because of who asks, how much, or when: these are counted by their code."""


def problem(status: int, code: str, detail: str, *, headers: dict[str, str] | None = None, **members: Any) -> Response:
    """One problem document."""
    title = HTTPStatus(status).phrase
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code} | members
    if (request_id := REQUEST_ID.get()) is not None:
        document["request_id"] = request_id
    return Response(encode(document), status_code=status, media_type=MEDIA_TYPE, headers=headers)


def install(app: FastAPI) -> None:
    """Answer every error of the application, and of the framework, with a problem document."""
    app.add_exception_handler(MillstreamError, _of_ours)
    app.add_exception_handler(RequestValidationError, _of_parameters)
    app.add_exception_handler(HTTPException, _of_framework)
    app.add_exception_handler(ClientDisconnect, _of_nobody)
    app.add_exception_handler(Exception, _of_bug)


async def _of_ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, MillstreamError)
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), HTTPStatus.INTERNAL_SERVER_ERROR)
    if status in REFUSALS:
        service_of(request).metrics.refused(error.problem_code)
    members = dict(error.extra)
    headers: dict[str, str] = {}
    retry_after = getattr(error, "retry_after_seconds", None) or members.pop("retry_after_seconds", None)
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    if "etag" in members:
        headers["ETag"] = members["etag"]
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if accept_patch := members.pop("accept_patch", None):
        headers["Accept-Patch"] = accept_patch
    if status == HTTPStatus.SERVICE_UNAVAILABLE:  # whatever is away says so itself, and not once for each request
        logger.debug("request_refused", extra={"path": request.scope["path"], "code": error.problem_code})
    elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.warning(
            "request_refused", extra={"path": request.scope["path"], "code": error.problem_code}, exc_info=error
        )
    return problem(status, error.problem_code, error.message, headers=headers, **members)


async def _of_parameters(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [
        {"parameter": ".".join(str(part) for part in entry["loc"][1:]) or str(entry["loc"][0]), "message": entry["msg"]}
        for entry in error.errors()
    ]
    detail = "; ".join(f"{entry['parameter']}: {entry['message']}" for entry in found)
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_parameter", detail, errors=found)


async def _of_framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    try:
        await require_caller(request)
    except MillstreamError as refusal:
        return await _of_ours(request, refusal)
    code = status.phrase.lower().replace(" ", "_").replace("-", "_")
    details = {
        HTTPStatus.NOT_FOUND: f"there is nothing at {request.scope['path']}; GET /openapi.json lists the routes",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.method} is not for {request.scope['path']}",
    }
    headers = dict(error.headers or {})
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods_of(request))
    return problem(status, code, details.get(status, str(error.detail)), headers=headers)


def _methods_of(request: Request) -> list[str]:
    """All that the path is for; the framework names those of the first route that has it."""
    paths = request.app.openapi()["paths"]
    methods = {
        method.upper()
        for template, operations in paths.items()
        if compile_path(template)[0].match(request.scope["path"])
        for method in operations
    }
    return sorted(methods)


async def _of_nobody(_request: Request, _error: Exception) -> Response:
    """A client that left before it had said all, or was too slow to: nobody reads this answer."""
    return problem(HTTPStatus.REQUEST_TIMEOUT, "request_timeout", "the request did not arrive as a whole")


async def _of_bug(request: Request, error: Exception) -> Response:
    logger.error("request_failed", extra={"path": request.scope["path"], "method": request.method}, exc_info=error)
    return problem(
        HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "something went wrong here; the server's log says what"
    )
