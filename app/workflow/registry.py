"""The workflows that a process serves, by name."""

import inspect
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from app.errors import ConfigurationError, NotFound
from app.workflow.signature import InputSchema
from app.workflow.workflow import Workflow, workflow_name


class WorkflowDefinition:
    """One registered workflow class, with what a caller may know of it."""

    def __init__(self, workflow: type[Workflow]) -> None:
        self.workflow = workflow
        self.name = workflow_name(workflow)
        self.description = workflow.description or inspect.cleandoc(workflow.__dict__.get("__doc__") or "")
        body = workflow.run
        if body is Workflow.run:
            raise ConfigurationError(f"{self.source}: {workflow.__name__} defines no run()")
        self.asynchronous = inspect.iscoroutinefunction(body) or inspect.isasyncgenfunction(body)
        try:
            self.input = InputSchema(body, workflow.__name__)
        except ConfigurationError as error:
            raise ConfigurationError(f"{self.source}: {error.message}") from None

    @cached_property
    def source(self) -> str:
        """File and line of the class."""
        try:
            return f"{inspect.getsourcefile(self.workflow)}:{inspect.getsourcelines(self.workflow)[1]}"
        except (OSError, TypeError):
            return self.workflow.__module__


class Registry:
    """Name to definition; read-only once made."""

    def __init__(self, definitions: Iterable[WorkflowDefinition]) -> None:
        """Raises ConfigurationError, with file and line of both, when a name is used twice."""
        self._definitions: dict[str, WorkflowDefinition] = {}
        for definition in definitions:
            known = self._definitions.setdefault(definition.name, definition)
            if known.workflow is not definition.workflow:
                raise ConfigurationError(
                    f"the workflow name {definition.name!r} is used twice:"
                    f" {known.source} and {definition.source}; rename one"
                )

    def get(self, name: str) -> WorkflowDefinition:
        """The workflow of that name; raises NotFound."""
        definition = self._definitions.get(name)
        if definition is None:
            known = sorted(self._definitions)[:50]
            message = f"there is no workflow {name[:100]!r}; GET /workflows lists them"
            raise NotFound(message, code="unknown_workflow", known=known)
        return definition

    def __iter__(self) -> Iterator[WorkflowDefinition]:
        """By name."""
        return iter(sorted(self._definitions.values(), key=lambda definition: definition.name))

    def __contains__(self, name: Any) -> bool:
        return name in self._definitions
