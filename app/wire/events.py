"""The payload of an event: what its author says, sealed with what the server knows of it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.wire.bodies import Instant
from app.workflow.encoding import encode


class Envelope:
    """The members that are the same in every event of one run."""

    def __init__(self, *, run_id: str, session_id: str, workflow: str) -> None:
        members = {"run_id": run_id, "session_id": session_id, "workflow": workflow}
        self._same = b"," + encode(members)[1:-1]

    def seal(self, head: bytes, sequence: int, at: bytes) -> bytes:
        """The payload of an event whose own members are the JSON object `head`, at its place in the log.

        `at` is the instant as RFC 3339 writes it.
        """
        return b'%b%b,"sequence":%d,"created_at":"%b"}' % (head[:-1], self._same, sequence, at)

    def opening(self, head: bytes) -> bytes:
        """What the payload of an event with this head begins with, wherever in the log it stands."""
        return head[:-1] + self._same


def opening_of(payload: str, sequence: int) -> str:
    """What a sealed payload begins with, up to its place in the log."""
    return payload.rpartition(f',"sequence":{sequence},"created_at":"')[0]


def said_at(payload: bytes) -> bytes:
    """When a sealed payload was said, as it stands there."""
    return payload.rpartition(b'"created_at":"')[2][:-2]


def server_event(event: str, **members: Any) -> bytes:
    """The head of one of the server's own events, without its null members."""
    return encode({"event": event} | {name: value for name, value in members.items() if value is not None})


class Event(BaseModel):
    """One event of a run. An author's event carries what its RunResponse carried; null members are left out."""

    model_config = ConfigDict(extra="allow")

    event: str = Field(examples=["RunResponse"])
    content: Any = None
    content_type: str | None = None
    run_id: str
    session_id: str
    workflow: str
    sequence: int = Field(ge=1, description="Its number in the run: 1, 2, 3 … without a gap.")
    created_at: Instant


class RunQueued(Event):
    """The run waits for its session; sent only when it must."""

    event: Literal["RunQueued"]
    position: int


class WorkflowStarted(Event):
    """An attempt begins."""

    event: Literal["WorkflowStarted"]
    input: dict[str, Any]
    attempt: int


class StepStarted(Event):
    """A step is about to be executed."""

    event: Literal["StepStarted"]
    name: str
    step: str = Field(description="Tells this call of the step from others; the same in its StepCompleted.")


class StepCompleted(Event):
    """A step's result is on disk; it will not be executed again."""

    event: Literal["StepCompleted"]
    name: str
    step: str
    seconds: float


class StateSaved(Event):
    """The session's state has a new revision by this run."""

    event: Literal["StateSaved"]
    revision: int
    paths: list[str] = Field(description="JSON Pointers to what changed.")
    conflicts: list[str] = Field(description="Those where another writer had changed the same value; the run's won.")


class RunPaused(Event):
    """The run waits for POST /runs/{run_id}/input."""

    event: Literal["RunPaused"]
    request_id: str
    prompt: str
    schema_: dict[str, Any] | None = Field(None, alias="schema", description="JSON Schema of the answer.")


class RunContinued(Event):
    """The answer is there, or nobody gave one in time."""

    event: Literal["RunContinued"]
    request_id: str
    timed_out: bool | None = None


class RunRecovered(Event):
    """Another attempt goes on; what the run said after `superseded_after` and before this no longer counts."""

    event: Literal["RunRecovered"]
    attempt: int
    superseded_after: int


class Failure(BaseModel):
    """Why a run failed, without null members."""

    code: str
    type: str
    message: str
    step: str | None = None
    event: str | None = None


class RunFinished(Event):
    """The last event of every run."""

    event: Literal["RunFinished"]
    status: Literal["completed", "failed", "cancelled"]
    content_truncated: bool | None = None
    error: Failure | None = None
    session_revision: int


SERVER_EVENTS = (
    RunQueued,
    WorkflowStarted,
    StepStarted,
    StepCompleted,
    StateSaved,
    RunPaused,
    RunContinued,
    RunRecovered,
    RunFinished,
)
