"""The OpenAPI document: what the routes say of themselves in a few words each."""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

from app import __version__
from app.api.access import need_of
from app.wire import events, keys, runs, schedules, sessions, webhooks, workflows
from app.wire.bodies import Page

REFERENCE = "#/components/schemas/{model}"

MODELS: tuple[type[BaseModel], ...] = (
    runs.StartRun,
    runs.AnswerRun,
    runs.RetryRun,
    runs.Run,
    Page[runs.Run],
    sessions.CreateSession,
    sessions.UpdateSession,
    sessions.RestoreState,
    sessions.ForkSession,
    sessions.Session,
    Page[sessions.Session],
    sessions.Revision,
    Page[sessions.Revision],
    schedules.CreateSchedule,
    schedules.UpdateSchedule,
    schedules.Schedule,
    Page[schedules.Schedule],
    webhooks.CreateWebhook,
    webhooks.UpdateWebhook,
    webhooks.RotateSecret,
    webhooks.Webhook,
    webhooks.WebhookWithSecret,
    webhooks.WebhookSecret,
    Page[webhooks.Webhook],
    webhooks.Delivery,
    Page[webhooks.Delivery],
    webhooks.Message,
    events.Event,
    *events.SERVER_EVENTS,
    Page[events.Event],
    workflows.Workflow,
    Page[workflows.Workflow],
    workflows.Version,
    workflows.Liveness,
    workflows.Readiness,
    workflows.Problem,
    keys.CreateKey,
    keys.RotateKey,
    keys.Key,
    keys.NewKey,
    Page[keys.Key],
    keys.OpenEvents,
    keys.StreamToken,
)

DESCRIPTIONS = {
    400: "Malformed: no JSON, or a cursor that is none.",
    401: "No credential, or none that is valid here.",
    403: "The credential lacks a scope, or is another user's or tenant's.",
    404: "Nothing has that name or id.",
    409: "Not in the present state.",
    410: "Retention has removed it.",
    412: "If-Match names another revision.",
    413: "Over a size limit.",
    415: "A body type that is not read here.",
    422: "Understood, but not right; `errors` says where.",
    428: "If-Match is required.",
    429: "The caller is at one of its limits; `Retry-After` says when to come again.",
    503: "Not now; `Retry-After` says when.",
}


SECURITY_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key (`ms_…`), or a token of the issuer that the service is set to."
        " Nothing is needed as long as the service has neither keys nor an issuer.",
    },
    "stream_token": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "A stream token, for readers that can send no header.",
    },
}


def body(model: type[BaseModel], example: Any) -> dict[str, Any]:
    """The request body of a route that reads it itself."""
    content = {"application/json": {"schema": schema(model), "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def schema(model: type[BaseModel]) -> dict[str, str]:
    """A reference to a model of ours."""
    return {"$ref": REFERENCE.format(model=_name(model))}


def answer(model: type[BaseModel] | None, description: str, *headers: str) -> dict[str, Any]:
    """An answer with a JSON body, or with none, and the names of the headers that clients use."""
    documented: dict[str, Any] = {"description": description}
    if model is not None:
        documented["content"] = {"application/json": {"schema": schema(model)}}
    if headers:
        documented["headers"] = {name: {"schema": {"type": "string"}} for name in headers}
    return documented


def stream(description: str, *headers: str) -> dict[str, Any]:
    """An answer that is a stream of events."""
    frame = {
        "type": "object",
        "required": ["id", "event", "data"],
        "properties": {
            "id": {"type": "string", "description": "The event's sequence."},
            "event": {"type": "string"},
            "data": {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": schema(events.Event),
            },
        },
    }
    content = {"text/event-stream": {"schema": {"type": "string"}, "itemSchema": frame}}
    return answer(None, description, *headers) | {"content": content}


def stream_or(model: type[BaseModel], description: str, *headers: str) -> dict[str, Any]:
    """An answer that is a stream of events, or a JSON body, as the request wants it."""
    streamed = stream(description, *headers)
    return streamed | {"content": streamed["content"] | answer(model, description)["content"]}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors that a route answers with."""
    content = {"application/problem+json": {"schema": schema(workflows.Problem)}}
    return {status: {"description": DESCRIPTIONS[status], "content": content} for status in statuses}


def query(name: str, kind: dict[str, Any], description: str) -> dict[str, Any]:
    """A query parameter of a route that reads it itself."""
    return {"name": name, "in": "query", "required": False, "schema": kind, "description": description}


def header(name: str, description: str, *, required: bool = False) -> dict[str, Any]:
    """A header of a request."""
    return {
        "name": name,
        "in": "header",
        "required": required,
        "schema": {"type": "string"},
        "description": description,
    }


def describe(app: FastAPI, routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """The whole document, made once; `routes` are those that declare what their callers need."""
    if app.openapi_schema is None:
        document = get_openapi(
            title="Millstream",
            version=__version__,
            summary="Workflows over HTTP: durable runs, resumable streams, a session state with a history.",
            routes=app.routes,
            openapi_version="3.2.0",
        )
        modes: Iterable[Any] = ((model, "serialization") for model in MODELS)
        _, definitions = models_json_schema(list(modes), ref_template=REFERENCE)
        components = document.setdefault("components", {}).setdefault("schemas", {})
        components |= definitions["$defs"]
        components["AnyEvent"] = {"anyOf": [schema(model) for model in (*events.SERVER_EVENTS, events.Event)]}
        _forget_unused(document, components)
        _tell_needs(document, routes)
        app.openapi_schema = document
    return app.openapi_schema


def _tell_needs(document: dict[str, Any], routes: Iterable[BaseRoute]) -> None:
    """Say of each route which scope its caller needs, and how it refuses others."""
    document["components"]["securitySchemes"] = SECURITY_SCHEMES
    refusals = {str(status): answer for status, answer in problems(401, 403, 429).items()}
    for route in routes:
        need = need_of(route)
        if not isinstance(route, APIRoute) or need is None:
            continue
        schemes = ["bearer", "stream_token"] if need.stream_token else ["bearer"]
        for method in route.methods or ():
            operation = document["paths"][route.path][method.lower()]
            operation["security"] = [{scheme: [need.scope]} for scheme in schemes]
            operation["responses"] = dict(sorted((operation["responses"] | refusals).items()))


def _forget_unused(document: dict[str, Any], components: dict[str, Any]) -> None:
    """Take away the framework's own answers to parameters that cannot be wrong."""
    for unused in ("HTTPValidationError", "ValidationError"):
        components.pop(unused, None)
    for operations in document["paths"].values():
        for operation in operations.values():
            if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                del operation["responses"]["422"]


def _name(model: type[BaseModel]) -> str:
    return model.__name__.replace("[", "_").replace("]", "_")
