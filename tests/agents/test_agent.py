"""What an author sees of an agent."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

from app import Agent, RunResponse, Workflow
from app.errors import Invalid
from app.workflow.runtime import StepCall

from .conftest import Journal


class Person(BaseModel):
    """An answer with a name that JSON spells differently."""

    model_config = ConfigDict(extra="forbid")

    full_name: str = Field(alias="fullName")
    age: int = 0


def test_models_libraries_are_loaded_by_the_first_answer_only() -> None:
    code = (
        "import sys; from app import Agent; from app.workflows import blog_post_generator, email_generator, hello;"
        "Agent(model='openai:gpt-4o'); heavy = {'pydantic_ai', 'openai', 'trafilatura', 'ddgs', 'xllamacpp', 'httpx'};"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")


def test_an_answer_is_a_response_and_remembered() -> None:
    agent = Agent(model="test")
    answer = agent.run("bread")
    assert answer.content == "A test answer to: bread"
    assert agent.run_response is answer


def test_a_streamed_answer_comes_in_pieces_that_make_up_the_whole() -> None:
    agent = Agent(model="test")
    pieces = [response.content for response in agent.run("bread", stream=True)]
    assert len(pieces) > 1
    assert agent.run_response is not None
    assert "".join(pieces) == agent.run_response.content == "A test answer to: bread"


def test_a_prompt_that_is_no_string_goes_out_as_json() -> None:
    assert Agent(model="test").run({"topic": "bread", "n": 1}).content == 'A test answer to: {"topic":"bread","n":1}'


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_model_makes_instances(stream: bool) -> None:
    agent = Agent(model="test", response_model=Person)
    answers = list(agent.run("invent one", stream=True)) if stream else [agent.run("invent one")]
    assert len(answers) == 1
    assert isinstance(answers[0].content, Person)
    assert agent.run_response is not None
    assert agent.run_response.content == answers[0].content


def test_tools_are_called_and_text_about_the_calls_is_kept_apart() -> None:
    called: list[str] = []

    def weather(city: str) -> str:
        """The weather of a city."""
        called.append(city)
        return "sun"

    async def model(messages: list[ModelMessage], _: AgentInfo) -> AsyncIterator[str | dict[int, DeltaToolCall]]:
        if len(messages) == 1:
            yield "Let me see."
            yield {1: DeltaToolCall(name="weather", json_args='{"city": "Basel"}', tool_call_id="1")}
        else:
            yield "Sun "
            yield "it is."

    agent = Agent(model=FunctionModel(stream_function=model), tools=[weather])
    pieces = [response.content for response in agent.run("How is Basel?", stream=True)]
    assert called == ["Basel"]
    assert "".join(pieces) == "Let me see.\n\nSun it is."


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_in_a_tool_is_the_authors(stream: bool) -> None:
    def broken() -> str:
        """Never works."""
        raise KeyError("the author's")

    with pytest.raises(KeyError, match="the author's"):
        list(Agent(model="test", tools=[broken]).run("x", stream=stream))


def test_description_instructions_and_expected_output_reach_the_model() -> None:
    seen: list[str | None] = []

    def model(_: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        seen.append(info.instructions)
        return ModelResponse(parts=[TextPart("ok")])

    Agent(
        model=FunctionModel(model),
        description="You bake.",
        instructions=["Be brief.", "Be kind."],
        expected_output="A loaf",
    ).run("x")
    assert seen[0] is not None
    assert [line for line in seen[0].splitlines() if line] == [
        "You bake.",
        "Be brief.",
        "Be kind.",
        "The expected output:",
        "A loaf",
    ]


def test_the_seeds_options_are_taken_and_others_are_not() -> None:
    Agent(markdown=True, show_tool_calls=True, debug_mode=True)
    with pytest.raises(TypeError, match="modle"):
        Agent(modle="test")
    with pytest.raises(TypeError, match="plain functions"):
        Agent(tools=["search"])  # type: ignore[list-item]


class Writing(Workflow):
    """Two agents, one named after its attribute by default."""

    writer = Agent(model="test", name="ghost")
    person = Agent(model="test", response_model=Person)

    def run(self, topic: str) -> Iterator[RunResponse]:
        """Each kind of call once."""
        yield from self.writer.run(topic, stream=True)
        yield self.writer.run(f"more {topic}")
        yield from self.person.run(topic, stream=True)
        yield self.person.run(topic)


def _bound(runtime: Any) -> Writing:
    workflow = Writing()
    workflow.bind(runtime, run_id="r", session_id="s", user_id=None, input={}, state={})
    return workflow


def test_each_run_has_agents_of_its_own() -> None:
    first, second = Writing(), Writing()
    list(first.run(topic="bread"))
    assert first.writer is not second.writer
    assert first.writer.run_response is not None
    assert second.writer.run_response is None
    assert Writing.writer.run_response is None


def test_a_runs_agent_knows_nothing_of_what_the_classs_was_asked() -> None:
    class Asked(Workflow):
        """One agent."""

        writer = Agent(model="test")

    Asked.writer.run("bread")
    assert Asked.writer.run_response is not None
    assert Asked().writer.run_response is None


def test_each_call_is_a_step_named_after_the_attribute(journal: Journal) -> None:
    list(Writing.run(_bound(journal), topic="bread"))
    assert [name for name, _ in journal.log] == ["writer", "writer", "person", "person"]


def test_a_replay_gives_the_same_responses_from_the_log_alone(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _bound(journal)
    said = list(Writing.run(first, topic="bread"))
    second = _bound(journal.replay())

    def refuse(*_: Any) -> None:
        raise AssertionError("a finished step was executed again")

    monkeypatch.setattr("app.agents.questions.import_module", refuse)
    assert list(Writing.run(second, topic="bread")) == said
    assert second.writer.run_response == first.writer.run_response
    assert isinstance(second.person.run_response and second.person.run_response.content, Person)


def test_the_steps_function_holds_on_to_no_run() -> None:
    calls: list[StepCall] = []

    class Noting(Journal):
        def step(self, call: StepCall) -> Any:
            calls.append(call)
            return super().step(call)

    for _ in range(2):
        list(Writing.run(_bound(Noting()), topic="bread"))
    assert len({call.function for call in calls}) == 1


def test_an_agent_of_no_run_cannot_be_used() -> None:
    with pytest.raises(Invalid, match="not running"):
        Writing().writer.run("x")


class AsyncWriting(Workflow):
    """The same in async code."""

    writer = Agent(model="test")

    async def run(self, topic: str) -> AsyncIterator[RunResponse]:
        """Both kinds of call."""
        async for response in self.writer.run(topic, stream=True):
            yield response
        yield await self.writer.run(topic)


@pytest.mark.anyio
async def test_async_workflows_await_their_agents() -> None:
    workflow = AsyncWriting()
    contents = [response.content async for response in workflow.run(topic="bread")]
    assert "".join(contents[:-1]) == contents[-1] == "A test answer to: bread"
    assert workflow.writer.run_response is not None


@pytest.mark.anyio
async def test_an_agent_without_workflow_is_awaited_where_a_loop_runs() -> None:
    assert (await Agent(model="test").run("bread")).content == "A test answer to: bread"


class Endless:
    """A model that writes until somebody stops listening."""

    def __init__(self) -> None:
        self.closed = False

    async def __call__(self, _: list[ModelMessage], __: AgentInfo) -> AsyncIterator[str]:
        try:
            while True:
                yield "on and on "
        finally:
            self.closed = True


def test_a_reader_that_stops_early_stops_the_model() -> None:
    model = Endless()
    pieces = Agent(model=FunctionModel(stream_function=model)).run("x", stream=True)
    assert next(pieces).content == "on and on "
    pieces.close()
    assert model.closed


def test_a_slow_reader_holds_a_bounded_number_of_pieces() -> None:
    written = 0

    async def model(_: list[ModelMessage], __: AgentInfo) -> AsyncIterator[str]:
        nonlocal written
        while written < 5000:
            written += 1
            yield "x"

    pieces = Agent(model=FunctionModel(stream_function=model)).run("x", stream=True)
    next(pieces)
    assert written < 500
    assert len(list(pieces)) == 4999


def test_a_tool_call_in_a_plain_answer() -> None:
    def model(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        if len(messages) == 1:
            return ModelResponse(parts=[ToolCallPart("double", {"number": 21})])
        return ModelResponse(parts=[TextPart(f"It is {messages[-1].parts[0].content}")])  # type: ignore[union-attr]

    def double(number: int) -> int:
        """Twice the number."""
        return 2 * number

    assert Agent(model=FunctionModel(model), tools=[double]).run("x").content == "It is 42"
