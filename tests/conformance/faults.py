"""The faults: processes killed and put to sleep at random moments, and started or woken again."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.support.cluster import Cluster, Member
from tests.support.tables import query

REST_SECONDS = 0.3
"""Least time between two faults."""


@dataclass
class Fault:
    """Something that befell one process; times on the wall clock."""

    kind: str
    member: str
    process_id: int
    begun_at: float
    ended_at: float = 0.0
    victims: list[str] = field(default_factory=list)
    """Runs that the process was executing, as the tables said just before."""


@dataclass
class Faults:
    """Everything that was done to the cluster."""

    cluster: Cluster
    lease_seconds: float
    chance: random.Random
    done: list[Fault] = field(default_factory=list)
    _spared: dict[str, float] = field(default_factory=dict)
    """Members that nothing may befall until a moment of `time.monotonic`, so that somebody can take over in peace."""

    async def rage(self, seconds: float) -> None:
        """Let so many seconds of faults come over the cluster, and leave it whole: every process up, none asleep."""
        deadline = time.monotonic() + seconds
        healing: set[asyncio.Task[None]] = set()
        several = len(self.cluster.members) > 1
        while (now := time.monotonic()) < deadline:
            candidates = [
                member for member in self.cluster.members if member.up and self._spared.get(member.name, 0) < now
            ]
            if candidates:
                member = self.chance.choice(candidates)
                healing.add(asyncio.create_task(self._strike(member)))
            await asyncio.sleep(REST_SECONDS + self.chance.expovariate(1 / 1.5 if several else 4))
        await asyncio.gather(*healing)

    @property
    def counts(self) -> Counter[str]:
        """How many of each kind."""
        return Counter(fault.kind for fault in self.done)

    async def _strike(self, member: Member) -> None:
        if self.chance.random() < 0.55:
            await self._kill(member)
        else:
            await self._freeze(member)

    async def _kill(self, member: Member) -> None:
        fault = await self._begin("kill", member)
        others = [other for other in self.cluster.executors if other.up]
        if others and self.chance.random() < 0.6:
            self._spared[self.chance.choice(others).name] = time.monotonic() + self.lease_seconds + 2.5
        member.kill()
        await asyncio.sleep(self.chance.choice([0, 0, 0.5, self.lease_seconds + 2]))
        try:
            await member.start()
        finally:
            fault.ended_at = time.time()

    async def _freeze(self, member: Member) -> None:
        """Sometimes for a moment, sometimes through the lease."""
        fault = await self._begin("stop", member)
        member.freeze()
        await asyncio.sleep(self.chance.choice([0.1, 0.5, self.lease_seconds + self.chance.uniform(0.5, 2.5)]))
        fault.ended_at = time.time()
        member.thaw()

    async def _begin(self, kind: str, member: Member) -> Fault:
        member.up = False
        victims: list[str] = []
        if member in self.cluster.executors:
            victims = await asyncio.to_thread(self._runs_of, member.pid)
        fault = Fault(kind, member.name, member.pid, time.time(), victims=victims)
        self.done.append(fault)
        return fault

    def _runs_of(self, process_id: int) -> list[str]:
        sql = (
            "SELECT run_id FROM runs JOIN workers USING (worker_id)"
            " WHERE runs.status = 'running' AND workers.process_id = :process"
        )
        return [row["run_id"] for row in query(self.cluster.database_url, sql, process=process_id)]
