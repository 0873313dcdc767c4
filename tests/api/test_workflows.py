"""The workflows that are served, as callers see them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from app import RunResponse, Workflow
from tests.support.server import running


class Address(BaseModel):
    street: str


class BlogPostGenerator(Workflow):
    """Write a blog post.

    A post written before comes from the session.
    """

    def run(
        self,
        topic: str,
        use_cache: bool = True,
        to: Address | None = None,
        tone: Literal["dry", "warm"] = "dry",
        length: Annotated[int, Field(ge=1, le=9)] = 3,
        anything: Any = None,
    ) -> Iterator[RunResponse]:
        yield RunResponse(content=topic)


class HTTPThing2Go(Workflow):
    description = "Said by the attribute."

    async def run(self) -> AsyncIterator[RunResponse]:
        yield RunResponse(content="x")


class Renamed(Workflow):
    name = "my.own_name"

    async def run(self) -> None:
        pass


async def test_a_workflow_tells_its_input(sqlite_url: str) -> None:
    async with running(sqlite_url, BlogPostGenerator) as client:
        workflow = (await client.get("/workflows/blog-post-generator")).json()
        assert set(workflow) == {"name", "description", "input_schema", "parameters"}
        assert workflow["description"] == "Write a blog post.\n\nA post written before comes from the session."
        parameters: list[dict[str, Any]] = workflow["parameters"]
        assert all(set(parameter) == {"name", "annotation", "default", "required"} for parameter in parameters)
        assert [(each["name"], each["default"], each["required"]) for each in parameters] == [
            ("topic", None, True),
            ("use_cache", True, False),
            ("to", None, False),
            ("tone", "dry", False),
            ("length", 3, False),
            ("anything", None, False),
        ]
        assert parameters[0]["annotation"] == "str"
        schema = workflow["input_schema"]
        assert schema["required"] == ["topic"]
        assert schema["additionalProperties"] is False
        assert schema["properties"]["tone"]["enum"] == ["dry", "warm"]
        assert schema["properties"]["length"]["maximum"] == 9
        assert (await client.get("/workflows")).json() == {"items": [workflow], "next_cursor": None}


async def test_names_come_from_the_class_or_the_attribute(sqlite_url: str) -> None:
    async with running(sqlite_url, BlogPostGenerator, HTTPThing2Go, Renamed) as client:
        workflows = {each["name"]: each for each in (await client.get("/workflows")).json()["items"]}
        assert set(workflows) == {"blog-post-generator", "http-thing2-go", "my.own_name"}
        assert workflows["http-thing2-go"]["description"] == "Said by the attribute."
        assert workflows["my.own_name"]["description"] == ""
        for name in ("http-thing2-go", "my.own_name"):
            assert (await client.finish(name))["status"] == "completed"


async def test_nothing_leaks_between_runs(sqlite_url: str) -> None:
    class Hoarder(Workflow):
        async def run(self, name: str) -> AsyncIterator[RunResponse]:
            self.mine = [*getattr(self, "mine", []), name]
            await asyncio.sleep(0.01)
            yield RunResponse(content=f"{self.mine} {self.session_state}")

    async with running(sqlite_url, Hoarder) as client:
        runs = await asyncio.gather(*(client.finish("hoarder", name=f"{number}") for number in range(10)))
        assert [run["content"] for run in runs] == [f"['{number}'] {{}}" for number in range(10)]
