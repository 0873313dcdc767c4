"""What pydantic-ai raises, as one sentence that a person can act on."""

import os
import re
from typing import Any
from urllib.parse import urlsplit

from pydantic_ai.exceptions import (
    AgentRunError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestTimeout,
    ModelServerError,
    ModelTimeoutError,
    ModelUnavailableError,
    UnexpectedModelBehavior,
    UserError,
)

from app.agents.errors import ModelFailed
from app.agents.models import ModelKind
from app.agents.questions import Question

LONGEST_SAYING = 300
"""Characters of what a server said that a message repeats."""
SHORTEST_SECRET = 8

_PASSING = (ModelRateLimitError, ModelUnavailableError, ModelServerError, ModelConnectionError, ModelRequestTimeout)
_SERVER_ERRORS = 500
_PASSING_STATUS = frozenset({408, 409, 425, 429})
_KEY = re.compile(r"(?i)\b(?:bearer\s+\S+|(?:sk|pk|gsk|xai)-[\w*.-]{4,})")
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD")

_REMEDIES: tuple[tuple[type[Exception], str], ...] = (
    (ModelAuthenticationError, "check the key: MILLSTREAM_MODEL_API_KEY for a base URL, else the provider's variable"),
    (ModelNotFoundError, "check the name in MILLSTREAM_MODEL and the address in MILLSTREAM_MODEL_BASE_URL"),
    (ModelQuotaExceededError, "the account has no quota left; add some, or choose another model"),
    (ModelContextWindowExceededError, "give it a shorter prompt, or choose a model with a longer context"),
    (ModelRateLimitError, "wait, or raise the limit at the provider"),
    (ModelRequestTimeout, "raise timeout_seconds of the agent, or see whether the server is overloaded"),
    (ModelTimeoutError, "raise timeout_seconds of the agent, or see whether the server is overloaded"),
    (ModelConnectionError, "see whether a server runs at that address and can be reached from here"),
    (ModelServerError, "try again later, or look into the server's log"),
    (ModelUnavailableError, "try again later"),
    (UnexpectedModelBehavior, "simplify the response model, or choose a larger model"),
)


def may_pass(error: ModelAPIError) -> bool:
    """Whether the same request may succeed when it is sent again."""
    if isinstance(error, ModelQuotaExceededError):
        return False
    if isinstance(error, ModelHTTPError):
        if error.provider_retry_hint is not None:
            return error.provider_retry_hint
        return error.status_code in _PASSING_STATUS or error.status_code >= _SERVER_ERRORS
    return isinstance(error, _PASSING)


def failed(error: AgentRunError | UserError, question: Question) -> ModelFailed:
    """The error that the run fails with."""
    model = _model(error, question)
    retried = bool(question.retries) and isinstance(error, ModelAPIError) and may_pass(error)
    tries = f" (tried {question.retries + 1} times)" if retried else ""
    remedy = next((remedy for kind, remedy in _REMEDIES if isinstance(error, kind)), None)
    message = f"{model} {_saying(error)}{tries}" + (f"; {remedy}" if remedy else "")
    return ModelFailed(_without_secrets(message, question))


def _model(error: Exception, question: Question) -> str:
    choice = question.choice
    name = choice.name or getattr(error, "model_name", None) or getattr(choice.given, "model_name", None)
    model = f"the model {name!r}" if name else "the model"
    address = choice.base_url or getattr(choice.given, "base_url", None)
    if choice.kind is ModelKind.local:
        return "the local model"
    return f"{model} at {_shown(address)}" if isinstance(address, str) else model


def _shown(address: str) -> str:
    """The address without the name, password and query that it may carry."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _saying(error: AgentRunError | UserError) -> str:
    if isinstance(error, ModelRequestTimeout | ModelTimeoutError):
        return "did not answer in time"
    if isinstance(error, ModelHTTPError):
        said = _said(error.body)
        return f"answered {error.status_code}" + (f" ({said})" if said else "")
    if isinstance(error, ModelConnectionError):
        return f"cannot be reached ({_cut(_root(error))})"
    if isinstance(error, UnexpectedModelBehavior):
        return f"gave no usable answer ({_cut(error.message)})"
    return f"failed: {_cut(error.message)}"


def _said(body: Any) -> str:
    """The message in an error body of whichever form."""
    while isinstance(body, dict):
        body = next((body[key] for key in ("error", "message", "detail") if body.get(key)), "")
    return _cut(body) if isinstance(body, str | list) and body else ""


def _root(error: BaseException) -> str:
    """The words of the first cause, which says what the ones about it only call a failed connection."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


def _cut(said: Any) -> str:
    text = " ".join(str(said).split())
    return text if len(text) <= LONGEST_SAYING else text[:LONGEST_SAYING] + "…"


def _without_secrets(message: str, question: Question) -> str:
    """Servers repeat the key that they refuse, so every secret that this process knows is taken out."""
    known = [value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) >= SHORTEST_SECRET]
    for secret in sorted([question.choice.api_key or "", *known], key=len, reverse=True):
        message = message.replace(secret, "[key]") if secret else message
    return _KEY.sub("[key]", message)
