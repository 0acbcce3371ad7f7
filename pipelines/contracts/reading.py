"""How the readers of stages' files tell that a file is not what a stage writes; and figures beside identities.

`dvc metrics show` and `diff` print every number and text of a metrics file, and leave out lists. So what says which
inputs and outputs the figures are of, hashes above all, stands in a list of one object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pipelines.errors import PipelineError
from pipelines.files import read_json, read_jsonl, write_json

T = TypeVar("T")
Fields = dict[str, Any]
IDENTITIES = "identities"  # the key of that list


def read_fields(path: Path, build: Callable[[Fields], T], *, stage: str) -> T:
    """Read a JSON object and build what it holds.

    Args:
        path: of the file.
        build: gets the object's fields; raises TypeError, KeyError, ValueError or AttributeError for what is not there.
        stage: that writes the file.

    Raises:
        PipelineError: if the file is missing, or holds something else.
    """
    raw = read_json(path)
    return checked(path, lambda: build(_object(raw)), stage=stage)


def write_metrics(path: Path, values: Mapping[str, Any], *, identities: Sequence[str]) -> None:
    """Write a metrics file.

    Args:
        path: of the file.
        values: its fields.
        identities: names of the fields that are no figures, and that DVC is not to print.
    """
    figures = {name: value for name, value in values.items() if name not in identities}
    write_json(path, {**figures, IDENTITIES: [{name: values[name] for name in identities}]})


def read_metrics(path: Path, build: Callable[[Fields], T], *, stage: str) -> T:
    """Read a metrics file, as :func:`read_fields` does; up to release 0.1 identities stood among the figures."""

    def whole(raw: Fields) -> T:
        figures = {name: value for name, value in raw.items() if name != IDENTITIES}
        for identities in _array(raw.get(IDENTITIES, [])):
            figures = {**identities, **figures}
        return build(figures)

    return read_fields(path, whole, stage=stage)


def read_list(path: Path, build: Callable[[Fields], T], *, stage: str) -> list[T]:
    """Read a JSON array of objects, each as :func:`read_fields` does one."""
    raw = read_json(path)
    return checked(path, lambda: [build(each) for each in _array(raw)], stage=stage)


def read_lines(path: Path, build: Callable[[Fields], T], *, stage: str) -> list[T]:
    """Read a JSON object a line, each as :func:`read_fields` does one."""
    raw = read_jsonl(path)
    return checked(path, lambda: [build(each) for each in _array(raw)], stage=stage)


def checked(path: Path, build: Callable[[], T], *, stage: str) -> T:
    """Build what a file holds; a field that is missing, strange or of another type is the stage's, named so."""
    try:
        return build()
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise PipelineError(
            f"{path} must hold what the stage {stage} writes",
            got=f"{type(error).__name__}: {error}",
            do=f"Run: dvc repro -f -s {stage}",
        ) from None


def _object(raw: Any) -> Fields:
    if not isinstance(raw, dict):
        raise TypeError(f"a {type(raw).__name__}")
    return raw


def _array(raw: Any) -> list[Fields]:
    if not isinstance(raw, list):
        raise TypeError(f"a {type(raw).__name__}")
    return [_object(each) for each in raw]
