"""Bodies about runs."""

from typing import Any, Literal

from pydantic import Field

from app.wire.bodies import Body, Instant, Resource, SessionId
from app.wire.webhooks import RunWebhook

EXAMPLE_RUN_ID = "01927c3e-8f5a-7cc0-b1de-5d2f1a3b4c5d"


class StartRun(Body):
    """A request to start a run."""

    input: dict[str, Any] = Field(default_factory=dict, description="The arguments of the workflow's run().")
    session_id: SessionId | None = Field(None, description="A session of yours; one is made when there is none.")
    user_id: str | None = Field(None, min_length=1, max_length=255)
    session_state: dict[str, Any] | None = Field(None, description="A merge patch, applied when the run starts.")
    metadata: dict[str, Any] = Field(default_factory=dict, description="Yours; kept and given back.")
    on_busy: Literal["enqueue", "reject", "interrupt"] = Field(
        "enqueue", description="What to do when the session has a live run."
    )
    on_disconnect: Literal["continue", "cancel"] = Field(
        "continue", description="What becomes of the run when the client of this request's stream leaves."
    )
    timeout_seconds: float | None = Field(None, gt=0, le=31_536_000, allow_inf_nan=False)
    webhook: RunWebhook | None = Field(None, description="Where events of this run are posted to.")


class AnswerRun(Body):
    """An answer to a paused run."""

    request_id: str = Field(max_length=2000, description="That of the RunPaused event.")
    value: Any = Field(description="What fits its schema.")


class RetryRun(Body):
    """A request to run again."""

    input: dict[str, Any] | None = Field(None, description="Other arguments; without them, the same ones.")


class RunError(Resource):
    """Why a run failed."""

    code: str = Field(examples=["author_error"])
    type: str = Field(examples=["ValueError"])
    message: str
    step: str | None = None
    event: str | None = None


class Run(Resource):
    """One start of a workflow."""

    run_id: str = Field(examples=[EXAMPLE_RUN_ID])
    workflow: str
    session_id: str
    user_id: str | None
    status: Literal["queued", "running", "paused", "completed", "failed", "cancelled"]
    input: dict[str, Any]
    content: Any
    content_truncated: bool
    error: RunError | None
    attempt: int = Field(description="How often it was begun.")
    position: int | None = Field(description="Its place in the session's queue, 1 is next; null when it does not wait.")
    metadata: dict[str, Any]
    created_at: Instant
    started_at: Instant | None
    finished_at: Instant | None
    session_revision: int | None = Field(description="The revision of the state when it ended.")
