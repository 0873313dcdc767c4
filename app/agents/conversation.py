"""Asking a question by pydantic-ai; `app.agents.questions` loads this module when the first one is asked."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from pydantic import TypeAdapter
from pydantic_ai import Agent
from pydantic_ai.exceptions import AgentRunError, UserError
from pydantic_ai.messages import AgentStreamEvent, PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta
from pydantic_ai.run import AgentRunResultEvent
from pydantic_ai.settings import ModelSettings

from app.agents.connection import open_model
from app.agents.failures import failed
from app.agents.questions import Question
from app.correlation import TRACER

PIECES_AHEAD = 64
"""Pieces that the model may be ahead of who reads them; past it the connection to the model is not read."""

logger = logging.getLogger(__name__)


async def answer(question: Question) -> Any:
    """The model's answer as JSON. Raises ModelFailed; what an author's tool raises passes through."""
    async with _agent(question) as agent:
        result = await agent.run(question.prompt, model_settings=_settings(question))
    return _as_json(question, result.output)


async def stream(question: Question) -> AsyncGenerator[Any, None]:
    """The answer in pieces.

    The conversation has a task of its own: libraries below tie what they open to the task that opened it, and a
    generator is continued by whichever task asks for its next piece.
    """
    send, receive = anyio.create_memory_object_stream[Any](PIECES_AHEAD)
    task = asyncio.create_task(_speak(question, send), name=f"stream of {question.agent}")
    try:
        async with receive:
            async for piece in receive:
                yield piece
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _speak(question: Question, send: MemoryObjectSendStream[Any]) -> None:
    async with send:
        if question.response_model is not None:
            await send.send(await answer(question))
            return
        spoken = False
        async with _agent(question) as agent, _events(agent, question) as events:
            async for event in events:
                if text := _text(event, spoken=spoken):
                    spoken = True
                    await send.send(text)


def _events(agent: Agent[object, Any], question: Question) -> AbstractAsyncContextManager[AsyncIterator[Any]]:
    return agent.run_stream_events(question.prompt, model_settings=_settings(question))


def _text(event: AgentStreamEvent | AgentRunResultEvent[Any], *, spoken: bool) -> str:
    """What the event adds to the text; a new part, such as after a tool's call, begins a paragraph."""
    if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
        return ("\n\n" if spoken else "") + event.part.content
    if isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
        return event.delta.content_delta
    if isinstance(event, AgentRunResultEvent) and not spoken:
        return str(event.result.output)
    return ""


@asynccontextmanager
async def _agent(question: Question) -> AsyncIterator[Agent[object, Any]]:
    """The agent with its model open; pydantic-ai's errors inside become ModelFailed."""
    try:
        async with open_model(question) as model:
            agent: Agent[object, Any] = Agent(
                model,
                name=question.agent,
                instructions=list(question.instructions),
                tools=[] if question.choice.small else list(question.tools),
                output_type=str if question.response_model is None else question.response_model,
                retries=question.retries,
            )
            if (tracer := TRACER.get()) is not None:
                agent.instrument = tracer.instrumentation()
            yield agent
    except (AgentRunError, UserError) as error:
        raise failed(error, question) from None


def _settings(question: Question) -> ModelSettings:
    """Retries are ours (RetryingModel), so that every provider's requests are retried alike; and at most so often."""
    return ModelSettings(timeout=question.timeout_seconds, max_retries=0)


def _as_json(question: Question, output: Any) -> Any:
    if question.response_model is None:
        return output
    adapter: TypeAdapter[Any] = TypeAdapter(question.response_model)
    return adapter.dump_python(output, mode="json", by_alias=True, round_trip=True)
