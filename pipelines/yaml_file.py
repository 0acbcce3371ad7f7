"""YAML files: read as DVC reads them, of bounded size, without aliases; written so that any reader has the same.

DVC decides by YAML 1.2 whether a parameter has changed, so a stage that went by YAML 1.1 could run with another value
than the one that DVC compared: `010` is ten in 1.2 and eight in 1.1, `1e-5` is a number in 1.2 alone; `on` and `yes`
are words there and truth values in 1.1. So one library reads for both.
"""

from __future__ import annotations

import io
from pathlib import Path

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)
from ruamel.yaml.resolver import implicit_resolvers

from pipelines.errors import PipelineError

MAX_BYTES = 1_000_000
MAX_DEPTH = 50  # collections in each other
VERSION = (1, 2)
NEVER_FOLDED = 1 << 20  # characters of a line
UNREADABLE = (YAMLError, ValueError)  # the latter for a number of thousands of digits, or a date that is none


def read_yaml(path: Path) -> object:
    """Read a YAML file safely.

    Raises:
        PipelineError: for a file that is missing, too large, not UTF-8, or no YAML, with the line.
    """
    here = "Run the command in the project's folder."
    if not path.exists():
        raise PipelineError("the file must exist", got=path, do=here)
    if not path.is_file():
        raise PipelineError(f"{path.name} must be a file", got=f"{path}, which is none", do=here)
    if (size := path.stat().st_size) > MAX_BYTES:
        raise PipelineError(f"{path.name} must not pass {MAX_BYTES} bytes", got=size, do="Is it another file?")
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path.name} must be UTF-8 text", got=error, do="Save it as UTF-8.") from None
    return parse_yaml(text, path.name)


def parse_yaml(text: str, name: str) -> object:
    """Return what a YAML text holds, by the library and the rules by which DVC reads it; ``name`` stands in the error.

    What DVC would take and a file of parameters has no need of is refused: aliases (a few of which can fill the
    memory), a key that is no plain word, a key given twice, a tag, and a directive, which could choose another YAML.

    Raises:
        PipelineError: if it is not readable, with the line.
    """
    try:
        _check_events(text)
        return YAML(typ="safe").load(text)
    except UNREADABLE as error:
        kind = "" if isinstance(error, YAMLError) else f"{type(error).__name__}: "
        detail = kind + " ".join(str(error).split())
        raise PipelineError(f"{name} must be readable YAML", got=detail, do="Correct that line.") from None


def dump_yaml(value: object, *, flow: bool = False) -> str:
    """Return YAML that says the value in 1.1 and in 1.2: a string that either takes for something else is quoted.

    Args:
        value: of plain types.
        flow: on one line, in brackets.
    """
    out = io.StringIO()
    yaml.dump(
        value, out, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=NEVER_FOLDED
    )
    return out.getvalue()


def needs_quotes(word: str) -> bool:
    """Whether YAML 1.1 or 1.2 takes a word without quotes for something else, by itself or in a list on one line."""
    return dump_yaml({"a": word}) != f"a: {word}\n" or dump_yaml([word], flow=True) != f"[{word}]\n"


class _Dumper(yaml.SafeDumper):
    """Knows the scalars of YAML 1.2 beside those of 1.1, and so which strings need quotes."""


for _versions, _tag, _pattern, _first in implicit_resolvers:
    if VERSION in _versions:
        _Dumper.add_implicit_resolver(_tag, _pattern, _first)


def _check_events(text: str) -> None:
    """Refuse what is in the text before anything is made of it; one event after another, however deep it is."""
    inside: list[int | None] = []  # of each open collection: the nodes so far of a mapping; None for a sequence
    seen: list[set[str]] = []  # the keys of each
    for event in YAML(typ="safe").parse(text):
        line = event.start_mark.line + 1
        if isinstance(event, DocumentStartEvent) and (event.version or event.tags):
            raise YAMLError(f"line {line}: directives (%YAML, %TAG) are not allowed")
        if isinstance(event, AliasEvent):
            raise YAMLError(f"line {line}: aliases (*name) are not allowed")
        if isinstance(event, ScalarEvent | CollectionStartEvent) and event.tag is not None:
            raise YAMLError(f"line {line}: tags ({event.tag}) are not allowed")
        if isinstance(event, NodeEvent) and inside and (nodes := inside[-1]) is not None:
            if nodes % 2 == 0:
                _check_key(event, seen[-1], line)
            inside[-1] = nodes + 1
        if isinstance(event, CollectionStartEvent):
            inside.append(0 if isinstance(event, MappingStartEvent) else None)
            seen.append(set())
            if len(inside) > MAX_DEPTH:
                raise YAMLError(f"line {line}: more than {MAX_DEPTH} collections in each other are not allowed")
        elif isinstance(event, CollectionEndEvent):
            inside.pop()
            seen.pop()


def _check_key(event: NodeEvent, seen: set[str], line: int) -> None:
    if not isinstance(event, ScalarEvent):
        raise YAMLError(f"line {line}: a key must be a plain word")
    if event.value in seen:
        raise YAMLError(f"line {line}: the key {event.value!r} is given twice")
    seen.add(event.value)
