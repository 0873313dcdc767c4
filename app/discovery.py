"""Finding the workflows to serve: shipped ones, entry points, and what MILLSTREAM_WORKFLOWS names."""

import importlib
import inspect
import logging
import pkgutil
import sys
import traceback
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

from app import workflows as shipped
from app.errors import ConfigurationError
from app.settings import Settings
from app.workflow.registry import Registry, WorkflowDefinition
from app.workflow.workflow import Workflow

logger = logging.getLogger(__name__)

ENTRY_POINTS = "millstream.workflows"


def load_registry(settings: Settings) -> Registry:
    """All workflows by name; raises ConfigurationError, with file and line, for a bad import or a name used twice."""
    own = [WorkflowDefinition(workflow) for workflow in _named(settings.workflows)]
    own += [WorkflowDefinition(workflow) for workflow in _installed()]
    names = {definition.name for definition in own}
    builtin = [WorkflowDefinition(workflow) for workflow in _shipped()] if settings.shipped_workflows else []
    for definition in builtin:
        if definition.name in names:
            logger.info("shipped_workflow_replaced", extra={"workflow": definition.name})
    return Registry([*own, *(definition for definition in builtin if definition.name not in names)])


def _named(targets: tuple[str, ...]) -> Iterator[type[Workflow]]:
    if targets and "" not in sys.path:
        sys.path.insert(0, "")  # modules of the folder that the service is started in
    for target in targets:
        module_name, _, class_name = target.partition(":")
        module = _import(module_name, f"MILLSTREAM_WORKFLOWS names {target!r}")
        if not class_name:
            yield from _workflows_of(module, target)
            continue
        workflow = getattr(module, class_name, None)
        if not _is_workflow(workflow):
            raise ConfigurationError(
                f"MILLSTREAM_WORKFLOWS names {target!r}, but {module.__file__} has no Workflow class {class_name!r}"
            )
        yield workflow


def _installed() -> Iterator[type[Workflow]]:
    for entry in entry_points(group=ENTRY_POINTS):
        module = _import(entry.module, f"the entry point {entry.name!r} names {entry.value!r}")
        if entry.attr:
            workflow = getattr(module, entry.attr, None)
            if not _is_workflow(workflow):
                raise ConfigurationError(
                    f"the entry point {entry.name!r} names {entry.value!r}, which is no Workflow class"
                )
            yield workflow
        else:
            yield from _workflows_of(module, entry.value)


def _shipped() -> Iterator[type[Workflow]]:
    for module in pkgutil.iter_modules(shipped.__path__):
        if not module.ispkg:
            yield from _workflows_of(importlib.import_module(f"{shipped.__name__}.{module.name}"), module.name)


def _workflows_of(module: ModuleType, target: str) -> list[type[Workflow]]:
    """The workflow classes that the module itself defines."""
    found = [value for value in vars(module).values() if _is_workflow(value) and value.__module__ == module.__name__]
    if not found:
        raise ConfigurationError(f"{target!r} ({module.__file__}) defines no class that derives from Workflow")
    return found


def _is_workflow(value: Any) -> TypeGuard[type[Workflow]]:
    return inspect.isclass(value) and issubclass(value, Workflow) and value is not Workflow


def _import(name: str, why: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ConfigurationError(
            f"{why}, which cannot be imported: {_place(error)}{type(error).__name__}: {error}"
        ) from error


def _place(error: BaseException) -> str:
    """File and line where an import failed, past the import machinery."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: "
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and Path(frame.filename) != Path(__file__)
    ]
    return f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""
