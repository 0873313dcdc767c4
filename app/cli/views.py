"""What one sees of a run that is followed: JSON for programs; steps, live text and progress for people."""

import sys
from datetime import datetime
from typing import Any, Self

from app.cli.lines import Line, ending, line_of, progress_of
from app.cli.output import compact
from app.cli.screen import Screen
from app.client.following import LAST_EVENT, ReceivedEvent


class JsonView:
    """Each event's payload on a line of its own, as it came."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        sys.stdout.flush()

    def show(self, event: ReceivedEvent) -> None:
        """Print the payload."""
        sys.stdout.write(event.payload + "\n")
        sys.stdout.flush()

    def lost(self, reason: str) -> None:
        """Say it where it is no output."""
        sys.stderr.write(f"millstream: {reason}; connecting again\n")


class TerminalView:
    """Text as the model writes it, and a line for everything else."""

    def __init__(self) -> None:
        self._screen = Screen()
        self._said = ""
        """The text so far, to tell a result that only repeats it."""
        self._first_at: datetime | None = None

    def __enter__(self) -> Self:
        self._screen.open()
        return self

    def __exit__(self, *_error: object) -> None:
        self._screen.close()

    def show(self, event: ReceivedEvent) -> None:
        """Show one event."""
        members = event.members
        at = datetime.fromisoformat(members["created_at"])
        self._first_at = self._first_at or at
        content = members.get("content")
        if event.name == "RunResponse" and isinstance(content, str):
            self._said += content
            self._screen.say(content)
        elif event.name == LAST_EVENT:
            self._show_result(content)
            for line in ending(members, (at - self._first_at).total_seconds()):
                self._screen.line(line)
        elif event.name == "WorkflowCompleted":
            self._screen.line(Line("·", event.name, "dim"))
            self._show_result(content)
        else:
            self._show_line(event)

    def lost(self, reason: str) -> None:
        """Say that the connection is lost."""
        self._screen.line(Line("…", f"{reason}; connecting again", "yellow"))

    def _show_line(self, event: ReceivedEvent) -> None:
        if event.name == "RunRecovered":
            self._said = ""
        self._screen.line(line_of(event.members))
        if (progress := progress_of(event.members)) is not None:
            self._screen.progress(progress)

    def _show_result(self, content: Any) -> None:
        """The content, if it has not been said already."""
        if content is None or compact(content).strip() == self._said.strip():
            return
        self._said = compact(content)
        if isinstance(content, str):
            self._screen.say(content if content.endswith("\n") else f"{content}\n")
        else:
            self._screen.document(content)
