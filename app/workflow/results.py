"""What a step returns: the same from its function as from the log."""

import typing
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter

from app.workflow.encoding import decode, encode


def revive(function: Callable[..., Any], result: Any) -> Any:
    """The result as a later attempt would read it from the log.

    That is its JSON, made into the function's return annotation where it has one that pydantic can build.
    """
    return from_log(function, encode(result))


def from_log(function: Callable[..., Any], encoded: bytes) -> Any:
    """The result of a step from its JSON."""
    try:
        # Of a bound method the plain function: a cache may keep no run's instance alive.
        adapter = _adapter(getattr(function, "__func__", function))
    except TypeError:  # an unhashable callable has no place in the cache, and no annotation worth one
        adapter = None
    return decode(encoded) if adapter is None else adapter.validate_json(encoded)


@lru_cache(maxsize=1024)
def _adapter(function: Callable[..., Any]) -> TypeAdapter[Any] | None:
    try:
        annotation = typing.get_type_hints(function, include_extras=True).get("return", Any)
        return None if annotation in (Any, None, type(None)) else TypeAdapter(annotation)
    except Exception:  # an annotation that cannot be resolved or built says nothing; the JSON stands
        return None
