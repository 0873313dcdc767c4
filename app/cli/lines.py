"""What the events of a run say to people: one line for each that is no text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.cli.output import compact, duration

SHOWN_CHARACTERS = 150
"""Of an event of the author's own."""
STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow"}
MARKS = {"completed": "✓", "failed": "✗", "cancelled": "■"}

Members = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """A mark, a text, a style; and what goes on from here, if that has changed."""

    mark: str
    text: str
    style: str = ""
    now: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far something is."""

    name: str
    done: float
    total: float


def line_of(members: Members) -> Line:
    """The line for an event that is neither text nor the last one."""
    own = _SERVER_EVENTS.get(members["event"])
    return own(members) if own is not None else _authored(members)


def progress_of(members: Members) -> Progress | None:
    """How far something is, where an author's event says `done` and `total`."""
    content = members.get("content")
    if not isinstance(content, dict):
        return None
    done, total = content.get("done"), content.get("total")
    if isinstance(done, int | float) and isinstance(total, int | float) and total > 0:
        return Progress(members["event"], min(done, total), total)
    return None


def ending(members: Members, seconds: float) -> list[Line]:
    """The lines for the end of a run."""
    status, error = members["status"], members.get("error")
    lines = [Line(MARKS[status], f"{status} in {duration(seconds)}", STYLES[status])]
    if members.get("content_truncated"):
        lines.append(Line("·", "the content is cut here; the events have all of it", "yellow"))
    if error:
        step = f" (step {error['step']})" if error.get("step") else ""
        said = f"{error['code']}: {error['type']}: {error['message']}{step}"
        lines.append(Line(" ", said.replace("\n", "\n  "), "red"))
    lines.append(Line(" ", f"session {members['session_id']}, revision {members['session_revision']}", "dim"))
    return lines


def _queued(members: Members) -> Line:
    return Line("…", f"waits for its session, place {members['position']} in the queue", now="waiting")


def _started(members: Members) -> Line:
    attempt = f", attempt {members['attempt']}" if members["attempt"] > 1 else ""
    return Line("▶", f"{members['workflow']}{attempt} in session {members['session_id']}", "bold", now="running")


def _step_started(members: Members) -> Line:
    return Line("→", f"step {members['name']}", "cyan", now=members["name"])


def _step_completed(members: Members) -> Line:
    return Line("✓", f"step {members['name']}, {duration(members['seconds'])}", "cyan", now="running")


def _saved(members: Members) -> Line:
    conflicts = members["conflicts"]
    won = f"; it won over another writer at {', '.join(conflicts)}" if conflicts else ""
    return Line("·", f"state saved as revision {members['revision']}{won}", "dim")


def _paused(members: Members) -> Line:
    asked = f"waits for input {members.get('request_id')}: {members.get('prompt')}"
    return Line("?", asked, "yellow", now="waiting for input")


def _continued(_members: Members) -> Line:
    return Line("▶", "goes on", now="running")


def _recovered(members: Members) -> Line:
    counts = f"what came after event {members['superseded_after']} no longer counts"
    return Line("↻", f"interrupted, goes on as attempt {members['attempt']}; {counts}", "yellow", now="running")


_SERVER_EVENTS: dict[str, Callable[[Members], Line]] = {
    "RunQueued": _queued,
    "WorkflowStarted": _started,
    "StepStarted": _step_started,
    "StepCompleted": _step_completed,
    "StateSaved": _saved,
    "RunPaused": _paused,
    "RunContinued": _continued,
    "RunRecovered": _recovered,
}


def _authored(members: Members) -> Line:
    """An author's event, with what its content says, on one short line."""
    content = members.get("content")
    if isinstance(content, dict):
        counted = [f"{content['done']}/{content['total']}"] if progress_of(members) else []
        rest = {name: value for name, value in content.items() if not counted or name not in {"done", "total"}}
        words = [*counted, *(f"{name}={compact(value)}" for name, value in rest.items())]
    else:
        words = [] if content is None else [compact(content)]
    text = " ".join(" ".join([members["event"], *words]).split())
    return Line("·", text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…", "dim")
