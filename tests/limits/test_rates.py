"""The rate of requests: of a key, of a tenant, over processes, and what is told when it is too high."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest

from app import RunResponse, Workflow
from app.errors import TooMany
from app.operations.caller import Caller
from app.operations.rates import MAX_KNOWN, OwnBuckets, Rate, Rates, SharedBuckets, rates_of
from app.settings import Settings
from app.store.opening import open_database
from tests.faults.test_read_only import let_be_written
from tests.plans.statements import recorded
from tests.seeing.test_figures import scraped
from tests.support.cluster import cluster
from tests.support.keys import as_caller, first_key, new_key
from tests.support.server import Client, running
from tests.support.tables import query

ON_POSTGRES = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)


class Talker(Workflow):
    async def run(self) -> AsyncIterator[RunResponse]:
        yield RunResponse(content="said")


async def statuses(client: Client, count: int, path: str = "/workflows") -> Counter[int]:
    """How many of so many requests, one after the other, were answered how."""
    return Counter([(await client.get(path)).status_code for _ in range(count)])


async def test_more_than_the_rate_is_refused_until_retry_after(database_url: str) -> None:
    async with running(database_url, Talker, limit_requests_per_second=1, limit_requests_burst=3) as client:
        assert await statuses(client, 3) == {200: 3}
        refused = await client.get("/workflows")
        assert refused.status_code == 429
        assert refused.headers["Retry-After"] == "1"
        problem = refused.json()
        assert (problem["code"], problem["status"]) == ("rate_limited", 429)
        assert "MILLSTREAM_LIMIT_REQUESTS_PER_SECOND" in problem["detail"]
        await asyncio.sleep(int(refused.headers["Retry-After"]))
        assert (await client.get("/workflows")).status_code == 200
        assert (await client.get("/workflows")).status_code == 429
        assert await statuses(client, 5, "/healthz") == {200: 5}, "what is open to all is not limited"
        await asyncio.sleep(1)
        figures = await scraped(client)
    assert figures['millstream_requests_refused_total{code="rate_limited"}'] == 2


async def test_retry_after_is_as_long_as_it_takes(database_url: str) -> None:
    async with running(database_url, Talker, limit_requests_per_second=0.3, limit_requests_burst=1) as client:
        assert (await client.get("/workflows")).status_code == 200
        refused = await client.get("/workflows")
        assert refused.headers["Retry-After"] == "4"
        await asyncio.sleep(1.5)
        assert (await client.get("/workflows")).headers["Retry-After"] == "2"
        await asyncio.sleep(2)
        assert (await client.get("/workflows")).status_code == 200


async def test_one_key_at_its_limit_takes_nothing_from_another(database_url: str) -> None:
    limits = {"limit_requests_per_second": 0.05, "limit_requests_burst": 5}
    async with running(database_url, Talker, **limits) as client:
        admin = await first_key(client)
        keys = [await new_key(client, admin, name=name) for name in ("greedy", "modest")]
        greedy, modest = (as_caller(client, key["key"]) for key in keys)
        found = await asyncio.gather(*(greedy.get("/workflows") for _ in range(40)))
        assert Counter(answer.status_code for answer in found) == {200: 5, 429: 35}
        began = time.perf_counter()
        assert await statuses(modest, 5) == {200: 5}
        assert time.perf_counter() - began < 2
        assert await statuses(modest, 1) == {429: 1}


async def test_a_tenant_has_a_rate_of_its_own(database_url: str) -> None:
    limits = {"limit_tenant_requests_per_second": 0.05, "limit_tenant_requests_burst": 6}
    async with running(database_url, Talker, **limits) as client:
        admin = await first_key(client)
        north = [await new_key(client, admin, tenant="north") for _ in range(2)]
        south = await new_key(client, admin, tenant="south")
        first, second, other = (as_caller(client, key["key"]) for key in (*north, south))
        assert await statuses(first, 4) + await statuses(second, 4) == {200: 6, 429: 2}
        refused = await first.get("/workflows")
        assert "MILLSTREAM_LIMIT_TENANT_REQUESTS_PER_SECOND" in refused.json()["detail"]
        assert await statuses(other, 6) == {200: 6}


async def test_a_key_at_its_limit_leaves_its_tenants_rate_alone(database_url: str) -> None:
    limits = {
        "limit_requests_per_second": 0.05,
        "limit_requests_burst": 4,
        "limit_tenant_requests_per_second": 0.05,
        "limit_tenant_requests_burst": 8,
    }
    async with running(database_url, Talker, **limits) as client:
        admin = await first_key(client)
        greedy, modest = [as_caller(client, (await new_key(client, admin, tenant="north"))["key"]) for _ in range(2)]
        assert await statuses(greedy, 30) == {200: 4, 429: 26}
        assert await statuses(modest, 4) == {200: 4}


async def test_a_caller_without_the_scope_is_limited_too(sqlite_url: str) -> None:
    async with running(sqlite_url, Talker, limit_requests_per_second=0.05, limit_requests_burst=3) as client:
        admin = await first_key(client)
        reader = as_caller(client, (await new_key(client, admin, scopes=["runs:read"]))["key"])
        assert await statuses(reader, 5, "/keys") == {403: 3, 429: 2}


@ON_POSTGRES
async def test_processes_on_postgres_share_a_rate(database_url: str) -> None:
    limits = {"limit_requests_per_second": 40, "limit_requests_burst": 40}
    async with cluster(database_url, Talker, servers=2, workers=0, **limits) as processes:
        clients = [processes.client(0), processes.client(1)]
        passed = Counter[int]()
        began = time.monotonic()
        while (seconds := time.monotonic() - began) < 4:
            answers = await asyncio.gather(*(client.get("/workflows") for client in clients for _ in range(6)))
            passed.update(answer.status_code for answer in answers)
        for client in clients:
            await client.aclose()
    slack = 2 * 10  # what two processes may hold: a quarter of a second's each
    assert passed[429] > 20, "too little was asked to tell"
    assert passed[200] <= 40 + 40 * seconds + slack
    assert passed[200] >= 40 * seconds * 0.7


@ON_POSTGRES
async def test_processes_on_postgres_share_a_low_rate_exactly(database_url: str) -> None:
    limits = {"limit_requests_per_second": 0.05, "limit_requests_burst": 7}
    async with (
        running(database_url, Talker, **limits) as first,
        running(database_url, Talker, **limits) as second,
    ):
        both = [client for _ in range(10) for client in (first, second)]
        assert Counter([(await client.get("/workflows")).status_code for client in both]) == {200: 7, 429: 13}


@ON_POSTGRES
async def test_requests_share_journeys_to_the_database(database_url: str) -> None:
    with recorded() as statements:
        async with running(database_url, Talker, limit_requests_per_second=400, limit_requests_burst=400) as client:
            assert await statuses(client, 300) == {200: 300}
    (asked,) = query(database_url, "SELECT taken FROM request_rates")
    assert asked["taken"] == 100, "a quarter of a second's at a time"
    assert statements.about("request_rates")


async def test_without_its_database_a_process_counts_by_itself() -> None:
    database = open_database("postgresql://nobody@127.0.0.1:9/none", lease_seconds=1)
    rate = Rate(0.05, 10, "SETTING", "this credential")
    rates = Rates((rate, SharedBuckets(database, rate)), None)
    for _ in range(10):
        await rates.admit(Caller())
    with pytest.raises(TooMany, match="SETTING"):
        await rates.admit(Caller())
    await database.close()


@ON_POSTGRES
async def test_where_nothing_can_be_written_reading_goes_on(database_url: str) -> None:
    async with running(database_url, Talker, limit_requests_per_second=0.05, limit_requests_burst=4) as client:
        let_be_written(database_url, written=False)
        assert await statuses(client, 8, "/runs") == {200: 4, 429: 4}
        let_be_written(database_url, written=True)


def test_without_a_limit_there_is_nothing_to_ask(sqlite_url: str) -> None:
    assert rates_of(Settings(database_url=sqlite_url), open_database(sqlite_url, lease_seconds=1)) is None


async def test_without_a_limit_postgres_is_not_asked(database_url: str) -> None:
    with recorded() as statements:
        async with running(database_url, Talker) as client:
            await client.finish("talker")
    assert not statements.about("request_rates")
    assert query(database_url, "SELECT * FROM request_rates") == []


async def test_buckets_that_are_full_are_forgotten() -> None:
    buckets = OwnBuckets(Rate(1_000_000, 1, "SETTING", "this credential"))
    for number in range(3 * MAX_KNOWN):
        await buckets.take(("default", f"{number}"))
    assert len(buckets._full_at) <= MAX_KNOWN + 1


async def test_refusals_of_browsers_are_readable(sqlite_url: str) -> None:
    limits = {"limit_requests_per_second": 0.05, "limit_requests_burst": 1, "cors_origins": ("https://app.example",)}
    async with running(sqlite_url, Talker, **limits) as client:
        answers: list[httpx.Response] = [
            await client.get("/workflows", headers={"Origin": "https://app.example"}) for _ in range(2)
        ]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert "Retry-After" in answers[1].headers["access-control-expose-headers"]
