"""What an agent asks a model, as the step of a run sees it; the model libraries are loaded when the first is asked."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from app.agents.models import ModelChoice


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt to one model.

    `retries` is how often a request is sent again after a failure that may pass; `timeout_seconds` bounds one request,
    of a streamed answer the wait for each piece.
    """

    agent: str
    prompt: str
    choice: ModelChoice
    instructions: tuple[str, ...] = ()
    tools: tuple[Callable[..., Any], ...] = ()
    response_model: Any = None
    retries: int = 0
    timeout_seconds: float = 120.0


# Both are functions of the module, not methods: what remembers a step's function must not keep a run alive with it.
async def answer(question: Question) -> Any:
    """The model's answer as JSON: a string, or what the response model makes of its JSON. Raises ModelFailed."""
    conversation = await _conversation()
    return await conversation.answer(question)


async def stream(question: Question) -> AsyncGenerator[Any, None]:
    """The answer in pieces: strings that make up the text, or the one structured value. Raises ModelFailed."""
    conversation = await _conversation()
    async with aclosing(conversation.stream(question)) as pieces:
        async for piece in pieces:
            yield piece


async def _conversation() -> ModuleType:
    """What speaks to models. Importing its libraries takes a second, so it happens beside the event loop."""
    return await asyncio.to_thread(import_module, "app.agents.conversation")
