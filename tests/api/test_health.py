"""Routes about the process itself."""

import re

from app import Workflow, __version__
from tests.support.server import running


class Echo(Workflow):
    def run(self, fail: bool = False) -> None:
        if fail:
            raise ValueError


async def test_a_process_that_serves_says_so(database_url: str) -> None:
    async with running(database_url, Echo, lease_seconds=7) as client:
        alive, ready = await client.get("/healthz"), await client.get("/readyz")
        assert (alive.status_code, alive.json()) == (200, {"status": "alive"})
        assert ready.status_code == 200
        disk = ("disk",) if database_url.startswith("sqlite") else ()
        checks = dict.fromkeys(("draining", *disk, "database", "migrations"), "ok")
        assert ready.json() == {"status": "ready", "checks": checks}
        mode = "embedded" if database_url.startswith("sqlite") else "distributed"
        version = await client.get("/version")
        assert version.json() == {"version": __version__, "mode": mode, "lease_seconds": 7.0}


async def test_metrics_count_what_happens(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        for fail in (False, False, True):
            await client.finish("echo", fail=fail)
        answer = await client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        figures = dict(re.findall(r"^([a-z_]+(?:\{[^}]*\})?) ([0-9.e+]+)$", answer.text, re.MULTILINE))
        assert float(figures['millstream_runs_started_total{workflow="echo"}']) == 3
        assert float(figures['millstream_runs_finished_total{status="completed",workflow="echo"}']) == 2
        assert float(figures['millstream_runs_finished_total{status="failed",workflow="echo"}']) == 1
        assert float(figures["millstream_runs_live"]) == 0
        assert float(figures["millstream_streams_open"]) == 0
        assert float(figures["millstream_events_written_total"]) >= 6


async def test_the_documentation_works_without_a_network(sqlite_url: str) -> None:
    async with running(sqlite_url, Echo) as client:
        page = await client.get("/docs")
        assert page.headers["content-type"].startswith("text/html")
        addresses = re.findall(r"(?:src|href)\s*=\s*[\"']([^\"']+)", page.text) + re.findall(
            r"url:\s*'([^']+)'", page.text
        )
        assert addresses
        for address in addresses:
            if not address.startswith("data:"):
                assert not re.match(r"(?:[a-z]+:)?//", address), address
                assert (await client.get(address)).status_code == 200, address
        assert (await client.get("/")).headers["location"] == "/docs"


async def test_the_openapi_document_is_served(sqlite_url: str) -> None:
    async with running(sqlite_url, Echo) as client:
        document = (await client.get("/openapi.json")).json()
        assert document["openapi"].startswith("3.")
        assert document["info"]["version"] == __version__
