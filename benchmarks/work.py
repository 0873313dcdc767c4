"""The piece of work that every server is given: events of a size, perhaps a wait, and a change of the state."""

from typing import Any

_PADDING = "x" * 1024 * 1024


def text_of(number: int, size: int) -> str:
    """The text of an event, which carries its number; `size` in characters."""
    head = f"#{number:07d} "
    return head + _PADDING[: size - len(head)]


def change(state: dict[str, Any]) -> None:
    """What a run does to the session's state."""
    state["counter"] = state.get("counter", 0) + 1
    state["last"] = {"counter": state["counter"], "by": "benchmark"}
