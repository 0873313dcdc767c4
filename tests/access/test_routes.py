"""Every route, asked without a credential, with each kind of bad one, and with every set of scopes."""

import re
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from app import RunResponse, Workflow, clock
from app.api.access import OPEN_ROUTES, GuardedRoute, needs, refuse_undeclared, routes_about
from app.api.application import make_application
from app.errors import ConfigurationError
from app.operations.credentials import ApiKey
from app.wire.keys import SCOPES
from tests.access.routes import GUARDED, OPERATIONS, PATHS, VERBS, Operation, document
from tests.support.keys import bearer, first_key, new_key, told
from tests.support.problems import problem_of
from tests.support.server import Client, running
from tests.support.tables import execute


class Hello(Workflow):
    async def run(self) -> AsyncIterator[RunResponse]:
        yield RunResponse(content="hello")


def address(path: str) -> str:
    """The route's path, with ids of nothing."""
    return re.sub(r"\{\w+\}", "01927c3e-8f5a-7cc0-b1de-5d2f1a3b4c5d", path)


async def ask(client: Client, operation: Operation, headers: dict[str, str]) -> Any:
    """What the route answers to a request that would be right."""
    kind = {} if operation.kind is None else {"Content-Type": operation.kind}
    conditions = {"If-Match": "*"} if operation.verb == "PUT" else {}
    body = {} if operation.example is None else {"json": operation.example}
    return await client.request(operation.verb, address(operation.path), headers=kind | conditions | headers, **body)


async def test_whoever_has_no_good_credential_gets_one_and_the_same_answer(database_url: str) -> None:
    async with running(database_url, Hello) as client:
        admin = await first_key(client)
        expired, revoked = await new_key(client, admin), await new_key(client, admin)
        execute(
            database_url,
            f"UPDATE api_keys SET expires_at = '2020-01-01 00:00:00.000000' WHERE key_id = '{expired['key_id']}'",
        )
        assert (await client.delete(f"/keys/{revoked['key_id']}", headers=bearer(admin))).status_code == 204
        known = ApiKey.read(admin)
        assert known is not None
        other = ApiKey.new()
        credentials = {
            "none": {},
            "empty": {"Authorization": ""},
            "another scheme": {"Authorization": f"Basic {admin}"},
            "no scheme": {"Authorization": admin},
            "no key": bearer("nonsense"),
            "a typing error": bearer(admin[:-1] + ("0" if admin[-1] != "0" else "1")),
            "unknown": bearer(other.text),
            "forged": bearer(ApiKey(known.key_id, other.secret).text),
            "expired": bearer(expired["key"]),
            "revoked": bearer(revoked["key"]),
            "no token": bearer("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."),
            "in another header": {"X-API-Key": admin},
        }
        for operation in GUARDED:
            seen = {name: told(await ask(client, operation, headers)) for name, headers in credentials.items()}
            assert len(set(map(repr, seen.values()))) == 1, f"{operation}: {seen}"
            status, headers, _ = seen["none"]
            assert (status, headers["www-authenticate"]) == (401, "Bearer"), str(operation)
        for query in (f"?token={admin}", f"?key={admin}", f"?access_token={admin}"):
            problem_of(await client.get(f"/runs{query}"), 401, "unauthenticated")


async def test_nobody_unknown_learns_which_routes_there_are(sqlite_url: str) -> None:
    async with running(sqlite_url, Hello) as client:
        await first_key(client)
        known = [address(path) for path in PATHS]
        beside = [
            "/nothing",
            "/runs/",
            "/keys/a/b",
            "/RUNS",
            "/docs/assets/none.js",
            "/metrics/healthz",
            "/healthz/",
        ]
        seen = {
            repr(told(await client.request(verb, path))) for path in known + beside for verb in VERBS if verb != "HEAD"
        }
        assert len(seen) == 1, seen
        assert {(await client.head(path)).status_code for path in known + beside} == {401}


async def test_open_routes_are_those_of_the_list_and_no_others(sqlite_url: str) -> None:
    assert {operation.path for operation in OPERATIONS if operation.need is None} == {"/healthz", "/readyz", "/version"}
    async with running(sqlite_url, Hello) as client:
        await first_key(client)
        for path in OPEN_ROUTES - {"/docs/assets"} | {"/docs/assets/swagger-ui.css"}:
            assert (await client.get(path)).status_code in {200, 307}, path


@pytest.mark.parametrize("operation", GUARDED, ids=str)
async def test_a_route_needs_its_scope_and_that_alone(sqlite_url: str, operation: Operation) -> None:
    assert operation.need is not None
    async with running(sqlite_url, Hello) as client:
        admin = await first_key(client)
        others = [scope for scope in SCOPES if scope != operation.need.scope]
        without = await new_key(client, admin, scopes=others)
        refused = problem_of(await ask(client, operation, bearer(without["key"])), 403, "insufficient_scope")
        assert operation.need.scope in refused["detail"]
        alone = await new_key(client, admin, scopes=[operation.need.scope])
        assert (await ask(client, operation, bearer(alone["key"]))).status_code not in {401, 403}


def test_the_document_says_what_each_route_needs() -> None:
    described = document()
    schemes = described["components"]["securitySchemes"]
    assert schemes["bearer"]["scheme"] == "bearer"
    for operation in OPERATIONS:
        needed = operation.documented.get("security", [])
        if operation.need is None:
            assert needed == []
            continue
        assert {"bearer": [operation.need.scope]} in needed
        assert all(set(named) <= set(schemes) for named in needed)
        assert {"401", "403"} <= set(operation.documented["responses"])
        assert ("token" in operation.parameters) == operation.need.stream_token


def test_a_route_that_declares_nothing_cannot_be_built() -> None:
    router = routes_about("nothing")

    async def forgotten(request: Request) -> Response:
        return Response()

    with pytest.raises(ConfigurationError, match="/forgotten"):
        router.add_api_route("/forgotten", forgotten)
    app = FastAPI()
    app.add_api_route("/plain", needs("runs:read")(forgotten))  # declared, but on a route that does not look
    with pytest.raises(ConfigurationError, match="/plain"):
        refuse_undeclared([route for route in app.routes if getattr(route, "path", "") == "/plain"])
    assert all(isinstance(route, GuardedRoute) for route in routes_about("x").routes)


def test_the_documentation_can_be_switched_off() -> None:
    paths = {getattr(route, "path", None) for route in make_application(_nobody, docs=False).routes}
    assert not paths & {"/", "/docs", "/docs/assets", "/docs/start.js", "/openapi.json"}


async def test_without_documentation_its_addresses_are_nothing(sqlite_url: str) -> None:
    async with running(sqlite_url, Hello, docs=False) as client:
        for path in ("/", "/docs", "/openapi.json", "/docs/assets/swagger-ui.css"):
            problem_of(await client.get(path), 404, "not_found")


async def test_a_request_under_a_known_key_asks_the_database_nothing(database_url: str) -> None:
    async with running(database_url, Hello) as client:
        admin = await first_key(client)
        await client.get("/workflows", headers=bearer(admin))
        execute(database_url, "DELETE FROM api_keys")  # what was read a moment ago counts
        assert (await client.get("/workflows", headers=bearer(admin))).status_code == 200
        deadline = time.monotonic() + 10
        while (await client.get("/workflows", headers=bearer(admin))).status_code == 200:
            assert time.monotonic() < deadline, "a key that is gone is good for longer than it may be"


async def test_an_expiring_key_ends_to_the_second(sqlite_url: str) -> None:
    async with running(sqlite_url, Hello) as client:
        admin = await first_key(client)
        at = clock.now() + timedelta(seconds=2)
        short = await new_key(client, admin, expires_at=at.isoformat())
        while clock.now() < at - timedelta(seconds=0.3):
            assert (await client.get("/runs", headers=bearer(short["key"]))).status_code == 200
        while clock.now() < at:
            pass
        problem_of(await client.get("/runs", headers=bearer(short["key"])), 401, "unauthenticated")


def _nobody() -> Any:
    raise AssertionError
