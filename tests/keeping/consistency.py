"""Whether a database is whole, as plain SQL sees it."""

import json
from typing import Any

from app.workflow.patches import apply_patch
from tests.support.tables import query


def check_whole(database_url: str) -> None:
    """Fail when anything is there in part: a log, a history, an end."""
    events = query(database_url, "SELECT run_id, sequence, event FROM run_events ORDER BY run_id, sequence")
    logs: dict[str, list[tuple[int, str]]] = {}
    for row in events:
        logs.setdefault(row["run_id"], []).append((row["sequence"], row["event"]))
    runs = {row["run_id"]: row for row in query(database_url, "SELECT * FROM runs")}
    assert set(logs) <= set(runs), "events of runs that are not there"
    for run_id, run in runs.items():
        log = logs.get(run_id, [])
        assert [sequence for sequence, _ in log] == list(range(1, len(log) + 1)), f"{run_id}: a log with gaps"
        finished = [event for _, event in log if event == "RunFinished"]
        ended = run["status"] in {"completed", "failed", "cancelled"}
        assert len(finished) == int(ended), f"{run_id} is {run['status']}, with {len(finished)} ends"
        assert not ended or log[-1][1] == "RunFinished"
    for session in query(database_url, "SELECT * FROM sessions"):
        revisions = revisions_of(database_url, session["session_id"])
        assert [row["revision"] for row in revisions] == list(range(1, session["revision"] + 1)), "a history with gaps"
        assert session["active_run_id"] is None or session["active_run_id"] in runs
        replayed(revisions)


def revisions_of(database_url: str, session_id: str) -> list[dict[str, Any]]:
    """The rows of a session's history."""
    return query(
        database_url,
        "SELECT * FROM session_revisions WHERE session_id = :session ORDER BY revision",
        session=session_id,
    )


def replayed(revisions: list[dict[str, Any]]) -> Any:
    """The state that a history leads to, each snapshot on the way compared with it."""
    state: Any = {}
    for row in revisions:
        state = apply_patch(state, json.loads(row["patch"]))
        assert row["snapshot"] is None or json.loads(row["snapshot"]) == state
    return state
