"""Bodies about sessions and their state."""

from typing import Any

from pydantic import Field

from app.wire.bodies import Body, Instant, Resource, SessionId


class CreateSession(Body):
    """A request to make a session."""

    workflow: str = Field(description="The workflow that it belongs to.")
    session_id: SessionId | None = None
    session_state: dict[str, Any] = Field(default_factory=dict, description="The state to begin with.")
    user_id: str | None = Field(None, min_length=1, max_length=255)
    name: str | None = Field(None, min_length=1, max_length=255)
    metadata: dict[str, Any] = Field(default_factory=dict)


class UpdateSession(Body):
    """Changes to a session; what is not named stays. Null takes a name away."""

    name: str | None = Field(None, min_length=1, max_length=255)
    metadata: dict[str, Any] | None = Field(None, description="Replaces the metadata.")


class Session(Resource):
    """A session."""

    session_id: str
    workflow: str
    user_id: str | None
    name: str | None
    metadata: dict[str, Any]
    revision: int = Field(description="The number of the newest state; 0 is the empty one.")
    active_run_id: str | None = Field(description="The run that has the session's turn.")
    created_at: Instant
    updated_at: Instant


class Revision(Resource):
    """One change of a session's state: by a run, or by a caller."""

    revision: int
    created_at: Instant
    run_id: str | None
    caller: str | None
    patch: list[dict[str, Any]] = Field(description="The change as a JSON patch (RFC 6902).")


class RestoreState(Body):
    """A request to go back to an earlier state."""

    revision: int = Field(ge=0)


class ForkSession(Body):
    """A request for a copy of a session; by default with its newest state."""

    revision: int | None = Field(None, ge=0)
    session_id: SessionId | None = None
    user_id: str | None = Field(None, min_length=1, max_length=255)
    name: str | None = Field(None, min_length=1, max_length=255)
    metadata: dict[str, Any] | None = None
