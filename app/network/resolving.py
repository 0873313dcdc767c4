"""From the name of a host to the addresses that may be connected to."""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

from app.network.addresses import is_public

MAX_ADDRESSES = 4
"""Of one host that are tried; the first is often IPv6 where there is no route for it."""

Resolver = Callable[[str, int], Awaitable[list[str]]]
"""From a host and a port to addresses, in the order in which they are to be tried. Raises OSError, UnicodeError."""


class UnknownHost(Exception):
    """The host has no address."""

    def __init__(self, host: str) -> None:
        super().__init__(f"the host {host!r} cannot be found")


class ForbiddenHost(Exception):
    """One of the host's addresses is not on the public internet."""

    def __init__(self, host: str) -> None:
        super().__init__(f"the host {host!r} is not on the public internet")


def system_resolver(executor: Executor | None = None) -> Resolver:
    """What the operating system says; a slow name server holds threads of the executor."""

    async def look_up(host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(executor, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        return [str(entry[4][0]) for entry in found]

    return look_up


async def resolve(host: str, port: int, *, allow_private: bool, resolver: Resolver | None = None) -> list[str]:
    """The addresses to connect to, literals all of them.

    Raises UnknownHost, and ForbiddenHost when but one of the host's addresses may not be reached.
    """
    try:
        found = await (resolver or system_resolver())(host, port)
    except (OSError, UnicodeError):
        raise UnknownHost(host) from None
    addresses = list(dict.fromkeys(found))
    if not addresses:
        raise UnknownHost(host)
    if not allow_private and not all(map(is_public, addresses)):
        raise ForbiddenHost(host)
    return addresses[:MAX_ADDRESSES]


def is_literal(host: str) -> bool:
    """Whether the host is an address, and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
