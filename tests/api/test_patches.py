"""Both kinds of patches over HTTP."""

import resource
from typing import Any

import httpx

from app import Workflow
from tests.support.problems import problem_of
from tests.support.server import Client, running


class Echo(Workflow):
    def run(self) -> None:
        pass


STATE: dict[str, Any] = {
    "a": {"b": {"c": 1}},
    "list": [1, "two", {"three": 3}],
    "null": None,
    "true": True,
    "": "empty",
    "a/b": 1,
    "m~n": 2,
    "text": "t",
    "zero": 0,
}


async def fresh(client: Client) -> None:
    headers = {"If-Match": "*"}
    answer = await client.put("/sessions/s/state", json=STATE, headers=headers)
    if answer.status_code == 404:
        await client.post("/sessions", json={"workflow": "echo", "session_id": "s", "session_state": STATE})


async def merge(client: Client, patch: Any) -> httpx.Response:
    headers = {"Content-Type": "application/merge-patch+json"}
    return await client.request("PATCH", "/sessions/s/state", json=patch, headers=headers)


async def patch(client: Client, *operations: Any) -> httpx.Response:
    headers = {"Content-Type": "application/json-patch+json"}
    return await client.request("PATCH", "/sessions/s/state", json=list(operations), headers=headers)


async def test_a_merge_patch_changes_what_it_names(database_url: str) -> None:
    table: list[tuple[Any, Any]] = [
        ({}, STATE),
        ({"a": {"b": {"c": None}}}, STATE | {"a": {"b": {}}}),
        ({"a": {"x": 1}}, STATE | {"a": {"b": {"c": 1}, "x": 1}}),
        ({"a": [1]}, STATE | {"a": [1]}),
        ({"a": None}, {key: value for key, value in STATE.items() if key != "a"}),
        ({"none": None}, STATE),
        ({"none": {"deep": None}}, STATE | {"none": {}}),
        ({"none": {"deep": {"er": None, "x": 1}}}, STATE | {"none": {"deep": {"x": 1}}}),
        ({"list": {"0": 1}}, STATE | {"list": {"0": 1}}),
        ({"list": [None]}, STATE | {"list": [None]}),
        ({"text": {"t": 1}}, STATE | {"text": {"t": 1}}),
        ({"a/b": 2, "": None}, {key: value for key, value in STATE.items() if key} | {"a/b": 2}),
        ({"new": [{"x": None}]}, STATE | {"new": [{"x": None}]}),
    ]
    async with running(database_url, Echo) as client:
        for body, expected in table:
            await fresh(client)
            before = (await client.get("/sessions/s/state")).headers["etag"]
            answer = await merge(client, body)
            assert (answer.status_code, answer.json()) == (200, expected), body
            assert (answer.headers["etag"] == before) == (expected == STATE), body
            read = await client.get("/sessions/s/state")
            assert (read.content, read.headers["etag"]) == (answer.content, answer.headers["etag"])


async def test_plain_json_is_a_merge_patch(sqlite_url: str) -> None:
    async with running(sqlite_url, Echo) as client:
        await fresh(client)
        assert (await client.patch("/sessions/s/state", json={"a": None, "x": 1})).json()["x"] == 1


def op(kind: str, path: Any, value: Any = ..., **members: Any) -> dict[str, Any]:
    return {"op": kind, "path": path} | members | ({} if value is ... else {"value": value})


async def test_a_json_patch_applies_in_order(database_url: str) -> None:
    table: list[tuple[list[Any], Any]] = [
        ([], STATE),
        ([op("add", "/x", {"y": []}), op("add", "/x/y/-", 1), op("add", "/x/y/0", 0)], STATE | {"x": {"y": [0, 1]}}),
        ([op("replace", "/a/b/c", None)], STATE | {"a": {"b": {"c": None}}}),
        ([op("remove", "/list/1")], STATE | {"list": [1, {"three": 3}]}),
        ([op("move", "/moved", **{"from": "/a/b"})], STATE | {"a": {}, "moved": {"c": 1}}),
        ([op("copy", "/list/0", **{"from": "/a"})], STATE | {"list": [{"b": {"c": 1}}, 1, "two", {"three": 3}]}),
        ([op("add", "/a~1b", 5), op("add", "/m~0n", 6), op("add", "/", 7)], STATE | {"a/b": 5, "m~n": 6, "": 7}),
        ([op("add", "/-", 1)], STATE | {"-": 1}),
        ([op("move", "/list/0", **{"from": "/list/2"})], STATE | {"list": [{"three": 3}, 1, "two"]}),
        ([op("move", "/a", **{"from": "/a"})], STATE),
        ([op("replace", "", {"whole": 1})], {"whole": 1}),
        ([op("copy", "/a/b/c", **{"from": "/a"})], STATE | {"a": {"b": {"c": {"b": {"c": 1}}}}}),
        ([op("add", "/list/3", "end")], STATE | {"list": [*STATE["list"], "end"]}),
        ([op("test", "/a", {"b": {"c": 1}}), op("remove", "/a"), op("add", "/a", STATE["a"])], STATE),
        ([op("test", "", STATE)], STATE),
        ([op("add", "/x", 1, comment="members that nobody knows are left alone")], STATE | {"x": 1}),
    ]
    async with running(database_url, Echo) as client:
        for operations, expected in table:
            await fresh(client)
            answer = await patch(client, *operations)
            assert (answer.status_code, answer.json()) == (200, expected), (operations, answer.text)
            assert (await client.get("/sessions/s/state")).json() == expected


async def test_a_test_compares_json_not_python(database_url: str) -> None:
    same: list[tuple[str, Any]] = [
        ("/true", True),
        ("/zero", 0),
        ("/null", None),
        ("/zero", 0.0),
        ("/a/b/c", 1.0),
        ("/list", [1, "two", {"three": 3}]),
        ("/a", {"b": {"c": 1}}),
    ]
    other: list[tuple[str, Any]] = [
        ("/true", 1),
        ("/true", "true"),
        ("/zero", False),
        ("/zero", None),
        ("/null", False),
        ("/null", 0),
        ("/list", [True, "two", {"three": 3}]),
        ("/list", [1, "two"]),
        ("/a/b/c", True),
        ("/a/b/c", "1"),
        ("/a", {"b": {"c": 1}, "d": None}),
        ("/text", ["t"]),
        ("/text", None),
    ]
    async with running(database_url, Echo) as client:
        await fresh(client)
        for path, value in same:
            assert (await patch(client, op("test", path, value))).status_code == 200, (path, value)
        for path, value in other:
            problem_of(await patch(client, op("test", path, value)), 409)
        assert (await client.get("/sessions/s")).json()["revision"] == 1


async def test_what_is_not_there_is_409_and_nothing_is_changed(database_url: str) -> None:
    conflicts: list[list[Any]] = [
        [op("test", "/a", 1)],
        [op("test", "/none", None)],
        [op("remove", "/none")],
        [op("replace", "/none", 1)],
        [op("add", "/none/deep", 1)],
        [op("add", "/list/4", 1)],
        [op("remove", "/list/3")],
        [op("remove", "/list/-")],
        [op("replace", "/list/-", 1)],
        [op("test", "/list/-", 1)],
        [op("copy", "/x", **{"from": "/none"})],
        [op("move", "/x", **{"from": "/none"})],
        [op("add", "/text/deep", 1)],
        [op("add", "/null/deep", 1)],
        [op("add", "/zero/0", 1)],
        [op("add", "/x", 1), op("remove", "/list/0"), op("test", "/a", 0)],
    ]
    async with running(database_url, Echo) as client:
        await fresh(client)
        for operations in conflicts:
            problem = problem_of(await patch(client, *operations), 409)
            assert str(len(operations) - 1) in problem["detail"], problem
        read = await client.get("/sessions/s/state")
        assert (read.json(), read.headers["etag"]) == (STATE, '"1"')


async def test_a_patch_that_is_none_is_422(database_url: str) -> None:
    malformed: list[Any] = [
        {},
        None,
        "text",
        7,
        [1],
        [None],
        [[]],
        [{}],
        [{"op": "add"}],
        [{"path": "/a"}],
        [op("add", "/a")],
        [op("replace", "/a")],
        [op("test", "/a")],
        [op("copy", "/a")],
        [op("move", "/a")],
        [op("merge", "/a", 1)],
        [op("ADD", "/a", 1)],
        [{"op": ["add"], "path": "/a", "value": 1}],
        [op("add", "a", 1)],
        [op("add", "/a~", 1)],
        [op("add", "/a~2", 1)],
        [op("add", None, 1)],
        [op("add", 7, 1)],
        [op("add", ["a"], 1)],
        [op("copy", "/a", **{"from": 7})],
        [op("copy", "/a", **{"from": "a"})],
        [op("move", "/a/b", **{"from": "/a"})],
        [op("add", "/list/01", 1)],
        [op("add", "/list/x", 1)],
        [op("add", "/list/-1", 1)],
        [op("add", "/list/+1", 1)],
        [op("add", "/list/1e0", 1)],
        [op("add", "/list/ 1", 1)],
        [op("add", "/list/\u0661", 1)],
        [op("add", "/list/", 1)],
        [op("replace", "/list/01", 1)],
        [op("remove", "/list/00")],
        [op("test", "/list/1.0", 1)],
        [op("remove", "")],
        [op("add", "", [1])],
        [op("add", "/x", 1), op("nothing", "/x")],
    ]
    async with running(database_url, Echo) as client:
        await fresh(client)
        for body in malformed:
            headers = {"Content-Type": "application/json-patch+json"}
            content = httpx.Request("PATCH", "http://x", json=body).content if body is not None else b"null"
            answer = await client.patch("/sessions/s/state", content=content, headers=headers)
            assert answer.status_code == 422, (body, answer.text)
            problem_of(answer, 422)
        read = await client.get("/sessions/s/state")
        assert (read.json(), read.headers["etag"]) == (STATE, '"1"')


async def test_a_small_patch_that_copies_itself_large_is_refused_before_it_is_large(sqlite_url: str) -> None:
    """Each copy doubles the document: two KiB of request would be a GiB of state and more."""
    async with running(sqlite_url, Echo) as client:
        await client.post("/sessions", json={"workflow": "echo", "session_id": "s"})
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        doubling = [op("copy", "/a/-", **{"from": "/a"}) for _ in range(22)]
        problem_of(await patch(client, op("add", "/a", ["0123456789"]), *doubling), 413, "state_too_large")
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 100 * 1024, f"{grown} KiB"


async def test_a_patch_of_very_many_operations_keeps_nobody_waiting_long(sqlite_url: str) -> None:
    async with running(sqlite_url, Echo) as client:
        await client.post("/sessions", json={"workflow": "echo", "session_id": "s", "session_state": {"a": []}})
        answer = await patch(client, *(op("add", "/a/-", 1) for _ in range(10_000)))
        assert len(answer.json()["a"]) == 10_000


async def test_a_revision_is_a_patch_that_leads_to_it(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        await fresh(client)
        await patch(client, op("move", "/list/0", **{"from": "/list/2"}), op("add", "/a~1b", {"c~d": []}))
        await merge(client, {"a": {"b": None}, "list": [2]})
        revisions = (await client.get("/sessions/s/state/revisions")).json()["items"]
        await client.post("/sessions", json={"workflow": "echo", "session_id": "copy"})
        for revision in revisions:
            headers = {"Content-Type": "application/json-patch+json"}
            answer = await client.request("PATCH", "/sessions/copy/state", json=revision["patch"], headers=headers)
            expected = await client.get(f"/sessions/s/state?revision={revision['revision']}")
            assert answer.json() == expected.json()
