"""What must hold at the end, whatever has happened: laws over the tables, the ledger, and what callers were told."""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import jsonpatch

from tests.conformance.calls import Calls
from tests.conformance.faults import Fault, Faults
from tests.conformance.load import ENDED, Accepted, Promised
from tests.support.tables import query

WAKING_SECONDS = 1.0
"""A process that slept through its lease may be about to call a step when it wakes; no fence reaches in there."""
CRASHES_TO_LOOP = 5


@dataclass(frozen=True)
class Event:
    """A row of the log."""

    sequence: int
    name: str
    payload: str

    @property
    def data(self) -> dict[str, Any]:
        """As JSON."""
        data: dict[str, Any] = json.loads(self.payload)
        return data

    @property
    def at(self) -> float:
        """When it was said, on the wall clock."""
        return datetime.fromisoformat(self.data["created_at"]).timestamp()


@dataclass
class World:
    """All that is known at the end."""

    runs: dict[str, dict[str, Any]]
    logs: dict[str, list[Event]]
    states: dict[str, dict[str, Any]]
    """The newest state of each session, as a server gives it."""
    revisions: dict[str, list[dict[str, Any]]]
    calls: Calls
    promised: Promised
    faults: Faults
    wrong: list[str] = field(default_factory=list)
    late_calls: int = 0
    crash_loops: int = 0

    def law(self, held: bool, broken: str) -> None:
        """Note what does not hold."""
        if not held:
            self.wrong.append(broken)


def read_runs(database_url: str) -> dict[str, dict[str, Any]]:
    """The rows of all runs."""
    return {row["run_id"]: row for row in query(database_url, "SELECT * FROM runs")}


def read_logs(database_url: str) -> dict[str, list[Event]]:
    """All logs, in order."""
    logs: dict[str, list[Event]] = defaultdict(list)
    for row in query(database_url, "SELECT run_id, sequence, event, payload FROM run_events ORDER BY run_id, sequence"):
        logs[row["run_id"]].append(Event(row["sequence"], row["event"], row["payload"]))
    return logs


def check(world: World) -> list[str]:
    """The laws that are broken; none, if all is well."""
    check_acceptance(world)
    for run_id, row in world.runs.items():
        check_log(world, run_id, row)
    for run in world.promised.runs:
        check_end(world, run)
        check_reader(world, run)
    for session_id, revisions in world.revisions.items():
        check_history(world, session_id, revisions)
    check_patches(world)
    check_steps(world)
    return world.wrong


def check_acceptance(world: World) -> None:
    """What was answered 202 is there, and no key has made two runs."""
    told = {run.run_id for run in world.promised.runs}
    world.law(told <= world.runs.keys(), f"runs that were accepted and are not there: {told - world.runs.keys()}")
    world.law(
        len(world.runs) == len(world.promised.keys),
        f"{len(world.promised.keys)} Idempotency-Keys made {len(world.runs)} runs",
    )


def check_log(world: World, run_id: str, row: dict[str, Any]) -> None:
    """Every run has ended, once; its log is 1..n and says the same as its row."""
    events = world.logs[run_id]
    status = row["status"]
    world.law(status in ENDED, f"run {run_id} has not ended: it is {status}")
    numbers = [event.sequence for event in events]
    world.law(numbers == list(range(1, len(events) + 1)), f"run {run_id} has events {numbers}")
    inside = [event.data["sequence"] for event in events]
    world.law(inside == numbers, f"run {run_id}: sequences in payloads are {inside}")
    ends = [event for event in events if event.name == "RunFinished"]
    world.law(len(ends) == 1 and ends[0] is events[-1], f"run {run_id} has {len(ends)} ends, the log {_names(events)}")
    if ends:
        said = ends[0].data
        world.law(said["status"] == status, f"run {run_id} is {status}, its last event says {said['status']}")
        revision = row["session_revision"]
        world.law(said["session_revision"] == revision, f"run {run_id}: revision {revision} against {said}")
    begun = [event for event in events if event.name == "WorkflowStarted"]
    world.law(len(begun) <= 1, f"run {run_id} has {len(begun)} beginnings")
    questions, answers = (
        [event.data["request_id"] for event in events if event.name == name] for name in ("RunPaused", "RunContinued")
    )
    world.law(len(set(answers)) == len(answers), f"run {run_id} was continued more than once: {_names(events)}")
    world.law(set(answers) <= set(questions), f"run {run_id} was continued without a question: {_names(events)}")


def check_end(world: World, run: Accepted) -> None:
    """The run ended as runs of its kind do, whatever happened on its way."""
    row = world.runs.get(run.run_id)
    if row is None:
        return
    error = json.loads(row["error"]) if row["error"] else {}
    if error.get("code") == "crash_loop" and row["recoveries"] >= CRASHES_TO_LOOP:
        world.crash_loops += 1
        return
    what = f"run {run.run_id} ({run.kind.workflow} {run.input}, attempt {row['attempt']})"
    world.law(row["status"] in run.kind.ends, f"{what} is {row['status']}: {error or row['content']}")
    if row["status"] == "failed":
        world.law(error.get("code") == run.kind.error, f"{what} failed with {error}")
    if row["status"] == "completed":
        if run.kind.content is not None:
            content, wanted = json.loads(row["content"]), run.kind.content(run.input)
            world.law(content == wanted, f"{what} says {content!r}, and not {wanted!r}")
        counted = "".join(event.data.get("content", "") for event in _counted(world.logs[run.run_id]))
        world.law(counted == json.loads(row["content"]), f"{what}: what counts in its log is {counted!r}")
        left = world.states.get(run.session_id, {}).get("runs", {}).get(run.run_id)
        world.law(left == "done", f"{what} completed and left {left!r} in the state")


def check_reader(world: World, run: Accepted) -> None:
    """Whoever followed the run has its log, each event once and in order."""
    if run.followed is None:
        world.wrong.append(f"the reader of run {run.run_id} has not come to an end")
        return
    log = [(str(event.sequence), event.payload) for event in world.logs[run.run_id]]
    seen = [identifier for identifier, _ in run.followed]
    world.law(run.followed == log, f"the reader of run {run.run_id} saw {seen}, the log has {len(log)} events")


def check_history(world: World, session_id: str, revisions: list[dict[str, Any]]) -> None:
    """The revisions are 1..n, and their patches lead to the state; each save that a log tells of is one of them."""
    numbers = [revision["revision"] for revision in revisions]
    world.law(numbers == list(range(1, len(revisions) + 1)), f"session {session_id} has revisions {numbers}")
    state: dict[str, Any] = {}
    for revision in revisions:
        state = jsonpatch.apply_patch(state, revision["patch"])
    world.law(state == world.states[session_id], f"the history of session {session_id} leads to another state")
    of_runs = {(revision["run_id"], revision["revision"]) for revision in revisions if revision["run_id"]}
    runs = {run_id for run_id, row in world.runs.items() if row["session_id"] == session_id}
    saves = [
        (run_id, event.data["revision"])
        for run_id in runs
        for event in world.logs[run_id]
        if event.name == "StateSaved"
    ]
    world.law(
        Counter(saves) == Counter(of_runs), f"saves of session {session_id}: {set(saves) ^ of_runs} are not in both"
    )


def check_patches(world: World) -> None:
    """Every PATCH that was answered 200 is in the history, and in the state that nobody took it from."""
    for session_id, keys in world.promised.patched.items():
        state = world.states[session_id]["patches"]
        lost = [key for key in keys if key not in state]
        world.law(not lost, f"{len(lost)} patches of session {session_id} were answered 200 and are lost")
        written = json.dumps([revision["patch"] for revision in world.revisions[session_id] if revision["caller"]])
        missing = [key for key in keys if key not in written]
        world.law(not missing, f"{len(missing)} patches of {session_id} are not in its history as a caller's")
    for session_id, counted in world.promised.counted.items():
        most = counted + world.promised.uncertain.get(session_id, 0)
        count = world.states[session_id]["count"]
        world.law(counted <= count <= most, f"{counted} to {most} increments of {session_id} made {count}")


def check_steps(world: World) -> None:
    """A step that the log has as completed was called, ended, and not called again; no step was completed twice."""
    for run_id, events in world.logs.items():
        completed = [event for event in events if event.name == "StepCompleted"]
        names = Counter(event.data["name"] for event in completed)
        twice = [name for name, times in names.items() if times > 1]
        world.law(not twice, f"run {run_id} completed {twice} more than once")
        for event in completed:
            name = event.data["name"]
            calls = world.calls.of.get((run_id, name), [])
            ended = [call for call in calls if call.ended_at is not None and call.ended_at <= event.at + 0.001]
            world.law(bool(ended), f"step {name} of run {run_id} is completed, and was never called to its end")
            for call in calls:
                if call.begun_at <= event.at:
                    continue
                if any(_had_slept(world, fault, call.process_id, call.begun_at) for fault in world.faults.done):
                    world.late_calls += 1
                    continue
                late = call.begun_at - event.at
                world.wrong.append(f"step {name} of run {run_id} was called again {late:.3f} s after it was completed")
        started = {event.data["name"] for event in events if event.name == "StepStarted"}
        silent = {step for run, step in world.calls.of if run == run_id} - started
        world.law(not silent, f"run {run_id} called steps that its log knows nothing of: {silent}")


def takeover_seconds(world: World) -> list[tuple[float, bool]]:
    """For each run whose worker was killed: how long until its log goes on, and whether another worker was free.

    Free means that nothing befell another worker, and that nobody fell asleep, perhaps with the run's row in its hand.
    """
    found: list[tuple[float, bool]] = []
    patience = world.faults.lease_seconds + 2
    for fault in world.faults.done:
        if fault.kind != "kill":
            continue
        others = {member.name for member in world.faults.cluster.executors} - {fault.member}
        meanwhile = {
            other.member: other.kind
            for other in world.faults.done
            if other is not fault and other.begun_at < fault.begun_at + patience and other.ended_at > fault.begun_at - 1
        }
        free = bool(others - meanwhile.keys()) and "stop" not in meanwhile.values()
        for run_id in fault.victims:
            later = [event for event in world.logs.get(run_id, []) if event.at > fault.begun_at + 0.05]
            first = next((event for event in later if event.name in {"RunRecovered", "RunFinished"}), None)
            if first is not None:
                found.append((first.at - fault.begun_at, free))
    return found


def _had_slept(world: World, fault: Fault, process_id: int, at: float) -> bool:
    """Whether the process had just woken from a sleep longer than its lease."""
    long = fault.ended_at - fault.begun_at > world.faults.lease_seconds
    just = fault.ended_at <= at <= fault.ended_at + WAKING_SECONDS
    return fault.kind == "stop" and fault.process_id == process_id and long and just


def _counted(events: list[Event]) -> list[Event]:
    """The author's events that still count, after what each RunRecovered supersedes."""
    kept: list[Event] = []
    for event in events:
        if event.name == "RunRecovered":
            kept = [one for one in kept if one.sequence <= event.data["superseded_after"]]
        if event.name == "RunResponse":
            kept.append(event)
    return kept


def _names(events: list[Event]) -> str:
    return " ".join(f"{event.sequence}:{event.name}" for event in events[-12:])
