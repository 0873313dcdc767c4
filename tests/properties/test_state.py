"""Laws of state documents: what they share, how they are counted, that nobody can change them."""

import copy
import json
from typing import Any

from hypothesis import given

from app.workflow.encoding import decode, encode
from app.workflow.patches import apply_patch, diff, merge_patch
from app.workflow.state import EMPTY, StateDocument
from tests.properties.documents import OBJECTS, SIMILAR_OBJECTS


@given(OBJECTS)
def test_a_document_is_its_value_and_knows_its_size(value: dict[str, Any]) -> None:
    document = EMPTY.changed_to(value)
    assert document.encoded == encode(value)
    assert document.size_bytes == len(document.encoded)
    assert json.dumps(document.root) == json.dumps(value)
    assert json.dumps(document.copy()) == json.dumps(value)


@given(SIMILAR_OBJECTS, SIMILAR_OBJECTS)
def test_a_changed_document_shares_what_did_not_change(before: dict[str, Any], after: dict[str, Any]) -> None:
    old = EMPTY.changed_to(before)
    new = old.changed_to(after)
    assert new.encoded == encode(after)
    for key in before.keys() & after.keys():
        if encode(before[key]) == encode(after[key]):
            assert new.root[key] is old.root[key]


@given(SIMILAR_OBJECTS, SIMILAR_OBJECTS)
def test_a_patched_document_is_as_if_it_were_made_anew(before: dict[str, Any], patch: dict[str, Any]) -> None:
    document = EMPTY.changed_to(before)
    merged = merge_patch(document.root, patch)
    assert document.grafted(merged).encoded == encode(merged)
    assert document.grafted(merged).size_bytes == len(encode(merged))
    patched = apply_patch(document.root, diff(before, patch))
    assert decode(document.grafted(patched).encoded) == patch
    assert document.encoded == encode(before)


@given(OBJECTS)
def test_a_copy_can_be_changed_without_changing_the_document(value: dict[str, Any]) -> None:
    document = EMPTY.changed_to(value)
    mine = document.copy()
    for key in list(mine):
        if isinstance(mine[key], dict):
            mine[key]["more"] = 1
        elif isinstance(mine[key], list):
            mine[key].append(1)
        else:
            mine[key] = object()
    mine.clear()
    assert document.encoded == encode(value)
    assert json.dumps(document.root) == json.dumps(value)


@given(OBJECTS)
def test_changing_what_a_document_was_made_of_changes_it_not(value: dict[str, Any]) -> None:
    mine = copy.deepcopy(value)
    document = StateDocument.of(mine)
    for key in list(mine):
        if isinstance(mine[key], list | dict):
            mine[key].clear()
        mine[key] = "other"
    assert json.dumps(document.root) == json.dumps(value)
