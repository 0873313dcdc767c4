"""The content of a run, gathered from its events as they pass."""

from typing import Any, NamedTuple

from app.workflow.encoding import encode
from app.workflow.response import RunEvent


class RunContent(NamedTuple):
    """A run's content as JSON; None where it has none."""

    encoded: bytes | None
    truncated: bool


class ContentTally:
    """Remembers no more of a run's events than its content may hold.

    The content is that of the last WorkflowCompleted, else the joined text of the RunResponse events, else the last
    content that was not null, else what `run()` returned.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._completed: RunContent | None = None
        self._last: RunContent | None = None
        self._texts: list[str] = []
        self._text_bytes = 0

    def add(self, event: str, content: Any) -> None:
        """Take note of one event of the author's."""
        if content is None:
            return
        if event == RunEvent.workflow_completed:
            self._completed = self._cut(content)
        elif event == RunEvent.run_response and isinstance(content, str):
            if self._text_bytes <= self._max_bytes:
                self._texts.append(content)
                self._text_bytes += len(content.encode(errors="replace"))
        else:
            self._last = self._cut(content)

    def result(self, returned: Any = None) -> RunContent:
        """The content, once `run()` has ended and returned something or None."""
        if self._completed is not None:
            return self._completed
        if self._texts:
            return self._cut("".join(self._texts))
        if self._last is not None:
            return self._last
        return RunContent(None, False) if returned is None else self._cut(returned)

    def _cut(self, content: Any) -> RunContent:
        encoded = encode(content)
        if len(encoded) <= self._max_bytes:
            return RunContent(encoded, False)
        text = content if isinstance(content, str) else encoded.decode()
        whole = text.encode(errors="replace")
        if len(whole) <= self._max_bytes:
            return RunContent(encoded, False)
        return RunContent(encode(whole[: self._max_bytes].decode(errors="ignore")), True)
