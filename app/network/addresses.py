"""Which network addresses may be connected to: public ones, unless the operator allows all."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_TRANSLATED = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
"""NAT64: a gateway would turn them into the IPv4 address that they end with, which may be a private one."""
_SPECIAL = (IPv4Network("192.0.0.0/24"), IPv4Network("192.88.99.0/24"))
"""Of protocols (a cloud has its metadata there), and of gateways to 6to4: whose they are depends on where one asks."""


def is_public(address: str) -> bool:
    """Whether the address (of a resolved name, so always a literal) is one of the public internet.

    Private, loopback, link-local, shared, multicast, reserved and unspecified ones are not, nor IPv6 addresses that
    carry an IPv4 address, unless that one is public and no gateway's guess.
    """
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address):
        return _is_public_v6(parsed)
    return _is_ordinary(parsed)


def _is_public_v6(address: IPv6Address) -> bool:
    if address.ipv4_mapped is not None:
        return _is_ordinary(address.ipv4_mapped)
    if address.sixtofour is not None or address.teredo is not None or address.is_site_local:
        return False
    return _is_ordinary(address) and not any(address in network for network in _TRANSLATED)


def _is_ordinary(address: IPv4Address | IPv6Address) -> bool:
    special = address.is_multicast or address.is_reserved or any(address in network for network in _SPECIAL)
    return address.is_global and not special
