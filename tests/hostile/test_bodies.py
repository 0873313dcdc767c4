"""Bodies: deep, huge, malformed, with keys twice, in odd Unicode; and what they may make of a state."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from app import RunResponse, Workflow
from app.api.requests import MAX_CONTAINERS
from app.workflow.encoding import MAX_DEPTH, parse
from app.workflow.patches import MAX_OPERATIONS, OPERATION_BYTES
from tests.hostile.watching import watched
from tests.support.problems import problem_of
from tests.support.server import Client, running
from tests.support.tables import query

MEBIBYTE = 1024 * 1024
ROOM = 2000
"""Bytes left of the largest body for what is around its value."""
JSON = {"Content-Type": "application/json"}
JSON_PATCH = {"Content-Type": "application/json-patch+json"}


class Take(Workflow):
    def run(self, value: Any = None, numbers: list[int] | None = None) -> Iterator[RunResponse]:
        yield RunResponse(content="taken")


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def repeated(piece: str, size: int = MEBIBYTE - ROOM) -> str:
    return "[" + ",".join([piece] * (size // (len(piece) + 1))) + "]"


def keys(count: int, value: str = "0") -> str:
    return "{" + ",".join(f'"k{number}":{value}' for number in range(count)) + "}"


HUGE = {
    "numbers": repeated("0"),
    "escaped": repeated('"\\u0000"'),
    "surrogates": repeated('"\\ud800"'),
    "pairs": repeated('"\\ud83d\\ude00"'),
    "long numbers": repeated("1234567890123456789"),
    "fractions": repeated("0.12345678901234567890123456789"),
    "lists": repeated("[[[]]]"),
    "objects": repeated('{"a":0}'),
    "texts": repeated('"a"'),
    "as many objects as may be": repeated('{"a":0,"b":"cdefghijklmnopqrstuvwxyzabcd"}'),
    "spaced": repeated('{"a" : 0}'),
    "keys": keys(80_000),
    "quotes": '"' + '\\"' * 500_000 + '"',
    "one text": '"' + "ü" * 500_000 + '"',
    "brackets in a text": '"' + "[{" * 500_000 + '"',
    "deep": "[" * 90 + repeated("0", MEBIBYTE - 10_000) + "]" * 90,
}


@pytest.mark.parametrize("value", HUGE.values(), ids=HUGE)
async def test_a_huge_value_keeps_nobody_waiting(sqlite_url: str, value: str) -> None:
    async with running(sqlite_url, Take) as client:
        await client.post("/sessions", json={"workflow": "take", "session_id": "s"})
        headers = {"Content-Type": "application/json", "If-Match": "*"}
        async with watched():
            run = await client.post("/workflows/take/runs", content=f'{{"input":{{"value":{value}}}}}', headers=headers)
            wrong = await client.post(
                "/workflows/take/runs", content=f'{{"input":{{"numbers":[{value}]}}}}', headers=headers
            )
            put = await client.put("/sessions/s/state", content=f'{{"a":{value}}}', headers=headers)
            patch = await client.patch("/sessions/s/state", content=f'{{"a":[{value}]}}', headers=headers)
        assert wrong.status_code in {413, 422}
        assert len(wrong.content) < 100_000
        assert put.status_code in {200, 413}
        assert patch.status_code in {200, 413}
        if sum(map(value.count, "[{")) > 2 * MAX_CONTAINERS and '"[{' not in value:
            assert "lists and objects" in problem_of(run, 413, "body_too_large")["detail"]
        else:
            assert run.status_code == 202, run.text[:200]
            assert (await client.ended(run.json()["run_id"]))["status"] == "completed"


MALFORMED = {
    "open lists": b"[" * 900_000,
    "open objects": b'{"a":' * 180_000,
    "open text": b'["' + b"[{" * 400_000,
    "open escape": b'["' + b"\\" * 900_001,
    "deep": b"[" * 450_000 + b"]" * 450_000,
    "deep objects": b'{"a":' * 150_000 + b"0" + b"}" * 150_000,
    "deep and escaped": b'{"\\ud800":' * 80_000 + b"0" + b"}" * 80_000,
    "long number": b"1" * 900_000,
    "long escaped number": b'["\\u0000",' + b"1" * 900_000 + b"]",
    "long exponent": b"1e" + b"9" * 900_000,
    "commas": b"[" + b"," * 900_000 + b"]",
    "no unicode": b'"' + b"\xff" * 900_000 + b'"',
    "surrogates in bytes": b'"' + b"\xed\xa0\x80" * 300_000 + b'"',
    "other encoding": ("[" + "0," * 200_000 + "0]").encode("utf-16"),
    "zeros": b"\x00" * 900_000,
    "a key twice among many": (keys(80_000)[:-1] + ',"k0":1}').encode(),
    "space": b" " * 900_000,
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
async def test_what_is_no_json_is_refused_in_no_time(sqlite_url: str, body: bytes) -> None:
    async with running(sqlite_url, Take) as client:
        await client.post("/sessions", json={"workflow": "take", "session_id": "s"})
        for method, path, headers in (
            ("POST", "/workflows/take/runs", {}),
            ("PUT", "/sessions/s/state", {"If-Match": "*"}),
            ("PATCH", "/sessions/s/state", JSON_PATCH),
        ):
            async with watched():
                answer = await client.request(
                    method, path, content=body, headers={"Content-Type": "application/json"} | headers
                )
            assert answer.status_code in {400, 413, 422}, answer.text[:300]
            assert len(problem_of(answer, answer.status_code)["detail"]) < 2000


@pytest.mark.parametrize(
    "body",
    [
        '{"a":1,"a":2}',
        '{"a":1,"b":{"c":1,"d":[{"e":1,"e":1}]}}',
        '{"a" :1,"a":2}',
        '{"a":1,"a"\n:2}',
        '{"a":1,"\\u0061":2}',
        '{"\\u0000":1,"\\u0000":2}',
        '{"\\":":1,"\\":":2}',
        '{"a":{"x":1},"a":{"y":1}}',
        '{"a":1,"a":1}',
        '{"":1,"":2}',
        '{"a":12345678901234567890,"a":2}',
        '{"a":"\\" :","a":"b"}',
        '{"a":"x","a":"\\":\\":\\":"}',
        '{"input":{"value":1},"input":{}}',
    ],
)
async def test_a_key_that_comes_twice_is_refused(sqlite_url: str, body: str) -> None:
    async with running(sqlite_url, Take) as client:
        await client.post("/sessions", json={"workflow": "take", "session_id": "s"})
        headers = {"Content-Type": "application/json", "If-Match": "*"}
        for method, path in (("POST", "/workflows/take/runs"), ("PUT", "/sessions/s/state")):
            answer = await client.request(method, path, content=body, headers=headers)
            assert "twice" in problem_of(answer, 400, "malformed_json")["detail"]


@pytest.mark.parametrize(
    "body",
    [
        '{"a":{"a":1},"b":{"a":1}}',
        '{"a": "\\":\\":", "b" : "x :y", "\\" :":[{"\\\\":0},{"\\\\":0}]}',
        '{"A":1,"a":2,"á":3,"a\u0301":4}',
    ],
)
def test_keys_that_differ_are_not_taken_for_the_same(body: str) -> None:
    assert parse(body.encode()) == json.loads(body)


ODD = [
    "\u202e\u2066reversed\u2069",
    "e" + "\u0301" * 10_000,
    "\ufeff\u200b\u2028\u2029\x85",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 100,
    "\ufdd0\ufffe\uffff\U0010ffff",
    "\u0130\u0131\u017f\u212a",
    "\x01\x1f\x7f\x9f",
]


@pytest.mark.parametrize("text", ODD, ids=lambda text: repr(text[:4]))
async def test_odd_text_comes_back_as_it_is(database_url: str, text: str) -> None:
    async with running(database_url, Take) as client:
        await client.post(
            "/sessions", json={"workflow": "take", "session_id": "s", "name": text[:200], "session_state": {text: text}}
        )
        assert (await client.get("/sessions/s/state")).json() == {text: text}
        assert (await client.get("/sessions/s")).json()["name"] == text[:200]
        found = (await client.get("/sessions", params={"name": text[:200]})).json()["items"]
        assert [session["session_id"] for session in found] == ["s"]
        patched = await client.patch("/sessions/s/state", json={text: None, "k": [text]})
        assert patched.json() == {"k": [text]}
        run = await client.finish("take", value={text: text})
        assert run["input"]["value"] == {text: text}


def operations(number: int, **members: Any) -> list[dict[str, Any]]:
    return [dict(members)] * number


def nested(depth: int, inner: Any = 0) -> Any:
    for _ in range(depth):
        inner = {"a": inner}
    return inner


def towers() -> list[dict[str, Any]]:
    """Each operation builds on what the one before left: much deeper than any value of it."""
    made = [{"op": "add", "path": "/t0", "value": nested(90)}]
    for number in range(1, 15):
        made.append({"op": "add", "path": f"/t{number}", "value": nested(90)})
        made.append({"op": "move", "from": f"/t{number - 1}", "path": f"/t{number}{'/a' * 90}"})
    return made


BOMBS: dict[str, Callable[[], Any]] = {
    "doubling": lambda: [
        {"op": "add", "path": "/a", "value": ["x" * 100]},
        *operations(40, **{"op": "copy", "from": "/a", "path": "/a/-"}),
    ],
    "doubling texts": lambda: [
        {"op": "add", "path": "/a", "value": "x" * 300_000},
        *({"op": "copy", "from": "/a", "path": f"/b{number}"} for number in range(50)),
    ],
    "copies of the whole": lambda: [{"op": "copy", "from": "", "path": f"/c{number}"} for number in range(30)],
    "nested copies": lambda: [
        {"op": "add", "path": "/a", "value": {}},
        *({"op": "copy", "from": "/a", "path": "/a" + "/a" * number} for number in range(90)),
    ],
    "copies and changes": lambda: (
        [
            {"op": "copy", "from": "/small", "path": "/other"},
            {"op": "replace", "path": "/list/0", "value": 1},
        ]
        * 5000
    ),
    "many operations": lambda: operations(MAX_OPERATIONS, op="add", path="/list/-", value=0),
    "many at the front": lambda: operations(MAX_OPERATIONS, op="add", path="/list/0", value=0),
    "many moves": lambda: operations(MAX_OPERATIONS, **{"op": "move", "from": "/list/0", "path": "/list/-"}),
    "many tests": lambda: operations(MAX_OPERATIONS, op="test", path="/list", value=[0] * 3),
    "many replacements": lambda: operations(MAX_OPERATIONS, op="replace", path="/list/5", value=1),
    "many additions and removals": lambda: (
        [
            {"op": "add", "path": "/b", "value": 1},
            {"op": "remove", "path": "/b"},
        ]
        * 5000
    ),
    "long pointer": lambda: operations(1, op="add", path="/a" * 400_000, value=0),
    "long key": lambda: operations(1, op="remove", path="/" + "a" * 900_000),
    "long index": lambda: operations(1, op="add", path="/list/" + "9" * 900_000, value=0),
    "huge index": lambda: operations(1, op="add", path="/list/999999999999999999", value=0),
    "negative index": lambda: operations(1, op="add", path="/list/-1", value=0),
    "odd index": lambda: operations(1, op="add", path="/list/\u0663", value=0),
    "deeper and deeper": towers,
    "deep value": lambda: operations(1, op="add", path="/a", value=nested(MAX_DEPTH - 3)),
    "not operations": lambda: [[]] * 100_000,
    "odd operation": lambda: [{"op": "x" * 900_000}],
    "odd escape": lambda: operations(1, op="add", path="/~2", value=0),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
async def test_a_patch_is_no_bomb(sqlite_url: str, bomb: Callable[[], Any]) -> None:
    body = json.dumps(bomb(), separators=(",", ":"))
    assert len(body) <= MEBIBYTE
    async with running(sqlite_url, Take) as client:
        state = {"list": [0] * 200_000, "small": 1}
        await client.post("/sessions", json={"workflow": "take", "session_id": "s", "session_state": state})
        async with watched():
            answer = await client.patch("/sessions/s/state", content=body, headers=JSON_PATCH)
        if answer.status_code != 200:
            assert 400 <= answer.status_code < 500, answer.text[:300]
            assert len(problem_of(answer, answer.status_code)["detail"]) < 2000
            assert (await client.get("/sessions/s/state")).json() == state
        assert len(answer.content) <= MEBIBYTE + ROOM


async def test_work_has_a_limit_that_no_usual_patch_meets(sqlite_url: str) -> None:
    async with running(sqlite_url, Take) as client:
        state = {"list": [0] * 400_000}
        await client.post("/sessions", json={"workflow": "take", "session_id": "s", "session_state": state})
        refused = await patched(client, operations(100, op="add", path="/list/0", value=1))
        assert "replace the list" in problem_of(refused, 413, "patch_too_large")["detail"]
        many = problem_of(await patched(client, operations(MAX_OPERATIONS + 1, op="test", path="", value={})), 413)
        assert many["code"] == "patch_too_large"
        usual = [{"op": "add", "path": "/other", "value": []}, *operations(2000, op="add", path="/other/0", value=1)]
        assert (await patched(client, usual)).json()["other"] == [1] * 2000


async def patched(client: Client, body: Any) -> httpx.Response:
    return await client.patch("/sessions/s/state", content=json.dumps(body), headers=JSON_PATCH)


async def test_a_history_does_not_outgrow_what_was_sent(sqlite_url: str) -> None:
    """Each change of a number is twenty times as long as the number, if it is written by itself."""
    async with running(sqlite_url, Take) as client:
        await client.post("/sessions", json={"workflow": "take", "session_id": "s"})
        sent = 0
        for number in range(6):
            body = compact({"list": [number] * 280_000, "object": {f"{key}": number for key in range(8_000)}})
            sent += len(body)
            async with watched():
                answer = await client.put("/sessions/s/state", content=body, headers=JSON | {"If-Match": "*"})
            assert answer.status_code == 200, answer.text[:200]
    (row,) = query(
        sqlite_url, "SELECT sum(length(patch) + coalesce(length(snapshot), 0)) AS size FROM session_revisions"
    )
    assert row["size"] < 2.2 * sent


async def test_a_change_of_few_is_written_one_by_one(sqlite_url: str) -> None:
    async with running(sqlite_url, Take) as client:
        state = {"list": [[0]] * 5000}
        await client.post("/sessions", json={"workflow": "take", "session_id": "s", "session_state": state})
        for change in ({"list": [[0]] * 5000 + [[1]] * 3}, {"list": [[2]] + [[0]] * 4999 + [[1]] * 3}):
            await client.put("/sessions/s/state", json=change, headers={"If-Match": "*"})
        revisions = (await client.get("/sessions/s/state/revisions")).json()["items"]
        assert [len(json.dumps(revision["patch"])) < 5 * OPERATION_BYTES for revision in revisions[1:]] == [True, True]


async def test_errors_are_not_a_book(sqlite_url: str) -> None:
    async with running(sqlite_url, Take) as client:
        for body in (
            {f"unknown{number}": 0 for number in range(50_000)},
            {"input": {f"unknown{number}": 0 for number in range(50_000)}},
            {"input": {"numbers": ["x"] * 100_000}},
            {"session_id": "x" * 500_000},
            {"on_busy": "x" * 500_000},
        ):
            answer = await client.post("/workflows/take/runs", json=body)
            problem_of(answer, 422)
            assert len(answer.content) < 20_000


LONG = "a" * 50_000
PATHS = [
    f"/runs/{LONG}",
    f"/sessions/{LONG}",
    f"/workflows/{LONG}",
    f"/runs?cursor={LONG}",
    f"/runs?status={LONG}",
    f"/runs?limit={LONG}",
    f"/runs?workflow={LONG}",
    "/events?" + "&".join(["run_id=a"] * 5000),
    "/events?after=" + LONG,
    "/runs?" + "&".join(f"a{number}=b" for number in range(5000)),
    "/" + "a/" * 25_000,
    "/sessions/" + "%00" * 1000,
    "/runs/../../etc/passwd",
    "/docs/assets/%2e%2e/%2e%2e/pyproject.toml",
    "/docs/assets/..%2f..%2fpyproject.toml",
]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:30])
async def test_an_odd_address_is_answered_shortly(database_url: str, path: str) -> None:
    async with running(database_url, Take) as client:
        async with watched():
            answer = await client.get(path)
        assert answer.status_code in {200, 400, 404, 422}, answer.text[:200]
        assert len(answer.content) < 3 * len(LONG)


@pytest.mark.parametrize(
    "headers",
    [
        {"Last-Event-ID": LONG},
        {"Last-Event-ID": "9" * 5000},
        {"If-None-Match": '"a",' * 10_000},
        {"Accept": "a/b;q=0.1," * 5000},
        {"Prefer": "wait=" + "9" * 10_000},
        {"Prefer": "wait=1," * 5000},
        {"X-Request-Id": LONG},
        {"traceparent": LONG},
        {"Authorization": "Bearer " + LONG},
        {"Range": "bytes=" + "0-," * 10_000},
        {"Content-Type": "application/json;" * 2000},
        {"Idempotency-Key": LONG},
    ],
    ids=lambda headers: next(iter(headers)),
)
async def test_odd_headers_are_answered_shortly(sqlite_url: str, headers: dict[str, str]) -> None:
    async with running(sqlite_url, Take) as client:
        run = await client.finish("take")
        async with watched():
            for path in (f"/runs/{run['run_id']}/events", "/runs", "/docs/assets/swagger-ui.css"):
                assert (await client.get(path, headers=headers)).status_code < 500
            started = await client.post("/workflows/take/runs", json={"input": {}}, headers=headers)
        assert started.status_code < 500
