"""Millstream serves Python workflows over HTTP. Authors import from here; what is heavy is loaded when asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from app.workflow.response import RunEvent, RunResponse
from app.workflow.workflow import Workflow

if TYPE_CHECKING:
    from app.agents.agent import Agent
    from app.script import SqliteWorkflowStorage

__all__ = ["Agent", "RunEvent", "RunResponse", "SqliteWorkflowStorage", "Workflow"]
__version__ = "0.1.0"

_LATE = {"Agent": "app.agents.agent", "SqliteWorkflowStorage": "app.script"}


def __getattr__(name: str) -> Any:
    """Load what is heavy (the model libraries, the database) when a workflow asks for it."""
    if name in _LATE:
        try:
            module = import_module(_LATE[name])
        except AttributeError as error:  # would be taken for a missing name
            raise ImportError(f"{_LATE[name]} cannot be imported: {error}") from error
        return getattr(module, name)
    raise AttributeError(f"module 'app' has no attribute {name!r}")
