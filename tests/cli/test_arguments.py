from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from app import RunResponse, Workflow
from app.cli.arguments import check_required, read_arguments, read_input
from app.errors import Invalid
from app.workflow.registry import WorkflowDefinition


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Point(BaseModel):
    x: int
    y: float = 0


class Takes(Workflow):
    def run(  # noqa: PLR0917  a schema of each kind
        self,
        text: str = "",
        number: int = 0,
        ratio: float = 0,
        flag: bool = False,
        maybe: str | None = None,
        count: int | None = None,
        words: list[str] = [],  # noqa: B006
        numbers: list[int] | None = None,
        point: Point | None = None,
        points: list[Point] = [],  # noqa: B006
        kind: Literal["a", "b"] = "a",
        level: Literal[1, 2] = 1,
        color: Color = Color.RED,
        either: int | str = 0,
        day: date | None = None,
        price: Decimal = Decimal(1),
        anything: Any = None,
        scores: dict[str, int] = {},  # noqa: B006
        two_words: str = "",
    ) -> Iterator[RunResponse]:
        yield RunResponse()


class Open(Workflow):
    def run(self, **others: int) -> Iterator[RunResponse]:
        yield RunResponse()


TAKES = WorkflowDefinition(Takes).input
OPEN = WorkflowDefinition(Open).input


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--text=5"], {"text": "5"}),
        (["--text", "two words"], {"text": "two words"}),
        (["--text="], {"text": ""}),
        (["--text=null"], {"text": "null"}),
        (["--text=a=b"], {"text": "a=b"}),
        (["--number=-5"], {"number": -5}),
        (["--number", "-5"], {"number": -5}),
        (["--ratio=2"], {"ratio": 2}),
        (["--ratio=2.5e3"], {"ratio": 2500.0}),
        (["--flag=yes"], {"flag": True}),
        (["--flag=False"], {"flag": False}),
        (["--maybe=null"], {"maybe": None}),
        (["--maybe=nothing"], {"maybe": "nothing"}),
        (["--count=null"], {"count": None}),
        (["--count=7"], {"count": 7}),
        (["--words=a"], {"words": ["a"]}),
        (["--words=a", "--words=b"], {"words": ["a", "b"]}),
        (['--words=["a","b,c"]'], {"words": ["a", "b,c"]}),
        (["--numbers=1", "--numbers=2"], {"numbers": [1, 2]}),
        (["--numbers=null"], {"numbers": None}),
        (['--point={"x":1}'], {"point": {"x": 1}}),
        (['--points={"x":1}', '--points={"x":2}'], {"points": [{"x": 1}, {"x": 2}]}),
        (["--kind=b"], {"kind": "b"}),
        (["--level=2"], {"level": 2}),
        (["--color=blue"], {"color": "blue"}),
        (["--either=7"], {"either": 7}),
        (["--either=seven"], {"either": "seven"}),
        (["--day=2026-11-22"], {"day": "2026-11-22"}),
        (["--price=1.25"], {"price": 1.25}),
        (["--anything=[1]"], {"anything": [1]}),
        (["--anything=plain"], {"anything": "plain"}),
        (['--scores={"a":1}'], {"scores": {"a": 1}}),
        (["--two-words=x"], {"two_words": "x"}),
        (["--two_words=x"], {"two_words": "x"}),
    ],
)
def test_arguments_become_what_the_schema_wants(words: list[str], value: dict[str, Any]) -> None:
    assert read_arguments(words, TAKES.json_schema, "takes") == value
    TAKES.validate(value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--number=x"], "--number of takes takes a whole number, not 'x'"),
        (["--number=1.5"], "a whole number"),
        (["--ratio=nan"], "a number"),
        (["--flag=maybe"], "true or false"),
        (["--count=x"], "null or a whole number"),
        (["--kind=c"], "one of a, b"),
        (["--level=3"], "one of 1, 2"),
        (["--words=[1"], "a JSON list"),
        (["--numbers=x"], "a whole number, more than once or as a JSON list"),
        (["--point=3"], "a JSON object"),
        (["--text=a", "--text=b"], "one value"),
        (["--nothing=1"], "takes has no argument --nothing; it takes --text, --number"),
        (["text=a"], "is no argument; write --name=value"),
        (["--text"], "--text has no value"),
        (["--text", "--number=1"], "--text has no value"),
    ],
)
def test_what_does_not_fit_is_named(words: list[str], said: str) -> None:
    with pytest.raises(Invalid, match=said.replace("[", r"\[")):
        read_arguments(words, TAKES.json_schema, "takes")


def test_arguments_of_any_name_are_json_or_text() -> None:
    assert read_arguments(["--a=1", "--b-c=x"], OPEN.json_schema, "open") == {"a": 1, "b-c": "x"}


def test_arguments_of_any_name_have_the_type_that_the_schema_gives_them() -> None:
    schema = {"additionalProperties": {"type": "integer"}}
    assert read_arguments(["--a=1"], schema, "open") == {"a": 1}
    with pytest.raises(Invalid, match="a whole number"):
        read_arguments(["--a=x"], schema, "open")


@pytest.mark.parametrize("text", ["[1]", "{", "NaN", '{"a": NaN}'])
def test_an_input_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="--input is"):
        read_input(text)


def test_missing_arguments_are_named() -> None:
    schema = {"required": ["topic", "words"]}
    with pytest.raises(Invalid, match="needs --words=…"):
        check_required({"topic": "bread"}, schema, "post")
