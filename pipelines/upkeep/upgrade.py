"""``reft upgrade``: params.yaml, and dvc.yaml of a folder without code, of an earlier release brought up to date.

What is missing is what the rules of params.yaml say is missing, and its value and comment are those of the params.yaml
that comes with the package; so a new key needs nothing here. A key that a release moved stands in ``MOVES``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml.comments import CommentedMap

from pipelines.errors import PipelineError
from pipelines.files import write_text
from pipelines.params.explain import steps
from pipelines.params.whole import Params, check_params
from pipelines.project.code import holds_no_code, project_graph, refresh_code, shipped
from pipelines.recipes.methods.reft import SEARCHED
from pipelines.roundtrip import dump_document, load_document, set_section
from pipelines.yaml_file import parse_yaml, read_yaml

Place = tuple[str, ...]  # the keys from the top of the file down to one
SPACE: Place = ("search", "space")
# Where a key stood in an earlier release, and where it stands now.
MOVES: dict[Place, Place] = {}
ROUNDS = 10  # of looking what is still missing: a section that is added may ask for a range in search.space


class _Source:
    """The params.yaml that comes with the package: its lines, and what they say with its comments."""

    def __init__(self, text: str) -> None:
        self.lines, self.document = text.splitlines(), load_document(text)


@dataclass(frozen=True)
class FileChange:
    """The text of a file of the project before and after the upgrade."""

    name: str
    before: str
    after: str

    def diff(self) -> str:
        """The difference, as `diff -u` shows it."""
        before, after = (text.splitlines(keepends=True) for text in (self.before, self.after))
        return "".join(difflib.unified_diff(before, after, f"{self.name} (now)", f"{self.name} (upgraded)"))


def upgrade(root: Path) -> list[FileChange]:
    """Return what would change in the project's files; nothing is written.

    Raises:
        PipelineError: if params.yaml breaks rules that the upgrade knows no remedy for.
    """
    changes = [_change(root, "params.yaml", upgraded_params)]
    if holds_no_code(root):
        changes.append(_change(root, "dvc.yaml", upgraded_graph))
    return [change for change in changes if change.before != change.after]


def write_upgrade(root: Path, changes: Sequence[FileChange]) -> None:
    """Write the changed files, and code.json with them."""
    for change in changes:
        write_text(root / change.name, change.after)
    refresh_code(root)


def upgraded_params(text: str) -> str:
    """Return a params.yaml with what it lacks, each key in its place with its comment; all else stays as it is.

    Raises:
        PipelineError: if it breaks rules that the upgrade knows no remedy for.
    """
    source = _Source(shipped("params.yaml").read_text(encoding="utf-8"))
    for old, new in MOVES.items():
        text = _moved(text, source, old, new)
    for _ in range(ROUNDS):
        found = dict(_addable(text, source.document))
        if not found:
            break
        for place, example in found.items():
            text = _added(text, source, place, example)
    check_params(parse_yaml(text, "params.yaml"), "params.yaml, with all that the upgrade knows,")
    return text


def upgraded_graph(text: str) -> str:
    """Return the dvc.yaml that a new folder would get, with the paths that this one names."""
    document, own = load_document(project_graph()), load_document(text)
    paths: Any = next((entry["paths"] for entry in own.get("vars", []) if "paths" in entry), {})
    known = next(entry["paths"] for entry in document["vars"] if "paths" in entry)
    set_section(known, dict(paths))
    return dump_document(document)


def _change(root: Path, name: str, upgraded: Any) -> FileChange:
    read_yaml(root / name)  # refuses what a safe reader must not take
    before = (root / name).read_text(encoding="utf-8")
    return FileChange(name, before, upgraded(before))


# --- what is missing -------------------------------------------------------------------------------------------------


def _addable(text: str, known: CommentedMap) -> Iterator[tuple[Place, Place]]:
    """The missing keys: where each belongs, and where the shipped file has it."""
    raw = parse_yaml(text, "params.yaml")
    try:
        Params.model_validate(raw)
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            place = tuple(steps(problem["loc"], Params))
            example = _example(known, place) if problem["type"] == "missing" else None
            if example is not None:
                yield place, example
    yield from _unsearched(raw, known)


def _example(known: Any, place: Place) -> Place | None:
    """Where the shipped file has such a key; of mappings whose keys are the user's, in any entry of its own."""
    if not place:
        return ()
    if not isinstance(known, Mapping):
        return None
    head, *rest = place
    for key in [head] if head in known else list(known) if rest else []:
        found = _example(known[key], tuple(rest))
        if found is not None:
            return (key, *found)
    return None


def _unsearched(raw: Any, known: Any) -> Iterator[tuple[Place, Place]]:
    """Parts that params.yaml leaves to the search, and that its space lacks: with the range of the shipped one.

    Other methods' parts too, which no rule asks for while another method is trained: the shipped file has them.
    """
    if not isinstance(raw, dict):
        return
    for part in _searched_parts(raw):
        for place in ((*SPACE, ".".join(part)), (*SPACE, *part)):
            if _value(known, place) is not None and _value(raw, place) is None and _value(raw, SPACE) is not None:
                yield place, place
                break


def _searched_parts(raw: Mapping[str, Any]) -> Iterator[Place]:
    for section in ("train", "method"):
        for key, value in (raw.get(section) or {}).items():
            if value == SEARCHED:
                yield (key,)
            elif isinstance(value, Mapping):
                yield from ((key, inner) for inner, found in value.items() if found == SEARCHED)


def _is_there(raw: Any, place: Place) -> bool:
    parent = _value(raw, place[:-1])
    return isinstance(parent, Mapping) and place[-1] in parent


def _value(raw: Any, place: Place) -> Any:
    for key in place:
        raw = raw.get(key) if isinstance(raw, Mapping) else None
    return raw


# --- editing lines ---------------------------------------------------------------------------------------------------


def _added(text: str, source: _Source, place: Place, example: Place) -> str:
    """The text with one key more: the lines of the shipped file, behind those of the key that is before it there."""
    document, known = load_document(text), source.document
    depth = next(n for n in range(1, len(place) + 1) if not _is_there(document, place[:n]))
    place, example = place[:depth], example[:depth]
    parent, there = _mapping(document, place[:-1]), _mapping(known, example[:-1])
    if parent is None or there is None:
        raise PipelineError("params.yaml must have mappings where the shipped one has them", got=".".join(place[:-1]))
    if parent.fa.flow_style() or there.fa.flow_style():
        return _with_value(text, document, place, there[example[-1]])
    names = list(there)
    before = [name for name in names[: names.index(example[-1])] if name in parent]
    lines, block = text.splitlines(), _block(source.lines, known, example)
    shift = _column(parent) - there.lc.key(example[-1])[1]
    block = [" " * shift + line if shift > 0 and line else line[-shift:] if shift < 0 else line for line in block]
    at = _span(lines, document, (*place[:-1], before[-1]))[1] if before else parent.lc.line
    if len(place) == 1:
        block = ["", *block] if before else [*block, ""]
    return "\n".join([*lines[:at], *block, *lines[at:]]) + "\n"


def _with_value(text: str, document: CommentedMap, place: Place, value: Any) -> str:
    """The text with a key in a mapping that is on one line: only the lines of that mapping are written anew."""
    parent = _mapping(document, place[:-1])
    assert parent is not None
    parent[place[-1]] = value
    owner = next(place[:n] for n in range(1, len(place)) if (_mapping(document, place[:n]) or parent).fa.flow_style())
    written = dump_document(document)
    lines = text.splitlines()
    start, end = _span(lines, load_document(text), owner)
    return (
        "\n".join([*lines[:start], *_block(written.splitlines(), load_document(written), owner), *lines[end:]]) + "\n"
    )


def _moved(text: str, source: _Source, old: Place, new: Place) -> str:
    """The text with a value in its new place, behind the shipped comment; none if the old place has none."""
    document = load_document(text)
    value = _value(document, old)
    if value is None:
        return text
    lines = text.splitlines()
    start, end = _span(lines, document, old)
    text = _added("\n".join([*lines[:start], *lines[end:]]) + "\n", source, new, new)
    document = load_document(text)
    parent = _mapping(document, new[:-1])
    assert parent is not None
    set_section(parent, {new[-1]: value})
    return dump_document(document)


def _mapping(document: Any, place: Place) -> CommentedMap | None:
    found = _value(document, place)
    return found if isinstance(found, CommentedMap) else None


def _block(lines: list[str], document: CommentedMap, place: Place) -> list[str]:
    start, end = _span(lines, document, place)
    return lines[start:end]


def _column(mapping: CommentedMap) -> int:
    return int(mapping.lc.key(next(iter(mapping)))[1])


def _span(lines: list[str], document: CommentedMap, place: Place) -> tuple[int, int]:
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
