"""Parts of rivals that a params.yaml of release 0.1 has under keys with dots, written under their method."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipelines.recipes.nested import dotted
from pipelines.roundtrip import CommentedBase, CommentedMap, load_document
from pipelines.upkeep.yaml_lines import Place, mapping_at, rewritten, value_at


def nested_parts(text: str) -> str:
    """Return a params.yaml with ``lora: {rank: 8}`` for ``lora.rank: 8``, values and comments kept."""
    for place, _ in _places(load_document(text)):
        document = load_document(text)
        old = [mapping for at, mapping in _places(document) if at == place and dotted(mapping)]
        for mapping in old:
            for method in dict.fromkeys(key.partition(".")[0] for key in dotted(mapping)):
                _nest(mapping, method)
        if old:
            text = rewritten(text, document, place)
    return text


def _places(document: CommentedMap) -> Iterator[tuple[Place, CommentedMap]]:
    """Each mapping that is by parts, and the key of the file that it stands under."""
    place: Place = ("search", "space")
    space = mapping_at(document, place)
    if space is not None:
        conditions = [mapping_at(domain, ("when",)) for domain in space.values()]
        yield from ((place, mapping) for mapping in (space, *conditions) if mapping is not None)
    place = ("search", "enqueue")
    entries = value_at(document, place)
    yield from ((place, entry) for entry in entries or () if isinstance(entry, CommentedMap))
    place = ("compare", "methods")
    for name in mapping_at(document, place) or ():
        parts = mapping_at(document, (*place, name, "parts"))
        if parts is not None:
            yield (*place, name), parts


def _nest(mapping: CommentedMap, method: str) -> None:
    """Move the parts of a method into a mapping under its name, at the first one's place; what is there already stays.

    A single part on one line gives one line.
    """
    keys = [key for key in dotted(mapping) if key.partition(".")[0] == method]
    place, inner = list(mapping).index(keys[0]), mapping.get(method)
    one_line = inner is None and len(keys) == 1 and _is_short(mapping[keys[0]])
    if not isinstance(inner, CommentedMap):
        inner = CommentedMap()
        mapping.insert(place, method, inner)
    if one_line:
        inner.fa.set_flow_style()
    for key in keys:
        own = key.partition(".")[2]
        inner[own], comment = mapping.pop(key), mapping.ca.items.pop(key, None)
        if comment is None:
            continue
        holder, name = (mapping, method) if one_line else (inner, own)
        holder.ca.items[name] = comment
        if one_line and isinstance(inner[own], CommentedBase):
            inner[own].ca.comment = None  # ruamel has it twice, and would write it within the brackets


def _is_short(value: Any) -> bool:
    """Whether a value is written on one line."""
    style = getattr(value, "fa", None)
    return style is None or bool(style.flow_style())
