"""How the readers of stages' files tell that a file is not what a stage writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pipelines.errors import PipelineError
from pipelines.files import read_json

T = TypeVar("T")
Fields = dict[str, Any]


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


def read_list(path: Path, build: Callable[[Fields], T], *, stage: str) -> list[T]:
    """Read a JSON array of objects, each as :func:`read_fields` does one."""
    raw = read_json(path)
    return checked(path, lambda: [build(each) for each in _array(raw)], stage=stage)


def checked(path: Path, build: Callable[[], T], *, stage: str) -> T:
    """Build what a file holds; a field that is missing, strange or of another type is the stage's, named so."""
    try:
        return build()
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise PipelineError(
            f"{path} must hold what the stage {stage} writes",
            got=f"{type(error).__name__}: {error}",
            do=f"Run: dvc repro -f {stage}",
        ) from None


def _object(raw: Any) -> Fields:
    if not isinstance(raw, dict):
        raise TypeError(f"a {type(raw).__name__}")
    return raw


def _array(raw: Any) -> list[Fields]:
    if not isinstance(raw, list):
        raise TypeError(f"a {type(raw).__name__}")
    return [_object(each) for each in raw]
