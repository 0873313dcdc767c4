"""Everything that can be asked of the service, asked once of a database that is full."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from app import RunResponse, Workflow
from app.clock import rfc3339
from app.operations.cursors import write_cursor
from tests.plans.filling import OLD_SESSION, RARE, Filled
from tests.support.server import Client
from tests.support.waiting import until

LOOKS_SECONDS = 2.2
"""In this time a worker has looked around, and its watch too."""
FILTERS_OF_RUNS = [
    {},
    {"workflow": RARE},
    {"session_id": OLD_SESSION},
    {"user_id": RARE},
    {"status": "failed"},
    {"status": "paused"},
    {"workflow": RARE, "user_id": RARE, "status": "failed"},
    {"session_id": OLD_SESSION, "status": "failed"},
]
FILTERS_OF_SESSIONS = [
    {},
    {"workflow": RARE},
    {"user_id": RARE},
    {"name": RARE},
    {"workflow": RARE, "user_id": RARE},
]


class Asked(Workflow):
    """Says, does, saves and asks, as it is told."""

    async def run(self, events: int = 3, seconds: float = 0.0, ask: bool = False) -> AsyncIterator[RunResponse]:
        for number in range(events):
            yield RunResponse(content=await self.step(str, number))
        self.session_state["counter"] = self.session_state.get("counter", 0) + 1
        await self.write_to_storage()
        if ask:
            await self.wait_for_input("go on?")
        await asyncio.sleep(seconds)
        self.session_state["last"] = {"events": events}


async def ask_everything(client: Client, filled: Filled) -> None:
    """Every route, and each way through it that has statements of its own."""
    await ask_for_lists(client, filled)
    await ask_for_runs(client, filled)
    await ask_for_streams(client, filled)
    await ask_for_states(client)
    await ask_for_webhooks(client, filled)
    await ask_for_schedules(client, filled)
    await ask_for_sessions(client, filled)
    await ask_for_users(client, filled)
    assert "millstream_database_up 1.0" in (await client.get("/metrics")).text
    await asyncio.sleep(LOOKS_SECONDS)


async def ask_for_users(client: Client, filled: Filled) -> None:
    """One who has a session, a run in another's, a webhook and a schedule, and who goes."""
    owned = {"user_id": "leaving"}
    await _start(client, filled, owned | {"input": {"events": 1}}, headers={"Prefer": "wait=20"})
    shared = owned | {"session_id": OLD_SESSION, "input": {"events": 1}}
    await _start(client, filled, shared, headers={"Prefer": "wait=20"})
    await _ok(client, "POST", "/webhooks", json={"url": "https://hooks.invalid/"} | owned)
    schedule = {"name": "rarely", "workflow": filled.workflow, "cron": "0 0 1 1 *"}
    await _ok(client, "POST", "/schedules", json=schedule | owned)
    assert (await client.delete("/users/leaving")).status_code == 204


async def ask_for_lists(client: Client, filled: Filled) -> None:
    """First pages and deep ones."""
    moment, session_id = filled.deep_session
    for path, filters, cursor in (
        ("/runs", FILTERS_OF_RUNS, write_cursor(filled.deep_run)),
        ("/sessions", FILTERS_OF_SESSIONS, write_cursor(rfc3339(moment), session_id)),
    ):
        for chosen in filters:
            await _ok(client, "GET", path, params=chosen)
            await _ok(client, "GET", path, params={**chosen, "cursor": cursor})


async def ask_for_runs(client: Client, filled: Filled) -> None:
    """Starts in every mood, ends of every kind."""
    named = {"session_id": OLD_SESSION}
    keyed = {"Idempotency-Key": "once"}
    for _ in range(2):
        await _start(client, filled, named | {"input": {}}, headers=keyed | {"Prefer": "wait=20"})
    await _start(client, filled, {"input": {}, "session_state": {"given": 1}}, headers={"Prefer": "wait=20"})
    live = await _start(client, filled, named | {"input": {"seconds": 60}})
    queued = [await _start(client, filled, named | {"input": {}}) for _ in range(2)]
    await _start(client, filled, named | {"input": {}, "on_busy": "reject"}, status=409)
    await _ok(client, "GET", f"/runs/{queued[1]['run_id']}")
    await _ok(client, "POST", f"/runs/{queued[1]['run_id']}/cancel")
    interrupting = await _start(client, filled, named | {"input": {}, "on_busy": "interrupt"})
    await client.ended(live["run_id"])
    await client.ended(interrupting["run_id"])
    asking = await _start(client, filled, {"input": {"ask": True}})

    async def paused() -> bool:
        return bool((await client.get(f"/runs/{asking['run_id']}")).json()["status"] == "paused")

    await until(paused)
    log = await _ok(client, "GET", f"/runs/{asking['run_id']}/events", headers={"Accept": "application/json"})
    request_id = next(event["request_id"] for event in log["items"] if event["event"] == "RunPaused")
    await _ok(client, "POST", f"/runs/{asking['run_id']}/input", json={"request_id": request_id, "value": 1})
    await client.ended(asking["run_id"])
    again = await _ok(client, "POST", f"/runs/{asking['run_id']}/retry", json={"input": {"events": 1}})
    await client.ended(again["run_id"])


async def ask_for_streams(client: Client, filled: Filled) -> None:
    """One run, live and again; many on one stream."""
    run = await _start(client, filled, {"session_id": OLD_SESSION, "input": {"events": 20}})
    events = await client.events(run["run_id"])
    assert len(await client.events(run["run_id"], after=5)) == len(events) - 5
    page = {"params": {"after": 3, "limit": 2}, "headers": {"Accept": "application/json"}}
    await _ok(client, "GET", f"/runs/{filled.long_run}/events", **page)
    last = len(await client.events(filled.long_run))
    assert len(await client.events(filled.long_run, after=last - 2)) == 2
    for named in ({"run_id": run["run_id"]}, {"session_id": OLD_SESSION}):
        async with asyncio.timeout(20), client.stream("GET", "/events", params=named) as stream:
            assert stream.status_code == 200, await stream.aread()
            following = await _start(client, filled, {"session_id": OLD_SESSION, "input": {}})
            async for chunk in stream.aiter_raw():
                if b"RunFinished" in chunk:
                    break
        await client.ended(following["run_id"])


async def ask_for_states(client: Client) -> None:
    """The state of the old session: read, changed, traced back."""
    path = f"/sessions/{OLD_SESSION}/state"
    await _ok(client, "GET", path)
    await _ok(client, "GET", path, params={"revision": 137})
    await _ok(client, "PATCH", path, json={"patched": 1})
    await _ok(client, "PUT", path, json={"put": 1}, headers={"If-Match": "*"})
    await _ok(client, "POST", f"{path}/restore", json={"revision": 1})
    page = await _ok(client, "GET", f"{path}/revisions")
    await _ok(client, "GET", f"{path}/revisions", params={"cursor": page["next_cursor"]})


async def ask_for_webhooks(client: Client, filled: Filled) -> None:
    """Made, seen, changed, turned, sent to, deleted. Nothing arrives: the address leads nowhere."""
    nowhere = "https://hooks.invalid/"
    for owner in ({}, {"user_id": RARE}):
        made = await _ok(client, "POST", "/webhooks", json={"url": nowhere, "events": ["*"]} | owner)
    path = f"/webhooks/{made['webhook_id']}"
    await _ok(client, "GET", path)
    await _ok(client, "PATCH", path, json={"active": True})
    await _ok(client, "POST", f"{path}/rotate", json={})
    await _ok(client, "GET", "/webhooks/secret")
    await _ok(client, "POST", "/webhooks/secret/rotate", json={})
    page = await _ok(client, "GET", "/webhooks", params={"limit": 1})
    for chosen in ({}, {"user_id": RARE}):
        await _ok(client, "GET", "/webhooks", params=chosen)
        await _ok(client, "GET", "/webhooks", params={**chosen, "cursor": page["next_cursor"]})
    own = {"webhook": {"url": nowhere}, "user_id": RARE}
    run = await _start(client, filled, own | {"input": {"events": 1}}, headers={"Prefer": "wait=20"})
    await _ok(client, "POST", f"/runs/{run['run_id']}/retry", json={})

    async def tried() -> bool:
        return (await _ok(client, "GET", f"/runs/{run['run_id']}/deliveries"))["items"][0]["error"] is not None

    await until(tried)
    for log in (f"/runs/{run['run_id']}/deliveries", f"{path}/deliveries"):
        page = await _ok(client, "GET", log, params={"limit": 1})
        for status in ({}, {"status": "pending"}):
            await _ok(client, "GET", log, params=status)
            await _ok(client, "GET", log, params={**status, "cursor": write_cursor(page["items"][0]["delivery_id"])})
    await _ok(client, "POST", f"/deliveries/{page['items'][0]['delivery_id']}/redeliver")
    assert (await client.delete(path)).status_code == 204


async def ask_for_schedules(client: Client, filled: Filled) -> None:
    """Made, due, changed, paused, run, deleted."""
    body = {"name": "often", "workflow": filled.workflow, "cron": "* * * * * *", "input": {"events": 1}}
    path = f"/schedules/{(await _ok(client, 'POST', '/schedules', json=body))['schedule_id']}"

    async def ticked() -> bool:
        return (await _ok(client, "GET", path))["last_run_id"] is not None

    await until(ticked)
    await _ok(client, "POST", f"{path}/pause")
    await _ok(client, "PATCH", path, json={"name": "seldom", "cron": "0 0 1 1 *"})
    await _ok(client, "POST", f"{path}/resume")
    run = await _ok(client, "POST", f"{path}/run")
    await client.ended(run["run_id"])
    for chosen in ({}, {"name": "seldom"}, {"workflow": RARE}, {"user_id": RARE}):
        await _ok(client, "GET", "/schedules", params=chosen)
    assert (await client.delete(path)).status_code == 204


async def ask_for_sessions(client: Client, filled: Filled) -> None:
    """Made, seen, changed, forked, deleted."""
    made = await _ok(
        client, "POST", "/sessions", json={"workflow": filled.workflow, "session_state": {"a": 1}, "name": "made"}
    )
    path = f"/sessions/{made['session_id']}"
    await _ok(client, "GET", path)
    await _ok(client, "PATCH", path, json={"name": "named"})
    forked = await _ok(client, "POST", f"/sessions/{OLD_SESSION}/fork", json={})
    run = await _start(
        client, filled, {"session_id": forked["session_id"], "input": {}}, headers={"Idempotency-Key": "forked"}
    )
    await client.ended(run["run_id"])
    for session_id in (made["session_id"], forked["session_id"]):
        assert (await client.delete(f"/sessions/{session_id}")).status_code == 204


async def _start(
    client: Client, filled: Filled, body: dict[str, Any], *, status: int | None = None, **options: Any
) -> dict[str, Any]:
    answer = await client.post(f"/workflows/{filled.workflow}/runs", json=body, **options)
    assert answer.status_code == status if status else answer.is_success, answer.text
    run: dict[str, Any] = answer.json()
    return run


async def _ok(client: Client, method: str, path: str, **options: Any) -> dict[str, Any]:
    answer = await client.request(method, path, **options)
    assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text[:300]}"
    found: dict[str, Any] = answer.json()
    return found
