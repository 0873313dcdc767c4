import json
from collections.abc import Callable, Iterator

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from app.client.client import Client
from app.client.errors import ClientError, ServerProblem, ServerUnreachable
from app.client.following import ReceivedEvent
from app.wire.frames import frame
from app.wire.runs import StartRun

URL = "http://server.test"
Handler = Callable[[httpx.Request], httpx.Response]


def event(number: int, last: int) -> bytes:
    name = "RunFinished" if number == last else "RunResponse"
    return frame(number, name, json.dumps({"event": name, "sequence": number, "content": "ü\u2028"}).encode())


class Breaking(httpx.SyncByteStream):
    """A body that ends early: by itself, or by a broken connection."""

    def __init__(self, body: bytes, *, broken: bool) -> None:
        self._body, self._broken = body, broken

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._body), 7):
            yield self._body[start : start + 7]
        if self._broken:
            raise httpx.ReadError("cut")


class EventServer:
    """Serves one run's events past the cursor, each connection cut after so many bytes."""

    def __init__(self, last: int, cuts: list[tuple[int, bool]]) -> None:
        self.last, self.cuts, self.cursors = last, cuts, list[int]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        cursor = int(request.headers["Last-Event-ID"])
        self.cursors.append(cursor)
        if cursor >= self.last:
            return httpx.Response(204)
        body = b"retry: 1\n" + b"".join(event(number, self.last) for number in range(cursor + 1, self.last + 1))
        size, broken = self.cuts.pop(0) if self.cuts else (len(body), False)
        return httpx.Response(
            200, headers={"Content-Type": "text/event-stream"}, stream=Breaking(body[:size], broken=broken)
        )


def client_of(handler: Handler) -> Client:
    return Client(URL, transport=httpx.MockTransport(handler))


def follow(handler: Handler, **options: float) -> list[ReceivedEvent]:
    with client_of(handler) as client:
        return list(client.follow("r", **options))  # type: ignore[arg-type]


@settings(deadline=None, max_examples=50)
@given(some.lists(some.tuples(some.integers(0, 600), some.booleans()), max_size=4), some.integers(0, 8))
def test_any_losses_give_every_event_once_and_in_order(cuts: list[tuple[int, bool]], after: int) -> None:
    events = follow(EventServer(8, cuts), after=after)
    assert [event.sequence for event in events] == list(range(after + 1, 9))
    assert all(event.members["content"] == "ü\u2028" for event in events)


def test_a_stream_ends_with_the_last_event_though_the_server_keeps_it_open() -> None:
    server = EventServer(3, [])
    assert [event.name for event in follow(server)] == ["RunResponse", "RunResponse", "RunFinished"]
    assert server.cursors == [0]


def test_what_comes_twice_is_given_out_once() -> None:
    body = event(1, 3) + event(1, 3) + event(2, 3) + event(1, 3) + event(3, 3)
    answer = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=body)
    assert [event.sequence for event in follow(lambda _: answer)] == [1, 2, 3]


def test_a_skipped_event_is_asked_for_again() -> None:
    bodies = [event(1, 3) + event(3, 3), event(2, 3) + event(3, 3)]
    cursors = []

    def handler(request: httpx.Request) -> httpx.Response:
        cursors.append(request.headers["Last-Event-ID"])
        body = b"retry: 1\n" + bodies.pop(0)
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=body)

    assert [event.sequence for event in follow(handler)] == [1, 2, 3]
    assert cursors == ["0", "1"]


def test_a_stream_that_always_skips_is_given_up() -> None:
    body = b"retry: 1\n" + event(2, 3)
    with pytest.raises(ClientError, match="goes from event 0 to 2, again and again"):
        follow(lambda _: httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=body))


def test_no_server_at_the_beginning_is_said_at_once() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(ServerUnreachable, match=f"no server answers at {URL}: refused"):
        follow(handler)


def test_a_server_that_stays_away_is_given_up_after_a_time() -> None:
    calls = []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        if len(calls) > 1:
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=b"retry: 1\n" + event(1, 3))

    with pytest.raises(ServerUnreachable, match="is lost: refused"):
        follow(handler, patience_seconds=0.05)
    assert len(calls) > 3


def test_a_refusal_that_passes_is_waited_for() -> None:
    answers = [
        httpx.Response(
            503,
            headers={"Retry-After": "0"},
            json={"type": "about:blank", "title": "", "status": 503, "detail": "full", "code": "too_many_streams"},
        ),
        httpx.Response(502, headers={"Retry-After": "0"}, text="bad gateway"),
        httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=event(1, 1)),
    ]
    losses: list[str] = []
    with client_of(lambda _: answers.pop(0)) as client:
        assert [event.sequence for event in client.follow("r", on_loss=losses.append)] == [1]
    assert losses[0] == "full"


@pytest.mark.parametrize("status", [200, 301, 404])
def test_an_answer_that_is_not_ours_says_so(status: int) -> None:
    with pytest.raises(ServerProblem, match="not as Millstream does") as caught:
        follow(lambda _: httpx.Response(status, text="<html>hello</html>", headers={"Content-Type": "text/html"}))
    assert caught.value.code == "unexpected_answer"


def test_a_problem_is_an_error_with_its_code() -> None:
    document = {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "no run 'r'",
        "code": "unknown_run",
    }
    with client_of(lambda _: httpx.Response(404, json=document)) as client, pytest.raises(ServerProblem) as caught:
        client.run("r")
    assert (caught.value.status, caught.value.code, caught.value.detail) == (404, "unknown_run", "no run 'r'")


def test_a_start_whose_answer_is_lost_is_asked_for_again_under_the_same_key() -> None:
    keys = []

    def handler(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) < 3:
            raise httpx.ReadError("cut", request=request)
        run = dict.fromkeys(
            ("user_id", "content", "error", "position", "started_at", "finished_at", "session_revision")
        )
        run |= {"run_id": "r", "workflow": "w", "session_id": "s", "status": "queued", "input": {}, "metadata": {}}
        run |= {"attempt": 0, "content_truncated": False, "created_at": "2026-11-22T10:20:30.123456Z"}
        return httpx.Response(202, json=run)

    with client_of(handler) as client:
        assert client.start_run("w", StartRun()).run_id == "r"
    assert len(keys) == 3
    assert len(set(keys)) == 1


@pytest.mark.parametrize("url", ["ftp://x", "http://", "://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ClientError, match="is no address of a server"):
        Client(url)


def test_names_are_one_part_of_the_path() -> None:
    paths = []

    def handler(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path.decode())
        return httpx.Response(204)

    with client_of(handler) as client:
        client.delete_session("a/b ?ü%")
    assert paths == ["/sessions/a%2Fb%20%3F%C3%BC%25"]
