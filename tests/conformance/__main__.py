"""The long form: `SECONDS=60 SEED=1 python -m tests.conformance [sqlite|postgres …]`."""

import asyncio
import os
import random
import sys
import tempfile
from pathlib import Path

from app.store.migrations import migrate
from tests.conformance.trial import trial
from tests.support import databases


def main(chosen: list[str]) -> int:
    """Each database in its turn; 0 if every promise held on both."""
    seconds, seed = float(os.environ.get("SECONDS", "60")), int(os.environ.get("SEED", random.randrange(10**6)))
    broken = 0
    for name in chosen or ["sqlite", "postgres"]:
        print(f"{name}: {seconds:g} s of faults, SEED={seed}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            broken += not (_on_sqlite if name == "sqlite" else _on_postgres)(Path(folder), seconds, seed)
    return 1 if broken else 0


def _on_sqlite(folder: Path, seconds: float, seed: int) -> bool:
    return _judge(f"sqlite:///{folder}/millstream.db", folder, seconds, seed)


def _on_postgres(folder: Path, seconds: float, seed: int) -> bool:
    if not databases.postgres_answers():
        print(f"  NO POSTGRES at {databases.POSTGRES}: set MILLSTREAM_TEST_POSTGRES", flush=True)
        return False
    with databases.copy_of_postgres(None) as url:
        migrate(url)
        return _judge(url, folder, seconds, seed)


def _judge(database_url: str, folder: Path, seconds: float, seed: int) -> bool:
    verdict = asyncio.run(trial(database_url, folder, seconds=seconds, seed=seed))
    for line in verdict.lines():
        print(line, flush=True)
    print("  every promise held" if not verdict.wrong else f"  {len(verdict.wrong)} broken", flush=True)
    return not verdict.wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
