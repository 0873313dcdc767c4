"""No form of an address leads inside, and no name does, whatever it is resolved to and when."""

import asyncio
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpcore
import pytest

from app.errors import Invalid
from app.network.resolving import ForbiddenHost, Resolver
from app.network.sending import MAX_ANSWER_BYTES, GuardedBackend, GuardedClient, SendingFailed
from app.network.targets import Target, TargetRules

pytestmark = pytest.mark.anyio

HOSTS = [
    # IPv4, in the ways in which it can be written
    "127.0.0.1", "127.1", "127.0.1", "127.255.255.254", "2130706433", "017700000001", "0x7f000001", "0x7f.1",
    "0x7f.0x0.0x0.0x1", "0177.0.0.1", "0177.0.0.01", "127.0.0.1.", "0127.0.0.1", "127.000.000.001", "0", "0.0.0.0",
    "00000000", "0x0", "1.1", "4294967295", "127.0.0.1%00", "127.0.0.1%2e", "%31%32%37.0.0.1", "127%2e0.0.1",
    # private, shared, link-local, metadata, multicast, reserved
    "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.254", "192.168.0.1", "192.168.255.255", "100.64.0.1",
    "100.127.255.255", "169.254.169.254", "169.254.170.2", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "192.88.99.1",
    # IPv6: its own, and those that carry an IPv4 address
    "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::127.0.0.1]", "[::7f00:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:a9fe:a9fe]", "[::ffff:0:127.0.0.1]", "[64:ff9b::127.0.0.1]", "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2002:a9fe:a9fe::1]", "[2001:0:7f00:1::1]", "[fc00::1]",
    "[fd00:ec2::254]", "[fe80::1]", "[fe80::1%25eth0]", "[fe80::1%eth0]", "[fec0::1]", "[ff02::1]", "[2001:db8::1]",
    "[100::1]",
    # names, and tricks with them
    "localhost", "LOCALHOST", "localhost.", "a.localhost", "metadata.google.internal", "printer.local", "intranet",
    "kubernetes.default.svc.cluster.local", "router.home.arpa", "①②⑦.⓪.⓪.①", "127。0。0。1",
    "\uff11\uff12\uff17.0.0.1", "ⓛocalhost",
    "localhost\u00ad", "1.1.1.1\\@127.0.0.1", "1.1.1.1@127.0.0.1", "1.1.1.1%40127.0.0.1", "127.0.0.1#@1.1.1.1",
    "127.0.0.1?@1.1.1.1", "1.1.1.1 @127.0.0.1", "127.0.0.1\t", "127.0.0.1\n", "user:password@127.0.0.1", "",
]  # fmt: skip
UNSPELLED = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "017700000001", "0x7f.1", "0", "::1", "::",
    "::ffff:127.0.0.1", "::ffff:7f00:1", "localhost", "LOCALHOST", "169.254.169.254", "10.0.0.1", "fe80::1", "fd00::1",
    "64:ff9b::7f00:1", "2002:7f00:1::",
]  # fmt: skip
"""Handed to the client as they are, as if nothing had looked at the URL."""
NOT_THE_WEB = [
    "http://hooks.example.com/", "ftp://hooks.example.com/", "file:///etc/passwd", "gopher://hooks.example.com/",
    "unix:///run/docker.sock", "//hooks.example.com/", "hooks.example.com", "https:hooks.example.com", "https://",
    "https://hooks.example.com:22/", "https://hooks.example.com:25/", "https://hooks.example.com:0/",
    "https://hooks.example.com:65536/", "https://hooks.example.com/#part", "javascript:alert(1)",
]  # fmt: skip


@contextmanager
def connects() -> Iterator[list[Any]]:
    """Every address that this process connects to meanwhile, whoever asks for it."""
    found: list[Any] = []
    _LISTENING.append(found)
    try:
        yield found
    finally:
        _LISTENING.remove(found)


_LISTENING: list[list[Any]] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        for found in _LISTENING:
            found.append(arguments[1])


sys.addaudithook(_audit)


@pytest.fixture
async def inside() -> AsyncIterator[tuple[int, Counter[str]]]:
    """A server inside, on both loopback addresses: its port, and how often somebody came."""
    came: Counter[str] = Counter()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came["connections"] += 1
        await reader.read(1)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], came


def resolver_of(*answers: list[str]) -> tuple[Resolver, list[str]]:
    """A name server that answers in turn, then with the last for ever; and what it was asked."""
    asked: list[str] = []

    async def look_up(host: str, _port: int) -> list[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return look_up, asked


def test_there_are_enough_forms() -> None:
    assert len(set(HOSTS)) >= 60


@pytest.mark.parametrize("scheme", ["https", "http"])
@pytest.mark.parametrize("host", HOSTS)
async def test_no_form_of_an_inside_address_is_connected_to(
    host: str, scheme: str, inside: tuple[int, Counter[str]]
) -> None:
    port, came = inside
    with connects() as connected:
        async with GuardedClient(allow_private=False, timeout_seconds=2) as client:
            with pytest.raises((Invalid, SendingFailed)):
                await client.post(TargetRules(allow_http=True).read(f"{scheme}://{host}:{port}/"), {}, b"{}")
    assert connected == []
    assert not came


@pytest.mark.parametrize("host", UNSPELLED)
async def test_the_client_itself_refuses_whatever_leads_inside(host: str, inside: tuple[int, Counter[str]]) -> None:
    port, came = inside
    with connects() as connected:
        async with GuardedClient(allow_private=False, timeout_seconds=2) as client:
            with pytest.raises(SendingFailed, match=r"public internet|cannot be found"):
                await client.post(Target("http", host, port, "/"), {}, b"{}")
    assert connected == []
    assert not came


@pytest.mark.parametrize("url", NOT_THE_WEB)
def test_only_web_addresses_can_be_sent_to(url: str) -> None:
    with pytest.raises(Invalid) as refused:
        TargetRules().read(url)
    assert refused.value.problem_code == "invalid_url"


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://hooks.example.com", ("https", "hooks.example.com", 443, "/")),
        ("https://Hooks.Example.com:8443/a?b=c", ("https", "hooks.example.com", 8443, "/a?b=c")),
        ("https://1.1.1.1/", ("https", "1.1.1.1", 443, "/")),
        ("https://[2606:4700:4700::1111]/", ("https", "2606:4700:4700::1111", 443, "/")),
        ("https://xn--mller-kva.example/%C3%A9", ("https", "xn--mller-kva.example", 443, "/%C3%A9")),
    ],
)
def test_what_can_be_sent_to(url: str, target: tuple[str, str, int, str]) -> None:
    assert tuple(TargetRules().read(url)) == target


async def test_the_listener_is_there_for_those_who_may(inside: tuple[int, Counter[str]]) -> None:
    port, came = inside
    with connects() as connected:
        async with GuardedClient(allow_private=True, timeout_seconds=2) as client:
            answer = await client.post(Target("http", "127.0.0.1", port, "/"), {}, b"{}")
    assert answer.status == 200
    assert connected == [("127.0.0.1", port)]
    assert came["connections"] == 1


class Recording(httpcore.AsyncNetworkBackend):
    """Sockets that are never made."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.asked.append((host, port))
        raise httpcore.ConnectError("not here")


async def test_a_name_is_resolved_once_and_that_very_address_connected_to() -> None:
    resolver, asked = resolver_of(["1.1.1.1", "2606:4700:4700::1111"], ["127.0.0.1"])
    sockets = Recording()
    backend = GuardedBackend(resolver, allow_private=False, sockets=sockets)
    with pytest.raises(httpcore.ConnectError):
        await backend.connect_tcp("rebinding.example", 443)
    assert sockets.asked == [("1.1.1.1", 443), ("2606:4700:4700::1111", 443)]
    assert asked == ["rebinding.example"]
    with pytest.raises(ForbiddenHost):
        await backend.connect_tcp("rebinding.example", 443)
    assert len(sockets.asked) == 2


@pytest.mark.parametrize("found", [["1.1.1.1", "10.0.0.1"], ["10.0.0.1", "1.1.1.1"], [*["1.1.1.1"] * 9, "::1"]])
async def test_one_address_inside_is_enough(found: list[str]) -> None:
    resolver, _ = resolver_of(found)
    sockets = Recording()
    with pytest.raises(ForbiddenHost):
        await GuardedBackend(resolver, allow_private=False, sockets=sockets).connect_tcp("both.example", 443)
    assert sockets.asked == []


async def test_a_name_that_turns_inside_is_refused(inside: tuple[int, Counter[str]]) -> None:
    port, came = inside
    resolver, asked = resolver_of(["127.0.0.1"])
    with connects() as connected:
        async with GuardedClient(allow_private=False, timeout_seconds=2, resolver=resolver) as client:
            with pytest.raises(SendingFailed, match="public internet"):
                await client.post(Target("https", "hooks.example.com", port, "/"), {}, b"{}")
    assert asked == ["hooks.example.com"]
    assert connected == []
    assert not came


async def test_proxies_of_the_environment_are_not_used(
    inside: tuple[int, Counter[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, came = inside
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    resolver, _ = resolver_of(["10.0.0.1"])
    async with GuardedClient(allow_private=False, timeout_seconds=2, resolver=resolver) as client:
        with pytest.raises(SendingFailed):
            await client.post(Target("http", "hooks.example.com", 80, "/"), {}, b"{}")
    assert not came


@asynccontextmanager
async def answering(answer: bytes, *, then: float = 0) -> AsyncIterator[int]:
    """A server that says this to everybody, and is silent for some seconds; its port."""
    serving: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await asyncio.sleep(then)
        except asyncio.CancelledError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "broke"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "broke"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "broke"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000, "broke"),
    ],
)
async def test_what_is_no_answer(answer: bytes, says: str) -> None:
    async with answering(answer) as port, GuardedClient(allow_private=True, timeout_seconds=2) as client:
        with pytest.raises(SendingFailed, match=says):
            await client.post(Target("http", "127.0.0.1", port, "/"), {}, b"{}")


async def test_an_answer_that_does_not_end_is_cut_off() -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n" + b"x" * (MAX_ANSWER_BYTES + 70_000)
    async with answering(endless, then=5) as port, GuardedClient(allow_private=True, timeout_seconds=4) as client:
        async with asyncio.timeout(2):
            answer = await client.post(Target("http", "127.0.0.1", port, "/"), {}, b"{}")
        assert answer.status == 200


async def test_an_answer_that_drips_takes_no_longer_than_all_may() -> None:
    dripping = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"
    async with answering(dripping, then=5) as port, GuardedClient(allow_private=True, timeout_seconds=0.3) as client:
        with pytest.raises(SendingFailed, match=r"no answer within 0\.3 seconds"):
            await asyncio.wait_for(client.post(Target("http", "127.0.0.1", port, "/"), {}, b"{}"), 2)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of hooks.example.com, signed by itself; and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=hooks"]
    command += ["-addext", "subjectAltName=DNS:hooks.example.com", "-keyout", "key.pem", "-out", "certificate.pem"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("NO OPENSSL: certificates of receivers go untested")
    return folder / "certificate.pem", folder / "key.pem"


@pytest.mark.parametrize(
    ("host", "trusted", "says"),
    [
        ("hooks.example.com", True, None),
        ("other.example.com", True, "its certificate is not trusted"),
        ("hooks.example.com", False, "its certificate is not trusted"),
    ],
)
async def test_the_certificate_is_that_of_the_name(
    certificate: tuple[Path, Path], host: str, trusted: bool, says: str | None
) -> None:
    named: list[str | None] = []
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n{}"))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    context.sni_callback = lambda _socket, name, _context: named.append(name)
    resolver, _ = resolver_of(["127.0.0.1"])
    roots = ssl.create_default_context(cafile=certificate[0] if trusted else None)
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        async with GuardedClient(
            allow_private=True, timeout_seconds=3, resolver=resolver, certificates=roots
        ) as client:
            target = Target("https", host, port, "/path?query")
            if says is None:
                assert (await client.post(target, {}, b"{}")).status == 204
                assert b"Host: hooks.example.com:%d\r\n" % port in requests[0]
                assert requests[0].startswith(b"POST /path?query HTTP/1.1\r\n")
            else:
                with pytest.raises(SendingFailed, match=says):
                    await client.post(target, {}, b"{}")
    assert named == [host]
