"""What callers may ask of sessions and their state."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from app import clock
from app.clock import rfc3339
from app.engine.states import States
from app.errors import Conflict, NotFound, PreconditionFailed
from app.operations.caller import Caller
from app.operations.cursors import cut_page, read_cursor, read_moment, write_cursor
from app.operations.resources import revision_resource, session_resource, unknown_session
from app.store import events, idempotency, retention, revisions, sessions
from app.store.database import Database, Transaction
from app.store.tables import SessionRow
from app.workflow.encoding import encode
from app.workflow.registry import Registry
from app.workflow.state import EMPTY, StateDocument

Change = Callable[[StateDocument], StateDocument]
"""From the newest document to the next; raises what makes it impossible."""


class Sessions:
    """Sessions: made, seen, changed, deleted; their state: read, changed, traced back."""

    def __init__(self, database: Database, registry: Registry, states: States) -> None:
        self._database, self._registry, self._states = database, registry, states

    async def create(
        self,
        caller: Caller,
        *,
        workflow: str,
        session_id: str | None,
        session_state: Mapping[str, Any],
        user_id: str | None,
        name: str | None,
        metadata: Mapping[str, Any],
    ) -> dict[str, Any]:
        """A new session with a state to begin with; raises Conflict when there is one of that id."""
        self._registry.get(workflow)
        document = EMPTY.changed_to(session_state)
        at = clock.now()
        row = _new_row(caller, workflow, session_id, caller.owner(user_id), name, metadata, at)

        def work(transaction: Transaction) -> dict[str, Any]:
            self._insert(transaction, caller, row, document, at)
            return session_resource(row)

        return await self._database.write(work)

    async def get(self, caller: Caller, session_id: str) -> dict[str, Any]:
        """The session; raises NotFound."""
        return await self._database.read(
            lambda transaction: session_resource(existing_session(transaction, caller, session_id))
        )

    async def page(
        self, caller: Caller, *, filters: dict[str, str], limit: int, cursor: str | None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Sessions, newest first, and the cursor of the next page."""
        before = None if cursor is None else read_moment(cursor)
        if (owner := caller.owner(filters.get("user_id"))) is not None:
            filters = filters | {"user_id": owner}

        def work(transaction: Transaction) -> tuple[list[dict[str, Any]], str | None]:
            rows = sessions.list_sessions(transaction, caller.tenant, filters=filters, before=before, limit=limit + 1)
            page, following = cut_page(rows, limit, lambda row: write_cursor(rfc3339(row.created_at), row.session_id))
            return [session_resource(row) for row in page], following

        return await self._database.read(work)

    async def update(
        self, caller: Caller, session_id: str, values: dict[str, Any], *, check: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        """Set the name or metadata; `check` gets the session as it is and may refuse."""

        def work(transaction: Transaction) -> dict[str, Any]:
            row = _locked(transaction, caller, session_id)
            check(session_resource(row))
            columns = {name: value for name, value in values.items() if name == "name"}
            if "metadata" in values:
                columns["annotations"] = encode(values["metadata"] or {}).decode()
            if columns:
                sessions.update_session(transaction, caller.tenant, session_id, columns | {"updated_at": clock.now()})
            return session_resource(existing_session(transaction, caller, session_id))

        return await self._database.write(work)

    async def delete(self, caller: Caller, session_id: str) -> None:
        """Remove a session with its runs, events and history; raises Conflict while it has a live run."""
        await self._database.write(lambda transaction: remove_session(transaction, self._states, caller, session_id))

    async def fork(
        self,
        caller: Caller,
        session_id: str,
        *,
        revision: int | None,
        new_session_id: str | None,
        user_id: str | None,
        name: str | None,
        metadata: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """A copy of the session, as it is or was at a revision, as a new one; raises Conflict when that exists."""
        at = clock.now()

        def work(transaction: Transaction) -> dict[str, Any]:
            source = existing_session(transaction, caller, session_id)
            document = self._at(transaction, source, revision)
            owner = caller.owner(user_id) or source.user_id
            row = _new_row(caller, source.workflow, new_session_id, owner, name or source.name, metadata or {}, at)
            if metadata is None:
                row.annotations = source.annotations
            self._insert(transaction, caller, row, document, at)
            return session_resource(row)

        return await self._database.write(work)

    async def state(self, caller: Caller, session_id: str, revision: int | None = None) -> tuple[int, bytes]:
        """The revision and the encoded document: the newest, or that of an earlier revision."""

        def work(transaction: Transaction) -> tuple[int, bytes]:
            row = existing_session(transaction, caller, session_id)
            wanted = row.revision if revision is None else revision
            return wanted, self._at(transaction, row, revision).encoded

        return await self._database.read(work)

    async def change_state(
        self, caller: Caller, session_id: str, change: Change, *, expected: frozenset[int] | None
    ) -> tuple[int, bytes]:
        """Change the newest state in one piece; its new revision and document.

        `expected` are the revisions that the caller allows, None allows any. Raises PreconditionFailed for another,
        TooLarge past the cap, and what `change` raises. A change that changes nothing makes no revision.
        """

        def work(transaction: Transaction) -> tuple[int, bytes]:
            row = _locked(transaction, caller, session_id)
            if expected is not None and row.revision not in expected:
                raise stale(session_id, row.revision)
            after = change(self._states.newest(transaction, row))
            self._states.revise(transaction, row, after, at=clock.now(), caller=caller.name)
            return row.revision, after.encoded

        return await self._database.write(work)

    async def restore(
        self, caller: Caller, session_id: str, revision: int, *, expected: frozenset[int] | None
    ) -> tuple[int, bytes]:
        """Make the state what it was at a revision, as a new one."""

        def work(transaction: Transaction) -> tuple[int, bytes]:
            row = _locked(transaction, caller, session_id)
            if expected is not None and row.revision not in expected:
                raise stale(session_id, row.revision)
            after = self._at(transaction, row, revision)
            self._states.revise(transaction, row, after, at=clock.now(), caller=caller.name)
            return row.revision, after.encoded

        return await self._database.write(work)

    async def revisions(
        self, caller: Caller, session_id: str, *, limit: int, cursor: str | None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Who changed what when, ascending, and the cursor of the next page."""
        after = 0 if cursor is None else read_cursor(cursor, int)[0]

        def work(transaction: Transaction) -> tuple[list[dict[str, Any]], str | None]:
            existing_session(transaction, caller, session_id)
            rows = revisions.list_revisions(transaction, caller.tenant, session_id, after=after, limit=limit + 1)
            page, following = cut_page(rows, limit, lambda row: write_cursor(row.revision))
            return [revision_resource(row) for row in page], following

        return await self._database.read(work)

    def _insert(
        self, transaction: Transaction, caller: Caller, row: SessionRow, document: StateDocument, at: datetime
    ) -> None:
        self._states.check_size(document)
        if not sessions.insert_session(transaction, row):
            raise Conflict(f"there is a session {row.session_id!r} already; choose another id", code="session_exists")
        self._states.revise(transaction, row, document, at=at, caller=caller.name)

    def _at(self, transaction: Transaction, row: SessionRow, revision: int | None) -> StateDocument:
        if revision is None:
            return self._states.newest(transaction, row)
        if not 0 <= revision <= row.revision:
            raise NotFound(
                f"the session {row.session_id!r} has no revision {revision}; its newest is {row.revision}",
                code="unknown_revision",
            )
        return self._states.at(transaction, row, revision)


def remove_session(transaction: Transaction, states: States, caller: Caller, session_id: str) -> None:
    """Remove a session with all that belongs to it; raises NotFound, and Conflict while it has a live run."""
    row = _locked(transaction, caller, session_id)
    if row.active_run_id is not None:
        raise Conflict(
            f"the session {session_id!r} has a live run, {row.active_run_id}; cancel it first",
            code="session_busy",
            run_id=row.active_run_id,
        )
    idempotency.delete_session_keys(transaction, caller.tenant, session_id)
    retention.lock_session_runs(transaction, caller.tenant, session_id)
    events.delete_session_events(transaction, caller.tenant, session_id)
    sessions.delete_session(transaction, caller.tenant, session_id)
    transaction.after_commit(lambda: states.forget(caller.tenant, session_id))


def stale(session_id: str, revision: int) -> PreconditionFailed:
    """The error for an If-Match that names another revision than the present one."""
    return PreconditionFailed(
        f"the state of session {session_id!r} is at revision {revision}; read it again and repeat the change",
        revision=revision,
        etag=f'"{revision}"',
    )


def existing_session(transaction: Transaction, caller: Caller, session_id: str) -> SessionRow:
    """The session; raises NotFound."""
    row = None if "\x00" in session_id else sessions.get_session(transaction, caller.tenant, session_id)
    if row is None or not caller.sees(row.user_id):
        raise unknown_session(session_id)
    return row


def _locked(transaction: Transaction, caller: Caller, session_id: str) -> SessionRow:
    row = None if "\x00" in session_id else sessions.lock_session(transaction, caller.tenant, session_id)
    if row is None or not caller.sees(row.user_id):
        raise unknown_session(session_id)
    return row


def _new_row(
    caller: Caller,
    workflow: str,
    session_id: str | None,
    user_id: str | None,
    name: str | None,
    metadata: Mapping[str, Any],
    at: datetime,
) -> SessionRow:
    return SessionRow(
        tenant_id=caller.tenant,
        session_id=session_id or clock.new_id(),
        workflow=workflow,
        user_id=user_id,
        name=name,
        annotations=encode(metadata).decode(),
        created_at=at,
        updated_at=at,
    )
