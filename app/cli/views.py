"""What one sees of a run that is followed: lines of JSON for programs; steps, live text and progress for people."""

import sys
import time
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from app.cli.output import compact, console, duration, print_document, printable
from app.client.following import ReceivedEvent

REFRESHES_PER_SECOND = 8
BAR_WIDTH = 30
SHOWN_CHARACTERS = 150
"""Of an event that is neither text nor the server's own."""
STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow"}
MARKS = {"completed": "✓", "failed": "✗", "cancelled": "■"}


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
    """Text as the model writes it, a line for everything else, and below them what goes on now.

    The text goes to standard output and all else, where the two differ, to standard error: `--follow > post.md` keeps the
    text and still shows the steps.
    """

    def __init__(self) -> None:
        self._out = console()
        self._notes = self._out if self._out.is_terminal else console(stderr=True)
        self._now = _Now()
        self._live: Live | None = None
        self._line = ""
        """Text without its line's end, which a terminal shows as part of what goes on."""
        self._said = ""
        self._first_at: datetime | None = None

    def __enter__(self) -> Self:
        if self._notes.is_terminal:
            self._live = Live(
                self._now,
                console=self._notes,
                refresh_per_second=REFRESHES_PER_SECOND,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end_line()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, event: ReceivedEvent) -> None:
        """Show one event."""
        members = event.members
        self._first_at = self._first_at or datetime.fromisoformat(members["created_at"])
        shown = getattr(self, f"_on_{event.name}", None) if event.name in SERVER_EVENTS else self._on_author
        if shown is not None:
            shown(members)

    def lost(self, reason: str) -> None:
        """Say that the connection is lost."""
        self._note("…", f"connecting again: {reason}", "yellow")

    def _on_RunQueued(self, members: dict[str, Any]) -> None:
        self._now.doing = "waiting"
        self._note("…", f"waits for its session, place {members['position']} in the queue")

    def _on_WorkflowStarted(self, members: dict[str, Any]) -> None:
        attempt = members["attempt"]
        self._now.doing = "running"
        again = f", attempt {attempt}" if attempt > 1 else ""
        self._note("▶", f"{members['workflow']}{again} in session {members['session_id']}", "bold")

    def _on_StepStarted(self, members: dict[str, Any]) -> None:
        self._now.doing = members["name"]
        self._note("→", f"step {members['name']}", "cyan")

    def _on_StepCompleted(self, members: dict[str, Any]) -> None:
        self._now.doing, self._now.progress = "running", None
        self._note("✓", f"step {members['name']}, {duration(members['seconds'])}", "cyan")

    def _on_StateSaved(self, members: dict[str, Any]) -> None:
        conflicts = f"; won over another writer at {' '.join(members['conflicts'])}" if members["conflicts"] else ""
        self._note("·", f"state saved as revision {members['revision']}{conflicts}", "dim")

    def _on_RunPaused(self, members: dict[str, Any]) -> None:
        self._now.doing = "waiting for input"
        self._note("?", f"waits for input {members.get('request_id')}: {members.get('prompt')}", "yellow")

    def _on_RunContinued(self, _members: dict[str, Any]) -> None:
        self._now.doing = "running"
        self._note("▶", "goes on")

    def _on_RunRecovered(self, members: dict[str, Any]) -> None:
        said = f"goes on after an interruption, attempt {members.get('attempt')}"
        self._note(
            "↻", f"{said}; what follows replaces what came after event {members.get('superseded_after')}", "yellow"
        )
        self._said = ""

    def _on_RunFinished(self, members: dict[str, Any]) -> None:
        self._show_result(members.get("content"))
        if members.get("content_truncated"):
            self._note("·", "the content is cut here; the events have all of it", "yellow")
        status, error = members["status"], members.get("error")
        self._note(MARKS[status], f"{status} in {self._elapsed(members)}", STYLES[status])
        if error:
            step = f" (step {error['step']})" if error.get("step") else ""
            self._note(" ", f"{error['code']}: {error['type']}: {error['message']}{step}", "red")
        self._note(" ", f"session {members['session_id']}, revision {members['session_revision']}", "dim")

    def _on_author(self, members: dict[str, Any]) -> None:
        """An author's event: text is said, progress moves the bar, everything else is a line."""
        name, content = members["event"], members.get("content")
        if name == "RunResponse" and isinstance(content, str):
            self._say(content)
        elif name == "WorkflowCompleted":
            self._note("·", name, "dim")
            self._show_result(content)
        else:
            self._now.progress = _progress(name, content) or self._now.progress
            self._note("·", " ".join(part for part in (name, _summary(content)) if part), "dim")

    def _show_result(self, content: Any) -> None:
        """The content, if it has not been said already."""
        if isinstance(content, str):
            if content.strip() != self._said.strip():
                self._end_line()
                self._said = ""
                self._say(content)
            self._end_line()
        elif content is not None and compact(content) != self._said:
            self._end_line()
            self._said = compact(content)
            print_document(content)

    def _say(self, text: str) -> None:
        self._said += text
        self._now.characters += len(text)
        if self._out is not self._notes:
            sys.stdout.write(text)
            sys.stdout.flush()
            self._line = (self._line + text).rpartition("\n")[2]
            return
        *whole, self._line = (self._line + printable(text)).split("\n")
        for line in whole:
            self._out.print(Text(line))
        self._wrap()

    def _wrap(self) -> None:
        """What does not fit into one line of the terminal is printed for good: only its last line may still change."""
        if len(self._line) > 2 * self._out.width:
            *full, self._line = Text(self._line).wrap(self._out, self._out.width)  # type: ignore[assignment]
            for line in full:
                line.rstrip()
                self._out.print(line)
            self._line = str(self._line)
        self._now.line = self._line

    def _end_line(self) -> None:
        """End the text's line, so that something else can follow."""
        if self._line:
            line, self._line = self._line, ""
            self._now.line = ""
            if self._out is self._notes:
                self._out.print(Text(line))
            else:
                sys.stdout.write("\n")
                sys.stdout.flush()

    def _note(self, mark: str, text: str, style: str = "") -> None:
        self._end_line()
        line = Text(f"{mark} {printable(text)}", style=style)
        self._notes.print(line, soft_wrap=not self._notes.is_terminal)

    def _elapsed(self, members: dict[str, Any]) -> str:
        assert self._first_at is not None
        return duration((datetime.fromisoformat(members["created_at"]) - self._first_at).total_seconds())


class _Now:
    """The lines at the bottom: the text that is being written, what goes on, how far it is, and for how long."""

    def __init__(self) -> None:
        self.doing = "starting"
        self.line = ""
        self.characters = 0
        self.progress: tuple[str, float, float] | None = None
        self._began = time.monotonic()
        self._spinner = Spinner("dots")

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        if self.line:
            yield Text(self.line)
        row = Table.grid(padding=(0, 1))
        cells: list[Any] = [self._spinner, Text(printable(self.doing))]
        if self.progress is not None:
            name, done, total = self.progress
            cells += [Text(name), ProgressBar(total=total, completed=done, width=BAR_WIDTH), f"{done:g}/{total:g}"]
        elif self.characters:
            cells.append(f"{self.characters} characters")
        row.add_row(*cells, Text(duration(time.monotonic() - self._began), style="dim"))
        yield row


SERVER_EVENTS = frozenset(name.removeprefix("_on_") for name in vars(TerminalView) if name.startswith("_on_")) - {
    "author"
}


def _progress(name: str, content: Any) -> tuple[str, float, float] | None:
    """How far something is, where an event says `done` and `total`."""
    if not isinstance(content, dict):
        return None
    done, total = content.get("done"), content.get("total")
    if isinstance(done, int | float) and isinstance(total, int | float) and total > 0:
        return name, min(done, total), total
    return None


def _summary(content: Any) -> str:
    """A content on one short line."""
    if isinstance(content, dict):
        parts = {name: value for name, value in content.items() if name not in {"done", "total"}}
        counted = f"{content['done']}/{content['total']} " if {"done", "total"} <= content.keys() else ""
        text = counted + " ".join(f"{name}={compact(value)}" for name, value in parts.items())
    else:
        text = "" if content is None else compact(content)
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
