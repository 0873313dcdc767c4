"""Signatures of messages as Standard Webhooks has them: HMAC-SHA256 over id, time and body."""

import base64
import binascii
import hmac
import secrets
from collections.abc import Sequence

PREFIX = "whsec_"
SECRET_BYTES = 32
FEWEST_BYTES, MOST_BYTES = 24, 64
"""Of a secret that a caller brings."""


def new_secret() -> str:
    """A secret that nobody has had before."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def is_secret(text: str) -> bool:
    """Whether it is `whsec_` and the base64 of 24 to 64 bytes."""
    return text.startswith(PREFIX) and FEWEST_BYTES <= len(_key(text)) <= MOST_BYTES


def signatures(keys: Sequence[str], message_id: str, second: int, body: bytes) -> str:
    """The value of `webhook-signature`: a signature by each of the secrets; any one of them is enough."""
    signed = f"{message_id}.{second}.".encode() + body
    return " ".join(f"v1,{base64.b64encode(hmac.digest(_key(key), signed, 'sha256')).decode()}" for key in keys)


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return b""
