"""What an operator may ask about users: that all that belongs to one is gone."""

from app import clock
from app.engine.hooks import Hooks
from app.engine.states import States
from app.errors import Conflict, NotFound
from app.operations.access import Access
from app.operations.caller import Caller
from app.operations.sessions import remove_session
from app.store import deliveries, keys, retention, runs, schedules, sessions, webhooks
from app.store.database import Database, Transaction
from app.store.tables import RunRow
from app.workflow.status import ENDED, RunStatus

RUNS_PER_BATCH = 20
LIVE = tuple(status for status in RunStatus if status not in ENDED)


class Users:
    """Users are known by what belongs to them; there is no list of them."""

    def __init__(self, database: Database, states: States, hooks: Hooks, access: Access) -> None:
        self._database, self._states, self._hooks, self._access = database, states, hooks, access

    async def delete(self, caller: Caller, user_id: str) -> None:
        """Remove all of a user of the tenant: sessions, runs, events, history, keys, webhooks, deliveries, schedules.

        Raises Conflict while a run of the user's is live. A session, or a run, is one transaction; who is interrupted
        asks again. It is fine that nothing is there.
        """
        user = caller.owner(user_id) or user_id
        tenant = caller.tenant
        await self._database.read(lambda transaction: _refuse_if_live(transaction, tenant, user))
        for key in await self._database.write(lambda transaction: _remove_what_acts(transaction, tenant, user)):
            self._access.forget(key)
        await self._hooks.refresh()
        while await self._database.write(lambda transaction: self._remove_a_session(transaction, caller, user)):
            pass
        while await self._database.write(lambda transaction: _remove_runs(transaction, tenant, user)):
            pass
        await self._database.scrub()

    def _remove_a_session(self, transaction: Transaction, caller: Caller, user: str) -> bool:
        rows = sessions.list_sessions(transaction, caller.tenant, filters={"user_id": user}, before=None, limit=1)
        for row in rows:
            try:
                remove_session(transaction, self._states, caller, row.session_id)
            except NotFound:  # somebody else was first
                continue
        return bool(rows)


def _refuse_if_live(transaction: Transaction, tenant: str, user: str) -> None:
    for status in LIVE:
        filters = {"user_id": user, "status": status.value}
        for run in runs.list_runs(transaction, tenant, filters=filters, before=None, limit=1):
            raise _busy(user, run)


def _remove_what_acts(transaction: Transaction, tenant: str, user: str) -> list[str]:
    """Remove schedules and webhooks, with what is on its way to them, and erase keys, whose ids are returned.

    These go first: they could make more of what goes after them.
    """
    erased = keys.erase_keys_of(transaction, tenant, user, at=clock.now())
    schedules.delete_schedules_of(transaction, tenant, user)
    for webhook in webhooks.webhooks_of(transaction, tenant, user):
        deliveries.delete_deliveries_to(transaction, tenant, webhook)
    webhooks.delete_webhooks_of(transaction, tenant, user)
    webhooks.note_change(transaction, tenant)
    return erased


def _remove_runs(transaction: Transaction, tenant: str, user: str) -> bool:
    """Some of the runs that the user has in sessions of others."""
    found = runs.list_runs(transaction, tenant, filters={"user_id": user}, before=None, limit=RUNS_PER_BATCH)
    rows = [runs.lock_run(transaction, tenant, run_id) for run_id in sorted(run.run_id for run in found)]
    there = [row for row in rows if row is not None]
    for row in there:
        if row.status not in ENDED:
            raise _busy(user, row)
    if there:
        ids = [row.run_id for row in there]
        retention.remove_events(transaction, tenant, ids)
        retention.remove_runs(transaction, tenant, ids)
    return bool(found)


def _busy(user: str, run: RunRow) -> Conflict:
    return Conflict(
        f"the user {user[:255]!r} has a live run, {run.run_id}; cancel it first", code="user_busy", run_id=run.run_id
    )
