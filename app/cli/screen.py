"""Where the view of a run prints: text that grows, whole lines, and at the bottom of a terminal what goes on now."""

import sys
import time
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from app.cli.lines import Line, Progress
from app.cli.output import console, duration, print_document, printable

REFRESHES_PER_SECOND = 8
BAR_WIDTH = 30


class Screen:
    """Text goes to standard output; lines go there too at a terminal, else to standard error."""

    def __init__(self) -> None:
        self._out = console()
        self._notes = self._out if self._out.is_terminal else console(stderr=True)
        self._together = self._out is self._notes
        self._now = _Now()
        self._live: Live | None = None
        self._line = ""
        """The text after its last line's end. At a terminal it is part of the bottom until it is whole."""

    def open(self) -> None:
        """Show the bottom, where there is a terminal."""
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

    def close(self) -> None:
        """End the text's line and take the bottom away."""
        self._end_line()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """Go on with the text."""
        self._now.characters += len(text)
        if not self._together:
            sys.stdout.write(text)
            sys.stdout.flush()
            self._line = (self._line + text).rpartition("\n")[2]
            return
        *whole, self._line = (self._line + printable(text)).split("\n")
        width = self._out.width
        while len(self._line) > 2 * width:  # words that no longer move are printed for good
            end = self._line.rfind(" ", 0, width) + 1 or width
            whole.append(self._line[:end])
            self._line = self._line[end:]
        if whole:
            self._out.print(Text("\n".join(whole)))
        self._now.line = self._line

    def document(self, value: Any) -> None:
        """Print a JSON document."""
        self._end_line()
        print_document(value, self._out)

    def line(self, line: Line) -> None:
        """Print a line, and change what goes on now."""
        self._end_line()
        if line.now is not None:
            self._now.doing, self._now.progress = line.now, None
        self._notes.print(Text(f"{line.mark} {printable(line.text)}", style=line.style))

    def progress(self, progress: Progress) -> None:
        """Show how far something is."""
        self._now.progress = progress

    def _end_line(self) -> None:
        if not self._line:
            return
        line, self._line, self._now.line = self._line, "", ""
        if self._together:
            self._out.print(Text(line))
        else:
            sys.stdout.write("\n")
            sys.stdout.flush()


class _Now:
    """The bottom: the line of text that is being written, what goes on, how far it is, and for how long."""

    def __init__(self) -> None:
        self.doing = "starting"
        self.line = ""
        self.characters = 0
        self.progress: Progress | None = None
        self._began = time.monotonic()
        self._spinner = Spinner("dots")

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        if self.line:
            yield Text(self.line)
        cells: list[Any] = [self._spinner, Text(printable(self.doing))]
        if self.progress is not None:
            bar = ProgressBar(total=self.progress.total, completed=self.progress.done, width=BAR_WIDTH)
            cells += [Text(self.progress.name), bar, f"{self.progress.done:g}/{self.progress.total:g}"]
        elif self.characters:
            cells.append(f"{self.characters} characters")
        row = Table.grid(padding=(0, 1))
        row.add_row(*cells, Text(duration(time.monotonic() - self._began), style="dim"))
        yield row
