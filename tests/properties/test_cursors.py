"""Laws of the cursors of lists."""

from typing import Any

import pytest
from hypothesis import given, strategies

from app.errors import Invalid
from app.operations.cursors import cut_page, read_cursor, write_cursor

TEXTS = strategies.text(strategies.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)


@given(TEXTS, strategies.integers(0, 2**31 - 1))
def test_a_cursor_is_read_as_it_was_written(text: str, number: int) -> None:
    cursor = write_cursor(text, number)
    assert read_cursor(cursor, str, int) == [text, number]
    assert cursor.isascii()
    assert "=" not in cursor


@given(TEXTS)
def test_a_cursor_of_one_list_is_none_of_another(text: str) -> None:
    with pytest.raises(Invalid):
        read_cursor(write_cursor(text), int)
    with pytest.raises(Invalid):
        read_cursor(write_cursor(text), str, str)


@given(strategies.text(max_size=30))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    try:
        position = read_cursor(text, str)
    except Invalid:
        return
    assert [type(part) for part in position] == [str]


@given(strategies.lists(strategies.integers(), max_size=12), strategies.integers(1, 6))
def test_pages_are_the_list_in_pieces(rows: list[int], limit: int) -> None:
    seen: list[int] = []
    while True:
        page, cursor = cut_page(rows[len(seen) : len(seen) + limit + 1], limit, lambda row: f"after {row}")
        seen += page
        assert len(page) <= limit
        if cursor is None:
            break
        assert cursor == f"after {page[-1]}"
    assert seen == rows


@given(
    strategies.recursive(
        strategies.none() | strategies.booleans() | strategies.floats(allow_nan=False, allow_infinity=False) | TEXTS,
        strategies.lists,
    )
)
def test_no_forged_position_is_taken_for_another_type(position: Any) -> None:
    cursor = write_cursor(position)
    if isinstance(position, str):
        assert read_cursor(cursor, str) == [position]
    else:
        with pytest.raises(Invalid):
            read_cursor(cursor, str)
    with pytest.raises(Invalid):
        read_cursor(cursor, int)
