"""What comes in as a body: its size, its form, and the values that JSON allows but we do not."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app import Workflow
from tests.support.problems import problem_of
from tests.support.server import Client, running


class Echo(Workflow):
    def run(self, **values: Any) -> Any:
        return values


JSON = {"Content-Type": "application/json"}
WRITES = [
    ("POST", "/workflows/echo/runs", '{"input":%s}'),
    ("POST", "/sessions", '{"workflow":"echo","session_state":%s}'),
    ("PATCH", "/sessions/s", '{"metadata":%s}'),
    ("PATCH", "/sessions/s/state", "%s"),
    ("PUT", "/sessions/s/state", "%s"),
    ("POST", "/sessions/s/state/restore", '{"revision":0,"x":%s}'),
    ("POST", "/sessions/s/fork", '{"metadata":%s}'),
]


async def send(client: Client, method: str, path: str, content: bytes | str) -> Any:
    return await client.request(method, path, content=content, headers=JSON | {"If-Match": "*"})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"a":1,}',
        b"{'a':1}",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":01}',
        b'{"a":1}{"b":2}',
        b"\xff\xfe",
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\x00"}',
        b'{"a":"\n"}',
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"\\u0061":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"a":"\\ud800","b":NaN}',
        b'{"a":"\\x"}',
    ],
    ids=lambda body: ascii(body[:24]),
)
async def test_what_is_no_json_is_malformed_everywhere(sqlite_url: str, body: bytes) -> None:
    async with running(sqlite_url, Echo) as client:
        await client.post("/sessions", json={"workflow": "echo", "session_id": "s", "session_state": {"k": 1}})
        for method, path, _ in WRITES:
            answer = await send(client, method, path, body)
            assert answer.status_code in {400, 413, 422}, (method, path, answer.text)
            problem_of(answer, answer.status_code)
        assert (await client.get("/sessions/s/state")).content == b'{"k":1}'
        assert (await client.get("/runs")).json()["items"] == []


@pytest.mark.parametrize(
    "value",
    [
        {"a": 2**64},
        {"a": -(2**63) - 1},
        {"a": {"b": [10**30]}},
        json.loads('{"a":' * 150 + "1" + "}" * 150),
        json.loads('{"a":' + "[" * 150 + "]" * 150 + "}"),
        '{"\\u0000":1,"\\ufffd":2}',
        '{"\\ud800":1,"\\ud801":2}',
        '{"x":{"a\\u0000":1,"a\\ud83d":2}}',
    ],
    ids=lambda value: str(value)[:20],
)
async def test_what_we_cannot_keep_is_refused_never_rounded(database_url: str, value: Any) -> None:
    text = value if isinstance(value, str) else json.dumps(value)
    async with running(database_url, Echo) as client:
        await client.post("/sessions", json={"workflow": "echo", "session_id": "s", "session_state": {"k": 1}})
        for method, path, template in WRITES:
            problem_of(await send(client, method, path, template % text), 422)
        patch = f'[{{"op":"add","path":"/x","value":{text}}}]'
        headers = {"Content-Type": "application/json-patch+json"}
        problem_of(await client.patch("/sessions/s/state", content=patch, headers=headers), 422)
        assert (await client.get("/sessions/s/state")).content == b'{"k":1}'
        assert (await client.get("/runs")).json()["items"] == []


KEPT: list[tuple[str, Any]] = [
    (str(2**64 - 1), 2**64 - 1),
    (str(-(2**63)), -(2**63)),
    ("1234567890123456789", 1234567890123456789),
    ("0.1", 0.1),
    ("1e22", 1e22),
    ("123456789012345678901.5", 123456789012345678901.5),
    ("5e-324", 5e-324),
    ("-0.0", -0.0),
    ("1.0", 1.0),
    ("true", True),
    ("null", None),
    ('""', ""),
    ('"\\u0000"', "\ufffd"),
    ('"a\\u0000b"', "a\ufffdb"),
    ('"\\ud800"', "\ufffd"),
    ('"\\udc00\\ud800x"', "\ufffd\ufffdx"),
    ('"\\ud83d\\ude00"', "\U0001f600"),
    ('"\\u2028\\u2029"', "\u2028\u2029"),
    ('"\\ufffe\\uffff"', "\ufffe\uffff"),
    ('{"a\\u0000":{"\\udfff":[]}}', {"a\ufffd": {"\ufffd": []}}),
    ("[" * 90 + "]" * 90, json.loads("[" * 90 + "]" * 90)),
]


async def test_what_we_keep_comes_back_as_it_was_from_both_databases(database_url: str) -> None:
    async with running(database_url, Echo) as client:
        body = '{"workflow":"echo","session_id":"s","session_state":{"seed":1}}'
        await client.post("/sessions", content=body, headers=JSON)
        for text, value in KEPT:
            run = (
                await client.post("/workflows/echo/runs", content=f'{{"input":{{"v":{text}}}}}', headers=JSON)
            ).json()
            run = await client.ended(run["run_id"])
            assert run["status"] == "completed", (text, run["error"])
            for answer in (run["input"], run["content"]):
                assert json.dumps(answer) == json.dumps({"v": value}), text
            patched = await client.patch("/sessions/s/state", content=f'{{"v":{text}}}', headers=JSON)
            assert patched.status_code == 200, (text, patched.text)
            read = await client.get("/sessions/s/state")
            assert patched.content == read.content
            if value is not None:
                assert json.dumps(read.json()["v"]) == json.dumps(value), text
            events = await client.events(run["run_id"])
            assert json.dumps(events[0].data["input"]) == json.dumps({"v": value})
    async with running(database_url, Echo) as client:
        assert (await client.get("/sessions/s/state")).content == read.content


async def test_of_equal_keys_none_counts(sqlite_url: str) -> None:
    async with running(sqlite_url, Echo) as client:
        answer = await client.post("/workflows/echo/runs", content='{"input":{"a":1,"a":2}}', headers=JSON)
        assert "twice" in problem_of(answer, 400, "malformed_json")["detail"]


async def test_a_body_past_the_limit_is_refused_however_it_is_sent(sqlite_url: str) -> None:
    async with running(sqlite_url, Echo, max_body_bytes=2048) as client:
        await client.post("/sessions", json={"workflow": "echo", "session_id": "s"})
        long = "x" * 2049

        async def in_pieces() -> AsyncIterator[bytes]:
            content = (json.dumps({"a": long})).encode()
            for start in range(0, len(content), 100):
                yield content[start : start + 100]

        for method, path, template in WRITES:
            answer = await send(client, method, path, template % json.dumps({"a": long}))
            problem_of(answer, 413, "body_too_large")
            chunked = await client.request(method, path, content=in_pieces(), headers=JSON | {"If-Match": "*"})
            problem_of(chunked, 413, "body_too_large")
        fits = '{"a":"' + "x" * (2048 - 8) + '"}'
        assert len(fits) == 2048
        assert (await client.patch("/sessions/s/state", content=fits, headers=JSON)).status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/xml", "multipart/form-data", "application/x-www-form-urlencoded"]
)
async def test_a_body_that_says_it_is_something_else_is_refused(sqlite_url: str, kind: str) -> None:
    async with running(sqlite_url, Echo) as client:
        await client.post("/sessions", json={"workflow": "echo", "session_id": "s"})
        for method, path, template in WRITES:
            answer = await client.request(
                method, path, content=template % "{}", headers={"Content-Type": kind, "If-Match": "*"}
            )
            problem_of(answer, 415, "unsupported_media_type")


async def test_a_body_without_a_type_is_taken_for_json(sqlite_url: str) -> None:
    async with running(sqlite_url, Echo) as client:
        assert (await client.post("/workflows/echo/runs", content=b'{"input":{}}')).status_code == 202
