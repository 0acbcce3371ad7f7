"""Changing a YAML file as an editor would: comments, order and all that is not changed stay as they are."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedBase, CommentedMap, CommentedSeq
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from pipelines.yaml_file import NEVER_FOLDED, needs_quotes

__all__ = [
    "CommentedBase",
    "CommentedMap",
    "dump_document",
    "exchange_keys",
    "load_document",
    "section_text",
    "set_section",
]


ON_A_LINE = 10  # keys of a mapping; one with more has a line for each


class _Representer(RoundTripRepresenter):
    """Writes None as ``null``; ruamel's own leaves the place empty."""


_Representer.add_representer(
    type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
)


def load_document(text: str) -> CommentedMap:
    """Read a YAML mapping with its comments; the text is one that :func:`pipelines.yaml_file.parse_yaml` accepts."""
    return _yaml().load(text)


def dump_document(document: CommentedMap) -> str:
    """Write a document back: unchanged parts come out as they went in, in the style of params.yaml."""
    out = io.StringIO()
    _yaml().dump(document, out)
    return out.getvalue()


def set_section(section: CommentedMap, values: Mapping[str, Any]) -> None:
    """Set keys of a section; each keeps its place and its comment.

    A value that equals the old one is left as it is written. A mapping of mappings (prepare.labels) is written with one
    inner mapping a line, and its lines take over the comments of the old ones in their order.
    """
    for key, value in values.items():
        if key in section and section[key] == value:
            continue
        old = section.get(key)
        section[key] = _styled(value)
        if isinstance(old, CommentedMap) and isinstance(section[key], CommentedMap):
            _take_comments(old, section[key])


def exchange_keys(section: CommentedMap, known: Collection[str], values: Mapping[str, Any]) -> None:
    """Take what is not known out of a section, with its comments, and put the new keys of some values in its place.

    Where nothing stands before that, they come behind what stays.
    """
    unknown = [key for key in section if key not in known]
    place = list(section).index(unknown[0]) if unknown else 0
    for key in unknown:
        del section[key]
    place = place or len(section)
    for key in reversed([key for key in values if key not in section]):
        section.insert(place, key, _styled(values[key]))


def section_text(document: CommentedMap, name: str) -> str:
    """One section as it stands in the file, without what follows it."""
    lines = dump_document(document).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"{name}:"))
    end = next((n for n in range(start + 1, len(lines)) if lines[n] and not lines[n].startswith(" ")), len(lines))
    return "\n".join(lines[start:end]).rstrip() + "\n"


def _yaml() -> YAML:
    parser = YAML()
    parser.Representer = _Representer
    parser.preserve_quotes = True
    parser.width = NEVER_FOLDED
    parser.indent(mapping=2, sequence=4, offset=2)
    return parser


def _styled(value: Any) -> Any:
    """The value in the style of params.yaml: lists and small innermost mappings on one line."""
    if isinstance(value, Mapping):
        styled = CommentedMap({_text(key): _styled(inner) for key, inner in value.items()})
        if len(value) <= ON_A_LINE and not any(isinstance(inner, Mapping) for inner in value.values()):
            styled.fa.set_flow_style()
        return styled
    if isinstance(value, Sequence) and not isinstance(value, str):
        line = CommentedSeq(_styled(inner) for inner in value)
        line.fa.set_flow_style()
        return line
    return _text(value) if isinstance(value, str) else value


def _text(value: str) -> str:
    return DoubleQuotedScalarString(value) if needs_quotes(value) else value


def _take_comments(old: CommentedMap, new: CommentedMap) -> None:
    new.ca.comment = old.ca.comment  # the one after the key itself
    for before, after in zip(old, new, strict=False):
        if before in old.ca.items:
            new.ca.items[after] = old.ca.items[before]
