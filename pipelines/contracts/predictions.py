"""reports/predictions.jsonl: each test row with the answers of adapter and base, as the stage evaluate leaves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.contracts.reading import Fields, read_lines
from pipelines.files import write_jsonl

SYSTEMS = ("adapter", "base")


@dataclass(frozen=True)
class Said:
    """What a system answered: the value, and what else its task tells of an answer, by name."""

    value: str | float
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """A test row, what is right of it, and both answers.

    Attributes:
        id: FILE:LINE of the source.
        prompt: what the models read.
        adapter: what the adapter on its base answered.
        base: what the frozen base answered.
        label: the name of the right answer, or of the slice that the row is counted in; "" for none.
        choices: the texts that could be answered, where they differ by row.
        references: the texts that count as right, where the answer is free.
        domain: the row's t, or None in data without a domain column.
        second: the other text of a pair, which an encoder read beside the prompt; "" for none.
        task: of a mixture, the name of the task that the row is of; "" where there is one task.
    """

    id: str
    prompt: str
    adapter: Said
    base: Said
    label: str = ""
    choices: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    domain: float | None = None
    second: str = ""
    task: str = ""


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write predictions.jsonl; details stand beside the answers, as ``adapter_probabilities``."""
    write_jsonl(path, map(_written, predictions))


def read_predictions(path: Path) -> list[Prediction]:
    """Read predictions.jsonl.

    Raises:
        PipelineError: if it is not what the stage writes.
    """
    return read_lines(path, _read, stage="evaluate")


def _written(row: Prediction) -> dict[str, object]:
    right = {
        "label": row.label, "choices": list(row.choices), "references": list(row.references), "domain": row.domain,
        "second": row.second, "task": row.task,
    }  # fmt: skip
    both = {"adapter": row.adapter, "base": row.base}
    return {
        "id": row.id,
        "prompt": row.prompt,
        **{name: value for name, value in right.items() if value not in ("", [], None)},
        **{system: said.value for system, said in both.items()},
        **{f"{system}_{name}": value for system, said in both.items() for name, value in said.details.items()},
    }


def _read(raw: Fields) -> Prediction:
    both: dict[str, Said] = {}
    for system in SYSTEMS:
        own = {name for name in raw if name.startswith(f"{system}_")}
        both[system] = Said(raw[system], {name.removeprefix(f"{system}_"): raw[name] for name in raw if name in own})
        raw = {name: value for name, value in raw.items() if name not in own}
    lists = {name: tuple(raw.get(name, ())) for name in ("choices", "references")}
    return Prediction(**{**raw, **both, **lists})
