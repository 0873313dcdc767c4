from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as some

from app.client.sse import SseDecoder, SseMessage

STREAM = (
    "\ufeffretry: 750\n: a comment\nid: 1\nevent: Süß\ndata: ein 🍞 \u2028 mit \x85 Zeilen\n\n"
    "data: first\r\ndata:second\r\n\r\nid: 3\revent: c\rdata\rdata: \r\r"
    "ignored\nid: x\0y\ndata: {}\n\nid: 9\ndata: unfinished\n"
)
MESSAGES = [
    SseMessage("1", "Süß", "ein 🍞 \u2028 mit \x85 Zeilen"),
    SseMessage("1", "message", "first\nsecond"),
    SseMessage("3", "c", "\n"),
    SseMessage("3", "message", "{}"),
]


def read(*chunks: bytes) -> list[SseMessage]:
    decoder = SseDecoder()
    return [message for chunk in chunks for message in decoder.feed(chunk)]


def test_a_stream_is_read_as_the_standard_says() -> None:
    assert read(STREAM.encode()) == MESSAGES


@given(some.lists(some.integers(0, len(STREAM.encode())), max_size=40))
def test_any_way_of_cutting_it_gives_the_same(cuts: list[int]) -> None:
    whole = STREAM.encode()
    places = [0, *sorted(cuts), len(whole)]
    assert read(*(whole[start:end] for start, end in pairwise(places))) == MESSAGES


def test_byte_by_byte() -> None:
    assert read(*(bytes([code]) for code in STREAM.encode())) == MESSAGES


@given(some.lists(some.tuples(some.text(), some.sampled_from(["\n", "\r", "\r\n"])), max_size=10), some.data())
def test_lines_end_where_they_should_and_nowhere_else(parts: list[tuple[str, str]], data: some.DataObject) -> None:
    texts = [(text.replace("\r", "").replace("\n", ""), end) for text, end in parts]
    stream = "".join(f"data: {text}{end}" for text, end in texts).encode("utf-8", "surrogatepass") + b"\n\n"
    try:
        stream.decode()
    except UnicodeDecodeError:
        return  # lone surrogates are no text
    cut = data.draw(some.integers(0, len(stream)))
    expected = [SseMessage("", "message", "\n".join(text for text, _ in texts))] if texts else []
    assert read(stream[:cut], stream[cut:]) == expected


def test_an_event_is_given_out_with_its_last_byte() -> None:
    decoder = SseDecoder()
    assert list(decoder.feed(b"data: x\r\n\r")) == [SseMessage("", "message", "x")]
    assert list(decoder.feed(b"\ndata: y\n\n")) == [SseMessage("", "message", "y")]


@pytest.mark.parametrize(
    ("field", "milliseconds"), [("750", 750), ("7.5", None), ("-1", None), ("", None), ("٣", None)]
)
def test_retry_is_a_number_of_digits(field: str, milliseconds: int | None) -> None:
    decoder = SseDecoder()
    list(decoder.feed(f"retry: {field}\n".encode()))
    assert decoder.retry_milliseconds == milliseconds
