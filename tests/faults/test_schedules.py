"""Each tick has exactly one run, over several processes that are killed meanwhile."""

import asyncio
import itertools
import random
from collections import Counter
from datetime import UTC, datetime

import pytest

from app import Workflow
from tests.support.cluster import cluster
from tests.support.tables import query

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(240)]

SCHEDULES = 3
KILLS = 4


class Ticking(Workflow):
    async def run(self) -> str:
        return "tick"


async def test_each_tick_has_one_run(database_url: str) -> None:
    chance = random.Random(3)
    settings = {"schedule_grace_seconds": 3600, "lease_seconds": 2}
    async with cluster(database_url, Ticking, servers=2, workers=1, **settings) as members:
        async with members.client() as client:
            for number in range(SCHEDULES):
                body = {"name": f"s{number}", "workflow": "ticking", "cron": "* * * * * *"}
                assert (await client.post("/schedules", json=body)).status_code == 201
        began = datetime.now(UTC)
        for _ in range(KILLS):
            await asyncio.sleep(chance.uniform(0.3, 1.5))
            chance.choice(members.members).kill()
            await members.whole()
        await asyncio.sleep(1)
        ended = datetime.now(UTC)
    runs = query(database_url, "SELECT run_id, annotations FROM runs")
    ticks = {
        row["run_id"]: (row["schedule_id"], str(row["tick_at"])[:19])
        for row in query(database_url, "SELECT run_id, schedule_id, tick_at FROM schedule_ticks")
    }
    assert set(ticks) == {row["run_id"] for row in runs}, "a run for each tick that is noted, and no other"
    assert max(Counter(ticks.values()).values()) == 1
    for schedule in {schedule for schedule, _ in ticks.values()}:
        seconds = sorted(datetime.fromisoformat(tick) for of, tick in ticks.values() if of == schedule)
        gaps = {(later - earlier).total_seconds() for earlier, later in itertools.pairwise(seconds)}
        assert gaps == {1.0}, "no tick is left out"
        assert len(seconds) > (ended - began).total_seconds() * 0.6
    assert len({schedule for schedule, _ in ticks.values()}) == SCHEDULES
