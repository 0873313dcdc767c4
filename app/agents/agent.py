"""Agent, which authors give instructions and prompts."""

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from pydantic import TypeAdapter

from app.agents.models import ModelChoice, ModelSettings, choose
from app.agents.questions import Question, answer, stream
from app.workflow.direct import AsyncDirectRuntime, DirectRuntime
from app.workflow.encoding import encode
from app.workflow.response import RunResponse
from app.workflow.runtime import PerRun, Runtime, StepCall, StreamCall

if TYPE_CHECKING:
    from pydantic_ai.models import Model

    from app.workflow.workflow import Workflow

TIMEOUT_SECONDS = 120.0
LOCAL_TIMEOUT_SECONDS = 600.0
"""The local model answers two at a time; the others wait their turn."""


class Agent(PerRun):
    """A model with instructions. Each `run()` is a step: its answer is remembered, and never paid for twice.

    `model` is None (the service's default), `local`, `test`, any pydantic-ai name, a name at the service's base URL, or
    a pydantic-ai model object. `tools` are functions whose signature and docstring the model reads; the local model,
    too small for them, gets none. With a `response_model`, a pydantic class, the content is an instance of it.
    """

    run_response: RunResponse | None = None
    """The whole of the last answer."""

    def __init__(
        self,
        *,
        instructions: str | Sequence[str] = (),
        model: "str | Model[Any] | None" = None,
        tools: Sequence[Callable[..., Any]] = (),
        response_model: Any = None,
        name: str | None = None,
        description: str | None = None,
        expected_output: str | None = None,
        retries: int = 2,
        timeout_seconds: float | None = None,
        **options: Any,
    ) -> None:
        """Nothing is asked or loaded yet.

        `retries` is how often a request is sent again after a failure that may pass: 408, 409, 425, 429, 5xx, no
        connection, or no answer (of a stream: no piece) within `timeout_seconds`. `description` and `expected_output`
        join the instructions. The seed's other options (`markdown`, `debug_mode` …) are taken and have no effect.
        """
        if unknown := options.keys() - _SEED_OPTIONS:
            raise TypeError(f"Agent() got unknown options: {', '.join(sorted(unknown))}")
        for tool in tools:
            if not callable(tool):
                raise TypeError(f"a tool of an agent is a {type(tool).__name__}; tools are plain functions")
        self.instructions = (instructions,) if isinstance(instructions, str) else tuple(instructions)
        self.model = model
        self.tools = tuple(tools)
        self.response_model = response_model
        self.name = name
        self.description = description
        self.expected_output = expected_output
        self.retries = retries
        self.timeout_seconds = timeout_seconds
        self._workflow: Workflow | None = None

    def copy_for(self, workflow: "Workflow") -> Self:
        """The run's own copy, named after the attribute that it is."""
        own = copy.copy(self)
        own._workflow = workflow
        own.run_response = None
        for owner in type(workflow).__mro__:
            own.name = next((name for name, value in vars(owner).items() if value is self), own.name)
        return own

    @property
    def small(self) -> bool:
        """Whether the model that would answer now follows short and simple prompts only. Raises NoModel."""
        return self._choice().small

    def run(self, prompt: Any, *, stream: bool = False) -> Any:
        """The answer as a RunResponse, which `run_response` is from then on.

        With `stream=True` an iterator of RunResponses, one for each piece; `run_response` is whole when it ends. In
        async code it is to be awaited, or iterated by `async for`. A prompt that is no string goes out as JSON.
        Raises ModelFailed, when the model fails as often as `retries` allow.
        """
        runtime, question = self._runtime(), self._question(prompt)
        if stream:
            call = StreamCall(start=partial(_start, question), name=question.agent, arguments=(prompt,))
            pieces = runtime.stream(call)
            return self._each_async(pieces) if runtime.asynchronous else self._each(pieces)
        result = runtime.step(StepCall(function=answer, arguments=(question,), name=question.agent))
        return self._awaited(result) if runtime.asynchronous else self._whole(result)

    def _each(self, pieces: Iterator[Any]) -> Iterator[RunResponse]:
        said: list[Any] = []
        for piece in pieces:
            said.append(piece)
            yield RunResponse(content=self._content(piece))
        self._finish(said)

    async def _each_async(self, pieces: AsyncIterator[Any]) -> AsyncIterator[RunResponse]:
        said: list[Any] = []
        async for piece in pieces:
            said.append(piece)
            yield RunResponse(content=self._content(piece))
        self._finish(said)

    async def _awaited(self, result: Awaitable[Any]) -> RunResponse:
        return self._whole(await result)

    def _finish(self, said: list[Any]) -> None:
        self._whole("".join(said) if self.response_model is None else said[-1])

    def _whole(self, answer: Any) -> RunResponse:
        self.run_response = RunResponse(content=self._content(answer))
        return self.run_response

    def _content(self, answer: Any) -> Any:
        """The answer as the author gets it, from JSON: the same from the model as from the log."""
        if self.response_model is None:
            return answer
        adapter: TypeAdapter[Any] = TypeAdapter(self.response_model)
        return adapter.validate_json(encode(answer))

    def _question(self, prompt: Any) -> Question:
        choice = self._choice()
        default_seconds = LOCAL_TIMEOUT_SECONDS if choice.small else TIMEOUT_SECONDS
        expected = f"The expected output:\n{self.expected_output}" if self.expected_output else None
        return Question(
            agent=self.name or "agent",
            prompt=prompt if isinstance(prompt, str) else encode(prompt).decode(),
            choice=choice,
            instructions=tuple(part for part in (self.description, *self.instructions, expected) if part),
            tools=self.tools,
            response_model=self.response_model,
            retries=self.retries,
            timeout_seconds=default_seconds if self.timeout_seconds is None else self.timeout_seconds,
        )

    def _choice(self) -> ModelChoice:
        return choose(self.model, ModelSettings.from_environment())

    def _runtime(self) -> Runtime:
        """The run's; for an agent of no workflow one that remembers nothing."""
        if self._workflow is not None:
            return self._workflow.runtime
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return DirectRuntime()
        return AsyncDirectRuntime()


def _start(question: Question) -> AsyncIterator[Any]:
    return stream(question)


# fmt: off
_SEED_OPTIONS = frozenset({
    "add_datetime_to_instructions", "add_history_to_messages", "agent_id", "cache_session", "debug_mode",
    "exponential_backoff", "introduction", "markdown", "memory", "monitoring", "num_history_responses",
    "num_history_runs", "parse_response", "prevent_hallucinations", "prevent_prompt_leakage", "read_chat_history",
    "reasoning", "role", "save_response_to_file", "search_knowledge", "session_id", "session_state",
    "show_tool_calls", "storage", "stream", "stream_intermediate_steps", "structured_outputs", "telemetry",
    "tool_call_limit", "use_json_mode", "user_id",
})
# fmt: on
