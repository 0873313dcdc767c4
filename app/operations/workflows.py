"""What callers may ask of workflows."""

from dataclasses import asdict
from typing import Any

from app.workflow.registry import Registry, WorkflowDefinition


class Workflows:
    """The workflows that are served."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def get(self, name: str) -> dict[str, Any]:
        """The workflow; raises NotFound."""
        return _resource(self._registry.get(name))

    def page(self, *, limit: int, after: str | None) -> tuple[list[dict[str, Any]], str | None]:
        """Workflows by name, and the name that the next page begins after."""
        rest = [definition for definition in self._registry if after is None or definition.name > after]
        following = rest[limit - 1].name if len(rest) > limit else None
        return [_resource(definition) for definition in rest[:limit]], following


def _resource(definition: WorkflowDefinition) -> dict[str, Any]:
    return {
        "name": definition.name,
        "description": definition.description,
        "input_schema": definition.input.json_schema,
        "parameters": [asdict(parameter) for parameter in definition.input.parameters],
    }
