"""``reft upgrade``: params.yaml, and dvc.yaml of a folder without code, of an earlier release brought up to date.

What is missing is what the rules of params.yaml say is missing, and its value and comment are those of the params.yaml
that comes with the package; so a new key needs nothing here. What a release writes otherwise is
rewritten first.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipelines.errors import PipelineError
from pipelines.files import write_text
from pipelines.params.explain import steps
from pipelines.params.whole import ALONE, Params, check_params
from pipelines.project.code import holds_no_code, project_graph, refresh_code, shipped
from pipelines.recipes.methods.reft import SEARCHED
from pipelines.roundtrip import CommentedMap, dump_document, load_document, set_section
from pipelines.upkeep.nesting import nested_parts
from pipelines.upkeep.yaml_lines import Place, block_of, mapping_at, rewritten, span_of, value_at
from pipelines.yaml_file import parse_yaml, read_yaml

SPACE: Place = ("search", "space")
OTHER_KIND = {"predictions": (".jsonl", ".parquet")}
"""Paths of dvc.yaml whose file is of another kind since 0.1: the ending that it had, and that it has."""
ROUNDS = 10  # of looking what is still missing: a section that is added may ask for a range in search.space


class _Source:
    """The params.yaml that comes with the package: its lines, and what they say with their comments."""

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


def upgrade(root: Path, add: Sequence[str] = ()) -> list[FileChange]:
    """Return what would change in the project's files; nothing is written.

    Args:
        root: the project.
        add: sections of ``ALONE``, which may be left out, that are to be there.

    Raises:
        PipelineError: if params.yaml breaks rules that the upgrade knows no remedy for, or for another section.
    """
    unknown = [name for name in add if name not in ALONE]
    if unknown:
        raise PipelineError(f"--add takes {' or '.join(ALONE)}", got=", ".join(unknown), do="Correct the name.")
    changes = [_with_sections(_change(root, "params.yaml", upgraded_params), add)]
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
    source = _source()
    text = nested_parts(text)
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
    set_section(known, {name: _of_its_kind(name, path) for name, path in paths.items()})
    return dump_document(document)


def _with_sections(change: FileChange, names: Sequence[str]) -> FileChange:
    """The change of params.yaml with the shipped sections ``names``, where they are not there yet."""
    source, text = _source(), change.after
    for name in names:
        if not _is_there(parse_yaml(text, "params.yaml"), (name,)):
            text = _added(text, source, (name,), (name,))
    return replace(change, after=text)


def _source() -> _Source:
    return _Source(shipped("params.yaml").read_text(encoding="utf-8"))


def _of_its_kind(name: str, path: str) -> str:
    before, now = OTHER_KIND.get(name, ("", ""))
    return f"{path.removesuffix(before)}{now}" if before and path.endswith(before) else path


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
        place = (*SPACE, *part)
        if value_at(known, place) is not None and value_at(raw, place) is None and value_at(raw, SPACE) is not None:
            yield place, place


def _searched_parts(raw: Mapping[str, Any]) -> Iterator[Place]:
    for section in ("train", "method"):
        for key, value in (raw.get(section) or {}).items():
            if value == SEARCHED:
                yield (key,)
            elif isinstance(value, Mapping):
                yield from ((key, inner) for inner, found in value.items() if found == SEARCHED)


def _is_there(raw: Any, place: Place) -> bool:
    parent = value_at(raw, place[:-1])
    return isinstance(parent, Mapping) and place[-1] in parent


# --- editing lines ---------------------------------------------------------------------------------------------------


def _added(text: str, source: _Source, place: Place, example: Place) -> str:
    """The text with one key more: the lines of the shipped file, behind those of the key that is before it there."""
    document, known = load_document(text), source.document
    depth = next(n for n in range(1, len(place) + 1) if not _is_there(document, place[:n]))
    place, example = place[:depth], example[:depth]
    parent, there = mapping_at(document, place[:-1]), mapping_at(known, example[:-1])
    if parent is None or there is None:
        raise PipelineError("params.yaml must have mappings where the shipped one has them", got=".".join(place[:-1]))
    if parent.fa.flow_style() or there.fa.flow_style():
        parent[place[-1]] = there[example[-1]]
        return rewritten(text, document, place)
    names = list(there)
    before = [name for name in names[: names.index(example[-1])] if name in parent]
    lines, block = text.splitlines(), block_of(source.lines, known, example)
    shift = _column(parent) - there.lc.key(example[-1])[1]
    block = [" " * shift + line if shift > 0 and line else line[-shift:] if shift < 0 else line for line in block]
    at = span_of(lines, document, (*place[:-1], before[-1]))[1] if before else parent.lc.line
    if len(place) == 1:
        block = ["", *block] if before else [*block, ""]
    return "\n".join([*lines[:at], *block, *lines[at:]]) + "\n"


def _column(mapping: CommentedMap) -> int:
    return int(mapping.lc.key(next(iter(mapping)))[1])
