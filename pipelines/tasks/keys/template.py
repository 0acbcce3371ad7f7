"""Prompt templates: text with columns' names in braces, which may be any names."""

from __future__ import annotations

import re
from collections.abc import Mapping

# A doubled brace is one; {name} is the column of that name, whatever stands in it but braces and line ends.
_PIECE = re.compile(r"(\{\{|\}\})|\{([^{}\r\n]+)\}|([{}])")


def template_fields(template: str) -> list[str]:
    """Return the names of the columns in a template, in its order; a column that stands in it twice comes twice.

    Raises:
        ValueError: for a brace that is neither doubled nor around a name.
    """
    fields = []
    for doubled, field, stray in _PIECE.findall(template):
        if stray or (field and not field.strip()):
            raise ValueError(
                "a placeholder is a column's name in braces, like {text} or {the text}, and a brace that is none is "
                f"doubled; got {template!r}"
            )
        if not doubled:
            fields.append(field)
    return fields


def text_fields(template: str, second: str | None) -> tuple[str, ...]:
    """Return the names of the columns in a template and in that of a second text, once each."""
    return tuple(dict.fromkeys([*template_fields(template), *([] if second is None else template_fields(second))]))


def fill_template(template: str, texts: Mapping[str, str]) -> str:
    """Put the texts of the columns into a template; nothing in a text is a placeholder.

    Args:
        template: one that :func:`template_fields` takes.
        texts: column -> text.
    """
    return _PIECE.sub(lambda piece: piece[1][0] if piece[1] else texts[piece[2]], template)
