"""A session's state over HTTP: read, replaced, guarded by its ETag, traced back."""

import asyncio
from typing import Any

import pytest

from app import Workflow
from tests.support.problems import problem_of
from tests.support.server import Client, running


class Echo(Workflow):
    def run(self) -> None:
        self.session_state["runs"] = self.session_state.get("runs", 0) + 1


async def create(client: Client, state: dict[str, Any]) -> None:
    body = {"workflow": "echo", "session_id": "s", "session_state": state}
    assert (await client.post("/sessions", json=body)).status_code == 201


async def test_the_etag_is_the_revision(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        await create(client, {"a": 1})
        answer = await client.get("/sessions/s/state")
        assert (answer.headers["etag"], answer.headers["content-type"]) == ('"1"', "application/json")
        assert answer.content == b'{"a":1}'
        await client.finish("echo", {"session_id": "s"})
        assert (await client.get("/sessions/s/state")).headers["etag"] == '"2"'


async def test_who_has_the_newest_gets_it_not_again(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        await create(client, {"a": 1})
        for header, status in [
            ('"1"', 304),
            ('W/"1"', 304),
            ('"0", "1"', 304),
            ("*", 304),
            ('"0"', 200),
            ('"11"', 200),
            ("1", 200),
            ("", 200),
        ]:
            answer = await client.get("/sessions/s/state", headers={"If-None-Match": header})
            assert answer.status_code == status, header
            assert answer.headers["etag"] == '"1"'
            assert answer.content == (b"" if status == 304 else b'{"a":1}')


async def test_if_match_guards_every_write(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        await create(client, {"a": 1})
        await client.patch("/sessions/s/state", json={"b": 2})

        async def write(method: str, header: str | None) -> Any:
            headers = {} if header is None else {b"If-Match": header.encode("latin-1")}
            if method == "restore":
                return await client.post("/sessions/s/state/restore", json={"revision": 2}, headers=headers)
            return await client.request(method, "/sessions/s/state", json={"a": 1, "b": 2}, headers=headers)

        for method in ("PATCH", "PUT", "restore"):
            for header in (
                '"1"',
                '"3"',
                '"x"',
                'W/"2"',
                '"02"',
                '"\xb2"',
                '"-2"',
                '"2',
                "2",
                '""',
                '"' + "9" * 40 + '"',
                '"1", "3"',
            ):
                answer = await write(method, header)
                if header in {'"2', "2"}:
                    problem_of(answer, 400)
                    continue
                problem_of(answer, 412)
                assert answer.headers["etag"] == '"2"'
                assert answer.json()["etag"] == '"2"'
            for header in ('"2"', '"1", "2"', '"2", "x"', "*"):
                answer = await write(method, header)
                assert (answer.status_code, answer.headers["etag"]) == (200, '"2"'), (method, header)
        problem_of(await write("PUT", None), 428)
        assert (await write("PATCH", None)).status_code == 200
        assert (await write("restore", None)).status_code == 200


async def test_a_put_replaces_the_whole(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        await create(client, {"a": {"b": 1}, "c": 2})
        answer = await client.put("/sessions/s/state", json={"a": {"d": None}}, headers={"If-Match": '"1"'})
        assert (answer.json(), answer.headers["etag"]) == ({"a": {"d": None}}, '"2"')
        again = await client.put("/sessions/s/state", json={"a": {"d": None}}, headers={"If-Match": '"2"'})
        assert (again.json(), again.headers["etag"]) == ({"a": {"d": None}}, '"2"')
        problem_of(await client.put("/sessions/s/state", json={}, headers={"If-Match": '"1"'}), 412)
        empty = await client.put("/sessions/s/state", json={}, headers={"If-Match": "*"})
        assert (empty.json(), empty.headers["etag"]) == ({}, '"3"')


@pytest.mark.parametrize("body", ["[]", "7", '"text"', "null", "true", "[[1]]"])
async def test_the_state_is_always_an_object(sqlite_url: str, body: str) -> None:
    async with running(sqlite_url, Echo) as client:
        await create(client, {"a": 1})
        for method in ("PUT", "PATCH"):
            headers = {"Content-Type": "application/json", "If-Match": "*"}
            problem_of(await client.request(method, "/sessions/s/state", content=body, headers=headers), 422)
        headers = {"Content-Type": "application/json-patch+json"}
        patch = f'[{{"op":"replace","path":"","value":{body}}}]'
        problem_of(await client.patch("/sessions/s/state", content=patch, headers=headers), 422)
        assert (await client.get("/sessions/s/state")).content == b'{"a":1}'


async def test_a_body_of_another_type_is_refused_with_what_would_do(sqlite_url: str) -> None:
    async with running(sqlite_url, Echo) as client:
        await create(client, {})
        for kind in (
            "text/plain",
            "application/xml",
            "application/x-www-form-urlencoded",
            "application/strategic-merge-patch+json",
            "",
        ):
            answer = await client.patch("/sessions/s/state", content="{}", headers={"Content-Type": kind})
            problem_of(answer, 415)
            accepted = {each.strip() for each in answer.headers["accept-patch"].split(",")}
            assert {"application/merge-patch+json", "application/json-patch+json"} <= accepted
        for kind in ("text/plain", "application/merge-patch+json", "application/json-patch+json"):
            headers = {"Content-Type": kind, "If-Match": "*"}
            problem_of(await client.put("/sessions/s/state", content="{}", headers=headers), 415)
        headers = {"Content-Type": "Application/Merge-Patch+JSON; charset=utf-8"}
        assert (await client.patch("/sessions/s/state", content='{"a":1}', headers=headers)).json() == {"a": 1}


async def test_an_unknown_session_has_no_state(sqlite_url: str) -> None:
    async with running(sqlite_url, Echo) as client:
        problem_of(await client.get("/sessions/none/state"), 404, "unknown_session")
        problem_of(await client.patch("/sessions/none/state", json={}), 404, "unknown_session")
        headers = {"If-Match": "*"}
        problem_of(await client.put("/sessions/none/state", json={}, headers=headers), 404, "unknown_session")
        problem_of(await client.get("/sessions/none/state/revisions"), 404, "unknown_session")
        problem_of(await client.post("/sessions/none/state/restore", json={"revision": 0}), 404, "unknown_session")


async def test_every_revision_can_be_read(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        await create(client, {"n": 0})
        states: list[Any] = [{}, {"n": 0}]
        for number in range(1, 8):
            patch = {"n": number, f"k{number}": ["x"] * 100}
            states += [(await client.patch("/sessions/s/state", json=patch)).json()]
        for revision, state in enumerate(states):
            answer = await client.get(f"/sessions/s/state?revision={revision}")
            assert (answer.json(), answer.headers["etag"]) == (state, f'"{revision}"')
        problem_of(await client.get("/sessions/s/state?revision=9"), 404)
        for wrong in ("-1", "x", "", "1.5", "1e3", str(2**64)):
            problem_of(await client.get(f"/sessions/s/state?revision={wrong}"), 422)


async def test_the_history_tells_who_changed_what_when(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        await create(client, {"a": 1})
        run = await client.finish("echo", {"session_id": "s"})
        await client.patch("/sessions/s/state", json={"a": None})
        items = (await client.get("/sessions/s/state/revisions")).json()["items"]
        assert all(set(item) == {"revision", "created_at", "run_id", "caller", "patch"} for item in items)
        assert [item["patch"] for item in items] == [
            [{"op": "add", "path": "/a", "value": 1}],
            [{"op": "add", "path": "/runs", "value": 1}],
            [{"op": "remove", "path": "/a"}],
        ]
        assert [item["run_id"] for item in items] == [None, run["run_id"], None]
        assert [item["caller"] is None for item in items] == [False, True, False]
        assert [item["created_at"] for item in items] == sorted(item["created_at"] for item in items)


async def test_going_back_is_a_revision_of_its_own(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        await create(client, {"a": 1})
        await client.patch("/sessions/s/state", json={"a": 2, "b": [1, 2]})
        answer = await client.post("/sessions/s/state/restore", json={"revision": 1})
        assert (answer.status_code, answer.json(), answer.headers["etag"]) == (200, {"a": 1}, '"3"')
        answer = await client.post("/sessions/s/state/restore", json={"revision": 0})
        assert (answer.json(), answer.headers["etag"]) == ({}, '"4"')
        answer = await client.post("/sessions/s/state/restore", json={"revision": 2})
        assert (answer.json(), answer.headers["etag"]) == ({"a": 2, "b": [1, 2]}, '"5"')
        same = await client.post("/sessions/s/state/restore", json={"revision": 5})
        assert same.headers["etag"] == '"5"'
        problem_of(await client.post("/sessions/s/state/restore", json={"revision": 6}), 404)
        problem_of(await client.post("/sessions/s/state/restore", json={"revision": 2**63}), 404)
        for body in (
            {},
            {"revision": "1"},
            {"revision": -1},
            {"revision": None},
            {"revision": 1, "x": 1},
            {"revision": True},
        ):
            problem_of(await client.post("/sessions/s/state/restore", json=body), 422)


async def test_a_state_may_have_its_size_and_no_byte_more(database_url: str) -> None:
    async with running(database_url, Echo, max_state_bytes=100) as client:
        await create(client, {"a": "x" * 92})  # {"a":""} has 8
        assert len((await client.get("/sessions/s/state")).content) == 100
        for patch in ({"a": "x" * 93}, {"b": 1}, {"a": "\u00fc" * 46 + "x"}):
            problem_of(await client.patch("/sessions/s/state", json=patch), 413, "state_too_large")
        headers = {"If-Match": "*"}
        problem_of(await client.put("/sessions/s/state", json={"a": "x" * 93}, headers=headers), 413, "state_too_large")
        assert (
            await client.put("/sessions/s/state", json={"\u00fc": "\u00fc" * 45 + "x"}, headers=headers)
        ).status_code == 200
        body = {"workflow": "echo", "session_id": "t", "session_state": {"a": "x" * 93}}
        problem_of(await client.post("/sessions", json=body), 413, "state_too_large")
        problem_of(await client.get("/sessions/t"), 404)
        assert (await client.get("/sessions/s")).json()["revision"] == 2


async def test_a_state_of_a_thousand_changes_is_still_what_it_was(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        await create(client, {"n": 0})
        expected: dict[str, Any] = {"n": 0}
        for number in range(300):
            patch = {"n": number, f"k{number % 17}": {"v": [number] * (number % 23)}}
            expected |= patch
            assert (await client.patch("/sessions/s/state", json=patch)).status_code == 200
        assert (await client.get("/sessions/s/state")).json() == expected
        revision = (await client.get("/sessions/s")).json()["revision"]
        old = (await client.get(f"/sessions/s/state?revision={revision // 2}")).json()
        assert old["n"] < expected["n"]
    async with running(database_url, Echo) as client:
        assert (await client.get("/sessions/s/state")).json() == expected
        assert (await client.get(f"/sessions/s/state?revision={revision // 2}")).json() == old


async def test_writers_who_read_first_never_overwrite_one_another(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        await create(client, {"n": 0})

        async def add_one() -> None:
            while True:
                read = await client.get("/sessions/s/state")
                state = {"n": read.json()["n"] + 1}
                written = await client.put("/sessions/s/state", json=state, headers={"If-Match": read.headers["etag"]})
                if written.status_code == 200:
                    return
                problem_of(written, 412)

        await asyncio.gather(*(add_one() for _ in range(12)))
        assert (await client.get("/sessions/s/state")).json() == {"n": 12}
