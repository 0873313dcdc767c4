"""Requests of every kind that the document allows and forbids: no 5xx, nothing that the document does not say."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings, strategies
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app import RunResponse, Workflow
from tests.support.keys import bearer, first_key, new_key
from tests.support.server import Client, running

EXAMPLES = 15
"""Of each route and each kind: enough to meet every parameter, few enough for a test suite."""
USUAL_HEADERS = {
    "Prefer": ["wait=5", "respond-async"],
    "If-Match": ["*", '"1"'],
    "If-None-Match": ["*", '"0"'],
    "Accept": ["text/event-stream", "application/json"],
    "Last-Event-ID": ["1", "4"],
}
"""What clients send, beside whatever the document allows."""
CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


class Hello(Workflow):
    def run(self, name: str = "you", **more: Any) -> Iterator[RunResponse]:
        self.session_state["names"] = [*self.session_state.get("names", [])[-5:], name]
        yield RunResponse(content=f"Hello, {name}")


class Later(Workflow):
    async def run(self) -> AsyncIterator[RunResponse]:
        await asyncio.sleep(0.05)
        yield RunResponse(content="later")


# The server is in this process, where its driver of Postgres draws lots while Hypothesis does.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning")
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "forbidden"])
async def test_nothing_happens_that_is_not_documented(database_url: str, mode: GenerationMode) -> None:
    async with running(database_url, Hello, Later) as client:
        credential = bearer(await first_key(client))
        client.headers.update(credential)
        known = {
            "key_id": [(await new_key(client, None))["key_id"] for _ in range(3)],
            "run_id": [(await client.finish("hello", {"session_id": "s"}))["run_id"] for _ in range(3)],
            "session_id": ["s"],
            "user_id": ["ada"],
            "name": ["hello", "later"],
        }
        webhooks = [(await client.post("/webhooks", json={"url": "https://hooks.invalid/"})).json() for _ in range(2)]
        known["webhook_id"] = [webhook["webhook_id"] for webhook in webhooks]
        await client.finish("hello")
        log = (await client.get(f"/webhooks/{known['webhook_id'][0]}/deliveries")).json()["items"]
        known["delivery_id"] = [delivery["delivery_id"] for delivery in log]
        for number in range(2):
            body = {"name": f"s{number}", "workflow": "hello", "cron": "0 0 1 1 *"}
            schedule = (await client.post("/schedules", json=body)).json()
            known.setdefault("schedule_id", []).append(schedule["schedule_id"])
        document = (await client.get("/openapi.json")).json()
        failures = await asyncio.to_thread(conform, document, str(client.base_url), known, mode, credential)
        assert not failures, "\n\n".join(failures)
        await still_serves(client)


async def still_serves(client: Client) -> None:
    assert (await client.get("/readyz")).status_code == 200
    assert (await client.finish("hello"))["status"] == "completed"


def conform(
    document: Any, base_url: str, known: dict[str, list[str]], mode: GenerationMode, credential: dict[str, str]
) -> list[str]:
    """What is wrong, one text for each route."""
    schema = schemathesis.openapi.from_dict(document)
    failures = []
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        requests.post(
            f"{base_url}/sessions", json={"workflow": "hello", "session_id": "s"}, headers=credential, timeout=20
        )  # if it is gone
        try:
            law(operation, base_url, known, mode, credential)
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE  # a route without parameters forbids nothing
        except BaseExceptionGroup as group:
            failures.append(f"{operation.label}: " + "\n".join(map(str, group.exceptions)))
        except AssertionError as error:
            failures.append(f"{operation.label}: {error}")
    return failures


def law(
    operation: Any, base_url: str, known: dict[str, list[str]], mode: GenerationMode, credential: dict[str, str]
) -> None:
    """Send what the document allows, or what it forbids, and check the answers."""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    @given(case=operation.as_strategy(generation_mode=mode), places=strategies.data())
    def answers(case: Any, places: Any) -> None:
        for name in case.path_parameters or {}:
            if places.draw(strategies.sampled_from([True, True, True, False]), label=f"a {name} that is there"):
                case.path_parameters[name] = quote(places.draw(strategies.sampled_from(known[name])), safe="")
        for name in USUAL_HEADERS.keys() & (case.headers or {}).keys():
            case.headers[name] = places.draw(strategies.sampled_from([case.headers[name], *USUAL_HEADERS[name]]))
        check(case, base_url, places.draw(strategies.sampled_from([credential, credential, credential, {}])))

    call: Any = answers
    call()


def check(case: Any, base_url: str, credential: dict[str, str]) -> None:
    """Send one request; of a stream, only the beginning is looked at, as it may go on."""
    arguments = case.as_transport_kwargs(base_url=base_url)
    arguments["headers"] = {**(arguments.get("headers") or {}), **credential}
    with requests.Session() as session, session.request(**arguments, stream=True, timeout=20) as answer:
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            assert answer.status_code == 200
            documented = case.operation.definition.raw["responses"]["200"]["content"]
            assert "text/event-stream" in documented, "a stream that is not documented"
            assert next(answer.iter_content(1), b"r") in b"r:i"
            return
        assert answer.content is not None  # read it before the connection goes
        case.validate_response(answer, checks=CHECKS)
