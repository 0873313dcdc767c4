"""Webhooks over HTTP: made, seen, changed, signed, delivered."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.responses import RedirectResponse, Response

from app import RunResponse, Workflow
from tests.plans.statements import recorded
from tests.support.receiver import Received, receiver
from tests.support.server import Client, running
from tests.support.tables import execute, query
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

HERE = {"webhook_allow_http": True, "webhook_allow_private": True, "webhook_retry_seconds": "0.05,0.1,0.1"}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="


class Teller(Workflow):
    async def run(self, words: int = 3, ask: bool = False) -> AsyncIterator[RunResponse]:
        for number in range(words):
            yield RunResponse(content=f"word {number}")
        if ask:
            await self.wait_for_input("go on?")


class Told(Workflow):
    def run(self) -> str:
        return "told"


async def deliveries(client: Client, path: str, **query: str) -> list[dict[str, Any]]:
    """The log at a path."""
    answer = await client.get(f"{path}/deliveries", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def settled(client: Client, path: str, status: str, count: int = 1) -> list[dict[str, Any]]:
    """The log, once so many have come to a status."""

    async def look() -> list[dict[str, Any]]:
        found = await deliveries(client, path)
        return found if [one["status"] for one in found].count(status) >= count else []

    return await until(look)


async def create(client: Client, url: str, **members: Any) -> dict[str, Any]:
    """A new webhook, with its secret."""
    answer = await client.post("/webhooks", json={"url": url} | members)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"/webhooks/{made['webhook_id']}"
    return made


async def test_a_run_posts_its_end_to_its_webhook(database_url: str) -> None:
    async with receiver() as there, running(database_url, Teller, **HERE) as client:
        webhook = {"url": f"{there.url}/ended", "secret": SECRET}
        run = await client.finish("teller", {"webhook": webhook})
        (got,) = await there.gets(1)
        last = (await client.events(run["run_id"]))[-1].data
        assert got.message == {"type": "RunFinished", "timestamp": last["created_at"], "data": last}
        assert got.is_signed_by(SECRET)
        assert abs(int(got.headers["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 30
        assert got.headers["content-type"] == "application/json"
        (sent,) = await settled(client, f"/runs/{run['run_id']}", "delivered")
        assert (sent["delivery_id"], sent["run_id"]) == (got.id, run["run_id"])
        assert (sent["attempts"], sent["response_status"], sent["error"]) == (1, 200, None)
        assert (sent["event"], sent["sequence"]) == ("RunFinished", last["sequence"])
        assert sent["delivered_at"] is not None
        assert sent["next_attempt_at"] is None


async def test_every_event_that_is_wanted_and_no_other(database_url: str) -> None:
    async with receiver() as there, running(database_url, Teller, Told, **HERE) as client:
        all_of_it = {"webhook": {"url": f"{there.url}/all", "events": ["*"]}}
        run = await client.finish("teller", all_of_it, words=40)
        said = [event.data for event in await client.events(run["run_id"])]
        got = await there.gets(len(said), path="/all")
        assert sorted((one.message["data"] for one in got), key=lambda event: event["sequence"]) == said
        assert len({one.id for one in got}) == len(said)
        await client.finish("teller", {"webhook": {"url": f"{there.url}/some", "events": ["RunResponse"]}}, words=2)
        assert {one.message["type"] for one in await there.gets(2, path="/some")} == {"RunResponse"}
        await client.finish("told", {"webhook": {"url": f"{there.url}/told"}})
        assert (await there.gets(1, path="/told"))[0].message["data"]["content"] == "told"
        await settled(client, f"/runs/{run['run_id']}", "delivered", len(said))
        assert len(there.to("/all")) == len(said)


async def test_events_of_runs_that_nobody_executes_are_posted_too(database_url: str) -> None:
    events = ["RunQueued", "RunPaused", "RunContinued", "RunFinished"]
    async with receiver() as there, running(database_url, Teller, **HERE) as client:
        webhook = {"session_id": "s", "webhook": {"url": there.url, "events": events}}
        paused = await client.start("teller", webhook, ask=True)
        queued = await client.start("teller", webhook)
        assert {one.message["type"] for one in await there.gets(2)} == {"RunQueued", "RunPaused"}
        asked = next(one.message["data"] for one in there.received if one.message["type"] == "RunPaused")
        await client.post(f"/runs/{queued['run_id']}/cancel")
        answer = {"request_id": asked["request_id"], "value": 1}
        assert (await client.post(f"/runs/{paused['run_id']}/input", json=answer)).status_code == 202
        got = [one.message for one in await there.gets(5)]
        assert sorted(one["type"] for one in got[2:]) == ["RunContinued", "RunFinished", "RunFinished"]
        ends = {one["data"]["run_id"]: one["data"]["status"] for one in got if one["type"] == "RunFinished"}
        assert ends == {paused["run_id"]: "completed", queued["run_id"]: "cancelled"}


async def test_a_registered_webhook_gets_the_runs_that_come_after_it(database_url: str) -> None:
    async with receiver() as there, running(database_url, Teller, **HERE) as client:
        before = await client.start("teller", ask=True)
        made = await create(client, f"{there.url}/tenant")
        ada = await create(client, f"{there.url}/ada", user_id="ada", events=["RunFinished", "WorkflowStarted"])
        for user in ("ada", "bob"):
            await client.finish("teller", {"user_id": user})
        await client.post(f"/runs/{before['run_id']}/cancel")
        of_all = await there.gets(2, path="/tenant")
        of_ada = await there.gets(2, path="/ada")
        assert all(one.is_signed_by(made["secret"]) and not one.is_signed_by(ada["secret"]) for one in of_all)
        assert {one.message["type"] for one in of_ada} == {"WorkflowStarted", "RunFinished"}
        assert all(one.is_signed_by(ada["secret"]) for one in of_ada)
        assert len(await settled(client, f"/webhooks/{made['webhook_id']}", "delivered", 2)) == 2
        assert before["run_id"] not in {one.message["data"]["run_id"] for one in there.received}


async def test_the_secret_is_shown_once(database_url: str) -> None:
    async with running(database_url, Teller) as client:
        made = await create(client, "https://hooks.example.com/a", events=["RunFinished", "RunPaused"])
        assert made["secret"].startswith("whsec_")
        webhook = {name: value for name, value in made.items() if name != "secret"}
        path = f"/webhooks/{made['webhook_id']}"
        assert (await client.get(path)).json() == webhook
        assert (await client.get("/webhooks")).json() == {"items": [webhook], "next_cursor": None}
        changed = (await client.patch(path, json={"events": ["RunPaused"], "active": False})).json()
        assert changed["events"] == ["RunPaused"]
        assert not changed["active"]
        assert "secret" not in changed
        assert (await client.delete(path)).status_code == 204
        for method in ("GET", "DELETE"):
            assert (await client.request(method, path)).json()["code"] == "unknown_webhook"
        assert (await client.get("/webhooks")).json()["items"] == []


async def test_lists_have_pages_and_a_filter(database_url: str) -> None:
    async with running(database_url, Teller) as client:
        made = [
            (await create(client, f"https://h.example.com/{n}", user_id="ada" if n % 2 else None)) for n in range(5)
        ]
        ids = [one["webhook_id"] for one in reversed(made)]
        first = (await client.get("/webhooks", params={"limit": 3})).json()
        rest = (await client.get("/webhooks", params={"limit": 3, "cursor": first["next_cursor"]})).json()
        assert [one["webhook_id"] for one in first["items"] + rest["items"]] == ids
        ada = (await client.get("/webhooks", params={"user_id": "ada"})).json()["items"]
        assert [one["webhook_id"] for one in ada] == [ids[1], ids[3]]


async def test_there_are_not_too_many(sqlite_url: str) -> None:
    async with running(sqlite_url, Teller) as client:
        for number in range(50):
            await create(client, f"https://h.example.com/{number}")
        refused = await client.post("/webhooks", json={"url": "https://h.example.com/more"})
        assert (refused.status_code, refused.json()["code"]) == (409, "too_many_webhooks")
        await create(client, "https://h.example.com/more", user_id="ada")


async def test_a_rotated_secret_signs_beside_the_new_one_for_a_while(database_url: str) -> None:
    async with receiver() as there, running(database_url, Teller, **HERE) as client:
        made = await create(client, there.url)
        path = f"/webhooks/{made['webhook_id']}"
        turned = (await client.post(f"{path}/rotate", json={"overlap_seconds": 600})).json()
        assert turned["secret"] != made["secret"]
        assert datetime.fromisoformat(turned["previous_secret_until"]) > datetime.now(UTC) + timedelta(seconds=500)
        await client.finish("teller")
        (both,) = await there.gets(1)
        assert both.is_signed_by(made["secret"])
        assert both.is_signed_by(turned["secret"])
        last = (await client.post(f"{path}/rotate", json={"overlap_seconds": 0})).json()
        await client.finish("teller")
        alone = (await there.gets(2))[1]
        assert alone.is_signed_by(last["secret"])
        assert not alone.is_signed_by(turned["secret"])


async def test_webhooks_of_runs_are_signed_by_the_callers_secret(database_url: str) -> None:
    async with receiver() as there, running(database_url, Teller, **HERE) as client:
        secret = (await client.get("/webhooks/secret")).json()["secret"]
        assert (await client.get("/webhooks/secret")).json()["secret"] == secret
        await client.finish("teller", {"webhook": {"url": there.url}})
        assert (await there.gets(1))[0].is_signed_by(secret)
        turned = (await client.post("/webhooks/secret/rotate", json={})).json()["secret"]
        await client.finish("teller", {"webhook": {"url": there.url}})
        got = (await there.gets(2))[1]
        assert got.is_signed_by(secret)
        assert got.is_signed_by(turned)


async def test_a_retried_run_posts_where_the_first_did(database_url: str) -> None:
    async with receiver() as there, running(database_url, Teller, **HERE) as client:
        run = await client.finish("teller", {"webhook": {"url": there.url, "secret": SECRET}})
        again = (await client.post(f"/runs/{run['run_id']}/retry")).json()
        got = await there.gets(2)
        assert [one.message["data"]["run_id"] for one in got] == [run["run_id"], again["run_id"]]
        assert got[1].is_signed_by(SECRET)


@pytest.mark.parametrize(
    ("webhook", "pointer"),
    [
        ({}, "/webhook/url"),
        ({"url": "https://h.example.com/", "events": []}, "/webhook/events"),
        ({"url": "https://h.example.com/", "events": ["A", "A"]}, "/webhook/events"),
        ({"url": "https://h.example.com/", "events": ["x" * 101]}, "/webhook/events/0"),
        ({"url": "https://h.example.com/", "secret": "whsec_short"}, "/webhook/secret"),
        ({"url": "https://h.example.com/", "when": "now"}, "/webhook/when"),
    ],
)
async def test_a_webhook_that_is_not_right_is_refused(sqlite_url: str, webhook: Any, pointer: str) -> None:
    async with running(sqlite_url, Teller) as client:
        answer = await client.post("/workflows/teller/runs", json={"webhook": webhook})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == pointer
        assert (await client.get("/runs")).json()["items"] == []


async def test_a_key_stands_for_the_webhook_too(database_url: str) -> None:
    async with receiver() as there, running(database_url, Teller, **HERE) as client:
        key = {"Idempotency-Key": "k", "Prefer": "wait=20"}
        body = {"webhook": {"url": f"{there.url}/a"}}
        first = (await client.post("/workflows/teller/runs", json=body, headers=key)).json()
        assert (await client.post("/workflows/teller/runs", json=body, headers=key)).json() == first
        other = await client.post("/workflows/teller/runs", json={"webhook": {"url": f"{there.url}/b"}}, headers=key)
        assert other.json()["code"] == "idempotency_key_reused"
        await there.gets(1)


async def test_what_fails_is_sent_again_under_the_same_id(database_url: str) -> None:
    def answering(received: Received) -> Response:
        return Response(status_code=503 if len(there.received) < 3 else 204)

    async with receiver(answering) as there, running(database_url, Teller, **HERE) as client:
        run = await client.finish("teller", {"webhook": {"url": there.url, "secret": SECRET}})
        got = await there.gets(3)
        assert len({one.id for one in got}) == 1
        assert len({one.body for one in got}) == 1
        assert all(one.is_signed_by(SECRET) for one in got)
        (sent,) = await settled(client, f"/runs/{run['run_id']}", "delivered")
        assert (sent["attempts"], sent["response_status"], sent["error"]) == (3, 204, None)
        text = (await client.get("/metrics")).text
        assert 'millstream_webhook_deliveries_total{outcome="retried"} 2.0' in text
        assert 'millstream_webhook_deliveries_total{outcome="delivered"} 1.0' in text


async def test_what_goes_on_failing_is_given_up_and_can_be_sent_again(database_url: str) -> None:
    broken = True

    def answering(received: Received) -> Response:
        return Response(status_code=500 if broken else 200)

    async with receiver(answering) as there, running(database_url, Teller, **HERE) as client:
        run = await client.finish("teller", {"webhook": {"url": there.url}})
        path = f"/runs/{run['run_id']}"
        (failed,) = await settled(client, path, "failed")
        assert (failed["attempts"], failed["response_status"], failed["error"]) == (4, 500, "it answered 500")
        assert failed["next_attempt_at"] is None
        assert await deliveries(client, path, status="failed") == [failed]
        assert await deliveries(client, path, status="delivered") == []
        broken = False
        answer = await client.post(f"/deliveries/{failed['delivery_id']}/redeliver")
        assert answer.status_code == 202
        (sent,) = await settled(client, path, "delivered")
        assert sent["attempts"] == 5
        assert len({one.id for one in there.received}) == 1
        nothing = await client.post("/deliveries/01927c3e-8f5a-7cc0-b1de-5d2f1a3b4c5d/redeliver")
        assert nothing.json()["code"] == "unknown_delivery"


async def test_a_redirect_is_not_followed(database_url: str) -> None:
    def answering(received: Received) -> Response:
        return RedirectResponse("/elsewhere", 307)

    settings = HERE | {"webhook_retry_seconds": ""}
    async with receiver(answering) as there, running(database_url, Teller, **settings) as client:
        run = await client.finish("teller", {"webhook": {"url": f"{there.url}/moved"}})
        (failed,) = await settled(client, f"/runs/{run['run_id']}", "failed")
        assert failed["response_status"] == 307
        assert [one.path for one in there.received] == ["/moved"]


async def test_a_receiver_says_when_to_come_again(database_url: str) -> None:
    def answering(received: Received) -> Response:
        return Response(status_code=429, headers={"Retry-After": "120"})

    async with receiver(answering) as there, running(database_url, Teller, **HERE) as client:
        run = await client.finish("teller", {"webhook": {"url": there.url}})

        async def tried() -> dict[str, Any] | None:
            (one,) = await deliveries(client, f"/runs/{run['run_id']}")
            return one if one["response_status"] else None

        waiting = await until(tried)
        assert waiting is not None
        wait = datetime.fromisoformat(waiting["next_attempt_at"]) - datetime.now(UTC)
        assert timedelta(seconds=110) < wait <= timedelta(seconds=120)
        assert waiting["status"] == "pending"


async def test_a_receiver_that_is_gone_is_left_alone(database_url: str) -> None:
    def answering(received: Received) -> Response:
        return Response(status_code=410)

    async with receiver(answering) as there, running(database_url, Teller, **HERE) as client:
        made = await create(client, there.url)
        path = f"/webhooks/{made['webhook_id']}"
        await client.finish("teller")
        await settled(client, path, "failed")
        webhook = (await client.get(path)).json()
        assert not webhook["active"]
        assert "410" in webhook["disabled_reason"]

        async def no_longer() -> bool:
            await client.finish("teller")
            return len(await deliveries(client, path)) < len((await client.get("/runs")).json()["items"])

        await until(no_longer)
        on = (await client.patch(path, json={"active": True})).json()
        assert (on["active"], on["disabled_reason"]) == (True, None)
        known = len(there.received)
        await client.finish("teller")
        await there.gets(known + 1)


async def test_what_is_on_its_way_to_a_deleted_webhook_does_not_arrive(database_url: str) -> None:
    async with receiver() as there, running(database_url, Teller, **HERE) as client:
        made = await create(client, there.url)
        run = await client.start("teller", ask=True)
        await client.delete(f"/webhooks/{made['webhook_id']}")
        await client.post(f"/runs/{run['run_id']}/cancel")
        assert (await client.ended(run["run_id"]))["status"] == "cancelled"

        async def nothing_left() -> bool:
            return not query(database_url, "SELECT 1 FROM webhook_deliveries")

        await until(nothing_left)
        assert there.received == []


async def test_a_deleted_session_takes_webhooks_and_deliveries_of_its_runs_along(database_url: str) -> None:
    async with receiver() as there, running(database_url, Teller, **HERE) as client:
        await client.finish("teller", {"session_id": "s", "webhook": {"url": there.url, "events": ["*"]}})
        await there.gets(5)
        assert (await client.delete("/sessions/s")).status_code == 204
        for table in ("webhooks", "webhook_deliveries"):
            assert query(database_url, f"SELECT 1 FROM {table}") == []


async def test_a_slow_receiver_waits_for_itself(database_url: str) -> None:
    settings = HERE | {"webhook_timeout_seconds": 0.5}
    async with (
        receiver(lambda _received: 30.0) as slow,
        receiver() as quick,
        running(database_url, Teller, **settings) as client,
    ):
        flood = {"webhook": {"url": slow.url, "events": ["*"]}}
        run = await client.finish("teller", flood, words=100)
        for _ in range(3):
            await client.finish("teller", {"webhook": {"url": quick.url}})
        await quick.gets(3, seconds=2)
        assert slow.most_at_once <= 8
        first = (await deliveries(client, f"/runs/{run['run_id']}", limit="200"))[0]
        assert first["status"] == "pending"


async def test_what_another_process_left_half_done_is_taken_over(database_url: str) -> None:
    async with receiver() as there, running(database_url, Teller, **HERE) as client:
        await client.finish("teller", {"webhook": {"url": there.url}})
        (got,) = await there.gets(1)
        await settled(client, f"/runs/{got.message['data']['run_id']}", "delivered")
        # as if its sender had died between the request and the note of the answer
        taken = datetime.now(UTC) + timedelta(seconds=0.5)
        execute(
            database_url,
            "UPDATE webhook_deliveries SET status = 'pending', delivered_at = NULL, attempts = 7,"
            " next_attempt_at = :taken",
            taken=taken if not database_url.startswith("sqlite:") else taken.replace(tzinfo=None).isoformat(" "),
        )
        again = (await there.gets(2))[1]
        assert again.id == got.id
        (sent,) = await settled(client, f"/runs/{got.message['data']['run_id']}", "delivered")
        assert sent["attempts"] == 8


async def test_a_long_answer_is_not_read_to_its_end(sqlite_url: str) -> None:
    def answering(received: Received) -> Response:
        return Response(b"x" * 50_000_000)

    async with receiver(answering) as there, running(sqlite_url, Teller, **HERE) as client:
        run = await client.finish("teller", {"webhook": {"url": there.url}})
        await settled(client, f"/runs/{run['run_id']}", "delivered")


async def test_runs_without_webhooks_cost_no_statement(database_url: str) -> None:
    with recorded() as statements:
        async with running(database_url, Teller, **HERE) as client:
            await asyncio.sleep(1.5)  # what goes on beside runs has been asked by now
            idle = set(statements.of)
            await client.finish("teller", {"session_id": "s"})
            await client.finish("teller", {"session_id": "s", "user_id": "ada"})
            of_runs = set(statements.of) - idle
    assert of_runs
    assert [shape for shape in of_runs if re.search(r"(FROM|INTO|JOIN|UPDATE) webhook", shape)] == []
