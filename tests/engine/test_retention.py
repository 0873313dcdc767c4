"""Removing old events: a few at a time, by one process at a time, to the end whatever happens, and without a search."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from app import RunResponse, Workflow
from app.store.database import sync_url
from tests.support.ages import SECOND_IN_DAYS, events_left, half_remove, removed
from tests.support.cluster import cluster
from tests.support.problems import problem_of
from tests.support.processes import server_process
from tests.support.server import Client, running
from tests.support.tables import execute, query
from tests.support.waiting import until

LONG = 30_000
ROWS_PER_BATCH = 500


NUMBERS = """
    SELECT CAST(number AS text) AS id, number + 1 AS following FROM (
        WITH RECURSIVE numbers(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < 30000)
        SELECT number FROM numbers
    ) AS counted
"""


class Talk(Workflow):
    """Says things."""

    async def run(self, count: int) -> AsyncIterator[RunResponse]:
        for number in range(count - 2):
            yield RunResponse(content=number)


async def talk(client: Client, *counts: int) -> list[str]:
    """Runs that have said so many things each, and ended."""
    runs = [(await client.start("talk", count=count))["run_id"] for count in counts]
    return [(await client.ended(run_id, seconds=60))["run_id"] for run_id in runs]


def lengthen(database_url: str, run_id: str) -> None:
    """Have the run's log be a long one; what stands in it does not matter."""
    execute(
        database_url,
        "UPDATE run_events SET sequence = :last WHERE run_id = :run AND sequence = 2",
        last=LONG,
        run=run_id,
    )
    columns = "tenant_id, run_id, sequence, event, payload"
    execute(
        database_url,
        f"INSERT INTO run_events ({columns}) SELECT tenant_id, run_id, following, event, payload FROM run_events"
        f" JOIN ({NUMBERS}) AS many ON run_id = :run AND sequence = 1 AND following < :last",
        run=run_id,
        last=LONG,
    )
    assert events_left(database_url, run_id) == LONG


async def test_a_kill_in_the_middle_of_a_removal_leaves_no_part_of_a_log(database_url: str) -> None:
    async with running(database_url, Talk) as client:
        (run_id,) = await talk(client, 2)
    lengthen(database_url, run_id)
    async with server_process(database_url, Talk, event_retention_days=SECOND_IN_DAYS / 10) as server:

        async def under_way() -> bool:
            return events_left(database_url, run_id) < LONG

        await until(under_way, seconds=30)
        server.kill()
    async with server_process(database_url, Talk) as server:
        left = events_left(database_url, run_id)
        assert 0 < left < LONG
        assert left % ROWS_PER_BATCH == 0, "a batch is removed whole, or not at all"
        for after in (0, LONG - left, LONG - 1):
            answer = await server.client.get(f"/runs/{run_id}/events", params={"after": after})
            problem_of(answer, 410, "events_gone")
        end = await server.client.get(f"/runs/{run_id}/events", params={"after": LONG})
        assert end.status_code == 204
        assert events_left(database_url, run_id) == left, "without the setting nothing is removed"
    async with server_process(database_url, Talk, event_retention_days=SECOND_IN_DAYS / 10) as server:
        await removed(database_url, run_id)
        assert (await server.client.get(f"/runs/{run_id}")).json()["status"] == "completed"


async def test_no_transaction_removes_more_than_a_few(database_url: str) -> None:
    async with running(database_url, Talk) as client:
        runs = await talk(client, 1200, 499, 2, 500, 501, 3, 250, 251)
    steps: list[int] = []

    def left() -> int:
        return int(query(database_url, "SELECT count(*) AS events FROM run_events")[0]["events"])

    async def watch() -> None:
        before = left()
        while before:
            await asyncio.sleep(0.01)  # less than the pause between two batches, so that each is seen by itself
            now = left()
            if now < before:
                steps.append(before - now)
            before = now

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    async with running(database_url, Talk, event_retention_days=SECOND_IN_DAYS / 10):
        await watching
        await removed(database_url, *runs)
    assert sum(steps) == 1200 + 499 + 2 + 500 + 501 + 3 + 250 + 251
    assert max(steps) <= ROWS_PER_BATCH


async def test_several_processes_share_the_work(database_url: str) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("a file has one process")
    async with running(database_url, Talk) as client:
        runs = await talk(client, *[20] * 60, 3000, 3000)
    counted = len(runs[:-2]) * 20 + 6000
    async with cluster(
        database_url, Talk, servers=2, workers=0, event_retention_days=SECOND_IN_DAYS / 10, log_level="info"
    ) as members:
        await removed(database_url, *runs)
        figures = [await figure(members.client(number)) for number in range(2)]
        assert sum(figures) == counted, "an event is removed once"
        said = "".join(member.said() for member in members.members)
        assert "retention_failed" not in said
        assert "database_unavailable" not in said


async def figure(client: Client) -> int:
    """How many events a server says it has removed."""
    async with client:
        text = (await client.get("/metrics")).text
    return int(float(text.partition("\nmillstream_events_removed_total ")[2].split()[0]))


async def test_sessions_are_deleted_while_their_events_are_removed(database_url: str) -> None:
    sessions = 12
    async with running(database_url, Talk) as client:
        for number in range(sessions):
            for _ in range(3):
                await client.start("talk", {"session_id": f"s{number}"}, count=60)
        for run in (await client.get("/runs?limit=200")).json()["items"]:
            await client.ended(run["run_id"])
    async with running(database_url, Talk, event_retention_days=SECOND_IN_DAYS / 10) as client:
        answers = await asyncio.gather(*(client.delete(f"/sessions/s{number}") for number in range(sessions)))
        assert {answer.status_code for answer in answers} == {204}, "neither waits for the other for ever"
    assert query(database_url, "SELECT * FROM run_events") == []
    assert query(database_url, "SELECT * FROM runs") == []


def plan(database_url: str, sql: str) -> str:
    """How the database goes about a query, with as much in its tables as to make it choose."""
    engine = create_engine(sync_url(database_url), poolclass=NullPool)
    explain = "EXPLAIN QUERY PLAN " if database_url.startswith("sqlite") else "EXPLAIN "
    with engine.connect() as connection:
        return "\n".join(str(row) for row in connection.execute(text(explain + sql)))


DUE = """
    SELECT run_id FROM runs WHERE tenant_id = 'default' AND finished_at <= '2100-01-01' AND finished_at IS NOT NULL
    AND events_gone_at IS NULL ORDER BY finished_at LIMIT 100
"""


async def test_the_runs_that_are_due_are_found_without_a_search(database_url: str) -> None:
    async with running(database_url, Talk) as client:
        (run_id,) = await talk(client, 2)
    (row,) = query(database_url, "SELECT * FROM runs")
    changed = {"run_id": "id", "ordinal": "following", "events_gone_upto": "2", "events_gone_at": "finished_at"}
    copied = ", ".join(changed.get(column, column) for column in row)
    execute(
        database_url,
        f"INSERT INTO runs ({', '.join(row)}) SELECT {copied} FROM runs JOIN ({NUMBERS}) AS many ON run_id = :run",
        run=run_id,
    )
    if not database_url.startswith("sqlite"):
        execute(database_url, "ANALYZE runs")
    found = plan(database_url, DUE)
    assert "ix_runs_retention" in found, found
    assert "Sort" not in found
    assert "TEMP B-TREE" not in found


async def test_an_interrupted_removal_is_found_again_by_its_run(database_url: str) -> None:
    async with running(database_url, Talk) as client:
        runs = await talk(client, 700, 20)
    for run_id in runs:
        half_remove(database_url, run_id, upto=10)
    execute(database_url, "DELETE FROM run_events WHERE run_id = :run", run=runs[1])
    async with running(database_url, Talk, event_retention_days=SECOND_IN_DAYS / 10):
        await removed(database_url, *runs)


@pytest.mark.parametrize("days", ["0", "-1", "never", "1e9"])
async def test_an_age_that_is_none_stops_the_start(sqlite_url: str, days: str) -> None:
    with pytest.raises(RuntimeError, match="MILLSTREAM_EVENT_RETENTION_DAYS"):
        async with server_process(sqlite_url, Talk, event_retention_days=days):
            pass
