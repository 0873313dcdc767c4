"""The OpenAPI document: valid, complete, and true of what the service sends."""

import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from app import RunResponse, Workflow
from tests.support.keys import bearer, first_key
from tests.support.server import Client, running

METHODS = ("get", "post", "put", "patch", "delete")
ROUTES = {
    ("/workflows", "get"),
    ("/workflows/{name}", "get"),
    ("/workflows/{name}/runs", "post"),
    ("/runs", "get"),
    ("/runs/{run_id}", "get"),
    ("/runs/{run_id}/events", "get"),
    ("/runs/{run_id}/cancel", "post"),
    ("/sessions", "get"),
    ("/sessions", "post"),
    ("/sessions/{session_id}", "get"),
    ("/sessions/{session_id}", "patch"),
    ("/sessions/{session_id}", "delete"),
    ("/sessions/{session_id}/state", "get"),
    ("/sessions/{session_id}/state", "patch"),
    ("/sessions/{session_id}/state", "put"),
    ("/sessions/{session_id}/state/revisions", "get"),
    ("/sessions/{session_id}/state/restore", "post"),
    ("/sessions/{session_id}/fork", "post"),
    ("/schedules", "get"),
    ("/schedules", "post"),
    ("/schedules/{schedule_id}", "get"),
    ("/schedules/{schedule_id}", "patch"),
    ("/schedules/{schedule_id}", "delete"),
    ("/schedules/{schedule_id}/pause", "post"),
    ("/schedules/{schedule_id}/resume", "post"),
    ("/schedules/{schedule_id}/run", "post"),
    ("/webhooks", "get"),
    ("/webhooks", "post"),
    ("/webhooks/{webhook_id}", "get"),
    ("/webhooks/{webhook_id}", "patch"),
    ("/webhooks/{webhook_id}", "delete"),
    ("/webhooks/{webhook_id}/rotate", "post"),
    ("/webhooks/{webhook_id}/deliveries", "get"),
    ("/webhooks/secret", "get"),
    ("/webhooks/secret/rotate", "post"),
    ("/runs/{run_id}/deliveries", "get"),
    ("/deliveries/{delivery_id}/redeliver", "post"),
    ("/healthz", "get"),
    ("/readyz", "get"),
    ("/metrics", "get"),
    ("/version", "get"),
}


class Hello(Workflow):
    """Greet."""

    def run(self, name: str = "you") -> Iterator[RunResponse]:
        self.session_state["greeted"] = self.step(str.upper, name, name="shout")
        yield RunResponse(content=f"Hello, {name}")


class Waiter(Workflow):
    async def run(self) -> AsyncIterator[RunResponse]:
        yield RunResponse(content="w", event="Waiting")
        raise ValueError("enough")


@pytest.fixture
async def client(sqlite_url: str) -> AsyncIterator[Client]:
    async with running(sqlite_url, Hello, Waiter) as client:
        yield client


async def document_of(client: Client) -> dict[str, Any]:
    document: dict[str, Any] = (await client.get("/openapi.json")).json()
    return document


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and operation of each route."""
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                yield path, method, methods[method]


async def test_the_document_is_valid(client: Client) -> None:
    document = await document_of(client)
    validate(document)
    referred = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert referred <= set(document["components"]["schemas"])


async def test_every_route_is_there_and_described(client: Client) -> None:
    document = await document_of(client)
    assert {(path, method) for path, method, _ in operations(document)} >= ROUTES
    for path, method, operation in operations(document):
        assert operation["summary"], (path, method)
        assert operation["description"], (path, method)
        assert operation["tags"], (path, method)
        named = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "path"}
        assert named == set(re.findall(r"\{(\w+)\}", path)), (path, method)
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))


async def test_every_answer_is_described_and_every_error_is_a_problem(client: Client) -> None:
    document = await document_of(client)
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path, method, operation in operations(document):
        for status, answer in operation["responses"].items():
            assert answer["description"], (path, method, status)
            if status in {"204", "304"}:
                assert "content" not in answer, (path, method, status)
            elif status >= "400":
                assert answer["content"] == problem, (path, method, status)
            else:
                assert all(content.get("schema") for content in answer["content"].values()), (path, method, status)
        if "requestBody" in operation:
            assert {"400", "413", "415", "422"} <= operation["responses"].keys(), (path, method)
            for content in operation["requestBody"]["content"].values():
                assert content["schema"]
                assert "example" in content or "examples" in content, (path, method)


async def test_the_stream_and_its_events_are_typed(client: Client) -> None:
    document = await document_of(client)
    streams = [
        answer["content"]["text/event-stream"]
        for _, _, operation in operations(document)
        for answer in operation["responses"].values()
        if "text/event-stream" in answer.get("content", {})
    ]
    assert len(streams) >= 2
    assert all("itemSchema" in stream for stream in streams)
    schemas = document["components"]["schemas"]
    for name in ("RunQueued", "WorkflowStarted", "StepStarted", "StepCompleted", "StateSaved", "RunFinished"):
        assert schemas[name]["properties"]["event"]["const"] == name


async def test_what_is_sent_is_what_is_said(client: Client) -> None:
    document = await document_of(client)

    def check(name: str, value: Any) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(value)

    for workflow, options in (("hello", {"session_id": "s", "user_id": "ada"}), ("waiter", {})):
        run = await client.finish(workflow, options)
        check("Run", run)
        for event in await client.events(run["run_id"]):
            check("AnyEvent", event.data)
            check(event.event if event.event in document["components"]["schemas"] else "Event", event.data)
    body = {"name": "s", "workflow": "hello", "cron": "0 0 1 1 *"}
    schedule = (await client.post("/schedules", json=body)).json()
    check("Schedule", schedule)
    check("Run", (await client.post(f"/schedules/{schedule['schedule_id']}/run")).json())
    webhook = (await client.post("/webhooks", json={"url": "https://hooks.invalid/"})).json()
    check("WebhookWithSecret", webhook)
    await client.finish("hello")
    log = f"/webhooks/{webhook['webhook_id']}/deliveries"
    check("Delivery", (await client.get(log)).json()["items"][0])
    for path, name in [
        (f"/webhooks/{webhook['webhook_id']}", "Webhook"),
        ("/schedules", "Page_Schedule_"),
        ("/webhooks", "Page_Webhook_"),
        ("/webhooks/secret", "WebhookSecret"),
        (log, "Page_Delivery_"),
        ("/runs", "Page_Run_"),
        ("/sessions", "Page_Session_"),
        ("/sessions/s", "Session"),
        ("/sessions/s/state/revisions", "Page_Revision_"),
        ("/workflows", "Page_Workflow_"),
        ("/workflows/hello", "Workflow"),
        ("/version", "Version"),
        ("/readyz", "Readiness"),
        ("/healthz", "Liveness"),
        ("/runs/none", "Problem"),
    ]:
        check(name, (await client.get(path)).json())


async def test_the_answers_that_clients_get_every_day_are_documented(client: Client) -> None:
    document = await document_of(client)
    run = await client.finish("hello", {"session_id": "s"})
    path = "/workflows/{name}/runs"
    everyday: list[tuple[str, str, dict[str, Any]]] = [
        ("post", path, {"json": {"input": {}}}),
        ("post", path, {"json": {"input": {}}, "headers": {"Prefer": "wait=9"}}),
        ("post", path, {"json": {"input": {}}, "headers": {"Accept": "text/event-stream"}}),
        ("get", "/runs/{run_id}/events", {}),
        ("get", "/runs/{run_id}/events", {"headers": {"Accept": "application/json"}}),
        ("get", "/runs/{run_id}/events", {"headers": {"Last-Event-ID": "6"}}),
        ("get", "/sessions/{session_id}/state", {"headers": {"If-None-Match": "*"}}),
        ("get", "/sessions/{session_id}", {"headers": {"If-None-Match": "*"}}),
        ("get", "/metrics", {}),
    ]
    for method, template, request in everyday:
        address = template.format(name="hello", run_id=run["run_id"], session_id="s")
        answer = await client.request(method, address, **request)
        documented = document["paths"][template][method]["responses"][str(answer.status_code)]
        kind = answer.headers.get("content-type", "").partition(";")[0]
        assert (not kind and "content" not in documented) or kind in documented["content"], (template, request)
        for header in ("Location", "Content-Location", "ETag"):
            assert (header in answer.headers) == (header in documented.get("headers", {})), (template, request, header)


async def test_every_kind_of_answer_has_no_more_than_one_body(client: Client) -> None:
    document = await document_of(client)
    several = {
        (path, status)
        for path, _, operation in operations(document)
        for status, answer in operation["responses"].items()
        if len(answer.get("content", {})) > 1
    }
    assert several <= {("/workflows/{name}/runs", "200"), ("/runs/{run_id}/events", "200")}


async def test_the_examples_work_when_they_are_sent(client: Client) -> None:
    document = await document_of(client)
    client.headers.update(bearer(await first_key(client)))  # one of the examples makes a key
    await client.post("/sessions", json={"workflow": "hello", "session_id": "my-session"})
    tried = 0
    for path, method, operation in operations(document):
        for kind, content in operation.get("requestBody", {}).get("content", {}).items():
            examples = [content["example"]] if "example" in content else []
            examples += [example["value"] for example in content.get("examples", {}).values()]
            for example in examples:
                if "/input" in path:
                    continue  # needs a run that waits for just that
                answer = await send_example(client, method, path, kind, example)
                assert answer.is_success, (method, path, kind, answer.text)
                assert str(answer.status_code) in operation["responses"]
                tried += 1
    assert tried >= 9


async def send_example(client: Client, method: str, path: str, kind: str, example: Any) -> httpx.Response:
    """Send an example to a session and a run that are there."""
    session = (await client.post("/sessions", json={"workflow": "hello", "session_state": {"greetings": []}})).json()
    run = await client.finish("hello")
    webhook = (await client.post("/webhooks", json={"url": "https://hooks.invalid/"})).json()
    values = {"name": "hello", "session_id": session["session_id"], "run_id": run["run_id"]}
    body = {"name": str(time.monotonic_ns()), "workflow": "hello", "cron": "0 0 1 1 *"}
    schedule = (await client.post("/schedules", json=body)).json()
    values |= {"webhook_id": webhook["webhook_id"], "schedule_id": schedule["schedule_id"]}
    key = (await client.post("/keys", json={"name": "spare", "scopes": ["runs:read"]})).json()
    values["key_id"] = key["key_id"]
    headers = {"Content-Type": kind, "If-Match": '"1"'} if path.endswith("/state") else {"Content-Type": kind}
    return await client.request(method, path.format_map(values), content=json.dumps(example), headers=headers)
