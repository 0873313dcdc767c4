"""Following a run from a terminal: to its end, or until Ctrl-C."""

import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from app.cli import exits
from app.cli.output import note
from app.client.client import Client
from app.client.errors import ServerUnreachable
from app.client.following import LAST_EVENT, ReceivedEvent

CANCEL_SECONDS = 2.0
"""How long after a Ctrl-C another one cancels the run."""


class View(AbstractContextManager["View"], Protocol):
    """Shows a run's events while its context is open."""

    def show(self, event: ReceivedEvent) -> None:
        """Show one event."""

    def lost(self, reason: str) -> None:
        """Say that the connection is lost and will be made again."""


class Following:
    """One run, one view, and what Ctrl-C does: the first leaves the run alone, a second one soon after cancels it."""

    def __init__(self, client: Client, run_id: str, view: View, *, after: int, comeback: str) -> None:
        """`comeback` is the command that follows the run again."""
        self._client, self._run_id, self._view = client, run_id, view
        self._comeback = comeback
        self._cursor = after
        self._status: str | None = None

    def to_the_end(self) -> int:
        """Show the run's events until its end; the exit code."""
        try:
            self._show()
        except KeyboardInterrupt:
            if not self._is_to_be_cancelled():
                return exits.DETACHED
            self._cancel()
        return exits.of_run(self._status or self._client.run(self._run_id).status)

    def _show(self) -> None:
        events = self._client.follow(self._run_id, after=self._cursor, on_loss=self._view.lost)
        try:
            with self._view:
                for event in events:
                    self._cursor = event.sequence
                    self._view.show(event)
                    if event.name == LAST_EVENT:
                        self._status = event.members["status"]
        except ServerUnreachable as error:
            error.message += f"; the run is on the server's disk, come back with `{self._comeback}`"
            raise

    def _is_to_be_cancelled(self) -> bool:
        note(f"\ndetached: the run goes on; come back with `{self._comeback}`; Ctrl-C again cancels it")
        try:
            time.sleep(CANCEL_SECONDS)
        except KeyboardInterrupt:
            return True
        return False

    def _cancel(self) -> None:
        """Cancel the run and see it end; one more Ctrl-C leaves."""
        with _unhurried():
            note(f"\ncancelling run {self._run_id}")
            self._client.cancel_run(self._run_id)
        self._show()


@contextmanager
def _unhurried() -> Iterator[None]:
    """A Ctrl-C more than needed does not keep the request from being sent."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
