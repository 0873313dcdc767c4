"""The shortest workflow that shows what a session is for."""

from collections.abc import Iterator

from app import RunResponse, Workflow


class Hello(Workflow):
    """Greet somebody, and count the greetings of the session."""

    def run(self, name: str = "world") -> Iterator[RunResponse]:
        """One greeting."""
        count = self.session_state["greetings"] = self.session_state.get("greetings", 0) + 1
        yield RunResponse(content=f"Hello, {name}! Greeting number {count} of this session.")
