"""Bodies about schedules."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from app.wire.bodies import Body, Instant, Resource, SessionId

EXAMPLE_SCHEDULE_ID = "01927c3e-8f5a-7cc0-b1de-5d2f1a3b4c5f"

Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f/]+$")]
Cron = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200),
    Field(description="Minute, hour, day of month, month, day of week; or six fields, with the seconds first."),
]
Zone = Annotated[
    str, StringConstraints(min_length=1, max_length=100), Field(description="A time zone of the IANA database.")
]
OnMissed = Annotated[
    Literal["skip", "run_once"],
    Field(description="What becomes of ticks that nobody was there for: nothing, or one run for all of them."),
]
OnBusy = Annotated[
    Literal["enqueue", "reject", "interrupt"], Field(description="What to do when the session has a live run.")
]
Timeout = Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)]


class CreateSchedule(Body):
    """A request to start a workflow at certain times."""

    name: Name = Field(description="Yours to choose; a tenant has each once.")
    workflow: str
    cron: Cron
    timezone: Zone = "UTC"
    input: dict[str, Any] = Field(default_factory=dict, description="The arguments of the workflow's run().")
    session_id: SessionId | None = Field(None, description="The session of all its runs; else each has a new one.")
    user_id: str | None = Field(None, min_length=1, max_length=255)
    metadata: dict[str, Any] = Field(default_factory=dict, description="That of its runs, which have `schedule` too.")
    timeout_seconds: Timeout | None = None
    on_missed: OnMissed = "skip"
    on_busy: OnBusy = "enqueue"
    paused: bool = False


class UpdateSchedule(Body):
    """Changes to a schedule; what is not named stays."""

    name: Name | None = None
    cron: Cron | None = None
    timezone: Zone | None = None
    input: dict[str, Any] | None = None
    session_id: SessionId | None = Field(None, description="Null: a new session for each run.")
    metadata: dict[str, Any] | None = None
    timeout_seconds: Timeout | None = Field(None, description="Null: as long as it takes.")
    on_missed: OnMissed | None = None
    on_busy: OnBusy | None = None


class Schedule(Resource):
    """A workflow that is started at certain times."""

    schedule_id: str = Field(examples=[EXAMPLE_SCHEDULE_ID])
    name: str
    workflow: str
    cron: str
    timezone: str
    input: dict[str, Any]
    session_id: str | None
    user_id: str | None
    metadata: dict[str, Any]
    timeout_seconds: float | None
    on_missed: Literal["skip", "run_once"]
    on_busy: Literal["enqueue", "reject", "interrupt"]
    paused: bool
    next_run_at: Instant | None = Field(description="Null while it is paused.")
    last_run_id: str | None
    last_run_at: Instant | None
    error: str | None = Field(description="Why its last tick started no run, or why its next one will not.")
    created_at: Instant
    updated_at: Instant
