"""A YAML file by its lines: where a key stands, and one part written anew while all other lines stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.roundtrip import CommentedMap, dump_document, load_document

Place = tuple[str, ...]  # the keys from the top of the file down to one


def value_at(raw: Any, place: Place) -> Any:
    """What stands at a place; None if nothing does."""
    for key in place:
        raw = raw.get(key) if isinstance(raw, Mapping) else None
    return raw


def mapping_at(document: Any, place: Place) -> CommentedMap | None:
    """The mapping that stands at a place; None if none does."""
    found = value_at(document, place)
    return found if isinstance(found, CommentedMap) else None


def block_of(lines: list[str], document: CommentedMap, place: Place) -> list[str]:
    """The lines of a key, as :func:`span_of` says."""
    start, end = span_of(lines, document, place)
    return lines[start:end]


def span_of(lines: list[str], document: CommentedMap, place: Place) -> tuple[int, int]:
    """The lines of a key of a block mapping: from its own to the last that is its, with comments further in."""
    start, column, end = 0, 0, len(lines)
    found: Any = document
    for key in place:
        names = list(found)
        start, column = found.lc.key(key)
        later = names[names.index(key) + 1 :]
        if later:
            end = found.lc.key(later[0])[0]
        found = found[key]
    while end > start + 1 and _is_outside(lines[end - 1], column):
        end -= 1
    return start, end


def _is_outside(line: str, column: int) -> bool:
    """Whether a line between two keys is none of the upper one's: empty, or a comment no further in than the keys."""
    bare = line.lstrip()
    return not bare or (bare.startswith("#") and len(line) - len(bare) <= column)


def rewritten(text: str, document: CommentedMap, place: Place) -> str:
    """The text with what the changed document has at a place; of what is on one line, the whole line.

    Args:
        text: that the document was read from.
        document: with the change.
        place: that it has changed at, or below.
    """
    owner = next((place[:n] for n in range(1, len(place)) if _on_one_line(document, place[:n])), place)
    lines, written = text.splitlines(), dump_document(document)
    start, end = span_of(lines, load_document(text), owner)
    block = block_of(written.splitlines(), load_document(written), owner)
    return "\n".join([*lines[:start], *block, *lines[end:]]) + "\n"


def _on_one_line(document: CommentedMap, place: Place) -> bool:
    found = mapping_at(document, place)
    return found is not None and bool(found.fa.flow_style())
