"""The one boundary between Python values and JSON: what is stored, sent and compared passes through here.

The fast path is orjson's. Whatever orjson refuses, or would write differently from what we promise (NaN as null, NUL,
integers that became floats), takes the slow path, which either makes it plain JSON or names the path of what it cannot.
"""

import dataclasses
import enum
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from pathlib import PurePath
from typing import Any
from uuid import UUID

import orjson
from pydantic import AnyUrl, BaseModel
from pydantic_core import to_json, to_jsonable_python

from app.errors import Malformed, Unencodable

MAX_DEPTH = 100
"""Nesting that a document may have; far below orjson's own limit, so that every reader of ours can recurse."""

SMALLEST_INTEGER, LARGEST_INTEGER = -(2**63), 2**64 - 1

_ESCAPED = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
"""What may be a NUL or a surrogate. Of the other escapes orjson makes what they stand for."""
_SPACED_COLONS = (b" :", b"\t:", b"\n:", b"\r:")
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NO_BRACKETS = bytes(code for code in range(256) if code not in b"[]{}")
_REPLACED = re.compile("[\x00\ud800-\udfff]")


def encode(value: Any) -> bytes:
    """The value as compact JSON in UTF-8.

    Takes plain JSON values, pydantic models, dataclasses, enums, dates, decimals (as strings), UUIDs, tuples and sets.
    Raises Unencodable, naming the path, for everything else, for NaN, infinities and integers beyond 64 bits.
    """
    try:
        encoded = orjson.dumps(value, default=_plain, option=orjson.OPT_PASSTHROUGH_DATACLASS)
    except (TypeError, RecursionError):
        return orjson.dumps(plain(value))
    if _has_nul(encoded) or (b"null" in encoded and _may_hold_nan(value)) or _is_deep(encoded):
        return orjson.dumps(plain(value))
    return encoded


def encode_text(text: str) -> bytes:
    """The same for a text, which is most of what runs say."""
    try:
        encoded = orjson.dumps(text)
    except TypeError:
        return encode(text)
    return encode(text) if _has_nul(encoded) else encoded


def decode(encoded: bytes | str) -> Any:
    """The value of JSON that `encode` wrote."""
    return orjson.loads(encoded)


def fingerprint(value: Any) -> str:
    """A digest that equal JSON values have in common, whatever the order of their keys. Raises Unencodable."""
    return hashlib.sha256(orjson.dumps(decode(encode(value)), option=orjson.OPT_SORT_KEYS)).hexdigest()


def parse(body: bytes) -> Any:
    """The value of JSON that came from outside, as `encode` would have written it.

    NUL and lone surrogates become U+FFFD. Raises Malformed for what is no JSON (NaN too) and for an object that has a
    key twice, and Unencodable for integers beyond 64 bits, keys that would collide, and nesting past MAX_DEPTH.
    """
    if not (_ESCAPED.search(body) or _LONG_NUMBER.search(body)):
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise Malformed(f"the body is no JSON: {error}", code="malformed_json") from None
        if _is_deep(body):
            return plain(value)  # says where
        if not _may_repeat_keys(body, value):
            return value
    try:
        value = json.loads(body, parse_constant=_refuse_constant, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the body is no JSON: {error}", code="malformed_json") from None
    return plain(value)


def _may_repeat_keys(body: bytes, value: Any) -> bool:
    """Whether JSON may have a key twice in one object, of which its value has the last alone.

    Members are counted before and after: in strings, a quote before a colon is escaped, and stays so. Where space may
    hide one, the answer is yes.
    """
    if any(space in body for space in _SPACED_COLONS):
        return True
    return body.count(b'":') != orjson.dumps(value).count(b'":')


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        ((twice, _),) = Counter(key for key, _ in members).most_common(1)
        raise ValueError(f"an object has the key {twice[:100]!r} twice")
    return found


def plain(value: Any, path: str = "", depth: int = 0) -> Any:
    """The value as nothing but dict, list, str, int, float, bool and None.

    Raises Unencodable with the JSON Pointer of the first part that cannot be written.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, enum.Enum):
        return plain(value.value, path, depth)
    if isinstance(value, str):
        return _REPLACED.sub("\ufffd", value)
    if isinstance(value, int | float):
        return _plain_number(value, path)
    if depth >= MAX_DEPTH:
        raise Unencodable(f"the value at {_named(path)} is nested deeper than {MAX_DEPTH} levels", path=path)
    if isinstance(value, Mapping):
        return _plain_mapping(value, path, depth)
    if isinstance(value, list | tuple):
        return [plain(element, f"{path}/{index}", depth + 1) for index, element in enumerate(value)]
    if isinstance(value, set | frozenset):
        # In an order of their own, so that equal sets are equal JSON.
        return sorted((plain(element, path, depth + 1) for element in value), key=orjson.dumps)
    try:
        return plain(_plain(value), path, depth + 1)
    except TypeError:
        kind = type(value).__name__
        raise Unencodable(f"the value at {_named(path)} is a {kind}, which JSON cannot hold", path=path) from None


def _plain_number(value: float, path: str) -> int | float:
    if isinstance(value, int):
        if not SMALLEST_INTEGER <= value <= LARGEST_INTEGER:
            raise Unencodable(f"the integer at {_named(path)} is beyond 64 bits; write it as a string", path=path)
        return int(value)
    if not math.isfinite(value):
        raise Unencodable(f"the number at {_named(path)} is {value}, which JSON does not have", path=path)
    return float(value)


def _plain_mapping(mapping: Mapping[Any, Any], path: str, depth: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, element in mapping.items():
        name = _key(key, path)
        if name in result:
            raise Unencodable(f"two keys at {_named(path)} would both be written as {name!r}", path=path)
        result[name] = plain(element, f"{path}/{escape(name)}", depth + 1)
    return result


def _key(key: Any, path: str) -> str:
    if isinstance(key, enum.Enum):
        key = key.value
    if isinstance(key, str):
        return _REPLACED.sub("\ufffd", key)
    if key is None or isinstance(key, bool | int | float):
        return orjson.dumps(plain(key, path)).decode()
    if isinstance(key, date | time | UUID):
        return str(_plain(key))
    raise Unencodable(f"a key at {_named(path)} is a {type(key).__name__}; keys are strings", path=path)


def _plain(value: Any) -> Any:
    """One level of a type that orjson does not know; TypeError when it is none of ours."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta | PurePath | AnyUrl | IPv4Address | IPv6Address):
        return to_jsonable_python(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(type(value).__name__)


def _may_hold_nan(value: Any) -> bool:
    """A null was written: was it a NaN? Asked of an encoder that spells them out, so that None stays cheap."""
    try:
        orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_DATACLASS)  # refuses models, whose own rules may hide a NaN
        spelled = to_json(value, inf_nan_mode="constants", fallback=_plain)
    except Exception:  # the slow path knows better what is wrong with it
        return True
    return b"NaN" in spelled or b"Infinity" in spelled


def _has_nul(encoded: bytes) -> bool:
    """Whether JSON may have an escaped NUL; a single byte is found ten times as fast as six."""
    return b"\\" in encoded and b"\\u0000" in encoded


def _is_deep(encoded: bytes) -> bool:
    """Whether JSON is nested past MAX_DEPTH; each pass of the loop takes the innermost level away."""
    if encoded.count(b"[") + encoded.count(b"{") <= MAX_DEPTH:
        return False
    brackets = _brackets(encoded)
    for _ in range(MAX_DEPTH):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return bool(brackets)


def count_containers(encoded: bytes, *, more_than: int) -> int:
    """How many lists and objects JSON has; no more than a guess where it is `more_than` at most."""
    guess = encoded.count(b"[") + encoded.count(b"{")
    return guess if guess <= more_than else (len(_brackets(encoded)) + 1) // 2


def _brackets(encoded: bytes) -> bytes:
    """What JSON is but for strings, numbers and signs."""
    return _STRING.sub(b"", encoded).translate(None, _NO_BRACKETS)


def escape(key: str) -> str:
    """One key as a token of a JSON Pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def _named(path: str) -> str:
    return path or "the top"


def _refuse_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")
