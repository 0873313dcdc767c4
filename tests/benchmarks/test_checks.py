"""What a stream has lost, doubled or mixed up is seen, however it was cut on its way."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.calls import Wrong, check
from benchmarks.connection import Connection
from benchmarks.goals import Goal
from benchmarks.samples import Samples
from benchmarks.work import text_of

FINISHED = (
    b'id: %d\nevent: RunFinished\ndata: {"event":"RunFinished","status":"%b","content":"#0000000 x#0000001 x"}\n\n'
)


def frame(sequence: int, number: int) -> bytes:
    payload = f'{{"event":"RunResponse","content":"{text_of(number, 16)}"}}'
    return f"id: {sequence}\nevent: RunResponse\ndata: {payload}\n\n".encode()


def stream(*numbers: int, status: bytes = b"completed") -> bytes:
    frames = [frame(sequence, number) for sequence, number in enumerate(numbers, 2)]
    started = b"retry: 500\nid: 1\nevent: WorkflowStarted\ndata: {}\n\n"
    return started + b"".join(frames) + FINISHED % (len(numbers) + 2, status)


def test_a_whole_stream_is_right() -> None:
    assert check(stream(0, 1, 2), after=0, first=0, events=3) == 5


@pytest.mark.parametrize(
    "body",
    [
        stream(0, 2),
        stream(0, 1),
        stream(0, 1, 1, 2),
        stream(0, 2, 1),
        stream(0, 1, 2, status=b"failed"),
        stream(0, 1, 2).replace(b"id: 3\n", b"id: 4\n"),
        stream(0, 1, 2).replace(frame(3, 1), b""),
        stream(0, 1, 2)[:-20],
        b"",
    ],
)
def test_what_is_wrong_with_a_stream_is_seen(body: bytes) -> None:
    with pytest.raises(Wrong):
        check(body, after=0, first=0, events=3)


def test_the_end_of_a_stream_is_checked_too() -> None:
    end = frame(4, 2) + FINISHED % (5, b"completed")
    assert check(end, after=3, first=None, events=3) == 5
    with pytest.raises(Wrong):
        check(end, after=2, first=None, events=3)
    with pytest.raises(Wrong):
        check(end, after=3, first=None, events=4)


@given(parts=st.lists(st.binary(min_size=1, max_size=40), max_size=8), cuts=st.lists(st.integers(1, 30)))
def test_answers_are_read_however_they_are_cut(parts: list[bytes], cuts: list[int]) -> None:
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    plain = b"".join(parts)
    both = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunked
    following = b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(plain) + plain

    async def read() -> None:
        connection = Connection()
        connection.connection_made(asyncio.Transport())
        for answer, status in ((both, 200), (following, 404)):
            asked = connection.expect(mark=None)
            at = 0
            for cut in [*cuts, len(answer)]:
                connection.data_received(answer[at : at + cut])
                at += cut
            await asyncio.wait_for(asked.ended, 1)
            assert (asked.status, asked.body) == (status, plain)

    asyncio.run(read())


def test_a_ratio_is_that_of_slices_with_the_same_weather() -> None:
    ours, bare = Samples(), Samples()
    for slow in (1, 10, 100):
        ours.add("runs_16", 5 / slow)
        bare.add("runs_16", 10 / slow)
    assert ours.ratio("runs_16", bare) == 0.5
    assert Goal(0.5, at_least=True).met(5, 0.5)
    assert not Goal(0.6, at_least=True).met(5, 0.5)
    assert Goal(4, ratio=False).met(3, None)
    assert Goal(2).met(3, None) is None
