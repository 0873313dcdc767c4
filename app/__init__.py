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
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module 'app' has no attribute {name!r}")
