"""Keys of a running server, for tests that have several callers."""

from typing import Any

import httpx

from app.wire.keys import SCOPES
from tests.support.server import Client


def bearer(credential: str) -> dict[str, str]:
    """The header that sends it."""
    return {"Authorization": f"Bearer {credential}"}


async def first_key(client: Client) -> str:
    """The operator's key, which may do everything; with it, authentication is on."""
    return str((await new_key(client, None, scopes=list(SCOPES)))["key"])


async def new_key(client: Client, admin: str | None, *, scopes: list[Any] | None = None, **members: Any) -> Any:
    """A key's resource with its text, made under another key; by default it may do everything."""
    body = {"name": "test", "scopes": scopes or list(SCOPES)} | members
    answer = await client.post("/keys", json=body, headers=bearer(admin) if admin else {})
    assert answer.status_code == 201, answer.text
    return answer.json()


def as_caller(client: Client, credential: str | None) -> Client:
    """Another client of the same server, over the same connections, which sends a credential."""
    headers = {} if credential is None else bearer(credential)
    return Client(base_url=client.base_url, timeout=30, headers=headers, transport=client._transport)


def told(answer: httpx.Response) -> tuple[int, dict[str, str], str]:
    """All that an answer tells, but when it was given, and to which request."""
    own = {"date", "content-length", "x-request-id"}
    headers = {name: value for name, value in answer.headers.items() if name not in own}
    return answer.status_code, headers, answer.text.replace(answer.headers["x-request-id"], "<request>")
