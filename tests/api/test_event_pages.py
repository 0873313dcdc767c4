"""Events as pages of JSON."""

from collections.abc import Iterator

import pytest

from app import RunResponse, Workflow
from tests.support.problems import problem_of
from tests.support.server import running

JSON = {"Accept": "application/json"}


class Count(Workflow):
    def run(self, to: int = 8) -> Iterator[RunResponse]:
        for number in range(to):
            yield RunResponse(content=number)


async def test_pages_are_the_stream_in_pieces(database_url: str) -> None:
    async with running(database_url, Count) as client:
        run = await client.finish("count")
        path = f"/runs/{run['run_id']}/events"
        whole = [event.data for event in await client.events(run["run_id"])]
        assert (await client.get(path, headers=JSON)).json() == {"items": whole, "next_cursor": None}
        for limit in (1, 3, 5, 10, 200):
            items, cursor = [], None
            while True:
                params = {"limit": limit} | ({} if cursor is None else {"cursor": cursor})
                page = (await client.get(path, headers=JSON, params=params)).json()
                assert len(page["items"]) <= limit
                items += page["items"]
                cursor = page["next_cursor"]
                if cursor is None:
                    break
                assert isinstance(cursor, str)
            assert items == whole


async def test_a_page_links_to_the_next(database_url: str) -> None:
    async with running(database_url, Count) as client:
        run = await client.finish("count")
        answer = await client.get(f"/runs/{run['run_id']}/events", headers=JSON, params={"limit": 6})
        following = await client.get(answer.links["next"]["url"], headers=JSON)
        assert [event["sequence"] for event in following.json()["items"]] == [7, 8, 9, 10]
        assert "next" not in following.links


async def test_a_page_may_begin_after_an_event(sqlite_url: str) -> None:
    async with running(sqlite_url, Count) as client:
        run = await client.finish("count")
        page = (await client.get(f"/runs/{run['run_id']}/events?after=7&limit=2", headers=JSON)).json()
        assert [event["sequence"] for event in page["items"]] == [8, 9]
        page = (await client.get(f"/runs/{run['run_id']}/events?after=10", headers=JSON)).json()
        assert page == {"items": [], "next_cursor": None}


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=201", "limit=-1", "limit=ten", "limit=", "cursor=x", "cursor=-1", "cursor=1.5", "after=x"],
)
async def test_a_bad_page_is_refused(sqlite_url: str, query: str) -> None:
    async with running(sqlite_url, Count) as client:
        run = await client.finish("count")
        problem_of(await client.get(f"/runs/{run['run_id']}/events?{query}", headers=JSON), 422)
