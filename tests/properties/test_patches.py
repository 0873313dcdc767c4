"""Laws of patches: merge patches, JSON patches, their making, and the three-way merge."""

import copy
import json
from typing import Any

import jsonpatch
import pytest
from hypothesis import assume, given, strategies

from app.errors import Conflict, MillstreamError
from app.workflow.encoding import escape
from app.workflow.patches import apply_patch, diff, merge_changes, merge_patch, read_patch, same
from tests.properties.documents import DOCUMENTS, KEYS, SIMILAR, SIMILAR_OBJECTS


def text(document: Any) -> str:
    """The document as JSON: what makes 1, 1.0 and true three values."""
    return json.dumps(document, sort_keys=True)


@given(DOCUMENTS | SIMILAR, DOCUMENTS | SIMILAR)
def test_a_diff_applied_to_the_one_is_the_other(before: Any, after: Any) -> None:
    operations = diff(before, after)
    assert text(apply_patch(before, read_patch(operations))) == text(after)


@given(SIMILAR, SIMILAR)
def test_other_implementations_apply_our_diffs_alike(before: Any, after: Any) -> None:
    operations = diff(before, after)
    assert text(jsonpatch.apply_patch(copy.deepcopy(before), operations)) == text(after)


@given(SIMILAR, SIMILAR)
def test_we_apply_diffs_of_other_implementations_alike(before: Any, after: Any) -> None:
    operations = jsonpatch.make_patch(before, after).patch
    assume(all(operation["path"] or operation["op"] != "remove" for operation in operations))
    expected = jsonpatch.apply_patch(copy.deepcopy(before), operations)
    assert text(apply_patch(before, read_patch(operations))) == text(expected)


@given(DOCUMENTS)
def test_a_document_does_not_differ_from_itself(document: Any) -> None:
    assert diff(document, copy.deepcopy(document)) == []
    assert same(document, copy.deepcopy(document))


@given(SIMILAR, SIMILAR)
def test_a_diff_is_empty_just_when_the_two_are_the_same(one: Any, other: Any) -> None:
    assert (diff(one, other) == []) == same(one, other) == (text(one) == text(other))


@given(SIMILAR, SIMILAR, SIMILAR)
def test_nothing_changes_its_arguments(one: Any, two: Any, three: Any) -> None:
    before = copy.deepcopy((one, two, three))
    apply_patch(one, diff(one, two))
    merge_patch(one, two)
    merge_changes(one, two, three)
    assert text((one, two, three)) == text(before)


POINTERS = strategies.lists(KEYS, max_size=3).map(lambda keys: "".join(f"/{escape(key)}" for key in keys))
OPERATIONS = strategies.one_of(
    strategies.fixed_dictionaries(
        {"op": strategies.sampled_from(["add", "replace", "test"]), "path": POINTERS, "value": SIMILAR}
    ),
    strategies.fixed_dictionaries({"op": strategies.just("remove"), "path": POINTERS}),
    strategies.fixed_dictionaries(
        {"op": strategies.sampled_from(["move", "copy"]), "from": POINTERS, "path": POINTERS}
    ),
)


@given(SIMILAR_OBJECTS, strategies.lists(OPERATIONS, max_size=5))
def test_a_patch_applies_as_a_whole_or_fails_as_one_of_ours(document: Any, operations: list[Any]) -> None:
    before = copy.deepcopy(document)
    try:
        after = apply_patch(document, read_patch(operations))
    except MillstreamError:
        after = None
    assert text(document) == text(before)
    assume(after is not None)
    single = document
    for operation in operations:
        single = apply_patch(single, [operation])
    assert text(single) == text(after)


@given(SIMILAR_OBJECTS, OPERATIONS)
def test_we_agree_with_another_implementation_on_every_operation(document: Any, operation: Any) -> None:
    """But where RFC 6902 leaves it open, or the other is known to be lax: the root, indexes, and equal numbers."""
    assume(operation["path"] and operation.get("from", "/x"))
    try:
        theirs: Any = ("is", text(jsonpatch.apply_patch(copy.deepcopy(document), [operation])))
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError):
        theirs = ("fails", None)
    try:
        ours: Any = ("is", text(apply_patch(document, read_patch([operation]))))
    except MillstreamError:
        ours = ("fails", None)
    if operation["op"] == "test":
        assume("True" not in repr(operation["value"]))  # there, true is 1
        assume("1" not in repr(operation["value"]))
    assume(not _walks_through_text(document, operation))
    assert ours == theirs


def _walks_through_text(document: Any, operation: Any) -> bool:
    """Whether a pointer leads into a string or past the end by `-`, where the other goes on or fails elsewhere."""
    for pointer in (operation["path"], operation.get("from", "")):
        value = document
        for escaped in pointer.split("/")[1:]:
            token = escaped.replace("~1", "/").replace("~0", "~")
            if isinstance(value, str) or (isinstance(value, list) and token == "-"):
                return True
            if isinstance(value, dict) and token in value:
                value = value[token]
            elif isinstance(value, list) and token.isdigit() and int(token) < len(value):
                value = value[int(token)]
            else:
                break
    return False


@given(SIMILAR, SIMILAR)
def test_a_merge_patch_applied_twice_is_applied_once(target: Any, patch: Any) -> None:
    once = merge_patch(target, patch)
    assert text(merge_patch(once, patch)) == text(once)


@given(SIMILAR, SIMILAR)
def test_a_merge_patch_is_what_the_rfc_writes_down(target: Any, patch: Any) -> None:
    def rfc_7396(target: Any, patch: Any) -> Any:
        if not isinstance(patch, dict):
            return patch
        if not isinstance(target, dict):
            target = {}
        for name, value in patch.items():
            if value is None:
                target.pop(name, None)
            else:
                target[name] = rfc_7396(target.get(name), value)
        return target

    assert text(merge_patch(target, patch)) == text(rfc_7396(copy.deepcopy(target), copy.deepcopy(patch)))


@given(SIMILAR, SIMILAR)
def test_who_alone_has_changed_something_gets_it(base: Any, changed: Any) -> None:
    assert text(merge_changes(base, changed, base)) == text((changed, []))
    assert text(merge_changes(base, base, changed)) == text((changed, []))
    assert text(merge_changes(base, changed, changed)) == text((changed, []))


@given(SIMILAR_OBJECTS, SIMILAR_OBJECTS, SIMILAR_OBJECTS)
def test_what_only_one_side_changed_is_as_that_side_has_it(base: Any, mine: Any, theirs: Any) -> None:
    merged, _ = merge_changes(base, mine, theirs)
    absent = object()
    for key in base | mine | theirs:
        before, one, other = (document.get(key, absent) for document in (base, mine, theirs))
        after = merged.get(key, absent)
        if _alike(other, before, absent):
            assert _alike(after, one, absent)
        elif _alike(one, before, absent):
            assert _alike(after, other, absent)


@given(SIMILAR_OBJECTS, SIMILAR_OBJECTS, SIMILAR_OBJECTS)
def test_a_conflict_is_a_place_where_both_differ_and_mine_is_there(base: Any, mine: Any, theirs: Any) -> None:
    merged, conflicts = merge_changes(base, mine, theirs)
    assert len(set(conflicts)) == len(conflicts)
    for path in conflicts:
        assert _at(theirs, path) != _at(base, path)
        assert _at(mine, path) != _at(base, path)
        assert _at(mine, path) != _at(theirs, path)
        assert _at(merged, path) == _at(mine, path)


@given(SIMILAR_OBJECTS, SIMILAR_OBJECTS, SIMILAR_OBJECTS)
def test_without_conflicts_the_two_sides_are_alike(base: Any, mine: Any, theirs: Any) -> None:
    merged, conflicts = merge_changes(base, mine, theirs)
    turned, others = merge_changes(base, theirs, mine)
    assert bool(conflicts) == bool(others)
    if not conflicts:
        assert _as_sets(merged) == _as_sets(turned)


def _alike(one: Any, other: Any, absent: object) -> bool:
    if one is absent or other is absent:
        return one is other
    return text(one) == text(other)


def _at(document: Any, path: str) -> str:
    """What stands there as text, "absent" for nothing."""
    try:
        apply_patch(document, [{"op": "copy", "from": path, "path": ""}])
    except Conflict:
        return "absent"
    return text(apply_patch(document, [{"op": "copy", "from": path, "path": ""}]))


def _as_sets(document: Any) -> str:
    """The document without the order of its lists: what both appended may stand in either."""
    if isinstance(document, dict):
        return text({key: _as_sets(value) for key, value in document.items()})
    if isinstance(document, list):
        return text(sorted(_as_sets(element) for element in document))
    return text(document)


@pytest.mark.parametrize("one", [1, 1.0, True, "1", None, 0, False, 0.0, "", [], {}])
def test_values_of_different_types_are_never_the_same(one: Any) -> None:
    others = [other for other in [1, 1.0, True, "1", None, 0, False, 0.0, "", [], {}] if type(other) is not type(one)]
    assert not any(same(one, other) for other in others)
