"""No form of an address leads inside; nothing is connected to here."""

import socket

import pytest

from app.network.addresses import is_public
from app.workflows.sources.articles import SourceFailed
from app.workflows.sources.pages import fetch, resolve

INSIDE = [
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1", "192.88.99.1",
    "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "100::1", "2001::1", "2001:0:7f00:1::1",
    "2001:db8::1",
    "2002:7f00:1::", "2002:808:808::", "fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
    "not an address", "", "127.1", "0x7f000001",
]  # fmt: skip
PUBLIC = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "192.169.0.1", "::ffff:8.8.8.8", "2606:4700:4700::1111", "2a00:1450::1"]

URLS = [
    "http://localhost/", "http://localhost.:80/", "http://LOCALHOST/", "http://127.0.0.1/", "http://127.1/",
    "http://127.0.1/",
    "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://0177.0.0.1/", "http://017700000001/", "http://0/",
    "http://[::1]/", "http://[::]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/",
    "http://[0:0:0:0:0:ffff:a9fe:a9fe]/",
    "http://[fe80::1]/", "http://[fd00::1]/", "http://169.254.169.254/latest/meta-data", "http://10.1.2.3:8080/",
    "http://user:password@127.0.0.1/", "http://1.1.1.1@127.0.0.1/", "http://1.1.1.1\\@127.0.0.1/", "https://192.168.0.1/",
    "http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_inside(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.anyio
@pytest.mark.parametrize("url", URLS)
async def test_no_spelling_of_an_inside_address_is_connected_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise AssertionError("connected")

    monkeypatch.setattr("app.workflows.sources.pages._connected", refuse)
    with pytest.raises(SourceFailed):
        await fetch(url, allow_private=False)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://1.1.1.1/",
        "gopher://1.1.1.1/",
        "//1.1.1.1/",
        "1.1.1.1",
        "http://",
        "",
        "http://a\nb/",
    ],
)
async def test_only_web_addresses_are_urls(url: str) -> None:
    with pytest.raises(SourceFailed, match="URL"):
        await fetch(url, allow_private=True)


@pytest.mark.anyio
async def test_a_name_with_one_address_inside_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("1.1.1.1", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    with pytest.raises(SourceFailed, match="MILLSTREAM_ALLOW_PRIVATE_ADDRESSES"):
        await resolve("rebinding.example", 80, allow_private=False)
    assert await resolve("rebinding.example", 80, allow_private=True) == ["1.1.1.1", "10.0.0.1"]
