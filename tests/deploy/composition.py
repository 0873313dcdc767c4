"""docker-compose.yml, read as Docker reads it."""

import re
from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.support.processes import ROOT

COMPOSITION: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSITION["services"]


def environment_of(service: str) -> dict[str, str]:
    """The variables of a service, where nothing is set outside: `${NAME:-default}` is the default."""
    variables: dict[str, str] = SERVICES[service]["environment"]
    return {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for name, value in variables.items()}
