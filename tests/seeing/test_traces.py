"""One trace from the request over run and step to the model, over the queue, other processes and a crash."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app import Agent, RunResponse, Workflow
from tests.seeing.collector import Collector, Span, collecting
from tests.support.cluster import cluster
from tests.support.server import running
from tests.support.tables import query
from tests.support.waiting import until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
SECRET = "the-orchid-opens-at-four"


class Traced(Workflow):
    """Steps, in a thread."""

    writer = Agent(instructions=["Write."], model="test")

    def run(self, topic: str, gate: str | None = None) -> Iterator[RunResponse]:
        yield RunResponse(content=self.step(str.upper, topic, name="think"))
        if gate is not None:
            self.step(waited, gate, name="wait")
        yield from self.writer.run(topic, stream=True)
        self.session_state["topic"] = topic


class AsyncTraced(Workflow):
    """The same on the event loop, and a step that fails."""

    writer = Agent(instructions=["Write."], model="test")

    async def run(self, topic: str) -> AsyncIterator[RunResponse]:
        yield await self.writer.run(topic)
        async for piece in self.writer.run(topic + "!", stream=True):
            yield piece
        await self.step(burned, topic, name="burn")


def burned(topic: str) -> None:
    raise ValueError(topic)


def waited(gate: str) -> None:
    """Begin to wait, and wait until somebody opens."""
    Path(gate + ".begun").touch()
    while not Path(gate).exists():
        time.sleep(0.02)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
        monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")  # whose spans would carry queries
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        yield found


async def spans_of(collector: Collector, name: str) -> list[Span]:
    """Those of a name, once one is there."""

    async def look() -> list[Span]:
        return collector.named(name)

    return await until(look)


async def test_one_trace_from_the_request_to_the_model(database_url: str, collector: Collector) -> None:
    async with running(database_url, Traced, AsyncTraced) as client:
        headers = {"traceparent": TRACEPARENT}
        started = await client.post("/workflows/traced/runs", json={"input": {"topic": SECRET}}, headers=headers)
        run = await client.ended(started.json()["run_id"])
        assert run["status"] == "completed", run
        failed = await client.post("/workflows/async-traced/runs", json={"input": {"topic": SECRET}}, headers=headers)
        await client.ended(failed.json()["run_id"])
    assert len({span.span_id for span in collector.spans}) == len(collector.spans)
    (request,) = collector.named("POST /workflows/{name}/runs")[:1]
    assert (request.trace_id, request.parent) == (TRACE, CALLER)
    assert request.attributes["http.response.status_code"] == 202
    (executed,) = collector.named("run traced")
    assert (executed.trace_id, executed.parent) == (TRACE, request.span_id)
    assert executed.attributes["millstream.run_id"] == run["run_id"]
    assert executed.attributes["millstream.status"] == "completed"
    (thought,) = collector.named("step think")
    assert (thought.trace_id, thought.parent) == (TRACE, executed.span_id)
    by_id = {span.span_id: span for span in collector.spans}
    models = [span for span in collector.spans if span.attributes.get("gen_ai.operation.name") == "chat"]
    assert len(models) == 3
    for model in models:
        assert model.trace_id == TRACE
        assert "step writer" in {span.name for span in ancestors(model, by_id)}
    (burned,) = collector.named("step burn")
    assert burned.failed
    assert burned.attributes == {"error.type": "ValueError"}
    assert {span.name.split(" ")[0] for span in collector.spans if not span.parent} <= {"GET", "POST"}
    assert not any(name.startswith("url.") for span in collector.spans for name in span.attributes)
    others = collector.named("GET /runs/{run_id}")
    assert {span.trace_id for span in others}.isdisjoint({TRACE})
    assert not any(SECRET.encode() in raw for raw in collector.raw)


def ancestors(span: Span, by_id: dict[str, Span]) -> Iterator[Span]:
    """The spans around it."""
    while (found := by_id.get(span.parent)) is not None:
        yield found
        span = found


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_a_trace_goes_on_in_another_process(database_url: str, collector: Collector) -> None:
    async with cluster(database_url, Traced, servers=1, workers=1) as members, members.client() as client:
        started = await client.post(
            "/workflows/traced/runs", json={"input": {"topic": "rye"}}, headers={"traceparent": TRACEPARENT}
        )
        await client.ended(started.json()["run_id"])
        (executed,) = await spans_of(collector, "run traced")
        (request,) = await spans_of(collector, "POST /workflows/{name}/runs")
        assert (executed.trace_id, executed.parent) == (TRACE, request.span_id)


@pytest.mark.slow
async def test_a_trace_survives_a_kill(database_url: str, collector: Collector, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with cluster(database_url, Traced, servers=1, workers=1, lease_seconds=1) as members:
        async with members.client() as client:
            started = await client.post(
                "/workflows/traced/runs",
                json={"input": {"topic": "rye", "gate": str(gate)}},
                headers={"traceparent": TRACEPARENT},
            )

            await until(lambda: asyncio.to_thread(Path(f"{gate}.begun").exists), 20)
            members.executors[0].kill()
            gate.touch()
            await members.executors[0].start()
            run = await client.ended(started.json()["run_id"], 30)
            assert (run["status"], run["attempt"]) == ("completed", 2)
        (executed,) = await spans_of(collector, "run traced")
        assert executed.trace_id == TRACE
        assert executed.attributes["millstream.attempt"] == 2
        (waited,) = await spans_of(collector, "step wait")
        assert waited.parent == executed.span_id


async def test_without_a_collector_nothing_of_it_is_there(database_url: str, sqlite_url: str) -> None:
    async with running(database_url, Traced) as client:
        await client.post(
            "/workflows/traced/runs",
            json={"input": {"topic": "rye"}, "session_id": "s"},
            headers={"traceparent": TRACEPARENT},
        )
    (row,) = query(database_url, "SELECT traceparent FROM runs")
    assert row["traceparent"] is None
    script = (
        "import sys; from app.settings import Settings; from app.main import Millstream;"
        f"Millstream(Settings(database_url={sqlite_url!r}));"
        "loaded = ('opentelemetry.sdk', 'opentelemetry.exporter', 'app.tracing');"
        "print([name for name in sys.modules if name.startswith(loaded)])"
    )
    process = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert process.stdout.strip() == "[]"


async def test_a_traceparent_that_is_none_starts_a_trace(sqlite_url: str, collector: Collector) -> None:
    async with running(sqlite_url, Traced) as client:
        await client.get("/healthz", headers={"traceparent": "00-zz-yy-01"})
        await client.get("/healthz", headers={b"traceparent": b"\xfc" * 10_000})
    assert [span.parent for span in collector.named("GET /healthz")] == ["", ""]


async def test_a_collector_that_is_away_keeps_nobody(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    began = time.monotonic()
    async with running(sqlite_url, Traced) as client:
        assert (await client.finish("traced", topic="rye"))["status"] == "completed"
    assert time.monotonic() - began < 15
