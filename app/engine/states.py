"""Session states: reading one out of its history, and adding a revision to it."""

from collections import OrderedDict
from datetime import datetime

from app.errors import Gone, TooLarge
from app.store import revisions, sessions
from app.store.database import Transaction
from app.store.revisions import PATCH_OVERHEAD_BYTES, SNAPSHOT_FLOOR_BYTES
from app.store.tables import RevisionRow, SessionRow
from app.workflow.encoding import decode, encode
from app.workflow.patches import Operation, apply_patch, diff
from app.workflow.state import EMPTY, StateDocument


class States:
    """The documents of sessions; the newest ones of live sessions are kept in memory, up to a number of bytes."""

    def __init__(self, *, max_state_bytes: int, cache_bytes: int) -> None:
        self.max_state_bytes = max_state_bytes
        self._cache_bytes = cache_bytes
        self._cached: OrderedDict[tuple[str, str], tuple[int, StateDocument]] = OrderedDict()
        self._cached_bytes = 0

    def newest(self, transaction: Transaction, session: SessionRow) -> StateDocument:
        """The document of the session's present revision."""
        key = (session.tenant_id, session.session_id)
        if (cached := self._cached.get(key)) is not None and cached[0] == session.revision:
            self._cached.move_to_end(key)
            return cached[1]
        base = cached if cached is not None and cached[0] < session.revision else None
        document = self._read(transaction, session, session.revision, base)
        revision = session.revision
        transaction.after_commit(lambda: self._remember(key, revision, document))
        return document

    def at(self, transaction: Transaction, session: SessionRow, revision: int) -> StateDocument:
        """The document as it was at an earlier revision."""
        if revision == session.revision:
            return self.newest(transaction, session)
        return self._read(transaction, session, revision, None)

    def revise(
        self,
        transaction: Transaction,
        session: SessionRow,
        after: StateDocument,
        *,
        at: datetime,
        run_id: str | None = None,
        caller: str | None = None,
    ) -> list[Operation]:
        """Make a document the session's next revision; the patch that leads to it, empty when nothing changed.

        The session is locked by the transaction; `session` is moved on. Raises TooLarge past the cap.
        """
        operations = diff(self.newest(transaction, session).root, after.root)
        if not operations:
            return []
        self.check_size(after)
        patch = encode(operations).decode()
        cost = session.snapshot_cost + len(patch) + PATCH_OVERHEAD_BYTES
        due = cost > max(SNAPSHOT_FLOOR_BYTES, after.size_bytes)
        session.revision += 1
        session.snapshot_cost = 0 if due else cost
        at = session.updated_at = max(at, session.updated_at)  # a history does not go back, whoever waited for the lock
        revisions.insert_revision(
            transaction,
            RevisionRow(
                tenant_id=session.tenant_id,
                session_id=session.session_id,
                revision=session.revision,
                created_at=at,
                run_id=run_id,
                caller=caller,
                patch=patch,
                snapshot=after.encoded.decode() if due else None,
            ),
        )
        sessions.save_session(transaction, session)
        key, revision = (session.tenant_id, session.session_id), session.revision
        transaction.after_commit(lambda: self._remember(key, revision, after))
        return operations

    def check_size(self, document: StateDocument) -> None:
        """Raises TooLarge past the cap."""
        if (size := document.size_bytes) > self.max_state_bytes:
            raise TooLarge(
                f"the state would be {size} bytes; a session may hold {self.max_state_bytes}"
                " (MILLSTREAM_MAX_STATE_BYTES)",
                code="state_too_large",
            )

    def forget(self, tenant: str, session: str) -> None:
        """Drop a session that is gone."""
        self._drop((tenant, session))

    def _read(
        self, transaction: Transaction, session: SessionRow, revision: int, base: tuple[int, StateDocument] | None
    ) -> StateDocument:
        tenant, name = session.tenant_id, session.session_id
        remembered = base is not None
        if base is None and revision == 0:
            return EMPTY
        if base is None:
            snapshot = revisions.last_snapshot(transaction, tenant, name, upto=revision)
            base = (snapshot.revision, EMPTY.grafted(decode(snapshot.snapshot)))
        patches = revisions.read_patches(transaction, tenant, name, after=base[0], upto=revision)
        if len(patches) < revision - base[0]:
            if remembered:  # what lies between it and now is no longer kept
                return self._read(transaction, session, revision, None)
            raise _gone(session, revision)
        root = base[1].root
        for patch in patches:
            root = apply_patch(root, decode(patch))
        return base[1].grafted(root)

    def _remember(self, key: tuple[str, str], revision: int, document: StateDocument) -> None:
        known = self._cached.get(key)
        if known is not None and known[0] > revision:
            return
        self._drop(key)
        self._cached[key] = (revision, document)
        self._cached_bytes += document.size_bytes
        while self._cached_bytes > self._cache_bytes and self._cached:
            self._drop(next(iter(self._cached)))

    def _drop(self, key: tuple[str, str]) -> None:
        if (known := self._cached.pop(key, None)) is not None:
            self._cached_bytes -= known[1].size_bytes


def _gone(session: SessionRow, revision: int) -> Gone:
    return Gone(
        f"revision {revision} of session {session.session_id!r} is no longer kept;"
        " GET …/state/revisions lists those that are",
        code="revision_gone",
        revision=revision,
    )
