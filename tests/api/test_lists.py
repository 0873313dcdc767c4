"""Lists: pages, cursors, filters, order."""

import asyncio
import base64
import json
from typing import Any

import pytest

from app import Workflow
from tests.support.problems import problem_of
from tests.support.server import Client, running


class Echo(Workflow):
    def run(self, text: str = "hi") -> str:
        return text


class Other(Workflow):
    def run(self) -> None:
        raise ValueError


async def pages(client: Client, path: str, limit: int, **filters: str) -> list[Any]:
    """All elements of a list, by its cursors; every page but the last is full."""
    items: list[Any] = []
    params: dict[str, Any] = {"limit": limit} | filters
    while True:
        answer = await client.get(path, params=params)
        page = answer.json()
        assert set(page) == {"items", "next_cursor"}, page
        items += page["items"]
        if page["next_cursor"] is None:
            assert "next" not in answer.links
            return items
        assert len(page["items"]) == limit
        linked = await client.get(answer.links["next"]["url"])
        params = params | {"cursor": page["next_cursor"]}
        assert linked.json() == (await client.get(path, params=params)).json()


async def test_runs_are_listed_newest_first(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        started = [(await client.finish("echo"))["run_id"] for _ in range(7)]
        for limit in (1, 3, 7, 200):
            assert [run["run_id"] for run in await pages(client, "/runs", limit)] == started[::-1]


async def test_a_run_that_arrives_meanwhile_disturbs_no_page(sqlite_url: str) -> None:
    async with running(sqlite_url, Echo) as client:
        started = [(await client.finish("echo"))["run_id"] for _ in range(4)]
        first = (await client.get("/runs", params={"limit": 2})).json()
        await client.finish("echo")
        second = (await client.get("/runs", params={"limit": 2, "cursor": first["next_cursor"]})).json()
        assert [run["run_id"] for run in first["items"] + second["items"]] == started[::-1]


async def test_runs_are_filtered_by_everything_at_once(database_url: str) -> None:
    async with running(database_url, Echo, Other) as client:
        await asyncio.gather(
            client.finish("echo", {"session_id": "a", "user_id": "ada"}),
            client.finish("echo", {"session_id": "b", "user_id": "ada"}),
            client.finish("other", {"session_id": "c", "user_id": "ada"}),
            client.finish("other", {"session_id": "d", "user_id": "bob"}),
        )
        for filters, sessions in [
            ({"workflow": "echo"}, {"a", "b"}),
            ({"user_id": "ada"}, {"a", "b", "c"}),
            ({"status": "failed"}, {"c", "d"}),
            ({"session_id": "b"}, {"b"}),
            ({"workflow": "other", "user_id": "ada", "status": "failed"}, {"c"}),
            ({"workflow": "echo", "status": "failed"}, set()),
            ({"status": "queued"}, set()),
            ({"user_id": "nobody"}, set()),
            ({"workflow": "' OR 1=1 --"}, set()),
        ]:
            found = await pages(client, "/runs", 1, **filters)
            assert {run["session_id"] for run in found} == sessions, filters
            assert len(found) == len(sessions)


async def test_sessions_are_listed_newest_first_and_filtered(database_url: str) -> None:
    async with running(database_url, Echo, Other) as client:
        for number in range(6):
            workflow = "echo" if number < 4 else "other"
            body = {
                "workflow": workflow,
                "session_id": f"{number}",
                "user_id": f"u{number % 2}",
                "name": f"n{number % 3}",
            }
            assert (await client.post("/sessions", json=body)).status_code == 201
        for limit in (1, 4, 6):
            assert [each["session_id"] for each in await pages(client, "/sessions", limit)] == list("543210")
        for filters, sessions in [
            ({"workflow": "echo"}, "3210"),
            ({"user_id": "u1"}, "531"),
            ({"name": "n0"}, "30"),
            ({"workflow": "echo", "user_id": "u1", "name": "n0"}, "3"),
            ({"name": "none"}, ""),
        ]:
            assert [each["session_id"] for each in await pages(client, "/sessions", 2, **filters)] == list(sessions)


async def test_workflows_are_listed_by_name(sqlite_url: str) -> None:
    def named(text: str) -> type[Workflow]:
        class Named(Workflow):
            name = text

            def run(self) -> None:
                pass

        return Named

    async with running(sqlite_url, *map(named, ["b", "a", "c", "A", "a.b"])) as client:
        for limit in (1, 2, 200):
            names = [workflow["name"] for workflow in await pages(client, "/workflows", limit)]
            assert names == ["A", "a", "a.b", "b", "c"]


async def test_revisions_are_listed_by_number(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        await client.post("/sessions", json={"workflow": "echo", "session_id": "\u65e5 s?"})
        path = "/sessions/%E6%97%A5%20s%3F/state"
        for number in range(5):
            assert (await client.patch(path, json={"n": number})).status_code == 200
        for limit in (1, 2, 5):
            revisions = await pages(client, f"{path}/revisions", limit)
            assert [revision["revision"] for revision in revisions] == [1, 2, 3, 4, 5]


LISTS = ["/runs", "/sessions", "/workflows", "/sessions/s/state/revisions"]


@pytest.mark.parametrize("path", LISTS)
async def test_a_bad_limit_or_cursor_is_refused(database_url: str, path: str) -> None:
    async with running(database_url, Echo) as client:
        await client.finish("echo", {"session_id": "s"})
        for limit in ("0", "201", "-1", "ten", "", "1.5"):
            problem_of(await client.get(path, params={"limit": limit}), 422)
        for cursor in BAD_CURSORS:
            problem_of(await client.get(path, params={"cursor": cursor}), 422)


def forged(position: Any) -> str:
    """A cursor of our own making, as a client might that looked into one."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")


BAD_CURSORS = [
    "",
    "x",
    "\u00fc",
    "====",
    "a" * 2000,
    forged(None),
    forged({}),
    forged([]),
    forged([None]),
    forged([True]),
    forged([1.5]),
    forged([["a"]]),
    forged(["a", "b", "c"]),
    forged([1, 2]),
    forged(["not a time", "s"]),
    base64.urlsafe_b64encode(b"[1").decode(),
]


@pytest.mark.parametrize("path", LISTS)
async def test_no_cursor_however_forged_breaks_a_list(database_url: str, path: str) -> None:
    hostile = [
        ["\x00"],
        ["\ud800"],
        ["2026-01-01T00:00:00Z", "\x00"],
        ["2026-01-01T00:00:00", "s"],
        ["0001-01-01T00:00:00+23:59", "s"],
        ["2026-01-01", "s"],
        [2**31],
        [2**63],
        [2**64 - 1],
        [-(2**63)],
        [-1],
        ["' OR 1=1 --"],
    ]
    async with running(database_url, Echo) as client:
        await client.finish("echo", {"session_id": "s"})
        for position in hostile:
            answer = await client.get(path, params={"cursor": forged(position)})
            assert answer.status_code in {200, 422}, (position, answer.text)


async def test_a_bad_filter_is_refused(sqlite_url: str) -> None:
    async with running(sqlite_url, Echo) as client:
        for query in ("status=done", "status=", "workflow=", "session_id=" + "a" * 300):
            problem_of(await client.get(f"/runs?{query}"), 422)


@pytest.mark.parametrize("path", ["/runs?workflow=", "/runs?session_id=", "/runs?user_id=", "/sessions?name="])
async def test_no_filter_however_odd_breaks_a_list(database_url: str, path: str) -> None:
    async with running(database_url, Echo) as client:
        await client.finish("echo", {"session_id": "s"})
        for value in ("%00", "a%00b", "%ED%A0%80", "%FF", "%F0%9F%98%80", "%25", "%5C", "%27"):
            answer = await client.get(path + value)
            assert answer.status_code in {200, 422}, (value, answer.text)
            assert answer.status_code == 422 or answer.json()["items"] == []
