"""The seam between a workflow and whoever executes it: what an author's code may ask for while it runs."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from app.workflow.workflow import Workflow


@dataclass(frozen=True, slots=True)
class StepCall:
    """One call of `step()`: a function whose result is remembered.

    `backoff_seconds` is the wait before the first retry and doubles with each; `timeout_seconds` bounds one try.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    name: str
    retries: int = 0
    backoff_seconds: float = 1.0
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class StreamCall:
    """A step that says its result piece by piece: `start()` begins the stream, its pieces are JSON values."""

    start: Callable[[], AsyncIterator[Any]]
    name: str
    arguments: tuple[Any, ...] = ()
    """What the stream is of; tells concurrent streams of one name apart."""


@dataclass(frozen=True, slots=True)
class InputRequest:
    """A question to whoever follows the run; `schema` is the JSON Schema of the answer, `read` makes it a value."""

    prompt: str
    schema: dict[str, Any] | None
    read: Callable[[Any], Any]
    timeout_seconds: float | None = None


class Runtime(Protocol):
    """One run's executor as its workflow sees it.

    Where `asynchronous` is true, the methods return awaitables (`stream` an async iterator) and must be called on the
    event loop; otherwise they block, and must be called in the run's own thread.
    """

    asynchronous: bool

    def step(self, call: StepCall) -> Any:
        """The result of the function, or of an earlier attempt's call of it, as JSON holds it."""

    def stream(self, call: StreamCall) -> Any:
        """The pieces of the stream as they come, or those of an earlier attempt's."""

    def save(self) -> Any:
        """Make the session state durable as it is now."""

    def wait_for_input(self, request: InputRequest) -> Any:
        """The answer; the run pauses until it is there. Raises TimeoutError when none came in time."""


class PerRun:
    """Base of class attributes of a workflow that may not be shared between runs, such as agents."""

    def copy_for(self, workflow: "Workflow") -> Self:
        """The run's own copy; `workflow` is the instance that it will be an attribute of."""
        raise NotImplementedError
