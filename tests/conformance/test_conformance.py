"""The short form; `make conformance` is the long one."""

from pathlib import Path

import pytest

from tests.conformance.trial import trial


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", [7])
async def test_every_promise_holds_while_processes_die_and_sleep(database_url: str, tmp_path: Path, seed: int) -> None:
    verdict = await trial(database_url, tmp_path, seconds=12, seed=seed)
    report = "\n".join(verdict.lines())
    print(report)
    assert not verdict.wrong, report
