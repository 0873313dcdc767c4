"""Without authentication only this machine is served; what is missing is said before anything is."""

import os
import socket

import httpx
import pytest

from app.errors import ConfigurationError
from app.main import refuse_unless_loopback
from tests.support.cluster import Member, free_port, run_command
from tests.support.keys import bearer
from tests.support.processes import ROOT


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost", "::ffff:127.0.0.1"])
def test_loopback_needs_nobody_to_say_who_they_are(host: str) -> None:
    refuse_unless_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "0", "192.0.2.1", "::ffff:0.0.0.0", "2001:db8::1"])
def test_every_other_address_is_refused_with_the_remedy(host: str) -> None:
    with pytest.raises(ConfigurationError, match="millstream keys create"):
        refuse_unless_loopback(host)


def test_a_name_is_what_it_resolves_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, *_: object, **__: object) -> list[object]:
        addresses = {"both.example": ["127.0.0.1", "192.0.2.1"], "here.example": ["127.0.0.1", "::1"]}[host]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    refuse_unless_loopback("here.example")
    with pytest.raises(ConfigurationError, match=r"both\.example"):
        refuse_unless_loopback("both.example")


async def test_a_container_starts_once_there_is_a_key(database_url: str) -> None:
    """As docker-compose.yml has it: the first key, by the command that it names, and then the service."""
    port = free_port()
    environment = {
        "MILLSTREAM_DATABASE_URL": database_url,
        "MILLSTREAM_HOST": "0.0.0.0",
        "MILLSTREAM_PORT": str(port),
        "MILLSTREAM_DRAIN_SECONDS": "0",
    }
    status, said = await run_command(environment, "serve")
    assert status == 2
    assert "0.0.0.0 can be reached from other machines" in said
    assert "`millstream keys create --name=first --scope=admin`" in said
    assert "Traceback" not in said
    lines = (ROOT / "docker-compose.yml").read_text().splitlines()
    (command,) = [line.partition(" serve ")[2].split() for line in lines if "docker compose run --rm serve " in line]
    status, said = await run_command(environment, *command)
    assert status == 0, said
    key = said.split()[-1]
    member = Member("serve", ["serve"], os.environ | environment, port)
    try:
        await member.start()
        async with httpx.AsyncClient(base_url=member.url) as client:
            assert (await client.get("/runs")).status_code == 401
            assert (await client.get("/runs", headers=bearer(key))).status_code == 200
    finally:
        member.remove()
