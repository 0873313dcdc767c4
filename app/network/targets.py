"""URLs that the service is asked to send to: what is wrong with one is said before anything is resolved."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

from app.errors import Invalid
from app.network.addresses import is_public
from app.network.resolving import is_literal

LONGEST_URL = 2000
_PLAIN = re.compile(r"[!-\[\]-~]+")
"""Printable ASCII but for the backslash, which some readers of URLs take for a slash."""
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label like this makes a name an address to some resolvers: 127.1, 2130706433, 0x7f.0.0.1."""
_PORTS = {"http": 80, "https": 443}
FIRST_FREE_PORT = 1024
"""Below it are other services than the web's; they are not to be talked to."""
_INTERNAL = ("localhost", "local", "internal", "intranet", "lan", "home", "corp", "private", "home.arpa", "onion")
"""Names that never mean a host of the public internet."""


class Target(NamedTuple):
    """A URL in its parts, as they are connected to: nobody reads the URL a second time."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """As in the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class TargetRules:
    """What the operator allows beside https to the public internet."""

    allow_http: bool = False
    allow_private: bool = False

    def read(self, url: str) -> Target:
        """The URL's parts; raises Invalid with `invalid_url` and what is wrong."""
        import httpx  # noqa: PLC0415  most services never hear of a webhook

        if len(url) > LONGEST_URL or not _PLAIN.fullmatch(url):
            raise _invalid(url, f"has up to {LONGEST_URL} printable ASCII characters; write other names as xn--…")
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise _invalid(url, f"is a URL ({error})") from None
        if parsed.scheme != "https" and not (self.allow_http and parsed.scheme == "http"):
            remedy = "" if self.allow_http else "; MILLSTREAM_WEBHOOK_ALLOW_HTTP allows http"
            raise _invalid(url, f"begins with https://{remedy}")
        if "@" in url.partition("://")[2].partition("/")[0] or parsed.userinfo:
            raise _invalid(url, "has no user and no password")
        if "#" in url:
            raise _invalid(url, "has no fragment")
        host = parsed.raw_host.decode("ascii").lower()
        self._check_host(url, host)
        port = _PORTS[parsed.scheme] if parsed.port is None else parsed.port
        if port != _PORTS[parsed.scheme] and not FIRST_FREE_PORT <= port <= 65535:  # noqa: PLR2004  the last there is
            raise _invalid(url, f"has the usual port, or one from {FIRST_FREE_PORT} on")
        return Target(parsed.scheme, host, port, parsed.raw_path.decode("ascii"))

    def _check_host(self, url: str, host: str) -> None:
        if is_literal(host):
            if "%" in host or not (self.allow_private or is_public(str(ip_address(host)))):
                raise _invalid(url, f"leads to the public internet, and {host} is not there")
            return
        labels = host.split(".")
        if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):  # noqa: PLR2004  of DNS
            raise _invalid(url, "has the name of a host, without a dot at its end")
        if _NUMBER.fullmatch(labels[-1]):
            raise _invalid(url, "has an address written as usual, or a name")
        inside = len(labels) == 1 or any(host == name or host.endswith(f".{name}") for name in _INTERNAL)
        if inside and not self.allow_private:
            raise _invalid(url, f"leads to the public internet, and {host} does not")


def _invalid(url: str, what: str) -> Invalid:
    return Invalid(f"{url[:200]!r} cannot be sent to: such a URL {what}", code="invalid_url")
