"""The figures of a server that works, and what the dashboard and the alerts make of them."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from app import RunResponse, Workflow
from tests.promises.test_7_runs_go_on import Steady
from tests.support.cluster import ROOT, cluster
from tests.support.server import Client, running
from tests.support.tables import execute
from tests.support.waiting import until

DASHBOARD = ROOT / "deploy" / "grafana" / "millstream.json"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
NAME = re.compile(r"\b(?:millstream|process)_\w+")


class Talker(Workflow):
    async def run(self, events: int = 3, seconds: float = 0.0, fail: bool = False) -> AsyncIterator[RunResponse]:
        for number in range(events):
            yield RunResponse(content=f"{number}")
            await asyncio.sleep(seconds)
        if fail:
            raise ValueError


class Figures(dict[str, float]):
    """Samples by their name and labels, as they are written."""

    def total(self, name: str) -> float:
        """The sum of all samples of a name."""
        return sum(value for sample, value in self.items() if sample.partition("{")[0] == name)


async def scraped(client: Client) -> Figures:
    """The samples of now."""
    text = (await client.get("/metrics")).text
    found = re.findall(r"^([a-z_]+(?:\{.*\})?) (\S+)$", text, re.MULTILINE)
    return Figures({sample: float(value) for sample, value in found})


async def test_runs_commits_and_requests_are_counted(database_url: str) -> None:
    async with running(database_url, Talker, max_body_bytes=2000) as client:
        before = await scraped(client)
        assert before['millstream_runs_finished_total{status="failed",workflow="talker"}'] == 0, "there from the start"
        for _ in range(3):
            await client.finish("talker")
        await client.finish("talker", fail=True)
        run = await client.finish("talker", seconds=0.1)
        assert len(await client.events(run["run_id"])) == 5
        await client.get("/nothing/of/that/name")
        await client.patch("/sessions/none/state", json={"a": "x" * 3000})
        await asyncio.sleep(0.6)  # the event loop is asked twice a second
        after = await scraped(client)
    assert after['millstream_runs_started_total{workflow="talker"}'] == 5
    assert after['millstream_runs_finished_total{status="completed",workflow="talker"}'] == 4
    assert after['millstream_run_duration_seconds_count{workflow="talker"}'] == 5
    assert after['millstream_run_duration_seconds_bucket{le="0.1",workflow="talker"}'] <= 4
    assert after['millstream_http_requests_total{method="GET",route="/runs/{run_id}/events",status="2xx"}'] == 1
    assert after['millstream_http_requests_total{method="GET",route="(none)",status="4xx"}'] == 1
    assert after['millstream_requests_refused_total{code="body_too_large"}'] == 1
    assert after["millstream_event_commit_events_sum"] >= 5 * 3
    assert after["millstream_event_commit_seconds_count"] == after["millstream_event_commit_events_count"]
    assert after["millstream_database_up"] == 1
    assert after["millstream_event_loop_lag_seconds_count"] > 0
    assert not any(run["run_id"] in sample for sample in after)


async def test_the_queue_is_seen_with_its_age(database_url: str) -> None:
    async with running(database_url, Talker) as client:
        named = {"session_id": "s"}
        live = await client.start("talker", named, events=100, seconds=0.5)
        waiting = [await client.start("talker", named) for _ in range(2)]
        long_ago = "datetime('now', '-1 hour')" if database_url.startswith("sqlite") else "now() - interval '1 hour'"
        await asyncio.sleep(1.1)
        oldest = waiting[0]["run_id"]
        execute(database_url, f"UPDATE runs SET created_at = {long_ago} WHERE run_id = :run", run=oldest)
        found = await scraped(client)
        assert found["millstream_runs_queued"] == 2
        assert 3590 < found["millstream_runs_queued_oldest_seconds"] < 3700
        assert found["millstream_runs_live"] == 1
        for run in (waiting[1], waiting[0], live):
            await client.post(f"/runs/{run['run_id']}/cancel")
            await client.ended(run["run_id"])
        await asyncio.sleep(1.1)
        found = await scraped(client)
        assert found["millstream_runs_queued"] == found["millstream_runs_queued_oldest_seconds"] == 0
        assert found['millstream_runs_finished_total{status="cancelled",workflow="talker"}'] == 3


async def test_streams_their_lag_and_readers_that_are_dropped(database_url: str) -> None:
    async with running(database_url, Talker, send_timeout_seconds=1.5) as client:
        run = await client.start("talker", events=60_000)
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port, limit=1024)
        path = f"/runs/{run['run_id']}/events"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await reader.read(100)  # and then nothing more

        async def behind() -> bool:
            found = await scraped(client)
            lagging = found["millstream_stream_lag_seconds"] > 0.3 and found["millstream_stream_lag_events"] > 100
            return lagging and found["millstream_streams_open"] == 1

        await until(behind, 30)

        async def dropped() -> bool:
            found = await scraped(client)
            return found["millstream_readers_dropped_total"] == 1 and found["millstream_streams_open"] == 0

        await until(dropped, 30)
        found = await scraped(client)
        assert found["millstream_stream_lag_events"] == found["millstream_stream_lag_seconds"] == 0
        writer.close()
        await client.ended(run["run_id"], 60)


@pytest.mark.slow
async def test_recoveries_are_counted(database_url: str, tmp_path: Path) -> None:
    async with cluster(database_url, Steady, servers=2, workers=0, lease_seconds=1) as members:
        async with members.client() as client:
            run = await client.start("steady", ledger=str(tmp_path / "ledger"), seconds=0.5)
        members.servers[0].kill()
        if len(members.servers) == 1:
            await members.servers[0].start()
        async with members.client(-1) as client:
            await client.ended(run["run_id"], 30)
            assert (await scraped(client))["millstream_recoveries_total"] == 1


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_a_database_that_is_away_is_a_figure(database_url: str) -> None:
    name = database_url.rpartition("/")[2]
    async with running(database_url, Talker) as client:
        await client.finish("talker")
        await asyncio.sleep(1.1)
        execute(database_url.replace(name, "postgres"), f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
        execute(database_url.replace(name, "postgres"), kill, name=name)
        text = (await client.get("/metrics")).text
        assert "\nmillstream_database_up 0.0\n" in text
        assert "\nmillstream_runs_queued NaN\n" in text
        assert 'millstream_runs_finished_total{status="completed",workflow="talker"} 1.0' in text
        execute(database_url.replace(name, "postgres"), f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


async def test_labels_are_not_what_callers_send(sqlite_url: str) -> None:
    async with running(sqlite_url, Talker) as client:
        await client.get("/healthz")
        before = len(await scraped(client))
        for number in range(50):
            await client.get(f"/nothing/{number}")
            await client.get(f"/runs/{number}")
            await client.post(f"/workflows/w{number}/runs", json={"input": {}})
            await client.request("PROPFIND", f"/{number}")
        assert len(await scraped(client)) - before <= 16


def queries() -> dict[str, str]:
    """The queries of all panels and alerts, by what they are for."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found = {f"{panel['title']} {target['refId']}": target["expr"] for panel in panels for target in panel["targets"]}
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    return found | {rule["alert"]: rule["expr"] for rule in rules}


async def test_dashboard_and_alerts_ask_for_what_there_is(sqlite_url: str) -> None:
    async with running(sqlite_url, Talker, max_body_bytes=2000) as client:
        await client.finish("talker")
        await client.patch("/sessions/none/state", json={"a": "x" * 3000})
        text = (await client.get("/metrics")).text
    samples = set(re.findall(r"^(\w+)(?:\{| )", text, re.MULTILINE))
    families = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    samples |= {family for family in families if family == "millstream_webhook_deliveries_total"}  # none was tried yet
    asked = {name for query in queries().values() for name in NAME.findall(query)}
    assert len(asked) > 20
    assert asked - samples == set()
    shown = {name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name in asked}
    own = {family for family in families if family.startswith("millstream_") and not family.endswith("_created")}
    assert own - shown == {"millstream_database_up"} - asked, "a figure that nobody looks at"


def test_the_dashboard_is_one_that_grafana_reads() -> None:
    board: dict[str, Any] = json.loads(DASHBOARD.read_text())
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) >= 15
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]}
    assert len(places) == len(board["panels"])
    for panel in board["panels"]:
        assert panel["type"] == "timeseries"
        assert all('job=~"$job"' in target["expr"] for target in panel["targets"])


def test_the_picture_shows_every_panel() -> None:
    picture = (ROOT / "docs" / "dashboard.svg").read_text()
    assert len(picture) < 300_000
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        assert f">{panel['title']}</text>" in picture


def test_prometheus_takes_the_alerts(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("NO PROMTOOL: install it (apt-get install prometheus); the alerts go unchecked")
    done = subprocess.run([promtool, "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "cases.yml").write_text(CASES.format(rules=ALERTS))
    done = subprocess.run(
        [promtool, "test", "rules", str(tmp_path / "cases.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


CASES = """
rule_files: ["{rules}"]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'millstream_runs_finished_total{{job="millstream",instance="a",workflow="bakery",status="failed"}}'
        values: '0+6x60'
      - series: 'millstream_runs_finished_total{{job="millstream",instance="a",workflow="bakery",status="completed"}}'
        values: '0+6x60'
      - series: 'millstream_runs_finished_total{{job="millstream",instance="a",workflow="hello",status="failed"}}'
        values: '0+1x60'
      - series: 'millstream_runs_finished_total{{job="millstream",instance="a",workflow="hello",status="completed"}}'
        values: '0+60x60'
      - series: 'millstream_runs_queued_oldest_seconds{{job="millstream",instance="a"}}'
        values: '0+60x60'
      - series: 'millstream_runs_live{{job="millstream",instance="a"}}'
        values: '0x60'
      - series: 'millstream_database_up{{job="millstream",instance="a"}}'
        values: '1x60'
    alert_rule_test:
      - eval_time: 40m
        alertname: MillstreamRunsFail
        exp_alerts:
          - exp_labels: {{severity: warning, job: millstream, workflow: bakery}}
            exp_annotations:
              summary: "50% of the runs of bakery fail"
              remedy: "`millstream runs list --status=failed`"
      - eval_time: 40m
        alertname: MillstreamQueueStands
        exp_alerts:
          - exp_labels: {{severity: critical, job: millstream}}
            exp_annotations:
              summary: "a run waits for 40m 0s, and none executes"
              remedy: "start a worker; `millstream doctor` says what is missing"
      - eval_time: 40m
        alertname: MillstreamDatabaseAway
        exp_alerts: []
"""
