"""The history of session states: a patch for each revision, and now and then the whole document.

A snapshot is due when the patches since the last one cost as much to read as the document itself, so that writing stays
in proportion to the changes, and reading in proportion to the state.
"""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Integer, Text, bindparam, delete, func, insert, select, tuple_

from app.store.database import Transaction
from app.store.statements import Statement
from app.store.tables import RevisionRow, RevisionTable, table_of

PATCH_OVERHEAD_BYTES = 256
"""What reading one patch costs beside its bytes."""
SNAPSHOT_FLOOR_BYTES = 16 * 1024
"""No snapshot is due below this cost, however small the document."""

_revisions = table_of(RevisionTable)
_OF_SESSION = (_revisions.c.tenant_id == bindparam("tenant")) & (_revisions.c.session_id == bindparam("session"))
_INSERT = Statement(insert(_revisions))
_LAST_SNAPSHOT = Statement(
    select(_revisions.c.revision, _revisions.c.snapshot)
    .where(_OF_SESSION, _revisions.c.revision <= bindparam("upto"), _revisions.c.snapshot.is_not(None))
    .order_by(_revisions.c.revision.desc())
    .limit(1)
)
_PATCHES = Statement(
    select(_revisions.c.patch)
    .where(_OF_SESSION, _revisions.c.revision > bindparam("after"), _revisions.c.revision <= bindparam("upto"))
    .order_by(_revisions.c.revision)
)
_PAGE = Statement(
    select(_revisions)
    .where(_OF_SESSION, _revisions.c.revision > bindparam("after"))
    .order_by(_revisions.c.revision)
    .limit(bindparam("count"))
)


# The condition is that of ix_session_revisions_age.
_OLD_SNAPSHOTS = Statement(
    select(_revisions.c.session_id, _revisions.c.revision, _revisions.c.created_at)
    .where(
        _revisions.c.tenant_id == bindparam("tenant"),
        _revisions.c.created_at <= bindparam("before", type_=_revisions.c.created_at.type),
        _revisions.c.snapshot.is_not(None),
        tuple_(_revisions.c.created_at, _revisions.c.session_id)
        > tuple_(bindparam("after_at", type_=_revisions.c.created_at.type), bindparam("after_id", type_=Text)),
    )
    .order_by(_revisions.c.created_at, _revisions.c.session_id)
    .limit(bindparam("count", type_=Integer))
)
_OLDEST = Statement(select(func.min(_revisions.c.revision).label("oldest")).where(_OF_SESSION))
_REMOVE = Statement(delete(_revisions).where(_OF_SESSION, _revisions.c.revision < bindparam("upto")))


class OldSnapshot(NamedTuple):
    """A whole document that is old enough for nothing before it to be kept."""

    session_id: str
    revision: int
    created_at: datetime


class Snapshot(NamedTuple):
    """A whole document."""

    revision: int
    snapshot: str


def old_snapshots(
    transaction: Transaction, tenant: str, *, before: datetime, after: tuple[datetime, str], count: int
) -> list[OldSnapshot]:
    """Whole documents of a tenant that were written before a moment, oldest first, past a moment and session."""
    parameters = {"tenant": tenant, "before": before, "after_at": after[0], "after_id": after[1], "count": count}
    return [OldSnapshot(**row) for row in transaction.all(_OLD_SNAPSHOTS, parameters)]


def oldest_revision(transaction: Transaction, tenant: str, session: str) -> int | None:
    """The number of the session's oldest revision that is still there."""
    row = transaction.one(_OLDEST, {"tenant": tenant, "session": session})
    return None if row is None else row["oldest"]


def remove_revisions(transaction: Transaction, tenant: str, session: str, *, before: int) -> int:
    """Remove the revisions before a number; how many there were."""
    return transaction.count(_REMOVE, {"tenant": tenant, "session": session, "upto": before})


def insert_revision(transaction: Transaction, row: RevisionRow) -> None:
    """Add the revision."""
    transaction.run(_INSERT, row.values)


def last_snapshot(transaction: Transaction, tenant: str, session: str, *, upto: int) -> Snapshot:
    """The newest whole document not past a revision; the empty one where none was written."""
    row = transaction.one(_LAST_SNAPSHOT, {"tenant": tenant, "session": session, "upto": upto})
    return Snapshot(0, "{}") if row is None else Snapshot(**row)


def read_patches(transaction: Transaction, tenant: str, session: str, *, after: int, upto: int) -> list[str]:
    """The patches of the revisions after one, up to another, in order."""
    parameters = {"tenant": tenant, "session": session, "after": after, "upto": upto}
    return [row["patch"] for row in transaction.all(_PATCHES, parameters)]


def list_revisions(transaction: Transaction, tenant: str, session: str, *, after: int, limit: int) -> list[RevisionRow]:
    """Revisions past a number, ascending."""
    parameters = {"tenant": tenant, "session": session, "after": after, "count": limit}
    return [RevisionRow.of(row) for row in transaction.all(_PAGE, parameters)]
