"""docker-compose.yml, read as Docker reads it."""

from typing import Any

import yaml  # type: ignore[import-untyped]

from app.settings import Settings
from tests.support.processes import ROOT

COMPOSITION: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSITION["services"]


def test_without_a_profile_it_is_the_service_on_postgres_after_its_migrations() -> None:
    plain = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert plain == {"postgres", "migrate", "millstream"}
    assert SERVICES["millstream"]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert SERVICES["migrate"]["depends_on"]["postgres"] == {"condition": "service_healthy"}
    assert SERVICES["migrate"]["command"] == ["migrate"]
    assert SERVICES["migrate"]["restart"] == "no"
    assert "pg_isready" in SERVICES["postgres"]["healthcheck"]["test"]


def test_the_profile_sqlite_needs_no_other_service() -> None:
    assert SERVICES["sqlite"]["profiles"] == ["sqlite"]
    assert "depends_on" not in SERVICES["sqlite"]
    assert SERVICES["sqlite"]["volumes"] == ["data:/data"]


def test_every_variable_of_ours_is_a_setting() -> None:
    for service in SERVICES.values():
        for variable in service.get("environment", {}):
            prefix, _, name = variable.partition("_")
            assert prefix == "POSTGRES" or (prefix == "MILLSTREAM" and name.lower() in Settings.model_fields)


def test_every_volume_is_declared_and_no_port_is_used_twice() -> None:
    used = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert used == set(COMPOSITION["volumes"])
    ports = [port.partition(":")[0] for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == len(set(ports))


def test_docker_waits_for_the_drain() -> None:
    seconds = int(SERVICES["millstream"]["stop_grace_period"].removesuffix("s"))
    fields = Settings.model_fields
    assert seconds > fields["drain_seconds"].default + fields["cancel_grace_seconds"].default
