"""Changes to JSON documents: merge patches (RFC 7396), JSON patches (RFC 6902), their making, and the three-way merge.

No function changes its arguments: results share every untouched branch with them, so that applying costs in proportion
to the change, and comparing two documents skips what they share.
"""

import re
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from app.errors import Conflict, Invalid, TooLarge
from app.workflow.encoding import encode, escape

Operation: TypeAlias = dict[str, Any]
"""One operation of RFC 6902: `{"op": "replace", "path": "/a/0", "value": 1}`."""


class _Missing:
    """The value of a key that is not there; null is a value like any other."""


MISSING: Final = _Missing()

_INDEX = re.compile("0|[1-9][0-9]{0,17}")
_MEMBERS = {
    "add": ("path", "value"),
    "remove": ("path",),
    "replace": ("path", "value"),
    "move": ("from", "path"),
    "copy": ("from", "path"),
    "test": ("path", "value"),
}


def merge_patch(target: Any, patch: Any) -> Any:
    """The target with a merge patch applied (RFC 7396): null removes a key, a list replaces as a whole."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def apply_patch(document: Any, operations: Sequence[Operation], *, max_copied_bytes: int | None = None) -> Any:
    """The document with the operations applied in order (RFC 6902), all or none.

    Raises Conflict for a path that is not there or a failed test; the operations are those of `read_patch`. What its
    copies add up to is bounded by `max_copied_bytes`: a few of them can double a document into more than memory holds.
    """
    copied = 0
    for number, operation in enumerate(operations):
        if max_copied_bytes is not None and operation["op"] == "copy":
            copied += _copied_bytes(document, operation)
            if copied > max_copied_bytes:
                raise TooLarge(f"the patch copies more than {max_copied_bytes} bytes", code="state_too_large")
        try:
            document = _apply(document, operation)
        except Conflict as conflict:
            raise Conflict(
                f"operation {number} ({operation['op']} {operation['path']!r}): {conflict.message}",
                code=conflict.problem_code,
                operation=number,
            ) from None
    return document


def read_patch(patch: Any) -> list[Operation]:
    """The operations of a JSON patch document that came from outside; raises Invalid when it is none."""
    if not isinstance(patch, list):
        raise Invalid(f"a JSON patch is a list of operations, not {_kind(patch)}", code="invalid_patch")
    for number, operation in enumerate(patch):
        _check_operation(number, operation)
    return patch


def diff(before: Any, after: Any, path: str = "") -> list[Operation]:
    """The operations that turn one document into the other; none for what they share."""
    if before is after:
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        return _diff_objects(before, after, path)
    if isinstance(before, list) and isinstance(after, list):
        return _diff_lists(before, after, path)
    return [] if _same_scalar(before, after) else [{"op": "replace", "path": path, "value": after}]


def same(one: Any, other: Any) -> bool:
    """Whether two documents are the same JSON: unlike in Python, 1, 1.0 and true are three values."""
    if one is other:
        return True
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return _same_scalar(one, other)


def merge_changes(base: Any, mine: Any, theirs: Any) -> tuple[Any, list[str]]:
    """Their document with the changes from base to mine applied, and the paths where both changed the same value.

    Changes at different paths both stay; where both changed one value, mine wins. Elements that one side appends to a
    list stay beside what the other did to it.
    """
    conflicts: list[str] = []
    return _merge(base, mine, theirs, "", conflicts), conflicts


def _merge(base: Any, mine: Any, theirs: Any, path: str, conflicts: list[str]) -> Any:
    if same(mine, base):
        return theirs
    if same(theirs, base) or same(mine, theirs):
        return mine
    if isinstance(mine, dict) and isinstance(theirs, dict):
        common: Any = {} if base is MISSING else base
        if isinstance(common, dict):
            return _merge_objects(common, mine, theirs, path, conflicts)
    if isinstance(base, list) and isinstance(mine, list) and isinstance(theirs, list):
        return _merge_lists(base, mine, theirs, path, conflicts)
    conflicts.append(path)
    return mine


def _merge_objects(
    base: dict[str, Any], mine: dict[str, Any], theirs: dict[str, Any], path: str, conflicts: list[str]
) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for key in theirs | mine:
        value = _merge(
            base.get(key, MISSING), mine.get(key, MISSING), theirs.get(key, MISSING), f"{path}/{escape(key)}", conflicts
        )
        if value is not MISSING:
            merged[key] = value
    return merged


def _merge_lists(base: list[Any], mine: list[Any], theirs: list[Any], path: str, conflicts: list[str]) -> list[Any]:
    length = len(base)
    if same(mine[:length], base):
        return theirs + mine[length:]
    if same(theirs[:length], base):
        return mine + theirs[length:]
    if len(mine) == len(theirs) == length:
        return [
            _merge(*values, f"{path}/{index}", conflicts)
            for index, values in enumerate(zip(base, mine, theirs, strict=True))
        ]
    conflicts.append(path)
    return mine


def _diff_objects(before: dict[str, Any], after: dict[str, Any], path: str) -> list[Operation]:
    gone = [key for key in before if key not in after]
    operations: list[Operation] = [{"op": "remove", "path": f"{path}/{escape(key)}"} for key in gone]
    for key, value in after.items():
        if key in before:
            operations += diff(before[key], value, f"{path}/{escape(key)}")
        else:
            operations.append({"op": "add", "path": f"{path}/{escape(key)}", "value": value})
    return operations


def _diff_lists(before: list[Any], after: list[Any], path: str) -> list[Operation]:
    """Elements are compared from both ends; what lies between is changed in place, then removed or added."""
    shorter = min(len(before), len(after))
    head = next((index for index in range(shorter) if not same(before[index], after[index])), shorter)
    tail = 0
    while tail < shorter - head and same(before[-1 - tail], after[-1 - tail]):
        tail += 1
    old, new = before[head : len(before) - tail], after[head : len(after) - tail]
    both = min(len(old), len(new))
    operations: list[Operation] = []
    for index in range(both):
        operations += diff(old[index], new[index], f"{path}/{head + index}")
    operations += [{"op": "remove", "path": f"{path}/{head + both}"} for _ in old[both:]]
    operations += [
        {"op": "add", "path": f"{path}/{index}", "value": value} for index, value in enumerate(new[both:], head + both)
    ]
    return operations


def _apply(document: Any, operation: Operation) -> Any:
    kind, path = operation["op"], _tokens(operation["path"])
    if kind == "test":
        if not _equal(_get(document, path), operation["value"]):
            raise Conflict("the value there is another one", code="patch_test_failed")
        return document
    if kind == "copy":
        return _add(document, path, _get(document, _tokens(operation["from"])))
    if kind == "move":
        source = _tokens(operation["from"])
        value = _get(document, source)
        return document if source == path else _add(_remove(document, source), path, value)
    if kind == "add":
        return _add(document, path, operation["value"])
    if kind == "replace":
        _get(document, path)
        return _put(document, path, operation["value"])
    return _remove(document, path)


def _copied_bytes(document: Any, operation: Operation) -> int:
    try:
        return len(encode(_get(document, _tokens(operation["from"]))))
    except Conflict:
        return 0  # the operation itself will say so


def _equal(one: Any, other: Any) -> bool:
    """Equal as a test of RFC 6902 means it: numbers by value, everything else as the same JSON."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other
    return _same_scalar(one, other)


def _get(document: Any, path: Sequence[str]) -> Any:
    for token in path:
        document = document[_place(document, token)]
    return document


def _put(document: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    place = _place(document, path[0])
    copy = document.copy()
    copy[place] = _put(document[place], path[1:], value)
    return copy


def _add(document: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    parent = _get(document, path[:-1])
    return _put(document, path[:-1], _with(parent, path[-1], value))


def _with(parent: Any, token: str, value: Any) -> Any:
    if isinstance(parent, dict):
        return parent | {token: value}
    if isinstance(parent, list):
        place = len(parent) if token == "-" else _index(token)
        if place > len(parent):
            raise Conflict(f"index {place} is past the end of a list of {len(parent)}", code="patch_path_missing")
        return [*parent[:place], value, *parent[place:]]
    raise Conflict(f"{_kind(parent)} holds nothing", code="patch_path_missing")


def _remove(document: Any, path: Sequence[str]) -> Any:
    if not path:
        return None
    parent = _get(document, path[:-1])
    place = _place(parent, path[-1])
    copy = parent.copy()
    del copy[place]
    return _put(document, path[:-1], copy)


def _place(parent: Any, token: str) -> Any:
    """The key or index of a token that must be there."""
    if isinstance(parent, dict):
        if token in parent:
            return token
        raise Conflict(f"there is no key {token!r}", code="patch_path_missing")
    if isinstance(parent, list):
        if token == "-":
            raise Conflict("nothing is past the end of the list", code="patch_path_missing")
        if (place := _index(token)) < len(parent):
            return place
        raise Conflict(f"there is no index {place} in a list of {len(parent)}", code="patch_path_missing")
    raise Conflict(f"there is no {token!r} in {_kind(parent)}", code="patch_path_missing")


def _index(token: str) -> int:
    if not _INDEX.fullmatch(token):
        raise Invalid(f"{token!r} is no index of a list: write 0, 1, 2 … or -", code="invalid_patch")
    return int(token)


def _tokens(pointer: str) -> list[str]:
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def _check_operation(number: int, operation: Any) -> None:
    if not isinstance(operation, dict):
        raise Invalid(f"operation {number} is {_kind(operation)}, not an object", code="invalid_patch")
    kind = operation.get("op")
    if not isinstance(kind, str) or kind not in _MEMBERS:
        raise Invalid(f"operation {number} has op {kind!r}; known are {', '.join(_MEMBERS)}", code="invalid_patch")
    for member in _MEMBERS[kind]:
        if member not in operation:
            raise Invalid(f"operation {number} ({kind}) has no {member!r}", code="invalid_patch")
        if member != "value":
            _check_pointer(number, operation[member])
    if (
        kind == "move"
        and (operation["path"] + "/").startswith(operation["from"] + "/")
        and operation["path"] != operation["from"]
    ):
        raise Invalid(f"operation {number} moves {operation['from']!r} into itself", code="invalid_patch")


def _check_pointer(number: int, pointer: Any) -> None:
    if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")) or re.search("~(?![01])", pointer):
        raise Invalid(f"operation {number} has {pointer!r}, which is no JSON Pointer (RFC 6901)", code="invalid_patch")


def _same_scalar(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")
