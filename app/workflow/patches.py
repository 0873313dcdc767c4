"""Changes to JSON documents: merge patches (RFC 7396), JSON patches (RFC 6902), their making, and the three-way merge.

No function changes its arguments: results share every untouched branch with them, so that applying costs in proportion
to the change, and comparing two documents skips what they share.
"""

import re
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from app.errors import Conflict, Invalid, TooLarge
from app.workflow.encoding import MAX_DEPTH, encode, escape

Operation: TypeAlias = dict[str, Any]
"""One operation of RFC 6902: `{"op": "replace", "path": "/a/0", "value": 1}`."""


MAX_OPERATIONS = 10_000
"""Of one JSON patch."""
MAX_MOVED = 5_000_000
"""Elements of lists and objects that one JSON patch may move."""
ITEMIZED = 256
"""Changes of one list or object that are always written one by one."""
COUNTED_LEVELS = 4
"""How deep the changes of an object are counted before they are written: each level looks through all below it."""
OPERATION_BYTES = 40
"""What an operation is in writing, beside its value."""
SHOWN_CHARACTERS = 200
"""Of a pointer, in a message."""
SCALARS = frozenset({str, int, float, bool, type(None)})


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
    With that bound, work is bounded too: TooLarge past either.
    """
    copied, edited = 0, _Edited(document)
    for number, operation in enumerate(operations):
        if max_copied_bytes is not None and operation["op"] == "copy":
            copied += _copied_bytes(edited.document, operation)
            if copied > max_copied_bytes:
                raise TooLarge(f"the patch copies more than {max_copied_bytes} bytes", code="state_too_large")
        try:
            edited.apply(operation)
        except Conflict as conflict:
            path = operation["path"][:SHOWN_CHARACTERS]
            raise Conflict(
                f"operation {number} ({operation['op']} {path!r}): {conflict.message}",
                code=conflict.problem_code,
                operation=number,
            ) from None
        if max_copied_bytes is not None and edited.moved > MAX_MOVED:
            raise TooLarge(
                f"the patch moves too many elements, by operation {number}; replace the list or object as a whole",
                code="patch_too_large",
            )
    return edited.document


def read_patch(patch: Any) -> list[Operation]:
    """The operations of a JSON patch document that came from outside; raises Invalid when it is none."""
    if not isinstance(patch, list):
        raise Invalid(f"a JSON patch is a list of operations, not {_kind(patch)}", code="invalid_patch")
    if len(patch) > MAX_OPERATIONS:
        raise TooLarge(f"the patch has {len(patch)} operations; send {MAX_OPERATIONS} at most", code="patch_too_large")
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
    if len(after) > ITEMIZED and path.count("/") < COUNTED_LEVELS:
        changed = sum(_differs(before.get(key, MISSING), value) for key, value in after.items()) + len(gone)
        if _cheaper_whole(changed, after, path):
            return [{"op": "replace", "path": path, "value": after}]
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
    head = _same_until(before, after)
    tail = min(_same_until(before[::-1], after[::-1]), shorter - head)
    old, new = before[head : len(before) - tail], after[head : len(after) - tail]
    if _cheaper_whole(max(len(old), len(new)), after, path):
        return [{"op": "replace", "path": path, "value": after}]
    both = min(len(old), len(new))
    operations: list[Operation] = []
    for index in range(both):
        operations += diff(old[index], new[index], f"{path}/{head + index}")
    operations += [{"op": "remove", "path": f"{path}/{head + both}"} for _ in old[both:]]
    operations += [
        {"op": "add", "path": f"{path}/{index}", "value": value} for index, value in enumerate(new[both:], head + both)
    ]
    return operations


def _cheaper_whole(changes: int, after: Any, path: str) -> bool:
    """Whether so many changes are longer than what they lead to: a list of numbers is, up to twenty times."""
    return changes > ITEMIZED and changes * (OPERATION_BYTES + len(path)) > len(encode(after))


def _differs(one: Any, other: Any) -> bool:
    """Whether two values are different for sure: what only differs as 1 and 1.0 do may pass as equal here."""
    return one is not other and (type(one) is not type(other) or bool(one != other))


def _same_until(before: list[Any], after: list[Any]) -> int:
    """How many elements two lists have in common from the beginning; long runs of plain values are compared at once."""
    shorter, at = min(len(before), len(after)), 0
    while at < shorter:
        one, other = before[at : at + ITEMIZED], after[at : at + ITEMIZED]
        kinds = list(map(type, one))
        if one == other and SCALARS.issuperset(kinds) and kinds == list(map(type, other)):
            at += len(one)
            continue
        end = min(at + ITEMIZED, shorter)
        while at < end:
            if not same(before[at], after[at]):
                return at
            at += 1
    return shorter


class _Edited:
    """A document under change: a list or object on the way to a change is copied once, and changed in place after."""

    def __init__(self, document: Any) -> None:
        self.document = document
        self.moved = 0
        """Elements that were copied, or moved to make or fill a gap."""
        self._own: dict[int, Any] = {}
        """The copies by their identity, held so that it stays theirs; nothing else refers to them."""

    def apply(self, operation: Operation) -> None:
        """Do what one operation says; raises Conflict where it cannot be done."""
        kind, path = operation["op"], _tokens(operation["path"])
        if kind == "test":
            if not _equal(_get(self.document, path), operation["value"]):
                raise Conflict("the value there is another one", code="patch_test_failed")
        elif kind == "copy":
            value = _get(self.document, _tokens(operation["from"]))
            self._own.clear()  # what is copied is in two places from now on
            self._add(path, value)
        elif kind == "move":
            source = _tokens(operation["from"])
            value = _get(self.document, source)
            if source != path:
                self._remove(source)
                self._add(path, value)
        elif kind == "add":
            self._add(path, operation["value"])
        elif kind == "replace":
            self._replace(path, operation["value"])
        else:
            self._remove(path)

    def _add(self, path: Sequence[str], value: Any) -> None:
        if not path:
            self.document = value
            return
        parent, token = self._parent(path), path[-1]
        if isinstance(parent, dict):
            parent[token] = value
        elif isinstance(parent, list):
            place = len(parent) if token == "-" else _index(token)
            if place > len(parent):
                raise Conflict(f"index {place} is past the end of a list of {len(parent)}", code="patch_path_missing")
            self.moved += len(parent) - place
            parent.insert(place, value)
        else:
            raise Conflict(f"{_kind(parent)} holds nothing", code="patch_path_missing")

    def _replace(self, path: Sequence[str], value: Any) -> None:
        if not path:
            self.document = value
            return
        parent = self._parent(path)
        parent[_place(parent, path[-1])] = value

    def _remove(self, path: Sequence[str]) -> None:
        if not path:
            self.document = None
            return
        parent = self._parent(path)
        place = _place(parent, path[-1])
        self.moved += len(parent) - place if isinstance(parent, list) else 0
        del parent[place]

    def _parent(self, path: Sequence[str]) -> Any:
        """What holds the path's last token, and may be changed."""
        parent = self.document = self._owned(self.document)
        for token in path[:-1]:
            place = _place(parent, token)
            parent[place] = parent = self._owned(parent[place])
        return parent

    def _owned(self, value: Any) -> Any:
        if id(value) in self._own or not isinstance(value, dict | list):
            return value
        copy = value.copy()
        self._own[id(copy)] = copy
        self.moved += len(copy)
        return copy


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


def _place(parent: Any, token: str) -> Any:
    """The key or index of a token that must be there."""
    if isinstance(parent, dict):
        if token in parent:
            return token
        raise Conflict(f"there is no key {token[:SHOWN_CHARACTERS]!r}", code="patch_path_missing")
    if isinstance(parent, list):
        if token == "-":
            raise Conflict("nothing is past the end of the list", code="patch_path_missing")
        if (place := _index(token)) < len(parent):
            return place
        raise Conflict(f"there is no index {place} in a list of {len(parent)}", code="patch_path_missing")
    raise Conflict(f"there is no {token[:SHOWN_CHARACTERS]!r} in {_kind(parent)}", code="patch_path_missing")


def _index(token: str) -> int:
    if not _INDEX.fullmatch(token):
        raise Invalid(f"{token[:SHOWN_CHARACTERS]!r} is no index of a list: write 0, 1, 2 … or -", code="invalid_patch")
    return int(token)


def _tokens(pointer: str) -> list[str]:
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def _check_operation(number: int, operation: Any) -> None:
    if not isinstance(operation, dict):
        raise Invalid(f"operation {number} is {_kind(operation)}, not an object", code="invalid_patch")
    kind = operation.get("op")
    if not isinstance(kind, str) or kind not in _MEMBERS:
        raise Invalid(
            f"operation {number} has op {str(kind)[:SHOWN_CHARACTERS]!r}; known are {', '.join(_MEMBERS)}",
            code="invalid_patch",
        )
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
        raise Invalid(
            f"operation {number} moves {operation['from'][:SHOWN_CHARACTERS]!r} into itself", code="invalid_patch"
        )


def _check_pointer(number: int, pointer: Any) -> None:
    if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")) or re.search("~(?![01])", pointer):
        shown = repr(pointer)[:SHOWN_CHARACTERS]
        raise Invalid(f"operation {number} has {shown}, which is no JSON Pointer (RFC 6901)", code="invalid_patch")
    if pointer.count("/") > MAX_DEPTH:
        raise Invalid(f"operation {number} has a pointer of more than {MAX_DEPTH} levels", code="invalid_patch")


def _same_scalar(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")
