"""A pydantic-ai model for each kind of choice, opened for one question and closed after it.

Nothing is kept between questions: a connection belongs to the event loop that opened it, and a script has many.
"""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
from openai import AsyncOpenAI, OpenAIError
from pydantic_ai.exceptions import AgentRunError, ModelAPIError, ModelRequestTimeout, UserError
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse, create_async_httpx2_client, infer_model
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import RunContext

from app.agents.errors import NoModel
from app.agents.failures import may_pass
from app.agents.local import Endpoint, local_server
from app.agents.models import ModelKind
from app.agents.questions import Question

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
"""A server that asks for a longer pause than this is not waited for: the run fails and says so."""
CONNECT_SECONDS = 5.0

LOCAL_MAX_TOKENS = 400
"""Some 300 words: past them a model of 135M parameters repeats itself."""
LOCAL_TEMPERATURE = 0.3
LOCAL_REPEAT_PENALTY = 1.1

logger = logging.getLogger(__name__)


@asynccontextmanager
async def open_model(question: Question) -> AsyncIterator[Model]:
    """The model that the question is for, retried as the question wants. Raises NoModel and pydantic-ai's errors."""
    async with AsyncExitStack() as stack:
        model = await _make(question, stack)
        await stack.enter_async_context(model)
        yield RetryingModel(model, retries=question.retries, timeout_seconds=question.timeout_seconds)


class RetryingModel(WrapperModel):
    """Sends a request again after a failure that may pass; of a streamed answer only before its first piece.

    Requests are retried, not whole conversations, so that no tool is called twice for one failure.
    """

    def __init__(self, wrapped: Model, *, retries: int, timeout_seconds: float) -> None:
        super().__init__(wrapped)
        self._retries = retries
        self._timeout_seconds = timeout_seconds

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """The answer to one request."""
        for attempt in itertools.count():
            try:
                async with self._bounded():
                    return await self.wrapped.request(messages, model_settings, model_request_parameters)
            except ModelAPIError as error:
                await self._wait_or_raise(error, attempt)
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncIterator[StreamedResponse]:
        """The answer to one request as it is written."""
        async with AsyncExitStack() as stack:
            for attempt in itertools.count():
                opening = self.wrapped.request_stream(messages, model_settings, model_request_parameters, run_context)
                try:
                    async with self._bounded():
                        response = await stack.enter_async_context(opening)
                    break
                except ModelAPIError as error:
                    await self._wait_or_raise(error, attempt)
            yield response

    @asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        """One try's time, also for models whose client knows no time limit."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                yield
        except TimeoutError:
            raise ModelRequestTimeout(self.model_name, self._timeout_seconds) from None

    async def _wait_or_raise(self, error: ModelAPIError, attempt: int) -> None:
        wait = FIRST_WAIT_SECONDS * 2**attempt if error.retry_after is None else error.retry_after
        if attempt >= self._retries or not may_pass(error) or wait > LONGEST_WAIT_SECONDS:
            raise error
        facts = {"model": self.model_name, "attempt": attempt + 1, "wait_seconds": wait}
        logger.warning("model request failed, trying again", extra=facts)
        await asyncio.sleep(wait)


async def _make(question: Question, stack: AsyncExitStack) -> Model:
    choice = question.choice
    if choice.kind is ModelKind.given:
        return _given(choice.given)
    if choice.kind is ModelKind.test:
        plain = question.response_model is None
        return TestModel(custom_output_text=f"A test answer to: {question.prompt}" if plain else None)
    if choice.kind is ModelKind.named:
        return await asyncio.to_thread(_named, str(choice.name))
    if choice.kind is ModelKind.local:
        return await _local(stack)
    # made in a thread: reading the system's certificates takes 20 ms
    provider = await asyncio.to_thread(
        OpenAICompatibleProvider, "openai-compatible", base_url=str(choice.base_url), api_key=choice.api_key
    )
    await stack.enter_async_context(provider)
    return OpenAIChatModel(choice.name or await _first_model(provider.client, str(choice.base_url)), provider=provider)


def _given(model: Any) -> Model:
    if not isinstance(model, Model):
        kind = type(model).__name__
        raise NoModel(f"the model of an agent is a {kind}; use a name, such as openai:gpt-4o, or a pydantic-ai model")
    return model


def _named(name: str) -> Model:
    try:
        return infer_model(name)
    except (ImportError, UserError, ValueError) as error:
        reason, _, _ = " ".join(str(error).split()).partition(". ")
        raise NoModel(f"the model {name!r} cannot be used: {reason}; a name looks like openai:gpt-4o") from None


async def _local(stack: AsyncExitStack) -> Model:
    server = local_server()
    endpoint: Endpoint = await asyncio.to_thread(server.endpoint)
    # without keep-alive: the server may close an idle connection in the moment in which it is used again
    limits = httpx2.Limits(max_keepalive_connections=0)
    client = create_async_httpx2_client(transport=httpx2.AsyncHTTPTransport(verify=False, limits=limits))
    await stack.enter_async_context(client)
    # the server holds a small model to a JSON schema by a grammar, which it would not follow as a tool's
    profile = OpenAIModelProfile(supports_json_schema_output=True, default_structured_output_mode="native")
    name = ModelKind.local.value
    provider = OpenAICompatibleProvider(name, base_url=endpoint.base_url, api_key=endpoint.key, http_client=client)
    settings = ModelSettings(
        max_tokens=LOCAL_MAX_TOKENS,
        temperature=LOCAL_TEMPERATURE,
        extra_body={"repeat_penalty": LOCAL_REPEAT_PENALTY},
    )
    return OpenAIChatModel(name, provider=provider, profile=profile, settings=settings)


async def _first_model(client: AsyncOpenAI, base_url: str) -> str:
    """The model that the server names first, for operators who give an address alone."""
    try:
        async for model in client.with_options(timeout=CONNECT_SECONDS, max_retries=1).models.list():
            return model.id
    except OpenAIError as error:
        said = " ".join(str(error).split())
        remedy = "see whether a server runs at that address, or name the model in MILLSTREAM_MODEL"
        raise AgentRunError(f"its list of models cannot be read ({said}); {remedy}") from None
    raise NoModel(f"the server at {base_url} lists no model; name one in MILLSTREAM_MODEL")
