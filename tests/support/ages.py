"""Logs that retention has removed, or was removing when its process died."""

from tests.support.tables import execute, query
from tests.support.waiting import until

SECOND_IN_DAYS = 1 / 86_400


async def removed(database_url: str, *run_ids: str) -> None:
    """Wait until nothing is left of the runs' events."""

    async def gone() -> bool:
        closed = query(database_url, "SELECT run_id FROM runs WHERE events_gone_at IS NOT NULL")
        return set(run_ids) <= {row["run_id"] for row in closed}

    await until(gone, seconds=90)
    for run_id in run_ids:
        assert events_left(database_url, run_id) == 0


def events_left(database_url: str, run_id: str) -> int:
    """How many of the run's events are in the log."""
    (row,) = query(database_url, "SELECT count(*) AS events FROM run_events WHERE run_id = :run", run=run_id)
    return int(row["events"])


def half_remove(database_url: str, run_id: str, upto: int) -> None:
    """Leave the run as a process does that dies in the middle of removing its events."""
    execute(
        database_url,
        "UPDATE runs SET events_gone_upto = (SELECT max(sequence) FROM run_events WHERE run_id = :run)"
        " WHERE run_id = :run",
        run=run_id,
    )
    execute(database_url, "DELETE FROM run_events WHERE run_id = :run AND sequence <= :upto", run=run_id, upto=upto)
