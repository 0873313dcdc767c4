"""What browsers are told: headers on every answer, and nothing across origins unless it is set."""

from collections.abc import AsyncIterator

import pytest

from app import RunResponse, Workflow
from app.settings import Settings
from tests.support.keys import bearer, first_key
from tests.support.problems import problem_of
from tests.support.server import running

PAGE = "https://app.example.com"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


class Hello(Workflow):
    async def run(self) -> AsyncIterator[RunResponse]:
        yield RunResponse(content="hello")


async def test_every_answer_has_the_headers(sqlite_url: str) -> None:
    async with running(sqlite_url, Hello) as client:
        run = await client.finish("hello")
        answers = [
            await client.get(path)
            for path in (
                "/runs",
                "/nothing",
                "/healthz",
                "/metrics",
                "/openapi.json",
                "/",
                f"/runs/{run['run_id']}/events",
            )
        ]
        answers += [await client.delete("/runs"), await client.post("/sessions", content=b"{")]
        admin = await first_key(client)
        answers += [await client.get("/runs"), await client.get("/keys", headers=bearer(admin))]
        for answer in answers:
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
            assert "server" not in answer.headers
            assert "access-control-allow-origin" not in answer.headers


async def test_the_page_of_the_documentation_has_no_script_in_it(sqlite_url: str) -> None:
    async with running(sqlite_url, Hello) as client:
        page = await client.get("/docs")
        policy = page.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert all(part.startswith(" src=") for part in page.text.split("<script")[1:])
        start = await client.get("/docs/start.js")
        assert start.headers["content-type"].startswith("text/javascript")
        assert "/openapi.json" in start.text


async def test_other_origins_get_nothing_unless_they_are_named(sqlite_url: str) -> None:
    async with running(sqlite_url, Hello) as client:
        refused = await client.options("/workflows/hello/runs", headers={"Origin": PAGE} | PREFLIGHT)
        assert refused.status_code == 405
        assert "access-control-allow-origin" not in (await client.get("/runs", headers={"Origin": PAGE})).headers


async def test_an_origin_that_is_named_may_ask_and_read(sqlite_url: str) -> None:
    async with running(sqlite_url, Hello, cors_origins=f"{PAGE}, http://localhost:5173") as client:
        admin = await first_key(client)
        for path in ("/workflows/hello/runs", "/nothing"):
            allowed = await client.options(path, headers={"Origin": PAGE} | PREFLIGHT)
            assert allowed.status_code == 200
            assert allowed.headers["access-control-allow-origin"] == PAGE
            assert "Authorization" in allowed.headers["access-control-allow-headers"]
            assert "access-control-allow-credentials" not in allowed.headers
        run = await client.post("/workflows/hello/runs", json={}, headers={"Origin": PAGE} | bearer(admin))
        exposed = run.headers["access-control-expose-headers"]
        for name in ("Location", "Content-Location", "ETag", "Retry-After"):
            assert name in exposed
        unknown = await client.get("/runs", headers={"Origin": PAGE})
        assert (unknown.status_code, unknown.headers["access-control-allow-origin"]) == (401, PAGE)
        path = run.headers["location"]
        async with client.stream("GET", path, headers={"Origin": PAGE} | bearer(admin)) as stream:
            assert stream.headers["access-control-allow-origin"] == PAGE
            assert "RunFinished" in (await stream.aread()).decode()
        for origin in (
            "https://app.example.com.evil.example",
            "https://evil.example",
            "null",
            "http://app.example.com",
        ):
            other = await client.get("/healthz", headers={"Origin": origin})
            assert "access-control-allow-origin" not in other.headers
            preflight = await client.options("/runs", headers={"Origin": origin} | PREFLIGHT)
            assert "access-control-allow-origin" not in preflight.headers


@pytest.mark.parametrize("origin", ["*", "https://a.example/", "a.example", "https://*.example.com", "null"])
def test_what_is_no_exact_origin_is_refused(origin: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        Settings(cors_origins=origin)


async def test_the_host_that_is_named_changes_nothing(sqlite_url: str) -> None:
    async with running(sqlite_url, Hello) as client:
        await first_key(client)
        for host in ("localhost", "evil.example", "127.0.0.1/healthz?", "x/healthz#"):
            assert (await client.get("/runs", headers={"Host": host})).status_code in {400, 401}


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://localhost.evil.example", "http://127.0.0.1.nip.io", "null", ""]
)
async def test_a_page_from_elsewhere_cannot_use_an_open_service(sqlite_url: str, origin: str) -> None:
    async with running(sqlite_url, Hello) as client:
        run = await client.finish("hello")
        for method, path in (
            ("POST", "/workflows/hello/runs"),
            ("POST", f"/runs/{run['run_id']}/retry"),
            ("GET", "/runs"),
        ):
            refused = await client.request(method, path, headers={"Origin": origin}, content=b"")
            problem_of(refused, 403, "other_origin")
        assert len((await client.get("/runs")).json()["items"]) == 1


async def test_a_page_of_this_machine_or_a_named_origin_may(sqlite_url: str) -> None:
    async with running(sqlite_url, Hello, cors_origins=PAGE) as client:
        for origin in ("http://localhost:5173", "http://127.0.0.1:8000", "http://[::1]", PAGE):
            assert (await client.get("/runs", headers={"Origin": origin})).status_code == 200
        admin = await first_key(client)
        answer = await client.get("/runs", headers={"Origin": "https://evil.example"} | bearer(admin))
        assert answer.status_code == 200, "who has a key has said who he is"
