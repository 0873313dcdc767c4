"""Taking over what Agno 1.x and phidata stored: sessions, their states, their past runs."""

import logging
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app import clock
from app.engine.content import ContentTally, RunContent
from app.engine.states import States
from app.engine.writer import Appender
from app.errors import Conflict, Invalid, MillstreamError, NotFound
from app.operations.caller import Caller
from app.operations.past import PastRun, PastSession, is_of_an_agent, read_session
from app.store import agno, events, runs, sessions
from app.store.agno import AgnoRow, TableKind
from app.store.database import Database, Transaction
from app.store.tables import RunRow, SessionRow
from app.wire.events import Envelope, server_event
from app.workflow.encoding import decode, encode
from app.workflow.response import ServerEvent, encode_response
from app.workflow.status import RunStatus

logger = logging.getLogger(__name__)

IMPORTER = "import"
"""The caller of the revisions that an import makes."""

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9._~-]+")
_MAX_NAME_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class ImportProblem:
    """A row, or a whole table, that was left where it is, and why."""

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
    renamed: dict[str, str] = field(default_factory=dict)
    """Sessions whose id had to change, because ours have no '/' and no control characters: from old to new."""
    problems: list[ImportProblem] = field(default_factory=list)


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
        if kind in (None, TableKind.agents):
            return None
        report = await self.from_file(caller, file, table, workflow=workflow)
        at = clock.now()
        await self._database.write(lambda transaction: agno.mark_imported(transaction, caller.tenant, table, at=at))
        for problem in report.problems:
            logger.warning("agno_row_not_imported: %s", problem)
        for old, new in report.renamed.items():
            logger.warning("agno_session_renamed: %r is %r now", old, new)
        return report

    async def _take(self, caller: Caller, table: str, row: AgnoRow, workflow: str | None, report: ImportReport) -> None:
        if is_of_an_agent(row):
            report.others += 1
            return
        try:
            past = read_session(table, row, clock.now())
            name = self._workflow_of(past, workflow)
            new = await self._database.write(lambda transaction: self._write(transaction, caller, name, past))
        except MillstreamError as error:
            report.problems.append(ImportProblem(table, row.session_id, error.message))
            return
        if not new:
            report.present += 1
            return
        report.sessions += 1
        report.runs += len(past.runs)
        if past.session_id != row.session_id:
            report.renamed[row.session_id] = past.session_id

    def _workflow_of(self, past: PastSession, default: str | None) -> str:
        """Our name for the workflow: kebab case, as for a class that has no name of its own."""
        if past.workflow is not None:
            name = self._names.get(past.workflow) or _WORD.sub("-", past.workflow).strip("-.~_").lower()
            if name:
                return name[:_MAX_NAME_CHARACTERS]
        if default is None:
            raise Invalid("it names no workflow; say whose sessions these are", code="unknown_workflow")
        return default

    def _write(self, transaction: Transaction, caller: Caller, workflow: str, past: PastSession) -> bool:
        """Add the session with all that it has; False when there is one of that id."""
        session = SessionRow(
            tenant_id=caller.tenant,
            session_id=past.session_id,
            workflow=workflow,
            user_id=past.user_id,
            name=past.name,
            annotations=encode({"agno": past.origin}).decode(),
            run_count=len(past.runs),
            created_at=past.created_at,
            updated_at=clock.now(),
        )
        if not sessions.insert_session(transaction, session):
            known = sessions.get_session(transaction, caller.tenant, past.session_id)
            if known is not None and known.workflow != workflow:
                raise Conflict(
                    f"there is a session of that id already, and it belongs to {known.workflow!r}, not {workflow!r}",
                    code="session_of_another_workflow",
                )
            return False
        self._states.revise(transaction, session, past.state, at=session.updated_at, caller=IMPORTER)
        for ordinal, run in enumerate(past.runs, 1):
            self._write_run(transaction, session, run, ordinal)
        return True

    def _write_run(self, transaction: Transaction, session: SessionRow, run: PastRun, ordinal: int) -> None:
        tally = ContentTally(self._max_content_bytes)
        tally.add(run.response.event, run.response.content)
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
        log = _log(row, run, content)
        events.append_events(transaction, log.rows(row.tenant_id, row.run_id))


def _log(row: RunRow, run: PastRun, content: RunContent) -> Appender:
    """The events that the run would have had, as far as the seed remembered them."""
    log = Appender(Envelope(run_id=row.run_id, session_id=row.session_id, workflow=row.workflow), 0)
    started = server_event(ServerEvent.workflow_started, input=run.input, attempt=1)
    log.append(ServerEvent.workflow_started.value, started, at=run.at)
    name, head = encode_response(run.response)
    log.append(name, head, at=run.at)
    finished = server_event(
        ServerEvent.run_finished,
        status=row.status,
        content=None if content.encoded is None else decode(content.encoded),
        content_truncated=content.truncated or None,
        session_revision=row.session_revision,
    )
    log.append(ServerEvent.run_finished.value, finished, at=run.at)
    return log


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
    if not found:
        reasons = "; ".join(_refusal(name, kind) for name, kind in kinds.items())
        raise NotFound(
            f"{file} has no sessions of workflows to import: {reasons or 'it has no table of Agno or phidata'}",
            code="no_table",
        )
    refused = [(name, kind) for name, kind in kinds.items() if kind is TableKind.workflows_v2]
    report.problems += [ImportProblem(name, None, _refusal(name, kind)) for name, kind in refused]
    return found


def _refusal(table: str, kind: TableKind) -> str:
    if kind is TableKind.workflows_v2:
        return f"the table {table!r} holds step workflows of Agno 1.8 or later (workflow_v2), which are not imported"
    return f"the table {table!r} holds sessions of agents or teams alone"
