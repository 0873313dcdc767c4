"""`ROUNDS=3 SECONDS=2 python -m benchmarks [sqlite|postgres|latency|throughput|long|many|replay|states|idle …]`."""

import os
import sys

from benchmarks import table
from benchmarks.command import run
from benchmarks.comparison import GROUPS, compare
from benchmarks.goals import DATABASES
from benchmarks.samples import Samples
from tests.support import databases


async def main(chosen: list[str]) -> int:
    """Compare on each database; 1 only where something could not be measured: times decide nothing."""
    if unknown := set(chosen) - {*DATABASES, *GROUPS}:
        print(f"there is no {', '.join(sorted(unknown))}; there are {', '.join([*DATABASES, *GROUPS])}")
        return 2
    rounds, seconds = int(os.environ.get("ROUNDS", "3")), float(os.environ.get("SECONDS", "2"))
    groups = [group for group in GROUPS if group in chosen] or list(GROUPS)
    wrong = 0
    for database in [name for name in DATABASES if name in chosen] or DATABASES:
        if database == "postgres" and not databases.postgres_answers():
            print(f"NO POSTGRES at {databases.POSTGRES}: set MILLSTREAM_TEST_POSTGRES", flush=True)
            continue
        samples = {name: Samples() for name in ("ours", "bare")}
        try:
            await compare(database, samples, groups=groups, rounds=rounds, seconds=seconds)
        finally:
            print(f"\n{table.heading(table.commit())} {rounds} rounds, slices of {seconds:g} s; medians.\n", flush=True)
            print("\n".join([*table.table(database, samples), "", *table.notes(samples), ""]), flush=True)
        wrong += sum(peer.errors.total() for peer in samples.values())
    return 1 if wrong else 0


if __name__ == "__main__":
    run(main(sys.argv[1:]))
