"""Models that fail: on a real server at a base URL, and as an author's own model object."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from pydantic import BaseModel
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from app import Agent
from app.agents.errors import ModelFailed

from .conftest import KEY, Answer, ModelServer

pytestmark = pytest.mark.usefixtures("short_waits")


def _ask(agent: Agent, *, stream: bool) -> str:
    if not stream:
        return str(agent.run("bread").content)
    return "".join(response.content for response in agent.run("bread", stream=True))


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_at_a_base_url_answers(model_server: ModelServer, stream: bool) -> None:
    agent = Agent(model="llama3:8b", instructions="Be brief.")
    assert _ask(agent, stream=stream) == "Bread is good."
    assert model_server.requests[0]["model"] == "llama3:8b"
    assert model_server.requests[0]["messages"][0]["content"] == "Be brief."
    assert model_server.keys == [f"Bearer {KEY}"]


def test_without_a_name_the_servers_first_model_is_taken(model_server: ModelServer) -> None:
    assert _ask(Agent(), stream=False) == "Bread is good."
    assert model_server.requests[0]["model"] == "baker-1"


def test_a_server_without_models_asks_for_a_name(model_server: ModelServer) -> None:
    model_server.models = []
    with pytest.raises(ModelFailed, match="MILLSTREAM_MODEL") as raised:
        Agent().run("bread")
    assert raised.value.problem_code == "no_model"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_failure_that_passes_is_retried(model_server: ModelServer, status: int, stream: bool) -> None:
    model_server.answers.extend([Answer(status, {"error": {"message": "busy"}})] * 2)
    assert _ask(Agent(model="m", retries=2), stream=stream) == "Bread is good."
    assert len(model_server.requests) == 3


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_that_stays_is_one_readable_error(model_server: ModelServer, stream: bool) -> None:
    model_server.answers.extend([Answer(500, {"error": {"message": "the oven is cold"}})] * 9)
    with pytest.raises(ModelFailed) as raised:
        _ask(Agent(model="m", retries=1), stream=stream)
    assert raised.value.message == (
        f"the model 'm' at {model_server.base_url} answered 500 (the oven is cold) (tried 2 times); "
        "try again later, or look into the server's log"
    )
    assert raised.value.problem_code == "model_failed"
    assert raised.value.__suppress_context__
    assert len(model_server.requests) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_request_that_is_wrong_is_not_retried(model_server: ModelServer, status: int) -> None:
    model_server.answers.append(Answer(status, {"error": {"message": "no"}}))
    with pytest.raises(ModelFailed, match=f"answered {status}"):
        _ask(Agent(model="m"), stream=False)
    assert len(model_server.requests) == 1


def test_no_key_is_in_the_message(model_server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_OTHER_TOKEN", "another-secret-value")
    monkeypatch.setenv("MILLSTREAM_MODEL_BASE_URL", model_server.base_url.replace("://", "://user:passw0rd@"))
    said = f"Incorrect API key {KEY}, not Bearer abc.def nor sk-proj-12345678 nor another-secret-value"
    model_server.answers.append(Answer(401, {"error": {"message": said}}))
    with pytest.raises(ModelFailed) as raised:
        _ask(Agent(model="m"), stream=False)
    for secret in (KEY, "abc.def", "sk-proj", "12345678", "another-secret", "passw0rd"):
        assert secret not in raised.value.message
    assert "MILLSTREAM_MODEL_API_KEY" in raised.value.message


def test_a_pause_that_the_server_asks_for_is_kept(model_server: ModelServer) -> None:
    model_server.answers.append(Answer(429, {"error": {"message": "slow down"}}, {"Retry-After": "1"}))
    started = time.monotonic()
    _ask(Agent(model="m"), stream=False)
    assert time.monotonic() - started >= 1


def test_a_pause_that_is_too_long_fails_the_run_at_once(model_server: ModelServer) -> None:
    model_server.answers.append(Answer(429, {"error": {"message": "come back tomorrow"}}, {"Retry-After": "86400"}))
    with pytest.raises(ModelFailed, match="come back tomorrow"):
        _ask(Agent(model="m"), stream=False)
    assert len(model_server.requests) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_is_silent_is_asked_again_and_then_given_up(model_server: ModelServer, stream: bool) -> None:
    model_server.answers.extend([Answer(delay_seconds=0.6)] * 2)
    with pytest.raises(ModelFailed, match=r"did not answer in time.*timeout_seconds"):
        _ask(Agent(model="m", retries=1, timeout_seconds=0.2), stream=stream)
    assert len(model_server.requests) == 2


def test_a_stream_that_breaks_after_its_first_piece_is_not_begun_again(model_server: ModelServer) -> None:
    model_server.answers.append(Answer(broken=True))
    pieces = Agent(model="m", retries=3).run("bread", stream=True)
    assert next(pieces).content == "Bread "
    with pytest.raises(ModelFailed, match=r"the model 'm' at .* cannot be reached"):
        list(pieces)
    assert len(model_server.requests) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_nobody_at_the_address(monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    monkeypatch.setenv("MILLSTREAM_MODEL_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(ModelFailed, match=r"'m' at http://127\.0\.0\.1:9/v1 cannot be reached .*tried 3 times"):
        _ask(Agent(model="m"), stream=stream)
    with pytest.raises(ModelFailed, match=r"http://127\.0\.0\.1:9/v1 .*list of models"):
        _ask(Agent(), stream=stream)


def test_tools_are_not_called_again_when_a_request_is_retried() -> None:
    called, requests = 0, 0

    def bake() -> str:
        """Bakes once."""
        nonlocal called
        called += 1
        return "done"

    async def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        nonlocal requests
        requests += 1
        if requests == 2:
            raise ModelHTTPError(503, "m")
        if len(messages) == 1:
            return ModelResponse(parts=[ToolCallPart(info.function_tools[0].name, {})])
        return ModelResponse(parts=[TextPart("baked")])

    assert Agent(model=FunctionModel(model), tools=[bake]).run("x").content == "baked"
    assert (called, requests) == (1, 3)


def test_a_model_without_a_client_is_bounded_too() -> None:
    async def model(_: list[ModelMessage], __: AgentInfo) -> ModelResponse:
        await asyncio.sleep(30)
        raise AssertionError

    with pytest.raises(ModelFailed, match="did not answer in time"):
        Agent(model=FunctionModel(model), timeout_seconds=0.05, retries=0).run("x")


def test_an_answer_of_the_wrong_shape_names_the_remedy() -> None:
    class Loaf(BaseModel):
        """What no text is."""

        weight: int

    async def model(_: list[ModelMessage], __: AgentInfo) -> ModelResponse:
        return ModelResponse(parts=[TextPart("no loaf")])

    with pytest.raises(ModelFailed, match=r"gave no usable answer.*response model"):
        Agent(model=FunctionModel(model), response_model=Loaf, retries=1).run("x")


def test_a_failure_reaches_the_reader_after_the_pieces_before_it() -> None:
    async def model(_: list[ModelMessage], __: AgentInfo) -> AsyncIterator[str]:
        yield "Bread "
        raise ModelHTTPError(500, "m", {"message": "burnt"})

    pieces = Agent(model=FunctionModel(stream_function=model), retries=5).run("x", stream=True)
    assert next(pieces).content == "Bread "
    with pytest.raises(ModelFailed, match="burnt"):
        next(pieces)
