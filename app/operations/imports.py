"""Taking over what Agno 1.x and phidata stored: sessions, their states, their past runs."""

import hashlib
import logging
import re
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from app import clock
from app.engine.content import ContentTally, RunContent
from app.engine.states import States
from app.engine.writer import Appender
from app.errors import Conflict, Invalid, InvalidEvent, MillstreamError, NotFound
from app.operations.caller import Caller
from app.store import agno, events, runs, sessions
from app.store.agno import AgnoRow, TableKind
from app.store.database import Database, Transaction
from app.store.tables import RunRow, SessionRow
from app.wire.bodies import SessionId
from app.wire.events import Envelope, server_event
from app.workflow.encoding import encode, parse, plain
from app.workflow.response import RunEvent, RunResponse, ServerEvent, encode_response, event_name
from app.workflow.state import EMPTY, StateDocument
from app.workflow.status import RunStatus

logger = logging.getLogger(__name__)

IMPORTER = "import"
"""The caller of the revisions that an import makes."""

_SESSION_ID: TypeAdapter[str] = TypeAdapter(SessionId)
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9._~-]+")
_SET_BY_US = {"event", "run_id", "session_id", "workflow_id", "created_at"}
_SAID = {member.name for member in fields(RunResponse)} - _SET_BY_US
_MILLISECOND = timedelta(milliseconds=1)
_RUNS_PER_MILLISECOND = 4096
"""What the twelve bits between a UUIDv7's version and variant can tell apart."""


@dataclass(frozen=True, slots=True)
class ImportProblem:
    """A row that was left where it is, and why."""

    table: str
    session_id: str | None
    message: str

    def __str__(self) -> str:
        where = self.table if self.session_id is None else f"{self.table}, session {self.session_id!r}"
        return f"{where}: {self.message}"


@dataclass(slots=True)
class ImportReport:
    """What an import did."""

    tables: list[str] = field(default_factory=list)
    sessions: int = 0
    runs: int = 0
    present: int = 0
    """Sessions that were there already, and were left as they are."""
    others: int = 0
    """Rows of agents and teams."""
    problems: list[ImportProblem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run as the seed remembered it."""

    at: datetime
    run_id: str
    input: dict[str, Any]
    event: str
    response: RunResponse
    origin: dict[str, Any]
    """What the seed called it."""


@dataclass(frozen=True, slots=True)
class PastSession:
    """A session as the seed stored it."""

    row: SessionRow
    state: StateDocument
    runs: list[PastRun]


class Imports:
    """Reads tables of the seed's, in any SQLite file, and never writes to them."""

    def __init__(
        self,
        database: Database,
        states: States,
        *,
        max_content_bytes: int,
        names: Mapping[str, str] | None = None,
    ) -> None:
        """`names` are our names of workflows by the seed's, where kebab case does not lead from one to the other."""
        self._database, self._states, self._max_content_bytes = database, states, max_content_bytes
        self._names = names or {}

    async def from_file(
        self, caller: Caller, file: Path, table: str | None = None, *, workflow: str | None = None
    ) -> ImportReport:
        """Take over a table, or all of the seed's in the file. Sessions that are there already stay as they are.

        `workflow` is whose the rows are that name none, as phidata's may. A row comes over whole or not at all; those
        that cannot are reported. Raises NotFound when there is no such table, Invalid when it is of another kind.
        """
        report = ImportReport()
        with agno.open_source(file) as source:
            for name in _chosen(source, file, table, report):
                report.tables.append(name)
                for row in agno.read_rows(source, name):
                    await self._take(caller, name, row, workflow, report)
        return report

    async def on_first_use(self, caller: Caller, file: Path, table: str, *, workflow: str) -> ImportReport | None:
        """Take over a table of the database's own file once; None when that is done, or there is nothing to take."""
        if await self._database.read(lambda transaction: agno.imported(transaction, caller.tenant, table)):
            return None
        with agno.open_source(file) as source:
            kind = agno.table_kinds(source).get(table)
        if kind is None:
            return None
        report = await self.from_file(caller, file, table, workflow=workflow)
        at = clock.now()
        await self._database.write(lambda transaction: agno.mark_imported(transaction, caller.tenant, table, at=at))
        for problem in report.problems:
            logger.warning("agno_row_not_imported: %s", problem)
        return report

    async def _take(self, caller: Caller, table: str, row: AgnoRow, workflow: str | None, report: ImportReport) -> None:
        if _is_of_an_agent(row):
            report.others += 1
            return
        try:
            past = self._read(caller, table, row, workflow)
            new = await self._database.write(lambda transaction: self._write(transaction, past))
        except MillstreamError as error:
            report.problems.append(ImportProblem(table, row.session_id, error.message))
            return
        report.sessions += new
        report.runs += len(past.runs) if new else 0
        report.present += not new

    def _read(self, caller: Caller, table: str, row: AgnoRow, workflow: str | None) -> PastSession:
        """The session that a row holds; raises what keeps it from being one of ours."""
        columns = {name: _document(row, name) for name in ("memory", "workflow_data", "session_data")}
        kept = {name: _json(row, name) for name in ("extra_data", "user_data")}
        name = self._workflow_of(columns["workflow_data"], workflow)
        now = clock.now()
        created_at = _moment(row.created_at, now)
        session = columns["session_data"]
        origin = {"table": table, "workflow_id": row.workflow_id, **kept}
        origin |= {key: value for key, value in session.items() if key not in {"session_name", "session_state"}}
        title = session.get("session_name")
        past = list(_past_runs(columns["memory"], row, created_at or now, now))
        return PastSession(
            row=SessionRow(
                tenant_id=caller.tenant,
                session_id=_session_id(row.session_id),
                workflow=name,
                user_id=plain(row.user_id) or None,
                name=title if isinstance(title, str) and title else None,
                annotations=encode({"agno": _without_nulls(origin)}).decode(),
                run_count=len(past),
                created_at=created_at or (past[0].at if past else now),
                updated_at=now,
            ),
            state=EMPTY.changed_to(session.get("session_state") or {}),
            runs=past,
        )

    def _workflow_of(self, workflow_data: Mapping[str, Any], default: str | None) -> str:
        name = workflow_data.get("name")
        if isinstance(name, str) and name:
            known = self._names.get(name) or _WORD.sub("-", name).strip("-.~_").lower()[:100]
            if known:
                return known
        if default is None:
            raise Invalid("it names no workflow; say whose sessions these are", code="unknown_workflow")
        return default

    def _write(self, transaction: Transaction, past: PastSession) -> bool:
        """Add the session with all that it has; False when there is one of that id."""
        session = past.row.model_copy()
        if not sessions.insert_session(transaction, session):
            known = sessions.get_session(transaction, session.tenant_id, session.session_id)
            if known is not None and known.workflow != session.workflow:
                raise Conflict(
                    f"there is a session of that id already, of the workflow {known.workflow!r}, not {session.workflow!r}",
                    code="session_of_another_workflow",
                )
            return False
        self._states.revise(transaction, session, past.state, at=session.updated_at, caller=IMPORTER)
        for ordinal, run in enumerate(past.runs, 1):
            self._write_run(transaction, session, run, ordinal)
        return True

    def _write_run(self, transaction: Transaction, session: SessionRow, run: PastRun, ordinal: int) -> None:
        tally = ContentTally(self._max_content_bytes)
        tally.add(run.event, run.response.content)
        content = tally.result()
        row = RunRow(
            tenant_id=session.tenant_id,
            run_id=run.run_id,
            workflow=session.workflow,
            session_id=session.session_id,
            user_id=session.user_id,
            status=RunStatus.completed.value,
            ordinal=ordinal,
            attempt=1,
            input=encode(run.input).decode(),
            content=None if content.encoded is None else content.encoded.decode(),
            content_truncated=content.truncated,
            annotations=encode({"agno": run.origin}).decode(),
            session_revision=session.revision,
            created_at=run.at,
            started_at=run.at,
            finished_at=run.at,
        )
        runs.insert_run(transaction, row)
        appender = _log(row, run, content)
        events.append_events(transaction, appender.rows(row.tenant_id, row.run_id))


def _log(row: RunRow, run: PastRun, content: RunContent) -> Appender:
    """The events that the run would have had, as far as the seed remembered them."""
    appender = Appender(Envelope(run_id=row.run_id, session_id=row.session_id, workflow=row.workflow), 0)
    started = server_event(ServerEvent.workflow_started, input=run.input, attempt=1)
    appender.append(ServerEvent.workflow_started.value, started, at=run.at)
    name, head = encode_response(run.response)
    appender.append(name, head, at=run.at)
    finished = server_event(
        ServerEvent.run_finished,
        status=row.status,
        content=None if content.encoded is None else parse(content.encoded),
        content_truncated=content.truncated or None,
        session_revision=row.session_revision,
    )
    appender.append(ServerEvent.run_finished.value, finished, at=run.at)
    return appender


def _chosen(source: sqlite3.Connection, file: Path, table: str | None, report: ImportReport) -> list[str]:
    """The tables to read: the one named, or all that hold sessions of workflows."""
    kinds = agno.table_kinds(source)
    if table is not None:
        if table not in kinds:
            known = ", ".join(sorted(kinds)) or "none"
            raise NotFound(f"{file} has no table {table!r} of Agno's or phidata's; it has: {known}", code="no_table")
        if kinds[table] is not TableKind.workflows:
            raise Invalid(_refusal(table, kinds[table]), code="other_table")
        return [table]
    found = [name for name, kind in kinds.items() if kind is TableKind.workflows]
    refused = {name: kind for name, kind in kinds.items() if kind is TableKind.workflows_v2}
    if not found:
        reasons = [_refusal(name, kind) for name, kind in kinds.items()]
        message = "; ".join(reasons) or "Agno or phidata wrote no table there"
        raise NotFound(f"{file} has no sessions of workflows to import: {message}", code="no_table")
    report.problems += [ImportProblem(name, None, _refusal(name, kind)) for name, kind in refused.items()]
    return found


def _refusal(table: str, kind: TableKind) -> str:
    if kind is TableKind.workflows_v2:
        return f"the table {table!r} holds step workflows of Agno 1.8 or later (workflow_v2), which are not imported"
    return f"the table {table!r} holds sessions of agents or teams alone"


def _is_of_an_agent(row: AgnoRow) -> bool:
    if row.workflow_id is not None or row.workflow_data not in (None, b"null"):
        return False
    return row.agent_id is not None or row.team_id is not None


def _past_runs(memory: Mapping[str, Any], row: AgnoRow, created_at: datetime, now: datetime) -> Iterator[PastRun]:
    """The runs in their order, at moments that never go back; ids that sort likewise, the same at every reading."""
    found = memory.get("runs") or []
    if not isinstance(found, list) or not all(isinstance(run, dict) for run in found):
        raise Invalid("memory: its runs are no list of objects", code="unreadable_row")
    last, place = datetime.min.replace(tzinfo=UTC), 0
    for ordinal, run in enumerate(found):
        response = run.get("response") or {} if "response" in run or "input" in run else run
        if not isinstance(response, dict):
            raise Invalid("memory: the response of a run is no object", code="unreadable_row")
        at = max(_moment(response.get("created_at"), now) or created_at, last)
        place = place + 1 if at == last else 0
        if place == _RUNS_PER_MILLISECOND:
            at, place = at + _MILLISECOND, 0
        last = at
        input = run.get("input") if response is not run else None
        name = _event_name(response.get("event"))
        yield PastRun(
            at=at,
            run_id=_run_id(at, place, f"{row.session_id}\n{ordinal}"),
            input=input if isinstance(input, dict) else {},
            event=name,
            response=RunResponse(event=name, **{key: value for key, value in response.items() if key in _SAID}),
            origin=_without_nulls({key: response.get(key) for key in ("run_id", "workflow_id", "status")}),
        )


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


def _session_id(session_id: str) -> str:
    try:
        return _SESSION_ID.validate_python(session_id)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise Invalid(f"its id cannot be that of a session here: {reason}", code="invalid_session_id") from None


def _document(row: AgnoRow, column: str) -> dict[str, Any]:
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


def _without_nulls(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
