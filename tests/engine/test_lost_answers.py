"""Commits whose answer is lost: whether they have happened nobody knows, and nothing comes of it."""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest

from app import RunResponse, Workflow
from tests.support import databases
from tests.support.server import Client, running
from tests.support.slow_database import SlowDatabase, slow_databases
from tests.support.waiting import until

WRITES = 14
"""More than a run makes: its acceptance, its claim, each event, step and save, its pause, its end."""


class Busy(Workflow):
    """All that a run can write."""

    async def run(self) -> AsyncIterator[RunResponse]:
        yield RunResponse(content="a ")
        self.session_state["step"] = await self.step(self.work, name="first")
        yield RunResponse(content="b ")  # it waits for its commit when the save comes
        await self.write_to_storage()
        try:
            await self.wait_for_input("nobody answers", timeout_seconds=0.1)
        except TimeoutError:
            yield RunResponse(content="c ")
        await self.step(self.work, name="second")
        self.session_state["end"] = True

    async def work(self) -> int:
        return 1


class SyncBusy(Workflow):
    """The same in a thread."""

    def run(self) -> Iterator[RunResponse]:
        yield RunResponse(content="a ")
        self.session_state["step"] = self.step(self.work, name="first")
        yield RunResponse(content="b ")
        self.write_to_storage()
        try:
            self.wait_for_input("nobody answers", timeout_seconds=0.1)
        except TimeoutError:
            yield RunResponse(content="c ")
        self.step(self.work, name="second")
        self.session_state["end"] = True

    def work(self) -> int:
        return 1


async def started(client: Client, workflow: str) -> str:
    """The run, by a caller who repeats what was not answered."""
    key = {"Idempotency-Key": str(uuid4())}

    async def accepted() -> str:
        answer = await client.post(f"/workflows/{workflow}/runs", json={"input": {}}, headers=key)
        return str(answer.json()["run_id"]) if answer.status_code == 202 else ""

    return await until(accepted)


async def check(client: Client, run_id: str) -> None:
    run = await client.ended(run_id, 30)
    assert (run["status"], run["content"]) == ("completed", "a b c "), run
    events = await client.events(run_id)
    assert [int(event.id or 0) for event in events] == list(range(1, len(events) + 1))
    names = Counter(event.event for event in events)
    assert (names["RunFinished"], names["RunPaused"], names["RunContinued"]) == (1, 1, 1)
    steps = Counter(event.data["name"] for event in events if event.event == "StepCompleted")
    assert steps == {"first": 1, "second": 1}
    saved = [event.data["revision"] for event in events if event.event == "StateSaved"]
    assert saved == [1, 2]
    state = await client.get(f"/sessions/{run['session_id']}/state")
    assert (state.json(), state.headers["ETag"]) == ({"step": 1, "end": True}, '"2"')


def lose(database: SlowDatabase, number: int) -> None:
    """The answer to so manieth write from now on."""
    lost = database.writes + number
    database.lost = lambda write: write == lost


@pytest.mark.slow
@pytest.mark.parametrize("workflow", ["busy", "sync-busy"])
async def test_whichever_answer_is_lost_the_run_ends_as_it_should(
    postgres_template: str, workflow: str, caplog: pytest.LogCaptureFixture
) -> None:
    with databases.copy_of_postgres(postgres_template) as url, slow_databases() as opened:
        async with running(url, Busy, SyncBusy) as client:
            (database,) = opened
            for number in range(1, WRITES + 1):
                lose(database, number)
                await check(client, await started(client, workflow))
            assert database.refused > WRITES / 2
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
