"""`ROUNDS=3 SECONDS=1 SCALE=1 python -m benchmarks.growth [sqlite|postgres]`."""

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks import table
from benchmarks.command import run
from benchmarks.goals import DATABASES
from benchmarks.growth.aged import LARGE, OF_LARGE, OF_SMALL, SMALL, Aged
from benchmarks.growth.plans import findings
from benchmarks.growth.written import bytes_written
from benchmarks.peers import fresh_database, ours
from benchmarks.samples import Samples
from tests.plans.filling import Amounts, Filled, fill
from tests.support import databases

WORKFLOW = "benchmark"
FRESH = Amounts(sessions=400, old_runs=200, events=6_000, long_events=200)
"""Young, and still enough for full pages."""
AGED = Amounts(sessions=100_000, old_runs=10_000, events=1_000_000, long_events=10_000)
SETTLING_SECONDS = 0.1
FLAT = 1.3
"""What may be slower by this is flat."""


@dataclass(frozen=True)
class Age:
    """A database, as it was filled."""

    name: str
    url: str
    filled: Filled
    amounts: Amounts


async def main(chosen: list[str]) -> int:
    """Compare on each database; the exit code is not by time."""
    rounds, seconds = int(os.environ.get("ROUNDS", "3")), float(os.environ.get("SECONDS", "1"))
    scale = float(os.environ.get("SCALE", "1"))
    for database in [name for name in DATABASES if name in chosen] or DATABASES:
        if database == "postgres" and not databases.postgres_answers():
            print(f"NO POSTGRES at {databases.POSTGRES}: set MILLSTREAM_TEST_POSTGRES", flush=True)
            continue
        with ExitStack() as stack:
            ages = [_filled(stack, database, "fresh", FRESH), _filled(stack, database, "old", _scaled(AGED, scale))]
            samples, written = await _compare(database, ages, rounds=rounds, seconds=seconds)
            print(f"\n{table.heading(table.commit())} {rounds} rounds, slices of {seconds:g} s; medians.\n", flush=True)
            print("\n".join([*_table(database, samples, written), ""]), flush=True)
            print("\n".join([*await findings(ages[1].url, ages[1].filled), ""]), flush=True)
    return 0


async def _compare(
    database: str, ages: list[Age], *, rounds: int, seconds: float
) -> tuple[dict[str, Samples], dict[str, float]]:
    """Samples by age, and what a small change of the fresh one's states writes."""
    samples = {age.name: Samples() for age in ages}
    with ExitStack() as stack:
        aged = []
        for age in ages:
            server = stack.enter_context(ours(database).over(age.url))
            await server.ready()
            aged.append(Aged(server, samples[age.name], age.filled, age.amounts, seconds=seconds))
            await aged[-1].prepare()
            if age.name == "fresh":
                written = await bytes_written(age.url, server)
            server.hold()
        slices = [one.slices() for one in aged]
        for number in range(rounds):
            for title in slices[0]:
                for one, found in zip(aged, slices, strict=True):
                    one.server.release()
                    await asyncio.sleep(SETTLING_SECONDS)
                    await found[title]()
                    one.server.hold()
            print(f"  {database}: {number + 1} of {rounds}", flush=True)
    return samples, written


def _filled(stack: ExitStack, database: str, name: str, amounts: Amounts) -> Age:
    url, begun = stack.enter_context(fresh_database(database)), time.perf_counter()
    filled = fill(url, WORKFLOW, amounts)
    print(f"  {database}: filled a {name} one in {time.perf_counter() - begun:.0f} s: {amounts}", flush=True)
    return Age(name, url, filled, amounts)


def _scaled(amounts: Amounts, scale: float) -> Amounts:
    return Amounts(
        sessions=int(amounts.sessions * scale),
        old_runs=int(amounts.old_runs * scale),
        events=int(amounts.events * scale),
        long_events=amounts.long_events,
    )


def _table(database: str, samples: dict[str, Samples], written: dict[str, float]) -> Iterator[str]:
    fresh, old = samples["fresh"], samples["old"]
    yield f"| {database} | fresh | old | ratio | |"
    yield "|---|---:|---:|---:|---|"
    for title in fresh.rounds:
        yield _line(title, fresh.value(title), old.value(title), old.ratio(title, fresh))
    yield ""
    yield f"| {database} | 1 KB | 1 MB | ratio | |"
    yield "|---|---:|---:|---:|---|"
    small, large = fresh.value(OF_SMALL), fresh.value(OF_LARGE)
    yield _line("run of 10 events, one key changed, by the state's size, ms", small, large, _over(large, small))
    by_size = "written for a change of 1 KB, by the state's size, KB"
    yield _line(by_size, written[SMALL], written[LARGE], _over(written[LARGE], written[SMALL]))


def _line(title: str, base: float | None, value: float | None, ratio: float | None) -> str:
    verdict = "" if ratio is None else "flat" if ratio <= FLAT else "GROWS"
    return f"| {title} | {table.number(base)} | {table.number(value)} | {table.times(ratio)} | {verdict} |"


def _over(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None


if __name__ == "__main__":
    run(main(sys.argv[1:]))
