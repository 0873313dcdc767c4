"""The times of a session's revisions: they do not go back, whoever waited for the session's lock."""

from datetime import timedelta

from app import clock
from app.engine.states import States
from app.store import revisions, sessions
from app.store.database import Transaction
from app.store.opening import open_database
from app.store.tables import RevisionRow, SessionRow
from app.workflow.state import EMPTY


async def test_a_writer_that_waited_is_not_earlier_than_the_one_before_it(database_url: str) -> None:
    now = clock.now()
    states = States(max_state_bytes=1000, cache_bytes=0)

    def work(transaction: Transaction) -> list[RevisionRow]:
        row = SessionRow(tenant_id="t", session_id="s", workflow="w", created_at=now, updated_at=now)
        sessions.insert_session(transaction, row)
        states.revise(transaction, row, EMPTY.changed_to({"a": 1}), at=now)
        states.revise(transaction, row, EMPTY.changed_to({"a": 2}), at=now - timedelta(seconds=3))
        return revisions.list_revisions(transaction, "t", "s", after=0, limit=10)

    database = open_database(database_url, lease_seconds=10)
    try:
        found = await database.write(work)
    finally:
        await database.close()
    assert [revision.created_at for revision in found] == [now, now]
