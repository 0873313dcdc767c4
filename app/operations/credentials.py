"""API keys as texts: `ms_`, eight characters that name the key, `_`, a secret and its checksum."""

import hashlib
import hmac
import re
import secrets
import string
import zlib
from typing import NamedTuple, Self

ALPHABET = string.digits + string.ascii_letters
ID_CHARACTERS = 8
SECRET_BYTES = 32
SECRET_CHARACTERS = 43
"""So many digits to the base 62 hold 32 bytes."""
CHECKSUM_CHARACTERS = 6

_KEY = re.compile(
    rf"ms_([0-9A-Za-z]{{{ID_CHARACTERS}}})_([0-9A-Za-z]{{{SECRET_CHARACTERS}}})([0-9A-Za-z]{{{CHECKSUM_CHARACTERS}}})"
)


class ApiKey(NamedTuple):
    """What a key's text says. The checksum finds typing errors, and texts that only look like keys, without a look."""

    key_id: str
    secret: str

    @classmethod
    def new(cls) -> Self:
        """A key that nobody has."""
        key_id = "".join(secrets.choice(ALPHABET) for _ in range(ID_CHARACTERS))
        return cls(key_id, _digits(int.from_bytes(secrets.token_bytes(SECRET_BYTES)), SECRET_CHARACTERS))

    @classmethod
    def read(cls, text: str) -> Self | None:
        """The key that a text is, None when it is none."""
        found = _KEY.fullmatch(text)
        if found is None:
            return None
        key = cls(found[1], found[2])
        return key if key.checksum == found[3] else None

    @property
    def checksum(self) -> str:
        """Of the rest of the text."""
        return _digits(zlib.crc32(f"ms_{self.key_id}_{self.secret}".encode()), CHECKSUM_CHARACTERS)

    @property
    def text(self) -> str:
        """What its holder sends."""
        return f"ms_{self.key_id}_{self.secret}{self.checksum}"

    @property
    def digest(self) -> str:
        """What is kept of the secret. It is as random as can be, so that no slow hash is needed."""
        return hashlib.sha256(self.secret.encode()).hexdigest()

    def fits(self, digest: str) -> bool:
        """Whether this is the secret that was kept, in a time that tells nothing."""
        return hmac.compare_digest(self.digest, digest)


def _digits(number: int, count: int) -> str:
    text = ""
    for _ in range(count):
        number, digit = divmod(number, len(ALPHABET))
        text = ALPHABET[digit] + text
    return text
