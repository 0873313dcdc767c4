"""docker-compose.yml says what the service needs."""

import re

from app.settings import Settings
from tests.deploy.composition import COMPOSITION, SERVICES
from tests.support.processes import ROOT

CONNECTIONS_PER_PROCESS = 30
"""A pool of 10, 10 more at peaks, those of the job queue, and the doorbell's."""


def test_without_a_profile_it_is_the_service_on_postgres_after_its_migrations() -> None:
    plain = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert plain == {"postgres", "migrate", "serve", "worker", "nginx"}
    for name in ("serve", "worker"):
        assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
        assert SERVICES[name]["depends_on"]["postgres"] == {"condition": "service_healthy"}
    assert SERVICES["migrate"]["depends_on"]["postgres"] == {"condition": "service_healthy"}
    assert SERVICES["migrate"]["command"] == ["migrate"]
    assert SERVICES["migrate"]["restart"] == "no"
    assert "pg_isready" in SERVICES["postgres"]["healthcheck"]["test"]


def test_servers_and_workers_are_processes_of_their_own_two_of_each() -> None:
    assert SERVICES["serve"]["command"] == ["serve", "--no-worker"]
    assert SERVICES["worker"]["command"] == ["worker"]
    assert SERVICES["worker"]["healthcheck"] == {"disable": True}, "the image's asks at a port that it has not"
    assert [SERVICES[name]["deploy"]["replicas"] for name in ("serve", "worker")] == [2, 2]
    assert SERVICES["serve"]["environment"] == SERVICES["worker"]["environment"] == SERVICES["migrate"]["environment"]


def test_the_database_has_connections_for_all_of_them_and_some_more() -> None:
    (most,) = re.findall(r"max_connections=(\d+)", " ".join(SERVICES["postgres"]["command"]))
    processes = sum(SERVICES[name]["deploy"]["replicas"] for name in ("serve", "worker"))
    assert int(most) > CONNECTIONS_PER_PROCESS * (processes + 2)


def test_the_proxy_alone_has_a_port_and_comes_after_the_servers() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"nginx", "sqlite"}
    assert SERVICES["nginx"]["ports"] == ["8000:80"]
    assert SERVICES["nginx"]["depends_on"] == {"serve": {"condition": "service_healthy"}}
    (mounted,) = SERVICES["nginx"]["volumes"]
    source, target, access = mounted.split(":")
    assert (ROOT / source).is_file()
    assert (target, access) == ("/etc/nginx/conf.d/default.conf", "ro")


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
    named = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert {volume for volume in named if not volume.startswith(".")} == set(COMPOSITION["volumes"])
    ports = [port.partition(":")[0] for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == len(set(ports))


def test_docker_waits_for_the_drain() -> None:
    fields = Settings.model_fields
    for name in ("serve", "worker", "sqlite"):
        seconds = int(SERVICES[name]["stop_grace_period"].removesuffix("s"))
        assert seconds > fields["drain_seconds"].default + fields["cancel_grace_seconds"].default


def test_our_containers_can_write_to_their_data_alone_and_gain_no_rights() -> None:
    for name in ("migrate", "serve", "worker", "sqlite"):
        service = SERVICES[name]
        assert (service["read_only"], service["cap_drop"], service["tmpfs"]) == (True, ["ALL"], ["/tmp"])
        assert "privileged" not in service
        assert "user" not in service, "it is the image's"
    for service in SERVICES.values():
        assert service["security_opt"] == ["no-new-privileges:true"]
