"""RunResponse, what a workflow yields, and RunEvent, the names that the seed gave to its kinds."""

import dataclasses
import unicodedata
from enum import StrEnum
from operator import attrgetter
from typing import Any

from app.errors import InvalidEvent
from app.workflow.encoding import encode, encode_text

MAX_NAME_CHARACTERS = 100


class RunEvent(StrEnum):
    """The event names of Agno 1.x; any other name is as good."""

    run_started = "RunStarted"
    run_response = "RunResponse"
    run_completed = "RunCompleted"
    run_error = "RunError"
    run_cancelled = "RunCancelled"
    tool_call_started = "ToolCallStarted"
    tool_call_completed = "ToolCallCompleted"
    reasoning_started = "ReasoningStarted"
    reasoning_step = "ReasoningStep"
    reasoning_completed = "ReasoningCompleted"
    updating_memory = "UpdatingMemory"
    workflow_started = "WorkflowStarted"
    workflow_completed = "WorkflowCompleted"


class ServerEvent(StrEnum):
    """The server's own names, closed to authors."""

    run_queued = "RunQueued"
    workflow_started = "WorkflowStarted"
    step_started = "StepStarted"
    step_completed = "StepCompleted"
    state_saved = "StateSaved"
    run_paused = "RunPaused"
    run_continued = "RunContinued"
    run_recovered = "RunRecovered"
    run_finished = "RunFinished"


RESERVED = frozenset(ServerEvent)


@dataclasses.dataclass(slots=True)
class RunResponse:
    """One event of a run, as its author says it. Ids that an author sets are replaced by the run's own.

    `content` is anything that JSON can hold, or a pydantic model, dataclass, date, decimal, UUID or set.
    `event` is a RunEvent or a name of your own: 1 to 100 characters, no control characters, none of the server's names.
    """

    content: Any = None
    content_type: str | None = None
    event: str = RunEvent.run_response.value
    thinking: str | None = None
    messages: list[Any] | None = None
    metrics: dict[str, Any] | None = None
    model: str | None = None
    run_id: str | None = None
    agent_id: str | None = None
    session_id: str | None = None
    workflow_id: str | None = None
    tools: list[Any] | None = None
    formatted_tool_calls: list[Any] | None = None
    images: list[Any] | None = None
    videos: list[Any] | None = None
    audio: list[Any] | None = None
    response_audio: Any = None
    citations: Any = None
    extra_data: Any = None
    created_at: Any = None


_RARE = tuple(
    field.name
    for field in dataclasses.fields(RunResponse)
    if field.name not in {"content", "content_type", "event", "run_id", "session_id", "workflow_id", "created_at"}
)


_rare_members = attrgetter(*_RARE)
_NONE_OF_THEM = (None,) * len(_RARE)


def encode_response(response: Any) -> tuple[str, bytes]:
    """The event's name and its author's part of the payload: a JSON object without null members, ids and times.

    Raises InvalidEvent for what is no event, Unencodable with the path of what JSON cannot hold.
    """
    if not isinstance(response, RunResponse):
        kind = type(response).__name__
        raise InvalidEvent(f"run() yielded {kind}; yield RunResponse(content=…) instead")
    name = event_name(response.event)
    rare = _rare_members(response)
    if type(response.content) is str and response.content_type is None and rare == _NONE_OF_THEM:
        return name, b'{"event":%b,"content":%b,"content_type":"str"}' % (
            encode_text(name),
            encode_text(response.content),
        )
    members: dict[str, Any] = {"event": name}
    if response.content is not None:
        members["content"] = response.content
        members["content_type"] = response.content_type or type(response.content).__name__
    if rare != _NONE_OF_THEM:
        members |= {member: value for member, value in zip(_RARE, rare, strict=True) if value is not None}
    return name, encode(members)


def event_name(name: Any) -> str:
    """The name as a plain string; raises InvalidEvent when an author may not use it."""
    if type(name) is str and name in _KNOWN_NAMES:
        return name
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME_CHARACTERS:
        raise InvalidEvent(f"the event name {_shown(name)} is no string of 1 to {MAX_NAME_CHARACTERS} characters")
    text = str.__str__(name) if not isinstance(name, StrEnum) else name.value
    if any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in text):
        raise InvalidEvent(f"the event name {_shown(text)} has a control, surrogate or line separator character")
    if text in RESERVED:
        raise InvalidEvent(f"the event name {_shown(text)} is the server's own; choose another")
    return text


_KNOWN_NAMES = frozenset(event.value for event in RunEvent) - RESERVED


def _shown(name: Any) -> str:
    return ascii(name)[: MAX_NAME_CHARACTERS + 2]
