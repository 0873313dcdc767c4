"""The guarded client: sends to a target, and connects to no address that was not checked.

The guard is where connections are made. A name is resolved once, each of its addresses is checked, and one of these
very addresses is connected to, while the certificate is verified against the name. Redirects are not followed, no proxy
of the environment is used, and of an answer no more is read than it takes to use the connection again.
"""

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpcore

from app.network.resolving import ForbiddenHost, Resolver, UnknownHost, resolve, system_resolver
from app.network.targets import Target

MAX_CONNECTIONS = 200
"""More than are used at a time: whoever sends bounds that itself."""
MAX_IDLE_CONNECTIONS = 20
IDLE_SECONDS = 30.0
MAX_ANSWER_BYTES = 16 * 1024
"""What is read of an answer's body. Nothing of it is kept."""
NAME_SERVER_THREADS = 8
"""Lookups at a time: a name server that is slow takes no thread that others need."""


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    retry_after: str | None


class SendingFailed(Exception):
    """There is no answer; the message says why, and names nothing but the host."""


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Makes connections to addresses that were checked."""

    def __init__(
        self, resolver: Resolver, *, allow_private: bool, sockets: httpcore.AsyncNetworkBackend | None = None
    ) -> None:
        self._resolver, self._allow_private = resolver, allow_private
        self._sockets = sockets or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first of the host's addresses that takes one; raises ForbiddenHost, UnknownHost."""
        addresses = await resolve(host, port, allow_private=self._allow_private, resolver=self._resolver)
        for address in addresses[:-1]:
            try:
                return await self._connect(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._connect(addresses[-1], port, timeout, local_address, socket_options)

    async def _connect(
        self, address: str, port: int, timeout: float | None, local: str | None, options: Iterable[Any] | None
    ) -> httpcore.AsyncNetworkStream:
        return await self._sockets.connect_tcp(address, port, timeout, local, options)


class GuardedClient:
    """Sends to targets; to be used as a context."""

    def __init__(
        self,
        *,
        allow_private: bool,
        timeout_seconds: float,
        resolver: Resolver | None = None,
        certificates: ssl.SSLContext | None = None,
    ) -> None:
        """`timeout_seconds` is for all of a request. `certificates` are those to trust, by default the system's."""
        self._allow_private, self._timeout_seconds = allow_private, timeout_seconds
        self._threads = ThreadPoolExecutor(NAME_SERVER_THREADS, thread_name_prefix="resolve")
        self._resolver = resolver or system_resolver(self._threads)
        self._certificates = certificates
        self._pool: httpcore.AsyncConnectionPool | None = None
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            await self._pool.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def post(self, target: Target, headers: Mapping[str, str], body: bytes) -> Answer:
        """What the server answers, whatever that is; raises SendingFailed when it does not, or not in time."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._post(await self._opened(), target, headers, body)
        except (TimeoutError, httpcore.TimeoutException):
            raise SendingFailed(f"no answer within {self._timeout_seconds:g} seconds") from None
        except (ForbiddenHost, UnknownHost) as error:
            raise SendingFailed(str(error)) from None
        except httpcore.ConnectError as error:
            why = "its certificate is not trusted" if "CERTIFICATE" in str(error).upper() else "no connection"
            raise SendingFailed(f"the host {target.host!r} cannot be reached: {why}") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise SendingFailed(f"the connection to {target.host!r} broke ({type(error).__name__})") from None

    async def _post(
        self, pool: httpcore.AsyncConnectionPool, target: Target, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        url = httpcore.URL(
            scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path.encode()
        )
        named = {
            "Host": target.authority,
            "Content-Length": str(len(body)),
            "Accept-Encoding": "identity",
            **headers,
        }
        sent = [(name.encode(), value.encode()) for name, value in named.items()]
        async with pool.stream("POST", url, headers=sent, content=body) as response:
            size = 0
            async for piece in response.aiter_stream():
                size += len(piece)
                if size > MAX_ANSWER_BYTES:
                    break
            return Answer(response.status, _header(response, b"retry-after"))

    async def _opened(self) -> httpcore.AsyncConnectionPool:
        """The pool, made when it is first needed: reading the certificates takes 20 ms of a thread."""
        async with self._opening:
            if self._pool is None:
                trusted = self._certificates or await asyncio.to_thread(ssl.create_default_context)
                self._pool = httpcore.AsyncConnectionPool(
                    ssl_context=trusted,
                    max_connections=MAX_CONNECTIONS,
                    max_keepalive_connections=MAX_IDLE_CONNECTIONS,
                    keepalive_expiry=IDLE_SECONDS,
                    network_backend=GuardedBackend(self._resolver, allow_private=self._allow_private),
                )
        return self._pool


def _header(response: httpcore.Response, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == name), None)
