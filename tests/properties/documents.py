"""Strategies of JSON documents."""

from typing import Any

from hypothesis import strategies

KEYS = strategies.sampled_from(["a", "b", "c", "", "a/b", "m~n", "~1", "0", "1", "-", "\u00fc", "\U0001f600", "\u2028"])
SCALARS: strategies.SearchStrategy[Any] = (
    strategies.none()
    | strategies.booleans()
    | strategies.integers(-(2**63), 2**64 - 1)
    | strategies.sampled_from([0, 1, 0.0, 1.0, -0.5])
    | strategies.floats(allow_nan=False, allow_infinity=False)
    | strategies.sampled_from(["", "x", "y", '"', "\\"])
    | strategies.text(strategies.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=5)
)


def nested(scalars: strategies.SearchStrategy[Any]) -> strategies.SearchStrategy[Any]:
    """Documents with these at their leaves."""
    return strategies.recursive(
        scalars,
        lambda inner: strategies.lists(inner, max_size=4) | strategies.dictionaries(KEYS, inner, max_size=4),
        max_leaves=12,
    )


DOCUMENTS = nested(SCALARS)
SIMILAR = nested(strategies.sampled_from([None, True, 0, 1, "x"]))
"""Documents with little variety: two of them have much in common."""
OBJECTS = strategies.dictionaries(KEYS, DOCUMENTS, max_size=5)
SIMILAR_OBJECTS = strategies.dictionaries(KEYS, SIMILAR, max_size=5)
