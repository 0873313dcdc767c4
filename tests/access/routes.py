"""Every route of the application, found in the application: one that is added is in these tests by itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastapi.routing import APIRoute

from app.api.access import Need, need_of
from app.api.application import MODULES, make_application

VERBS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


@dataclass(frozen=True)
class Operation:
    """One verb of one route."""

    verb: str
    path: str
    need: Need | None
    documented: dict[str, Any]

    @property
    def example(self) -> Any:
        """A body that the document shows; None where there is none."""
        content = self.documented.get("requestBody", {}).get("content", {})
        return next((described.get("example") for described in content.values()), None)

    @property
    def kind(self) -> str | None:
        """The media type of that body."""
        return next(iter(self.documented.get("requestBody", {}).get("content", {})), None)

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of its address: where each of them stands."""
        return {p["name"]: p["in"] for p in self.documented.get("parameters", []) if p["in"] in {"path", "query"}}

    @property
    def members(self) -> set[str]:
        """Of its body."""
        return set(self.example or {}) if isinstance(self.example, dict) else set()

    def __str__(self) -> str:
        return f"{self.verb} {self.path}"


def _nobody() -> Any:
    raise AssertionError


def document() -> dict[str, Any]:
    """The OpenAPI document."""
    return make_application(_nobody).openapi()


def operations() -> Iterator[Operation]:
    """Every verb of every route."""
    paths = document()["paths"]
    for module in MODULES:
        for route in module.router.routes:
            assert isinstance(route, APIRoute)
            for verb in sorted(route.methods or ()):
                yield Operation(verb, route.path, need_of(route), paths[route.path][verb.lower()])


OPERATIONS = list(operations())
GUARDED = [operation for operation in OPERATIONS if operation.need is not None]
PATHS = sorted({operation.path for operation in GUARDED})
