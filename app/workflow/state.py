"""A session's state document: an immutable JSON object that knows its encoding key by key.

Documents made from one another share what did not change, values and encodings alike, so a small change to a large
state is encoded, compared and written in proportion to the change.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from app.errors import Invalid, TooLarge, Unencodable
from app.workflow.encoding import decode, encode, encode_text

_UNCHANGEABLE = {str, int, float, bool, type(None)}


MAX_KEYS = 10_000
"""Keys at the top of a state: each is encoded and compared by itself. Below the top there may be any number."""


class StateDocument:
    """One revision's document. `root` must not be changed; `copy()` gives an author his own."""

    def __init__(self, root: dict[str, Any], pieces: dict[str, bytes]) -> None:
        self.root = root
        self._pieces = pieces

    @classmethod
    def of(cls, value: Any) -> "StateDocument":
        """The document of any encodable object; raises Invalid when it is none, Unencodable with the path."""
        return EMPTY.changed_to(value)

    def changed_to(self, value: Any) -> "StateDocument":
        """The document of a value, sharing with this one every top-level value that is encoded alike."""
        if not isinstance(value, Mapping):
            raise Invalid(f"the state is a JSON object, not {type(value).__name__}", code="state_not_an_object")
        _check_keys(value)
        if not all(type(key) is str and key.isprintable() for key in value):
            value = decode(encode(value))  # keys may change or collide: only the encoder of the whole knows
        try:
            pieces = {key: self._piece(key, element) for key, element in value.items()}
        except Unencodable:
            encode(value)  # raises it again, with the path from the top
            raise
        return StateDocument({key: self._element(key, piece) for key, piece in pieces.items()}, pieces)

    def grafted(self, root: dict[str, Any]) -> "StateDocument":
        """The document of a plain root made from this one's by patching: what it shares is not encoded again."""
        _check_keys(root)
        pieces = {
            key: self._pieces[key] if key in self.root and self.root[key] is element else encode(element)
            for key, element in root.items()
        }
        return StateDocument(root, pieces)

    @cached_property
    def encoded(self) -> bytes:
        """The whole as compact JSON."""
        return b"{" + b",".join(encode(key) + b":" + piece for key, piece in self._pieces.items()) + b"}"

    @cached_property
    def size_bytes(self) -> int:
        """UTF-8 bytes of the compact JSON."""
        commas_and_braces = max(len(self._pieces) - 1, 0) + 2
        return commas_and_braces + sum(len(encode(key)) + 1 + len(piece) for key, piece in self._pieces.items())

    def copy(self) -> dict[str, Any]:
        """A plain dict of the caller's own; what nobody can change is shared."""
        return {
            key: value if type(value) in _UNCHANGEABLE else decode(self._pieces[key])
            for key, value in self.root.items()
        }

    def _piece(self, key: str, element: Any) -> bytes:
        """The encoding of a top-level value: the one that is known, where it is the very value of this document."""
        if type(element) in _UNCHANGEABLE and key in self.root and self.root[key] is element:
            return self._pieces[key]
        return encode_text(element) if type(element) is str else encode(element)

    def _element(self, key: str, piece: bytes) -> Any:
        return self.root[key] if self._pieces.get(key) == piece else decode(piece)


def _check_keys(root: Mapping[str, Any]) -> None:
    if len(root) > MAX_KEYS:
        raise TooLarge(
            f"the state would have {len(root)} keys at its top, which may have {MAX_KEYS}; put them one level deeper",
            code="state_too_large",
        )


EMPTY = StateDocument({}, {})
"""The state of every session at revision 0."""
