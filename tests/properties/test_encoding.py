"""Laws of the one boundary between values and JSON."""

import dataclasses
import json
import math
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, strategies
from pydantic import BaseModel

from app.errors import Malformed, Unencodable
from app.workflow.encoding import decode, encode, parse, plain
from tests.properties.documents import DOCUMENTS


@given(DOCUMENTS)
def test_what_is_encoded_and_decoded_is_what_it_was(document: Any) -> None:
    assert json.dumps(decode(encode(document))) == json.dumps(document)


@given(DOCUMENTS)
def test_the_encoding_is_compact_json_in_utf_8_on_one_line(document: Any) -> None:
    encoded = encode(document)
    assert json.dumps(json.loads(encoded)) == json.dumps(document)
    assert b"\n" not in encoded
    assert b"\r" not in encoded
    assert encode(json.loads(encoded)) == encoded


@given(DOCUMENTS)
def test_parsing_and_encoding_agree(document: Any) -> None:
    for sent in (encode(document), json.dumps(document).encode(), json.dumps(document, indent=1).encode()):
        assert encode(parse(sent)) == encode(document)


@given(strategies.text(max_size=20))
def test_any_text_becomes_text_that_every_database_takes(text: str) -> None:
    """Hypothesis's texts hold lone surrogates and NUL."""
    safe = "".join(
        "\ufffd" if character == "\x00" or 0xD800 <= ord(character) < 0xE000 else character for character in text
    )
    assert decode(encode(text)) == safe
    assert decode(encode({text: [text]})) == {safe: [safe]}
    assert parse(json.dumps({"a": text}).encode()) == {"a": _paired(text)}


def _paired(text: str) -> str:
    """What escapes of the text mean: two surrogates that are a pair are one character."""
    joined = json.loads(json.dumps(text))
    return "".join(
        "\ufffd" if character == "\x00" or 0xD800 <= ord(character) < 0xE000 else character for character in joined
    )


class Model(BaseModel):
    value: Any = None
    number: float = 0


@dataclasses.dataclass
class Record:
    value: Any


class Kind(Enum):
    one = "1"


WRAPPERS: strategies.SearchStrategy[Any] = strategies.sampled_from(
    [
        lambda value: {"k": value},
        lambda value: [value],
        lambda value: (None, value),
        lambda value: {1: value},
        lambda value: Record(value),
        lambda value: Model(value=value),
        lambda value: {"null": None, "k": value},
        lambda value: [Record([value])],
    ]
)


@given(strategies.sampled_from([math.nan, math.inf, -math.inf]), strategies.lists(WRAPPERS, max_size=4))
def test_no_number_that_json_lacks_passes_in_any_disguise(number: float, wrappers: list[Any]) -> None:
    value: Any = number
    for wrap in wrappers:
        value = wrap(value)
    with pytest.raises(Unencodable):
        encode(value)
    with pytest.raises(Unencodable):
        encode([value, Model(number=number)])


@given(strategies.lists(WRAPPERS, max_size=4))
def test_what_cannot_be_encoded_is_named_by_its_path(wrappers: list[Any]) -> None:
    value: Any = object()
    depth = 0
    for wrap in wrappers:
        value = wrap(value)
        depth += 1
    with pytest.raises(Unencodable) as raised:
        encode(value)
    assert raised.value.path.count("/") >= depth
    assert raised.value.path == "" or raised.value.path in raised.value.message


@given(strategies.sets(strategies.integers(0, 50) | strategies.text("ab", max_size=2)))
def test_equal_sets_are_equal_json(elements: set[Any]) -> None:
    assert encode(elements) == encode({*reversed(list(elements))}) == encode(frozenset(elements))


RICH: list[tuple[Any, Any]] = [
    (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2026-01-02T03:04:05.000006+00:00"),
    (datetime(2026, 1, 2), "2026-01-02T00:00:00"),  # noqa: DTZ001
    (date(2026, 1, 2), "2026-01-02"),
    (time(1, 2, 3), "01:02:03"),
    (time(1, 2, 3, tzinfo=UTC), "01:02:03+00:00"),
    (Decimal("1.10"), "1.10"),
    (UUID(int=5), str(UUID(int=5))),
    (Kind.one, "1"),
    (Record(Record({1})), {"value": {"value": [1]}}),
    (Model(value=Model()), {"value": {"value": None, "number": 0.0}, "number": 0.0}),
]


@pytest.mark.parametrize(("value", "expected"), RICH)
def test_rich_values_are_written_alike_wherever_they_stand(value: Any, expected: Any) -> None:
    """Also beside something that takes the encoder's other way."""
    assert decode(encode(value)) == expected
    for other in ("a\x00", "\ud800", math.pi, {1: 2}, time(1, tzinfo=UTC), None):
        assert decode(encode([value, other]))[0] == expected
    assert json.loads(json.dumps(plain(value))) == expected


@given(strategies.integers())
def test_integers_are_exact_or_refused(number: int) -> None:
    inside = -(2**63) <= number < 2**64
    for through in (_encoded, _parsed):
        if inside:
            assert through(number) == number
        else:
            with pytest.raises(Unencodable):
                through(number)


def _encoded(number: int) -> Any:
    return decode(encode({"n": number}))["n"]


def _parsed(number: int) -> Any:
    return parse(b'{"n":%d}' % number)["n"]


@given(strategies.binary(max_size=40))
def test_any_bytes_are_a_document_or_malformed(body: bytes) -> None:
    try:
        value = parse(body)
    except (Malformed, Unencodable):
        return
    assert encode(parse(encode(value))) == encode(value)


@pytest.mark.parametrize("depth", [90, 99, 100])
def test_a_document_has_100_levels(depth: int) -> None:
    body = b"[" * depth + b"]" * depth
    assert encode(parse(body)) == body


@pytest.mark.parametrize("depth", [102, 200, 900, 5000, 200_000])
@pytest.mark.parametrize("escaped", [b"", b'"\\u0041"'])
def test_deeper_documents_are_refused_by_every_way_in(depth: int, escaped: bytes) -> None:
    with pytest.raises((Malformed, Unencodable)):
        parse(b"[" * depth + escaped + b"]" * depth)
    deep: Any = []
    for _ in range(min(depth, 5000)):
        deep = [deep]
    with pytest.raises(Unencodable):
        encode(deep)


def test_brackets_in_texts_are_not_depth() -> None:
    text = '[{"' * 500 + "\\"
    assert decode(encode([text])) == [text]
    assert parse(json.dumps([text]).encode()) == [text]
