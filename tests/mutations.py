"""Hypothesis strategies that take something sound and spoil it: trees of plain values, and bytes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**40), 10**40),
    st.floats(),
    st.text(max_size=12),
)


def values(words: Sequence[object] = ()) -> st.SearchStrategy[Any]:
    """Plain values, nested a little; ``words`` are likely to be among them."""
    leaves = st.one_of(SCALARS, st.sampled_from(list(words))) if words else SCALARS
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
        max_leaves=6,
    )


@st.composite
def mutated(draw: st.DrawFn, tree: Any, words: Sequence[object] = ()) -> Any:
    """A copy of a tree of dicts, lists and scalars with up to four places changed, taken away, renamed or doubled."""
    found = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 4))):
        place, key = draw(st.sampled_from(_places(found)))
        action = draw(st.sampled_from(("change", "remove", "rename", "insert")))
        if action == "remove":
            del place[key]
        elif action == "change" or isinstance(place, list):
            place[key] = draw(values(words))
        elif action == "rename":
            place[draw(st.text(max_size=8))] = place.pop(key)
        else:
            place[draw(st.text(max_size=8))] = draw(values(words))
        if not found:
            break
    return found


@st.composite
def edited(draw: st.DrawFn, data: bytes, tokens: Sequence[bytes] = ()) -> bytes:
    """A copy of ``data`` with up to six stretches replaced, taken away, doubled or filled with something else."""
    result = bytearray(data)
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(result)))
        stop = min(len(result), start + draw(st.sampled_from((0, 1, 2, 4, 16, 64, 1 << 20))))
        pieces = [st.binary(max_size=8), st.just(b""), st.just(bytes(result[start:stop]) * 2)]
        if tokens:
            pieces.append(st.sampled_from(list(tokens)))
        result[start:stop] = draw(st.one_of(pieces))
    return bytes(result)


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key or index) in a tree."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else []
    return [place for key in keys for place in ((tree, key), *_places(tree[key]))]
