"""Neutral text: passages that have nothing to do with any task. Without torch, which is slow to import."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from pipelines.errors import PipelineError
from pipelines.files import sha256_json
from pipelines.params.evaluate import DEFAULT_TEXT
from pipelines.sources.addresses import FileSource, own_path, parse_source

MOST_PASSAGES = 100  # of a user's own text; the first ones
FEWEST_PASSAGES = 8  # by which an interval says something


@dataclass(frozen=True)
class NeutralText:
    """The passages of a text, by the name of their source."""

    name: str
    passages: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """The identity of what is read."""
        return sha256_json(list(self.passages))


def read_neutral(source: str, root: Path) -> NeutralText:
    """Read the project's neutral text, or the user's own: UTF-8, with an empty line between passages.

    Args:
        source: ``default``, or the address of a file, as ``file:data/own/NAME``.
        root: the project's root.

    Raises:
        PipelineError: if it is not there, is no text, or has too few passages.
    """
    try:
        whole = _own(source, root) if source != DEFAULT_TEXT else _shipped()
    except UnicodeDecodeError as error:
        raise PipelineError("evaluate.neutral must be a text in UTF-8", got=error, do="Convert it.") from None
    passages = [" ".join(part.split()) for part in whole.replace("\r\n", "\n").split("\n\n")]
    passages = [passage for passage in passages if passage][:MOST_PASSAGES]
    if len(passages) < FEWEST_PASSAGES:
        raise PipelineError(
            f"evaluate.neutral must have {FEWEST_PASSAGES} passages or more, with an empty line between two",
            got=len(passages),
            do=f"Give it more, or set evaluate.neutral: {DEFAULT_TEXT}.",
        )
    return NeutralText(source, tuple(passages))


def _own(source: str, root: Path) -> str:
    parsed = parse_source(source)
    assert isinstance(parsed, FileSource)  # params.yaml is read so
    return own_path(parsed, root).read_text(encoding="utf-8")


def _shipped() -> str:
    return resources.files("pipelines.diagnostics").joinpath("neutral.txt").read_text(encoding="utf-8")
