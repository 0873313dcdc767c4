"""What the seed remembered of a session, read from its row: the state, and the runs with their order."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from app.errors import Invalid, InvalidEvent
from app.store.agno import AgnoRow
from app.wire.bodies import SessionId
from app.workflow.encoding import parse, plain
from app.workflow.response import RunEvent, RunResponse, event_name
from app.workflow.state import EMPTY, StateDocument

_SESSION_ID: TypeAdapter[str] = TypeAdapter(SessionId)
_NOT_IN_AN_ID = re.compile(r"[/\x00-\x1f\x7f-\x9f\ufffd]")
_MAX_KEPT_CHARACTERS = 240
"""Of an id that has to be changed; the digest comes behind."""
_SET_BY_US = {"event", "run_id", "session_id", "workflow_id", "created_at"}
_SAID = {member.name for member in fields(RunResponse)} - _SET_BY_US
_MILLISECOND = timedelta(milliseconds=1)
_RUNS_PER_MILLISECOND = 4096
"""What the twelve bits between a UUIDv7's version and variant can tell apart."""


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run as the seed remembered it."""

    at: datetime
    run_id: str
    input: dict[str, Any]
    response: RunResponse
    origin: dict[str, Any]
    """What the seed called it."""


@dataclass(frozen=True, slots=True)
class PastSession:
    """A session as the seed stored it; `workflow` is the seed's name, None where the row has none."""

    session_id: str
    workflow: str | None
    user_id: str | None
    name: str | None
    created_at: datetime
    state: StateDocument
    runs: list[PastRun]
    origin: dict[str, Any]
    """What the seed called it, and what has no place of its own here."""


def is_of_an_agent(row: AgnoRow) -> bool:
    """Whether the row is an agent's or a team's, which later versions keep in the same table."""
    if row.workflow_id is not None or row.workflow_data not in (None, b"null"):
        return False
    return row.agent_id is not None or row.team_id is not None


def read_session(table: str, row: AgnoRow, now: datetime) -> PastSession:
    """The session that a row holds; raises Invalid or Unencodable for what cannot be one."""
    workflow, session = _object(row, "workflow_data"), _object(row, "session_data")
    created_at = _moment(row.created_at, now)
    past = list(_read_runs(row, created_at or now, now))
    session_id = _session_id(row.session_id)
    origin = {name: value for name, value in session.items() if name not in {"session_name", "session_state"}}
    origin |= {"table": table, "workflow_id": plain(row.workflow_id), "description": workflow.get("description")}
    origin |= {"extra_data": _json(row, "extra_data"), "user_data": _json(row, "user_data")}
    origin |= {"session_id": plain(row.session_id) if session_id != row.session_id else None}
    state = session.get("session_state")
    return PastSession(
        session_id=session_id,
        workflow=_string(workflow.get("name")),
        user_id=_string(plain(row.user_id)),
        name=_string(session.get("session_name")),
        created_at=created_at or (past[0].at if past else now),
        state=EMPTY.changed_to({} if state is None else state),
        runs=past,
        origin=_without_nulls(origin),
    )


def _read_runs(row: AgnoRow, created_at: datetime, now: datetime) -> Iterator[PastRun]:
    """The runs in their order, at moments that never go back, with ids that sort likewise at every reading."""
    last, place = datetime.min.replace(tzinfo=UTC), 0
    for ordinal, (given, response) in enumerate(_remembered(row)):
        at = max(_moment(response.get("created_at"), now) or created_at, last)
        place = place + 1 if at == last else 0
        if place == _RUNS_PER_MILLISECOND:
            at, place = at + _MILLISECOND, 0
        last = at
        said = {name: value for name, value in response.items() if name in _SAID}
        yield PastRun(
            at=at,
            run_id=_run_id(at, place, f"{row.session_id}\n{ordinal}"),
            input=given,
            response=RunResponse(event=_event_name(response.get("event")), **said),
            origin=_without_nulls({name: response.get(name) for name in ("run_id", "workflow_id", "status")}),
        )


def _remembered(row: AgnoRow) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Input and response of each run: until 1.5 an object of both, from 1.6 on the response alone."""
    found = _object(row, "memory").get("runs") or []
    if not isinstance(found, list):
        raise Invalid("memory: its runs are no list", code="unreadable_row")
    return [_remembered_run(run) for run in found]


def _remembered_run(run: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    if isinstance(run, dict):
        both = "response" in run or "input" in run
        given, response = (run.get("input"), run.get("response")) if both else ({}, run)
        if isinstance(given, dict | None) and isinstance(response, dict | None):
            return _arguments(given or {}), response or {}
    raise Invalid("memory: a run is no object with an input and a response", code="unreadable_row")


def _arguments(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments by name; phidata kept them beside those by position, whose names nobody knows any more."""
    named = given.get("kwargs")
    if given.keys() == {"args", "kwargs"} and not given["args"] and isinstance(named, dict):
        return named
    return given


def _run_id(at: datetime, place: int, origin: str) -> str:
    """A UUIDv7 of a past moment: runs of the same millisecond sort by their place."""
    milliseconds = (at - datetime.fromtimestamp(0, UTC)) // _MILLISECOND
    rest = int.from_bytes(hashlib.sha256(origin.encode(errors="replace")).digest()[:8], "big") >> 2
    return str(UUID(int=milliseconds << 80 | 7 << 76 | place << 64 | 2 << 62 | rest))


def _event_name(name: Any) -> str:
    try:
        return event_name(name)
    except InvalidEvent:
        return RunEvent.run_response.value


def _session_id(original: str) -> str:
    """The seed's id, or what becomes of one that ours cannot be: always the same, and nobody else's."""
    if not original:
        raise Invalid("the row has no session_id", code="unreadable_row")
    try:
        return _SESSION_ID.validate_python(plain(original))
    except ValidationError:
        digest = hashlib.sha256(original.encode(errors="replace")).hexdigest()[:8]
        return f"{_NOT_IN_AN_ID.sub('-', original)[:_MAX_KEPT_CHARACTERS]}-{digest}"


def _object(row: AgnoRow, column: str) -> dict[str, Any]:
    """The object in a JSON column; an empty one where there is none."""
    value = _json(row, column)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid(f"{column}: it is no JSON object", code="unreadable_row")
    return value


def _json(row: AgnoRow, column: str) -> Any:
    encoded: bytes | None = getattr(row, column)
    if not encoded:
        return None
    try:
        return parse(encoded)
    except Invalid as error:
        raise Invalid(f"{column}: {error.message}", code="unreadable_row") from error


def _moment(seconds: Any, now: datetime) -> datetime | None:
    """The moment of a Unix timestamp, at most now; None when it is none."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds <= 0:
        return None
    try:
        return min(datetime.fromtimestamp(seconds, UTC), now)
    except (ValueError, OverflowError, OSError):
        return None


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _without_nulls(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
