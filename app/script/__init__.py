"""Workflows in plain scripts, on the same tables as the service's, and the take-over of what the seed stored."""

from app.script.importing import import_agno
from app.script.runs import RunFailed
from app.script.storage import SqliteWorkflowStorage

__all__ = ["RunFailed", "SqliteWorkflowStorage", "import_agno"]
