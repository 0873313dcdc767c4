"""Webhooks and schedules of several callers: each gets what is its own, and signs with what is its own."""

from typing import Any

import pytest

from app import Workflow
from app.wire.keys import SCOPES
from tests.support.keys import as_caller, first_key, new_key
from tests.support.problems import problem_of
from tests.support.receiver import receiver
from tests.support.server import running
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

HERE: dict[str, Any] = {"webhook_allow_http": True, "webhook_allow_private": True}


class Noted(Workflow):
    def run(self) -> str:
        return "noted"


async def test_a_webhook_gets_what_its_maker_may_see(database_url: str) -> None:
    async with receiver() as there, running(database_url, Noted, **HERE) as client:
        admin = await first_key(client)
        owners = [("acme", "ada"), ("acme", "bob"), ("acme", None), ("globex", None)]
        keys = [await new_key(client, admin, tenant=tenant, user_id=user) for tenant, user in owners]
        callers = [as_caller(client, key["key"]) for key in keys]
        for (tenant, user), caller in zip(owners, callers, strict=True):
            made = await caller.post("/webhooks", json={"url": f"{there.url}/{tenant}/{user}"})
            assert (made.status_code, made.json()["user_id"]) == (201, user)
        runs = [await caller.finish("noted") for caller in callers]
        await there.gets(6)
        got = {
            (tenant, user): {one.message["data"]["run_id"] for one in there.to(f"/{tenant}/{user}")}
            for tenant, user in owners
        }
        ids = [run["run_id"] for run in runs]
        assert got == {
            ("acme", "ada"): {ids[0]},
            ("acme", "bob"): {ids[1]},
            ("acme", None): {*ids[:3]},
            ("globex", None): {ids[3]},
        }
        log = (await callers[0].get(f"/runs/{ids[0]}/deliveries")).json()["items"]
        assert len(log) == 1, "of its run a user sees what went to webhooks of its own"
        assert len((await callers[2].get(f"/runs/{ids[0]}/deliveries")).json()["items"]) == 2


async def test_the_runs_of_all_users_are_for_administrators(database_url: str) -> None:
    async with running(database_url, Noted) as client:
        admin = await first_key(client)
        writes = [scope for scope in SCOPES if scope != "admin"]
        lesser = as_caller(client, (await new_key(client, admin, scopes=writes))["key"])
        whole = as_caller(client, admin)
        made = (await whole.post("/webhooks", json={"url": "https://hooks.invalid/"})).json()
        path = f"/webhooks/{made['webhook_id']}"
        assert (await lesser.get(path)).status_code == 200
        for refused in (
            await lesser.post("/webhooks", json={"url": "https://hooks.invalid/"}),
            await lesser.patch(path, json={"active": False}),
            await lesser.delete(path),
            await lesser.post(f"{path}/rotate", json={}),
        ):
            problem_of(refused, 403, "insufficient_scope")
        own = await lesser.post("/webhooks", json={"url": "https://hooks.invalid/", "user_id": "ada"})
        assert own.status_code == 201


async def test_a_runs_webhook_is_signed_by_its_callers_secret(database_url: str) -> None:
    async with receiver() as there, running(database_url, Noted, **HERE) as client:
        admin = await first_key(client)
        ada = as_caller(client, (await new_key(client, admin, user_id="ada"))["key"])
        whole = as_caller(client, admin)
        secrets = [(await caller.get("/webhooks/secret")).json()["secret"] for caller in (ada, whole)]
        assert secrets[0] != secrets[1]
        await ada.finish("noted", {"webhook": {"url": f"{there.url}/ada"}})
        await whole.finish("noted", {"webhook": {"url": f"{there.url}/whole"}, "user_id": "ada"})
        await there.gets(2)
        for path, secret in (("/ada", secrets[0]), ("/whole", secrets[1])):
            assert [one.is_signed_by(secret) for one in there.to(path)] == [True]


async def test_a_users_schedule_starts_the_users_runs(database_url: str) -> None:
    async with running(database_url, Noted) as client:
        admin = await first_key(client)
        ada, bob = [as_caller(client, (await new_key(client, admin, user_id=user))["key"]) for user in ("ada", "bob")]
        await bob.finish("noted", {"session_id": "bobs"})
        body = {"name": "often", "workflow": "noted", "cron": "* * * * * *"}
        made = (await ada.post("/schedules", json=body)).json()
        assert made["user_id"] == "ada"

        async def started() -> list[dict[str, Any]]:
            return list((await ada.get("/runs")).json()["items"])

        assert {run["user_id"] for run in await until(started)} == {"ada"}
        assert len((await bob.get("/runs")).json()["items"]) == 1
        path = f"/schedules/{made['schedule_id']}"
        await ada.patch(path, json={"session_id": "bobs"})

        async def refused() -> str | None:
            error: str | None = (await ada.get(path)).json()["error"]
            return error

        assert "no session 'bobs'" in str(await until(refused)), "another user's session is one that is not there"
        problem_of(await ada.post(f"{path}/run"), 404, "unknown_session")
        assert len((await bob.get("/runs")).json()["items"]) == 1
