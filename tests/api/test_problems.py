"""Errors: every one a problem document, also those of the framework."""

from app import Workflow
from tests.support.problems import problem_of
from tests.support.server import running


class Echo(Workflow):
    def run(self) -> None:
        pass


async def test_a_path_that_is_none_is_a_problem(sqlite_url: str) -> None:
    async with running(sqlite_url, Echo) as client:
        for path in (
            "/nothing",
            "/runs/",
            "/workflows/echo/",
            "/sessions/a/b",
            "/docs/assets/none.js",
            "/%2e%2e/x",
        ):
            problem_of(await client.get(path), 404, "not_found")


async def test_a_method_that_is_not_for_a_path_is_a_problem_that_says_which_are(sqlite_url: str) -> None:
    async with running(sqlite_url, Echo) as client:
        for method, path, allowed in [
            ("DELETE", "/runs", "GET"),
            ("PUT", "/workflows/echo/runs", "POST"),
            ("POST", "/healthz", "GET"),
            ("POST", "/sessions/s/state", "GET"),
            ("GET", "/sessions/s/fork", "POST"),
            ("TRACE", "/runs", "GET"),
            ("OPTIONS", "/runs", "GET"),
        ]:
            answer = await client.request(method, path)
            problem_of(answer, 405, "method_not_allowed")
            assert allowed in answer.headers["allow"]


async def test_the_methods_of_one_path_are_named_together(sqlite_url: str) -> None:
    async with running(sqlite_url, Echo) as client:
        for path, methods in [
            ("/sessions", {"GET", "POST"}),
            ("/sessions/s", {"GET", "PATCH", "DELETE"}),
            ("/sessions/s/state", {"GET", "PATCH", "PUT"}),
        ]:
            answer = await client.request("TRACE", path)
            assert {method.strip() for method in answer.headers["allow"].split(",")} - {"HEAD"} == methods


async def test_every_wrong_member_is_named(sqlite_url: str) -> None:
    async with running(sqlite_url, Echo) as client:
        body = {"input": {}, "on_busy": "x", "timeout_seconds": 0, "colour": "red"}
        problem = problem_of(await client.post("/workflows/echo/runs", json=body), 422)
        assert {error["pointer"] for error in problem["errors"]} == {"/on_busy", "/timeout_seconds", "/colour"}
        assert all(error["message"] for error in problem["errors"])


async def test_a_problem_says_what_was_asked_for_and_not_more(sqlite_url: str) -> None:
    async with running(sqlite_url, Echo) as client:
        long = "x" * 5000
        for path in (f"/runs/{long}", f"/sessions/{long}", f"/workflows/{long}", f"/sessions/{long}/state"):
            problem = problem_of(await client.get(path), 404)
            assert len(problem["detail"]) < 1000
