"""Bodies about workflows, health and problems."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.wire.bodies import Resource


class WorkflowParameter(Resource):
    """One argument of the workflow's `run()`."""

    name: str
    annotation: str = Field(description="The type as its author wrote it.", examples=["str"])
    default: Any = Field(description="Null when it is required.")
    required: bool


class Workflow(Resource):
    """A workflow that is served."""

    name: str
    description: str
    input_schema: dict[str, Any] = Field(description="JSON Schema of a run's input.")
    parameters: list[WorkflowParameter]


class Version(Resource):
    """What answers here."""

    version: str
    mode: Literal["embedded", "distributed"]
    lease_seconds: float


class Readiness(Resource):
    """Whether the process can serve."""

    status: Literal["ready"]
    checks: dict[str, str] = Field(description="What was looked at, each `ok`.")


class Liveness(Resource):
    """That the process lives."""

    status: Literal["alive"]


class Problem(BaseModel):
    """An error (RFC 9457); `code` is stable. More members may follow, such as `errors` or `run_id`."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str = Field(description="What is wrong, and what to do.")
    code: str = Field(examples=["unknown_run"])
    request_id: str | None = Field(None, description="The id of the request, which the server's log names too.")
