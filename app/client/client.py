"""The client: one method for each thing that a caller may ask of a server."""

import ipaddress
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic import BaseModel

from app import clock
from app.client.answers import json_of, problem_of
from app.client.errors import ClientError, ServerUnreachable
from app.client.following import Follower, ReceivedEvent
from app.wire.bodies import Body, Page
from app.wire.events import Event
from app.wire.keys import CreateKey, Key, NewKey, RotateKey
from app.wire.runs import AnswerRun, Run, StartRun
from app.wire.schedules import CreateSchedule, Schedule
from app.wire.sessions import CreateSession, ForkSession, RestoreState, Revision, Session, UpdateSession
from app.wire.webhooks import (
    CreateWebhook,
    Delivery,
    RotateSecret,
    UpdateWebhook,
    Webhook,
    WebhookSecret,
    WebhookWithSecret,
)
from app.wire.workflows import Version, Workflow

TIMEOUT = httpx.Timeout(30, connect=5)
PATIENCE_SECONDS = 60.0
"""How long a follower tries to get back to a server that it has lost: longer than a restart or a takeover."""
LARGEST_PAGE = 200
START_TRIES = 3

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"

ResourceType = TypeVar("ResourceType", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class State:
    """A session's state and the number of its revision."""

    revision: int
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StreamOpening:
    """How a stream began: its headers, and how long its first bytes took."""

    headers: dict[str, str]
    seconds: float


class Client:
    """Talks to one server; to be closed, or used as a context. Every method raises ClientError."""

    def __init__(self, url: str, *, api_key: str | None = None, transport: httpx.BaseTransport | None = None) -> None:
        """`url` is the server's address; without a scheme it is http. `api_key` may be any bearer token.

        `transport` replaces the network in tests.
        """
        self.url = url if "://" in url else f"http://{url}"
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ClientError(f"{url!r} is no address of a server; one looks like http://127.0.0.1:8000")
        self._http = httpx.Client(
            base_url=self.url,
            headers={} if api_key is None else {"Authorization": f"Bearer {api_key}"},
            timeout=TIMEOUT,
            transport=transport,
            trust_env=not _is_here(parts.hostname),  # a proxy cannot reach what listens on this machine's loopback
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def version(self) -> Version:
        """What answers."""
        return Version.model_validate(self._get("/version"))

    def readiness(self) -> dict[str, str]:
        """What the server looks at to know whether it can serve: each `ok`, or why it is not."""
        answer = self._send("GET", "/readyz")
        refusal = None if answer.is_success else problem_of(answer)
        checks: dict[str, str] | None = (json_of(answer) if refusal is None else refusal.members).get("checks")
        if refusal is not None and checks is None:
            raise refusal
        return checks or {}

    def stream_opening(self, session_id: str, *, seconds: float) -> "StreamOpening | None":
        """The first sign of life of the stream of a session; None when there was none within so many seconds."""
        began = time.monotonic()
        query = {"session_id": session_id}
        try:
            with self._http.stream("GET", "/events", params=query, timeout=seconds) as answer:
                if not answer.is_success:
                    answer.read()
                    raise problem_of(answer)
                next(answer.iter_raw(), b"")
                return StreamOpening(dict(answer.headers), time.monotonic() - began)
        except httpx.TimeoutException:
            return None
        except httpx.RequestError as error:
            raise ServerUnreachable(self.url, _reason(error), contacted=True) from None

    def workflow(self, name: str) -> Workflow:
        """One workflow."""
        return Workflow.model_validate(self._get(f"/workflows/{_part(name)}"))

    def workflows(self) -> Iterator[Workflow]:
        """All workflows, by name."""
        return self._list("/workflows", Workflow, {}, at_most=None)

    def start_run(self, workflow: str, body: StartRun, *, idempotency_key: str | None = None) -> Run:
        """Start a run. A lost answer is asked for again, which starts nothing twice: the request has a key."""
        headers = {"Idempotency-Key": idempotency_key or clock.new_id(), "Content-Type": JSON}
        content = _encoded(body)
        for tries_left in range(START_TRIES - 1, -1, -1):
            try:
                answer = self._send("POST", f"/workflows/{_part(workflow)}/runs", content=content, headers=headers)
            except ServerUnreachable as error:
                if not (error.contacted and tries_left):
                    raise
            else:
                return Run.model_validate(json_of(answer))
        raise AssertionError  # the last try returns or raises

    def run(self, run_id: str) -> Run:
        """One run."""
        return Run.model_validate(self._get(f"/runs/{_part(run_id)}"))

    def runs(self, *, at_most: int | None = None, **filters: str | None) -> Iterator[Run]:
        """Runs, newest first; `filters` are workflow, session_id, user_id and status."""
        return self._list("/runs", Run, filters, at_most=at_most)

    def cancel_run(self, run_id: str) -> Run:
        """Ask a run to stop; one that has ended is left as it is."""
        return Run.model_validate(json_of(self._send("POST", f"/runs/{_part(run_id)}/cancel")))

    def answer_run(self, run_id: str, request_id: str, value: object) -> Run:
        """Answer a paused run, which goes on."""
        content = _encoded(AnswerRun(request_id=request_id, value=value))
        headers = {"Content-Type": JSON}
        return Run.model_validate(
            json_of(self._send("POST", f"/runs/{_part(run_id)}/input", content=content, headers=headers))
        )

    def retry_run(self, run_id: str) -> Run:
        """Run an ended run again, as a new one."""
        return Run.model_validate(json_of(self._send("POST", f"/runs/{_part(run_id)}/retry")))

    def events(self, run_id: str) -> Iterator[Event]:
        """The run's events so far, page by page."""
        return self._list(f"/runs/{_part(run_id)}/events", Event, {}, at_most=None)

    def follow(
        self,
        run_id: str,
        *,
        after: int = 0,
        patience_seconds: float = PATIENCE_SECONDS,
        on_loss: Callable[[str], None] | None = None,
    ) -> Iterator[ReceivedEvent]:
        """The run's events past a cursor, each once and in order, live to its last one.

        A lost connection is made again by itself, after telling `on_loss` why. Raises ServerUnreachable when that has
        not worked for so long, or when there is no server to begin with.
        """
        return Follower(
            self._http, _part(run_id), after=after, patience_seconds=patience_seconds, on_loss=on_loss
        ).events()

    def create_session(self, body: CreateSession) -> Session:
        """Make a session."""
        return self._write("POST", "/sessions", Session, body)

    def session(self, session_id: str) -> Session:
        """One session."""
        return Session.model_validate(self._get(f"/sessions/{_part(session_id)}"))

    def sessions(self, *, at_most: int | None = None, **filters: str | None) -> Iterator[Session]:
        """Sessions, newest first; `filters` are workflow, user_id and name."""
        return self._list("/sessions", Session, filters, at_most=at_most)

    def update_session(self, session_id: str, body: UpdateSession) -> Session:
        """Change a session's name or metadata."""
        return self._write("PATCH", f"/sessions/{_part(session_id)}", Session, body)

    def delete_session(self, session_id: str) -> None:
        """Delete a session and everything that belongs to it."""
        self._delete(f"/sessions/{_part(session_id)}")

    def delete_user(self, user_id: str) -> None:
        """Delete everything that belongs to a user."""
        self._delete(f"/users/{_part(user_id)}")

    def fork_session(self, session_id: str, body: ForkSession) -> Session:
        """Copy a session."""
        return self._write("POST", f"/sessions/{_part(session_id)}/fork", Session, body)

    def state(self, session_id: str, *, revision: int | None = None) -> State:
        """A session's state, by default the newest."""
        query = {} if revision is None else {"revision": str(revision)}
        return _state(self._send("GET", f"/sessions/{_part(session_id)}/state", params=query))

    def patch_state(self, session_id: str, patch: dict[str, Any] | list[Any], *, expected: int | None = None) -> State:
        """Change a state by a merge patch (an object) or a JSON patch (a list), of the revision that is expected."""
        headers = {"Content-Type": JSON_PATCH if isinstance(patch, list) else MERGE_PATCH}
        if expected is not None:
            headers["If-Match"] = f'"{expected}"'
        path = f"/sessions/{_part(session_id)}/state"
        return _state(self._send("PATCH", path, json=patch, headers=headers))

    def restore_state(self, session_id: str, revision: int) -> State:
        """Go back to an earlier state, as a new revision."""
        content = _encoded(RestoreState(revision=revision))
        path = f"/sessions/{_part(session_id)}/state/restore"
        return _state(self._send("POST", path, content=content, headers={"Content-Type": JSON}))

    def revisions(self, session_id: str, *, at_most: int | None = None) -> Iterator[Revision]:
        """The changes of a session's state, the first one first."""
        return self._list(f"/sessions/{_part(session_id)}/state/revisions", Revision, {}, at_most=at_most)

    def create_webhook(self, body: CreateWebhook) -> WebhookWithSecret:
        """Make a webhook; its secret is shown this once."""
        return self._write("POST", "/webhooks", WebhookWithSecret, body)

    def webhook(self, webhook_id: str) -> Webhook:
        """One webhook."""
        return Webhook.model_validate(self._get(f"/webhooks/{_part(webhook_id)}"))

    def webhooks(self, *, at_most: int | None = None, **filters: str | None) -> Iterator[Webhook]:
        """Webhooks, newest first; the filter is user_id."""
        return self._list("/webhooks", Webhook, filters, at_most=at_most)

    def update_webhook(self, webhook_id: str, body: UpdateWebhook) -> Webhook:
        """Change a webhook."""
        return self._write("PATCH", f"/webhooks/{_part(webhook_id)}", Webhook, body)

    def rotate_webhook(self, webhook_id: str, body: RotateSecret) -> WebhookWithSecret:
        """Give a webhook another secret, which is shown this once."""
        return self._write("POST", f"/webhooks/{_part(webhook_id)}/rotate", WebhookWithSecret, body)

    def webhook_secret(self) -> WebhookSecret:
        """What the webhooks of runs are signed by that bring no secret."""
        return WebhookSecret.model_validate(self._get("/webhooks/secret"))

    def delete_webhook(self, webhook_id: str) -> None:
        """Remove a webhook."""
        self._delete(f"/webhooks/{_part(webhook_id)}")

    def deliveries(
        self,
        *,
        webhook_id: str | None = None,
        run_id: str | None = None,
        at_most: int | None = None,
        **filters: str | None,
    ) -> Iterator[Delivery]:
        """What was sent to a webhook, or of a run, newest first; the filter is status."""
        of = f"/runs/{_part(run_id)}" if run_id is not None else f"/webhooks/{_part(webhook_id or '')}"
        return self._list(f"{of}/deliveries", Delivery, filters, at_most=at_most)

    def redeliver(self, delivery_id: str) -> Delivery:
        """Have something sent once more."""
        return Delivery.model_validate(json_of(self._send("POST", f"/deliveries/{_part(delivery_id)}/redeliver")))

    def create_schedule(self, body: CreateSchedule) -> Schedule:
        """Have a workflow started at certain times."""
        return self._write("POST", "/schedules", Schedule, body)

    def schedules(self, *, at_most: int | None = None, **filters: str | None) -> Iterator[Schedule]:
        """Schedules, newest first; `filters` are name, workflow and user_id."""
        return self._list("/schedules", Schedule, filters, at_most=at_most)

    def pause_schedule(self, schedule_id: str) -> Schedule:
        """Start nothing until it is resumed."""
        return Schedule.model_validate(json_of(self._send("POST", f"/schedules/{_part(schedule_id)}/pause")))

    def resume_schedule(self, schedule_id: str) -> Schedule:
        """Go on."""
        return Schedule.model_validate(json_of(self._send("POST", f"/schedules/{_part(schedule_id)}/resume")))

    def run_schedule(self, schedule_id: str) -> Run:
        """Start a run of it now."""
        return Run.model_validate(json_of(self._send("POST", f"/schedules/{_part(schedule_id)}/run")))

    def delete_schedule(self, schedule_id: str) -> None:
        """Remove a schedule."""
        self._delete(f"/schedules/{_part(schedule_id)}")

    def _delete(self, path: str) -> None:
        answer = self._send("DELETE", path)
        if not answer.is_success:
            raise problem_of(answer)

    def create_key(self, body: CreateKey) -> NewKey:
        """Make an API key; the answer alone has it."""
        return self._write("POST", "/keys", NewKey, body)

    def keys(self, *, at_most: int | None = None, tenant: str | None = None) -> Iterator[Key]:
        """API keys, newest first."""
        return self._list("/keys", Key, {"tenant": tenant}, at_most=at_most)

    def revoke_key(self, key_id: str) -> None:
        """Have an API key open nothing any more."""
        self._delete(f"/keys/{_part(key_id)}")

    def rotate_key(self, key_id: str, *, overlap_seconds: int) -> NewKey:
        """Make the successor of an API key, which ends after the overlap."""
        return self._write("POST", f"/keys/{_part(key_id)}/rotate", NewKey, RotateKey(overlap_seconds=overlap_seconds))

    def _get(self, path: str) -> Any:
        return json_of(self._send("GET", path))

    def _write(self, method: str, path: str, kind: type[ResourceType], body: Body) -> ResourceType:
        answer = self._send(method, path, content=_encoded(body), headers={"Content-Type": JSON})
        return kind.model_validate(json_of(answer))

    def _list(
        self, path: str, kind: type[ResourceType], filters: Mapping[str, str | None], *, at_most: int | None
    ) -> Iterator[ResourceType]:
        query = {name: value for name, value in filters.items() if value is not None}
        left = at_most
        while left is None or left > 0:
            query["limit"] = str(LARGEST_PAGE if left is None else min(left, LARGEST_PAGE))
            page = Page[kind].model_validate(json_of(self._send("GET", path, params=query, headers={"Accept": JSON})))  # type: ignore[valid-type]
            yield from page.items
            if page.next_cursor is None:
                return
            query["cursor"] = page.next_cursor
            left = None if left is None else left - len(page.items)

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ServerUnreachable(self.url, _reason(error), contacted=False) from None
        except httpx.RequestError as error:
            raise ServerUnreachable(self.url, _reason(error), contacted=True) from None


def _state(answer: httpx.Response) -> State:
    document = json_of(answer)
    return State(revision=int(answer.headers["ETag"].strip('"')), document=document)


def _encoded(body: Body) -> bytes:
    return body.model_dump_json(exclude_unset=True).encode()


def _part(name: str) -> str:
    """A name as one part of a path."""
    return quote(name, safe="")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
